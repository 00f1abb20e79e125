"""Systems by name: every term acts on its field, reads the others by its arguments, and what is linear stays solvable."""

import copy

import pytest
import torch
from torch import nn

from integrators import ARK324, ETDRK2, SBDF2, BackwardEuler, Dopri5, Exponential, NewtonKrylov, RadauIIA5, integrate
from neuralpde.coupled import BlockDiagonal, BlockDiagonalFlow, Coupled, block_diagonal_part
from neuralpde.heat import Heat
from neuralpde.invariants import Law, Mass, Norm, Part
from neuralpde.monitor import Monitor
from neuralpde.phase_field import AllenCahn, CahnHilliard
from neuralpde.rhs import RightHandSide
from neuralpde.symmetry import Permutation
from neuralpde.testing import assert_within
from neuralpde.waves import Wave
from operators import FieldError, icosphere, robust_laplacian, torus

NOW = torch.tensor(0.3, dtype=torch.float64)
L = robust_laplacian(icosphere(0))
EYE = torch.eye(12, dtype=torch.float64)


def noise(*shape, seed=0):
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


U, V = noise(12, 2), noise(12, 2, seed=1)


def predators():
    return Coupled(
        hares=[0.1 * Heat(L), lambda hares, foxes: hares * (1 - foxes)],
        foxes=[Heat(L, 0.02), lambda t, foxes, hares: foxes * (hares - 1) + t],
    )


def assert_same(a, b, tolerance=1e-13):
    for one, other in zip(a, b, strict=True):
        assert_within(one, other.detach(), tolerance * (1 + float(other.detach().abs().max())))


def test_terms_add_up_by_name():
    du, dv = predators()(NOW, (U, V))
    assert_same((du, dv), (-0.1 * (L @ U) + U * (1 - V), -0.02 * (L @ V) + V * (U - 1) + 0.3))


def test_the_state_and_its_names():
    f = predators()
    assert f.names == ("hares", "foxes")
    state = f.state(foxes=V, hares=U)
    assert state[0] is U
    assert state[1] is V
    solution = integrate(f, state, [0.0, 0.1], Dopri5(1e-6, 1e-8))
    assert f.named(solution.x)["foxes"].shape == (2, 12, 2)
    assert torch.equal(f.named(solution.final)["hares"], solution.final[0])


def test_every_kind_of_term():
    class Damping(nn.Module):
        def __init__(self):
            super().__init__()
            self.rate = nn.Parameter(torch.tensor(0.5, dtype=torch.float64))

        def forward(self, v, u, gain=2.0):
            return -self.rate * v * gain + u

    damping = Damping()
    f = Coupled(u=Heat(L), v=damping, w=[lambda: torch.ones(12, 2, dtype=torch.float64)])
    assert_same(f(NOW, (U, V, U)), (-(L @ U), -V + U, torch.ones_like(U)))
    assert [id(p) for p in f.parameters()] == [id(damping.rate)]
    # Two right-hand sides of one field are summed, and so are their linear parts.
    g = Coupled(u=[Heat(L), AllenCahn(L, 0.4), lambda u: 0 * u], v=lambda u: u)
    assert_same(g(NOW, (U, V)), (-(L @ U) + AllenCahn(L, 0.4)(NOW, U), U))
    assert_same(g.linear @ (U, V), (-1.16 * (L @ U), 0 * V))


@pytest.mark.parametrize(
    "system",
    [
        predators(),
        Coupled(u=Heat(L), v=CahnHilliard(L, 0.4)),
        Coupled(u=AllenCahn(L, 0.4, stabilization=1.0), v=lambda u, v: u - v),
        Coupled(u=Heat(L), v=Heat(L, 0.3)),
    ],
    ids=["predators", "two equations", "one linear part", "linear"],
)
def test_the_blocks_and_the_rest_are_the_system(system):
    x = (U, V)
    part, rest = system.linear, system.nonlinear
    whole = system(NOW, x)
    sums = part @ x if rest is None else tuple(a + b for a, b in zip(part @ x, rest(NOW, x), strict=True))
    assert_same(sums, whole)
    assert (rest is None) == (all(isinstance(own, Heat) for own in system.own.values()) and not system.coupling)
    for s in (0.0, 0.3, 0.1 + 0.2j):
        shift = torch.tensor(s, dtype=torch.complex128 if isinstance(s, complex) else torch.float64)
        y = part.solve(shift, x)
        assert_same(tuple(a - shift * b for a, b in zip(y, part @ y, strict=True)), tuple(u.to(y[0].dtype) for u in x), 1e-12)
    assert part.norm_bound() >= 0.1


def test_solvers_agree_on_a_system():
    f = predators()
    state = f.state(hares=U.abs(), foxes=V.abs())
    exact = integrate(f, state, [0.0, 0.4], Dopri5(1e-10, 1e-12)).final
    newton = NewtonKrylov(rtol=1e-10)
    for solver, tolerance in (
        (SBDF2(dt=0.005), 1e-3),
        (ARK324(1e-6, 1e-8), 1e-4),
        (ETDRK2(dt=0.01), 1e-3),
        (BackwardEuler(dt=0.02, newton=newton), 0.05),
        (RadauIIA5(1e-4, 1e-6), 1e-2),
    ):
        assert_same(integrate(f, state, [0.0, 0.4], solver).final, exact, tolerance)
    linear = Coupled(u=Heat(L), v=Heat(L, 0.3))
    flow = integrate(linear, (U, V), [0.0, 0.5], Exponential()).final
    assert_same(flow, tuple(torch.matrix_exp(-0.5 * k * L.matrix()) @ u for k, u in ((1.0, U), (0.3, V))), 1e-11)
    assert isinstance(linear.linear, BlockDiagonalFlow)
    assert linear.linear.exponential_products(0.5) > 0


