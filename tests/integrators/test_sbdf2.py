"""SBDF2: order 2 for every step pattern, its characteristic roots, one factor, and what it conserves and dissipates."""

import math
from fractions import Fraction

import numpy as np
import pytest
import torch
from scipy.integrate import solve_ivp
from torch.autograd import gradcheck, gradgradcheck

from integrators.ark324 import ARK324
from integrators.checkpointed import Checkpointed
from integrators.gradients import Direct
from integrators.integrate import integrate
from integrators.sbdf2 import SBDF2

DOUBLE = torch.float64


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


G = torch.tensor([[-1.0, 0.5, 0.0], [0.5, -3.0, 1.0], [0.2, 1.0, -8.0]], dtype=DOUBLE)
X0 = torch.tensor([[0.3], [0.5], [0.8]], dtype=DOUBLE)
PROBLEMS = {
    "real": (Semilinear(G, lambda t, x: x * (1 - x)), X0),
    "non-autonomous": (Semilinear(G, lambda t, x: torch.cos(3 * t) * x + torch.sin(2 * t)), X0),
    "complex": (Semilinear((1 + 0.5j) * G, lambda t, x: 1j * x * x.abs() ** 2 + torch.sin(t)), torch.complex(X0, 1 - X0)),
    "linear": (Semilinear(G), X0),
    "tuple": (Oscillator(), (X0, 1 - X0)),
}
problems = pytest.mark.parametrize(("f", "x0"), PROBLEMS.values(), ids=PROBLEMS.keys())
EVEN, UNEVEN, BACK = [0.0, 1.0], [0.0, 0.37, 0.4, 1.0], [1.0, 0.55, 0.0]


def flat(x):
    parts = x if isinstance(x, tuple) else (x,)
    return np.concatenate([np.atleast_1d(part.numpy().reshape(-1)) for part in parts])


def exact(f, x0, t):
    """Every output by DOP853 at 1e-13."""

    def slope(s, y):
        pieces, parts, start = (x0 if isinstance(x0, tuple) else (x0,)), [], 0
        for piece in pieces:
            parts.append(torch.from_numpy(y[start : start + piece.numel()].copy()).reshape(piece.shape))
            start += piece.numel()
        return flat(f(torch.tensor(s, dtype=DOUBLE), tuple(parts) if isinstance(x0, tuple) else parts[0]))

    return solve_ivp(slope, (t[0], t[-1]), flat(x0), "DOP853", t_eval=t, rtol=3e-14, atol=1e-14).y.T


def error(solution, reference):
    parts = solution.x if isinstance(solution.x, tuple) else (solution.x,)
    got = np.concatenate([part.numpy().reshape(len(solution.t), -1) for part in parts], axis=1)
    return float(np.abs(got - reference).max())


@problems
@pytest.mark.parametrize("t", [EVEN, UNEVEN], ids=["even", "uneven"])
def test_order(f, x0, t, observed_order):
    reference = exact(f, x0, t)
    errors = [error(integrate(f, x0, t, SBDF2(dt=1 / 2**k)), reference) for k in (7, 8, 9)]
    assert 1.9 <= observed_order(errors) <= 2.2


def test_order_in_reverse_time(observed_order):
    f, x0 = PROBLEMS["tuple"]
    reference = exact(f, x0, BACK)
    errors = [error(integrate(f, x0, BACK, SBDF2(dt=1 / 2**k)), reference) for k in (6, 7, 8)]
    assert 1.9 <= observed_order(errors) <= 2.2


def test_the_first_step_has_order_two_alone(observed_order):
    f, x0 = PROBLEMS["non-autonomous"]
    errors = []
    for h in (0.008, 0.004, 0.002):
        errors.append(error(integrate(f, x0, [0.0, h], SBDF2(dt=h)), exact(f, x0, [0.0, h])))
    assert 2.9 <= observed_order(errors) <= 3.3  # Of the local error.


