"""The fixed operators: plain differences exactly, and a triangulation's, exact on linear functions with any obtuse angle."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from neuralpde.difference import DifferenceFlow
from neuralpde.testing import assert_within, fields, roundoff
from operators import DomainError, Graph, PointCloud, TriangleMesh, combinatorial_laplacian, cotangent_laplacian, icosphere
from operators.difference_graph import DifferenceGraph, KNearest
from operators.mesh_difference import MeshDifference, StandardDifference

U = roundoff(torch.float64)


def cloud(seed=0, n=12, twice=0):
    points = torch.rand(n - twice, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    return PointCloud(torch.cat([points, points[:twice]]))


def linear(points):
    return (1 + points @ torch.tensor([[2.0, -1.0], [3.0, 0.5]], dtype=torch.float64)).requires_grad_(False)


@given(data=st.data())
def test_standard_differences_are_the_plain_ones_exactly(data):
    graph = DifferenceGraph(cloud(data.draw(st.integers(0, 99))), KNearest(3))
    standard = StandardDifference(graph)
    x = data.draw(fields(12, 2, exact=True))
    pattern = graph.pattern
    laplacian, gradient = standard(x)
    assert torch.equal(gradient, x[pattern.col] - x[pattern.row])
    plain = Graph(torch.stack([pattern.col, pattern.row]), 12, torch.ones_like(graph.lengths))
    assert torch.equal(laplacian @ x, combinatorial_laplacian(plain) @ x)
    expected = torch.zeros(12, 2, 2, dtype=torch.float64)
    for e, (i, j) in enumerate(zip(pattern.row.tolist(), pattern.col.tolist(), strict=True)):
        expected[i] += graph.directions[e][:, None] * (x[j] - x[i])
    assert_within(standard.node_gradient(x), expected, 256 * U * (1 + float(x.abs().max())))
    assert torch.equal(standard.features(x)[:, :2], standard.node_gradient(x))
    assert torch.equal(standard.features(x)[:, 2], laplacian @ x)


@pytest.mark.parametrize("twice", [0, 3])
@given(seed=st.integers(0, 999))
def test_mesh_differences_are_exact_on_linear_functions(seed, twice):
    points = cloud(seed, 14, twice)
    mesh = MeshDifference(points)
    x = linear(points.points)
    slopes = torch.tensor([[2.0, -1.0], [3.0, 0.5]], dtype=torch.float64)
    # Round-off grows with the needles of a random triangulation, by as much as the entries do.
    entries = torch.from_numpy(abs(mesh.gradient.to_scipy()).sum(1)).reshape(14, 2, 1)
    assert_within(mesh.node_gradient(x), slopes.expand(14, 2, 2), 1e4 * U * (1 + entries))
    _, along = mesh(x)
    row = mesh.edges.pattern.row
    expected = mesh.directions @ slopes
    assert_within(along, expected, 1e4 * U * (1 + entries.amax(1)[row]))
    size = torch.from_numpy(abs(mesh.laplacian.to_scipy()).sum(1))[:, None]
    inside = ~torch.isin(torch.unique(points.points, dim=0, return_inverse=True)[1], boundary(points))
    assert_within((mesh.laplacian @ x)[inside], torch.zeros_like(x)[inside], 1e4 * U * size[inside])


def boundary(points):
    mesh = PointCloud(torch.unique(points.points, dim=0)).triangulated()
    ends, count = torch.unique(mesh.faces[:, [[0, 1], [1, 2], [2, 0]]].reshape(-1, 2).sort(1).values, dim=0, return_counts=True)
    return torch.unique(ends[count == 1])


def test_obtuse_cotangents_are_negative():
    """A thin rhombus: the long diagonal's opposite angles are obtuse, its weight negative; the absolute value would not do."""
    points = torch.tensor([[-1.0, 0.0], [1.0, 0.0], [0.0, 0.1], [0.0, -0.1]], dtype=torch.float64)
    mesh = TriangleMesh(points, torch.tensor([[0, 1, 2], [0, 3, 1]]))
    difference = MeshDifference(mesh)
    row, col = difference.edges.pattern.row, difference.edges.pattern.col
    weight = difference.edges.values[(row == 0) & (col == 1)]
    cotangent = (0.1**2 - 1) / (2 * 0.1)
    mass = 0.2 / 2 / 3 * 2
    assert_within(weight, torch.tensor([cotangent / mass], dtype=torch.float64), 1e-12 * abs(cotangent / mass))
    assert torch.allclose(difference.laplacian.matrix(), (cotangent_laplacian(mesh).matrix()), rtol=1e-13)


