"""Sets are divided as they say; methods are chosen by name; what is missing is said."""

import os
from pathlib import Path

import pytest

from neuralpde.files import RunFolderError
from neuralpde.forecast_sets import BRITAIN, britain, ensemble, find, parsed, shorter, weatherbench
from neuralpde.weather_record import Variable, WeatherError
from neuralpde.weather_synthetic import SyntheticWeather, make_weather

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
    chosen = shorter(prepared, ("gcn", "ours"), 7)
    assert [m.name for m in chosen.methods] == ["gcn", "ours"]
    assert "steps=7" in repr(chosen.methods[0])
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
