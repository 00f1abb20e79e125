"""An equation whose coefficients are learned: diffusion, advection and reaction of fields on a periodic square."""

from __future__ import annotations

import math
from itertools import combinations_with_replacement

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from neuralpde.nonlinear_sensors_equations import wave_numbers

# A wave of this wave number diffuses and moves at the unit rate for a unit coefficient: coefficients are then alike in size.
TYPICAL = 4
# Products read fields, and slopes in units of a typical wave's, clipped to this many standard deviations: every rate is bounded,
# so no rollout leaves the range of numbers. Real fields stay inside, where a softer bound than a clip would bend the products.
WIDEST = 8.0


class LearnedEquation(nn.Module):
    """du_k/dt = D_k ∆u_k + Σ A_kl,a u_l ∂_a u_k + Σ b_k,a ∂_a u_k + P_k(u), with P_k a polynomial of degree 3.

    The form is general: coefficients that the data do not need stay near zero. D_k > 0 always. On the grid, by Lawson's
    Runge–Kutta method of order 4, exact in the diffusion. Products read fields and slopes clipped to ±8 standard deviations:
    whatever the coefficients, a field grows at most linearly in time.

    Args:
        channels: c, normalised.
        cells: a side of the grid.
        substeps: steps a frame.
    """

    def __init__(self, channels: int, cells: int = 24, substeps: int = 2) -> None:
        super().__init__()
        self.channels, self.cells, self.substeps = channels, cells, substeps
        self.powers = [p for degree in range(4) for p in combinations_with_replacement(range(channels), degree)]
        self.raw_diffusivity = nn.Parameter(torch.full((channels,), -2.0))
        self.advection = nn.Parameter(torch.zeros(channels, channels + 1, 2))
        self.reaction = nn.Parameter(torch.zeros(channels, len(self.powers)))
        kx, ky = wave_numbers(cells, torch.float32)
        self.register_buffer("square", -(kx**2 + ky**2) / TYPICAL**2, persistent=False)
        self.register_buffer(
            "slope", 1j * torch.stack([kx.expand(-1, ky.shape[1]), ky.expand(cells, -1)]) / TYPICAL, persistent=False
        )
        self.register_buffer("kept", ((kx.abs() <= cells / 3) & (ky <= cells / 3)).float(), persistent=False)

    square: Tensor
    slope: Tensor
    kept: Tensor

    @property
    def diffusivity(self) -> Tensor:
        """D, in cells of the typical wave number and a frame's time."""
        D: Tensor = F.softplus(self.raw_diffusivity)
        return D

    def rate(self, z: Tensor) -> Tensor:
        """What is not diffusion, of fields in Fourier space (K, c, cells, cells // 2 + 1)."""
        size = (self.cells, self.cells)
        back = torch.fft.irfft2(torch.cat([z[:, :, None], self.slope * z[:, :, None]], dim=2), s=size)
        back = back.clamp(-WIDEST, WIDEST)
        fields, slopes = back[:, :, 0], back[:, :, 1:]
        carriers = torch.cat([fields, torch.ones_like(fields[:, :1])], dim=1)
        speed = torch.einsum("kla,blxy->bkaxy", self.advection, carriers)
        made: list[Tensor] = []
        found: dict[tuple[int, ...], Tensor] = {(): torch.ones_like(fields[:, 0])}
        for power in self.powers:
            if power:
                found[power] = found[power[:-1]] * fields[:, power[-1]]
            made.append(found[power])
        reacted = torch.einsum("kp,bpxy->bkxy", self.reaction, torch.stack(made, dim=1))
        changed: Tensor = torch.fft.rfft2(reacted + (speed * slopes).sum(2)) * self.kept
        return changed

    def terms(self, fields: Tensor) -> Tensor:
        """What the coefficients multiply, without bounds: (K, c, cells, cells) → (K, c, terms, cells, cells)."""
        size = (self.cells, self.cells)
        z = torch.fft.rfft2(fields)
        bend = torch.fft.irfft2(self.square * z, s=size)
        slopes = torch.fft.irfft2(self.slope * z[:, :, None], s=size)
        carriers = torch.cat([fields, torch.ones_like(fields[:, :1])], dim=1)
        carried = (carriers[:, None, :, None] * slopes[:, :, None]).flatten(2, 3)
        products = torch.stack([fields[:, list(power)].prod(1) for power in self.powers], dim=1)
        return torch.cat([bend[:, :, None], carried, products[:, None].expand(-1, self.channels, -1, -1, -1)], dim=2)

    @property
    def coefficients(self) -> Tensor:
        """What multiplies `terms`, (c, terms)."""
        return torch.cat([self.diffusivity[:, None], self.advection.flatten(1), self.reaction], dim=1)

    @torch.no_grad()
    def take(self, coefficients: Tensor) -> None:
        """Take the coefficients (c, terms) of `terms`; a diffusivity is kept above a small one."""
        count = self.advection[0].numel()
        D = coefficients[:, 0].clamp(min=0.02)
        self.raw_diffusivity.copy_(torch.log(torch.expm1(D)))
        self.advection.copy_(coefficients[:, 1 : 1 + count].reshape_as(self.advection))
        self.reaction.copy_(coefficients[:, 1 + count :])

    def solve(self, fields: Tensor, frames: int) -> Tensor:
        """Fields (K, c, cells, cells) at 0, 1, ..., frames − 1 intervals: (K, frames, c, cells, cells)."""
        step = 1 / self.substeps
        half = torch.exp(self.diffusivity[:, None, None] * self.square * (step / 2))
        z = torch.fft.rfft2(fields)
        found = [fields]
        for _ in range(1, frames):
            for _ in range(self.substeps):
                a = self.rate(z)
                b = self.rate(half * (z + step / 2 * a))
                c = self.rate(half * z + step / 2 * b)
                d = self.rate(half * (half * z + step * c))
                z = half * (half * z + step / 6 * half * a + step / 3 * (b + c)) + step / 6 * d
            found.append(torch.fft.irfft2(z, s=fields.shape[-2:]))
        return torch.stack(found, dim=1)


def real_waves(points: Tensor, highest: int) -> tuple[Tensor, Tensor]:
    """The real Fourier basis at points (n, 2): values (n, m) of square-mean one, and |k| (m,), along each axis ≤ highest."""
    found, sizes = [torch.ones_like(points[:, :1])], [0.0]
    for kx in range(-highest, highest + 1):
        for ky in range(highest + 1):
            if ky == 0 and kx <= 0:
                continue
            phase = 2 * math.pi * (kx * points[:, :1] + ky * points[:, 1:])
            found += [math.sqrt(2) * torch.cos(phase), math.sqrt(2) * torch.sin(phase)]
            sizes += [math.hypot(kx, ky)] * 2
    return torch.cat(found, dim=1), torch.tensor(sizes, dtype=points.dtype)
