"""`ours`: one and the same method finds which equation it is, on surfaces small enough for a test."""

from functools import partial
from pathlib import Path

import pytest
import torch

from neuralpde.files import RunFolderError
from neuralpde.heat_data import Truth
from neuralpde.mesh_case import Case, Given
from neuralpde.mesh_data import Part
from neuralpde.mesh_method import Fitted, Method
from neuralpde.mesh_ours import CANDIDATES, FittedForm, Ours
from neuralpde.mesh_ours_linear import Dissipative
from neuralpde.mesh_ours_phase import Phase
from neuralpde.mesh_pde import Pde
from neuralpde.metrics import nrmse
from operators import bumpy, icosphere, torus

TRAIN = {"ball": bumpy(icosphere(1), 0.2), "ring": torus(10, 6, radius=3.0, tube=1.0)}
UNSEEN = bumpy(icosphere(1, radius=4.0), 0.3, seed=5)


def simulated(pde, truth, name, mesh, test=False):
    case, _ = Part(Pde(pde).equation, truth, name, mesh, test, 0, 3).simulate()
    return case


def silent(step, steps, error):
    """Nobody listens."""


def fitted(cases, method=None, seed=0):
    return (method or Ours(iterations=1)).fit(cases, seed, Path("nowhere"), silent)


# The bounds are a tenth of what persistence gets or less; on surfaces so small far more than is needed to tell forms apart.
@pytest.mark.parametrize(
    ("pde", "truth", "title", "bound"),
    [
        ("heat", Truth.PUBLISHED, "dissipation, one explicit step a frame", 1e-2),
        ("heat", Truth.SURFACE, "dissipation", 0.1),
        ("wave", Truth.PUBLISHED, "oscillation, one explicit step a frame", 1e-2),
        ("wave", Truth.SURFACE, "oscillation", 0.5),
        ("cahn-hilliard", Truth.PUBLISHED, "conserved gradient flow, one semi-implicit step a frame", 0.1),
        ("advection", Truth.SURFACE, "transport", 0.1),
    ],
)
def test_the_equation_is_found_and_holds_on_a_surface_never_seen(pde, truth, title, bound):
    train = [simulated(pde, truth, name, mesh).first(3, 60) for name, mesh in TRAIN.items()]
    test = simulated(pde, truth, "unseen", UNSEEN, test=True)
    found = fitted(train)
    assert isinstance(found, FittedForm)
    assert found.title == title
    assert found.parameters <= 6
    rolled = found.rollout(test.given, 196)
    assert rolled.shape == test.clean[:, 5:].shape
    assert rolled.dtype == torch.float32
    assert float(nrmse(rolled, test.clean[:, 5:]).sum(1).mean()) <= bound
    mass = test.scene.laplacian.mass.double()[:, None]
    if truth is Truth.SURFACE:
        total = (mass * rolled.double()).sum(dim=(-2, -1)) - (mass * test.given.frames[:, -1:].double()).sum(dim=(-2, -1))
        size = (mass * test.given.frames[:, -1:].abs().double()).sum(dim=(-2, -1))
        assert float((total / size).abs().max()) <= 1e-6


def heat(frames=30, truth=Truth.PUBLISHED):
    return [simulated("heat", truth, name, mesh).first(2, frames) for name, mesh in TRAIN.items()]


def test_it_is_a_method_and_a_value():
    assert isinstance(Ours(), Method)
    assert Ours() == Ours()
    assert Ours.name == "ours"
    assert "object at" not in repr(Ours())
    assert issubclass(FittedForm, Fitted)
    assert len(CANDIDATES) == 10


def test_what_is_told_counts_up():
    calls = []
    Ours(candidates=CANDIDATES[:2], iterations=1).fit(
        heat(truth=Truth.SURFACE), 0, Path("nowhere"), lambda step, steps, error: calls.append((step, steps, error))
    )
    assert [step for step, *_ in calls] == sorted(step for step, *_ in calls)
    assert all(0 < step <= steps for step, steps, _ in calls)


def test_one_trajectory_is_enough():
    assert fitted([case.first(1, 30) for case in heat()]).parameters == 1


def test_of_two_finalists_the_rollout_decides():
    """Both are learned; the one whose rollout of the unseen trajectory is nearest is taken."""
    candidates = (partial(Phase.fitted, conserved=False, frame_by_frame=False), partial(Dissipative.fitted, frame_by_frame=False))
    found = fitted(heat(truth=Truth.SURFACE), Ours(candidates=candidates, iterations=0))
    assert found.title == "dissipation"


def test_a_candidate_that_makes_no_sense_is_left_out():
    def broken(cases):
        raise ValueError("not on these surfaces")

    cases = heat()
    assert fitted(cases, Ours(candidates=(broken, *CANDIDATES))).title.startswith("dissipation")
    with pytest.raises(RunFolderError, match="not finite"):
        fitted(cases, Ours(candidates=(broken,)))


def test_a_rollout_that_diverges_is_infinite_and_does_not_raise():
    case = heat()[0]
    form = Dissipative(case.scene, [1e3], True)
    rolled = FittedForm(form).rollout(Given(case.scene, case.frames[:, :5]), 196)
    assert rolled.shape == (2, 196, 42, 1)
    assert not bool(torch.isfinite(rolled[:, -1]).any())


@pytest.mark.parametrize("wrong", [{"finalists": 0}, {"candidates": ()}, {"iterations": -1}])
def test_bad_settings(wrong):
    with pytest.raises(ValueError, match="finalists"):
        Ours(**wrong)


def test_no_cases():
    with pytest.raises(RunFolderError, match="no mesh"):
        fitted([])


def test_frames_that_are_not_finite():
    cases = [Case(case.scene, case.frames * float("nan"), case.frames) for case in heat()]
    with pytest.raises(RunFolderError, match="finite"):
        fitted(cases)


def test_too_few_frames_for_a_window():
    with pytest.raises(RunFolderError, match="5 given and 6 predicted"):
        fitted([case.first(2, 10) for case in heat()])


def test_other_candidates_are_another_identity():
    assert repr(Ours(candidates=CANDIDATES[:2])) != repr(Ours(candidates=CANDIDATES[1:3]))
    assert repr(Ours()) == repr(Ours())


def test_forms_that_cannot_be_solved_are_named(monkeypatch):
    monkeypatch.setattr("neuralpde.mesh_ours.loss", lambda form, seen: float("inf"))
    with pytest.raises(RunFolderError, match="not finite"):
        fitted(heat())
