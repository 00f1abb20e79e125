"""Unknowns as one vector, and products with the Jacobian through a solver."""

import pytest
import torch

from integrators import SBDF2, BackwardEuler, Checkpointed, integrate
from neuralpde.coefficient import learned
from neuralpde.heat import Heat
from neuralpde.inverse_problem import InitialState, InverseProblem, Linearised, Parameter
from neuralpde.observations import Observations
from neuralpde.phase_field import CahnHilliard
from neuralpde.priors import Smooth
from operators import icosphere, robust_laplacian

L = robust_laplacian(icosphere(0))
U = torch.randn(12, 1, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
NODES = torch.tensor([0, 3, 7])


def problem(solver: object = None) -> InverseProblem:
    heat = Heat(L, learned(0.3))
    path = integrate(Heat(L, 0.5), U, [0.0, 0.1, 0.2], BackwardEuler(dt=0.05)).x[1:]
    observations = Observations([0.1, 0.2], NODES, path[:, NODES], 0.1)
    unknowns = [InitialState(0.5 * U, Smooth(L, 1, 0.5, 2.0)), Parameter(next(heat.parameters()))]
    return InverseProblem(heat, observations, unknowns, None, solver or BackwardEuler(dt=0.05))  # type: ignore[arg-type]


def jacobian(p: InverseProblem, at: torch.Tensor) -> torch.Tensor:
    columns = []
    for e in torch.eye(p.size, dtype=torch.float64):
        columns.append((p.residual(at + 1e-5 * e) - p.residual(at - 1e-5 * e)).detach() / 2e-5)
    return torch.stack(columns, 1)


@pytest.mark.parametrize("solver", [BackwardEuler(dt=0.05), BackwardEuler(dt=0.05, gradient=Checkpointed())])
def test_products_are_those_of_the_jacobian(solver: BackwardEuler) -> None:
    p = problem(solver)
    J = jacobian(p, p.guess)
    linear = Linearised(p, p.guess)
    for k in (0, 5, 12):
        e = torch.eye(p.size, dtype=torch.float64)[k]
        torch.testing.assert_close(linear.forward(e), J[:, k], rtol=1e-6, atol=1e-7)
    w = torch.arange(6, dtype=torch.float64)
    torch.testing.assert_close(linear.backward(w), J.T @ w, rtol=1e-6, atol=1e-6)
    # ⟨w, J v⟩ = ⟨Jᵀ w, v⟩ to round-off.
    v = torch.linspace(-1, 1, p.size, dtype=torch.float64)
    left, right = w @ linear.forward(v), linear.backward(w) @ v
    assert float((left - right).abs()) < 1e-12 * float(left.abs() + 1)


def test_products_through_an_implicit_explicit_solver() -> None:
    f = CahnHilliard(L, learned(0.8))
    seen = Observations([0.05, 0.1], NODES, torch.zeros(2, 3, 1, dtype=torch.float64), 0.1)
    p = InverseProblem(f, seen, [Parameter(next(f.parameters()))], 0.3 * U, SBDF2(dt=0.025))
    linear = Linearised(p, p.guess)
    one = torch.ones(1, dtype=torch.float64)
    torch.testing.assert_close(linear.forward(one), jacobian(p, p.guess)[:, 0], rtol=1e-6, atol=1e-8)


def test_work_is_counted_and_nothing_is_changed() -> None:
    p = problem()
    before = float(p.unknowns[1].value.detach())
    linear = Linearised(p, p.guess + 1)
    linear.forward(p.guess)
    linear.backward(linear.value)
    assert (p.solves, p.products) == (1, 2)
    assert float(p.unknowns[1].value.detach()) == before
    p.keep(p.guess + 1)
    assert float(p.unknowns[1].value.detach()) == pytest.approx(before + 1)


def test_metrics_are_inverse_to_each_other() -> None:
    p = problem()
    v = torch.linspace(-1, 1, p.size, dtype=torch.float64)
    torch.testing.assert_close(p.inverse(p.metric(v)), v)
    torch.testing.assert_close(p.inverse_of_step(p.metric_of_step(v)), v)
    # The penalty is that of the state alone, at its weight.
    away = p.parts(v)[0]
    p.mean = torch.zeros_like(p.mean)
    expected = 2.0 * float((away * p.unknowns[0].metric(away)).sum())
    assert float(p.penalty(v)) == pytest.approx(expected)


class _Deaf(Heat):
    """Holds a module that it does not use."""

    def __init__(self, unused: torch.nn.Module) -> None:
        super().__init__(L)
        self.unused = unused


def test_bad_input() -> None:
    seen = Observations([0.1], NODES, torch.zeros(1, 3, 1, dtype=torch.float64), 0.1)
    heat = Heat(L, learned(0.3))
    with pytest.raises(ValueError, match="nothing to estimate"):
        InverseProblem(heat, seen, [], U, None)
    with pytest.raises(ValueError, match="known or unknown"):
        InverseProblem(heat, seen, [Parameter(next(heat.parameters()))], None, None)
    with pytest.raises(ValueError, match="not a parameter of the model"):
        InverseProblem(heat, seen, [Parameter(torch.nn.Parameter(U))], U, None)
    with pytest.raises(ValueError, match="prior"):
        InitialState(U[:5], Smooth(L))
    with pytest.raises(ValueError, match="mean of initial state"):
        InverseProblem(heat, seen, [InitialState(U, Smooth(L, mean=U[:5]))], None, None)
    with pytest.raises(TypeError, match="real"):
        InitialState(U.to(torch.complex128))
    unused = torch.nn.Linear(1, 1).double()
    deaf = InverseProblem(_Deaf(unused), seen, [Parameter(unused.bias)], U, BackwardEuler(dt=0.05))
    with pytest.raises(ValueError, match="do not depend"):
        Linearised(deaf, deaf.guess)
