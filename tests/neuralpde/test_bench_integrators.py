"""The integrator benchmark writes the rows that its names promise, extrapolates honestly, and refuses nonsense."""

import json
from dataclasses import replace

import pytest
import torch

from integrators import Exponential
from neuralpde.bench_integrators import Contest, IntegratorBench, bench_integrators, contests, relative_error
from neuralpde.bench_problems import grand, heat
from neuralpde.cli import main
from neuralpde.files import RunFolderError

SMALL = IntegratorBench(around=12, across=8, channels=2, repeats=1, only=("grand",))


def test_the_rows_and_the_file(tmp_path):
    path = tmp_path / "rows.json"
    rows = bench_integrators(replace(SMALL, json=path))
    assert {row.table for row in rows} == {"grand"}
    written = json.loads(path.read_text())["rows"]
    assert len(written) == len(rows)
    for method in ("torchdiffeq dopri5", "Exponential", "Tsit5"):
        assert {row.metric for row in rows if row.method == method} == {"cpu_seconds", "nfe", "error"}
    best = [row for row in rows if row.method == "best"]
    assert [(row.metric, row.unit, row.baseline) for row in best] == [("speedup", "ratio", "torchdiffeq dopri5")]
    errors = {row.method: row.value for row in rows if row.metric == "error"}
    assert errors["Exponential"] <= 1e-2  # Its tolerance is tuned to the large graph.
    assert errors["torchdiffeq dopri5"] <= 1e-2


def test_what_is_too_long_is_extrapolated_and_says_so():
    contest = Contest("heat-1e-3", heat(12, 8, 1), 1e-3, {"Exponential": Exponential(tol=3e-4)}, 1e-3)
    rows = contest.run(1)
    theirs = {row.metric: row for row in rows if row.method == "torchdiffeq dopri5"}
    assert theirs["error"].value is None
    assert "extrapolated" in theirs["nfe"].note
    # λT / 3.3 steps of six evaluations, where stability alone bounds the steps.
    assert 0.4 * 4.4e4 / 3.3 * 6 <= theirs["nfe"].value <= 2.5 * 4.4e4 / 3.3 * 6
    best = rows[-1]
    assert best.value > 1
    assert "extrapolated" in best.note


def test_no_method_below_the_error_is_no_winner():
    contest = Contest("grand", grand(12, 8, 1), 1e-30, {"Exponential": Exponential(tol=1e-2)}, 1e-3)
    best = contest.run(1)[-1]
    assert best.value is None
    assert "no method reached" in best.note


def test_the_error_is_relative_over_the_whole_state():
    x = (torch.tensor([3.0]), torch.tensor([4.0]))
    assert relative_error((x[0] + 0.5, x[1]), x) == pytest.approx(0.1)


def test_only_the_tables_asked_for_are_made():
    assert [contest.table for contest in contests(SMALL)] == ["grand"]
    with pytest.raises(RunFolderError, match="--repeats is too small"):
        IntegratorBench(repeats=0)


def test_the_help_teaches(capsys):
    with pytest.raises(SystemExit):
        main(["bench", "integrators", "--help"])
    text = " ".join(capsys.readouterr().out.split())
    assert "torchdiffeq" in text
    assert "neuralpde bench integrators --only heat wave" in text
