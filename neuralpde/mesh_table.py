"""The table of several methods on several meshes: fit, roll out, measure, keep, print; however the cases were made."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from torch import Tensor

from neuralpde.files import RunFolderError, read_tensors, write_tensors
from neuralpde.heat_data import GIVEN_FRAMES
from neuralpde.mesh_case import Case
from neuralpde.mesh_method import Fitted, Method
from neuralpde.mesh_results import METRICS, Result, fingerprint, kept_frames, rows_of
from neuralpde.metrics import PublishedRayleigh, mass_error, nrmse, rayleigh_error, smape
from neuralpde.run_folder import RunFolder


def run_table(
    table: str,
    methods: Sequence[Method],
    train: Sequence[Case],
    test: Sequence[Case],
    folder: RunFolder,
    *,
    seeds: int = 3,
    published: Mapping[tuple[str, str], float] | None = None,
    console: Console | None = None,
) -> list[dict[str, Any]]:
    """Fit every method on the training cases with every seed, roll out on the test cases, print the table, write it.

    Every finished (method, seed) is kept in the folder, and a half-trained network continues from its checkpoint, so a run that
    was killed gives, resumed, what an uninterrupted one gives. A method that is not random is fitted once. The folder must have
    been checked (`folder.check()`). It then holds table.json, report.html and its pictures.

    Args:
        table: the name of the table in its rows.
        train: what is learned from, already cut to the trajectories and frames that may be seen.
        test: what is rolled out on; metrics are against `clean`, and summed over the steps after the given frames.
        seeds: of each random method, from 0.
        published: the paper's number of (method, metric), if it has one.
        console: where the table goes; standard output if absent. Progress goes to standard error.

    Returns:
        The rows: method, metric (`nrmse`, `rayleigh_error`, `smape`, `mass_error`, `parameters`, `seconds`), value and std over
        seeds, the value on each mesh, and `diverged`, the share of rollouts that are not finite. `value` is None if there is one.

    Raises:
        RunFolderError: a folder of another run; two methods of one name; nothing to test on.
    """
    console = console or Console()
    _check(methods, test)
    torch.set_num_threads(folder.threads)
    # Denormal numbers appear as heat dies out, and are slow on many processors.
    torch.set_flush_denormal(True)
    folder.make()
    data = f"{fingerprint(train)} {fingerprint(test)}"
    results: dict[str, list[Result]] = {}
    columns = (TextColumn("{task.description:<18}"), BarColumn(20), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, TextColumn("{task.fields[note]}"), console=Console(stderr=True)) as progress:
        for method in methods:
            count = seeds if method.random else 1
            task = progress.add_task(method.name, total=count, note="")
            results[method.name] = []
            for seed in range(count):

                def told(note: str, task: Any = task, seed: int = seed) -> None:
                    progress.update(task, note=f"seed {seed}: {note}")

                results[method.name].append(_result(method, seed, data, train, test, folder, told))
                progress.advance(task)
            progress.update(task, note=_summary(results[method.name]))
    rows = rows_of(table, results, published or {})
    folder.finish(rows)
    # `import neuralpde` brings this module, but not matplotlib before something is drawn.
    from neuralpde.mesh_report import print_table, write_mesh_report

    write_mesh_report(table, results, rows, train, test, folder)
    print_table(table, rows, [case.scene.name for case in test], console)
    console.print(f"report: {folder.path / 'report.html'}")
    return rows


def _check(methods: Sequence[Method], test: Sequence[Case]) -> None:
    names = [method.name for method in methods]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise RunFolderError(f"two methods are called {twice[0]}: rename one, since names tell them apart in tables and folders")
    if not test:
        raise RunFolderError("there is no mesh to test on: give at least one test case")
    for case in test:
        if case.clean.shape[1] <= GIVEN_FRAMES:
            raise RunFolderError(
                f"{case.scene.name} has {case.clean.shape[1]} frames, and {GIVEN_FRAMES} are given: simulate longer"
            )


def _result(
    method: Method,
    seed: int,
    data: str,
    train: Sequence[Case],
    test: Sequence[Case],
    folder: RunFolder,
    told: Callable[[str], None],
) -> Result:
    """What was kept of (method, seed), or else computed now and kept."""
    part, identity = f"{method.name}-{seed}", f"{data} {method!r} seed {seed}"
    fields = folder.path / "fields" / f"{part}.safetensors"
    kept = folder.kept(part, identity)
    if kept is not None and (seed > 0 or _readable(fields)):
        try:
            return Result.from_record(kept)
        except (KeyError, ValueError, TypeError, AttributeError) as error:
            damaged = folder.parts / f"{part}.json"
            raise RunFolderError(f"{damaged} is damaged ({error!r}): delete it and resume, and it is computed anew") from error
    digest = sha256(identity.encode()).hexdigest()[:12]
    began = time.perf_counter()
    try:
        fitted = method.fit(
            train,
            seed,
            folder.path / "weights" / f"{part}-{digest}.safetensors",
            lambda step, steps, loss: told(f"step {step}/{steps}, loss {loss:.2e}"),
        )
    except FloatingPointError as error:
        # A method whose training diverges is a row of the table, not the end of the run.
        told(str(error))
        fitted = _Diverged()
    result, paths = _rolled_out(method, seed, fitted, test, told)
    result = result.taking(time.perf_counter() - began + float(getattr(fitted, "earlier", 0.0)))
    if seed == 0:
        write_tensors(fields, paths, {"method": method.name})
    folder.keep(part, identity, result.record())
    return result


@torch.no_grad()
def _rolled_out(
    method: Method, seed: int, fitted: Fitted, test: Sequence[Case], told: Callable[[str], None]
) -> tuple[Result, dict[str, Tensor]]:
    rollouts, curves, paths = {}, {}, {}
    for case in test:
        told(f"rolling out on {case.scene.name}")
        steps = case.clean.shape[1] - GIVEN_FRAMES
        path = fitted.rollout(case.given, steps)
        if path.shape != case.clean[:, GIVEN_FRAMES:].shape:
            raise ValueError(f"{method.name} rolled out {tuple(path.shape)}, not {tuple(case.clean[:, GIVEN_FRAMES:].shape)}")
        prediction, truth = (each.double().transpose(0, 1) for each in (path, case.clean[:, GIVEN_FRAMES:]))
        quotient = PublishedRayleigh(case.scene.robust.to_wide(truth))
        by_step = {
            "nrmse": nrmse(prediction, truth),
            "rayleigh_error": rayleigh_error(prediction, truth, quotient),
            "smape": smape(prediction, truth),
        }
        rollouts[case.scene.name] = {metric: by_step[metric].sum(0).tolist() for metric in METRICS}
        drift = mass_error(prediction, truth, case.scene.robust.mass.double())
        rollouts[case.scene.name]["mass_error"] = drift.amax(0).tolist()
        curves[case.scene.name] = {metric: by_step[metric].mean(1).tolist() for metric in METRICS}
        curves[case.scene.name]["rayleigh"] = quotient(prediction[:, 0]).tolist()
        paths[case.scene.name] = path[0, kept_frames(steps), :, 0].float().contiguous()
    losses = list(getattr(fitted, "losses", []))
    return Result(method.name, seed, fitted.parameters, 0.0, rollouts, curves, losses), paths


class _Diverged(Fitted):
    """What remains of a method whose training diverged."""

    def rollout(self, given: Any, steps: int) -> Tensor:
        frame: Tensor = given.frames[:, :1]
        return torch.full_like(frame, math.nan).repeat(1, steps, 1, 1)


def _readable(path: Path) -> bool:
    try:
        read_tensors(path)
    except (FileNotFoundError, RunFolderError):
        return False
    return True


def _summary(results: Sequence[Result]) -> str:
    values = [result.mean("nrmse") for result in results]
    mean = sum(values) / len(values)
    return f"NRMSE {mean:.2f}" if math.isfinite(mean) else "diverged"
