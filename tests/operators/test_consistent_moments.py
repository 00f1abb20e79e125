"""Moment conditions: the projection annihilates polynomials and nothing else; neighbourhoods grow until they carry them."""

import pickle
from copy import deepcopy

import pytest
import torch
from consistent_stencils import clouds, scattered
from hypothesis import given, settings
from hypothesis import strategies as st

from neuralpde.testing import assert_within, roundoff
from operators import consistent_moments
from operators.checks import DomainError, FieldError
from operators.consistent_moments import Moments
from operators.domains import PointCloud
from operators.neighbours import InverseDistance

U = roundoff(torch.float64)


def powers(moments):
    """ξ^α from the buffers, (n, k, m)."""
    return torch.stack([moments.local[..., list(axes)].prod(-1) for axes in moments.monomials], dim=-1)


@settings(max_examples=10)
@given(data=st.data(), order=st.integers(1, 3), size=st.sampled_from([1.0, 1e6]))
def test_what_is_projected_annihilates_every_polynomial(data, order, size):
    moments = Moments(data.draw(clouds(2)), 12, order)
    z = size * torch.randn(3, *moments.neighbours.shape, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    w = moments.project(z)
    xi = powers(moments)
    # |ξ| ≤ 1.
    assert_within(w.mT @ xi, 0.0, 64 * U * w.abs().sum(-2)[..., None])
    assert bool((w[..., ~moments.valid, :] == 0).all())


def test_even_a_change_that_is_almost_a_polynomial_is_projected_to_rounding():
    moments = Moments(scattered(30, 2), 12)
    small = torch.randn(30, 12, 1, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    # In the range of the moments but for 1e-8 of it.
    w = moments.project(1e8 * moments.basis.sum(-1, keepdim=True) + small)
    assert_within(w.mT @ powers(moments), 0.0, 64 * U * w.abs().sum(-2)[..., None])


def test_the_projection_keeps_all_there_is():
    moments = Moments(scattered(30, 2), 9)
    eye = torch.eye(9, dtype=torch.float64).expand(30, 9, 9)
    rank = torch.linalg.matrix_rank(moments.project(eye), rtol=1e-9)
    assert bool((rank == 9 - 5).all())
    w = moments.project(eye)
    again = moments.project(w / moments.root[..., None])
    assert_within(again, w, 64 * U)


def test_fit_is_dual_to_the_monomials():
    moments = Moments(scattered(40, 3), order=2)
    eye = torch.eye(len(moments.monomials), dtype=torch.float64)
    assert_within(moments.fit.mT @ powers(moments), eye.expand(40, -1, -1), 64 * U * moments.condition)


@pytest.mark.parametrize("neighbours", [8, lambda cloud: cloud.knn_graph(4)])
def test_differences_and_the_operator_of_weights(neighbours):
    cloud = scattered(25, 2)
    moments = Moments(cloud, neighbours)
    x = torch.randn(2, 25, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64, requires_grad=True)
    jumps = moments.differences(x)
    expected = x[:, moments.neighbours] - x[:, :, None]
    assert torch.equal(jumps, expected)
    assert bool((jumps[:, ~moments.valid] == 0).all())
    cotangent = torch.randn_like(jumps)
    (one,), (two,) = torch.autograd.grad(jumps, x, cotangent), torch.autograd.grad(expected, x, cotangent)
    assert_within(one, two, 64 * U * 25)
    w = torch.randn(2, *moments.neighbours.shape, 2, dtype=torch.float64) * moments.valid[..., None]
    A = moments.operator(w)
    assert_within(A @ x.detach(), (w.mT @ expected).flatten(1, 2).detach(), 64 * U * 40)
    assert_within(A.row_sums(), 0.0, 64 * U * 10)


def test_neighbours_are_ascending_and_of_the_kind_asked_for():
    cloud = scattered(25, 2)
    nearest = Moments(cloud, 8)
    expected = torch.cdist(cloud.points, cloud.points).argsort(dim=1)[:, 1:9].sort(dim=1).values
    assert torch.equal(nearest.neighbours, expected)
    graph = cloud.knn_graph(6)
    own = Moments(cloud, graph, 1)
    for node in range(25):
        sources = graph.edge_index[0, graph.edge_index[1] == node].sort().values
        assert torch.equal(own.neighbours[node][own.valid[node]], sources)
    assert own.edges.nnz == int(own.valid.sum()) == graph.edge_index.shape[1]


def test_neighbourhoods_grow_only_where_they_must():
    grid = torch.cartesian_prod(*[torch.arange(5.0, dtype=torch.float64)] * 2)
    # The four sides of a grid point carry no x·y; two hops do.
    moments = Moments(PointCloud(grid), lambda cloud: cloud.radius_graph(1.1))
    assert int(moments.valid[12].sum()) == 12
    with pytest.raises(DomainError, match="cannot carry a polynomial of degree 2"):
        Moments(PointCloud(torch.stack([torch.arange(9.0), torch.zeros(9)], dim=1)))


def test_a_weight_of_ones_choice():
    cloud = scattered(25, 2)
    moments = Moments(cloud, 9, weight=InverseDistance())
    rho = torch.linalg.vector_norm(moments.local, dim=-1)
    assert_within(moments.root, rho.rsqrt(), 8 * U * rho.rsqrt())


def test_moving_copies_and_precision():
    moments = Moments(scattered(25, 2), lambda cloud: cloud.knn_graph(5))
    moved = moments.on(scattered(30, 2, 1))
    assert moved.num_nodes == 30
    assert torch.equal(moved.basis, Moments(scattered(30, 2, 1), lambda cloud: cloud.knn_graph(5)).basis)
    assert torch.equal(deepcopy(moments).basis, moments.basis)
    plain = Moments(scattered(25, 2))
    assert torch.equal(pickle.loads(pickle.dumps(plain)).basis, plain.basis)
    wide = Moments(PointCloud(scattered(25, 2).points.float())).to(torch.float64)
    again = Moments(PointCloud(scattered(25, 2).points.float().double()))
    for name in ("basis", "fit", "local", "root", "radius", "offsets"):
        assert torch.equal(getattr(wide, name), getattr(again, name))
    half = deepcopy(plain).to(torch.float32)
    assert half.on(scattered(20, 2)).basis.dtype == torch.float32


def test_what_it_refuses():
    cloud = scattered(25, 2)
    with pytest.raises(DomainError, match="order must be a positive integer"):
        Moments(cloud, order=0)
    with pytest.raises(DomainError, match="hops must be a positive integer"):
        Moments(cloud, hops=1.5)
    with pytest.raises(DomainError, match="2 hops need a graph"):
        Moments(cloud, 12, hops=2)
    with pytest.raises(DomainError, match="moments live on a PointCloud, not a Tensor"):
        Moments(cloud.points)
    with pytest.raises(DomainError, match="5 points are too few"):
        Moments(scattered(5, 2))
    with pytest.raises(DomainError, match="give a function of the cloud"):
        Moments(cloud, cloud.knn_graph(6)).on(cloud)
    with pytest.raises(FieldError, match="must have shape"):
        Moments(cloud).differences(torch.zeros(24, 1))
    with pytest.raises(DomainError, match="has no gradient in the points"):
        Moments(PointCloud(cloud.points.clone().requires_grad_()))
    with pytest.raises(DomainError, match="cannot carry a polynomial"):
        Moments(PointCloud(torch.ones(12, 2)))


def test_many_nodes_are_fitted_some_at_a_time(monkeypatch):
    cloud = scattered(30, 2)
    whole = Moments(cloud)
    monkeypatch.setattr(consistent_moments, "batches", lambda nodes, each: torch.split(nodes, 7))
    parts = Moments(cloud)
    assert torch.equal(parts.neighbours, whole.neighbours)
    assert parts.condition == whole.condition
    assert_within(parts.fit, whole.fit, 64 * U * whole.condition)
