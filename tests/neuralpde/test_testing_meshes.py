"""Meshes are as hard as asked and not harder, every hardness occurs, and they shrink to a triangle and what matters."""

from functools import cache

import numpy as np
import pytest
import torch
from drawing import drawn, least, shares
from hypothesis import given, settings

from neuralpde.testing_meshes import Hardness, _suits, damaged_meshes, hardness_of, meshes
from neuralpde.testing_surfaces import BASES
from operators import DomainError, TriangleMesh, clean_mesh, icosphere, report_mesh, robust_laplacian, torus

H = Hardness
# What no drawn mesh can have together, and what the plane does not hold.
CONTRADICTIONS = [(H.CLOSED, H.BOUNDARY), (H.HANDLE, H.NON_MANIFOLD), (H.HANDLE, H.NON_ORIENTABLE), (H.FLIPPED, H.NON_ORIENTABLE)]
NOT_PLANAR = {H.CLOSED, H.NON_ORIENTABLE, H.FLIPPED, H.HANDLE}


@cache
def sample():
    return drawn(meshes(), 150)


@cache
def share_of_each():
    return shares(sample(), hardness_of)


def test_meshes_are_valid_surfaces():
    for mesh in sample()[:40]:
        assert isinstance(mesh, TriangleMesh)
        assert set(mesh.faces.reshape(-1).tolist()) == set(range(mesh.num_nodes))
        assert bool((robust_laplacian(mesh).mass > 0).all())


@pytest.mark.parametrize("hardness", H)
def test_every_hardness_occurs_as_often_as_stated(hardness):
    often = hardness in {H.OBTUSE, H.BOUNDARY, H.NON_MANIFOLD, H.COMPONENTS, H.SCALED}
    assert share_of_each()[hardness] >= (1 / 5 if often else 1 / 20)
    if hardness is not H.BOUNDARY:
        assert share_of_each()[hardness] < 0.9, "and not nearly always"


def test_needles_reach_a_millionth():
    assert any(mesh.report().least_angle_degrees < 1e-4 for mesh in sample())


@pytest.mark.parametrize("hardness", H)
def test_hardness_can_be_demanded_and_excluded(hardness):
    assert all(hardness in hardness_of(mesh) for mesh in drawn(meshes(always=[hardness]), 8))
    assert not any(hardness in hardness_of(mesh) for mesh in drawn(meshes(never=[hardness]), 8))


def test_every_pair_of_wishes_but_one_has_a_base():
    def fulfilled(wanted, barred):
        return any(_suits(name, frozenset({wanted}), frozenset({barred}), False) for name in BASES)

    # Surfaces of positive genus without an obtuse angle exist, of more vertices.
    assert {(a, b) for a in H for b in H if a is not b and not fulfilled(a, b)} == {(H.HANDLE, H.OBTUSE)}
    with pytest.raises(ValueError, match="always HANDLE and never OBTUSE"):
        drawn(meshes(always=[H.HANDLE], never=[H.OBTUSE]), 1)


@pytest.mark.parametrize(("one", "other"), CONTRADICTIONS)
def test_contradictions_are_refused(one, other):
    with pytest.raises(ValueError, match=r"no mesh has always \w+, \w+ and never \(no wish\): ask for less"):
        drawn(meshes(always=[one, other]), 1)


def test_wishes_that_cannot_be_are_refused():
    with pytest.raises(ValueError, match="always CLOSED and never CLOSED"):
        drawn(meshes(always=[H.CLOSED], never=[H.CLOSED]), 1)
    with pytest.raises(ValueError, match="never BOUNDARY, CLOSED"):
        drawn(meshes(never=[H.CLOSED, H.BOUNDARY]), 1)
    with pytest.raises(ValueError, match="ask for float64"):
        drawn(meshes(always=[H.OFFSET], dtype=torch.float32), 1)
    for hardness in NOT_PLANAR:
        with pytest.raises(ValueError, match="no planar mesh"):
            drawn(meshes(always=[hardness], planar=True), 1)


