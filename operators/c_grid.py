"""The C-grid of a sphere: depths in the cells of vertices, normal winds across their sides, vorticities on the faces."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Self

import torch
from torch import Tensor, nn

from operators.checks import FieldError, check_field
from operators.domains import TriangleMesh
from operators.exterior import incidence
from operators.laplacian import Laplacian
from operators.sparse import SparseOperator
from operators.spherical_dual import SphericalDual, spherical_dual
from operators.surface import stiffness_of_edges


class CGrid(nn.Module):
    """Mimetic operators on a Delaunay triangulation of a sphere and its Voronoi dual (TRiSK).

    Fields: a 0-form h (..., n, c) in the cells of the vertices; the wind u (..., E, c) along the edges, from the lower to the
    higher vertex, which is normal to the side l between the two cells; a vorticity ζ (..., m, c) on the faces. With the exterior
    derivatives d₀ and d₁ of the mesh, edge lengths d and areas A of cells and faces:

        gradient     (E, n)   d⁻¹ d₀ h
        divergence   (n, E)   −A⁻¹ d₀ᵀ l u               minus the adjoint of the gradient in Σ A h h' and Σ l d u u'
        curl         (m, E)   A⁻¹ d₁ d u                 counter-clockwise; curl gradient = 0
        across       (E, m)   l⁻¹ d₁ᵀ ζ                  the slope of ζ to the left of u
        perp         (E, E)   d⁻¹ W l u                  the wind to the left of u: W is antisymmetric bit for bit
        ends         (E, n)   ½ (h_i + h_j)
        sides        (E, m)   ½ (ζ_left + ζ_right)
        squares      (n, E)   A⁻¹ Σ ¼ l d u²             acts on u²: the kinetic energy; half the adjoint of `ends`
        to_faces     (m, n)   A⁻¹ Σ kite h               averages over the shares that a face has of cells
        to_cells     (n, m)   A⁻¹ Σ kite ζ

    W is such that −curl perp = to_faces divergence: winds without divergence are balanced by some depth, and the depth on the
    faces obeys a conservation law of its own, with the perpendicular flux. All identities hold to round-off on any such mesh.

    Args:
        mesh: a Delaunay triangulation of a sphere about the origin, such as `icosphere(4)`; its directions are used.
        radius: of the sphere that lengths and areas are measured on, by default the mesh's own.

    Attributes:
        edges (2, E): the vertices from which and to which the wind blows where it is positive.
        centres (n, 3), midpoints (E, 3), circumcentres (m, 3): unit vectors to where fields live.
        normals (E, 3): unit tangents at the midpoints; the wind of a vector field v is v · normal.
        cell_areas (n,), face_areas (m,), edge_areas (E,): A, and l d, the inner products.
        edge_lengths, side_lengths: d and l, (E,).

    Raises:
        DomainError: those of `spherical_dual`.

    Thuburn, Ringler, Skamarock and Klemp 2009, J. Comput. Phys. 228, eq. 33 (weights); Ringler, Thuburn, Klemp and Skamarock
    2010, J. Comput. Phys. 229, section 3.
    """

    edges: Tensor
    centres: Tensor
    midpoints: Tensor
    circumcentres: Tensor
    normals: Tensor
    cell_areas: Tensor
    face_areas: Tensor
    edge_areas: Tensor
    edge_lengths: Tensor
    side_lengths: Tensor
    gradient: SparseOperator
    divergence: SparseOperator
    curl: SparseOperator
    across: SparseOperator
    perp: SparseOperator
    ends: SparseOperator
    sides: SparseOperator
    squares: SparseOperator
    to_faces: SparseOperator
    to_cells: SparseOperator
    vectors: SparseOperator
    laplacian: Laplacian

    def __init__(self, mesh: TriangleMesh, radius: float | None = None) -> None:
        super().__init__()
        dual = spherical_dual(mesh, radius)
        self.radius = dual.radius
        dtype = mesh.vertices.dtype
        d, side, A, Af = dual.edge_lengths, dual.side_lengths, dual.cell_areas, dual.face_areas
        self.register_buffer("edges", dual.edges, persistent=False)
        for name in ("centres", "midpoints", "circumcentres", "normals"):
            self.register_buffer(name, getattr(dual, name).to(dtype), persistent=False)
        lengths = {"cell_areas": A, "face_areas": Af, "edge_areas": side * d, "edge_lengths": d, "side_lengths": side}
        for name, values in lengths.items():
            self.register_buffer(name, values.to(dtype), persistent=False)

        n, m = len(A), len(Af)
        half = torch.full_like(d, 0.5)
        d0 = incidence(dual.edges, dual.faces, n, 0, torch.float64)
        d1 = dual.winding
        kites = SparseOperator.from_entries(
            torch.arange(m, device=Af.device).repeat_interleave(3), dual.faces.reshape(-1), dual.kites.reshape(-1), (m, n)
        )
        to_ends, to_sides = (SparseOperator(b.pattern, b.values.abs()) for b in (d0, d1.adjoint()))
        operators = {
            "gradient": d0.scaled(1 / d, torch.ones_like(A)),
            "divergence": -d0.adjoint().scaled(1 / A, side),
            "curl": d1.scaled(1 / Af, d),
            "across": d1.adjoint().scaled(1 / side, torch.ones_like(Af)),
            "perp": perpendicular(dual).scaled(1 / d, side),
            "ends": to_ends.scaled(half, torch.ones_like(A)),
            "sides": to_sides.scaled(half, torch.ones_like(Af)),
            "squares": to_ends.adjoint().scaled(1 / A, side * d / 4),
            "to_faces": kites.scaled(1 / Af, torch.ones_like(A)),
            "to_cells": kites.adjoint().scaled(1 / A, torch.ones_like(Af)),
            "vectors": _reconstruction(dual),
        }
        for name, operator in operators.items():
            self.add_module(name, SparseOperator(operator.pattern, operator.values.to(dtype)))
        stiffness = stiffness_of_edges(dual.edges[0], dual.edges[1], side / d, n, dtype)
        self.laplacian = Laplacian(stiffness, self.cell_areas, _LaplacianOf(self.radius))

    @property
    def dtype(self) -> torch.dtype:
        """The precision of the operators."""
        return self.cell_areas.dtype

    @property
    def device(self) -> torch.device:
        """The device that the operators live on."""
        return self.cell_areas.device

    def on(self, domain: Any) -> Self:
        """The grid of another mesh, on a sphere of the same radius, in this one's precision and on its device."""
        return type(self)(domain, self.radius).to(device=self.device, dtype=self.dtype)

    def wind(self, vectors: Tensor | Callable[[Tensor], Tensor]) -> Tensor:
        """The components normal to the sides of the cells, of a vector field in the mesh's own axes.

        Args:
            vectors: a function of unit vectors (E, 3) → (E, 3), which is asked at the midpoints of the edges; or vectors at the
                vertices (..., n, 3), which are averaged to the edges. Only their tangential part counts.

        Returns:
            (..., E, 1), in units of the vectors.
        """
        if isinstance(vectors, Tensor):
            check_field(vectors, len(self.centres), self.dtype, self.device, "vectors")
            if vectors.shape[-1] != 3:
                raise FieldError(f"vectors must have shape (..., {len(self.centres)}, 3), not {tuple(vectors.shape)}")
            there: Tensor = self.ends(vectors)
        else:
            there = vectors(self.midpoints)
            if not isinstance(there, Tensor) or there.shape[-2:] != self.midpoints.shape:
                raise FieldError(f"the function must map points {tuple(self.midpoints.shape)} to vectors of the same shape")
        return (there * self.normals).sum(-1, keepdim=True)

    def stream(self, psi: Tensor | Callable[[Tensor], Tensor]) -> Tensor:
        """k × grad ψ, the wind along contour lines of a stream function, high values to its right: exactly without divergence.

        Args:
            psi: (..., m, 1) on the faces, or a function of unit vectors (m, 3) → (m, 1), which is asked at the circumcentres.

        Returns:
            (..., E, 1), in units of ψ over length.
        """
        values = psi if isinstance(psi, Tensor) else psi(self.circumcentres)
        check_field(values, len(self.face_areas), self.dtype, self.device, "the stream function")
        wind: Tensor = -self.across(values)
        return wind

    def at_vertices(self, wind: Tensor) -> Tensor:
        """The tangent vectors at the vertices whose components fit the winds across the sides of their cell best.

        Least squares with weights l d, exact where the wind is uniform up to the turning of the sphere: Perot's reconstruction
        (2000, J. Comput. Phys. 159) made exact on cells of any shape.

        Returns:
            (..., E, 1) → (..., n, 3), in the mesh's own axes and in units of the wind.
        """
        check_field(wind, self.perp.shape[0], self.dtype, self.device, "wind")
        if wind.shape[-1] != 1:
            raise FieldError(f"the wind must have one channel here, (..., {self.perp.shape[0]}, 1), not {tuple(wind.shape)}")
        flat: Tensor = self.vectors(wind)
        return flat.reshape(*flat.shape[:-2], len(self.centres), 3)

    def extra_repr(self) -> str:
        n, (m, edges) = len(self.cell_areas), self.curl.shape
        return f"cells={n}, sides={edges}, faces={m}, radius={self.radius:g}"


