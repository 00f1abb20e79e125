"""Training of networks at sensors that keeps the weights which were best on the validation windows."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.utils import parameters_to_vector, vector_to_parameters

from neuralpde.sensor_case import SensorCase
from neuralpde.sensor_gaps import regular, whole
from neuralpde.sensor_method import Told
from neuralpde.training import Loss, Training, train


class BestWeights(nn.Module):
    """A model and, in buffers, so that a checkpoint holds them, its best weights so far.

    Args:
        validate: the model's error on validation windows; smaller is better.
    """

    score: Tensor
    best: Tensor

    def __init__(self, model: nn.Module, validate: Callable[[], float]) -> None:
        super().__init__()
        self.model, self._validate = model, validate
        weights = parameters_to_vector(model.parameters()).detach()
        self.register_buffer("score", torch.tensor(math.inf, dtype=torch.float64))
        self.register_buffer("best", weights.clone())

    @torch.no_grad()
    def look(self) -> None:
        """Keep the present weights if they are better than those kept."""
        error = self._validate()
        if error < float(self.score):
            self.score.fill_(error)
            self.best.copy_(parameters_to_vector(self.model.parameters()))

    @torch.no_grad()
    def take(self) -> None:
        """Give the model its best weights."""
        vector_to_parameters(self.best, self.model.parameters())


def fit_network(
    model: nn.Module,
    loss: Loss,
    validate: Callable[[], float],
    *,
    steps: int,
    learning_rate: float,
    checkpoint: Path,
    seed: int,
    told: Told,
    notes: dict[str, Any],
    every: int = 10,
) -> Training:
    """Train by Adam, look at the validation windows every so many steps, and leave the model with its best weights.

    It is resumed bit for bit (`neuralpde.training.train`): the best weights are in the checkpoint.

    Args:
        loss: (step, generator) ↦ scalar.
        validate: () ↦ the error on validation windows, of the model as it is.
        told: called with (step, steps, note) after every step.
        notes: what identifies this training.

    Raises:
        FloatingPointError: the loss is not finite, and no weights before were better than at the start.
    """
    kept = BestWeights(model, validate)

    def looking(step: int, random: torch.Generator) -> Tensor:
        if step % every == 0:
            kept.look()
        return loss(step, random)

    def show(training: Training) -> None:
        told(training.step, steps, f"loss {np.mean(training.losses[-20:]):.3g}")

    try:
        training = train(
            kept,
            looking,
            steps=steps,
            learning_rate=learning_rate,
            checkpoint=checkpoint,
            seed=seed,
            notes=notes,
            progress=show,
        )
    except FloatingPointError:
        if not math.isfinite(float(kept.score)):
            raise
        kept.take()
        return Training()
    kept.look()
    kept.take()
    return training


def training_frames(cases: Sequence[SensorCase], step: float) -> list[Tensor]:
    """All frames of each case's windows, (K, T, n, c), gaps filled and times made regular."""
    return [regular(whole(case), step, case.values.shape[1]) for case in cases]


def drawn(frames: Sequence[Tensor], windows: int, random: torch.Generator) -> tuple[int, Tensor]:
    """A placement at random, in proportion to its windows, and some of its windows (windows, T, n, c)."""
    sizes = torch.tensor([float(len(one)) for one in frames])
    place = int(torch.multinomial(sizes, 1, generator=random)) if len(frames) > 1 else 0
    chosen = torch.randint(len(frames[place]), (windows,), generator=random)
    return place, frames[place][chosen]


def spread_out(cases: Sequence[SensorCase], windows: int) -> list[SensorCase]:
    """At most so many windows of each case, evenly spaced."""
    return [case.some(torch.linspace(0, len(case.values) - 1, min(windows, len(case.values))).round().long()) for case in cases]
