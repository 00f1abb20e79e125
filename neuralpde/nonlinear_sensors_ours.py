"""Forecasts from few sensors by finding the field that explains what they saw, with an equation learned from sensors alone."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import ClassVar

import torch
from torch import Tensor

from neuralpde.nonlinear_sensors_data import observed, trigonometric
from neuralpde.nonlinear_sensors_lbfgs import minimise_each
from neuralpde.nonlinear_sensors_library import LearnedEquation
from neuralpde.nonlinear_sensors_prior import SpectralPrior
from neuralpde.sensor_case import Given, SensorCase
from neuralpde.sensor_gaps import filled, time_step, whole
from neuralpde.sensor_method import Forecaster, SensorMethod, Told
from operators import DomainError

# Of regressions, relative to the mean square of a term: the least that is stable.
RIDGES = (1e-3, 1e-2, 1e-1)


class Seen:
    """What windows at one placement have seen, and how to look at fields on the grid as they did.

    Args:
        given: the windows, in the plane; the field has the period `period` along both axes.
        interval: of the equation's frames. Between frames a field is taken linear in time.
    """

    def __init__(self, given: Given, interval: float, period: float, cells: int) -> None:
        if given.placement.earth:
            raise DomainError(f"{given.placement.name}: this method solves equations in a periodic plane, not on the Earth")
        self.given = given
        self.points = given.placement.points / period
        self.sample = trigonometric(self.points, cells)
        self.place = (given.times - given.times[:, :1]) / interval
        self.wanted = (given.wanted - given.times[:, :1]) / interval
        self.frames = 1 + self.last(self.place)

    @property
    def whole_frames(self) -> Tensor:
        """The leading frames that all windows have one interval after another."""
        due = torch.arange(self.place.shape[1], dtype=self.place.dtype)
        late = ((self.place - due).abs() > 0.05).any(0)
        return torch.arange(int(late.float().cumsum(0).eq(0).sum()))

    @staticmethod
    def last(place: Tensor) -> int:
        """The first frame that is not before any of these places."""
        return max(1, math.ceil(float(place.max()) - 1e-6))

    def at(self, path: Tensor, place: Tensor) -> Tensor:
        """Fields (K, frames, c, cells, cells) at the sensors at places in time (K, w): (K, w, n, c)."""
        frames = observed(path, self.sample)
        low = (place + 1e-6).floor().long().clamp(0, frames.shape[1] - 2)
        share = (place - low).clamp(0, 1).to(frames)[..., None, None]
        row = torch.arange(len(frames))[:, None]
        return torch.lerp(frames[row, low], frames[row, low + 1], share)

    def misfit(self, path: Tensor, noise: Tensor) -> Tensor:
        """½ Σ ((field − seen) / noise)² of each window, (K,)."""
        difference = (self.at(path, self.place) - self.given.values) / noise
        return torch.where(self.given.seen, difference, 0.0).square().sum((1, 2, 3)) / 2


@dataclass(frozen=True)
class LearnedFieldMethod(SensorMethod):
    """A latent field on a grid, an equation whose coefficients are learned, and assimilation of all that the sensors saw.

    The field's prior is Gaussian with a learned spectrum (`SpectralPrior`). A first guess of the equation regresses the change of
    conditional means on `LearnedEquation.terms`; then fields of training windows and coefficients are improved in turn, through
    the simulator. A forecast finds the first field that explains the given frames best (strong-constraint 4D-Var; Le Dimet and
    Talagrand 1986, Tellus 38A) and solves on. Nothing of it is bound to a placement, gaps and uneven times are welcome.

    It is told that the field is periodic and which terms an equation may have; coefficients and spectra are learned from training
    windows alone. `fit` is about a minute of work and reads neither `validation` nor `seed` nor `checkpoint`: one that was
    stopped starts again.

    Args:
        cells: a side of the grid. substeps: steps between frames. highest: wave number of the first field along an axis.
        windows: training windows of each placement whose fields are found; the regression sees all.
        rounds: of improving the fields, with so many evaluations of the simulator and its gradient, then the coefficients.
        assimilate: such evaluations in a forecast.
        noise: of what the sensors see and the equation does not, in normalised units.
        period: of the field along both axes, in the placements' unit of length.
    """

    name: ClassVar[str] = "ours"
    random: ClassVar[bool] = False

    cells: int = 24
    substeps: int = 2
    highest: int = 7
    windows: int = 8
    rounds: int = 4
    of_fields: int = 25
    of_coefficients: int = 4
    assimilate: int = 60
    noise: float = 0.1
    period: float = 1.0

    def fit(
        self, train: Sequence[SensorCase], validation: Sequence[SensorCase], seed: int, checkpoint: Path, told: Told
    ) -> LearnedField:
        interval = time_step(train)
        channels = train[0].values.shape[-1]
        prior = SpectralPrior(channels, self.cells, self.highest)
        prior.fit(train, self.period)
        equation = LearnedEquation(channels, self.cells, self.substeps)
        field = LearnedField(self, prior, equation, interval)
        steps, done = self.rounds * (self.of_fields + self.of_coefficients), 0
        views = [Seen(whole(case.some(slice(self.windows))), interval, self.period, self.cells) for case in train]
        white = [field.guess(view) for view in views]
        joint = _Joint(field, views)
        regress(field, train, partial(joint.loss, white))
        note = ""

        def progress(step: int, value: Tensor) -> None:
            told(min(done + step, steps), steps, note)

        for number in range(self.rounds):
            note = f"fields, round {number + 1}"
            stacked = minimise_each(joint.of_fields, torch.cat(white), self.of_fields, told=progress)
            white = list(torch.split(stacked, [len(part) for part in white]))
            done, note = done + self.of_fields, f"coefficients, round {number + 1}"
            for step in range(self.of_coefficients):
                progress(step + 1, stacked)
                if not improve(field, views, white, partial(joint.loss, white)):
                    break
            done += self.of_coefficients
        return field


class LearnedField(Forecaster):
    """A learned equation and prior: forecasts by assimilation."""

    def __init__(self, method: LearnedFieldMethod, prior: SpectralPrior, equation: LearnedEquation, interval: float) -> None:
        self.method, self.prior, self.equation, self.interval = method, prior, equation, interval
        self.noise = torch.as_tensor(method.noise)

    @property
    def parameters(self) -> int:
        return sum(p.numel() for part in (self.prior, self.equation) for p in part.parameters())

    def guess(self, view: Seen) -> Tensor:
        """The first field's conditional mean given the first frame alone, in normal numbers (K, c·m)."""
        return self.prior.mean(filled(view.given)[:, 0], view.points).flatten(1)

    def first(self, white: Tensor) -> Tensor:
        """The first fields of normal numbers (K, c·m)."""
        return self.prior.fields(white.reshape(len(white), self.equation.channels, -1))

    def analysis(self, view: Seen) -> Tensor:
        """The first fields that explain the windows best, in normal numbers (K, c·m)."""

        def loss(white: Tensor) -> Tensor:
            path = self.equation.solve(self.first(white), view.frames)
            return view.misfit(path, self.noise) + white.square().sum(1) / 2

        return minimise_each(loss, self.guess(view), self.method.assimilate)

    def forecast(self, given: Given) -> Tensor:
        view = Seen(given, self.interval, self.method.period, self.method.cells)
        white = self.analysis(view)
        with torch.no_grad():
            path = self.equation.solve(self.first(white), 1 + view.last(view.wanted))
            return view.at(path, view.wanted)


