"""Forms that are linear functions of one Laplacian: dissipation, and oscillation with damping."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Self

import torch
from torch import Tensor

from integrators import Direct, Euler, Integrator, State, StoermerVerlet
from neuralpde.mesh_case import Case, Given, Scene
from neuralpde.mesh_ours_form import Form, Normal, single_steps
from neuralpde.metriplectic import MetriplecticFlow, MetriplecticWave

DEGREE = 5
"""Powers of the Laplacian in a law that is solved exactly: enough for steps of half the limit of stability."""
# A coefficient that starts at zero would stay there.
FLOOR = 1e-3


def powers(scene: Scene, order: int, x: Tensor, count: int) -> Tensor:
    """σ x, σ² x, ... with σ = τ L or τ² L; (..., n, 1) → (..., n, count)."""
    laplacian, terms = scene.laplacian.to_wide(x), [x]
    for _ in range(count):
        terms.append(scene.dt**order * laplacian(terms[-1]))
    return torch.cat(terms[1:], dim=-1)


class Dissipative(Form):
    """u_t = −R(L) u, solved exactly; or −ρ L u by one step of Euler's a frame.

    Args:
        dissipation: ρ_1, ρ_2, ... at the start.
        frame_by_frame: the second.
    """

    def __init__(self, scene: Scene, dissipation: Sequence[float], frame_by_frame: bool) -> None:
        super().__init__()
        self.frame_by_frame = frame_by_frame
        self.flow = MetriplecticFlow(scene.laplacian, scene.dt, dissipation)
        self.flow.V.requires_grad_(False)

    @property
    def title(self) -> str:
        return "dissipation, one explicit step a frame" if self.frame_by_frame else "dissipation"

    @classmethod
    def fitted(cls, cases: Sequence[Case], *, frame_by_frame: bool = False) -> Self:
        normal = Normal(1 if frame_by_frame else 3)
        for case in cases:
            _, now, after = single_steps(case)
            # A flow has u₊ − u = −tanh(τR/2) (u₊ + u), and Euler's step u₊ − u = −ρσ u.
            terms = powers(case.scene, 1, now if frame_by_frame else now + after, len(normal.moment))
            normal.add(-terms, (after - now)[..., 0])
        a, *more = normal.solved([True] + [False] * (len(normal.moment) - 1)).tolist()
        if frame_by_frame:
            return cls(cases[0].scene, [max(a, FLOOR)], True)
        start = [2 * a, 2 * more[0], 2 * more[1] + 2 / 3 * a**3]
        return cls(cases[0].scene, [max(c, FLOOR) for c in start] + [FLOOR] * (DEGREE - 3), False)

    def equation(self, scene: Scene) -> MetriplecticFlow:
        return self.flow.over(scene.laplacian, scene.dt)

    def solver(self, scene: Scene) -> Integrator:
        return Euler(dt=scene.dt, gradient=Direct()) if self.frame_by_frame else self.exact(scene)


class Oscillating(Form):
    """u_tt = −Ω²(L) u − D(L) u_t, solved exactly from the state nearest to the given frames; or −ω L u by leapfrog.

    Args:
        stiffness: ω_1, ω_2, ... at the start.
        damping: δ_1, δ_2, ... at the start.
        frame_by_frame: the second, without damping.
    """

    def __init__(self, scene: Scene, stiffness: Sequence[float], damping: Sequence[float], frame_by_frame: bool) -> None:
        super().__init__()
        self.frame_by_frame = frame_by_frame
        self.flow = MetriplecticWave(scene.laplacian, scene.dt, stiffness, damping)

    @property
    def title(self) -> str:
        return "oscillation, one explicit step a frame" if self.frame_by_frame else "oscillation"

    @classmethod
    def fitted(cls, cases: Sequence[Case], *, frame_by_frame: bool = False) -> Self:
        normal = Normal(1 if frame_by_frame else 4)
        for case in cases:
            before, now, after = single_steps(case)
            # A flow without damping has u₊ − 2u + u₋ = −2 (1 − cos Ωτ) u, and leapfrog −ωσ u.
            terms = -powers(case.scene, 2, now, 1 if frame_by_frame else 3)
            if not frame_by_frame:
                terms = torch.cat([terms, powers(case.scene, 2, (before - after) / 2, 1)], dim=-1)
            normal.add(terms, (after - 2 * now + before)[..., 0])
        if frame_by_frame:
            return cls(cases[0].scene, [max(float(normal.solved([True])[0]), FLOOR)], [], True)
        a, b, c, damped = normal.solved([True, False, False, True]).tolist()
        start = [a, b + a**2 / 12, c + a * b / 6 + a**3 / 90]
        stiffness = [max(c, FLOOR) for c in start] + [FLOOR] * (DEGREE - 3)
        return cls(cases[0].scene, stiffness, [min(damped, 0.1)] if damped > 0 else [], False)

    def equation(self, scene: Scene) -> MetriplecticWave:
        return self.flow.over(scene.laplacian, scene.dt)

    def solver(self, scene: Scene) -> Integrator:
        return StoermerVerlet(dt=scene.dt, gradient=Direct()) if self.frame_by_frame else self.exact(scene)

    def begin(self, given: Given) -> State:
        """(q, p): by least squares over all given frames, eigenfunction by eigenfunction; or what leapfrog has there."""
        scene, frames = given.scene, given.frames
        flow = self.equation(scene)
        if self.frame_by_frame:
            q, before = frames[:, -1], frames[:, -2]
            return q, (q - before) / scene.dt + scene.dt / 2 * flow.force(torch.zeros(()), q)
        part = flow.linear
        times = scene.dt * torch.arange(1 - frames.shape[1], 1, dtype=torch.float64)

        def estimate(eigenvalues: Tensor) -> Tensor:
            rows = torch.stack([part.flow(eigenvalues, t)[:, 0] for t in times], dim=1)
            estimated: Tensor = torch.linalg.solve(rows.mT @ rows, rows.mT)
            return estimated

        state: State = part.filtered(estimate, frames.movedim(1, 0))
        return state
