"""The form of transport by a velocity that is linear in the position, with a little diffusion."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Self
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from integrators import Direct, Euler, Integrator, LinearPart
from neuralpde.invariants import Invariant, Law, Mass, Norm
from neuralpde.mesh_case import Case, Scene
from neuralpde.mesh_ours_form import Form, Normal, single_steps
from neuralpde.rhs import RightHandSide
from operators import Laplacian, SparseOperator
from operators.cell_sides import cell_sides
from operators.mass import face_corners
from operators.pattern import SparsityPattern

FLOOR = 1e-6


class StirredFlow(RightHandSide):
    """du/dt = J u − κ L u with (J u)_i = −½ Σ_j F_ij u_j / m_i, skew in ⟨x, y⟩_M for every antisymmetric F.

    F_ij is what the velocity carries from cell i to cell j. Where that is free of divergence, J u = −div(u b) with the centred
    flux, and the mass stays; d‖u‖²/dt = −2κ⟨u, L u⟩ ≤ 0 for any F and κ ≥ 0.

    Args:
        laplacian: L, with the masses m.
        flows: F as a sparse matrix.
        diffusivity: κ, in length²/time.
    """

    def __init__(self, laplacian: Laplacian, flows: SparseOperator, diffusivity: Tensor) -> None:
        super().__init__()
        self.laplacian, self.flows, self.diffusivity = laplacian, flows, diffusivity

    def forward(self, t: Tensor, u: Tensor) -> Tensor:
        slope: Tensor = self.flows(u) / (-2 * self.laplacian.mass[:, None]) - self.diffusivity * self.laplacian(u)
        return slope

    @property
    def linear(self) -> LinearPart:
        return _StirredPart(self)

    @property
    def invariants(self) -> tuple[Invariant, ...]:
        law = Law.CONSERVED if float(self.diffusivity.detach()) == 0 else Law.NON_INCREASING
        norm: tuple[Invariant, ...] = (Norm(self.laplacian, law),)
        sums, sizes = self.flows.row_sums().detach().abs(), self.flows.values.detach().abs()
        level = not len(sizes) or bool((sums <= 64 * torch.finfo(sizes.dtype).eps * sizes.max()).all())
        return (*norm, Mass(self.laplacian)) if level and self.laplacian.kills_constants else norm


class _StirredPart:
    self_adjoint = False

    def __init__(self, flow: StirredFlow) -> None:
        self.flow = flow

    def __matmul__(self, u: Tensor) -> Tensor:
        slope: Tensor = self.flow(torch.zeros(()), u)
        return slope

    def norm_bound(self) -> float:
        flow = self.flow
        root = flow.laplacian.mass.detach().rsqrt() / math.sqrt(2)
        sizes = SparseOperator(flow.flows.pattern, flow.flows.values.detach().abs()).scaled(root, root).row_sums()
        return float(sizes.max()) + float(flow.diffusivity.detach()) * flow.laplacian.norm_bound()

    def solve(self, shift: Tensor, b: Tensor) -> Tensor:
        raise NotImplementedError("the flow of a velocity and a diffusion has no factorisation here: use Exponential or RK4")


class Transport(Form):
    """u_t = −div(u b) − κ L u with b = n × a, |a| in length/time, and κ = κ₀ + κ₁ τ, solved exactly or by Euler's steps.

    b is n × grad ψ for the stream function ψ = a·p of the positions p. κ₁ (in length²/time²) is a diffusion that grows with the
    step, as that of numerical schemes does.

    Args:
        frame_by_frame: one Euler step a frame.
    """

    def __init__(self, axis: Sequence[float], diffusivities: Sequence[float], frame_by_frame: bool) -> None:
        super().__init__()
        self.axis = nn.Parameter(torch.tensor(list(axis), dtype=torch.float64))
        self.root = nn.Parameter(torch.tensor(list(diffusivities), dtype=torch.float64).sqrt())
        self.frame_by_frame = frame_by_frame

    @property
    def title(self) -> str:
        return "transport, one explicit step a frame" if self.frame_by_frame else "transport"

    @classmethod
    def fitted(cls, cases: Sequence[Case], *, frame_by_frame: bool = True) -> Self:
        normal = Normal(5)
        for case in cases:
            _, now, after = single_steps(case)
            at = now if frame_by_frame else (now + after) / 2
            laplacian, dt = case.scene.laplacian.to_wide(now), case.scene.dt
            mass = -2 * laplacian.mass[:, None]
            pattern, values = axes(case.scene)
            turned = [SparseOperator(pattern, axis)(at) / mass for axis in values]
            spread = -laplacian(at)
            normal.add(dt * torch.cat([*turned, spread, dt * spread], dim=-1), (after - now)[..., 0])
        found = normal.solved([False, False, False, True, True])
        # What starts at zero would stay there, if learned as a square.
        typical = sum(case.scene.dt for case in cases) / len(cases)
        speed = float(found[:3].square().sum())
        floor = FLOOR * max(speed, 1e-300)
        return cls(found[:3].tolist(), [max(float(found[3]), floor * typical), max(float(found[4]), floor)], frame_by_frame)

    def equation(self, scene: Scene) -> StirredFlow:
        dtype = scene.laplacian.dtype
        pattern, values = axes(scene)
        flows = SparseOperator(pattern, (self.axis @ values).to(dtype))
        steady, growing = self.root**2
        return StirredFlow(scene.laplacian, flows, (steady + growing * scene.dt).to(dtype))

    def solver(self, scene: Scene) -> Integrator:
        return Euler(dt=scene.dt, gradient=Direct()) if self.frame_by_frame else self.exact(scene)


_AXES: WeakKeyDictionary[Any, tuple[SparsityPattern, Tensor]] = WeakKeyDictionary()


def axes(scene: Scene) -> tuple[SparsityPattern, Tensor]:
    """F of b = n × e for the three unit vectors e: one pattern, and values (3, nnz) in float64; made once for each scene."""
    kept = _AXES.get(scene.laplacian)
    if kept is None:
        mesh = scene.mesh.to(torch.float64)
        sides, corners = cell_sides(mesh), face_corners(mesh)
        normal = torch.linalg.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
        normal = normal / torch.linalg.vector_norm(normal, dim=1, keepdim=True).clamp(min=1e-300)
        i, j = sides.edges
        row, col = torch.cat([i, j]), torch.cat([j, i])
        made = []
        for unit in torch.eye(3, dtype=torch.float64):
            flows = sides.flows(torch.linalg.cross(normal, unit.expand_as(normal)))[: len(i)]
            made.append(SparseOperator.from_entries(row, col, torch.cat([flows, -flows]), scene.laplacian.shape))
        kept = _AXES[scene.laplacian] = made[0].pattern, torch.stack([entries.values for entries in made])
    return kept
