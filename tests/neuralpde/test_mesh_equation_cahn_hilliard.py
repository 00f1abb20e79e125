"""Phase separation: one scheme solved again with dense matrices, the other against SciPy."""

import numpy as np
import pytest
import torch
from scipy.integrate import solve_ivp

from neuralpde.heat_data import Truth
from neuralpde.mesh_equation_cahn_hilliard import MEANS, MeshCahnHilliard
from neuralpde.phase_field import CahnHilliard
from neuralpde.testing import assert_within
from operators import icosphere

CH = MeshCahnHilliard()


@pytest.mark.parametrize("truth", list(Truth), ids=lambda truth: truth.value)
def test_energy_falls_and_phases_part(truth):
    mesh = icosphere(2)
    dt = CH.time_step("", mesh, truth)
    frames = CH.simulate(mesh, truth, dt, CH.initial_fields(mesh, truth, 3, 0))
    energy = CahnHilliard(CH.laplacian(mesh, truth), CH.width(mesh)).energy.measure(frames)
    assert bool((energy[:, 1:] <= energy[:, :-1] + 1e-12 * energy[:, :1]).all())
    assert bool((energy[:, -1] < 0.8 * energy[:, 0]).all())
    assert bool((frames[:, -1].abs().amax((-2, -1)) > 0.9).all())
    assert float(frames.abs().max()) < 1.3


def test_published_is_one_stabilised_step_a_frame(surfaces):
    mesh, truth = surfaces["ball"], Truth.PUBLISHED
    dt = CH.time_step("ball", mesh, truth)
    frames = CH.simulate(mesh, truth, dt, CH.initial_fields(mesh, truth, 2, 0)).numpy()
    dense = CH.laplacian(mesh, truth).matrix().numpy()
    square, a, identity = CH.width(mesh) ** 2, CH.stabilization, np.eye(mesh.num_nodes)
    implicit = identity + dt * dense @ (square * dense + a * identity)
    for k in (0, 50, 199):
        u = frames[:, k]
        expected = np.linalg.solve(implicit, u - dt * dense @ (u**3 - (1 + a) * u))
        np.testing.assert_allclose(frames[:, k + 1], expected, atol=1e-11)


def test_surface_is_the_equation(surfaces):
    mesh, truth = surfaces["ball"], Truth.SURFACE
    dt = CH.time_step("ball", mesh, truth)
    start = CH.initial_fields(mesh, truth, 1, 0)
    frames = CH.simulate(mesh, truth, dt, start)[0, :, :, 0].numpy()
    dense, square = CH.laplacian(mesh, truth).matrix().numpy(), CH.width(mesh) ** 2

    def rate(t, u):
        return -dense @ (square * dense @ u + u**3 - u)

    def slope(t, u):
        return -dense @ (square * dense + np.diag(3 * u**2 - 1))

    times = dt * np.array([5, 20, 200])
    exact = solve_ivp(rate, (0, times[-1]), start[0, :, 0].numpy(), "Radau", times, rtol=1e-9, atol=1e-10, jac=slope)
    for k, u in zip((5, 20, 200), exact.y.T, strict=True):
        assert np.linalg.norm(frames[k] - u) < 2e-3 * np.linalg.norm(u), k


def test_starts_have_their_means_and_spread(surfaces):
    mesh, truth = surfaces["ring"], Truth.SURFACE
    laplacian = CH.laplacian(mesh, truth)
    fields = CH.initial_fields(mesh, truth, 6, 0)
    area = laplacian.mass.sum()
    mean = laplacian.inner(fields, torch.ones_like(fields)) / area
    assert_within(mean, torch.tensor([*MEANS, MEANS[0]], dtype=torch.float64), 1e-13)
    rest = fields - mean[:, None, None]
    assert_within((laplacian.inner(rest, rest) / area).sqrt(), torch.full((6,), CH.spread, dtype=torch.float64), 1e-13)


def test_the_width_is_the_edge_of_even_triangles():
    mesh = icosphere(2)
    edge = (mesh.vertices[mesh.edges[0]] - mesh.vertices[mesh.edges[1]]).norm(dim=1).mean()
    assert CH.width(mesh) == pytest.approx(float(edge), rel=0.02)
    assert CH.parameters(mesh, Truth.SURFACE, 1.0)["width"] == CH.width(mesh)
