"""RK4: order, stability function, cost and gradients."""

import itertools
import math

import pytest
import torch

from integrators.checkpointed import Checkpointed
from integrators.gradients import Direct
from integrators.integrate import integrate
from integrators.rk4 import RK4

X0 = torch.tensor([[0.3], [0.5], [0.8]], dtype=torch.float64)


@pytest.mark.parametrize("t", [[0.0, 1.0], [0.0, 0.34, 0.36, 1.0], [0.0, -0.4, -1.0]], ids=["one", "uneven", "reverse"])
def test_order(problem, t):
    errors = []
    for n in (50, 100, 200):
        solution = integrate(problem.f, problem.x0, t, RK4(dt=1 / n))
        errors.append(problem.error(solution.t, solution.x))
    first, second = (math.log2(a / b) for a, b in itertools.pairwise(errors))
    assert 4 - 0.1 <= max(second, 2 * second - first) <= 5.1  # What it still lacks shrinks as h.


@pytest.mark.parametrize("z", [-2.5, -1.0, -1e-3, 0.0, 0.7, 3.0, 1j, 2.8j, -1 + 2j, 0.5 - 1j])
def test_stability_function(z):
    x = integrate(lambda t, x: z * x, torch.ones(1, dtype=torch.complex128), [0.0, 1.0], RK4(dt=1.0)).final
    assert abs(complex(x) - sum(z**k / math.factorial(k) for k in range(5))) <= 1e-12


@pytest.mark.parametrize(("z", "stable"), [(-2.785, True), (-2.786, False), (2.828j, True), (2.829j, False)])
def test_the_ends_of_the_stability_intervals(z, stable):
    assert (abs(sum(z**k / math.factorial(k) for k in range(5))) <= 1) == stable


def test_four_evaluations_a_step():
    with torch.no_grad():
        stats = integrate(lambda t, x: -x, X0, [0.0, 1.0], RK4(dt=0.125)).stats
    assert (stats.nfe, stats.accepted, stats.rejected) == (32, 8, 0)


@pytest.mark.parametrize("gradient", [Direct(), Checkpointed()], ids=["direct", "checkpointed"])
def test_gradients_of_both_orders(gradient):
    def solve(k, x0, t):
        return integrate(lambda s, x: -k * torch.sin(s + 1) * x * x, x0, t, RK4(dt=0.23, gradient=gradient)).x

    k = torch.tensor(0.7, dtype=torch.float64, requires_grad=True)
    t = torch.tensor([0.0, 0.3, 0.7], dtype=torch.float64, requires_grad=True)
    x0 = X0.clone().requires_grad_()
    assert torch.autograd.gradcheck(solve, (k, x0, t))
    assert torch.autograd.gradgradcheck(solve, (k, x0, t))


def test_a_batch_under_vmap():
    rates = torch.tensor([0.5, 1.0, 2.0], dtype=torch.float64)
    solve = lambda k: integrate(lambda t, x: -k * x, X0, [0.0, 1.0], RK4(dt=0.02, gradient=Direct())).final  # noqa: E731
    batch = torch.func.vmap(torch.func.jacfwd(solve))(rates)
    exact = -X0 * torch.exp(-rates)[:, None, None]
    assert torch.allclose(batch, exact, rtol=1e-6, atol=1e-7)
