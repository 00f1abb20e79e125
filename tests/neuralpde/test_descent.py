"""Adam and L-BFGS on the objective of an inverse problem."""

import pytest
import torch

from integrators import BackwardEuler, integrate
from neuralpde.coefficient import learned
from neuralpde.descent import LBFGS, Adam, Minimiser, Search
from neuralpde.heat import Heat
from neuralpde.inverse_problem import InitialState, InverseProblem, Parameter
from neuralpde.observations import Observations
from neuralpde.priors import Discrepancy, Smooth
from operators import icosphere, robust_laplacian

L = robust_laplacian(icosphere(0))
U = torch.randn(12, 1, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
NODES = torch.arange(12)
SOLVER = BackwardEuler(dt=0.05)


def problem(guess: float = 0.2) -> InverseProblem:
    heat = Heat(L, learned(guess))
    path = integrate(Heat(L, 0.5), U, [0.0, 0.1, 0.2], SOLVER).x[1:]
    seen = Observations([0.1, 0.2], NODES, path, 0.01)
    return InverseProblem(heat, seen, [Parameter(next(heat.parameters()))], U, SOLVER)


def silent(search: Search) -> None:
    return None


@pytest.mark.parametrize("by", [LBFGS(), Adam(steps=80, learning_rate=0.2)])
def test_finds_the_minimum(by: Minimiser) -> None:
    p = problem()
    search = by.search(p, silent)
    assert float(search.vector.exp()) == pytest.approx(0.5, rel=3e-3)
    assert search.work[-1] == p.solves + p.products
    # A solve and a backward pass each.
    assert p.solves == p.products == len(search.objective)
    assert min(search.objective) < 1e-3 * search.objective[0]


def test_the_prior_pulls() -> None:
    p = problem()
    field = InitialState(torch.zeros_like(U), Smooth(L, 1, 0.5, 1e6))
    strong = InverseProblem(Heat(L, 0.5), p.observations, [field], None, SOLVER)
    assert float(LBFGS().search(strong, silent).vector.abs().max()) < 0.1
    weak = InverseProblem(
        Heat(L, 0.5), p.observations, [InitialState(torch.zeros_like(U), Smooth(L, 1, 0.5, 1e-6))], None, SOLVER
    )
    torch.testing.assert_close(LBFGS(steps=200).search(weak, silent).vector, U[:, 0], rtol=1e-3, atol=1e-3)


def test_nothing_to_gain() -> None:
    search = LBFGS().search(problem(0.5), silent)
    assert float(search.vector.exp()) == pytest.approx(0.5, rel=1e-6)


def test_a_weight_cannot_be_chosen_here() -> None:
    p = problem()
    field = InitialState(torch.zeros_like(U), Smooth(L, weight=Discrepancy()))
    with pytest.raises(ValueError, match="GaussNewton"):
        LBFGS().search(InverseProblem(Heat(L, 0.5), p.observations, [field], None, SOLVER), silent)


def test_bad_input() -> None:
    with pytest.raises(ValueError, match="learning_rate"):
        Adam(learning_rate=-1.0)
    with pytest.raises(ValueError, match="steps"):
        Adam(steps=0)
    with pytest.raises(ValueError, match="memory"):
        LBFGS(memory=0)
