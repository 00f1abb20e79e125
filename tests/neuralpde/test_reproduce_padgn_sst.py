"""The command on a file of the Pacific's layout."""

from dataclasses import replace
from io import StringIO

import numpy as np
import pytest
from rich.console import Console

from neuralpde.files import RunFolderError
from neuralpde.reproduce_padgn_sst import SstSettings, reproduce_sst
from neuralpde.station_samples import PACIFIC


@pytest.fixture
def pacific(tmp_path):
    rng = np.random.default_rng(0)
    latitude, longitude = rng.uniform(-20, 20, 12), rng.uniform(150, 250, 12)
    month = np.arange(120)[:, None]
    sst = np.sin(month / 7 + longitude / 30) + 0.1 * rng.standard_normal((120, 12))
    path = tmp_path / PACIFIC
    np.savez(path, sst=sst, lat=latitude, lon=longitude, date0="1970-01")
    return path


def test_it_runs(tmp_path, pacific, monkeypatch):
    monkeypatch.setattr("neuralpde.sensor_report.write_sensor_report", lambda *given: "no report")
    settings = SstSettings(
        pacific, sensors=10, seeds=1, methods=("var", "mlp"), steps=2, horizon=4, out=tmp_path / "run", held_out=0.3
    )
    console = Console(file=StringIO(), width=140)
    rows = {(one["table"], one["method"], one.get("horizon")): one for one in reproduce_sst(settings, console)}
    assert rows["padgn-sst", "var", 4]["value"] < rows["padgn-sst", "persistence", 4]["value"]
    assert rows["padgn-sst-held-out", "mlp", 1]["value"] > 0
    assert "North Atlantic" in console.file.getvalue()


@pytest.mark.parametrize(("change", "text"), [({"seeds": 0}, "--seeds"), ({"held_out": 1.0}, "--held-out")])
def test_what_it_refuses(change, text):
    with pytest.raises(RunFolderError, match=text):
        replace(SstSettings(), **change)


def test_the_papers_horizons():
    assert SstSettings().horizons == (1, 15, 25)
