"""ARK324: the order conditions of both tableaux and of their coupling, its stability, and stiff splits against Radau."""

import itertools
import math
from fractions import Fraction

import numpy as np
import pytest
import torch
from scipy.integrate import solve_ivp
from torch.autograd import gradcheck, gradgradcheck

from integrators.ark324 import ARK324, GAMMA
from integrators.checkpointed import Checkpointed
from integrators.gradients import Direct
from integrators.integrate import integrate

DOUBLE = torch.float64
G = torch.tensor([[-1.0, 0.5, 0.0], [0.5, -3.0, 1.0], [0.2, 1.0, -8.0]], dtype=DOUBLE)
X0 = torch.tensor([[0.3], [0.5], [0.8]], dtype=DOUBLE)


class Semilinear(torch.nn.Module):
    """dx/dt = G x + N(t, x) from a matrix and a function."""

    def __init__(self, G, N=None):
        super().__init__()
        self.G, self.N = G, N
        self.shifts = []

    linear = property(lambda self: self)

    @property
    def nonlinear(self):
        return self.N

    def forward(self, t, x):
        return self @ x + (0 if self.N is None else self.N(t, x))

    def __matmul__(self, x):
        return self.G @ x

    def norm_bound(self):
        return float(torch.linalg.matrix_norm(self.G.detach(), ord=2))

    def solve(self, shift, b):
        self.shifts.append(complex(shift.detach()))
        return torch.linalg.solve(torch.eye(len(self.G), dtype=self.G.dtype) - shift.to(self.G.real.dtype) * self.G, b)


class Oscillator:
    """d(u, v)/dt = (2v, −2u) + (sin t, 0): a tuple state."""

    linear = property(lambda self: self)

    def __call__(self, t, x):
        return 2 * x[1] + torch.sin(t), -2 * x[0]

    def nonlinear(self, t, x):
        return torch.sin(t) + 0 * x[0], 0 * x[1]

    def __matmul__(self, x):
        return 2 * x[1], -2 * x[0]

    def norm_bound(self):
        return 2.0

    def solve(self, shift, b):
        u = (b[0] + 2 * shift * b[1]) / (1 + 4 * shift**2)
        return u, b[1] - 2 * shift * u


PROBLEMS = {
    "real": (Semilinear(G, lambda t, x: x * (1 - x)), X0),
    "non-autonomous": (Semilinear(G, lambda t, x: torch.cos(3 * t) * x + torch.sin(2 * t)), X0),
    "complex": (Semilinear((1 + 0.5j) * G, lambda t, x: 1j * x * x.abs() ** 2 + torch.sin(t)), torch.complex(X0, 1 - X0)),
    "linear": (Semilinear(G), X0),
    "tuple": (Oscillator(), (X0, 1 - X0)),
}
problems = pytest.mark.parametrize(("f", "x0"), PROBLEMS.values(), ids=PROBLEMS.keys())


def flat(x):
    parts = x if isinstance(x, tuple) else (x,)
    return np.concatenate([np.atleast_1d(part.numpy().reshape(-1)) for part in parts])


def exact(f, x0, t, **settings):
    """Every output by SciPy: DOP853 at 3e-14, or as asked."""

    def slope(s, y):
        pieces, parts, start = (x0 if isinstance(x0, tuple) else (x0,)), [], 0
        for piece in pieces:
            parts.append(torch.from_numpy(y[start : start + piece.numel()].copy()).reshape(piece.shape))
            start += piece.numel()
        return flat(f(torch.tensor(s, dtype=DOUBLE), tuple(parts) if isinstance(x0, tuple) else parts[0]))

    settings = {"method": "DOP853", "rtol": 3e-14, "atol": 1e-14, **settings}
    return solve_ivp(slope, (t[0], t[-1]), flat(x0), t_eval=t, **settings).y.T


def error(solution, reference):
    parts = solution.x if isinstance(solution.x, tuple) else (solution.x,)
    got = np.concatenate([part.numpy().reshape(len(solution.t), -1) for part in parts], axis=1)
    return float(np.abs(got - reference).max())


# -- the tableau


