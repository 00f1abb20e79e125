"""Training: it learns, continues after a kill to the same weights, and refuses what it cannot use."""

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from integrators import RK4, Direct
from neuralpde.files import RunFolderError
from neuralpde.fitting import fit, load
from neuralpde.objectives import OneStep, Unrolled
from neuralpde.stepper import CorrectedStep, SolverStep


class Rate(nn.Module):
    """c(t, x) = a x."""

    def __init__(self, a: float = 0.0) -> None:
        super().__init__()
        self.a = nn.Parameter(torch.tensor(a, dtype=torch.float64))

    def forward(self, t: Tensor, x: Tensor) -> Tensor:
        return self.a * x


def stepper(a: float = 0.0) -> CorrectedStep:
    return CorrectedStep(SolverStep(lambda t, x: -x, RK4(dt=0.1, gradient=Direct()), 0.1), Rate(a))


def truth(steps: int = 6) -> Tensor:
    x0 = torch.randn(5, 3, 1, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    return stepper(0.5).path(x0, steps).detach()


@pytest.mark.parametrize("objective", [Unrolled(lengths=(1, 4)), OneStep()])
def test_learns_what_is_missing(objective: Unrolled | OneStep) -> None:
    step = stepper()
    state = torch.get_rng_state()
    training = fit(step, truth(), objective, steps=120, learning_rate=0.05)
    assert training.step == 120
    assert float(next(step.correction.parameters()).detach()) == pytest.approx(0.5, abs=2e-3)
    assert torch.equal(torch.get_rng_state(), state)


def test_a_killed_training_continues_bit_for_bit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole, broken, path = stepper(), stepper(), truth()
    objective = Unrolled(lengths=(1, 3), noise=0.01)
    fit(whole, path, objective, steps=20, checkpoint=tmp_path / "whole.safetensors")
    calls = 0
    plain = Unrolled.loss

    def killed(self: Unrolled, *arguments: object) -> Tensor:
        nonlocal calls
        calls += 1
        if calls == 8:
            raise KeyboardInterrupt
        return plain(self, *arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(Unrolled, "loss", killed)
    with pytest.raises(KeyboardInterrupt):
        fit(broken, path, objective, steps=20, checkpoint=tmp_path / "broken.safetensors")
    monkeypatch.undo()
    again = stepper()
    assert fit(again, path, objective, steps=20, checkpoint=tmp_path / "broken.safetensors").step == 20
    assert all(torch.equal(a, b) for a, b in zip(whole.parameters(), again.parameters(), strict=True))
    fresh = stepper()
    assert load(tmp_path / "whole.safetensors", fresh).step == 20
    assert all(torch.equal(a, b) for a, b in zip(whole.parameters(), fresh.parameters(), strict=True))
    with pytest.raises(RunFolderError, match="another training"):
        fit(stepper(), path, OneStep(), steps=20, checkpoint=tmp_path / "whole.safetensors")
    # Nor is it the training of another truth.
    with pytest.raises(RunFolderError, match="another training"):
        fit(stepper(), 2 * path, objective, steps=20, checkpoint=tmp_path / "whole.safetensors")


def test_the_bar_goes_away(capsys: pytest.CaptureFixture[str]) -> None:
    fit(stepper(), truth(), OneStep(), steps=3, progress=True)
    assert capsys.readouterr().out == ""


def test_bad_input() -> None:
    with pytest.raises(ValueError, match=r"truth\[:, None\]"):
        fit(stepper(), truth()[:, 0], OneStep())
    with pytest.raises(ValueError, match="windows of 16"):
        fit(stepper(), truth())
    with pytest.raises(ValueError, match="no parameter"):
        fit(stepper().step, truth(), OneStep())
    with pytest.raises(ValueError, match="steps must be"):
        fit(stepper(), truth(), OneStep(), steps=0)
    with pytest.raises(FloatingPointError):
        fit(stepper(float("nan")), truth(), OneStep(), steps=2)
