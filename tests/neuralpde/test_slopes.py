"""|∇u|² at nodes, along edges, on faces: exact on linear functions, and the diffusion is the derivative of its energy."""

import pytest
import torch

from neuralpde.slopes import EdgeSlopes, FaceSlopes, NodeSlopes, as_slopes
from neuralpde.testing import assert_within, roundoff
from operators import (
    Boundary,
    DomainError,
    FieldError,
    Graph,
    Grid,
    TriangleMesh,
    bumpy,
    combinatorial_laplacian,
    cotangent_laplacian,
    grid,
    grid_laplacian,
    icosphere,
    robust_laplacian,
    torus,
)

GRID = Grid((6, 5), (0.3, 0.4), (Boundary.NEUMANN, Boundary.PERIODIC))
SURFACE = bumpy(icosphere(1), 0.2)
GRAPH = Graph(
    torch.tensor([[0, 1, 1, 2, 2, 3, 0, 3], [1, 0, 2, 1, 3, 2, 3, 0]]), 4, torch.tensor([1.0, 1, 2, 2, 0.5, 0.5, 3, 3]).double()
)


def kinds():
    return {
        "nodes of a grid": NodeSlopes(grid_laplacian(GRID)),
        "edges of a grid": EdgeSlopes(grid_laplacian(GRID)),
        "nodes of a surface": NodeSlopes(robust_laplacian(SURFACE)),
        "faces": FaceSlopes(SURFACE),
        "nodes of a graph": NodeSlopes(GRAPH),
        "edges of a graph": EdgeSlopes(GRAPH),
    }


KINDS = pytest.mark.parametrize("kind", kinds())


def noise(*shape, seed=0):
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


@KINDS
def test_slopes_weighed_by_their_measure_are_the_energy(kind):
    slopes = kinds()[kind]
    u = noise(2, slopes.base.shape[0], 3)
    squared = slopes.squared(u)
    assert squared.shape == (2, slopes.measure.numel())
    assert bool((squared >= 0).all())
    expected = slopes.base.inner(u, slopes.base @ u)
    assert_within((slopes.measure * squared).sum(-1), expected, 1e-13 * float(expected.max()))


@KINDS
def test_diffusion_is_the_operator_and_the_derivative_of_its_energy(kind):
    slopes = kinds()[kind]
    n, k = slopes.base.shape[0], slopes.measure.numel()
    u, g = noise(2, n, 3), noise(2, k, seed=1).abs()
    flow = slopes.diffuse(g, u)
    scale = float(flow.abs().max())
    assert_within(-(slopes.laplacian(g) @ u), flow, 1e-12 * scale)
    assert_within(slopes.diffuse(torch.ones_like(g), u), -(slopes.base @ u), 1e-12 * scale)
    v = u.clone().requires_grad_()
    (gradient,) = torch.autograd.grad((slopes.measure * g * slopes.squared(v)).sum() / 2, v)
    assert_within(gradient, -slopes.base.mass[:, None] * flow, 1e-12 * scale)
    assert float((slopes.base.mass[:, None] * flow).sum(-2).abs().max()) <= 1e-12 * scale


def test_slopes_of_linear_functions():
    x = GRID.points[:, 0]
    linear = (3 * x)[:, None]
    inside = (x > 0.4) & (x < 1.4)
    assert_within(NodeSlopes(grid_laplacian(GRID)).squared(linear)[inside], torch.tensor(9.0), 1e-12)
    edges = EdgeSlopes(grid_laplacian(GRID))
    assert_within(edges.squared(linear).sort().values[-25:], torch.tensor(9.0), 1e-12)
    plane = grid(5, 4)
    faces = FaceSlopes(plane)
    u = (3 * plane.vertices[:, 0] - 2 * plane.vertices[:, 1])[:, None]
    assert_within(faces.squared(u), torch.tensor(13.0), 1e-11)
    assert_within(faces.measure.sum(), torch.tensor(plane.area), 1e-12)
    # Channels add up.
    assert_within(faces.squared(torch.cat([u, 2 * u], dim=1)), torch.tensor(65.0), 1e-10)


def test_graph_slopes_are_weighted_differences():
    u = torch.tensor([[0.0], [1.0], [3.0], [7.0]], dtype=torch.float64)
    # Edges 01, 03, 12, 23 of weight 1, 3, 2, ½ and a node of unit mass.
    assert_within(EdgeSlopes(GRAPH).squared(u), torch.tensor([1.0, 147.0, 8.0, 8.0]), 1e-12)
    assert_within(NodeSlopes(GRAPH).squared(u), torch.tensor([148.0, 9.0, 16.0, 155.0]) / 2, 1e-12)


@KINDS
def test_precision_and_other_domains(kind):
    slopes = kinds()[kind]
    n, k = slopes.base.shape[0], slopes.measure.numel()
    u, g = noise(n, 2), noise(k, seed=1).abs()
    single = slopes.to(torch.float32)
    flow = single.diffuse(g.float(), u.float())
    assert flow.dtype == torch.float32
    assert single.squared(u.float()).dtype == torch.float32
    exact = kinds()[kind].diffuse(g, u)
    assert_within(flow.double(), exact, 256 * roundoff(torch.float32) * float(exact.abs().max()))
    other = {"grid": Grid((4, 3), 0.5), "surface": torus(9, 5), "faces": torus(9, 5), "graph": torus(4, 3).graph()}[
        kind.split()[-1]
    ]
    moved = kinds()[kind].on(other)
    assert type(moved) is type(slopes)
    assert moved.base.shape[0] == other.num_nodes
    v = noise(other.num_nodes, 1)
    ones = torch.ones_like(moved.measure)
    assert_within(moved.diffuse(ones, v), -(moved.base @ v), 1e-12 * float(moved.base.norm_bound()))


def test_where_weights_are_not_negative_it_averages():
    assert FaceSlopes(icosphere(1)).averages
    thin = TriangleMesh(torch.tensor([[0.0, 0], [4, 0], [2, 0.5], [2, -0.5]]).double(), torch.tensor([[0, 1, 2], [1, 0, 3]]))
    assert not FaceSlopes(thin).averages
    assert NodeSlopes(robust_laplacian(thin)).averages


def test_what_is_given_decides():
    laplacian = grid_laplacian(GRID)
    assert type(as_slopes(laplacian)) is NodeSlopes
    assert type(as_slopes(GRAPH)) is NodeSlopes
    assert type(as_slopes(SURFACE)) is FaceSlopes
    slopes = EdgeSlopes(laplacian)
    assert as_slopes(slopes) is slopes
    with pytest.raises(TypeError, match="nonlinear diffusion wants a Laplacian"):
        as_slopes(GRID)
    with pytest.raises(DomainError, match="negative"):
        as_slopes(cotangent_laplacian(bumpy(torus(9, 5), 0.3)))
    with pytest.raises(DomainError, match="do not sum to zero"):
        as_slopes(grid_laplacian(Grid(5, 1.0, Boundary.DIRICHLET)))
    with pytest.raises(FieldError):
        slopes.squared(noise(7, 1))
    with pytest.raises(NotImplementedError):
        NodeSlopes(combinatorial_laplacian(GRAPH).to_wide(noise(4, 1).float())).on(GRAPH)