def test_exact_conditions_of_the_first_step():
    """Order 2 of both tableaux and of their coupling, in rationals."""
    gamma = Fraction(2, 3)
    A = [[0, 0, 0, 0], [0, gamma, 0, 0], [0, -gamma, gamma, 0], [0, Fraction(-1, 4), Fraction(7, 12), gamma]]
    E = [[0, 0, 0, 0], [gamma, 0, 0, 0], [0, 0, 0, 0], [0, Fraction(3, 4), Fraction(1, 4), 0]]
    c = [sum(row) for row in A]
    assert c == [sum(row) for row in E] == [0, gamma, 0, 1]
    for b in (A[3], E[3]):
        assert sum(b) == 1
        assert sum(w * s for w, s in zip(b, c, strict=True)) == Fraction(1, 2)


@pytest.mark.parametrize("ratio", [Fraction(1), Fraction(1, 3), Fraction(7, 4), Fraction(2)])
def test_exact_conditions_of_every_step_ratio(ratio):
    """The step is exact for quadratics x(t) with any split of x' into G x and N, in rationals (h = 1, t' = 0)."""
    gamma = (1 + ratio) / (1 + 2 * ratio)
    past = gamma * ratio**2 / (1 + ratio)
    for power in range(3):
        x = lambda t, p=power: t**p  # noqa: E731
        slope = lambda t, p=power: p * t ** max(p - 1, 0)  # noqa: E731
        before = -1 / ratio
        # All of the slope implicit, then all of it explicit.
        assert x(Fraction(1)) == (1 + past) * x(Fraction(0)) - past * x(before) + gamma * slope(Fraction(1))
        explicit = (1 + ratio) * slope(Fraction(0)) - ratio * slope(before)
        assert x(Fraction(1)) == (1 + past) * x(Fraction(0)) - past * x(before) + gamma * explicit


@pytest.mark.parametrize("mu", [-1e-3, -1.0, -50.0, -1e8, -1 + 5j])
@pytest.mark.parametrize("nu", [0.0, 0.3j, -0.4, 0.2 + 0.1j])
def test_two_steps_of_the_test_equation(mu, nu):
    """x' = μx + νx: the starting step and the recurrence, against their closed forms."""
    z = torch.ones(1, 1, dtype=torch.complex128)
    f = Semilinear(torch.full((1, 1), mu, dtype=torch.complex128), lambda t, x: nu * x)
    one, two, three = (complex(x) for x in integrate(f, z, [0.0, 1.0, 2.0, 3.0], SBDF2(dt=1.0)).x[1:])
    s = 1 / (1 - 2 * mu / 3)
    first = s * (1 + 2 * nu / 3)
    second = s * (1 - 2 * mu / 3 * first)
    assert abs(one - s * (1 - mu / 4 * first + 7 / 12 * mu * second + nu / 4 * second + 3 / 4 * nu * first)) <= 1e-12
    for x, seen, y, new in ((1, second, one, two), (one, one, two, three)):
        assert abs(new - s * ((4 * y - x) / 3 + 2 / 3 * nu * (2 * y - seen))) <= 1e-12


def test_the_first_step_is_l_stable_in_the_linear_part():
    """R(z) = (1 − z − z²/6)/(1 − 2z/3)³ is at most 1 in the left half plane, and 0 at infinity."""
    for z in [*(-(10.0**k) for k in range(-3, 9)), *(1j * 10.0**k for k in np.linspace(-2, 4, 25))]:
        f = Semilinear(torch.full((1, 1), z, dtype=torch.complex128))
        R = complex(integrate(f, torch.ones(1, 1, dtype=torch.complex128), [0.0, 1.0], SBDF2(dt=1.0)).final)
        assert abs(R - (1 - z - z**2 / 6) / (1 - 2 * z / 3) ** 3) <= 1e-10
        assert abs(R) <= 1 + 1e-12


@pytest.mark.parametrize("stiffness", [1e2, 1e5, 1e8])
def test_a_stiff_linear_part_costs_no_stability(stiffness):
    f = Semilinear(torch.diag(-stiffness * torch.tensor([1.0, 2.0, 3.0], dtype=DOUBLE)), lambda t, x: torch.sin(x))
    x = integrate(f, X0, [0.0, 5.0], SBDF2(dt=0.5)).final
    assert float(x.abs().max()) <= 10 / stiffness


