"""The recurrent graph networks as rows of the sensor tables: rgn, rgn-standard-op, rgn-mesh-op and pa-dgn."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import torch
from torch import Tensor

from neuralpde.pa_dgn import PADGN, RGN, GraphDynamics, RGNMeshOP, RGNStandardOP, SensorGraph
from neuralpde.sensor_case import Given, SensorCase
from neuralpde.sensor_gaps import Stepping, time_step
from neuralpde.sensor_method import Forecaster, SensorMethod, Told
from neuralpde.sensor_placement import Placement
from neuralpde.sensor_score import mean_error
from neuralpde.sensor_training import drawn, fit_network, spread_out, training_frames
from operators import PointCloud, SparsityPattern
from operators.mesh_difference import MeshDifference


@dataclass(frozen=True, eq=False)
class Surroundings:
    """Placements as graphs: k nearest neighbours, and positions relative to those of the training placements.

    Args:
        centre: (p,) their mean.
        scale: their root mean square distance from it.
        k: neighbours.
        triangulated: whether a Delaunay triangulation is needed.
    """

    centre: Tensor
    scale: float
    k: int
    triangulated: bool

    @classmethod
    def of(cls, placements: Sequence[Placement], k: int, triangulated: bool) -> Surroundings:
        """What is learned from the training placements."""
        points = torch.cat([one.cloud.points for one in placements])
        centre = points.mean(0)
        return cls(centre, float((points - centre).square().sum(1).mean().sqrt()), k, triangulated)

    def graph(self, placement: Placement) -> SensorGraph:
        """A placement's graph, in float32."""
        n = placement.num_nodes
        source, target = placement.graph(self.k).edge_index
        positions = ((placement.cloud.points - self.centre) / self.scale).float()
        mesh = None
        if self.triangulated:
            distances = placement.distances(torch.stack([source, target]))
            mesh = MeshDifference(PointCloud(placement.plane / distances.median())).float()
        return SensorGraph(SparsityPattern(target, source, (n, n)), positions, mesh)


class _Rollout(Stepping):
    """A trained network."""

    def __init__(self, step: float, lags: int, network: GraphDynamics, surroundings: Surroundings) -> None:
        super().__init__(step, lags)
        self.network, self.surroundings = network, surroundings
        self._graphs: dict[Placement, SensorGraph] = {}

    @property
    def parameters(self) -> int:
        return sum(one.numel() for one in self.network.parameters())

    def roll(self, frames: Tensor, steps: int, given: Given) -> Tensor:
        if given.placement not in self._graphs:
            self._graphs[given.placement] = self.surroundings.graph(given.placement)
        graph = self._graphs[given.placement]
        path = [self.network(some, steps, graph)[:, -steps:] for some in torch.split(frames, 32)]
        return torch.cat(path)


def scheduled_share(epoch: float, coefficient: float = 107) -> float:
    """p = k / (k + exp(epoch / k)), the share of true frames in training: near 1 at first, ½ at epoch k log k = 500.

    Source: Bengio, Vinyals, Jaitly and Shazeer 2015, section 2.4; k of Seo, Meng and Liu 2020, appendix A.2.2.
    """
    return coefficient / (coefficient + math.exp(min(epoch / coefficient, 700)))


@dataclass(frozen=True)
class GraphDynamicsMethod(SensorMethod):
    """A recurrent graph network; its loss is the mean square error of all frames after the first, as in the paper.

    Args:
        steps: of Adam, with a cosine schedule. The authors' schedule of 2,000 epochs is run through in as many.
        learning_rate: at the start.
        windows: in a training step.
        weight_decay: λ of λ/2 |θ|².
        neighbours: k of the graph.
        positions: whether it is told the sensors' positions; the authors tell them to PA-DGN only.
    """

    steps: int = 60
    learning_rate: float = 3e-3
    windows: int = 8
    weight_decay: float = 5e-4
    neighbours: int = 4
    positions: bool = True

    triangulated: ClassVar[bool] = False

    @abstractmethod
    def network(self, channels: int, positions: int) -> GraphDynamics:
        """The network, with weights from torch's generator."""

    def fit(
        self, train: Sequence[SensorCase], validation: Sequence[SensorCase], seed: int, checkpoint: Path, told: Told
    ) -> Forecaster:
        torch.manual_seed(seed)
        step, given = time_step(train), train[0].given
        surroundings = Surroundings.of([case.placement for case in train], self.neighbours, self.triangulated)
        network = self.network(train[0].values.shape[-1], len(surroundings.centre) if self.positions else 0)
        # Far outside of all that was seen in training, so that a network is only kept from leaving for ever.
        largest = max((float(case.values[case.seen].abs().max()) for case in train if bool(case.seen.any())), default=0.0)
        network.bound = 4 * largest or math.inf
        forecaster = _Rollout(step, given, network, surroundings)
        graphs = [surroundings.graph(case.placement) for case in train]
        frames, cases = training_frames(train, step), spread_out(validation, 16)
        learned = [weight for weight in network.parameters() if weight.requires_grad]

        def loss(step: int, random: torch.Generator) -> Tensor:
            place, batch = drawn(frames, self.windows, random)
            horizon = batch.shape[1] - given
            share = scheduled_share(2000 * step / self.steps)
            keep = (torch.rand(horizon, generator=random) < share).tolist()
            forced = [batch[:, given + k] if keep[k] else None for k in range(horizon - 1)]
            path = network(batch[:, :given], horizon, graphs[place], forced)
            decay = sum(weight.square().sum() for weight in learned)
            value: Tensor = (path - batch[:, 1:]).square().mean() + self.weight_decay / 2 * decay
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
            every=10,
        )
        return forecaster


@dataclass(frozen=True)
class RecurrentGraphMethod(GraphDynamicsMethod):
    """`RGN`, trained."""

    name: ClassVar[str] = "rgn"

    width: int = 73

    def network(self, channels: int, positions: int) -> GraphDynamics:
        return RGN(channels, positions, self.width)


@dataclass(frozen=True)
class StandardRecurrentGraphMethod(GraphDynamicsMethod):
    """`RGNStandardOP`, trained."""

    name: ClassVar[str] = "rgn-standard-op"

    width: int = 73

    def network(self, channels: int, positions: int) -> GraphDynamics:
        return RGNStandardOP(channels, positions, self.width)


@dataclass(frozen=True)
class MeshRecurrentGraphMethod(GraphDynamicsMethod):
    """`RGNMeshOP`, trained."""

    name: ClassVar[str] = "rgn-mesh-op"
    triangulated: ClassVar[bool] = True

    width: int = 73

    def network(self, channels: int, positions: int) -> GraphDynamics:
        return RGNMeshOP(channels, positions, self.width)


@dataclass(frozen=True)
class PADGNMethod(GraphDynamicsMethod):
    """`PADGN`, trained."""

    name: ClassVar[str] = "pa-dgn"

    width: int = 64
    differences: int = 16

    def network(self, channels: int, positions: int) -> GraphDynamics:
        return PADGN(channels, positions, self.differences, self.width)
