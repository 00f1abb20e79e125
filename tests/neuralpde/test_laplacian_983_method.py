"""The rows of the table of Laplacians that follow from formulas, and the joint regression."""

from pathlib import Path

import pytest
import torch

from neuralpde.laplacian_983 import periodic_functions, relative_error, relaxed_points
from neuralpde.laplacian_983_method import (
    JointLinear,
    LeastSquares,
    MeshOperator,
    QuarticLeastSquares,
    Samples,
    StandardOperator,
)


@pytest.fixture(scope="module")
def torus():
    return relaxed_points(200, 0)


def samples(torus, count, seed, modes=4, spread=1.2):
    return Samples(*periodic_functions(count, seed, modes, spread).at(torus.points))


def fitted(method, torus, count=300):
    train, validation = samples(torus, count, 0), samples(torus, 40, 1)
    return method.fit(torus, train, validation, 0, Path("unused"), lambda *told: None)


@pytest.mark.parametrize(
    ("method", "worst"),
    [(StandardOperator(), 0.6), (MeshOperator(), 0.25), (LeastSquares(), 0.25), (QuarticLeastSquares(), 0.06)],
    ids=lambda value: getattr(value, "name", ""),
)
def test_formulas_approximate_smooth_laplacians_with_the_right_sign(torus, method, worst):
    test = samples(torus, 30, 2)
    assert relative_error(fitted(method, torus).estimate(torus, test.values), test.laplacians) < worst


def test_the_joint_regression_solves_it_where_nodes_outnumber_waves(torus):
    test = samples(torus, 30, 2)
    learned = fitted(JointLinear(), torus)
    # 80 waves, 200 nodes; the ridge leaves what rounding amounts to.
    assert relative_error(learned.estimate(torus, test.values), test.laplacians) < 1e-4
    assert learned.parameters == 200**2


def test_the_standard_operator_has_the_best_factor(torus):
    train = samples(torus, 300, 0)
    learned = fitted(StandardOperator(), torus)
    best = relative_error(learned.estimate(torus, train.values), train.laplacians)
    for factor in (0.98, 1.02):
        assert relative_error(factor * learned.estimate(torus, train.values), train.laplacians) > best
    assert torch.equal(learned.estimate(torus, torch.ones(1, 200, dtype=torch.float64)), torch.zeros(1, 200).double())
