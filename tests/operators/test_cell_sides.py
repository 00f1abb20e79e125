"""Sides between cells: exact for linear velocities, closed where they should be, free of divergence for stream functions."""

import copy
import pickle

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from neuralpde.testing import Hardness, aspect, assert_within, fields, meshes, roundoff
from operators import (
    Boundary,
    DomainError,
    FieldError,
    Graph,
    Grid,
    PointCloud,
    TriangleMesh,
    grid,
    icosphere,
    lumped_mass,
    torus,
)
from operators.cell_sides import cell_sides

U = roundoff(torch.float64)
PERIODIC, NEUMANN, DIRICHLET = Boundary.PERIODIC, Boundary.NEUMANN, Boundary.DIRICHLET


def square():
    """A square [0, 1]² of 5 × 5 vertices, in the plane."""
    mesh = grid(5, 5)
    return TriangleMesh(mesh.vertices[:, :2], mesh.faces)


def inside(mesh):
    points = mesh.vertices
    return ((points[:, :2] > 1e-9) & (points[:, :2] < 1 - 1e-9)).all(1)


def test_a_linear_velocity_in_the_plane_has_its_exact_divergence_inside():
    mesh = square()
    x, y = mesh.vertices.T
    sides = cell_sides(mesh)
    b = torch.stack([1 + 2 * x - y, 0.5 - 3 * x + 0.75 * y], dim=1)
    divergence = sides.divergence(sides.flows(b))[inside(mesh)]
    # 8 sides a cell, each of a few sums, over a cell of area 1/16.
    assert_within(divergence, 2.75, 16 * 8 * U * 4 / 0.25)


def test_open_boundaries_make_the_divergence_of_a_linear_velocity_exact_there_too():
    mesh = square()
    x, y = mesh.vertices.T
    sides = cell_sides(mesh, open_boundary=True)
    flows = sides.flows(torch.stack([1 + 2 * x - y, 0.5 - 3 * x + 0.75 * y], dim=1))
    assert sides.exits.numel() == 2 * 16
    # The theorem of Gauss on every cell, boundary cells included.
    assert_within(sides.divergence(flows), 2.75, 16 * 8 * U * 4 / 0.25 * 6)
    assert float(flows[sides.edges.shape[1] :].sum()) == pytest.approx(2.75, rel=1e-13)


def test_velocities_of_faces_and_of_vertices_agree_where_constant():
    mesh = square()
    sides = cell_sides(mesh)
    b = torch.tensor([[0.3, -1.2]], dtype=torch.float64)
    of_vertices = sides.flows(b.expand(25, 2))
    assert_within(sides.flows(b.expand(len(mesh.faces), 2)), of_vertices, 32 * U)
    assert_within(sides.flows(b[0]), of_vertices, 32 * U)
    with pytest.raises(FieldError, match="open boundary"):
        cell_sides(mesh, open_boundary=True).flows(b.expand(len(mesh.faces), 2))


@given(data=st.data())
def test_flows_leave_one_cell_and_enter_another_on_any_surface(data):
    mesh = data.draw(meshes())
    sides = cell_sides(mesh)
    b = data.draw(fields(mesh.num_nodes, mesh.vertices.shape[1]))
    flows = sides.flows(b)
    total = (sides.mass * sides.divergence(flows)).sum()
    assert_within(total, 0.0, 8 * U * float(2 * flows.abs().sum()) + 1e-300)
    assert torch.equal(sides.mass, lumped_mass(mesh))


@given(data=st.data())
def test_the_orientation_of_faces_does_not_matter_to_flows(data):
    mesh = data.draw(meshes())
    turned = TriangleMesh(mesh.vertices, mesh.faces[:, [0, 2, 1]])
    b = data.draw(fields(mesh.num_nodes, 3, exact=True))
    size = float(b.abs().max()) * float((mesh.vertices - mesh.vertices.mean(0)).abs().max()) * 64
    assert_within(cell_sides(turned).flows(b), cell_sides(mesh).flows(b), 64 * U * aspect(mesh) * size)


