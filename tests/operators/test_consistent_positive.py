"""Positive Laplacians keep their signs for any parameters, are exact where they say so, and obey the maximum principle."""

import math
import pickle
from copy import deepcopy

import numpy as np
import pytest
import torch
from consistent_stencils import assert_exact_on_polynomials, clouds, disturbed, scattered
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import linprog

from neuralpde.testing import assert_within, roundoff
from operators.checks import DomainError
from operators.consistent import ConsistentLaplacian
from operators.consistent_corrections import FreeCorrection, NetworkCorrection
from operators.consistent_fit import Fit
from operators.consistent_moments import Moments
from operators.consistent_positive import PositiveLaplacian, PositiveMoments, maximum_entropy
from operators.domains import PointCloud

U = roundoff(torch.float64)


def grid(side=6):
    return PointCloud(torch.cartesian_prod(*[torch.arange(float(side), dtype=torch.float64)] * 2))


@settings(max_examples=8)
@given(data=st.data(), order=st.sampled_from([2, 3]), kind=st.sampled_from(["none", "free", "network", "field"]))
def test_signs_and_exactness_for_any_parameters(data, order, kind):
    moments = PositiveMoments(data.draw(clouds(2, 24)), None, order)
    made = {
        "none": None,
        "free": FreeCorrection(moments, 1),
        "network": NetworkCorrection(2, 1, 5, bound=math.inf),
        "field": NetworkCorrection(2, 1, 5, channels=1, bound=math.inf),
    }
    L = disturbed(
        PositiveLaplacian(moments, made[kind]), data.draw(st.integers(0, 9)), data.draw(st.sampled_from([0.1, 1.0, 1e3]))
    )
    x = torch.sin(torch.arange(24.0, dtype=torch.float64))[:, None]
    A = L.operator(x).matrix().detach()
    off = A - torch.diag(A.diagonal())
    assert bool((off <= 0).all())
    assert_within(A.sum(1), 0.0, 64 * U * A.diagonal())
    # How far the corrected moments are off is relative to the largest weight, ω being as small as e⁻⁴ of it.
    assert_exact_on_polynomials(L, x, L.consistent)
    assert bool((A.diagonal() >= 0).all())


def test_weights_of_maximum_entropy_exist_just_where_linear_programming_finds_positive_ones():
    cloud = scattered(60, 2, 3)
    moments = Moments(cloud, 14)
    fit = Fit(cloud.points, moments.neighbours, moments.valid, moments.monomials, None)
    target = torch.tensor([0.0, 0, 2, 0, 2], dtype=torch.float64)
    weights, exact = maximum_entropy(fit, target)
    assert 5 < int(exact.sum()) < 55
    for node in range(60):
        columns = fit.columns()[node].numpy()
        # The largest t with all weights at least t.
        equal = np.hstack([columns.T, np.zeros((5, 1))])
        below = np.hstack([-np.eye(14), np.ones((14, 1))])
        bounds = [(0, None)] * 14 + [(None, 1)]
        best = linprog([0.0] * 14 + [-1.0], A_ub=below, b_ub=np.zeros(14), A_eq=equal, b_eq=target.numpy(), bounds=bounds)
        room = -best.fun if best.success else -1.0
        assert bool(exact[node]) or room < 1e-6
        assert not bool(exact[node]) or room > 0
        if exact[node]:
            # log(w/ω) is a polynomial: the stationarity of entropy under the conditions.
            logs = (weights[node] / fit.root[node] ** 2).log().numpy()
            rest = logs - columns @ np.linalg.lstsq(columns, logs)[0]
            assert np.abs(rest).max() < 1e-6 * (1 + np.abs(logs).max())


def test_on_a_grid_inner_nodes_are_consistent_and_the_border_is_not():
    moments = PositiveMoments(grid(), lambda cloud: cloud.radius_graph(1.5))
    x, y = grid().points.T
    inner = (x > 0) & (x < 5) & (y > 0) & (y < 5)
    assert torch.equal(moments.consistent, inner)
    nine = PositiveLaplacian(moments).operator().matrix()[14]
    assert_within(nine[14], -nine.clamp(max=0).sum(), 64 * U * 10)
    assert int((nine < 0).sum()) == 8
    assert PositiveMoments(grid(), lambda cloud: cloud.radius_graph(1.5), required=inner).consistent[inner].all()
    with pytest.raises(DomainError, match=r"20 of the required nodes have no positive weights .* first is node 0"):
        PositiveMoments(grid(), 8, required=torch.ones(36, dtype=torch.bool))


def test_where_it_cannot_be_exact_it_still_diffuses():
    L = PositiveLaplacian(scattered(50, 2))
    assert 0 < int((~L.consistent).sum()) < 30
    A = L.operator().matrix()
    assert bool((A.diagonal() > 0).all())


