"""Sets are divided as they say; methods are chosen by name; what is missing is said."""

import os
from pathlib import Path

import pytest
import torch

from neuralpde.files import RunFolderError
from neuralpde.forecast_sets import BRITAIN, britain, ensemble, find, parsed, shallow_water, shorter, weatherbench
from neuralpde.shallow_water_set import ShallowWaterSet
from neuralpde.weather_record import InMemory, Variable, WeatherError, WeatherRecord
from neuralpde.weather_synthetic import SyntheticWeather, make_weather
from neuralpde.weather_writing import write_weather

DATA = Path(os.environ.get("NEURALPDE_DATA", "data"))
real = pytest.mark.skipif(not (DATA / "sensors" / BRITAIN).is_file(), reason="the ERA5 samples are not in NEURALPDE_DATA")


@real
def test_britain_trains_on_three_weeks_and_aims_at_later_times_only():
    case = britain(DATA).case
    assert len(case.train) == 21 * 24
    first = case.windows.batch([0])
    assert first.times[0, 0] > case.train.times[-1]
    assert case.lead_hours[-1] == 48.0


@real
def test_the_ensemble_aims_at_the_last_two_times():
    prepared = ensemble(DATA)
    case = prepared.case
    assert (len(case.train), case.lead_hours, len(case.windows)) == (2, [12.0, 24.0], 10)
    assert case.windows.batch([0]).times.min() > case.train.times.max()
    assert "no more" in prepared.note


def test_a_store_and_a_choice_of_methods(tmp_path):
    make_weather(SyntheticWeather(out=tmp_path / "w.zarr", rows=9, columns=16, days=60))
    prepared = weatherbench(tmp_path / "w.zarr", ("geopotential:500",), None, 2)
    assert prepared.case.train.times[-1] < prepared.case.windows.batch([0]).times[0, 0]
    assert isinstance(prepared.case.test.source, InMemory), "not read again for every window"
    chosen = shorter(prepared, ("gcn", "ours"), 7)
    assert [m.name for m in chosen.methods] == ["persistence", "climatology", "gcn", "ours"], "no table without what is trivial"
    assert "steps=7" in repr(chosen.methods[2])
    assert len(shorter(prepared, (), None).methods) == 6
    with pytest.raises(RunFolderError, match="no method pangu"):
        shorter(prepared, ("pangu",), None)
    with pytest.raises(WeatherError, match="fewer --days"):
        weatherbench(tmp_path / "w.zarr", ("geopotential:500",), None, 30)


def test_names_and_files(tmp_path):
    assert parsed("geopotential:500").matches(Variable("geopotential", 500))
    assert parsed("2m_temperature").matches(Variable("2m_temperature"))
    for wrong in ("", ":500", "z:high"):
        with pytest.raises(RunFolderError, match="no variable"):
            parsed(wrong)
    with pytest.raises(RunFolderError, match="--data"):
        find(tmp_path, BRITAIN)
    (tmp_path / BRITAIN).touch()
    assert find(tmp_path, BRITAIN) == find(tmp_path / BRITAIN, BRITAIN)


@pytest.mark.parametrize(("hours", "shown"), [(5.0, (5.0, 25.0, 70.0)), (36.0, (36.0, 72.0)), (24.0, (24.0, 72.0))])
def test_the_hours_that_are_shown_are_lead_times(tmp_path, hours, shown):
    make_weather(SyntheticWeather(out=tmp_path / "w.zarr", rows=5, columns=8, days=90, hours=hours))
    prepared = weatherbench(tmp_path / "w.zarr", ("2m_temperature",), None, 3)
    assert prepared.shown == shown
    assert set(shown) <= set(prepared.case.lead_hours)


def test_trajectories_too_short_to_forecast_are_refused_before_they_are_simulated(tmp_path):
    with pytest.raises(RunFolderError, match="--days must be at least 2"):
        shallow_water(ShallowWaterSet(days=1), tmp_path / "w.safetensors", lambda day, days: pytest.fail("simulated"))


def test_nothing_after_the_cut_reaches_what_is_learned(tmp_path):
    record = SyntheticWeather(rows=5, columns=8, days=30).record()
    values = record.fields()
    values[:, 80:] += 100 * torch.randn(values[:, 80:].shape)
    other = WeatherRecord.of(values, record.times, record.place, record.variables)
    learned = []
    for name, weather in (("true", record), ("other", other)):
        write_weather(weather, tmp_path / name)
        prepared = weatherbench(tmp_path / name, ("2m_temperature",), str(record.times[80]), 2)
        methods = shorter(prepared, (), 1).methods
        learned.append([m.fit(prepared.case, 0, tmp_path / f"{name}-{m.name}", lambda *told: None).forecast for m in methods])
        if name == "true":
            start = prepared.case.windows.batch([0])
    for method, true, changed in zip(methods, *learned, strict=True):
        assert torch.equal(true(start.inputs, start.times), changed(start.inputs, start.times)), method.name