@given(data=st.data())
def test_stream_functions_give_flows_without_divergence(data):
    mesh = data.draw(meshes(never=[Hardness.BOUNDARY, Hardness.NON_MANIFOLD, Hardness.NON_ORIENTABLE, Hardness.FLIPPED]))
    psi = data.draw(fields(mesh.num_nodes, 1))
    sides = cell_sides(mesh)
    flows = sides.stream(psi)
    degree = int(torch.bincount(sides.edges.flatten()).max())
    assert_within(sides.divergence(flows) * sides.mass, 0.0, 8 * degree * U * float(psi.abs().max()))
    assert sides.solenoidal(flows)


def test_a_stream_function_turns_the_way_it_says():
    mesh = icosphere(3)
    sides, p = cell_sides(mesh), mesh.vertices
    wind = torch.stack([-p[:, 1], p[:, 0], 0 * p[:, 2]], dim=1)
    stream, velocity = sides.stream(-p[:, 2]), sides.flows(wind)
    # Second order in the edge length, 0.15.
    assert float((stream - velocity).norm() / velocity.norm()) < 0.15**2
    box = Grid((16, 12), (0.5, 0.25), PERIODIC)
    psi = torch.sin(2 * torch.pi * box.points[:, 0] / 8) * torch.cos(2 * torch.pi * box.points[:, 1] / 3)
    b = torch.stack(
        [
            2 * torch.pi / 3 * torch.sin(2 * torch.pi * box.points[:, 0] / 8) * torch.sin(2 * torch.pi * box.points[:, 1] / 3),
            2 * torch.pi / 8 * torch.cos(2 * torch.pi * box.points[:, 0] / 8) * torch.cos(2 * torch.pi * box.points[:, 1] / 3),
        ],
        dim=1,
    )
    of_grid = cell_sides(box)
    assert float((of_grid.stream(psi) - of_grid.flows(b)).norm() / of_grid.flows(b).norm()) < 0.05


