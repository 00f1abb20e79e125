"""What a learned method has to beat: nothing, no change, and the schemes that are told everything but the right operator."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import ClassVar

import torch
from torch import Tensor

from neuralpde.mesh_case import Case, Given, Scene
from neuralpde.mesh_method import Fitted, Method, Told, autoregressive
from operators import Laplacian, cotangent_laplacian, normalized_laplacian


class Stand(Enum):
    """Which operator a scheme stands on."""

    SIMULATION = "simulation"
    COTANGENT = "cotangent"
    ROBUST = "robust"
    NORMALISED = "normalised"

    def of(self, scene: Scene) -> Laplacian:
        """The operator on a scene, in float64: that of the simulation; M⁻¹ C with plain cotangents; the robust Laplacian;
        I − D^-½ W D^-½ of the robust weights, which knows no area and no time."""
        if self is Stand.SIMULATION:
            chosen = scene.laplacian
        elif self is Stand.COTANGENT:
            chosen = cotangent_laplacian(scene.mesh)
        else:
            chosen = scene.robust if self is Stand.ROBUST else normalized_laplacian(scene.robust)
        # Not .to(): it would widen the scene's own operator in place.
        return chosen.to_wide(torch.empty(0, dtype=torch.float64))


@dataclass(frozen=True)
class Untrained(Method, Fitted):
    """A method that has nothing to learn."""

    random: ClassVar[bool] = False

    def fit(self, cases: Sequence[Case], seed: int, checkpoint: Path, told: Told) -> Fitted:
        return self


@dataclass(frozen=True)
class Zero(Untrained):
    """y' = 0: it scores an NRMSE of one a step."""

    name: ClassVar[str] = "zero"

    def rollout(self, given: Given, steps: int) -> Tensor:
        return torch.zeros_like(given.frames[:, :1]).repeat(1, steps, 1, 1)


@dataclass(frozen=True)
class Persistence(Untrained):
    """y' = y, the last given frame for ever."""

    name: ClassVar[str] = "persistence"

    def rollout(self, given: Given, steps: int) -> Tensor:
        return given.frames[:, -1:].repeat(1, steps, 1, 1)


@dataclass(frozen=True)
class Scheme(Untrained):
    """A time step that is told the rate, 1, on one operator.

    Args:
        order: of the equation in time, 1 (heat) or 2 (waves).
        stand: the operator.
    """

    order: int = 1
    stand: Stand = Stand.SIMULATION

    @torch.no_grad()
    def rollout(self, given: Given, steps: int) -> Tensor:
        advance = self.advance(self.stand.of(given.scene), given.scene.dt**self.order)

        def step(frames: Tensor) -> Tensor:
            y, before = frames[:, -1], frames[:, -2]
            return advance(y if self.order == 1 else 2 * y - before, y)

        return autoregressive(step, given.frames.double(), steps).to(given.frames.dtype)

    @abstractmethod
    def advance(self, laplacian: Laplacian, scale: float) -> Callable[[Tensor, Tensor], Tensor]:
        """(y without forces, y) ↦ the next frame, with scale = dt or dt²."""


@dataclass(frozen=True)
class ImplicitEuler(Scheme):
    """y' = (I + dt L)⁻¹ y, or (I + dt² L)⁻¹ (2y − y₋)."""

    name: ClassVar[str] = "implicit-euler"

    def advance(self, laplacian: Laplacian, scale: float) -> Callable[[Tensor, Tensor], Tensor]:
        return lambda free, y: laplacian.solve(scale, free)


@dataclass(frozen=True)
class ExplicitMass(Scheme):
    """y' = y − dt M⁻¹ C y, or 2y − y₋ − dt² M⁻¹ C y, with plain cotangents."""

    name: ClassVar[str] = "explicit-mass"
    stand: Stand = Stand.COTANGENT

    def advance(self, laplacian: Laplacian, scale: float) -> Callable[[Tensor, Tensor], Tensor]:
        return lambda free, y: free - scale * (laplacian(y))


@dataclass(frozen=True)
class ExplicitRobust(ExplicitMass):
    """The same with the robust Laplacian."""

    name: ClassVar[str] = "explicit-robust"
    stand: Stand = Stand.ROBUST
