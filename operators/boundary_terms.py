"""How much boundary each node stands for, and Laplacians with a potential: what Neumann and Robin conditions are made of."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from operators.boundary import boundary_edges
from operators.checks import DomainError
from operators.domains import Domain, TriangleMesh
from operators.grids import Boundary, Grid
from operators.laplacian import Laplacian
from operators.operator import _precision_only
from operators.pattern import SparsityPattern
from operators.sparse import SparseOperator

Where = Callable[[Tensor], Tensor]


class BoundaryMeasure(nn.Module):
    """The boundary in pieces, each of which belongs to a node: lengths on a surface, areas on a box, counts on a graph.

    Args:
        nodes: the number of nodes n of the domain.
        node: (k,) the node of each piece; a node may have several.
        size: (k,) how large each piece is, ≥ 0: a half of each boundary edge for its two ends, a side of a cell of a grid.
        gap: (k,) how far inside the node lies: half a cell on a grid, 0 on a mesh.
        points: (k, d) the middle of the edge or side, or None.
        recipe: the function of a domain that built this; lets it move to another domain.
    """

    node: Tensor
    size: Tensor
    gap: Tensor

    def __init__(
        self,
        nodes: int,
        node: Tensor,
        size: Tensor,
        gap: Tensor | None = None,
        points: Tensor | None = None,
        recipe: Callable[[Any], BoundaryMeasure] | None = None,
    ) -> None:
        super().__init__()
        if not bool((torch.isfinite(size.detach()) & (size.detach() >= 0)).all()):
            raise DomainError("the size of a piece of boundary must be finite and not negative")
        self.nodes, self.recipe = nodes, recipe
        self.register_buffer("node", node, persistent=False)
        self.register_buffer("size", size, persistent=False)
        self.register_buffer("gap", torch.zeros_like(size) if gap is None else gap, persistent=False)
        self.register_buffer("points", points, persistent=False)

    @property
    def measure(self) -> Tensor:
        """(n,) the boundary of each node, zero at nodes inside; its sum is the length of the boundary, or its area."""
        return self.total(torch.ones_like(self.size)[:, None]).squeeze(-1)

    @property
    def at(self) -> Tensor:
        """The nodes with a piece of boundary, sorted: where `Dirichlet` may hold a field."""
        nodes: Tensor = torch.unique(self.node)
        return nodes

    def total(self, density: Tensor) -> Tensor:
        """Σ of density · size over the pieces of each node; (..., k, c) → (..., n, c)."""
        amounts = density * self.size[:, None]
        empty = amounts.new_zeros(*amounts.shape[:-2], self.nodes, amounts.shape[-1])
        sums: Tensor = empty.index_add(-2, self.node, amounts)
        return sums

    def on(self, domain: Any) -> BoundaryMeasure:
        """The same part of the boundary of another domain."""
        if self.recipe is None:
            raise NotImplementedError("these nodes are those of one domain: name the nodes of the other with named_boundary")
        return self.recipe(domain).to(device=self.size.device, dtype=self.size.dtype)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> BoundaryMeasure:
        moved: BoundaryMeasure = super()._apply(_precision_only(fn), recurse)  # type: ignore[no-untyped-call]
        return moved

    def extra_repr(self) -> str:
        return f"nodes={self.nodes}, pieces={self.node.numel()}"


def boundary_measure(domain: Domain, where: Where | None = None) -> BoundaryMeasure:
    """The boundary of a surface in halves of its edges, or of a grid in the outer sides of its cells.

    On a grid only the ends of axes with Boundary.NEUMANN count: the others have none, or hold zeros. Differentiable in the
    vertices of a mesh.

    Args:
        where: of the middles of the edges or sides (k, d), the ones to take, bool (k,): `lambda p: p[:, 0] < 0.01`. All if
            absent.

    Raises:
        DomainError: there is no boundary, or none of it is taken; or a domain that knows of none.
    """
    if isinstance(domain, TriangleMesh):
        pieces = _of_mesh(domain)
    elif isinstance(domain, Grid):
        pieces = _of_grid(domain)
    else:
        raise DomainError(f"a {type(domain).__name__} has no boundary of its own: name its nodes, with named_boundary(L, nodes)")
    node, size, gap, points = pieces
    if not node.numel():
        raise DomainError("this domain has no boundary: it is closed, or the ends of all its axes are periodic or hold zeros")
    if where is not None:
        taken = where(points.detach())
        if not isinstance(taken, Tensor) or taken.dtype != torch.bool or taken.shape != node.shape:
            raise DomainError("where(points) must return one bool for each piece, (k,), as `lambda p: p[:, 0] < 0.01` does")
        if not bool(taken.any()):
            raise DomainError(f"where(points) takes no piece of the boundary, of {node.numel()}: look at its units")
        node, size, gap, points = node[taken], size[taken], gap[taken], points[taken]
    return BoundaryMeasure(domain.num_nodes, node, size, gap, points, partial(boundary_measure, where=where))


def named_boundary(laplacian: Laplacian, nodes: Any, measure: float | Tensor = 1.0) -> BoundaryMeasure:
    """Nodes of a graph, or of any domain, as its boundary.

    Args:
        nodes: bool (n,) or distinct integers (k,).
        measure: how much boundary each of them stands for, a number or (k,), ≥ 0.

    Raises:
        DomainError: no nodes, nodes out of range or repeated.
    """
    n = laplacian.shape[0]
    named = torch.as_tensor(nodes, device=laplacian.device)
    if named.dtype == torch.bool and named.shape == (n,):
        named = named.nonzero()[:, 0]
    if named.ndim != 1 or not named.numel() or named.is_floating_point() or named.dtype == torch.bool:
        raise DomainError(f"nodes must be bool ({n},) or integers (k,), at least one, not {named.dtype} {tuple(named.shape)}")
    if int(named.min()) < 0 or int(named.max()) >= n or torch.unique(named).numel() != named.numel():
        raise DomainError(f"nodes must be distinct and lie in 0 to {n - 1}, not in {int(named.min())} to {int(named.max())}")
    size = torch.as_tensor(measure, dtype=laplacian.mass.dtype, device=laplacian.device)
    if size.ndim and size.shape != named.shape:
        raise DomainError(f"measure must be a number, or one for each of the {named.numel()} nodes, not {tuple(size.shape)}")
    return BoundaryMeasure(n, named.long(), size.expand(named.shape).clone())


def with_potential(laplacian: Laplacian, potential: Tensor) -> Laplacian:
    """L + diag(v), that is the stiffness C + diag(m v) with the same masses; a Laplacian for v ≥ 0.

    Differentiable in v. It kills constants no longer.

    Args:
        potential: v, (n,) or (n, 1), real, in the units of L; one number for all nodes, ().
    """
    n = laplacian.shape[0]
    v = potential.reshape(-1) if potential.ndim else potential
    if v.is_complex() or (v.ndim and v.shape != (n,)):
        raise DomainError(f"a potential is one real number a node, ({n},) or ({n}, 1), not {tuple(potential.shape)}")
    return Laplacian(laplacian.stiffness + diagonal_operator(laplacian.mass * v.to(laplacian.mass.dtype)), laplacian.mass)


def diagonal_operator(entries: Tensor) -> SparseOperator:
    """diag(d) of d (n,)."""
    node = torch.arange(entries.numel(), device=entries.device)
    return SparseOperator(SparsityPattern(node, node, (entries.numel(), entries.numel())), entries)


def _of_mesh(mesh: TriangleMesh) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    edges = boundary_edges(mesh)
    start, end = mesh.vertices.double()[edges]
    half = (torch.linalg.vector_norm(end - start, dim=1) / 2).to(mesh.vertices.dtype)
    middle = ((start + end) / 2).to(mesh.vertices.dtype)
    size = torch.cat([half, half])
    return edges.reshape(-1), size, torch.zeros_like(size.detach()), torch.cat([middle, middle])


def _of_grid(grid: Grid) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    index = torch.arange(grid.num_nodes, device=grid.spacing.device).reshape(grid.shape)
    steps, points = grid.spacing, grid.points
    pieces: list[tuple[Tensor, Tensor, Tensor, Tensor]] = []
    for axis, (n, end) in enumerate(zip(grid.shape, grid.boundary, strict=True)):
        if end is not Boundary.NEUMANN:
            continue
        side = math.prod(float(h) for k, h in enumerate(steps) if k != axis)
        for place, wall in ((0, 0.0), (n - 1, grid.extent[axis])):
            node = index.select(axis, place).reshape(-1)
            middle = points[node].clone()
            middle[:, axis] = wall
            like = steps.new_ones(node.numel())
            pieces.append((node, side * like, steps[axis] / 2 * like, middle))
    if not pieces:
        none = steps.new_zeros(0)
        return index.reshape(-1)[:0], none, none, points[:0]
    node, size, gap, middle = (torch.cat(parts) for parts in zip(*pieces, strict=True))
    return node, size, gap, middle
