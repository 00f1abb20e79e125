"""The one way in: integrate(f, x0, t, solver)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from integrators.adaptive import Dopri5
from integrators.integrator import Evaluate, Integrator
from integrators.solution import Solution, SolveError, State
from integrators.state import check_state, parts_of


def integrate(
    f: Evaluate,
    x0: State,
    t: Tensor | Sequence[float],
    solver: Integrator | None = None,
    *,
    throw: bool = True,
) -> Solution:
    """Solve dx/dt = f(t, x) from x(t[0]) = x0 and return x at every time of t.

    Args:
        f: the right-hand side; a `RightHandSide`, a module or a plain function of (t, x).
        x0: a tensor (..., n, c), real or complex, or a tuple of tensors.
        t: strictly increasing times, the first that of x0; a tensor or numbers.
        solver: with its tolerances and its gradient; Dopri5() if absent.
        throw: raise on failure; if False return what was computed, with the reason in `status`.

    Returns:
        Solution: `.t` (T,), `.x` (T, ..., n, c), `.stats`, `.status`.

    Raises:
        SolveError: the solve diverged or spent its budget; `.solution` keeps what was computed.
        ValueError, TypeError: input that no solver could use.
    """
    if not callable(f):
        raise TypeError(f"the right-hand side must be callable as f(t, x), not {type(f).__name__}")
    solver = Dopri5() if solver is None else solver
    if not isinstance(solver, Integrator):
        raise TypeError(f"solver must be an integrator such as Dopri5(rtol=1e-6), not {solver!r}")
    check_state(x0, "x0")
    times = _check_times(t, parts_of(x0)[0].device)
    try:
        return solver.solve(f, x0, times)
    except SolveError as error:
        if throw or error.solution is None:
            raise
        return error.solution


def _check_times(t: Tensor | Sequence[float], device: torch.device) -> Tensor:
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
    if not bool((steps > 0).all()):
        k = int((steps <= 0).nonzero()[0])
        word = "repeats" if float(steps[k]) == 0 else "decreases"
        raise ValueError(
            f"t must be strictly increasing, but {word} from t[{k}] = {float(values[k])} to t[{k + 1}] = "
            f"{float(values[k + 1])}; to go back in time, integrate -f"
        )
    return times
