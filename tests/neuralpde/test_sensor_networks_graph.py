"""The graph network at sensors: it starts as persistence, does not know the order of sensors, and learns."""

import torch
from sensor_cases import case, fit, scattered, with_gaps

from neuralpde.sensor_baselines import Persistence
from neuralpde.sensor_networks_graph import Gn, GraphStep
from neuralpde.sensor_placement import Placement
from neuralpde.sensor_score import score
from operators.difference_graph import DifferenceGraph, KNearest


def test_it_starts_as_persistence():
    torch.manual_seed(0)
    graph = DifferenceGraph(scattered().cloud, KNearest(3))
    frames = torch.randn(2, 5, 8, 1)
    assert torch.equal(GraphStep(1, 8)(frames, 3, graph), frames[:, -1:].expand(-1, 3, -1, -1))


def test_renaming_the_sensors_renames_the_forecast(tmp_path):
    found = fit(Gn(steps=4, width=8), folder=tmp_path)
    one, order = case(windows=2), torch.tensor([3, 1, 0, 2, 7, 6, 5, 4])
    renamed = case(windows=2, placement=Placement("renamed", one.placement.points[order], True))
    given = renamed.inputs
    given.values.copy_(one.values[:, :6, order])
    # Sums over neighbours in another order, in float32.
    torch.testing.assert_close(found.forecast(given), found.forecast(one.inputs)[:, :, order], atol=1e-5, rtol=1e-5)


def test_it_beats_persistence_anywhere(tmp_path):
    found, persistence = fit(Gn(steps=70, width=32, learning_rate=1e-2), folder=tmp_path), fit(Persistence(), folder=tmp_path)
    for test in (case("test", 90, 20), case("elsewhere", 90, 20, placement=scattered(9, seed=4))):
        assert score(found, test).value("mae", 4) < 0.9 * score(persistence, test).value("mae", 4)
    assert bool(found.forecast(with_gaps(case(windows=3)).inputs).isfinite().all())
    assert found.parameters > 0
