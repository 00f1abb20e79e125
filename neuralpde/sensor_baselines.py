"""What needs no network: the last value, the clock's mean, and vector autoregression at one sensor and at all together."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import torch
from torch import Tensor

from neuralpde.files import RunFolderError
from neuralpde.sensor_case import Given, SensorCase
from neuralpde.sensor_gaps import Stepping, filled, time_step, whole
from neuralpde.sensor_method import Forecaster, SensorMethod, Told
from neuralpde.sensor_score import mean_error
from neuralpde.sensor_training import spread_out, training_frames

HOURS_OF_YEAR = 365.2425 * 24


@dataclass(frozen=True)
class Persistence(SensorMethod):
    """The last value seen."""

    name: ClassVar[str] = "persistence"
    random: ClassVar[bool] = False

    def fit(
        self, train: Sequence[SensorCase], validation: Sequence[SensorCase], seed: int, checkpoint: Path, told: Told
    ) -> Forecaster:
        return _Persisting()


class _Persisting(Forecaster):
    def forecast(self, given: Given) -> Tensor:
        return filled(given)[:, -1:].expand(-1, given.wanted.shape[1], -1, -1)


@dataclass(frozen=True)
class Climatology(SensorMethod):
    """What the clock and the calendar say: each sensor's mean and harmonics of the day and of the year, by least squares.

    Waves shorter than two steps of the data or longer than the training span are left out. A sensor that was never trained on
    gets the mean of all. Times must be real ones (hours).

    Args:
        harmonics: of the day and of the year.
    """

    name: ClassVar[str] = "climatology"
    random: ClassVar[bool] = False

    harmonics: int = 2

    def fit(
        self, train: Sequence[SensorCase], validation: Sequence[SensorCase], seed: int, checkpoint: Path, told: Told
    ) -> Forecaster:
        periods = clock_periods(train, self.harmonics)
        places, fits = [], []
        for case in train:
            features = clock_features(case.times, periods).flatten(0, 1)
            values, seen = (one.flatten(0, 1).double() for one in (case.values, case.seen))
            gram = torch.einsum("rp,rq,rnc->ncpq", features, features, seen)
            moment = torch.einsum("rp,rnc->ncp", features, seen * values)
            # A sensor that saw nothing has the zero solution.
            gram = gram + 1e-6 * len(features) * torch.eye(len(periods) * 2 + 1, dtype=torch.float64)
            fits.append(torch.linalg.solve(gram, moment))
            places.append(case.placement.points)
        return _Clock(torch.cat(places), torch.cat(fits), periods)


class _Clock(Forecaster):
    """points (m, 2) and their coefficients (m, c, p)."""

    def __init__(self, points: Tensor, coefficients: Tensor, periods: Sequence[float]) -> None:
        self.points, self.coefficients, self.periods = points, coefficients, periods

    @property
    def parameters(self) -> int:
        return self.coefficients.numel()

    def forecast(self, given: Given) -> Tensor:
        # The other way, by products of matrices, finds a point a little way off itself.
        distance = torch.cdist(given.placement.points, self.points, compute_mode="donot_use_mm_for_euclid_dist")
        nearest = distance.min(1)
        known = (nearest.values == 0)[:, None, None]
        coefficients = torch.where(known, self.coefficients[nearest.indices], self.coefficients.mean(0))
        return torch.einsum("khp,ncp->khnc", clock_features(given.wanted, self.periods), coefficients).to(given.values)


def clock_periods(cases: Sequence[SensorCase], harmonics: int) -> list[float]:
    """The periods in hours of the day's and year's waves that the cases' times resolve and span."""
    step = time_step(cases)
    span = max(float(case.times.max() - case.times.min()) for case in cases)
    periods = [base / k for base in (24.0, HOURS_OF_YEAR) for k in range(1, harmonics + 1)]
    return [period for period in periods if period > 2 * step and period <= span + step]


def clock_features(times: Tensor, periods: Sequence[float]) -> Tensor:
    """One, and cosine and sine of each period, of times (...,) in hours → (..., 1 + 2 periods), float64."""
    waves = [wave(2 * math.pi * times.double() / period) for period in periods for wave in (torch.cos, torch.sin)]
    return torch.stack([torch.ones_like(times, dtype=torch.float64), *waves], dim=-1)


