"""Auto chooses by structure and stiffness, says why, and is right; an explicit choice that stability binds is told so."""

import math
import re
import warnings

import pytest
import torch

from integrators import Dopri5, SolverWarning, Status, integrate
from integrators.autopilot import Auto, advise


def matrix(*eigenvalues: float) -> torch.Tensor:
    return torch.diag(torch.tensor(eigenvalues, dtype=torch.float64))


class Semilinear(torch.nn.Module):
    """dx/dt = G x + sin t − x³."""

    def __init__(self, linear):
        super().__init__()
        self.linear = linear

    def nonlinear(self, t, x):
        return torch.sin(t) - x**3

    def forward(self, t, x):
        return self.linear @ x + self.nonlinear(t, x)


X2 = torch.tensor([[1.0], [0.5]], dtype=torch.float64)
X300 = torch.linspace(0, 1, 300, dtype=torch.float64)[:, None]


def diffusion(t, x, rate=1e4):
    padded = torch.nn.functional.pad(x.mT[None], (1, 1), mode="replicate")[0].mT
    return rate * (padded[2:] - 2 * x + padded[:-2])


def heated(t, x):
    return diffusion(t, x, 1e3) + torch.sin(x)


def spring(t, x):
    return 1e3 * x[1], -1e3 * x[0]


@pytest.mark.parametrize(
    ("f", "x0", "chosen", "why"),
    [
        (lambda t, x: -x, X2, "Dopri5", "not stiff"),
        (diffusion, X300, "RKC2", "dissipative, with nothing to factor"),
        (heated, X300, "RKC2", "dissipative"),
        (lambda t, x: -1e5 * (x - torch.cos(t)), X2, "RadauIIA5", "stiff .* and small"),
        (spring, (X2, X2), "Dopri5", "oscillate"),
    ],
)
def test_the_choice_without_structure(f, x0, chosen, why):
    solution = integrate(f, x0, [0.0, 1.0])
    assert solution.stats.reason.startswith(chosen)
    assert re.search(why, solution.stats.reason)


@pytest.mark.parametrize(("scale", "chosen"), [(1.0, "Exponential"), (1e5, "RadauIIA5")])
def test_the_choice_for_a_linear_equation(linear, scale, chosen):
    solution = integrate(linear(matrix(-scale, -1.0)), X2, [0.0, 1.0])
    assert solution.stats.reason.startswith(chosen)
    exact = X2 * torch.tensor([[-scale], [-1.0]], dtype=torch.float64).exp()
    assert float((solution.final - exact).abs().max()) <= 1e-5


def test_loose_tolerances_choose_sdirk3(linear):
    assert integrate(linear(matrix(-1e5, -1.0)), X2, [0.0, 1.0], Auto(rtol=1e-3)).stats.reason.startswith("SDIRK3")


@pytest.mark.parametrize(("scale", "chosen"), [(1.0, "Dopri5"), (1e5, "ARK324")])
def test_the_choice_for_a_semilinear_equation(linear, scale, chosen):
    f = Semilinear(linear(matrix(-scale, -1.0)))
    solution = integrate(f, X2, [0.0, 1.0])
    assert solution.stats.reason.startswith(chosen)
    exact = integrate(f.forward, X2, [0.0, 1.0], Dopri5(1e-9, 1e-11)).final if scale == 1 else None
    if exact is not None:
        assert float((solution.final - exact).abs().max()) <= 1e-4


def test_backwards_in_time_it_is_explicit(linear):
    assert integrate(lambda t, x: -x, X2, [1.0, 0.0]).stats.reason.startswith("Dopri5")
    assert integrate(linear(matrix(-1e3, -1.0)), X2, [0.01, 0.0]).stats.reason.startswith("Exponential")


def test_a_linear_part_without_solves_falls_back(linear):
    class Unsolvable(linear):
        def solve(self, shift, b):
            raise NotImplementedError

    solution = integrate(Unsolvable(matrix(-1e3, -1.0)), X2, [0.0, 1.0])
    assert solution.stats.reason.startswith("Exponential: f is linear, and its implicit equations cannot be solved")


