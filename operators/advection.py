"""Advection, −div(u b), by flows between the cells of nodes: what leaves one cell enters another."""

from __future__ import annotations

from enum import Enum

import torch
from torch import Tensor, nn

from operators.cell_sides import CellSides
from operators.checks import FieldError, check_field
from operators.operator import Operator
from operators.pattern import SparsityPattern, plainly
from operators.solve import DirectSolver, SingularMatrixError
from operators.sparse import SparseOperator, sparse_product


class Flux(Enum):
    """Which value a flow F from cell i to cell j carries.

    UPWIND: u_i, that of the donor. First order; smears as a diffusion |F|/2 would; makes no new extrema.
    CENTRED: (u_i + u_j) / 2. Second order; keeps the norm where the flows are free of divergence; wiggles behind steep fronts.
    LIMITED: the centred value where u is smooth, the donor's at extrema: second order but there, and without new extrema
        (Kuzmin and Turek 2004, J. Comput. Phys. 198, with van Leer's limiter). Not linear in u.
    """

    UPWIND = "upwind"
    CENTRED = "centred"
    LIMITED = "limited"

    @classmethod
    def _missing_(cls, value: object) -> Flux:
        raise ValueError(f"flux must be Flux.UPWIND, Flux.CENTRED or Flux.LIMITED, not {value!r}")


class AdvectionOperator(Operator):
    """A u = −div(u b): (A u)_i = −Σ_j F_ij u_ij / m_i, with u_ij the donor's value or the mean of the two.

    Or the advective form −b·grad u = −div(u b) + u div b, which keeps constants instead of the total. Where the flows are free of
    divergence, it is the same. ⟨x, y⟩ = Σ m_i x̄_i·y_i is its `inner`; centred, A is skew-adjoint there if div b = 0.

    Args:
        sides: of the domain, `cell_sides(domain)`.
        flows: F, (E + K,) or (..., E + K): `sides.flows(velocity)` or `sides.stream(psi)`. Differentiable in them.
        flux: UPWIND or CENTRED.
        conservative: −div(u b), or with False −b·grad u.

    What enters through open sides brings u = 0. What leaves a surface carries the donor's value, whatever the flux; on a grid
    u is zero on open walls, to which the centred flux holds, so that without diffusion waves come back from there.
    """

    flows: Tensor
    values: Tensor
    mass: Tensor

    def __init__(
        self,
        sides: CellSides,
        flows: Tensor,
        flux: Flux = Flux.UPWIND,
        *,
        conservative: bool = True,
    ) -> None:
        super().__init__()
        if flux is Flux.LIMITED:
            raise ValueError("limited advection is not linear, and no operator: use Advection(domain, velocity, Flux.LIMITED)")
        if flows.ndim == 0 or flows.shape[-1] != sides.count:
            raise FieldError(f"flows must have shape (..., {sides.count}), one for each side, not {tuple(flows.shape)}")
        self.sides, self.flux, self.conservative = sides, flux, conservative
        n = sides.mass.numel()
        self.shape = (n, n)
        self.register_buffer("flows", flows, persistent=False)
        self.register_buffer("mass", sides.mass, persistent=False)
        self.assembly = _assembly(sides)
        self.pattern = self.assembly.pattern
        self.register_buffer("values", self.assembly(flows, flux, conservative), persistent=False)
        self._direct = DirectSolver()

    def _reference(self) -> Tensor:
        return self.values

    def forward(self, x: Tensor) -> Tensor:
        return sparse_product(self.values, x, self.pattern) / self.mass[:, None]

    def inner(self, x: Tensor, y: Tensor) -> Tensor:
        """⟨x, y⟩_M = Σ m_i x̄_i·y_i; (..., n, c) × 2 → (...)."""
        return (self.mass[:, None] * x.conj() * y).sum(dim=(-2, -1))

    def adjoint(self) -> AdvectionOperator:
        """A* = b·grad, the advective form of the reversed flows; and the other way round."""
        return AdvectionOperator(self.sides, -self.flows, self.flux, conservative=not self.conservative)

    def norm_bound(self) -> float:
        """√(‖B‖₁ ‖B‖_∞) ≥ ‖B‖₂ with B = M^½ A M^-½."""
        root = self.mass.detach().rsqrt()
        return SparseOperator(self.pattern, self.values.detach()).scaled(root, root).norm_bound()

    def diagonal(self) -> Tensor:
        """A_ii, (..., n)."""
        return SparseOperator(self.pattern, self.values).diagonal() / self.mass

    def divergence(self) -> Tensor:
        """div b at the nodes, (..., n), in 1/time."""
        return self.sides.divergence(self.flows)

    def largest_step(self) -> float:
        """min_i m_i / Σ_j max(F_ij, 0), the Courant bound: the largest Euler step that keeps positive fields positive.

        With flows free of divergence, or in the advective form (of what flows in), it also makes no new extrema. Zero for the
        centred flux, with which no Euler step does; infinite where nothing flows.
        """
        if self.flux is Flux.CENTRED:
            return 0.0
        fastest = float((-self.diagonal().detach()).amax()) if self.shape[0] else 0.0
        return 1 / fastest if fastest > 0 else float("inf")

    def solve(self, shift: Tensor | float, b: Tensor) -> Tensor:
        """(I − s A)⁻¹ b, in double precision inside; differentiable in s, b and the flows.

        Raises:
            SingularMatrixError: I − s A is singular, or s not finite. For s ≥ 0 it never is: upwind, or without divergence.
        """
        wide_shift = torch.as_tensor(shift).is_complex()
        s = torch.as_tensor(shift, dtype=torch.complex128 if wide_shift else torch.float64, device=self.device)
        values = -s.reshape(()) * self.values.double()
        if not bool(torch.isfinite(s.detach())):
            raise SingularMatrixError(f"the shift s of (I − s A) y = b must be finite, not {complex(s.detach())}")
        mass = self.mass.double().to(values.dtype).expand(*values.shape[:-1], -1)
        system = SparseOperator(self.pattern, values.index_add(-1, self.assembly.diagonal, mass))
        wide = b.to(torch.complex128 if b.is_complex() else torch.float64)
        y = self._direct.solve(system, self.mass.double()[:, None] * wide)
        single = self.dtype == torch.float32
        if y.is_complex():
            return y.to(torch.complex64 if single else torch.complex128)
        return y.to(b.dtype)

    def keep_factors(self, count: int) -> None:
        """Let `solve` keep the factors of so many shifts."""
        self._direct.factors_kept = max(self._direct.factors_kept, count)


