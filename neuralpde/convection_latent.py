"""A latent field that obeys a learned linear equation, told from what sensors saw of it and stepped to what they will see."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from neuralpde.convection_grid import FieldGrid
from neuralpde.sensor_case import Given
from neuralpde.sensor_placement import Placement
from operators import DomainError, SparseOperator
from operators.sparse import sparse_product

# Of the coefficient c before anything is learned, and how far the learned share of higher differences goes.
_FIRST_DIFFUSION = 0.01
_HIGHEST_SHARE = 0.25
# Euler steps are stable for diffusion while step × (sum of a row's absolute entries) ≤ 2.
_STABLE = 2.0
_KNOTS = 8


class LatentField(nn.Module):
    """∂f/∂t = a f_x + b f_y + c Δf + r f with coefficient fields a, b, c ≥ 0 and a number r that are learned.

    The field lives on a grid; its derivatives there are consistent learned differences, D₁ + θ h² D₃ and D₂ − φ h² D₄, exact on
    polynomials of degree 2 for any θ and φ. Its first frame is a sum of waves, f = Σ_k z_k w_k with z_k ~ N(0, s(|k|)²) and a
    learned spectrum s; a sensor sees f + ε, ε ~ N(0, σ²). The forecast is the mean of the later frames given the earlier ones:
    with G, H the waves, propagated, where and when they were seen and are wanted,

        H S Gᵀ (G S Gᵀ + σ²)⁻¹ y,  S = diag s².

    It is linear in y, differentiable in everything learned, and knows neither the number nor the places of the sensors: any
    placement, gaps and irregular times are the same to it. The time step divides until it is stable.

    Args:
        grid: where the field lives.
        step: between its frames.
        waves: the highest wave number an axis.
        degree: of the polynomials that a, b and c are made of.
        margin: by which the waves' box is wider than the grid.
    """

    basis: Tensor
    knots: Tensor
    smooth: Tensor
    entries: Tensor

    def __init__(self, grid: FieldGrid, step: float, waves: int = 7, degree: int = 7, margin: float = 0.25) -> None:
        super().__init__()
        if not (math.isfinite(step) and step > 0):
            raise DomainError(f"the time step must be positive, not {step}")
        self.grid, self.step = grid, step
        self.pattern, entries = grid.differences()
        basis, sizes = grid.waves(waves, margin)
        line = torch.linspace(0, float(sizes.max()), _KNOTS, dtype=torch.float64)
        knots = (1 - (sizes[:, None] - line).abs() / line[1]).clamp(min=0)
        for name, value in (("basis", basis), ("knots", knots), ("smooth", grid.smooth(degree)), ("entries", entries)):
            self.register_buffer(name, value.float(), persistent=False)
        # Half a grid spacing in a step: learned numbers are then of size 1.
        self.unit = float(grid.spacing.min()) / step / 2
        self.speeds = nn.Parameter(torch.zeros(2, self.smooth.shape[1]))
        self.diffusion = nn.Parameter(torch.zeros(self.smooth.shape[1]))
        self.reaction = nn.Parameter(torch.zeros(()))
        self.shares = nn.Parameter(torch.zeros(3))
        self.spectrum = nn.Parameter(torch.full((_KNOTS,), -2.0))
        self.noise = nn.Parameter(torch.tensor(-5.0))

    def coefficients(self) -> tuple[Tensor, Tensor, Tensor]:
        """a, b and c at the grid points, each (p²,), in units of length and time of placement and times."""
        a, b = self.unit * (self.speeds @ self.smooth.T)
        largest = float(self.grid.spacing.min()) ** 2 / self.step
        start = math.log(math.expm1(_FIRST_DIFFUSION))
        return a, b, largest * F.softplus(start + self.smooth @ self.diffusion)

    def rates(self) -> Tensor:
        """The entries (E,) of a ∂x + b ∂y + c Δ."""
        a, b, c = (each[self.pattern.row] for each in self.coefficients())
        dx, dx3, dy, dy3, lap, lap2 = self.entries
        x, y, z = _HIGHEST_SHARE * torch.tanh(self.shares)
        rates: Tensor = a * (dx + x * dx3) + b * (dy + y * dy3) + c * (lap + z * lap2)
        return rates

    def frames(self, count: int) -> Tensor:
        """The waves, each times its s(|k|), `step` apart: (count, p², m)."""
        rates = self.rates()
        rows = self.pattern.sum_rows(rates.detach().abs()[:, None])
        substeps = max(1, math.ceil(self.step * float(rows.max()) / _STABLE))
        each = self.step / substeps
        field = self.basis * torch.exp(self.knots @ self.spectrum)
        found = [field]
        for _ in range(1, count):
            for _ in range(substeps):
                field = field + each * (sparse_product(rates, field, self.pattern) + self.reaction * field)
            found.append(field)
        return torch.stack(found)

    def forward(self, given: Given) -> Tensor:
        """The forecast (K, h, n, c) of every channel by itself."""
        K, w, n, c = given.values.shape
        start = given.times[:, :1]
        last = float((given.wanted[:, -1:] - start).max())
        seen_from = self._seen_from(given.placement, self.frames(math.ceil(last / self.step - 1e-6) + 1))
        times = torch.cat([given.times, given.wanted], dim=1) - start
        times = ((times / self.step) * 2**20).round() / 2**20
        values = given.values.permute(0, 3, 1, 2).flatten(0, 1)
        seen = given.seen.permute(0, 3, 1, 2).flatten(0, 1)
        times = times.repeat_interleave(c, dim=0)
        # Windows that were seen alike share everything but their values.
        alike = torch.cat([times, seen.flatten(1).double()], dim=1)
        kinds, kind = torch.unique(alike, dim=0, return_inverse=True)
        result = values.new_zeros(K * c, given.wanted.shape[1], n)
        for k in range(len(kinds)):
            mine = (kind == k).nonzero()[:, 0]
            at = _between(seen_from, times[mine[0]])
            result = result.index_copy(0, mine, self._mean(at[:w], at[w:], values[mine], seen[mine[0]]))
        return result.reshape(K, c, -1, n).permute(0, 2, 3, 1)

    def _seen_from(self, placement: Placement, frames: Tensor) -> Tensor:
        """The waves as the sensors see them, (T, n, m)."""
        if placement.earth:
            raise DomainError(f"{placement.name}: this model's field lives in a plane: give positions in a plane")
        index, weights = self.grid.read(placement.points)
        rows = torch.arange(len(index)).repeat_interleave(index.shape[1])
        shape = (len(index), self.grid.count**2)
        reading = SparseOperator.from_entries(rows, index.flatten(), weights.flatten().to(frames), shape)
        seen: Tensor = reading @ frames
        return seen

    def _mean(self, given: Tensor, wanted: Tensor, values: Tensor, seen: Tensor) -> Tensor:
        """(w, n, m), (h, n, m), values (k, w, n) of which `seen` (w, n) are known → (k, h, n).

        In double precision: what is told from close frames is told from small differences.
        """
        g, y = given[seen].double(), values[:, seen].double()
        gram = g.T @ g + torch.exp(2 * self.noise.double()) * torch.eye(g.shape[1], dtype=torch.float64, device=g.device)
        found = torch.cholesky_solve(g.T @ y.T, torch.linalg.cholesky(gram))
        return torch.einsum("hnm,mk->khn", wanted.double(), found).to(values)


def _between(frames: Tensor, times: Tensor) -> Tensor:
    """Frames (T, ...) at 0, 1, …, at other times (m,), linear between."""
    low = times.floor().long().clamp(0, max(0, len(frames) - 2))
    high = (low + 1).clamp(max=len(frames) - 1)
    share = (times - low).to(frames)[:, None, None]
    if not bool(share.any()):
        return frames[low]
    if bool((share == share.round()).all()):
        return frames[torch.where(share[:, 0, 0] > 0.5, high, low)]
    return torch.lerp(frames[low], frames[high], share)
