"""An independent reference for shallow water on the sphere: spherical harmonics, vorticity and divergence, NumPy alone.

With U = u cos θ, V = v cos θ, μ = sin θ and Φ = g h (Bourke 1972; Williamson et al. 1992, section 2):

    ∂ζ/∂t = −D[(ζ+f) U, (ζ+f) V]                  D[X, Y] = (∂X/∂λ / (1 − μ²) + ∂Y/∂μ) / R
    ∂δ/∂t = D[(ζ+f) V, −(ζ+f) U] − Δ(Φ + g b + (U² + V²) / 2(1 − μ²))
    ∂Φ/∂t = −D[Φ U, Φ V]

Products are formed on a Gauss–Legendre grid that is free of aliasing for quadratic terms; RK4 in time.
"""

import math

import numpy as np
from scipy.special import roots_legendre

RADIUS, ROTATION, GRAVITY = 6.37122e6, 7.292e-5, 9.80616


def legendre(truncation, mu):
    """P_lm(μ) for 0 ≤ m ≤ l ≤ truncation + 1, of mean square one over the sphere; (m, l, points)."""
    T = truncation + 1
    P = np.zeros((T + 1, T + 1, len(mu)))
    diagonal = np.ones_like(mu)
    for m in range(T + 1):
        if m:
            diagonal = math.sqrt((2 * m + 1) / (2 * m)) * np.sqrt(1 - mu**2) * diagonal
        P[m, m] = diagonal
        for degree in range(m + 1, T + 1):
            P[m, degree] = mu * P[m, degree - 1]
            if degree > m + 1:
                P[m, degree] -= epsilon(degree - 1, m) * P[m, degree - 2]
            P[m, degree] /= epsilon(degree, m)
    return P


def epsilon(degree, m):
    return math.sqrt((degree**2 - m**2) / (4 * degree**2 - 1))


