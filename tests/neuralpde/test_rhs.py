"""Right-hand sides add, scale and subtract; invariants survive exactly where they add up."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

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
    Norm,
    RadauIIA5,
    Rayleigh,
    RightHandSide,
    ScaledDotProduct,
    UnitaryFlow,
    as_right_hand_side,
    icosphere,
    integrate,
    robust_laplacian,
    torus,
)
from neuralpde.testing import assert_within, fields

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


def test_invariants_of_sums():
    heat, strict = Heat(L), UnitaryFlow(L, 2)
    assert laws(heat + Heat(L, 0.3)) == HEAT
    assert laws(strict + UnitaryFlow(L, 2)) == STRICT
    # A conserved quantity may then also fall.
    assert laws(heat + strict) == laws(strict + heat) == HEAT
    assert laws(heat - heat) == laws(heat - Heat(L, 2.0)) == {Mass: Law.CONSERVED}
    assert laws(strict - strict) == STRICT
    # The same quantity measured with another operator is another quantity.
    assert laws(heat + Heat(robust_laplacian(icosphere(0)))) == {}
    assert laws(heat + (lambda t, x: x)) == laws(heat + Growth(L)) == {}


def test_invariants_of_multiples():
    heat, strict = Heat(L), UnitaryFlow(L, 2)
    assert laws(3.0 * heat) == laws(0.0 * heat) == HEAT
    assert laws(-heat) == laws(-1.0 * heat) == {Mass: Law.CONSERVED}
    assert laws(-strict) == laws(torch.tensor(-2.0) * strict) == STRICT
    assert laws(-1.0 * (-heat)) == {Mass: Law.CONSERVED}
    # The sign of a learned coefficient is not known, and one for each node is another equation.
    learned = nn.Parameter(torch.tensor(1.0, dtype=torch.float64))
    assert laws(heat * learned) == {Mass: Law.CONSERVED}
    assert laws(heat * torch.ones(12, 1, dtype=torch.float64)) == {}
    attention = BeltramiFlow(ScaledDotProduct(L, 1))
    assert laws(-attention) == {}
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
        integrate(f + f, x, [0.0, 0.1], BackwardEuler(0.1))


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
    assert float(integrate(as_right_hand_side(Decay()), x, [0.0, 1.0]).x[-1, 0, 0]) == pytest.approx(
        math.exp(-1), rel=1e-5
    )
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
