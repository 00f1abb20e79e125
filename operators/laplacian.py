"""The Laplacian, and those of graphs. Every one is positive semi-definite: diffusion is −L."""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from typing import Any

import numpy as np
import scipy.sparse.linalg
import torch
from torch import Tensor

from operators.checks import DomainError, check_field
from operators.domains import Graph
from operators.operator import Operator
from operators.solve import ShiftedSolver
from operators.sparse import SparseOperator


class Laplacian(Operator):
    """L = M⁻¹ C, with a symmetric positive semi-definite stiffness matrix C and a positive diagonal mass M.

    L is self-adjoint and positive semi-definite in ⟨x, y⟩ = Σ m_i x̄_i·y_i, which is this operator's `inner`.

    Args:
        stiffness: C, (n, n), symmetric.
        mass: m, (n,), positive: areas on a surface, ones or degrees on a graph.
        recipe: the function of a domain that built this Laplacian; lets it move to another domain.
    """

    mass: Tensor

    def __init__(
        self, stiffness: SparseOperator, mass: Tensor, recipe: Callable[[Any], Laplacian] | None = None
    ) -> None:
        super().__init__()
        if mass.shape != (stiffness.shape[0],) or stiffness.shape[0] != stiffness.shape[1]:
            raise DomainError(f"stiffness {stiffness.shape} and mass {tuple(mass.shape)} must be (n, n) and (n,)")
        if not bool((torch.isfinite(mass) & (mass > 0)).all()):
            raise DomainError("every mass must be positive and finite: clean the mesh of unreferenced vertices")
        self.stiffness = stiffness
        self.register_buffer("mass", mass, persistent=False)
        self.shape = stiffness.shape
        self.recipe = recipe
        self._wide: Laplacian | None = None
        self._norm: float | None = None

    def forward(self, x: Tensor) -> Tensor:
        slope: Tensor = self.stiffness(x) / self.mass[:, None]
        return slope

    def inner(self, x: Tensor, y: Tensor) -> Tensor:
        """⟨x, y⟩_M = Σ m_i x̄_i·y_i; (..., n, c) × 2 → (...)."""
        return (self.mass[:, None] * x.conj() * y).sum(dim=(-2, -1))

    def adjoint(self) -> Laplacian:
        """L itself: it is self-adjoint in its own inner product."""
        return self

    def norm_bound(self) -> float:
        """max_i Σ_j |C_ij| / √(m_i m_j) ≥ λ_max, Gershgorin's bound for the similar matrix M^-½ C M^-½."""
        if self._norm is not None:
            return self._norm
        root = self.mass.detach().rsqrt()
        size = SparseOperator(self.stiffness.pattern, self.stiffness.values.detach().abs())
        norm = float(size.scaled(root, root).row_sums().max())
        if not self.stiffness.values.requires_grad:
            self._norm = norm
        return norm

    def symmetrized(self) -> Laplacian:
        """S = M^-½ C M^-½ with unit mass: the same spectrum, symmetric in the plain inner product.

        It acts on y = M^½ x. Read as an operator on x itself it is another equation, whose equilibrium is √m.
        """
        root = self.mass.rsqrt()
        recipe = self.recipe
        return Laplacian(
            self.stiffness.scaled(root, root),
            torch.ones_like(self.mass),
            None if recipe is None else _Symmetrized(recipe),
        )

    def complement(self) -> Complement:
        """A = I − L, the normalised adjacency matrix where L is a normalised Laplacian."""
        return Complement(self)

    @property
    def kills_constants(self) -> bool:
        """Whether L 1 = 0 to round-off, so that diffusion conserves mass; false for `symmetrized()` on uneven masses."""
        sums, diagonal = self.stiffness.row_sums().detach(), self.stiffness.diagonal().detach()
        round_off = 64 * torch.finfo(self.dtype).eps
        return bool((sums.abs() <= round_off * diagonal.abs()).all())

    def to_wide(self, x: Tensor) -> Laplacian:
        """This Laplacian in the precision of x: itself, or a float64 copy that is kept for measuring."""
        if x.real.dtype == self.dtype:
            return self
        if self._wide is None or self._wide.device != self.device:
            values, mass = self.stiffness.values.detach().double(), self.mass.detach().double()
            wide = Laplacian(SparseOperator(self.stiffness.pattern, values), mass)
            # Through __dict__, so that it is no submodule, which .to() would narrow again.
            self.__dict__["_wide"] = wide
            return wide
        return self._wide

    def solve(self, shift: Tensor | float, b: Tensor) -> Tensor:
        """(I + s L)⁻¹ b, by a sparse factorisation that is kept for the next call with the same s.

        Args:
            shift: s ≥ 0, a number or a scalar tensor, which may require a gradient.
            b: (..., n, c).
        """
        check_field(b, self.shape[0], self.dtype, self.device)
        if self.stiffness.values.requires_grad:
            raise NotImplementedError("solve does not differentiate in the stiffness values: detach them first")
        shift = torch.as_tensor(shift, dtype=torch.float64)
        return self._solver.solve(shift, self.mass[:, None] * b)

    @cached_property
    def _solver(self) -> ShiftedSolver:
        return ShiftedSolver(self.stiffness.to_scipy(), self.mass.detach().cpu().double().numpy())

    def largest_eigenvalue(self) -> float:
        """λ_max of L to about 1e-6, by Lanczos iteration in float64."""
        matrix = self.symmetrized().stiffness.to_scipy()
        if matrix.shape[0] <= 64:
            return float(np.linalg.eigvalsh(matrix.toarray())[-1])
        start = np.random.default_rng(0).normal(size=matrix.shape[0])
        return float(scipy.sparse.linalg.eigsh(matrix, k=1, which="LA", v0=start, tol=1e-6, return_eigenvectors=False)[0])

    def on(self, domain: Any) -> Laplacian:
        """The same kind of Laplacian on another domain, in this one's precision and on its device."""
        if self.recipe is None:
            return super().on(domain)  # type: ignore[return-value]
        return self.recipe(domain).to(device=self.device, dtype=self.dtype)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Laplacian:
        self.__dict__.pop("_solver", None)
        self.__dict__["_wide"] = self.__dict__["_norm"] = None
        moved: Laplacian = super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        return moved

    def __getstate__(self) -> dict[str, Any]:
        return {key: value for key, value in self.__dict__.items() if key != "_solver"} | {"_wide": None}


