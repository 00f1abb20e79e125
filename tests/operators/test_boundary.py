"""The boundary is what one face alone has, walked in the direction of the faces."""

import pytest
import torch

from operators import TriangleMesh, grid, icosphere, torus
from operators.boundary import boundary_edges, boundary_loops, boundary_vertices

SQUARE = torch.tensor([[0.0, 0], [1, 0], [1, 1], [0, 1]], dtype=torch.float64)


@pytest.mark.parametrize(("mesh", "lengths"), [(grid(4, 3), [10]), (icosphere(1), []), (torus(5, 4), [])])
def test_loops_of_known_surfaces(mesh, lengths):
    assert [len(loop.vertices) for loop in boundary_loops(mesh)] == lengths


def test_loops_run_as_the_faces_do_with_the_surface_on_the_left():
    mesh = TriangleMesh(SQUARE, torch.tensor([[0, 1, 2], [0, 2, 3]]))
    (loop,) = boundary_loops(mesh)
    assert loop.closed
    ring = loop.vertices.tolist()
    start = ring.index(0)
    assert ring[start:] + ring[:start] == [0, 1, 2, 3]
    assert sorted(map(tuple, boundary_edges(mesh).T.tolist())) == [(0, 1), (1, 2), (2, 3), (3, 0)]
    assert boundary_vertices(mesh).tolist() == [0, 1, 2, 3]


def test_two_loops_that_touch_in_a_vertex_stay_two():
    points = torch.tensor([[0.0, 0, 0], [1, 0, 0], [1, 1, 0], [-1, 0, 0], [-1, -1, 0]])
    bow_tie = TriangleMesh(points, torch.tensor([[0, 1, 2], [0, 3, 4]]))
    loops = boundary_loops(bow_tie)
    assert sorted(sorted(loop.vertices.tolist()) for loop in loops) == [[0, 1, 2], [0, 3, 4]]


def test_boundary_of_a_real_mesh_is_that_of_its_edges(real_mesh):
    loops = boundary_loops(real_mesh)
    assert sum(len(loop.vertices) - (not loop.closed) for loop in loops) == boundary_edges(real_mesh).shape[1]
    assert set(boundary_vertices(real_mesh).tolist()) == {v for loop in loops for v in loop.vertices.tolist()}
