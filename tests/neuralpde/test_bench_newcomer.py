"""The newcomer's task on small domains: ten lines, right data, κ found, rows written."""

import json

import pytest
import torch

from neuralpde import bench_newcomer as module
from neuralpde.bench_newcomer import TIMES, TRUE_DIFFUSIVITY, NewcomerBench, lines_of, on_rectangle, on_sphere, random_network
from neuralpde.cli import main
from neuralpde.files import RunFolderError
from operators import combinatorial_laplacian, cotangent_laplacian, grid, icosphere, robust_laplacian

PROGRAMS = (module.surface, module.plane, module.graph, module.points)


@pytest.mark.parametrize("program", PROGRAMS, ids=lambda p: p.__name__)
def test_a_program_takes_ten_lines(program):
    assert lines_of(program) <= 10


def test_the_command_finds_the_diffusivity_everywhere_and_writes_its_rows(tmp_path, capsys):
    assert main(["bench", "newcomer", "--nodes", "642", "--json", str(tmp_path / "rows.json")]) == 0
    rows = json.loads((tmp_path / "rows.json").read_text())["rows"]
    assert {(row["method"], row["metric"]) for row in rows} == {
        (program.__name__, metric) for program in PROGRAMS for metric in ("kappa_error", "cpu_seconds", "lines")
    }
    assert all(row["table"] == "newcomer" for row in rows)
    # A quarter of the nodes, so up to four times the 0.5 % of the full size.
    assert all(row["value"] < 0.02 for row in rows if row["metric"] == "kappa_error")
    assert "error of κ" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("path", "laplacian", "bound"),
    [
        (on_sphere(icosphere(4).vertices), robust_laplacian(icosphere(4)), 0.02),
        (on_rectangle(grid(60, 60).vertices), cotangent_laplacian(grid(60, 60)), 0.15),
        (random_network(60)[1], combinatorial_laplacian(random_network(60)[0]), 0.15),
    ],
    ids=["sphere", "rectangle", "network"],
)
def test_the_truth_solves_the_heat_equation(path, laplacian, bound):
    """(u(t₂) − u(t₁)) / Δt = −κ L (u(t₂) + u(t₁)) / 2 up to the error of Crank–Nicolson, (κλΔt)²/12 of each mode."""
    step = float(TIMES[1] - TIMES[0])
    slope = (path[-1] - path[-2]) / step
    heat = -TRUE_DIFFUSIVITY * (laplacian @ ((path[-1] + path[-2]) / 2))
    assert float((slope - heat).norm() / heat.norm()) < bound


def test_domains_too_coarse_for_the_truth_are_refused():
    with pytest.raises(RunFolderError, match="at least 160"):
        NewcomerBench(nodes=20)


def test_data_are_of_the_times_and_nodes():
    path = on_sphere(icosphere(2).vertices)
    assert path.shape == (len(TIMES), 162, 1)
    # Harmonics but the mean integrate to zero.
    assert torch.allclose(path.mean(dim=1), torch.ones(len(TIMES), 1, dtype=torch.float64), atol=0.01)
