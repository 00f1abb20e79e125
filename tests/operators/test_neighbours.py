"""Neighbour graphs agree with all distances and with Qhull on any points; what would not fit is refused before it is stored."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.spatial import Delaunay

import operators.neighbours
from operators import DomainError, PointCloud, combinatorial_laplacian
from operators.neighbours import Gaussian, InverseDistance, affine_rank, flattened

INF = math.inf


@st.composite
def clouds(draw, max_points=12, max_dimensions=3):
    """Points on a coarse lattice, where many coincide and more are collinear, or on a fine one."""
    n, d = draw(st.integers(2, max_points)), draw(st.integers(1, max_dimensions))
    coordinate = st.integers(0, 3) if draw(st.booleans()) else st.integers(0, 10**6)
    rows = draw(st.lists(st.lists(coordinate, min_size=d, max_size=d), min_size=n, max_size=n))
    return PointCloud(torch.tensor(rows, dtype=torch.float64))


def distances(cloud):
    return torch.cdist(cloud.points, cloud.points, compute_mode="donot_use_mm_for_euclid_dist")


def matrix(graph):
    """The dense adjacency, after checking that the graph is simple and undirected."""
    joined = torch.zeros(graph.nodes, graph.nodes, dtype=torch.bool)
    joined[graph.edge_index[0], graph.edge_index[1]] = True
    assert torch.equal(joined, joined.T)
    assert not joined.diagonal().any()
    assert joined.sum() == graph.edge_index.shape[1]
    return joined


@given(cloud=clouds(), data=st.data())
def test_knn_graph_joins_each_point_to_k_nearest_others(cloud, data):
    """Among equally near ones, any will do."""
    n = cloud.num_nodes
    k = data.draw(st.integers(1, n - 1))
    distance = distances(cloud).fill_diagonal_(INF)
    joined = matrix(cloud.knn_graph(k))
    radius = distance.sort(dim=1).values[:, k - 1]
    assert (joined.sum(1) >= k).all()
    assert joined.sum() <= 2 * n * k
    for i in range(n):
        assert joined[i][distance[i] < radius[i]].all()
    assert (distance[joined] <= torch.maximum(radius[:, None], radius).expand(n, n)[joined]).all()


@pytest.mark.parametrize("k", [1, 3, 19])
def test_knn_graph_of_coincident_points_chooses_k_others_for_each(k):
    graph = PointCloud(torch.zeros(20, 2)).knn_graph(k)
    assert (matrix(graph).sum(1) >= k).all()
    assert graph.edge_index.shape[1] <= 2 * 20 * k


def test_a_hundred_thousand_copies_of_a_point_are_joined_in_linear_time():
    """A tree would search all the copies for each of them: for minutes."""
    graph = PointCloud(torch.cat([torch.zeros(100_000, 2), torch.ones(3, 2)])).knn_graph(3)
    assert (torch.bincount(graph.edge_index[1]) >= 3).all()
    assert graph.edge_index.shape[1] <= 2 * 3 * 100_003


@given(cloud=clouds(), radius=st.sampled_from([0.5, 1.0, 1.5, 1000.0, 1e7]))
def test_radius_graph_joins_what_is_at_most_the_radius_apart(cloud, radius):
    assert torch.equal(matrix(cloud.radius_graph(radius)), (distances(cloud) <= radius).fill_diagonal_(False))


@given(cloud=clouds(max_dimensions=2))
def test_delaunay_graph_is_connected_and_holds_every_nearest_neighbour(cloud):
    joined = matrix(cloud.delaunay_graph())
    reach = torch.matrix_power((joined | torch.eye(len(joined), dtype=torch.bool)).double(), len(joined))
    assert (reach > 0).all()
    # Of distinct points: a copy hangs on its first.
    points = cloud.points.unique(dim=0)
    if len(points) > 2 and affine_rank(points.numpy()) > 0:
        distance = distances(PointCloud(points)).fill_diagonal_(INF)
        joined = matrix(PointCloud(points).delaunay_graph())
        assert torch.where(joined, distance, INF).amin(1).equal(distance.amin(1))


@pytest.mark.parametrize("d", [2, 3, 4])
def test_delaunay_graph_is_that_of_qhull_on_generic_points(d):
    points = torch.rand(40, d, dtype=torch.float64)
    pointers, neighbours = Delaunay(points.numpy()).vertex_neighbor_vertices
    joined = matrix(PointCloud(points).delaunay_graph())
    for i in range(40):
        assert joined[i].nonzero().flatten().tolist() == sorted(neighbours[pointers[i] : pointers[i + 1]])


@pytest.mark.parametrize("offset", [0.0, 1e6])
def test_points_on_a_line_in_space_are_joined_in_their_order(offset):
    place = torch.tensor([3.0, 1, 2, 7], dtype=torch.float64)
    cloud = PointCloud(place[:, None] * torch.tensor([1.0, 2, -1], dtype=torch.float64) + offset)
    assert sorted(map(tuple, cloud.delaunay_graph().edge_index.T.tolist())) == [
        (0, 2), (0, 3), (1, 2), (2, 0), (2, 1), (3, 0),
    ]  # fmt: skip
    assert PointCloud(torch.zeros(3, 2)).delaunay_graph().edge_index.tolist() == [[0, 0, 1, 2], [1, 2, 0, 0]]
    assert PointCloud(torch.zeros(1, 2)).delaunay_graph().edge_index.shape == (2, 0)


# Triangulation --------------------------------------------------------------------------------------------------------


@given(points=st.sets(st.tuples(st.integers(0, 9), st.integers(0, 9)), min_size=3, max_size=15), space=st.booleans())
def test_planar_points_are_triangulated_whole_and_delaunay(points, space):
    flat = torch.tensor(sorted(points), dtype=torch.float64)
    if affine_rank(flat.numpy()) < 2:
        with pytest.raises(DomainError, match="lie on a line: there are no triangles"):
            PointCloud(flat).triangulated()
        return
    frame = torch.tensor([[1.0, 2, 2], [2, 1, -2]], dtype=torch.float64) / 3
    mesh = PointCloud(flat @ frame + 5 if space else flat).triangulated()
    report = mesh.report()
    assert mesh.num_nodes == len(points)
    assert (report.euler_characteristic, report.components) == (1, 1)
    assert report.consistently_oriented
    assert report.non_delaunay_share in (None, 0)
    x, y = flat[mesh.faces].unbind(-1)
    signed = ((x[:, 1] - x[:, 0]) * (y[:, 2] - y[:, 0]) - (x[:, 2] - x[:, 0]) * (y[:, 1] - y[:, 0])) / 2
    hull = operators.neighbours.Delaunay(flat.numpy())
    area = sum(abs(np.linalg.det(flat.numpy()[s[1:]] - flat.numpy()[s[0]])) / 2 for s in hull.simplices)
    assert mesh.area == pytest.approx(area)
    assert space or (signed > 0).all()


@pytest.mark.parametrize(
    ("points", "match"),
    [
        (torch.randn(9, 3), "9 points in 3 dimensions do not lie in a plane"),
        (torch.arange(4.0)[:, None].expand(4, 2), "lie on a line"),
        (torch.zeros(1, 2), "lie on a line"),
        (torch.rand(4, 1), "lie on a line"),
        (torch.zeros(3, 2), "2 points coincide with an earlier one: remove them with torch.unique"),
    ],
)
def test_points_without_triangles_are_refused(points, match):
    with pytest.raises(DomainError, match=match):
        PointCloud(points).triangulated()


# Weights --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@given(cloud=clouds())
def test_weights_are_functions_of_the_distance(dtype, cloud):
    cloud = cloud.to(dtype)
    for graph in (cloud.knn_graph(1, Gaussian(2.0)), cloud.radius_graph(1.5, Gaussian(2.0)), cloud.delaunay_graph(Gaussian(2.0))):
        i, j = graph.edge_index
        distance = (cloud.points[i].double() - cloud.points[j].double()).norm(dim=1)
        expected = torch.exp(-(distance**2) / 8)
        assert graph.edge_weight.dtype == dtype
        torch.testing.assert_close(graph.edge_weight, expected.to(dtype), rtol=1e-5, atol=1e-30)
        combinatorial_laplacian(graph)


def test_weights_have_gradients_in_the_points():
    points = torch.rand(8, 2, dtype=torch.float64, requires_grad=True)
    for weight in (Gaussian(0.5), InverseDistance(2.0)):
        assert torch.autograd.gradcheck(lambda x, w=weight: PointCloud(x).knn_graph(3, w).edge_weight, points)
    copies = torch.zeros(3, 2, dtype=torch.float64, requires_grad=True)
    PointCloud(copies).knn_graph(1, Gaussian(1.0)).edge_weight.sum().backward()
    assert (copies.grad == 0).all()


def test_coincident_points_have_no_inverse_distance():
    with pytest.raises(DomainError, match="no inverse distance: remove the copies, or take Gaussian weights"):
        PointCloud(torch.zeros(3, 2)).knn_graph(1, InverseDistance())


# Limits ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("k", [0, -1, 4, 2.0, True, "2", None])
def test_k_out_of_range_reaches_no_native_code(k, monkeypatch):
    monkeypatch.setattr(operators.neighbours, "cKDTree", lambda *_: pytest.fail("native code was reached"))
    with pytest.raises(DomainError, match=r"k must be an integer from 1 to 3 \(one less than the 4 points\), not"):
        PointCloud(torch.rand(4, 2)).knn_graph(k)


@pytest.mark.parametrize("value", [0, -1.0, math.nan, INF, True, "1", None])
@pytest.mark.parametrize(
    "build", [PointCloud(torch.rand(4, 2)).radius_graph, Gaussian, InverseDistance], ids=["radius", "width", "power"]
)
def test_lengths_that_are_no_positive_number_are_refused(build, value):
    with pytest.raises(DomainError, match="must be a positive, finite number, not"):
        build(value)


def test_graphs_too_large_to_store_are_refused_before_they_are_built(monkeypatch):
    cloud = PointCloud(torch.rand(200_000, 2))
    with pytest.raises(DomainError, match=r"a radius of 5 joins 199999 neighbours to every point.*make it smaller, or raise"):
        cloud.radius_graph(5)
    with pytest.raises(DomainError, match="100000 neighbours of 200000 points are 20000000000 edges, over the limit"):
        cloud.knn_graph(100_000)
    monkeypatch.setattr(operators.neighbours, "Delaunay", lambda *_: pytest.fail("native code was reached"))
    for points in (torch.rand(50_000, 6), torch.rand(12, 9)):
        with pytest.raises(DomainError, match=r"in \d dimensions are too many to store: join them with \.knn_graph"):
            PointCloud(points).delaunay_graph()
    small = PointCloud(torch.arange(3.0)[:, None])
    assert small.radius_graph(1, most_edges=4).edge_index.shape[1] == 4
    with pytest.raises(DomainError, match="over the limit of 3"):
        small.radius_graph(1, most_edges=3)


@pytest.mark.parametrize("size", [1e-3, 1.0, 1e3])
def test_what_far_coordinates_were_rounded_by_is_no_dimension(size):
    """On a line at 10⁹ sizes from the origin the points stray by 10⁻⁷ sizes."""
    line = np.linspace(0, size, 20)[:, None] * np.array([0.6, 0.3, -0.74]) + 1e9 * size * np.array([1.0, 1.1, 1.3])
    assert affine_rank(line) == 1


@given(cloud=clouds())
def test_flattened_points_have_the_distances_of_the_cloud(cloud):
    points = cloud.points.numpy()
    flat = flattened(points)
    assert flat.shape[1] == np.linalg.matrix_rank(points - points.mean(0), tol=1e-6 * max(np.abs(points).max(), 1))
    size = np.abs(points - points.mean(0)).max()
    between = torch.cdist(torch.from_numpy(flat), torch.from_numpy(flat)) if flat.shape[1] else torch.zeros(len(flat), len(flat))
    torch.testing.assert_close(between.double() * size, distances(cloud), rtol=1e-6, atol=1e-6 * size)
