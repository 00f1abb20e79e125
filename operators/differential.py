"""Gradient and divergence on edges, faces and vertices: exact adjoints of each other in their inner products."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from operators.checks import DomainError, FieldError
from operators.domains import TriangleMesh
from operators.laplacian import Laplacian
from operators.mass import face_corners, twice_area
from operators.operator import Operator
from operators.rayleigh import edge_form
from operators.sparse import SparseOperator


class Gradient(Operator):
    """grad: x ↦ G x, from fields on vertices to fields on edges, or to vectors on faces or vertices.

    Vectors are laid out flat, row d·f + axis for the d axes of face f, as a field (..., d·m, c); `vectors` gives the view
    (..., m, d, c). `inner` is the inner product of such values. There is no boundary term: `divergence` is the adjoint as
    it stands, so diffusion with it has natural (Neumann, no-flux) boundaries.

    Args:
        stencil: G, (r, n).
        weight: a, (r,) or (..., r), the weights of the rows in the inner product: edge weights, areas or masses.
        mass: m, (n,), positive.
        axes: d, 1 on edges.
        recipe: the function of a domain that built this gradient; lets it move to another domain.
    """

    weight: Tensor
    mass: Tensor

    def __init__(
        self,
        stencil: SparseOperator,
        weight: Tensor,
        mass: Tensor,
        axes: int = 1,
        recipe: Callable[[Any], Gradient] | None = None,
    ) -> None:
        super().__init__()
        if weight.shape[-1:] != (stencil.shape[0],) or mass.shape != (stencil.shape[1],):
            raise DomainError(f"weight {tuple(weight.shape)} and mass {tuple(mass.shape)} do not fit a stencil {stencil.shape}")
        self.stencil = stencil
        self.register_buffer("weight", weight, persistent=False)
        self.register_buffer("mass", mass, persistent=False)
        self.axes = axes
        self.shape = stencil.shape
        self.recipe = recipe

    def forward(self, x: Tensor) -> Tensor:
        slope: Tensor = self.stencil(x)
        return slope

    def inner(self, u: Tensor, v: Tensor) -> Tensor:
        """⟨u, v⟩ = Σ_r a_r ū_r·v_r; (..., r, c) × 2 → (...). A bilinear form only, where edge weights are negative."""
        return (self.weight[..., None] * u.conj() * v).sum(dim=(-2, -1))

    def divergence(self) -> Divergence:
        """div = −grad*: ⟨grad x, u⟩ = −⟨x, div u⟩_M for all x and u, complex ones included."""
        return Divergence(self)

    def adjoint(self) -> Operator:
        """grad* = −div."""
        return _negated(self.divergence())

    def norm_bound(self) -> float:
        """√(‖B‖₁ ‖B‖_∞) ≥ ‖B‖₂ with B = A^½ G M^-½; of a gradient with negative weights, by their size."""
        left, right = self.weight.detach().abs().sqrt(), self.mass.detach().rsqrt()
        values, pattern = self.stencil.values.detach(), self.stencil.pattern
        return SparseOperator(pattern, values * (left[..., pattern.row] * right[pattern.col])).norm_bound()

    def vectors(self, u: Tensor) -> Tensor:
        """The values as vectors: (..., d·m, c) → (..., m, d, c), a view."""
        if u.ndim < 2 or u.shape[-2] != self.shape[0]:
            raise FieldError(f"values of this gradient have shape (..., {self.shape[0]}, c), not {tuple(u.shape)}")
        return u.reshape(*u.shape[:-2], self.shape[0] // self.axes, self.axes, u.shape[-1])

    def flat(self, vectors: Tensor) -> Tensor:
        """Vectors as values of this gradient, for its `inner` and `divergence`: (..., m, d, c) → (..., d·m, c)."""
        if vectors.ndim < 3 or vectors.shape[-3:-1] != (self.shape[0] // self.axes, self.axes):
            wanted = f"(..., {self.shape[0] // self.axes}, {self.axes}, c)"
            raise FieldError(f"vectors must have shape {wanted}, not {tuple(vectors.shape)}")
        return vectors.flatten(-3, -2)

    def on(self, domain: Any) -> Gradient:
        """The same kind of gradient on another domain, in this one's precision and on its device."""
        if self.recipe is None:
            return super().on(domain)  # type: ignore[return-value]
        return self.recipe(domain).to(device=self.device, dtype=self.dtype)

    def extra_repr(self) -> str:
        return f"shape={self.shape}, axes={self.axes}"


