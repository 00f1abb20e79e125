"""Right-hand sides add, scale and subtract; invariants survive exactly where they add up."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from integrators.state import parts_of
from neuralpde import (
    BackwardEuler,
    BeltramiFlow,
    DirichletEnergy,
    Dopri5,
    Exponential,
    Heat,
    Laplacian,
    Law,
    Mass,
    MaximumPrinciple,
    Norm,
    Permutation,
    RadauIIA5,
    Rayleigh,
    RightHandSide,
    RigidMotion,
    ScaledDotProduct,
    UnitaryFlow,
    as_right_hand_side,
    icosphere,
    integrate,
    robust_laplacian,
    torus,
)
from neuralpde.acoustics import Acoustics
from neuralpde.averaging import Averaging
from neuralpde.boundary_conditions import Robin
from neuralpde.coupled import Coupled
from neuralpde.dirichlet import Dirichlet
from neuralpde.kuramoto_sivashinsky import KuramotoSivashinsky
from neuralpde.mean_curvature import ConformalMeanCurvatureFlow, MeanCurvatureFlow
from neuralpde.phase_field import AllenCahn, CahnHilliard
from neuralpde.schroedinger import Schroedinger
from neuralpde.sources import Decay
from neuralpde.testing import assert_within, fields
from neuralpde.transport import Advection
from neuralpde.waves import Wave
from operators.boundary_terms import named_boundary

NOW = torch.zeros((), dtype=torch.float64)
L = robust_laplacian(icosphere(0))


class Growth(RightHandSide):
    """A user's own equation: r x − L x."""

    def __init__(self, laplacian: Laplacian) -> None:
        super().__init__()
        self.laplacian = laplacian
        self.rate = nn.Parameter(torch.tensor(0.5, dtype=laplacian.dtype))

    def forward(self, t, x):
        return self.rate * x - self.laplacian @ x


def laws(rhs: RightHandSide) -> dict[type, Law]:
    return {type(invariant): invariant.law for invariant in rhs.invariants}


@given(x=fields(12, 2), c=st.floats(-100, 100), t=st.floats(0, 5))
def test_algebra_has_the_values_of_arithmetic(x, c, t):
    f, g = Heat(L, 0.5), Growth(L)
    time = torch.tensor(t, dtype=torch.float64)
    with torch.no_grad():
        a, b = f(time, x), g(time, x)
    values = {
        f + g: a + b,
        f - g: a - b,
        c * f: c * a,
        f * c: c * a,
        -f: -a,
        f + g + f: a + b + a,
        f - (g - f): a - (b - a),
        2.0 * (f + c * g): 2 * (a + c * b),
        f + (lambda t, x: t * x): a + time * x,
        (lambda t, x: t * x) + f: time * x + a,
        f - (lambda t, x: x): a - x,
    }
    scale = float(sum(v.abs().max() for v in (a, b)) + x.abs().max()) * (1 + abs(c)) * (1 + t)
    for rhs, expected in values.items():
        assert_within(rhs(time, x), expected, 1e-13 * scale)


def test_tuple_states_add_too():
    f = as_right_hand_side(lambda t, x: (x[1], -x[0]))
    x = (torch.ones(3, 1), torch.full((3, 1), 2.0))
    twice = (f + 2.0 * f)(NOW, x)
    assert torch.equal(twice[0], torch.full((3, 1), 6.0))
    assert torch.equal(twice[1], torch.full((3, 1), -3.0))


HEAT = {
    Norm: Law.NON_INCREASING,
    Rayleigh: Law.NON_INCREASING,
    DirichletEnergy: Law.NON_INCREASING,
    Mass: Law.CONSERVED,
}
STRICT = dict.fromkeys(HEAT, Law.CONSERVED)
BACKWARDS = {quantity: law.reversed for quantity, law in HEAT.items()}


def test_invariants_of_sums():
    heat, strict = Heat(L), UnitaryFlow(L, 2)
    assert laws(heat + Heat(L, 0.3)) == HEAT
    assert laws(strict + UnitaryFlow(L, 2)) == STRICT
    # A conserved quantity may then also fall.
    assert laws(heat + strict) == laws(strict + heat) == HEAT
    assert laws(heat - heat) == laws(heat - Heat(L, 2.0)) == {Mass: Law.CONSERVED}
    assert laws(strict - strict) == STRICT
    # Another operator of the same masses measures the same norm and mass, but another energy.
    assert laws(heat + Heat(robust_laplacian(icosphere(0)))) == {Norm: Law.NON_INCREASING, Mass: Law.CONSERVED}
    assert laws(heat + Heat(robust_laplacian(icosphere(0, 2.0)))) == {}
    assert laws(heat + (lambda t, x: x)) == laws(heat + Growth(L)) == {}


