"""The main job: neural PDEs learn heat through the solver and roll out on surfaces they have never seen."""

from __future__ import annotations

from pathlib import Path

import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from torch import Tensor

from neuralpde.files import RunFolderError, write_lines
from neuralpde.heat_data import TEST_CONDITIONS, TRAIN_CONDITIONS, TRAIN_FRAMES, Surface, surface
from neuralpde.heat_models import LEARNED, TITLES, Learned
from neuralpde.heat_report import print_table, write_results
from neuralpde.heat_rollout import Models, Outcome, outcome_of, rollout_of
from neuralpde.heat_settings import HeatSettings, open_run, record_run
from neuralpde.training import Training, train
from operators import Movable, TriangleMesh, bumpy, icosphere, load_mesh, torus

WINDOW = 3
Meshes = dict[str, TriangleMesh]


def run_heat(settings: HeatSettings, console: Console | None = None) -> list[Outcome]:
    """Simulate, train, roll out, check, report. Everything finished is kept, so a killed run can be resumed.

    Args:
        console: where the table goes; standard output if absent. Progress goes to standard error.
    """
    console = console or Console()
    settings = open_run(settings)
    meshes = _meshes(settings)
    record_run(settings)
    torch.set_num_threads(settings.threads)
    # Denormal numbers appear as heat dies out, and are slow on many processors.
    torch.set_flush_denormal(True)
    with _progress(Console(stderr=True)) as progress:
        trained_on, tested_on = _surfaces(meshes, settings, progress)
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


def _surfaces(
    meshes: tuple[Meshes, Meshes], settings: HeatSettings, progress: Progress
) -> tuple[list[Surface], list[Surface]]:
    training, testing = meshes
    task = progress.add_task("simulating heat", total=len(training) + len(testing), note="")
    groups = []
    for role, group, conditions in (("train", training, TRAIN_CONDITIONS), ("test", testing, TEST_CONDITIONS)):
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
                for name, mesh in group.items()
            ]
        )
    return groups[0], groups[1]


def _meshes(settings: HeatSettings) -> tuple[Meshes, Meshes]:
    if settings.train_mesh:
        return _load(settings.train_mesh, settings.clean), _load(settings.test_mesh, settings.clean)
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


def _load(paths: tuple[Path, ...], clean: bool) -> Meshes:
    meshes: Meshes = {}
    for path in paths:
        if path.stem in meshes:
            raise RunFolderError(f"two meshes are called {path.stem}: rename one, since names tell them apart in tables")
        meshes[path.stem] = load_mesh(path, clean=clean)
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
    models: Models,
    trained_on: list[Surface],
    tested_on: list[Surface],
    settings: HeatSettings,
    progress: Progress,
) -> list[Outcome]:
    task = progress.add_task("rolling out on unseen surfaces", total=len(TITLES), note="")
    outcomes = []
    for name in TITLES:
        rollout = rollout_of(name, models, trained_on, settings.truth)
        outcomes.append(outcome_of(name, rollout, models, tested_on, settings.out / "rollouts" / f"{name}.safetensors"))
        progress.advance(task)
    return outcomes
