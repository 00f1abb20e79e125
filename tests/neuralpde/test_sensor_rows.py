"""Which rows a command runs, and that none of them leaks."""

import pytest

from neuralpde.files import RunFolderError
from neuralpde.sensor_leaks import leaks_of_method
from neuralpde.sensor_rows import chosen, sst_methods, station_methods
from neuralpde.station_cases import StationSplit, to_cases
from neuralpde.station_synthetic import SyntheticStations

WANTED = [
    "persistence", "climatology", "var", "joint-var", "standard-op", "mesh-op", "least-squares", "sdl", "mlp", "gru", "gru-clock",
    "gn", "rgn", "rgn-standard-op", "rgn-mesh-op", "pa-dgn", "ours",
]  # fmt: skip


def test_every_row_once_ours_last():
    names = [method.name for method in station_methods(40)]
    assert names == WANTED
    assert {"climatology", "gru-clock"} == set(names) - {method.name for method in sst_methods(40)}


def test_some_of_them_and_shorter():
    picked = chosen(station_methods(40), ("mlp",), 3)
    assert [method.name for method in picked] == ["persistence", "mlp"]
    assert picked[1].steps == 3
    assert len(chosen(station_methods(40), (), None)) == len(station_methods(40))
    with pytest.raises(RunFolderError, match="no method nonsense here: choose from persistence"):
        chosen(station_methods(40), ("nonsense",), None)


@pytest.mark.parametrize("name", [name for name in WANTED if name != "ours" and not name.startswith("rgn")])
def test_no_row_knows_what_it_must_not(tmp_path, name):
    split = StationSplit(given=6, horizon=3, stride=7)
    record = SyntheticStations(stations=7, frames=150, missing=0.05).record()
    (method,) = (one for one in chosen(station_methods(40), (name,), 1) if one.name == name)
    assert leaks_of_method(method, lambda one: to_cases(one, split), record, tmp_path) == ()
