"""Transport: flows free of divergence, a scheme assembled again face by face, and a sphere that turns."""

import math

import numpy as np
import pytest
import scipy.linalg
import torch

from neuralpde.heat_data import Truth
from neuralpde.mesh_equation import radius
from neuralpde.mesh_equation_advection import MeshAdvection
from neuralpde.testing import assert_within
from operators import TriangleMesh, icosphere
from operators.cell_sides import cell_sides

STIR = MeshAdvection()
BOTH = pytest.mark.parametrize("truth", list(Truth), ids=lambda truth: truth.value)


def galerkin(mesh: TriangleMesh, axis: np.ndarray) -> np.ndarray:
    """The matrix of −∫ φ_i b·grad u with linear elements, b = n × a on each face."""
    points, faces = mesh.arrays
    matrix = np.zeros((len(points), len(points)))
    for face in faces:
        corners = points[face]
        normal = np.cross(corners[1] - corners[0], corners[2] - corners[0])
        twice = np.linalg.norm(normal)
        normal /= twice
        for k in range(3):
            # The gradient of the hat of corner k, and b along it.
            gradient = np.cross(normal, corners[(k + 2) % 3] - corners[(k + 1) % 3]) / twice
            matrix[face, face[k]] -= twice / 6 * (np.cross(normal, axis) @ gradient)
    return matrix


@BOTH
def test_the_norm_never_rises(truth, surfaces):
    # As a needle it has short edges, and the step is bounded by them.
    thin = TriangleMesh(surfaces["ball"].vertices * torch.tensor([1, 0.02, 0.02]), surfaces["ball"].faces)
    for mesh in (surfaces["ball"], surfaces["ring"], thin):
        dt = STIR.time_step("", mesh, truth)
        assert (dt < radius(mesh) / 101) == (mesh is thin)
        frames = STIR.simulate(mesh, truth, dt, torch.rand(2, mesh.num_nodes, 1, dtype=torch.float64))
        size = STIR.laplacian(mesh, truth).inner(frames, frames)
        assert bool((size[:, 1:] <= size[:, :-1] * (1 + 1e-13)).all())


def test_published_is_the_explicit_scheme(surfaces):
    mesh, truth = surfaces["ring"], Truth.PUBLISHED
    dt = STIR.time_step("", mesh, truth)
    frames = STIR.simulate(mesh, truth, dt, STIR.initial_fields(mesh, truth, 2, 0))
    laplacian = STIR.laplacian(mesh, truth)
    flow = galerkin(mesh, np.array(STIR.axis)) / laplacian.mass.numpy()[:, None]
    step = np.eye(mesh.num_nodes) + dt * (flow - STIR.diffusivity(dt) * laplacian.matrix().numpy())
    for k in (1, 2, 200):
        expected = np.linalg.matrix_power(step, k) @ frames[:, 0].numpy()
        np.testing.assert_allclose(frames[:, k], expected, atol=1e-12)


def test_surface_is_the_exponential(surfaces):
    mesh, truth = surfaces["ball"], Truth.SURFACE
    dt = STIR.time_step("", mesh, truth)
    start = STIR.initial_fields(mesh, truth, 2, 0)
    frames = STIR.simulate(mesh, truth, dt, start)
    laplacian = STIR.laplacian(mesh, truth)
    flow = galerkin(mesh, np.array(STIR.axis)) / laplacian.mass.numpy()[:, None]
    rate = flow - STIR.diffusivity(dt) * laplacian.matrix().numpy()
    for k in (1, 20, 200):
        assert_within(frames[:, k], torch.from_numpy(scipy.linalg.expm(k * dt * rate)) @ start, 1e-12)


@BOTH
def test_a_sphere_turns_about_the_axis(truth):
    mesh = icosphere(3, radius=2.0)
    axis = torch.tensor(STIR.axis, dtype=torch.float64)
    across = torch.linalg.cross(axis, torch.tensor([1.0, 0, 0], dtype=torch.float64))
    across = across / across.norm()
    dt = STIR.time_step("", mesh, truth)
    frames = STIR.simulate(mesh, truth, dt, (mesh.vertices @ across)[None, :, None])
    # b = n × a turns by −|a|/R; coordinates are modes of 2/R², and an explicit step takes its ½ dt ω² from the diffusion.
    angle, lost = -200 * dt / 2, 2 * STIR.diffusivity(dt) / 4 - (dt / 8 if truth is Truth.PUBLISHED else 0)
    turned = math.cos(angle) * across + math.sin(angle) * torch.linalg.cross(axis, across)
    expected = math.exp(-200 * dt * lost) * (mesh.vertices @ turned)[:, None]
    assert float((frames[0, -1] - expected).norm() / expected.norm()) < 0.02


def test_flows_are_free_of_divergence(surfaces):
    for mesh in surfaces.values():
        sides = cell_sides(mesh)
        flows = sides.flows(STIR.velocity(mesh))
        assert sides.solenoidal(flows)
        psi = mesh.vertices @ torch.tensor(STIR.axis, dtype=torch.float64)
        assert_within(flows, sides.stream(psi), 1e-14)


@BOTH
def test_time_steps(truth, surfaces):
    mesh = surfaces["ball"]
    dt = STIR.time_step("", mesh, truth)
    assert dt * STIR.laplacian(mesh, truth).largest_eigenvalue() ** 0.5 <= 0.5 * (1 + 1e-12)
    assert MeshAdvection(axis=(0.0, 0.0, 2.0)).time_step("", mesh, truth) == pytest.approx(dt / 2)
    assert STIR.parameters(mesh, truth, dt) == {"axis": list(STIR.axis), "diffusivity": 2 * dt}
