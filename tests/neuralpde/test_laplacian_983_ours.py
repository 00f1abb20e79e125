"""Ours in the table of Laplacians."""

import torch

from neuralpde.laplacian_983 import periodic_functions, relative_error, relaxed_points
from neuralpde.laplacian_983_method import QuarticLeastSquares, Samples
from neuralpde.laplacian_983_ours import LearnedKernel


def quiet(*told):
    pass


def test_it_beats_quartic_least_squares_on_functions_and_nodes_that_it_has_not_seen(tmp_path):
    torus, other = relaxed_points(250, 0), relaxed_points(250, 7)
    draw = [periodic_functions(count, seed, 5, 1.3) for count, seed in ((200, 0), (40, 1), (40, 2))]
    train, validation, test = (Samples(*functions.at(torus.points)) for functions in draw)
    there = Samples(*draw[2].at(other.points))
    learned = LearnedKernel(neighbours=24, steps=12).fit(torus, train, validation, 0, tmp_path / "ours.safetensors", quiet)
    formula = QuarticLeastSquares().fit(torus, train, validation, 0, tmp_path / "none", quiet)
    with torch.no_grad():
        for place, asked in ((torus, test), (other, there)):
            found, plain = (relative_error(one.estimate(place, asked.values), asked.laplacians) for one in (learned, formula))
            assert found < 0.3 * plain
    assert learned.parameters == 3
