"""The published metrics, against their formulas written out."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from neuralpde import (
    PublishedRayleigh,
    bumpy,
    combinatorial_laplacian,
    icosphere,
    nrmse,
    rayleigh_error,
    robust_laplacian,
)
from neuralpde.metrics import mass_error, smape
from neuralpde.testing import assert_within, fields, graphs, meshes

LAPLACIANS = st.one_of(graphs().map(combinatorial_laplacian), meshes(slivers=False).map(robust_laplacian))


def test_zero_scores_one_a_step():
    truth = torch.randn(7, 3, 20, 2, dtype=torch.float64)
    assert_within(nrmse(torch.zeros_like(truth), truth), 1.0, 1e-6)
    assert bool((nrmse(truth, truth) == 0).all())


def test_nrmse_by_hand():
    truth = torch.tensor([[[3.0], [4.0]]], dtype=torch.float64)
    prediction = torch.tensor([[[3.0], [5.0]]], dtype=torch.float64)
    assert float(nrmse(prediction, truth)[0]) == pytest.approx((0.5 / (12.5 + 1e-8)) ** 0.5, rel=1e-12)
    # The floor of 1e-8 keeps a dead truth finite.
    assert float(nrmse(prediction, 0 * truth)[0]) == pytest.approx((17 / 1e-8) ** 0.5, rel=1e-12)


@given(data=st.data())
def test_published_rayleigh_against_a_dense_computation(data):
    laplacian = data.draw(LAPLACIANS)
    x = data.draw(fields(laplacian.shape[0], exact=True))
    dense = laplacian.stiffness.matrix()
    weights = -(dense - torch.diag(dense.diagonal()))
    degree = weights.sum(dim=1).clamp(min=1.0)
    matrix = torch.eye(len(degree), dtype=torch.float64) - weights / torch.sqrt(degree[:, None] * degree[None, :])
    square = x.square().sum()
    expected = torch.trace(x.T @ matrix @ x) / square if float(square) > 0 else torch.zeros(())
    assert_within(PublishedRayleigh(laplacian)(x), expected, 1e-12 * len(degree))


def test_published_rayleigh_of_zero_is_zero_and_batches_are_independent():
    quotient = PublishedRayleigh(robust_laplacian(bumpy(icosphere(1))))
    x = torch.randn(4, 3, 42, 1, dtype=torch.float64)
    x[2, 1] = 0
    values = quotient(x)
    assert values.shape == (4, 3)
    assert float(values[2, 1]) == 0
    assert_within(values[3, 2], quotient(x[3, 2]), 1e-14)
    assert_within(quotient(7 * x), values, 1e-12)
    assert bool(torch.isfinite(values).all())


def test_rayleigh_error_is_the_distance():
    quotient = PublishedRayleigh(robust_laplacian(bumpy(icosphere(1))))
    x, y = torch.randn(2, 5, 42, 1, dtype=torch.float64)
    assert_within(rayleigh_error(x, y, quotient), (quotient(x) - quotient(y)).abs(), 0.0)
    assert_within(rayleigh_error(x, y, quotient), rayleigh_error(y, x, quotient), 0.0)
    assert float(rayleigh_error(x, x, quotient).sum()) == 0


def test_smape_by_hand():
    truth = torch.tensor([[[1.0], [0.0], [-2.0], [0.0]]], dtype=torch.float64)
    prediction = torch.tensor([[[3.0], [0.0], [2.0], [1.0]]], dtype=torch.float64)
    assert float(smape(prediction, truth)[0]) == pytest.approx((2 * 2 / 4 + 0 + 2 * 4 / 4 + 2) / 4, rel=1e-12)
    assert_within(smape(prediction, truth), smape(truth, prediction), 0.0)


@given(data=st.data())
def test_smape_lies_between_zero_and_two_and_knows_no_scale(data):
    x = data.draw(fields(6, exact=True))
    y = x.flip(-2) - 1
    value = smape(x, y)
    assert bool(((value >= 0) & (value <= 2 + 1e-12)).all())
    assert bool((smape(x, x) == 0).all())
    assert_within(smape(torch.zeros_like(x), 1 + x.abs()), 2.0, 1e-12)


def test_mass_error_by_hand():
    mass = torch.tensor([1.0, 3.0], dtype=torch.float64)
    truth = torch.tensor([[[2.0], [-1.0]], [[0.0], [0.0]]], dtype=torch.float64)
    moved = truth + torch.tensor([[[3.0], [-1.0]], [[0.0], [0.0]]], dtype=torch.float64)
    assert mass_error(moved, truth, mass).tolist() == [0.0, 0.0]
    gained = truth + torch.tensor([[[1.0], [0.0]], [[0.0], [0.0]]], dtype=torch.float64)
    assert mass_error(gained, truth, mass).tolist() == [1 / 5, 0.0]