@pytest.mark.parametrize("order", [2, 3])
@pytest.mark.parametrize("disorder", [0.0, 1e-5, 1e-3])
def test_signs_and_truth_where_few_weights_carry_the_conditions(order, disorder):
    """Near a grid positive weights of degree 3 have hardly any room: Newton's last step may turn their sign."""
    for seed in range(3):
        noise = torch.randn(36, 2, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
        moments = PositiveMoments(PointCloud(grid().points + disorder * noise), None, order)
        for correction in (None, disturbed(FreeCorrection(moments, 1), seed, 1.0)):
            L = PositiveLaplacian(moments, correction)
            assert bool((L.weights() <= 0).all())
            assert_exact_on_polynomials(L, nodes=L.consistent)
        # And it is exact nowhere else.
        xi = torch.stack([moments.local[..., list(axes)].prod(-1) for axes in moments.monomials], dim=-1)
        off = ((xi.mT @ moments.centre[..., None])[..., 0] - moments._target()).abs().amax(1)
        assert float(off[~moments.consistent].min()) > 1e-12


def test_a_float32_operator_in_double_is_exact_to_double():
    moments = PositiveMoments(PointCloud(scattered(40, 2).points.float()))
    L = disturbed(PositiveLaplacian(moments, NetworkCorrection(2, 1)), 0, 1.0).double()
    assert_exact_on_polynomials(L, nodes=L.consistent)
    assert_exact_on_polynomials(disturbed(ConsistentLaplacian(Moments(moments.cloud), NetworkCorrection(2, 1)), 0, 1.0).double())


def test_maximum_principle_of_euler_steps():
    cloud = scattered(60, 2)
    L = disturbed(PositiveLaplacian(cloud, NetworkCorrection(2, 1, channels=1)), 0, 3.0)
    x = torch.rand(60, 1, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    low, high = float(x.min()), float(x.max())
    for _ in range(30):
        A = L.operator(x)
        x = (x - (A @ x) / A.diagonal().max()).detach()
        assert low - 64 * U <= float(x.min()) <= float(x.max()) <= high + 64 * U


def test_no_eigenvalue_is_negative():
    A = disturbed(PositiveLaplacian(scattered(40, 2), NetworkCorrection(2, 1)), 1, 2.0).operator().matrix().detach()
    values = torch.linalg.eigvals(A).real
    assert float(values.min()) > -1e-11 * float(A.abs().max())


def test_the_correction_reaches_the_border_of_the_cone_and_learns():
    moments = PositiveMoments(scattered(40, 2))
    free = FreeCorrection(moments, 1)
    L = disturbed(PositiveLaplacian(moments, free), 0, 1e3)
    weights = L.weights().detach()[moments.consistent]
    used = moments.valid[moments.consistent]
    smallest = torch.where(used, -weights[..., 0], torch.inf).amin(1) / weights.abs().amax((1, 2))
    assert float(smallest.max()) < 1e-12
    small = disturbed(PositiveLaplacian(moments, free), 0, 1e-3)
    change = moments.project(free.values) / moments.radius[:, None, None] ** 2
    good = moments.consistent & (
        (small.weights() - small.base() - change).abs().amax((1, 2)) < 1e-9 * small.base().abs().amax((1, 2))
    )
    # Inside the cone the correction is taken as it is.
    assert int(good.sum()) > int(moments.consistent.sum()) / 2
    small.weights()[moments.consistent].square().sum().backward()
    assert bool(torch.isfinite(free.values.grad).all())


def test_gradients_match_finite_differences():
    moments = PositiveMoments(grid(4), lambda cloud: cloud.radius_graph(1.5))
    free = FreeCorrection(moments, 1)
    L = disturbed(PositiveLaplacian(moments, free), 0, 0.3)
    value = free.values.detach().clone().requires_grad_()
    assert torch.autograd.gradcheck(lambda v: torch.func.functional_call(free, {"values": v}, (moments, None)).sum(), (value,))

    def weights(v):
        return torch.func.functional_call(L, {"correction.values": v}, (grid(4).points[:, :1] ** 2,))

    assert torch.autograd.gradcheck(weights, (value,), atol=1e-5)


def test_moving_copies_and_precision():
    L = disturbed(PositiveLaplacian(scattered(40, 2), NetworkCorrection(2, 1)), 0, 1.0)
    x = torch.sin(torch.arange(40.0, dtype=torch.float64))[:, None]
    for twin in (deepcopy(L), pickle.loads(pickle.dumps(L))):
        assert torch.equal(twin @ x, L @ x)
    moved = L.on(scattered(50, 2, 1))
    assert moved.shape == (50, 50)
    assert_exact_on_polynomials(moved, nodes=moved.consistent)
    half = deepcopy(L).float()
    assert_exact_on_polynomials(half, nodes=half.consistent)
    A = half.operator().matrix()
    assert bool((A - torch.diag(A.diagonal()) <= 0).all())


def test_what_it_refuses():
    cloud = scattered(30, 2)
    with pytest.raises(DomainError, match="degree 2 and 3, not 4"):
        PositiveMoments(cloud, order=4)
    with pytest.raises(DomainError, match="needs PositiveMoments"):
        PositiveLaplacian(Moments(cloud))
    with pytest.raises(DomainError, match="needs PositiveMoments"):
        PositiveLaplacian(cloud).on(Moments(cloud))
    with pytest.raises(DomainError, match="not determined by polynomials of degree 1"):
        ConsistentLaplacian(cloud).on(Moments(cloud, order=1))
    with pytest.raises(DomainError, match="must be bool of shape"):
        PositiveMoments(cloud, required=torch.ones(29, dtype=torch.bool))
    assert isinstance(PositiveLaplacian(cloud), ConsistentLaplacian)