@dataclass(frozen=True)
class Var(SensorMethod):
    """u(t + 1) = u(t) + a u(t) + b u(t - 1) + c at every sensor alike; three numbers for one channel.

    Least squares of one step, then of the whole forecast by L-BFGS; the better of the two on the validation windows.

    Args:
        series: at most so many (window, sensor) pairs are fitted.
    """

    name: ClassVar[str] = "var"
    random: ClassVar[bool] = False

    series: int = 20000

    def fit(
        self, train: Sequence[SensorCase], validation: Sequence[SensorCase], seed: int, checkpoint: Path, told: Told
    ) -> Forecaster:
        step, given = time_step(train), train[0].given
        frames = torch.cat([one.transpose(1, 2).flatten(0, 1) for one in training_frames(train, step)]).double()
        chosen = torch.linspace(0, len(frames) - 1, min(len(frames), self.series)).long()
        frames = frames[chosen]
        x, y = _lagged(frames, 2)
        solution = torch.linalg.lstsq(torch.cat([x, torch.ones_like(x[:, :1])], 1), y, driver="gelsd").solution.mT
        one_step = _Autoregression(step, solution)
        whole_path = _Autoregression(step, _of_whole_paths(solution, frames, given))
        cases = spread_out(validation, 64)
        return min((whole_path, one_step), key=lambda one: mean_error(one, cases))


def _lagged(frames: Tensor, lags: int) -> tuple[Tensor, Tensor]:
    """frames (R, T, c) → the last `lags` frames, newest first (rows, lags c), and the change that follows (rows, c)."""
    T = frames.shape[1]
    x = torch.cat([frames[:, lags - 1 - k : T - 1 - k] for k in range(lags)], dim=-1)
    return x.flatten(0, 1), (frames[:, lags:] - frames[:, lags - 1 : -1]).flatten(0, 1)