class Divergence(Operator):
    """div = −grad*, u ↦ −M⁻¹ Gᴴ A u: minus the adjoint of a gradient, to the last entry.

    Its `inner` is that of the vertices, ⟨x, y⟩_M = Σ m_i x̄_i·y_i.
    """

    def __init__(self, gradient: Gradient) -> None:
        super().__init__()
        self.gradient = gradient
        back = gradient.stencil.adjoint()
        pattern = back.pattern
        self.back = SparseOperator(pattern, -back.values * gradient.weight[..., pattern.col] / gradient.mass[pattern.row])
        self.shape = back.shape

    def forward(self, u: Tensor) -> Tensor:
        flow: Tensor = self.back(u)
        return flow

    def inner(self, x: Tensor, y: Tensor) -> Tensor:
        """⟨x, y⟩_M = Σ m_i x̄_i·y_i; (..., n, c) × 2 → (...)."""
        return (self.gradient.mass[:, None] * x.conj() * y).sum(dim=(-2, -1))

    def adjoint(self) -> Operator:
        """div* = −grad."""
        return _negated(self.gradient)

    def norm_bound(self) -> float:
        """That of the gradient."""
        return self.gradient.norm_bound()

    def on(self, domain: Any) -> Divergence:
        """The divergence of the gradient on another domain."""
        return Divergence(self.gradient.on(domain))


class _Negated(Operator):
    """−A."""

    def __init__(self, operator: Operator) -> None:
        super().__init__()
        self.operator = operator
        self.shape = operator.shape

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = -self.operator(x)
        return result

    def inner(self, x: Tensor, y: Tensor) -> Tensor:
        return self.operator.inner(x, y)

    def adjoint(self) -> Operator:
        return _negated(self.operator.adjoint())

    def norm_bound(self) -> float:
        return self.operator.norm_bound()

    def on(self, domain: Any) -> Operator:
        return _negated(self.operator.on(domain))


def _negated(operator: Operator) -> Operator:
    return operator.operator if isinstance(operator, _Negated) else _Negated(operator)


def edge_gradient(laplacian: Laplacian) -> Gradient:
    """(∇x)_e = x_j − x_i for each edge i < j once, in lexicographic order, with ⟨u, v⟩ = Σ_e w_e ū_e·v_e; div ∇ = −L.

    The weights w_ij = −C_ij and the masses are those of the Laplacian, of a graph or a mesh. Weights may be negative, as
    of `cotangent_laplacian` on obtuse triangles: the inner product is then a bilinear form, and everything else holds.
    A signed or magnetic Laplacian gives the covariant difference x_j − ū_ij x_i. Differentiable in the stiffness.

    Raises:
        DomainError: no difference along the edges gives this Laplacian, as of `symmetrized()` on uneven masses.
    """
    form = edge_form(laplacian.stiffness)
    if form.surplus is not None and bool((form.surplus.detach() != 0).any()):
        raise DomainError(
            "the rows of this Laplacian do not sum to zero, so it is not −div grad of differences along edges: take the edge "
            "gradient before symmetrized(), or before boundary conditions are put in"
        )
    recipe = None if laplacian.recipe is None else _OfLaplacian(laplacian.recipe)
    # A copy: the form, and with it the energy of this Laplacian, is kept for others.
    return Gradient(form.incidence, form.weights.clone(), laplacian.mass, 1, recipe)


class _OfLaplacian:
    """The recipe of an edge gradient (a class, so that it can be pickled)."""

    def __init__(self, recipe: Callable[[Any], Laplacian]) -> None:
        self.recipe = recipe

    def __call__(self, domain: Any) -> Gradient:
        return edge_gradient(self.recipe(domain))


