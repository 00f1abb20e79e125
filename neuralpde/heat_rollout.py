"""Rolling out on unseen surfaces, and measuring how far each method is from the truth."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor

from integrators import SolveError
from neuralpde.files import RunFolderError, read_tensors, write_tensors
from neuralpde.heat_data import FRAMES, GIVEN_FRAMES, TRAIN_CONDITIONS, TRAIN_FRAMES, Surface, Truth
from neuralpde.heat_models import fit_stencil, parameters, stencil_rollout
from neuralpde.invariants import Check, check_invariants
from neuralpde.metrics import PublishedRayleigh, nrmse, rayleigh_error
from neuralpde.model import NeuralPDE
from neuralpde.training import Training
from operators import Movable, robust_laplacian

STEPS = FRAMES - GIVEN_FRAMES
Models = Mapping[str, tuple[Movable, Training]]


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


Rollout = Callable[[Surface, Tensor, Tensor], tuple[Tensor, int, list[Check]]]


def rollout_of(
    name: str, models: Models, trained_on: Sequence[Surface], truth: Truth
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
        try:
            solution = view.solve(y0, t)
        except SolveError as error:
            # One method that diverges is a row of the table, not the end of the run.
            if error.solution is None:
                raise
            solution = error.solution
        x = cast(Tensor, solution.x)
        # Float32 sums over n nodes and hundreds of products, and the adaptive solver's own tolerance.
        tolerance = 3e-5 + 20 * float(getattr(view.solver, "rtol", 0.0))
        checks = check_invariants(view.rhs.invariants, x, tolerance)
        return _to_length(view.decode(x), len(t)), solution.stats.nfe, checks

    return roll


def _to_length(path: Tensor, count: int) -> Tensor:
    """The path with NaN for the times that a diverging solve did not reach."""
    missing = path.new_full((count - len(path), *path.shape[1:]), math.nan)
    return torch.cat([path, missing])


@torch.no_grad()
def outcome_of(
    name: str,
    rollout: Rollout,
    models: Models,
    tested_on: Sequence[Surface],
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


def _kept(cache: Path, tested_on: Sequence[Surface]) -> tuple[dict[str, Tensor], dict[str, Any]] | None:
    if not cache.exists():
        return None
    try:
        tensors, notes = read_tensors(cache)
    except RunFolderError:
        return None
    return (tensors, notes) if set(tensors) == {item.name for item in tested_on} else None
