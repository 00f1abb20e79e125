"""Diffusivities: a field decides how strongly its neighbours mix."""

from __future__ import annotations

from typing import Any, Self

import torch
from torch import Tensor, nn

from operators.checks import DomainError, FieldError, check_field
from operators.domains import Graph
from operators.laplacian import Laplacian, adjacency_of, combinatorial_laplacian
from operators.normalisation import Normalisation, Over, Softmax
from operators.operator import Movable, rebuild
from operators.pattern import SparsityPattern
from operators.sparse import SparseOperator

Joint = Tensor | tuple[Tensor, Tensor]
"""Features x (..., n, c), or positions and features as a pair (u, x)."""
SOFTMAX = Softmax()


class Diffusivity(Movable):
    """z ↦ A(z), a sparse non-negative matrix: a_ij = w_ij g(s_ij) / Σ w g(s) with a learned score s_ij(z_i, z_j).

    A new diffusivity writes `score(z)`. Heads are averaged. A node without neighbours keeps what it has.

    Args:
        edges: where A may be non-zero, with weights w ≥ 0. A Laplacian gives its off-diagonal weights and its rate
            r_i = Σ_j w_ij / m_i; a graph its edges, a_ij standing for the edge from j to i, and r = 1.
        heads: the number of heads.
        normalise: `Softmax()` or `Squareplus()`, over rows (default) or columns.
        self_loops: w_ii ≥ 0 added to every node, in the units of w.

    Raises:
        DomainError: no heads, or weights that are negative.
    """

    def __init__(
        self, edges: Laplacian | Graph, heads: int = 1, *, normalise: Normalisation = SOFTMAX, self_loops: float = 0.0
    ) -> None:
        super().__init__()
        if heads < 1:
            raise DomainError(f"heads must be at least 1, not {heads}")
        self.edges = EdgePrior(edges, normalise.over, self_loops)
        self.heads = heads
        self.normalise = normalise

    @property
    def over(self) -> Over:
        """Which sums of A are one."""
        return self.normalise.over

    @property
    def rate(self) -> Tensor:
        """r of shape (n,): how fast each node forgets itself, in 1/time."""
        return self.edges.rate

    @property
    def laplacian(self) -> Laplacian | None:
        """The Laplacian of the same edges; None for a directed graph."""
        return self.edges.laplacian

    def at(self, t: Tensor) -> Diffusivity:
        """The diffusivity at time t: itself, unless it depends on time (`Stages`)."""
        return self

    @property
    def jumps(self) -> tuple[float, ...]:
        """The times at which it changes."""
        return ()

    def score(self, z: Joint) -> Tensor:
        """s of shape (heads, ..., E), in the order of `self.edges.pattern`; entry e joins row i (receives) to column j."""
        raise NotImplementedError(f"{type(self).__name__} must define score(self, z)")

    def forward(self, z: Joint) -> SparseOperator:
        """A at z: an (n, n) operator, one a batch member. Raises FieldError, and DomainError where scores are not finite."""
        self.check(z)
        pattern = self.edges.pattern
        return SparseOperator(pattern, self.normalise(self.score(z), self.edges.weight, pattern).mean(0))

    def check(self, z: Joint) -> None:
        """Raise FieldError unless z is a field, or a pair of two, on these edges, of their precision and device."""
        if isinstance(z, tuple) and len(z) != 2:
            raise FieldError(f"a joint state is a pair (u, x) of positions and features, not a tuple of {len(z)}")
        for part, name in zip(z, ("positions", "features"), strict=True) if isinstance(z, tuple) else ((z, "field"),):
            check_field(part, self.edges.pattern.shape[0], self.edges.weight.dtype, self.edges.weight.device, name)


class FixedDiffusivity(Diffusivity):
    """a_ij = w_ij / Σ w: the random walk of the geometry, whatever the field. The diffusivity of ChebNet and GCN."""

    def score(self, z: Joint) -> Tensor:
        part = joined(z)
        return part.new_zeros(self.heads, *part.shape[:-2], self.edges.pattern.nnz)

    def forward(self, z: Joint) -> SparseOperator:
        """One matrix, which all members of a batch share."""
        self.check(z)
        return self.edges.walk()


class Derived(Diffusivity):
    """A diffusivity made of another one, on the same edges: a new one writes `forward`.

    Args:
        base: the other one.
    """

    def __init__(self, base: Diffusivity) -> None:
        Movable.__init__(self)
        if not isinstance(base, Diffusivity):
            raise DomainError(
                f"{type(self).__name__} changes a diffusivity such as ScaledDotProduct, not a {type(base).__name__}"
            )
        self.base = base
        self.heads, self.normalise = base.heads, base.normalise

    @property
    def edges(self) -> EdgePrior:  # type: ignore[override]
        """Those of the base."""
        return self.base.edges

    @property
    def jumps(self) -> tuple[float, ...]:
        return self.base.jumps

    def at(self, t: Tensor) -> Self:
        now = self.base.at(t)
        return self if now is self.base else rebuild(self, lambda child: now if child is self.base else child)

    def score(self, z: Joint) -> Tensor:
        return self.base.score(z)


