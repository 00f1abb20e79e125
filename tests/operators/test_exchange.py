"""Meshes survive the way to PyVista and trimesh and back; what those hold besides triangles is taken apart or refused."""

import subprocess
import sys

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from neuralpde.testing import meshes
from operators import DomainError, DomainWarning, TriangleMesh, icosphere
from operators.exchange import fans

SQUARE = np.array([[0.0, 0, 0], [1, 0, 0], [1, 1, 0], [0, 1, 0]])


@pytest.fixture
def pyvista():
    return pytest.importorskip("pyvista", reason="needs the mesh extra")


@pytest.fixture
def trimesh():
    return pytest.importorskip("trimesh", reason="needs the mesh extra")


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_pyvista_and_back_to_the_last_bit(pyvista, dtype):
    @given(mesh=meshes(slivers=False, dtype=dtype))
    def there_and_back(mesh):
        back = TriangleMesh.from_pyvista(mesh.to_pyvista())
        assert back.vertices.dtype == dtype
        assert torch.equal(back.vertices, mesh.vertices)
        assert torch.equal(back.faces, mesh.faces)

    there_and_back()


def test_trimesh_and_back_to_the_last_bit(trimesh):
    @given(mesh=meshes(slivers=False))
    def there_and_back(mesh):
        back = TriangleMesh.from_trimesh(mesh.to_trimesh())
        assert torch.equal(back.vertices, mesh.vertices)
        assert torch.equal(back.faces, mesh.faces)

    there_and_back()


def test_measures_agree(pyvista, trimesh):
    mesh = icosphere(2)
    assert mesh.to_pyvista().area == pytest.approx(mesh.area)
    assert mesh.to_pyvista().volume == pytest.approx(mesh.report().volume)
    assert mesh.to_trimesh().volume == pytest.approx(mesh.report().volume)
    assert mesh.to_trimesh().euler_number == mesh.report().euler_characteristic


def test_their_arrays_are_taken_as_they_are(pyvista, trimesh):
    ball, surface = icosphere(0).to_trimesh(), icosphere(0).to_pyvista()
    for vertices, faces in ((ball.vertices, ball.faces), (surface.points, surface.regular_faces)):
        assert torch.equal(TriangleMesh(vertices, faces).vertices, icosphere(0).vertices)


def test_fields_become_point_data(pyvista):
    mesh = icosphere(0)
    u, v = torch.rand(12), torch.rand(12, 3, requires_grad=True)
    surface = mesh.to_pyvista(u=u, v=v)
    assert np.array_equal(surface.point_data["u"], u.numpy())
    assert np.array_equal(surface.point_data["v"], v.detach().numpy())
    assert np.array_equal(mesh.to_pyvista(w=u.numpy()).point_data["w"], u.numpy())
    surface.point_data["u"][:] = 7
    assert (u < 1).all()
    with pytest.raises(DomainError, match=r"w must have shape \(12,\) or \(12, c\), not \(11,\)"):
        mesh.to_pyvista(w=torch.rand(11))


def test_a_mesh_does_not_change_with_the_surface_it_came_from(pyvista, trimesh):
    for there, back in (
        (TriangleMesh.to_pyvista, TriangleMesh.from_pyvista),
        (TriangleMesh.to_trimesh, TriangleMesh.from_trimesh),
    ):
        mesh = icosphere(0)
        surface = there(mesh)
        copy = back(surface)
        (surface.points if hasattr(surface, "points") else surface.vertices)[:] = 0
        assert torch.equal(copy.vertices, icosphere(0).vertices)
        assert torch.equal(mesh.vertices, icosphere(0).vertices)


def test_polygons_become_fans_and_seams_are_welded_on_request(pyvista):
    box = pyvista.Box()
    mesh = TriangleMesh.from_pyvista(box, clean=True)
    assert (mesh.num_nodes, len(mesh.faces)) == (8, 12)
    assert mesh.report().volume == pytest.approx(8.0)
    mixed = pyvista.PolyData(SQUARE, faces=np.array([3, 0, 1, 2, 3, 0, 2, 3]), lines=np.array([2, 0, 1]))
    assert TriangleMesh.from_pyvista(mixed).faces.tolist() == [[0, 1, 2], [0, 2, 3]]
    torn = pyvista.PolyData(SQUARE[[0, 1, 2, 0, 2, 3]], faces=np.array([3, 0, 1, 2, 3, 3, 4, 5]))
    with pytest.warns(DomainWarning, match="2 vertices coincide"):
        TriangleMesh.from_pyvista(torn)
    assert TriangleMesh.from_pyvista(torn, clean=True).num_nodes == 4


def test_what_is_no_surface_of_triangles_is_refused(pyvista, trimesh):
    strip = pyvista.PolyData(SQUARE, strips=np.array([4, 0, 1, 3, 2]))
    for surface, match in (
        (pyvista.ImageData(dimensions=(2, 2, 2)), r"no PolyData: take its surface with \.extract_surface"),
        (strip, r"triangle strips: take them apart with \.triangulate"),
        (pyvista.PolyData(SQUARE), "faces are empty"),
    ):
        with pytest.raises(DomainError, match=match):
            TriangleMesh.from_pyvista(surface)
    assert len(TriangleMesh.from_pyvista(strip.triangulate()).faces) == 2
    with pytest.raises(DomainError, match=r"a Scene is no Trimesh: join a scene with \.to_geometry"):
        TriangleMesh.from_trimesh(trimesh.Scene())
    broken = trimesh.Trimesh(SQUARE, [[0, 1, 9]], process=False)
    with pytest.raises(DomainError, match="faces hold the index 9, but there are only 4 points"):
        TriangleMesh.from_trimesh(broken)


@pytest.mark.parametrize(("name", "convert"), [("pyvista", TriangleMesh.to_pyvista), ("trimesh", TriangleMesh.to_trimesh)])
def test_an_absent_library_is_named_with_its_extra(name, convert, monkeypatch):
    monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(ImportError, match=rf"{name} is not installed: pip install 'neuralpde-toolkit\[mesh\]'"):
        convert(icosphere(0))


@given(polygons=st.lists(st.lists(st.integers(0, 9), min_size=3, max_size=6), max_size=6))
def test_a_polygon_is_the_fan_of_its_first_corner(polygons):
    padded = np.array([value for polygon in polygons for value in (len(polygon), *polygon)], dtype=np.int64)
    expected = [[p[0], p[i], p[i + 1]] for p in polygons for i in range(1, len(p) - 1)]
    assert fans(padded).tolist() == expected
    if len(padded):
        with pytest.raises(DomainError, match="ends within polygon"):
            fans(padded[:-1])


@pytest.mark.parametrize("padded", [[2, 0, 1], [0], [-1, 3], [3, 0, 1, 2, 1, 5]])
def test_polygons_without_area_are_refused(padded):
    with pytest.raises(DomainError, match=r"polygon \d has -?\d corners: a face needs three"):
        fans(np.array(padded))


def test_nothing_optional_or_slow_is_imported_before_it_is_needed():
    spared = "{'pyvista', 'vtkmodules', 'trimesh', 'pyamg', 'torch_geometric', 'matplotlib', 'tyro'}"
    code = f"import sys, neuralpde; print(*{spared} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []
