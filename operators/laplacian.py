"""The Laplacian, and those of graphs. Every one is positive semi-definite: diffusion is −L."""

from __future__ import annotations

import cmath
from collections.abc import Callable
from typing import Any

import numpy as np
import scipy.sparse.linalg
import torch
from torch import Tensor

from operators.checks import DomainError, FieldError, check_field, real_dtype
from operators.domains import Graph
from operators.operator import Operator
from operators.pattern import SparsityPattern, plainly
from operators.solve import DirectSolver, LinearSolver, SingularMatrixError
from operators.sparse import SparseOperator


class Laplacian(Operator):
    """L = M⁻¹ C, with a symmetric (Hermitian) positive semi-definite stiffness C and a positive diagonal mass M.

    L is self-adjoint and positive semi-definite in ⟨x, y⟩ = Σ m_i x̄_i·y_i, which is this operator's `inner`.
    A complex L gives a complex result on a real field. Everything is differentiable in the values of C and in m.

    Args:
        stiffness: C, (n, n), symmetric or complex Hermitian.
        mass: m, (n,), real and positive: areas on a surface, ones or degrees on a graph.
        recipe: the function of a domain that built this Laplacian; lets it move to another domain.
    """

    mass: Tensor

    def __init__(self, stiffness: SparseOperator, mass: Tensor, recipe: Callable[[Any], Laplacian] | None = None) -> None:
        super().__init__()
        if mass.shape != (stiffness.shape[0],) or stiffness.shape[0] != stiffness.shape[1]:
            raise DomainError(f"stiffness {stiffness.shape} and mass {tuple(mass.shape)} must be (n, n) and (n,)")
        if mass.is_complex() or not bool((torch.isfinite(mass) & (mass > 0)).all()):
            raise DomainError("every mass must be real, positive and finite: clean the mesh of unreferenced vertices")
        self.stiffness = stiffness
        self.register_buffer("mass", mass, persistent=False)
        self.shape = stiffness.shape
        self.recipe = recipe
        self._direct = DirectSolver()
        self._kept: dict[str, tuple[Any, ...]] = {}
        self._places: tuple[SparsityPattern, Tensor] | None = None

    def _reference(self) -> Tensor:
        return self.stiffness.values

    def _keep(self, name: str, compute: Callable[[], Any]) -> Any:
        """The result of `compute`, computed anew once the values or the mass have changed."""
        tensors = (self.stiffness.values, self.mass)
        if any(tensor.requires_grad for tensor in tensors):
            return compute()
        kept = self._kept.get(name)
        # Compared entry by entry: version counters miss what is written through .data or NumPy.
        if kept is None or not all(map(_unchanged, tensors, *kept[:2])):
            with torch.inference_mode(False):
                kept = self._kept[name] = (tensors, [tensor.clone() for tensor in tensors], compute())
        return kept[2]

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
        bound: float = self._keep("norm", self._gershgorin)
        return bound

    def _gershgorin(self) -> float:
        root = self.mass.detach().rsqrt()
        size = SparseOperator(self.stiffness.pattern, self.stiffness.values.detach().abs())
        return float(size.scaled(root, root).row_sums().max()) if self.shape[0] else 0.0

    def diagonal(self) -> Tensor:
        """L_ii = C_ii / m_i ≥ 0, real, of shape (..., n)."""
        diagonal = self.stiffness.diagonal()
        return (diagonal.real if diagonal.is_complex() else diagonal) / self.mass

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
        if real_dtype(x.dtype) == real_dtype(self.dtype):
            return self
        wide: Laplacian = self._keep("wide", self._widened)
        return wide

    def _widened(self) -> Laplacian:
        return Laplacian(SparseOperator(self.stiffness.pattern, _wide(self.stiffness.values)), _wide(self.mass))

    def solve(self, shift: Tensor | complex, b: Tensor, *, by: LinearSolver | None = None) -> Tensor:
        """(I + s L)⁻¹ b, that is (M + s C) y = M b, always in double precision inside.

        Differentiable in s, b, the values of C and the mass, to any order, so also in the vertices of a mesh that a
        differentiable Laplacian was built from.

        Args:
            shift: s, a number or a scalar tensor; ≥ 0 for a time step. A negative or complex one is welcome wherever the
                matrix is invertible.
            b: (..., n, c).
            by: the solver. By default a direct one that factors once and keeps the factor until s, C or m change; its
                time and memory grow as n log n on a surface. `ConjugateGradient(...)` for large volumes or a GPU.

        Raises:
            FieldError: b does not fit or is not finite.
            SingularMatrixError: a ValueError; s is not finite, or M + s C singular.
        """
        check_field(b, self.shape[0], self.dtype, self.device)
        if not isinstance(shift, Tensor):
            shift = torch.tensor(shift, dtype=torch.complex128 if isinstance(shift, complex) else torch.float64)
        if shift.numel() != 1:
            raise FieldError(f"the shift must be one number, not of shape {tuple(shift.shape)}: solve once for each")
        number = _number(shift)
        if not cmath.isfinite(number):
            raise SingularMatrixError(f"the shift s of (M + s C) y = M b must be finite, not {number}: a diverged coefficient?")
        try:
            y = (by or self._direct).solve(self._shifted(_wide(shift.reshape(()))), _wide(self.mass)[:, None] * _wide(b))
        except SingularMatrixError as error:
            raise SingularMatrixError(
                f"M + s C is singular at s = {number:.3g} ({error}): a negative or far too long time step, or coefficient?"
            ) from error
        single = real_dtype(b.dtype) == torch.float32
        if y.is_complex():
            return y.to(torch.complex64 if single else torch.complex128)
        return y.to(b.dtype)

    def keep_factors(self, count: int) -> None:
        """Let `solve` keep at least `count` factors, for a method that goes round so many shifts."""
        self._direct.factors_kept = max(self._direct.factors_kept, count)

    def _shifted(self, shift: Tensor) -> SparseOperator:
        """K = M + s C in double precision; differentiable in everything."""
        pattern, places = self._diagonal_places()
        values = shift * _wide(self.stiffness.values)
        if pattern is not self.stiffness.pattern:
            absent = values.new_zeros(*values.shape[:-1], pattern.nnz - values.shape[-1])
            values = torch.cat([values, absent], dim=-1)[..., pattern.order]
        mass = _wide(self.mass).to(values.dtype).expand(*values.shape[:-1], -1)
        return SparseOperator(pattern, values.index_add(-1, places, mass))

    def _diagonal_places(self) -> tuple[SparsityPattern, Tensor]:
        """The pattern with every diagonal entry, and where these are."""
        pattern = self.stiffness.pattern
        if self._places is None:
            with plainly():
                present = pattern.row[pattern.row == pattern.col]
                if present.numel() < self.shape[0]:
                    absent = torch.ones(self.shape[0], dtype=torch.bool, device=present.device)
                    absent[present] = False
                    new = absent.nonzero().squeeze(1)
                    pattern = SparsityPattern(torch.cat([pattern.row, new]), torch.cat([pattern.col, new]), self.shape)
                self._places = pattern, (pattern.row == pattern.col).nonzero().squeeze(1)
        return self._places

    def largest_eigenvalue(self) -> float:
        """λ_max of L to about 1e-6, by Lanczos iteration in float64."""
        matrix = self.symmetrized().stiffness.to_scipy()
        if matrix.shape[0] <= 64:
            return float(np.linalg.eigvalsh(matrix.toarray()).max(initial=0.0))
        start = np.random.default_rng(0).normal(size=matrix.shape[0])
        return float(scipy.sparse.linalg.eigsh(matrix, k=1, which="LA", v0=start, tol=1e-6, return_eigenvectors=False)[0])

    def on(self, domain: Any) -> Laplacian:
        """The same kind of Laplacian on another domain, in this one's precision and on its device."""
        if self.recipe is None:
            return super().on(domain)  # type: ignore[return-value]
        return self.recipe(domain).to(device=self.device, dtype=real_dtype(self.dtype))

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Laplacian:
        self._direct.clear()
        self._kept, self._places = {}, None
        moved: Laplacian = super()._apply(fn, recurse)
        return moved

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_kept": {}, "_places": None}