@pytest.mark.parametrize("ends", [(PERIODIC, PERIODIC), (NEUMANN, NEUMANN), (PERIODIC, NEUMANN), (NEUMANN, PERIODIC)])
@pytest.mark.parametrize("shape", [(4, 5), (2, 3), (1, 4), (3, 1)])
def test_stream_functions_on_grids_are_free_of_divergence(ends, shape):
    sides = cell_sides(Grid(shape, (0.5, 0.25), ends))
    psi = torch.randn(sides.mass.numel(), generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    flows = sides.stream(psi)
    assert flows.shape == (sides.count,)
    assert_within(sides.divergence(flows) * sides.mass, 0.0, 16 * U * float(psi.abs().max()))


def test_grids_have_the_sides_of_their_boxes():
    line = cell_sides(Grid(4, 0.5, PERIODIC))
    assert line.edges.tolist() == [[0, 1, 2, 3], [1, 2, 3, 0]]
    assert line.flows(torch.tensor(2.0, dtype=torch.float64)).tolist() == [2.0] * 4
    walls = cell_sides(Grid(3, 0.5, DIRICHLET))
    assert walls.exits.tolist() == [0, 2]
    assert walls.flows(torch.tensor([[2.0]], dtype=torch.float64)).tolist() == [2.0, 2.0, -2.0, 2.0]
    box = cell_sides(Grid((2, 3), (0.5, 0.25), NEUMANN))
    flows = box.flows(torch.tensor([[1.0, 10.0]], dtype=torch.float64))
    # Sides across the first axis are 0.25 long, across the second 0.5.
    assert flows.tolist() == [0.25] * 3 + [5.0] * 4
    x = torch.arange(6, dtype=torch.float64)
    assert box.flows(torch.stack([x, 0 * x], dim=1))[:3].tolist() == [1.5 * 0.25, 2.5 * 0.25, 3.5 * 0.25]


def test_graphs_take_flows_as_their_edges_are_named():
    sides = cell_sides(Graph(torch.tensor([[0, 1, 2], [1, 2, 0]]), 4, torch.ones(3, dtype=torch.float64)))
    assert sides.divergence(torch.tensor([1.0, 3.0, 1.0], dtype=torch.float64)).tolist() == [0.0, 2.0, -2.0, 0.0]
    with pytest.raises(FieldError, match=r"flows of shape \(3,\)"):
        sides.flows(torch.ones(4, 2, dtype=torch.float64))
    with pytest.raises(DomainError, match="cycles"):
        sides.stream(torch.ones(4, dtype=torch.float64))


def test_what_cannot_be_is_refused_with_the_cure():
    with pytest.raises(DomainError, match="triangulated"):
        cell_sides(PointCloud(torch.rand(5, 2)))
    with pytest.raises(DomainError, match="DIRICHLET"):
        cell_sides(Grid(4), open_boundary=True)
    with pytest.raises(FieldError, match=r"vectors of shape \(25, 2\) or \(1, 2\) or \(32, 2\)"):
        cell_sides(square()).flows(torch.ones(24, 2, dtype=torch.float64))
    with pytest.raises(FieldError, match="constant on every boundary loop"):
        cell_sides(square()).stream(square().vertices[:, 0])
    with pytest.raises(FieldError, match="one value a node"):
        cell_sides(square()).stream(torch.ones(3, dtype=torch.float64))
    faces = icosphere(0).faces.clone()
    faces[0] = faces[0].flip(0)
    with pytest.raises(DomainError, match=r"mesh.clean\(\)"):
        cell_sides(TriangleMesh(icosphere(0).vertices, faces)).stream(torch.ones(12, dtype=torch.float64))
    with pytest.raises(DomainError, match="two axes"):
        cell_sides(Grid((3, 3), 1.0, DIRICHLET)).stream(torch.ones(9, dtype=torch.float64))


def test_a_constant_stream_function_on_the_rim_stays_within_the_square():
    mesh = square()
    psi = torch.where(inside(mesh), torch.rand(25, dtype=torch.float64), 0.5)
    sides = cell_sides(mesh)
    assert_within(sides.divergence(sides.stream(psi)) * sides.mass, 0.0, 64 * U)
    free = cell_sides(mesh, open_boundary=True)
    varied = torch.rand(25, dtype=torch.float64)
    assert_within(free.divergence(free.stream(varied)) * free.mass, 0.0, 64 * U)


def test_batches_copies_and_other_domains():
    mesh = torus(6, 5)
    sides = cell_sides(mesh)
    b = torch.randn(3, 30, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    assert torch.equal(sides.flows(b)[1], sides.flows(b[1]))
    assert torch.equal(sides.stream(b[..., 0])[2], sides.stream(b[2, :, 0]))
    assert torch.equal(sides.divergence(sides.flows(b))[0], sides.divergence(sides.flows(b[0])))
    for twin in (copy.deepcopy(sides), pickle.loads(pickle.dumps(sides))):
        assert torch.equal(twin.flows(b), sides.flows(b))
    assert sides.on(icosphere(0)).mass.numel() == 12
    single = copy.deepcopy(sides).to(torch.float32)
    assert single.on(mesh).flows(b.float()).dtype == torch.float32
    assert_within(single.flows(b.float()), sides.flows(b), 64 * roundoff(torch.float32) * float(b.abs().max()))


def test_flows_have_gradients_in_the_velocity():
    sides = cell_sides(square(), open_boundary=True)
    b = torch.randn(25, 2, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda v: sides.divergence(sides.flows(v)), b)
    closed = cell_sides(icosphere(0))
    assert torch.autograd.gradcheck(closed.stream, torch.randn(12, dtype=torch.float64, requires_grad=True))


def test_divergences_have_gradients_in_the_vertices_of_the_mesh():
    flat = square()
    b = torch.randn(25, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))

    def divergence(vertices):
        sides = cell_sides(TriangleMesh(vertices, flat.faces))
        return sides.divergence(sides.flows(b))

    assert torch.autograd.gradcheck(divergence, flat.vertices.clone().requires_grad_())


def test_nothing_of_the_sides_is_saved_in_a_checkpoint():
    assert cell_sides(icosphere(1)).state_dict() == {}