def tableaux():
    """(implicit, explicit, c, b, embedded) in the rationals of the paper, which stand for real numbers to 25 digits."""
    text = "1767732205903/4055673282236"
    gamma = Fraction(text)
    implicit = [
        [0, 0, 0, 0],
        [gamma, gamma, 0, 0],
        [Fraction("2746238789719/10658868560708"), Fraction("-640167445237/6845629431997"), gamma, 0],
        [
            Fraction("1471266399579/7840856788654"),
            Fraction("-4482444167858/7529755066697"),
            Fraction("11266239266428/11593286722821"),
            gamma,
        ],
    ]
    explicit = [
        [0, 0, 0, 0],
        [2 * gamma, 0, 0, 0],
        [Fraction("5535828885825/10492691773637"), Fraction("788022342437/10882634858940"), 0, 0],
        [
            Fraction("6485989280629/16251701735622"),
            Fraction("-4246266847089/9704473918619"),
            Fraction("10755448449292/10357097424841"),
            0,
        ],
    ]
    embedded = [
        Fraction("2756255671327/12835298489170"),
        Fraction("-10771552573575/22201958757719"),
        Fraction("9247589265047/10645013368117"),
        Fraction("2193209047091/5459859503100"),
    ]
    return implicit, explicit, [0, 2 * gamma, Fraction(3, 5), 1], implicit[3], embedded


SMALL = Fraction(1, 10**23)


def near(value, expected):
    return abs(value - expected) <= SMALL


def test_the_class_holds_the_tableau_of_the_paper():
    implicit, explicit, c, b, embedded = tableaux()
    for i in range(1, 4):
        assert list(ARK324.implicit[i]) == pytest.approx([float(a) for a in implicit[i][:i]], abs=1e-16)
        assert list(ARK324.explicit[i]) == pytest.approx([float(a) for a in explicit[i][:i]], abs=1e-16)
    assert list(ARK324.b) == pytest.approx([float(a) for a in b], abs=1e-16)
    assert list(ARK324.embedded) == pytest.approx([float(a) for a in embedded], abs=1e-16)
    assert list(ARK324.c) == pytest.approx([float(a) for a in c], abs=1e-16)
    assert pytest.approx(0, abs=1e-15) == 6 * GAMMA**3 - 18 * GAMMA**2 + 9 * GAMMA - 1


def test_order_conditions_and_coupling_in_rationals():
    """With one c for both tableaux: rows, 1, c, c², and b A c for either A; of the embedded method to order 2."""
    implicit, explicit, c, b, embedded = tableaux()
    for A in (implicit, explicit):
        for row, node in zip(A, c, strict=True):
            assert near(sum(row), node)
    dot = lambda w, v: sum(p * q for p, q in zip(w, v, strict=True))  # noqa: E731
    assert near(sum(b), 1)
    assert near(dot(b, c), Fraction(1, 2))
    assert near(dot(b, [s * s for s in c]), Fraction(1, 3))
    for A in (implicit, explicit):
        assert near(dot(b, [dot(row, c) for row in A]), Fraction(1, 6))
    assert near(sum(embedded), 1)
    assert near(dot(embedded, c), Fraction(1, 2))
    assert not near(dot(embedded, [s * s for s in c]), Fraction(1, 3))


def test_conditions_of_the_continuous_extension():
    """Order 2 for every θ, and the step itself at θ = 1."""
    first, second = ARK324.inside
    for theta in (0.1, 0.5, 0.9, 1.0):
        weights = [a * theta + b * theta**2 for a, b in zip(first, second, strict=True)]
        assert sum(weights) == pytest.approx(theta, abs=1e-14)
        assert sum(w * s for w, s in zip(weights, ARK324.c, strict=True)) == pytest.approx(theta**2 / 2, abs=1e-14)
    assert [a + b for a, b in zip(first, second, strict=True)] == pytest.approx(list(ARK324.b), abs=1e-14)


# -- order and stability


@problems
@pytest.mark.parametrize("t", [[0.0, 1.0], [0.0, 0.37, 0.4, 1.0]], ids=["even", "uneven"])
def test_order_of_fixed_steps(f, x0, t, observed_order):
    reference = exact(f, x0, t)
    errors = [error(integrate(f, x0, t, ARK324(dt=1 / 2**k)), reference) for k in (5, 6, 7)]
    assert 2.9 <= observed_order(errors) <= 3.3


def test_order_between_steps(observed_order):
    f, x0 = PROBLEMS["non-autonomous"]
    errors = []
    for k in (6, 7, 8):
        solution = integrate(f, x0, [0.0, 1.0], ARK324(dt=1 / 2**k), dense=True)
        inside = [0.0, *((i + theta) / 2**k for i in range(2**k) for theta in (0.3, 0.7))]
        x = torch.stack([solution.at(s) for s in inside])
        errors.append(float(np.abs(x.numpy().reshape(len(inside), -1) - exact(f, x0, inside)).max()))
    assert 2.9 <= observed_order(errors) <= 3.3


