"""Planted leaks are caught, and honest preparation is not accused."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from neuralpde.sensor_baselines import JointVar
from neuralpde.sensor_case import Given, SensorCase
from neuralpde.sensor_leaks import Leak, leaks_of_cases, leaks_of_forecaster, leaks_of_method
from neuralpde.sensor_method import Forecaster, SensorMethod, Told
from neuralpde.station_cases import StationCases, StationScaling, StationSplit, to_cases
from neuralpde.station_degraded import hidden, irregular
from neuralpde.station_ours import StationOurs
from neuralpde.station_record import StationRecord
from neuralpde.station_synthetic import SyntheticStations

RECORD = SyntheticStations(stations=8, frames=180, missing=0.1).record()
SPLIT = StationSplit(given=5, horizon=3, stride=2)


def honest(record: StationRecord) -> StationCases:
    return to_cases(record, SPLIT)


def degraded(record: StationRecord) -> StationCases:
    cases = honest(record)
    return replace(cases, train=hidden(irregular(cases.train, 4)), test=hidden(cases.test, 0.3))


def scaled_by_everything(record: StationRecord) -> StationCases:
    cases = honest(record)
    whole = StationScaling.of(record)
    changed = [rescaled(case, cases.scaling, whole) for case in (cases.train, cases.validation, cases.test)]
    return replace(cases, train=changed[0], validation=changed[1], test=changed[2], scaling=whole)


def scaled_by_held_out_stations(record: StationRecord) -> StationCases:
    cases = honest(record)
    whole = StationScaling.of(record.frames(slice(0, SPLIT.spans(len(record))[0].stop)))
    return replace(cases, train=rescaled(cases.train, cases.scaling, whole), scaling=whole)


def rescaled(case: SensorCase, old: StationScaling, new: StationScaling) -> SensorCase:
    values = torch.where(case.seen, new.normalise(old.restore(case.values.double())), 0.0).float()
    return replace(case, values=values)


def filled_from_both_sides(record: StationRecord) -> StationCases:
    # The next value seen stands for what is missing.
    values = record.values.clone()
    for t in range(len(record) - 2, -1, -1):
        values[t] = torch.where(record.seen[t], values[t], values[t + 1])
    return honest(replace(record, values=values, seen=torch.ones_like(record.seen)))


def smoothed(record: StationRecord) -> StationCases:
    padded = torch.cat([record.values[:1], record.values, record.values[-1:]])
    mean = (padded[:-2] + padded[1:-1] + padded[2:]) / 3
    return honest(replace(record, values=torch.where(record.seen, mean, 0.0)))


def validated_on_the_test(record: StationRecord) -> StationCases:
    cases = honest(record)
    return replace(cases, validation=replace(cases.test, name="validation"))


def trained_into_the_test(record: StationRecord) -> StationCases:
    cases = honest(record)
    values, seen, times = (
        torch.cat([getattr(cases.train, name), getattr(cases.test, name)[:1]]) for name in ("values", "seen", "times")
    )
    return replace(cases, train=replace(cases.train, values=values, seen=seen, times=times))


def trained_on_held_out_stations(record: StationRecord) -> StationCases:
    cases = honest(record)
    return replace(cases, train=to_cases(record, replace(SPLIT, held_out=0.0)).train)


def inputs_of_held_out_stations_in_the_test(record: StationRecord) -> StationCases:
    # Each frame of the test less the mean of all stations: those held out too.
    cases = honest(record)
    if cases.held_out is None:
        return cases
    mean = cases.held_out.values.mean(2, keepdim=True)
    values = torch.where(cases.test.seen, cases.test.values - mean, 0.0)
    return replace(cases, test=replace(cases.test, values=values))


@pytest.mark.parametrize(
    "prepare", [honest, degraded, lambda r: to_cases(r, replace(SPLIT, held_out=0.0))], ids=["split", "degraded", "all"]
)
def test_honest_cases_are_not_accused(prepare: Callable[[StationRecord], StationCases]) -> None:
    assert leaks_of_cases(prepare, RECORD) == ()


def test_irregular_and_two_variables_are_not_accused() -> None:
    record = SyntheticStations(stations=6, frames=180, missing=0.2, outages=0.2, variables=2).record()
    assert leaks_of_cases(lambda r: to_cases(r, replace(SPLIT, gap=9.0)), record) == ()


@pytest.mark.parametrize(
    ("prepare", "what", "where"),
    [
        (scaled_by_everything, "what comes after training", "the normalisation"),
        (scaled_by_held_out_stations, "held-out stations", "the normalisation"),
        (filled_from_both_sides, "later frames", "inputs of test"),
        (smoothed, "later frames", "inputs of test"),
        (smoothed, "later frames", "inputs of train"),
        (validated_on_the_test, "test targets", "windows of validation"),
        (trained_into_the_test, "test targets", "windows of train"),
        (trained_on_held_out_stations, "held-out stations", "windows of train"),
        (inputs_of_held_out_stations_in_the_test, "held-out stations", "windows of test"),
    ],
)  # fmt: skip
def test_planted_leaks_are_caught(prepare: Callable[[StationRecord], StationCases], what: str, where: str) -> None:
    found = leaks_of_cases(prepare, RECORD)
    assert (what, where) in {(leak.what, leak.where) for leak in found}, list(map(str, found))


@dataclass
class Last(Forecaster):
    """The last frame, and what a cheat adds to it."""

    cheat: Callable[[Given], Tensor | float] = lambda given: 0.0

    def forecast(self, given: Given) -> Tensor:
        last = given.values[:, -1:] + self.cheat(given)
        return last.expand(-1, given.wanted.shape[1], -1, -1)


@dataclass(frozen=True)
class Method(SensorMethod):
    """Persistence, with what a cheat makes of the training cases, or of what it saw on the way."""

    name = "cheat"
    learn: Any = None

    def fit(
        self, train: Sequence[SensorCase], validation: Sequence[SensorCase], seed: int, checkpoint: Path, told: Told
    ) -> Forecaster:
        return Last() if self.learn is None else self.learn(train, validation)


def test_an_honest_method_is_not_accused(tmp_path: Path) -> None:
    assert leaks_of_method(Method(), honest, RECORD, tmp_path) == ()


@pytest.mark.parametrize(
    "method",
    [JointVar(), StationOurs(kernel_steps=2, steps=2, members=1, width=4, copies=1, parts=2)],
    ids=lambda method: method.name,
)
def test_methods_of_the_tables_are_honest(method: SensorMethod, tmp_path: Path) -> None:
    record = SyntheticStations(stations=5, frames=150, missing=0.1).record()
    assert leaks_of_method(method, lambda one: to_cases(one, replace(SPLIT, stride=4)), record, tmp_path) == ()


def test_a_forecast_that_uses_the_other_windows() -> None:
    case = honest(RECORD).test
    assert leaks_of_forecaster(Last(), case) == ()
    (leak,) = leaks_of_forecaster(Last(lambda given: given.values.mean()), case)
    assert leak.what == "other windows"
    assert "window" in str(leak)
    # The targets lie behind the inputs in memory.
    behind = Last(lambda given: 0.0 if given.values._base is None else given.values._base[:, -1:])
    assert leaks_of_forecaster(behind, case) != ()


def test_a_method_that_saw_the_test(tmp_path: Path) -> None:
    seen: list[StationCases] = []

    def prepare(record: StationRecord) -> StationCases:
        seen.append(honest(record))
        return seen[-1]

    def learn(train: Sequence[SensorCase], validation: Sequence[SensorCase]) -> Forecaster:
        # It finds the test of the record that it was trained for.
        own = next(cases for cases in seen if cases.train is train[0])
        return Last(lambda given: own.test.targets[0].mean())

    found = leaks_of_method(Method(learn), prepare, RECORD, tmp_path)
    assert {leak.what for leak in found} == {"what is to be forecast"}


def test_leaks_read_as_sentences() -> None:
    assert (
        str(Leak("test frames", "windows of train", "3 times occur in both"))
        == "test frames in windows of train: 3 times occur in both"
    )
