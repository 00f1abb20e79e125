"""Steppers: paths, gradients through many steps, and what they are without their correction."""

import pytest
import torch
from torch import Tensor, nn

from integrators import RK4, SBDF2, Direct, integrate
from neuralpde.closure import ConservativeClosure
from neuralpde.correction import Corrected
from neuralpde.phase_field import CahnHilliard
from neuralpde.stepper import CorrectedStep, SolverStep
from operators import icosphere, robust_laplacian

L = robust_laplacian(icosphere(1))
U = 0.3 * torch.randn(2, 42, 1, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


class Rate(nn.Module):
    """c(t, x) = a t x."""

    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Parameter(torch.tensor(0.3, dtype=torch.float64))

    def forward(self, t: Tensor, x: Tensor) -> Tensor:
        return self.a * t * x


def decay(t: Tensor, x: Tensor) -> Tensor:
    return -x


def test_a_path_is_one_solve_and_starts_at_x0() -> None:
    f = CahnHilliard(L, 0.5)
    path = SolverStep(f, SBDF2(dt=0.01), 0.02).path(U, 4)
    expected = integrate(f, U, [0.0, 0.02, 0.04, 0.06, 0.08], SBDF2(dt=0.01)).x
    assert torch.equal(path, expected)
    assert torch.equal(path[0], U)


def test_single_steps_make_the_path_of_a_one_step_method() -> None:
    step = SolverStep(decay, RK4(dt=0.1), 0.1)
    path = step.path(U, 3, t0=1.0)
    x = U
    for k in range(3):
        x = step(1.0 + 0.1 * k, x)
    torch.testing.assert_close(path[-1], x, rtol=1e-14, atol=1e-14)


def test_a_correction_after_each_step_in_closed_form() -> None:
    step = CorrectedStep(SolverStep(decay, RK4(dt=0.1), 0.1), Rate())
    path = step.path(U, 2)
    factor = 1 - 0.1 + 0.1**2 / 2 - 0.1**3 / 6 + 0.1**4 / 24
    expected = U * factor * (1 + 0.1 * 0.3 * 0.1) * factor * (1 + 0.1 * 0.3 * 0.2)
    torch.testing.assert_close(path[-1], expected, rtol=1e-13, atol=1e-14)


@pytest.mark.parametrize("where", ["inside", "after"])
def test_gradient_through_many_steps(where: str) -> None:
    rate = Rate()
    plain = SolverStep(decay, RK4(dt=0.1, gradient=Direct()), 0.1)
    step = CorrectedStep(plain, rate) if where == "after" else SolverStep(Corrected(decay, rate), RK4(dt=0.1), 0.1)

    def loss() -> Tensor:
        return step.path(U, 5)[-1].square().sum()

    (gradient,) = torch.autograd.grad(loss(), rate.a)
    with torch.no_grad():
        rate.a += 1e-5
        above = loss()
        rate.a -= 2e-5
        below = loss()
    assert float(gradient) == pytest.approx(float((above - below).detach() / 2e-5), rel=1e-8)


def test_uncorrected() -> None:
    f, closure = CahnHilliard(L, 0.5), ConservativeClosure(L)
    for p in closure.parameters():
        p.data += 0.1
    plain = SolverStep(f, SBDF2(dt=0.02), 0.02)
    assert plain.uncorrected is plain
    assert CorrectedStep(plain, closure).uncorrected is plain
    inside = SolverStep(Corrected(f, closure), SBDF2(dt=0.02), 0.02)
    assert torch.equal(inside.uncorrected.path(U, 2), plain.path(U, 2))
    assert not torch.allclose(inside.path(U, 2), plain.path(U, 2))


@pytest.mark.parametrize("where", ["inside", "after"])
def test_supervised_has_no_gradient_through_the_solver(where: str) -> None:
    rate, x = Rate(), U.clone().requires_grad_()
    seen: list[bool] = []

    def watched(t: Tensor, y: Tensor) -> Tensor:
        seen.append(torch.is_grad_enabled())
        return -y

    plain = SolverStep(watched, RK4(dt=0.1), 0.1)
    step = CorrectedStep(plain, rate) if where == "after" else SolverStep(Corrected(watched, rate), RK4(dt=0.1), 0.1)
    wrong = step.supervised(0.1, x, torch.zeros_like(x))
    assert not any(seen)
    wrong.square().sum().backward()
    assert rate.a.grad is not None
    assert rate.a.grad != 0


def test_supervised_vanishes_at_the_truth() -> None:
    f = CahnHilliard(L, 0.5)
    plain = SolverStep(f, SBDF2(dt=0.02), 0.02)
    truth = plain(0.0, U)
    inside = SolverStep(Corrected(f, ConservativeClosure(L)), SBDF2(dt=0.02), 0.02)
    for step in (CorrectedStep(plain, ConservativeClosure(L)), inside):
        assert not step.supervised(0.0, U, truth).any()


def test_bad_input() -> None:
    with pytest.raises(ValueError, match="dt must be positive"):
        SolverStep(decay, None, 0.0)
    with pytest.raises(ValueError, match="steps must be a positive integer"):
        SolverStep(decay, RK4(dt=0.1), 0.1).path(U, 0)
    with pytest.raises(TypeError, match="holds no correction"):
        SolverStep(decay, RK4(dt=0.1), 0.1).supervised(0.0, U, U)
