"""Training lowers the loss, and one that was killed goes on as if it had not been, bit for bit."""

import math
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from torch import nn

from neuralpde import (
    Exponential,
    NeuralPDE,
    PadChannels,
    RunFolderError,
    UnitaryFlow,
    icosphere,
    load_weights,
    robust_laplacian,
    train,
)
from neuralpde.files import read_tensors, write_tensors
from neuralpde.training import Training, generator

ROOT = Path(__file__).parents[2]
STEPS = 60


def model_and_loss(seed: int = 0):
    torch.manual_seed(seed)
    flow = UnitaryFlow(robust_laplacian(icosphere(0)).to(torch.float32), 2, dissipation=0.3)
    model = NeuralPDE(flow, Exponential(), PadChannels(2))

    def loss(step: int, draw: torch.Generator) -> torch.Tensor:
        x = torch.randn(12, 1, generator=draw)
        return (model(x, [0.0, 0.1])[-1, :, :1] - 0.5 * x).square().mean()

    return model, loss


def run(checkpoint: Path, **changes) -> tuple[nn.Module, Training]:
    model, loss = model_and_loss()
    settings = {"steps": STEPS, "learning_rate": 0.05, "checkpoint": checkpoint, "seed": 3, "save_seconds": 0.0}
    return model, train(model, loss, **{**settings, **changes})


def assert_same_checkpoint(a: Path, b: Path) -> None:
    (ours, notes), (theirs, their_notes) = read_tensors(a), read_tensors(b)
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    assert notes["step"] == their_notes["step"] == STEPS


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Path:
    """The checkpoint of an uninterrupted training."""
    path = tmp_path_factory.mktemp("training") / "whole.safetensors"
    run(path)
    return path


def test_loss_falls(whole):
    assert len(read_tensors(whole)[0]["losses"]) == STEPS
    # Each step draws its own fields, so the two are compared on the same ones.
    (before, loss_before), (after, loss_after) = model_and_loss(), model_and_loss()
    load_weights(whole, after)
    assert not torch.equal(before.rhs.log_dissipation, after.rhs.log_dissipation)
    with torch.no_grad():
        totals = [sum(float(f(k, generator(k))) for k in range(10)) for f in (loss_before, loss_after)]
    assert totals[1] < 0.7 * totals[0]


def test_stopping_at_any_step_changes_nothing(whole, tmp_path):
    path = tmp_path / "x.safetensors"
    for stop in (1, 2, 17, STEPS - 1):

        def progress(training: Training, stop: int = stop) -> None:
            if training.step >= stop:
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            run(path, progress=progress)
    _, training = run(path)
    assert training.step == STEPS
    assert_same_checkpoint(path, whole)
    # A finished training is not trained further.
    model, again = run(path)
    assert again.step == STEPS
    assert_same_checkpoint(path, whole)
    fresh, _ = model_and_loss(seed=9)
    assert load_weights(path, fresh).losses == again.losses
    assert all(torch.equal(a, b) for a, b in zip(fresh.parameters(), model.parameters(), strict=True))


def test_sigkill_changes_nothing(whole, tmp_path):
    path = tmp_path / "x.safetensors"
    script = (
        "import sys, time\nsys.path.insert(0, sys.argv[1])\nimport torch\ntorch.set_num_threads(1)\n"
        "from pathlib import Path\nimport test_training\n"
        "test_training.run(Path(sys.argv[2]), progress=lambda training: time.sleep(0.02))\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    moments = random.Random(0)
    steps = []
    for _ in range(2):
        before = path.stat().st_mtime_ns if path.exists() else 0
        process = subprocess.Popen(
            [sys.executable, "-c", script, str(Path(__file__).parent), str(path)], env=environment
        )
        deadline = time.monotonic() + 60
        while (not path.exists() or path.stat().st_mtime_ns == before) and time.monotonic() < deadline:
            assert process.poll() is None
            time.sleep(0.005)
        time.sleep(moments.uniform(0, 0.4))
        process.send_signal(signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL
        steps.append(read_tensors(path)[1]["step"])
    assert 0 < steps[0] < steps[1] < STEPS
    run(path)
    assert_same_checkpoint(path, whole)


def test_a_checkpoint_of_another_training_is_refused(whole):
    for change in ({"steps": STEPS + 1}, {"learning_rate": 0.1}, {"seed": 4}, {"notes": {"model": "other"}}):
        with pytest.raises(RunFolderError, match=r"belongs to another training.*use another folder, or resume with"):
            run(whole, **change)


def test_weights_of_another_model_are_refused(whole):
    with pytest.raises(RunFolderError, match="holds the weights of another model"):
        load_weights(whole, nn.Linear(2, 2))
    with pytest.raises(FileNotFoundError, match="there is no checkpoint at"):
        load_weights(whole.with_name("gone.safetensors"), nn.Linear(2, 2))


def test_a_damaged_checkpoint_is_refused(whole, tmp_path):
    path = tmp_path / "x.safetensors"
    path.write_bytes(whole.read_bytes()[:-100])
    with pytest.raises(RunFolderError, match=r"damaged.*delete it and resume"):
        run(path)


def test_a_foreign_checkpoint_is_refused(tmp_path):
    path = tmp_path / "x.safetensors"
    write_tensors(path, {"x": torch.ones(2)}, {"hello": 1})
    with pytest.raises(RunFolderError):
        run(path)
    with pytest.raises(RunFolderError):
        load_weights(path, nn.Linear(2, 2))


def test_a_loss_that_is_not_finite_stops_and_keeps_the_last_good_step(tmp_path):
    model, loss = model_and_loss()
    path = tmp_path / "x.safetensors"

    def breaking(step: int, draw: torch.Generator) -> torch.Tensor:
        return loss(step, draw) * (math.nan if step == 5 else 1.0)

    with pytest.raises(FloatingPointError, match=r"the loss is nan at step 5 of x: lower the learning rate .*step 4"):
        train(model, breaking, steps=9, learning_rate=0.01, checkpoint=path)
    tensors, notes = read_tensors(path)
    assert notes["step"] == 5
    assert all(bool(torch.isfinite(value).all()) for value in tensors.values())


def test_generator_depends_on_the_key_alone():
    draws = {key: torch.rand(3, generator=generator(*key)).tolist() for key in [(0, 0), (0, 1), (1, 0), (1, 1)]}
    torch.rand(5)
    assert draws[0, 1] == torch.rand(3, generator=generator(0, 1)).tolist()
    assert len({tuple(values) for values in draws.values()}) == 4


def test_a_loss_that_raises_loses_no_finished_step(tmp_path):
    model = torch.nn.Linear(2, 1)

    def loss(step, random):
        if step == 5:
            raise KeyboardInterrupt
        return model(torch.randn(3, 2, generator=random)).square().mean()

    path = tmp_path / "weights.safetensors"
    with pytest.raises(KeyboardInterrupt):
        train(model, loss, steps=9, learning_rate=0.1, checkpoint=path, save_seconds=1e9)
    kept = torch.nn.Linear(2, 1)
    assert load_weights(path, kept).step == 5
    assert torch.equal(kept.weight, model.weight)
