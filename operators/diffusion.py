"""Diffusion with coefficients, −div (D grad x): per face, anisotropic, or per edge, re-assembled cheaply as they are learned."""

from __future__ import annotations

from collections.abc import Callable
from numbers import Real
from typing import Any

import torch
from torch import Tensor, nn

from operators.checks import DomainError, FieldError
from operators.domains import Graph, TriangleMesh
from operators.laplacian import Laplacian, combinatorial_laplacian
from operators.mass import face_corners, lumped_mass, twice_area
from operators.pattern import SparsityPattern
from operators.sparse import SparseOperator

Diffusivity = Tensor | float | Callable[[TriangleMesh], Tensor]


def diffusion_laplacian(mesh: TriangleMesh, diffusivity: Diffusivity) -> Laplacian:
    """L = M⁻¹ Gᵀ A D G, so that −L x = div (D grad x): `MeshDiffusion(mesh)(diffusivity)`, for one use.

    Args:
        diffusivity: as of `MeshDiffusion`, or one number for all faces, or a function of the mesh. With the last two the
            Laplacian can move to another mesh with `.on(mesh)`.
    """
    values = diffusivity(mesh) if callable(diffusivity) else diffusivity
    if isinstance(values, Real):
        values = mesh.vertices.new_full((mesh.faces.shape[0],), float(values))
    laplacian: Laplacian = MeshDiffusion(mesh)(values)
    if not isinstance(diffusivity, Tensor):
        laplacian.recipe = _Recipe(diffusivity)
    return laplacian


def conductance_laplacian(base: Graph | Laplacian, conductance: Tensor) -> Laplacian:
    """L = M⁻¹ Bᵀ W K B: the weight of each edge times its conductance; `EdgeDiffusion(base)(conductance)`, for one use."""
    laplacian: Laplacian = EdgeDiffusion(base)(conductance)
    return laplacian


