"""Which steps of a solve to keep, and how to go back through all of them from the kept ones (binomial checkpointing)."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator
from typing import Generic, TypeVar

# A recorded step keeps the inputs of about so many operations, each the size of a state.
STATES_A_STEP = 8

Snapshot = TypeVar("Snapshot")


class Thinned(Generic[Snapshot]):
    """Snapshots of a march whose length is not known beforehand: every `stride`-th, which doubles when there are too many.

    Args:
        limit: the largest number to keep; None for about √(2 · STATES_A_STEP · n) of n.
    """

    def __init__(self, limit: int | None) -> None:
        self.limit = limit
        self.stride = 1
        self.kept: dict[int, Snapshot] = {}

    def wants(self, k: int) -> bool:
        """Whether to keep the one before step k."""
        return k % self.stride == 0

    def keep(self, k: int, snapshot: Snapshot) -> None:
        self.kept[k] = snapshot
        limit = self.limit or 2 * STATES_A_STEP * self.stride
        while len(self.kept) > limit:
            self.stride *= 2
            self.kept = {i: s for i, s in self.kept.items() if self.wants(i)}

    @property
    def tape(self) -> int:
        """How many steps to record at once."""
        return self.stride if self.limit is None else max(1, self.limit // STATES_A_STEP)


def stretches(
    kept: list[tuple[int, Snapshot]], end: int, tape: int, limit: int, advance: Callable[[int, int, Snapshot], Snapshot]
) -> Iterator[tuple[int, int, Snapshot]]:
    """(first step, step after the last, snapshot before the first) of stretches of at most `tape` steps, from `end` back to 0.

    `kept` holds (k, snapshot before step k) in order, the first for k = 0; it is used up, and never grows beyond `limit`.
    `advance(k, m, snapshot)` is the snapshot before step m. The steps advanced over are at most those of the optimal schedule.
    """
    del kept[_worth([k for k, _ in kept], end, tape, limit) :]
    while kept:
        k, snapshot = kept[-1]
        if end - k <= tape:
            kept.pop()
            yield k, end, snapshot
            end = k
            continue
        free = limit - len(kept)
        target = k + divided(math.ceil((end - k) / tape), free + 1) * tape
        later = advance(k, target, snapshot)
        if free > 0:
            kept.append((target, later))
        else:
            yield target, end, later
            end = target
        del later


def _worth(marks: list[int], end: int, tape: int, limit: int) -> int:
    """How many snapshots to go back with: the last ones may be worth less than their places."""
    least, best, before = math.inf, 1, 0
    for i, (k, following) in enumerate(itertools.pairwise([*marks, end])):
        cost = before + repetitions(math.ceil((end - k) / tape), limit - i)
        if cost <= least:
            least, best = cost, i + 1
        before += repetitions(math.ceil((following - k) / tape), limit - i)
    return best


def repetitions(length: int, places: int) -> int:
    """The fewest steps to advance over, to reverse `length` steps with `places` states (the first included).

    P(l, c) = min over m of m + P(m, c) + P(l − m, c − 1) = r l − C(c + r, c + 1), with the least r such that l ≤ C(c + r, c)
    (Griewank and Walther 2000, ACM TOMS 26, Algorithm 799).
    """
    r = _sweeps(length, places)
    return r * length - math.comb(places + r, places + 1)


def divided(length: int, places: int) -> int:
    """The m ≥ 1 at which the minimum of `repetitions` is attained, for a length > 1."""
    if places == 1:
        return length - 1
    r = _sweeps(length, places)
    return max(1, min(math.comb(places + r - 1, places), length - math.comb(places + r - 2, places - 1)))


def _sweeps(length: int, places: int) -> int:
    """The least r with l ≤ C(c + r, c): how often a step is repeated at most."""
    if places == 1:
        return max(0, length - 1)
    r = 0
    while math.comb(places + r, places) < length:
        r += 1
    return r
