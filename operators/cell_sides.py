"""The sides between the cells of neighbouring nodes, and what a velocity carries through them."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, Self

import torch
from torch import Tensor, nn

from operators.checks import DomainError, FieldError
from operators.domains import Graph, TriangleMesh
from operators.grids import Boundary, Grid
from operators.mass import face_corners, lumped_mass
from operators.pattern import plainly
from operators.sparse import SparseOperator


class CellSides(nn.Module):
    """The sides between the cells of a domain's nodes, each once, and those that open to the outside.

    A flow F of side e = (i, j) is what the velocity carries from cell i to cell j in a unit of time, ∫ b·n over the side, in
    length²/time on a surface. Whatever is transported by flows keeps its total, since what leaves i enters j.

    Attributes:
        edges: (2, E), from row 0 to row 1 where the flow is positive.
        exits: (K,), the nodes with a side to the outside, once for each such side; flows (..., E + K) leave through them last.
        mass: (n,), the areas (volumes) of the cells.
    """

    edges: Tensor
    exits: Tensor
    mass: Tensor

    def __init__(self, edges: Tensor, exits: Tensor, mass: Tensor, recipe: Callable[[Any], CellSides]) -> None:
        super().__init__()
        self.register_buffer("edges", edges, persistent=False)
        self.register_buffer("exits", exits, persistent=False)
        self.register_buffer("mass", mass, persistent=False)
        self.recipe = recipe
        self.kept: dict[str, Any] = {}
        """What is derived from the sides once; forgotten in another precision and on another device."""

    @property
    def count(self) -> int:
        """E + K, the number of flows."""
        return self.edges.shape[1] + self.exits.numel()

    def flows(self, velocity: Tensor) -> Tensor:
        """The flows (..., E + K) of a velocity: flows already, or vectors as the domain takes them.

        Raises:
            FieldError: neither flows nor vectors of this domain.
        """
        vectors = [(rows, self.axes) for rows in self._rows]
        if velocity.ndim and velocity.shape[-1] == self.count and tuple(velocity.shape[-2:]) not in vectors:
            return velocity
        return self._through(self._vectors(velocity))

    exits_at_nodes = False
    """Whether open sides lie at their nodes, as on a surface, or half a spacing away from them, as on a grid."""

    axes = 0
    """d, the components of a velocity; 0 where there are flows alone."""

    def _vectors(self, velocity: Tensor) -> Tensor:
        """A number, a vector or vectors as (..., n, d) or (..., 1, d)."""
        n, d = self.mass.numel(), self.axes
        if velocity.ndim == 0 and d == 1:
            return velocity.reshape(1, 1)
        if velocity.ndim == 1 and d and velocity.shape[0] == d:
            return velocity[None]
        if velocity.ndim >= 2 and d and velocity.shape[-1] == d and velocity.shape[-2] in self._rows:
            return velocity
        vectors = f", or vectors of shape {' or '.join(f'({rows}, {d})' for rows in self._rows)}" if d else ""
        raise FieldError(
            f"a velocity on these {n} nodes is flows of shape ({self.count},), one for each edge{vectors}, "
            f"not of shape {tuple(velocity.shape)}"
        )

    @property
    def _rows(self) -> tuple[int, ...]:
        return (self.mass.numel(), 1)

    def _through(self, vectors: Tensor) -> Tensor:
        raise NotImplementedError

    def stream(self, psi: Tensor) -> Tensor:
        """The flows (..., E + K) of b = n × grad ψ for a stream function ψ (..., n) or (..., n, 1): free of divergence.

        The flow through a side is the difference of ψ between its ends, so that what enters a cell also leaves it, to
        round-off. ψ falls to the left of the flow: positive ψ in the middle turns clockwise.

        Raises:
            DomainError: the domain has no two sides, or no left and right.
        """
        raise DomainError(
            f"a stream function needs an oriented surface or a grid of two axes, not {type(self).__name__}: on a graph give "
            "flows that run round cycles"
        )

    def divergence(self, flows: Tensor) -> Tensor:
        """(div b)_i = Σ_j F_ij / m_i of flows (..., E + K), in 1/time; (..., n)."""
        i, j = self.edges
        inner, outer = flows[..., : i.numel()], flows[..., i.numel() :]
        total = flows.new_zeros(*flows.shape[:-1], self.mass.numel())
        total = total.index_add(-1, i, inner).index_add(-1, j, -inner).index_add(-1, self.exits, outer)
        divergence: Tensor = total / self.mass
        return divergence

    def solenoidal(self, flows: Tensor) -> bool:
        """Whether the divergence of flows is zero to round-off."""
        with torch.no_grad():
            size = self.sizes(flows)
            slack = 16 * torch.finfo(flows.dtype).eps * size.amax(-1, keepdim=True)
            return bool(((self.divergence(flows) * self.mass).abs() <= slack).all())

    def sizes(self, flows: Tensor) -> Tensor:
        """Σ_j |F_ij|, (..., n)."""
        i, j = self.edges
        size = flows.abs()
        inner, outer = size[..., : i.numel()], size[..., i.numel() :]
        total = size.new_zeros(*size.shape[:-1], self.mass.numel())
        return total.index_add(-1, i, inner).index_add(-1, j, inner).index_add(-1, self.exits, outer)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        self.kept = {}
        moved: Self = super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        return moved

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"kept": {}}

    def on(self, domain: Any) -> CellSides:
        """The same on another domain, in this one's precision and on its device."""
        return self.recipe(domain).to(device=self.mass.device, dtype=self.mass.dtype)


