"""Motions are groups that act on domains and fields together, and flows commute with those they declare."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from neuralpde.heat import Heat
from neuralpde.rhs import RightHandSide
from neuralpde.symmetry import Permutation, RigidMotion
from neuralpde.testing import assert_within, graphs, meshes
from operators import (
    DomainError,
    Grid,
    PointCloud,
    TriangleMesh,
    bumpy,
    combinatorial_laplacian,
    cotangent_laplacian,
    grid,
    icosphere,
    robust_laplacian,
)

NOW = torch.tensor(0.0, dtype=torch.float64)
MESH = bumpy(icosphere(0), 0.2)


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def noise(*shape):
    return torch.randn(*shape, dtype=torch.float64, generator=generator(7))


@given(graph=graphs(weights=("ones", "dyadic")), seed=st.integers(0, 5))
def test_a_laplacian_of_a_renumbered_graph_is_the_renumbered_laplacian(graph, seed):
    symmetry, n = Permutation(), graph.nodes
    p = symmetry.draw(graph, generator(seed))
    there = combinatorial_laplacian(symmetry.domain(p, graph))
    x = noise(2, n, 3)
    here = symmetry.field(p, combinatorial_laplacian(graph) @ x)
    assert_within(there @ symmetry.field(p, x), here, 1e-13 * (1 + float(there.norm_bound())) * 10)


@given(mesh=meshes(slivers=False), seed=st.integers(0, 5))
def test_renumbering_a_mesh_keeps_its_shape(mesh, seed):
    symmetry = Permutation()
    p = symmetry.draw(mesh, generator(seed))
    there = symmetry.domain(p, mesh)
    assert torch.equal(there.vertices, symmetry.field(p, mesh.vertices))
    # Every face has the corners that it had.
    assert torch.equal(there.vertices[there.faces], mesh.vertices[mesh.faces])


def test_renumbering_is_a_group():
    symmetry = Permutation()
    p, q = (symmetry.draw(MESH, generator(k)) for k in (0, 1))
    both = symmetry.domain(q, symmetry.domain(p, MESH))
    once = symmetry.domain(p[q], MESH)
    assert torch.equal(both.vertices, once.vertices)
    assert torch.equal(both.faces, once.faces)
    back = torch.argsort(p)
    assert torch.equal(symmetry.domain(back, symmetry.domain(p, MESH)).faces, MESH.faces)
    x = noise(12, 2)
    assert torch.equal(symmetry.field(back, symmetry.field(p, x)), x)
    assert torch.equal(symmetry.field(p, (x, 2 * x))[1], 2 * symmetry.field(p, x))
    cloud = PointCloud(MESH.vertices)
    assert torch.equal(symmetry.domain(p, cloud).points, MESH.vertices[p])


@pytest.mark.parametrize("reflections", [False, True])
def test_rigid_motion_keeps_distances_and_handedness(reflections):
    symmetry, signs = RigidMotion(reflections=reflections), set()
    for seed in range(12):
        rotation, shift = symmetry.draw(MESH, generator(seed))
        assert_within(rotation @ rotation.T, torch.eye(3, dtype=torch.float64), 1e-14)
        signs.add(round(float(torch.linalg.det(rotation))))
        there = symmetry.domain((rotation, shift), MESH)
        assert_within(torch.cdist(there.vertices, there.vertices), torch.cdist(MESH.vertices, MESH.vertices), 1e-7)
        assert there.area == pytest.approx(MESH.area)
    assert signs == ({-1, 1} if reflections else {1})


def test_scalars_stay_and_vectors_turn():
    symmetry = RigidMotion(vectors=(1,))
    motion = symmetry.draw(MESH, generator())
    u, v = noise(12, 2), noise(4, 12, 3)
    moved_u, moved_v = symmetry.field(motion, (u, v))
    assert moved_u is u
    assert_within(moved_v, torch.einsum("ij,bnj->bni", motion[0], v), 1e-14)
    assert_within(moved_v.norm(dim=-1), v.norm(dim=-1), 1e-14)
    # A vector along an edge is one along the moved edge: shifts do not act on vectors.
    edge = MESH.vertices[1] - MESH.vertices[0]
    there = symmetry.domain(motion, MESH).vertices
    assert_within(RigidMotion(vectors=(0,)).field(motion, edge[None]), (there[1] - there[0])[None], 1e-13)
    plane = TriangleMesh(grid(3, 3).vertices[:, :2], grid(3, 3).faces)
    rotation, shift = symmetry.draw(plane, generator())
    assert rotation.shape == (2, 2)
    assert symmetry.domain((rotation, shift), plane).vertices.shape == (9, 2)
    assert symmetry.domain(symmetry.draw(PointCloud(u), generator()), PointCloud(u)).points.shape == (12, 2)
    # The precision of the domain is kept.
    assert symmetry.domain(motion, MESH.to(torch.float32)).vertices.dtype == torch.float32


class Uneven(RightHandSide):
    """Not the same everywhere: it knows the first coordinate of its first mesh."""

    def __init__(self, mesh: TriangleMesh) -> None:
        super().__init__()
        self.laplacian = cotangent_laplacian(mesh)
        self.height = mesh.vertices[:, :1]

    def forward(self, t, x):
        return self.height * x - self.laplacian @ x


@pytest.mark.parametrize("build", [cotangent_laplacian, robust_laplacian])
@pytest.mark.parametrize("symmetry", [Permutation(), RigidMotion(reflections=True)])
def test_heat_commutes_and_what_knows_where_it_is_does_not(build, symmetry):
    motion, u = symmetry.draw(MESH, generator()), noise(12, 2)
    there = symmetry.domain(motion, MESH)
    heat = Heat(build(MESH))
    here = symmetry.field(motion, heat(NOW, u))
    assert_within(heat.on(there)(NOW, symmetry.field(motion, u)), here, 1e-12 * float(here.abs().max()))
    if isinstance(symmetry, Permutation):
        f = Uneven(MESH)
        moved = f.on(there)(NOW, symmetry.field(motion, u))
        assert float((moved - symmetry.field(motion, f(NOW, u))).abs().max()) > 0.1


def test_symmetries_are_values():
    assert Permutation() == Permutation()
    assert RigidMotion((0,)) == RigidMotion((0,))
    assert RigidMotion((0,)) != RigidMotion()
    assert len({Permutation(), Permutation(), RigidMotion()}) == 2


def test_refusals():
    with pytest.raises(DomainError, match="a Grid cannot be renumbered"):
        Permutation().domain(torch.arange(4), Grid((2, 2)))
    for domain in (Grid((2, 2)), MESH.graph()):
        with pytest.raises(DomainError, match=f"a {type(domain).__name__} has no positions to move"):
            RigidMotion().draw(domain, generator())
    for bad in (torch.arange(11), torch.zeros(12, dtype=torch.int64)):
        with pytest.raises(ValueError, match="a permutation of 12 nodes holds each of 0 … 11 once"):
            Permutation().domain(bad, MESH)


def test_a_motion_turns_and_then_moves_by_some_sizes_of_the_cloud():
    cloud = PointCloud(1e3 * torch.randn(20, 3, dtype=torch.float64))
    R, s = motion = RigidMotion().draw(cloud, torch.Generator().manual_seed(5))
    torch.testing.assert_close(RigidMotion().domain(motion, cloud).points, cloud.points @ R.T + s)
    assert s.dtype == torch.float64
    again = RigidMotion().draw(cloud, torch.Generator().manual_seed(5))
    assert all(map(torch.equal, motion, again))
    tenth = PointCloud(cloud.points / 10)
    torch.testing.assert_close(RigidMotion().draw(tenth, torch.Generator().manual_seed(5))[1], s / 10)
