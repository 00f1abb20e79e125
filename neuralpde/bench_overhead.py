"""What a solver costs beside the right-hand side: our Dopri5, torchdiffeq's, torchode's and a loop written by hand."""

from __future__ import annotations

import importlib.util
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
import torchdiffeq
from torch import Tensor

from integrators import Checkpointed, Direct, integrate
from integrators.controller import INTEGRAL
from integrators.dopri5 import Dopri5
from integrators.gradients import GradientMode
from integrators.norms import RMSNorm
from neuralpde.beltrami import BeltramiFlow
from neuralpde.bench import Row, interleaved
from operators import ScaledDotProduct, random_walk_laplacian, torus

RTOL, ATOL = 1e-5, 1e-7
OURS, LEAN = "dopri5", "dopri5 checkpointed"
THEIRS, ADJOINT = "torchdiffeq dopri5", "torchdiffeq dopri5 adjoint"
Evaluate = Callable[[Any, Any], Tensor]


@dataclass(frozen=True)
class Race:
    """One equation for every solver: the same pair, tolerances, error norm, step control and first step."""

    table: str
    f: Evaluate
    x0: Tensor
    horizon: float
    first_step: float = 0.01

    def rows(self, repeats: int) -> list[Row]:
        solvers = self.solvers()
        runs = {name: self._backward(solve) for name, solve in solvers.items()}
        missing = {} if "torchode dopri5" in solvers else {"torchode dopri5": "torchode is not installed"}
        try:
            runs[ADJOINT]()
        except AssertionError:  # This is how torchdiffeq stops.
            missing[ADJOINT] = "diverges: what decays forward grows backward"
            del runs[ADJOINT]
        forward = self._timed({name: self._forward(solve) for name, solve in solvers.items()}, repeats, "forward")
        backward = self._timed(runs, repeats, "forward and backward")
        rows = [Row(self.table, name, "cpu_seconds", value, "s", n=repeats) for name, value in forward.items()]
        rows += [Row(self.table, name, "cpu_seconds_backward", value, "s", n=repeats) for name, value in backward.items()]
        rows += [Row(self.table, name, "cpu_seconds_backward", None, "s", note=note) for name, note in missing.items()]
        rows += [Row(self.table, name, "nfe", self._nfe(solve), "evaluations") for name, solve in solvers.items()]

        def ratio(metric: str, seconds: dict[str, float], over: str, under: str, baseline: str, note: str | None = None) -> None:
            if over in seconds:
                value = seconds[over] / seconds[under]
                rows.append(Row(self.table, OURS, metric, value, "ratio", baseline, repeats, note))

        direct = "autograd through every step in both: Direct()"
        ratio("speedup", forward, THEIRS, OURS, THEIRS)
        ratio("speedup_backward", backward, THEIRS, OURS, THEIRS, direct)
        ratio("speedup_backward_checkpointed", backward, THEIRS, LEAN, THEIRS, "Checkpointed() against every step kept")
        ratio("speedup_over_adjoint", backward, ADJOINT, LEAN, ADJOINT, "memory of a few steps in both; Checkpointed() is exact")
        ratio("versus_hand_written", forward, OURS, "hand-written", "hand-written")
        ratio("versus_hand_written_backward", backward, OURS, "hand-written", "hand-written", direct)
        ratio("versus_hand_tuned", forward, OURS, "hand-tuned", "hand-tuned", "a loop with fused additions and no check")
        ratio("versus_hand_tuned_backward", backward, OURS, "hand-tuned", "hand-tuned", direct)
        return rows

    def solvers(self) -> dict[str, Callable[[Evaluate, Tensor], Tensor]]:
        """Each takes f and x0 and returns the last state."""
        t = torch.tensor([0.0, self.horizon], dtype=torch.float64)

        def ours(gradient: GradientMode) -> Callable[[Evaluate, Tensor], Tensor]:
            pair = Dopri5(RTOL, ATOL, norm=RMSNorm(), controller=INTEGRAL, first_step=self.first_step, gradient=gradient)

            def solve(f: Evaluate, x0: Tensor) -> Tensor:
                final = integrate(f, x0, t, pair).final
                return final if isinstance(final, Tensor) else final[0]

            return solve

        def theirs(odeint: Callable[..., Tensor]) -> Callable[[Evaluate, Tensor], Tensor]:
            options = {"first_step": self.first_step}
            return lambda f, x0: odeint(f, x0, t, rtol=RTOL, atol=ATOL, method="dopri5", options=options)[-1]

        def adjoint(f: Any, x0: Tensor, *args: Any, **keywords: Any) -> Tensor:
            parameters = tuple(f.parameters()) if isinstance(f, torch.nn.Module) else ()
            result: Tensor = torchdiffeq.odeint_adjoint(f, x0, *args, **keywords, adjoint_params=parameters)
            return result

        solvers = {
            OURS: ours(Direct()),
            LEAN: ours(Checkpointed()),
            THEIRS: theirs(torchdiffeq.odeint),
            ADJOINT: theirs(adjoint),
            "hand-written": lambda f, x0: by_hand(f, x0, self.horizon, self.first_step, plain),
            "hand-tuned": lambda f, x0: by_hand(f, x0, self.horizon, self.first_step, tuned),
        }
        if importlib.util.find_spec("torchode") is not None:
            solvers["torchode dopri5"] = self._torchode
        return solvers

    def _torchode(self, f: Evaluate, x0: Tensor) -> Tensor:
        import torchode

        shape = x0.shape
        term = torchode.ODETerm(lambda t, y: f(t[0], y.view(shape)).view(1, -1))
        solver = torchode.AutoDiffAdjoint(torchode.Dopri5(term=term), torchode.IntegralController(ATOL, RTOL, term=term))
        problem = torchode.InitialValueProblem(y0=x0.reshape(1, -1), t_eval=torch.tensor([[0.0, self.horizon]], dtype=x0.dtype))
        first = torch.full((1,), self.first_step, dtype=x0.dtype)
        result: Tensor = solver.solve(problem, dt0=first).ys[0, -1].view(shape)
        return result

    def _nfe(self, solve: Callable[[Evaluate, Tensor], Tensor]) -> int:
        calls = 0

        def counted(t: Tensor, x: Tensor) -> Tensor:
            nonlocal calls
            calls += 1
            return self.f(t, x)

        with torch.no_grad():
            solve(counted, self.x0)
        return calls

    def _forward(self, solve: Callable[[Evaluate, Tensor], Tensor]) -> Callable[[], object]:
        def run() -> object:
            with torch.no_grad():
                return solve(self.f, self.x0)

        return run

    def _backward(self, solve: Callable[[Evaluate, Tensor], Tensor]) -> Callable[[], object]:
        start = self.x0.clone().requires_grad_()
        learned = tuple(self.f.parameters()) if isinstance(self.f, torch.nn.Module) else ()

        def run() -> object:
            return torch.autograd.grad(solve(self.f, start).square().sum(), (start, *learned))

        return run

    def _timed(self, runs: Mapping[str, Callable[[], object]], repeats: int, title: str) -> dict[str, float]:
        # Seconds of this process alone: whole solves are long enough for other processes to come between.
        return interleaved(runs, repeats, f"{self.table}, {title}", time.process_time)


