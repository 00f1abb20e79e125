"""The adjoint along the dense output: right to its tolerance, and stable where the flow is."""

import math

import pytest
import torch

from integrators.adjoint import Adjoint
from integrators.backward_euler import BackwardEuler
from integrators.dopri5 import Dopri5
from integrators.gradients import Direct
from integrators.integrate import integrate
from integrators.interpolated import GAUSS, KRONROD, NODES, Interpolated, kronrod
from integrators.rk4 import RK4
from integrators.solution import SolveError, SolverWarning, Status

T = [0.0, 0.4, 1.0]
TIGHT = {"rtol": 1e-8, "atol": 1e-10}
X0 = torch.tensor([[0.3], [0.5]], dtype=torch.float64)


def leaf(value):
    return torch.as_tensor(value, dtype=torch.float64).clone().requires_grad_()


def nonlinear():
    a, b = leaf(0.7), leaf(0.3)
    c = b.exp()
    return (lambda t, x: -a * torch.sin(x) * torch.cos(3 * t) + c * x), X0, [a, b]


def mixed():
    a = leaf(0.7)
    f = lambda t, x: (-a * x[0] * torch.cos(t), 1j * a * x[1] * x[0].sum())  # noqa: E731
    return f, (X0, torch.complex(X0, 1 - X0)), [a]


def bare():
    return (lambda t, x: -x * x), X0, []


def gradients(make, solver, times=T, jumps=()):
    f, x0, leaves = make()
    start = tuple(p.clone().requires_grad_() for p in x0) if isinstance(x0, tuple) else x0.clone().requires_grad_()
    t = leaf(times)
    solution = integrate(f, start, t, solver, jumps=jumps)
    parts = solution.x if isinstance(solution.x, tuple) else (solution.x,)
    sum(p.abs().pow(2).sum() + p.real.sum() for p in parts).backward()
    return [p.grad for p in (*(start if isinstance(start, tuple) else (start,)), *leaves, t)], solution.stats


@pytest.mark.parametrize("times", [T, [1.0, 0.4, 0.0]], ids=["forward", "reverse"])
@pytest.mark.parametrize("make", [nonlinear, mixed, bare])
def test_it_is_direct_to_the_tolerance(make, times):
    direct, _ = gradients(make, Dopri5(gradient=Direct(), **TIGHT), times)
    found, stats = gradients(make, Dopri5(gradient=Interpolated(), **TIGHT), times)
    for a, b in zip(found, direct, strict=True):
        assert float((a - b).abs().max()) <= 100 * TIGHT["rtol"] * (1 + float(b.abs().max()))
    assert stats.nfe_backward > 0


def test_other_solvers(linear):
    A = torch.tensor([[-0.5, 1.0], [-1.0, -0.2]], dtype=torch.float64)

    def make():
        G = leaf(A)
        return linear(G), X0, [G]

    for scheme, dt, error in ((RK4, 0.02, 1e-6), (BackwardEuler, 2e-3, 5e-3)):
        direct, found = (gradients(make, scheme(dt=dt, gradient=g))[0] for g in (Direct(), Interpolated()))
        for a, b in zip(found, direct, strict=True):
            assert torch.allclose(a, b, rtol=error, atol=error)


def test_its_own_tolerances():
    """The forward solve fixed, the error of the gradient follows the tolerance of the backward pass."""
    exact, _ = gradients(nonlinear, Dopri5(rtol=1e-10, atol=1e-12, gradient=Direct()))
    errors, costs = [], []
    for rtol in (1e-3, 1e-4, 1e-5):
        found, stats = gradients(nonlinear, RK4(dt=2e-2, gradient=Interpolated(rtol=rtol, atol=1e-2 * rtol)))
        errors.append(max(float((a - b).abs().max() / b.abs().max()) for a, b in zip(found, exact, strict=True)))
        costs.append(stats.nfe_backward)
    assert all(error <= 10 * rtol for error, rtol in zip(errors, (1e-3, 1e-4, 1e-5), strict=True))
    assert costs[0] < costs[1] < costs[2]


def test_jumps_of_the_right_hand_side():
    def make():
        a = leaf(0.7)
        return (lambda t, x: (-a if t < 0.7 else 2 * a * x) * x), X0, [a]

    direct, found = (gradients(make, Dopri5(gradient=g, **TIGHT), jumps=[0.7])[0] for g in (Direct(), Interpolated()))
    for a, b in zip(found, direct, strict=True):
        assert torch.allclose(a, b, rtol=1e-6, atol=1e-6)


class Heat(torch.nn.Module):
    """dx/dt = −λ x, mode by mode."""

    dissipative = True

    def __init__(self, largest):
        super().__init__()
        self.rate = torch.nn.Parameter(torch.linspace(0.1, largest, 8, dtype=torch.float64)[:, None])

    def forward(self, t, x):
        return -self.rate * x


