"""The initial-value problems of the literature: DETEST classes A to E, and stiff ones, each with a reference solution.

A state is (n, 1), one component a row, so that the default error norm sees each by itself; f(t, x) is written in torch and can be
differentiated. `problem.reference` is the solution at the end of the interval, in closed form where there is one; otherwise it
is SciPy's, at a tolerance that leaves it good to about 1e-11, or a published one.
"""

import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import torch
from scipy.integrate import solve_ivp
from scipy.linalg import expm
from scipy.optimize import brentq
from scipy.special import ellipj, jv, jvp
from torch import Tensor

DOUBLE = torch.float64


def column(*values: float) -> Tensor:
    return torch.tensor(values, dtype=DOUBLE)[:, None]


@dataclass(frozen=True, eq=False)
class Problem:
    """dx/dt = f(t, x) from x0 on the interval (a, b).

    Args:
        exact: the solution at b, if it is known; SciPy finds it otherwise, by `method`.
        jumps: where f is discontinuous in t.
        floor: atol/rtol, the size below which a component does not matter.
        growth: how many times larger a small error made on the way may be at the end, max over s and i of
            Σ_j |∂x_i(b)/∂x_j(s)| (floor + |x_j(s)|) / (floor + |x_i(b)|); no method can be expected to undo it.
    """

    name: str
    f: Callable[[Any, Any], Any]
    x0: Tensor
    interval: tuple[float, float]
    exact: Callable[[], Any] | None = None
    method: str = "DOP853"
    jumps: tuple[float, ...] = ()
    floor: float = 1.0
    growth: float = 1.0

    def __repr__(self) -> str:
        return self.name

    @cached_property
    def reference(self) -> Tensor:
        """x at the end of the interval, of the shape of x0."""
        x = self.by_scipy() if self.exact is None else self.exact()
        return torch.as_tensor(np.asarray(x), dtype=DOUBLE).reshape(self.x0.shape)

    def _flat(self, t: float, y: Tensor) -> Tensor:
        return self.f(torch.tensor(t, dtype=DOUBLE), y.reshape(self.x0.shape)).ravel()

    def by_scipy(self, rtol: float = 1e-12, atol: float = 1e-14) -> Any:
        """x at the end by SciPy, from jump to jump."""
        x = self.x0.ravel().numpy()
        ends = [self.interval[0], *self.jumps, self.interval[1]]
        for k, (a, b) in enumerate(itertools.pairwise(ends)):
            lo = a if k == 0 else math.nextafter(a, b)
            hi = b if k == len(ends) - 2 else math.nextafter(b, a)

            def f(t: float, y: Any) -> Any:
                return self._flat(t, torch.from_numpy(y.copy())).numpy()

            def slope(t: float, y: Any) -> Any:
                return torch.func.jacfwd(lambda z: self._flat(t, z))(torch.from_numpy(y.copy())).numpy()

            options = {} if self.method == "DOP853" else {"jac": slope}
            x = solve_ivp(f, (lo, hi), x, method=self.method, rtol=rtol, atol=atol, **options).y[:, -1]
        return x

    def error(self, x: Tensor, tolerance: float) -> float:
        """The largest |x − reference| over all components, in units of tolerance·(floor + |reference|)."""
        return float(((x - self.reference).abs() / (tolerance * (self.floor + self.reference.abs()))).max())


# -- DETEST (Hull, Enright, Fellen and Sedgwick 1972, SIAM J. Numer. Anal. 9), all from 0 to 20


def detest(name: str, f: Callable[[Any, Any], Any], *x0: float, exact: Callable[[], Any] | None = None) -> Problem:
    return Problem(name, f, column(*x0), (0.0, 20.0), exact)


def linear(name: str, matrix: Tensor) -> Problem:
    """dx/dt = A x from the first unit vector."""
    x0 = torch.eye(len(matrix), dtype=DOUBLE)[:, :1]
    return Problem(name, lambda t, x: matrix @ x, x0, (0.0, 20.0), lambda: expm(20 * matrix.numpy()) @ x0.numpy())


def chain(rates: list[float]) -> Tensor:
    """Radioactive decay from each component into the next."""
    return torch.diag(torch.tensor([*(-r for r in rates), 0.0], dtype=DOUBLE)) + torch.diag(torch.tensor(rates, dtype=DOUBLE), -1)


def second_difference(n: int) -> Tensor:
    ones = torch.ones(n - 1, dtype=DOUBLE)
    return -2 * torch.eye(n, dtype=DOUBLE) + torch.diag(ones, 1) + torch.diag(ones, -1)


