"""Pieces of boundary add up to its length, and a potential is a diagonal."""

import math
import pickle

import pytest
import torch
from hypothesis import given

from neuralpde.testing import meshes
from operators import (
    Boundary,
    DomainError,
    Grid,
    TriangleMesh,
    combinatorial_laplacian,
    grid,
    grid_laplacian,
    icosphere,
    robust_laplacian,
)
from operators.boundary import boundary_edges, boundary_vertices
from operators.boundary_terms import boundary_measure, diagonal_operator, named_boundary, with_potential

SQUARE = grid(5, 4)


def test_a_rectangle_has_its_sides():
    whole = boundary_measure(SQUARE)
    low, high = SQUARE.vertices.min(0).values, SQUARE.vertices.max(0).values
    width, height = (high - low)[:2].tolist()
    assert float(whole.measure.sum()) == pytest.approx(2 * (width + height))
    left = boundary_measure(SQUARE, lambda p: p[:, 0] <= float(low[0]) + 1e-9)
    assert float(left.measure.sum()) == pytest.approx(height)
    assert torch.equal(whole.at, boundary_vertices(SQUARE))
    assert bool((whole.gap == 0).all())
    # Each piece belongs to an end of its edge.
    assert float((whole.points - SQUARE.vertices[whole.node]).norm(dim=1).max()) <= float(whole.size.max()) + 1e-12


@given(mesh=meshes(slivers=False))
def test_the_measure_is_half_of_the_edges_at_each_vertex(mesh):
    edges = boundary_edges(mesh)
    if not edges.numel():
        with pytest.raises(DomainError, match="no boundary"):
            boundary_measure(mesh)
        return
    expected = torch.zeros(mesh.num_nodes, dtype=mesh.vertices.dtype)
    for a, b in edges.T.tolist():
        half = (mesh.vertices[a] - mesh.vertices[b]).norm() / 2
        expected[a] += half
        expected[b] += half
    torch.testing.assert_close(boundary_measure(mesh).measure, expected)


def test_a_box_has_its_sides():
    box = Grid((4, 3, 5), (0.5, 1.0, 0.2), (Boundary.NEUMANN, Boundary.PERIODIC, Boundary.NEUMANN))
    b = boundary_measure(box)
    # Two sides across the first axis, of 3·1, and two across the last, of 2·3.
    assert float(b.measure.sum()) == pytest.approx(2 * 3.0 * 1.0 + 2 * 2.0 * 3.0, rel=1e-6)
    assert sorted(set(b.gap.tolist())) == pytest.approx([0.1, 0.25])
    ends = boundary_measure(Grid(7, 0.5), lambda p: p[:, 0] == 0)
    assert ends.node.tolist() == [0]
    assert ends.size.tolist() == [1.0]
    assert ends.points.tolist() == [[0.0]]
    with pytest.raises(DomainError, match="no boundary"):
        boundary_measure(Grid(7, 0.5, Boundary.PERIODIC))


def test_it_moves_is_cast_and_pickled():
    left = boundary_measure(SQUARE, _left)
    moved = left.on(grid(9, 7))
    assert float(moved.measure.sum()) == pytest.approx(float(boundary_measure(grid(9, 7), _left).measure.sum()))
    single = pickle.loads(pickle.dumps(left)).to(torch.float32)
    assert single.measure.dtype == torch.float32
    assert single.on(grid(9, 7)).measure.dtype == torch.float32
    density = torch.rand(3, left.node.numel(), 2, dtype=torch.float64)
    total = left.total(density)
    assert total.shape == (3, SQUARE.num_nodes, 2)
    torch.testing.assert_close(total.sum(-2), (density * left.size[:, None]).sum(-2))


def _left(p: torch.Tensor) -> torch.Tensor:
    return p[:, 0] == 0


def test_lengths_are_differentiable_in_the_vertices():
    def length(vertices):
        return boundary_measure(TriangleMesh(vertices, SQUARE.faces)).measure.square().sum()

    assert torch.autograd.gradcheck(length, SQUARE.vertices.clone().requires_grad_())


def test_named_nodes():
    L = combinatorial_laplacian(icosphere(0).graph())
    b = named_boundary(L, [3, 1], torch.tensor([2.0, 0.5]))
    assert b.measure.tolist() == [0, 0.5, 0, 2.0, *[0] * 8]
    mask = torch.zeros(12, dtype=torch.bool)
    mask[[1, 3]] = True
    assert named_boundary(L, mask).measure.tolist() == [0, 1, 0, 1, *[0] * 8]
    with pytest.raises(NotImplementedError, match="named_boundary"):
        b.on(icosphere(1).graph())


@pytest.mark.parametrize("nodes", [[], [12], [-1], [1, 1], [0.5], [[1]]])
def test_bad_names_are_refused(nodes):
    with pytest.raises(DomainError, match="nodes must"):
        named_boundary(combinatorial_laplacian(icosphere(0).graph()), nodes)


def test_bad_questions_are_refused():
    with pytest.raises(DomainError, match="named_boundary"):
        boundary_measure(icosphere(0).graph())
    with pytest.raises(DomainError, match="one bool for each piece"):
        boundary_measure(SQUARE, lambda p: p[:, 0])
    with pytest.raises(DomainError, match="takes no piece"):
        boundary_measure(SQUARE, lambda p: p[:, 0] > 100)
    L = combinatorial_laplacian(icosphere(0).graph())
    with pytest.raises(DomainError, match="finite and not negative"):
        named_boundary(L, [1], -1.0)
    with pytest.raises(DomainError, match="one for each of the 2"):
        named_boundary(L, [1, 2], torch.ones(3))
    with pytest.raises(DomainError, match="one real number a node"):
        with_potential(L, torch.ones(3))


def test_a_potential_is_added_to_the_diagonal():
    L = robust_laplacian(icosphere(1))
    v = torch.rand(42, 1, dtype=torch.float64)
    Q = with_potential(L, v)
    x = torch.randn(42, 2, dtype=torch.float64)
    torch.testing.assert_close(Q @ x, L @ x + v * x)
    torch.testing.assert_close(with_potential(L, torch.tensor(2.0)) @ x, L @ x + 2 * x)
    assert torch.equal(Q.mass, L.mass)
    assert not Q.kills_constants
    top = float(torch.linalg.eigvals(Q.matrix()).real.max())
    assert Q.norm_bound() >= top * (1 - 1e-12)
    torch.testing.assert_close(diagonal_operator(v[:, 0]) @ x, v * x)
    w = v.clone().requires_grad_()
    (slope,) = torch.autograd.grad((with_potential(L, w) @ x).square().sum(), w)
    torch.testing.assert_close(slope, (2 * (L @ x + v * x) * x).sum(1, keepdim=True))


def test_a_potential_shifts_the_spectrum_of_an_interval():
    g = Grid(16, math.pi / 16)
    Q = with_potential(grid_laplacian(g), torch.tensor(3.0))
    assert float(torch.linalg.eigvals(Q.matrix()).real.min()) == pytest.approx(3.0)