class MeshDiffusion(nn.Module):
    """D ↦ L = M⁻¹ Gᵀ A D G on a fixed surface; the pattern is found once, every call only fills in the values.

    G is `face_gradient(mesh)`, A the areas of the faces, M the lumped mass. C = Gᵀ A D G is symmetric to the last bit,
    positive semi-definite and kills constants; boundaries are natural (no flux). With D = 1 it is `cotangent_laplacian`.
    Like there, weights may be negative: no maximum principle. Differentiable in D, and in the vertices of the mesh.
    """

    slopes: Tensor
    basis: Tensor
    half_cotangents: Tensor
    mass: Tensor

    def __init__(self, mesh: TriangleMesh) -> None:
        super().__init__()
        corners = face_corners(mesh)
        doubled, basis = twice_area(corners), _tangent_basis(corners)
        edges = corners.roll(1, 1) - corners.roll(-1, 1)
        # A quarter turn in the plane of the face takes the edge opposite to corner k to ∇φ_k times twice the area.
        along, across = (edges @ basis.transpose(1, 2)).unbind(2)
        slopes = torch.stack([-across, along], dim=2) / (2 * doubled).sqrt()[:, None, None]
        following, preceding = corners.roll(-1, 1) - corners, corners.roll(1, 1) - corners
        half_cotangents = (following * preceding).sum(2) / (2 * doubled[:, None])
        self.register_buffer("slopes", slopes, persistent=False)
        self.register_buffer("basis", basis, persistent=False)
        self.register_buffer("half_cotangents", half_cotangents, persistent=False)
        self.register_buffer("mass", lumped_mass(mesh), persistent=False)
        n = mesh.num_nodes
        low, high = mesh.faces[:, [[1, 2], [2, 0], [0, 1]]].sort(2).values.reshape(-1, 2).unbind(1)
        key, edge = torch.unique(low * n + high, return_inverse=True)
        ones = torch.ones(edge.numel(), dtype=torch.float64, device=edge.device)
        places = torch.arange(edge.numel(), device=edge.device)
        self.to_edges = SparseOperator.from_entries(edge, places, ones, (key.numel(), edge.numel()))
        self.stiffness = _EdgeStiffness(key // n, key % n, n)

    def forward(self, diffusivity: Tensor) -> Laplacian:
        """The Laplacian with these coefficients, one a batch member if they have a batch.

        Args:
            diffusivity: in the mesh's dtype. A number ≥ 0 for all faces, (), or for each, (..., m); `face_average` makes
                these of one a vertex. Or a symmetric matrix for each, (..., m, d, d), in the mesh's d axes, positive
                semi-definite in the plane of its face; what points out of the plane is ignored. If m = d, three trailing
                axes of length d mean matrices.

        Raises:
            FieldError: wrong shape, dtype or device; non-finite, negative or unsymmetric coefficients.
        """
        m, d = self.slopes.shape[0], self.basis.shape[2]
        if not isinstance(diffusivity, Tensor):
            raise FieldError(f"diffusivity must be a torch.Tensor, not {type(diffusivity).__name__}")
        if diffusivity.ndim == 0:
            diffusivity = diffusivity.expand(m)
        if diffusivity.ndim >= 3 and diffusivity.shape[-3:] == (m, d, d):
            shares = self._anisotropic(_checked("diffusivity", diffusivity, self.mass).to(self.basis.dtype))
        elif diffusivity.shape[-1] == m:
            _not_negative("diffusivity", _checked("diffusivity", diffusivity, self.mass))
            shares = self.half_cotangents * diffusivity.to(self.basis.dtype)[..., None]
        else:
            cure = ": average it to the faces with face_average(mesh, x)" if diffusivity.shape[-1:] == self.mass.shape else ""
            shape = tuple(diffusivity.shape)
            raise FieldError(f"diffusivity must have shape (..., {m}) or (..., {m}, {d}, {d}), not {shape}{cure}")
        weights = self.to_edges(shares.flatten(-2)[..., None]).squeeze(-1)
        return Laplacian(self.stiffness(weights, self.mass.dtype), self.mass)

    def on(self, mesh: TriangleMesh) -> MeshDiffusion:
        """The same for another surface, in this one's precision and on its device."""
        moved = MeshDiffusion(mesh)
        # Only where they differ: geometry is float64 inside, and a cast would round it.
        same = (moved.mass.dtype, moved.mass.device) == (self.mass.dtype, self.mass.device)
        return moved if same else moved.to(device=self.mass.device, dtype=self.mass.dtype)

    def _anisotropic(self, tensors: Tensor) -> Tensor:
        """−A ∇φ_i·D ∇φ_j for the two corners i, j other than k; (..., m, d, d) → (..., m, 3)."""
        eps = torch.finfo(self.mass.dtype).eps
        size = tensors.detach().abs().amax(dim=(-2, -1))
        if bool(((tensors - tensors.mT).detach().abs().amax(dim=(-2, -1)) > 8 * eps * size).any()):
            raise FieldError("diffusivity is not symmetric on every face: use (D + D.mT) / 2")
        flat = self.basis @ ((tensors + tensors.mT) / 2) @ self.basis.mT
        a, b, c = flat[..., 0, 0], flat[..., 0, 1], flat[..., 1, 1]
        least = ((a + c) / 2 - torch.hypot((a - c) / 2, b)).detach()
        if bool((least < -16 * eps * size).any()):
            count, worst = int((least < -16 * eps * size).sum()), float(least.min())
            raise FieldError(
                f"diffusivity has a negative eigenvalue on {count} faces, the least {worst:.3g}: such diffusion blows up at "
                "once; build it as R @ R.mT, or with directional_diffusivity"
            )
        conormal = self.slopes @ flat
        return -(self.slopes.roll(-1, 1) * conormal.roll(1, -2)).sum(-1)


class EdgeDiffusion(nn.Module):
    """k ↦ L = M⁻¹ Bᵀ W K B on a fixed graph: every edge's weight w times its own conductance k, each edge once.

    Edges are in the order of `edge_gradient`, i < j lexicographically. k = 1 gives the Laplacian that it was made from, and
    M stays. Positive semi-definite with weights ≥ 0: heat obeys the maximum principle. Differentiable in k and w.

    Args:
        base: an undirected graph, of which the combinatorial Laplacian is taken; or any real Laplacian with weights
            ≥ 0 and rows that sum to zero, of a graph or a mesh.

    Raises:
        DomainError: negative or complex weights; row sums other than zero.
    """

    edges: Tensor
    weights: Tensor
    mass: Tensor

    def __init__(self, base: Graph | Laplacian) -> None:
        super().__init__()
        laplacian = combinatorial_laplacian(base) if isinstance(base, Graph) else base
        values, pattern = laplacian.stiffness.values, laplacian.stiffness.pattern
        upper = (pattern.row < pattern.col) & (values.detach() != 0)
        if values.is_complex() or bool((values[upper] > 0).any()):
            raise DomainError(
                "conductances need real edge weights that are not negative: use robust_laplacian(mesh), or for "
                "coefficients on the triangles of a surface diffusion_laplacian(mesh, diffusivity)"
            )
        if not laplacian.kills_constants:
            raise DomainError(
                "the rows of this Laplacian do not sum to zero, so edges do not determine it: put the conductances in "
                "before symmetrized(), or before boundary conditions"
            )
        self.recipe = laplacian.recipe
        self.register_buffer("edges", torch.stack([pattern.row[upper], pattern.col[upper]]), persistent=False)
        self.register_buffer("weights", -values[upper], persistent=False)
        self.register_buffer("mass", laplacian.mass, persistent=False)
        self.stiffness = _EdgeStiffness(self.edges[0], self.edges[1], laplacian.shape[0])

    def forward(self, conductance: Tensor) -> Laplacian:
        """The Laplacian with these conductances, one a batch member if they have a batch.

        Args:
            conductance: (..., E), each ≥ 0, for the columns of `edges`, in the dtype of the weights.

        Raises:
            FieldError: wrong shape, dtype or device; non-finite or negative conductances.
        """
        count = self.weights.numel()
        if not isinstance(conductance, Tensor) or conductance.ndim == 0 or conductance.shape[-1] != count:
            given = tuple(conductance.shape) if isinstance(conductance, Tensor) else type(conductance).__name__
            raise FieldError(f"conductance must have shape (..., {count}), one for each edge i < j, not {given}")
        _not_negative("conductance", _checked("conductance", conductance, self.mass))
        return Laplacian(self.stiffness(self.weights * conductance, self.mass.dtype), self.mass)

    def on(self, domain: Any) -> EdgeDiffusion:
        """The same for another domain."""
        if self.recipe is None:
            raise NotImplementedError(
                "this EdgeDiffusion was made from tensors, so it does not know how to move to another domain; make it from "
                "a graph, or from a function of the domain such as robust_laplacian(mesh)"
            )
        return EdgeDiffusion(self.recipe(domain)).to(device=self.mass.device, dtype=self.mass.dtype)


class _EdgeStiffness(nn.Module):
    """Weights (..., E) of the edges i < j ↦ C = Bᵀ W B, by two sparse products with fixed patterns."""

    def __init__(self, i: Tensor, j: Tensor, n: int) -> None:
        super().__init__()
        nodes, edge = torch.arange(n, device=i.device), torch.arange(i.numel(), device=i.device)
        self.pattern = SparsityPattern(torch.cat([i, j, nodes]), torch.cat([j, i, nodes]), (n, n))
        place = torch.empty_like(self.pattern.order)
        place[self.pattern.order] = torch.arange(place.numel(), device=i.device)
        ij, ji, ii = place[: i.numel()], place[i.numel() : 2 * i.numel()], place[2 * i.numel() :]
        # One entry a row beside the diagonal: no sum, so both triangles are the same to the last bit.
        ones = torch.ones(2 * i.numel(), dtype=torch.float64, device=i.device)
        rows, signs = torch.cat([ij, ji, ii[i], ii[j]]), torch.cat([-ones, ones])
        self.fill = SparseOperator.from_entries(rows, edge.repeat(4), signs, (place.numel(), edge.numel()))

    def forward(self, weights: Tensor, dtype: torch.dtype) -> SparseOperator:
        values: Tensor = self.fill(weights.to(self.fill.dtype)[..., None]).squeeze(-1).to(dtype)
        if not bool(torch.isfinite(values.detach()).all()):
            raise FieldError(f"these coefficients overflow {dtype} once multiplied by the geometry: change their unit")
        return SparseOperator(self.pattern, values)


def face_average(mesh: TriangleMesh, x: Tensor) -> Tensor:
    """The mean of a field over the corners of each face, as a diffusivity; (..., n) → (..., m)."""
    if not isinstance(x, Tensor) or x.ndim == 0 or x.shape[-1] != mesh.num_nodes:
        given = tuple(x.shape) if isinstance(x, Tensor) else type(x).__name__
        raise FieldError(f"a coefficient on the vertices must have shape (..., {mesh.num_nodes}), not {given}")
    return x[..., mesh.faces].mean(-1)


def directional_diffusivity(mesh: TriangleMesh, direction: Tensor, along: Tensor | float, across: Tensor | float) -> Tensor:
    """D = α t tᵀ + β (P − t tᵀ): the rate α along a tangent direction t of each face, β across it, P onto the face.

    Args:
        direction: (..., m, d), of any length; what points out of the face is dropped.
        along, across: α and β, numbers or (..., m).

    Returns:
        (..., m, d, d), differentiable in all of it and in the vertices.

    Raises:
        FieldError: a direction that is zero, not finite, or normal to its face.
    """
    corners = face_corners(mesh)
    m, _, d = corners.shape
    if not isinstance(direction, Tensor) or direction.ndim < 2 or direction.shape[-2:] != (m, d):
        given = tuple(direction.shape) if isinstance(direction, Tensor) else type(direction).__name__
        raise FieldError(f"direction must have shape (..., {m}, {d}), not {given}")
    wide = _checked("direction", direction, mesh.vertices).double()
    basis = _tangent_basis(corners)
    flat = (basis @ wide[..., None]).squeeze(-1)
    length = torch.linalg.vector_norm(flat, dim=-1)
    eps = torch.finfo(direction.dtype).eps
    bad = length.detach() <= 8 * eps * torch.linalg.vector_norm(wide.detach(), dim=-1)
    if bool(bad.any()):
        raise FieldError(f"the direction is zero or normal to its face on {int(bad.sum())} faces: choose any tangent one there")
    tangent = ((flat / length[..., None])[..., None, :] @ basis).squeeze(-2)
    line = tangent[..., :, None] * tangent[..., None, :]
    alpha, beta = (torch.as_tensor(rate, dtype=torch.float64, device=wide.device)[..., None, None] for rate in (along, across))
    tensors: Tensor = alpha * line + beta * (basis.mT @ basis - line)
    return tensors.to(mesh.vertices.dtype)


class _Recipe:
    """The recipe of a diffusion Laplacian whose coefficients are known on any mesh."""

    def __init__(self, diffusivity: Diffusivity) -> None:
        self.diffusivity = diffusivity

    def __call__(self, mesh: TriangleMesh) -> Laplacian:
        return diffusion_laplacian(mesh, self.diffusivity)


def _tangent_basis(corners: Tensor) -> Tensor:
    """Two orthonormal vectors in the plane of each face, counter-clockwise; (m, 3, d) → (m, 2, d)."""
    m, _, d = corners.shape
    if d == 2:
        return torch.eye(2, dtype=corners.dtype, device=corners.device).expand(m, 2, 2)
    a, b = corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]
    first = a / torch.linalg.vector_norm(a, dim=1, keepdim=True)
    normal = torch.linalg.cross(a, b)
    normal = normal / torch.linalg.vector_norm(normal, dim=1, keepdim=True)
    return torch.stack([first, torch.linalg.cross(normal, first)], dim=1)


def _checked(name: str, values: Tensor, like: Tensor) -> Tensor:
    if values.dtype != like.dtype:
        raise FieldError(f"{name} has dtype {values.dtype} but the domain {like.dtype}: nothing is converted silently; use .to()")
    if values.device != like.device:
        raise FieldError(f"{name} is on {values.device} but the domain on {like.device}: move one with .to(device)")
    if not bool(torch.isfinite(values.detach()).all()):
        raise FieldError(f"{name} holds non-finite values: the training that made it has diverged, or its data is incomplete")
    return values


def _not_negative(name: str, values: Tensor) -> None:
    if bool((values.detach() < 0).any()):
        raise FieldError(
            f"{name} is negative in {int((values.detach() < 0).sum())} places: such diffusion blows up at once; learn its "
            "logarithm, or use softplus"
        )
