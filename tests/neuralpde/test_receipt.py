"""Gradient receipts: right gradients pass, planted faults do not, and nothing is left behind."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from integrators import RK4, Adjoint, BackwardEuler, Dopri5, Exponential, SolveError, SolverWarning, Status, integrate
from neuralpde.coefficient import learned
from neuralpde.heat import Heat
from neuralpde.receipt import Verdict, receipt
from operators import icosphere, robust_laplacian

L = robust_laplacian(icosphere(1))
U = torch.randn(42, 1, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
TIMES = [0.0, 0.3]


class Cubic(nn.Module):
    """−κ L u + u − s u³."""

    def __init__(self, dtype: torch.dtype = torch.float64) -> None:
        super().__init__()
        self.kappa = nn.Parameter(torch.tensor(0.3, dtype=dtype))
        self.s = nn.Parameter(torch.tensor(0.5, dtype=dtype))
        self.laplacian = L.on(icosphere(1)).to(dtype) if dtype != torch.float64 else L

    def forward(self, t: Tensor, u: Tensor) -> Tensor:
        return -self.kappa * (self.laplacian @ u) + u - self.s * u**3


@pytest.mark.parametrize("solver", [BackwardEuler(dt=0.1), RK4(dt=0.05), Exponential()], ids=lambda s: type(s).__name__)
def test_right_gradients_pass(solver: Any) -> None:
    heat = Heat(L, learned(0.7))
    report = receipt(lambda: integrate(heat, U, TIMES, solver).final.square().mean(), heat)
    assert report.ok
    assert report.worst < 1e-6
    assert report.verdict is Verdict.AGREES
    report.require()
    text = str(report)
    assert "agrees" in text
    assert "kappa" in text


def test_float32_and_complex() -> None:
    f = Cubic(torch.float32)
    assert receipt(lambda: integrate(f, U.float(), TIMES, RK4(dt=0.05)).final.square().mean(), f).ok
    z = torch.randn(5, generator=torch.Generator().manual_seed(1), dtype=torch.complex128).requires_grad_()
    assert receipt(lambda: (z.abs() ** 3).sum() + z.real.prod(), z).ok


def test_a_detached_tensor_is_named() -> None:
    f = Cubic()
    plain = Cubic.forward

    def loss() -> Tensor:
        return integrate(lambda t, u: plain(f, t, u) + (f.s - f.s.detach()) * u**3, U, TIMES, RK4(dt=0.05)).final.sum()

    report = receipt(loss, f)
    bad = [d.name for d in report.parameters if d.verdict(report.tolerance) is Verdict.DISAGREES]
    assert bad == ["s"]
    assert report.verdict is Verdict.DISAGREES

    def cut() -> Tensor:
        g = {"kappa": f.kappa.detach(), "s": f.s}
        return integrate(lambda t, u: torch.func.functional_call(f, g, (t, u)), U, TIMES, RK4(dt=0.05)).final.sum()

    report = receipt(cut, f)
    assert report.missing == ["kappa"]
    assert not report.ok
    assert "no gradient at all: kappa" in str(report)
    with pytest.raises(ValueError, match="not what finite differences say"):
        report.require()


class WrongSign(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x.clone()

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        return -grads[0]


def test_a_wrong_sign() -> None:
    f = Cubic()

    def rhs(t: Tensor, u: Tensor) -> Tensor:
        kappa: Tensor = WrongSign.apply(f.kappa)  # type: ignore[no-untyped-call]
        return -kappa * (L @ u) + u - f.s * u**3

    report = receipt(lambda: integrate(rhs, U, TIMES, RK4(dt=0.05)).final.square().mean(), f)
    assert report.verdict is Verdict.DISAGREES
    assert next(d for d in report.parameters if d.name == "kappa").disagreement > 1


def test_a_stale_solve() -> None:
    """A linear part that keeps its matrix: its solves answer for a κ of the past."""
    log_kappa = torch.tensor(-0.5, dtype=torch.float64, requires_grad=True)
    kept: list[float] = []

    def loss() -> Tensor:
        x = U
        for _ in range(3):
            if not kept:
                kept.append(float(log_kappa.detach().exp()))
            fresh = L.solve(0.1 * log_kappa.exp(), x)
            # The value of the stale solve with the gradient of the fresh one.
            x = fresh + (L.solve(0.1 * kept[0], x) - fresh).detach()
        return x.square().sum()

    assert receipt(loss, log_kappa).verdict is Verdict.DISAGREES


def test_a_continuous_adjoint_at_a_loose_tolerance() -> None:
    """Its gradient is that of another, exact, problem; autograd through the very steps is right."""
    heat = Heat(L, learned(0.05))

    def loss(gradient: Any) -> Tensor:
        return integrate(heat, U, [0.0, 1.0], Dopri5(1e-2, 1e-2, gradient=gradient)).final.square().mean()

    with pytest.warns(SolverWarning, match="."):
        report = receipt(lambda: loss(Adjoint()), heat)
    assert report.verdict is Verdict.DISAGREES
    assert 1e-5 < report.worst < 1


def test_a_loss_too_rough_to_tell() -> None:
    x = torch.tensor(1.0, dtype=torch.float64, requires_grad=True)
    # Steps of 1e-3 in θ, as of a solver whose number of steps changes.
    report = receipt(lambda: x**2 + 0.01 * torch.floor(1000 * x.detach()) % 0.03, x)
    assert not report.ok


def test_an_unused_parameter_is_no_fault() -> None:
    f = Cubic()
    f.idle = nn.Parameter(torch.ones(3, dtype=torch.float64))
    report = receipt(lambda: integrate(f, U, TIMES, RK4(dt=0.05)).final.square().mean(), f)
    assert report.ok
    assert report.missing == ["idle"]
    assert "unused" in str(report)


def test_a_minimum_is_no_fault() -> None:
    x = torch.zeros(4, dtype=torch.float64, requires_grad=True)
    assert receipt(lambda: x.square().sum(), x).ok
    assert receipt(lambda: 3 + x.square().sum(), x).ok


def test_nothing_is_left_behind() -> None:
    f = nn.Sequential(nn.BatchNorm1d(3), nn.Dropout(0.5), nn.Linear(3, 1)).double()
    x = torch.randn(8, 3, dtype=torch.float64)
    f(x).sum().backward()
    before = {name: value.clone() for name, value in f.state_dict().items()}
    grads = [p.grad for p in f.parameters()]
    copies = [g.clone() for g in grads if g is not None]
    dice = torch.get_rng_state()
    first = receipt(lambda: f(x).square().sum(), f)
    assert torch.equal(torch.get_rng_state(), dice)
    assert all(torch.equal(before[name], value) for name, value in f.state_dict().items())
    assert all(p.grad is g for p, g in zip(f.parameters(), grads, strict=True))
    assert all(torch.equal(g, c) for g, c in zip((g for g in grads if g is not None), copies, strict=True))
    # The same dice in every evaluation: dropout does not make a loss rough; and the same report again.
    assert first.ok
    assert receipt(lambda: f(x).square().sum(), f) == first


def test_nothing_is_left_behind_by_a_loss_that_fails() -> None:
    x = torch.ones(3, dtype=torch.float64, requires_grad=True)

    def loss() -> Tensor:
        if bool((x.detach() != 1).any()):
            raise RuntimeError("too far")
        return x.sum()

    with pytest.raises(RuntimeError, match="too far"):
        receipt(loss, x)
    assert torch.equal(x.detach(), torch.ones(3, dtype=torch.float64))


def test_bad_input() -> None:
    x = torch.ones(2, dtype=torch.float64, requires_grad=True)
    with pytest.raises(ValueError, match="nothing here requires"):
        receipt(lambda: x.sum(), torch.ones(2))
    with pytest.raises(ValueError, match="leaf"):
        receipt(lambda: x.sum(), 2 * x)
    with pytest.raises(ValueError, match="one finite real number"):
        receipt(lambda: x, x)
    with pytest.raises(ValueError, match="one finite real number"):
        receipt(lambda: x.sum() * torch.nan, x)


def test_a_kink_is_undecided_and_a_wrong_slope_beside_it_is_not() -> None:
    x = torch.tensor([1.0, 2.0, 3.0], dtype=torch.float64, requires_grad=True)
    at = torch.tensor([1.0, 0.0, 0.0], dtype=torch.float64)
    assert receipt(lambda: torch.relu(x - at).sum(), x).verdict is Verdict.UNDECIDED
    # Slopes 0 and 1, and −1 from autograd.
    z = torch.zeros((), dtype=torch.float64, requires_grad=True)
    assert receipt(lambda: torch.relu(z).detach() - z + z.detach(), z).verdict is Verdict.DISAGREES


def test_a_straight_through_gradient_is_found_out() -> None:
    x = torch.tensor([0.3, 2.2, 3.4], dtype=torch.float64, requires_grad=True)
    assert receipt(lambda: ((x.round() - x).detach() + x).square().sum(), x).verdict is Verdict.DISAGREES


def test_a_step_too_far_tells_nothing() -> None:
    """A tenth of the root mean square leaves the domain of the logarithm; a hundredth does not."""
    x = torch.tensor([1.0, 0.05], dtype=torch.float64, requires_grad=True)
    assert receipt(lambda: x.log().sum(), x).ok

    def solved() -> Tensor:
        if bool((x.detach() <= 0).any()):
            raise SolveError("too far", Status.DIVERGED)
        return x.log().sum()

    assert receipt(solved, x).ok


def test_a_loss_in_float32_of_parameters_in_float64() -> None:
    x = torch.tensor([1.0, 2.0, 3.0], dtype=torch.float64, requires_grad=True)
    assert receipt(lambda: x.float().square().sum(), x).ok
    assert not receipt(lambda: (x * x.detach()).float().sum(), x).ok


def test_a_loss_that_depends_on_nothing_is_refused() -> None:
    x = torch.ones(3, dtype=torch.float64, requires_grad=True)
    before = x.detach().square().sum()
    with pytest.raises(ValueError, match="none of these parameters"):
        receipt(lambda: before, x)
