"""The schedule keeps what it may, divides where it is best, and goes back through every step once."""

import functools
import math

import pytest

from integrators.schedule import STATES_A_STEP, Thinned, divided, repetitions, stretches


@functools.cache
def fewest(length, places):
    """The fewest steps to advance over, to reverse `length` steps with `places` states, by trying everything."""
    if length <= 1:
        return 0
    if places == 1:
        return length * (length - 1) // 2
    return min(m + fewest(m, places) + fewest(length - m, places - 1) for m in range(1, length))


def by_schedule(length, places):
    if length <= 1:
        return 0
    m = divided(length, places)
    if places == 1:
        return m + by_schedule(m, 1)
    return m + by_schedule(m, places) + by_schedule(length - m, places - 1)


@pytest.mark.parametrize("places", [1, 2, 3, 5, 8])
def test_the_division_is_the_optimal_one(places):
    for length in range(1, 60):
        assert by_schedule(length, places) == repetitions(length, places) == fewest(length, places)


def thinned(n, limit):
    snapshots = Thinned(limit)
    for k in range(n):
        if snapshots.wants(k):
            snapshots.keep(k, k)
        assert len(snapshots.kept) <= (limit or math.inf)
    return snapshots


@pytest.mark.parametrize("n", [1, 9, 64, 150, 1000])
@pytest.mark.parametrize("limit", [None, 1, 2, 4, 7, 20, 64])
def test_every_step_is_met_once_from_its_own_snapshot(n, limit):
    """A snapshot stands here for its own place. The forward pass does not know n, and still nothing is repeated in vain."""
    snapshots, advanced = thinned(n, limit), 0
    places = limit or len(snapshots.kept)

    def advance(first, end, snapshot):
        nonlocal advanced
        assert snapshot == first < end < n
        assert len(kept) <= places
        advanced += end - first
        return end

    kept, met = sorted(snapshots.kept.items()), n
    for first, end, snapshot in stretches(kept, n, snapshots.tape, places, advance):
        assert snapshot == first < end == met
        assert end - first <= snapshots.tape
        assert len(kept) <= places
        met = first
    assert met == 0
    assert advanced <= repetitions(math.ceil(n / snapshots.tape), places) * snapshots.tape
    if limit is None:
        assert advanced == 0


@pytest.mark.parametrize("n", [1, 50, 300, 5000])
def test_without_a_limit_it_keeps_the_root_of_the_steps(n):
    snapshots = thinned(n, None)
    assert len(snapshots.kept) + STATES_A_STEP * snapshots.tape <= 3 * math.sqrt(STATES_A_STEP * n) + STATES_A_STEP
