"""The C-grid of a sphere: exact adjoints, an antisymmetric perpendicular, conservation of what moves between cells and faces."""

import copy
import pickle
from functools import cache

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from spheres import spheres

from neuralpde.testing import assert_within, fields, roundoff
from operators.c_grid import CGrid, perpendicular
from operators.checks import FieldError
from operators.domains import TriangleMesh
from operators.shapes import icosphere
from operators.sphere_meshes import centroidal_icosphere
from operators.spherical_dual import spherical_dual

U = roundoff(torch.float64)
AXIS = torch.tensor([0.3, -0.2, 0.8], dtype=torch.float64)
OPERATORS = ("gradient", "divergence", "curl", "across", "perp", "ends", "sides", "squares", "to_faces", "to_cells", "vectors")


def rotation(points):
    """A solid rotation of the sphere: a vector field of Killing's."""
    return torch.linalg.cross(AXIS.expand_as(points), points)


def dense(operator):
    return torch.from_numpy(operator.to_scipy().toarray())


def size(operator, x):
    """Σ |A_ij x_j|, whose round-off is what a row of the product may lose."""
    return dense(operator).abs() @ x.abs()


# Identities -----------------------------------------------------------------------------------------------------------


@given(data=st.data())
def test_a_gradient_has_no_curl_and_a_rotated_gradient_no_divergence(data):
    grid = CGrid(data.draw(spheres()))
    n, m = grid.to_cells.shape
    h, psi = data.draw(fields(n, 1)), data.draw(fields(m, 1))
    slope = grid.gradient @ h
    assert_within(grid.curl @ slope, 0.0, 64 * U * (size(grid.curl, size(grid.gradient, h))))
    turned = grid.across @ psi
    assert_within(grid.divergence @ turned, 0.0, 64 * U * size(grid.divergence, size(grid.across, psi)))


@settings(max_examples=10)
@given(data=st.data())
def test_divergence_and_across_are_adjoints_of_gradient_and_curl(data):
    grid = CGrid(data.draw(spheres()))
    A, Af, side = (np.diag(area.numpy()) for area in (grid.cell_areas, grid.face_areas, grid.edge_areas))
    names = ("gradient", "divergence", "curl", "across", "ends", "squares")
    G, D, C, R, E, S = (dense(getattr(grid, name)).numpy() for name in names)
    for one, other in ((side @ G, -(A @ D).T), (Af @ C, (side @ R).T), (A @ S, (side @ E).T / 2)):
        np.testing.assert_allclose(one, other, rtol=64 * U, atol=0)
    L = dense(grid.laplacian.stiffness).numpy()
    np.testing.assert_allclose(L, G.T @ side @ G, rtol=0, atol=64 * U * np.abs(L).max())
    assert_within(grid.laplacian.mass, grid.cell_areas, 0.0)


@given(data=st.data())
def test_means_keep_constants_and_totals(data):
    grid = CGrid(data.draw(spheres()))
    n, m = grid.to_cells.shape
    for name in ("ends", "sides", "to_faces", "to_cells"):
        operator = getattr(grid, name)
        assert_within(operator.row_sums(), 1.0, 64 * U * dense(operator).abs().sum(1))
    h, q = data.draw(fields(n, 1)), data.draw(fields(m, 1))
    A, Af = grid.cell_areas[:, None], grid.face_areas[:, None]
    assert_within((Af * (grid.to_faces @ h)).sum(), (A * h).sum(), 64 * n * U * (A * h.abs()).sum())
    assert_within((A * (grid.to_cells @ q)).sum(), (Af * q).sum(), 64 * n * U * (Af * q.abs()).sum())


@given(mesh=spheres())
def test_perpendicular_weights_are_antisymmetric_to_the_last_bit(mesh):
    W = perpendicular(spherical_dual(mesh)).to_scipy()
    assert (W != -W.T).nnz == 0
    assert abs(W.diagonal()).max() == 0


@given(data=st.data())
def test_the_perpendicular_flux_has_on_faces_the_divergence_of_the_flux_in_cells(data):
    grid = CGrid(data.draw(spheres()))
    u = data.draw(fields(grid.perp.shape[0], 1))
    bound = 256 * U * (size(grid.curl, size(grid.perp, u)) + size(grid.to_faces, size(grid.divergence, u)))
    assert_within(-(grid.curl @ (grid.perp @ u)), grid.to_faces @ (grid.divergence @ u), bound)