def test_one_factor_and_one_evaluation_a_step():
    f = Semilinear(G, lambda t, x: -(x**3))
    stats = integrate(f, X0, [0.0, 0.5, 1.0], SBDF2(dt=1 / 16)).stats
    assert set(f.shifts) == {complex(1 / 24)}
    assert (stats.accepted, stats.factorizations, stats.solves) == (16, 1, 18)
    assert stats.nfe <= 18 + 1  # One a step, two more in the first; one more looks for gradients.


def test_without_a_nonlinear_part_nothing_is_evaluated():
    assert integrate(Semilinear(G), X0, [0.0, 1.0], SBDF2(dt=0.1)).stats.nfe <= 1


def test_a_long_step_after_a_short_one_starts_anew():
    """Outputs at 0.001 and then 1.0: no extrapolation by a factor of a hundred."""
    f = PROBLEMS["real"][0]
    t = [0.0, 0.001, 1.0]
    assert error(integrate(f, X0, t, SBDF2(dt=0.1)), exact(f, X0, t)) <= 1e-2


def test_jumps_start_anew(observed_order):
    f = Semilinear(G, lambda t, x: torch.where(t < 0.5, 1.0, -1.0) * x)
    x = torch.linalg.matrix_exp(0.5 * (G - torch.eye(3, dtype=DOUBLE))) @ (
        torch.linalg.matrix_exp(0.5 * (G + torch.eye(3, dtype=DOUBLE))) @ X0
    )
    errors = []
    for k in (5, 6, 7):
        # A step ends at the jump, and N is asked on either side of it only.
        y = integrate(f, X0, [0.0, 1.0], SBDF2(dt=1 / 2**k), jumps=[0.5]).final
        errors.append(float((y - x).abs().max()))
    assert 1.8 <= observed_order(errors) <= 2.3


@pytest.mark.parametrize("gradient", [Direct(), Checkpointed(), Checkpointed(snapshots=2)], ids=["direct", "roots", "binomial"])
def test_gradients_in_start_parameters_and_times(gradient):
    def final(x0, G, k, t):
        f = Semilinear(G, lambda s, x: k * x * (1 - x) + torch.sin(s))
        return integrate(f, x0, t, SBDF2(dt=0.17, gradient=gradient)).x[1:]

    inputs = [X0, G, torch.tensor(0.7, dtype=DOUBLE), torch.tensor([0.0, 0.4, 0.53, 1.0], dtype=DOUBLE)]
    inputs = [part.clone().requires_grad_() for part in inputs]
    assert gradcheck(final, inputs, atol=1e-6, rtol=1e-5)
    assert gradgradcheck(final, inputs, atol=1e-5, rtol=1e-4, fast_mode=True)


def test_gradients_of_complex_and_tuple_states():
    def final(z, k):
        return integrate(Semilinear((1 + 0.5j) * G, lambda s, x: k * x * x.abs() ** 2), z, [0.0, 0.5], SBDF2(dt=0.2)).final

    assert gradcheck(final, [torch.complex(X0, 1 - X0).requires_grad_(), torch.tensor(0.3, dtype=DOUBLE, requires_grad=True)])

    def pair(u, v):
        return integrate(Oscillator(), (u, v), [0.0, 0.5], SBDF2(dt=0.2)).final

    assert gradcheck(pair, [X0.clone().requires_grad_(), X0.clone().requires_grad_()])


@pytest.mark.parametrize("dtype", [torch.float32, torch.complex64])
def test_single_precision_differs_from_double_by_round_off_only(dtype):
    double = torch.complex128 if dtype.is_complex else DOUBLE
    results = []
    for kind in (dtype, double):
        f = Semilinear(G.to(kind), lambda t, x: x * (1 - x))
        results.append(integrate(f, X0.to(kind), [0.0, 1.0], SBDF2(dt=0.05)).final)
    assert results[0].dtype == dtype
    assert float((results[0].to(double) - results[1]).abs().max()) <= 200 * torch.finfo(dtype).eps


