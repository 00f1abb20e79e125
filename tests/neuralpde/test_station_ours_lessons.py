from dataclasses import replace

import torch
from sensor_cases import case, scattered

from neuralpde.station_ours_lessons import (
    Lessons,
    kept_windows,
    known_stations,
    learn_climate,
    learn_joint,
    learned_frames,
    usual_step,
    whole_steps,
)


def lessons(one, parts=3):
    frames = [learned_frames(one, 1.0, 0)]
    climate, pieces = learn_climate(frames, parts)
    joint = learn_joint(frames, parts, 1.0, one.horizon)
    return Lessons(frames, climate, pieces, 1.0, one.given, joint[1], known_stations(frames))


def test_a_part_is_not_in_its_own_climate_nor_joint_step():
    one = case(windows=120)
    before = lessons(one)
    _, windows, _ = before.parts[-1]
    start = one.times[windows].min()
    changed = one.values + 7.0 * (one.times >= start)[:, :, None, None]
    after = lessons(replace(one, values=changed))
    # The ridge is chosen over all parts; what follows from it is the same wherever it was chosen the same.
    torch.testing.assert_close(after.parts[-1][2].common, before.parts[-1][2].common)
    assert not torch.equal(after.parts[0][2].common, before.parts[0][2].common)


def test_lead_weights_count_near_leads_more():
    weights = lessons(case(windows=60)).lead_weights()
    assert weights.shape == (4,)
    assert bool((weights.diff() < 0).all() and (weights > 0).all())


def test_months_are_regular():
    days = torch.tensor([0.0, 31, 59, 90, 120, 151, 181, 212, 243, 273])
    one = case(windows=3)
    monthly = replace(one, times=24 * days.double().expand(3, -1))
    step = usual_step([monthly])
    assert abs(step - 24 * 273 / 9) < 1e-9
    steps = whole_steps((monthly.times - monthly.times[:, -1:]) / step)
    assert torch.equal(steps, torch.arange(-9.0, 1.0, dtype=torch.float64).expand(3, -1))
    assert torch.equal(learned_frames(monthly, step, 0).values, monthly.values[..., 0])


def test_times_between_steps_stay():
    assert whole_steps(torch.tensor([-1.5, -1.04])).tolist() == [-1.5, -1.0]


def test_few_windows_are_spread():
    assert len(kept_windows(case(windows=40), 7).values) == 7
    assert len(kept_windows(case(windows=5), 7).values) == 5


def test_sensors_of_several_placements_are_not_told_apart():
    frames = [learned_frames(case(placement=scattered(8, seed)), 1.0, 0) for seed in (0, 1)]
    assert len(known_stations(frames)) == 0
    assert learn_joint(frames, 3, 1.0, 4) is None
    climate, parts = learn_climate(frames, 3)
    assert len(climate.points) == 16
    assert len(parts) == 6


def test_gaps_among_inputs_are_closed_without_targets():
    one = case(windows=20)
    seen = one.seen.clone()
    seen[:, one.given - 1, ::2] = False
    gappy = replace(one, seen=seen, values=one.values * seen)
    other = gappy.values.clone()
    other[:, one.given :] += 5.0
    before, after = (learned_frames(c, 1.0, 0).values for c in (gappy, replace(gappy, values=other)))
    assert torch.equal(before[:, : one.given], after[:, : one.given])
    assert torch.equal(after[:, one.given :], other[:, one.given :, :, 0])
