"""Sources and decay against closed forms, learned through solvers."""

import math
import pickle

import pytest
import torch
from torch import nn

from integrators import ARK324, ETDRK4, SBDF2, Dopri5, Exponential, integrate
from neuralpde.coefficient import learned
from neuralpde.heat import Heat
from neuralpde.invariants import DirichletEnergy, Law, Norm, Rayleigh
from neuralpde.sources import Decay, PositionalSource, Source
from neuralpde.testing import meshes
from neuralpde.testing_right_hand_side import assert_right_hand_side
from neuralpde.testing_search import Search
from operators import Boundary, FieldError, Grid, combinatorial_laplacian, grid_laplacian, icosphere, robust_laplacian

NOW = torch.tensor(0.3, dtype=torch.float64)
SOLVERS = [ARK324(1e-6, 1e-8), SBDF2(dt=0.01), ETDRK4(dt=0.1), Dopri5(1e-7, 1e-9)]


@pytest.mark.parametrize("solver", SOLVERS, ids=lambda s: type(s).__name__)
def test_a_source_of_an_eigenvector_settles_where_it_should(solver):
    """u' = −κλ u + s φ from zero is s/(κλ) (1 − e^(−κλt)) φ."""
    grid = Grid(8, 1.0, Boundary.PERIODIC)
    L, phi = grid_laplacian(grid), torch.cos(math.pi / 4 * grid.points)
    rate = 0.5 * (2 - 2 * math.cos(math.pi / 4))
    f = Heat(L, 0.5) + Source(L, 3.0 * phi)
    found = integrate(f, 0 * phi, [0.0, 2.0], solver).final
    torch.testing.assert_close(found, 3.0 / rate * (1 - math.exp(-2 * rate)) * phi, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("solver", SOLVERS, ids=lambda s: type(s).__name__)
def test_forcing_in_time_adds_its_integral(solver):
    L = robust_laplacian(icosphere(0))
    f = Heat(L) + Source(L, lambda t: torch.cos(t))
    u = torch.ones(12, 2, dtype=torch.float64)
    found = integrate(f, u, [0.0, 1.0], solver).final
    torch.testing.assert_close(found, u + math.sin(1.0), rtol=1e-4, atol=1e-4)


def test_a_source_in_space_and_time_moves_with_the_domain():
    s = nn.Linear(3, 1, dtype=torch.float64)
    f = PositionalSource(icosphere(1), lambda t, p: t * s(p))
    torch.testing.assert_close(f(NOW, torch.zeros(42, 2, dtype=torch.float64)), NOW * s(icosphere(1).vertices).expand(-1, 2))
    moved = f.on(icosphere(0))
    torch.testing.assert_close(moved(NOW, torch.zeros(12, 1, dtype=torch.float64)), NOW * s(icosphere(0).vertices))
    module = PositionalSource(icosphere(0), Pattern(s))
    assert len(list(module.parameters())) == 2
    again = pickle.loads(pickle.dumps(module)).to(torch.float32)
    assert again(NOW, torch.zeros(12, 1)).dtype == torch.float32
    # The precision is that of the state, whatever the source gives.
    assert f(NOW, torch.zeros(42, 2)).dtype == torch.float32


class Pattern(nn.Module):
    def __init__(self, inner):
        super().__init__()
        self.inner = inner

    def forward(self, t, points):
        return self.inner(points)


@pytest.mark.parametrize("solver", SOLVERS, ids=lambda s: type(s).__name__)
def test_a_source_is_learned_through_a_solver(solver):
    """The solution is linear in the source, so one difference is its derivative, to the solver's tolerance."""
    L = robust_laplacian(icosphere(0))
    u, along = torch.randn(12, 1, dtype=torch.float64), torch.randn(12, 1, dtype=torch.float64)
    f = Heat(L, 0.3) + Source(L, learned(torch.zeros(12, 1, dtype=torch.float64)))
    (s,) = f.parameters()
    value = integrate(f, u, [0.0, 0.5], solver).final.sum()
    (slope,) = torch.autograd.grad(value, s)
    with torch.no_grad():
        s.add_(along)
        change = integrate(f, u, [0.0, 0.5], solver).final.sum() - value
    assert float((slope * along).sum()) == pytest.approx(float(change), rel=1e-4)


def test_decay_of_numbers_and_fields():
    L = robust_laplacian(icosphere(1))
    u, r = torch.randn(42, 2, dtype=torch.float64), 2 * torch.rand(42, 1, dtype=torch.float64)
    for rate in (0.7, -0.4, r, r - 1):
        f = Decay(L, rate)
        found = integrate(f, u, [0.0, 1.5], Exponential()).final
        torch.testing.assert_close(found, torch.exp(-1.5 * torch.as_tensor(rate, dtype=torch.float64)) * u)
        y = f.linear.solve(torch.tensor(0.2, dtype=torch.float64), u)
        torch.testing.assert_close(y - 0.2 * f(NOW, y), u)
    moving = Decay(L, lambda t: 2 * t)
    assert moving.linear is None
    found = integrate(moving, u, [0.0, 1.0], Dopri5(1e-9, 1e-11)).final
    torch.testing.assert_close(found, math.exp(-1.0) * u, rtol=1e-6, atol=1e-6)


def test_what_decay_declares():
    L = robust_laplacian(icosphere(1))
    r = torch.rand(42, 1, dtype=torch.float64)
    path = integrate(Decay(L, r), torch.randn(42, 1, dtype=torch.float64), [0.0, 1.0, 2.0], Exponential()).x
    assert [type(i) for i in Decay(L, r).invariants] == [Norm]
    assert Decay(L, r).invariants[0].violation(path) == 0
    assert [type(i) for i in Decay(L, 0.5).invariants] == [Norm, Rayleigh, DirichletEnergy]
    assert [i.law for i in Decay(L, 0.5).invariants] == [Law.NON_INCREASING, Law.CONSERVED, Law.NON_INCREASING]
    assert Decay(L, -0.5).invariants == Decay(L, lambda t: t).invariants == ()
    # Of heat with decay all but the mass is left.
    assert {type(i) for i in (Heat(L) + Decay(L, 0.5)).invariants} == {Norm, Rayleigh, DirichletEnergy}
    assert float(Decay(L, 0.5).rate) == 0.5
    assert float(Source(L, 0.5).source) == 0.5


def test_the_kit_finds_no_fault():
    few = Search(examples=4, folder=None)
    assert_right_hand_side(
        lambda mesh: Heat(robust_laplacian(mesh), 0.2) + Decay(robust_laplacian(mesh), 0.5), meshes(slivers=False), search=few
    )


def test_bad_sources_are_refused():
    L = combinatorial_laplacian(icosphere(0).graph())
    with pytest.raises(FieldError, match="source must be one number or a field"):
        Source(L, torch.ones(12))
    with pytest.raises(TypeError, match="no positions"):
        PositionalSource(icosphere(0).graph(), lambda t, p: p[:, :1])
    with pytest.raises(TypeError, match="function of"):
        PositionalSource(icosphere(0), 3.0)
    with pytest.raises(FieldError, match="must return"):
        PositionalSource(icosphere(0), lambda t, p: p[:, 0])(NOW, torch.zeros(12, 1, dtype=torch.float64))
