"""Neighbourhoods of scattered points with their polynomial moments: which weights differentiate polynomials exactly."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Self

import torch
from torch import Tensor, nn

from operators.checks import DomainError, as_field, check_no_gradient, is_integer
from operators.consistent_fit import Fit, batches
from operators.consistent_tables import check_pairs, graph_tables, nearest_tables
from operators.domains import Graph, PointCloud
from operators.kernels import gather
from operators.pattern import SparsityPattern
from operators.sparse import SparseOperator
from operators.stencils import WORST_CONDITION, monomials_of

Neighbours = int | Graph | Callable[[PointCloud], Graph] | None


class Moments(nn.Module):
    """The neighbourhoods of n points and the conditions under which weights w_ij are exact on polynomials of degree ≤ `order`.

    With local coordinates ξ_ij = (x_j − x_i) / r_i, r_i the distance of the farthest neighbour, the difference formula
    Σ_j w_ij (u_j − u_i) is exact for a functional of the derivatives at i if and only if Σ_j w_ij ξ_ij^α is its value on ξ^α,
    for each of the m monomials of degree 1 to `order`. Those weights are an affine space: the least-squares weights of `fit`
    plus the range of `project`. No parameters.

    Args:
        cloud: n points in d dimensions.
        neighbours: how many of the nearest points, twice the number of conditions if absent; or a Graph whose edges lead from
            the neighbours of a node to it, or a function that makes one of a cloud, which is what `on` needs.
        order: ≥ 1.
        hops: neighbours in a graph are what leads to a node in so many steps.
        weight: ω of ρ_ij = |ξ_ij| in the least-squares fit min Σ_j ω_ij (p(x_j) − u_j)², exp(−4ρ²) if absent.

    A neighbourhood that cannot carry the polynomials grows: a number up to fourfold, a graph by up to two more hops.

    Attributes:
        neighbours: (n, k), ascending, padded with the node itself where not `valid` (n, k).
        offsets: (n, k, d), x_j − x_i. radius: (n,). local: (n, k, d), ξ. root: (n, k), √ω.
        fit: (n, k, m); Σ_j fit_jα (u_j − u_i) is the coefficient of ξ^α in the least-squares polynomial at i.
        basis: (n, k, m), orthonormal columns that span √ω ξ^α. condition: the largest condition number of a neighbourhood.
        edges: the pattern (n, n) of pairs (i, j).

    Raises:
        DomainError: neighbours that cannot carry the polynomials, such as points on a line; the text names the first node.
    """

    neighbours: Tensor
    valid: Tensor
    offsets: Tensor
    radius: Tensor
    local: Tensor
    root: Tensor
    fit: Tensor
    basis: Tensor
    pointers: Tensor
    sources: Tensor

    def __init__(
        self,
        cloud: PointCloud,
        neighbours: Neighbours = None,
        order: int = 2,
        hops: int = 1,
        weight: Callable[[Tensor], Tensor] | None = None,
    ) -> None:
        super().__init__()
        if not isinstance(cloud, PointCloud):
            raise DomainError(
                f"moments live on a PointCloud, not a {type(cloud).__name__}: wrap points (n, d) in PointCloud(points)"
            )
        for value, name in ((order, "order"), (hops, "hops")):
            if not is_integer(value) or value < 1:
                raise DomainError(f"{name} must be a positive integer, not {value!r}")
        if hops > 1 and not isinstance(neighbours, Graph) and not callable(neighbours):
            raise DomainError(f"{hops} hops need a graph: nearest neighbours have none, ask for more of them instead")
        check_no_gradient(cloud.points, "a learned stencil")
        self.cloud, self.order, self.hops, self.weight, self.given = cloud, order, hops, weight, neighbours
        n, self.dimensions = cloud.points.shape
        self.monomials = monomials_of(self.dimensions, order)
        if n <= len(self.monomials):
            raise DomainError(
                f"{n} points are too few: a polynomial of degree {order} in {self.dimensions} dimensions needs "
                f"{len(self.monomials) + 1}; lower the order"
            )
        table, self.condition = self._grown(cloud)
        nodes = torch.arange(n, device=cloud.device)[:, None]
        ascending = torch.where(table < 0, n, table).sort(dim=1).values
        self.register_buffer("valid", ascending < n, persistent=False)
        self.register_buffer("neighbours", torch.where(self.valid, ascending, nodes), persistent=False)
        self._exact: dict[str, Tensor] = {}
        held = ("offsets", "radius", "local", "root", "basis")
        parts = [[*(getattr(fit, name) for name in held), fit.coefficients()] for fit in self._fits()]
        for name, pieces in zip((*held, "fit"), zip(*parts, strict=True), strict=True):
            self._hold(name, torch.cat(pieces))
        flat = self.neighbours.flatten()
        self.register_buffer("sources", torch.argsort(flat, stable=True), persistent=False)
        counts = torch.bincount(flat, minlength=n)
        self.register_buffer("pointers", torch.cat([counts.new_zeros(1), counts.cumsum(0)]), persistent=False)
        rows = nodes.expand_as(self.neighbours)[self.valid]
        self.edges = SparsityPattern(rows, self.neighbours[self.valid], (n, n))

    @property
    def num_nodes(self) -> int:
        return self.neighbours.shape[0]

    def differences(self, x: Tensor) -> Tensor:
        """x_j − x_i of every neighbour, zero where padded; (..., n, c) → (..., n, k, c)."""
        as_field(x, self.num_nodes)
        there = gather(x, self.neighbours.flatten(), self.pointers, self.sources)
        return there.reshape(*x.shape[:-2], *self.neighbours.shape, x.shape[-1]) - x.unsqueeze(-2)

    def project(self, z: Tensor) -> Tensor:
        """√ω P z, where P projects orthogonally onto the complement of the moments: adding it to weights breaks no condition.

        Args:
            z: (..., n, k, q). Every weight that annihilates the polynomials is √ω P z for some z.

        Returns:
            (..., n, k, q), zero where padded.
        """
        z = z * self.valid[..., None]
        # Twice: what rounding left of a large z in the range of the moments would not be small beside its projection.
        for _ in range(2):
            z = z - self.basis @ (self.basis.mT @ z)
        return self.root[..., None] * z

    def pattern(self, rows: int = 1) -> SparsityPattern:
        """Where a formula with `rows` rows a node is non-zero, (n·rows, n); `order` indexes [valid (n, rows, k), diagonal]."""
        n, k = self.neighbours.shape
        row = torch.arange(n * rows, device=self.neighbours.device)
        used = self.valid[:, None].expand(n, rows, k)
        columns = self.neighbours[:, None].expand(n, rows, k)[used]
        own = torch.arange(n, device=row.device).repeat_interleave(rows)
        every = row.reshape(n, rows, 1).expand(n, rows, k)[used]
        return SparsityPattern(torch.cat([every, row]), torch.cat([columns, own]), (n * rows, n))

    def operator(self, weights: Tensor, pattern: SparsityPattern | None = None) -> SparseOperator:
        """The formula u ↦ Σ_j w_ij (u_j − u_i) as a matrix; weights (..., n, k, q) → (n·q, n), one a batch member."""
        rows = weights.shape[-1]
        turned = weights.mT * self.valid[:, None]
        used = self.valid[:, None].expand(-1, rows, -1).flatten().nonzero()[:, 0]
        pattern = pattern or self.pattern(rows)
        own = self.valid.numel() * rows + torch.arange(self.num_nodes * rows, device=used.device)
        place = torch.cat([used, own])[pattern.order]
        both = torch.cat([turned.flatten(-3), -turned.sum(-1).flatten(-2)], dim=-1)
        return SparseOperator(pattern, both.index_select(-1, place))

    def along_edges(self, y: Tensor) -> Tensor:
        """What belongs to neighbours, (..., n, k, c), as a value for each of `edges`, (..., E, c)."""
        return y.flatten(-3, -2).index_select(-2, self.valid.flatten().nonzero()[:, 0])

    def on(self, cloud: PointCloud) -> Moments:
        """The same conditions on another cloud, in this one's precision and on its device."""
        self._check_movable()
        moved = Moments(cloud, self.given, self.order, self.hops, self.weight)
        return moved.to(device=self.basis.device, dtype=self.basis.dtype)

    def _check_movable(self) -> None:
        if isinstance(self.given, Graph):
            raise DomainError(
                "these neighbours come from one graph, which another cloud does not have: give a function of the cloud instead, "
                "such as lambda cloud: cloud.knn_graph(4)"
            )

    def _fits(self) -> Iterator[Fit]:
        """The fits of all nodes, some at a time."""
        nodes = torch.arange(self.num_nodes, device=self.neighbours.device)
        points = self.cloud.points.double()
        for part in batches(nodes, self.neighbours.shape[1] * len(self.monomials)):
            yield Fit(points, self.neighbours[part], self.valid[part], self.monomials, self.weight, part)

    def _hold(self, name: str, exact: Tensor) -> None:
        """Keep a float64 tensor as a buffer in the precision of the points."""
        value = exact.to(self.cloud.points.dtype)
        if not bool(torch.isfinite(value).all()):
            raise DomainError(f"the {name} of a stencil leaves the range of {value.dtype}: use float64 or another unit of length")
        self._exact[name] = exact
        self.register_buffer(name, value, persistent=False)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        before = self.basis.dtype
        moved: Self = super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        # What float32 has rounded would be no projection in float64.
        if torch.finfo(self.basis.dtype).eps < torch.finfo(before).eps:
            for name, exact in self._exact.items():
                self.register_buffer(name, exact.to(self.basis), persistent=False)
        return moved

    def _suffices(self, fit: Fit) -> Tensor:
        """Which of these neighbourhoods, (b,), need not grow although they carry the polynomials."""
        return torch.ones(len(fit.radius), dtype=torch.bool, device=fit.radius.device)

    def _grown(self, cloud: PointCloud) -> tuple[Tensor, float]:
        """The table of neighbours (n, k), −1 where padded, and the largest condition number."""
        n, terms = cloud.num_nodes, len(self.monomials)
        points = cloud.points.double()
        given = self.given(cloud) if callable(self.given) else self.given
        tables = graph_tables(given, n, self.hops) if isinstance(given, Graph) else nearest_tables(cloud, given, terms)
        found: list[tuple[Tensor, Tensor]] = []
        condition = points.new_full((n,), torch.inf)
        left = torch.arange(n, device=points.device)
        for table_of in tables:
            table = table_of(left)
            place = torch.arange(len(left), device=left.device)
            conditions, sufficient = [], []
            for part in batches(place, table.shape[1] * terms):
                here, own = table[part], left[part]
                fit = Fit(points, torch.where(here < 0, own[:, None], here), here >= 0, self.monomials, self.weight, own)
                conditions.append(fit.condition())
                sufficient.append(self._suffices(fit))
            now = torch.cat(conditions)
            # False for NaN too, the condition of a neighbourhood without extent.
            carries = now <= WORST_CONDITION
            good = carries & torch.cat(sufficient)
            # The first table that carries the polynomials serves where none suffices.
            keep = good | (carries & torch.isinf(condition[left]))
            found.append((left[keep], table[keep]))
            condition[left[keep]] = now[keep]
            left = left[~good]
            if len(left) == 0:
                break
        bare = torch.isinf(condition).nonzero()[:, 0]
        if len(bare):
            raise DomainError(
                f"{len(bare)} nodes have neighbours that cannot carry a polynomial of degree {self.order} (condition over "
                f"{WORST_CONDITION:.0e}), the first is node {int(bare[0])}: too few, coincident or on a line or a surface; "
                "remove duplicates, ask for more neighbours or hops, or lower the order"
            )
        widest = max(table.shape[1] for _, table in found)
        check_pairs(n, widest)
        joined = torch.full((n, widest), -1, device=points.device)
        for nodes, table in found:
            joined[nodes] = nn.functional.pad(table, (0, joined.shape[1] - table.shape[1]), value=-1)
        return joined[:, (joined >= 0).any(0)], float(condition.max())
