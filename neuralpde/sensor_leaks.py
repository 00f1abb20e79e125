"""Whether anything that is to be forecast, or a station that is held out, has entered what a method is given."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from neuralpde.sensor_case import Given, SensorCase
from neuralpde.sensor_method import Forecaster, SensorMethod
from neuralpde.station_cases import StationCases, StationScaling
from neuralpde.station_record import StationRecord

Prepare = Callable[[StationRecord], StationCases]


@dataclass(frozen=True)
class Leak:
    """What entered where.

    Args:
        what: for example "test frames".
        where: for example "windows of training".
        told: how it was found.
    """

    what: str
    where: str
    told: str

    def __str__(self) -> str:
        return f"{self.what} in {self.where}: {self.told}"


def leaks_of_cases(prepare: Prepare, record: StationRecord, cuts: int = 3, seed: int = 0) -> tuple[Leak, ...]:
    """What leaks when a record is divided, normalised and cut into windows; nothing if all is well.

    The record is measured again with other values, and other gaps, where a method must not look; whatever it is given must come
    out the same, bit for bit:

    - other frames from the first of validation's targets on: training and the normalisation must not change;
    - other frames from the first of the test's targets on: validation must not change either;
    - other frames from the first target of single windows on, `cuts` of each case: their inputs must not change. This finds
      gaps that are filled from both sides, and averages about a frame;
    - other values at the held-out stations: all but the held-out case must not change.

    Apart from that, no time of a test target, nor of a validation target, may occur in a training window, nor one of a test
    target in a validation window, and no held-out station may have a place among the others.

    Args:
        prepare: makes the cases; called some fifteen times.
    """
    cases = prepare(record)
    found = list(_shared_times(cases)) + list(_shared_stations(cases))
    other = prepare(_changed(record, _frames_from(record, _first_target(cases.validation, *_tests(cases))), seed))
    found += _compared([cases.train], [other.train], "what comes after training")
    found += _scalings(cases, other, "what comes after training")
    other = prepare(_changed(record, _frames_from(record, _first_target(*_tests(cases))), seed))
    found += _compared([cases.validation], [other.validation], "test frames")
    for case_of in (_train, _validation, _test, _held_out):
        found += _future(prepare, record, cases, case_of, cuts, seed)
    if cases.held_ids:
        mask = torch.tensor([name in cases.held_ids for name in record.ids])[None, :, None]
        other = prepare(_changed(record, mask, seed))
        ours = [cases.train, cases.validation, cases.test]
        found += _compared(ours, [other.train, other.validation, other.test], "held-out stations")
        found += _scalings(cases, other, "held-out stations")
    return tuple(dict.fromkeys(found))


def leaks_of_forecaster(forecaster: Forecaster, case: SensorCase, windows: int = 4, tolerance: float = 1e-3) -> tuple[Leak, ...]:
    """Whether a forecast uses other windows of the same call, whose inputs hold what this one is to forecast.

    A window must be forecast alone as among the others, up to `tolerance` of the case's standard deviation: sums over a batch
    round differently in float32.
    """
    given = case.inputs
    together = forecaster.forecast(given)
    found = []
    for k in torch.linspace(0, len(given.values) - 1, min(windows, len(given.values))).long().tolist():
        alone = forecaster.forecast(_window(given, k))[0]
        gap = (alone - together[k]).detach().abs()
        same = torch.isfinite(alone) == torch.isfinite(together[k])
        if not bool(same.all()) or float(gap.nan_to_num(0.0, 0.0, 0.0).max()) > tolerance:
            told = f"the forecast of window {k} changes by {float(gap.nan_to_num().max()):.2g} when the others are not there"
            found.append(Leak("other windows", f"the forecasts of {case.name}", told))
            break
    return tuple(found)


def leaks_of_method(
    method: SensorMethod, prepare: Prepare, record: StationRecord, folder: Path, seed: int = 0
) -> tuple[Leak, ...]:
    """Whether a method that was trained knows what it must not.

    Trained again where the frames of the test and the held-out stations have other values, it must make the same forecasts
    from the same inputs, bit for bit; and each window alone the same as among the others (`leaks_of_forecaster`). A method
    that is not reproducible fails this.

    Args:
        folder: for the checkpoints of the two trainings.
    """
    cases = prepare(record)
    mask = (
        _frames_from(record, _first_target(*_tests(cases)))
        | torch.tensor([name in cases.held_ids for name in record.ids])[None, :, None]
    )
    other = prepare(_changed(record, mask, seed))
    forecasters = [
        method.fit([one.train], [one.validation], seed, folder / f"{name}.ckpt", lambda *told: None)
        for name, one in (("as-measured", cases), ("changed", other))
    ]
    found = []
    for case in (cases.test,) if method.bound else _tests(cases):
        first, second = (forecaster.forecast(case.inputs) for forecaster in forecasters)
        if not torch.equal(first.nan_to_num(), second.nan_to_num()):
            told = "forecasts of the same inputs change with frames of the test or held-out stations, after training"
            found.append(Leak("what is to be forecast", f"{method.name} on {case.name}", told))
        found += leaks_of_forecaster(forecasters[0], case)
    return tuple(found)


def _train(cases: StationCases) -> SensorCase | None:
    return cases.train


def _validation(cases: StationCases) -> SensorCase | None:
    return cases.validation


def _test(cases: StationCases) -> SensorCase | None:
    return cases.test


def _held_out(cases: StationCases) -> SensorCase | None:
    return cases.held_out


def _tests(cases: StationCases) -> list[SensorCase]:
    return [cases.test] if cases.held_out is None else [cases.test, cases.held_out]


def _shared_times(cases: StationCases) -> Iterator[Leak]:
    later = [(case.name, case) for case in (cases.validation, *_tests(cases))]
    for earlier in (cases.train, cases.validation):
        for name, case in later:
            if case is earlier:
                continue
            targets = case.times[:, case.given :]
            shared = torch.isin(earlier.times, targets)
            if bool(shared.any()):
                window = int(shared.any(1).nonzero()[0])
                count = len(set(earlier.times[shared].tolist()))
                told = f"{count} times occur in both, the first in window {window} of {earlier.name}"
                yield Leak(f"{name} targets", f"windows of {earlier.name}", told)


def _shared_stations(cases: StationCases) -> Iterator[Leak]:
    if cases.held_out is None or cases.held_out.scored is None:
        return
    held = cases.held_out.placement.points[cases.held_out.scored]
    for case in (cases.train, cases.validation):
        same = (case.placement.points[:, None] == held[None]).all(-1)
        if bool(same.any()):
            yield Leak("held-out stations", f"windows of {case.name}", f"{int(same.any(0).sum())} of them are among its sensors")


def _future(
    prepare: Prepare,
    record: StationRecord,
    cases: StationCases,
    case_of: Callable[[StationCases], SensorCase | None],
    cuts: int,
    seed: int,
) -> Iterator[Leak]:
    """Inputs must not change with what comes after them."""
    case = case_of(cases)
    if case is None:
        return
    for k in torch.linspace(0, len(case.values) - 1, cuts + 2)[1:-1].long().tolist():
        now = float(case.times[k, case.given])
        changed = prepare(_changed(record, _frames_from(record, now), seed))
        other = case_of(changed)
        if other is None or _past_differs(_past(case, now), _past(other, now), cases.scaling, changed.scaling):
            yield Leak("later frames", f"inputs of {case.name}", f"what is given before hour {now:g} changes with what follows")
            return


def _past(case: SensorCase, now: float) -> Given:
    """What is given to the windows that look no further than `now`."""
    return case.some((case.times[:, case.given - 1] < now).nonzero()[:, 0]).inputs


def _past_differs(ours: Given, others: Given, scaling: StationScaling, other_scaling: StationScaling) -> bool:
    """Whether the windows that both have differ in what was measured, or whether they have none in common.

    In the unit of the measurements, as the normalisation of the training span may know all of it; it is judged for itself.
    Windows may be left out for what is to be forecast from them, as those with no target are.
    """
    index = {tuple(times): k for k, times in enumerate(others.times.tolist())}
    pairs = [(k, index[tuple(times)]) for k, times in enumerate(ours.times.tolist()) if tuple(times) in index]
    if not pairs:
        return True
    mine, theirs = torch.tensor(pairs).unbind(1)
    seen = ours.seen[mine]
    if not torch.equal(seen, others.seen[theirs]):
        return True
    gap = scaling.restore(ours.values[mine].double()) - other_scaling.restore(others.values[theirs].double())
    # Normalised in float32 and restored, twice.
    bound = 1e-5 * (scaling.mean.abs() + 10 * scaling.std + other_scaling.mean.abs() + 10 * other_scaling.std)
    return bool((gap.abs() > bound)[seen].any())


def _first_target(*cases: SensorCase) -> float:
    return min(float(case.times[:, case.given :].min()) for case in cases)


def _frames_from(record: StationRecord, hour: float) -> Tensor:
    return (record.hours >= hour)[:, None, None]


def _changed(record: StationRecord, mask: Tensor, seed: int) -> StationRecord:
    """Measured otherwise where the mask is true: other values, in another range, and other gaps."""
    generator = torch.Generator().manual_seed(seed)
    mask = mask.expand(record.values.shape)
    noise = torch.randn(record.values.shape, generator=generator, dtype=torch.float64)
    spread = StationScaling.of(record).std
    values = torch.where(mask, record.values + spread * (3 + noise), record.values)
    gaps = torch.rand(record.values.shape, generator=generator) < 0.2
    seen = torch.where(mask, record.seen & ~gaps, record.seen)
    return replace(record, values=torch.where(seen, values, 0.0), seen=seen)


def _compared(ours: Sequence[SensorCase], others: Sequence[SensorCase], what: str) -> list[Leak]:
    found = []
    for case, other in zip(ours, others, strict=True):
        if not _same((case.values, case.seen, case.times), (other.values, other.seen, other.times)):
            found.append(Leak(what, f"windows of {case.name}", "its values change when they are measured otherwise"))
    return found


def _scalings(cases: StationCases, other: StationCases, what: str) -> list[Leak]:
    same = _same((cases.scaling.mean, cases.scaling.std), (other.scaling.mean, other.scaling.std))
    return [] if same else [Leak(what, "the normalisation", "mean or standard deviation change when they are measured otherwise")]


def _same(ours: Sequence[Tensor], others: Sequence[Tensor]) -> bool:
    return all(a.shape == b.shape and torch.equal(a, b) for a, b in zip(ours, others, strict=True))


def _window(given: Given, k: int) -> Given:
    # Copies: what a window is cut from holds its targets too.
    values, seen, times, wanted = (tensor[k : k + 1].clone() for tensor in (given.values, given.seen, given.times, given.wanted))
    return Given(given.placement, values, seen, times, wanted)
