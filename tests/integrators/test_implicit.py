"""Backward Euler: order, stability function, stiff equations in long steps."""

import math

import pytest
import torch

from integrators import BackwardEuler, SolveError, Status, integrate

G = torch.tensor([[-1.0, 2.0], [-2.0, -0.5]], dtype=torch.float64)
X0 = torch.tensor([[1.0], [0.5]], dtype=torch.float64)


@pytest.mark.parametrize("factor", [1.0, 1j, 1 + 1j])
def test_order(linear, observed_order, factor):
    matrix, x0 = (G, X0) if factor == 1 else (factor * G, X0.to(torch.complex128))
    t = torch.tensor([0.0, 0.337, 1.0], dtype=torch.float64)
    exact = torch.stack([torch.linalg.matrix_exp(s * matrix) @ x0 for s in t])
    errors = [
        float((integrate(linear(matrix), x0, t, BackwardEuler(dt=d)).x - exact).abs().max())
        for d in (1 / 128, 1 / 256, 1 / 512)
    ]
    assert 0.8 <= observed_order(errors) <= 2.2


@pytest.mark.parametrize("z", [-1e12, -2.5, -1e-3, 0.0, 0.7, 3.0, 1j, 20j, -1 + 2j])
def test_stability_function(linear, z):
    f, one = linear(torch.full((1, 1), z, dtype=torch.complex128)), torch.ones(1, 1, dtype=torch.complex128)
    assert abs(complex(integrate(f, one, [0.0, 1.0], BackwardEuler(dt=1.0)).final) - 1 / (1 - z)) <= 1e-12


@pytest.mark.parametrize("dt", [1e-4, 0.1, 100.0, math.inf])
def test_stiff_diffusion_keeps_its_maximum_principle_for_every_step(linear, dt):
    """A path of nodes with weights 1e8: every state stays between the extremes of the first, and the mean is kept."""
    n = 6
    A = torch.diag(torch.ones(n - 1, dtype=torch.float64), 1)
    A = A + A.T
    L = 1e8 * (torch.diag(A.sum(1)) - A)
    x0 = torch.tensor([[0.0], [1.0], [0.0], [0.0], [1.0], [0.5]], dtype=torch.float64)
    x = integrate(linear(-L), x0, [0.0, 1e-9, 1e-3, 0.01], BackwardEuler(dt=dt)).x
    assert float(x.min()) >= -1e-12
    assert float(x.max()) <= 1 + 1e-12
    assert torch.allclose(x.mean(dim=1), x0.mean(), rtol=0, atol=1e-6)
    assert float(x[-1].max() - x[-1].min()) <= 1e-5


def test_statistics_count_solves_and_steps(linear):
    f = linear(G)
    stats = integrate(f, X0, [0.0, 0.5, 1.0], BackwardEuler(dt=0.125)).stats
    assert stats.solves == stats.accepted == f.solves == 8
    assert (stats.nfe, stats.nfe_backward, stats.rejected, f.calls) == (0, 0, 0, 0)


def test_the_budget_counts_solves(linear):
    with pytest.raises(SolveError, match="budget of 5 linear solves") as caught:
        integrate(linear(G), X0, [0.0, 0.25, 1.0], BackwardEuler(dt=0.1, max_nfe=5))
    assert caught.value.status is Status.BUDGET
    assert caught.value.solution.t.tolist() == [0.0, 0.25]


def test_a_pole_is_a_solve_error(linear):
    f = linear(torch.eye(1, dtype=torch.float64))
    f.solve = lambda shift, b: b / (1 - shift)
    with pytest.raises(SolveError, match=r"step 1, at t = 1,") as caught:
        integrate(f, X0[:1], [0.0, 1.0], BackwardEuler(dt=1.0))
    assert caught.value.status is Status.DIVERGED


def test_single_precision_is_kept(linear):
    x = integrate(linear(G.float()), X0.float(), [0.0, 1.0], BackwardEuler(dt=0.1)).final
    assert x.dtype == torch.float32
    double = integrate(linear(G), X0, [0.0, 1.0], BackwardEuler(dt=0.1)).final
    assert float((x - double).abs().max()) <= 100 * torch.finfo(torch.float32).eps


def test_a_tuple_state_is_refused(linear):
    with pytest.raises(TypeError, match="BackwardEuler integrates a single tensor, not a tuple state"):
        integrate(linear(G), (X0, X0), [0.0, 1.0], BackwardEuler(dt=0.1))


@pytest.mark.parametrize("dt", [0.0, -0.1, float("nan")])
def test_bad_steps_are_refused(dt):
    with pytest.raises(ValueError, match=rf"dt must be positive, not {dt}"):
        BackwardEuler(dt=dt)
