"""What a row of the weather tables is: a method that learns from a case, and then forecasts."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, NamedTuple

from neuralpde.forecast_case import ForecastCase
from neuralpde.weather_forecasts import Forecast

Told = Callable[[int, int, str], None]


class Learned(NamedTuple):
    """A forecast, and the number of numbers that it learned."""

    forecast: Forecast
    parameters: int = 0


@dataclass(frozen=True)
class ForecastMethod(ABC):
    """A row of the table. It is a value: equal settings are equal methods, and `repr` identifies what was trained."""

    name: ClassVar[str]
    """In the table's rows, for example "persistence"."""
    random: ClassVar[bool] = False
    """Whether the seed changes the result; a method that is not random is fitted once."""

    @abstractmethod
    def fit(self, case: ForecastCase, seed: int, checkpoint: Path, told: Told) -> Learned:
        """Learn from `case.train`, never from `case.test`.

        Args:
            seed: of weights and batches.
            checkpoint: a file that training may write atomically and continue from (`neuralpde.training.train`).
            told: called with (step, steps, note) meanwhile.
        """
