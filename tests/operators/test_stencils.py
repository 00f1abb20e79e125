"""Least-squares stencils are exact on polynomials, on any cloud that can carry them, and refuse every other."""

import pickle
from copy import deepcopy

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import operators.stencils as module
from neuralpde.testing import assert_within, roundoff
from operators.checks import DomainError, FieldError
from operators.domains import Graph, PointCloud
from operators.stencils import least_squares_gradient, least_squares_laplacian

U = roundoff(torch.float64)
BOTH = [least_squares_gradient, least_squares_laplacian]
both = pytest.mark.parametrize("build", BOTH)


def scattered(n, d, seed=0, dtype=torch.float64):
    """Random points of the unit cube."""
    return PointCloud(torch.rand(n, d, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype))


def jittered(side, d, seed=0):
    """A grid of side^d points of the unit cube, each moved by up to a fifth of the spacing: quasi-uniform."""
    axis = torch.arange(side, dtype=torch.float64)
    points = torch.cartesian_prod(*[axis] * d).reshape(-1, d)
    moves = torch.rand(points.shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return PointCloud((points + 0.4 * moves) / side)


def polynomial(points, axes, centre):
    """Π (x_a − centre_a) over these axes, with its gradient and its Laplacian −Σ ∂_a²."""
    points = points.clone().requires_grad_()
    value = (points - centre)[:, list(axes)].prod(1)
    (gradient,) = torch.autograd.grad(value.sum(), points, create_graph=True)
    second = [
        torch.autograd.grad(gradient[:, a].sum(), points, retain_graph=True, allow_unused=True)[0]
        if gradient[:, a].requires_grad
        else None
        for a in range(points.shape[1])
    ]
    laplacian = -sum(torch.zeros(len(points)) if s is None else s[:, a] for a, s in enumerate(second))
    return value.detach()[:, None], gradient.detach(), laplacian.detach()[:, None]


# Exactness ------------------------------------------------------------------------------------------------------------


@both
@settings(max_examples=60)
@given(
    seed=st.integers(0, 10**6),
    d=st.integers(1, 3),
    order=st.integers(2, 4),
    extra=st.integers(0, 12),
    power=st.integers(-40, 40),
    offset=st.sampled_from([0.0, 1.0, 1024.0]),
)
def test_every_polynomial_up_to_the_order_is_differentiated_exactly(build, seed, d, order, extra, power, offset):
    monomials = module.monomials_of(d, order)
    points = (scattered(60, d, seed).points + offset) * 2.0**power
    stencil = build(PointCloud(points), len(monomials) + extra, order)
    centre = points[seed % 60]
    A = abs(stencil.to_scipy())
    for axes in monomials:
        value, gradient, laplacian = polynomial(points, axes, centre)
        exact = gradient.reshape(-1, 1) if build is least_squares_gradient else laplacian
        # The rounding of the value's own coordinates counts like a rounding of the value.
        slack = U * stencil.condition * len(axes) * torch.from_numpy(A @ value.abs().numpy())
        shift = points.abs().max() / (points - centre).abs().amax()
        assert_within(stencil @ value, exact, 32 * slack * shift)


@both
@given(seed=st.integers(0, 10**6), d=st.integers(1, 3))
def test_rows_sum_to_zero(build, seed, d):
    stencil = build(scattered(40, d, seed))
    A = abs(stencil.to_scipy())
    assert_within(stencil.row_sums(), 0.0, 8 * U * torch.from_numpy(A.sum(1)))


@pytest.mark.parametrize("order", [1, 2, 3])
@pytest.mark.parametrize("d", [1, 2])
def test_gradient_converges_with_its_order(d, order):
    errors = []
    for side in (10, 20, 40):
        cloud = jittered(side, d)
        x = cloud.points
        G = least_squares_gradient(cloud, None, order)
        exact = torch.stack([torch.cos(x.sum(1) + 1)] * d, dim=1)
        errors.append(float((G.vectors(torch.sin(x.sum(1, keepdim=True) + 1))[..., 0] - exact).square().mean().sqrt()))
    slope = np.log2(errors[1] / errors[2])
    assert order - 0.3 < slope < order + 1.3


@pytest.mark.parametrize("order", [2, 3, 4])
def test_laplacian_converges_with_one_order_less(order):
    errors = []
    for side in (10, 20, 40):
        cloud = jittered(side, 2)
        x = torch.sin(cloud.points.sum(1, keepdim=True) + 1)
        errors.append(float((least_squares_laplacian(cloud, None, order) @ x - 2 * x).square().mean().sqrt()))
    slope = np.log2(errors[1] / errors[2])
    assert order - 1.3 < slope < order + 1.3


def test_laplacian_is_the_five_point_stencil_on_a_grid():
    grid = torch.cartesian_prod(torch.arange(5.0, dtype=torch.float64), torch.arange(5.0, dtype=torch.float64))
    i, j = (grid[:, None] - grid[None]).abs().sum(2).eq(1).nonzero().T
    # Four neighbours carry no x·y: the diagonal ones do, but then the weights are those of the nine-point fit.
    with pytest.raises(DomainError, match="cannot carry a polynomial of degree 2"):
        least_squares_laplacian(PointCloud(grid), Graph(torch.stack([j, i]), 25))
    line = torch.arange(7.0, dtype=torch.float64)[:, None] / 4
    second = least_squares_laplacian(PointCloud(line), 2)
    assert_within(second.matrix()[3], 16 * torch.tensor([0.0, 0, -1, 2, -1, 0, 0], dtype=torch.float64), 32 * U * 32)


# Symmetries -----------------------------------------------------------------------------------------------------------


@both
@given(seed=st.integers(0, 10**6), d=st.integers(1, 3), power=st.integers(-30, 30))
def test_scaling_the_points_scales_the_derivatives(build, seed, d, power):
    cloud = scattered(40, d, seed)
    here, there = build(cloud), build(PointCloud(cloud.points * 2.0**power))
    degree = 1 if build is least_squares_gradient else 2
    assert torch.equal(there.pattern.col, here.pattern.col)
    assert torch.equal(there.values, here.values * 2.0 ** (-degree * power))


@both
@given(seed=st.integers(0, 10**6), data=st.data())
def test_renaming_the_points_renames_the_result(build, seed, data):
    cloud = scattered(30, 2, seed)
    order = torch.tensor(data.draw(st.permutations(range(30))))
    here, there = build(cloud), build(PointCloud(cloud.points[order]))
    rows = order if build is least_squares_laplacian else (2 * order[:, None] + torch.arange(2)).flatten()
    A = here.matrix()
    assert_within(there.matrix(), A[rows][:, order], 32 * U * here.condition * A.abs().amax(1)[rows, None])


@given(seed=st.integers(0, 10**6), angle=st.floats(0, 6))
def test_a_rotation_turns_the_gradient_and_keeps_the_laplacian(seed, angle):
    cloud = scattered(40, 2, seed)
    R = torch.tensor([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]], dtype=torch.float64)
    turned = PointCloud(cloud.points @ R.T)
    x = torch.randn(40, 1, dtype=torch.float64)
    G, H = least_squares_gradient(cloud), least_squares_gradient(turned)
    size = float(G.norm_bound() * x.norm())
    assert_within(H.vectors(x)[..., 0], G.vectors(x)[..., 0] @ R.T, 64 * U * G.condition * size)
    L, K = least_squares_laplacian(cloud), least_squares_laplacian(turned)
    assert_within(K @ x, L @ x, 64 * U * L.condition * float(L.norm_bound() * x.norm()))


