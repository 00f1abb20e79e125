"""The harness on tiny meshes: its numbers against the metrics, resuming, divergence, and what it refuses."""

import json
import math
from dataclasses import dataclass, replace
from io import StringIO
from typing import ClassVar

import pytest
import torch
from rich.console import Console

from neuralpde.files import RunFolderError, read_tensors, write_tensors
from neuralpde.mesh_baselines import Persistence, Untrained, Zero
from neuralpde.mesh_baselines_stencils import OwnRate, Rate
from neuralpde.mesh_networks_gcn import Gcn
from neuralpde.mesh_table import run_table
from neuralpde.metrics import PublishedRayleigh, nrmse, rayleigh_error, smape
from neuralpde.run_folder import RunFolder
from neuralpde.testing_mesh_cases import small_case
from operators import TriangleMesh, bumpy, icosphere, torus

GCN = Gcn(width=6, layers=2, steps=6)


@pytest.fixture(scope="module")
def train():
    return [small_case("ball"), small_case("ring", bumpy(torus(8, 5), 0.1))]


@pytest.fixture(scope="module")
def test():
    return [small_case("unseen", bumpy(icosphere(1), 0.3, seed=5), seed=9, frames=20)]


@pytest.fixture
def without_report(monkeypatch):
    """Pictures take longer than all the rest."""
    monkeypatch.setattr("neuralpde.mesh_report.write_mesh_report", lambda *given: None)


def run(folder, methods, train, test, **more):
    console = Console(file=StringIO(), width=120)
    rows = run_table("tiny", methods, train, test, folder, console=console, **more)
    return {(row["method"], row["metric"]): row for row in rows}, console.file.getvalue()


@pytest.fixture(scope="module")
def whole(tmp_path_factory, train, test):
    path = tmp_path_factory.mktemp("table") / "run"
    folder = RunFolder(path, json=path.parent / "rows.json")
    folder.check()
    methods = [Zero(), Persistence(), Rate(), OwnRate(), GCN]
    return path, *run(folder, methods, train, test, seeds=2, published={("gcn", "nrmse"): 51.9})


def test_the_numbers_are_the_metrics(whole, test):
    _, rows, _ = whole
    case = test[0]
    truth = case.clean[:, 5:].double().transpose(0, 1)
    prediction = case.frames[:, 4].double().expand_as(truth)
    quotient = PublishedRayleigh(case.scene.robust.to_wide(truth))
    assert rows["persistence", "nrmse"]["value"] == pytest.approx(float(nrmse(prediction, truth).sum(0).mean()))
    expected = rayleigh_error(prediction, truth, quotient).sum(0).mean()
    assert rows["persistence", "rayleigh_error"]["value"] == pytest.approx(float(expected))
    assert rows["persistence", "smape"]["value"] == pytest.approx(float(smape(prediction, truth).sum(0).mean()))
    assert rows["zero", "nrmse"]["value"] == pytest.approx(15, rel=1e-4)
    assert 0 < rows["persistence", "mass_error"]["value"] < rows["zero", "mass_error"]["value"] <= 1
    assert rows["stencil-rate", "nrmse"]["value"] < 1e-3
    assert rows["stencil-rate", "parameters"]["value"] == 1


def test_every_seed_of_what_is_random_and_one_of_the_rest(whole):
    path, rows, text = whole
    assert rows["gcn", "nrmse"]["n"] == 2
    assert rows["gcn", "nrmse"]["std"] > 0
    assert rows["zero", "nrmse"]["n"] == rows["stencil-rate", "nrmse"]["n"] == 1
    assert rows["gcn", "nrmse"]["published"] == 51.9
    assert set(rows["gcn", "nrmse"]["meshes"]) == {"unseen"}
    written = json.loads((path / "table.json").read_text())
    assert written == json.loads((path.parent / "rows.json").read_text())
    assert {row["method"] for row in written["rows"]} == {"zero", "persistence", "stencil-rate", "stencil-rate-own", "gcn"}
    assert "stencil-rate-own" in text
    assert (path / "report.html").stat().st_size > 10_000
    assert {figure.name for figure in (path / "figures").iterdir()} >= {"loss.png", "rayleigh.png", "error.png"}


def test_resuming_gives_an_uninterrupted_run(whole, without_report, train, test, tmp_path):
    _, rows, _ = whole
    folder = RunFolder(tmp_path / "run")

    @dataclass(frozen=True)
    class Killed(Gcn):
        def fit(self, cases, seed, checkpoint, told):
            def stop(step, steps, loss):
                if seed == 1 and step == 4:
                    raise KeyboardInterrupt
                told(step, steps, loss)

            return super().fit(cases, seed, checkpoint, stop)

        def __repr__(self):
            return repr(GCN)

    with pytest.raises(KeyboardInterrupt):
        run(folder, [Zero(), Killed(width=6, layers=2, steps=6)], train, test, seeds=2)
    with pytest.raises(RunFolderError, match="--resume"):
        folder.check()
    again = replace(folder, resume=True)
    again.check()
    resumed, _ = run(again, [Zero(), GCN], train, test, seeds=2)
    for key, row in resumed.items():
        if key[1] != "seconds":
            assert row | {"published": None} == rows[key] | {"published": None}
    # What is finished is not computed again, and nothing else may be put in its place.
    once_more, _ = run(again, [Zero(), GCN], train, test, seeds=2)
    assert once_more == resumed
    with pytest.raises(RunFolderError, match="other settings"):
        run(again, [replace(GCN, steps=7)], train, test, seeds=2)
    with pytest.raises(RunFolderError, match="other settings"):
        run(again, [GCN], train[:1], test, seeds=2)