def _of_whole_paths(start: Tensor, frames: Tensor, given: int) -> Tensor:
    weights = start.clone().requires_grad_()
    first, second = frames[:, given - 1], frames[:, max(0, given - 2)]
    targets = frames[:, given:]
    optimizer = torch.optim.LBFGS([weights], max_iter=30, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        optimizer.zero_grad()
        now, before, loss = first, second, torch.zeros((), dtype=torch.float64)
        for lead in range(targets.shape[1]):
            now, before = _next(weights, now, before), now
            loss = loss + (now - targets[:, lead]).square().mean()
        loss.backward()  # type: ignore[no-untyped-call]
        return loss

    optimizer.step(closure)  # type: ignore[no-untyped-call]
    found = weights.detach()
    return found if bool(found.isfinite().all()) else start


def _next(weights: Tensor, now: Tensor, before: Tensor) -> Tensor:
    c = now.shape[-1]
    return now + now @ weights[:, :c].mT + before @ weights[:, c : 2 * c].mT + weights[:, -1]


class _Autoregression(Stepping):
    """weights (c, 2 c + 1)."""

    def __init__(self, step: float, weights: Tensor) -> None:
        super().__init__(step, lags=2)
        self.weights = weights

    @property
    def parameters(self) -> int:
        return self.weights.numel()

    def roll(self, frames: Tensor, steps: int, given: Given) -> Tensor:
        before, now, path = frames[:, 0].double(), frames[:, 1].double(), []
        for _ in range(steps):
            now, before = _next(self.weights, now, before), now
            path.append(now)
        return torch.stack(path, dim=1).to(frames)


@dataclass(frozen=True)
class JointVar(SensorMethod):
    """u(t + 1) = u(t) + Σ_k A_k u(t - k) + b with full matrices over all sensors and channels: ridge regression, bound.

    The ridge shrinks the changes to zero, that is, to persistence. Lags, ridge and, where times are real, whether b follows the
    hour of the day are chosen by the whole forecast's error on the validation windows.

    Args:
        lags: to choose from, of those that are given. rows: at most so many transitions are fitted.
        ridges: to choose from, relative to the mean square of the features.
        clock: let b have a daily wave.
    """

    name: ClassVar[str] = "joint-var"
    random: ClassVar[bool] = False
    bound: ClassVar[bool] = True

    lags: tuple[int, ...] = (1, 2, 3, 6)
    ridges: tuple[float, ...] = (1e-8, 1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 0.03, 0.1, 0.3, 1.0)
    rows: int = 20000
    clock: bool = True

    def fit(
        self, train: Sequence[SensorCase], validation: Sequence[SensorCase], seed: int, checkpoint: Path, told: Told
    ) -> Forecaster:
        if len(train) != 1:
            raise RunFolderError(f"joint-var learns one placement, not {len(train)}: fit it to each by itself")
        case, step = train[0], time_step(train)
        frames = training_frames(train, step)[0].flatten(2).double()
        real = self.clock and case.placement.earth
        times = whole(case).times[:, -1:] - step * torch.arange(frames.shape[1] - 1, -1, -1, dtype=torch.float64)
        days = clock_periods(train, 2) if real else []
        cases = spread_out(validation, 48)
        best: _Joint | None = None
        error = math.inf
        possible = [lags for lags in self.lags if lags <= case.given and lags < frames.shape[1]]
        choices = [(lags, periods) for lags in possible for periods in ([], days)[: 1 + bool(days)]]
        for k, (lags, periods) in enumerate(choices):
            told(k, len(choices), f"{lags} lags")
            for one in self._paths(frames, times, step, lags, periods):
                found = mean_error(one, cases)
                if best is None or found < error:
                    best, error = one, found
        if best is None:
            raise RunFolderError(
                f"{case.name} gives {case.given} of {frames.shape[1]} frames, and joint-var needs lags among the given ones and "
                f"a frame more: none of {self.lags} is; ask for fewer lags, or for longer windows"
            )
        return best

    def _paths(self, frames: Tensor, times: Tensor, step: float, lags: int, periods: Sequence[float]) -> list[_Joint]:
        """One for each ridge."""
        x, y = _lagged(frames, lags)
        clock = clock_features(times[:, lags:], periods).flatten(0, 1)
        chosen = torch.linspace(0, len(x) - 1, min(len(x), self.rows)).long()
        x, y, clock = x[chosen], y[chosen], clock[chosen]
        # What the clock explains is not shrunk: it is projected out, and given back in b.
        coordinates = torch.linalg.lstsq(clock, torch.cat([x, y], dim=1)).solution
        rest = torch.cat([x, y], dim=1) - clock @ coordinates
        p = x.shape[1]
        gram, moment = rest[:, :p].mT @ rest[:, :p], rest[:, :p].mT @ rest[:, p:]
        values, vectors = torch.linalg.eigh(gram)
        scale = float(values.clamp(min=0).mean()) or 1.0
        moment = vectors.mT @ moment
        found = []
        for ridge in self.ridges:
            weights = vectors @ (moment / (values.clamp(min=0) + ridge * scale)[:, None])
            found.append(_Joint(step, lags, weights, coordinates[:, p:] - coordinates[:, :p] @ weights, periods))
        return found


class _Joint(Stepping):
    """weights (lags n c, n c), newest lag first, and the clock's (1 + 2 periods, n c)."""

    def __init__(self, step: float, lags: int, weights: Tensor, clock: Tensor, periods: Sequence[float]) -> None:
        super().__init__(step, lags)
        self.weights, self.clock, self.periods = weights, clock, periods

    @property
    def parameters(self) -> int:
        return self.weights.numel() + self.clock.numel()

    def roll(self, frames: Tensor, steps: int, given: Given) -> Tensor:
        state = frames.flatten(2).double()
        for k in range(1, steps + 1):
            lagged = state[:, -self.lags :].flip(1).flatten(1)
            clock = clock_features(given.times[:, -1] + k * self.step, self.periods)
            after = state[:, -1] + lagged @ self.weights + clock @ self.clock
            state = torch.cat([state, after[:, None]], dim=1)
        return state[:, self.lags :].reshape(len(frames), steps, *frames.shape[2:]).to(frames)