# Neighbourhoods -------------------------------------------------------------------------------------------------------


@both
def test_a_neighbourhood_on_a_line_grows_until_it_carries_the_polynomial(build):
    # Columns so far apart that the 10 nearest of a point lie in its own.
    points = torch.cartesian_prod(torch.arange(3.0, dtype=torch.float64) * 12, torch.arange(12.0, dtype=torch.float64))
    stencil = build(PointCloud(points), 10)
    assert stencil.condition <= module.WORST_CONDITION
    value, gradient, laplacian = polynomial(points, (0, 0), torch.zeros(2))
    exact = gradient.reshape(-1, 1) if build is least_squares_gradient else laplacian
    assert_within(stencil @ value, exact, 32 * U * stencil.condition * 24**2 * stencil.norm_bound())


@both
@pytest.mark.parametrize(
    "points",
    [
        torch.linspace(0, 1, 50, dtype=torch.float64)[:, None] * torch.tensor([1.0, 2.0]),
        torch.ones(50, 2, dtype=torch.float64),
        torch.cat([torch.rand(50, 2, dtype=torch.float64), torch.ones(50, 2, dtype=torch.float64)]),
        torch.rand(50, 2, dtype=torch.float64) * torch.tensor([1.0, 1e-9]),
    ],
    ids=["collinear", "all the same", "fifty duplicates", "nearly collinear"],
)
def test_points_that_cannot_carry_a_polynomial_are_refused_with_the_node_and_the_cure(build, points):
    with pytest.raises(DomainError, match=r"\d+ nodes have neighbours that cannot carry.*node \d+.*remove the duplicates"):
        build(PointCloud(points))


@both
def test_points_of_a_surface_are_refused_with_the_operator_that_fits(build):
    points = torch.randn(200, 3, dtype=torch.float64)
    with pytest.raises(DomainError, match=r"on a line or a surface.*point_cloud_laplacian"):
        build(PointCloud(points / points.norm(dim=1, keepdim=True)))


@both
def test_a_few_coincident_points_do_no_harm(build):
    points = scattered(40, 2).points
    twice = PointCloud(torch.cat([points, points[:3]]))
    stencil = build(twice)
    assert torch.isfinite(stencil.values).all()
    value, gradient, laplacian = polynomial(twice.points, (0, 1), torch.zeros(2))
    exact = gradient.reshape(-1, 1) if build is least_squares_gradient else laplacian
    assert_within(stencil @ value, exact, 32 * U * stencil.condition * stencil.norm_bound())


