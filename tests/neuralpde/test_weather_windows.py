"""Windows: consecutive frames of one trajectory, all of them once, never across a cut."""

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from neuralpde.weather_place import MeshNodes
from neuralpde.weather_record import InMemory, Variable, WeatherError, WeatherRecord, regular_times
from neuralpde.weather_windows import Windows
from operators import icosphere

PLACE = MeshNodes(icosphere(0))


def numbered(count=10, members=2, lazy=False):
    """Each value is 1000 times the number of its trajectory plus that of its frame."""
    frame = 1000 * torch.arange(members)[:, None] + torch.arange(count)
    values = frame[..., None, None].expand(-1, -1, 12, 1).float()
    times = regular_times("2020-01-01", 6, count)
    if lazy:
        return WeatherRecord.over(Lazy(values), PLACE, (Variable("x"),), times)
    return WeatherRecord.of(values, times, PLACE, [Variable("x")])


class Lazy(InMemory):
    """Not taken for one that is in memory."""


@pytest.mark.parametrize("stride", [1, 2, 3])
def test_windows_are_all_consecutive_pieces(stride):
    record = numbered()
    windows = Windows(record, 2, 3, stride)
    assert len(windows) == 2 * len(range(0, 6, stride))
    assert windows.lead_hours == [6.0, 12.0, 18.0]
    seen = []
    for batch in windows.batches(4):
        frames = torch.cat([batch.inputs, batch.targets], dim=1)[:, :, 0, 0]
        assert (frames.diff(dim=1) == 1).all()
        seen += frames[:, 0].tolist()
        lead = (batch.times - np.datetime64("2020-01-01", "ns")) / np.timedelta64(6, "h")
        assert np.array_equal(lead, batch.targets[:, :, 0, 0].numpy() % 1000)
    assert seen == [1000 * member + start for member in range(2) for start in range(0, 6, stride)]


def test_they_are_a_dataset_of_torch():
    windows = Windows(numbered(), 2, 3)
    inputs, targets = next(iter(DataLoader(windows, batch_size=5)))
    batch = windows.batch(range(5))
    assert torch.equal(inputs, batch.inputs)
    assert torch.equal(targets, batch.targets)
    assert torch.equal(windows[-1][0], windows[len(windows) - 1][0])
    with pytest.raises(IndexError):
        windows[len(windows)]


def test_samples_come_from_the_generator_alone():
    windows = Windows(numbered(), 1, 2)
    draws = [windows.sample(6, torch.Generator().manual_seed(seed)) for seed in (3, 3, 4)]
    assert torch.equal(draws[0].inputs, draws[1].inputs)
    assert not torch.equal(draws[0].inputs, draws[2].inputs)


def test_lazy_records_give_the_same():
    lazy = [Windows(numbered(lazy=lazy), 2, 2).batch([0, 9, 3]) for lazy in (False, True)]
    assert torch.equal(lazy[0].inputs, lazy[1].inputs)
    assert torch.equal(lazy[0].targets, lazy[1].targets)


def test_no_window_aims_before_the_cut():
    train, test = numbered().split(0.6, inputs=2)
    trained = {float(x) for batch in Windows(train, 2, 1).batches(99) for x in batch.targets.unique()}
    tested = {float(x) for batch in Windows(test, 2, 1).batches(99) for x in batch.targets.unique()}
    assert tested == {1000.0 * k + t for k in range(2) for t in (6, 7, 8, 9)}, "every frame after the cut is aimed at"
    assert not trained & tested
    with pytest.raises(WeatherError, match=r"split\(..., inputs=1\)"):
        Windows(test, 1, 1)


@pytest.mark.parametrize(("inputs", "leads", "stride"), [(0, 1, 1), (1, 0, 1), (1, 1, 0), (1.0, 1, 1), (6, 5, 1)])
def test_bad_sizes_are_refused(inputs, leads, stride):
    with pytest.raises(WeatherError, match=r"whole number|does not fit"):
        Windows(numbered(), inputs, leads, stride)
