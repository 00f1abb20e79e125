"""How rough a field is: Dirichlet energy, Rayleigh quotient and norm, measured where a large constant would drown them."""

from __future__ import annotations

from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor

from operators.checks import FieldError, check_field
from operators.laplacian import Laplacian
from operators.pattern import SparsityPattern
from operators.sparse import SparseOperator

# Numbers gathered at a time: they stay in the cache of one core.
BLOCK = 1 << 16


def dirichlet_energy(laplacian: Laplacian, x: Tensor, *, per_channel: bool = False) -> Tensor:
    """E(x) = ½ ⟨x, L x⟩_M = ½ Σ_e w_e |x_i − x_j|²; (..., n, c) → (...), real. Plain where the Laplacian's mass is one.

    It is summed over edges, so that a constant added to x cancels before squaring: the error is relative to E itself, not
    to the size of x (for weights of one sign; `EdgeForm` says what becomes of other Hermitian stiffness matrices).

    Args:
        per_channel: return (..., c), whose sum over the channels is the joint energy.
    """
    check_field(x, laplacian.shape[0], laplacian.dtype, laplacian.device)
    unit = _unit(x, per_channel)
    # The scale twice rather than its square, which may leave the range where the energy does not.
    scale = unit.squeeze(-2) if per_channel else unit.squeeze(-2).squeeze(-1)
    return _twice_energy(laplacian, x / unit, per_channel) / 2 * scale * scale


def rayleigh_quotient(laplacian: Laplacian, x: Tensor, *, plain: bool = False, per_channel: bool = False) -> Tensor:
    """R(x) = ⟨x, L x⟩_M / ⟨x, x⟩_M = Tr(xᴴ C x) / Tr(xᴴ M x); (..., n, c) → (...), real.

    Mass-weighted for a Laplacian with mass; plain (the papers' form) where the mass is one, as for
    `symmetric_laplacian(graph)` or `laplacian.symmetrized()`. As stable against a large constant as `dirichlet_energy`.

    Args:
        plain: divide by Tr(xᴴ x) instead, the quotient of the stiffness C alone.
        per_channel: return (..., c), the quotient of each channel.

    Raises:
        FieldError: a zero field has no Rayleigh quotient.
    """
    check_field(x, laplacian.shape[0], laplacian.dtype, laplacian.device)
    # R(x / s) = R(x): squares stay in range.
    x = x / _unit(x, per_channel)
    square = _square(x) if plain else laplacian.mass[:, None] * _square(x)
    norm = square.sum(dim=-2 if per_channel else (-2, -1))
    if bool((norm == 0).any()):
        what = "zero channel" if per_channel else "zero field"
        raise FieldError(f"the Rayleigh quotient of a {what} is undefined (0/0): mask the field before calling")
    return _twice_energy(laplacian, x, per_channel) / norm


def mass_weighted_norm(mass: Tensor, x: Tensor, *, per_channel: bool = False) -> Tensor:
    """‖x‖_M = √(Σ m_i |x_i|²); mass (n,), x (..., n, c) → (...), or (..., c) for the norm of each channel.

    Its derivative at a zero field is zero, and it overflows only where the norm itself does.
    """
    check_field(x, mass.shape[-1], mass.dtype, mass.device)
    unit = _unit(x, per_channel)
    scale = unit.squeeze(-2) if per_channel else unit.squeeze(-2).squeeze(-1)
    size: Tensor = torch.linalg.vector_norm(mass.sqrt()[:, None] * (x / unit), dim=-2 if per_channel else (-2, -1))
    return size * scale


def _square(x: Tensor) -> Tensor:
    return x.real.square() + x.imag.square() if x.is_complex() else x.square()


def _unit(x: Tensor, per_channel: bool) -> Tensor:
    """A power of two near the largest entry, (..., 1, 1) or (..., 1, c): dividing by it rounds nothing. One if zero or NaN."""
    parts = torch.view_as_real(x.detach().resolve_conj()).abs().amax(-1) if x.is_complex() else x.detach().abs()
    if 0 in x.shape:
        return parts.new_ones(*x.shape[:-2], 1, x.shape[-1] if per_channel else 1)
    peak = parts.amax(dim=-2 if per_channel else (-2, -1), keepdim=True)
    # Not the exponential of a rounded logarithm, which is infinite for the largest number.
    return torch.where((peak > 0) & peak.isfinite(), peak / (2 * torch.frexp(peak).mantissa), 1.0)