def ring(n):
    """The Laplacian of a ring over its mesh width squared, on a circle of length 2π."""
    L = 2 * torch.eye(n, dtype=DOUBLE) - torch.eye(n, dtype=DOUBLE).roll(1, 0) - torch.eye(n, dtype=DOUBLE).roll(-1, 0)
    return L * (n / (2 * math.pi)) ** 2


class CahnHilliard(Semilinear):
    """du/dt = −L(ε²Lu + u³ − u), its energy and its mass."""

    def __init__(self, n, width):
        L = ring(n)
        super().__init__(-(width**2) * L @ L, lambda t, u: L @ (u - u**3))
        self.L, self.width = L, width

    def energy(self, u):
        return 0.5 * self.width**2 * (u * (self.L @ u)).sum((-2, -1)) + 0.25 * ((1 - u**2) ** 2).sum((-2, -1))


def start(n):
    angle = torch.arange(n, dtype=DOUBLE)[:, None] * (2 * math.pi / n)
    return 0.05 + 0.3 * torch.sin(2 * angle + 0.4) + 0.1 * torch.cos(5 * angle)


def test_cahn_hilliard_is_radaus():
    f = CahnHilliard(32, 0.4)
    x0 = start(32)
    t = [0.0, 0.5, 2.0]
    y = solve_ivp(
        lambda s, u: f(None, torch.from_numpy(u)[:, None])[:, 0].numpy(), (0, 2.0), x0[:, 0].numpy(), "Radau",
        t_eval=t, rtol=1e-11, atol=1e-12, jac=lambda s, u: (f.G + f.L @ torch.diag(1 - 3 * torch.from_numpy(u) ** 2)).numpy(),
    ).y.T  # fmt: skip
    errors = [error(integrate(f, x0, t, SBDF2(dt=1 / 2**k)), y) for k in (8, 9, 10)]
    assert errors[-1] <= 1e-3
    assert 1.8 <= math.log2(errors[-2] / errors[-1]) <= 2.2


def test_rough_data_do_no_harm_beyond_the_moment_for_which_they_last():
    """Extrapolating from N at the rough start would leave errors of 9.9e-3 and 5.3e-3 here, and order 1."""
    f = CahnHilliard(64, 0.4)
    x0 = start(64) + 0.2 * torch.randn(64, 1, generator=torch.Generator().manual_seed(1), dtype=DOUBLE)
    reference = integrate(f, x0, [0.0, 0.5], ARK324(dt=0.5 / 1024)).final
    for steps, bound in ((8, 3e-3), (16, 1.4e-3)):
        x = integrate(f, x0, [0.0, 0.5], SBDF2(dt=0.5 / steps)).final
        assert float((x - reference).abs().max()) <= bound


@pytest.mark.parametrize("dt", [0.01, 0.04, 0.15])
def test_cahn_hilliards_energy_never_rises_where_the_step_is_at_most_the_width_squared(dt):
    """With ε = 0.4 all three steps are below ε² = 0.16. Nothing is promised above: N is explicit."""
    f = CahnHilliard(32, 0.4)
    t = torch.arange(0, 101, dtype=DOUBLE) * dt
    x = integrate(f, start(32), t, SBDF2(dt=dt)).x
    energy = f.energy(x)
    assert float(energy.diff().max()) <= 32 * torch.finfo(DOUBLE).eps * float(energy[0])
    assert float(energy[-1]) < 0.95 * float(energy[0])


@pytest.mark.parametrize("steps", [10, 300])
def test_mass_is_kept_to_round_off(steps):
    f = CahnHilliard(32, 0.4)
    x0 = start(32)
    x = integrate(f, x0, [0.0, steps * 0.01], SBDF2(dt=0.01)).final
    # 16 u a step on the sum of magnitudes; a dense solve with I − shG adds its condition, ‖shG‖ ≈ 11.
    bound = 16 * steps * torch.finfo(DOUBLE).eps * float(x0.abs().sum()) * 11
    assert abs(float(x.sum() - x0.sum())) <= bound


@pytest.mark.parametrize("dt", [0.0, -0.1, math.nan])
def test_bad_steps_are_refused(dt):
    with pytest.raises(ValueError, match=rf"dt must be positive, not {dt}"):
        SBDF2(dt=dt)