def by_hand(f: Evaluate, x0: Tensor, horizon: float, h: float, stages: Callable[..., tuple[Tensor, Tensor, Tensor]]) -> Tensor:
    """Dormand and Prince's pair from 0 to the horizon, as short as one would write it for a single experiment."""
    t, x, k1 = 0.0, x0, f(torch.tensor(0.0, dtype=torch.float64), x0)
    while t < horizon:
        h = min(h, horizon - t)
        y, k7, error = stages(f, t, h, x, k1)
        scale = ATOL + RTOL * torch.maximum(x.abs(), y.abs())
        ratio = float((error / scale).detach().square().mean().sqrt())
        if ratio <= 1:
            t, x, k1 = t + h, y, k7
        h = h * min(10.0, max(0.2, 0.9 * max(ratio, 1e-10) ** -0.2))
    return x


def plain(f: Evaluate, t: float, h: float, x: Tensor, k1: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The formulas as they stand in the paper: the new state, its slope, the error."""

    def at(c: float) -> Tensor:
        return torch.tensor(t + c * h, dtype=torch.float64)

    k2 = f(at(1 / 5), x + h * (1 / 5 * k1))
    k3 = f(at(3 / 10), x + h * (3 / 40 * k1 + 9 / 40 * k2))
    k4 = f(at(4 / 5), x + h * (44 / 45 * k1 - 56 / 15 * k2 + 32 / 9 * k3))
    k5 = f(at(8 / 9), x + h * (19372 / 6561 * k1 - 25360 / 2187 * k2 + 64448 / 6561 * k3 - 212 / 729 * k4))
    k6 = f(at(1), x + h * (9017 / 3168 * k1 - 355 / 33 * k2 + 46732 / 5247 * k3 + 49 / 176 * k4 - 5103 / 18656 * k5))
    y = x + h * (35 / 384 * k1 + 500 / 1113 * k3 + 125 / 192 * k4 - 2187 / 6784 * k5 + 11 / 84 * k6)
    k7 = f(at(1), y)
    error = h * (71 / 57600 * k1 - 71 / 16695 * k3 + 71 / 1920 * k4 - 17253 / 339200 * k5 + 22 / 525 * k6 - 1 / 40 * k7)
    return y, k7, error


def tuned(f: Evaluate, t: float, h: float, x: Tensor, k1: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The same with a fused multiplication and addition for each term, and no gradient of the error."""

    def total(y: Tensor, row: tuple[float, ...]) -> Tensor:
        for w, k in zip(row, slopes, strict=True):
            if w:
                y = torch.add(y, k, alpha=h * w)
        return y

    slopes, y = [k1], x
    for c, row in zip(Dopri5.c, Dopri5.a, strict=True):
        y = total(x, row)
        slopes.append(f(torch.tensor(t + c * h, dtype=torch.float64), y))
    with torch.no_grad():
        return y, slopes[-1], total(torch.zeros_like(x), Dopri5.e)


def linear(size: int = 64) -> Race:
    """x' = −c x with size² rates c from 0.1 to 10, in float32: next to nothing to evaluate, stability-bound at the end."""
    generator = torch.Generator().manual_seed(0)
    c = -torch.logspace(-1, 1, size * size).view(size, size)
    return Race("overhead-linear", lambda t, x: c * x, torch.randn(size, size, generator=generator), 30.0)


def attention(around: int = 64, across: int = 48, channels: int = 64) -> Race:
    """A Beltrami flow, whose attention is computed anew at every evaluation, on a torus of around × across nodes."""
    graph = torus(around, across, dtype=torch.float32).graph()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        diffusivity = ScaledDotProduct(random_walk_laplacian(graph), channels)
        torch.nn.init.normal_(diffusivity.query.weight, std=0.1)
        return Race("overhead-attention", BeltramiFlow(diffusivity), torch.randn(graph.nodes, channels), 10.0)


def overhead_rows(repeats: int, races: tuple[Race, ...] | None = None) -> list[Row]:
    """Both tables, `overhead-linear` and `overhead-attention`: seconds of every solver, and the ratios to ours.

    Args:
        repeats: timed turns; the median counts.
        races: what to measure, if not the two of them.
    """
    return [row for race in (races or (linear(), attention())) for row in race.rows(repeats)]
