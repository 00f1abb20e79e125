"""A form that an unknown equation on surfaces may have: few coefficients without unit, the same on every surface."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Self

import torch
from torch import Tensor, nn

from integrators import Direct, Exponential, Integrator, State, integrate
from neuralpde.mesh_case import Case, Given, Scene
from neuralpde.rhs import RightHandSide

TOLERANCE = 1e-9
"""Of a frame that is predicted in double precision."""


class Form(nn.Module, ABC):
    """dx/dt = f(x) with learned coefficients that mass, area and time step make into rates on each surface, and its solver."""

    @classmethod
    @abstractmethod
    def fitted(cls, cases: Sequence[Case]) -> Self:
        """The coefficients of least squares over single steps of the cases: where learning starts."""

    @property
    @abstractmethod
    def title(self) -> str:
        """What it is, in a few words."""

    @abstractmethod
    def equation(self, scene: Scene) -> RightHandSide:
        """f on a surface; its parameters are those of this form."""

    @abstractmethod
    def solver(self, scene: Scene) -> Integrator:
        """How f is solved, recording gradients."""

    def exact(self, scene: Scene) -> Integrator:
        """The exact flow of a linear equation: to round-off in float32, where it learns; else to what is seen of frames."""
        return Exponential(tol=None if scene.laplacian.dtype == torch.float32 else TOLERANCE, gradient=Direct())

    def begin(self, given: Given) -> State:
        """The state at the last of the given frames."""
        return given.frames[:, -1]

    def field(self, state: State) -> Tensor:
        """What is observed of a state, or of a path of states."""
        return state if isinstance(state, Tensor) else state[0]

    def evolved(self, given: Given, frames: Sequence[int]) -> Tensor:
        """The fields so many frames (ascending) after the last given one, (K, len(frames), n, 1)."""
        times = given.scene.dt * torch.tensor([0, *frames], dtype=torch.float64)
        path = integrate(self.equation(given.scene), self.begin(given), times, self.solver(given.scene)).x
        return self.field(path)[1:].transpose(0, 1)


def single_steps(case: Case, most: int = 24) -> tuple[Tensor, Tensor, Tensor]:
    """Frames x₋, x, x₊ that follow one another, (m, n, 1) each in float64: of every trajectory, at most so many."""
    frames = case.frames.double()
    count = frames.shape[1] - 2
    stride = max(1, count * frames.shape[0] // most)
    starts = torch.arange(0, count, stride)
    before, now, after = (frames[:, starts + k].flatten(0, 1) for k in range(3))
    return before, now, after


class Normal:
    """Least squares of few coefficients over many surfaces, each weighing the inverse of the square of what is explained."""

    def __init__(self, count: int) -> None:
        self.gram, self.moment = torch.zeros(count, count, dtype=torch.float64), torch.zeros(count, dtype=torch.float64)

    def add(self, terms: Tensor, explained: Tensor) -> None:
        """terms (..., p) and what their sum should be (...)."""
        weight = 1 / float(explained.square().sum().clamp(min=1e-300))
        flat, wanted = terms.reshape(-1, terms.shape[-1]), explained.reshape(-1)
        self.gram += weight * flat.T @ flat
        self.moment += weight * flat.T @ wanted

    def solved(self, signs: Sequence[bool]) -> Tensor:
        """The coefficients; those marked may not be negative. One whose term vanishes is zero."""
        size = self.gram.diagonal().sqrt()
        inverse = torch.where(size > 1e-30, 1 / size, torch.zeros_like(size))
        gram, moment = self.gram * inverse[:, None] * inverse, self.moment * inverse
        free = torch.ones(len(moment), dtype=torch.bool)
        bounded = torch.tensor(list(signs), dtype=torch.bool)
        # Active sets of a handful of numbers: drop the most negative until none is.
        while True:
            part = free.nonzero()[:, 0]
            x = torch.zeros_like(moment)
            x[part] = torch.linalg.pinv(gram[part][:, part], rtol=1e-10, hermitian=True) @ moment[part]
            wrong = bounded & (x < 0)
            if not bool(wrong.any()):
                return x * inverse
            free[int(torch.where(wrong, x, torch.inf).argmin())] = False
