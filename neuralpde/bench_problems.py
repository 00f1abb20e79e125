"""The problems of `neuralpde bench integrators`: a right-hand side, a start, a horizon and an independent reference."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
import scipy.sparse as sp
import scipy.sparse.linalg
import torch
from torch import Tensor

from integrators import ETDRK4, Integrator, SolverWarning, State, Tsit5, integrate
from integrators.state import parts_of
from neuralpde.averaging import Averaging
from neuralpde.heat import Heat
from neuralpde.phase_field import AllenCahn, CahnHilliard
from neuralpde.rhs import RightHandSide
from neuralpde.waves import Wave
from operators import Laplacian, PointCloud, ScaledDotProduct, cotangent_laplacian, random_walk_laplacian, torus


@dataclass
class Problem:
    """dx/dt = f(t, x) from x0 to `horizon`.

    Attributes:
        make: makes f anew, with nothing remembered.
        stiffness: the spectral radius of ∂f/∂x times the horizon.
        solve: the reference at the horizon.
        energy: what the exact flow conserves; None if nothing is asked.
    """

    make: Callable[[], RightHandSide]
    x0: State
    horizon: float
    stiffness: float
    solve: Callable[[], State]
    energy: Callable[[State], float] | None = None
    known: list[State] = field(default_factory=list)

    def fresh(self) -> RightHandSide:
        """f, without the factors and bounds that a former solve left in it."""
        return self.make()

    def reference(self) -> State:
        """The reference, computed once."""
        if not self.known:
            self.known.append(self.solve())
        return self.known[0]

    def drift(self, method: Integrator) -> float:
        """The largest relative change of the energy over ten output times."""
        if self.energy is None:
            return math.nan
        t = torch.linspace(0, self.horizon, 11, dtype=torch.float64)
        with torch.no_grad():
            x = integrate(self.fresh(), self.x0, t, method).x
        states = [tuple(part[k] for part in x) if isinstance(x, tuple) else x[k] for k in range(len(t))]
        energies = [self.energy(state) for state in states]
        return max(abs(value / energies[0] - 1) for value in energies)


def _start(laplacian: Laplacian, channels: int) -> Tensor:
    """A field with every frequency in it, and most of it in the low ones."""
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(laplacian.shape[0], channels, generator=generator, dtype=torch.float64)
    with torch.no_grad():
        smooth = laplacian.solve(1e-2, noise)
    return smooth / smooth.abs().max() + 0.05 * noise / noise.abs().max()


def _smooth(laplacian: Laplacian, channels: int, width: float) -> Tensor:
    """A random field between −½ and ½, as smooth as interfaces of this width."""
    field = torch.randn(laplacian.shape[0], channels, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    with torch.no_grad():
        for _ in range(3):
            field = laplacian.solve(width**2, field)
    return 0.5 * field / field.abs().max()


def _surface(around: int, across: int) -> Laplacian:
    return cotangent_laplacian(torus(around, across))


def heat(around: int, across: int, channels: int) -> Problem:
    """Heat on a torus to λT = 4.4·10⁴; the reference is a sum over the slowest modes, all that is left then, by SciPy."""
    laplacian = _surface(around, across)
    largest = laplacian.largest_eigenvalue()
    x0, horizon = _start(laplacian, channels), 4.4e4 / largest

    def solve() -> Tensor:
        mass = laplacian.mass.detach().numpy()
        stiffness = sp.csc_array(laplacian.stiffness.to_scipy())
        if len(mass) <= 1500:
            root = mass**0.5
            values, modes = np.linalg.eigh((stiffness / root[:, None] / root).toarray())
            modes = modes / root[:, None]
        else:
            values, modes = scipy.sparse.linalg.eigsh(stiffness, k=150, M=sp.diags_array(mass, format="csc"), sigma=-0.1, v0=mass)
            if values.max() * horizon < 40:
                raise ValueError("150 modes do not make a reference to 1e-17 here: take a finer mesh, or a longer horizon")
        end = modes @ (np.exp(-values * horizon)[:, None] * (modes.T @ (mass[:, None] * x0.numpy())))
        return torch.from_numpy(end)

    return Problem(lambda: Heat(_surface(around, across)), x0, horizon, 4.4e4, solve)


def wave(around: int, across: int, channels: int) -> Problem:
    """Waves on a torus to T = 10; the reference is SciPy's expm_multiply on the first-order system."""
    laplacian = _surface(around, across)
    largest = laplacian.largest_eigenvalue()
    with torch.no_grad():
        u = laplacian.solve(1e-2, _start(laplacian, 1))
    x0 = (u, torch.zeros_like(u))

    def energy(x: State) -> float:
        u, v = parts_of(x)
        return float(laplacian.inner(v, v) + laplacian.inner(u, laplacian @ u))

    def solve() -> State:
        root = laplacian.mass.detach().numpy() ** 0.5
        matrix = sp.csr_array(sp.diags_array(1 / root) @ laplacian.stiffness.to_scipy() @ sp.diags_array(1 / root))
        n = matrix.shape[0]
        top = math.sqrt(largest)  # Velocities are counted in this unit, or the block matrix would be far from normal.
        none = sp.csr_array((n, n))
        block: Any = sp.vstack([sp.hstack([none, top * sp.eye_array(n)]), sp.hstack([-matrix / top, none])], format="csr")
        start = np.concatenate([root * u.numpy()[:, 0], np.zeros(n)])
        end = scipy.sparse.linalg.expm_multiply(10.0 * block, start, traceA=0.0)
        return torch.from_numpy(end[:n] / root)[:, None], torch.from_numpy(top * end[n:] / root)[:, None]

    return Problem(lambda: Wave(_surface(around, across)), x0, 10.0, 10.0 * math.sqrt(largest), solve, energy)


