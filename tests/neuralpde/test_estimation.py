"""Estimation: parameters, fields and initial states, with their deviations, and nothing silently ignored."""

import pytest
import torch
from torch import nn

from integrators import BackwardEuler, Checkpointed, Dopri5, PerSample, integrate
from neuralpde.coefficient import learned
from neuralpde.descent import LBFGS, Adam
from neuralpde.estimation import estimate
from neuralpde.gauss_newton import GaussNewton
from neuralpde.heat import Heat
from neuralpde.inverse_problem import InitialState, Parameter
from neuralpde.observations import Observations
from neuralpde.priors import CrossValidation, Smooth
from operators import bumpy, icosphere, robust_laplacian

L = robust_laplacian(bumpy(icosphere(1)))
G = torch.Generator().manual_seed(0)
U = L.solve(0.1, torch.randn(42, 1, generator=G, dtype=torch.float64))
U = U / U.std()
NODES = torch.randperm(42, generator=G)[:12]
TIMES = [0.05, 0.1, 0.2]
SOLVER = BackwardEuler(dt=0.05)


def seen(noise: float = 1e-3, seed: int = 1, kappa: object = 0.5) -> Observations:
    path = integrate(Heat(L, kappa), U, [0.0, *TIMES], SOLVER).x[1:]  # type: ignore[arg-type]
    return Observations.of(path, TIMES, NODES, noise, torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("by", [None, LBFGS(), Adam(steps=60, learning_rate=0.2)])
def test_a_parameter_is_found_in_place(by: LBFGS | Adam | None) -> None:
    heat = Heat(L, learned(0.1))
    found = estimate(heat, seen(), initial=U, by=by, solver=SOLVER)
    assert float(heat.kappa().detach()) == pytest.approx(0.5, rel=0.01)
    assert found.misfit == pytest.approx(1.0, abs=0.6)
    assert found.names == ["kappa.log_value"]
    assert torch.equal(found.values[0], next(heat.parameters()).detach())
    assert found.evaluations == found.solves + found.products == found.history[-1][0]
    assert "kappa.log_value = " in str(found)


@pytest.mark.parametrize("by", [GaussNewton(), LBFGS()])
def test_without_a_solver_and_with_a_checkpointed_one(by: GaussNewton | LBFGS) -> None:
    for solver in (None, BackwardEuler(dt=0.025, gradient=Checkpointed(snapshots=2)), PerSample(Dopri5())):
        heat = Heat(L, learned(0.3))
        path = integrate(Heat(L, 0.5), U, [0.0, *TIMES], solver).x[1:]
        observations = Observations.of(path, TIMES, NODES, 1e-3, torch.Generator().manual_seed(1))
        estimate(heat, observations, initial=U, by=by, solver=solver)
        assert float(heat.kappa().detach()) == pytest.approx(0.5, rel=0.01)


def test_deviations_are_those_of_many_noises() -> None:
    """Laplace's approximation against a sample: 12 estimates tell a deviation to about a fifth."""
    values, deviations = [], []
    for seed in range(12):
        found = estimate(Heat(L, learned(0.4)), seen(0.05, seed), initial=U, solver=SOLVER)
        values.append(found.values[0])
        assert found.deviations is not None
        deviations.append(found.deviations)
    sample, told = float(torch.stack(values).std()), float(torch.stack(deviations).mean())
    assert 0.5 < sample / told < 2


def test_an_initial_state_beats_interpolating_nothing() -> None:
    prior = Smooth(L, weight=CrossValidation())
    found = estimate(Heat(L, 0.5), seen(), InitialState(torch.zeros_like(U)), prior=prior, solver=SOLVER)
    assert float((found.initial - U).norm() / U.norm()) < 0.6
    assert found.weights[0] > 0
    assert found.covariance is not None
    assert found.covariance.shape == (42, 42)
    # Observed nodes are known better than the rest.
    deviations = found.deviations
    assert deviations is not None
    rest = torch.ones(42, dtype=torch.bool)
    rest[NODES] = False
    assert float(deviations[NODES].mean()) < float(deviations[rest].mean())


def test_a_field_parameter() -> None:
    z = bumpy(icosphere(1)).vertices[:, 2:]
    truth = (0.5 + 0.3 * torch.tanh(z)).to(torch.float64)
    heat = Heat(L, learned(torch.full_like(truth, 0.5)))
    (parameter,) = (p for p in heat.parameters() if p.requires_grad)
    path = integrate(Heat(L, truth), U, [0.0, *TIMES], SOLVER).x[1:]
    all_nodes = torch.arange(42)
    observations = Observations.of(path, TIMES, all_nodes, 1e-3, torch.Generator().manual_seed(1))
    found = estimate(heat, observations, Parameter(parameter, Smooth(L, 2, 0.5, 1.0)), initial=U, solver=SOLVER)
    assert found.misfit < 2
    learnt = heat.kappa().detach()
    assert float((learnt - truth).norm() / truth.norm()) < 0.1
    assert float((0.5 - truth).norm() / truth.norm()) > 0.25


def test_what_cannot_be_seen_has_no_deviation() -> None:
    heat = Heat(L, learned(0.4))
    heat.idle = nn.Parameter(torch.ones((), dtype=torch.float64))
    found = estimate(heat, seen(), initial=U, solver=SOLVER)
    assert found.deviations is not None
    told = dict(zip(found.names, found.deviations.tolist(), strict=True))
    assert told["idle"] == torch.inf
    assert told["kappa.log_value"] < 0.1


def test_progress_leaves_the_output_alone(capsys: pytest.CaptureFixture[str]) -> None:
    estimate(Heat(L, learned(0.4)), seen(), initial=U, solver=SOLVER, progress=True)
    assert capsys.readouterr().out == ""


def test_bad_input() -> None:
    heat = Heat(L, learned(0.4))
    with pytest.raises(TypeError, match="by must be"):
        estimate(heat, seen(), initial=U, by="adam")  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="an unknown is"):
        estimate(heat, seen(), [0.5], initial=U)  # type: ignore[list-item]
    (p,) = (p for p in heat.parameters() if p.requires_grad)
    for twice in ([p, p], [InitialState(U), InitialState(U)]):
        with pytest.raises(ValueError, match="given twice"):
            estimate(heat, seen(), twice, initial=U if twice[0] is p else None)
    with pytest.raises(TypeError, match="one tensor"):
        InitialState((U, U))  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="nothing to estimate"):
        estimate(Heat(L, 0.4), seen(), initial=U)
    with pytest.raises(ValueError, match="prior= is for the one unknown"):
        estimate(heat, seen(), [], initial=U, prior=Smooth(L))
    found = estimate(heat, seen(), initial=U, solver=SOLVER)
    with pytest.raises(ValueError, match="was given, not estimated"):
        _ = found.initial
