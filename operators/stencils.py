"""Derivatives at scattered points by weighted least squares: exact on polynomials, on any cloud that can carry them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from itertools import combinations_with_replacement
from typing import Any

import numpy as np
import torch
from scipy.spatial import cKDTree
from torch import Tensor

from operators.checks import DomainError, is_integer
from operators.domains import Graph, PointCloud
from operators.sparse import SparseOperator

# Coefficients lose as many digits as this has: past it the points lie on a line or a surface for all that round-off can tell.
WORST_CONDITION = 1e6
# A neighbourhood that cannot carry the polynomials is doubled up to this many times what was asked for.
LARGEST_GROWTH = 4
# Numbers in one batch of moment matrices: the memory of a fit does not grow with the cloud.
BATCH = 2**23


class Stencil(SparseOperator):
    """Finite-difference weights at scattered points, as a sparse matrix; it knows its quality and how to move.

    `condition` is the largest condition number of a neighbourhood's moment matrix: the weights are good to about
    condition × round-off. `dimensions` is d for a gradient, whose row i·d + a is the derivative at i along axis a, and 1
    for a Laplacian.
    """

    def __init__(
        self, entries: SparseOperator, dimensions: int, condition: float, recipe: Callable[[PointCloud], Stencil]
    ) -> None:
        super().__init__(entries.pattern, entries.values)
        self.dimensions = dimensions
        self.condition = condition
        self.recipe = recipe

    def vectors(self, x: Tensor) -> Tensor:
        """The derivatives as one vector a node: (..., n, c) → (..., n, d, c)."""
        slopes: Tensor = self @ x
        return slopes.reshape(*slopes.shape[:-2], self.shape[1], self.dimensions, slopes.shape[-1])

    def on(self, domain: Any) -> Stencil:
        """The same stencil on another cloud, in this one's precision and on its device."""
        return self.recipe(domain).to(device=self.device, dtype=self.dtype)


def least_squares_gradient(cloud: PointCloud, neighbours: int | Graph | None = None, order: int = 2) -> Stencil:
    """The gradient at scattered points, exact on polynomials of degree ≤ `order`.

    (G x)_{i,a} = ∂_a p_i(x_i), where the polynomial p_i takes the value at i and fits those at its neighbours best:
    min Σ_j exp(−4 r_ij²) (p_i(x_j) − x_j)², r_ij the distance over that of the farthest neighbour. The error is
    O(h^order). Differentiable in the points.

    Args:
        cloud: n points in d dimensions.
        neighbours: how many of the nearest points to fit, twice the number of coefficients if absent; or a Graph whose
            edges lead from the neighbours of a node to it (their weights do not matter). A number grows up to fourfold
            where the points cannot carry the polynomial, a graph does not.
        order: ≥ 1.

    Returns:
        (n·d, n), row i·d + a for axis a; `.vectors(x)` is (..., n, d, c). Rows sum to zero.

    Raises:
        DomainError: too few neighbours, or points on a line or a surface, or coincident; the text names the first node.

    Source: Benito, Ureña and Gavete 2001, the generalised finite difference method.
    """
    _check_order(order, 1)
    d = cloud.points.shape[1]

    def first(coefficients: Tensor, radius: Tensor) -> Tensor:
        return coefficients[:, :d] / radius[:, None, None]

    return _stencil(cloud, neighbours, order, first, d, partial(least_squares_gradient, neighbours=neighbours, order=order))


def least_squares_laplacian(cloud: PointCloud, neighbours: int | Graph | None = None, order: int = 2) -> Stencil:
    """The Laplacian L = −Σ_a ∂_a² at scattered points in the plane or in space, exact on polynomials of degree ≤ `order`.

    As `least_squares_gradient`, with the second derivatives of the fit; the error is O(h^(order − 1)), one order better
    where the points are symmetric. Positive like every Laplacian here, so that diffusion is −L, but only in the limit: it is
    not symmetric, its off-diagonal entries may have either sign, and it knows no boundary condition. For a maximum
    principle or an energy use a mesh, or `point_cloud_laplacian` for points of a surface.

    Args:
        cloud, neighbours: as there.
        order: ≥ 2.

    Returns:
        (n, n). Rows sum to zero.

    Raises:
        DomainError: as there.
    """
    _check_order(order, 2)
    d = cloud.points.shape[1]
    squares = [k for k, axes in enumerate(monomials_of(d, order)) if len(axes) == 2 and axes[0] == axes[1]]

    def second(coefficients: Tensor, radius: Tensor) -> Tensor:
        return -2 * coefficients[:, squares].sum(1, keepdim=True) / radius[:, None, None] ** 2

    return _stencil(cloud, neighbours, order, second, 1, partial(least_squares_laplacian, neighbours=neighbours, order=order))