@given(data=st.data())
def test_every_wind_without_divergence_is_balanced_by_a_depth(data):
    # With a constant f: f u⊥ = g grad h has a solution h, and (h, u) rests in the linear equations.
    grid = CGrid(data.draw(spheres(most=0.3)))
    m = grid.curl.shape[0]
    u = grid.radius * (grid.across @ torch.from_numpy(np.random.default_rng(data.draw(st.integers(0, 99))).normal(size=(m, 1))))
    turned = grid.perp @ u
    h = torch.linalg.lstsq(grid.radius * dense(grid.gradient), turned, driver="gelsd").solution * grid.radius
    assert_within(grid.gradient @ h, turned, 1e4 * U * float(size(grid.perp, u).max()))


@pytest.mark.parametrize("refinements", [0, 1])
def test_perpendicular_is_the_sum_of_the_paper_cell_by_cell(refinements):
    """Thuburn et al. 2009, eq. 33, walked with dictionaries."""
    dual = spherical_dual(icosphere(refinements))
    faces, edges = dual.faces.tolist(), dual.edges.T.tolist()
    number = {tuple(edge): e for e, edge in enumerate(edges)}
    following = {(f[k], f[k - 2]): (f[k - 1], i, k) for i, f in enumerate(faces) for k in range(3)}
    W = np.zeros((len(edges), len(edges)))
    for cell in range(len(dual.centres)):
        neighbours = {b for a, b in following if a == cell}
        for start in neighbours:
            here, total = start, 0.0
            for _ in range(len(neighbours) - 1):
                here, face, corner = following[cell, here]
                total += float(dual.kites[face, corner] / dual.cell_areas[cell])
                e, to = (number[tuple(sorted((cell, other)))] for other in (start, here))
                sign = (1 if cell < start else -1) * (1 if cell < here else -1)
                # From the flux across side e to that across the spoke of e', counter-clockwise from it.
                W[to, e] += sign * (total - 0.5)
    np.testing.assert_allclose(perpendicular(dual).to_scipy().toarray(), W, atol=32 * U)


# Winds ----------------------------------------------------------------------------------------------------------------


@given(mesh=spheres())
def test_solid_rotations_are_found_again_exactly(mesh):
    # Along a great circle the component of Killing's field is constant, so the wind says what it is at the vertices.
    grid = CGrid(mesh)
    found = grid.at_vertices(grid.wind(rotation))
    thin = float(grid.edge_lengths.max() / grid.edge_lengths.min()) ** 3
    assert_within(found, rotation(grid.centres), 64 * thin * U)
    assert_within((found * grid.centres).sum(1), 0.0, 64 * thin * U)


@cache
def relaxed(refinements):
    return CGrid(centroidal_icosphere(refinements))


@given(data=st.data())
def test_a_stream_function_makes_a_wind_without_divergence(data):
    grid = CGrid(data.draw(spheres()))
    psi = data.draw(fields(grid.curl.shape[0], 1))
    u = grid.stream(psi)
    assert_within(grid.divergence @ u, 0.0, 64 * U * size(grid.divergence, size(grid.across, psi)))
    # −(ω · x) R is the stream function of a solid rotation, and high values lie to the right of the wind.
    turning = grid.stream(lambda x: -grid.radius * (x @ AXIS)[:, None])
    assert float((grid.edge_areas[:, None] * turning * grid.wind(rotation)).sum()) > 0


def rms(values, areas):
    return float(((areas[:, None] * values**2).sum() / areas.sum()).sqrt())


def field(points):
    """A smooth tangent field with divergence and curl."""
    x, y, z = points.unbind(1)
    vectors = torch.stack([y * z, x - z**2, x * y + 0.5], dim=1)
    return vectors - (vectors * points).sum(1, keepdim=True) * points


@pytest.mark.parametrize(
    ("measure", "order"),
    [
        (lambda g: rms(g.at_vertices(g.wind(field)) - field(g.centres), g.cell_areas), 1.5),
        (lambda g: rms(g.stream(lambda x: -(x @ AXIS)[:, None]) - g.wind(rotation), g.edge_areas), 0.9),
        (lambda g: rms(g.wind(field(g.centres)) - g.wind(field), g.edge_areas), 1.9),
        # First order at the sides of the pentagons and next to them, which are fewer and fewer.
        (lambda g: rms(g.perp @ g.wind(field) - left(g, field), g.edge_areas), 1.2),
        (lambda g: rms(g.perp @ g.wind(rotation) - left(g, rotation), g.edge_areas), 1.2),
        (lambda g: rms(g.gradient @ g.centres.prod(1, keepdim=True) - g.wind(slope), g.edge_areas), 1.9),
        (lambda g: rms(g.divergence @ g.wind(slope) + 12 * g.centres.prod(1, keepdim=True), g.cell_areas), 0.9),
        # At the circumcentre, which is not the centroid of the face.
        (lambda g: rms(g.curl @ g.wind(rotation) - 2 * (g.circumcentres @ AXIS)[:, None], g.face_areas), 0.9),
        (lambda g: rms(g.squares @ g.wind(rotation) ** 2 - speed2(g.centres) / 2, g.cell_areas), 1.0),
    ],
    ids=["at_vertices", "stream", "wind", "perp", "perp of a rotation", "gradient", "divergence", "curl", "squares"],
)
def test_operators_converge(measure, order):
    coarse, fine = measure(relaxed(3)), measure(relaxed(4))
    assert np.log2(coarse / fine) > order, (coarse, fine)