class MeshSides(CellSides):
    """Those of the median dual: in every face, straight lines from the midpoint of each edge to the centroid."""

    normals: Tensor
    outward: Tensor
    faces: Tensor
    edge_of_side: Tensor
    sign: Tensor
    rims: Tensor
    walls: Tensor
    exits_at_nodes = True

    def __init__(self, mesh: TriangleMesh, open_boundary: bool) -> None:
        corners, faces = face_corners(mesh), mesh.faces
        connectivity, device = mesh.connectivity, faces.device
        boundary = torch.from_numpy(connectivity.boundary_sides).to(device)
        rim, wall = (boundary, boundary[:0]) if open_boundary else (boundary[:0], boundary)
        start, end = faces, faces.roll(-1, 1)
        ends = torch.stack([start.reshape(-1), end.reshape(-1)])
        rims = ends[:, rim]
        super().__init__(mesh.edges, rims.reshape(-1), lumped_mass(mesh), partial(cell_sides, open_boundary=open_boundary))
        following = corners.roll(-1, 1)
        across = corners.mean(1, keepdim=True) - (corners + following) / 2
        dtype = mesh.vertices.dtype
        self.oriented = _oriented(mesh)
        self.axes = corners.shape[2]
        self.faces_count = len(faces)
        kept = {
            # Side k of a face runs from its corner k to the next one, and its normals point from the first to the second cell.
            "normals": _right_of(across, corners).to(dtype),
            "outward": (_right_of(following - corners, corners) / 2).reshape(-1, self.axes)[rim].to(dtype),
            "faces": faces,
            "edge_of_side": torch.from_numpy(connectivity.edge_of_side).to(device),
            "sign": torch.where(start < end, 1.0, -1.0).to(device=device, dtype=dtype),
            "rims": rims,
            "walls": ends[:, wall],
        }
        for name, tensor in kept.items():
            self.register_buffer(name, tensor, persistent=False)

    @property
    def _rows(self) -> tuple[int, ...]:
        return (self.mass.numel(), 1, self.faces_count)

    def _through(self, vectors: Tensor) -> Tensor:
        if vectors.shape[-2] == self.faces_count != self.mass.numel():
            if self.rims.numel():
                raise FieldError("velocities of faces do not tell what crosses an open boundary: give them at the vertices")
            middle = vectors[..., :, None, :]
            flows = self._summed((self.normals * middle).sum(-1))
        else:
            vectors = vectors.expand(*vectors.shape[:-2], self.mass.numel(), self.axes)
            flows = self._of_vertices(vectors.flatten(-2)[..., None]).squeeze(-1)
        if not self.rims.numel():
            return flows
        a, b = vectors[..., self.rims[0], :], vectors[..., self.rims[1], :]
        leaving = torch.cat([(self.outward * (3 * a + b)).sum(-1), (self.outward * (a + 3 * b)).sum(-1)], dim=-1) / 4
        return torch.cat([flows, leaving], dim=-1)

    @property
    def _of_vertices(self) -> SparseOperator:
        """Flows (E, n·d) of the velocities at the vertices, kept: a tenth of the time of summing over the faces anew."""
        if self.normals.requires_grad:
            return self._flows_of_vertices()
        if "flows" not in self.kept:
            with plainly():
                self.kept["flows"] = self._flows_of_vertices()
        operator: SparseOperator = self.kept["flows"]
        return operator

    def _flows_of_vertices(self) -> SparseOperator:
        # Exact for a velocity that is linear on the face: its value halfway between midpoint and centroid.
        share = self.normals.new_tensor([5.0, 5.0, 2.0]) / 12
        corners = torch.stack([self.faces, self.faces.roll(-1, 1), self.faces.roll(-2, 1)], dim=2)
        columns = corners[..., None] * self.axes + torch.arange(self.axes, device=corners.device)
        rows = self.edge_of_side.reshape(-1, 3)[:, :, None, None].expand_as(columns)
        values = (self.sign[..., None] * self.normals)[:, :, None, :] * share[:, None]
        shape = (self.edges.shape[1], self.mass.numel() * self.axes)
        return SparseOperator.from_entries(rows.flatten(), columns.flatten(), values.flatten(), shape)

    def _summed(self, through: Tensor) -> Tensor:
        """Flows of the edges from those of the sides of faces, (..., m, 3) → (..., E)."""
        flat = (self.sign * through).flatten(-2)
        return flat.new_zeros(*flat.shape[:-1], self.edges.shape[1]).index_add(-1, self.edge_of_side, flat)

    def stream(self, psi: Tensor) -> Tensor:
        psi = _nodal(psi, self.mass.numel())
        if not self.oriented:
            raise DomainError(
                "a stream function needs a left and a right, and the faces of this mesh do not agree about them: mesh.clean() "
                "orients what can be oriented"
            )
        with torch.no_grad():
            drop = (psi[..., self.walls[0]] - psi[..., self.walls[1]]).abs()
            if bool((drop > 64 * torch.finfo(psi.dtype).eps * psi.abs().amax(-1, keepdim=True)).any()):
                raise FieldError(
                    "the stream function varies along the closed boundary, so that its flow would cross it: make it constant "
                    "on every boundary loop, or pass open_boundary=True"
                )
        at = psi[..., self.faces]
        # ψ at the midpoint less ψ at the centroid.
        flows = self._summed(((at - at.roll(-2, -1)) + (at.roll(-1, -1) - at.roll(-2, -1))) / 6)
        half = (psi[..., self.rims[0]] - psi[..., self.rims[1]]) / 2
        return torch.cat([flows, half, half], dim=-1)


