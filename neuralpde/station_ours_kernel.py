"""How a field that drifts, relaxes and is stirred at random hangs together over space and time."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

# Starting values: shares of the field's extent, steps of time.
VARIANCES = (0.1, 0.3, 0.6)
LENGTHS = (0.4, 2.0, 8.0)
MEMORIES = (6.0, 30.0, 100.0)
# What is small is stirred by white noise; what is large moves smoothly.
WHITENESS = (2.0, -2.0, -2.0)
# The variance of what all sensors have in common for long: so large that it may be another season than that learned from.
LEVEL = 100.0
# A wind of one unit crosses this share of the field's extent in a step.
DRIFT = 0.1


class DriftingCovariance(nn.Module):
    """The covariance of Σ_q x_q + cycles + what each sensor has for itself, where x_q solves a linear stochastic PDE,

        ∂x/∂t + V·∇x = −x/T + noise,  V ~ N(v, s² I) unknown,

    with a noise that is coloured in space over the length ℓ. At distance r and lag τ, with g = 1 + s² τ²/ℓ²,

        k(r, τ) = a exp(−|r − v τ| / (ℓ √g)) / g · m(|τ|/T),

    which is positive definite for any parameters (Schlather 2010, eq. 9, with d = 2). m mixes exp(−u) and (1 + √3 u) exp(−√3 u),
    the memories of noise that is white and of noise that is itself relaxing. Cycles have an amplitude that all sensors share and
    one that varies over a length of its own.

    Args:
        extent: of the field, in the unit of length of its positions; what all lengths start from.
        periods: of the cycles, in steps of time; a constant is always among them.
    """

    def __init__(self, extent: float, periods: tuple[float, ...] = ()) -> None:
        super().__init__()
        count, cycles = len(LENGTHS), 1 + len(periods)
        self.extent, self.periods = extent, periods

        def parameter(values: Tensor) -> nn.Parameter:
            return nn.Parameter(values.double())

        self.amplitude = parameter(torch.tensor(VARIANCES).log())
        self.length = parameter(torch.tensor(LENGTHS).log())
        self.memory = parameter(torch.tensor(MEMORIES).log())
        self.wind = parameter(torch.zeros(count, 2))
        self.gusts = parameter(torch.full((count,), math.log(0.5)))
        self.whiteness = parameter(torch.tensor(WHITENESS))
        self.common_cycle = parameter(torch.full((cycles,), -3.0))
        self.local_cycle = parameter(torch.full((cycles,), -3.0))
        self.cycle_length = parameter(torch.zeros(cycles))
        self.cycle_memory = parameter(torch.tensor(math.log(100.0)))
        self.own = parameter(torch.tensor(-4.0))
        self.own_memory = parameter(torch.tensor(math.log(3.0)))
        self.noise = parameter(torch.tensor(-4.0))

    @property
    def nugget(self) -> Tensor:
        """The variance of what only one measurement has."""
        return self.noise.exp() + 1e-4

    def forward(self, offsets: Tensor, lags: Tensor, same: Tensor, doubts: Tensor | None = None) -> Tensor:
        """The covariance (m, n, n') at m lags between the sensors i, now, and j, that long before.

        Args:
            offsets: (n, n', 2), from j to i.
            lags: (m,), in steps.
            same: (n, n') one where i and j are the same sensor, else zero.
            doubts: (1 + len(periods), n, n'), covariance of what is not known of the mean and of the amplitude of each cycle.
        """
        place = offsets.double() / self.extent
        tau = lags.double()[:, None, None]
        age = tau.abs()
        result = same * (self.own - age / self.own_memory.exp()).exp()
        for q in range(len(self.length)):
            spread = 1 + (self.gusts[q].exp() * DRIFT * tau / self.length[q].exp()) ** 2
            shift = place - DRIFT * self.wind[q] * tau[..., None]
            distance = (shift.square().sum(-1) / spread + 1e-12).sqrt() / self.length[q].exp()
            u, white = age / self.memory[q].exp(), self.whiteness[q].sigmoid()
            memory = white * (-u).exp() + (1 - white) * (1 + math.sqrt(3) * u) * (-math.sqrt(3) * u).exp()
            result = result + (self.amplitude[q] - distance).exp() / spread * memory
        far = (place.square().sum(-1) + 1e-12).sqrt()
        fading = (-age / self.cycle_memory.exp()).exp()
        for j, period in enumerate((math.inf, *self.periods)):
            phase = torch.cos(2 * math.pi * tau / period)
            local = (self.local_cycle[j] - far / self.cycle_length[j].exp()).exp()
            cycle = phase * (self.common_cycle[j].exp() + local)
            result = result + (cycle + LEVEL if j == 0 else cycle * fading)
            if doubts is not None:
                result = result + phase * doubts[j]
        return result
