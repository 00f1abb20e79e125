import torch
from sensor_cases import case

from neuralpde.station_ours_examples import Examples, examples, fit_trust, hide
from neuralpde.station_ours_kernel import DriftingCovariance
from neuralpde.station_ours_lessons import learn_climate, learned_frames


def test_hidden_measurements_and_targets_are_not_in_the_inputs():
    one = case(windows=30)
    frames = learned_frames(one, 1.0, 0)
    climate, _ = learn_climate([frames], 2)
    mask = torch.rand(6, 8, generator=torch.Generator().manual_seed(0)) > 0.3
    kernel = DriftingCovariance(100.0, tuple(climate.periods)).requires_grad_(False)

    def inputs(values):
        frames_of = type(frames)(frames.placement, frames.times, values, frames.seen)
        local = climate.at(frames.placement)
        points = frames.placement.cloud.points
        return examples(kernel, frames_of, local, None, torch.arange(30), 6, 1.0, mask, points).inputs

    other = frames.values.clone()
    other[:, 6:] += 3
    other[:, :6] = torch.where(mask, other[:, :6], 9.0)
    assert torch.equal(inputs(frames.values), inputs(other))


def test_trust_is_the_share_of_the_excess_that_is_true():
    g = torch.Generator().manual_seed(0)
    excess = torch.randn(5, 3, 2, generator=g)
    seen = torch.ones(5, 3, 2, dtype=torch.bool)
    nothing = torch.zeros(5, 3, 2)
    found = fit_trust([Examples(nothing, nothing, excess, 0.4 * excess, seen)])
    torch.testing.assert_close(found, torch.full((2,), 0.4))
    assert fit_trust([Examples(nothing, nothing, nothing, excess, seen)]).tolist() == [0.0, 0.0]


def test_the_newest_frame_is_never_hidden_whole():
    for seed in range(5):
        mask, new = hide(torch.ones(6, 200, dtype=torch.bool), torch.Generator().manual_seed(seed))
        assert bool(mask[-1].any())
        assert new.shape == (200,)
