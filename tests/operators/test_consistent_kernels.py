"""Kernels against their own derivatives by autograd, and their weights against the saddle-point system of RBF-FD."""

import numpy as np
import pytest
import torch
from consistent_stencils import assert_exact_on_polynomials, disturbed, scattered
from hypothesis import given, settings
from hypothesis import strategies as st

from neuralpde.testing import assert_within, roundoff
from operators import consistent_kernels
from operators.checks import DomainError
from operators.consistent import ConsistentGradient, ConsistentLaplacian
from operators.consistent_kernels import CosineKernel, GaussianKernel, PolyharmonicKernel
from operators.consistent_moments import Moments

U = roundoff(torch.float64)
MAKE = {
    "gaussian": lambda: GaussianKernel([0.4, 0.7], 1e-9),
    "cubic": lambda: PolyharmonicKernel(3.0, 1e-9),
    "quintic": lambda: PolyharmonicKernel(5.0, 1e-9),
    "cosine": lambda: CosineKernel(torch.tensor([[1.0, 2.0], [4.0, -1.0], [3.0, 3.0], [0.5, 6.0]]), 1e-9),
}
every = pytest.mark.parametrize("kind", MAKE)


@every
@pytest.mark.parametrize("seed", [0, 1])
def test_gradient_and_laplacian_are_the_derivatives_of_the_value(kind, seed):
    kernel = MAKE[kind]().double()
    random = torch.Generator().manual_seed(seed)
    xi = torch.randn(6, 2, generator=random, dtype=torch.float64).requires_grad_()
    radius = torch.rand(6, generator=random, dtype=torch.float64) + 0.5
    (slope,) = torch.autograd.grad(kernel.value(xi, radius).sum(), xi, create_graph=True)
    second = sum(torch.autograd.grad(slope[:, a].sum(), xi, retain_graph=True)[0][:, a] for a in range(2))
    size = 1 + second.detach().abs().max()
    assert_within(kernel.gradient(xi, radius), slope.detach(), 1e3 * U * size)
    assert_within(kernel.laplacian(xi, radius), second.detach(), 1e3 * U * size)


@every
@pytest.mark.parametrize("build", [ConsistentGradient, ConsistentLaplacian])
def test_weights_solve_the_saddle_point_system_of_rbf_fd(kind, build):
    cloud = scattered(30, 2)
    moments = Moments(cloud, 12)
    stencil = build(moments, kernel=MAKE[kind]())
    weights = stencil.weights().detach()
    kernel = stencil.kernel
    one = torch.ones((), dtype=torch.float64)
    for node in (0, 7):
        # All values, the node's own first, and polynomials with the constant: the textbook form, in plain coordinates.
        offsets = torch.cat([torch.zeros(1, 2, dtype=torch.float64), moments.offsets[node]])
        with torch.no_grad():
            between = kernel.value(offsets[:, None] - offsets[None], one).numpy()
            if build is ConsistentGradient:
                right = -kernel.gradient(offsets, one).numpy()
                slopes = np.vstack([np.zeros((1, 2)), np.eye(2), np.zeros((3, 2))])
            else:
                right = -kernel.laplacian(offsets, one).numpy()[:, None]
                slopes = np.array([[0.0, 0, 0, -2, 0, -2]]).T
        jump = between[1:, 1:] - between[1:, :1] - between[:1, 1:] + between[:1, :1]
        noise = 1e-9 * np.abs(np.diag(jump)).mean()
        x, y = offsets.numpy().T
        P = np.stack([np.ones(13), x, y, x * x, x * y, y * y], axis=1)
        saddle = np.block([[between + noise * np.eye(13), P], [P.T, np.zeros((6, 6))]])
        exact = torch.from_numpy(np.linalg.solve(saddle, np.vstack([right, slopes]))[1:13])
        # Noise of 1e-9 leaves the condition about 1e9, and the floor of 1e-12 beside it a relative 1e-3.
        assert_within(weights[node], exact, 3e-3 * float(exact.abs().max()))


def test_polyharmonic_weights_do_not_know_the_unit_of_length():
    cloud = scattered(30, 2)
    moments = Moments(cloud, 12)
    small = ConsistentLaplacian(moments, kernel=PolyharmonicKernel())
    large = small.on(type(cloud)(cloud.points * 1024))
    assert_within(large.weights() * 1024.0**2, small.weights().detach(), 1e-6 * float(small.weights().detach().abs().max()))