class _LaplacianOf:
    """The recipe of the grid's Laplacian (a class, so that it can be pickled)."""

    def __init__(self, radius: float) -> None:
        self.radius = radius

    def __call__(self, mesh: TriangleMesh) -> Laplacian:
        return CGrid(mesh, self.radius).laplacian


def perpendicular(dual: SphericalDual) -> SparseOperator:
    """W (E, E), antisymmetric bit for bit: fluxes l u across sides of cells ↦ fluxes across the edges, to their left.

    About cell i, counter-clockwise, W_ee' = ± (½ − Σ R) with the sum of R = kite / A over the faces from e to e'; the sign tells
    whether both winds leave the cell. Thuburn et al. 2009, eq. 33, with the opposite sense of perpendicular.
    """
    faces, device = dual.faces, dual.faces.device
    n, m, count = len(dual.centres), len(faces), dual.edges.shape[1]
    start, end = faces.reshape(-1), faces.roll(-1, 1).reshape(-1)
    # Side 3f + k leaves corner k of face f: the spokes of a cell, which are sorted counter-clockwise by their angle.
    with torch.no_grad():
        x = dual.centres[start]
        e1 = torch.linalg.cross(x, torch.eye(3, dtype=x.dtype, device=device)[x.abs().argmin(1)])
        e2, to = torch.linalg.cross(x, e1), dual.centres[end]
        angle = torch.atan2((to * e2).sum(1), (to * e1).sum(1))
        order = torch.argsort(angle, stable=True)
        order = order[torch.argsort(start[order], stable=True)]
    cell = start[order]
    share = (dual.kites.reshape(-1) / dual.cell_areas[start])[order]
    degree = torch.bincount(cell, minlength=n)
    first = degree.cumsum(0) - degree
    place = torch.arange(3 * m, device=device)
    within = place - first[cell]
    # The shares of the faces from the first spoke of the cell to this one: a running sum, by doubling, in every cell.
    running = torch.where(within > 0, share.roll(1), torch.zeros_like(share))
    step = 1
    while step < int(degree.max()):
        running = running + torch.where(within >= step, running.roll(step), torch.zeros_like(running))
        step *= 2

    key = torch.minimum(start, end) * n + torch.maximum(start, end)
    edge = torch.searchsorted(dual.edges[0] * n + dual.edges[1], key)[order]
    outward = torch.where(start < end, 1.0, -1.0).to(share.dtype)[order]
    # Every pair of spokes of a cell, the earlier one first.
    later = first[cell] + degree[cell] - 1 - place
    one = place.repeat_interleave(later)
    skipped = later.cumsum(0) - later
    other = one + 1 + torch.arange(len(one), device=device) - skipped.repeat_interleave(later)
    weight = outward[one] * outward[other] * (running[other] - running[one] - 0.5)
    rows, columns = torch.cat([edge[other], edge[one]]), torch.cat([edge[one], edge[other]])
    return SparseOperator.from_entries(rows, columns, torch.cat([weight, -weight]), (count, count))


