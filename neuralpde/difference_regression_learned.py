"""The published linear forecast from learned differences (PA-DGN's SDL row), its rollouts bounded."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import torch
from torch import Tensor, nn

from neuralpde.sensor_case import Given, SensorCase
from neuralpde.sensor_gaps import Stepping, time_step
from neuralpde.sensor_method import Forecaster, SensorMethod, Told
from neuralpde.sensor_placement import Placement
from neuralpde.sensor_score import mean_error
from neuralpde.sensor_training import drawn, fit_network, spread_out, training_frames
from operators import PointCloud
from operators.difference_graph import DelaunayEdges, DifferenceGraph, Join, KNearest
from operators.difference_published import PublishedDifference
from operators.graph_network import NetworkShape


class LearnedDifferences(nn.Module):
    """u_i(t + 1) = u_i(t) + Σ_j c_ij a_ij (u_i − b_ij u_j), summed over two sets of (a, b, c) from two graph networks.

    The networks read values and positions and have 60,038 parameters for one channel in the plane, as published. Published
    rollouts reach 10⁶ untrained. Here a step changes no value by more than `change` and leads to none beyond `largest`, whatever
    the weights: increments pass through change · tanh(· / change).

    Args:
        graph: of any placement; it may be stepped on the graph of another.
        channels: c.
        change: the largest increment of a value in a step.
        largest: the largest value.
        plain: start at a = b = 1 and c = 0, no change by plain differences; else at random, as published.

    Source: Seo, Meng and Liu 2020, §3.2; the sizes are their code's.
    """

    def __init__(self, graph: DifferenceGraph, channels: int, change: float, largest: float, plain: bool = False) -> None:
        super().__init__()
        self.differences = PublishedDifference(
            graph, channels, network=NetworkShape(normalised=True), coefficients=3, lengths=False
        )
        self.change, self.largest = change, largest
        if plain:
            for network in (self.differences.of_gradient, self.differences.of_laplacian):
                nn.init.zeros_(network.output.weight)
                with torch.no_grad():
                    network.output.bias.copy_(torch.tensor([1.0, 1.0, 0.0]).repeat_interleave(channels))

    def increment(self, now: Tensor, graph: DifferenceGraph) -> Tensor:
        """What is added to a frame (..., n, c) in one step, before it is bounded."""
        pattern = graph.pattern
        nodes = torch.cat([now, graph.points.expand(*now.shape[:-1], -1)], dim=-1)
        here, there = pattern.gather_rows(now), pattern.gather_columns(now)
        total = torch.zeros_like(here)
        for network in (self.differences.of_gradient, self.differences.of_laplacian):
            a, b, c = network(nodes, None, pattern).unflatten(-1, (3, now.shape[-1])).unbind(-2)
            total = total + c * a * (here - b * there)
        return pattern.sum_rows(total)

    def forward(self, now: Tensor, steps: int, graph: DifferenceGraph) -> Tensor:
        """A frame (K, n, c) → the next (K, steps, n, c)."""
        path = []
        for _ in range(steps):
            added = self.increment(now, graph)
            now = (now + self.change * torch.tanh(added / self.change)).clamp(-self.largest, self.largest)
            path.append(now)
        return torch.stack(path, dim=1)


@dataclass(frozen=True, eq=False)
class Surroundings:
    """Placements as graphs whose positions are relative to those of the training placements.

    Args:
        centre: (d,) their mean.
        scale: their root mean square distance from it.
        join: which sensors are neighbours.
    """

    centre: Tensor
    scale: float
    join: Join

    @classmethod
    def of(cls, placements: Sequence[Placement], join: Join) -> Surroundings:
        """What is learned from the training placements."""
        points = torch.cat([placement.cloud.points for placement in placements])
        centre = points.mean(0)
        return cls(centre, float((points - centre).square().sum(1).mean().sqrt()), join)

    def graph(self, placement: Placement) -> DifferenceGraph:
        """A placement's graph, in float32."""
        return DifferenceGraph(PointCloud((placement.cloud.points - self.centre) / self.scale), self.join).float()


@dataclass(frozen=True)
class LearnedDifferenceRegression(SensorMethod):
    """`LearnedDifferences` on the graph of nearest neighbours, trained on the next `unrolled` frames.

    Args:
        steps: of Adam.
        learning_rate: at the start.
        batch: windows in each.
        unrolled: frames forecast from each; training through all of them costs as many times more.
        neighbours: k.
    """

    name: ClassVar[str] = "sdl"
    plain: ClassVar[bool] = False
    """Whether it starts at plain differences, not at random."""

    steps: int = 100
    learning_rate: float = 1e-3
    batch: int = 4
    unrolled: int = 3
    neighbours: int = 4

    def join(self) -> Join:
        """Which sensors are neighbours."""
        return KNearest(self.neighbours)

    def fit(
        self, train: Sequence[SensorCase], validation: Sequence[SensorCase], seed: int, checkpoint: Path, told: Told
    ) -> Forecaster:
        step = time_step(train)
        frames = training_frames(train, step)
        surroundings = Surroundings.of([case.placement for case in train], self.join())
        graphs = [surroundings.graph(case.placement) for case in train]
        change = 2 * max(float(one.diff(dim=1).abs().max()) for one in frames)
        largest = 2 * max(float(one.abs().max()) for one in frames)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            model = LearnedDifferences(graphs[0], frames[0].shape[-1], change, largest, self.plain)
        forecaster = LearnedForecaster(step, model, surroundings)
        cases = spread_out(validation, 6)
        count = frames[0].shape[1]
        ahead = min(self.unrolled, count - 1)

        def loss(number: int, random: torch.Generator) -> Tensor:
            place, windows = drawn(frames, self.batch, random)
            first = int(torch.randint(count - ahead, (), generator=random))
            path: Tensor = model(windows[:, first], ahead, graphs[place])
            return (path - windows[:, first + 1 : first + 1 + ahead]).square().mean()

        fit_network(
            model,
            loss,
            lambda: mean_error(forecaster, cases),
            steps=self.steps,
            learning_rate=self.learning_rate,
            checkpoint=checkpoint,
            seed=seed,
            told=told,
            notes={"method": repr(self)},
            every=max(1, self.steps // 5),
        )
        return forecaster


@dataclass(frozen=True)
class LearnedDelaunayRegression(LearnedDifferenceRegression):
    """The same on the Delaunay graph (their Table 5, TriMesh)."""

    name: ClassVar[str] = "sdl-delaunay"

    def join(self) -> Join:
        return DelaunayEdges()


@dataclass(frozen=True)
class PlainStartRegression(LearnedDifferenceRegression):
    """The same, started at plain differences: trained briefly it gets further than from a random start."""

    plain: ClassVar[bool] = True


@dataclass(frozen=True)
class PlainStartDelaunayRegression(LearnedDelaunayRegression):
    """That on the Delaunay graph."""

    plain: ClassVar[bool] = True


class LearnedForecaster(Stepping):
    """Trained learned differences, on the graph of whatever placement is given."""

    def __init__(self, step: float, model: LearnedDifferences, surroundings: Surroundings) -> None:
        super().__init__(step, lags=1)
        self.model, self.surroundings = model, surroundings

    @property
    def parameters(self) -> int:
        return sum(one.numel() for one in self.model.parameters())

    def roll(self, frames: Tensor, steps: int, given: Given) -> Tensor:
        path: Tensor = self.model(frames[:, -1], steps, self.surroundings.graph(given.placement))
        return path