def test_copies_share_their_corner_and_the_laplacian_its_kernel():
    points = cloud(1, 14, 3)
    mesh = MeshDifference(points)
    x = torch.randn(14, 1, dtype=torch.float64)
    result = mesh.laplacian @ x
    assert torch.allclose(result[11:], result[:3], atol=1e-9)
    assert_within(mesh.laplacian.row_sums(), torch.zeros(14, dtype=torch.float64), 1e-10 * mesh.laplacian.values.abs().max())
    # Only the copies' mean is seen.
    y = x.clone()
    y[0] += 1
    y[11] -= 1
    assert torch.allclose(mesh.laplacian @ y, result, atol=1e-9)
    assert not bool((mesh.edges.pattern.row == mesh.edges.pattern.col).any())


@pytest.mark.parametrize(
    "make", [MeshDifference, lambda c: StandardDifference(DifferenceGraph(c, KNearest(4)))], ids=["mesh", "standard"]
)
def test_both_flow_move_and_learn_the_points(make):
    flow = DifferenceFlow(make(cloud()), 0.3)
    with torch.no_grad():
        flow.drift.fill_(0.2)
    now, x = torch.zeros((), dtype=torch.float64), torch.randn(2, 12, 2, dtype=torch.float64)
    differences = flow.differences
    laplacian, gradient = differences(x)
    edges = differences.edges
    inflow = edges.pattern.sum_rows(edges.values[:, None] * gradient)
    assert_within(flow(now, x).detach(), -0.3 * (laplacian @ x) + 0.2 * inflow, 1e-12 * (1 + float(laplacian.values.abs().max())))
    moved = flow.on(cloud(3, 9))
    assert moved(now, torch.randn(9, 1, dtype=torch.float64)).shape == (9, 1)
    assert flow.float()(now.float(), x.float()).dtype == torch.float32


def test_the_points_learn_through_mesh_differences():
    points = cloud(2, 10, 2).points.requires_grad_()
    x = torch.randn(10, 1, dtype=torch.float64)
    alone = cloud(2, 8).points.requires_grad_()
    assert torch.autograd.gradcheck(lambda p: MeshDifference(PointCloud(p)).features(x[:8]), (alone,), fast_mode=True)
    MeshDifference(PointCloud(points)).features(x).square().sum().backward()
    assert points.grad is not None
    assert bool(torch.isfinite(points.grad).all())


def test_a_surface_has_gradients_in_space():
    mesh = MeshDifference(icosphere(2))
    vertices = icosphere(2).vertices
    slopes = mesh.node_gradient(vertices[:, 2:])
    # The gradient of z on the sphere is e_z without its normal part, up to the size of the triangles.
    expected = torch.tensor([0.0, 0.0, 1.0], dtype=torch.float64) - vertices[:, 2:] * vertices
    assert float((slopes[..., 0] - expected).abs().max()) < 0.05


def test_what_is_no_plane_is_refused():
    with pytest.raises(DomainError, match="mesh differences need a TriangleMesh or a PointCloud in a plane, not a Graph"):
        MeshDifference(Graph(torch.tensor([[0], [1]]), 2))
    with pytest.raises(DomainError, match="lie on a line"):
        MeshDifference(PointCloud(torch.tensor([[0.0, 0.0], [1.0, 0.0], [2.0, 0.0]])))
