from pathlib import Path

import pytest
import torch

from neuralpde.pa_dgn_methods import (
    GraphDynamicsMethod,
    MeshRecurrentGraphMethod,
    PADGNMethod,
    RecurrentGraphMethod,
    StandardRecurrentGraphMethod,
    Surroundings,
    scheduled_share,
)
from neuralpde.sensor_case import SensorCase
from neuralpde.sensor_placement import Placement


def case(name: str, seed: int, n: int = 7, channels: int = 1) -> SensorCase:
    random = torch.Generator().manual_seed(seed)
    placement = Placement(name, torch.rand(n, 2, generator=random, dtype=torch.float64) * 5 + 45, earth=True)
    seen = torch.rand(4, 6, n, channels, generator=random) > 0.2
    values = torch.randn(4, 6, n, channels, generator=random) * seen
    times = torch.arange(6, dtype=torch.float64).expand(4, 6)
    return SensorCase(name, placement, values, seen, times, given=4)


@pytest.mark.parametrize(
    "method",
    [
        RecurrentGraphMethod(steps=2, width=4),
        StandardRecurrentGraphMethod(steps=2, width=4),
        MeshRecurrentGraphMethod(steps=2, width=4),
        PADGNMethod(steps=2, width=4, differences=2),
    ],
    ids=lambda method: method.name,
)
def test_each_learns_and_forecasts_where_it_never_learned(method: GraphDynamicsMethod, tmp_path: Path) -> None:
    train, validation, test = [case("a", 0), case("b", 1, n=8)], [case("a", 2)], case("c", 3, n=9)
    fitted = [
        method.fit(train, validation, 0, tmp_path / f"{k}.safetensors", lambda *a: None).forecast(test.inputs) for k in range(2)
    ]
    assert fitted[0].shape == (4, 2, 9, 1)
    assert bool(torch.isfinite(fitted[0]).all())
    assert torch.equal(*fitted)
    # Windows are forecast each by itself, so that none may see another's future.
    forecaster = method.fit(train, validation, 0, tmp_path / "0.safetensors", lambda *a: None)
    torch.testing.assert_close(forecaster.forecast(test.some(slice(0, 1)).inputs), fitted[0][:1], rtol=1e-4, atol=1e-5)


def test_several_channels(tmp_path: Path) -> None:
    method, one = PADGNMethod(steps=1, width=4, differences=2), case("a", 0, channels=2)
    forecast = method.fit([one], [one], 0, tmp_path / "k.safetensors", lambda *a: None).forecast(one.inputs)
    assert forecast.shape == (4, 2, 7, 2)


def test_a_graph_receives_along_its_rows_from_its_columns() -> None:
    placement = case("a", 0).placement
    graph = Surroundings.of([placement], 3, triangulated=True).graph(placement)
    source, target = placement.graph(3).edge_index
    assert {*zip(target.tolist(), source.tolist(), strict=True)} == {
        *zip(graph.pattern.row.tolist(), graph.pattern.col.tolist(), strict=True)
    }
    assert graph.positions.mean(0).abs().max() < 1e-5
    assert abs(float(graph.positions.square().sum(1).mean()) - 1) < 1e-5


def test_half_of_the_frames_are_true_at_epoch_500() -> None:
    shares = [scheduled_share(epoch) for epoch in (0, 500, 2000, 1e6)]
    assert shares == sorted(shares, reverse=True)
    assert abs(shares[1] - 0.5) < 1e-3
    assert shares[0] > 0.99
    assert shares[3] < 1e-9