class GridSides(CellSides):
    """Those of the boxes around the nodes of a grid; the walls of DIRICHLET axes are open, those of NEUMANN axes closed."""

    axis: Tensor
    areas: Tensor

    def __init__(self, grid: Grid) -> None:
        d, steps = len(grid.shape), grid.spacing.double()
        node = torch.arange(grid.num_nodes, device=steps.device).reshape(grid.shape)
        starts, ends, axes, exits, exit_axes, signs = [], [], [], [], [], []
        for k, (n, end) in enumerate(zip(grid.shape, grid.boundary, strict=True)):
            pairs = [(node.narrow(k, 0, n - 1), node.narrow(k, 1, n - 1))]
            if end is Boundary.PERIODIC and n > 1:
                pairs.append((node.narrow(k, n - 1, 1), node.narrow(k, 0, 1)))
            for a, b in pairs:
                starts.append(a.reshape(-1))
                ends.append(b.reshape(-1))
                axes.append(torch.full((a.numel(),), k, device=node.device))
            if end is Boundary.DIRICHLET:
                for first, sign in ((0, -1.0), (n - 1, 1.0)):
                    wall = node.narrow(k, first, 1).reshape(-1)
                    exits.append(wall)
                    exit_axes.append(torch.full((wall.numel(),), k, device=node.device))
                    signs.append(torch.full((wall.numel(),), sign, device=node.device))
        nothing = node.new_zeros(0)
        mass = steps.prod().expand(grid.num_nodes).clone().to(grid.spacing.dtype)
        edges = torch.stack([torch.cat(starts), torch.cat(ends)])
        super().__init__(edges, torch.cat([*exits, nothing]), mass, cell_sides)
        self.axes, self.grid = d, grid
        inner = torch.cat(axes)
        self.register_buffer("axis", torch.cat([inner, *exit_axes]), persistent=False)
        leaving = torch.cat([torch.ones(inner.numel(), device=node.device), *signs])
        areas = (steps.prod() / steps)[self.axis] * leaving
        self.register_buffer("areas", areas.to(grid.spacing.dtype), persistent=False)

    def _through(self, vectors: Tensor) -> Tensor:
        vectors = vectors.expand(*vectors.shape[:-2], self.mass.numel(), self.axes)
        i, j = torch.cat([self.edges, torch.stack([self.exits, self.exits])], dim=1)
        flat = vectors.flatten(-2)
        return self.areas * (flat[..., i * self.axes + self.axis] + flat[..., j * self.axes + self.axis]) / 2

    def stream(self, psi: Tensor) -> Tensor:
        psi = _nodal(psi, self.mass.numel())
        if self.axes != 2 or Boundary.DIRICHLET in self.grid.boundary:
            raise DomainError(
                "a stream function needs a grid of two axes, periodic or closed (NEUMANN): elsewhere give the velocity itself"
            )
        at = psi.reshape(*psi.shape[:-1], *self.grid.shape)
        # ψ at the corners of the cells, (..., n₁ + 1, n₂ + 1): the mean of four nodes, and zero on walls.
        for k, end in zip((-2, -1), self.grid.boundary, strict=True):
            n = at.shape[k]
            means = (at.narrow(k, 0, n - 1) + at.narrow(k, 1, n - 1)) / 2
            wrapped = (at.narrow(k, n - 1, 1) + at.narrow(k, 0, 1)) / 2
            rim = wrapped if end is Boundary.PERIODIC else torch.zeros_like(wrapped)
            at = torch.cat([rim, means, rim], dim=k)
        flows = []
        for k, end in zip((-2, -1), self.grid.boundary, strict=True):
            other = -1 if k == -2 else -2
            size = at.shape[other] - 1
            rise = at.narrow(other, 1, size) - at.narrow(other, 0, size)
            # b₁ = −∂₂ψ, b₂ = ∂₁ψ, times the length of the side.
            through = -rise if k == -2 else rise
            n = at.shape[k] - 1
            flows.append(through.narrow(k, 1, n - 1).flatten(-2))
            if end is Boundary.PERIODIC and n > 1:
                flows.append(through.narrow(k, n, 1).flatten(-2))
        return torch.cat(flows, dim=-1)


