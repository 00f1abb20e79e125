"""|∇u|² at the nodes, along the edges or on the faces of a domain, and the diffusion whose coefficient is known there."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

import torch
from torch import Tensor, nn

from operators import EdgeDiffusion, Graph, Laplacian, MeshDiffusion, TriangleMesh, cotangent_laplacian
from operators.checks import as_field
from operators.mass import face_corners, twice_area


class Slopes(nn.Module, ABC):
    """Places k with measures μ_k where |∇u|² is known, such that Σ_k μ_k |∇u|²_k = ⟨u, L u⟩.

    Then −div(g ∇u), for any g at these places, is the derivative of ½ Σ_k μ_k g_k |∇u|²_k at frozen g, and the whole flow of
    g = G'(|∇u|²) is the gradient flow of ½ Σ_k μ_k G(|∇u|²_k). The channels of u share one |∇u|²: their squares add up.

    Attributes:
        base: the Laplacian L with g = 1, which gives the masses.
    """

    base: Laplacian

    @property
    @abstractmethod
    def measure(self) -> Tensor:
        """μ, (k,)."""

    @abstractmethod
    def squared(self, u: Tensor) -> Tensor:
        """|∇u|², summed over the channels; (..., n, c) → (..., k)."""

    @abstractmethod
    def laplacian(self, g: Tensor) -> Laplacian:
        """L_g = −div(g ∇·) as an operator; g ≥ 0 of shape (..., k)."""

    @abstractmethod
    def diffuse(self, g: Tensor, u: Tensor) -> Tensor:
        """div(g ∇u), without assembling L_g; (..., k), (..., n, c) → (..., n, c)."""

    @property
    def averages(self) -> bool:
        """Whether L_g has no negative weight for any g ≥ 0, so that diffusion stays within the hull of its start."""
        return True

    @abstractmethod
    def on(self, domain: Any) -> Slopes:
        """The same on another domain."""


class EdgeSlopes(Slopes):
    """|∇u|²_e = w_e (u_j − u_i)² / m_e along every edge, with m_e the mean mass of its ends: each direction by itself.

    On a grid this is ((u_j − u_i)/h)², and Perona–Malik diffusion is that of their paper; on a graph without masses it is
    w_e (u_j − u_i)². In two dimensions a coefficient of it is not isotropic: x and y do not see each other.

    Args:
        base: a Laplacian with weights ≥ 0 and rows that sum to zero, or a graph, for its combinatorial Laplacian.

    Raises:
        DomainError: negative or complex weights; rows that do not sum to zero.
    """

    def __init__(self, base: Laplacian | Graph) -> None:
        super().__init__()
        self.edges = EdgeDiffusion(base)
        self.of_graph = isinstance(base, Graph)
        self.base = base if isinstance(base, Laplacian) else self.edges(torch.ones_like(self.edges.weights))

    @property
    def measure(self) -> Tensor:
        mass = self.edges.mass
        return (mass[self.edges.edges[0]] + mass[self.edges.edges[1]]) / 2

    def differences(self, u: Tensor) -> Tensor:
        """u_j − u_i for each edge i < j; (..., n, c) → (..., E, c)."""
        low, high = self.edges.edges
        return u.index_select(-2, high) - u.index_select(-2, low)

    def squared(self, u: Tensor) -> Tensor:
        as_field(u, self.edges.mass.numel())
        return self.edges.weights / self.measure * self.differences(u).square().sum(-1)

    def on_edges(self, g: Tensor) -> Tensor:
        """The coefficient on the edges; (..., k) → (..., E)."""
        return g

    def laplacian(self, g: Tensor) -> Laplacian:
        result: Laplacian = self.edges(self.on_edges(g))
        return result

    def diffuse(self, g: Tensor, u: Tensor) -> Tensor:
        low, high = self.edges.edges
        flow = (self.edges.weights * self.on_edges(g))[..., None] * self.differences(u)
        total = flow.new_zeros(*flow.shape[:-2], *u.shape[-2:])
        return total.index_add(-2, low, flow).index_add(-2, high, -flow) / self.edges.mass[:, None]

    def on(self, domain: Any) -> EdgeSlopes:
        moved = type(self)(domain if self.of_graph else self.base.on(domain))
        return moved.to(device=self.edges.mass.device, dtype=self.edges.mass.dtype)


class NodeSlopes(EdgeSlopes):
    """|∇u|²_i = Σ_j w_ij (u_i − u_j)² / 2m_i at every node (Bakry's carré du champ): isotropic, in any dimension.

    An edge has the mean coefficient of its two ends. Exact on linear functions of a grid away from its sides; in the middle of
    a grid it is the mean of the squared differences forwards and backwards.
    """

    @property
    def measure(self) -> Tensor:
        return self.edges.mass

    def squared(self, u: Tensor) -> Tensor:
        as_field(u, self.edges.mass.numel())
        low, high = self.edges.edges
        energy = self.edges.weights * self.differences(u).square().sum(-1) / 2
        total = energy.new_zeros(*energy.shape[:-1], u.shape[-2])
        return total.index_add(-1, low, energy).index_add(-1, high, energy) / self.edges.mass

    def on_edges(self, g: Tensor) -> Tensor:
        low, high = self.edges.edges
        return (g.index_select(-1, low) + g.index_select(-1, high)) / 2


class FaceSlopes(Slopes):
    """|∇u|²_f of the linear interpolant on every triangle: finite elements. Isotropic and exact on linear functions.

    Where every angle is at most π/2 the diffusion keeps to the hull of its start; elsewhere that is not promised.

    Args:
        mesh: the surface.
    """

    faces: Tensor
    area: Tensor

    def __init__(self, mesh: TriangleMesh) -> None:
        super().__init__()
        self.triangles = MeshDiffusion(mesh)
        self.register_buffer("faces", mesh.faces, persistent=False)
        self.register_buffer("area", twice_area(face_corners(mesh)) / 2, persistent=False)
        self.base = cotangent_laplacian(mesh)

    @property
    def measure(self) -> Tensor:
        return self.area

    def squared(self, u: Tensor) -> Tensor:
        as_field(u, self.triangles.mass.numel())
        return (self._gradient(u).square().sum((-2, -1)) / self.area).to(u.dtype)

    def laplacian(self, g: Tensor) -> Laplacian:
        result: Laplacian = self.triangles(g)
        return result

    def diffuse(self, g: Tensor, u: Tensor) -> Tensor:
        vectors = g[..., None, None] * self._gradient(u)
        flow = torch.einsum("fkd,...fdc->...fkc", self.triangles.slopes.to(vectors.dtype), vectors).flatten(-3, -2)
        total = flow.new_zeros(*flow.shape[:-2], *u.shape[-2:])
        return -total.index_add(-2, self.faces.flatten(), flow).to(u.dtype) / self.triangles.mass[:, None]

    def _gradient(self, u: Tensor) -> Tensor:
        """√A ∇u of each face, in the plane of the face; (..., n, c) → (..., m, 2, c)."""
        slopes = self.triangles.slopes
        corners = u[..., self.faces, :].to(torch.promote_types(u.dtype, slopes.dtype))
        return torch.einsum("fkd,...fkc->...fdc", slopes.to(corners.dtype), corners)

    @property
    def averages(self) -> bool:
        return bool((self.triangles.half_cotangents >= -1e-12).all())

    def on(self, domain: Any) -> FaceSlopes:
        return FaceSlopes(domain).to(device=self.area.device)


def as_slopes(domain: Laplacian | Graph | TriangleMesh | Slopes) -> Slopes:
    """Slopes themselves; those on the faces of a mesh; those at the nodes of a Laplacian or a graph."""
    if isinstance(domain, Slopes):
        return domain
    if isinstance(domain, TriangleMesh):
        return FaceSlopes(domain)
    if isinstance(domain, (Laplacian, Graph)):
        return NodeSlopes(domain)
    raise TypeError(
        "nonlinear diffusion wants a Laplacian (such as grid_laplacian(grid)), a graph, a mesh, or EdgeSlopes(laplacian), not a "
        f"{type(domain).__name__}"
    )
