"""Random periodic functions at the nodes of a mesh of the unit torus, with their Laplacians: an operator test by PhyMPGN."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from scipy.spatial import cKDTree
from torch import Tensor

from neuralpde.files import RunFolderError
from neuralpde.training import generator
from operators import PointCloud, TriangleMesh

NODES, MODES, FUNCTIONS = 983, 12, 10_000
RELAXATIONS = 8
SPREAD = 2.6
"""Of the wave numbers' Gaussian envelope. The paper does not print the amplitudes of its waves: this width gives the cotangent
Laplacian its published relative error, and at unit mean square nearly its published squared error. A Gaussian
envelope is the spectrum of the kernel that `ours` assumes, which favours it."""
SAMPLES = 40
LEAST = 100
MARGIN = 0.2


@dataclass(frozen=True, eq=False)
class Torus:
    """n points of the unit square with opposite sides identified, and copies of them all around.

    Args:
        points: (n, 2), float64, within [0, 1)².
    """

    points: Tensor

    @property
    def num_nodes(self) -> int:
        return len(self.points)

    @cached_property
    def copies(self) -> Tensor:
        """Of which point each point of `padded` is a copy, (N,); the first n are the points themselves."""
        return self._padded[0]

    @cached_property
    def padded(self) -> PointCloud:
        """The points, then their copies up to a margin around the square, (N, 2)."""
        return PointCloud(self._padded[1])

    @cached_property
    def mesh(self) -> TriangleMesh:
        """The Delaunay triangulation of the padded points; its hull is far from the square."""
        return self.padded.triangulated()

    @cached_property
    def edges(self) -> Tensor:
        """Source and target nodes of the edges of the periodic triangulation, both ways, (2, E)."""
        source, target = self.pairs
        return torch.stack([self.copies[source], target])

    @cached_property
    def offsets(self) -> Tensor:
        """x_source − x_target of the edges, as short as in the triangulation, (E, 2)."""
        source, target = self.pairs
        return self.padded.points[source] - self.padded.points[target]

    @cached_property
    def pairs(self) -> Tensor:
        """Source and target of the edges as points of `padded`, the target one of the first n, (2, E)."""
        pairs = self.mesh.graph().edge_index
        return pairs[:, pairs[1] < self.num_nodes]

    @cached_property
    def _padded(self) -> tuple[Tensor, Tensor]:
        index, points = [torch.arange(self.num_nodes)], [self.points]
        for a in (-1.0, 0.0, 1.0):
            for b in (-1.0, 0.0, 1.0):
                moved = self.points + self.points.new_tensor([a, b])
                near = ((moved > -MARGIN) & (moved < 1 + MARGIN)).all(1)
                if a or b:
                    index.append(near.nonzero()[:, 0])
                    points.append(moved[near])
        return torch.cat(index), torch.cat(points)


def relaxed_points(nodes: int, seed: int) -> Torus:
    """Random points moved some times to the middles of their cells (Lloyd), as even as the nodes of a mesh generator."""
    if nodes < LEAST:
        raise RunFolderError(f"{nodes} nodes are too few for a periodic triangulation of a square: give at least {LEAST}")
    random = np.random.default_rng(seed)
    points = random.random((nodes, 2))
    for _ in range(RELAXATIONS):
        samples = random.random((SAMPLES * nodes, 2))
        owner = np.asarray(cKDTree(points, boxsize=np.ones(2)).query(samples)[1])
        away = samples - points[owner]
        away -= np.round(away)
        count = np.bincount(owner, minlength=nodes)[:, None]
        total = np.stack([np.bincount(owner, away[:, a], minlength=nodes) for a in range(2)], axis=1)
        points = (points + total / np.maximum(count, 1)) % 1.0
    return Torus(torch.from_numpy(points))


@dataclass(frozen=True, eq=False)
class PeriodicFunctions:
    """f(x) = Σ_k c_k (a_k cos 2πk·x + b_k sin 2πk·x), integer k ≠ 0 with |k₁|, |k₂| ≤ `modes`, one of each pair ±k.

    a and b are standard normal, c_k ∝ exp(−|k|²/2s²) with s = `spread`, and the mean square of f is one on average.

    Args:
        amplitudes: a c and b c, (functions, 2·waves).
    """

    amplitudes: Tensor
    modes: int = MODES
    spread: float = SPREAD

    def at(self, points: Tensor) -> tuple[Tensor, Tensor]:
        """f and its Laplacian ∂²f/∂x² + ∂²f/∂y² at the points (n, 2), each (functions, n)."""
        waves = wave_numbers(self.modes)
        phase = 2 * math.pi * waves @ points.T
        rate = -((2 * math.pi) ** 2) * waves.square().sum(1)
        table = torch.cat([torch.cos(phase), torch.sin(phase)])
        return self.amplitudes @ table, (self.amplitudes * rate.repeat(2)) @ table

    def part(self, first: int, last: int) -> PeriodicFunctions:
        """The functions from `first` up to `last`."""
        return PeriodicFunctions(self.amplitudes[first:last], self.modes, self.spread)


def wave_numbers(modes: int) -> Tensor:
    """One of each pair ±k of integer wave numbers, without zero, (waves, 2)."""
    axis = torch.arange(-modes, modes + 1, dtype=torch.float64)
    every = torch.cartesian_prod(axis, axis)
    return every[(every[:, 0] > 0) | ((every[:, 0] == 0) & (every[:, 1] > 0))]


def periodic_functions(count: int, seed: int, modes: int = MODES, spread: float = SPREAD) -> PeriodicFunctions:
    """So many functions at random."""
    envelope = torch.exp(-wave_numbers(modes).square().sum(1) / (2 * spread**2)).repeat(2)
    envelope = envelope * (envelope.square().sum() / 2).rsqrt()
    drawn = torch.randn(count, len(envelope), generator=generator(seed, count), dtype=torch.float64)
    return PeriodicFunctions(drawn * envelope, modes, spread)


def relative_error(found: Tensor, truth: Tensor) -> float:
    """‖found − truth‖ / ‖truth‖ over everything."""
    return float(torch.linalg.vector_norm(found - truth) / torch.linalg.vector_norm(truth))
