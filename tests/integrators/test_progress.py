"""The progress bar counts steps and reaches the end, and keeps out of standard output."""

import torch

from integrators import RK4, integrate
from integrators.progress import Bar


def test_the_bar_follows_the_solve_and_leaves_standard_output_alone(capsys):
    with Bar("a solve") as bar:
        for k in range(4):
            bar.reach((k + 1) / 4)
        assert bar.steps == 4
        assert bar.progress.tasks[0].percentage == 100
    assert bar.progress.finished
    assert capsys.readouterr().out == ""


def test_a_solve_with_a_bar_is_the_same_solve(capsys):
    x0 = torch.ones(3, 1, dtype=torch.float64)
    plain, shown = (integrate(lambda t, x: -x, x0, [0.0, 1.0], RK4(dt=0.1), progress=p) for p in (False, True))
    assert torch.equal(plain.x, shown.x)
    assert capsys.readouterr().out == ""
