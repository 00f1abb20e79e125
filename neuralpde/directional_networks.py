"""The learned rows of PA-DGN's table of directional derivatives: MLP, GN, one weight an edge, and the difference layer."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from neuralpde.directional import DirectionalTask, Split
from neuralpde.directional_method import DirectionalMethod, Estimator, Told
from neuralpde.sensor_training import fit_network
from operators.kernels import segment_sum
from operators.pattern import SparsityPattern

DECAY = 5e-4


class EdgeNetworks(nn.Module):
    """Several graph networks of one hop side by side, evaluated on some of the edges.

    Each is `GraphNetwork(3, 1, 1, NetworkShape(width, layers=1, both_ways=False, context=width))`. Trained on few edges at a
    time, all of it but the last update is needed at every edge; that one, the largest, only at those few. The context is zero at
    first, so nothing learns from it there.

    Args:
        count: networks.
        width: of every hidden feature.

    Source: Seo, Meng and Liu 2020, §3.1; Battaglia et al. 2018.
    """

    def __init__(self, count: int, width: int) -> None:
        super().__init__()
        self.count, self.width = count, width

        def drawn(inputs: int, *shape: int) -> nn.Parameter:
            return nn.Parameter((2 * torch.rand(shape) - 1) / math.sqrt(inputs))

        w = width
        # Counted with those inputs that are zero at first: the context.
        edge, node = 7 + w, 3 + 2 * w
        self.edge, self.edge_bias = drawn(edge, 7, count * w), drawn(edge, count * w)
        self.node, self.received = drawn(node, 3, count * w), drawn(node, count, w, w)
        self.node_bias = drawn(node, count * w)
        self.context, self.context_bias = drawn(3 * w, count, 2 * w, w), drawn(3 * w, count, 1, w)
        self.last, self.last_bias = drawn(4 * w, count, 4 * w, w), drawn(4 * w, count, 1, w)
        self.out, self.out_bias = drawn(w, count, w, 1), drawn(w, count, 1, 1)

    def forward(self, edges: _Edges, chosen: Tensor | None = None) -> Tensor:
        """Of the chosen edges, or of all: (count, E)."""
        pattern = edges.pattern
        links = F.relu(torch.addmm(self.edge_bias, edges.features, self.edge))
        received = self._apart(segment_sum(links, pattern.row, pattern.crow, None))
        nodes = F.relu(torch.addmm(self.node_bias, edges.nodes, self.node) + self._joined(received @ self.received))
        means = torch.cat([self._apart(nodes.mean(0, keepdim=True)), self._apart(links.mean(0, keepdim=True))], dim=-1)
        context = F.relu(torch.baddbmm(self.context_bias, means, self.context))
        row, column = pattern.row, pattern.col
        if chosen is not None:
            links, row, column = links[chosen], row[chosen], column[chosen]
        read = [self._apart(nodes[row]), self._apart(nodes[column]), self._apart(links)]
        hidden = F.relu(torch.baddbmm(self.last_bias, torch.cat([*read, context.expand(-1, len(row), -1)], dim=-1), self.last))
        return torch.baddbmm(self.out_bias, hidden, self.out)[..., 0]

    def _apart(self, x: Tensor) -> Tensor:
        """(m, count·w) → (count, m, w)."""
        return x.reshape(len(x), self.count, self.width).transpose(0, 1)

    def _joined(self, x: Tensor) -> Tensor:
        return x.transpose(0, 1).reshape(x.shape[1], -1)


class _Edges:
    """What the networks read of a task, in float32, the edges in the order of a pattern with row receiver, column sender."""

    def __init__(self, task: DirectionalTask) -> None:
        sender, receiver = task.graph.edge_index
        self.pattern = SparsityPattern(receiver, sender, (task.graph.nodes, task.graph.nodes))
        order = self.pattern.order
        self.place = torch.empty_like(order)
        self.place[order] = torch.arange(len(order))
        self.nodes = torch.cat([task.cloud.points, task.values[:, None]], dim=1).float()
        at_receiver, at_sender = self.nodes[self.pattern.row], self.nodes[self.pattern.col]
        self.features = torch.cat([at_receiver, at_sender, task.lengths[order, None].float()], dim=1)
        self.sent, self.received = at_sender[:, 2], at_receiver[:, 2]


class EdgeModel(nn.Module):
    """A slope for each edge of a task."""

    def forward(self, edges: _Edges, chosen: Tensor | None = None) -> Tensor:
        """Of the chosen edges, or of all, in the pattern's order; (E,)."""
        raise NotImplementedError


