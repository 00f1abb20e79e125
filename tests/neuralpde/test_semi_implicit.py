"""Steps that freeze the linear part: implicit Euler where it is constant, and one matrix a step where it is not."""

import math

import pytest
import torch

from integrators import RK4, BackwardEuler, Checkpointed, Direct, Status, integrate
from neuralpde.heat import Heat
from neuralpde.nonlinear_diffusion import PLaplacian
from neuralpde.phase_field import AllenCahn
from neuralpde.rhs import RightHandSide
from neuralpde.semi_implicit import Lagged, SemiImplicitEuler
from neuralpde.testing import assert_within
from operators import Grid, grid_laplacian

L = grid_laplacian(Grid((6, 5), 0.5))
X = torch.randn(30, 1, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


def test_with_a_constant_linear_part_it_is_the_implicit_explicit_euler_step():
    times = [0.0, 0.1, 0.2]
    found = integrate(Heat(L), X, times, SemiImplicitEuler(dt=0.1))
    assert_within(found.x, integrate(Heat(L), X, times, BackwardEuler(dt=0.1)).x, 1e-14)
    assert (found.stats.factorizations, found.stats.solves, found.stats.accepted) == (1, 2, 2)
    f = AllenCahn(L, 0.7)
    step = integrate(f, X, [0.0, 0.1], SemiImplicitEuler(dt=0.1)).final
    eye = torch.eye(30, dtype=torch.float64)
    assert_within(step, torch.linalg.solve(eye + 0.1 * 0.49 * L.matrix(), X + 0.1 * (X - X**3)), 1e-14)


def test_a_frozen_coefficient_is_that_of_the_beginning_of_the_step():
    f = PLaplacian(L, 3.0)
    assert isinstance(f, Lagged)
    frozen = f.slopes.laplacian(f.conductance(f.slopes.squared(X))).matrix()
    solution = integrate(f, X, [0.0, 0.1], SemiImplicitEuler(dt=0.1, gradient=Direct()))
    assert_within(solution.final, torch.linalg.solve(torch.eye(30, dtype=torch.float64) + 0.1 * frozen, X), 1e-14)
    assert (solution.stats.factorizations, solution.stats.nfe) == (1, 1)


@pytest.mark.parametrize(
    "f", [PLaplacian(L, 3.0), AllenCahn(L, 0.7), AllenCahn(L, lambda t: 0.5 + t)], ids=["lagged", "split", "t"]
)
def test_order_one(f):
    exact = integrate(f, X, [0.0, 0.2], RK4(dt=0.002)).final
    errors = [float((integrate(f, X, [0.0, 0.2], SemiImplicitEuler(dt=dt)).final - exact).abs().max()) for dt in (0.005, 0.0025)]
    assert math.log2(errors[0] / errors[1]) == pytest.approx(1, abs=0.15)


def test_backwards_in_time():
    f = AllenCahn(L, 0.7)
    there = integrate(f, X, [0.0, 0.05], RK4(dt=0.001)).final
    back = integrate(f, there, [0.05, 0.0], SemiImplicitEuler(dt=0.0005)).final
    assert_within(back, X, 0.05)


def test_gradients_are_those_of_the_steps():
    x = X.clone().requires_grad_()
    f = PLaplacian(L, 3.0)
    found = []
    for mode in (Direct(), Checkpointed(snapshots=2)):
        final = integrate(f, x, [0.0, 0.3], SemiImplicitEuler(dt=0.1, gradient=mode)).final
        found.append(torch.autograd.grad((final * torch.sin(X)).sum(), x)[0])
    assert_within(found[0], found[1], 1e-13)
    direction, h = torch.cos(7 * X), 1e-6
    ends = [
        float((integrate(f, X + s * h * direction, [0.0, 0.3], SemiImplicitEuler(dt=0.1)).final * torch.sin(X)).sum())
        for s in (1, -1)
    ]
    assert float((found[0] * direction).sum()) == pytest.approx((ends[0] - ends[1]) / (2 * h), rel=1e-6)


def test_a_right_hand_side_without_a_linear_part_is_refused():
    with pytest.raises(TypeError, match=r"SemiImplicitEuler needs a linear part, and function has neither lagged"):
        integrate(lambda t, x: -x, X, [0.0, 1.0], SemiImplicitEuler(dt=0.1))
    with pytest.raises(ValueError, match="dt must be positive"):
        SemiImplicitEuler(dt=0.0)


def test_a_rest_that_overflows_is_a_diverged_solve():
    class Exploding(RightHandSide):
        def __init__(self):
            super().__init__()
            self.laplacian = L

        @property
        def linear(self):
            return Heat(self.laplacian).linear

        def nonlinear(self, t, x):
            return 1e200 * x**3

    solution = integrate(Exploding(), X, [0.0, 1.0, 2.0, 3.0], SemiImplicitEuler(dt=1.0), throw=False)
    assert solution.status is Status.DIVERGED
    assert torch.isfinite(solution.x).all()
