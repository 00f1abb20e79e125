"""Pictures are drawn of a sphere and of a region."""

import torch
from weather_cases import case

from neuralpde.climatology import climatology_of
from neuralpde.files import write_tensors
from neuralpde.forecast_case import ForecastCase, latitude_features
from neuralpde.forecast_figures import draw
from neuralpde.run_folder import row
from neuralpde.weather_record import Variable, WeatherRecord, regular_times
from operators.lat_lon import LatLon


def region():
    place = LatLon(torch.linspace(58, 50, 5), torch.linspace(-10, 2, 7))
    g = torch.Generator().manual_seed(0)
    values = torch.randn(1, 30, 35, 1, generator=g)
    record = WeatherRecord.of(values, regular_times("2001-01-01", 6.0, 30), place, [Variable("2m_temperature", units="K")])
    train, test = record.split(0.5, inputs=3)
    return ForecastCase("region", train, test, 3, 4, 4, climatology_of(train), latitude_features(train))


def test_curves_and_maps(tmp_path):
    for one in (case(leads=4), region()):
        variable = str(one.train.variables[0])
        rows = [
            row("t", method, metric, [1.0 + lead / 10], "m", lead_hours=hours, variable=variable)
            for method in ("persistence", "climatology", "ours")
            for metric in ("rmse", "acc")
            for lead, hours in enumerate(one.lead_hours)
        ]
        folder = tmp_path / one.name
        batch = one.windows.batch([0])
        assert [p.name for p in draw(folder, one, rows, (6.0, 12.0, 24.0))] == ["lead-times.png"]
        write_tensors(folder / "forecasts" / "ours.safetensors", {"x": batch.targets + 0.1}, {})
        pictures = draw(folder, one, rows, (6.0, 12.0, 24.0))
        assert [p.name for p in pictures] == ["lead-times.png", "map.png"]
        assert all(p.stat().st_size > 10_000 for p in pictures)
