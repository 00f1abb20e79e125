"""Rollouts are measured as the metrics say, once, and the trivial methods score what they must."""

import dataclasses
import json
import math

import pytest
import torch

from neuralpde import (
    RK4,
    Exponential,
    Heat,
    NeuralPDE,
    PublishedRayleigh,
    RightHandSide,
    Training,
    nrmse,
    rayleigh_error,
    robust_laplacian,
)
from neuralpde.heat_data import FRAMES, GIVEN_FRAMES, TRAIN_CONDITIONS, Truth, surface
from neuralpde.heat_report import write_results
from neuralpde.heat_rollout import STEPS, Outcome, outcome_of, rollout_of
from neuralpde.heat_settings import HeatSettings
from neuralpde.testing import assert_within


@pytest.fixture(scope="module")
def items(surfaces, tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    return [
        surface(name, surfaces[name], Truth.SURFACE, TRAIN_CONDITIONS, 0, folder / name, lambda: None)
        for name in ("ball", "ring")
    ]


@pytest.mark.parametrize("name", ["zero", "persistence", "stencil"])
def test_methods_without_training(name, items, tmp_path):
    outcome = outcome_of(name, rollout_of(name, {}, items, Truth.SURFACE), {}, items, tmp_path / "x.safetensors")
    assert outcome.parameters == (1 if name == "stencil" else 0)
    assert outcome.nfe == (STEPS if name == "stencil" else 0)
    for item in items:
        start = item.frames[:, GIVEN_FRAMES - 1]
        path = outcome.path[item.name]
        assert path.shape == (STEPS + 1, item.mesh.num_nodes)
        truth = item.frames[:, GIVEN_FRAMES:].transpose(0, 1).double()
        scores = torch.tensor(outcome.nrmse[item.name])
        assert scores.shape == (TRAIN_CONDITIONS,)
        if name == "zero":
            assert_within(scores, STEPS, 1e-2)
            quotient = PublishedRayleigh(robust_laplacian(item.mesh))
            expected = rayleigh_error(torch.zeros_like(truth), truth, quotient).sum(0)
            assert_within(torch.tensor(outcome.rayleigh_error[item.name]), expected, 1e-4)
        elif name == "persistence":
            assert_within(path, start[0, :, 0].expand_as(path), 0.0)
            expected = nrmse(start.double().expand_as(truth), truth).sum(0)
            assert_within(scores, expected, 1e-3)
        else:
            assert float(scores.max()) < 0.05 * STEPS


def test_the_equation_itself_scores_almost_nothing_and_its_laws_hold(items, tmp_path):
    model = NeuralPDE(Heat(robust_laplacian(items[0].mesh).to(torch.float32), learn=True), Exponential())
    models = {"heat": (model, Training([0.5], 3.0))}
    outcome = outcome_of("heat", rollout_of("heat", models, items, Truth.SURFACE), models, items, tmp_path / "x")
    # The truth is solved by finite steps of order 1.
    assert outcome.mean("nrmse") < 0.01 * STEPS
    assert outcome.parameters == 1
    assert outcome.seconds > 3.0
    assert outcome.nfe > 0
    assert {check.invariant for check in outcome.checks} == {i.name for i in model.rhs.invariants}
    assert all(check.holds for check in outcome.checks)
    assert len(outcome.checks) == 2 * len(model.rhs.invariants)


def test_a_rollout_is_kept(items, tmp_path):
    cache = tmp_path / "x.safetensors"
    first = outcome_of("stencil", rollout_of("stencil", {}, items, Truth.SURFACE), {}, items, cache)

    def never(*_: object):
        raise AssertionError("computed again")

    again = outcome_of("stencil", never, {}, items, cache)
    assert again.nrmse == first.nrmse
    assert again.rayleigh_error == first.rayleigh_error
    assert all(torch.equal(again.path[name], first.path[name]) for name in first.path)
    # But not one of other surfaces, or a damaged one.
    with pytest.raises(AssertionError, match="computed again"):
        outcome_of("stencil", never, {}, items[:1], cache)
    cache.write_bytes(b"half")
    with pytest.raises(AssertionError, match="computed again"):
        outcome_of("stencil", never, {}, items, cache)


def test_means_are_over_surfaces_and_rollouts():
    outcome = Outcome("x", 1, 0.0, 0.0, {"a": [1.0, 2.0], "b": [6.0]}, {"a": [0.0, 0.0], "b": [3.0]}, {}, [])
    assert outcome.mean("nrmse") == 3.0
    assert outcome.mean("rayleigh_error") == 1.0
    assert STEPS == FRAMES - GIVEN_FRAMES == 196


class Growth(RightHandSide):
    """du/dt = +κ L u, which no step can follow."""

    def __init__(self, laplacian):
        super().__init__()
        self.laplacian = laplacian

    def forward(self, t, u):
        return 1e9 * (self.laplacian @ u)


def test_a_method_that_diverges_is_a_row_of_the_table_and_not_the_end_of_the_run(items, tmp_path):
    model = NeuralPDE(Growth(robust_laplacian(items[0].mesh).to(torch.float32)), RK4(dt=math.inf))
    models = {"relaxed": (model, Training([0.5], 3.0))}
    diverged = outcome_of("relaxed", rollout_of("relaxed", models, items, Truth.SURFACE), models, items, tmp_path / "x")
    assert math.isnan(diverged.mean("nrmse"))
    assert math.isnan(diverged.mean("rayleigh_error"))
    first = diverged.path[items[0].name]
    assert first.shape == (STEPS + 1, items[0].mesh.num_nodes)
    assert torch.equal(first[0], items[0].frames[0, GIVEN_FRAMES - 1, :, 0])
    others = {n: outcome_of(n, rollout_of(n, {}, items, Truth.SURFACE), {}, items, tmp_path / n) for n in ("zero", "stencil")}
    sound = {name: dataclasses.replace(others["stencil"], name=name) for name in ("beltrami", "difference")}
    settings = HeatSettings(out=tmp_path / "run", json=tmp_path / "rows.json")
    write_results(settings, [*others.values(), diverged, *sound.values()], {"relaxed": [1.0, 0.5]}, items, items)
    text = (tmp_path / "rows.json").read_text()
    rows = json.loads(text, parse_constant=lambda word: pytest.fail(f"{word} is not JSON"))["rows"]
    value = {(row["table"], row["method"], row["metric"]): row["value"] for row in rows}
    assert value["heat", "relaxed", "nrmse"] is None
    assert value["heat", "beltrami", "nrmse"] > 0
    assert "diverged" in (tmp_path / "run" / "report.html").read_text()
