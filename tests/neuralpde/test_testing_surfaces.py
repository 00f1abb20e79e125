"""The base surfaces are what their names say, and each edit does what it says and no more."""

import numpy as np
import pytest
import torch

from neuralpde.testing_surfaces import (
    BASES,
    PLANAR,
    Copy,
    Detach,
    Flip,
    Move,
    Pinch,
    Remove,
    Sliver,
    Squeeze,
    Subdivide,
    beside,
    usable,
)
from operators import TriangleMesh
from operators.report import report_mesh


def base(name):
    points, faces = BASES[name]
    return np.array(points, dtype=np.float64), np.array(faces)


@pytest.mark.parametrize("name", BASES)
def test_bases_are_valid_and_dyadic(name):
    points, faces = base(name)
    TriangleMesh(torch.from_numpy(points), torch.from_numpy(faces))
    assert usable(points, faces, 1e-2, name in PLANAR)
    assert np.array_equal(points * 16, np.round(points * 16))


def test_bases_have_the_topology_of_their_names():
    reports = {name: report_mesh(*base(name)) for name in BASES}
    assert {name for name, r in reports.items() if r.closed} == {
        *("tetrahedron", "two tetrahedra at one edge", "torus", "projective plane"),
    }
    assert {name for name, r in reports.items() if not r.orientable} == {
        *("Möbius band", "Möbius band without an obtuse angle", "projective plane"),
    }
    euler = {"tetrahedron": 2, "torus": 0, "projective plane": 1, "Möbius band": 0, "fan": 1}
    assert {name: reports[name].euler_characteristic for name in euler} == euler
    assert reports["Möbius band without an obtuse angle"].largest_angle_degrees < 90
    assert reports["projective plane"].largest_angle_degrees < 90
    assert reports["bow-tie"].non_manifold_vertices == 1
    assert reports["five faces at one edge"].non_manifold_edges == 1


EDITS = [
    Subdivide(1),
    Move(2, (0.125, 0.25, 0)),
    Sliver(1, 1e-3),
    Flip(1),
    Detach(0),
    Remove(0),
    Copy(4),
    Pinch(False),
    Squeeze(0.5),
]


@pytest.mark.parametrize("edit", EDITS, ids=lambda edit: type(edit).__name__)
def test_edits_leave_their_input_alone(edit):
    surface = base("fan")
    kept = [array.copy() for array in surface]
    edit(*surface)
    assert all(map(np.array_equal, surface, kept))


def test_what_the_edits_do():
    fan, tetrahedron = base("fan"), base("tetrahedron")
    area = report_mesh(*fan).area
    for inserting in (Subdivide(1), Sliver(1, 1e-3)):
        points, faces = inserting(*fan)
        assert (len(points), len(faces)) == (7, 7)
        assert report_mesh(points, faces).area == pytest.approx(area)
    assert report_mesh(*Sliver(0, 1e-3)(*tetrahedron)).least_angle_degrees < 0.2
    assert report_mesh(*Subdivide(0)(*tetrahedron)).largest_angle_degrees >= 120
    assert not report_mesh(*Flip(0)(*fan)).consistently_oriented
    assert report_mesh(*Detach(0)(*fan)).components == 2
    assert Detach(0)(*base("triangle"))[1].tolist() == [[0, 1, 2]], "the last face stays"
    assert report_mesh(*Remove(0)(*tetrahedron)).boundary_edges == 3
    assert report_mesh(*Copy(4)(*fan)).components == 2
    assert report_mesh(*beside(fan, tetrahedron, 10)).faces == 9
    assert report_mesh(*Squeeze(1e-3)(*base("square"))).largest_angle_degrees == 90
    assert report_mesh(*Pinch(False)(*fan)).non_manifold_vertices == 1
    pinched = report_mesh(*Pinch(True)(*tetrahedron))
    assert pinched.closed
    assert pinched.consistently_oriented
    assert pinched.non_manifold_vertices == 1


def test_coincident_vertices_flat_triangles_and_upside_down_ones_are_not_usable():
    points, faces = base("square")
    assert usable(points, faces, 1e-2, True)
    assert not usable(points[[0, 1, 1, 3]], faces, 1e-2, True)
    # A needle on a needle, whose tip an offset would round to the next vertex.
    near = np.concatenate([points, points[2:3] + 1e-12, [[5, 5, 5]]]), np.concatenate([faces, [[0, 4, 5]]])
    assert not usable(*near, 1e-6, False)
    assert not usable(*Squeeze(1e-3)(points, faces), 1e-2, True)
    assert usable(*Squeeze(1e-3)(points, faces), 1e-6, True)
    assert usable(*Flip(0)(points, faces), 1e-2, False)
    assert not usable(*Flip(0)(points, faces), 1e-2, True)