@pytest.mark.parametrize("largest", [30.0, 100.0])
def test_it_is_right_and_silent_where_the_adjoint_fails(largest):
    ones, t = torch.ones(8, 1, dtype=torch.float64), [0.0, 0.1, 1.0]
    heat = Heat(largest)
    x0 = ones.clone().requires_grad_()
    integrate(heat, x0, t, Dopri5(rtol=1e-6, atol=1e-8, gradient=Interpolated())).x.sum().backward()
    rate, times = heat.rate.detach().requires_grad_(), torch.tensor(t, dtype=torch.float64)
    start = ones.clone().requires_grad_()
    (torch.exp(-rate * times[:, None, None]) * start).sum().backward()
    assert float((heat.rate.grad - rate.grad).abs().max()) <= 1e-5
    assert float((x0.grad - start.grad).abs().max()) <= 1e-5
    with pytest.warns(SolverWarning):
        solution = integrate(heat, ones, t, Dopri5(rtol=1e-6, atol=1e-8, gradient=Adjoint(max_nfe=500)))
    if largest >= 100:
        with pytest.raises(SolveError):
            solution.x.sum().backward()


def test_the_rules_are_exact_for_polynomials():
    """Kronrod to degree 22, Gauss to degree 13; the weights sum to 2."""

    def both(degree):
        sums = []
        for weights in (KRONROD, GAUSS):
            pairs = [(s * x, w) for x, w in zip(NODES, weights, strict=True) for s in ((1, -1) if x else (1,))]
            sums.append(math.fsum(w * x**degree for x, w in pairs))
        return sums

    for degree in range(24):
        exact = 0.0 if degree % 2 else 2 / (degree + 1)
        fine, coarse = both(degree)
        assert abs(fine - exact) <= 1e-14
        assert abs(coarse - exact) <= 1e-14 or degree > 13
    assert abs(both(24)[0] - 2 / 25) > 1e-12
    assert abs(both(14)[1] - 2 / 15) > 1e-6
    value, error = kronrod(lambda s: [torch.tensor(s, dtype=torch.float64).exp()], 0.0, 2.0)
    assert abs(float(value[0]) - (math.e**2 - 1)) <= 1e-13
    assert error[0] <= 1e-10


def test_the_budget_and_its_cure():
    a = leaf(0.7)
    solution = integrate(lambda t, x: -a * x, X0, T, Dopri5(gradient=Interpolated(max_nfe=10)))
    with pytest.raises(SolveError, match=r"backward solve of Interpolated.*budget of 10 evaluations.*max_nfe") as caught:
        solution.x.sum().backward()
    assert caught.value.status is Status.BUDGET


def test_what_was_reached_before_a_failure_has_its_gradient():
    a, b = leaf(2.0), leaf(2.0)
    t = [0.0, 0.1, 0.2, 0.8, 1.6]
    for rate, gradient in ((a, Interpolated()), (b, Direct())):
        solver = Dopri5(gradient=gradient, max_nfe=400, **TIGHT)
        solution = integrate(lambda t, x, r=rate: r * x * x, 1 + X0, t, solver, throw=False)
        assert 1 < len(solution.t) < 5
        solution.x.sum().backward()
    assert torch.allclose(a.grad, b.grad, rtol=1e-5)


def test_second_derivatives_and_transforms_are_refused():
    a = leaf(0.7)
    solver = Dopri5(gradient=Interpolated())
    x = integrate(lambda t, x: -a * x, X0, T, solver).x
    with pytest.raises(NotImplementedError, match="no second derivatives"):
        torch.autograd.grad(x.sum(), a, create_graph=True)
    with pytest.raises(NotImplementedError, match=r"Interpolated does not work inside torch.func"):
        torch.func.jacrev(lambda a: integrate(lambda t, x: -a * x, X0, T, solver).x)(a.detach())


@pytest.mark.parametrize("settings", [{"rtol": 0.0}, {"atol": -1.0}, {"max_nfe": 0}])
def test_bad_settings_are_refused(settings):
    with pytest.raises(ValueError, match=r"must be (positive and finite|a positive integer), not"):
        Interpolated(**settings)


@pytest.mark.parametrize("unit", [1e-9, 1e-4, 1.0, 1e6])
def test_the_units_of_the_loss_do_not_change_the_gradient(unit):
    omega = torch.tensor(3.0, dtype=torch.float64, requires_grad=True)
    x0 = torch.tensor([[1.0], [0.0]], dtype=torch.float64)

    def swing(t, x):
        return torch.stack([x[1], -(omega**2) * x[0]])

    x = integrate(swing, x0, [0.0, 6.0], Dopri5(rtol=1e-6, atol=1e-8, gradient=Interpolated())).final
    (gradient,) = torch.autograd.grad(unit * x[0, 0], omega)
    # d/dω cos(6 ω); a hundred times the tolerance for the error that the steps pile up.
    assert float(gradient) / unit == pytest.approx(-6 * math.sin(18.0), rel=1e-4)