@dataclass(frozen=True)
class _Wild(Untrained):
    name: ClassVar[str] = "wild"

    def rollout(self, given, steps):
        growth = 1e4 ** torch.arange(1, steps + 1)
        return growth[:, None, None] * given.frames[:, -1:]


@dataclass(frozen=True)
class _Unlearned(_Wild):
    name: ClassVar[str] = "unlearned"

    def fit(self, cases, seed, checkpoint, told):
        raise FloatingPointError("the loss is nan at step 3")


def test_what_diverges_is_a_row_and_the_file_stays_json(without_report, train, test, tmp_path):
    folder = RunFolder(tmp_path / "run")
    rows, text = run(folder, [Persistence(), _Wild(), _Unlearned()], train, test)
    for name in ("wild", "unlearned"):
        assert rows[name, "nrmse"]["value"] is None
        assert rows[name, "nrmse"]["diverged"] == 1
    assert text.count("diverged") >= 4
    json.loads((folder.path / "table.json").read_text(), parse_constant=lambda constant: pytest.fail(constant))
    assert math.isfinite(rows["persistence", "nrmse"]["value"])


def test_what_it_refuses(train, test, tmp_path):
    with pytest.raises(RunFolderError, match="two methods are called zero"):
        run(RunFolder(tmp_path / "a"), [Zero(), Zero()], train, test)
    with pytest.raises(RunFolderError, match="at least one test case"):
        run(RunFolder(tmp_path / "a"), [Zero()], train, [])
    with pytest.raises(RunFolderError, match="5 are given"):
        run(RunFolder(tmp_path / "a"), [Zero()], train, [test[0].first(2, 5)])
    assert not (tmp_path / "a").exists()


def test_a_rollout_of_the_wrong_shape_is_an_error(train, test, tmp_path):
    class Short(Zero):
        def rollout(self, given, steps):
            return given.frames[:, :1]

    with pytest.raises(ValueError, match="zero rolled out"):
        run(RunFolder(tmp_path / "run"), [Short()], train, test)


def test_seconds_before_a_kill_count(without_report, train, test, tmp_path):
    """The checkpoint has them; a resumed run would else show an hour of training as a moment."""
    folder = RunFolder(tmp_path / "run", resume=True)
    run(folder, [GCN], train, test, seeds=1)
    (weights,) = (folder.path / "weights").iterdir()
    tensors, notes = read_tensors(weights)
    write_tensors(weights, tensors, notes | {"seconds": 3600.0})
    (folder.parts / "gcn-0.json").unlink()
    rows, _ = run(folder, [GCN], train, test, seeds=1)
    assert 3600 <= rows["gcn", "seconds"]["value"] < 3700


def test_a_damaged_result_is_named(without_report, train, test, tmp_path):
    folder = RunFolder(tmp_path / "run", resume=True)
    run(folder, [Zero()], train, test)
    path = folder.parts / "zero-0.json"
    content = json.loads(path.read_text())
    del content["result"]["rollouts"]
    path.write_text(json.dumps(content))
    with pytest.raises(RunFolderError, match=r"zero-0\.json is damaged"):
        run(folder, [Zero()], train, test)


@pytest.mark.parametrize("changed", ["vertices", "dt", "frames", "test frames", "settings"])
def test_the_identity_changes_with_all_that_a_result_depends_on(changed, without_report, train, test, tmp_path):
    folder = RunFolder(tmp_path / "run", resume=True)
    run(folder, [Rate()], train, test)
    case, other, method = train[0], test[0], Rate()
    if changed == "vertices":
        vertices = case.scene.mesh.vertices.clone()
        vertices[0] *= 1 + 1e-6
        case = replace(case, scene=replace(case.scene, mesh=TriangleMesh(vertices, case.scene.mesh.faces)))
    elif changed == "dt":
        case = replace(case, scene=replace(case.scene, dt=case.scene.dt * (1 + 1e-15)))
    elif changed == "frames":
        case = replace(case, frames=case.frames + torch.eye(case.frames.shape[2])[0][:, None] * 1e-6)
    elif changed == "test frames":
        other = other.first(1, 20)
    else:
        method = Rate(order=2)
    with pytest.raises(RunFolderError, match="other settings or data"):
        run(folder, [method], [case, *train[1:]], [other])
