"""The main job end to end: a killed run resumes to the same bits, and damage is named or mended."""

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from neuralpde import Exponential, Heat, NeuralPDE, RunFolderError, load_weights
from neuralpde.cli import main
from neuralpde.files import read_tensors
from neuralpde.heat_data import FRAMES, Surface, Truth
from neuralpde.heat_models import LEARNED, TITLES
from neuralpde.run_heat import window_loss
from operators import robust_laplacian

ROOT = Path(__file__).parents[2]
METHODS = ["zero", "persistence", "stencil", "gcn", "unitary", "truncated", "relaxed", "beltrami", "difference"]


def assert_same_run(ours: Path, theirs: Path) -> None:
    """Bit-identical weights, moments, losses and rollouts; the same table but for times."""
    for folder in ("weights", "rollouts", "data"):
        names = sorted(p.name for p in (theirs / folder).iterdir())
        assert sorted(p.name for p in (ours / folder).iterdir()) == names
        for name in names:
            (a, _), (b, _) = read_tensors(ours / folder / name), read_tensors(theirs / folder / name)
            assert a.keys() == b.keys()
            assert all(torch.equal(a[k], b[k]) for k in a), name
    assert values(ours) == values(theirs)


def values(folder: Path) -> list[tuple[str, ...]]:
    rows = json.loads((folder / "table.json").read_text())["rows"]
    return [
        (r["table"], r["method"], r["metric"], r["value"], r["std"], r["n"]) for r in rows if r["metric"] != "seconds"
    ]


def resume(folder: Path) -> int:
    return main(["run", "heat", "--out", str(folder), "--resume"])


def copied(finished: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(finished, tmp_path / "run"))


def test_everything_is_there(finished):
    assert (finished / "report.html").stat().st_size > 10_000
    assert {p.stem for p in (finished / "weights").iterdir()} == {model.name for model in LEARNED}
    assert {p.stem for p in (finished / "rollouts").iterdir()} == set(METHODS)
    assert list(TITLES) == METHODS
    assert not [p for p in finished.rglob("*.tmp")]
    for model in LEARNED:
        lines = [json.loads(line) for line in (finished / "metrics" / f"{model.name}.jsonl").read_text().splitlines()]
        assert [line["step"] for line in lines] == list(range(8))
        assert lines[-1]["loss"] == float(
            read_tensors(finished / "weights" / f"{model.name}.safetensors")[0]["losses"][-1]
        )


def test_sigkill_at_random_moments_changes_nothing(tiny, finished, tmp_path):
    folder = tmp_path / "run"
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    moments = random.Random(7)
    first = [sys.executable, "-m", "neuralpde", *tiny, "--out", str(folder)]
    for k in range(3):
        command = first if k == 0 else [*first, "--resume"]
        before = len(list(folder.rglob("*.safetensors")))
        process = subprocess.Popen(command, env=environment, stderr=subprocess.DEVNULL)
        deadline = time.monotonic() + 60
        # Wait for one more finished piece, so that the moments spread over the run whatever the machine.
        while len(list(folder.rglob("*.safetensors"))) <= before and time.monotonic() < deadline:
            if process.poll() is not None:
                break
            time.sleep(0.005)
        time.sleep(moments.uniform(0, 0.3))
        process.send_signal(signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL, "killed too late to be a test"
    assert not (folder / "report.html").exists()
    assert resume(folder) == 0
    assert_same_run(folder, finished)


def test_resuming_a_finished_run_changes_nothing(finished, tmp_path):
    folder = copied(finished, tmp_path)
    (folder / "report.html").unlink()
    assert resume(folder) == 0
    assert_same_run(folder, finished)
    assert (folder / "report.html").exists()


def test_resume_with_the_words_it_was_started_with(tiny, mesh_files, finished, tmp_path, monkeypatch):
    """The same command with --resume added, mesh paths relative as the user typed them."""
    folder = copied(finished, tmp_path)
    monkeypatch.chdir(mesh_files["ball"].parent)
    words = [Path(word).name if word.endswith(".ply") else word for word in tiny]
    assert main([*words, "--out", str(folder), "--resume"]) == 0
    assert_same_run(folder, finished)


@pytest.mark.parametrize("damage", ["cut", "text"])
def test_a_damaged_checkpoint_is_named_and_the_cure_cures(damage, finished, tmp_path, capsys):
    folder = copied(finished, tmp_path)
    path = folder / "weights" / "relaxed.safetensors"
    path.write_bytes(path.read_bytes()[:-40] if damage == "cut" else b"not tensors, not at all")
    assert resume(folder) == 1
    said = " ".join(capsys.readouterr().err.split())
    assert "relaxed.safetensors is damaged or not a file of this program" in said
    assert "delete it and resume, and that part is computed anew" in said
    assert "Traceback" not in said
    if damage == "cut":
        path.unlink()
        assert resume(folder) == 0
        assert_same_run(folder, finished)


def test_a_foreign_checkpoint_is_named(finished, tmp_path, capsys):
    folder = copied(finished, tmp_path)
    shutil.copy(folder / "weights" / "unitary.safetensors", folder / "weights" / "relaxed.safetensors")
    assert resume(folder) == 1
    said = " ".join(capsys.readouterr().err.split())
    assert "relaxed.safetensors belongs to another training" in said
    assert "use another folder, or resume with the settings it was started with" in said


def test_damaged_caches_are_computed_anew(finished, tmp_path):
    folder = copied(finished, tmp_path)
    for path in (folder / "data" / "train-ring.safetensors", folder / "rollouts" / "beltrami.safetensors"):
        path.write_bytes(path.read_bytes()[:-40])
    (folder / "rollouts" / "zero.safetensors").unlink()
    assert resume(folder) == 0
    assert_same_run(folder, finished)


def test_checkpoints_load_into_a_fresh_model(finished, surfaces):
    for learned in LEARNED:
        model = learned.build(surfaces["unseen"].to(torch.float32), Truth.SURFACE)
        assert load_weights(finished / "weights" / f"{learned.name}.safetensors", model).step == 8
    with pytest.raises(RunFolderError, match="holds the weights of another model"):
        load_weights(finished / "weights" / "gcn.safetensors", model)


def test_window_loss_of_persistence_is_one_and_of_the_truth_is_zero(surfaces):
    mesh = surfaces["ball"]
    laplacian = robust_laplacian(mesh)
    dt = 0.25 / laplacian.largest_eigenvalue()
    exact = NeuralPDE(Heat(laplacian), Exponential())
    with torch.no_grad():
        frames = exact(torch.rand(3, 42, 1, dtype=torch.float64), dt * torch.arange(FRAMES, dtype=torch.float64))
        item = Surface("ball", mesh, dt, frames.transpose(0, 1).contiguous())

        def still(y0, t):
            return y0.expand(len(t), *y0.shape)

        assert float(window_loss(still, item, 4, torch.Generator().manual_seed(0))) == pytest.approx(1.0, rel=1e-9)
        assert float(window_loss(exact, item, 4, torch.Generator().manual_seed(0))) < 1e-12
