"""Fourth-order operators in mixed form: a system of two Laplacians instead of one product of them."""

from __future__ import annotations

import torch
from torch import Tensor

from operators import DirectSolver, Laplacian, SparseOperator, SparsityPattern


def weighted_product(laplacian: Laplacian, a: Tensor, u: Tensor) -> Tensor:
    """−div(a grad u), with the mean of a at its two ends on every edge; a L u where a is one number.

    From four products with L: Σ_j w_ij ½(a_i + a_j)(u_i − u_j) = ½ (a L u + L(a u) − u L a + a u L 1).

    Args:
        a: one number, or a field (..., n, 1) or (..., n, c).
        u: (..., n, c).
    """
    if a.numel() == 1:
        return a.reshape(()) * (laplacian @ u)
    product = a * (laplacian @ u) + laplacian @ (a * u) - u * (laplacian @ a)
    if not laplacian.kills_constants:
        product = product + a * u * (laplacian @ torch.ones_like(u[..., :1]))
    return product / 2


def weighted_laplacian(laplacian: Laplacian, a: Tensor, rate: Tensor, potential: float) -> Laplacian:
    """r (−div(a grad) + v), symmetric in the masses m_i / r_i; a and r are numbers or fields (n, 1), v ≥ 0 is a number."""
    n, stiffness = laplacian.shape[0], laplacian.stiffness
    pattern = stiffness.pattern
    a, rate = (value.to(stiffness.dtype).expand(n, 1)[:, 0] for value in (a, rate))
    beside = pattern.row != pattern.col
    row, col = pattern.row[beside], pattern.col[beside]
    weights = -stiffness.values[beside] * (a[row] + a[col]) / 2
    diagonal = potential * laplacian.mass
    if not laplacian.kills_constants:
        diagonal = diagonal + a * stiffness.row_sums()
    diagonal = diagonal.index_add(0, row, weights)
    node = torch.arange(n, device=row.device)
    entries = torch.cat([-weights, diagonal])
    weighted = SparseOperator.from_entries(torch.cat([row, node]), torch.cat([col, node]), entries, (n, n))
    return Laplacian(weighted, laplacian.mass / rate)


