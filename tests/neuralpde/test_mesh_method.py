"""Rolling out a map from five frames."""

import torch

from neuralpde.mesh_method import Fitted, autoregressive


def test_a_rollout_feeds_on_its_own_frames():
    frames = torch.arange(1.0, 6.0)[None, :, None, None].expand(2, 5, 3, 1)
    # Linear extrapolation from the last two frames is exact on a line, and only if the window moves on.
    path = autoregressive(lambda window: 2 * window[:, -1] - window[:, -2], frames, 4)
    assert path.shape == (2, 4, 3, 1)
    assert torch.equal(path[0, :, 0, 0], torch.tensor([6.0, 7.0, 8.0, 9.0]))


def test_the_window_has_five_frames():
    seen = []
    autoregressive(lambda window: (seen.append(window.clone()), window[:, 0])[1], torch.randn(1, 5, 2, 1), 7)
    assert {window.shape[1] for window in seen} == {5}
    # The oldest frame comes back after five steps.
    assert torch.equal(seen[5][:, 0], seen[0][:, 0])


def test_gradients_flow_through_all_steps():
    factor = torch.tensor(0.9, requires_grad=True)
    path = autoregressive(lambda window: factor * window[:, -1], torch.ones(1, 5, 1, 1), 3)
    (slope,) = torch.autograd.grad(path[0, -1, 0, 0], factor)
    assert torch.isclose(slope, 3 * factor.detach() ** 2)


def test_a_method_without_learning_has_no_parameters():
    class Zero(Fitted):
        def rollout(self, given, steps):
            return torch.zeros(len(given.frames), steps, *given.frames.shape[2:])

    assert Zero().parameters == 0
