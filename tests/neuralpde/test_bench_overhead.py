"""The overhead benchmark runs, names its rows as promised, and its competitors solve the same equation."""

import dataclasses

import pytest
import torch

from neuralpde.bench_overhead import LEAN, OURS, THEIRS, attention, linear, overhead_rows

TINY = (dataclasses.replace(linear(4), horizon=0.5), dataclasses.replace(attention(6, 5, 3), horizon=0.5))


@pytest.fixture(scope="module")
def rows():
    return overhead_rows(1, TINY)


@pytest.mark.parametrize("table", ["overhead-linear", "overhead-attention"])
def test_the_promised_rows_are_there(rows, table):
    ours = {row.metric: row for row in rows if row.table == table and row.method == "dopri5"}
    for metric in ("speedup", "speedup_backward", "speedup_backward_checkpointed"):
        assert ours[metric].value > 0
        assert (ours[metric].unit, ours[metric].baseline) == ("ratio", "torchdiffeq dopri5")
    for metric in ("versus_hand_written", "versus_hand_written_backward"):
        assert (ours[metric].unit, ours[metric].baseline) == ("ratio", "hand-written")
    methods = {row.method for row in rows if row.table == table and row.metric == "cpu_seconds"}
    assert {OURS, LEAN, THEIRS, "hand-written", "hand-tuned"} <= methods
    assert all(row.value is not None or row.note for row in rows)


def test_a_ratio_is_that_of_its_rows(rows):
    seconds = {(row.table, row.method): row.value for row in rows if row.metric == "cpu_seconds"}
    for row in rows:
        if row.metric == "speedup":
            assert row.value == seconds[row.table, THEIRS] / seconds[row.table, OURS]


@pytest.mark.parametrize("race", TINY, ids=lambda race: race.table)
def test_every_solver_solves_the_same_equation(race):
    solvers = race.solvers()
    expected = solvers[OURS](race.f, race.x0)
    for name, solve in solvers.items():
        assert torch.allclose(solve(race.f, race.x0), expected, rtol=1e-3, atol=1e-4), name


@pytest.mark.parametrize("race", TINY, ids=lambda race: race.table)
def test_every_solver_takes_about_as_many_steps(race):
    counts = {name: race._nfe(solve) for name, solve in race.solvers().items()}
    assert max(counts.values()) <= 1.5 * min(counts.values()) + 7


def test_both_races_have_the_size_that_is_promised():
    assert linear().x0.shape == (64, 64)
    assert attention().x0.shape == (3072, 64)
    assert linear().x0.dtype == attention().x0.dtype == torch.float32
