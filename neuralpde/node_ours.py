"""Our two methods: random propagation along the graph's walk, and flow by kernels of features and positions before training.

Neither has learned attention: A is fixed before training, by the graph alone or by its features and positions, and does not
depend on the state that flows. What is learned is the encoder and the decoder. Beltrami flow with learned A is in `node_methods`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from integrators import Direct, Exponential
from neuralpde.beltrami import BeltramiFlow
from neuralpde.node_data import Features, NodeData, row_normalised
from neuralpde.node_methods import Method, Prepared
from neuralpde.node_models import NodeModel, check_positions
from neuralpde.node_positions import Positions, positions_of
from neuralpde.node_propagation import Perceptron, RandomPropagation, SymmetricFlow
from operators import Graph
from operators.diffusivity import FixedDiffusivity

# A few dozen small fields: keeping them costs less than computing them again for the gradient.
SOLVER = Exponential(tol=1e-3, gradient=Direct())


@dataclass(frozen=True)
class Propagation(Method):
    """z' = (S − I) z + β z(0) with a fixed S on the graph's edges, trained by random propagation.

    S is the graph's own walk, or that of exponential kernels k_ij = exp(p cos(x_i, x_j)) of `rare_words` x, and may hold the
    nearest nodes in them beside the edges: the diffusivity and the rewiring of the paper, with nothing learned in them.

    Args:
        time: T.
        source: β.
        sharpness: p; 0 for the graph's own weights.
        near: how many nearest nodes in features to join each node with.
        near_weight: the weight of such an edge, where those of the graph have mean one.
        normalised: whether the features of a node sum to one, else they are as they come.
        channels: of the flowing field.
        drop_nodes: the probability that a node's features are left out of a draw.
        input_dropout, dropout: the probabilities before the encoder and before the decoder.
        self_loops: the weight of a node in its own average.
    """

    time: float = 8.0
    source: float = 1.0
    sharpness: float = 0.0
    near: int = 0
    near_weight: float = 0.3
    normalised: bool = True
    channels: int = 32
    drop_nodes: float = 0.5
    input_dropout: float = 0.5
    dropout: float = 0.5
    self_loops: float = 1.0

    def prepare(self, data: NodeData, cache: Path | None = None) -> Prepared:
        graph = data.graph
        if self.sharpness or self.near:
            words = rare_words(data.features)
            graph = joined(kernel_weighted(graph, [(words, self.sharpness)]), nearest(words, self.near), self.near_weight)
        return Prepared(replace(data, graph=graph, features=row_normalised(data.features) if self.normalised else data.features))

    def build(self, given: Prepared) -> NodeModel:
        walk = FixedDiffusivity(given.data.graph, self_loops=self.self_loops)
        flow = BeltramiFlow(walk, rate=1.0, source=self.source, frozen=True)
        symmetric = SymmetricFlow(flow.requires_grad_(False), self.time, SOLVER)
        return RandomPropagation(given.data, symmetric, self.channels, self.drop_nodes, self.input_dropout, self.dropout)


@dataclass(frozen=True)
class KernelFlow(Method):
    """z' = (S − I) z by exponential kernels on the edges, k_ij = exp(p cos(x_i − x̄, x_j − x̄) + q cos(u_i, u_j)).

    Between unit vectors each factor is, up to a constant, an exponential kernel of length scale 1/√p or 1/√q. The kernels are
    of what is given, not of what is learned, so features and positions flow once, before training. What has flowed is scaled,
    each node's features to length √d and its positions to `position_weight` √d, and read by a perceptron of one hidden layer.

    Args:
        time: T.
        feature_sharpness, position_sharpness: p and q.
        feature_rank: features are reduced to so many leading singular vectors; None for none.
        positions: None for none.
        position_weight: the length of positions beside that of features.
        channels: of the hidden layer.
        input_dropout, dropout: the probabilities before and after it.
        self_loops: the weight of a node in its own average, where kernels have mean one.
    """

    time: float = 1.0
    feature_sharpness: float = 3.0
    position_sharpness: float = 0.0
    feature_rank: int | None = None
    positions: Positions | None = None
    position_weight: float = 1.0
    channels: int = 64
    input_dropout: float = 0.3
    dropout: float = 0.5
    self_loops: float = 1.0

    def prepare(self, data: NodeData, cache: Path | None = None) -> Prepared:
        x = unit_features(data.features, self.feature_rank)
        parts = [(x, 1.0)]
        if self.positions is not None:
            u = check_positions(positions_of(self.positions, data.graph, cache), data)
            parts.append((F.normalize(dense(u), dim=1), self.position_weight))
        flow = BeltramiFlow(FixedDiffusivity(self.weighted(data.graph, parts), self_loops=self.self_loops), rate=1.0, frozen=True)
        symmetric = SymmetricFlow(flow, self.time, SOLVER)
        with torch.no_grad():
            flown = [weight * math.sqrt(part.shape[1]) * F.normalize(symmetric(part), dim=1) for part, weight in parts]
        return Prepared(data, torch.cat(flown, dim=1), symmetric.nfe)

    def weighted(self, graph: Graph, parts: list[tuple[Tensor, float]]) -> Graph:
        """The graph with the kernels as weights, of mean one; features are compared after their mean is subtracted."""
        centred = F.normalize(parts[0][0] - parts[0][0].mean(0), dim=1)
        fields = [centred, *(part for part, _ in parts[1:])]
        return kernel_weighted(graph, list(zip(fields, (self.feature_sharpness, self.position_sharpness), strict=False)))

    def build(self, given: Prepared) -> NodeModel:
        fields = dense(given.fields)
        return Perceptron(fields, given.data.classes, self.channels, self.input_dropout, self.dropout, given.nfe)


def kernel_weighted(graph: Graph, fields: Sequence[tuple[Tensor, float]]) -> Graph:
    """The graph with the weights exp(Σ p x_i · x_j), of mean one, for fields x (n, c) of unit rows and their sharpness p."""
    source, target = graph.edge_index
    score = torch.zeros(len(source))
    for field, sharpness in fields:
        if sharpness:
            ends = zip(source.split(50_000), target.split(50_000), strict=True)
            score += sharpness * torch.cat([(field[i] * field[j]).sum(1) for i, j in ends])
    kernel = score.exp()
    return Graph(graph.edge_index, graph.nodes, kernel / kernel.mean() if len(kernel) else kernel)


def rare_words(features: Features) -> Tensor:
    """Which words a node has, weighed by log(n / how many nodes have it), with rows of length one: (n, d), dense."""
    there = (dense(features) > 0).float()
    return F.normalize(there * (len(there) / there.sum(0).clamp(min=1)).log(), dim=1)


def nearest(x: Tensor, count: int) -> Tensor:
    """The pairs (2, E) of each row of x (n, d), of length one, and the `count` others with the largest x_i · x_j > 0."""
    pairs = [torch.empty(2, 0, dtype=torch.int64)]
    for first in range(0, len(x) if count else 0, 1024):
        rows = torch.arange(first, min(first + 1024, len(x)))
        similar = x[rows] @ x.T
        similar[torch.arange(len(rows)), rows] = -1
        value, place = similar.topk(min(count, len(x) - 1), dim=1)
        pairs.append(torch.stack([rows[:, None].expand_as(place), place])[:, value > 0])
    return torch.cat(pairs, dim=1)


def joined(graph: Graph, pairs: Tensor, weight: float) -> Graph:
    """The graph with further edges, of half the weight in each direction."""
    edges = torch.cat([graph.edge_index, pairs, pairs.flip(0)], dim=1)
    added = graph.edge_weight.new_full((2 * pairs.shape[1],), weight / 2)
    return Graph(edges, graph.nodes, torch.cat([graph.edge_weight, added]))


def dense(features: Features | None) -> Tensor:
    """The features as a dense tensor."""
    if features is None:
        raise TypeError("these data were not prepared by this method")
    return features if isinstance(features, Tensor) else torch.from_numpy(features.to_scipy().astype(np.float32).toarray())


def unit_features(features: Features, rank: int | None, seed: int = 0) -> Tensor:
    """Rows of length one, (n, d), or their coordinates (n, rank) along the leading right singular vectors.

    By subspace iteration (Halko, Martinsson and Tropp 2011, SIAM Review 53, alg. 4.4): three passes, 20 vectors to spare.
    """
    matrix = features.numpy() if isinstance(features, Tensor) else features.to_scipy().astype(np.float32)
    squares = matrix * matrix if isinstance(matrix, np.ndarray) else matrix.multiply(matrix)
    length = np.sqrt(np.asarray(squares.sum(1)).reshape(-1, 1)).clip(min=1e-12)
    if rank is None or rank + 20 >= min(features.shape):
        return F.normalize(dense(features), dim=1)
    unit = matrix / length if isinstance(matrix, np.ndarray) else matrix.multiply(1 / length).tocsr()
    basis = np.random.RandomState(seed).randn(features.shape[1], rank + 20).astype(np.float32)
    for _ in range(3):
        basis = np.linalg.qr(unit.T @ (unit @ basis))[0]
    left = unit @ basis
    _, vectors = np.linalg.eigh(left.T @ left)
    return torch.from_numpy(np.ascontiguousarray(left @ vectors[:, ::-1][:, :rank]).astype(np.float32))