class Spectral:
    """The equations truncated to degrees ≤ T.

    Args:
        truncation: T.
        topography: b(λ, θ) in m.
        hyperviscosity: ν₄ in m⁴/s, on ζ, δ and Φ.
    """

    def __init__(self, truncation, topography=None, hyperviscosity=0.0):
        T = self.truncation = truncation
        J = (3 * T) // 2 + 1
        self.longitudes = 1 << math.ceil(math.log2(3 * T + 1))
        mu, weights = roots_legendre(J)
        self.mu, self.cos2 = mu, 1 - mu**2
        P = legendre(T, mu)
        degrees = np.arange(T + 1)
        m, degree = np.meshgrid(degrees, degrees, indexing="ij")
        up = np.sqrt(np.clip((degree + 1.0) ** 2 - m**2, 0, None) / (4 * (degree + 1.0) ** 2 - 1))
        down = np.sqrt(np.clip(1.0 * degree**2 - m**2, 0, None) / np.abs(4.0 * degree**2 - 1))
        lower = np.concatenate([np.zeros((T + 1, 1, J)), P[: T + 1, :T]], axis=1)
        slope = -(degree * up)[..., None] * P[: T + 1, 1:] + ((degree + 1) * down)[..., None] * lower
        inside = (degree >= m)[..., None]
        self.P, self.slope = P[: T + 1, : T + 1] * inside, slope * inside
        self.P_weighted = self.P * weights / 2
        self.P_flux, self.slope_flux = (F * (weights / (2 * RADIUS * self.cos2)) for F in (self.P, self.slope))
        self.order = degrees[:, None]
        self.eigenvalue = degree * (degree + 1) / RADIUS**2
        self.inverse = np.where(degree > 0, 1 / np.where(degree > 0, self.eigenvalue, 1), 0)
        self.damping = hyperviscosity * self.eigenvalue**2
        self.coriolis = 2 * ROTATION * np.broadcast_to(mu[:, None], (J, self.longitudes))
        self.longitude = 2 * np.pi * np.arange(self.longitudes) / self.longitudes
        bottom = 0 if topography is None else topography(*self.angles)
        self.bottom = self.analyse(GRAVITY * np.broadcast_to(bottom, self.coriolis.shape))

    @property
    def angles(self):
        """λ and θ of the grid, (latitudes, longitudes)."""
        return np.meshgrid(self.longitude, np.arcsin(self.mu), indexing="xy")

    def _fourier(self, values):
        return np.fft.rfft(values, axis=-1).T[: self.truncation + 1] / self.longitudes

    def analyse(self, values):
        return _sum(self.P_weighted, self._fourier(values))

    def flux(self, X, Y):
        """The coefficients of D[X, Y]."""
        x, y = self._fourier(X), self._fourier(Y)
        return _sum(self.P_flux, 1j * self.order * x) - _sum(self.slope_flux, y)

    def synthesise(self, *coefficients, table=None):
        table = self.P if table is None else table
        stacked = np.stack(coefficients, axis=-1).view(np.float64)
        waves = np.matmul(table.transpose(0, 2, 1), stacked).view(np.complex128)
        padded = np.zeros((self.longitudes // 2 + 1, *waves.shape[1:]), dtype=complex)
        padded[: len(waves)] = waves
        return np.moveaxis(np.fft.irfft(padded * self.longitudes, n=self.longitudes, axis=0), (0, 1, 2), (2, 1, 0))

    def start(self, depth, wind):
        """The coefficients of ζ, δ, Φ, from h(λ, θ) and (u, v)(λ, θ)."""
        u, v = (np.sqrt(self.cos2)[:, None] * part for part in wind(*self.angles))
        return np.stack([self.flux(v, -u), self.flux(u, v), self.analyse(GRAVITY * depth(*self.angles))])

    def rate(self, state):
        vorticity, divergence, _ = state
        psi, chi = -self.inverse * vorticity, -self.inverse * divergence
        turn = 1j * self.order
        zeta, phi, chi_x, psi_x = self.synthesise(state[0], state[2], turn * chi, turn * psi)
        psi_y, chi_y = self.synthesise(psi, chi, table=self.slope)
        U, V = (chi_x - psi_y) / RADIUS, (psi_x + chi_y) / RADIUS
        total = zeta + self.coriolis
        kinetic = self.analyse((U**2 + V**2) / (2 * self.cos2[:, None]))
        return np.stack(
            [
                -self.flux(total * U, total * V),
                self.flux(total * V, -total * U) + self.eigenvalue * (state[2] + self.bottom + kinetic),
                -self.flux(phi * U, phi * V),
            ]
        )

    def run(self, state, seconds, dt):
        """The coefficients after so many seconds."""
        steps = math.ceil(seconds / dt - 1e-9)
        dt = seconds / steps
        decay = np.exp(-dt * self.damping)
        for _ in range(steps):
            a = self.rate(state)
            b = self.rate(state + dt / 2 * a)
            c = self.rate(state + dt / 2 * b)
            state = decay * (state + dt / 6 * (a + 2 * b + 2 * c + self.rate(state + dt * c)))
        return state

    def at(self, coefficients, points):
        """The values of a field at unit vectors (n, 3)."""
        T = self.truncation
        P = legendre(T, points[:, 2])[: T + 1, : T + 1]
        angle = np.arctan2(points[:, 1], points[:, 0])
        waves = np.einsum("mln,ml->mn", P, coefficients, optimize=True) * np.exp(1j * self.order * angle)
        return waves[0].real + 2 * waves[1:].real.sum(0)

    def surface(self, state, points):
        """h + b in m at unit vectors (n, 3)."""
        return self.at(state[2] + self.bottom, points) / GRAVITY


def _sum(table, waves):
    pairs = np.ascontiguousarray(waves).view(np.float64).reshape(*waves.shape, 2)
    return np.matmul(table, pairs).view(np.complex128)[..., 0]