def test_several_wishes_at_once():
    closed_manifolds = drawn(meshes(never=[H.BOUNDARY, H.NON_MANIFOLD]), 30)
    assert all(mesh.report().closed and mesh.report().manifold for mesh in closed_manifolds)
    assert {H.NON_ORIENTABLE, H.HANDLE, H.SLIVER, H.FLIPPED} <= set().union(*map(hardness_of, closed_manifolds))
    monsters = drawn(meshes(always=[H.CLOSED, H.NON_MANIFOLD, H.NON_ORIENTABLE, H.SLIVER, H.COMPONENTS, H.OFFSET, H.SCALED]), 5)
    assert all(len(hardness_of(mesh)) >= 7 for mesh in monsters)
    acute = drawn(meshes(always=[H.SLIVER], never=[H.OBTUSE]), 10)
    assert all(mesh.report().largest_angle_degrees < 90.001 for mesh in acute)


def test_planar_meshes_are_flat_and_reach_obtuse_triangles():
    seen = drawn(meshes(planar=True), 40)
    assert all(float(mesh.vertices[:, 2].max() - mesh.vertices[:, 2].min()) == 0 for mesh in seen)
    assert any(mesh.report().largest_angle_degrees > 120 for mesh in seen)
    assert not NOT_PLANAR & set().union(*map(hardness_of, seen))


def test_without_slivers_no_triangle_is_thin_and_float32_is_kept():
    for mesh in drawn(meshes(slivers=False, dtype=torch.float32), 30):
        assert mesh.vertices.dtype == torch.float32
        assert not {H.SLIVER, H.OFFSET, H.SCALED} & hardness_of(mesh)


def test_hardness_of_known_surfaces():
    assert hardness_of(icosphere(1)) == {H.CLOSED}
    assert {H.CLOSED, H.HANDLE} <= hardness_of(torus(8, 6))
    assert H.OBTUSE in hardness_of(TriangleMesh(torch.tensor([[0.0, 0, 0], [2, 0, 0], [1, 0.5, 0]]), torch.tensor([[0, 1, 2]])))


def test_any_mesh_shrinks_to_one_triangle():
    triangle = least(meshes(), lambda mesh: True)
    assert triangle.vertices.tolist() == [[0, 0, 0], [1, 0, 0], [0, 1, 0]]
    # With a wish, to the wish alone.
    assert least(meshes(always=[H.SLIVER]), lambda mesh: True).num_nodes == 4


# Vertices and faces of the minimal example.
MINIMAL = {
    "a needle of 1e-6": (lambda mesh: mesh.report().least_angle_degrees < 1e-3, 4, 3),
    "three vertices are not enough": (lambda mesh: mesh.num_nodes > 3, 4, 2),
    "closed": (lambda mesh: H.CLOSED in hardness_of(mesh), 4, 4),
    "two components": (lambda mesh: H.COMPONENTS in hardness_of(mesh), 6, 2),
    "far away": (lambda mesh: H.OFFSET in hardness_of(mesh), 3, 1),
}


@pytest.mark.parametrize("kind", MINIMAL)
def test_shrinking_leaves_what_matters(kind):
    predicate, vertices, faces = MINIMAL[kind]
    found = least(meshes(), predicate)
    assert (found.num_nodes, len(found.faces)) == (vertices, faces)


@settings(max_examples=30)
@given(case=damaged_meshes())
def test_damaged_arrays_are_refused_and_reported_and_cleaning_takes_the_damage_back(case):
    mesh, points, faces, added = case
    if any(added.values()):
        report = report_mesh(points, faces)
        assert report.problems
        # A split corner is a seam, which is a mesh; the rest is none.
        refused = added["repeat"] + added["flat"] + added["duplicate"] + added["stray"]
        if refused:
            with pytest.raises(DomainError, match=r"clean"):
                TriangleMesh(torch.from_numpy(points), torch.from_numpy(faces))
    clean = clean_mesh(points, faces)
    assert np.array_equal(clean.vertices, mesh.arrays[0])


def test_each_damage_is_drawn_and_shrinks_to_itself_on_one_triangle():
    kinds = shares(drawn(damaged_meshes(), 60), lambda case: [kind for kind, count in case[3].items() if count])
    assert min(kinds[kind] for kind in ("split", "repeat", "flat", "duplicate", "stray")) >= 0.1
    for kind in ("flat", "stray"):
        found = least(damaged_meshes(), lambda case, kind=kind: case[3][kind] > 0)
        assert sum(found[3].values()) == 1, "shrinking keeps the one damage that matters"
        assert found[0].num_nodes == 3
