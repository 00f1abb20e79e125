"""`neuralpde bench integrators`: our solvers beside torchdiffeq and torchode, on what neural PDEs are made of."""

from __future__ import annotations

import importlib.util
import math
import statistics
import time
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
import torchdiffeq
from rich import box
from rich.console import Console
from rich.progress import Progress
from rich.table import Table
from torch import Tensor

from integrators import Integrator, SolverWarning, State, integrate
from integrators.state import parts_of
from neuralpde.bench import Row, machine, write_rows
from neuralpde.bench_methods import METHODS
from neuralpde.bench_overhead import overhead_rows
from neuralpde.bench_problems import Problem, allen_cahn, cahn_hilliard, grand, heat, wave
from neuralpde.files import RunFolderError

# How many evaluations torchdiffeq's dopri5 may take before the rest of its time is extrapolated.
MEASURED = 3_000


@dataclass(frozen=True)
class IntegratorBench:
    """The settings of `neuralpde bench integrators`."""

    json: Path | None = None
    """Also write the rows to this file."""
    around: int = 100
    """Vertices around the torus that is measured on."""
    across: int = 100
    """Vertices around its tube; 100 × 100 is 10,000."""
    channels: int = 16
    """Width of the field."""
    repeats: int = 3
    """Timed solves of each of our methods; the median counts."""
    threads: int = 1
    """Torch threads."""
    only: tuple[str, ...] = ()
    """Only the tables whose names begin so, for example: heat wave overhead."""

    def __post_init__(self) -> None:
        for name in ("around", "across", "channels", "repeats", "threads"):
            if getattr(self, name) < (3 if name in ("around", "across") else 1):
                raise RunFolderError(f"--{name} is too small: {getattr(self, name)}")


@dataclass
class Measurement:
    """One method's solve of one problem."""

    cpu_seconds: float
    nfe: float
    error: float | None
    note: str = ""


@dataclass
class Contest:
    """One table: a problem, the error that is asked for, and the methods that compete."""

    table: str
    problem: Problem
    target: float
    methods: Mapping[str, Integrator]
    rtol: float
    """Tolerance of the explicit adaptive solvers of the other libraries."""
    results: dict[str, Measurement] = field(default_factory=dict)

    def run(self, repeats: int) -> list[Row]:
        self.results["torchdiffeq dopri5"] = self._extrapolated(self._torchdiffeq)
        if importlib.util.find_spec("torchode") is not None:
            self.results["torchode dopri5"] = self._extrapolated(self._torchode)
        with Progress(console=Console(stderr=True), transient=True, auto_refresh=False) as bar:
            task = bar.add_task(self.table, total=len(self.methods))
            for name, method in self.methods.items():
                self.results[name] = self._ours(method, repeats)
                bar.advance(task)
                bar.refresh()
        return self._rows()

    def _ours(self, method: Integrator, repeats: int) -> Measurement:
        problem, seconds = self.problem, []
        for _ in range(repeats):
            f = problem.fresh()  # Without the factors and bounds of the run before.
            start = time.process_time()
            with torch.no_grad(), warnings.catch_warnings():
                warnings.simplefilter("ignore", SolverWarning)
                solution = integrate(f, problem.x0, [0.0, problem.horizon], method)
            seconds.append(time.process_time() - start)
            if seconds[-1] > 20:
                break
        stats = solution.stats
        error = relative_error(solution.final, problem.reference())
        return Measurement(statistics.median(seconds), stats.nfe + stats.nvp + stats.solves, error)

    def _extrapolated(self, solve: Callable[[float], tuple[int, State]]) -> Measurement:
        """A whole solve if it is short; else the cost of a piece of it, at the rate that the piece before it has shown."""
        problem = self.problem
        span = problem.horizon * min(1.0, MEASURED / 6 / max(1.0, problem.stiffness / 3.3))
        marks = []
        for part in (span / 2, span):
            start = time.process_time()
            nfe, x = solve(part)
            marks.append((time.process_time() - start, nfe))
        (first, early), (second, late) = marks
        if span >= problem.horizon:
            return Measurement(second, late, relative_error(x, problem.reference()))
        rest = (problem.horizon - span) / (span / 2)
        note = f"extrapolated from t ≤ {span:.3g} of {problem.horizon:.3g}: its steps are bound by stability"
        return Measurement(second + rest * (second - first), round(late + rest * (late - early)), None, note)

    @property
    def _first_step(self) -> float:
        # Left to guess, torchdiffeq's first step overflows Cahn–Hilliard's cube, and the solve ends in "underflow in dt 0.0".
        return min(1.0, 1.0 / self.problem.stiffness) * self.problem.horizon

    def _torchdiffeq(self, end: float) -> tuple[int, State]:
        f, count = counted(self.problem.fresh())
        t = torch.tensor([0.0, end], dtype=torch.float64)
        settings = {"rtol": self.rtol, "atol": self.rtol * 1e-2, "method": "dopri5", "options": {"first_step": self._first_step}}
        with torch.no_grad():
            x = torchdiffeq.odeint(f, self.problem.x0, t, **settings)
        return count(), tuple(part[-1] for part in x) if isinstance(x, tuple) else x[-1]

    def _torchode(self, end: float) -> tuple[int, State]:
        import torchode

        f, count = counted(self.problem.fresh())
        parts = parts_of(self.problem.x0)
        shapes = [part.shape for part in parts]
        sizes = [part.numel() for part in parts]

        def flat(t: Tensor, y: Tensor) -> Tensor:
            pieces = [piece.reshape(shape) for piece, shape in zip(torch.split(y[0], sizes), shapes, strict=True)]
            slope = f(t[0], tuple(pieces) if len(pieces) > 1 else pieces[0])
            return torch.cat([part.reshape(-1) for part in parts_of(slope)])[None]

        term = torchode.ODETerm(flat)
        controller = torchode.IntegralController(self.rtol * 1e-2, self.rtol, term=term)
        solver = torchode.AutoDiffAdjoint(torchode.Dopri5(term=term), controller)
        start = torch.cat([part.reshape(-1) for part in parts])[None]
        with torch.no_grad():
            times = torch.tensor([[0.0, end]], dtype=start.dtype)
            first = torch.tensor([self._first_step], dtype=start.dtype)
            y = solver.solve(torchode.InitialValueProblem(y0=start, t_eval=times), dt0=first).ys[0, -1]
        pieces = [piece.reshape(shape) for piece, shape in zip(torch.split(y, sizes), shapes, strict=True)]
        return count(), tuple(pieces) if len(pieces) > 1 else pieces[0]

    def _rows(self) -> list[Row]:
        rows = []
        for name, result in self.results.items():
            note = result.note or None
            rows.append(Row(self.table, name, "cpu_seconds", result.cpu_seconds, "s", note=note))
            rows.append(Row(self.table, name, "nfe", result.nfe, "evaluations, products and solves", note=note))
            unit = "relative 2-norm at the end"
            rows.append(Row(self.table, name, "error", result.error, unit, note=note))
            if self.problem.energy is not None and name in self.methods:
                drift = self.problem.drift(self.methods[name])
                rows.append(Row(self.table, name, "energy_drift", drift, "relative, largest over 10 times"))
        fit = {n: r for n, r in self.results.items() if n in self.methods and r.error is not None and r.error <= self.target}
        base = self.results["torchdiffeq dopri5"]
        winner = min(fit, key=lambda name: fit[name].cpu_seconds, default=None)
        value = None if winner is None else base.cpu_seconds / fit[winner].cpu_seconds
        note = f"{winner}, against rtol {self.rtol:g}" if winner else "no method reached the error that was asked for"
        if base.note and winner:
            note += f", {base.note}"
        return [*rows, Row(self.table, "best", "speedup", value, "ratio", "torchdiffeq dopri5", note=note)]


