"""What one method did with one seed at the sensors of a table, and the rows made of it."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from neuralpde.run_folder import row
from neuralpde.sensor_case import SensorCase
from neuralpde.sensor_score import METRICS, Score

Published = Mapping[tuple[str, str, str, int], float]


@dataclass(frozen=True)
class Result:
    """One method with one seed.

    Args:
        scores: by test ("" or, for example, "held-out") and name of the case; without those that the method has no number at.
        parameters: learned numbers.
        fit_seconds, forecast_seconds: of the processor.
        failed: why training was given up, or nothing.
    """

    scores: Mapping[str, Mapping[str, Score]]
    parameters: int
    fit_seconds: float
    forecast_seconds: float
    failed: str = ""

    def value(self, test: str, metric: str, horizon: int) -> float:
        """The mean over the cases of a test."""
        return statistics.fmean(score.value(metric, horizon) for score in self.scores[test].values())

    def record(self) -> dict[str, Any]:
        """As JSON."""
        scores = {test: {case: one.record() for case, one in cases.items()} for test, cases in self.scores.items()}
        return {
            "scores": scores,
            "parameters": self.parameters,
            "fit_seconds": self.fit_seconds,
            "forecast_seconds": self.forecast_seconds,
            "failed": self.failed,
        }

    @classmethod
    def from_record(cls, record: Mapping[str, Any]) -> Result:
        """The inverse of `record`."""
        scores = {test: {case: Score.from_record(one) for case, one in of.items()} for test, of in record["scores"].items()}
        return cls(
            scores,
            int(record["parameters"]),
            float(record["fit_seconds"]),
            float(record["forecast_seconds"]),
            str(record["failed"]),
        )


def table_name(table: str, test: str) -> str:
    """The table of a test's rows."""
    return f"{table}-{test}" if test else table


def rows_of(
    table: str,
    results: Mapping[str, Sequence[Result]],
    tests: Mapping[str, Sequence[SensorCase]],
    horizons: Sequence[int],
    published: Published,
) -> list[dict[str, Any]]:
    """The table as data: a row for each test, method, metric and horizon, and each method's size and time.

    `value` and `std` are over all seeds and cases, `n` of them; None where a forecast is not finite. `against_persistence` is
    1 - value / persistence's, `against_complete` the value over that of the test without a name, minus 1.
    """
    rows: list[dict[str, Any]] = []
    plain: dict[tuple[str, str, str, int], float] = {}
    for test, cases in tests.items():
        for method, of_seeds in results.items():
            if not of_seeds[0].scores.get(test):
                continue
            for metric in METRICS:
                for horizon in horizons:
                    values = [score.value(metric, horizon) for result in of_seeds for score in result.scores[test].values()]
                    one = _number(table_name(table, test), method, metric, values, cases[0].unit)
                    plain[test, method, metric, horizon] = math.nan if one["value"] is None else one["value"]
                    one["horizon"] = horizon
                    one["cases"] = {
                        name: _finite(statistics.fmean(result.scores[test][name].value(metric, horizon) for result in of_seeds))
                        for name in of_seeds[0].scores[test]
                    }
                    one["diverged"] = statistics.fmean(
                        score.diverged for result in of_seeds for score in result.scores[test].values()
                    )
                    one["published"] = published.get((test, method, metric, horizon))
                    rows.append(one)
    for one in rows:
        test = one["table"].removeprefix(table).removeprefix("-")
        key = (one["method"], one["metric"], one["horizon"])
        value = plain[(test, *key)]
        persistence = plain.get((test, "persistence", *key[1:]), math.nan)
        one["against_persistence"] = _finite(1 - value / persistence) if persistence else None
        complete = plain.get(("", *key), math.nan)
        one["against_complete"] = _finite(value / complete - 1) if test and complete else None
    for method, of_seeds in results.items():
        for metric, unit in (("parameters", "count"), ("fit_seconds", "CPU-seconds"), ("forecast_seconds", "CPU-seconds")):
            rows.append(row(table, method, metric, [float(getattr(result, metric)) for result in of_seeds], unit))
    return rows


def _number(table: str, method: str, metric: str, values: Sequence[float], unit: str) -> dict[str, Any]:
    unit = unit if metric == "mae" else f"{unit}²"
    if all(math.isfinite(value) for value in values):
        return row(table, method, metric, values, unit)
    return row(table, method, metric, [0.0] * len(values), unit) | {"value": None, "std": None}


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