@every
def test_waves_and_smooth_fields_are_differentiated_better_than_by_least_squares(kind):
    cloud = scattered(150, 2)
    x, y = cloud.points.T
    field, exact = torch.sin(x + 2 * y)[:, None], 5 * torch.sin(x + 2 * y)[:, None]
    moments = Moments(cloud, 18)
    plain = (ConsistentLaplacian(moments) @ field - exact).square().mean().sqrt()
    made = (ConsistentLaplacian(moments, kernel=MAKE[kind]()) @ field - exact).square().mean().sqrt()
    # r³ with quadratics is of no higher order than least squares.
    assert float(made.detach()) < float(plain) * {"cubic": 2.0, "quintic": 0.5, "gaussian": 0.2, "cosine": 0.05}[kind]


@every
@settings(max_examples=8)
@given(seed=st.integers(0, 99), size=st.sampled_from([1.0, 10.0, 100.0]))
def test_any_parameters_give_finite_weights_that_are_exact_with_finite_gradients(kind, seed, size):
    moments = Moments(scattered(20, 2, seed), 10)
    stencil = disturbed(ConsistentLaplacian(moments, kernel=MAKE[kind]()), seed, size)
    assert_exact_on_polynomials(stencil)
    stencil.weights().square().sum().backward()
    assert all(bool(torch.isfinite(p.grad).all()) for p in stencil.parameters())


def test_much_noise_gives_the_smoothest_weights_and_flat_kernels_do_not_break():
    moments = Moments(scattered(20, 2), 10)
    noisy = ConsistentLaplacian(moments, kernel=GaussianKernel([1.0, 1.0], 1e8)).weights().detach()
    # The error of equal, independent noise in all values, the node's own among them, is least.
    free = moments.project(torch.eye(10, dtype=torch.float64).expand(20, 10, 10))
    slope = (noisy + noisy.sum(1, keepdim=True)).mT @ free
    assert_within(slope, 0.0, 1e-6 * float(noisy.abs().max()))
    flat = ConsistentLaplacian(moments, kernel=GaussianKernel([1e12, 1e12])).weights()
    assert bool(torch.isfinite(flat).all())


def test_the_power_is_what_was_given_and_stays_between_even_integers():
    for power in (1.5, 3.0, 4.5, 5.0):
        kernel = PolyharmonicKernel(power)
        assert_within(kernel.power, power, 1e-6)
        for raw in (-1e3, 1e3):
            kernel.raw.data.fill_(raw)
            assert 2 * int(power // 2) < float(kernel.power.detach()) < 2 * int(power // 2) + 2


@every
def test_many_nodes_are_solved_some_at_a_time(kind, monkeypatch):
    stencil = ConsistentLaplacian(Moments(scattered(20, 2), 10), kernel=MAKE[kind]())

    def found():
        weights = stencil.weights()
        return weights.detach(), torch.autograd.grad(weights.square().sum(), stencil.parameters())

    whole, slopes = found()
    monkeypatch.setattr(consistent_kernels, "LARGEST_BATCH", 1500)
    parts, again = found()
    assert_within(parts, whole, 1e-6 * float(whole.abs().max()))
    for one, two in zip(again, slopes, strict=True):
        assert_within(one, two, 1e-4 * float(two.abs().max()))
    with torch.no_grad():
        assert torch.equal(stencil.weights(), parts)


def test_what_they_refuse():
    cloud = scattered(20, 2)
    with pytest.raises(DomainError, match="no Laplacian at the origin for β under 2"):
        ConsistentLaplacian(cloud, kernel=PolyharmonicKernel(1.5)).weights()
    for power in (4.0, 1.0, -3.0, float("nan"), 2.01):
        with pytest.raises(DomainError, match="not near an even integer"):
            PolyharmonicKernel(power)
    with pytest.raises(DomainError, match="this kernel needs polynomials of degree 3, the moments have 2"):
        ConsistentGradient(Moments(cloud), kernel=PolyharmonicKernel(7.0)).weights()
    with pytest.raises(DomainError, match="made for 1 dimensions, the points have 2"):
        ConsistentGradient(cloud, kernel=GaussianKernel([1.0])).weights()
    with pytest.raises(DomainError, match="made for 3 dimensions, the points have 2"):
        ConsistentGradient(cloud, kernel=CosineKernel(torch.ones(4, 3))).weights()
    with pytest.raises(DomainError, match="a length of a kernel must be positive"):
        GaussianKernel([1.0, 0.0])
    with pytest.raises(DomainError, match="noise of a kernel must be positive"):
        GaussianKernel([1.0], noise=0.0)
    with pytest.raises(DomainError, match="waves must be finite"):
        CosineKernel(torch.ones(3))
