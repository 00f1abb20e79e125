"""What a consistent stencil learns: numbers for every neighbour, before their projection onto the moment conditions."""

from __future__ import annotations

import math
from typing import Any, Self

import torch
from torch import Tensor, nn

from operators.checks import DomainError, FieldError, is_integer
from operators.consistent_moments import Moments
from operators.kernels import gather


class Correction(nn.Module):
    """z, (n, k, q), or (..., n, k, q) where it depends on a field: what a consistent stencil projects and adds to its weights.

    A new one writes `forward`, and `on` if it holds something of its placement.
    """

    def forward(self, moments: Moments, x: Tensor | None) -> Tensor:
        """z for the neighbourhoods of `moments`, dimensionless; zero leaves the base weights."""
        raise NotImplementedError

    def on(self, domain: Any) -> Self:
        """The correction for another placement: itself, where it knows none."""
        return self


class FreeCorrection(Correction):
    """One learned number for each neighbour and row; it belongs to its placement. Starts at zero.

    Args:
        moments: of the stencil.
        rows: q, the dimension for a gradient, 1 for a Laplacian.
    """

    def __init__(self, moments: Moments, rows: int) -> None:
        super().__init__()
        self.values = nn.Parameter(moments.root.new_zeros(*moments.neighbours.shape, rows))

    def forward(self, moments: Moments, x: Tensor | None) -> Tensor:
        if self.values.shape[:-1] != moments.neighbours.shape:
            raise DomainError(
                f"these numbers belong to another placement, with (nodes, neighbours) {tuple(self.values.shape[:-1])} instead of "
                f"{tuple(moments.neighbours.shape)}: build both from the same Moments"
            )
        return self.values

    def on(self, domain: Any) -> Self:
        raise DomainError(
            "one number for each neighbour belongs to its placement and cannot move to another: use NetworkCorrection, which "
            "reads the geometry"
        )


class NetworkCorrection(Correction):
    """A graph network reads the local geometry, and the field if `channels` > 0, and gives z; it serves any placement.

    Edges read ξ, |ξ| and the differences of the field over their root mean square in the neighbourhood, so z does not change
    with the unit of length, nor with a constant or a factor of the field. Each of the `hops` blocks updates
    the edges from their ends and the nodes from the mean of their edges (Battaglia et al. 2018). The head starts at zero:
    an untrained stencil is the base stencil.

    Args:
        dimensions: d.
        rows: q, d for a gradient, 1 for a Laplacian.
        width: hidden width. hops: the number of blocks, at least 1.
        channels: c of the field that it reads; 0 reads the geometry alone, which keeps the stencil linear.
        positions: read the coordinates of the nodes too, divided by `positions`: the weights may then vary from place to place.
        bound: |z| stays below it; inf leaves z free.
    """

    def __init__(
        self,
        dimensions: int,
        rows: int,
        width: int = 16,
        hops: int = 1,
        channels: int = 0,
        positions: float | None = None,
        bound: float = 4.0,
    ) -> None:
        super().__init__()
        if not all(is_integer(v) for v in (dimensions, rows, width, hops, channels)) or min(dimensions, rows, width, hops) < 1:
            raise DomainError("dimensions, rows, width and hops must be positive integers, channels one of at least 0")
        if not bound > 0 or (positions is not None and not (0 < positions < math.inf)) or channels < 0:
            raise DomainError("bound and positions must be positive, channels at least 0")
        self.dimensions, self.channels, self.positions, self.bound = dimensions, channels, positions, bound
        edge = dimensions + 1 + channels
        node = dimensions if positions is not None else 0
        self.edge, self.here, self.there, self.mean = (nn.ModuleList() for _ in range(4))
        for _ in range(hops):
            self.edge.append(nn.Linear(edge, width))
            self.here.append(nn.Linear(node, width, bias=False) if node else nn.Identity())
            self.there.append(nn.Linear(node, width, bias=False) if node else nn.Identity())
            self.mean.append(nn.Linear(node + width, width))
            edge = node = width
        self.head = nn.Linear(2 * width, rows)
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)

    def forward(self, moments: Moments, x: Tensor | None) -> Tensor:
        if moments.dimensions != self.dimensions:
            raise DomainError(f"this correction was made for {self.dimensions} dimensions, the points have {moments.dimensions}")
        links, nodes = self._features(moments, x)
        count = moments.valid.sum(1).clamp(min=1).to(links.dtype)[:, None]
        blocks = zip(self.edge, self.here, self.there, self.mean, strict=True)
        for edge, here, there, mean in blocks:
            message = edge(links)
            if nodes.shape[-1]:
                # Projected before they are gathered: n products instead of n·k.
                message = message + here(nodes).unsqueeze(-2) + _neighbours(there(nodes), moments)
            links = torch.tanh(message) * moments.valid[..., None]
            pooled = links.sum(-2) / count
            nodes = torch.tanh(mean(torch.cat([nodes.expand(*pooled.shape[:-1], -1), pooled], dim=-1)))
        raw = self.head(torch.cat([links, nodes.unsqueeze(-2).expand_as(links)], dim=-1))
        return raw if math.isinf(self.bound) else self.bound * torch.tanh(raw / self.bound)

    def _features(self, moments: Moments, x: Tensor | None) -> tuple[Tensor, Tensor]:
        dtype = self.head.weight.dtype
        local = moments.local.to(dtype)
        links = torch.cat([local, torch.linalg.vector_norm(local, dim=-1, keepdim=True)], dim=-1)
        nodes = links.new_zeros(moments.num_nodes, 0)
        if self.positions is not None:
            nodes = moments.cloud.points.to(links) / self.positions
        if self.channels:
            if x is None or x.shape[-1] != self.channels or x.is_complex():
                raise FieldError(
                    f"this correction reads a real field (..., {moments.num_nodes}, {self.channels}), "
                    f"not {None if x is None else tuple(x.shape)}: build it with channels=c, and call operator(x) with the field"
                )
            jumps = moments.differences(x)
            square = jumps.square().sum(-2, keepdim=True) / moments.valid.sum(1).clamp(min=1).to(x)[:, None, None]
            # Where the field is flat, 0/0 is 0; below the root of the smallest number the gradient would overflow.
            some = square > math.sqrt(torch.finfo(x.dtype).tiny)
            jumps = torch.where(some, jumps * torch.rsqrt(torch.where(some, square, 1.0)), 0.0)
            links = torch.cat([links.expand(*jumps.shape[:-1], -1), jumps.to(dtype)], dim=-1)
        return links, nodes


def _neighbours(nodes: Tensor, moments: Moments) -> Tensor:
    there = gather(nodes, moments.neighbours.flatten(), moments.pointers, moments.sources)
    return there.reshape(*nodes.shape[:-2], *moments.neighbours.shape, nodes.shape[-1])
