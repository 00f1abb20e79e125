"""Generated surfaces have the size, the topology and the area that their formulas say."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from operators import DomainError, TriangleMesh, bumpy, grid, icosphere, torus


def euler(mesh):
    return mesh.num_nodes - mesh.edges.shape[1] + len(mesh.faces)


def is_closed_and_oriented(mesh):
    """Every edge is walked once in each direction."""
    walked = {(f[k - 1], f[k]) for f in mesh.faces.tolist() for k in range(3)}
    return len(walked) == 3 * len(mesh.faces) and all((j, i) in walked for i, j in walked)


def volume(mesh):
    points, faces = mesh.arrays
    return np.linalg.det(points[faces]).sum() / 6


@pytest.mark.parametrize("refinements", [0, 1, 2, 3])
@pytest.mark.parametrize("radius", [1.0, 2.5])
def test_icosphere_is_a_sphere(refinements, radius):
    mesh = icosphere(refinements, radius)
    assert mesh.num_nodes == 10 * 4**refinements + 2
    assert euler(mesh) == 2
    assert is_closed_and_oriented(mesh)
    assert np.allclose(mesh.vertices.norm(dim=1), radius, rtol=1e-15)
    # The chord of an edge of angle 1.1 / 2^k lies below its arc: the missing area falls fourfold each time.
    assert 1 - 0.34 / 4**refinements < mesh.area / (4 * math.pi * radius**2) < 1
    assert 0 < volume(mesh) < 4 / 3 * math.pi * radius**3


@given(around=st.integers(3, 20), across=st.integers(3, 12))
def test_torus_is_a_torus_that_faces_outwards(around, across):
    mesh = torus(around, across, 2.0, 0.5)
    assert mesh.num_nodes == around * across
    assert euler(mesh) == 0
    assert is_closed_and_oriented(mesh)
    assert volume(mesh) > 0
    x, y, z = mesh.vertices.T
    assert np.allclose((torch.hypot(x, y) - 2) ** 2 + z**2, 0.25, atol=1e-14)


def test_torus_area_converges():
    assert torus(160, 80).area == pytest.approx(4 * math.pi**2 * 0.4, rel=2e-3)


@given(columns=st.integers(2, 8), rows=st.integers(2, 8), width=st.floats(0.1, 10), height=st.floats(0.1, 10))
def test_grid_is_a_flat_rectangle(columns, rows, width, height):
    mesh = grid(columns, rows, width, height)
    assert mesh.num_nodes == columns * rows
    assert euler(mesh) == 1
    assert mesh.area == pytest.approx(width * height, rel=1e-13)
    assert (mesh.vertices[:, 2] == 0).all()
    assert mesh.vertices.amax(0).tolist()[:2] == [width, height]
    a, b, c = (mesh.vertices[mesh.faces[:, k]] for k in range(3))
    assert (torch.linalg.cross(b - a, c - a)[:, 2] > 0).all()


@given(amplitude=st.floats(0, 0.9), bumps=st.integers(1, 8), seed=st.integers(0, 9))
def test_bumps_move_points_along_their_rays_by_at_most_the_amplitude(amplitude, bumps, seed):
    mesh = icosphere(1)
    bumped = bumpy(mesh, amplitude, bumps, seed)
    factor = bumped.vertices.norm(dim=1, keepdim=True)
    assert torch.allclose(bumped.vertices, mesh.vertices * factor, atol=1e-14)
    assert ((factor - 1).abs() <= amplitude + 1e-14).all()
    assert (factor - 1).abs().max() >= amplitude - 1e-12
    assert torch.equal(bumpy(mesh, amplitude, bumps, seed).vertices, bumped.vertices)


@pytest.mark.parametrize("make", [icosphere, torus, grid, lambda **to: bumpy(icosphere(1, **to))])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_dtype_is_as_asked(make, dtype):
    assert make(dtype=dtype).vertices.dtype == dtype


@pytest.mark.parametrize(
    ("make", "match"),
    [
        (lambda: icosphere(-1), r"refinements must lie in 0\.\.9 .*, not -1"),
        (lambda: icosphere(10), r"refinements must lie in 0\.\.9 .*, not 10"),
        (lambda: icosphere(1, 0.0), r"radius must be positive and finite, not 0\.0"),
        (lambda: icosphere(1, math.nan), "radius must be positive and finite, not nan"),
        (lambda: icosphere(1, math.inf), "radius must be positive and finite, not inf"),
        (lambda: torus(2, 5), "at least 3 × 3 vertices, not 2 × 5"),
        (lambda: torus(8, 8, 1.0, 1.5), r"tube \(1\.5\) must be positive and thinner than the radius"),
        (lambda: torus(8, 8, 1.0, math.nan), "must be positive and thinner"),
        (lambda: torus(8, 8, math.inf), "radius must be positive and finite, not inf"),
        (lambda: grid(1, 5), "at least 2 × 2 vertices, not 1 × 5"),
        (lambda: grid(3, 3, -1.0), r"width must be positive and finite, not -1\.0"),
        (lambda: grid(3, 3, 1.0, math.inf), "height must be positive and finite, not inf"),
        (lambda: bumpy(icosphere(0), 1.0), r"amplitude must lie in \[0, 1\), not 1\.0: larger bumps"),
        (lambda: bumpy(icosphere(0), math.nan), r"amplitude must lie in \[0, 1\), not nan"),
        (lambda: bumpy(icosphere(0), 0.1, 0), "bumps must be at least 1, not 0"),
        (lambda: icosphere(2.0), r"refinements must be an integer, not 2\.0"),
        (lambda: icosphere(True), "refinements must be an integer, not True"),
        (lambda: grid("4", 4), "columns must be an integer, not '4'"),
        (lambda: torus(4, 4.5), r"across must be an integer, not 4\.5"),
        (lambda: grid(10**5, 10**5), "100000 × 100000 vertices are over the limit of 50000000: ask for fewer"),
        (lambda: torus(10**5, 10**5), "are over the limit of 50000000"),
    ],
)
def test_impossible_shapes_are_refused(make, match):
    with pytest.raises(DomainError, match=match):
        make()


def test_bumps_never_lose_a_gradient_without_a_word():
    mesh = TriangleMesh(icosphere(0).vertices.requires_grad_(), icosphere(0).faces)
    with pytest.raises(DomainError, match="no_grad"):
        bumpy(mesh)
