"""Consistent stencils are exact on polynomials of their order whatever their parameters are, and start as least squares."""

import pickle
from copy import deepcopy

import numpy as np
import pytest
import torch
from consistent_stencils import assert_exact_on_polynomials, clouds, disturbed, scattered
from hypothesis import given, settings
from hypothesis import strategies as st

from neuralpde.testing import assert_device_agnostic, assert_within, point_clouds, roundoff
from operators.checks import DomainError, FieldError
from operators.consistent import ConsistentGradient, ConsistentLaplacian
from operators.consistent_corrections import FreeCorrection, NetworkCorrection
from operators.consistent_kernels import CosineKernel, GaussianKernel, PolyharmonicKernel
from operators.consistent_moments import Moments
from operators.domains import PointCloud
from operators.stencils import least_squares_gradient, least_squares_laplacian

U = roundoff(torch.float64)
BOTH = [ConsistentGradient, ConsistentLaplacian]
both = pytest.mark.parametrize("build", BOTH)


def rows_of(build, d):
    return d if build is ConsistentGradient else 1


def corrections(kind, moments, rows, channels=0):
    if kind == "none":
        return None
    if kind == "free":
        return FreeCorrection(moments, rows)
    return NetworkCorrection(moments.dimensions, rows, width=5, hops=2, channels=channels)


def kernels(kind, d):
    made = {
        "least squares": None,
        "gaussian": GaussianKernel([0.5] * d),
        "polyharmonic": PolyharmonicKernel(5.0),
        "cosine": CosineKernel(torch.eye(d)),
    }
    return made[kind]


# Exactness ------------------------------------------------------------------------------------------------------------


