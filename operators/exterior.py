"""Forms on a triangulated surface: exterior derivatives, Hodge stars, codifferentials."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from operators.checks import DomainError, is_integer
from operators.domains import TriangleMesh
from operators.mass import face_areas, face_corners, lumped_mass
from operators.sparse import SparseOperator
from operators.surface import cotangent_laplacian


def exterior_derivative(mesh: TriangleMesh, degree: int) -> SparseOperator:
    """d₀ (E, n), the differences along edges, or d₁ (m, E), the circulations around faces; all entries are ±1 or 0.

    (d₀ f)_e = f_j − f_i for the edge e = `mesh.edges[:, e]` = (i, j), which points from the lower index to the higher.
    (d₁ ω)_t = Σ ± ω_e over the sides of face t, + where the order of the face's vertices runs along the edge.
    d₁ d₀ = 0 exactly, on any mesh: open, non-manifold, non-orientable or of inconsistent orientation.

    Args:
        degree: 0 or 1, the degree of the form that is differentiated.
    """
    return incidence(mesh.edges, mesh.faces, mesh.num_nodes, degree, mesh.vertices.dtype)


def incidence(edges: Tensor, faces: Tensor, nodes: int, degree: int, dtype: torch.dtype) -> SparseOperator:
    """d₀ or d₁ of the cells themselves: sorted edges (2, E), the lower node first, and faces (m, 3) with sides among them."""
    _check_degree(degree, (0, 1))
    count = edges.shape[1]
    one = torch.ones(1, dtype=dtype, device=edges.device)
    if degree == 0:
        rows = torch.arange(count, device=edges.device).repeat(2)
        signs = torch.cat([-one.expand(count), one.expand(count)])
        return SparseOperator.from_entries(rows, edges.reshape(-1), signs, (count, nodes))
    start, end = faces, faces.roll(-1, dims=1)
    key = torch.minimum(start, end) * nodes + torch.maximum(start, end)
    side = torch.searchsorted(edges[0] * nodes + edges[1], key.contiguous())
    rows = torch.arange(len(faces), device=edges.device).repeat_interleave(3)
    signs = torch.where(start < end, one, -one)
    return SparseOperator.from_entries(rows, side.reshape(-1), signs.reshape(-1), (len(faces), count))


@dataclass(frozen=True, eq=False)
class HodgeStars:
    """The diagonal stars ⋆₀ (n,), ⋆₁ (E,), ⋆₂ (m,): ⟨α, β⟩_k = Σ ⋆_k α β is the inner product of k-forms."""

    vertices: Tensor
    edges: Tensor
    faces: Tensor

    def __getitem__(self, degree: int) -> Tensor:
        """⋆_k, checked to be an inner product.

        Raises:
            DomainError: entries that are not positive, with the cure.
        """
        _check_degree(degree, (0, 1, 2))
        star = (self.vertices, self.edges, self.faces)[degree]
        bad = ~(torch.isfinite(star.detach()) & (star.detach() > 0))
        if bool(bad.any()):
            raise DomainError(
                f"⋆{degree} is no inner product: {int(bad.sum())} of its {len(star)} entries are not positive, the least is "
                f"{float(star.detach().min()):.3g}. The cotangent weight of an edge is only positive where its two opposite "
                "angles add up to less than π: use barycentric_stars or unit_stars, which are positive on every mesh, or "
                "remesh to Delaunay triangles"
            )
        return star


Stars = Callable[[TriangleMesh], HodgeStars]


def hodge_stars(mesh: TriangleMesh) -> HodgeStars:
    """⋆₀ = a third of the area of the faces at i, ⋆₁ = ½ (cot α + cot β), ⋆₂ = 1 / area. (Desbrun et al. 2005.)

    ⋆₀ and ⋆₁ are the mass and the edge weights of `cotangent_laplacian(mesh)`. ⋆₁ is the ratio of the circumcentric
    dual edge to the edge; it is positive, and an inner product, only where the mesh is Delaunay and no circumcentre
    lies beyond the boundary: a regular grid of right triangles has zeros on its diagonals. Differentiable in the vertices.
    """
    laplacian = cotangent_laplacian(mesh)
    pattern = laplacian.stiffness.pattern
    weights = -laplacian.stiffness.values[pattern.row < pattern.col]
    return HodgeStars(laplacian.mass, weights, 1 / face_areas(mesh))


def barycentric_stars(mesh: TriangleMesh) -> HodgeStars:
    """As `hodge_stars`, with ⋆₁ = Σ |midpoint − barycentre| / |edge| over the faces at the edge: positive on every mesh.

    Kernels, adjoints and decompositions keep their laws; spectra of 1-forms converge only where the triangles are
    nearly equilateral, for there alone the barycentric dual is orthogonal to the edges. Differentiable in the vertices.
    """
    corners = face_corners(mesh)
    ends = corners.roll(-1, dims=1)
    share = _length((corners + ends) / 2 - corners.mean(1, keepdim=True)) / _length(ends - corners)
    start, end = mesh.faces.reshape(-1), mesh.faces.roll(-1, dims=1).reshape(-1)
    sides = SparseOperator.from_entries(
        torch.minimum(start, end), torch.maximum(start, end), share.reshape(-1), (mesh.num_nodes, mesh.num_nodes)
    )
    return HodgeStars(lumped_mass(mesh), sides.values.to(mesh.vertices.dtype), 1 / face_areas(mesh))


def unit_stars(mesh: TriangleMesh) -> HodgeStars:
    """⋆₀ = ⋆₁ = ⋆₂ = 1: no geometry, only topology; the combinatorial Hodge Laplacians (Eckmann 1944)."""
    sizes = mesh.num_nodes, mesh.edges.shape[1], len(mesh.faces)
    return HodgeStars(*(mesh.vertices.detach().new_ones(size) for size in sizes))


def codifferential(mesh: TriangleMesh, degree: int, stars: Stars = hodge_stars) -> SparseOperator:
    """δ₁ = ⋆₀⁻¹ d₀ᵀ ⋆₁ (n, E), the divergence of a 1-form (with a minus sign), or δ₂ = ⋆₁⁻¹ d₁ᵀ ⋆₂ (E, m).

    The exact adjoint of d: ⟨d α, β⟩_k = ⟨α, δ β⟩_{k−1}, hence δ₁ δ₂ = 0.

    Args:
        degree: 1 or 2, the degree of the form that δ acts on.
        stars: a function of the mesh, such as `hodge_stars`, `barycentric_stars` or `unit_stars`.

    Raises:
        DomainError: a star that must be inverted and is not positive.
    """
    _check_degree(degree, (1, 2))
    star = stars(mesh)
    upper = (star.edges, star.faces)[degree - 1]
    return exterior_derivative(mesh, degree - 1).adjoint().scaled(1 / star[degree - 1], upper)


def _check_degree(degree: int, allowed: tuple[int, ...]) -> None:
    if not is_integer(degree) or degree not in allowed:
        raise DomainError(f"the degree of the form must be {' or '.join(map(str, allowed))} here, not {degree!r}")


def _length(vectors: Tensor) -> Tensor:
    length: Tensor = torch.linalg.vector_norm(vectors, dim=-1)
    return length
