"""What is seen is what was lifted; the force is relaxation; runs keep mass."""

import pytest
import torch

from neuralpde.forecast_water import MeanForce, WaterModel
from neuralpde.shallow_water_set import ShallowWaterSet


@pytest.fixture(scope="module")
def model_and_frames(tmp_path_factory):
    data = ShallowWaterSet(refinements=2, truth_refinements=3, trajectories=2, test_trajectories=1, days=1, spin_up_days=0)
    records = data.simulate(tmp_path_factory.mktemp("set") / "set.safetensors")
    return WaterModel(records.train.place.mesh, records.orography, 3), records.train.nodes()[0, :2]


def test_frames_are_seen_again_after_lifting(model_and_frames):
    model, frames = model_and_frames
    seen = model.observe(model.analyse(frames))
    error = (seen - frames).square().mean((0, 1)).sqrt()
    size = frames.std((0, 1))
    assert bool((error < 2e-2 * size).all())


def test_a_run_keeps_mass_and_is_near_the_truth_after_six_hours(model_and_frames):
    model, frames = model_and_frames
    start = model.analyse(frames[:1])
    force = MeanForce(start)
    h, u = model.run(force, start, 6.0, 1)
    area = model.flow.grid.cell_areas[:, None].double()
    mass = (area * h.double()).sum((-2, -1))
    assert float((mass[1] / mass[0] - 1).abs().max()) < 1e-6
    later = model.observe((h[-1], u[-1]))
    assert (later - frames[1:]).square().mean((0, 1))[1:].sum() < (frames[:1] - frames[1:]).square().mean((0, 1))[1:].sum()


def test_the_force_is_relaxation():
    mean = torch.full((3, 1), 2.0), torch.zeros(4, 1)
    force = MeanForce(mean)
    force.depth, force.rates = torch.full((3, 1), 0.5), torch.tensor([0.1, 0.2])
    rate_h, rate_u = force(torch.zeros(()), (torch.full((3, 1), 4.0), torch.ones(4, 1)))
    assert torch.allclose(rate_h, torch.full((3, 1), 0.3))
    assert torch.allclose(rate_u, torch.full((4, 1), -0.2))
