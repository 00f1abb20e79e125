"""The main job: neural PDEs learn heat through the solver and roll out on surfaces they have never seen."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from torch import Tensor

from integrators import Solution
from neuralpde.files import RunFolderError, read_tensors, write_lines, write_tensors
from neuralpde.heat_data import FRAMES, GIVEN_FRAMES, Surface, Truth, surface
from neuralpde.heat_models import LEARNED, TITLES, Learned, fit_stencil, parameters, stencil_rollout
from neuralpde.heat_settings import HeatSettings, open_run
from neuralpde.invariants import Check, check_invariants
from neuralpde.metrics import PublishedRayleigh, nrmse, rayleigh_error
from neuralpde.model import NeuralPDE
from neuralpde.training import Training, train
from operators import Movable, TriangleMesh, bumpy, icosphere, load_mesh, robust_laplacian, torus

TRAIN_CONDITIONS, TEST_CONDITIONS = 3, 5
TRAIN_FRAMES = 151
WINDOW = 3
STEPS = FRAMES - GIVEN_FRAMES


@dataclass(frozen=True)
class Outcome:
    """What one method did on the test surfaces.

    `nrmse` and `rayleigh_error` hold, for each surface, the sums over all steps of each rollout; `path` holds, for each
    surface, the first rollout (STEPS + 1, n); `rayleigh` its quotient at every step.
    """

    name: str
    parameters: int
    seconds: float
    nfe: float
    nrmse: dict[str, list[float]]
    rayleigh_error: dict[str, list[float]]
    path: dict[str, Tensor]
    checks: list[Check]

    def mean(self, metric: str) -> float:
        """The mean of a metric over surfaces and rollouts."""
        by_surface: dict[str, list[float]] = getattr(self, metric)
        values = [value for rollouts in by_surface.values() for value in rollouts]
        return sum(values) / len(values)


def run_heat(settings: HeatSettings, console: Console | None = None) -> list[Outcome]:
    """Simulate, train, roll out, check, report. Everything finished is kept, so a killed run can be resumed."""
    from neuralpde.heat_report import print_table, write_results

    console = console or Console(stderr=True)
    settings = open_run(settings)
    torch.set_num_threads(settings.threads)
    # Denormal numbers appear as heat dies out, and slow the CPU down a hundredfold.
    torch.set_flush_denormal(True)
    with _progress(console) as progress:
        trained_on, tested_on = _surfaces(settings, progress)
        models = {learned.name: _trained(learned, trained_on, settings, progress) for learned in LEARNED}
        outcomes = _outcomes(models, trained_on, tested_on, settings, progress)
        losses = {name: training.losses for name, (_, training) in models.items()}
    write_results(settings, outcomes, losses, trained_on, tested_on)
    print_table(outcomes, tested_on, console)
    console.print(f"report: {settings.out / 'report.html'}")
    return outcomes


def _progress(console: Console) -> Progress:
    return Progress(
        TextColumn("{task.description:<34}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}"),
        console=console,
    )


def _surfaces(settings: HeatSettings, progress: Progress) -> tuple[list[Surface], list[Surface]]:
    training, testing = _meshes(settings)
    task = progress.add_task("simulating heat", total=len(training) + len(testing), note="")
    groups = []
    for role, meshes, conditions in (("train", training, TRAIN_CONDITIONS), ("test", testing, TEST_CONDITIONS)):
        seed = settings.seed + (1000 if role == "test" else 0)
        groups.append(
            [
                surface(
                    name,
                    mesh,
                    settings.truth,
                    conditions,
                    seed,
                    settings.out / "data" / f"{role}-{name}.safetensors",
                    lambda: progress.advance(task),
                )
                for name, mesh in meshes.items()
            ]
        )
    return groups[0], groups[1]


def _meshes(settings: HeatSettings) -> tuple[dict[str, TriangleMesh], dict[str, TriangleMesh]]:
    if settings.train_mesh:
        return _load(settings.train_mesh), _load(settings.test_mesh)
    seed = 10 * settings.seed
    training = {
        "bumpy-sphere": bumpy(icosphere(3), 0.2, seed=seed),
        "bumpy-torus": bumpy(torus(40, 16), 0.15, seed=seed + 1),
        "smooth-sphere": icosphere(2),
    }
    testing = {
        "unseen-sphere": bumpy(icosphere(3, radius=2.0), 0.35, bumps=9, seed=seed + 2),
        "unseen-torus": bumpy(torus(56, 22, radius=1.0, tube=0.45), 0.25, seed=seed + 3),
    }
    return training, testing


def _load(paths: tuple[Path, ...]) -> dict[str, TriangleMesh]:
    meshes: dict[str, TriangleMesh] = {}
    for path in paths:
        if path.stem in meshes:
            raise RunFolderError(f"two meshes are called {path.stem}: rename one, since names tell them apart in tables")
        meshes[path.stem] = load_mesh(path)
    return meshes


def _trained(
    learned: Learned, surfaces: list[Surface], settings: HeatSettings, progress: Progress
) -> tuple[Movable, Training]:
    torch.manual_seed(settings.seed)
    model = learned.build(surfaces[0].mesh.to(torch.float32), settings.truth)
    task = progress.add_task(f"training {learned.title}", total=settings.steps, note="")
    checkpoint = settings.out / "weights" / f"{learned.name}.safetensors"
    metrics = settings.out / "metrics" / f"{learned.name}.jsonl"
    notes = {"model": learned.name, "batch": settings.batch, "threads": settings.threads}
    views = [model.on(item.mesh.to(torch.float32)) for item in surfaces]

    def loss(step: int, random: torch.Generator) -> Tensor:
        k = step % len(surfaces)
        return window_loss(views[k], surfaces[k], settings.batch, random)

    def show(training: Training) -> None:
        progress.update(task, completed=training.step, note=f"loss {training.losses[-1]:.2e}")

    training = train(
        model,
        loss,
        steps=settings.steps,
        learning_rate=learned.learning_rate,
        checkpoint=checkpoint,
        seed=settings.seed,
        notes=notes,
        progress=show,
    )
    progress.update(task, completed=training.step, note=f"loss {training.losses[-1]:.2e}")
    write_lines(metrics, [{"method": learned.name, "step": k, "loss": v} for k, v in enumerate(training.losses)])
    return model, training


def window_loss(model: Movable, item: Surface, batch: int, random: torch.Generator) -> Tensor:
    """The squared error of a rollout over three frames, relative to that of persistence; 1 means nothing was learned."""
    condition = torch.randint(TRAIN_CONDITIONS, (batch,), generator=random)
    start = torch.randint(TRAIN_FRAMES - WINDOW, (batch,), generator=random)
    window = torch.stack([item.frames[condition, start + k] for k in range(WINDOW + 1)])
    prediction: Tensor = model(window[0], item.times(WINDOW + 1))
    error = (prediction[1:] - window[1:]).square().sum(dim=(0, 2, 3))
    persistence = (window[1:] - window[0]).square().sum(dim=(0, 2, 3))
    return (error / persistence.clamp(min=1e-12 * float(window.square().sum()))).mean()


def _outcomes(
    models: dict[str, tuple[Movable, Training]],
    trained_on: list[Surface],
    tested_on: list[Surface],
    settings: HeatSettings,
    progress: Progress,
) -> list[Outcome]:
    task = progress.add_task("rolling out on unseen surfaces", total=len(TITLES), note="")
    outcomes = []
    for name in TITLES:
        rollout = _rollout(name, models, trained_on, settings.truth)
        outcomes.append(_outcome(name, rollout, models, tested_on, settings.out / "rollouts" / f"{name}.safetensors"))
        progress.advance(task)
    return outcomes


Rollout = Callable[[Surface, Tensor, Tensor], tuple[Tensor, int, list[Check]]]


def _rollout(
    name: str, models: dict[str, tuple[Movable, Training]], trained_on: list[Surface], truth: Truth
) -> Rollout:
    """How a method predicts: surface, y0 (..., n, 1), times ↦ path (T, ..., n, 1), NFE, invariant checks."""
    if name == "zero":
        return lambda item, y0, t: (torch.zeros(len(t), *y0.shape), 0, [])
    if name == "persistence":
        return lambda item, y0, t: (y0.expand(len(t), *y0.shape), 0, [])
    if name == "stencil":
        operators = [(item, truth.laplacian(item.mesh)) for item in trained_on]
        rate = fit_stencil(operators, TRAIN_FRAMES, TRAIN_CONDITIONS)
        return lambda item, y0, t: (
            stencil_rollout(truth.laplacian(item.mesh.to(torch.float32)), rate, y0, t),
            len(t) - 1,
            [],
        )
    model = models[name][0]

    def roll(item: Surface, y0: Tensor, t: Tensor) -> tuple[Tensor, int, list[Check]]:
        view = model.on(item.mesh.to(torch.float32))
        if not isinstance(view, NeuralPDE):
            return view(y0, t), len(t) - 1, []
        solution: Solution = view.solve(y0, t)
        assert isinstance(solution.x, Tensor)
        # Float32 sums over n nodes and hundreds of products, and the adaptive solver's own tolerance.
        tolerance = 3e-5 + 20 * float(getattr(view.solver, "rtol", 0.0))
        checks = check_invariants(view.rhs.invariants, solution.x, tolerance)
        return view.decode(solution.x), solution.stats.nfe, checks

    return roll


@torch.no_grad()
def _outcome(
    name: str,
    rollout: Rollout,
    models: dict[str, tuple[Movable, Training]],
    tested_on: list[Surface],
    cache: Path,
) -> Outcome:
    count = parameters(models[name][0]) if name in models else int(name == "stencil")
    seconds = models[name][1].seconds if name in models else 0.0
    kept = _kept(cache, tested_on)
    if kept is None:
        notes: dict[str, Any] = {"nrmse": {}, "rayleigh_error": {}, "nfe": [], "seconds": 0.0, "checks": []}
        tensors = {}
        for item in tested_on:
            began = time.perf_counter()
            path, nfe, checks = rollout(item, item.frames[:, GIVEN_FRAMES - 1], item.times(STEPS + 1, GIVEN_FRAMES - 1))
            notes["seconds"] += time.perf_counter() - began
            truth = item.frames[:, GIVEN_FRAMES:].transpose(0, 1)
            quotient = PublishedRayleigh(robust_laplacian(item.mesh))
            error = nrmse(path[1:].double(), truth.double()).sum(0)
            notes["nrmse"][item.name] = error.tolist()
            difference = rayleigh_error(path[1:].double(), truth.double(), quotient).sum(0)
            notes["rayleigh_error"][item.name] = difference.tolist()
            notes["nfe"].append(nfe)
            notes["checks"] += [vars(check) for check in checks]
            tensors[item.name] = path[:, 0, :, 0].contiguous()
        write_tensors(cache, tensors, notes)
        kept = tensors, notes
    tensors, notes = kept
    return Outcome(
        name,
        count,
        seconds + notes["seconds"],
        sum(notes["nfe"]) / len(notes["nfe"]),
        notes["nrmse"],
        notes["rayleigh_error"],
        tensors,
        [Check(**check) for check in notes["checks"]],
    )


def _kept(cache: Path, tested_on: list[Surface]) -> tuple[dict[str, Tensor], dict[str, Any]] | None:
    if not cache.exists():
        return None
    try:
        tensors, notes = read_tensors(cache)
    except RunFolderError:
        return None
    return (tensors, notes) if set(tensors) == {item.name for item in tested_on} else None