@problems
def test_errors_follow_the_tolerance(f, x0):
    t = [0.0, 0.123, 0.5, 0.77, 1.0]
    reference = exact(f, x0, t)
    for tol in (1e-3, 1e-5, 1e-7):
        assert error(integrate(f, x0, t, ARK324(rtol=tol, atol=tol)), reference) <= 10 * tol


def test_reverse_time():
    f, x0 = PROBLEMS["tuple"]
    t = [1.0, 0.55, 0.0]
    assert error(integrate(f, x0, t, ARK324(rtol=1e-7, atol=1e-9)), exact(f, x0, t)) <= 1e-6


def stability(implicit, explicit):
    """x' for h = 1, x = 1, x' = zx + wx, by the tableau as it stands."""
    A, E, _, b, _ = tableaux()
    stages = np.linalg.solve(
        np.eye(4) - implicit * np.array(A, dtype=float) - explicit * np.array(E, dtype=float), np.ones(4, dtype=complex)
    )
    return 1 + (implicit + explicit) * (np.array(b, dtype=float) @ stages)


@pytest.mark.parametrize(
    ("z", "w"), list(itertools.product([0.0, -0.5, -3.0, -40.0, -1 + 2j], [0.0, 0.7j, -0.5, 0.3 + 0.2j]))
)
def test_stability_function_of_both_parts(z, w):
    f = Semilinear(torch.full((1, 1), z, dtype=torch.complex128), lambda t, x: w * x)
    x = complex(integrate(f, torch.ones(1, 1, dtype=torch.complex128), [0.0, 1.0], ARK324(dt=1.0)).final)
    assert abs(x - stability(z, w)) <= 1e-12


def test_the_implicit_part_is_l_stable():
    """R(z) in closed form; |R| ≤ 1 on the imaginary axis, which with no pole on the left is A-stability; R → 0."""
    for z in [*(1j * 10.0**k for k in np.linspace(-3, 6, 60)), -1.0, -1e3, -1e6]:
        numerator = 1 + (1 - 3 * GAMMA) * z + (0.5 - 3 * GAMMA + 3 * GAMMA**2) * z**2
        R = numerator / (1 - GAMMA * z) ** 3
        assert abs(stability(z, 0.0) - R) <= 1e-9
        assert abs(R) <= 1 + 1e-12
    assert abs(stability(-1e8, 0.0)) <= 1e-7


@pytest.mark.parametrize("stiffness", [1e3, 1e5, 1e7])
@pytest.mark.parametrize("w", [0.0, -1.0, 1j, 0.5])
def test_a_stiff_linear_part_damps_whatever_is_explicit(stiffness, w):
    """|R(z, w)| → 0 as z → −∞ for the explicit parts that the method is meant for."""
    assert abs(stability(-stiffness, w)) <= 70 / stiffness


# -- cost


def test_one_factor_for_many_steps():
    f = Semilinear(50 * G, lambda t, x: torch.sin(20 * t) * x)
    stats = integrate(f, X0, [0.0, 0.3, 0.77, 1.0], ARK324(rtol=1e-6, atol=1e-8)).stats
    assert stats.accepted > 50
    assert stats.factorizations == len(set(f.shifts)) <= 12
    assert stats.solves >= 20 * stats.factorizations
    assert stats.solves == 3 * (stats.accepted + stats.rejected)


def test_without_a_nonlinear_part_only_products_are_counted():
    stats = integrate(Semilinear(G), X0, [0.0, 1.0], ARK324(dt=0.1)).stats
    assert stats.nfe <= 10 + 1  # One more looks for gradients.
    assert stats.solves == 30


# -- stiff splits


def path(n):
    """The Laplacian of a path over its mesh width squared."""
    beside = torch.diag(torch.ones(n - 1, dtype=DOUBLE), 1)
    L = 2 * torch.eye(n, dtype=DOUBLE) - beside - beside.T
    L[0, 0] = L[-1, -1] = 1.0
    return L * n**2