def test_invariants_of_multiples():
    heat, strict = Heat(L), UnitaryFlow(L, 2)
    assert laws(3.0 * heat) == laws(0.0 * heat) == HEAT
    assert laws(-heat) == laws(-1.0 * heat) == BACKWARDS
    assert laws(-strict) == laws(torch.tensor(-2.0) * strict) == STRICT
    assert laws(-1.0 * (-heat)) == laws(-1.0 * (2.0 * -heat)) == HEAT
    # The sign of a learned coefficient is not known, and one for each node is another equation.
    learned = nn.Parameter(torch.tensor(1.0, dtype=torch.float64))
    assert laws(heat * learned) == {Mass: Law.CONSERVED}
    assert laws(heat * torch.ones(12, 1, dtype=torch.float64)) == {}
    attention = BeltramiFlow(ScaledDotProduct(L, 1))
    assert laws(-attention) == {MaximumPrinciple: Law.NON_DECREASING}
    assert len((2.0 * attention).invariants) == 1
    assert not (-heat).dissipative
    assert (heat + strict).dissipative


@pytest.mark.parametrize("c", [2.5, -0.5])
def test_declared_laws_of_combinations_hold(c):
    x = torch.randn(12, 2, dtype=torch.float64)
    t = torch.linspace(0, 0.2, 9, dtype=torch.float64)
    strict = UnitaryFlow(L, 2, scale=1.0)
    for rhs in (Heat(L) + strict, c * strict, c * Heat(L), strict - Heat(L), Heat(L) + Heat(L, 0.1)):
        path = integrate(rhs, x, t, Exponential()).x
        assert rhs.invariants
        for invariant in rhs.invariants:
            assert invariant.violation(path) < 1e-11, (rhs, invariant.name)
    # What was dropped, was dropped rightly.
    grown = integrate(-0.3 * Heat(L), x, t, Exponential()).x
    assert Norm(L, Law.NON_INCREASING).violation(grown) > 0.1


def linear_parts():
    n = L.shape[0]
    third, field = torch.full((n, 1), 1 / 3, dtype=torch.float64), 0.3 + torch.rand(n, 1, dtype=torch.float64)
    return {
        "heat": Heat(L, 0.3),
        "heat, decay": Heat(L, 0.3) + Decay(L, 0.7),
        "plain numbers": Decay(L, 0.0) + Heat(L, field),
        "wave": Wave(L, 1.3),
        "damped wave": Wave(L, 1.3, damping=0.2),
        "acoustics": Acoustics(L, 1.3),
        "Schrödinger": Schroedinger(L, 0.7, potential=0.3),
        "Cahn and Hilliard": CahnHilliard(L, 0.3),
        "Cahn and Hilliard, stabilised": CahnHilliard(L, 0.3, stabilization=2.0),
        "Kuramoto and Sivashinsky": KuramotoSivashinsky(L),
        "advection": Advection(icosphere(0), torch.tensor([[0.3, 0.1, 0.2]], dtype=torch.float64)),
        "multiple": 0.3 * Wave(L, 1.3),
        "system": Coupled(u=Heat(L, 0.3), v=Decay(L, 0.2)),
        "held": Dirichlet(Heat(L, 0.3), [0, 5]),
        "average": Averaging(ScaledDotProduct(L, 1)(third)),
    }


