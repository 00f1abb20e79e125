"""A correction beside the simulator without it, and beside the correction that never saw the solver."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor

from integrators import SolveError, State
from integrators.state import parts_of
from neuralpde.bench import Row
from neuralpde.fitting import fit
from neuralpde.objectives import Objective, OneStep, Unrolled
from neuralpde.stepper import Stepper

UNCORRECTED = "uncorrected"


@dataclass
class Comparison:
    """What `compare` measured; prints as a table.

    Attributes:
        horizon: the steps of the training trajectories.
        errors: for each method ‖x − y‖/‖y‖ at every frame, averaged over the trajectories, (frames,); infinite from where a
            rollout broke down.
        seconds: of training, for each method, over all sessions.
        steppers: the trained ones, under the same names. paths: their rollouts.
        rows: the same numbers as `Row`s.
    """

    horizon: int
    errors: dict[str, Tensor]
    seconds: dict[str, float]
    steppers: dict[str, Stepper] = field(repr=False)
    paths: dict[str, State] = field(repr=False)

    def error(self, name: str, horizons: int) -> float:
        """The mean error over the first so many training horizons."""
        return float(self.errors[name][1 : horizons * self.horizon + 1].mean())

    @property
    def horizons(self) -> int:
        """How many training horizons the rollouts last."""
        return (len(next(iter(self.errors.values()))) - 1) // self.horizon

    def improvement(self, name: str) -> float:
        """How many times smaller the error is than the uncorrected simulator's, over all horizons; NaN where both are zero."""
        ours, plain = (torch.tensor(self.error(n, self.horizons), dtype=torch.float64) for n in (name, UNCORRECTED))
        return float(plain / ours)

    @property
    def rows(self) -> list[Row]:
        rows = []
        for name in self.errors:
            for k in range(1, self.horizons + 1):
                unit = f"relative L2, mean over {k} training horizon{'s' if k > 1 else ''}"
                rows.append(Row("loop", name, f"error_{k}x", self.error(name, k), unit))
            if name != UNCORRECTED:
                rows.append(Row("loop", name, "improvement", self.improvement(name), "ratio", baseline=UNCORRECTED))
                rows.append(Row("loop", name, "seconds", self.seconds[name], "s of training"))
        return rows

    def __rich__(self) -> str:
        return str(self)

    def __str__(self) -> str:
        width = max(map(len, self.errors)) + 2
        heads = "".join(f"{f'to {k}x':>9}" for k in range(1, self.horizons + 1))
        lines = [f"{'relative error':<{width}}{heads}{'better':>9}{'training':>11}"]
        for name in self.errors:
            cells = "".join(f"{self.error(name, k):>9.4f}" for k in range(1, self.horizons + 1))
            more = "" if name == UNCORRECTED else f"{self.improvement(name):>8.2f}×{self.seconds[name]:>9.1f} s"
            lines.append(f"{name:<{width}}{cells}{more}")
        return "\n".join(lines)


def compare(
    stepper: Stepper,
    train: State,
    test: State,
    objectives: Sequence[Objective] | None = None,
    *,
    steps: int = 300,
    learning_rate: float = 3e-3,
    mass: Tensor | None = None,
    seed: int = 0,
    folder: Path | None = None,
    progress: bool = False,
) -> Comparison:
    """Train a correction in several ways, and roll each out beside the uncorrected simulator.

    Args:
        stepper: untrained; each objective trains a copy of it, from the same weights on the same data, and in as many updates.
        train, test: true trajectories (frames, B, ..., n, c) on the stepper's domain, the second of initial conditions that are
            not in the first, and longer by a whole number: four times is usual.
        objectives: `(Unrolled(), OneStep())` if absent: through the solver, and the ablation without it.
        mass: m (n,), weights of the error; all alike if absent.
        folder: of checkpoints, one for each objective; a training that was killed continues.
        progress: show a bar on standard error.

    Returns:
        Comparison: prints as a table; `.rows` for JSON.
    """
    horizon, frames = (len(parts_of(path)[0]) - 1 for path in (train, test))
    if horizon < 1 or frames < horizon:
        raise ValueError(f"test must be at least as long as train, and the two have {frames} and {horizon} steps")
    methods: dict[str, Stepper] = {UNCORRECTED: stepper.uncorrected}
    seconds: dict[str, float] = {UNCORRECTED: 0.0}
    for objective in (Unrolled(), OneStep()) if objectives is None else objectives:
        name = f"corrected, {objective.name}"
        if name in methods:
            raise ValueError(f"two objectives are both called {objective.name!r}: compare them in two calls")
        member = copy.deepcopy(stepper)
        file = None if folder is None else folder / f"{objective.name.replace(' ', '-').replace(',', '')}.safetensors"
        training = fit(
            member, train, objective, steps=steps, learning_rate=learning_rate, seed=seed, checkpoint=file, progress=progress
        )
        methods[name], seconds[name] = member, training.seconds
    paths = {name: rollout(method, test) for name, method in methods.items()}
    errors = {name: relative_error(path, test, mass) for name, path in paths.items()}
    return Comparison(horizon, errors, seconds, methods, paths)


def rollout(stepper: Stepper, truth: State) -> State:
    """The path of a stepper from the first frame of the truth, without gradients; NaN from where it broke down."""
    first = tuple(part[0] for part in truth) if isinstance(truth, tuple) else truth[0]
    with torch.no_grad():
        try:
            return stepper.path(first, len(parts_of(truth)[0]) - 1)
        except SolveError as error:
            reached = None if error.solution is None else error.solution.x
    padded = tuple(torch.full_like(part, torch.nan) for part in parts_of(truth))
    if reached is not None:
        for whole, part in zip(padded, parts_of(reached), strict=True):
            whole[: len(part)] = part
    return padded if isinstance(truth, tuple) else padded[0]


def relative_error(path: State, truth: State, mass: Tensor | None = None) -> Tensor:
    """‖x − y‖/‖y‖ at every frame, averaged over the trajectories: (frames,); infinite where x is not finite."""
    missed: list[Tensor] = []
    size: list[Tensor] = []
    for x, y in zip(parts_of(path), parts_of(truth), strict=True):
        weight = y.new_ones(()) if mass is None else mass[:, None].to(y.real.dtype)
        missed.append((weight * (x - y).abs().square()).sum((-2, -1)))
        size.append((weight * y.abs().square()).sum((-2, -1)))
    whole = torch.stack(size).sum(0)
    ratio = (torch.stack(missed).sum(0) / whole.clamp(min=torch.finfo(whole.dtype).tiny)).sqrt().nan_to_num(nan=torch.inf)
    return ratio.reshape(len(ratio), -1).mean(1)