class MixedPart:
    """G u = −K(D u + a u), with K = −div(m grad) and D = −div(ε² grad), as a linear part whose solves are in mixed form.

    (I − s G) u = b is the system of u and μ = D u + a u

        M u + s C_m μ = M b,        M μ − (C_ε + a M) u = 0,

    with C_m, C_ε the stiffness with m and ε² on its edges, factored as one sparse matrix of twice the size: no product of
    two Laplacians is formed, and m and ε may vary from node to node (Elliott, French and Milner 1989, Numer. Math. 54).

    Args:
        laplacian: L = M⁻¹ C.
        mobility: m ≥ 0, one number or a field (..., n, 1) or (..., n, c).
        square_width: ε², likewise.
        stabilization: a ≥ 0.
    """

    def __init__(self, laplacian: Laplacian, mobility: Tensor, square_width: Tensor, stabilization: float = 0.0) -> None:
        self.laplacian = laplacian
        self.m, self.square, self.a = mobility, square_width, stabilization
        self._solver = DirectSolver()
        self._places: _Places | None = None
        self._made: tuple[complex, SparseOperator] | None = None

    @property
    def self_adjoint(self) -> bool:
        """Whether m and ε are numbers, m not negative: G is then self-adjoint in the inner product of L, and negative."""
        return self.m.numel() == 1 and self.square.numel() == 1 and float(self.m.detach()) >= 0

    def __matmul__(self, u: Tensor) -> Tensor:
        return -weighted_product(self.laplacian, self.m, self.potential(u))

    def potential(self, u: Tensor) -> Tensor:
        """D u + a u, the linear part of the chemical potential."""
        return weighted_product(self.laplacian, self.square, u) + self.a * u

    def norm_bound(self) -> float:
        bound, m, square = self.laplacian.norm_bound(), self.m.detach().abs(), self.square.detach().abs()
        return float(m.max()) * bound * (float(square.max()) * bound + self.a)

    def solve(self, shift: Tensor, b: Tensor) -> Tensor:
        return self.solve_mixed(shift, b)[0]

    def solve_mixed(self, shift: Tensor | float, b: Tensor) -> tuple[Tensor, Tensor]:
        """u = (I − s G)⁻¹ b and μ = D u + a u; (..., n, c) → two of the same."""
        n, mass = self.laplacian.shape[0], self.laplacian.mass.double()
        wide_shift = isinstance(shift, complex) or (isinstance(shift, Tensor) and shift.is_complex())
        s = torch.as_tensor(shift, dtype=torch.complex128 if wide_shift else torch.float64)
        # A field of several channels is a matrix for each of them.
        apart = any(a.numel() > 1 and a.shape[-1] > 1 for a in (self.m, self.square))
        wide = b.to(torch.complex128 if b.is_complex() or s.is_complex() else torch.float64)
        columns = wide.mT[..., None] if apart else wide
        right = torch.cat([mass[:, None] * columns, torch.zeros_like(columns)], dim=-2)
        solution = self._solver.solve(self._matrix(s, apart), right)
        u, mu = solution[..., :n, :], solution[..., n:, :]
        if apart:
            u, mu = u.squeeze(-1).mT, mu.squeeze(-1).mT
        single = b.real.dtype == torch.float32
        kind = (torch.complex64 if single else torch.complex128) if u.is_complex() else b.dtype
        return u.to(kind), mu.to(kind)

    def keep_factors(self, count: int) -> None:
        """Keep the factors of so many shifts."""
        self._solver.factors_kept = max(self._solver.factors_kept, count)

    def _matrix(self, s: Tensor, apart: bool) -> SparseOperator:
        varying = any(a.requires_grad for a in (s, self.m, self.square, self.laplacian.stiffness.values, self.laplacian.mass))
        shift = complex(s.detach())
        if self._made is not None and self._made[0] == shift and not varying:
            return self._made[1]
        if self._places is None:
            self._places = _Places(self.laplacian)
        places, mass = self._places, self.laplacian.mass.double()
        by_mobility, by_width = (places.stiffness(self.laplacian, a, apart) for a in (self.m, self.square))
        lead = torch.broadcast_shapes(by_mobility.shape[:-1], by_width.shape[:-1])  # type: ignore[no-untyped-call]
        blocks = [mass, s * by_mobility, -by_width, -self.a * mass, mass]
        values = torch.cat([block.expand(*lead, -1).to(s.dtype) for block in blocks], dim=-1)
        matrix = SparseOperator(places.pattern, values.new_zeros(*lead, places.pattern.nnz).index_add(-1, places.order, values))
        if not varying:
            self._made = shift, matrix
        return matrix


class _Places:
    """The pattern of the system of a Laplacian, and where each entry of its blocks goes."""

    def __init__(self, laplacian: Laplacian) -> None:
        pattern, n = laplacian.stiffness.pattern, laplacian.shape[0]
        self.beside = (pattern.row != pattern.col).nonzero().squeeze(1)
        self.row, self.col = pattern.row[self.beside], pattern.col[self.beside]
        self.flat = laplacian.kills_constants
        node = torch.arange(n, device=pattern.row.device)
        block_row, block_col = torch.cat([self.row, node]), torch.cat([self.col, node])
        rows = torch.cat([node, block_row, block_row + n, node + n, node + n])
        columns = torch.cat([node, block_col + n, block_col, node, node + n])
        key, self.order = torch.unique(rows * 2 * n + columns, return_inverse=True)
        self.pattern = SparsityPattern(key // (2 * n), key % (2 * n), (2 * n, 2 * n))

    def stiffness(self, laplacian: Laplacian, a: Tensor, apart: bool) -> Tensor:
        """The entries of C beside the diagonal with a on their edges, then those of the diagonal; (..., E + n)."""
        n = laplacian.shape[0]
        beside = -laplacian.stiffness.values.double().index_select(-1, self.beside)
        field = a.double().reshape(1).expand(n) if a.numel() == 1 else (a.mT if apart else a[..., 0]).double()
        weights = beside * (field.index_select(-1, self.row) + field.index_select(-1, self.col)) / 2
        diagonal = weights.new_zeros(*weights.shape[:-1], n).index_add(-1, self.row, weights)
        if not self.flat:
            diagonal = diagonal + laplacian.stiffness.row_sums().double() * field
        return torch.cat([-weights, diagonal], dim=-1)
