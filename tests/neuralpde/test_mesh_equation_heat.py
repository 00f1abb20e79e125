"""Heat is that of the main job, and the surface's that of the matrix exponential."""

import pytest
import scipy.linalg
import torch

from neuralpde.heat_data import PAPER_TIME_STEP, Truth, initial_fields, surface
from neuralpde.mesh_equation import mean_rate_step
from neuralpde.mesh_equation_heat import MeshHeat
from neuralpde.testing import assert_within
from operators import TriangleMesh

HEAT = MeshHeat()


def test_published_heat_is_the_main_jobs(surfaces, tmp_path):
    mesh, truth = surfaces["ring"], Truth.PUBLISHED
    other = surface("ring", mesh, truth, 3, 1, tmp_path / "x.safetensors", lambda: None)
    frames = HEAT.simulate(mesh, truth, other.dt, HEAT.initial_fields(mesh, truth, 3, 1))
    assert torch.equal(frames.float(), other.frames)


def test_surface_heat_is_the_exponential(surfaces):
    mesh, truth = surfaces["ball"], Truth.SURFACE
    dt, start = HEAT.time_step("ball", mesh, truth), HEAT.initial_fields(mesh, truth, 2, 0)
    assert torch.equal(start, initial_fields(mesh, truth, 2, 0))
    frames = HEAT.simulate(mesh, truth, dt, start)
    dense = HEAT.laplacian(mesh, truth).matrix().numpy()
    for k in (1, 7, 200):
        assert_within(frames[:, k], torch.from_numpy(scipy.linalg.expm(-k * dt * dense)) @ start, 1e-11)


@pytest.mark.parametrize("name", ["sphere", "woman", "cow"])
def test_time_steps_are_stable(name, surfaces):
    for truth in Truth:
        laplacian = HEAT.laplacian(surfaces["ball"], truth)
        assert HEAT.time_step(name, surfaces["ball"], truth) * laplacian.largest_eigenvalue() < 2
    small = TriangleMesh(surfaces["ball"].vertices * 0.02, surfaces["ball"].faces)
    assert HEAT.time_step("sphere", small, Truth.PUBLISHED) == PAPER_TIME_STEP["sphere"]


def test_a_mesh_without_a_published_step_changes_as_fast_as_the_papers(surfaces):
    laplacian = HEAT.laplacian(surfaces["ring"], Truth.PUBLISHED)
    dt = HEAT.time_step("cow", surfaces["ring"], Truth.PUBLISHED)
    assert dt == mean_rate_step(laplacian)
    assert dt * float(laplacian.diagonal().mean()) == pytest.approx(0.025)
    # A stiff vertex among many bounds the step instead: one triangle in a hundred is a thousand times smaller.
    points = surfaces["ring"].vertices.clone()
    points[surfaces["ring"].faces[0, 0]] = points[surfaces["ring"].faces[0, 1]] + 1e-4
    stiff = HEAT.laplacian(TriangleMesh(points, surfaces["ring"].faces), Truth.PUBLISHED)
    assert mean_rate_step(stiff) * stiff.largest_eigenvalue() <= 1 + 1e-6