@both
def test_a_graph_gives_the_neighbours(build):
    cloud = scattered(40, 2)
    nearest = module.NeighbourSearch(cloud).nearest(torch.arange(40), 10)
    index = torch.stack([nearest.neighbours.flatten(), nearest.nodes.repeat_interleave(10)])
    loops = torch.arange(40).repeat(2, 1)
    # Order, repetition and self-loops do not matter.
    graph = Graph(torch.cat([index.flip(1), index[:, :30], loops], dim=1), 40)
    bound = 32 * U * build(cloud, 10).condition * build(cloud, 10).norm_bound()
    assert_within(build(cloud, graph).matrix(), build(cloud, 10).matrix(), bound)
    assert build(cloud, cloud.knn_graph(12)).shape == build(cloud, 12).shape


@both
def test_a_graph_with_too_few_neighbours_is_refused(build):
    cloud = scattered(40, 2)
    with pytest.raises(DomainError, match="give the graph more neighbours there"):
        build(cloud, Graph(torch.tensor([[0, 1], [1, 0]]), 40))
    with pytest.raises(DomainError, match="the graph has 41 nodes, the cloud 40"):
        build(cloud, Graph(torch.tensor([[0, 1], [1, 0]]), 41))


@both
@pytest.mark.parametrize("neighbours", [4, 40, 0, -1, 10.0, True])
def test_a_count_out_of_range_is_refused(build, neighbours):
    with pytest.raises(DomainError, match=r"a Graph or an integer from 5 .* to 39"):
        build(scattered(40, 2), neighbours)


@both
@pytest.mark.parametrize("order", [0, -1, 2.0, True])
def test_an_order_out_of_range_is_refused(build, order):
    with pytest.raises(DomainError, match="order must be an integer of at least"):
        build(scattered(40, 2), None, order)


@both
def test_too_few_points_are_refused(build):
    with pytest.raises(DomainError, match=r"5 points are too few: .* needs 6"):
        build(scattered(5, 2))
    assert build(scattered(6, 2)).shape[1] == 6


def test_a_large_cloud_is_fitted_in_batches(monkeypatch):
    cloud = scattered(200, 2)
    whole = least_squares_laplacian(cloud)
    monkeypatch.setattr(module, "BATCH", 1000)
    assert torch.equal(least_squares_laplacian(cloud).values, whole.values)


# Gradients and the object ---------------------------------------------------------------------------------------------


@both
def test_weights_are_differentiable_in_the_points(build):
    points = scattered(9, 2, 3).points.requires_grad_()
    x = torch.randn(9, 1, dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda p: build(PointCloud(p), 7) @ x, points)


@both
def test_growing_neighbourhoods_leave_no_nan_in_the_gradient(build):
    points = torch.cartesian_prod(torch.arange(3.0, dtype=torch.float64) * 12, torch.arange(12.0, dtype=torch.float64))
    points.requires_grad_()
    build(PointCloud(points), 10).values.square().sum().backward()
    assert torch.isfinite(points.grad).all()


@both
def test_numbers_may_come_from_numpy(build):
    cloud = scattered(40, 2)
    assert torch.equal(build(cloud, np.int64(12), np.int64(2)).values, build(cloud, 12, 2).values)


@both
def test_float32_points_give_the_float64_weights_rounded(build):
    cloud = scattered(40, 3, dtype=torch.float32)
    narrow, wide = build(cloud), build(cloud.to(torch.float64))
    assert narrow.dtype == torch.float32
    assert torch.equal(narrow.values, wide.values.float())


def test_weights_beyond_float32_are_refused_with_the_cure():
    near, far = (scattered(30, 2, seed).points.float() for seed in (0, 1))
    with pytest.raises(DomainError, match=r"leave the range of torch\.float32: use float64 or change the unit of length"):
        least_squares_laplacian(PointCloud(torch.cat([near * 1e-20, far * 1e-14])))


@both
def test_a_batch_a_copy_a_pickle_and_another_cloud(build):
    stencil = build(scattered(40, 2))
    x = torch.randn(3, 40, 2, dtype=torch.float64)
    assert_within(stencil @ x, torch.stack([stencil @ member for member in x]), 8 * U * stencil.norm_bound() * x.norm())
    assert stencil.vectors(x).shape == (3, 40, 2 if build is least_squares_gradient else 1, 2)
    for copy in (deepcopy(stencil), pickle.loads(pickle.dumps(stencil))):
        assert torch.equal(copy @ x, stencil @ x)
        assert copy.condition == stencil.condition
    moved = deepcopy(stencil).to(torch.float32).on(scattered(50, 2))
    assert torch.equal(moved.values, build(scattered(50, 2)).values.float())
    with pytest.raises(FieldError, match="shape"):
        stencil.vectors(x[:, :39])


def test_the_gradient_s_rows_are_nodes_by_axes():
    cloud = scattered(40, 3)
    G = least_squares_gradient(cloud)
    assert G.shape == (120, 40)
    slopes = G.vectors(cloud.points)
    expected = torch.eye(3, dtype=torch.float64).expand(40, 3, 3)
    assert_within(slopes, expected, 32 * U * G.condition * G.norm_bound())
    assert torch.equal(slopes.reshape(120, 3), G @ cloud.points)
