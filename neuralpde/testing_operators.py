"""The laws of every linear operator on fields, its equivariance, and how laws are held against cases."""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Any

import numpy as np
import scipy.sparse as sp
import torch
from numpy.typing import NDArray
from torch import Tensor

from integrators.state import parts_of
from neuralpde.symmetry import RigidMotion, Symmetry
from neuralpde.testing_cases import Case
from neuralpde.testing_entries import amplification
from neuralpde.testing_measured import Measured, compared, fact, worst_of
from neuralpde.testing_search import Search, checked, is_strategy, name_of, words
from operators import Graph, TriangleMesh

OperatorLaw = Callable[[Case], Measured | None]


def hold(build: Any, laws: Collection[Callable[[Any], Measured | None]], found: Any, search: Search) -> Measured:
    """Hold laws against the cases that a strategy draws, or against a few given ones."""
    __tracebackhide__ = True
    name = name_of(build)
    if is_strategy(found):
        return search(name, found, lambda case: checked(name, laws, case))
    worst = worst_of([checked(name, laws, case) for case in found])
    if worst is None:
        raise AssertionError(f"none of these laws applies to {name}: {', '.join(map(words, laws))}")
    return worst


def keeps_shape_and_dtype(case: Case) -> Measured:
    """A x has the shape (..., m, c), the dtype of A and x, and is finite."""
    A, x = case.operator, case.cast(case.x)
    y = A @ x
    expected = (*x.shape[:-2], A.shape[0], x.shape[-1])
    dtype = torch.promote_types(A.dtype, x.dtype)
    if case.domain is not None and (n := getattr(case.domain, "num_nodes", None)) is not None and A.shape[1] != n:
        return fact(words(keeps_shape_and_dtype), False, f"the operator has shape {A.shape} on {n} nodes")
    if tuple(y.shape) != expected or y.dtype != dtype:
        told = f"A @ x has shape {tuple(y.shape)} and {y.dtype}, not {expected} and {dtype}"
        return fact(words(keeps_shape_and_dtype), False, told)
    return fact(words(keeps_shape_and_dtype), bool(torch.isfinite(y).all()), "A @ x is not finite for a finite x")


def leaves_its_input_alone(case: Case) -> Measured:
    """A x does not write into x, and is no view of it."""
    x = case.cast(case.x).clone()
    before = x.clone()
    y = case.operator @ x
    told = "x is changed by A @ x: write x = x + … instead of x += …"
    if not torch.equal(x, before):
        return fact(words(leaves_its_input_alone), False, told)
    shared = y.numel() > 0 and y.untyped_storage().data_ptr() == x.untyped_storage().data_ptr()
    return fact(words(leaves_its_input_alone), not shared, "A @ x shares memory with x: return a copy")


def linear(case: Case) -> Measured:
    """A (a x + b y) = a A x + b A y."""
    A, x, y = case.operator, case.cast(case.x), case.cast(case.y)
    a, b = 0.75, -3.0
    bound = 16 * case.unit * case.rows(a * case.x, b * case.y)
    return compared(words(linear), A @ (a * x + b * y), a * (A @ x) + b * (A @ y), bound, "16 u Σ_j |A_ij| (|a x_j| + |b y_j|)")


def a_batch_is_a_loop(case: Case) -> Measured:
    """Batch members, channels and memory layouts do not see each other."""
    A, x, y = case.operator, case.cast(case.x), case.cast(case.y)
    batch = torch.stack([x, y])
    one_by_one = torch.stack([torch.cat([A @ field[:, k : k + 1] for k in range(2)], dim=1) for field in (x, y)])
    rows = 16 * case.unit * torch.stack([case.rows(case.x), case.rows(case.y)])
    name, rule = words(a_batch_is_a_loop), "16 u Σ_j |A_ij| |x_j|"
    strided = batch.transpose(0, 2).contiguous().transpose(0, 2)
    found = [compared(name, (A @ stacked), one_by_one, rows, rule) for stacked in (batch, strided)]
    found.append(fact(name, tuple((A @ x[:, :0]).shape) == (A.shape[0], 0), "no channels in do not give no channels out"))
    return max(found, key=float)


def equivariant(case: Case, symmetry: Symmetry, name: str = "") -> Measured:
    """A(g domain) g x = g A(domain) x for a random motion g; edges and faces are shuffled too."""
    domain = case.domain
    generator = case.generator()
    motion = symmetry.draw(domain, generator)
    moved = shuffled(symmetry.domain(motion, domain), generator)
    x = case.cast(case.x)
    found = case.rebuilt(moved) @ _field(symmetry, motion, x)
    expected = _field(symmetry, motion, case.operator @ x)
    if isinstance(domain, Graph):
        bound, rule = 32 * case.unit * case.rows(case.x), "32 u Σ_j |A_ij| |x_j|"
    else:
        # By the largest entry: round-off may flip an edge, or be all that is left of a weight. Delaunay flips add up.
        weights = case.weights.clamp(min=1e-300)[:, None]
        entry = float((sp.diags_array(weights[:, 0].numpy()) @ case.size).max()) if case.size.nnz else 0.0
        u = case.unit + case.unit / amplification(domain) * amplification(moved)
        bound = (128 if isinstance(symmetry, RigidMotion) else 32) * u * entry * case.x.abs().sum(0) / weights
        rule = "128 u max |m_i A_ij| Σ |x_j| / m_i, times the aspect of the triangles"
    return compared(
        name or f"equivariant under {type(symmetry).__name__}", found, expected, _field(symmetry, motion, bound), rule
    )


def _field(symmetry: Symmetry, motion: Any, x: Tensor) -> Tensor:
    (moved,) = parts_of(symmetry.field(motion, x))
    return moved


def shuffled(domain: Any, generator: torch.Generator) -> Any:
    """The same domain with its edges or faces in another order."""
    if isinstance(domain, Graph):
        order = torch.randperm(domain.edge_index.shape[1], generator=generator)
        return Graph(domain.edge_index[:, order], domain.nodes, domain.edge_weight[order])
    if isinstance(domain, TriangleMesh):
        order = torch.randperm(len(domain.faces), generator=generator)
        turn = int(torch.randint(3, (), generator=generator))
        return TriangleMesh(domain.vertices, domain.faces[order].roll(turn, 1))
    return domain


def components(domain: Any) -> NDArray[np.int64] | None:
    """The component of each node, told by the domain's own edges; None where it has none."""
    if isinstance(domain, Graph):
        edges = domain.edge_index[:, domain.edge_weight != 0]
    elif isinstance(domain, TriangleMesh):
        edges = domain.edges
    else:
        return None
    n = domain.num_nodes
    joined = sp.coo_array((np.ones(edges.shape[1]), edges.cpu().numpy()), shape=(n, n))
    labels: NDArray[np.int64] = sp.csgraph.connected_components(joined, directed=False)[1].astype(np.int64)
    return labels


OPERATOR_LAWS: tuple[OperatorLaw, ...] = (keeps_shape_and_dtype, leaves_its_input_alone, linear, a_batch_is_a_loop)
"""What every linear operator on fields promises."""