def _twice_energy(laplacian: Laplacian, x: Tensor, per_channel: bool) -> Tensor:
    stiffness = laplacian.stiffness
    form = edge_form(stiffness)
    if stiffness.values.ndim > 1 or _varies(stiffness.values):
        energy = (form.weights[..., None] * _square(form.incidence(x))).sum(-2)
        if form.surplus is not None:
            energy = energy + (form.surplus[..., None] * _square(x)).sum(-2)
    else:
        energy = _EdgeEnergy.apply(x, form, stiffness)  # type: ignore[no-untyped-call]
    result: Tensor = energy if per_channel else energy.sum(-1)
    return result


class _EdgeEnergy(torch.autograd.Function):
    """x ↦ xᴴ C x of each channel, from edges a block at a time; its derivative is 2 C x, a product over nodes."""

    generate_vmap_rule = True

    @staticmethod
    def forward(x: Tensor, form: EdgeForm, stiffness: SparseOperator) -> Tensor:
        edges = form.low.numel()
        blocks, size = [], max(1, BLOCK * stiffness.shape[0] // max(1, x.numel()) if x.device.type == "cpu" else edges)
        for first in range(0, edges, size):
            part = slice(first, first + size)
            start, end = x.index_select(-2, form.low[part]), x.index_select(-2, form.high[part])
            if form.phase is not None:
                start = form.phase[part, None] * start
            blocks.append((_square(end - start) * form.weights[part, None]).sum(-2))
        if form.surplus is not None:
            blocks.append((_square(x) * form.surplus[:, None]).sum(-2))
        total: Tensor = torch.stack(blocks).sum(0) if blocks else _square(x[..., :0, :]).sum(-2)
        return total

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        x, ctx.form, ctx.stiffness = inputs
        ctx.save_for_backward(x)
        ctx.save_for_forward(x)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None]:
        (x,) = ctx.saved_tensors
        slope = 2 * grads[0][..., None, :] * _flow(x, ctx.form, ctx.stiffness)
        return slope if x.is_complex() or not slope.is_complex() else slope.real, None, None

    @staticmethod
    def jvp(ctx: Any, *tangents: Any) -> Tensor:
        (x,) = ctx.saved_tensors
        change: Tensor = _flow(x, ctx.form, ctx.stiffness).conj() * tangents[0]
        return 2 * (change.real if change.is_complex() else change).sum(-2)


def _flow(x: Tensor, form: EdgeForm, stiffness: SparseOperator) -> Tensor:
    """C x, less the part of x that C kills: a large constant would drown the rest."""
    if form.phase is None and form.surplus is None:
        x = x - _common_part(x.detach())
    result: Tensor = stiffness(x)
    return result


def _common_part(x: Tensor) -> Tensor:
    """The middle of the range of each channel where all of it lies far from zero, else zero; (..., n, c) → (..., 1, c)."""
    if x.is_complex():
        return torch.complex(_common_part(x.real), _common_part(x.imag))
    low, high = torch.aminmax(x, dim=-2, keepdim=True)
    # One node far out, in a field about zero, must not take the digits of the others.
    return torch.where(high - low < torch.maximum(high.abs(), low.abs()) / 4, low + (high - low) / 2, 0.0)


class EdgeForm:
    """xᴴ C x = Σ_e w_e |(B x)_e|² + Σ_i s_i |x_i|², a Hermitian matrix as differences along its edges i < j.

    (B x)_ij = x_j − x_i with w_ij = −C_ij and s = C 1 where that leaves the smaller s; else, for signed and magnetic
    matrices, (B x)_ij = x_j − ū_ij x_i with C_ij = −|C_ij| u_ij, w_ij = |C_ij| and s_i = C_ii − Σ_j |C_ij|. A surplus s_i
    below the round-off of its row is zero: then differences alone decide, and a large constant cancels exactly.

    Attributes:
        low, high: i and j, (E,), in lexicographic order. weights: w, (..., E), real. phase: ū, (..., E), or None where
            all are one. surplus: s, (..., n), real, or None where all are zero and no gradient can reach them.
    """

    def __init__(self, stiffness: SparseOperator) -> None:
        pattern, values = stiffness.pattern, stiffness.values
        self.ends = _ends(pattern)
        self.low, self.high = self.ends.low, self.ends.high
        entries = values.index_select(-1, self.ends.upper)
        size = values.detach().abs()
        magnitude = _row_sums(pattern, size)
        diagonal = stiffness.diagonal()
        beside = torch.where(pattern.row != pattern.col, values.abs(), 0.0)
        absolute = (diagonal.real if values.is_complex() else diagonal) - _row_sums(pattern, beside)
        eps = _precision(values.detach())
        self.phase: Tensor | None = None
        plain = absolute if values.is_complex() else _row_sums(pattern, values)
        # By more than round-off: where both are the same, only the plain one has a derivative at entries of zero.
        excess = (plain.detach().abs() - absolute.detach().abs()).sum()
        if values.is_complex() or bool(excess > 64 * eps * magnitude.sum()):
            self.weights, surplus = entries.abs(), absolute
            self.phase = torch.where(entries == 0, 1.0, -entries.sgn().conj().resolve_conj())
        else:
            self.weights, surplus = -entries, plain
        degree = pattern.crow[1:] - pattern.crow[:-1]
        kept = torch.where(surplus.detach().abs() <= (4 + degree) * eps * magnitude, 0.0, surplus.detach())
        # Round-off is dropped from the value, not from the derivative: a potential that is learned from zero must move.
        whole = surplus + (kept - surplus.detach())
        self.surplus = whole if _varies(values) or bool((kept != 0).any()) else None

    @property
    def incidence(self) -> SparseOperator:
        """B, (E, n)."""
        end = self.weights.new_ones(self.low.numel()) if self.phase is None else torch.ones_like(self.phase)
        start = end if self.phase is None else self.phase
        return SparseOperator(self.ends.pattern, torch.stack([-start, end], dim=-1).flatten(-2))


