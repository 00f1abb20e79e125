"""Heat is that of the main job, and the surface's that of the matrix exponential."""

import pytest
import scipy.linalg
import torch

from neuralpde.heat_data import PAPER_TIME_STEP, Truth, initial_fields, surface
from neuralpde.mesh_equation_heat import MeshHeat
from neuralpde.testing import assert_within

HEAT = MeshHeat()


def test_published_heat_is_the_main_jobs(surfaces, tmp_path):
    mesh, truth = surfaces["ring"], Truth.PUBLISHED
    other = surface("ring", mesh, truth, 3, 1, tmp_path / "x.safetensors", lambda: None)
    dt = HEAT.time_step("ring", mesh, truth)
    frames = HEAT.simulate(mesh, truth, dt, HEAT.initial_fields(mesh, truth, 3, 1))
    assert dt == other.dt
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
    assert HEAT.time_step("sphere", surfaces["ball"], Truth.PUBLISHED) == PAPER_TIME_STEP["sphere"]