class GraphSides(CellSides):
    """The edges of a graph, as they are named: a flow of column (i, j) runs from i to j, a negative one back. Masses are one."""

    def __init__(self, graph: Graph) -> None:
        mass = torch.ones(graph.nodes, dtype=graph.edge_weight.dtype, device=graph.edge_index.device)
        super().__init__(graph.edge_index, graph.edge_index.new_zeros(0), mass, cell_sides)


def cell_sides(domain: TriangleMesh | Grid | Graph, open_boundary: bool = False) -> CellSides:
    """The sides between the cells of a domain: median dual cells of a surface, boxes of a grid, edges of a graph.

    Args:
        open_boundary: let the boundary of a surface pass what flows; on a grid its `Boundary` says it.

    Raises:
        DomainError: a domain without cells, such as a point cloud.
    """
    if isinstance(domain, TriangleMesh):
        return MeshSides(domain, open_boundary)
    if open_boundary:
        raise DomainError("only surfaces take open_boundary: give a grid Boundary.DIRICHLET, and a graph flows to a node outside")
    if isinstance(domain, Grid):
        return GridSides(domain)
    if isinstance(domain, Graph):
        return GraphSides(domain)
    raise DomainError(
        f"a {type(domain).__name__} has no cells with sides: transport runs on a TriangleMesh, a Grid or a Graph; scattered "
        "points become one of these by cloud.triangulated() or cloud.delaunay_graph()"
    )


def _right_of(direction: Tensor, corners: Tensor) -> Tensor:
    """Vectors (m, 3, d) in the planes of faces, turned to the right by a quarter as seen from outside; as long as they were."""
    if corners.shape[2] == 2:
        a, b = corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]
        turn = (a[:, 0] * b[:, 1] - a[:, 1] * b[:, 0]).sign()[:, None]
        return torch.stack([turn * direction[..., 1], -turn * direction[..., 0]], dim=-1)
    normal = torch.linalg.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    normal = normal / torch.linalg.vector_norm(normal, dim=1, keepdim=True)
    turned: Tensor = torch.linalg.cross(direction, normal[:, None].expand_as(direction))
    return turned


def _oriented(mesh: TriangleMesh) -> bool:
    """Whether no edge has more than two faces, and the two run along it in opposite directions."""
    left, right = mesh.connectivity.inner
    sides = mesh.connectivity.sides
    return bool((mesh.connectivity.sides_of_edge <= 2).all()) and bool((sides[left, 0] != sides[right, 0]).all())


def _nodal(psi: Tensor, n: int) -> Tensor:
    if psi.ndim >= 2 and psi.shape[-2:] == (n, 1):
        psi = psi.squeeze(-1)
    if psi.ndim == 0 or psi.shape[-1] != n:
        raise FieldError(f"a stream function has one value a node, shape ({n},) or ({n}, 1), not {tuple(psi.shape)}")
    return psi