class Complement(Operator):
    """A = I − L, self-adjoint in L's inner product; polynomials of L share its eigenvectors."""

    def __init__(self, laplacian: Laplacian) -> None:
        super().__init__()
        self.laplacian = laplacian
        self.shape = laplacian.shape

    def forward(self, x: Tensor) -> Tensor:
        rest: Tensor = x - self.laplacian(x)
        return rest

    def inner(self, x: Tensor, y: Tensor) -> Tensor:
        """The inner product of L."""
        return self.laplacian.inner(x, y)

    def adjoint(self) -> Complement:
        """A itself."""
        return self

    def norm_bound(self) -> float:
        """max(1, λ̂ − 1), since L's spectrum lies in [0, λ̂]."""
        return max(1.0, self.laplacian.norm_bound() - 1.0)

    def on(self, domain: Any) -> Complement:
        """I − L on another domain."""
        return Complement(self.laplacian.on(domain))


class _Symmetrized:
    """The recipe of a symmetrized Laplacian (a class, so that it can be pickled)."""

    def __init__(self, recipe: Callable[[Any], Laplacian]) -> None:
        self.recipe = recipe

    def __call__(self, domain: Any) -> Laplacian:
        return self.recipe(domain).symmetrized()


class _Normalized:
    """The recipe of a normalized Laplacian."""

    def __init__(self, recipe: Callable[[Any], Laplacian]) -> None:
        self.recipe = recipe

    def __call__(self, domain: Any) -> Laplacian:
        return normalized_laplacian(self.recipe(domain))


def combinatorial_laplacian(graph: Graph) -> Laplacian:
    """C = D − W, M = I: (L x)_i = Σ_j w_ij (x_i − x_j). Self-loops drop out, repeated edges add up.

    Raises:
        DomainError: negative weights, or a directed graph.
    """
    adjacency = _adjacency(graph)
    stiffness = stiffness_of(adjacency)
    return Laplacian(stiffness, graph.edge_weight.new_ones(graph.nodes), combinatorial_laplacian)