@both
@pytest.mark.parametrize("correction", ["none", "free", "network", "field"])
@pytest.mark.parametrize("kernel", ["least squares", "gaussian", "polyharmonic", "cosine"])
@settings(max_examples=4)
@given(data=st.data())
def test_polynomials_are_exact_for_any_parameters(build, correction, kernel, data):
    d = data.draw(st.integers(1, 3), label="d")
    order = data.draw(st.integers(2, 3 if d < 3 else 2), label="order")
    cloud = data.draw(clouds(d))
    moments = Moments(cloud, data.draw(st.sampled_from([None, 20]), label="neighbours"), order)
    rows, channels = rows_of(build, d), 2 if correction == "field" else 0
    stencil = build(moments, corrections(correction, moments, rows, channels), kernels(kernel, d))
    size = data.draw(st.sampled_from([1e-3, 1.0, 30.0]), label="size of the parameters")
    disturbed(stencil, data.draw(st.integers(0, 99), label="parameters"), size)
    x = torch.randn(2, cloud.num_nodes, channels, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    assert_exact_on_polynomials(stencil, x if channels else None)


@both
@settings(max_examples=12)
@given(cloud=point_clouds(dimensions=(2,), min_points=12), seed=st.integers(0, 99))
def test_hard_clouds_give_exact_weights_or_an_error_that_names_a_node(build, cloud, seed):
    try:
        moments, refused = Moments(cloud), ""
    except DomainError as error:
        refused = str(error)
    if refused:
        assert "cannot carry a polynomial of degree 2" in refused
        assert "the first is node" in refused
        return
    stencil = disturbed(build(moments, NetworkCorrection(2, rows_of(build, 2), 4), GaussianKernel([1.0, 1.0])), seed, 1.0)
    assert_exact_on_polynomials(stencil)


@both
@pytest.mark.parametrize("channels", [0, 1])
def test_it_is_agnostic_of_device_and_default_precision(build, channels):
    cloud = scattered(20, 2)
    kernel = None if channels else GaussianKernel([0.3, 0.3])
    stencil = disturbed(build(cloud, NetworkCorrection(2, rows_of(build, 2), 4, channels=channels), kernel), 0, 0.5)
    assert_device_agnostic(stencil, cloud, states=lambda f, domain, random: torch.randn(2, 20, 1, generator=random).to(f.dtype))


@both
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_polynomial_as_a_field_and_several_channels(build, dtype):
    cloud = scattered(60, 2, dtype=dtype)
    x, y = cloud.points.double().T
    fields = torch.stack([3 + x, x * y - y, x**2 + 2 * y**2], dim=1)
    slopes = torch.stack([torch.stack([1 + 0 * x, y, 2 * x]), torch.stack([0 * x, x - 1, 4 * y])]).permute(2, 0, 1)
    exact = slopes.flatten(0, 1) if build is ConsistentGradient else torch.tensor([0.0, 0.0, -6.0]).expand(60, 3)
    stencil = build(Moments(cloud, 16), NetworkCorrection(2, rows_of(build, 2), channels=3), GaussianKernel([0.7, 0.7]))
    disturbed(stencil, 0, 1.0)
    found = stencil @ fields.to(dtype)
    size = stencil.weights(fields.to(dtype)).detach().abs().sum(-2).max()
    # The field's own values are rounded, |x| ≤ 4, and so are coordinates.
    assert_within(found, exact, 64 * roundoff(dtype) * float(size))


@both
@given(seed=st.integers(0, 10**6), d=st.integers(1, 3))
@settings(max_examples=10)
def test_untrained_it_is_least_squares(build, seed, d):
    cloud = scattered(40, d, seed)
    moments = Moments(cloud)
    stencil = build(moments, NetworkCorrection(d, rows_of(build, d), channels=1))
    known = least_squares_gradient(cloud) if build is ConsistentGradient else least_squares_laplacian(cloud)
    x = torch.sin(7 * cloud.points.sum(1, keepdim=True))
    A = known.matrix()
    assert_within(stencil.operator(x).matrix(), A, 64 * U * known.condition * A.abs().amax(1, keepdim=True))


@both
def test_constants_vanish_to_the_bit(build):
    stencil = disturbed(build(scattered(30, 2), NetworkCorrection(2, rows_of(build, 2))), 0, 3.0)
    assert torch.equal(stencil @ torch.full((30, 2), 0.1, dtype=torch.float64), torch.zeros(30 * stencil.rows, 2))


def test_every_consistent_stencil_is_reached_by_a_free_correction():
    # Any weights that are exact differ from least squares by a projected correction: fit it to a random one.
    moments = Moments(scattered(12, 2), 8)
    stencil = ConsistentLaplacian(moments, FreeCorrection(moments, 1))
    z = torch.randn(12, 8, 1, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    wanted = stencil.base() + moments.project(z) / moments.radius[:, None, None] ** 2
    difference = (wanted - stencil.base()) * moments.radius[:, None, None] ** 2 / moments.root[..., None]
    with torch.no_grad():
        stencil.correction.values.copy_(difference)
    assert_within(stencil.weights(), wanted, 1e3 * U * wanted.abs().amax())


@both
def test_both_ways_of_applying_agree(build):
    cloud = scattered(40, 2)
    stencil = disturbed(build(cloud, NetworkCorrection(2, rows_of(build, 2), channels=2), PolyharmonicKernel()), 0, 1.0)
    x = torch.randn(3, 40, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    A = stencil.operator(x)
    assert A.shape == stencil.shape == (40 * stencil.rows, 40)
    scale = stencil.weights(x).abs().sum(-2).max() * x.abs().max()
    assert_within(A @ x, (stencil @ x).detach(), 64 * U * scale)
    assert_within(stencil.vectors(x).flatten(-3, -2), (stencil @ x).detach(), 0.0)


@both
def test_weights_that_read_the_field_do_not_change_with_its_unit_and_zero(build):
    cloud = scattered(40, 2)
    stencil = disturbed(build(cloud, NetworkCorrection(2, rows_of(build, 2), channels=1)), 0, 1.0)
    x = torch.sin(5 * cloud.points.sum(1, keepdim=True))
    A = stencil.weights(x)
    assert_within(stencil.weights(1024 * x), A, 1e4 * U * A.abs().max())
    assert_within(stencil.weights(x + 4), A, 1e5 * U * A.abs().max())
    assert torch.isfinite(stencil.weights(torch.zeros_like(x))).all()


# Learning -------------------------------------------------------------------------------------------------------------


@both
@pytest.mark.parametrize("kernel", ["least squares", "gaussian", "polyharmonic", "cosine"])
def test_gradients_match_finite_differences(build, kernel):
    cloud = scattered(9, 2)
    moments = Moments(cloud, 7)
    correction = NetworkCorrection(2, rows_of(build, 2), width=2, channels=1)
    stencil = disturbed(build(moments, correction, kernels(kernel, 2)), 0, 0.5)
    names = [name for name, _ in stencil.named_parameters()]
    values = tuple(p.detach().clone().requires_grad_() for p in stencil.parameters())
    x = torch.randn(9, 1, generator=torch.Generator().manual_seed(3), dtype=torch.float64).requires_grad_()

    def applied(x, *parameters):
        return torch.func.functional_call(stencil, dict(zip(names, parameters, strict=True)), (x,))

    assert torch.autograd.gradcheck(applied, (x, *values), eps=1e-6, atol=1e-5 * float(stencil(x).detach().abs().max()))


def test_a_learned_length_finds_the_waves_that_least_squares_misses():
    cloud = scattered(80, 2)
    x, y = (6 * cloud.points).T
    field, exact = (torch.sin(x) + torch.cos(y))[:, None], 6 * torch.stack([torch.cos(x), -torch.sin(y)], dim=1)
    stencil = ConsistentGradient(Moments(cloud, 14), kernel=GaussianKernel([0.1, 0.1]))

    def error():
        return (stencil.vectors(field)[..., 0] - exact).square().mean()

    before, plain = (
        float(error().detach()),
        (ConsistentGradient(Moments(cloud, 14)).vectors(field)[..., 0] - exact).square().mean(),
    )
    adam = torch.optim.Adam(stencil.parameters(), 0.1)
    for _ in range(40):
        adam.zero_grad()
        loss = error()
        loss.backward()
        adam.step()
    assert float(loss.detach()) < min(before / 3, float(plain) / 20)


# Carrying around ------------------------------------------------------------------------------------------------------


@both
def test_on_another_cloud_it_shares_its_parameters(build):
    stencil = disturbed(build(scattered(30, 2), NetworkCorrection(2, rows_of(build, 2)), GaussianKernel([0.3, 0.3])), 0, 0.5)
    there = scattered(50, 2, seed=1)
    moved = stencil.on(there)
    assert [id(p) for p in moved.parameters()] == [id(p) for p in stencil.parameters()]
    assert_exact_on_polynomials(moved)
    fresh = disturbed(build(there, NetworkCorrection(2, rows_of(build, 2)), GaussianKernel([0.3, 0.3])), 0, 0.5)
    x = there.points[:, :1].sin()
    assert torch.equal(moved @ x, fresh @ x)


@both
def test_copies_pickles_and_precisions(build):
    stencil = disturbed(build(scattered(30, 2), NetworkCorrection(2, rows_of(build, 2))), 0, 1.0)
    x = torch.randn(30, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    for twin in (deepcopy(stencil), pickle.loads(pickle.dumps(stencil))):
        assert torch.equal(twin @ x, stencil @ x)
    half = deepcopy(stencil).to(torch.float32)
    assert half.dtype == torch.float32
    assert_exact_on_polynomials(half)
    other = build(PointCloud(scattered(30, 2).points.float()), NetworkCorrection(2, rows_of(build, 2)).double())
    assert {p.dtype for p in other.parameters()} == {torch.float32}


@both
def test_complex_fields_are_pairs_of_real_ones(build):
    stencil = disturbed(build(scattered(30, 2), NetworkCorrection(2, rows_of(build, 2))), 0, 1.0)
    x = torch.randn(30, 2, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    found = torch.view_as_real((stencil @ torch.view_as_complex(x)).detach())
    assert_within(found[..., 0], (stencil @ x[..., 0]).detach(), 64 * U * stencil.weights().abs().sum(1).max())


# Errors ---------------------------------------------------------------------------------------------------------------


def test_what_it_refuses():
    cloud = scattered(30, 2)
    with pytest.raises(DomainError, match="a derivative of order 2 is not determined by polynomials of degree 1"):
        ConsistentLaplacian(Moments(cloud, order=1))
    stencil = ConsistentGradient(cloud, NetworkCorrection(2, 2, channels=2))
    with pytest.raises(FieldError, match=r"build it with channels=c"):
        stencil @ torch.zeros(30, 1, dtype=torch.float64)
    with pytest.raises(FieldError, match=r"build it with channels=c"):
        stencil.operator()
    with pytest.raises(FieldError, match=r"must have shape"):
        stencil @ torch.zeros(31, 2, dtype=torch.float64)
    with pytest.raises(DomainError, match=r"gives 1 numbers a neighbour, the stencil has 2 rows"):
        ConsistentGradient(cloud, NetworkCorrection(2, 1)).weights()
    with pytest.raises(DomainError, match="lives on Moments or a PointCloud, not a Graph"):
        ConsistentGradient(cloud.knn_graph(4))
    free = ConsistentGradient(cloud, FreeCorrection(Moments(cloud), 2))
    with pytest.raises(DomainError, match="cannot move to another"):
        free.on(scattered(20, 2))


def test_node_numbers_do_not_matter():
    cloud = scattered(30, 2)
    order = torch.from_numpy(np.random.default_rng(0).permutation(30))
    here = disturbed(ConsistentLaplacian(cloud, NetworkCorrection(2, 1, hops=2), GaussianKernel([0.4, 0.4])), 0, 0.5)
    there = here.on(PointCloud(cloud.points[order]))
    A = here.operator().matrix().detach()
    assert_within(there.operator().matrix(), A[order][:, order], 1e4 * U * here.moments.condition * A.abs().max())
