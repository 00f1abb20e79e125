"""Gradients of stiff diffusion, λT = 10 to 1000 on a graph, in κ, x0, edge weights and times, against the matrix exponential."""

import pytest
import torch
from torch import nn

from integrators import SDIRK3, BackwardEuler, Dopri5, Tsit5, integrate


def leaf(value):
    return torch.as_tensor(value, dtype=torch.float64).clone().requires_grad_()


class Diffusion(nn.Module):
    """dx/dt = −κ L x on a graph, as its edges say."""

    def __init__(self, edges, weights, kappa):
        super().__init__()
        self.edges, self.weights, self.kappa = edges, weights, kappa

    def matrix(self):
        i, j = self.edges
        n = int(self.edges.max()) + 1
        A = torch.zeros(n, n, dtype=self.weights.dtype).index_put((i, j), self.weights, accumulate=True)
        A = A + A.T
        return self.kappa * (A - torch.diag(A.sum(1)))

    @property
    def linear(self):
        return self

    def __matmul__(self, x):
        i, j = self.edges
        flow = self.weights[:, None] * (x[j] - x[i])
        return self.kappa * torch.zeros_like(x).index_add(0, i, flow).index_add(0, j, -flow)

    def forward(self, t, x):
        return self @ x

    def norm_bound(self):
        return float(torch.linalg.matrix_norm(self.matrix().detach(), ord=2))

    def solve(self, shift, b):
        matrix = torch.eye(len(b), dtype=b.dtype) - shift * self.matrix()
        return torch.linalg.solve(matrix.to(torch.promote_types(matrix.dtype, b.dtype)), b.to(matrix.dtype))


def rungs(stiffness, solve):
    """The gradients in κ, x0, the edge weights and t of a random linear loss, with λ_max κ T = stiffness."""
    n, generator = 40, torch.Generator().manual_seed(0)
    path = torch.stack([torch.arange(n - 1), torch.arange(1, n)])
    edges = torch.cat([path, torch.tensor([[0, 3, 5], [2, 5, 7]])], dim=1)
    weights = 0.5 + torch.rand(edges.shape[1], generator=generator, dtype=torch.float64)
    x0, loss = (torch.randn(*shape, generator=generator, dtype=torch.float64) for shape in ((n, 2), (3, n, 2)))
    top = -float(torch.linalg.eigvalsh(Diffusion(edges, weights, 1.0).matrix())[0])
    inputs = [leaf(stiffness / top), leaf(x0), leaf(weights), leaf([0.0, 0.3, 1.0])]
    x = solve(Diffusion(edges, inputs[2], inputs[0]), inputs[1], inputs[3])
    return torch.autograd.grad((x * loss).sum(), inputs)


def by_exponential(f, x0, t):
    return torch.stack([torch.linalg.matrix_exp(f.matrix() * (s - t[0])) @ x0 for s in t])


def ladder(stiffness, solver):
    """The errors of the gradients, each in units of its largest entry."""
    found = rungs(stiffness, lambda f, x0, t: integrate(f, x0, t, solver).x)
    exact = rungs(stiffness, by_exponential)
    return [float((a - b).abs().max() / b.abs().max()) for a, b in zip(found, exact, strict=True)]


@pytest.mark.parametrize("stiffness", [10, 100, 1000])
@pytest.mark.parametrize("structured", [True, False])
def test_the_ladder_by_default(stiffness, structured):
    """No solver, no gradient named: within 10 times the tolerance that `integrate` chooses, 1e-5."""
    found = rungs(stiffness, lambda f, x0, t: integrate(f if structured else f.forward, x0, t).x)
    exact = rungs(stiffness, by_exponential)
    assert max(float((a - b).abs().max() / b.abs().max()) for a, b in zip(found, exact, strict=True)) <= 1e-4


@pytest.mark.parametrize(("stiffness", "rtol"), [(10, 1e-3), (100, 1e-3), (1000, 1e-3), (1000, 1e-4)])
def test_the_ladder_by_an_implicit_method(stiffness, rtol):
    assert max(ladder(stiffness, SDIRK3(rtol=rtol, atol=1e-2 * rtol))) <= 10 * rtol


@pytest.mark.parametrize("stiffness", [10, 100, 1000])
def test_the_ladder_by_a_fixed_step(stiffness):
    """Of order 1: half the step, half the error."""
    coarse, fine = (max(ladder(stiffness, BackwardEuler(dt=dt))) for dt in (1 / 60, 1 / 120))
    assert 1.5 <= coarse / fine <= 2.5


@pytest.mark.parametrize("rtol", [1e-3, 1e-5])
@pytest.mark.parametrize("stiffness", [10, 100])
@pytest.mark.parametrize("scheme", [Dopri5, Tsit5])
def test_the_ladder_by_an_explicit_method_while_accuracy_rules(scheme, stiffness, rtol):
    assert max(ladder(stiffness, scheme(rtol=rtol, atol=1e-2 * rtol))) <= 20 * rtol


def test_the_ladder_by_an_explicit_method_that_stability_limits():
    """At |R| ≈ 1 the fast modes stay at the tolerance, and the derivative of n such factors is n times that."""
    errors = ladder(600, Dopri5(rtol=1e-5, atol=1e-7))
    assert errors[1] <= 1e-4
    assert max(errors) <= 3000 * 1e-5