class _Assembly(nn.Module):
    """Flows ↦ the entries of −div(u b) or −b·grad u, times the masses, by one sparse product with a fixed pattern."""

    diagonal: Tensor

    def __init__(self, sides: CellSides) -> None:
        super().__init__()
        n, (i, j), out = sides.mass.numel(), sides.edges, sides.exits
        count, device = i.numel(), i.device
        nodes = torch.arange(n, device=device)
        # From (out, back) of each side: what the first cell gives, out u_i, and what it gets, back u_j.
        rows, columns = torch.cat([i, i, j, j, out, nodes]), torch.cat([i, j, i, j, out, nodes])
        key, place = torch.unique(rows * n + columns, return_inverse=True)
        self.pattern = SparsityPattern(key // n, key % n, (n, n))
        # The boundary of a surface runs through its nodes: there is no other value there to take the mean with.
        self.centred = count if sides.exits_at_nodes else sides.count
        self.register_buffer("diagonal", (key // n == key % n).nonzero().squeeze(1), persistent=False)
        ii, ij, ji, jj, oo, _ = place.split([count] * 4 + [out.numel(), n])
        inner, outer = torch.arange(count, device=device), count + torch.arange(out.numel(), device=device)
        first, second = torch.cat([inner, outer]), sides.count + torch.cat([inner, outer])
        ones = sides.mass.new_ones(count)
        shape = (key.numel(), 2 * sides.count)

        def fill(entries: list[tuple[Tensor, Tensor, float]]) -> SparseOperator:
            values = torch.cat([sign * ones.new_ones(at.numel()) for at, _, sign in entries])
            return SparseOperator.from_entries(
                torch.cat([at for at, _, _ in entries]), torch.cat([of for _, of, _ in entries]), values, shape
            )

        a, b = first[:count], second[:count]
        between = [(ij, b, 1.0), (ji, a, 1.0)]
        self.conservative = fill([*between, (ii, a, -1.0), (jj, b, -1.0), (oo, first[count:], -1.0)])
        self.advective = fill([*between, (ii, b, -1.0), (jj, a, -1.0), (oo, second[count:], -1.0)])

    def forward(self, flows: Tensor, flux: Flux, conservative: bool) -> Tensor:
        size = flows.abs()
        if flux is Flux.CENTRED:
            size = torch.cat([torch.zeros_like(size[..., : self.centred]), size[..., self.centred :]], dim=-1)
        both = torch.cat([size + flows, size - flows], dim=-1) / 2
        filling = self.conservative if conservative else self.advective
        values: Tensor = filling(both[..., None]).squeeze(-1)
        return values


def _assembly(sides: CellSides) -> _Assembly:
    if "assembly" not in sides.kept:
        with plainly():
            sides.kept["assembly"] = _Assembly(sides)
    kept: _Assembly = sides.kept["assembly"]
    return kept


def check_real_field(u: Tensor, mass: Tensor) -> None:
    """Check that u is a real field (..., n, c) on the cells of these masses: fluxes that are not linear compare values.

    Raises:
        FieldError: it is not.
    """
    check_field(u, mass.numel(), mass.dtype, mass.device)
    if u.is_complex():
        raise FieldError("this flux compares values, which complex ones cannot be: take the real and imaginary part each")


def limited_advection(sides: CellSides, flows: Tensor, u: Tensor, *, conservative: bool = True) -> Tensor:
    """−div(u b) with `Flux.LIMITED`, times the masses: donors' values, and as much of the way to centred ones as cells allow.

    A cell i gives Σ p of antidiffusion with flows to smaller neighbours, p = F_ij (u_i − u_j)⁺, and gets Σ q from larger ones in
    the same way; it is given back Φ(q / p) of it, Φ(r) = 2r / (1 + r), so that an extremum, where q = 0, gets nothing back.
    The same below, with the signs changed.

    Args:
        sides: of the domain.
        flows: (E + K,) or (..., E + K).
        u: (..., n, c), real.

    Returns:
        (..., n, c): divide by the masses for du/dt. Differentiable almost everywhere.
    """
    check_real_field(u, sides.mass)
    i, j = sides.edges
    inner, outer = flows[..., : i.numel(), None], flows[..., i.numel() :, None]
    ui, uj = u.index_select(-2, i), u.index_select(-2, j)
    forward, size = inner >= 0, inner.abs()
    donor, taker = torch.where(forward, ui, uj), torch.where(forward, uj, ui)
    drop = size * (donor - taker)
    down, up = drop.clamp(min=0), (-drop).clamp(min=0)
    both = torch.cat([down, up], dim=-1)

    def gathered(at_start: Tensor, at_end: Tensor) -> Tensor:
        total = at_start.new_zeros(*at_start.shape[:-2], u.shape[-2], at_start.shape[-1])
        return total.index_add(-2, i, at_start).index_add(-2, j, at_end)

    zero = torch.zeros_like(both)
    given, got = gathered(torch.where(forward, both, zero), torch.where(forward, zero, both)), gathered(
        torch.where(forward, zero, both), torch.where(forward, both, zero)
    )
    sum_ = given + got
    share = torch.where(sum_ > 0, 2 * got / torch.where(sum_ > 0, sum_, torch.ones_like(sum_)), torch.zeros_like(sum_))
    at_donor = torch.where(forward, share.index_select(-2, i), share.index_select(-2, j))
    of_down, of_up = at_donor.chunk(2, dim=-1)
    carried = inner * donor - torch.where(forward, 1.0, -1.0) * (of_down * down - of_up * up) / 2
    gain = gathered(-carried, carried)
    leaving = outer.clamp(min=0) * u.index_select(-2, sides.exits)
    gain = gain.index_add(-2, sides.exits, -leaving)
    if not conservative:
        gain = gain + (sides.divergence(flows) * sides.mass)[..., None] * u
    return gain