L = path(24)
U0 = torch.cos(math.pi * (torch.arange(24, dtype=DOUBLE)[:, None] + 0.5) / 24) * 0.6 + 0.1
STIFF = {
    "Allen-Cahn": (Semilinear(-0.05 * L, lambda t, u: 5 * (u - u**3)), lambda u: -0.05 * L + torch.diag(5 - 15 * u**2)),
    "Cahn-Hilliard": (
        Semilinear(-0.02 * L @ L / 50, lambda t, u: L @ (u - u**3) / 50),
        lambda u: -0.02 * L @ L / 50 + L @ torch.diag(1 - 3 * u**2) / 50,
    ),
}


@pytest.mark.parametrize(("f", "jacobian"), STIFF.values(), ids=STIFF.keys())
def test_stiff_splits_are_radaus(f, jacobian):
    t = [0.0, 0.31, 1.0]
    jac = lambda s, y: jacobian(torch.from_numpy(y)).numpy()  # noqa: E731
    reference = exact(f, U0, t, method="Radau", rtol=1e-11, atol=1e-12, jac=jac)
    for tol in (1e-4, 1e-6):
        solution = integrate(f, U0, t, ARK324(rtol=tol, atol=tol * 1e-2))
        assert error(solution, reference) <= 10 * tol
        assert solution.stats.accepted <= 4000


def test_mass_is_kept_to_round_off():
    f, _ = STIFF["Cahn-Hilliard"]
    solution = integrate(f, U0, [0.0, 0.5], ARK324(rtol=1e-5, atol=1e-7))
    # 16 u a step and stage on the sum of magnitudes; dense solves add their condition, which is ‖shG‖ < 100.
    bound = 16 * 4 * solution.stats.accepted * torch.finfo(DOUBLE).eps * float(U0.abs().sum()) * 100
    assert abs(float(solution.final.sum() - U0.sum())) <= bound


# -- gradients and precision


@pytest.mark.parametrize("gradient", [Direct(), Checkpointed(), Checkpointed(snapshots=2)], ids=["direct", "roots", "binomial"])
@pytest.mark.parametrize("settings", [{"dt": 0.26}, {"rtol": 1e-3, "atol": 1e-4, "first_step": 0.125}], ids=["fixed", "adaptive"])
def test_gradients_in_start_parameters_and_times(gradient, settings):
    fixed = "dt" in settings

    def final(x0, G, k, t):
        f = Semilinear(G, lambda s, x: k * x * (1 - x) + torch.sin(s))
        return integrate(f, x0, t, ARK324(**settings, gradient=gradient)).x[1:]

    inputs = [X0, 0.2 * G, torch.tensor(0.7, dtype=DOUBLE), torch.tensor([0.0, 0.4, 1.0], dtype=DOUBLE)]
    inputs = [part.clone().requires_grad_(fixed or part.ndim != 1) for part in inputs]
    assert gradcheck(final, inputs, atol=1e-6, rtol=1e-5, fast_mode=True)
    assert gradgradcheck(final, inputs, atol=1e-5, rtol=1e-4, fast_mode=True)


def test_gradients_in_the_times_of_an_adaptive_solve():
    """dx/dt₁ is f there, to the tolerance."""
    f, x0 = PROBLEMS["real"]
    t = torch.tensor([0.0, 0.3, 1.0], dtype=DOUBLE, requires_grad=True)
    x = integrate(f, x0, t, ARK324(rtol=1e-6, atol=1e-8)).x
    (grad,) = torch.autograd.grad(x[1].sum(), t)
    assert float(grad[1]) == pytest.approx(float(f(t[1].detach(), x[1].detach()).sum()), rel=1e-4)


@pytest.mark.parametrize("dtype", [torch.float32, torch.complex64])
def test_single_precision_differs_from_double_by_round_off_only(dtype):
    double = torch.complex128 if dtype.is_complex else DOUBLE
    results = []
    for kind in (dtype, double):
        f = Semilinear(G.to(kind), lambda t, x: x * (1 - x))
        results.append(integrate(f, X0.to(kind), [0.0, 1.0], ARK324(dt=0.05)).final)
    assert results[0].dtype == dtype
    assert float((results[0].to(double) - results[1]).abs().max()) <= 200 * torch.finfo(dtype).eps


@pytest.mark.parametrize(("wrong", "text"), [({"dt": 0.0}, "dt must be positive"), ({"rtol": -1.0}, "rtol must be positive")])
def test_bad_settings_are_refused(wrong, text):
    with pytest.raises(ValueError, match=text):
        ARK324(**wrong)