def allen_cahn(around: int, across: int, channels: int) -> Problem:
    """Allen–Cahn with interfaces of eight edge lengths to T = 50; the reference is explicit, by `Tsit5`."""
    laplacian = _surface(around, across)
    width, horizon = 8 * _edge(laplacian), 50.0
    make = partial(_allen_cahn, around, across, width)
    x0 = _smooth(laplacian, min(channels, 4), width)
    stiffness = horizon * (width**2 * laplacian.largest_eigenvalue() + 2)
    reference = Tsit5(rtol=1e-8, atol=1e-10, max_nfe=10**7)
    return Problem(make, x0, horizon, stiffness, lambda: _solved(make, x0, horizon, reference))


def cahn_hilliard(around: int, across: int, channels: int) -> Problem:
    """Cahn–Hilliard with interfaces of four edge lengths, from a field as smooth as they are; the reference is `ETDRK4` with 500
    steps, which the tests hold against an explicit method on a small surface."""
    laplacian = _surface(around, across)
    width = 4 * _edge(laplacian)
    make = partial(_cahn_hilliard, around, across, width)
    x0 = _smooth(laplacian, 1, width)
    horizon = 4.0 * width**2
    stiffness = horizon * (width * laplacian.largest_eigenvalue()) ** 2
    return Problem(make, x0, horizon, stiffness, lambda: _solved(make, x0, horizon, ETDRK4(dt=horizon / 500, tol=1e-10)))


def _solved(make: Callable[[], RightHandSide], x0: Tensor, horizon: float, solver: Integrator) -> Tensor:
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore", SolverWarning)
        final = integrate(make(), x0, [0.0, horizon], solver).final
    return parts_of(final)[0]


def _allen_cahn(around: int, across: int, width: float) -> RightHandSide:
    return AllenCahn(_surface(around, across), width)


def _cahn_hilliard(around: int, across: int, width: float) -> RightHandSide:
    return CahnHilliard(_surface(around, across), width)


def _edge(laplacian: Laplacian) -> float:
    """A typical edge length, from the area of a vertex."""
    return math.sqrt(float(laplacian.mass.mean()))


def grand(around: int, across: int, channels: int) -> Problem:
    """Diffusion by frozen attention on a graph of nearest neighbours, T = 20 (GRAND-l); the reference is expm_multiply."""
    generator = torch.Generator().manual_seed(0)
    n = around * across
    points = torch.rand(n, 3, generator=generator, dtype=torch.float64)
    laplacian = random_walk_laplacian(PointCloud(points).knn_graph(12))
    x0 = torch.randn(n, 4 * channels, generator=generator, dtype=torch.float64)
    torch.manual_seed(0)
    diffusivity = ScaledDotProduct(laplacian, 4 * channels)
    torch.nn.init.normal_(diffusivity.query.weight, std=0.1)
    with torch.no_grad():
        average = diffusivity(x0)
    horizon = 20.0

    def solve() -> Tensor:
        matrix = average.to_scipy() - sp.eye_array(n)
        return torch.from_numpy(scipy.sparse.linalg.expm_multiply(sp.csr_array(horizon * matrix), x0.numpy()))

    return Problem(lambda: Averaging(average), x0, horizon, 2 * horizon, solve)