def _varies(values: Tensor) -> bool:
    """Whether a derivative may be taken in these values: backward, forward, or inside a transform of torch.func."""
    wrapped = bool(torch._C._functorch.is_functorch_wrapped_tensor(values))
    tangent = torch.autograd.forward_ad.unpack_dual(values).tangent  # type: ignore[no-untyped-call]
    return values.requires_grad or wrapped or tangent is not None


def _row_sums(pattern: SparsityPattern, values: Tensor) -> Tensor:
    # Not by a product: that has a Function of its own, which cannot run where transforms are switched off.
    sums: Tensor = values.new_zeros(*values.shape[:-1], pattern.shape[0]).index_add(-1, pattern.row, values)
    return sums


def _precision(values: Tensor) -> float:
    """The round-off that values carry: that of float32 for float64 ones which were widened from it."""
    parts = torch.view_as_real(values) if values.is_complex() else values
    narrow = parts.dtype != torch.float64 or bool((parts.float() == parts).all())
    return torch.finfo(torch.float32 if narrow else torch.float64).eps


class _Ends:
    """The entries i < j of a square pattern, and the pattern (E, n) that joins each to its two ends."""

    def __init__(self, pattern: SparsityPattern) -> None:
        self.upper = (pattern.row < pattern.col).nonzero().squeeze(1)
        self.low, self.high = pattern.row[self.upper], pattern.col[self.upper]
        count = self.upper.numel()
        edges = torch.arange(count, device=self.upper.device).repeat_interleave(2)
        self.pattern = SparsityPattern(edges, torch.stack([self.low, self.high], dim=1).flatten(), (count, pattern.shape[1]))


# Beside the modules, not in them: nothing of it is pickled, copied or saved, and it goes when they go.
_kept_ends: WeakKeyDictionary[SparsityPattern, _Ends] = WeakKeyDictionary()
_kept_forms: WeakKeyDictionary[SparseOperator, tuple[Tensor, Tensor, EdgeForm]] = WeakKeyDictionary()


def _ends(pattern: SparsityPattern) -> _Ends:
    found = _kept_ends.get(pattern)
    if found is None or found.upper.device != pattern.row.device:
        # Kept tensors must be plain, also when they are first needed inside a transform.
        with torch.inference_mode(False), torch._C._DisableFuncTorch(), torch.no_grad():
            found = _kept_ends[pattern] = _Ends(pattern)
    return found


def edge_form(stiffness: SparseOperator) -> EdgeForm:
    """The `EdgeForm` of a Hermitian matrix, kept for the next call where its values are fixed."""
    values = stiffness.values
    if _varies(values) or values.is_inference() or isinstance(values, torch.nn.Parameter):
        return EdgeForm(stiffness)
    known, copy, form = _kept_forms.get(stiffness, (None, values, None))
    # Compared entry by entry: version counters miss what is written through .data or NumPy.
    if form is None or known is not values or copy.dtype != values.dtype or not torch.equal(copy, values):
        with torch.inference_mode(False), torch._C._DisableFuncTorch(), torch.no_grad():
            form = EdgeForm(stiffness)
            _kept_forms[stiffness] = (values, values.clone(), form)
    return form