def random_walk_laplacian(graph: Graph) -> Laplacian:
    """L = I − D⁻¹ W, that is C = D − W with the degrees as mass; an isolated node has mass 1 and a zero row."""
    adjacency = _adjacency(graph)
    degree = adjacency.row_sums()
    return Laplacian(stiffness_of(adjacency), torch.where(degree > 0, degree, 1.0), random_walk_laplacian)


def symmetric_laplacian(graph: Graph) -> Laplacian:
    """L = I − D^-½ W D^-½ with unit mass; its spectrum lies in [0, 2]. An isolated node has a zero row."""
    laplacian = random_walk_laplacian(graph).symmetrized()
    laplacian.recipe = symmetric_laplacian
    return laplacian


def adjacency_of(laplacian: Laplacian) -> SparseOperator:
    """W = −offdiag(C) ≥ 0, the edge weights of a Laplacian, entries of weight zero left out.

    Raises:
        DomainError: negative weights, as the plain cotangent formula gives; use `robust_laplacian`.
    """
    pattern, values = laplacian.stiffness.pattern, laplacian.stiffness.values.detach()
    off = (pattern.row != pattern.col) & (values != 0)
    weights = -values[off]
    if bool((weights < 0).any()):
        raise DomainError(
            f"{int((weights < 0).sum())} edge weights are negative (obtuse triangles under the plain cotangent formula): "
            "use robust_laplacian(mesh), whose weights never are"
        )
    return SparseOperator.from_entries(pattern.row[off], pattern.col[off], weights, laplacian.shape)


def normalized_laplacian(laplacian: Laplacian) -> Laplacian:
    """L̃ = I − D^-½ W D^-½ from the edge weights of any Laplacian with W ≥ 0: no mass, no length, no time.

    The operator of R-UniMesh when built from `robust_laplacian`.
    """
    adjacency = adjacency_of(laplacian)
    degree = adjacency.row_sums()
    mass = torch.where(degree > 0, degree, 1.0)
    result = Laplacian(stiffness_of(adjacency), mass).symmetrized()
    result.recipe = None if laplacian.recipe is None else _Normalized(laplacian.recipe)
    return result


def normalized_adjacency(laplacian: Laplacian) -> SparseOperator:
    """Ã = D^-½ W D^-½ with D = Σ_j W_ij; zero rows where a node has no neighbour. Spectrum in [−1, 1]."""
    adjacency = adjacency_of(laplacian)
    degree = adjacency.row_sums()
    root = torch.where(degree > 0, degree, 1.0).rsqrt()
    return adjacency.scaled(root, root)


def stiffness_of(adjacency: SparseOperator) -> SparseOperator:
    """C = D − W, with an explicit diagonal for every node, so that constants cancel as well as rounding allows."""
    n, pattern = adjacency.shape[0], adjacency.pattern
    nodes = torch.arange(n, device=pattern.row.device)
    return SparseOperator.from_entries(
        torch.cat([pattern.row, nodes]),
        torch.cat([pattern.col, nodes]),
        torch.cat([-adjacency.values, adjacency.row_sums()]),
        adjacency.shape,
    )


def _adjacency(graph: Graph) -> SparseOperator:
    source, target = graph.edge_index
    weight = graph.edge_weight
    if bool((weight < 0).any()):
        raise DomainError(
            f"{int((weight < 0).sum())} edges have negative weight: such a Laplacian is not positive semi-definite; "
            "drop the edges or take the absolute values"
        )
    proper = source != target
    adjacency = SparseOperator.from_entries(target[proper], source[proper], weight[proper], (graph.nodes, graph.nodes))
    pattern, transpose = adjacency.pattern, adjacency.adjoint()
    same = torch.equal(pattern.row, transpose.pattern.row) and torch.equal(pattern.col, transpose.pattern.col)
    # Repeated edges may be summed in another order in the two directions.
    tolerance = 8 * torch.finfo(weight.dtype).eps
    if not same or not torch.allclose(adjacency.values, transpose.values, rtol=tolerance, atol=0.0):
        raise DomainError("this graph is directed, and its Laplacian would not be symmetric: use graph.undirected()")
    symmetric = torch.maximum(adjacency.values, transpose.values)
    return SparseOperator(pattern, symmetric)