def spiral() -> float:
    """(y + t) dy = (y − t) dt keeps ln r + φ, in the polar coordinates t = r cos φ, y = r sin φ."""
    kept = math.log(4) + math.pi / 2
    return float(brentq(lambda y: math.log(math.hypot(y, 20)) + math.atan2(y, 20) - kept, -20, 20, xtol=1e-15, rtol=1e-15))


def torus(t: Any, x: Tensor) -> Tensor:
    r = torch.hypot(x[0], x[1])
    return torch.stack((-x[1] - x[0] * x[2] / r, x[0] - x[1] * x[2] / r, x[0] / r))


def rigid_body() -> Any:
    sn, cn, dn, _ = ellipj(20.0, 0.51)
    return np.array([sn, cn, dn])


# Zonneveld's data of the five outer planets; time in units of 100 days.
GRAVITY, SUN = 2.95912208286, 1.00000597682
MASSES = torch.tensor(
    [0.000954786104043, 0.000285583733151, 0.0000437273164546, 0.0000517759138449, 0.00000277777777778], dtype=DOUBLE
)
PLACES = [
    3.42947415189, 3.35386959711, 1.35494901715,
    6.64145542550, 5.97156957878, 2.18231499728,
    11.2630437207, 14.6952576794, 6.27960525067,
    -30.1552268759, 1.65699966404, 1.43785752721,
    -21.1238353380, 28.4465098142, 15.3882659679,
]  # fmt: skip
SPEEDS = [
    -0.557160570446, 0.505696783289, 0.230578543901,
    -0.415570776342, 0.365682722812, 0.169143213293,
    -0.325325669158, 0.189706021964, 0.0877265322780,
    -0.0240476254170, -0.287659532608, -0.117219543175,
    -0.176860753121, -0.216393453025, -0.0148647893090,
]  # fmt: skip


def planets(t: Any, x: Tensor) -> Tensor:
    place, speed = x[:15].reshape(5, 3), x[15:]
    between = place[None] - place[:, None]
    distance = between.norm(dim=-1) + torch.eye(5, dtype=DOUBLE)
    pull = place / place.norm(dim=-1, keepdim=True) ** 3
    others = torch.einsum("k,jki->ji", MASSES, between / distance[..., None] ** 3) - (MASSES @ pull - MASSES[:, None] * pull)
    return torch.cat((speed, (GRAVITY * (others - (SUN + MASSES)[:, None] * pull)).reshape(15, 1)))


def orbit(t: Any, x: Tensor) -> Tensor:
    return torch.cat((x[2:], -x[:2] / x[:2].norm() ** 3))


def kepler(e: float) -> Any:
    """The position and velocity after the time 20, from Kepler's equation."""
    u = brentq(lambda u: u - e * math.sin(u) - 20.0, 18.0, 22.0, xtol=1e-15, rtol=1e-15)
    b, speed = math.sqrt(1 - e * e), 1 / (1 - e * math.cos(u))
    return np.array([math.cos(u) - e, b * math.sin(u), -math.sin(u) * speed, b * math.cos(u) * speed])


def bessel(t: Any, x: Tensor) -> Tensor:
    s = t + 1
    return torch.stack((x[1], -(x[1] / s + (1 - 0.25 / s**2) * x[0])))


def falling() -> Any:
    """v' = 0.032 − 0.4 v² from rest at 30."""
    w = math.sqrt(0.032 * 0.4)
    return np.array([30 + math.log(math.cosh(20 * w)) / 0.4, w / 0.4 * math.tanh(20 * w)])


def pursuit() -> Any:
    """p' = √(1 + p²)/(25 − t): asinh p = ln(25/(25 − t)), and y is its integral."""
    p = lambda s: 0.5 * (25 / s - s / 25)  # noqa: E731
    y = 0.5 * (25 * math.log(25 / 5) - (25**2 - 5**2) / 50)
    return np.array([y, p(5.0)])


