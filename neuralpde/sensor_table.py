"""The table of several methods at several sets of sensors: fit, forecast, measure, keep, print."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any, Literal

import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from torch import Tensor

from neuralpde.files import RunFolderError, read_tensors, write_tensors
from neuralpde.run_folder import RunFolder
from neuralpde.sensor_case import Given, SensorCase, fingerprint
from neuralpde.sensor_method import Forecaster, SensorMethod
from neuralpde.sensor_result import Published, Result, rows_of
from neuralpde.sensor_score import Score, forecast, score

Tests = Mapping[str, Sequence[SensorCase]]
# Windows of the first case of each test whose forecasts are kept for pictures.
DRAWN = 3


def run_sensor_table(
    table: str,
    methods: Sequence[SensorMethod],
    train: Sequence[SensorCase],
    validation: Sequence[SensorCase],
    tests: Tests,
    folder: RunFolder,
    *,
    seeds: int = 3,
    horizons: Sequence[int] | None = None,
    metric: Literal["mae", "mse"] = "mae",
    published: Published | None = None,
    separately: Collection[str] = (),
    title: str = "",
    note: str = "",
    prefix: str = "",
    finish: bool = True,
    console: Console | None = None,
) -> list[dict[str, Any]]:
    """Fit every method with every seed, forecast the tests once, print the table, write it.

    Every finished (method, seed) is kept in the folder, and a half-trained network continues from its checkpoint, so a run that
    was killed gives, resumed, what an uninterrupted one gives. A method that is not random is fitted once. The folder must have
    been checked (`folder.check()`). It then holds table.json, report.html and its pictures.

    A method learns from all training placements together. A bound one, and those named in `separately`, learns each placement
    by itself and is tested where it learned. At sensors where nobody learned, a bound method has no row, and one that learned
    separately is scored as it learned at the first placement.

    Args:
        table: the name of the table in its rows.
        train, validation: one case for each placement, in the same order.
        tests: by the end of the table's name: "" for the test itself, "held-out", "unseen" and so on for `table`-"held-out".
        seeds: of each random method, from 0.
        horizons: errors are means over the leads 1..h for each of these h; over all leads if absent.
        metric: what the printed table shows at every horizon; the other at the last one.
        published: the paper's number of (test, method, metric, horizon).
        separately: the names of methods that learn each placement by itself though they need not.
        title: of the report. note: what a reader of the table must know.
        prefix: of the names of kept parts and of the report, where one folder holds several tables.
        finish: write table.json; else the caller does with the rows of all tables.
        console: where the table goes; standard output if absent. Progress goes to standard error.

    Returns:
        The rows of `rows_of`.

    Raises:
        RunFolderError: a folder of another run; two methods of one name; nothing to learn from or to test on.
    """
    console = console or Console()
    _check(methods, train, validation, tests)
    most = min(case.horizon for cases in tests.values() for case in cases)
    horizons = sorted({min(h, most) for h in horizons}) if horizons else [most]
    torch.set_num_threads(folder.threads)
    # Denormal numbers are slow on many processors.
    torch.set_flush_denormal(True)
    folder.make()
    run = _Run(train, validation, tests, folder, frozenset(separately), prefix)
    results: dict[str, list[Result]] = {}
    columns = (TextColumn("{task.description:<18}"), BarColumn(20), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, TextColumn("{task.fields[note]}"), console=Console(stderr=True)) as progress:
        for method in methods:
            count = seeds if method.random else 1
            task = progress.add_task(method.name, total=count, note="")
            results[method.name] = []
            for seed in range(count):

                def told(step: int, steps: int, text: str, task: Any = task, seed: int = seed) -> None:
                    progress.update(task, note=f"seed {seed}: {step}/{steps} {text}")

                results[method.name].append(run.result(method, seed, told))
                progress.advance(task)
            progress.update(task, note=_summary(results[method.name]))
    rows = rows_of(table, results, tests, horizons, published or {})
    if finish:
        folder.finish(rows)
    # `import neuralpde` brings this module, but not matplotlib before something is drawn.
    from neuralpde.sensor_report import print_table, write_sensor_report

    print_table(table, rows, tests, horizons, metric, console)
    if note:
        console.print(note)
    page = write_sensor_report(table, title or table, note, results, rows, train, tests, horizons, metric, folder.path, prefix)
    console.print(f"report: {page}")
    return rows


class _Run:
    """One table's data and folder."""

    def __init__(
        self,
        train: Sequence[SensorCase],
        validation: Sequence[SensorCase],
        tests: Tests,
        folder: RunFolder,
        separately: frozenset[str],
        prefix: str,
    ) -> None:
        self.train, self.validation, self.tests, self.folder = train, validation, tests, folder
        self.separately, self.prefix = separately, prefix
        names = " ".join(tests)
        every = [case for cases in tests.values() for case in cases]
        self.data = f"{fingerprint(train)} / {fingerprint(validation)} / {names} {fingerprint(every)}"

    def result(self, method: SensorMethod, seed: int, told: Callable[[int, int, str], None]) -> Result:
        """What was kept of (method, seed), or else computed now and kept."""
        alone = method.bound or method.name in self.separately
        part = f"{self.prefix}{method.name}-{seed}"
        identity = f"{self.data} {method!r} {'separately' if alone else 'together'} seed {seed}"
        fields = self.folder.path / "forecasts" / f"{part}.safetensors"
        kept = self.folder.kept(part, identity)
        if kept is not None and (seed > 0 or _readable(fields)):
            try:
                return Result.from_record(kept)
            except (KeyError, ValueError, TypeError, AttributeError) as error:
                damaged = self.folder.parts / f"{part}.json"
                raise RunFolderError(
                    f"{damaged} is damaged ({error!r}): delete it and resume, and it is computed anew"
                ) from error
        weights = self.folder.path / "weights" / f"{part}-{sha256(identity.encode()).hexdigest()[:12]}"
        began, failed = time.process_time(), ""
        groups = [[k] for k in range(len(self.train))] if alone else [list(range(len(self.train)))]
        forecasters: list[Forecaster] = []
        for group in groups:
            cases = [self.train[k] for k in group]
            checkpoint = weights.with_name(f"{weights.name}-{group[0]}.safetensors")
            try:
                forecasters.append(method.fit(cases, [self.validation[k] for k in group], seed, checkpoint, told))
            except FloatingPointError as error:
                # A method whose training diverges is a row of the table, not the end of the run.
                failed = str(error)
                forecasters.append(_Diverged())
        fitted = time.process_time()
        told(0, 0, "forecasting")
        scores, drawn = self._scored(method, forecasters, alone)
        spent = time.process_time() - fitted
        result = Result(scores, max(one.parameters for one in forecasters), fitted - began, spent, failed)
        if seed == 0:
            write_tensors(fields, drawn, {"method": method.name})
        self.folder.keep(part, identity, result.record())
        return result

    def _scored(
        self, method: SensorMethod, forecasters: Sequence[Forecaster], alone: bool
    ) -> tuple[dict[str, dict[str, Score]], dict[str, Tensor]]:
        scores: dict[str, dict[str, Score]] = {test: {} for test in self.tests}
        drawn: dict[str, Tensor] = {}
        for test, cases in self.tests.items():
            for case in cases:
                home = next((k for k, one in enumerate(self.train) if _same(one, case)), None)
                if home is None and method.bound:
                    continue
                forecaster = forecasters[(home or 0) if alone else 0]
                scores[test][case.name] = score(forecaster, case)
                if test not in drawn:
                    with torch.no_grad():
                        drawn[test] = forecast(forecaster, case.some(drawn_windows(case))).float()
        return scores, {drawn_name(test): path for test, path in drawn.items()}


