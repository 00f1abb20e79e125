"""The harness: its numbers, resuming, who is tested where, divergence, and what it refuses."""

import json
import math
from dataclasses import dataclass, replace
from io import StringIO
from typing import ClassVar

import pytest
import torch
from rich.console import Console
from sensor_cases import case, scattered, with_gaps

from neuralpde.files import RunFolderError, write_tensors
from neuralpde.run_folder import RunFolder
from neuralpde.sensor_baselines import JointVar, Persistence, Var
from neuralpde.sensor_method import Forecaster, SensorMethod
from neuralpde.sensor_networks import Mlp
from neuralpde.sensor_table import run_sensor_table

PLACES = [scattered(8, 0), scattered(8, 1)]
MLP = Mlp(steps=4, width=4)


@pytest.fixture(autouse=True)
def without_report(request, monkeypatch):
    """Pictures take longer than all the rest."""
    if "pictures" not in request.keywords:
        monkeypatch.setattr("neuralpde.sensor_report.write_sensor_report", lambda *given: "no report")


def cases(name, start, windows=12, places=PLACES):
    return [case(f"{name}-{k}", start, windows, placement=place, seed=k) for k, place in enumerate(places)]


def everything():
    tests = {"": cases("test", 90), "unseen": [case("unseen", 90, 12, placement=scattered(6, 7))]}
    return cases("train", 0, 30), cases("validation", 60), tests


def run(folder, methods, data=None, **more):
    console = Console(file=StringIO(), width=140)
    rows = run_sensor_table("tiny", methods, *(data or everything()), folder, console=console, **more)
    return {(one["table"], one["method"], one["metric"], one.get("horizon")): one for one in rows}, console.file.getvalue()


def fresh(path):
    folder = RunFolder(path)
    folder.check()
    return folder


def test_rows(tmp_path):
    path = tmp_path / "run"
    rows, text = run(
        fresh(path),
        [Persistence(), Var(), JointVar(), MLP],
        seeds=2,
        horizons=(1, 4),
        published={("", "mlp", "mae", 4): 0.5},
    )
    tests = everything()[2][""]
    errors = [(one.values[:, 6:] - one.values[:, 5:6]).abs().double().mean(dim=(0, 2, 3)) for one in tests]
    for h in (1, 4):
        one = rows["tiny", "persistence", "mae", h]
        values = [float(error[:h].mean()) for error in errors]
        assert one["value"] == pytest.approx(sum(values) / 2)
        assert one["std"] == pytest.approx(abs(values[0] - values[1]) / math.sqrt(2))
        assert one["n"] == 2
        assert one["cases"] == pytest.approx({"test-0": values[0], "test-1": values[1]})
    mlp = rows["tiny", "mlp", "mae", 4]
    assert (mlp["n"], mlp["published"]) == (4, 0.5)
    assert mlp["against_persistence"] == pytest.approx(1 - mlp["value"] / rows["tiny", "persistence", "mae", 4]["value"])
    unseen = rows["tiny-unseen", "mlp", "mae", 4]
    assert unseen["against_complete"] == pytest.approx(unseen["value"] / mlp["value"] - 1)
    assert ("tiny-unseen", "joint-var", "mae", 4) not in rows
    assert rows["tiny", "joint-var", "mae", 4]["value"] < rows["tiny", "persistence", "mae", 4]["value"]
    assert rows["tiny", "mlp", "parameters", None]["value"] == 3 * 4 + 5 * 4 + 5
    assert "tiny-unseen" in text
    written = json.loads((path / "table.json").read_text())
    assert len(written["rows"]) == len(rows)


def test_resumed_nothing_is_computed_again(tmp_path, monkeypatch):
    first, _ = run(fresh(tmp_path / "run"), [Persistence(), MLP], seeds=1)
    monkeypatch.setattr(Mlp, "fit", None)
    second, _ = run(RunFolder(tmp_path / "run", resume=True), [Persistence(), MLP], seeds=1)
    assert first == second


def test_other_data_are_refused(tmp_path):
    run(fresh(tmp_path / "run"), [Persistence()])
    train, validation, tests = everything()
    tests = {"": [with_gaps(one) for one in tests[""]], "unseen": tests["unseen"]}
    with pytest.raises(RunFolderError, match="other settings or data"):
        run(RunFolder(tmp_path / "run", resume=True), [Persistence()], (train, validation, tests))


def test_a_damaged_part_is_named(tmp_path):
    run(fresh(tmp_path / "run"), [Persistence()])
    part = tmp_path / "run" / "seeds" / "persistence-0.json"
    record = json.loads(part.read_text())
    del record["result"]["parameters"]
    part.write_text(json.dumps(record))
    with pytest.raises(RunFolderError, match=r"persistence-0\.json is damaged"):
        run(RunFolder(tmp_path / "run", resume=True), [Persistence()])


def test_lost_forecasts_are_made_again(tmp_path):
    first, _ = run(fresh(tmp_path / "run"), [Persistence()])
    path = tmp_path / "run" / "forecasts" / "persistence-0.safetensors"
    path.write_bytes(b"broken")
    second, _ = run(RunFolder(tmp_path / "run", resume=True), [Persistence()])
    assert path.stat().st_size > 10
    key = ("tiny", "persistence", "mae", 4)
    assert first[key]["value"] == second[key]["value"]