DETEST = [
    detest("A1", lambda t, x: -x, 1.0, exact=lambda: math.exp(-20)),
    detest("A2", lambda t, x: -(x**3) / 2, 1.0, exact=lambda: 1 / math.sqrt(21)),
    detest("A3", lambda t, x: x * torch.cos(t), 1.0, exact=lambda: math.exp(math.sin(20))),
    detest("A4", lambda t, x: x / 4 * (1 - x / 20), 1.0, exact=lambda: 20 / (1 + 19 * math.exp(-5))),
    detest("A5", lambda t, x: (x - t) / (x + t), 4.0, exact=spiral),
    detest("B1", lambda t, x: torch.stack((2 * (x[0] - x[0] * x[1]), x[0] * x[1] - x[1])), 1.0, 3.0),
    detest("B2", lambda t, x: torch.stack((x[1] - x[0], x[0] - 2 * x[1] + x[2], x[1] - x[2])), 2.0, 0.0, 1.0,
           exact=lambda: 1 + np.array([math.exp(-20) / 2, 0, -math.exp(-20) / 2])),
    detest("B3", lambda t, x: torch.stack((-x[0], x[0] - x[1] ** 2, x[1] ** 2)), 1.0, 0.0, 0.0),
    detest("B4", torus, 3.0, 0.0, 0.0),
    detest("B5", lambda t, x: torch.stack((x[1] * x[2], -x[0] * x[2], -0.51 * x[0] * x[1])), 0.0, 1.0, 1.0, exact=rigid_body),
    linear("C1", chain([1.0] * 9)),
    linear("C2", chain([float(i) for i in range(1, 10)])),
    linear("C3", second_difference(10)),
    linear("C4", second_difference(51)),
    detest("C5", planets, *PLACES, *SPEEDS),
    *(
        detest(f"D{k}", orbit, 1 - e, 0.0, 0.0, math.sqrt((1 + e) / (1 - e)), exact=lambda e=e: kepler(e))
        for k, e in enumerate([0.1, 0.3, 0.5, 0.7, 0.9], start=1)
    ),
    detest("E1", bessel, float(jv(0.5, 1.0)), float(jvp(0.5, 1.0)), exact=lambda: np.array([jv(0.5, 21.0), jvp(0.5, 21.0)])),
    detest("E2", lambda t, x: torch.stack((x[1], (1 - x[0] ** 2) * x[1] - x[0])), 2.0, 0.0),
    detest("E3", lambda t, x: torch.stack((x[1], x[0] ** 3 / 6 - x[0] + 2 * torch.sin(2.78535 * t))), 0.0, 0.0),
    detest("E4", lambda t, x: torch.stack((x[1], 0.032 - 0.4 * x[1] ** 2)), 30.0, 0.0, exact=falling),
    detest("E5", lambda t, x: torch.stack((x[1], (1 + x[1] ** 2).sqrt() / (25 - t))), 0.0, 0.0, exact=pursuit),
]  # fmt: skip

# max over s of the weighed ‖∂x(20)/∂x(s)‖, rounded up, by the adjoint equation dP/ds = −P ∂f/∂x solved backwards from P = I.
GROWTH = {
    "A3": 2.7, "A5": 17, "B1": 26, "B3": 2.1, "B4": 16, "B5": 42, "C1": 5.6, "C2": 5.6, "C5": 33, "D1": 249, "D2": 408, "D3": 508,
    "D4": 605, "D5": 3400, "E1": 1.4, "E2": 8.8, "E3": 13, "E4": 1.2, "E5": 1.9,
}  # fmt: skip
DETEST = [replace(problem, growth=GROWTH.get(problem.name, 1.0)) for problem in DETEST]


# -- Stiff problems (Hairer and Wanner II, IV.10; Mazzia and Magherini 2008, Test Set for IVP Solvers)


def robertson(t: Any, x: Tensor) -> Tensor:
    slow, fast, middle = 0.04 * x[0], 3e7 * x[1] ** 2, 1e4 * x[1] * x[2]
    return torch.stack((middle - slow, slow - middle - fast, fast))


HIRES_RATES = torch.tensor(
    [
        [-1.71, 0.43, 8.32, 0, 0, 0, 0, 0],
        [1.71, -8.75, 0, 0, 0, 0, 0, 0],
        [0, 0, -10.03, 0.43, 0.035, 0, 0, 0],
        [0, 8.32, 1.71, -1.12, 0, 0, 0, 0],
        [0, 0, 0, 0, -1.745, 0.43, 0.43, 0],
        [0, 0, 0, 0.69, 1.71, -0.43, 0.69, 0],
        [0, 0, 0, 0, 0, 0, -1.81, 0],
        [0, 0, 0, 0, 0, 0, 1.81, 0],
    ],
    dtype=DOUBLE,
)
HIRES_SOURCE = column(0.0007, *[0.0] * 7)
HIRES_BINDING = column(0, 0, 0, 0, 0, -280, 280, -280)


def hires(t: Any, x: Tensor) -> Tensor:
    return HIRES_RATES @ x + HIRES_SOURCE + HIRES_BINDING * (x[5] * x[7])