class _Joint:
    """Windows of several placements solved together."""

    def __init__(self, field: LearnedField, views: Sequence[Seen]) -> None:
        self.field, self.views = field, views
        self.sizes = [len(view.given.values) for view in views]
        self.frames = max(view.frames for view in views)

    def misfit(self, path: Tensor) -> Tensor:
        """Of each window, (K,)."""
        parts = zip(torch.split(path, self.sizes), self.views, strict=True)
        return torch.cat([view.misfit(part, self.field.noise) for part, view in parts])

    def of_fields(self, white: Tensor) -> Tensor:
        """The loss of each window's first field, (K, c·m) ↦ (K,), with the equation as it is."""
        path = self.field.equation.solve(self.field.first(white), self.frames)
        return self.misfit(path) + white.square().sum(1) / 2

    @torch.no_grad()
    def loss(self, white: Sequence[Tensor]) -> float:
        """The sum over all windows, infinite where the equation runs away."""
        total = float(self.of_fields(torch.cat(list(white))).sum())
        return total if math.isfinite(total) else math.inf


class _Regression:
    """Least squares of changes at sensors on the equation's terms there."""

    def __init__(self, equation: LearnedEquation) -> None:
        self.equation = equation
        self.count = equation.coefficients.shape[1]
        self.gram = torch.zeros(equation.channels, self.count, self.count)
        self.moment = torch.zeros(equation.channels, self.count)

    def add(self, fields: Tensor, change: Tensor, sample: tuple[Tensor, Tensor]) -> None:
        """Fields (K, c, cells, cells) that changed by (K, n, c) in the time of a frame at the sensors."""
        for part, changed in zip(torch.split(fields, 64), torch.split(change, 64), strict=True):
            terms = self.equation.terms(part)
            at = torch.stack([observed(terms[:, :, k], sample) for k in range(self.count)], dim=1)
            self.gram += torch.einsum("bpnc,bqnc->cpq", at, at)
            self.moment += torch.einsum("bpnc,bnc->cp", at, changed)

    def solution(self, ridge: float = 1e-3) -> Tensor:
        """The coefficients (c, terms)."""
        size = self.gram.diagonal(dim1=-2, dim2=-1).mean(1)
        shrunk = self.gram + (ridge * size)[:, None, None] * torch.eye(self.count)
        solved: Tensor = torch.linalg.solve(shrunk, self.moment[..., None])
        return solved[..., 0]


