"""The contract: f is counted and checked, a new scheme writes one method, and states combine part by part."""

import pytest
import torch

from integrators import FixedStep, Integrator, LinearPart, SolveError, Statistics, Status, integrate
from integrators.integrator import CountedRightHandSide, add, add_scaled, linear_part, scaled, state_map

X = torch.tensor([[1.0], [2.0]], dtype=torch.float64)
ZERO = torch.tensor(0.0, dtype=torch.float64)


class Midpoint(FixedStep):
    """A user's scheme of order 2."""

    def step(self, f, t, x, h):
        return add_scaled(x, h, (1.0, f(t + h / 2, add_scaled(x, h, (0.5, f(t, x))))))


def test_a_new_scheme_writes_step_and_has_everything_else(problem, observed_order):
    solutions = [integrate(problem.f, problem.x0, [0.0, 0.337, 1.0], Midpoint(dt=d)) for d in (1 / 32, 1 / 64, 1 / 128)]
    assert 1.8 <= observed_order([problem.error(s.t, s.x) for s in solutions]) <= 3.2


def test_an_integrator_must_solve():
    with pytest.raises(TypeError, match="abstract"):
        Integrator()
    with pytest.raises(TypeError, match="abstract"):
        FixedStep(dt=0.1)


def test_evaluations_are_counted_forward_and_backward():
    stats = Statistics()
    f = CountedRightHandSide(lambda t, x: -x, X, stats, max_nfe=3)
    assert torch.equal(f(ZERO, X), -X)
    f.backward = True
    f(ZERO, X)
    f(ZERO, X)
    assert (stats.nfe, stats.nfe_backward) == (1, 2)


@pytest.mark.parametrize(
    ("backward", "message"), [(False, "the solve reached t = 0 "), (True, "the backward solve of Adjoint reached")]
)
def test_the_budget_stops_before_the_evaluation(backward, message):
    calls = []
    f = CountedRightHandSide(lambda t, x: calls.append(t) or -x, X, Statistics(), max_nfe=2)
    f.backward = backward
    f(ZERO, X)
    f(ZERO, X)
    with pytest.raises(SolveError, match=message) as caught:
        f(ZERO, X)
    assert len(calls) == 2
    assert caught.value.status is Status.BUDGET


def test_a_value_that_is_not_finite_names_time_and_evaluation():
    f = CountedRightHandSide(lambda t, x: x / 0, X, Statistics(), max_nfe=2)
    with pytest.raises(SolveError, match=r"not finite at t = 0 \(evaluation 1 of the forward solve\)") as caught:
        f(ZERO, X)
    assert caught.value.status is Status.DIVERGED


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_one_bad_entry_of_one_part_is_found(value):
    bad = torch.zeros(100, dtype=torch.complex128)
    bad[57] = complex(0, value)
    f = CountedRightHandSide(lambda t, x: (x[0], bad), (X, torch.zeros_like(bad)), Statistics(), max_nfe=2)
    with pytest.raises(SolveError, match="not finite"):
        f(ZERO, (X, torch.zeros_like(bad)))


def test_errors_are_the_same_where_the_times_need_gradients():
    """float() of a tensor that needs a gradient warns; the message must come all the same."""
    t = torch.tensor(0.5, dtype=torch.float64, requires_grad=True)
    for g, budget in ((lambda t, x: x / 0, 1), (lambda t, x: x, 0)):
        with pytest.raises(SolveError, match=r"t = 0\.5"):
            CountedRightHandSide(g, X, Statistics(), budget)(t, X)


def test_a_linear_part_is_given_or_refused_with_what_is_missing(linear):
    f = linear(torch.eye(2))
    assert linear_part(f, "Exponential") is f
    assert isinstance(f, LinearPart)
    with pytest.raises(TypeError, match=r"Exponential needs a linear .*Tanh exposes no linear part: use Dopri5 or RK4"):
        linear_part(torch.nn.Tanh(), "Exponential")
    f = torch.nn.Tanh()
    f.linear = torch.eye(2)
    with pytest.raises(TypeError, match=r"Tanh.linear must offer `@`, `norm_bound\(\)` and `solve\(shift, b\)`"):
        linear_part(f, "Exponential")


def test_states_combine_part_by_part_in_their_own_precision():
    x, y = (X.float(), X.to(torch.complex64)), (2 * X.float(), 1j * X.to(torch.complex64))
    h = torch.tensor(0.5, dtype=torch.float64)
    for found, expected in (
        (add(x, y), (3 * x[0], (1 + 1j) * x[1])),
        (scaled(x, h), (0.5 * x[0], 0.5 * x[1])),
        (add_scaled(x, h, (2.0, y), (-1.0, x)), (2.5 * x[0], (0.5 + 1j) * x[1])),
        (state_map(torch.neg, x), (-x[0], -x[1])),
    ):
        assert [part.dtype for part in found] == [torch.float32, torch.complex64]
        assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))
    assert torch.equal(add(X, X), 2 * X)
