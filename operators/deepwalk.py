"""DeepWalk: nodes that random walks pass together get vectors that point the same way."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import torch
from torch import Tensor

from operators.checks import DomainError, is_integer
from operators.domains import Graph
from operators.progress import shown
from operators.random_walks import RandomWalks

# Updates an epoch, however large the graph: each sees every node about walks × length / STEPS times.
STEPS = 100
# Walks whose products are in memory at once, unless these are more than so many numbers; the nodes that they are all pushed from.
CHUNK, NUMBERS, POOL = 256, 4_000_000, 64


@dataclass(frozen=True)
class DeepWalk:
    """Node vectors x_i whose products with the context vectors y_j tell how often walks meet i near j.

    Maximises, by Adam on all pairs of each walk at once,

        Σ_{(i, j) near on a walk} [log s(x_i·y_j) + k 𝔼_{m ~ ν} log s(−x_i·y_m)],   s(a) = 1 / (1 + e^−a),   ν_m ∝ strength_m^p,

    whose optimum is x_i·y_j = log(p(i, j) / (p(i) ν_j)) − log k wherever d allows it. The k expected negatives are estimated
    from nodes that a few hundred walks share, which turns the sum into matrix products.

    Args:
        dimensions: d.
        walks: walks from every node in an epoch, drawn anew each epoch.
        length: steps of a walk.
        context: i and j are near if fewer than `context` steps apart.
        negatives: k > 0.
        epochs: passes.
        rate: Adam's, falling to zero linearly.
        power: p in [0, 1]: 0 draws negatives evenly, 1 as often as walks come by.
        seed: of walks, negatives and the start; torch's global generator stays untouched.
        progress: whether a bar shows on standard error. It takes no part in comparisons.

    `DeepWalk(64)(graph)` gives (n, d) on the graph's device, in its precision (computed in float32). Walks follow the edges'
    directions and end where no edge leaves. A node without any edge is the zero vector.

    Good values: the defaults, on thousands of nodes; 64 to 256 dimensions.

    Raises:
        DomainError: settings out of range, negative weights, or a graph without edges.

    Source: B. Perozzi, R. Al-Rfou, S. Skiena, DeepWalk, KDD 2014; T. Mikolov et al., NeurIPS 2013, eq. 4 (the objective);
    O. Levy, Y. Goldberg, NeurIPS 2014, eq. 7 (its optimum).
    """

    dimensions: int = 64
    walks: int = 16
    length: int = 40
    context: int = 20
    negatives: float = 5.0
    epochs: int = 3
    rate: float = 0.02
    power: float = 0.75
    seed: int = 0
    progress: bool = field(default=True, compare=False)

    def __post_init__(self) -> None:
        for name in ("dimensions", "walks", "length", "epochs"):
            value = getattr(self, name)
            if not is_integer(value) or value < 1:
                raise DomainError(f"{name} must be a positive integer, not {value!r}")
        if not is_integer(self.context) or self.context < 2:
            raise DomainError(f"context must be an integer of at least 2, not {self.context!r}: 2 pairs neighbours on a walk")
        if not (0 < self.negatives < math.inf and 0 < self.rate < math.inf):
            raise DomainError(f"negatives and rate must be positive and finite, not {self.negatives!r} and {self.rate!r}")
        if not is_integer(self.seed) or not 0 <= self.seed < 2**63:
            raise DomainError(f"seed must be an integer of at least 0, not {self.seed!r}")
        if not 0 <= self.power <= 1:
            raise DomainError(f"power must lie in [0, 1], not {self.power!r}")

    def __call__(self, graph: Graph) -> Tensor:
        """x (n, d)."""
        return self.both(graph)[0]

    def both(self, graph: Graph) -> tuple[Tensor, Tensor]:
        """(x, y), node and context vectors, each (n, d): x_i·y_j scores whether j is found near i."""
        generator = torch.Generator().manual_seed(int(self.seed))
        there = graph.edge_weight
        walk = RandomWalks(graph.to("cpu"))
        walkers = (~walk.stuck).nonzero().squeeze(1)
        if not len(walkers):
            raise DomainError("this graph has no edge of positive weight, so no walk says where its nodes are")
        n, d = graph.nodes, self.dimensions
        strength = _strength(graph.to("cpu"))
        noise = torch.where(strength > 0, strength**self.power, 0.0)
        near = _near(self.length + 1, self.context)
        chunk = max(1, min(CHUNK, NUMBERS // near.numel()))
        # A walk that has ended tells nothing more; in an undirected graph none ever ends.
        ends = bool(walk.stuck[walk.target].any())
        x, y = (torch.rand(n, d, generator=generator) - 0.5) / d**0.5, torch.zeros(n, d)
        descend = _Adam([x, y])
        per_step = -(-len(walkers) * self.walks // STEPS)
        queue = walkers[:0]
        steps = self.epochs * STEPS
        for step in shown(steps, "DeepWalk", self.progress):
            while len(queue) < per_step:
                queue = torch.cat([queue, walkers[torch.randperm(len(walkers), generator=generator)]])
            starts, queue = queue[:per_step], queue[per_step:]
            gx, gy = torch.zeros_like(x), torch.zeros_like(y)
            for first in range(0, len(starts), chunk):
                some = starts[first : first + chunk]
                path = walk(some, self.length, generator)
                far = torch.multinomial(noise, POOL, replacement=True, generator=generator)
                paired = near
                if ends:
                    alive = torch.cat([torch.ones(len(path), 1), (~walk.stuck[path[:, :-1]]).float()], 1)
                    paired = near * alive[:, :, None] * alive[:, None, :]
                X, Y, Z = x[path], y[path], y[far]
                # d/ds of −log s(a) is s(a) − 1; of −log s(−a), s(a).
                pull = (torch.sigmoid(X @ Y.mT) - 1) * paired
                push = torch.sigmoid(X @ Z.T) * (self.negatives / POOL * paired.sum(-1)[..., None])
                places = path.flatten()
                gx.index_add_(0, places, (pull @ Y + push @ Z).flatten(0, 1))
                gy.index_add_(0, places, (pull.mT @ X).flatten(0, 1))
                gy.index_add_(0, far, push.flatten(0, 1).T @ X.flatten(0, 1))
            descend([gx, gy], self.rate * (1 - step / steps))
        alone = (strength == 0)[:, None]
        return x.masked_fill(alone, 0.0).to(there), y.masked_fill(alone, 0.0).to(there)


def _near(places: int, context: int) -> Tensor:
    """1 where two places of a walk are paired, (places, places)."""
    place = torch.arange(places)
    gap = (place[:, None] - place).abs()
    return ((gap > 0) & (gap < context)).float()


def _strength(graph: Graph) -> Tensor:
    """Σ_j w_ij + w_ji, (n,), relative to the largest."""
    strength = torch.zeros(graph.nodes, dtype=torch.float64)
    weight = graph.edge_weight.detach().double()
    weight = weight / weight.max().clamp_min(1e-300)
    for end in graph.edge_index:
        strength.index_add_(0, end, weight)
    return strength


class _Adam:
    """Adam without bookkeeping for autograd (D. Kingma, J. Ba, ICLR 2015, algorithm 1)."""

    def __init__(self, tables: list[Tensor], first: float = 0.9, second: float = 0.99) -> None:
        self.tables, self.first, self.second, self.steps = tables, first, second, 0
        self.mean, self.square = ([torch.zeros_like(table) for table in tables] for _ in range(2))

    def __call__(self, gradients: list[Tensor], rate: float) -> None:
        self.steps += 1
        unbias, unscale = 1 - self.first**self.steps, 1 - self.second**self.steps
        for table, gradient, mean, square in zip(self.tables, gradients, self.mean, self.square, strict=True):
            mean.lerp_(gradient, 1 - self.first)
            square.lerp_(gradient.square(), 1 - self.second)
            table.addcdiv_(mean / unbias, (square / unscale).sqrt().add_(1e-12), value=-rate)
