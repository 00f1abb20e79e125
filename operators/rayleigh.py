"""How rough a field is."""

from __future__ import annotations

import torch
from torch import Tensor

from operators.checks import FieldError, check_field
from operators.laplacian import Laplacian


def dirichlet_energy(laplacian: Laplacian, x: Tensor) -> Tensor:
    """E(x) = ½ ⟨x, L x⟩_M = ½ Σ_c xᴴ C x; (..., n, c) → (...), real. Plain where the Laplacian's mass is one."""
    check_field(x, laplacian.shape[0], laplacian.dtype, laplacian.device)
    overlap: Tensor = (x.conj() * laplacian.stiffness(x)).sum(dim=(-2, -1))
    return overlap.real / 2


def rayleigh_quotient(laplacian: Laplacian, x: Tensor) -> Tensor:
    """R(x) = ⟨x, L x⟩_M / ⟨x, x⟩_M = Tr(xᴴ C x) / Tr(xᴴ M x); (..., n, c) → (...), real.

    Mass-weighted for a Laplacian with mass; plain (the papers' form) where the mass is one, as for
    `symmetric_laplacian(graph)` or `laplacian.symmetrized()`.

    Raises:
        FieldError: a zero field has no Rayleigh quotient.
    """
    check_field(x, laplacian.shape[0], laplacian.dtype, laplacian.device)
    if x.shape[-1]:
        # R(x / s) = R(x); a power of two rounds nothing and keeps squares in range. NaN stays NaN, and zero zero.
        peak = x.detach().abs().amax(dim=(-2, -1), keepdim=True)
        x = x / torch.where((peak > 0) & peak.isfinite(), torch.exp2(torch.floor(torch.log2(peak))), 1.0)
    energy = 2 * dirichlet_energy(laplacian, x)
    norm = laplacian.inner(x, x).real
    if bool((norm == 0).any()):
        raise FieldError("the Rayleigh quotient of a zero field is undefined (0/0): mask the field before calling")
    return energy / norm


def mass_weighted_norm(mass: Tensor, x: Tensor) -> Tensor:
    """‖x‖_M = √(Σ m_i |x_i|²); mass (n,), x (..., n, c) → (...)."""
    return torch.sqrt((mass[:, None] * (x.conj() * x).real).sum(dim=(-2, -1)))
