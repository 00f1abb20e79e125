"""Methods through the solver: what they are told, what they keep, and how far ours is ahead."""

from dataclasses import replace
from pathlib import Path

import torch

from neuralpde.hard_data import hard_case, of_area_one
from neuralpde.hard_ours import FittedLaws, HardOurs, SolverCubic, SolverOwnCubic, SolverOwnRate, SolverOwnTwo, SolverRate
from neuralpde.metrics import nrmse
from operators import bumpy, icosphere, subdivide

TRAIN = hard_case("bumpy", of_area_one(bumpy(icosphere(2), seed=1)), 1, seed=0).first(1, 61)
TEST = hard_case("other-fine", of_area_one(subdivide(bumpy(icosphere(1), amplitude=0.3, seed=5)).mesh), 1, seed=0)
SHORT = (8, 8, 24)


def quiet(step: int, steps: int, loss: float) -> None:
    pass


def test_ours_is_ahead_and_keeps_what_it_learned(tmp_path: Path) -> None:
    path, steps = tmp_path / "ours.safetensors", 30
    ours = HardOurs(horizons=SHORT)
    fitted = ours.fit([TRAIN], 0, path, quiet)
    rollout = fitted.rollout(TEST.given, steps)
    assert rollout.shape == (1, steps, TEST.scene.mesh.num_nodes, 1)
    assert rollout.dtype == torch.float32
    stencil = SolverCubic(horizons=SHORT).fit([TRAIN], 0, tmp_path / "cubic", quiet).rollout(TEST.given, steps)
    truth = TEST.clean[0, 5 : 5 + steps]
    error, other = nrmse(rollout[0], truth).sum(), nrmse(stencil[0], truth).sum()
    assert error < other / 3

    def forbidden(step: int, steps: int, loss: float) -> None:
        raise AssertionError("learned again")

    again = ours.fit([TRAIN], 0, path, forbidden)
    assert torch.equal(again.rollout(TEST.given, steps), rollout)
    # The laws of other settings are not taken for these.
    other_settings = replace(ours, degree=3, horizons=(8,)).fit([TRAIN], 0, path, quiet)
    assert other_settings.form.source.degree == 3


def test_rollouts_know_the_given_frames_alone(tmp_path: Path) -> None:
    fitted = SolverOwnTwo(horizons=(8, 8)).fit([TRAIN], 0, tmp_path / "two", quiet)
    first = fitted.rollout(TEST.given, 7)
    assert torch.equal(fitted.rollout(TEST.first(1, 5).given, 7), first)
    # A longer rollout begins with the shorter one.
    assert torch.equal(fitted.rollout(TEST.given, 9)[:, :7], first)


def test_what_is_unknown_in_each_row(tmp_path: Path) -> None:
    counts = {}
    for method in (SolverRate(), SolverOwnRate(), SolverOwnTwo(), SolverCubic(), SolverOwnCubic(), HardOurs()):
        fitted = replace(method, horizons=(1,)).fit([TRAIN.first(1, 6)], 0, tmp_path / method.name, quiet)
        assert isinstance(fitted, FittedLaws)
        counts[method.name] = (fitted.laws.shared.numel(), fitted.laws.belief.mean.numel())
    assert counts == {
        "solver-rate": (1, 0),
        "solver-rate-own": (0, 1),
        "solver-two-own": (0, 3),
        "solver-cubic": (5, 0),
        "solver-cubic-own": (4, 1),
        "ours": (15, 6),
    }


def test_without_a_material(tmp_path: Path) -> None:
    plain = replace(TRAIN, context=None)
    fitted = SolverCubic(horizons=(8,)).fit([plain], 0, tmp_path / "cubic", quiet)
    assert torch.isfinite(fitted.rollout(plain.given, 3)).all()