def test_the_estimate_is_counted():
    calls = 0

    def f(t, x):
        nonlocal calls
        calls += 1
        return -x

    assert integrate(f, X2, [0.0, 1.0]).stats.nfe == calls


def test_gradients_flow_through_the_choice(linear):
    G = matrix(-1e4, -1.0).requires_grad_()
    x0 = X2.clone().requires_grad_()
    final = integrate(linear(G), x0, [0.0, 1.0]).final
    grads = torch.autograd.grad(final.sum(), (x0, G))
    exact = torch.tensor([[0.0], [math.exp(-1.0)]], dtype=torch.float64)
    assert float((grads[0] - exact).abs().max()) < 1e-5
    assert all(bool(torch.isfinite(g).all()) for g in grads)


def test_stability_bound_steps_are_told_with_the_cure():
    with pytest.warns(SolverWarning, match=r"Dopri5 took \d+ steps because stability bound the steps.*RKC2"):
        solution = integrate(diffusion, X300, [0.0, 0.5], Dopri5())
    assert "RKC2" in solution.stats.advice
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        short = integrate(diffusion, X300, [0.0, 0.05], Dopri5())
    assert "RKC2" in short.stats.advice


def test_auto_tells_that_its_own_choice_was_wrong_because_the_equation_became_stiff():
    with pytest.warns(SolverWarning, match="stability bound the steps"):
        solution = integrate(lambda t, x: -(1.0 if float(t) < 0.5 else 1e4) * x, X2, [0.0, 1.5])
    assert "not stiff" in solution.stats.reason
    assert "RKC2" in solution.stats.advice


def test_accuracy_bound_steps_get_no_advice():
    solution = integrate(spring, (X2, X2), [0.0, 1.0], Dopri5())
    assert solution.stats.accepted > 200
    assert solution.stats.advice == ""
    advise(spring, Dopri5(), solution)
    assert solution.stats.advice == ""


def test_the_search_for_a_cure_is_counted():
    calls = 0

    def f(t, x):
        nonlocal calls
        calls += 1
        return diffusion(t, x)

    assert integrate(f, X300, [0.0, 0.05], Dopri5()).stats.nfe == calls


def only_positive(t, x):
    if bool((x < 0).any()):
        raise ValueError("a negative concentration")
    return 400 * x * (1 - x)


def test_an_f_that_refuses_states_beside_its_solution_is_solved_all_the_same():
    at_the_border = torch.cat([torch.zeros(9, 1), torch.ones(1, 1) / 2]).double()
    solution = integrate(only_positive, at_the_border, [0.0, 0.01])
    assert re.match("Dopri5: f has no values, or none that are finite, around x0", solution.stats.reason)
    assert integrate(only_positive, at_the_border, [0.0, 4.0], Dopri5()).status is Status.SUCCESS
    root = integrate(lambda t, x: torch.where(x < 0, x * math.nan, 1 + 0 * x), at_the_border, [0.0, 1.0])
    assert re.match("Dopri5: f has no values", root.stats.reason)


def test_a_failed_solve_says_too_what_was_chosen():
    solution = integrate(lambda t, x: -x, X2, [0.0, 1.0], throw=False, max_steps=1)
    assert solution.status is Status.STEPS
    assert solution.stats.reason.startswith("Dopri5: not stiff")
    late = integrate(lambda t, x: -x, X2, [0.0, 1.0], throw=False, max_seconds=0.0)
    assert (late.status, len(late.t)) == (Status.SECONDS, 1)


def test_what_f_has_not_implemented_is_named():
    def f(t, x):
        raise NotImplementedError("the flux of Roe")

    with pytest.raises(NotImplementedError, match="the flux of Roe"):
        integrate(f, X2, [0.0, 1.0])