class _Perceptron(EdgeModel):
    """(x_i, f_i, x_j, f_j) ↦ the slope."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(6, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU(), nn.Linear(width, 1))

    def forward(self, edges: _Edges, chosen: Tensor | None = None) -> Tensor:
        read = edges.features[:, :6] if chosen is None else edges.features[chosen, :6]
        result: Tensor = self.layers(read)[:, 0]
        return result


class _Direct(EdgeModel):
    """The network's output is the slope."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.networks = EdgeNetworks(1, width)

    def forward(self, edges: _Edges, chosen: Tensor | None = None) -> Tensor:
        result: Tensor = self.networks(edges, chosen)[0]
        return result


class _OneWeight(_Direct):
    """w_ij f_j − f_i."""

    def forward(self, edges: _Edges, chosen: Tensor | None = None) -> Tensor:
        sent, received = _ends(edges, chosen)
        return super().forward(edges, chosen) * received - sent


class _TwoWeights(EdgeModel):
    """w1_ij (f_j − w2_ij f_i), eq. 1."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.networks = EdgeNetworks(2, width)

    def forward(self, edges: _Edges, chosen: Tensor | None = None) -> Tensor:
        sent, received = _ends(edges, chosen)
        first, second = self.networks(edges, chosen)
        result: Tensor = first * (received - second * sent)
        return result


def _ends(edges: _Edges, chosen: Tensor | None) -> tuple[Tensor, Tensor]:
    return (edges.sent, edges.received) if chosen is None else (edges.sent[chosen], edges.received[chosen])


@dataclass(frozen=True)
class EdgeLearner(DirectionalMethod):
    """A network trained on the slopes of some edges at a time, with the weight decay of the paper; kept where it validates best.

    The paper takes 1,000 epochs of batches of 16 edges at a constant rate 1e-3. A larger batch and a rate that starts higher
    and falls get as far in a fifth of the steps.

    Args:
        steps: of Adam.
        learning_rate: at the start, it falls to a hundredth.
        batch: edges a step.
        width: of every hidden layer.
    """

    steps: int = 8000
    learning_rate: float = 6e-3
    batch: int = 64
    width: int = 64

    def model(self) -> EdgeModel:
        """The network, at random."""
        raise NotImplementedError

    def fit(self, task: DirectionalTask, split: Split, seed: int, checkpoint: Path, told: Told) -> Estimator:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            model = self.model()
        edges = _Edges(task)
        slopes = task.slopes[edges.pattern.order].float()
        train, validation = edges.place[split.train], edges.place[split.validation]

        def loss(step: int, random: torch.Generator) -> Tensor:
            chosen = train[torch.randint(len(train), (self.batch,), generator=random)]
            decay = torch.stack(torch._foreach_norm(list(model.parameters()))).square().sum() * (DECAY / 2)
            misfit: Tensor = (model(edges, chosen) - slopes[chosen]).square().mean()
            return misfit + decay

        def validate() -> float:
            with torch.no_grad():
                return float((model(edges, validation) - slopes[validation]).square().mean())

        fit_network(
            model,
            loss,
            validate,
            steps=self.steps,
            learning_rate=self.learning_rate,
            checkpoint=checkpoint,
            seed=seed,
            told=told,
            notes={"method": repr(self)},
            every=max(1, self.steps // 20),
        )
        return _Learned(model)


class _Learned(Estimator):
    def __init__(self, model: EdgeModel) -> None:
        self.model = model

    @property
    def parameters(self) -> int:
        return sum(each.numel() for each in self.model.parameters())

    def estimate(self, task: DirectionalTask) -> Tensor:
        edges = _Edges(task)
        slopes: Tensor = self.model(edges)
        return slopes[edges.place]


@dataclass(frozen=True)
class Mlp(EdgeLearner):
    """A perceptron that reads both ends of an edge: positions and values."""

    name: ClassVar[str] = "mlp"

    def model(self) -> EdgeModel:
        return _Perceptron(self.width)


@dataclass(frozen=True)
class GraphNet(EdgeLearner):
    """A graph network whose output on an edge is the slope."""

    name: ClassVar[str] = "gn"

    def model(self) -> EdgeModel:
        return _Direct(self.width)


@dataclass(frozen=True)
class OneWeight(EdgeLearner):
    """w_ij f_j − f_i, the weight from a graph network."""

    name: ClassVar[str] = "one-w"

    def model(self) -> EdgeModel:
        return _OneWeight(self.width)


@dataclass(frozen=True)
class DifferenceLayer(EdgeLearner):
    """The spatial difference layer as published: w1_ij (f_j − w2_ij f_i), each weight from a graph network."""

    name: ClassVar[str] = "sdl"

    def model(self) -> EdgeModel:
        return _TwoWeights(self.width)
