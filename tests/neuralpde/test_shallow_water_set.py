"""The simulated set: resumed exactly, seen without bias, divided by trajectory. Its solver is tested on Williamson's cases."""

from dataclasses import replace

import pytest
import torch

from neuralpde.files import RunFolderError, read_tensors, write_tensors
from neuralpde.shallow_water_set import ShallowWaterSet, east_north
from operators.sphere_meshes import centroidal_icosphere

SMALL = ShallowWaterSet(refinements=1, truth_refinements=2, trajectories=3, test_trajectories=1, days=5, spin_up_days=1)


@pytest.fixture(scope="module")
def records(tmp_path_factory):
    return SMALL.simulate(tmp_path_factory.mktemp("set") / "set.safetensors")


def test_shapes_and_the_division(records):
    assert (records.train.members, records.test.members, len(records.train)) == (2, 1, 20)
    assert records.train.step_hours == 6.0
    assert [v.name for v in records.train.variables] == ["height", "u_component_of_wind", "v_component_of_wind"]
    assert float(records.orography.max()) > 500.0


def test_the_mean_height_over_the_sphere_is_that_of_the_layer(records):
    area = records.train.place.areas[:, None].double()
    frames = records.train.nodes().double()
    mean = (area * (frames[..., :1] - records.orography)).sum((-2, -1)) / area.sum()
    # Mass is kept; the areas of two meshes weigh the same field a little differently.
    assert float((mean - 8000).abs().max()) < 8.0


def test_a_simulation_cut_short_goes_on_as_if_it_had_not_been(tmp_path, records):
    path = tmp_path / "cut.safetensors"

    def stop(day, days):
        if day == 5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        SMALL.simulate(path, stop)
    assert read_tensors(path)[1]["day"] == 5
    assert torch.equal(SMALL.simulate(path).train.nodes(), records.train.nodes())


def test_a_finished_simulation_is_read_and_others_are_refused(tmp_path, records):
    path = tmp_path / "set.safetensors"
    SMALL.simulate(path)
    told = []
    assert torch.equal(SMALL.simulate(path, lambda *day: told.append(day)).test.nodes(), records.test.nodes())
    assert told == []
    with pytest.raises(RunFolderError, match="other settings"):
        replace(SMALL, seed=1).simulate(path)
    write_tensors(path, {"h": torch.zeros(1)}, {})
    with pytest.raises(RunFolderError, match="other settings"):
        SMALL.simulate(path)


def test_east_and_north_are_orthonormal_tangents():
    mesh = centroidal_icosphere(1)
    basis = torch.cat([east_north(mesh), torch.nn.functional.normalize(mesh.vertices, dim=1)[:, None]], dim=1)
    assert torch.allclose(basis @ basis.transpose(1, 2), torch.eye(3, dtype=torch.float64).expand(len(basis), 3, 3), atol=1e-12)


@pytest.mark.parametrize("change", [{"trajectories": 1}, {"test_trajectories": 3}, {"days": 0}, {"spin_up_days": -1}])
def test_settings_that_make_no_set_are_refused(change):
    with pytest.raises(RunFolderError):
        replace(SMALL, **change)
