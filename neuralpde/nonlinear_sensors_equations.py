"""Three nonlinear equations of two fields on a periodic square, solved in Fourier space to be observed at sensors."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from neuralpde.training import generator


def wave_numbers(cells: int, dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor]:
    """The whole wave numbers (cells, 1) and (1, cells // 2 + 1) of `rfft2` on a square grid."""
    return (
        torch.fft.fftfreq(cells, 1 / cells, dtype=dtype)[:, None],
        torch.fft.rfftfreq(cells, 1 / cells, dtype=dtype)[None],
    )


@dataclass(frozen=True)
class PeriodicEquation(ABC):
    """du_k/dt = D_k ∆u_k + N_k(u, ∇u) for two fields on [0, 1)², periodic.

    It is solved on a grid by Lawson's fourth-order Runge–Kutta method (1967, SIAM J. Numer. Anal. 4), exact in the diffusion;
    products are taken on the grid and cut to two thirds of its wave numbers.

    Args:
        cells: a side of the grid.
        substeps: steps between frames.
    """

    name: ClassVar[str]
    diffusivities: ClassVar[tuple[float, float]]
    interval: ClassVar[float]
    """Time between frames."""
    modes: ClassVar[int]
    """The largest wave number of the initial fields, along each axis."""

    cells: int = 64
    substeps: int = 5

    @abstractmethod
    def start(self, random: torch.Generator) -> Tensor:
        """Initial fields (2, cells, cells)."""

    @abstractmethod
    def rest(self, fields: Tensor, slopes: Tensor) -> Tensor:
        """N of fields (K, 2, cells, cells) with slopes (K, 2, 2, cells, cells), field first, then axis."""

    def solve(self, fields: Tensor, frames: int) -> Tensor:
        """Fields (K, 2, cells, cells) at 0, interval, ..., (frames − 1) interval: (K, frames, 2, cells, cells)."""
        step = self.interval / self.substeps
        kx, ky = wave_numbers(self.cells, fields.dtype)
        square = -((2 * math.pi) ** 2) * (kx**2 + ky**2)
        half = torch.exp(torch.tensor(self.diffusivities, dtype=fields.dtype)[:, None, None] * square * (step / 2))
        kept = (kx.abs() <= self.cells / 3) & (ky <= self.cells / 3)
        ik = 2j * math.pi * torch.stack([kx.expand(-1, ky.shape[1]), ky.expand(len(kx), -1)])

        def rate(z: Tensor) -> Tensor:
            back = torch.fft.irfft2(torch.cat([z[:, :, None], ik * z[:, :, None]], dim=2), s=fields.shape[-2:])
            changed: Tensor = torch.fft.rfft2(self.rest(back[:, :, 0], back[:, :, 1:])) * kept
            return changed

        z = torch.fft.rfft2(fields)
        found = [fields]
        for _ in range(1, frames):
            for _ in range(self.substeps):
                a = rate(z)
                b = rate(half * (z + step / 2 * a))
                c = rate(half * z + step / 2 * b)
                d = rate(half * (half * z + step * c))
                z = half * (half * z + step / 6 * half * a + step / 3 * (b + c)) + step / 6 * d
            found.append(torch.fft.irfft2(z, s=fields.shape[-2:]))
        return torch.stack(found, dim=1)

    def noise(self, random: torch.Generator, count: int = 1) -> Tensor:
        """Gaussian fields (count, cells, cells) without wave numbers above `modes` along an axis, of mean 0 and variance 1."""
        kx, ky = wave_numbers(self.cells)
        white = torch.randn(count, self.cells, self.cells, generator=random, dtype=torch.float64)
        band = (kx.abs() <= self.modes) & (ky <= self.modes) & ((kx != 0) | (ky != 0))
        fields = torch.fft.irfft2(torch.fft.rfft2(white) * band, s=(self.cells, self.cells))
        spread: Tensor = fields.square().mean((-2, -1), keepdim=True).sqrt()
        result: Tensor = fields / spread
        return result

    def sessions(self, first: int, count: int, seed: int) -> Tensor:
        """Initial fields (count, 2, cells, cells) of the sessions numbered from `first`; each depends on its number alone."""
        return torch.stack([self.start(generator(seed, k)) for k in range(first, first + count)])


@dataclass(frozen=True)
class BurgersEquation(PeriodicEquation):
    """The viscous Burgers equation of a plane velocity: du/dt = ν ∆u − (u · ∇) u."""

    name: ClassVar[str] = "burgers"
    diffusivities: ClassVar[tuple[float, float]] = (0.01, 0.01)
    interval: ClassVar[float] = 0.06
    modes: ClassVar[int] = 4

    def start(self, random: torch.Generator) -> Tensor:
        return 0.7 * self.noise(random, 2)

    def rest(self, fields: Tensor, slopes: Tensor) -> Tensor:
        carried: Tensor = (fields[:, None] * slopes).sum(2)
        return -carried


@dataclass(frozen=True)
class FitzHughNagumoEquation(PeriodicEquation):
    """FitzHugh and Nagumo's: dv/dt = D ∆v + v − v³/3 − w + I, dw/dt = D' ∆w + ε (v + a − b w), oscillating at I = 0.5."""

    name: ClassVar[str] = "fitzhugh-nagumo"
    diffusivities: ClassVar[tuple[float, float]] = (4e-4, 1e-4)
    interval: ClassVar[float] = 0.8
    modes: ClassVar[int] = 4

    def start(self, random: torch.Generator) -> Tensor:
        return self.noise(random, 2) * torch.tensor([1.2, 0.6], dtype=torch.float64)[:, None, None] + 0.3

    def rest(self, fields: Tensor, slopes: Tensor) -> Tensor:
        v, w = fields.unbind(1)
        return torch.stack([v - v**3 / 3 - w + 0.5, 0.2 * (v + 0.7 - 0.8 * w)], dim=1)


@dataclass(frozen=True)
class GrayScottEquation(PeriodicEquation):
    """Gray and Scott's: du/dt = D_u ∆u − u v² + F (1 − u), dv/dt = D_v ∆v + u v² − (F + k) v, from patches of v.

    F = 0.037 and k = 0.06 grow stripes from patches; a stripe and its gap are about a quarter of the square, as at D_u = 2e-5 and
    D_v = 1e-5 (Pearson 1993, Science 261, 189) in a square of half the side. An interval resolves the fastest reaction.
    """

    name: ClassVar[str] = "gray-scott"
    diffusivities: ClassVar[tuple[float, float]] = (8e-5, 4e-5)
    interval: ClassVar[float] = 10.0
    modes: ClassVar[int] = 4

    def start(self, random: torch.Generator) -> Tensor:
        patch = torch.sigmoid(3 * self.noise(random)[0] - 1.5)
        return torch.stack([1 - 0.5 * patch, 0.35 * patch])

    def rest(self, fields: Tensor, slopes: Tensor) -> Tensor:
        u, v = fields.unbind(1)
        eaten = u * v**2
        return torch.stack([0.037 * (1 - u) - eaten, eaten - 0.097 * v], dim=1)


EQUATIONS: dict[str, PeriodicEquation] = {
    each.name: each for each in (BurgersEquation(), FitzHughNagumoEquation(), GrayScottEquation())
}
