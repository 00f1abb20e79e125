"""Störmer–Verlet: order 2, symplectic, reversible, no drift of the energy, and only for separable equations."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.autograd import gradcheck, gradgradcheck

from integrators import Checkpointed, Direct, SolveError, Status, integrate
from integrators.verlet import StoermerVerlet

U = torch.finfo(torch.float64).eps / 2


def pendulum(t, x):
    q, p = x
    return p, -torch.sin(q)


class Pendulum:
    """The same with its halves apart; counts them."""

    def __init__(self):
        self.forces = self.drifts = 0

    def __call__(self, t, x):
        return x[1], -torch.sin(x[0])

    def force(self, t, q):
        self.forces += 1
        return -torch.sin(q)

    def drift(self, t, p):
        self.drifts += 1
        return p


def energy(x):
    q, p = x
    return (p**2 / 2 + 1 - torch.cos(q)).sum()


def start(q=1.2, p=0.3, dtype=torch.float64):
    return torch.tensor([[q]], dtype=dtype), torch.tensor([[p]], dtype=dtype)


def driven(t, x):
    """q' = (2 + sin t) p, p' = −q³ + cos 3t: both halves depend on time."""
    q, p = x
    return (2 + torch.sin(t)) * p, -(q**3) + torch.cos(3 * t)


@pytest.mark.parametrize("t", [[0.0, 1.0], [0.0, -1.0]], ids=["forwards", "backwards"])
def test_order_of_a_driven_nonlinear_equation(t, observed_order):
    exact = integrate(driven, start(), t, StoermerVerlet(dt=1 / 4096)).final
    errors = []
    for k in (5, 6, 7):
        x = integrate(driven, start(), t, StoermerVerlet(dt=2.0**-k)).final
        errors.append(max(float((a - b).abs().max()) for a, b in zip(x, exact, strict=True)))
    assert abs(observed_order(errors) - 2) <= 0.1


def test_complex_states(observed_order):
    """q'' = −4q from a complex position."""
    q, p = torch.full((2, 1), 0.3 + 0.7j, dtype=torch.complex128), torch.full((2, 1), 1j, dtype=torch.complex128)
    f = lambda t, x: (x[1], -4 * x[0])  # noqa: E731
    exact = q * math.cos(2.0) + p / 2 * math.sin(2.0)
    errors = [
        float((integrate(f, (q, p), [0.0, 1.0], StoermerVerlet(dt=2.0**-k)).final[0] - exact).abs().max()) for k in (5, 6, 7)
    ]
    assert abs(observed_order(errors) - 2) <= 0.1


@pytest.mark.parametrize("z", [0.1, 1.0, 1.9])
def test_one_step_of_the_oscillator(z):
    """The matrix of a step of length z for q'' = −q."""
    expected = torch.tensor([[1 - z**2 / 2, z], [-z * (1 - z**2 / 4), 1 - z**2 / 2]], dtype=torch.float64)
    identity = torch.eye(2, dtype=torch.float64)
    q, p = integrate(lambda t, x: (x[1], -x[0]), (identity[:1], identity[1:]), [0.0, z], StoermerVerlet(dt=z)).final
    assert torch.allclose(torch.cat([q, p]), expected, rtol=0, atol=1e-12)


# -- Geometry


def henon_heiles(t, x):
    q, p = x
    return p, torch.stack((-q[0] - 2 * q[0] * q[1], -q[1] - q[0] ** 2 + q[1] ** 2))


@given(st.lists(st.floats(-0.4, 0.4), min_size=4, max_size=4), st.floats(0.05, 1.0))
def test_symplectic(values, h):
    """JᵀΩJ = Ω for the Jacobian of a step, to round-off."""
    x = torch.tensor(values, dtype=torch.float64)

    def step(x):
        final = integrate(henon_heiles, (x[:2], x[2:]), [0.0, h], StoermerVerlet(dt=h, gradient=Direct())).final
        return torch.cat(final)

    J = torch.autograd.functional.jacobian(step, x)
    omega = torch.kron(torch.tensor([[0.0, 1.0], [-1.0, 0.0]]), torch.eye(2)).double()
    assert float((J.T @ omega @ J - omega).abs().max()) <= 64 * U * (1 + float(J.abs().max())) ** 2


def test_the_energy_oscillates_and_does_not_drift():
    """10⁴ steps of the pendulum: the deviation of the second half is that of the first, within (ω dt)²/4."""
    dt, x = 0.1, start()
    t = torch.arange(10_001, dtype=torch.float64)[::50] * dt
    solution = integrate(Pendulum(), x, t, StoermerVerlet(dt=dt))
    deviation = torch.stack([energy((q, p)) for q, p in zip(*solution.x, strict=True)]) / energy(x) - 1
    first, second = deviation[:100].abs().max(), deviation[100:].abs().max()
    assert float(second) <= 1.05 * float(first)
    assert float(first) <= dt**2 / 4
    assert abs(float(deviation[100:].mean() - deviation[:100].mean())) <= 0.05 * float(first)


def test_the_modified_energy_of_a_linear_wave_is_exact():
    """p² + q²(1 − z²/4) is kept to round-off by the step of q'' = −q."""
    z, k = 0.5, 1000
    q, p = integrate(lambda t, x: (x[1], -x[0]), start(), [0.0, z * k], StoermerVerlet(dt=z)).final
    kept = [float(b**2 + a**2 * (1 - z**2 / 4)) for a, b in ((q, p), start())]
    assert abs(kept[0] / kept[1] - 1) <= 16 * U * k


@pytest.mark.parametrize("f", [pendulum, Pendulum(), driven], ids=["f alone", "drift and force", "driven"])
def test_back_again(f):
    """k steps and k steps back return to within 4ku."""
    k, h = 400, 0.05
    there = integrate(f, start(), [0.0, k * h], StoermerVerlet(dt=h)).final
    back = integrate(f, there, [k * h, 0.0], StoermerVerlet(dt=h)).final
    for a, b in zip(back, start(), strict=True):
        assert float((a - b).abs().max()) <= 4 * k * U * 4
    assert StoermerVerlet.reversible


def test_stable_below_two_over_omega_and_diverging_beyond():
    f = lambda t, x: (x[1], -100 * x[0])  # noqa: E731
    below = integrate(f, start(), [0.0, 199.0], StoermerVerlet(dt=0.199)).final
    assert float(energy(below)) < 1e4
    with pytest.raises(SolveError, match="diverged") as caught:
        integrate(f, start(), [0.0, 2000.0], StoermerVerlet(dt=0.201))
    assert caught.value.status is Status.DIVERGED


# -- What is evaluated, and what is refused


def test_the_force_of_one_step_begins_the_next():
    f = Pendulum()
    stats = integrate(f, start(), [0.0, 1.0], StoermerVerlet(dt=0.1, gradient=Direct())).stats
    checks = 1
    assert f.forces == 11 + checks
    assert f.drifts == 10 + checks
    assert stats.nfe == 11
    assert integrate(pendulum, start(), [0.0, 1.0], StoermerVerlet(dt=0.1, gradient=Direct())).stats.nfe == 21


def test_with_and_without_halves_alike():
    t = [0.0, 0.33, 1.0]
    one, two = (integrate(f, start(), t, StoermerVerlet(dt=0.1)).x for f in (pendulum, Pendulum()))
    assert all(torch.equal(a, b) for a, b in zip(one, two, strict=True))


@pytest.mark.parametrize(
    ("f", "message"),
    [
        (lambda t, x: (x[1], -x[0] - 1e-6 * x[1]), "p' depends on p"),
        (lambda t, x: (x[1] + 1e-6 * x[0] ** 2, -x[0]), "q' depends on q"),
        (lambda t, x: (x[1] / (1 + x[0] ** 2), -x[0]), "q' depends on q"),
    ],
    ids=["friction", "drift of q", "metric"],
)
@pytest.mark.parametrize("dtype", [torch.float64, torch.complex128])
def test_equations_that_are_not_separable(f, message, dtype):
    with pytest.raises(ValueError, match=rf"{message}: use ImplicitMidpoint"):
        integrate(f, start(dtype=dtype), [0.0, 1.0], StoermerVerlet(dt=0.1))


def test_halves_that_are_not_those_of_f():
    class Wrong(Pendulum):
        def force(self, t, q):
            return torch.sin(q)

    with pytest.raises(ValueError, match=r"Wrong.force is not what Wrong\(t, \(q, p\)\) gives for p'"):
        integrate(Wrong(), start(), [0.0, 1.0], StoermerVerlet(dt=0.1))

    class Short(Pendulum):
        def drift(self, t, p):
            return p.sum()

    with pytest.raises(ValueError, match=r"Short.drift must return a tensor \(1, 1\) torch.float64"):
        integrate(Short(), start(), [0.0, 1.0], StoermerVerlet(dt=0.1))

    class Half:
        force = Pendulum.force
        forces = 0

        def __call__(self, t, x):
            return x[1], -torch.sin(x[0])

    with pytest.raises(TypeError, match="Half offers force but no drift"):
        integrate(Half(), start(), [0.0, 1.0], StoermerVerlet(dt=0.1))


@pytest.mark.parametrize(("x", "form"), [(start()[0], "one tensor"), ((*start(), start()[0]), "a tuple of 3")])
def test_states_that_are_no_pairs(x, form):
    with pytest.raises(TypeError, match=rf"needs a state \(q, p\) of positions and momenta, not {form}"):
        integrate(lambda t, x: x, x, [0.0, 1.0], StoermerVerlet(dt=0.1))


def test_no_step():
    with pytest.raises(ValueError, match=r"dt must be positive, not 0\.0"):
        StoermerVerlet(dt=0.0)


# -- Precision and gradients


def test_single_precision():
    f = Pendulum()
    single = integrate(f, start(dtype=torch.float32), [0.0, 0.3, 5.0], StoermerVerlet(dt=0.05)).x
    double = integrate(f, start(), [0.0, 0.3, 5.0], StoermerVerlet(dt=0.05)).x
    for a, b in zip(single, double, strict=True):
        assert a.dtype == torch.float32
        assert float((a - b).abs().max()) <= 100 * 16 * 2.0**-24


def leaf(value):
    return torch.as_tensor(value, dtype=torch.float64).clone().requires_grad_()


class Driven(torch.nn.Module):
    """q' = p (2 + sin t), p' = −a q³ + cos 3t, with its halves apart."""

    def __init__(self, a):
        super().__init__()
        self.a = a

    def drift(self, t, p):
        return (2 + torch.sin(t)) * p

    def force(self, t, q):
        return -self.a * q**3 + torch.cos(3 * t)

    def forward(self, t, x):
        return self.drift(t, x[1]), self.force(t, x[0])


@pytest.mark.parametrize("gradient", [Direct(), Checkpointed(), Checkpointed(snapshots=2)], ids=str)
@pytest.mark.parametrize("halves", [True, False], ids=["drift and force", "f alone"])
def test_gradcheck(gradient, halves):
    def final(q, p, a, t):
        f = Driven(a)
        solver = StoermerVerlet(dt=0.17, gradient=gradient)
        return integrate(f if halves else lambda t, x: f(t, x), (q, p), t, solver).x

    assert gradcheck(final, (leaf([[1.2]]), leaf([[0.3]]), leaf(0.7), leaf([0.0, 0.4, 1.0])), atol=1e-5, rtol=1e-3)


@pytest.mark.parametrize("gradient", [Direct(), Checkpointed()], ids=str)
def test_second_derivatives(gradient):
    def final(q, p, a):
        return integrate(Driven(a), (q, p), [0.0, 0.4], StoermerVerlet(dt=0.17, gradient=gradient)).final

    assert gradgradcheck(final, (leaf([[1.2]]), leaf([[0.3]]), leaf(0.7)), atol=1e-5, rtol=1e-3)
