"""Forms of a gradient flow with a learned potential: Allen–Cahn's and Cahn–Hilliard's kind."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Self

import torch

from integrators import SBDF2, Direct, Integrator
from neuralpde.gradient_flow import GradientFlow
from neuralpde.mesh_case import Case, Scene
from neuralpde.mesh_ours_form import Form, Normal, single_steps
from neuralpde.semi_implicit import SemiImplicitEuler

FLOOR = 1e-3
STEPS_A_FRAME = 4


class Phase(Form):
    """τ u_t = −K (a σ u + φ(u)), solved accurately, or by one implicit-explicit step a frame whose splitting is learned too.

    Args:
        conserved: K = σ, else I.
        frame_by_frame: the second.
    """

    def __init__(
        self, scene: Scene, stiffness: float, potential: Sequence[float], split: float, conserved: bool, frame_by_frame: bool
    ) -> None:
        super().__init__()
        self.frame_by_frame = frame_by_frame
        self.flow = GradientFlow(
            scene.laplacian,
            scene.dt,
            stiffness,
            potential,
            conserved=conserved,
            stabilization=split,
            learn_split=frame_by_frame,
        )

    @property
    def title(self) -> str:
        kind = "conserved gradient flow" if self.flow.conserved else "gradient flow"
        return f"{kind}, one semi-implicit step a frame" if self.frame_by_frame else kind

    @classmethod
    def fitted(cls, cases: Sequence[Case], *, conserved: bool = True, frame_by_frame: bool = True) -> Self:
        normal = Normal(5)
        for case in cases:
            _, now, after = single_steps(case)
            middle = now if frame_by_frame else (now + after) / 2
            ahead = after if frame_by_frame else middle
            split = after - now if frame_by_frame else torch.zeros_like(now)
            dt, laplacian = case.scene.dt, case.scene.laplacian.to_wide(now)
            terms = torch.cat([dt * laplacian(ahead), split, middle, middle**2, middle**3], dim=-1)
            terms = -dt * laplacian(terms) if conserved else -terms
            both = torch.cat([terms, after - now], dim=-1)
            # What an implicit step damps says nothing of the equation.
            for _ in range(2):
                both = laplacian.solve(dt, both)
            normal.add(both[..., :-1], both[..., -1])
        a, b, *potential = normal.solved([True, True, False, False, True]).tolist()
        potential[2] = max(potential[2], FLOOR)
        return cls(cases[0].scene, max(a, FLOOR), potential, max(b, FLOOR) * frame_by_frame, conserved, frame_by_frame)

    def equation(self, scene: Scene) -> GradientFlow:
        return self.flow.over(scene.laplacian, scene.dt)

    def solver(self, scene: Scene) -> Integrator:
        if self.frame_by_frame:
            return SemiImplicitEuler(dt=scene.dt, gradient=Direct())
        return SBDF2(dt=scene.dt / STEPS_A_FRAME, gradient=Direct())
