"""Nonlinear stencils fitted in closed form: what a source and one rate explain."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch

from neuralpde.mesh_baselines_stencils import Stencil, Terms
from neuralpde.mesh_case import Scene


@dataclass(frozen=True)
class Cubic(Stencil):
    """y' = y + dt (a + b y + c y² + d y³ − e L y)."""

    name: ClassVar[str] = "stencil-cubic"

    def terms(self, scene: Scene) -> Terms:
        laplacian, dt = self.stand.of(scene), scene.dt
        return lambda y, before: (y, dt * torch.cat([torch.ones_like(y), y, y**2, y**3, -(laplacian @ y)], dim=-1))


@dataclass(frozen=True)
class OwnCubic(Cubic):
    """The same fitted to each rollout's five frames."""

    name: ClassVar[str] = "stencil-cubic-own"
    own: ClassVar[bool] = True
