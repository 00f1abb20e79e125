"""A graph network without memory: the change of every sensor's value is what its edges carry to it."""

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
from operators.difference_graph import DifferenceGraph, KNearest
from operators.graph_network import GraphNetwork, NetworkShape


class GraphStep(nn.Module):
    """u_i(t + 1) = u_i(t) + Σ_j e_ij / |N(i)|, e_ij the graph network's value of the edge from u(t), u(t - 1) and its length.

    It starts as persistence.

    Args:
        channels: c.
        width: of the hidden features.
    """

    def __init__(self, channels: int, width: int) -> None:
        super().__init__()
        self.network = GraphNetwork(2 * channels, 1, channels, NetworkShape(width=width))
        nn.init.zeros_(self.network.output.weight)
        nn.init.zeros_(self.network.output.bias)

    def forward(self, frames: Tensor, steps: int, graph: DifferenceGraph) -> Tensor:
        """frames (K, w, n, c) → the next (K, steps, n, c)."""
        now, before, path = frames[:, -1], frames[:, max(0, frames.shape[1] - 2)], []
        lengths = (graph.lengths / graph.lengths.mean().clamp(min=1e-12))[:, None].to(frames)
        pattern = graph.pattern
        degrees = pattern.sum_rows(torch.ones_like(lengths)).clamp(min=1)
        for _ in range(steps):
            carried = self.network(torch.cat([now, before], dim=-1), lengths, pattern)
            now, before = now + pattern.sum_rows(carried) / degrees, now
            path.append(now)
        return torch.stack(path, dim=1)


class _Graphwise(Stepping):
    """A trained `GraphStep`, on the graph of whatever placement is given."""

    def __init__(self, step: float, network: GraphStep, neighbours: int) -> None:
        super().__init__(step, lags=2)
        self.network, self.neighbours = network, neighbours
        self._graph: tuple[Placement, DifferenceGraph] | None = None

    @property
    def parameters(self) -> int:
        return sum(one.numel() for one in self.network.parameters())

    def graph(self, placement: Placement) -> DifferenceGraph:
        """The sensors and their nearest."""
        if self._graph is None or self._graph[0] is not placement:
            self._graph = placement, DifferenceGraph(placement.cloud, KNearest(self.neighbours))
        return self._graph[1]

    def roll(self, frames: Tensor, steps: int, given: Given) -> Tensor:
        path: Tensor = self.network(frames, steps, self.graph(given.placement))
        return path


@dataclass(frozen=True)
class Gn(SensorMethod):
    """`GraphStep`, trained on the mean square error of the whole forecast.

    Args:
        steps: of Adam, with a cosine schedule. learning_rate: at the start.
        windows: in a training step, fewer where sensors times leads are more than `rows` / windows.
        rows: sensors times leads times windows of a step, at most.
        width: of the hidden features.
        neighbours: of a sensor, before the graph is made symmetric.
    """

    name: ClassVar[str] = "gn"

    steps: int = 120
    learning_rate: float = 3e-3
    windows: int = 8
    rows: int = 4000
    width: int = 64
    neighbours: int = 4

    def fit(
        self, train: Sequence[SensorCase], validation: Sequence[SensorCase], seed: int, checkpoint: Path, told: Told
    ) -> Forecaster:
        torch.manual_seed(seed)
        step, given = time_step(train), train[0].given
        network = GraphStep(train[0].values.shape[-1], self.width)
        forecaster = _Graphwise(step, network, self.neighbours)
        graphs = [DifferenceGraph(case.placement.cloud, KNearest(self.neighbours)) for case in train]
        frames, cases = training_frames(train, step), spread_out(validation, 32)
        largest = max(case.placement.num_nodes * case.horizon for case in train)
        windows = max(1, min(self.windows, self.rows // largest))

        def loss(_: int, random: torch.Generator) -> Tensor:
            place, batch = drawn(frames, windows, random)
            path = network(batch[:, :given], batch.shape[1] - given, graphs[place])
            value: Tensor = (path - batch[:, given:]).square().mean()
            return value

        fit_network(
            network,
            loss,
            lambda: mean_error(forecaster, cases),
            steps=self.steps,
            learning_rate=self.learning_rate,
            checkpoint=checkpoint,
            seed=seed,
            told=told,
            notes={"method": repr(self)},
        )
        return forecaster
