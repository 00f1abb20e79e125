"""Stations without data: the same for the same settings, and with the promised defects."""

from dataclasses import replace

import pytest
import torch

from neuralpde.station_checks import StationError
from neuralpde.station_synthetic import SyntheticStations


def test_a_value_makes_one_record() -> None:
    one, same, other = SyntheticStations().record(), SyntheticStations().record(), SyntheticStations(seed=1).record()
    assert torch.equal(one.values, same.values)
    assert not torch.equal(one.values, other.values)


def test_gaps_and_outages() -> None:
    record = SyntheticStations(missing=0.3, outages=0.2, frames=600).record()
    # Binomial, 18,000 and 600 draws: five standard deviations.
    assert abs(record.coverage - 0.7) < 0.017
    assert abs(len(record) / 600 - 0.8) < 0.082
    assert float(record.hours.diff().max()) > float(record.hours.diff().min()) == 1.0


def test_two_variables() -> None:
    record = SyntheticStations(variables=2).record()
    assert [str(v) for v in record.variables] == ["t", "p"]
    assert 900 < float(record.values[..., 1].mean()) < 1100


def test_upwind_stations_know_what_comes() -> None:
    # What the wind carries decorrelates slower along its path than at a fixed place.
    record = SyntheticStations(stations=60, frames=960, noise=0.0, wind=(40.0, 0.0)).record()
    hour = 2 * torch.pi * record.hours / 24
    design = torch.stack([torch.ones_like(hour), hour.cos(), hour.sin()], dim=1)
    values = record.values[..., 0]
    weather = values - design @ torch.linalg.lstsq(design, values).solution
    lag = 5
    edges = record.placement.graph(6).edge_index
    offset = record.placement.offsets(edges)  # from target to source
    upwind = (offset[:, 0] < -100) & (offset[:, 1].abs() < 60)
    source, target = edges[:, upwind]
    score = torch.nn.functional.cosine_similarity
    moved = score(weather[:-lag, source], weather[lag:, target], dim=0).mean()
    stayed = score(weather[:-lag, target], weather[lag:, target], dim=0).mean()
    assert float(moved) > float(stayed) + 0.1


@pytest.mark.parametrize("change", [{"stations": 1}, {"missing": 1.0}, {"variables": 3}, {"hours": 0.0}], ids=str)
def test_bad_settings(change: dict[str, float]) -> None:
    with pytest.raises(StationError):
        replace(SyntheticStations(), **change)  # type: ignore[arg-type]
