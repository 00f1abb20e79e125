"""What a row of the sensor tables is: a method that learns from windows, and then forecasts at sensors."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from torch import Tensor

from neuralpde.sensor_case import Given, SensorCase

Told = Callable[[int, int, str], None]


class Forecaster(ABC):
    """A method that has learned."""

    @property
    def parameters(self) -> int:
        """The number of learned numbers."""
        return 0

    @abstractmethod
    def forecast(self, given: Given) -> Tensor:
        """The values at the wanted times, (K, h, n, c). What diverges is left as it is, infinities and NaN included."""


@dataclass(frozen=True)
class SensorMethod(ABC):
    """A row of the table. It is a value: equal settings are equal methods, and `repr` identifies what was trained."""

    name: ClassVar[str]
    """In the table's rows, for example "persistence"."""
    random: ClassVar[bool] = True
    """Whether the seed changes the result; a method that is not random is fitted once."""
    bound: ClassVar[bool] = False
    """Whether it can forecast only at the sensors that it learned from; it has no number at other placements."""

    @abstractmethod
    def fit(
        self, train: Sequence[SensorCase], validation: Sequence[SensorCase], seed: int, checkpoint: Path, told: Told
    ) -> Forecaster:
        """Learn from the training cases; settings and the moment to stop may be chosen on the validation cases.

        Args:
            train: one case for each placement. A `bound` method has one only.
            seed: of weights and batches.
            checkpoint: a file that training may write atomically and continue from (`neuralpde.training.train`).
            told: called with (step, steps, note) meanwhile.
        """