@dataclass(frozen=True)
class Places(SensorMethod):
    """Forecasts the number of its training placements."""

    name: ClassVar[str] = "places"
    random: ClassVar[bool] = False

    def fit(self, train, validation, seed, checkpoint, told):
        return Number(float(sum(100 if len(train) > 1 else PLACES.index(one.placement) + 1 for one in train)))


class Number(Forecaster):
    def __init__(self, value):
        self.value = value

    def forecast(self, given):
        return torch.full((len(given.values), given.wanted.shape[1], *given.values.shape[2:]), self.value)


def shifted(one, value):
    return replace(one, values=torch.full_like(one.values, value))


@pytest.mark.parametrize("separately", [(), ("places",)])
def test_who_is_tested_where(tmp_path, separately):
    train, validation, tests = everything()
    tests = {name: [shifted(one, 0.0) for one in of] for name, of in tests.items()}
    rows, _ = run(fresh(tmp_path / "run"), [Places()], (train, validation, tests), separately=separately)
    found = rows["tiny", "places", "mae", 4]["cases"]
    assert found == ({"test-0": 1, "test-1": 2} if separately else {"test-0": 200, "test-1": 200})
    assert rows["tiny-unseen", "places", "mae", 4]["value"] == (1 if separately else 200)


@dataclass(frozen=True)
class Exploding(SensorMethod):
    name: ClassVar[str] = "exploding"
    in_training: bool = True

    def fit(self, train, validation, seed, checkpoint, told):
        if self.in_training:
            raise FloatingPointError("the loss is nan")
        return Number(math.nan)


@pytest.mark.parametrize("in_training", [True, False])
def test_what_diverges_is_a_row(tmp_path, in_training):
    rows, text = run(fresh(tmp_path / "run"), [Persistence(), Exploding(in_training)], seeds=2)
    one = rows["tiny", "exploding", "mae", 4]
    assert (one["value"], one["std"], one["diverged"]) == (None, None, 1)
    assert "diverged" in text
    again, _ = run(RunFolder(tmp_path / "run", resume=True), [Persistence(), Exploding(in_training)], seeds=2)
    assert again == rows


def test_a_method_sees_no_target(tmp_path):
    """Perturbed targets change no forecast."""
    train, validation, tests = everything()
    kept = []
    for k, change in enumerate((0.0, 3.0)):
        altered = {}
        for name, of in tests.items():
            altered[name] = []
            for one in of:
                values = one.values.clone()
                values[:, 6:] += change
                altered[name].append(replace(one, values=values))
        run(fresh(tmp_path / f"run{k}"), [MLP, JointVar()], (train, validation, altered), seeds=1)
        kept.append([path.read_bytes() for path in sorted((tmp_path / f"run{k}" / "forecasts").iterdir())])
    assert kept[0] == kept[1]


def test_prefixes_share_a_folder(tmp_path):
    folder = fresh(tmp_path / "run")
    run(folder, [Persistence()], prefix="a-", finish=False)
    assert not (tmp_path / "run" / "table.json").exists()
    run(folder, [Persistence()], prefix="b-", finish=False, horizons=(1,))
    assert {path.name for path in folder.parts.iterdir()} == {"a-persistence-0.json", "b-persistence-0.json"}


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (lambda m, a, v, t: ([*m, *m], a, v, t), "two methods are called"),
        (lambda m, a, v, t: ([], a, v, t), "no method"),
        (lambda m, a, v, t: (m, a, v[:1], t), "one of each for every placement"),
        (lambda m, a, v, t: (m, a, v[::-1], t), "other sensors"),
        (lambda m, a, v, t: (m, a, v, {}), "nothing to test on"),
        (lambda m, a, v, t: (m, a, v, {"": [*t[""], t[""][0]]}), "its own name"),
        (lambda m, a, v, t: (m, a, v, {"": [t[""][0].some(slice(0, 0))]}), "no window"),
    ],
)
def test_what_it_refuses(tmp_path, change, text):
    methods, *data = change([Persistence()], *everything())
    with pytest.raises(RunFolderError, match=text):
        run(fresh(tmp_path / "run"), methods, data)
    assert not (tmp_path / "run").exists()


def test_foreign_weights_are_refused(tmp_path):
    run(fresh(tmp_path / "run"), [MLP], seeds=1)
    (tmp_path / "run" / "seeds" / "mlp-0.json").unlink()
    for path in (tmp_path / "run" / "weights").iterdir():
        write_tensors(path, {"losses": torch.zeros(1)}, {"identity": "another"})
    with pytest.raises(RunFolderError, match="another training"):
        run(RunFolder(tmp_path / "run", resume=True), [MLP], seeds=1)


def test_nothing_to_score_is_no_divergence(tmp_path):
    train, validation, tests = everything()
    silent = tests["unseen"][0]
    seen = silent.seen.clone()
    seen[:, 6:, 2] = False
    silent = replace(silent, seen=seen, values=torch.where(seen, silent.values, 0.0), scored=torch.arange(6) == 2)
    with pytest.raises(RunFolderError, match="nothing was measured"):
        run(fresh(tmp_path / "run"), [Persistence()], (train, validation, tests | {"unseen": [silent]}))