def _unchanged(tensor: Tensor, same: Tensor, copy: Tensor) -> bool:
    return tensor is same and tensor.dtype == copy.dtype and torch.equal(tensor, copy)


def _wide(values: Tensor) -> Tensor:
    return values.to(torch.complex128 if values.is_complex() else torch.float64)


def _number(shift: Tensor) -> complex:
    """The value of a scalar, or 0 where torch.func.vmap hides it."""
    try:
        value: complex = shift.detach().reshape(()).item()
    except RuntimeError:
        return 0.0
    return value


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
    """W = −offdiag(C) ≥ 0, the edge weights of a Laplacian, entries of weight zero left out; differentiable in C.

    Raises:
        DomainError: negative weights, as the plain cotangent formula gives (use `robust_laplacian`); complex ones, or a batch.
    """
    pattern, values = laplacian.stiffness.pattern, laplacian.stiffness.values
    if values.is_complex() or values.ndim > 1:
        what = "complex" if values.is_complex() else f"a batch of shape {tuple(values.shape[:-1])}"
        raise DomainError(
            f"the weights of this Laplacian are {what}, and one real weight an edge is needed: take the Laplacian of the graph "
            "without directions, graph.undirected(), or one member of the batch"
        )
    off = (pattern.row != pattern.col) & (values.detach() != 0)
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
