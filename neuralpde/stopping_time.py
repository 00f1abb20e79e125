"""Early stopping in time: the best moment of a path, from the dense output of one solve."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from integrators import Solution, State


class BestTime(NamedTuple):
    """Where along a path a score is largest.

    Attributes:
        t: the time.
        score: the score there.
        state: the state there, (..., n, c) or a tuple.
    """

    t: float
    score: float
    state: State


def best_time(
    solution: Solution, score: Callable[[Any], float | Tensor], times: Tensor | Sequence[float] | None = None
) -> BestTime:
    """The time of a path at which a score of the state is largest; among equals the one nearest to the start.

    Solve once, to a time well beyond the one that was trained, and decode on the way:

        solution = integrate(rhs, x0, [0.0, 3 * T], solver, dense=True)
        stop = best_time(solution, lambda x: accuracy(model.decode(x), labels, validation))

    Choose by validation data and look at the test data at `stop.state` alone. The scores are taken without gradients; `state`
    is differentiable where the solution is.

    Args:
        solution: of `integrate(..., dense=True)`; of plain output times too, which then are what is scored.
        score: a function of the state, larger is better; (..., n, c) → one number.
        times: where to look, within the solve. By default at its output times and at the end of every step it took: a solver
            that jumps from output to output, such as `Exponential`, wants times here.

    Raises:
        ValueError: no times, or one outside the solve; a score that is NaN, or is not one number.
    """
    looked = _moments(solution) if times is None else [float(s) for s in times]
    if not looked:
        raise ValueError("times is empty: name at least one, or leave it out to look at every step")
    start, end = float(solution.t[0]), float(solution.t[-1])
    looked.sort(key=lambda s: abs(s - start))
    best: tuple[float, float] | None = None
    with torch.no_grad():
        for s in looked:
            value = _number(score(_at(solution, s)), s)
            if best is None or value > best[1]:
                best = (s, value)
    if best is None:
        raise ValueError(f"nothing was scored between t = {start:.6g} and {end:.6g}")
    return BestTime(best[0], best[1], _at(solution, best[0]))


def _moments(solution: Solution) -> list[float]:
    """The output times, and the ends of the steps where the solution knows them."""
    kept = solution.t.detach().tolist()
    if solution.interpolant is None:
        return kept
    low, high = min(kept), max(kept)
    ends = getattr(solution.interpolant, "ends", None) or [t + h for t, h in solution.stats.history]
    # A step may end at an output time but for round-off.
    gap = 1e-9 * (high - low)
    return kept + [s for s in map(float, ends) if low < s < high and min(abs(s - t) for t in kept) > gap]


def _at(solution: Solution, s: float) -> State:
    same = (solution.t.detach() == s).nonzero()
    if solution.interpolant is None or same.numel():
        if not same.numel():
            raise ValueError(f"t = {s:.6g} is no output time, and the solution keeps only these: integrate(..., dense=True)")
        k = int(same[0])
        return tuple(part[k] for part in solution.x) if isinstance(solution.x, tuple) else solution.x[k]
    return solution.at(s)


def _number(value: float | Tensor, s: float) -> float:
    if isinstance(value, Tensor) and value.numel() != 1:
        raise ValueError(f"score must give one number, not a tensor of shape {tuple(value.shape)}: take its mean")
    number = float(value)
    if math.isnan(number):
        raise ValueError(f"the score at t = {s:.6g} is NaN: the decoder or the score divides by zero, or the state diverged")
    return number
