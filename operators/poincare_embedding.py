"""Poincaré embeddings: a graph's hierarchy laid out in hyperbolic space, where trees fit."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import torch
from torch import Tensor

from operators.checks import DomainError, is_integer
from operators.domains import Graph
from operators.position_space import PoincareBall
from operators.progress import shown

BALL = PoincareBall()
# Updates an epoch on a large graph, the fewest edges of one on a small graph, and the most coordinates of one on a huge graph.
STEPS, FEWEST, COORDINATES = 20, 128, 8_000_000
DECAY = 0.9


@dataclass(frozen=True)
class PoincareEmbedding:
    """Positions u_i in the Poincaré ball, in which neighbours are nearer than strangers.

    Minimises, by Riemannian gradient descent along geodesics,

        Σ_{edges i → j} −w_ij log( e^−d(u_i, u_j) / (e^−d(u_i, u_j) + Σ_m e^−d(u_i, u_m)) ),

    with `negatives` random nodes m for each edge. A node's step is its gradient divided by the root mean square of its recent
    lengths in the metric, so that `rate` is the hyperbolic length of a step.

    Args:
        dimensions: d, 2 to 16 as a rule.
        epochs: passes over the edges.
        negatives: strangers for each edge.
        rate: the length of a step; a tenth of it in the first tenth of the steps, then falling linearly to zero.
        margin: |u| ≤ 1 − margin. 1e-5 lies 12 from the origin, where float32 still tells distances to a percent.
        seed: of start, order and strangers; torch's global generator stays untouched.
        progress: whether a bar shows on standard error. It takes no part in comparisons.

    `PoincareEmbedding(2)(graph)` gives (n, d) on the graph's device, in its precision (computed in float64), with |u| < 1. In a
    directed graph the edge i → j names j as i's neighbour only. Self-loops say nothing; a node without other edges stays at
    the origin.

    Good values: the defaults on thousands of edges. A small graph makes few steps an epoch: some 500 epochs lay a binary tree of
    31 nodes into the disc so that distances follow those of the tree. A larger rate spreads further out, which ranks neighbours
    better and helps a linear classifier less.

    Raises:
        DomainError: settings out of range, negative weights, or a graph without edges.

    Source: M. Nickel, D. Kiela, Poincaré embeddings for learning hierarchical representations, NeurIPS 2017, eqs. 1, 4, 5.
    """

    dimensions: int = 16
    epochs: int = 50
    negatives: int = 10
    rate: float = 0.05
    margin: float = 1e-5
    seed: int = 0
    progress: bool = field(default=True, compare=False)

    def __post_init__(self) -> None:
        for name in ("dimensions", "epochs", "negatives"):
            value = getattr(self, name)
            if not is_integer(value) or value < 1:
                raise DomainError(f"{name} must be a positive integer, not {value!r}")
        if not is_integer(self.seed) or not 0 <= self.seed < 2**63:
            raise DomainError(f"seed must be an integer of at least 0, not {self.seed!r}")
        if not 0 < self.rate < math.inf:
            raise DomainError(f"rate must be positive and finite, not {self.rate!r}: 0.05 is usual")
        if not 1e-7 <= self.margin < 1:
            raise DomainError(f"margin must lie in [1e-7, 1), which float32 still tells from the boundary, not {self.margin!r}")

    def __call__(self, graph: Graph) -> Tensor:
        """u (n, d)."""
        # Its own gradients are needed wherever it is called.
        with torch.inference_mode(False):
            return self._laid(graph)

    def _laid(self, graph: Graph) -> Tensor:
        there = graph.edge_weight.detach()
        weight = there.cpu().double()
        if bool((weight < 0).any()):
            raise DomainError(f"{int((weight < 0).sum())} edges have negative weight: drop them or take absolute values")
        source, target = graph.edge_index.cpu()
        told = (weight > 0) & (source != target)
        if not bool(told.any()):
            raise DomainError("this graph has no edge of positive weight between two nodes, so no node is near another")
        source, target, weight = source[told], target[told], weight[told]
        weight = weight / weight.max()
        weight = weight / weight.mean()
        connected = torch.unique(torch.cat([source, target]))
        generator = torch.Generator().manual_seed(int(self.seed))
        u = torch.zeros(graph.nodes, self.dimensions, dtype=torch.float64)
        u[connected] = 1e-3 * (2 * torch.rand(len(connected), self.dimensions, generator=generator, dtype=torch.float64) - 1)
        u[connected] /= self.dimensions**0.5
        square = torch.zeros(graph.nodes, 1, dtype=torch.float64)
        size = min(max(FEWEST, -(-len(source) // STEPS)), -(-COORDINATES // (self.dimensions * (self.negatives + 1))))
        a_pass = -(-len(source) // size)
        steps, order = self.epochs * a_pass, torch.empty(0)
        for step in shown(steps, "Poincaré embedding", self.progress):
            if step % a_pass == 0:
                order = torch.randperm(len(source), generator=generator)
            some = order[(step % a_pass) * size :][:size]
            strangers = connected[torch.randint(len(connected), (len(some), self.negatives), generator=generator)]
            slope = _gradient(u, source[some], target[some], strangers, weight[some])
            scale = BALL.factor(u)[:, None]
            # The metric's length of the Riemannian gradient λ⁻² g is |g| / λ.
            length2 = (slope / scale).square().sum(-1, keepdim=True)
            moved = length2 > 0
            square = torch.where(moved, torch.where(square > 0, torch.lerp(length2, square, DECAY), length2), square)
            rate = self.rate * (0.1 if step < steps / 10 else 1 - step / steps)
            u = BALL.exp(u, -rate * slope / scale.square() * torch.where(moved, square, 1.0).rsqrt())
            u = u * ((1 - self.margin) / u.norm(dim=1, keepdim=True)).clamp_max(1)
        return BALL.inside(u.to(there))


def _gradient(u: Tensor, source: Tensor, target: Tensor, strangers: Tensor, weight: Tensor) -> Tensor:
    """∂/∂u of the mean loss of these edges; a stranger that is one of the edge's own ends does not count."""
    with torch.enable_grad():
        leaf = u.clone().requires_grad_()
        others = torch.cat([target[:, None], strangers], dim=1)
        distance = BALL.distance(leaf[source][:, None], leaf[others])
        own = (others == source[:, None]) | (others == target[:, None])
        own[:, 0] = False
        distance = distance.masked_fill(own, math.inf)
        loss = (weight * (distance[:, 0] + torch.logsumexp(-distance, dim=1))).mean()
        (slope,) = torch.autograd.grad(loss, leaf)
    return slope