def speed2(points):
    return rotation(points).square().sum(1, keepdim=True)


def left(grid, field):
    across = torch.linalg.cross(grid.midpoints, grid.normals)
    return (field(grid.midpoints) * across).sum(1, keepdim=True)


def slope(points):
    """The gradient of x y z on the unit sphere, an eigenfunction of Δ with −12."""
    x, y, z = points.unbind(1)
    vectors = torch.stack([y * z, x * z, x * y], dim=1)
    return vectors - (vectors * points).sum(1, keepdim=True) * points


# Moving, bad input ----------------------------------------------------------------------------------------------------


def test_lengths_scale_with_the_radius():
    one, many = CGrid(icosphere(1)), CGrid(icosphere(1, 7.0), 4.0)
    powers = dict.fromkeys(OPERATORS, 0) | {"gradient": -1, "divergence": -1, "curl": -1, "across": -1}
    for name in OPERATORS:
        expected = getattr(one, name).values * 4.0 ** powers[name]
        assert_within(getattr(many, name).values, expected, 64 * U * float(expected.abs().max()))


def test_moves_to_other_meshes_and_precisions_copies_and_pickles():
    grid = CGrid(icosphere(1), 2.0).to(torch.float32)
    there = grid.on(icosphere(2))
    assert there.radius == 2.0
    assert there.dtype == torch.float32
    assert there.perp.shape == (480, 480)
    assert grid.laplacian.on(icosphere(2)).shape == (162, 162)
    assert "cells=42" in repr(grid)
    u = grid.wind(lambda x: rotation(x.double()).float())
    for same in (copy.deepcopy(grid), pickle.loads(pickle.dumps(grid))):
        assert torch.equal(same.perp @ u, grid.perp @ u)
    assert CGrid(icosphere(1, dtype=torch.float32)).dtype == torch.float32
    assert not grid.state_dict(), "a checkpoint does not carry the mesh"


def test_batches_of_winds():
    grid = CGrid(icosphere(1))
    vectors = torch.randn(2, 3, 42, 3, dtype=torch.float64)
    u = grid.wind(vectors)
    assert u.shape == (2, 3, 120, 1)
    assert_within(u[1, 2], grid.wind(vectors[1, 2]), 8 * U)
    assert_within(grid.at_vertices(u)[1, 2], grid.at_vertices(u[1, 2]), 64 * U)


def test_is_differentiable_in_the_vertices():
    mesh = icosphere(0)
    noise = torch.from_numpy(np.random.default_rng(0).normal(size=(12, 3)))
    u = torch.from_numpy(np.random.default_rng(1).normal(size=(30, 1)))

    def act(vertices):
        grid = CGrid(TriangleMesh(torch.nn.functional.normalize(vertices, dim=1), mesh.faces), 1.0)
        return grid.perp(u), grid.curl(u), grid.divergence(u), grid.to_faces(grid.squares(u * u)), grid.at_vertices(u)

    assert torch.autograd.gradcheck(act, (mesh.vertices + 0.05 * noise).requires_grad_(), fast_mode=True)


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda g: g.wind(torch.zeros(12, 2, dtype=torch.float64)), r"vectors must have shape \(..., 12, 3\)"),
        (lambda g: g.wind(torch.zeros(30, 3, dtype=torch.float64)), "vectors must have shape"),
        (lambda g: g.wind(lambda x: x[:, :1]), "must map points"),
        (lambda g: g.at_vertices(torch.zeros(12, 1, dtype=torch.float64)), "wind must have shape"),
        (lambda g: g.at_vertices(torch.zeros(30, 2, dtype=torch.float64)), "one channel"),
    ],
)
def test_bad_winds_are_refused(call, says):
    with pytest.raises(FieldError, match=says):
        call(CGrid(icosphere(0)))


def test_every_operator_has_the_precision_of_the_mesh():
    grid = CGrid(icosphere(1, dtype=torch.float32))
    assert {t.dtype for t in grid.buffers() if t.is_floating_point()} == {torch.float32}
    assert grid.laplacian.dtype == torch.float32
