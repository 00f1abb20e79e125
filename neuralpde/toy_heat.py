"""Heat on grid graphs: the toy experiment of R-UniGraph, its data and its scores."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from neuralpde.metrics import PublishedRayleigh
from operators import Graph, Grid, Laplacian, combinatorial_laplacian

STEP = 0.5
SOURCES = 20
# Trained on x(0) → x(½) → x(1) → x(1½), scored on x(1½) → x(2).
TRAINED_STEPS = 3
FRAMES = 5
SMALLEST = math.ceil(math.sqrt(SOURCES))
# Grids of one side are one graph, so sides are held out, not draws: 6, 9, 12, ...
HELD_OUT_EVERY = 3

Predictor = Callable[["GridHeat", Tensor], Tensor]


def toy_laplacian(graph: Graph) -> Laplacian:
    """L / λ_max of the combinatorial L = D − W: the operator of the truth, of unit norm, with the identity for mass."""
    laplacian = combinatorial_laplacian(graph)
    return Laplacian(laplacian.stiffness * (1 / laplacian.largest_eigenvalue()), laplacian.mass, toy_laplacian)


@dataclass(frozen=True)
class GridHeat:
    """Heat on a grid graph of side × side nodes: x(t) = exp(−t L / λ_max) x(0), x(0) one at 20 random nodes, zero elsewhere.

    Args:
        side: nodes along one axis.
        frames: x(0), x(½), ..., x(2) of K fields, (K, 5, side², 1) in float32.
    """

    side: int
    frames: Tensor

    @cached_property
    def graph(self) -> Graph:
        """Neighbours along the axes, in float32."""
        return grid_graph(self.side)

    @cached_property
    def quotient(self) -> PublishedRayleigh:
        """The Rayleigh quotient of I − D^-½ W D^-½, in float64."""
        return PublishedRayleigh(combinatorial_laplacian(self.graph).to(torch.float64))

    @property
    def held_out(self) -> bool:
        """Whether no method is trained on this graph."""
        return self.side % HELD_OUT_EVERY == 0


def grid_graph(side: int) -> Graph:
    """The graph of a side × side grid, in float32."""
    return Grid((side, side), dtype=torch.float32).graph()


def toy_heat(graphs: int, seed: int) -> list[GridHeat]:
    """So many graphs with a field each, those of one side together, sides ascending.

    The side is N(10, variance 2), rounded, and at least 5, where 20 sources have room. Solved in float64 by eigenvectors.

    Raises:
        ValueError: so few graphs that none, or all, are held out.
    """
    random = np.random.default_rng(seed)
    drawn = np.maximum(np.round(random.normal(10, math.sqrt(2), graphs)), SMALLEST).astype(int)
    items = [_simulated(int(side), int(count), random) for side, count in sorted(Counter(drawn.tolist()).items())]
    if len({item.held_out for item in items}) < 2:
        raise ValueError(f"{graphs} graphs are too few to train on some sides and hold out others: draw 100 at least")
    return items


def _simulated(side: int, count: int, random: np.random.Generator) -> GridHeat:
    start = np.zeros((count, side * side))
    for field in start:
        field[random.choice(side * side, SOURCES, replace=False)] = 1.0
    return GridHeat(side, torch.from_numpy(diffused(side, start, np.arange(FRAMES) * STEP)).float()[..., None])


def diffused(side: int, start: np.ndarray, times: np.ndarray) -> np.ndarray:
    """exp(−t L / λ_max) of fields (K, n) at all times; → (K, times, n), in float64."""
    matrix = combinatorial_laplacian(grid_graph(side)).to(torch.float64).matrix().numpy()
    values, vectors = np.linalg.eigh(matrix)
    decay = np.exp(-np.asarray(times)[:, None] * values / values[-1])
    path: np.ndarray = ((start @ vectors)[:, None] * decay) @ vectors.T
    return path


def parted(items: Iterable[GridHeat]) -> tuple[list[GridHeat], list[GridHeat]]:
    """The graphs to train on, and those held out."""
    items = list(items)
    return [item for item in items if not item.held_out], [item for item in items if item.held_out]


def pairs(item: GridHeat, steps: Sequence[int]) -> tuple[Tensor, Tensor]:
    """(x(t), x(t + ½)) of all fields at the given steps, (K · steps, n, 1) each."""
    chosen = list(steps)
    return item.frames[:, chosen].flatten(0, 1), item.frames[:, [step + 1 for step in chosen]].flatten(0, 1)


@dataclass(frozen=True)
class Score:
    """How far predictions of x(2) from x(1½) are from the truth.

    Args:
        mse: the mean over nodes of the squared error of Re z, z the prediction.
        mre: |mean R(z) − mean R(y)| over graphs, y the truth: as published, of the field before a complex readout.
        readout_mre: the same of Re z, the field that `mse` scores.
    """

    mse: float
    mre: float
    readout_mre: float


def score(items: Sequence[GridHeat], predict: Predictor) -> Score:
    """The scores of x(1½) ↦ x(2), in float64, over all graphs of the items."""
    squared, nodes = 0.0, 0
    quotients: list[tuple[Tensor, Tensor, Tensor]] = []
    with torch.no_grad():
        for item in items:
            x, y = pairs(item, [TRAINED_STEPS])
            z = predict(item, x)
            real = z.real if z.is_complex() else z
            squared += float((real.double() - y.double()).square().sum())
            nodes += y.numel()
            quotients.append((rayleigh(item, z), rayleigh(item, real), rayleigh(item, y)))
    whole, readout, truth = (float(torch.cat(parts).mean()) for parts in zip(*quotients, strict=True))
    return Score(squared / nodes, abs(whole - truth), abs(readout - truth))


def rayleigh(item: GridHeat, x: Tensor) -> Tensor:
    """R(x) = xᴴ (I − D^-½ W D^-½) x / ‖x‖² of every field, real or complex; (..., n, 1) → (...), in float64."""
    parts = torch.view_as_real(x).flatten(-2) if x.is_complex() else x
    return item.quotient(parts.double())


def first(items: Iterable[GridHeat], fields: int) -> list[GridHeat]:
    """The same graphs with so many fields each at most."""
    return [replace(item, frames=item.frames[:fields]) for item in items]