def counted(f: Any) -> tuple[Callable[[Any, Any], Any], Callable[[], int]]:
    """f, and how often it was called."""
    calls = 0

    def evaluate(t: Any, x: Any) -> Any:
        nonlocal calls
        calls += 1
        return f(t, x)

    return evaluate, lambda: calls


def relative_error(x: State, reference: State) -> float:
    """‖x − reference‖ / ‖reference‖ over the whole state."""
    pairs = zip(parts_of(x), parts_of(reference), strict=True)
    difference = sum(float((a - b).double().square().sum()) for a, b in pairs)
    return math.sqrt(difference / sum(float(b.double().square().sum()) for b in parts_of(reference)))


def bench_integrators(settings: IntegratorBench) -> list[Row]:
    """Measure, print the tables, write the JSON, and return the rows."""
    torch.set_num_threads(settings.threads)
    torch.manual_seed(0)
    console = Console()
    console.print(f"{settings.around * settings.across:,} vertices, {settings.channels} channels; {machine()}")
    rows: list[Row] = []
    for contest in contests(settings):
        if not settings.only or contest.table.startswith(settings.only):
            found = contest.run(settings.repeats)
            _show(console, contest.table, found)
            rows.extend(found)
    if not settings.only or any("overhead".startswith(name) or name.startswith("overhead") for name in settings.only):
        found = overhead_rows(5 * settings.repeats)
        for name in dict.fromkeys(row.table for row in found):
            _show(console, name, [row for row in found if row.table == name])
        rows.extend(found)
    if settings.json is not None:
        write_rows(settings.json, rows)
    return rows


def contests(settings: IntegratorBench) -> list[Contest]:
    """The tables, each with the settings of our methods that reach its error."""
    size = (settings.around, settings.across, settings.channels)
    problems = {"heat": heat, "cahn-hilliard": cahn_hilliard, "allen-cahn": allen_cahn, "wave": wave, "grand": grand}
    made: dict[str, Problem] = {}
    result = []
    for table, (target, rtol, methods) in METHODS.items():
        kind = table.removesuffix("-1e-3").removesuffix("-1e-6")
        if settings.only and not table.startswith(settings.only):
            continue
        if kind not in made:
            made[kind] = problems[kind](*size)
        result.append(Contest(table, made[kind], target, methods(made[kind].horizon), rtol))
    return result


def _show(console: Console, name: str, rows: list[Row]) -> None:
    """A row a method, a column a metric; the ratios of a single method, and the notes, below."""
    ratios = [row for row in rows if row.unit == "ratio" and row.method != "best"]
    rows = [row for row in rows if row not in ratios]
    metrics = list(dict.fromkeys(row.metric for row in rows))
    table = Table(title=name, box=box.SIMPLE_HEAD, title_justify="left")
    table.add_column("method", no_wrap=True)
    for metric in metrics:
        table.add_column(metric.replace("_", " "), justify="right")
    notes: dict[str, None] = {}
    for method in dict.fromkeys(row.method for row in rows):
        own = {row.metric: row for row in rows if row.method == method}
        table.add_row(method, *(_number(own[metric].value) if metric in own else "" for metric in metrics))
        notes.update(dict.fromkeys(f"{method}: {row.note}" for row in own.values() if row.note))
    console.print(table)
    for row in ratios:
        note = f" ({row.note})" if row.note else ""
        console.print(f"  {row.method}: {row.metric} {_number(row.value)} against {row.baseline}{note}")
    for note in notes:
        console.print(f"  {note}", style="dim")


def _number(value: float | None) -> str:
    if value is None:
        return "—"
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"
