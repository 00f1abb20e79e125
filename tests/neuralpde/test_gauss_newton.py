"""Gauss–Newton through a solver: dense answers, few evaluations, damping, and chosen weights."""

import pytest
import torch
from torch import Tensor, nn

from integrators import RK4, BackwardEuler, integrate
from neuralpde.coefficient import learned
from neuralpde.descent import LBFGS, Adam, Search
from neuralpde.gauss_newton import GaussNewton
from neuralpde.heat import Heat
from neuralpde.inverse_problem import InitialState, InverseProblem, Linearised, Parameter
from neuralpde.observations import Observations
from neuralpde.priors import CrossValidation, Discrepancy, Smooth
from operators import icosphere, robust_laplacian

L = robust_laplacian(icosphere(1))
G = torch.Generator().manual_seed(0)
U = L.solve(0.1, torch.randn(42, 1, generator=G, dtype=torch.float64))
NODES = torch.randperm(42, generator=G)[:15]
TIMES = [0.05, 0.1, 0.2]
SOLVER = BackwardEuler(dt=0.05)


def silent(search: Search) -> None:
    return None


def seen(noise: float = 1e-3) -> Observations:
    path = integrate(Heat(L, 0.5), U, [0.0, *TIMES], SOLVER).x[1:]
    return Observations.of(path, TIMES, NODES, noise, torch.Generator().manual_seed(1))


def start(weight: object, order: int = 2) -> InverseProblem:
    prior = Smooth(L, order, 0.3, weight)  # type: ignore[arg-type]
    return InverseProblem(Heat(L, 0.5), seen(), [InitialState(torch.zeros_like(U), prior)], None, SOLVER)


def test_a_linear_problem_takes_one_iteration_and_gives_the_dense_answer() -> None:
    p = start(3.0)
    search = GaussNewton(tolerance=1e-10).search(p, silent)
    linear = Linearised(p, torch.zeros(42, dtype=torch.float64))
    J = torch.stack([linear.forward(e) for e in torch.eye(42, dtype=torch.float64)], 1)
    R = torch.stack([p.prior(e) for e in torch.eye(42, dtype=torch.float64)], 1)
    expected = torch.linalg.solve(J.T @ J + R, -J.T @ linear.value)
    torch.testing.assert_close(search.vector, expected, rtol=1e-6, atol=1e-7)
    assert search.converged
    assert len(search.objective) == 2


@pytest.mark.parametrize("rule", [Discrepancy(), CrossValidation()])
def test_a_chosen_weight_is_found_again_when_it_is_given(rule: Discrepancy | CrossValidation) -> None:
    p = start(rule)
    search = GaussNewton().search(p, silent)
    (weight,) = p.weights
    if isinstance(rule, Discrepancy):
        assert search.misfit[-1] / p.observations.count == pytest.approx(1.0, rel=1e-3)
    again = GaussNewton().search(start(weight), silent)
    torch.testing.assert_close(search.vector, again.vector, rtol=1e-3, atol=1e-3 * float(U.abs().max()))


def test_fewer_evaluations_than_lbfgs_than_adam() -> None:
    """The same misfit; evaluations are solves and products, counted alike."""

    class Reaction(nn.Module):
        """−κ L u + r u − s u³."""

        def __init__(self, values: tuple[float, float, float]) -> None:
            super().__init__()
            self.p = nn.Parameter(torch.tensor(values, dtype=torch.float64).log())

        def forward(self, t: Tensor, u: Tensor) -> Tensor:
            kappa, r, s = self.p.exp()
            return -kappa * (L @ u) + r * u - s * u**3

    x0 = 2 * U / U.std()
    path = integrate(Reaction((0.05, 1.0, 0.5)), x0, [0.0, 0.5, 1.0], RK4(dt=0.1)).x[1:]
    observations = Observations.of(path, [0.5, 1.0], NODES, 1e-3, torch.Generator().manual_seed(2))
    needed = {}
    for by in (GaussNewton(), LBFGS(), Adam(steps=80)):
        f = Reaction((0.02, 0.3, 0.2))
        p = InverseProblem(f, observations, [Parameter(f.p)], x0, RK4(dt=0.1))
        search = by.search(p, silent)
        good = [work for work, misfit in zip(search.work, search.misfit, strict=True) if misfit < 1.2 * observations.count]
        needed[type(by).__name__] = good[0] if good else 10**6
    assert needed["GaussNewton"] < needed["LBFGS"] < needed["Adam"]
    assert needed["GaussNewton"] <= 30


def test_state_and_parameter_together() -> None:
    heat = Heat(L, learned(0.3))
    unknowns = [InitialState(torch.zeros_like(U), Smooth(L, 2, 0.3, 1.0)), Parameter(next(heat.parameters()))]
    p = InverseProblem(heat, seen(), unknowns, None, SOLVER)
    search = GaussNewton(iterations=40, tolerance=1e-3).search(p, silent)
    assert search.misfit[-1] / p.observations.count < 2
    assert float(search.vector[-1].exp()) == pytest.approx(0.5, rel=0.1)
    # The guess of a zero state says nothing of κ: the first step cannot move it, and must not be the last.
    assert len(search.objective) > 2


def test_damping_saves_a_step_that_goes_too_far() -> None:
    class Steep(nn.Module):
        """dx/dt = −(10 atan a) x: flat far away, so an undamped step overshoots ever farther."""

        def __init__(self) -> None:
            super().__init__()
            self.a = nn.Parameter(torch.tensor(2.5, dtype=torch.float64))

        def forward(self, t: Tensor, x: Tensor) -> Tensor:
            return -torch.atan(self.a) * x

    f = Steep()
    x0 = torch.ones(3, 1, dtype=torch.float64)
    y = Observations([1.0], torch.arange(3), x0[None].clone(), 0.01)
    p = InverseProblem(f, y, [Parameter(f.a)], x0, RK4(dt=0.1))
    search = GaussNewton(iterations=50).search(p, silent)
    assert abs(float(search.vector)) < 1e-2
    assert all(b <= a * (1 + 1e-9) for a, b in zip(search.objective, search.objective[1:], strict=False))


def test_bad_input() -> None:
    with pytest.raises(ValueError, match="basis"):
        GaussNewton(basis=0)
    heat = Heat(L, learned(0.2))
    unknowns = [InitialState(torch.zeros_like(U), Smooth(L)), Parameter(next(heat.parameters()))]
    with pytest.raises(ValueError, match="by itself"):
        GaussNewton().search(InverseProblem(heat, seen(), unknowns, None, SOLVER), silent)
