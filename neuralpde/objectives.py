"""What a correction is trained for: a rollout through the simulator, or one step without it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from integrators import State
from integrators.state import parts_of, state_map
from neuralpde.stepper import Stepper


@dataclass(frozen=True)
class Objective(ABC):
    """A loss of a stepper against true trajectories (T + 1, B, ..., n, c), one frame every Δt.

    Args:
        batch: how many windows of the trajectories each training step sees.
        noise: standard deviation of the noise added to the states that a window starts from, in units of the standard
            deviation of all of the truth; it teaches the correction to return from its own errors.
    """

    batch: int = 8
    noise: float = 0.0

    name: ClassVar[str] = "objective"

    def __post_init__(self) -> None:
        if self.batch < 1 or not 0 <= self.noise < float("inf"):
            raise ValueError(f"batch must be at least 1 and noise not negative, not {self.batch} and {self.noise}")

    @abstractmethod
    def longest(self) -> int:
        """The longest window in steps."""

    @abstractmethod
    def loss(self, stepper: Stepper, truth: State, fraction: float, generator: torch.Generator) -> Tensor:
        """The loss on a random batch, at this fraction of the training (0 … 1); all randomness is the generator's."""

    def windows(self, truth: State, length: int, generator: torch.Generator) -> tuple[int, State]:
        """A random first frame k and trajectories: frames k … k + length of these, (length + 1, batch, ...)."""
        frames, count = parts_of(truth)[0].shape[:2]
        k = int(torch.randint(frames - length, (1,), generator=generator))
        chosen = torch.randperm(count, generator=generator)[: self.batch].to(parts_of(truth)[0].device)
        return k, state_map(lambda part: part[k : k + length + 1].index_select(1, chosen), truth)

    def disturbed(self, x: State, truth: State, generator: torch.Generator) -> State:
        """x with noise."""
        if self.noise == 0:
            return x

        def add_noise(part: Tensor, whole: Tensor) -> Tensor:
            drawn = torch.randn(part.shape, generator=generator, dtype=part.dtype).to(part.device)
            return part + self.noise * whole.std() * drawn

        return state_map(add_noise, x, truth)


@dataclass(frozen=True)
class Unrolled(Objective):
    """The mean squared error of rollouts, with the gradient through every step of the simulator.

    Args:
        lengths: the lengths of the rollouts in steps, each for an equal share of the training, short ones first: at the start a
            long rollout teaches little but where an untrained correction goes astray.
    """

    lengths: Sequence[int] = (1, 4, 16)

    name: ClassVar[str] = "through the solver"

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.lengths or min(self.lengths) < 1:
            raise ValueError(f"lengths must be positive, as in (1, 4, 16), not {self.lengths!r}")

    def longest(self) -> int:
        return max(self.lengths)

    def loss(self, stepper: Stepper, truth: State, fraction: float, generator: torch.Generator) -> Tensor:
        length = self.lengths[min(int(fraction * len(self.lengths)), len(self.lengths) - 1)]
        k, window = self.windows(truth, length, generator)
        start = self.disturbed(_frame(window, 0), truth, generator)
        return _squared(stepper.path(start, length, k * stepper.dt), window)


@dataclass(frozen=True)
class Pushforward(Objective):
    """The error of the last step of a rollout, with the gradient through that step alone.

    The correction sees its own errors, but not how they came about (Brandstetter, Worrall and Welling 2022, ICLR, §3.1).

    Args:
        length: of the rollout, in steps.
    """

    length: int = 4

    name: ClassVar[str] = "through the last step"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.length < 1:
            raise ValueError(f"length must be at least 1, not {self.length}")

    def longest(self) -> int:
        return self.length

    def loss(self, stepper: Stepper, truth: State, fraction: float, generator: torch.Generator) -> Tensor:
        k, window = self.windows(truth, self.length, generator)
        x = self.disturbed(_frame(window, 0), truth, generator)
        before = self.length - 1
        if before:
            with torch.no_grad():
                x = _frame(stepper.path(x, before, k * stepper.dt), -1)
        last = state_map(lambda part: part[before:], window)
        return _squared(stepper.path(x, 1, (k + before) * stepper.dt), last)


@dataclass(frozen=True)
class OneStep(Objective):
    """The error of one step from the truth, with no gradient through the solver: what a correction fitted offline minimises.

    The ablation. Such a correction never sees where it leads.
    """

    name: ClassVar[str] = "one step, no gradient through the solver"

    def longest(self) -> int:
        return 1

    def loss(self, stepper: Stepper, truth: State, fraction: float, generator: torch.Generator) -> Tensor:
        k, window = self.windows(truth, 1, generator)
        start = self.disturbed(_frame(window, 0), truth, generator)
        wrong = parts_of(stepper.supervised(k * stepper.dt, start, _frame(window, 1)))
        return torch.stack([part.abs().square().mean() for part in wrong]).sum()


def _frame(path: State, k: int) -> State:
    return state_map(lambda part: part[k], path)


def _squared(path: State, truth: State) -> Tensor:
    """The mean of |x − truth|² over everything but the given start."""
    pairs = zip(parts_of(path), parts_of(truth), strict=True)
    return torch.stack([(x[1:] - y[1:]).abs().square().mean() for x, y in pairs]).sum()