@dataclass(frozen=True)
class _Neighbourhoods:
    """Nodes (b,) with their neighbours (b, k); those not `valid` (b, k) are the node itself, where every monomial is zero."""

    nodes: Tensor
    neighbours: Tensor
    valid: Tensor

    def take(self, keep: Tensor) -> _Neighbourhoods:
        return _Neighbourhoods(self.nodes[keep], self.neighbours[keep], self.valid[keep])


class _Fit:
    """Collects the weights of one derivative, neighbourhood by neighbourhood."""

    def __init__(self, points: Tensor, order: int, derivative: Callable[[Tensor, Tensor], Tensor], rows: int) -> None:
        self.points, self.derivative, self.rows = points, derivative, rows
        self.monomials = monomials_of(points.shape[1], order)
        self.found: list[tuple[Tensor, Tensor, Tensor]] = []
        self.condition = 0.0

    def add(self, hoods: _Neighbourhoods) -> Tensor:
        """Fit these neighbourhoods; returns the nodes whose neighbours cannot carry the polynomial."""
        bad = []
        size = max(1, BATCH // (hoods.neighbours.shape[1] * len(self.monomials)))
        for part in torch.split(torch.arange(len(hoods.nodes), device=hoods.nodes.device), size):
            batch = hoods.take(part)
            with torch.no_grad():
                weights, condition = self._weights(batch)
            # The comparison is false for NaN too, the condition of a neighbourhood without extent.
            good = condition <= WORST_CONDITION
            bad.append(batch.nodes[~good])
            if bool(good.any()):
                batch = batch.take(good)
                # Again for the gradient, without the bad ones: their infinities would reach it as NaN.
                weights = self._weights(batch)[0] if self.points.requires_grad else weights[good]
                self.condition = max(self.condition, float(condition[good].max()))
                self.found.append(self._entries(batch, weights))
        return torch.cat(bad)

    def _weights(self, hoods: _Neighbourhoods) -> tuple[Tensor, Tensor]:
        """The weights (b, rows, k) of the neighbours and the condition number (b,) of each fit."""
        offset = self.points[hoods.neighbours] - self.points[hoods.nodes][:, None]
        distance = torch.linalg.vector_norm(offset, dim=2)
        radius = distance.amax(1)
        local, ratio = offset / radius[:, None, None], distance / radius[:, None]
        root = torch.exp(-2 * ratio**2)
        columns: dict[tuple[int, ...], Tensor] = {(): root}
        for axes in self.monomials:
            columns[axes] = columns[axes[:-1]] * local[..., axes[-1]]
        q, r = torch.linalg.qr(torch.stack([columns[axes] for axes in self.monomials], dim=2))
        identity = torch.eye(r.shape[-1], dtype=r.dtype, device=r.device).expand_as(r)
        inverse = torch.linalg.solve_triangular(r, identity, upper=True)
        condition = torch.linalg.matrix_norm(r.detach()) * torch.linalg.matrix_norm(inverse.detach())
        return self.derivative(inverse, radius) @ (q.mT * root[:, None]), condition

    def _entries(self, hoods: _Neighbourhoods, weights: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        axis = torch.arange(self.rows, device=weights.device)
        rows = (hoods.nodes[:, None] * self.rows + axis)[..., None].expand_as(weights)
        columns = hoods.neighbours[:, None].expand_as(weights)
        used = hoods.valid[:, None].expand_as(weights)
        own = hoods.nodes[:, None].expand(-1, self.rows)
        return (
            torch.cat([rows[used], rows[..., 0].flatten()]),
            torch.cat([columns[used], own.flatten()]),
            torch.cat([weights[used], -weights.sum(2).flatten()]),
        )


def _stencil(
    cloud: PointCloud,
    neighbours: int | Graph | None,
    order: int,
    derivative: Callable[[Tensor, Tensor], Tensor],
    rows: int,
    recipe: Callable[[PointCloud], Stencil],
) -> Stencil:
    n, d = cloud.points.shape
    fit = _Fit(cloud.points.double(), order, derivative, rows)
    terms = len(fit.monomials)
    if n <= terms:
        raise DomainError(
            f"{n} points are too few: a polynomial of degree {order} in {d} dimensions needs {terms + 1}; lower the order"
        )
    if isinstance(neighbours, Graph):
        size = limit = 0
        left = torch.cat([fit.add(hoods) for hoods in _of_graph(neighbours.to(cloud.points.device), n, terms)])
        cure = "give the graph more neighbours there, or a number of neighbours, which grows by itself"
    else:
        size = check_count(neighbours, n, terms)
        limit = min(n - 1, LARGEST_GROWTH * size)
        left = torch.arange(n, device=cloud.points.device)
        search = NeighbourSearch(cloud)
        while True:
            left = fit.add(search.nearest(left, size))
            if size == limit or left.numel() == 0:
                break
            size = min(2 * size, limit)
        cure = "remove the duplicates, ask for more neighbours, or drop the dimension in which the points have no extent"
    if left.numel():
        raise DomainError(
            f"{left.numel()} nodes have neighbours that cannot carry a polynomial of degree {order} (condition over "
            f"{WORST_CONDITION:.0e}), the first is node {int(left[0])}: they coincide or lie on a line or a surface"
            f"{f', all {limit} nearest' if limit else ''}; {cure}; or lower the order. For points of a surface there is "
            "point_cloud_laplacian"
        )
    index, columns, values = (torch.cat(parts) for parts in zip(*fit.found, strict=True))
    values = values.to(cloud.points.dtype)
    if not bool(torch.isfinite(values.detach()).all()):
        raise DomainError(f"the stencil's weights leave the range of {values.dtype}: use float64 or change the unit of length")
    entries = SparseOperator.from_entries(index, columns, values, (n * rows, n))
    return Stencil(entries, rows, fit.condition, recipe)


class NeighbourSearch:
    """Nearest neighbours, of points brought to unit size first, so that squared distances stay in range."""

    def __init__(self, cloud: PointCloud) -> None:
        points = cloud.points.detach().to("cpu", torch.float64).numpy()
        points = points - points.mean(0)
        self.points = points / max(float(np.abs(points).max()), np.finfo(float).tiny)
        self.device = cloud.points.device
        self.tree = cKDTree(self.points)

    def nearest(self, nodes: Tensor, count: int) -> _Neighbourhoods:
        """The `count` nearest other points of these nodes."""
        own = nodes.cpu().numpy()
        found = np.asarray(self.tree.query(self.points[own], k=count + 1)[1], dtype=np.int64)
        itself = found == own[:, None]
        # Among coincident points the tree may return the point itself anywhere, or not at all.
        itself[~itself.any(axis=1), -1] = True
        others = torch.from_numpy(found[~itself].reshape(len(own), count)).to(self.device)
        return _Neighbourhoods(nodes, others, torch.ones_like(others, dtype=torch.bool))


def _of_graph(graph: Graph, n: int, terms: int) -> Iterator[_Neighbourhoods]:
    """The sources of the edges into each node, padded, in groups of similar size: one hub does not pad them all."""
    if graph.nodes != n:
        raise DomainError(f"the graph has {graph.nodes} nodes, the cloud {n}: one node for each point")
    source, target = graph.edge_index[:, graph.edge_index[0] != graph.edge_index[1]]
    key = torch.unique(target * n + source)
    source, target = key % n, key // n
    degree = torch.bincount(target, minlength=n)
    place = torch.arange(len(target), device=target.device) - (degree.cumsum(0) - degree)[target]
    level = torch.ceil(torch.log2(degree.clamp(min=terms).double())).long()
    for each in torch.unique(level).tolist():
        nodes = (level == each).nonzero()[:, 0]
        width = max(int(degree[nodes].max()), terms)
        row = torch.full_like(degree, -1)
        row[nodes] = torch.arange(len(nodes), device=nodes.device)
        edges = row[target] >= 0
        neighbours = nodes[:, None].repeat(1, width)
        valid = torch.zeros_like(neighbours, dtype=torch.bool)
        neighbours[row[target[edges]], place[edges]] = source[edges]
        valid[row[target[edges]], place[edges]] = True
        yield _Neighbourhoods(nodes, neighbours, valid)


def monomials_of(d: int, order: int) -> list[tuple[int, ...]]:
    """The monomials of degree 1 to `order`, each as the axes it multiplies: (0, 1) is x·y. The first d are the axes."""
    return [axes for degree in range(1, order + 1) for axes in combinations_with_replacement(range(d), degree)]


def _check_order(order: int, least: int) -> None:
    if not is_integer(order) or order < least:
        raise DomainError(f"order must be an integer of at least {least}, not {order!r}: a derivative needs its own degree")


def check_count(neighbours: int | None, n: int, terms: int) -> int:
    if neighbours is None:
        return min(2 * terms, n - 1)
    if not is_integer(neighbours) or not terms <= neighbours < n:
        raise DomainError(
            f"neighbours must be a Graph or an integer from {terms} (the coefficients of the polynomial) to {n - 1} (one less "
            f"than the points), not {neighbours!r}"
        )
    return neighbours