@torch.no_grad()
def regress(field: LearnedField, cases: Sequence[SensorCase], loss: Callable[[], float]) -> None:
    """A first equation: it explains the change between frames best, as far as conditional means of single frames tell.

    Of several ridges the one is taken whose equation explains whole training windows best, by `loss`.
    """
    found = _Regression(field.equation)
    for case in cases:
        view = Seen(whole(case), field.interval, field.method.period, field.equation.cells)
        values = filled(view.given)
        step = view.place.diff(dim=1).flatten()[:, None, None].float()
        middle = (values[:, 1:] + values[:, :-1]).flatten(0, 1) / 2
        fields = field.prior.fields(field.prior.mean(middle, view.points))
        found.add(fields, values.diff(dim=1).flatten(0, 1) / step, view.sample)
    trials = [found.solution(ridge) for ridge in RIDGES]
    losses = []
    for trial in trials:
        field.equation.take(trial)
        losses.append(loss())
    field.equation.take(trials[losses.index(min(losses))])


@torch.no_grad()
def improve(field: LearnedField, views: Sequence[Seen], white: Sequence[Tensor], loss: Callable[[], float]) -> bool:
    """Correct the coefficients by what the equation misses in one frame's time.

    It starts from the fields that explain whole windows, moved to what the sensors saw by the conditional mean of the difference.
    At the solution nothing is shrunk: the ridge acts on the correction alone. A correction that does not lower the loss is
    halved, and at last not made; whether one was made is returned.
    """
    found = _Regression(field.equation)
    for view, first in zip(views, white, strict=True):
        if len(view.whole_frames) < 2:
            continue
        path = field.equation.solve(field.first(first), view.frames)
        frames = view.whole_frames
        seen, path = filled(view.given)[:, frames], path[:, view.place[0, frames].round().long()]
        missed = seen - observed(path, view.sample)
        shape = path.shape
        nearer = path + field.prior.fields(field.prior.mean(missed.flatten(0, 1), view.points)).reshape(shape)
        then = field.equation.solve(nearer[:, :-1].flatten(0, 1), 2)[:, 1]
        change = seen[:, 1:].flatten(0, 1) - observed(then, view.sample)
        found.add((nearer[:, :-1].flatten(0, 1) + then) / 2, change, view.sample)
    if not bool(found.gram.any()):
        return False
    before, least = field.equation.coefficients, loss()
    for ridge in RIDGES:
        correction = found.solution(ridge)
        for share in (1.0, 0.5, 0.2):
            field.equation.take(before + share * correction)
            if loss() < least:
                return True
    field.equation.take(before)
    return False
