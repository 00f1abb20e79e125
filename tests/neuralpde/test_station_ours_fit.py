import torch
from sensor_cases import case

from neuralpde.station_ours import StationOurs
from neuralpde.station_ours_fit import fit_kernel
from neuralpde.station_ours_lessons import Lessons, known_stations, learn_climate, learned_frames


def lessons(one):
    frames = [learned_frames(one, 1.0, 0)]
    climate, pieces = learn_climate(frames, 2)
    return Lessons(frames, climate, pieces, 1.0, one.given, [None] * len(pieces), known_stations(frames))


def test_learning_lowers_the_error(tmp_path):
    notes = []
    kernel = fit_kernel(
        StationOurs(kernel_steps=15, hiding=0.0), lessons(case(windows=60)), tmp_path / "k", lambda *a: notes.append(a[2])
    )
    first, last = (float(note.rsplit(" ", 1)[1]) for note in (notes[0], notes[-1]))
    assert last < 0.9 * first
    assert not any(p.requires_grad for p in kernel.parameters())


def test_a_killed_run_continues(tmp_path):
    settings, learned = StationOurs(kernel_steps=4), lessons(case(windows=40))
    whole = fit_kernel(settings, learned, tmp_path / "whole", lambda *a: None)
    again = fit_kernel(settings, learned, tmp_path / "whole", lambda *a: None)
    assert all(torch.equal(a, b) for a, b in zip(whole.parameters(), again.parameters(), strict=True))
