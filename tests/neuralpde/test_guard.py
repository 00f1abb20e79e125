"""A guard for long rollouts: it leaves good steps alone, and damps, replaces or stops bad ones."""

import pytest
import torch
from torch import Tensor

from integrators import RK4, SolveError, Status
from neuralpde.guard import Bound, Damp, FallBack, Growth, Guarded, Hull, Limit, Response, Stop
from neuralpde.stepper import CorrectedStep, SolverStep
from operators import FieldError

X = torch.stack([torch.full((4, 1), 1.0), torch.full((4, 1), 0.1)]).double()


def norm(x: Tensor) -> Tensor:
    return x.square().sum((-2, -1)).sqrt()


def stepper(rate: float) -> CorrectedStep:
    """Decay, and a correction that grows where x is large."""
    plain = SolverStep(lambda t, x: -x, RK4(dt=0.1), 0.1)
    return CorrectedStep(plain, lambda t, x: rate * x**3)


def test_a_good_rollout_is_left_alone() -> None:
    step = stepper(0.1)
    guarded = Guarded(step, [Hull.of(X), Growth(norm)])
    assert torch.equal(guarded.path(X, 10), step.path(X, 10))
    assert guarded.events == []
    assert guarded.uncorrected is step.uncorrected


@pytest.mark.parametrize("response", [Damp(), FallBack()])
def test_a_bad_one_is_kept_within_bounds_member_by_member(response: Response) -> None:
    step = stepper(40.0)
    with pytest.raises((SolveError, ValueError)):
        step.path(X, 30)
    guarded = Guarded(step, Hull(torch.tensor([-1.5]).double(), torch.tensor([1.5]).double()), response)
    path = guarded.path(X, 30)
    assert float(path.abs().max()) <= 1.5
    assert guarded.events
    assert guarded.events[0].members == 1
    # The member that behaves is not touched while it does.
    torch.testing.assert_close(path[:3, 1], step.path(X[1:], 2)[:, 0])
    guarded.clear()
    assert guarded.events == []


def test_damping_keeps_more_of_the_correction_than_falling_back() -> None:
    step, low = stepper(2.0), Growth(norm, rate=0.05)
    once = {type(r).__name__: Guarded(step, low, r)(0.0, X)[0] for r in (Damp(), FallBack())}
    plain, full = step.uncorrected(0.0, X)[0], step(0.0, X)[0]
    torch.testing.assert_close(once["FallBack"], plain)
    share = float(((once["Damp"] - plain) / (full - plain)).mean())
    assert share == pytest.approx(0.5)
    assert "1/2" in _events(step, low)[0].done


def _events(step: CorrectedStep, bound: Bound) -> list:  # type: ignore[type-arg]
    guarded = Guarded(step, bound, Damp())
    guarded(0.0, X)
    return guarded.events


def test_stopping_keeps_the_states() -> None:
    guarded = Guarded(stepper(3.0), Limit(norm, 3.0), Stop())
    with pytest.raises(SolveError, match="a bound is broken by 1 members") as caught:
        guarded.path(X, 50)
    assert caught.value.status is Status.MONITOR
    solution = caught.value.solution
    assert solution is not None
    assert len(solution.t) == len(solution.x) > 1
    assert float(norm(solution.x).max()) <= 3.0
    torch.testing.assert_close(solution.t[1], torch.tensor(0.1, dtype=torch.float64))


def test_a_step_that_is_not_finite() -> None:
    plain = SolverStep(lambda t, x: -x, RK4(dt=0.1), 0.1)
    broken = CorrectedStep(plain, lambda t, x: torch.full_like(x, torch.nan))
    for response in (Damp(), FallBack()):
        guarded = Guarded(broken, Limit(norm, 1e9), response)
        torch.testing.assert_close(guarded.path(X, 3), plain.path(X, 3))
        assert [event.done for event in guarded.events] == ["physics alone"] * 3


def test_bounds_from_the_truth() -> None:
    truth = stepper(0.0).path(X, 5)
    hull, limit = Hull.of(truth, margin=0.5), Limit.of(norm, truth, margin=0.1)
    width = float(truth.max() - truth.min())
    assert float(hull.high) == pytest.approx(float(truth.max()) + width / 2)
    assert limit.largest == pytest.approx(1.1 * float(norm(truth).max()))
    assert hull.keeps(X, X, 0.1).tolist() == [True, True]
    assert limit.keeps(X, 2 * X, 0.1).tolist() == [False, True]
    assert Growth(norm, rate=1.0, slack=0.01).keeps(X, 1.1 * X, 0.1).tolist() == [True, True]
    assert Growth(norm, rate=1.0).keeps(X, 1.2 * X, 0.1).tolist() == [False, False]


def test_gradients_pass_through_a_guard() -> None:
    x = X.clone().requires_grad_()
    guarded = Guarded(stepper(2.0), Growth(norm, rate=0.05), Damp())
    (gradient,) = torch.autograd.grad(guarded.path(x, 3)[-1].sum(), x)
    assert bool(torch.isfinite(gradient).all())
    assert guarded.events


def test_bad_input() -> None:
    with pytest.raises(ValueError, match="needs a bound"):
        Guarded(stepper(1.0), [])
    with pytest.raises(ValueError, match="steps must be"):
        Guarded(stepper(0.1), Hull.of(X)).path(X, -1)
    for state in ((X, X), X + 0j, X * torch.nan):
        with pytest.raises(FieldError, match="one real finite field"):
            Hull.of(state)  # type: ignore[arg-type]
    with pytest.raises(FieldError, match="one real field"):
        Hull.of(X).keeps((X, X), (X, X), 0.1)
