"""Gradient flows of a learned energy: it falls, the mass stays, and Cahn and Hilliard's equation is one."""

import copy

import pytest
import torch

from integrators import SBDF2, Dopri5, integrate
from neuralpde.gradient_flow import GradientFlow, LearnedEnergy
from neuralpde.invariants import Law, Mass
from neuralpde.phase_field import AllenCahn, CahnHilliard
from neuralpde.testing_right_hand_side import assert_right_hand_side
from neuralpde.testing_search import Search
from operators import Laplacian, bumpy, icosphere, robust_laplacian, torus

NOW = torch.zeros((), dtype=torch.float64)
L = robust_laplacian(bumpy(icosphere(1), 0.2))
N = L.shape[0]
TAU = 0.2


def noise(*shape, seed=0):
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def conserved(laplacian: Laplacian):
    return GradientFlow(laplacian, TAU, 0.5, (-1.0, 0.2, 0.7), conserved=True, stabilization=1.5)


def free(laplacian: Laplacian):
    return GradientFlow(laplacian, TAU, 0.5, (-1.0, 0.2, 0.7), conserved=False)


@pytest.mark.parametrize("make", [conserved, free])
def test_the_laws_of_right_hand_sides(make):
    assert_right_hand_side(make, search=Search(examples=5, folder=None))


@pytest.mark.parametrize("conserve", [True, False])
def test_known_equations_are_members(conserve):
    """a = ε²/τ, φ = u³ − u: Cahn–Hilliard with mobility 1, Allen–Cahn with mobility 1/τ."""
    f = GradientFlow(L, TAU, 0.3**2 / TAU, (-1.0, 0.0, 1.0), conserved=conserve)
    known = CahnHilliard(L, 0.3) if conserve else AllenCahn(L, 0.3, 1 / TAU)
    u = noise(N, 1)
    assert torch.allclose(f(NOW, u), known(NOW, u), rtol=1e-12, atol=1e-11)
    mine = (energy for energy in f.invariants if isinstance(energy, LearnedEnergy))
    constant = float(L.mass.sum()) / 4
    assert float(next(mine).measure(u)) + constant == pytest.approx(float(known.energy.measure(u)), rel=1e-12)


def test_the_split_changes_the_steps_and_not_the_equation():
    u = noise(N, 1)
    plain, split = (GradientFlow(L, TAU, 0.5, (-1, 0, 1), conserved=True, stabilization=b) for b in (0.0, 2.0))
    assert torch.allclose(plain(NOW, u), split(NOW, u), rtol=1e-12, atol=1e-11)
    for f in (plain, split):
        assert torch.allclose(f.linear @ u + f.nonlinear(NOW, u), f(NOW, u), rtol=1e-12, atol=1e-11)
    assert not torch.allclose(plain.linear @ u, split.linear @ u)


@pytest.mark.parametrize("b", [0.0, 1.0, 2.0 - 1e-12, 2.0 - 1e-14, 2.0, 2.0 + 1e-14, 3.0])
@pytest.mark.parametrize("make", ["direct", "series"])
def test_solves_around_the_double_root(b, make):
    """1 + s b λ + s τ λ² has complex roots, a double one at s = τ and b = 2, and real ones; each way of solving inverts G."""
    f = GradientFlow(L, TAU, 1.0, (-1, 0, 1), conserved=True, stabilization=b, learn_split=True)
    s, u = torch.tensor(TAU, dtype=torch.float64), noise(N, 2)
    if make == "direct":
        with torch.no_grad():
            x = f.linear.solve(s, u)
    else:
        x = f.linear.solve(s, u)
        assert x.requires_grad
    assert float((x - TAU * (f.linear @ x) - u).detach().norm()) <= 1e-11 * float(u.norm())


def test_energy_falls_and_mass_stays_from_anywhere():
    f, u = conserved(L), 2 * noise(N, 1)
    with torch.no_grad():
        path = integrate(f, u, torch.linspace(0, 0.06, 5, dtype=torch.float64), Dopri5(rtol=1e-7, atol=1e-7)).x
        fast = integrate(f, u, torch.linspace(0, 0.06, 5, dtype=torch.float64), SBDF2(dt=1e-4)).x
    for invariant in f.invariants:
        assert invariant.violation(path) <= 1e-7
    assert {type(i): i.law for i in f.invariants} == {LearnedEnergy: Law.NON_INCREASING, Mass: Law.CONSERVED}
    assert float((path - fast)[-1].norm()) <= 1e-3 * float(path[-1].norm())


def test_gradients_of_every_coefficient():
    f = GradientFlow(L, TAU, 0.5, (-1.0, 0.2, 0.7), conserved=True, stabilization=1.5, learn_split=True)
    names = [name for name, _ in f.named_parameters()]
    values = [p.detach().clone().requires_grad_() for p in f.parameters()]
    u = noise(N, 1)

    def step(*given):
        g = copy.copy(f)
        g._parameters = {}
        for name, value in zip(names, given, strict=True):
            object.__setattr__(g, name, value)
        s = torch.tensor(0.1, dtype=torch.float64)
        part = g.linear
        part.learned = given
        return part.solve(s, u + 0.1 * g.nonlinear(NOW, u))[::7]

    assert torch.autograd.gradcheck(step, values, eps=1e-6, atol=1e-6)


def test_over_shares_what_is_learned():
    f = conserved(L)
    g = f.over(robust_laplacian(torus(8, 6)), 0.5)
    assert g.low is f.low
    assert (g.time_step, g(NOW, noise(48, 1)).shape) == (0.5, (48, 1))


def test_bad_input():
    with pytest.raises(ValueError, match="potential"):
        GradientFlow(L, TAU, 1.0, (1, 0, -1.0), conserved=True)
    with pytest.raises(ValueError, match="stiffness"):
        GradientFlow(L, TAU, -1.0, (1, 0, 1.0), conserved=True)
