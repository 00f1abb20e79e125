"""What fields look like before they are observed: Gaussian, of a spectrum learned from single frames at sensors."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from neuralpde.nonlinear_sensors_library import real_waves
from neuralpde.sensor_case import SensorCase
from neuralpde.sensor_gaps import filled, whole


class SpectralPrior(nn.Module):
    """Gaussian fields of the spectrum a(k)² = s² (1 + (k / k₀)²)^−p, with mean square m² at k = 0, and noise; channels are mixed.

    Learned by the marginal likelihood of the first frames of the training windows, a Gaussian process in the basis of the waves
    with wave numbers up to `highest` along each axis; the channels are decorrelated by the covariance of all that was seen.

    Args:
        channels: c.
        cells: a side of the grid of the latent fields.
        highest: wave number along each axis.
    """

    mixing: Tensor
    grid_waves: Tensor
    sizes: Tensor

    def __init__(self, channels: int, cells: int = 24, highest: int = 7) -> None:
        super().__init__()
        self.cells, self.highest = cells, highest
        line = torch.arange(cells, dtype=torch.float64) / cells
        grid = torch.stack(torch.meshgrid(line, line, indexing="ij"), dim=-1).reshape(-1, 2)
        waves, sizes = real_waves(grid, highest)
        self.register_buffer("grid_waves", waves.float(), persistent=False)
        self.register_buffer("sizes", sizes.float(), persistent=False)
        self.register_buffer("mixing", torch.eye(channels))
        # Rows: log s, log k₀, log p, log m, log noise.
        start = torch.tensor([0.0, 1.1, 1.1, -1.0, -2.3])
        self.shape = nn.Parameter(start[:, None].repeat(1, channels))

    def amplitudes(self) -> Tensor:
        """a of each channel and wave (c, m): the standard deviation of its coefficient."""
        s, scale, power, mean, _ = self.shape.exp()[..., None]
        fall = (1 + (self.sizes / scale).square()) ** (-power / 2)
        # s² is the variance at a point, of all waves but the constant.
        waves = fall[:, 1:] / fall[:, 1:].square().sum(1, keepdim=True).sqrt()
        return torch.cat([mean, s * waves], dim=1)

    @property
    def noise(self) -> Tensor:
        """The standard deviation (c,) of what the waves cannot carry."""
        return self.shape[4].exp()

    def fit(self, cases: Sequence[SensorCase], period: float = 1.0, steps: int = 120) -> None:
        """Learn from single frames of training windows; nothing is random."""
        seen = torch.cat([case.values.flatten(0, 2)[case.seen.flatten(0, 2).all(-1)] for case in cases])
        self.mixing.copy_(torch.linalg.cholesky(seen.T @ seen / len(seen) + 1e-6 * torch.eye(seen.shape[1])))
        inverse = torch.linalg.inv(self.mixing)
        moments = []
        for case in cases:
            first = filled(whole(case))[:, 0] @ inverse.T
            waves = real_waves(case.placement.points / period, self.highest)[0].float()
            moments.append((waves, torch.einsum("knc,kmc->cnm", first, first) / len(first)))
        optimizer = torch.optim.Adam(self.parameters(), lr=0.05)
        for _ in range(steps):
            optimizer.zero_grad()
            total = torch.zeros(())
            amplitude = self.amplitudes()
            for waves, moment in moments:
                scaled = waves * amplitude[:, None]
                covariance = scaled @ scaled.mT + torch.diag_embed(self.noise[:, None].square().expand(-1, len(waves)) + 1e-5)
                factor = torch.linalg.cholesky(covariance)
                total = total + 2 * factor.diagonal(dim1=-2, dim2=-1).log().sum()
                total = total + torch.cholesky_solve(moment, factor).diagonal(dim1=-2, dim2=-1).sum()
            total.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
        for parameter in self.parameters():
            parameter.requires_grad_(False)

    def fields(self, white: Tensor) -> Tensor:
        """Fields (K, c, cells, cells) of independent normal numbers (K, c, m)."""
        mixed = torch.einsum("dc,kcm->kdm", self.mixing, white * self.amplitudes())
        return (mixed @ self.grid_waves.T).reshape(*mixed.shape[:-1], self.cells, self.cells)

    def mean(self, values: Tensor, points: Tensor) -> Tensor:
        """The conditional mean (K, c, m), in normal numbers, of one frame (K, n, c) seen whole."""
        waves = real_waves(points, self.highest)[0].float() * self.amplitudes()[:, None]
        noise = torch.diag_embed(self.noise[:, None].square().expand(-1, len(points)) + 1e-5)
        independent = values @ torch.linalg.inv(self.mixing).T
        solved = torch.linalg.solve(waves @ waves.mT + noise, independent.permute(2, 1, 0))
        result: Tensor = (waves.mT @ solved).permute(2, 0, 1)
        return result