def _reconstruction(dual: SphericalDual) -> SparseOperator:
    """Winds (E,) ↦ vectors at the vertices (3n,): (Σ w t tᵀ + x xᵀ)⁻¹ Σ w t u, with t the direction of the edge at the vertex."""
    (i, j), n = dual.edges, len(dual.centres)
    count, device = len(i), dual.edges.device
    here, there = dual.centres[torch.cat([i, j])], dual.centres[torch.cat([j, i])]
    tangent = there - (there * here).sum(1, keepdim=True) * here
    tangent = tangent / torch.linalg.vector_norm(tangent, dim=1, keepdim=True)
    sign = torch.cat([torch.ones_like(dual.edge_lengths), -torch.ones_like(dual.edge_lengths)])
    weight = (dual.side_lengths * dual.edge_lengths).repeat(2)
    vertex = torch.cat([i, j])
    weight = weight / weight.new_zeros(n).index_add(0, vertex, weight)[vertex]
    square = weight[:, None, None] * tangent[:, :, None] * tangent[:, None, :]
    moments = (dual.centres[:, :, None] * dual.centres[:, None, :]).index_add(0, vertex, square)
    part = torch.linalg.solve(moments[vertex], (sign * weight)[:, None] * tangent)
    rows = 3 * vertex[:, None] + torch.arange(3, device=device)
    columns = torch.arange(count, device=device).repeat(2)[:, None].expand(-1, 3)
    return SparseOperator.from_entries(rows.reshape(-1), columns.reshape(-1), part.reshape(-1), (3 * n, count))
