"""Hypothesis strategies for domains of every kind and for right-hand sides composed on them."""

from __future__ import annotations

import math
from functools import partial
from typing import Any

import torch
from hypothesis import strategies as st
from torch import Tensor, nn

from neuralpde.heat import Heat
from neuralpde.phase_field import AllenCahn, CahnHilliard
from neuralpde.rhs import RightHandSide, as_right_hand_side
from neuralpde.symmetry import Permutation, RigidMotion, Symmetry
from neuralpde.testing_graphs import graphs
from neuralpde.testing_grids import grids
from neuralpde.testing_meshes import meshes
from neuralpde.testing_points import point_clouds
from neuralpde.waves import Wave
from operators.domains import Domain, Graph, PointCloud, TriangleMesh
from operators.grids import Grid, grid_laplacian
from operators.laplacian import Laplacian, combinatorial_laplacian
from operators.surface import robust_laplacian

__all__ = ["Growth", "domains", "knn_laplacian", "laplacian_of", "right_hand_sides"]


def domains(*, dtype: torch.dtype = torch.float64) -> st.SearchStrategy[Domain]:
    """A graph, a mesh, a grid or a point cloud (of two points at least), of all that `graphs`, `meshes`, ... draw.

    A failing example shrinks to a single triangle, or to the least domain of the kind that fails.
    """
    return st.one_of(graphs(dtype=dtype), meshes(dtype=dtype), grids(dtype=dtype), point_clouds(dtype=dtype, min_points=2))


def knn_laplacian(cloud: PointCloud, neighbours: int = 5) -> Laplacian:
    """The combinatorial Laplacian of the nearest neighbours, which any cloud of two points or more has.

    A cloud of fewer points than `neighbours` joins all of them.
    """
    graph = cloud.knn_graph(min(neighbours, cloud.num_nodes - 1))
    of_graph = combinatorial_laplacian(graph)
    return Laplacian(of_graph.stiffness, of_graph.mass, partial(knn_laplacian, neighbours=neighbours))


def laplacian_of(domain: Domain | Laplacian) -> Laplacian:
    """A Laplacian that every domain of its kind has: robust, combinatorial, of a grid, of nearest neighbours; or the given."""
    if isinstance(domain, Laplacian):
        return domain
    if isinstance(domain, TriangleMesh):
        return robust_laplacian(domain)
    if isinstance(domain, Graph):
        return combinatorial_laplacian(domain)
    if isinstance(domain, Grid):
        return grid_laplacian(domain)
    if isinstance(domain, PointCloud):
        return knn_laplacian(domain)
    raise TypeError(f"a {type(domain).__name__} is no domain and no Laplacian")


class Growth(RightHandSide):
    """du/dt = r u (1 − u) at every node: logistic growth, the reaction of Fisher and KPP. `rate`: r, in 1/time."""

    def __init__(self, rate: float, *, learn: bool = False) -> None:
        super().__init__()
        self.r = nn.Parameter(torch.tensor(rate, dtype=torch.float64), requires_grad=learn)

    def forward(self, t: Tensor, u: Tensor) -> Tensor:
        return self.r.to(u.dtype) * u * (1 - u)

    @property
    def symmetries(self) -> tuple[Symmetry, ...]:
        return (Permutation(), RigidMotion())

    def extra_repr(self) -> str:
        return f"rate={float(self.r.detach())}"