def test_blocks_know_only_what_all_of_them_know():
    heat, wave = Heat(L).linear, Wave(L).linear
    hilliard = CahnHilliard(L, 0.4).linear
    assert type(block_diagonal_part([heat, hilliard])) is BlockDiagonal
    assert block_diagonal_part([heat, hilliard]).self_adjoint
    assert isinstance(block_diagonal_part([heat, None]), BlockDiagonalFlow)
    assert not BlockDiagonal([heat, wave]).self_adjoint
    empty = block_diagonal_part([heat, None])
    flowed = empty.exponential(0.1, (U, V))
    assert_same(flowed, (heat.exponential(0.1, U), V))
    assert empty.solve(torch.tensor(0.1 + 1j, dtype=torch.complex128), (U, V))[1].is_complex()
    # What stands still is a copy: the state must not be shared.
    assert flowed[1] is not V
    assert empty.solve(torch.tensor(0.1), (U, V))[1] is not V


def test_laws_are_those_of_fields_that_stand_alone():
    alone = Coupled(u=Heat(L), v=[Heat(L), lambda u, v: u - v], w=lambda u: u)
    assert {(i.name, i.law) for i in alone.invariants if i.name.startswith(("mass", "norm"))} == {
        ("mass of u", Law.CONSERVED),
        ("norm of u", Law.NON_INCREASING),
    }
    assert all(isinstance(i, Part) and i.index == 0 for i in alone.invariants)
    both = Coupled(u=Heat(L), v=Heat(L))
    path = integrate(both, (U, V), [0.0, 0.1, 0.2], Exponential()).x
    for invariant in both.invariants:
        assert invariant.violation(path) < 1e-12
    assert {i.name for i in both.invariants} >= {"mass of u", "mass of v"}
    monitor = Monitor(both, 1e-8)
    integrate(both, (U, V), [0.0, 0.1], Dopri5(1e-6, 1e-8), monitor=monitor)
    assert len(monitor.values) == len(both.invariants)
    # The sum of two systems keeps what both keep, part by part.
    assert {i.name for i in (both + both).invariants} == {i.name for i in both.invariants}
    assert not (both + alone).invariants or all(i.index == 0 for i in (both + alone).invariants)
    broken = (path[0], 2 * path[1])
    assert Part(1, Norm(L), "v").violation(tuple(torch.stack([p[0], 2 * p[0]]) for p in path)) > 0.9
    assert Part(0, Mass(L), "u").violation((path[0], broken[1])) < 1e-12


def test_symmetries_are_common_ones_and_not_promised_of_plain_functions():
    assert Permutation() in Coupled(u=Heat(L), v=Heat(L)).symmetries
    assert predators().symmetries == ()
    assert Coupled(u=Heat(L), v=lambda u: u).symmetries == ()


def test_it_moves_freezes_copies_and_learns():
    f = Coupled(u=[Heat(L, 0.5, learn=True), lambda u, v: u * v], v=Heat(L, 0.3, learn=True))
    moved = f.on(torus(9, 5))
    assert [id(p) for p in moved.parameters()] == [id(p) for p in f.parameters()]
    x = (noise(45, 1), noise(45, 1, seed=1))
    other = robust_laplacian(torus(9, 5))
    assert_same(moved(NOW, x), (-0.5 * (other @ x[0]) + x[0] * x[1], -0.3 * (other @ x[1])))
    loss = sum(u.square().sum() for u in integrate(f, (U, V), [0.0, 0.1], SBDF2(dt=0.05)).final)
    gradients = torch.autograd.grad(loss, list(f.parameters()))
    assert all(float(g.abs()) > 0 for g in gradients)
    still = f.frozen()
    before = f(NOW, (U, V))
    with torch.no_grad():
        for p in f.parameters():
            p.add_(1.0)
    assert_same(still(NOW, (U, V)), before)
    assert not any(p.requires_grad for p in still.parameters())
    copied = copy.deepcopy(f)
    assert_same(copied(NOW, (U, V)), f(NOW, (U, V)))
    assert copied.names == f.names
    half = copy.deepcopy(f).to(torch.float32)(NOW, (U.float(), V.float()))
    assert half[0].dtype == torch.float32


def test_refusals_name_the_cure():
    with pytest.raises(TypeError, match="name at least one field"):
        Coupled()
    with pytest.raises(TypeError, match="must not be called t"):
        Coupled(t=Heat(L))
    with pytest.raises(TypeError, match="must not be called pop, a word"):
        Coupled(pop=Heat(L))
    with pytest.raises(TypeError, match="u has an empty list of terms"):
        Coupled(u=[])
    with pytest.raises(TypeError, match="a term of u asks for w, but the fields are u, v"):
        Coupled(u=lambda u, w: u, v=Heat(L))
    with pytest.raises(TypeError, match="a term of u must be a right-hand side or a function, not int"):
        Coupled(u=3)
    f = predators()
    with pytest.raises(TypeError, match="the fields are hares, foxes, not hares"):
        f.state(hares=U)
    for wrong, form in ((U, "Tensor"), ((U,), "a tuple of 1")):
        with pytest.raises(FieldError, match=rf"the state of this system is the tuple \(hares, foxes\), not {form}"):
            f(NOW, wrong)


def test_a_term_that_is_no_slope_is_told():
    f = Coupled(u=lambda u: u[:3], v=Heat(L))
    with pytest.raises(ValueError, match="dx/dt must have the state's shape"):
        integrate(f, (U, V), [0.0, 0.1], Dopri5())

    class Named(RightHandSide):
        """A right-hand side acts on its own field, whatever it is called there."""

        def forward(self, t, x):
            return -x

    assert_same(Coupled(u=Named(), v=Named())(NOW, (U, V)), (-U, -V))
