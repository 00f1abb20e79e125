"""The one way in: integrate(f, x0, t, solver)."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor

from integrators.autopilot import Auto, advise
from integrators.integrator import Evaluate, Integrator
from integrators.progress import Bar
from integrators.restarts import restarts_within, solve_in_stretches
from integrators.solution import Solution, SolveError, State
from integrators.state import check_state, parts_of
from integrators.watch import Observer, Watch


def integrate(
    f: Evaluate,
    x0: State,
    t: Tensor | Sequence[float],
    solver: Integrator | None = None,
    *,
    throw: bool = True,
    jumps: Iterable[float] = (),
    dense: bool = False,
    history: bool = False,
    monitor: Observer | None = None,
    max_steps: float = math.inf,
    max_seconds: float = math.inf,
    progress: bool = False,
) -> Solution:
    """Solve dx/dt = f(t, x) from x(t[0]) = x0 and return x at every time of t.

    Args:
        f: the right-hand side; a `RightHandSide`, a module or a plain function of (t, x). One that remembers its start, such as
            attention frozen there, offers `starting_at(x0)`; one that is discontinuous in time names the times as `jumps`; one
            that is made anew from the state at certain times is `Restarting`.
        x0: a tensor (..., n, c), real or complex, or a tuple of tensors.
        t: strictly increasing or strictly decreasing times, the first that of x0; a tensor or numbers.
        solver: with its tolerances and its gradient; if absent, `Auto()` chooses one and says why in `stats.reason`.
        throw: raise on failure; if False return what was computed, with the reason in `status`.
        jumps: times at which f is discontinuous; a step ends at each, and f is asked on its own side of it, at the ends of t too.
        dense: let `Solution.at(s)` give x at any time of the solve.
        history: keep (t, h) of every step in `stats.history`.
        monitor: is shown the state after every step and may end the solve, as `Monitor(f, tolerance=1e-6)` does where an
            invariant of f is broken.
        max_steps, max_seconds: limits of the forward solve; a SolveError keeps what was reached.
        progress: show a bar on standard error.

    Returns:
        Solution: `.t` (T,), `.x` (T, ..., n, c), `.stats`, `.status`.

    Raises:
        SolveError: the solve diverged, spent a budget, or was stopped by its monitor; `.solution` keeps what was computed.
        ValueError, TypeError: input that no solver could use.
    """
    if not callable(f):
        raise TypeError(f"the right-hand side must be callable as f(t, x), not {type(f).__name__}")
    solver = Auto() if solver is None else solver
    if not isinstance(solver, Integrator):
        raise TypeError(f"solver must be an integrator such as Dopri5(rtol=1e-6), not {solver!r}")
    check_state(x0, "x0")
    times = check_times(t, parts_of(x0)[0].device)
    restarts = restarts_within(f, times)
    first = _first(f, x0)
    jumps = (*jumps, *getattr(first, "jumps", ())) if not isinstance(jumps, (int, float)) else jumps
    watch = Watch(max_steps, max_seconds, check_jumps(jumps), dense, history, monitor)
    watch.begin(float(times[0].detach()), x0)
    try:
        with Bar(type(f).__name__) if progress else nullcontext() as watch.bar:
            if restarts:
                restarting: Any = f
                return solve_in_stretches(restarting, first, x0, times, restarts, solver, watch)
            solution = solver.solve(first, x0, times, watch)
    except SolveError as error:
        if throw or error.solution is None:
            raise
        return error.solution
    advise(first, solver, solution)
    return solution


def begun(f: Evaluate, x0: State) -> Evaluate:
    """f for one uninterrupted solve from x0: what `f.starting_at(x0)` gives, if f remembers its start; f itself if not.

    Raises:
        TypeError: f is made anew on the way, which only `integrate` follows.
    """
    if getattr(f, "restarts", ()):
        raise TypeError(f"{type(f).__name__} restarts at {list(f.restarts)}, which only integrate follows: drop those times")  # type: ignore[attr-defined]
    return _first(f, x0)


def _first(f: Evaluate, x0: State) -> Evaluate:
    begin: Callable[[State], Evaluate] | None = getattr(f, "starting_at", None)
    return f if begin is None else begin(x0)


def check_times(t: Tensor | Sequence[float], device: torch.device) -> Tensor:
    """t as a strictly monotone float64 tensor on the device, or an error that names what is wrong with it."""
    times = torch.as_tensor(t)
    if times.is_complex() or times.dtype == torch.bool:
        raise TypeError(f"t must hold real numbers, not {times.dtype}")
    # Of t, not of times: a list would have passed through the default dtype, and 0.1 through float32.
    times = torch.as_tensor(t, device=device, dtype=torch.float64)
    if times.ndim != 1 or times.numel() < 2:
        raise ValueError(f"t must hold at least two times, as in [0.0, 1.0], not shape {tuple(times.shape)}")
    values = times.detach()
    if not bool(torch.isfinite(values).all()):
        raise ValueError(f"t holds a NaN or infinite time: {values.tolist()}")
    steps = values[1:] - values[:-1]
    if not bool((steps > 0).all() or (steps < 0).all()):
        forward = float(steps[0]) >= 0
        wrong = steps <= 0 if forward else steps >= 0
        k = int(wrong.nonzero()[0])
        word = "repeats" if float(steps[k]) == 0 else ("decreases" if forward else "increases")
        raise ValueError(
            f"t must be strictly increasing or strictly decreasing, but {word} from t[{k}] = {float(values[k])} to "
            f"t[{k + 1}] = {float(values[k + 1])}: sort the times and drop repeated ones"
        )
    return times


def check_jumps(jumps: Iterable[float]) -> tuple[float, ...]:
    if isinstance(jumps, (int, float)):
        raise TypeError(f"jumps must be a list of times, as in [{jumps}], not a number")
    values = tuple(float(s) for s in jumps)
    if not all(math.isfinite(s) for s in values):
        raise ValueError(f"jumps holds a NaN or infinite time: {list(values)}")
    return values