def face_gradient(mesh: TriangleMesh) -> Gradient:
    """(∇x)_f = Σ_k x_k (N × e_k) / |N|², the constant gradient of the linear interpolant on each face; div ∇ = −L_cot.

    N is the face's normal of length twice its area and e_k the edge opposite to corner k. Values are vectors in the
    mesh's own axes, tangent to the face, with ⟨u, v⟩ = Σ_f A_f ū_f·v_f. Exact on linear functions; in 1/length.
    Differentiable in the vertices.

    Returns:
        (d·m, n) with d = 2 for a mesh in the plane, 3 in space; masses lumped as in `cotangent_laplacian`.
    """
    corners = face_corners(mesh)
    slopes, doubled = _hat_gradients(corners), twice_area(corners)
    (m, d), dtype = slopes.shape[::2], mesh.vertices.dtype
    rows = torch.arange(d * m, device=slopes.device).reshape(m, 1, d).expand(m, 3, d)
    columns = mesh.faces[:, :, None].expand(m, 3, d)
    matrix = SparseOperator.from_entries(rows.flatten(), columns.flatten(), slopes.flatten().to(dtype), (d * m, mesh.num_nodes))
    return Gradient(matrix, (doubled / 2).to(dtype).repeat_interleave(d), _thirds(mesh, doubled).to(dtype), d, face_gradient)


def vertex_gradient(mesh: TriangleMesh) -> Gradient:
    """(∇x)_i = Σ_f∋i A_f (∇x)_f / Σ_f∋i A_f, the face gradients averaged by area, with ⟨u, v⟩ = Σ_i m_i ū_i·v_i.

    For a vector field beside a scalar field on the same vertices, as in transport. Exact on linear functions in a plane. Its
    −div ∇ reaches two rings and, on regular grids, does not see a checkerboard: diffuse with the Laplacian instead.
    Differentiable in the vertices.

    Returns:
        (d·n, n) with d = 2 for a mesh in the plane, 3 in space.
    """
    corners = face_corners(mesh)
    slopes, doubled = _hat_gradients(corners), twice_area(corners)
    (m, d), n, dtype = slopes.shape[::2], mesh.num_nodes, mesh.vertices.dtype
    mass = _thirds(mesh, doubled)
    share = (doubled / 6)[:, None] / mass[mesh.faces]
    # (m, 3, 3, d): the slope of corner k, as seen from corner i.
    entries = share[:, :, None, None] * slopes[:, None, :, :]
    axes = torch.arange(d, device=mesh.faces.device)
    rows = (d * mesh.faces[:, :, None, None] + axes).expand(m, 3, 3, d)
    columns = mesh.faces[:, None, :, None].expand(m, 3, 3, d)
    matrix = SparseOperator.from_entries(rows.flatten(), columns.flatten(), entries.flatten(), (d * n, n))
    matrix = SparseOperator(matrix.pattern, matrix.values.to(dtype))
    return Gradient(matrix, mass.to(dtype).repeat_interleave(d), mass.to(dtype), d, vertex_gradient)


def _hat_gradients(corners: Tensor) -> Tensor:
    """∇φ_k of the three hat functions of every face; (m, 3, d) → (m, 3, d)."""
    opposite = corners.roll(1, 1) - corners.roll(-1, 1)
    a, b = corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]
    if corners.shape[2] == 2:
        signed = a[:, 0] * b[:, 1] - a[:, 1] * b[:, 0]
        return torch.stack([-opposite[..., 1], opposite[..., 0]], dim=-1) / signed[:, None, None]
    normal = torch.linalg.cross(a, b)
    slopes: Tensor = torch.linalg.cross(normal[:, None].expand_as(opposite), opposite) / normal.square().sum(1)[:, None, None]
    return slopes


def _thirds(mesh: TriangleMesh, doubled: Tensor) -> Tensor:
    total: Tensor = doubled.new_zeros(mesh.num_nodes).index_add(0, mesh.faces.reshape(-1), (doubled / 6).repeat_interleave(3))
    return total
