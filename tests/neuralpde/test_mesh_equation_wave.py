"""Waves: the published scheme by its dispersion relation, the surface's by eigenvectors."""

import numpy as np
import pytest
import torch

from neuralpde.heat_data import Truth
from neuralpde.mesh_equation import mean_rate_step, radius
from neuralpde.mesh_equation_wave import PAPER_WAVE_STEP, RELATIVE_WIDTH, WAVE_COURANT, MeshWave
from neuralpde.testing import assert_within
from operators import TriangleMesh

WAVE = MeshWave()


def trajectories(mesh: TriangleMesh, truth: Truth) -> tuple[float, torch.Tensor, np.ndarray, np.ndarray, np.ndarray]:
    """dt, frames, and eigenpairs of the symmetric form with the masses."""
    dt = WAVE.time_step("some mesh", mesh, truth)
    frames = WAVE.simulate(mesh, truth, dt, WAVE.initial_fields(mesh, truth, 2, 0))
    laplacian = WAVE.laplacian(mesh, truth)
    root = laplacian.mass.sqrt().numpy()
    values, vectors = np.linalg.eigh(root[:, None] * laplacian.matrix().numpy() / root)
    return dt, frames, np.maximum(values, 0), vectors, root


def test_published_waves_follow_the_schemes_dispersion(surfaces):
    dt, frames, values, vectors, _ = trajectories(surfaces["ring"], Truth.PUBLISHED)
    # With u₋₁ = u₀ a mode is cos((k + ½) θ) / cos(θ / 2), 2 − 2 cos θ = dt² λ.
    angle = np.arccos(1 - dt**2 * values / 2)
    modes = vectors.T @ frames[:, 0].numpy()
    for k in (1, 2, 33, 200):
        swing = np.cos((k + 0.5) * angle) / np.cos(angle / 2)
        assert_within(frames[:, k], torch.from_numpy(vectors @ (swing[:, None] * modes)), 1e-9)


def test_published_waves_keep_the_schemes_energy(surfaces):
    mesh, truth = surfaces["ball"], Truth.PUBLISHED
    dt, frames, *_ = trajectories(mesh, truth)
    old, new = frames[:, :-1], frames[:, 1:]
    energy = ((new - old) / dt).square().sum((-2, -1)) + (new * WAVE.laplacian(mesh, truth)(old)).sum((-2, -1))
    assert float((energy / energy[:, :1] - 1).abs().max()) < 1e-10


@pytest.mark.parametrize("name", ["ball", "ring"])
def test_surface_waves_are_the_cosine_propagator(name, surfaces):
    dt, frames, values, vectors, root = trajectories(surfaces[name], Truth.SURFACE)
    modes = vectors.T @ (root[:, None] * frames[:, 0].numpy())
    for k in (1, 2, 33, 200):
        swing = np.cos(k * dt * np.sqrt(values))
        assert_within(frames[:, k], torch.from_numpy(vectors @ (swing[:, None] * modes) / root[:, None]), 1e-9)


def test_published_starts_are_single_vertices_of_both_signs(surfaces):
    mesh = surfaces["ring"]
    fields = WAVE.initial_fields(mesh, Truth.PUBLISHED, 3, 0)[..., 0]
    assert torch.equal(fields.abs().sort(dim=1).values[:, -2:], torch.ones(3, 2, dtype=torch.float64))
    assert float(fields.abs().sort(dim=1).values[:, :-2].max()) < 1e-12
    assert float(fields.sum(1).abs().max()) < 1e-12


def test_surface_starts_have_a_width(surfaces):
    mesh = surfaces["ball"]
    field = WAVE.initial_fields(mesh, Truth.SURFACE, 1, 0)[0, :, 0].numpy()
    points, chosen = mesh.arrays[0], np.random.default_rng([0, mesh.num_nodes, 11]).choice(42, size=2, replace=False)
    distance = np.linalg.norm(points[:, None] - points[chosen], axis=-1) / (RELATIVE_WIDTH * radius(mesh))
    expected = np.exp(-(distance**2) / 2) @ [1.0, -1.0]
    np.testing.assert_allclose(field, expected, atol=1e-14)


@pytest.mark.parametrize("truth", list(Truth))
def test_time_steps(truth, surfaces):
    mesh = surfaces["ball"]
    laplacian = WAVE.laplacian(mesh, truth)
    fastest = laplacian.largest_eigenvalue() ** 0.5
    otherwise = WAVE_COURANT / fastest if truth is Truth.SURFACE else mean_rate_step(laplacian) ** 0.5
    assert WAVE.time_step("cow", mesh, truth) == pytest.approx(otherwise)
    for name, step in PAPER_WAVE_STEP.items():
        chosen = WAVE.time_step(name, mesh, truth)
        assert chosen in (step, pytest.approx(otherwise))
        assert chosen * fastest < 2
    small = TriangleMesh(mesh.vertices * 0.05, mesh.faces)
    assert WAVE.time_step("sphere", small, truth) == PAPER_WAVE_STEP["sphere"]
