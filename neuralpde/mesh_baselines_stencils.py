"""Linear stencils fitted in closed form, on training trajectories or on the five frames that every rollout is given."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import torch
from torch import Tensor

from neuralpde.files import RunFolderError
from neuralpde.mesh_baselines import Stand
from neuralpde.mesh_case import Case, Given, Scene
from neuralpde.mesh_method import Fitted, Method, Told, autoregressive

Terms = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]


@dataclass(frozen=True)
class Stencil(Method):
    """y' = b + Σ_k a_k r_k, with the base b and the p terms r_k made of the last two frames.

    The a_k minimise the squared error of one step, over the training trajectories (each case weighing the inverse of its own
    change) or, where `own` says so, over the given frames of each rollout alone.

    Args:
        order: of the equation in time, 1 or 2: the operator comes with dt or dt².
        stand: the operator.
    """

    random: ClassVar[bool] = False
    own: ClassVar[bool] = False
    """Whether it is fitted to each rollout's five frames, and learns nothing before."""
    order: int = 1
    stand: Stand = Stand.SIMULATION

    @abstractmethod
    def terms(self, scene: Scene) -> Terms:
        """(y, y₋), each (..., n, 1) in float64 ↦ b (..., n, 1) and r (..., n, p)."""

    def fit(self, cases: Sequence[Case], seed: int, checkpoint: Path, told: Told) -> FittedStencil:
        if self.own:
            return FittedStencil(self, None)
        if not cases:
            raise RunFolderError("there is no mesh to fit to: give at least one training case")
        equations = [normal_equations(self.terms(case.scene), case.frames) for case in cases]
        gram = torch.stack([grams.sum(0) / change.sum() for grams, _, change in equations]).sum(0)
        moment = torch.stack([moments.sum(0) / change.sum() for _, moments, change in equations]).sum(0)
        return FittedStencil(self, solved(gram, moment))


class FittedStencil(Fitted):
    """A stencil with its coefficients (p,), or None where each rollout finds its own."""

    def __init__(self, stencil: Stencil, coefficients: Tensor | None) -> None:
        self.stencil, self.coefficients = stencil, coefficients

    @property
    def parameters(self) -> int:
        return 0 if self.coefficients is None else self.coefficients.numel()

    @torch.no_grad()
    def rollout(self, given: Given, steps: int) -> Tensor:
        terms = self.stencil.terms(given.scene)
        coefficients = self.coefficients
        if coefficients is None:
            gram, moment, _ = normal_equations(terms, given.frames)
            coefficients = solved(gram, moment)[:, None, :]

        def step(frames: Tensor) -> Tensor:
            base, r = terms(frames[:, -1], frames[:, -2])
            return base + (r * coefficients).sum(-1, keepdim=True)

        return autoregressive(step, given.frames.double(), steps).to(given.frames.dtype)


@torch.no_grad()
def normal_equations(terms: Terms, frames: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Σ rᵀr (K, p, p), Σ rᵀ(y' − b) (K, p) and Σ |y' − y|² (K,) over the steps of each trajectory of (K, T, n, 1)."""
    grams, moments, changes = [], [], []
    for path in frames.double():
        before, y, after = path[:-2], path[1:-1], path[2:]
        base, r = terms(y, before)
        grams.append(torch.einsum("tnp,tnq->pq", r, r))
        moments.append(torch.einsum("tnp,tn->p", r, (after - base).squeeze(-1)))
        changes.append((after - y).square().sum().clamp(min=1e-300))
    return torch.stack(grams), torch.stack(moments), torch.stack(changes)


def solved(gram: Tensor, moment: Tensor) -> Tensor:
    """The smallest least-squares solution of G a = m, (..., p, p) and (..., p), after scaling every term to one."""
    size = gram.diagonal(dim1=-2, dim2=-1).sqrt()
    inverse = torch.where(size > 0, 1 / size, 0.0)
    scaled = gram * inverse[..., :, None] * inverse[..., None, :]
    solution: Tensor = torch.linalg.pinv(scaled, rtol=1e-12, hermitian=True) @ (moment * inverse)[..., None]
    return solution.squeeze(-1) * inverse


@dataclass(frozen=True)
class Rate(Stencil):
    """y' = y − a dt L y, or y' = 2y − y₋ − a dt² L y."""

    name: ClassVar[str] = "stencil-rate"

    def terms(self, scene: Scene) -> Terms:
        laplacian, scale = self.stand.of(scene), scene.dt**self.order
        return lambda y, before: (y if self.order == 1 else 2 * y - before, -scale * (laplacian(y)))


@dataclass(frozen=True)
class TwoParameters(Stencil):
    """y' = a y + b dt L y."""

    name: ClassVar[str] = "stencil-two"

    def terms(self, scene: Scene) -> Terms:
        laplacian, scale = self.stand.of(scene), scene.dt**self.order
        return lambda y, before: (torch.zeros_like(y), torch.cat([y, scale * (laplacian(y))], dim=-1))


@dataclass(frozen=True)
class FourParameters(Stencil):
    """y' = a y + b y₋ + dt (c L y + d L y₋): any linear scheme of two frames on one operator."""

    name: ClassVar[str] = "stencil-four"

    def terms(self, scene: Scene) -> Terms:
        laplacian, scale = self.stand.of(scene), scene.dt**self.order

        def of(y: Tensor, before: Tensor) -> tuple[Tensor, Tensor]:
            both = torch.cat([y, before], dim=-1)
            return torch.zeros_like(y), torch.cat([both, scale * (laplacian(both))], dim=-1)

        return of


@dataclass(frozen=True)
class Cubic(Stencil):
    """y' = y − dt (a L y + b L y³ + c dt L L y): an explicit step of Cahn and Hilliard's equation with any coefficients."""

    name: ClassVar[str] = "stencil-cubic"

    def terms(self, scene: Scene) -> Terms:
        laplacian, dt = self.stand.of(scene), scene.dt

        def of(y: Tensor, before: Tensor) -> tuple[Tensor, Tensor]:
            slopes = -dt * laplacian(torch.cat([y, y**3], dim=-1))
            return y, torch.cat([slopes, dt * laplacian(slopes[..., :1])], dim=-1)

        return of


@dataclass(frozen=True)
class OwnCubic(Cubic):
    """Three coefficients for each rollout, from its five frames."""

    name: ClassVar[str] = "stencil-cubic-own"
    own: ClassVar[bool] = True


@dataclass(frozen=True)
class OwnRate(Rate):
    """One rate for each rollout, from its five frames."""

    name: ClassVar[str] = "stencil-rate-own"
    own: ClassVar[bool] = True


@dataclass(frozen=True)
class OwnTwoParameters(TwoParameters):
    """Two parameters for each rollout, from its five frames."""

    name: ClassVar[str] = "stencil-two-own"
    own: ClassVar[bool] = True


@dataclass(frozen=True)
class OwnFourParameters(FourParameters):
    """Four parameters for each rollout, from its five frames."""

    name: ClassVar[str] = "stencil-four-own"
    own: ClassVar[bool] = True


@dataclass(frozen=True)
class OwnNormalisedRate(Rate):
    """One rate for each rollout on I − D^-½ W D^-½ of the robust weights, which knows neither area nor time."""

    name: ClassVar[str] = "rate-normalised"
    own: ClassVar[bool] = True
    stand: Stand = Stand.NORMALISED