class Split:
    """f(t, x) = G x + N(t, x) with G dense, one matrix a column of x."""

    def __init__(self, matrices: Tensor, rest: Callable[[Any, Tensor], Tensor]) -> None:
        self.matrices, self.rest = matrices, rest

    def __call__(self, t: Any, x: Tensor) -> Tensor:
        return self @ x + self.rest(t, x)

    @property
    def linear(self) -> "Split":
        return self

    def nonlinear(self, t: Any, x: Tensor) -> Tensor:
        return self.rest(t, x)

    def __matmul__(self, x: Tensor) -> Tensor:
        return torch.einsum("kij,jk->ik", self.matrices.to(x.dtype), x)

    def norm_bound(self) -> float:
        return float(torch.linalg.matrix_norm(self.matrices, ord=2).max())

    def solve(self, shift: Tensor, b: Tensor) -> Tensor:
        kind = torch.promote_types(shift.dtype, b.dtype)
        shifted = torch.eye(len(b), dtype=kind) - shift * self.matrices.to(kind)
        return torch.linalg.solve(shifted, b.to(kind).T[..., None])[..., 0].T


def medical_akzo(n: int = 200) -> Problem:
    """Antibodies that enter a tumour: u_t = φ(t) at the edge, moving in, and bound at the rate k u v; state (n, 2).

    Discretised on ζ = j/n with x = c ζ/(1 − ζ); φ falls from 2 to 0 at t = 5.
    """
    z = torch.arange(1, n + 1, dtype=DOUBLE) / n
    drift, spread, step = 2 * (z - 1) ** 3 / 16, (z - 1) ** 4 / 16, 1 / n
    below = spread / step**2 - drift / (2 * step)
    above = spread / step**2 + drift / (2 * step)
    moves = torch.diag(-2 * spread / step**2) + torch.diag(below[1:], -1) + torch.diag(above[:-1], 1)
    moves[-1, -1] += float(above[-1])
    edge = torch.zeros(n, dtype=DOUBLE)
    edge[0] = below[0]

    def rest(t: Any, x: Tensor) -> Tensor:
        bound = 100 * x[:, 0] * x[:, 1]
        inflow = torch.where(torch.as_tensor(t) <= 5.0, 2.0, 0.0).to(DOUBLE)
        return torch.stack((inflow * edge - bound, -bound), dim=1)

    x0 = torch.stack((torch.zeros(n, dtype=DOUBLE), torch.ones(n, dtype=DOUBLE)), dim=1)
    f = Split(torch.stack((moves, torch.zeros_like(moves))), rest)
    return Problem(f"Medical Akzo ({n})", f, x0, (0.0, 20.0), jumps=(5.0,))


def brusselator(n: int = 40) -> Problem:
    """u_t = 1 + u²v − 4u + α u_xx, v_t = 3u − u²v + α v_xx with α = 1/50, u = 1 and v = 3 at both ends; state (n, 2)."""
    alpha, x = (n + 1) ** 2 / 50, torch.arange(1, n + 1, dtype=DOUBLE) / (n + 1)
    ends = torch.zeros(n, 2, dtype=DOUBLE)
    ends[0] = ends[-1] = alpha * torch.tensor([1.0, 3.0], dtype=DOUBLE)

    def rest(t: Any, y: Tensor) -> Tensor:
        u, v = y[:, 0], y[:, 1]
        return ends + torch.stack((1 + u * u * v - 4 * u, 3 * u - u * u * v), dim=1)

    x0 = torch.stack((1 + torch.sin(2 * math.pi * x), torch.full_like(x, 3.0)), dim=1)
    diffusion = alpha * second_difference(n)
    return Problem(f"Brusselator ({n})", Split(torch.stack((diffusion, diffusion)), rest), x0, (0.0, 10.0))


ROBERTSON = Problem("Robertson", robertson, column(1.0, 0.0, 0.0), (0.0, 40.0), method="Radau", floor=1e-6)
ROBERTSON_LONG = Problem(
    "Robertson, long", robertson, column(1.0, 0.0, 0.0), (0.0, 1e11), floor=1e-6,
    exact=lambda: [0.2083340149701255e-7, 0.8333360770334713e-13, 0.9999999791665050],
)  # fmt: skip
HIRES = Problem(
    "HIRES", hires, column(1, 0, 0, 0, 0, 0, 0, 0.0057), (0.0, 321.8122), floor=1e-2,
    exact=lambda: [0.7371312573325668e-3, 0.1442485726316185e-3, 0.5888729740967575e-4, 0.1175651343283149e-2,
                   0.2386356198831331e-2, 0.6238968252742796e-2, 0.2849998395185769e-2, 0.2850001604814231e-2],
)  # fmt: skip
VAN_DER_POL = Problem(
    "van der Pol", lambda t, x: torch.stack((x[1], 1e3 * (1 - x[0] ** 2) * x[1] - x[0])), column(2.0, 0.0), (0.0, 2000.0),
    exact=lambda: [1.706167732170483, -0.8928097010247975e-3], floor=1e-2,
)  # fmt: skip
SMALL = [ROBERTSON, ROBERTSON_LONG, HIRES, VAN_DER_POL]
DISCRETISED = [medical_akzo(20), brusselator(20)]