@st.composite
def right_hand_sides(
    draw: st.DrawFn,
    domain: Domain | Laplacian,
    *,
    parts: int = 1,
    max_terms: int = 3,
    fastest: float = 4.0,
    learn: bool = False,
) -> RightHandSide:
    """Right-hand sides on a domain: one equation, or a sum of up to `max_terms`, each perhaps scaled.

    On a field: heat, logistic growth, Allen and Cahn, Cahn and Hilliard, a decay written as a plain function, a forcing in time.
    On a state (u, v): waves, damped and heavy ones, and friction written as a plain function. What they declare (linear parts,
    invariants, symmetries) is what the terms and their composition declare. A failing example shrinks to one term, unscaled:
    heat, or the plain wave.

    Args:
        domain: or its Laplacian, if another than `laplacian_of(domain)` is wanted.
        parts: 1 for a state that is a field, 2 for a state (u, v); draw it from `states(domain, parts=parts)`.
        fastest: no linear term has a rate (κ‖L‖, c√‖L‖, ...) above this, in 1/time, however large the domain; a factor of
            up to 2 comes on top.
        learn: coefficients and factors require gradients.
    """
    if parts not in (1, 2):
        raise ValueError(f"there are right-hand sides for states of one or two parts, not {parts}")
    laplacian = laplacian_of(domain)
    rates = st.sampled_from([fastest, fastest / 4, fastest / 64])
    kinds = [_heat, _growth, _allen_cahn, _cahn_hilliard, _decay, _forcing] if parts == 1 else [_wave, _heavy, _damped, _friction]
    norm = laplacian.norm_bound() or 1.0
    total: Any = None
    for kind, rate, factor in draw(
        st.lists(st.tuples(st.sampled_from(kinds), rates, st.sampled_from([None, 0.5, 2.0])), min_size=1, max_size=max_terms),
        label="terms",
    ):
        term: RightHandSide = kind(laplacian, norm, rate, learn)
        if factor is not None:
            term = term * (nn.Parameter(torch.tensor(factor, dtype=laplacian.mass.dtype)) if learn else factor)
        total = term if total is None else total + term
    result: RightHandSide = total
    return result


def _heat(laplacian: Laplacian, norm: float, rate: float, learn: bool) -> RightHandSide:
    return Heat(laplacian, rate / norm, learn=learn)


def _growth(laplacian: Laplacian, norm: float, rate: float, learn: bool) -> RightHandSide:
    return Growth(rate / 4, learn=learn)


def _allen_cahn(laplacian: Laplacian, norm: float, rate: float, learn: bool) -> RightHandSide:
    return AllenCahn(laplacian, math.sqrt(rate / norm), learn=learn)


def _cahn_hilliard(laplacian: Laplacian, norm: float, rate: float, learn: bool) -> RightHandSide:
    return CahnHilliard(laplacian, 1 / math.sqrt(norm), rate / norm, learn=learn)


def _decay(laplacian: Laplacian, norm: float, rate: float, learn: bool) -> RightHandSide:
    return as_right_hand_side(partial(_minus, rate / 4))


def _minus(rate: float, t: Tensor, u: Tensor) -> Tensor:
    return -rate * u


def _forcing(laplacian: Laplacian, norm: float, rate: float, learn: bool) -> RightHandSide:
    return as_right_hand_side(partial(_swing, rate))


def _swing(rate: float, t: Tensor, u: Tensor) -> Tensor:
    return torch.ones_like(u) * torch.sin(rate * torch.as_tensor(t)).to(u.dtype)


def _wave(laplacian: Laplacian, norm: float, rate: float, learn: bool) -> RightHandSide:
    return Wave(laplacian, rate / math.sqrt(norm), learn=learn)


def _heavy(laplacian: Laplacian, norm: float, rate: float, learn: bool) -> RightHandSide:
    return Wave(laplacian, rate / math.sqrt(norm), mass=rate / 2, learn=learn)


def _damped(laplacian: Laplacian, norm: float, rate: float, learn: bool) -> RightHandSide:
    return Wave(laplacian, rate / math.sqrt(norm), damping=rate / 2, learn=learn)


def _friction(laplacian: Laplacian, norm: float, rate: float, learn: bool) -> RightHandSide:
    return as_right_hand_side(partial(_slowed, rate / 4))


def _slowed(rate: float, t: Tensor, x: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
    u, v = x
    return torch.zeros_like(u), -rate * v * v.abs()
