"""Counter-examples are written whole, read back to the last bit, overwritten by the minimal one, and told to a person."""

import json
import os

import pytest
import torch
from hypothesis import Phase, given, settings

from neuralpde.testing_fields import fields
from neuralpde.testing_meshes import meshes
from neuralpde.testing_replay import ReplayError, load_counterexample, replay, save_counterexample
from operators import TriangleMesh, icosphere


def test_a_counterexample_comes_back(tmp_path):
    mesh, x = icosphere(0), torch.randn(12, 2)
    path = save_counterexample(tmp_path / "new" / "folder", "mass", domain=mesh, x=x, t=0.1, name="also a name")
    assert path == tmp_path / "new" / "folder" / "mass.json"
    loaded = load_counterexample(path)
    assert list(loaded) == ["domain", "x", "t", "name"]
    assert isinstance(loaded["domain"], TriangleMesh)
    assert torch.equal(loaded["domain"].vertices, mesh.vertices)
    assert torch.equal(loaded["domain"].faces, mesh.faces)
    assert torch.equal(loaded["x"], x)
    assert loaded["t"] == 0.1
    assert os.listdir(path.parent) == ["mass.json"], "no temporary file stays"


def test_names_become_file_names_of_their_own(tmp_path):
    names = ["mass of Heat", "mass-of-Heat", "mass/of/Heat", "../up", "", "Möbius", ".hidden", "x" * 300, "x" * 301]
    paths = [save_counterexample(tmp_path, name, n=k) for k, name in enumerate(names)]
    assert len(set(paths)) == len(names)
    assert all(path.parent == tmp_path and len(path.name) < 128 for path in paths)
    assert [load_counterexample(path)["n"] for path in paths] == list(range(len(names)))


def test_only_the_minimal_example_of_a_failing_law_remains(tmp_path):
    tried = 0

    @settings(max_examples=200, derandomize=True, database=None, phases=[Phase.generate, Phase.shrink])
    @given(mesh=meshes(), x=fields(3, 1))
    def law(mesh, x):
        nonlocal tried
        if mesh.num_nodes > 3 and bool((x < 0).any()):
            tried += 1
            path = save_counterexample(tmp_path, "three vertices", mesh=mesh, x=x)
            raise AssertionError(f"broken: {path}")

    with pytest.raises(AssertionError, match="broken"):
        law()
    assert tried > 3
    (path,) = tmp_path.iterdir()
    minimal = load_counterexample(path)
    assert minimal["mesh"].num_nodes == 4
    assert len(minimal["mesh"].faces) == 2
    assert float(minimal["x"].abs().max()) <= 1


def test_replay_prints_what_it_holds(tmp_path, capsys):
    path = save_counterexample(
        tmp_path, "energy", domain=icosphere(0), x=torch.tensor([[0.125]]), state=(torch.zeros(1, 1), icosphere(3)), rate=2.5
    )
    objects = replay(path)
    told = capsys.readouterr().out
    assert set(objects) == {"domain", "x", "state", "rate"}
    for part in (
        "energy (",
        "TriangleMesh(vertices=[12, 3] float64",
        "0.5257311121191336",
        "float32 [1, 1] [[0.125]]",
        "rate = 2.5",
    ):
        assert part in told
    assert "vertices = float64 [642, 3]\n" in told, "of large ones the shape only"


def test_a_failed_write_keeps_the_earlier_file(tmp_path):
    path = save_counterexample(tmp_path, "law", x=1)
    with pytest.raises(ReplayError, match=r"cannot save 'law': x is a object, which a counter-example cannot hold"):
        save_counterexample(tmp_path, "law", x=object())
    assert load_counterexample(path) == {"x": 1}
    (tmp_path / "file").write_text("")
    with pytest.raises(ReplayError, match="choose a folder that you may write to"):
        save_counterexample(tmp_path / "file", "law", x=1)


def test_no_file_no_json_and_other_files_give_one_clear_error(tmp_path):
    path = save_counterexample(tmp_path, "law", x=torch.ones(3))
    text = path.read_text()
    whole = json.loads(text)
    damaged = [
        ("", "damaged or not a counter-example"),
        (text[: len(text) // 2], "damaged or not a counter-example"),
        ("[1, 2]", "give the path that the failing law printed"),
        ('{"format": "other"}', "give the path that the failing law printed"),
        (json.dumps({**whole, "objects": [1]}), "damaged or not a counter-example"),
        (json.dumps({**whole, "objects": {"x": {"tensor": {}}}}), "damaged or not a counter-example"),
        (json.dumps({key: whole[key] for key in ("format", "objects")}), "damaged or not a counter-example"),
        ("[" * 100_000, "damaged or not a counter-example"),
        ("9" * 10_000, "damaged or not a counter-example"),
    ]
    for content, told in damaged:
        path.write_text(content)
        with pytest.raises(ReplayError, match=told):
            load_counterexample(path)
    path.write_bytes(b"\xff\xfe\x00\x80")
    with pytest.raises(ReplayError, match="damaged or not a counter-example"):
        load_counterexample(path)
    for missing in (tmp_path / "absent.json", tmp_path):
        with pytest.raises(ReplayError, match="run the failing law again"):
            replay(missing)
