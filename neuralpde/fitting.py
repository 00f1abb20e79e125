"""Training a correction against true trajectories: with a progress bar, and to the same weights after a kill."""

from __future__ import annotations

import hashlib
import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from integrators import State
from integrators.state import check_state, parts_of
from neuralpde.objectives import Objective, Unrolled
from neuralpde.stepper import Stepper
from neuralpde.training import Training, load_weights, train


def fit(
    stepper: Stepper,
    truth: State,
    objective: Objective | None = None,
    *,
    steps: int = 300,
    learning_rate: float = 3e-3,
    seed: int = 0,
    checkpoint: Path | None = None,
    progress: bool = False,
    notes: dict[str, Any] | None = None,
) -> Training:
    """Train the parameters of a stepper so that it follows the truth.

    Args:
        stepper: with a correction; its parameters that require a gradient are learned, by Adam with a cosine schedule.
        truth: trajectories (T + 1, B, ..., n, c) on the stepper's own domain, a frame every `stepper.dt`.
        objective: `Unrolled()` if absent.
        checkpoint: a file, written atomically every few seconds; a training that was killed continues from it, bit for bit. If
            absent nothing is kept. `load(checkpoint, stepper)` reads the weights.
        progress: show a bar on standard error.
        notes: what else identifies this training; a checkpoint with other notes, or of another truth, is refused.

    Returns:
        Training: the loss of each step, and the seconds.

    Raises:
        ValueError: trajectories too short for the objective, or nothing to learn.
        FloatingPointError: the loss is not finite. RunFolderError: the checkpoint of another training.
    """
    objective = Unrolled() if objective is None else objective
    check_state(truth, "truth")
    shape = parts_of(truth)[0].shape
    if len(shape) < 4:
        raise ValueError(f"truth must be trajectories (frames, batch, ..., n, c), not {tuple(shape)}: one is truth[:, None]")
    if shape[0] <= objective.longest():
        raise ValueError(
            f"truth has {shape[0] - 1} steps and the objective wants windows of {objective.longest()}: give longer trajectories, "
            "or shorter lengths"
        )
    if steps < 1:
        raise ValueError(f"steps must be at least 1, not {steps}")
    if not any(p.requires_grad for p in stepper.parameters()):
        raise ValueError("no parameter of this stepper requires a gradient: is it the uncorrected simulator?")

    def loss(step: int, generator: torch.Generator) -> torch.Tensor:
        return objective.loss(stepper, truth, step / steps, generator)

    with ExitStack() as stack:
        file = checkpoint or Path(stack.enter_context(tempfile.TemporaryDirectory())) / "correction.safetensors"
        identity = {"objective": repr(objective), "truth": _digest(truth), **(notes or {})}
        show = stack.enter_context(_Bar(objective.name, steps)) if progress else _silent
        return train(
            stepper,
            loss,
            steps=steps,
            learning_rate=learning_rate,
            checkpoint=file,
            seed=seed,
            notes=identity,
            save_seconds=5.0 if checkpoint else float("inf"),
            progress=show,
        )


def load(checkpoint: Path, stepper: Stepper) -> Training:
    """Read into `stepper` the weights that `fit(..., checkpoint=...)` wrote, and say how they were trained."""
    return load_weights(checkpoint, stepper)


def _digest(truth: State) -> str:
    """What tells one truth from another."""
    found = hashlib.sha256()
    for part in parts_of(truth):
        found.update(f"{part.dtype} {tuple(part.shape)}".encode())
        found.update(part.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return found.hexdigest()[:16]


def _silent(training: Training) -> None:
    return None


class _Bar:
    def __init__(self, title: str, steps: int) -> None:
        self.bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("loss {task.fields[loss]:.3g}"),
            TimeRemainingColumn(),
            console=Console(stderr=True),
            transient=True,
        )
        self.task = self.bar.add_task(title, total=steps, loss=float("nan"))

    def __call__(self, training: Training) -> None:
        self.bar.update(self.task, completed=training.step, loss=training.losses[-1])

    def __enter__(self) -> _Bar:
        self.bar.start()
        return self

    def __exit__(self, *reason: object) -> None:
        self.bar.stop()
