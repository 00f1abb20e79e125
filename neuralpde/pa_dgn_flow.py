"""PA-DGN in continuous time: dx/dt = f(SDL(x), h), bounded whatever its parameters, observed at any times."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from integrators import Euler, Integrator, integrate
from neuralpde.pa_dgn import Coefficients, SensorGraph
from neuralpde.recurrent_graph_network_cells import affine
from neuralpde.rhs import RightHandSide
from operators import DomainError, FieldError


class DifferenceLaw(nn.Module):
    """The parameters of `DifferenceGraphFlow`, whatever the placement.

    Args:
        channels: c of x.
        positions: p.
        hidden: m, the size of the memory h of each sensor.
        differences: the number of learned differences of each kind.
        width: of the layers.
        bound: R, in the unit of x.
        fastest: the shortest time in which x or h can relax, in the unit of time.
    """

    def __init__(
        self,
        channels: int = 1,
        positions: int = 3,
        hidden: int = 16,
        differences: int = 8,
        width: int = 32,
        bound: float = 8.0,
        fastest: float = 0.5,
    ) -> None:
        super().__init__()
        if min(channels, hidden, differences, width) < 1 or positions < 0:
            raise DomainError("channels, hidden, differences and width must be at least 1, and positions at least 0")
        if not (0 < bound < math.inf and 0 < fastest < math.inf):
            raise DomainError(f"bound and fastest must be positive and finite, not {bound} and {fastest}")
        self.channels, self.positions, self.hidden, self.differences = channels, positions, hidden, differences
        self.bound, self.fastest = bound, fastest
        self.gradient = Coefficients(channels + positions, width, 3 * channels * differences)
        self.laplacian = Coefficients(channels + positions, width, 3 * channels * differences)
        inputs = channels + positions + hidden + 2 * channels * differences
        self.first, self.second = nn.Linear(inputs, width), nn.Linear(width, width)
        self.out = nn.Linear(width, channels + hidden)
        self.rates = nn.Parameter(torch.full((channels + hidden,), -2.0))
        with torch.no_grad():
            # Untrained, x relaxes to zero, the mean of normalised data.
            self.out.weight[:channels] = 0
            self.out.bias[:channels] = 0


class DifferenceGraphFlow(RightHandSide):
    """dx/dt = γ (R tanh(u/R) − x), dh/dt = κ (tanh(v) − h), with (u, v) = N(x, h, SDL(x)) at every sensor.

    SDL(x) are the learned differences of PA-DGN, Σ_j a_ij (x_i − b_ij x_j), `differences` of each kind. The rates γ and κ are
    learned within (0, 1/fastest). So |x| ≤ max(|x(0)|, R) and |h| ≤ 1 for ever, for any parameters: of the exact flow, and of
    `Euler` with steps of `fastest` or less. The state is (x, h) in (..., n, c + m).

    Args:
        law: the parameters, shared by the flows on all placements.
        graph: where the sensors stand.
        pace: time that passes in a unit of t, (..., 1, 1), for windows whose observation times differ.
    """

    def __init__(self, law: DifferenceLaw, graph: SensorGraph, pace: Tensor | None = None) -> None:
        super().__init__()
        self.law, self.graph, self.pace = law, graph, pace

    def on(self, domain: Any) -> DifferenceGraphFlow:
        """The same law on another `SensorGraph`."""
        return DifferenceGraphFlow(self.law, domain, self.pace)

    def forward(self, t: Tensor, x: Tensor) -> Tensor:
        law, graph = self.law, self.graph
        field, hidden = torch.split(x, [law.channels, law.hidden], dim=-1)
        told = torch.cat([field, graph.positions.to(x).expand(*x.shape[:-1], -1)], dim=-1) if law.positions else field
        pattern = graph.pattern
        here, there = pattern.gather_rows(field)[..., None, :], pattern.gather_columns(field)[..., None, :]
        parts = [told, hidden]
        degree = (pattern.crow[1:] - pattern.crow[:-1]).clamp(min=1).to(x.dtype)[:, None]
        for coefficients in (law.gradient, law.laplacian):
            a, b = coefficients(told, pattern, law.differences, law.channels)
            parts.append(pattern.sum_rows((a * (here - b * there)).flatten(-2)) / degree)
        y = affine(torch.cat(parts, dim=-1), law.first.weight, law.first.bias, rectified=True)
        y = affine(affine(y, law.second.weight, law.second.bias, rectified=True), law.out.weight, law.out.bias)
        limit = torch.ones(law.channels + law.hidden, dtype=x.dtype, device=x.device)
        limit[: law.channels] = law.bound
        slope = torch.sigmoid(law.rates) / law.fastest * (limit * torch.tanh(y / limit) - x)
        return slope if self.pace is None else self.pace * slope


class ObservedFlow(nn.Module):
    """Forecasts from observations at any times, some of them missing: x follows the flow and is set to what is seen.

    Args:
        law: of the flow.
        solver: of each interval between two times, in which t runs from 0 to 1; Euler with steps of at most `law.fastest` if
            absent.
    """

    def __init__(self, law: DifferenceLaw, solver: Integrator | None = None) -> None:
        super().__init__()
        self.law, self.solver = law, solver

    def forward(self, values: Tensor, seen: Tensor, times: Tensor, wanted: Tensor, graph: SensorGraph) -> Tensor:
        """The field after each observation but the first, before it is told, and at the wanted times.

        Args:
            values, seen: (B, w, n, c).
            times: (B, w), increasing, in the law's unit of time; windows may differ.
            wanted: (B, h), after the last of `times`.

        Returns:
            (B, w − 1 + h, n, c).
        """
        if values.ndim != 4 or values.shape != seen.shape or times.shape != values.shape[:2]:
            raise FieldError(
                f"values and seen must have shape (B, w, n, c) and times (B, w), not {tuple(values.shape)}, {tuple(seen.shape)} "
                f"and {tuple(times.shape)}"
            )
        n, c = graph.pattern.shape[0], self.law.channels
        if values.shape[1] < 1 or values.shape[2:] != (n, c) or wanted.ndim != 2 or len(wanted) != len(values):
            raise FieldError(
                f"values must have shape (B, w, {n}, {c}) with w ≥ 1 and wanted (B, h), not {tuple(values.shape)} and "
                f"{tuple(wanted.shape)}"
            )
        moments = torch.cat([times, wanted], dim=1)
        lengths = moments.diff(dim=1)
        if not bool(((lengths > 0) & lengths.isfinite()).all()):
            raise FieldError("times must be finite and must increase, and the wanted times must come after them")
        w = values.shape[1]
        # What is not known at the start is taken as zero, the mean of normalised data.
        values = torch.where(seen, values, 0)
        if not bool(torch.isfinite(values).all()):
            raise FieldError("values that are marked as seen are NaN or infinite: mark them as missing")
        field = values[:, 0]
        state = torch.cat([field, field.new_zeros(*field.shape[:-1], self.law.hidden)], dim=-1)
        path = []
        for k in range(lengths.shape[1]):
            state = self._advanced(state, lengths[:, k].to(values), graph)
            path.append(state[..., :c])
            if k + 1 < w:
                told = torch.where(seen[:, k + 1], values[:, k + 1], state[..., :c])
                state = torch.cat([told, state[..., c:]], dim=-1)
        return torch.stack(path, dim=1)

    def _advanced(self, state: Tensor, length: Tensor, graph: SensorGraph) -> Tensor:
        flow = DifferenceGraphFlow(self.law, graph, length[:, None, None])
        solver = self.solver
        if solver is None:
            solver = Euler(1 / max(1, math.ceil(float(length.max()) / self.law.fastest - 1e-6)))
        end: Tensor = integrate(flow, state, [0.0, 1.0], solver).x[-1]
        return end
