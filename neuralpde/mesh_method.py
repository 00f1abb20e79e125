"""What a method of MeshPDE's table is: it learns from cases, and rolls out from five frames."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import torch
from torch import Tensor

from neuralpde.mesh_case import Case, Given

Told = Callable[[int, int, float], None]


class Fitted(ABC):
    """A method that has learned."""

    @property
    def parameters(self) -> int:
        """The number of learned numbers."""
        return 0

    @abstractmethod
    def rollout(self, given: Given, steps: int) -> Tensor:
        """The frames after the given ones, (K, steps, n, 1). What diverges is left as it is, infinities and NaN included."""


@dataclass(frozen=True)
class Method(ABC):
    """A row of the table. It is a value: equal settings are equal methods, and `repr` identifies what was trained."""

    name: ClassVar[str]
    """In the table's rows, for example "persistence"."""
    random: ClassVar[bool] = True
    """Whether the seed changes the result; a method that is not random is fitted once."""

    @abstractmethod
    def fit(self, cases: Sequence[Case], seed: int, checkpoint: Path, told: Told) -> Fitted:
        """Learn from the training cases.

        Args:
            seed: of weights and batches.
            checkpoint: a file that training may write atomically and continue from (`neuralpde.training.train`).
            told: called with (step, steps, loss) while it trains.
        """


def autoregressive(step: Callable[[Tensor], Tensor], frames: Tensor, steps: int) -> Tensor:
    """Roll out a map from five frames (K, 5, n, 1) to the next one (K, n, 1); → (K, steps, n, 1)."""
    window, path = frames, []
    for _ in range(steps):
        following = step(window)
        path.append(following)
        window = torch.cat([window[:, 1:], following[:, None]], dim=1)
    return torch.stack(path, dim=1)