class _Diverged(Forecaster):
    """What remains of a method whose training diverged."""

    def forecast(self, given: Given) -> Tensor:
        shape = (len(given.values), given.wanted.shape[1], *given.values.shape[2:])
        return torch.full(shape, math.nan)


def drawn_windows(case: SensorCase) -> Tensor:
    """The windows that pictures show: the first, the last, and one between."""
    return torch.linspace(0, len(case.values) - 1, min(DRAWN, len(case.values))).round().long()


def drawn_name(test: str) -> str:
    """Under which a test's forecasts are kept."""
    return test or "."


def _same(one: SensorCase, other: SensorCase) -> bool:
    """Whether two cases are at the same sensors in the same order."""
    return torch.equal(one.placement.points, other.placement.points)


def _check(methods: Sequence[SensorMethod], train: Sequence[SensorCase], validation: Sequence[SensorCase], tests: Tests) -> None:
    names = [method.name for method in methods]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise RunFolderError(f"two methods are called {twice[0]}: rename one, since names tell them apart in tables and folders")
    if not methods:
        raise RunFolderError("there is no method to run: name at least one")
    if not train or len(train) != len(validation):
        raise RunFolderError(
            f"{len(train)} training and {len(validation)} validation cases: give one of each for every placement, in one order"
        )
    for one, other in zip(train, validation, strict=True):
        if not _same(one, other):
            raise RunFolderError(f"{one.name} and {other.name} are at other sensors: give both in the same order")
    for test, cases in tests.items():
        labels = [case.name for case in cases]
        if not cases or len(set(labels)) < len(labels):
            raise RunFolderError(f'test "{test}" needs at least one case, and each its own name: {labels}')
        for case in cases:
            if len(case.values) == 0:
                raise RunFolderError(f"{case.name} has no window: give a longer span to test on")
            seen = case.targets[1][:, 0] if case.scored is None else case.targets[1][:, 0, case.scored]
            if not bool(seen.any()):
                raise RunFolderError(
                    f"{case.name}: nothing was measured one frame ahead at the sensors that are scored: test on a longer "
                    "span, or at other sensors"
                )
    if not tests:
        raise RunFolderError("there is nothing to test on: give at least one test case")


def _readable(path: Path) -> bool:
    try:
        read_tensors(path)
    except (FileNotFoundError, RunFolderError):
        return False
    return True


def _summary(results: Sequence[Result]) -> str:
    for test, cases in results[0].scores.items():
        if cases:
            horizon = len(next(iter(cases.values())).count)
            mean = sum(result.value(test, "mae", horizon) for result in results) / len(results)
            return f"MAE {mean:.4f}" if math.isfinite(mean) else "diverged"
    return "no number"
