"""Refinement keeps the surface and reproduces what it should; coarsening gives valid meshes; both carry fields."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from neuralpde.testing import meshes, roundoff
from operators import DomainError, DomainWarning, TriangleMesh, grid, icosphere, robust_laplacian
from operators.refine import cluster_vertices, decimate, subdivide

U = roundoff(torch.float64)


def linear(mesh):
    """A linear function of the place, around the centre, so that no digits cancel."""
    points = torch.from_numpy(mesh.arrays[0])
    return (points - points[0]) @ torch.tensor([[1.0], [-2], [0.5]], dtype=torch.float64)


@given(mesh=meshes(), times=st.integers(0, 2))
def test_midpoints_keep_the_area_the_topology_and_linear_functions(mesh, times):
    fine = subdivide(mesh, times)
    before, after = mesh.report(), fine.mesh.report()
    assert len(fine.mesh.faces) == 4**times * len(mesh.faces)
    assert torch.equal(fine.mesh.vertices[: mesh.num_nodes], mesh.vertices)
    kept = ["components", "euler_characteristic", "orientable", "consistently_oriented", "non_manifold_vertices"]
    # Where three faces meet at an edge, it is a matter of taste which boundary edges follow which.
    kept += ["boundary_loops"] if before.non_manifold_edges == 0 else []
    assert [getattr(after, name) for name in kept] == [getattr(before, name) for name in kept]
    assert after.boundary_edges == 2**times * before.boundary_edges
    assert after.non_manifold_edges == 2**times * before.non_manifold_edges
    reach = float(mesh.vertices.abs().max())
    assert after.area == pytest.approx(before.area, rel=1e-12, abs=64 * U * reach * before.extent * len(fine.mesh.faces))
    x = linear(mesh)
    assert (fine.prolongation @ x - linear(fine.mesh)).abs().max() <= 16 * U * reach * 4


@given(mesh=meshes(), smooth=st.booleans())
def test_prolongation_reproduces_constants_and_stays_between_the_values_it_joins(mesh, smooth):
    P = subdivide(mesh, 2, smooth=smooth).prolongation
    sums = P.row_sums()
    assert ((sums - 1).abs() <= 32 * U).all()
    assert (P.values >= 0).all()
    assert P.shape[1] == mesh.num_nodes


def test_loop_weights_of_a_regular_vertex_and_edge():
    """On a large triangular lattice with six neighbours: Loop (1987), figures 7 and 8."""
    mesh = grid(5, 5)
    P = torch.from_numpy(subdivide(mesh, 1, smooth=True).prolongation.to_scipy().toarray())
    centre = 12
    assert P[centre, centre] == pytest.approx(5 / 8)
    assert sorted(P[centre][P[centre] > 0].tolist()) == pytest.approx([1 / 16] * 6 + [5 / 8])
    edge = mesh.num_nodes + mesh.edges.T.tolist().index([12, 17])
    assert sorted(P[edge][P[edge] > 0].tolist()) == pytest.approx([1 / 8, 1 / 8, 3 / 8, 3 / 8])
    # Boundary: ⅛ ¾ ⅛, and ½ ½ in the middle of an edge, whatever the surface does.
    assert sorted(P[2][P[2] > 0].tolist()) == pytest.approx([1 / 8, 1 / 8, 3 / 4])


def test_loop_subdivision_reproduces_linear_functions_inside_a_lattice_and_rounds_an_icosahedron():
    mesh = grid(7, 7)
    P = subdivide(mesh, 1, smooth=True)
    inner = (P.mesh.vertices[:, :2] - 0.5).abs().amax(1) < 0.3
    middle = subdivide(mesh, 1).mesh.vertices
    assert (P.mesh.vertices - middle)[inner].abs().max() < 1e-15
    spread = [subdivide(icosphere(0), 3, smooth=s).mesh.vertices.norm(dim=1) for s in (False, True)]
    assert spread[1].std() / spread[1].mean() < 0.2 * spread[0].std() / spread[0].mean()


def test_vertices_have_gradients_through_subdivision():
    vertices = icosphere(0).vertices.requires_grad_()
    fine = subdivide(TriangleMesh(vertices, icosphere(0).faces), 1).mesh
    (slope,) = torch.autograd.grad(fine.vertices.sum(), vertices)
    # Half of each of five edges, and itself.
    assert torch.equal(slope, torch.full_like(slope, 3.5))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_dtype_dimension_and_seams_are_kept(dtype):
    square = torch.tensor([[0.0, 0], [1, 0], [1, 1], [0, 1], [0, 0]], dtype=dtype)
    with pytest.warns(DomainWarning, match="coincide"):
        seam = TriangleMesh(square, torch.tensor([[0, 1, 2], [4, 2, 3]]))
    fine = subdivide(seam)  # without a second warning
    assert fine.mesh.vertices.dtype == fine.prolongation.dtype == dtype
    assert fine.mesh.vertices.shape[1] == 2


@pytest.mark.parametrize("times", [-1, 1.0, True, 16, 12, 10**9])
def test_subdivision_beyond_reason_is_refused(times):
    with pytest.raises(DomainError, match=r"times must be an integer from 0|are more than 50000000: subdivide fewer times"):
        subdivide(icosphere(1), times)


# Coarsening -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("target", [20, 100, 500, 1280])
def test_clustering_reaches_at_most_the_target_and_keeps_the_shape(target):
    mesh = icosphere(3)
    coarse = decimate(mesh, target)
    assert 0.2 * target <= len(coarse.mesh.faces) <= target
    size = math.sqrt(target / 1280)
    assert coarse.mesh.area == pytest.approx(mesh.area, rel=0.6 if target < 100 else 0.2)
    x = mesh.vertices[:, :1]
    there = coarse.restriction @ x
    assert (there - coarse.mesh.vertices[:, :1]).abs().max() <= 0.2 / size
    assert (coarse.prolongation @ there - x).abs().max() <= 0.4 / size
    assert (coarse.prolongation.row_sums() == 1).all()
    assert (coarse.restriction.row_sums() == 1).all()
    robust_laplacian(coarse.mesh)


@given(mesh=meshes(slivers=False), data=st.data())
def test_decimation_of_anything_is_a_valid_mesh_or_refused(mesh, data):
    target = data.draw(st.integers(1, len(mesh.faces)))
    try:
        coarse = decimate(mesh, target)
    except DomainError as error:
        assert "no lattice leaves from 1 to" in str(error)  # noqa: PT017
        return
    assert 1 <= len(coarse.mesh.faces) <= target
    nearest = torch.cdist(mesh.vertices, coarse.mesh.vertices, compute_mode="donot_use_mm_for_euclid_dist")
    x = torch.arange(coarse.mesh.num_nodes, dtype=torch.float64)[:, None]
    chosen = (coarse.prolongation @ x)[:, 0].long()
    torch.testing.assert_close(nearest.gather(1, chosen[:, None])[:, 0], nearest.amin(1), rtol=1e-9, atol=1e-9)


def test_a_function_of_ones_own_is_cleaned_and_mapped():
    mesh = icosphere(1)

    def first_faces(vertices, faces, target):
        assert (vertices.dtype, faces.dtype) == (np.float64, np.int64)
        vertices *= 2  # its own copies
        return vertices / 2, np.concatenate([faces[:target], faces[:1], [[0, 0, 1]]])

    coarse = decimate(mesh, 30, first_faces)
    assert len(coarse.mesh.faces) == 30
    assert coarse.mesh.report().unreferenced_vertices == 0
    x = torch.arange(float(mesh.num_nodes), dtype=torch.float64)[:, None]
    assert torch.equal(mesh.vertices[(coarse.restriction @ x)[:, 0].long()], coarse.mesh.vertices)


def test_pyvista_can_decimate():
    pyvista = pytest.importorskip("pyvista", reason="needs the mesh extra")

    def quadric(vertices, faces, target):
        surface = pyvista.PolyData.from_regular_faces(vertices, faces).decimate(1 - target / len(faces))
        return np.array(surface.points), surface.regular_faces

    coarse = decimate(icosphere(3), 320, quadric)
    assert 300 <= len(coarse.mesh.faces) <= 320
    assert coarse.mesh.report().euler_characteristic == 2


@pytest.mark.parametrize(
    ("by", "match"),
    [
        (lambda v, f, k: v, r"by must return \(vertices, faces\), not ndarray"),
        (lambda v, f, k: (v, f + 1), "what `by` returned is no mesh: faces hold the index 42"),
        (lambda v, f, k: (v * np.nan, f), "what `by` returned is no mesh: vertices hold 126 non-finite"),
        (lambda v, f, k: (v, f[:0]), "what `by` returned is no mesh: no face is left"),
        (lambda v, f, k: (v[:, :2], f[:1]), r"by must return vertices \(n, 3\)"),
        (lambda v, f, k: ("x", f), "what `by` returned is no mesh: vertices must be an array"),
    ],
)
def test_what_a_function_returns_is_checked(by, match):
    with pytest.raises(DomainError, match=match):
        decimate(icosphere(1), 10, by)


def test_a_planar_mesh_stays_planar():
    square = grid(9, 9)
    flat = TriangleMesh(square.vertices[:, :2], square.faces)
    assert decimate(flat, 40).mesh.vertices.shape[1] == 2


@pytest.mark.parametrize("faces", [0, 81, 2.0, True])
def test_a_target_out_of_range_is_refused(faces):
    with pytest.raises(DomainError, match="faces must be an integer from 1 to the 80 there are"):
        decimate(icosphere(1), faces)


def test_clusters_move_with_the_mesh():
    points, faces = icosphere(2).arrays
    here, there = cluster_vertices(points, faces, 80), cluster_vertices(points + np.array([0.0, 64.0, -32.0]), faces, 80)
    assert np.array_equal(here[1], there[1])
    assert np.allclose(here[0] + np.array([0.0, 64.0, -32.0]), there[0], atol=1e-12)


def test_clustering_that_can_not_reach_the_target_is_refused():
    with pytest.raises(DomainError, match="no lattice leaves from 1 to 1 faces"):
        cluster_vertices(*icosphere(2).arrays, 1)


def test_a_real_mesh_becomes_finer_and_coarser(real_mesh):
    fine = subdivide(real_mesh).mesh
    assert fine.area == pytest.approx(real_mesh.area, rel=1e-9)
    target = len(real_mesh.faces) // 4
    coarse = decimate(real_mesh, target).mesh
    assert 0.02 * target < len(coarse.faces) <= target


def test_decimation_never_loses_a_gradient_without_a_word():
    mesh = TriangleMesh(icosphere(1).vertices.requires_grad_(), icosphere(1).faces)
    with pytest.raises(DomainError, match="no_grad"):
        decimate(mesh, 20)
    with torch.no_grad():
        assert len(decimate(mesh, np.int64(20)).mesh.faces) <= 20