def joined(z: Joint) -> Tensor:
    """(u, x) with their channels side by side, u first; a tensor as it is. One of the two may lack batch dimensions."""
    return torch.cat(aligned(*z), dim=-1) if isinstance(z, tuple) else z


def aligned(u: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
    """Positions and features with the same batch dimensions. Raises FieldError where they have none in common."""
    try:
        batch: tuple[int, ...] = torch.broadcast_shapes(u.shape[:-2], x.shape[:-2])  # type: ignore[no-untyped-call]
    except RuntimeError as error:
        raise FieldError(f"positions {tuple(u.shape)} and features {tuple(x.shape)} are not of one batch") from error
    return u.expand(*batch, *u.shape[-2:]), x.expand(*batch, *x.shape[-2:])


def check_channels(z: Tensor, channels: int, what: str) -> None:
    """Raise FieldError unless z is real with that many channels."""
    if z.shape[-1] != channels or z.is_complex():
        raise FieldError(
            f"{what} reads {channels} real channels, not {z.shape[-1]} of {z.dtype}: build it with as many as the field has; "
            "a complex field has twice as many, torch.view_as_real(x).flatten(-2)"
        )


class EdgePrior(nn.Module):
    """The edges of a Laplacian or a graph with their weights; a node without any is joined to itself.

    Args:
        edges, self_loops: as in `Diffusivity`.
        over: whether a node is without edges where its row, or where its column, is empty.
    """

    weight: Tensor
    share: Tensor
    rate: Tensor
    pattern: SparsityPattern

    def __init__(self, edges: Laplacian | Graph, over: Over = Over.ROWS, self_loops: float = 0.0) -> None:
        super().__init__()
        if not 0 <= self_loops < float("inf"):
            raise DomainError(f"the weight of self-loops must be finite and not negative, not {self_loops}")
        self.over, self.self_loops = over, self_loops
        adjacency, self.laplacian, self._graph, rate = _weights(edges)
        pattern, n = adjacency.pattern, adjacency.shape[0]
        sums = adjacency.row_sums() if over is Over.ROWS else adjacency.adjoint().row_sums()
        everyone = torch.arange(n, device=pattern.row.device)
        own = torch.full_like(sums, self_loops) if self_loops else (sums == 0).to(sums.dtype)
        held = everyone[own > 0]
        weights = SparseOperator.from_entries(
            torch.cat([pattern.row, held]), torch.cat([pattern.col, held]), torch.cat([adjacency.values, own[held]]), (n, n)
        )
        self.pattern = weights.pattern
        self.register_buffer("weight", weights.values, persistent=False)
        share = Softmax(over)(torch.zeros_like(weights.values), weights.values, self.pattern)
        self.register_buffer("share", share, persistent=False)
        self.register_buffer("rate", rate, persistent=False)

    def walk(self) -> SparseOperator:
        """The random walk w_ij / Σ w of these edges."""
        return SparseOperator(self.pattern, self.share)

    def on(self, domain: Any) -> Self:
        """The edges of another domain by the same rule."""
        edges = domain if self._graph or self.laplacian is None else self.laplacian.on(domain)
        return type(self)(edges, self.over, self.self_loops)


def _weights(edges: Laplacian | Graph) -> tuple[SparseOperator, Laplacian | None, bool, Tensor]:
    """(weights, the Laplacian if there is one, whether a graph was given, rate)."""
    if isinstance(edges, Laplacian):
        adjacency = adjacency_of(edges)
        return adjacency, edges, False, adjacency.row_sums() / edges.mass
    if not isinstance(edges, Graph):
        raise DomainError(f"edges must be a Laplacian or a Graph, not {type(edges).__name__}: a mesh has robust_laplacian(mesh)")
    weight = edges.edge_weight
    if bool((weight < 0).any()):
        raise DomainError(f"{int((weight < 0).sum())} edge weights are negative: a diffusivity needs w ≥ 0")
    if bool((weight == 0).any()):
        edges = Graph(edges.edge_index[:, weight > 0], edges.nodes, weight[weight > 0])
    source, target = edges.edge_index
    adjacency = SparseOperator.from_entries(target, source, edges.edge_weight, (edges.nodes, edges.nodes))
    turned = adjacency.adjoint()
    both_ways = torch.equal(turned.pattern.crow, adjacency.pattern.crow) and torch.equal(
        turned.pattern.col, adjacency.pattern.col
    )
    # Repeated edges may be summed in another order in the two directions.
    symmetric = both_ways and torch.allclose(turned.values, adjacency.values, rtol=8 * torch.finfo(weight.dtype).eps, atol=0.0)
    return adjacency, combinatorial_laplacian(edges) if symmetric else None, True, weight.new_ones(edges.nodes)
