"""Training on windows: what the loss is, that resuming changes nothing, and that a rollout is the step repeated."""

from dataclasses import dataclass, replace
from typing import ClassVar

import pytest
import torch
from torch import nn

from neuralpde.files import RunFolderError
from neuralpde.mesh_method import autoregressive
from neuralpde.mesh_training import Network, SceneModel, check_cases, slower, window_loss
from neuralpde.testing_mesh_cases import small_case


class _Decay(SceneModel):
    """y' = a y, and a part of the context."""

    def __init__(self):
        super().__init__()
        self.factor = nn.Parameter(torch.rand(()))

    def forward(self, frames, context):
        return self.factor * frames[:, -1] + (0.0 if context is None else context[..., :1])


@dataclass(frozen=True)
class _Method(Network):
    name: ClassVar[str] = "decay"
    steps: int = 30
    learning_rate: float = 0.1

    def build(self, scene, context):
        return _Decay()


def _nothing(*told):
    pass


def test_persistence_scores_one():
    case = small_case()
    loss = window_loss(lambda frames, context: frames[:, -1], case, 4, 3, torch.Generator().manual_seed(0))
    assert float(loss) == pytest.approx(1.0, abs=1e-5)


def test_the_loss_by_hand():
    # One trajectory with a single window to draw.
    case = small_case(trajectories=1, frames=7)
    loss = window_loss(lambda frames, context: 0.5 * frames[:, -1], case, 2, 2, torch.Generator().manual_seed(0))
    y = case.frames[0, :, :, 0].double()
    error = (0.5 * y[4] - y[5]).square().sum() / (y[5] - y[4]).square().sum()
    later = (0.25 * y[4] - y[6]).square().sum() / (y[6] - y[4]).square().sum()
    assert float(loss) == pytest.approx(float(error + later) / 2, rel=1e-4)


def test_a_field_at_rest_has_a_finite_loss():
    case = small_case(frames=9)
    still = replace(case, frames=torch.zeros_like(case.frames))
    loss = window_loss(lambda frames, context: frames[:, -1], still, 2, 3, torch.Generator().manual_seed(0))
    assert float(loss) == 0


def test_it_learns_and_rolls_out(tmp_path):
    case = small_case()
    decaying = 0.8 ** torch.arange(12)[:, None, None] * case.frames[:, :1]
    told = []
    model = _Method(steps=150).fit([replace(case, frames=decaying)], 0, tmp_path / "w.safetensors", lambda *t: told.append(t))
    assert float(model.model.factor.detach()) == pytest.approx(0.8, abs=0.02)
    assert model.parameters == 1
    assert told[-1][:2] == (150, 150)
    assert len(model.losses) == 150
    path = model.rollout(case.given, 6)
    expected = autoregressive(lambda frames: model.model(frames, None), case.given.frames, 6)
    assert torch.allclose(path, expected)
    assert not path.requires_grad


def test_the_context_of_each_trajectory_goes_with_it(tmp_path):
    case = small_case()
    context = torch.randn(2, 42, 3)
    model = _Method(steps=1).fit([replace(case, context=context)], 0, tmp_path / "w.safetensors", _nothing)
    given = replace(case, context=context).given
    path = model.rollout(given, 2)
    assert torch.allclose(path[:, 0], model.model.factor.detach() * case.frames[:, 4] + context[..., :1])


def test_resuming_gives_an_uninterrupted_run(tmp_path):
    cases = [small_case(), small_case(seed=4)]
    whole = _Method().fit(cases, 1, tmp_path / "whole.safetensors", _nothing)

    def kill(step, steps, loss):
        if step == 11:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        _Method().fit(cases, 1, tmp_path / "half.safetensors", kill)
    resumed = _Method().fit(cases, 1, tmp_path / "half.safetensors", _nothing)
    assert resumed.losses == whole.losses
    assert torch.equal(resumed.model.factor, whole.model.factor)
    other = _Method().fit(cases, 2, tmp_path / "other.safetensors", _nothing)
    assert not torch.equal(other.model.factor, whole.model.factor)


def test_nothing_to_learn_from(tmp_path):
    with pytest.raises(RunFolderError, match="at least one training case"):
        _Method().fit([], 0, tmp_path / "w.safetensors", _nothing)
    with pytest.raises(RunFolderError, match=r"ball has 6 frames.*simulate longer"):
        check_cases([small_case(frames=6)], 3)


def test_other_paces_are_other_time_steps(tmp_path):
    case = small_case(frames=24)
    third = slower(case, 3)
    assert torch.equal(third.frames, case.frames[:, ::3])
    assert third.scene.dt == 3 * case.scene.dt
    assert third.scene.mesh is case.scene.mesh
    seen = []

    @dataclass(frozen=True)
    class Watching(_Method):
        def build(self, scene, context):
            class Seen(_Decay):
                def on(self, scene):
                    seen.append(scene.dt / case.scene.dt)
                    return super().on(scene)

            return Seen()

    Watching(steps=1, paces=4).fit([case], 0, tmp_path / "w.safetensors", _nothing)
    # Every fourth frame would leave six of them, too few for a window of eight.
    assert seen == pytest.approx([1, 2, 3])


def test_noise_is_added_to_what_is_given_alone():
    case = small_case()
    seen = []

    def step(frames, context):
        seen.append(frames)
        return frames[:, -1]

    for noise in (0.0, 0.5):
        window_loss(step, case, 4, 1, torch.Generator().manual_seed(0), noise)
    quiet, loud = seen
    size = quiet.diff(dim=1).square().mean(dim=(1, 2, 3)).sqrt()
    heard = (loud - quiet).square().mean(dim=(1, 2, 3)).sqrt()
    assert (heard / size).tolist() == pytest.approx([0.5] * 4, rel=0.3)