@pytest.mark.parametrize("name", linear_parts())
@pytest.mark.parametrize("shift", [0.1, 0, 0.1 + 0.2j])
def test_a_plain_number_is_the_same_shift_as_a_tensor_of_double_precision(name, shift):
    """Not rounded through single precision, where y would err by 1e-9 and more."""
    part = linear_parts()[name].linear
    x = torch.linspace(-1, 1, 12, dtype=torch.float64)[:, None].cos()
    if name == "acoustics":
        x = (x, torch.linspace(-1, 1, L.stiffness.pattern.nnz // 2 - 6, dtype=torch.float64)[:, None])
    elif name in ("wave", "damped wave", "multiple", "system"):
        x = (x, x.flip(0) ** 2)
    elif name == "Schrödinger":
        x = x + 0.5j * x**2
    exact = torch.tensor(shift, dtype=torch.complex128 if isinstance(shift, complex) else torch.float64)
    for found, expected in zip(parts_of(part.solve(shift, x)), parts_of(part.solve(exact, x)), strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-14, atol=1e-14)


def test_linear_parts_add_up():
    x = torch.randn(12, 2, dtype=torch.float64)
    f, g = Heat(L, 0.5), UnitaryFlow(L, 2)
    for rhs in (f + g, 2.0 * f, -g, f - 3.0 * g):
        torch.testing.assert_close(rhs.linear @ x, rhs(NOW, x))
        ratio = (L.inner(rhs.linear @ x, rhs.linear @ x) / L.inner(x, x)).sqrt()
        assert float(ratio.detach()) <= rhs.linear.norm_bound()
    scaled = 2.0 * f
    solved = scaled.linear.solve(torch.tensor(0.1, dtype=torch.float64), x)
    torch.testing.assert_close(solved - 0.1 * scaled(NOW, solved), x)
    exact = integrate(f + g, x, [0.0, 0.1], Exponential()).x[-1]
    torch.testing.assert_close(exact, integrate(f + g, x, [0.0, 0.1], Dopri5(1e-10, 1e-12)).x[-1])
    mixed = f + Growth(L)
    torch.testing.assert_close(mixed.linear @ x + mixed.nonlinear(NOW, x), mixed(NOW, x))
    assert (f * torch.ones(12, 1, dtype=torch.float64)).linear is None
    with pytest.raises(NotImplementedError, match="no common factorisation: use Exponential"):
        integrate(f + g, x, [0.0, 0.1], BackwardEuler(0.1))


@pytest.mark.parametrize("i", [-1j, torch.tensor(-1j, dtype=torch.complex128)])
@pytest.mark.parametrize("solver", [None, Exponential(), RadauIIA5(rtol=1e-9, atol=1e-11)])
def test_an_imaginary_multiple_of_heat_is_a_schroedinger_equation(i, solver):
    schroedinger = i * Heat(L)
    psi = torch.randn(L.shape[0], 2, dtype=torch.complex128, generator=torch.Generator().manual_seed(0))
    exact = torch.linalg.matrix_exp(0.7j * (L @ torch.eye(L.shape[0], dtype=torch.float64))) @ psi
    torch.testing.assert_close(integrate(schroedinger, psi, [0.0, 0.7], solver).final, exact, rtol=1e-7, atol=1e-7)
    assert schroedinger.invariants == ()
    assert not schroedinger.dissipative


def test_on_works_for_a_users_own_class_and_inside_sums():
    growth = Growth(L)
    rhs = 2.0 * growth + Heat(L, 0.5, learn=True) - (lambda t, x: x)
    moved = rhs.on(torus(9, 5))
    assert [id(p) for p in moved.parameters()] == [id(p) for p in rhs.parameters()]
    x = torch.randn(45, 1, dtype=torch.float64)
    other = robust_laplacian(torus(9, 5))
    torch.testing.assert_close(moved(NOW, x), 2 * (0.5 * x - other @ x) - 0.5 * (other @ x) - x)
    assert rhs(NOW, torch.ones(12, 1, dtype=torch.float64)).shape == (12, 1)
    with torch.no_grad():
        growth.rate.fill_(1.5)
    torch.testing.assert_close(moved(NOW, x), 2 * (1.5 * x - other @ x) - 0.5 * (other @ x) - x)


def test_learned_coefficient_gets_a_gradient():
    c = nn.Parameter(torch.tensor(0.7, dtype=torch.float64))
    rhs = Heat(L) * c
    assert any(p is c for p in rhs.parameters())
    integrate(rhs, torch.randn(12, 1, dtype=torch.float64), [0.0, 0.1], Exponential()).x[-1].square().sum().backward()
    assert c.grad is not None
    assert float(c.grad) < 0


def test_a_module_is_a_right_hand_side_too():
    class Decay(nn.Module):
        def forward(self, t, x):
            return -x

    x = torch.ones(3, 1, dtype=torch.float64)
    assert float(integrate(as_right_hand_side(Decay()), x, [0.0, 1.0]).x[-1, 0, 0]) == pytest.approx(math.exp(-1), rel=1e-5)
    heat = Heat(L)
    assert as_right_hand_side(heat) is heat


def test_refusals_name_the_cure():
    with pytest.raises(TypeError, match=r"a right-hand side is a function of \(t, x\), not int"):
        as_right_hand_side(3)
    with pytest.raises(NotImplementedError, match=r"must define forward\(self, t, x\)"):
        RightHandSide()(NOW, NOW)
    for bad in (math.nan, math.inf):
        with pytest.raises(ValueError, match="a coefficient must be finite"):
            bad * Heat(L)


LAWS = {quantity: st.sampled_from([None, *Law]) for quantity in (Norm, Mass, DirichletEnergy)}


class Declares(RightHandSide):
    """0, which has every law there is, with those that it is told to declare."""

    def __init__(self, laws: dict, laplacian: Laplacian = L) -> None:
        super().__init__()
        self.laplacian = laplacian
        self.laws = laws

    @property
    def invariants(self):
        return tuple(quantity(self.laplacian, law) for quantity, law in self.laws.items() if law is not None)

    def forward(self, t, x):
        return 0 * x


def added(one, other):
    """The law of the sum of two rates of change, each zero, ≤ 0, ≥ 0 or anything."""
    if one is None or other is None:
        return None
    one_sided = {one, other} - {Law.CONSERVED}
    return None if len(one_sided) == 2 else next(iter(one_sided), Law.CONSERVED)


@given(a=st.fixed_dictionaries(LAWS), b=st.fixed_dictionaries(LAWS), c=st.fixed_dictionaries(LAWS), factor=st.floats(-3, 3))
def test_composition_keeps_what_is_provable_and_nothing_else(a, b, c, factor):
    f, g, h = Declares(a), Declares(b), Declares(c)
    both = {q: law for q in a if (law := added(a[q], b[q])) is not None}
    assert laws(f + g) == laws(g + f) == both
    three = {q: law for q in a if (law := added(added(a[q], b[q]), c[q])) is not None}
    assert laws(f + g + h) == laws(f + (g + h)) == three
    less = {q: added(a[q], None if b[q] is None else b[q].reversed) for q in a}
    assert laws(f - g) == {q: law for q, law in less.items() if law is not None}
    scaled = {q: law if factor >= 0 else law.reversed for q, law in a.items() if law is not None}
    assert laws(factor * f) == scaled
    assert laws(factor * (f + g)) == {q: law if factor >= 0 else law.reversed for q, law in both.items()}
    # Of a learned factor the sign is not known.
    learned = nn.Parameter(torch.tensor(factor, dtype=torch.float64))
    assert laws(learned * f) == {q: law for q, law in a.items() if law is Law.CONSERVED}
    assert (f + g).dissipative == (Law.NON_INCREASING in both.values())


def test_symmetries_of_combinations():
    heat, aware = Heat(L), Declares({})
    assert Permutation() in heat.symmetries
    assert RigidMotion() in heat.symmetries
    for rhs in (heat + heat, 2.0 * heat, -heat, heat * nn.Parameter(torch.tensor(2.0).double()), 1j * heat):
        assert set(rhs.symmetries) == set(heat.symmetries)
    for rhs in (heat + aware, heat + (lambda t, x: x), heat * torch.ones(12, 1).double(), as_right_hand_side(lambda t, x: x)):
        assert rhs.symmetries == ()


def test_a_frozen_right_hand_side_is_what_it_was():
    weight = nn.Parameter(torch.tensor(0.7, dtype=torch.float64))
    inner = nn.Linear(2, 2, dtype=torch.float64)
    f = weight * Heat(L, 0.5, learn=True) + Growth(L) + as_right_hand_side(Activated(inner))
    x = torch.randn(12, 2, dtype=torch.float64)
    still, before = f.frozen(), f(NOW, x).detach()
    assert torch.equal(still(NOW, x), before)
    assert not still(NOW, x).requires_grad
    assert still.state_dict().keys() == f.state_dict().keys()
    assert not any(p.requires_grad for p in still.parameters())
    assert not {id(p) for p in still.parameters()} & {id(p) for p in f.parameters()}
    with torch.no_grad():
        for p in f.parameters():
            p.add_(1.0)
    assert torch.equal(still(NOW, x), before)
    assert not torch.allclose(f(NOW, x), before)
    # The original still learns, and so does the field.
    f(NOW, x).sum().backward()
    assert all(p.grad is not None for p in f.parameters())
    x.requires_grad_()
    assert torch.autograd.grad(still(NOW, x).sum(), x)[0].abs().sum() > 0
    moved = still.on(torus(9, 5))
    assert moved(NOW, torch.ones(45, 2, dtype=torch.float64)).shape == (45, 2)
    assert {i.name for i in Heat(L, learn=True).frozen().invariants} == {i.name for i in Heat(L).invariants}
    # Its linear part is that of the frozen value.
    heat = Heat(L, 0.5, learn=True)
    kept = heat.frozen()
    with torch.no_grad():
        next(heat.parameters()).add_(1.0)
    torch.testing.assert_close(kept.linear @ x, -0.5 * (L @ x))
    assert isinstance(kept, Heat)


def test_a_frozen_right_hand_side_keeps_its_fixed_fields_and_shares_its_operators():
    f = Heat(L, 0.5 + torch.rand(12, 1, dtype=torch.float64))
    still, x = f.frozen(), torch.randn(12, 2, dtype=torch.float64)
    before = f(NOW, x)
    f.load_state_dict({"kappa.value": torch.ones(12, 1)})
    assert torch.equal(still(NOW, x), before)
    torch.testing.assert_close(still.linear @ x, before)
    torch.testing.assert_close(f(NOW, x), -(L @ x))
    assert still.laplacian.stiffness.values.data_ptr() == L.stiffness.values.data_ptr()


ONES_OWN = {
    "heat": lambda p: Heat(L, p),
    "Allen and Cahn": lambda p: AllenCahn(L, 0.3, p),
    "Cahn and Hilliard": lambda p: CahnHilliard(L, 0.3, p),
    "Cahn and Hilliard, stabilised": lambda p: CahnHilliard(L, 0.3, p, stabilization=2.0),
    "damped wave": lambda p: Wave(L, damping=p),
    "decay": lambda p: Decay(L, p),
    "uneven decay": lambda p: Decay(L, p * torch.ones(12, 1, dtype=torch.float64)),
    "Robin": lambda p: Robin(L, named_boundary(L, [0, 5]), p),
    "mean curvature": lambda p: MeanCurvatureFlow(icosphere(0), p),
    "held mean curvature": lambda p: MeanCurvatureFlow(icosphere(0), p, fixed=lambda mesh: [0]),
    "conformal": lambda p: ConformalMeanCurvatureFlow(icosphere(0), p),
}


@pytest.mark.parametrize("name", ONES_OWN)
def test_laws_are_declared_while_a_parameter_of_ones_own_is_not_negative(name):
    p = nn.Parameter(torch.tensor(0.5, dtype=torch.float64))
    f = ONES_OWN[name](p)
    x = icosphere(0).vertices
    x = (x, x.flip(0) ** 2) if name == "damped wave" else x
    assert f.dissipative
    with torch.no_grad():
        p.fill_(-0.5)
        f = ONES_OWN[name](p) if name == "uneven decay" else f
        assert not f.dissipative
        part, rest = (f.linear, None if f.nonlinear is None else f.nonlinear(NOW, x)) if f.linear else f.lagged(NOW, x)
        assert not part.self_adjoint
        assert part.norm_bound() > 0
        y = part.solve(torch.tensor(0.01, dtype=torch.float64), x)
        whole, applied = f(NOW, x), part @ x
        for k, value in enumerate(parts_of(whole)):
            others = 0 if rest is None else parts_of(rest)[k]
            torch.testing.assert_close(parts_of(applied)[k] + others, value)
            torch.testing.assert_close(parts_of(y)[k] - 0.01 * parts_of(part @ y)[k], parts_of(x)[k])


class Activated(nn.Module):
    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, t, x):
        return torch.tanh(self.inner(x))


class Split(RightHandSide):
    """u' = −D L u + u − u³ by its parts alone, as the docstring of RightHandSide has it."""

    def __init__(self, laplacian: Laplacian) -> None:
        super().__init__()
        self.laplacian = laplacian
        self.D = nn.Parameter(torch.tensor(0.3, dtype=laplacian.dtype))

    @property
    def linear(self):
        return (self.D * Heat(self.laplacian)).linear

    def nonlinear(self, t, u):
        return u - u**3


def test_an_equation_may_be_written_by_its_parts_alone():
    f, u = Split(L), torch.randn(12, 2, dtype=torch.float64)
    torch.testing.assert_close(f(NOW, u), -0.3 * (L @ u) + u - u**3)
    for rhs, factor in ((2.0 * f, 2.0), (f + f, 2.0), (f - 0.5 * f, 0.5)):
        torch.testing.assert_close(rhs(NOW, u), factor * f(NOW, u))
        torch.testing.assert_close(rhs.linear @ u + rhs.nonlinear(NOW, u), rhs(NOW, u))
    exact = integrate(f, u, [0.0, 0.2], Dopri5(1e-9, 1e-11)).final
    loss = (integrate(f, u, [0.0, 0.2], RadauIIA5(1e-7, 1e-9)).final - exact).abs().max()
    assert float(loss.detach()) < 1e-6
    with pytest.raises(NotImplementedError, match=r"or `linear` and `nonlinear`"):
        RightHandSide()(NOW, u)
