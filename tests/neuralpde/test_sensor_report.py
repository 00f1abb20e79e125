"""The printed lines, and the page with its pictures."""

import math
from io import StringIO

import pytest
from rich.console import Console
from sensor_cases import case, with_gaps

from neuralpde.run_folder import RunFolder
from neuralpde.sensor_baselines import Persistence, Var
from neuralpde.sensor_networks import Mlp
from neuralpde.sensor_report import lines, number, shown_methods
from neuralpde.sensor_score import Score
from neuralpde.sensor_table import run_sensor_table


def test_numbers():
    assert number(None) == number(math.inf) == "diverged"
    assert [number(value) for value in (0.12345, 1.23456, 123.4, 1e6, 1e-5)] == ["0.1235", "1.235", "123", "1.0e+06", "1.0e-05"]


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    folder = RunFolder(tmp_path_factory.mktemp("report") / "run")
    folder.check()
    test = case("test", 90, 12)
    tests = {"": [test], "missing": [with_gaps(test)]}
    console = Console(file=StringIO(), width=120)
    rows = run_sensor_table(
        "tiny", [Persistence(), Var(), Mlp(steps=2, width=4)], [case()], [case("validation", 60, 8)], tests, folder, seeds=2,
        horizons=(1, 4), published={("", "var", "mae", 4): 0.168}, note="A note & more.", title="Tiny", console=console,
    )  # fmt: skip
    return folder.path, rows, console.file.getvalue()


def test_the_page_holds_tables_and_pictures(page):
    path, _, text = page
    html = (path / "report.html").read_text()
    assert html.count("data:image/png") == 6
    assert "A note &amp; more." in html
    assert "tiny-missing" in html
    assert "http://" not in html.replace("http://www.w3.org", "")
    assert sorted(one.name for one in (path / "figures").iterdir()) == sorted(
        f"{test}-{kind}.png" for test in ("test", "missing") for kind in ("lead", "map", "traces")
    )
    assert "report.html" in text.replace("\n", "")


def test_lines(page):
    _, rows, text = page
    header, cells = lines("tiny", "", rows, (1, 4), "mae")
    assert header == ["method", "MAE 1", "MAE 1..4", "MSE 1..4", "change", "paper", "params", "s"]
    assert [line[0] for line in cells] == ["persistence", "var", "mlp"]
    assert cells[1][5] == "0.168"
    assert "±" in cells[2][1]
    header, cells = lines("tiny", "missing", rows, (1, 4), "mse")
    assert header == ["method", "MSE 1", "MSE 1..4", "MAE 1..4", "change", "rise", "params", "s"]
    assert cells[0][5].endswith("%")
    assert "tiny-missing: 8 sensors, 12 windows, 6 frames in, 4 out, unit z" in text


def test_shown_methods():
    def score(value):
        return Score([value], [value], [1.0], [value], 0.0)

    scores = {name: score(value) for name, value in zip("abcdef", (3, 1, 2, math.nan, 5, 4), strict=True)}
    scores |= {"persistence": score(9.0), "ours": score(8.0)}
    assert shown_methods(scores) == ["a", "b", "c", "persistence", "ours"]
