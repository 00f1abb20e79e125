"""The truths are the equations they claim to be, computed here a second time with dense matrices."""

import numpy as np
import pytest
import scipy.linalg
import torch

from neuralpde import Law, Mass, MaximumPrinciple, TriangleMesh, cotangent_laplacian, icosphere, robust_laplacian, torus
from neuralpde.heat_data import COURANT, FRAMES, PAPER_TIME_STEP, Truth, initial_fields, simulate, surface, time_step
from neuralpde.testing import assert_within

BOTH = pytest.mark.parametrize("truth", list(Truth))


def dense_published(mesh: TriangleMesh) -> np.ndarray:
    """S = M^-½ C M^-½, assembled face by face from angles."""
    points, faces = mesh.arrays
    n = len(points)
    stiffness, mass = np.zeros((n, n)), np.zeros(n)
    for face in faces:
        for k in range(3):
            i, j, o = face[(k + 1) % 3], face[(k + 2) % 3], face[k]
            a, b = points[i] - points[o], points[j] - points[o]
            area = np.linalg.norm(np.cross(a, b)) / 2
            half = a @ b / (4 * area)
            stiffness[[i, j], [j, i]] -= half
            stiffness[[i, j], [i, j]] += half
            mass[o] += area / 3
    return stiffness / np.sqrt(mass[:, None] * mass[None])


def test_published_truth_is_the_explicit_scheme(surfaces):
    mesh = surfaces["ring"]
    laplacian = Truth.PUBLISHED.laplacian(mesh)
    dense = torch.from_numpy(dense_published(mesh))
    assert_within(laplacian.matrix(), dense, 1e-11 * float(dense.abs().max()))
    dt = time_step("ring", laplacian, Truth.PUBLISHED)
    start = torch.rand(2, mesh.num_nodes, 1, dtype=torch.float64)
    frames = simulate(laplacian, dt, start, Truth.PUBLISHED)
    assert frames.shape == (2, FRAMES, mesh.num_nodes, 1)
    step = torch.eye(mesh.num_nodes, dtype=torch.float64) - dt * dense
    for k in (0, 1, 2, 17, FRAMES - 1):
        assert_within(frames[:, k], torch.linalg.matrix_power(step, k) @ start, 1e-10)


@pytest.mark.parametrize("name", ["ball", "ring", "unseen"])
def test_surface_truth_is_the_heat_equation(name, surfaces):
    mesh = surfaces[name]
    laplacian = Truth.SURFACE.laplacian(mesh)
    dt = time_step(name, laplacian, Truth.SURFACE)
    start = initial_fields(mesh, Truth.SURFACE, 2, seed=0)
    frames = simulate(laplacian, dt, start, Truth.SURFACE)
    assert frames.shape == (2, FRAMES, mesh.num_nodes, 1)
    path = frames.transpose(0, 1)
    assert Mass(laplacian).violation(path) < 1e-11
    assert MaximumPrinciple(laplacian, Law.NON_INCREASING).violation(path) < 1e-12
    dense = laplacian.matrix().numpy()
    for k in (1, 5, 40, FRAMES - 1):
        exact = torch.from_numpy(scipy.linalg.expm(-k * dt * dense)) @ start
        error = (frames[:, k] - exact).norm() / exact.norm()
        assert float(error) < 0.01, k


def test_operators_are_the_ones_named(surfaces):
    mesh = surfaces["ball"]
    assert torch.equal(Truth.SURFACE.laplacian(mesh).matrix(), robust_laplacian(mesh).matrix())
    published = Truth.PUBLISHED.laplacian(mesh)
    assert torch.equal(published.mass, torch.ones(42, dtype=torch.float64))
    assert not published.kills_constants
    # Its equilibrium is √area.
    root = cotangent_laplacian(mesh).mass.sqrt()[:, None]
    assert float((published @ root).abs().max()) < 1e-11 * published.norm_bound()
    moved = published.on(surfaces["ring"])
    assert_within(moved.matrix(), Truth.PUBLISHED.laplacian(surfaces["ring"]).matrix(), 0.0)


@BOTH
def test_time_step(truth, surfaces):
    laplacian = truth.laplacian(surfaces["ball"])
    assert time_step("ball", laplacian, truth) == pytest.approx(COURANT / laplacian.largest_eigenvalue())
    # The paper's own step where it is stable on this mesh, and only under the paper's truth.
    for name, step in PAPER_TIME_STEP.items():
        chosen = time_step(name, laplacian, truth)
        assert chosen * laplacian.largest_eigenvalue() < 2
        if truth is Truth.PUBLISHED and step * laplacian.largest_eigenvalue() < 2:
            assert chosen == step


def test_time_step_scales_with_the_square_of_length():
    steps = [time_step("x", robust_laplacian(icosphere(1, r)), Truth.SURFACE) for r in (1.0, 3.0)]
    assert steps[1] == pytest.approx(9 * steps[0], rel=1e-5)


@BOTH
def test_initial_fields(truth, surfaces):
    mesh = surfaces["ball"]
    fields = initial_fields(mesh, truth, 4, seed=1)
    assert fields.shape == (4, 42, 1)
    assert fields.dtype == torch.float64
    assert float(fields.min()) >= 0
    assert float(fields.max()) <= 1
    assert bool((fields.std(dim=1) > 0).all())
    assert torch.equal(fields, initial_fields(mesh, truth, 4, seed=1))
    assert not torch.equal(fields, initial_fields(mesh, truth, 4, seed=2))
    assert not torch.equal(fields[0], fields[1])


def test_published_fields_have_a_source_at_a_fifth_of_the_vertices():
    mesh = torus(20, 10)
    fields = initial_fields(mesh, Truth.PUBLISHED, 2, seed=0)
    assert ((fields > 1 - 1e-12).sum(dim=1) == 40).all()


@BOTH
def test_a_surface_is_simulated_once(truth, surfaces, tmp_path):
    calls = []
    arguments = ("ball", surfaces["ball"], truth, 2, 0, tmp_path / "ball.safetensors", lambda: calls.append(1))
    first = surface(*arguments)
    written = (tmp_path / "ball.safetensors").stat().st_mtime_ns
    again = surface(*arguments)
    assert len(calls) == 2
    assert (tmp_path / "ball.safetensors").stat().st_mtime_ns == written
    assert first.frames.dtype == torch.float32
    assert torch.equal(first.frames, again.frames)
    assert first.dt == again.dt
    # One for other conditions, or a damaged one, is not used.
    assert surface(*arguments[:3], 3, *arguments[4:]).frames.shape[0] == 3
    (tmp_path / "ball.safetensors").write_bytes(b"half")
    assert torch.equal(surface(*arguments).frames, first.frames)


def test_times(surfaces, tmp_path):
    item = surface("ball", surfaces["ball"], Truth.SURFACE, 1, 0, tmp_path / "x", lambda: None)
    assert item.times(3, 4).tolist() == [4 * item.dt, 5 * item.dt, 6 * item.dt]
