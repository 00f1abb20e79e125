"""The smallest and the largest eigenpairs of a Laplacian, and spectral filters built from them."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import scipy.linalg
import scipy.sparse as sp
import torch
from numpy.typing import NDArray
from scipy.sparse import linalg as spla
from torch import Tensor

from operators.checks import ConvergenceError, DomainError, FieldError, check_field, real_dtype
from operators.laplacian import Laplacian
from operators.operator import Operator
from operators.sparse import SparseOperator

Array = NDArray[Any]

# Below this a dense solver is as fast as Lanczos, and never misses an eigenvalue.
DENSE_NODES = 300
ROUNDS = 20


@dataclass(frozen=True, eq=False)
class Eigenpairs:
    """k solutions of C v = λ M v, with V of shape (n, k) orthonormal in ⟨x, y⟩_M: Vᴴ M V = I.

    Args:
        values: λ, (k,), real, ascending.
        vectors: V, (n, k).
        weighted: M V, (n, k); equal to V where the mass is one.
    """

    values: Tensor
    vectors: Tensor
    weighted: Tensor

    def project(self, x: Tensor) -> Tensor:
        """The spectral coefficients Vᴴ M x; (..., n, c) → (..., k, c)."""
        check_field(x, self.vectors.shape[0], self.vectors.dtype, self.vectors.device)
        return _matmul(self.weighted.mH, x)

    def reconstruct(self, coefficients: Tensor) -> Tensor:
        """V c; (..., k, c) → (..., n, c)."""
        check_field(coefficients, self.values.shape[0], self.vectors.dtype, self.vectors.device, "coefficients")
        return _matmul(self.vectors, coefficients)

    def filter(self, function: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
        """V f(Λ) Vᴴ M x, that is f(L) x on the span of these eigenvectors; the rest of x is dropped.

        Args:
            function: f, from (k,) to (k,), or to (k, c) with one filter a channel.
            x: (..., n, c).
        """
        coefficients = self.project(x)
        response = function(self.values)
        if response.shape[:1] != self.values.shape or response.ndim > 2:
            raise FieldError(f"the filter must map eigenvalues ({len(self.values)},) to ({len(self.values)},) or "
                             f"({len(self.values)}, c), not to {tuple(response.shape)}")  # fmt: skip
        return _matmul(self.vectors, coefficients * (response[:, None] if response.ndim == 1 else response))

    def to(self, target: torch.device | str | torch.dtype) -> Eigenpairs:
        """A copy on another device, or in another real precision."""
        if not isinstance(target, torch.dtype):
            return Eigenpairs(self.values.to(target), self.vectors.to(target), self.weighted.to(target))
        wide = target.to_complex() if self.vectors.is_complex() else target
        return Eigenpairs(self.values.to(target), self.vectors.to(wide), self.weighted.to(wide))


def eigenpairs(laplacian: Laplacian, k: int, *, largest: bool = False, mass: Operator | None = None) -> Eigenpairs:
    """The k smallest (or largest) solutions of C v = λ M v, counted with multiplicity.

    Computed in float64 on the CPU: densely where n ≤ 300 or k > n / 2; otherwise by Lanczos iteration (ARPACK), on
    (C − σM)⁻¹ with a slightly negative σ for the smallest. A single vector's Krylov space may pass over a copy of a
    repeated eigenvalue, so the complement of what was found is searched until it holds nothing that belongs.

    Where C or M require gradients, the eigenvalues carry them: ∂λ = vᴴ (∂C − λ ∂M) v (Hellmann and Feynman). Of a
    repeated eigenvalue only functions that treat its copies alike are differentiable. The vectors carry none.
    Each vector's first entry of at least 0.9 of the largest magnitude is real and positive; within the space of a
    repeated eigenvalue the basis is arbitrary, but the same in every run.

    Args:
        laplacian: C Hermitian and positive semi-definite (real or complex), M its mass.
        k: 1 to n.
        mass: M as a Hermitian positive definite `SparseOperator`, in place of the laplacian's own.

    Raises:
        DomainError: k out of range; a matrix that is not Hermitian, finite or (semi-)definite.
        ConvergenceError: no convergence, or residuals ‖C v − λ M v‖ above round-off.
    """
    n = laplacian.shape[0]
    if isinstance(k, bool) or not isinstance(k, (int, np.integer)) or not 1 <= k <= n:
        raise DomainError(f"k must be an integer from 1 to n = {n}, the number of nodes, not {k!r}")
    pencil = _Pencil(laplacian, mass)
    if n <= DENSE_NODES or 2 * k > n:
        try:
            values, y = scipy.linalg.eigh(pencil.C.toarray(), None if pencil.M is None else pencil.M.toarray())
        except np.linalg.LinAlgError as error:
            raise DomainError(f"the dense solver fails ({error}): is the mass positive definite?") from None
        values, y = (values[n - k :], y[:, n - k :]) if largest else (values[:k], y[:, :k])
    else:
        values, y = _lanczos(pencil, int(k), largest)
    pencil.check(values, y)
    return pencil.unscaled(values, y, laplacian, mass)


class _Pencil:
    """C y = λ M y in numbers near one: M has a unit diagonal (None: it is I), and C a typical diagonal of one."""

    def __init__(self, laplacian: Laplacian, mass: Operator | None) -> None:
        C = laplacian.stiffness.to_scipy()
        if mass is None:
            self.root = 1 / np.sqrt(laplacian.mass.detach().cpu().double().numpy())
        else:
            if not isinstance(mass, SparseOperator) or mass.shape != laplacian.shape:
                raise DomainError(f"mass must be a SparseOperator of shape {laplacian.shape}, not {mass!r}")
            _check_hermitian(mass.to_scipy(), "mass")
            diagonal = mass.to_scipy().diagonal().real
            if not (diagonal > 0).all():
                raise DomainError("the mass must be positive definite, but its diagonal is not positive")
            self.root = 1 / np.sqrt(diagonal)
        _check_hermitian(C, "stiffness")
        C = _scaled(C, self.root)
        positive = np.abs(C.diagonal()[C.diagonal() != 0])
        # The median, since one sliver can make the largest entry a billion times the typical one.
        self.unit = float(np.median(positive)) if positive.size else 1.0
        self.C = C / self.unit
        self.M = None if mass is None else _scaled(mass.to_scipy(), self.root)
        self.norm = float(abs(self.C).sum(axis=1).max())
        # A float32 stiffness is semi-definite up to its own round-off.
        self.doubt = float(torch.finfo(real_dtype(laplacian.dtype)).eps) * self.norm
        # Of the order of the first positive eigenvalue of a surface (Weyl: λ_k grows like k/n of the largest).
        self.shift = -max(1.0 / len(self.root), 4 * self.doubt)

    def weigh(self, y: Array) -> Array:
        """M y."""
        return y if self.M is None else self.M @ y

    def check(self, values: Array, y: Array) -> None:
        """Raise unless every residual is at the level that float64 allows, and no eigenvalue is negative."""
        residuals = np.linalg.norm(self.C @ y - self.weigh(y) * values, axis=0)
        u = np.finfo(np.float64).eps / 2
        limits = 1e-10 * np.abs(values) + 64 * u * np.sqrt(len(y)) * self.norm
        if not (residuals <= limits).all():
            worst = int(np.argmax(np.where(residuals <= limits, 0, residuals)))
            raise ConvergenceError(
                f"eigenpair {worst} of {len(values)} has the residual {residuals[worst]:.1e}, above {limits[worst]:.1e} "
                "(relative to the typical diagonal of M⁻¹C): ask for fewer pairs, or clean the mesh of slivers"
            )
        if float(values[0]) < -32 * math.sqrt(len(y)) * self.doubt:
            raise DomainError(f"the stiffness is not positive semi-definite: it has the eigenvalue {values[0] * self.unit:.3e}")

    def unscaled(self, values: Array, y: Array, laplacian: Laplacian, mass: Operator | None) -> Eigenpairs:
        """Back to the user's units, precision and device, with canonical signs and gradients."""
        v = y * self.root[:, None]
        large = np.abs(v) >= 0.9 * np.abs(v).max(axis=0)
        pivot = v[large.argmax(axis=0), np.arange(v.shape[1])]
        sign = np.conj(pivot) / np.abs(pivot)
        v, weighted = v * sign, self.weigh(y) / self.root[:, None] * sign
        narrow = real_dtype(laplacian.dtype)
        wide = narrow.to_complex() if np.iscomplexobj(v) else narrow
        vectors, duals = (torch.from_numpy(np.ascontiguousarray(a)).to(laplacian.device, wide) for a in (v, weighted))
        # `check` refuses what is negative beyond round-off; a √λ of −1e-16 would be NaN.
        eigenvalues = torch.from_numpy(np.maximum(values, 0) * self.unit).to(laplacian.device, narrow)
        return Eigenpairs(_with_gradient(eigenvalues, vectors, laplacian, mass), vectors, duals)


def _with_gradient(values: Tensor, v: Tensor, laplacian: Laplacian, mass: Operator | None) -> Tensor:
    """λ + vᴴ C v − λ vᴴ M v, minus its own value: λ with the gradient of Hellmann and Feynman."""
    if mass is None:
        tensors = [laplacian.stiffness.values, laplacian.mass]
    else:
        tensors = [laplacian.stiffness.values, *mass.parameters(), *mass.buffers()]
    if not (torch.is_grad_enabled() and any(tensor.requires_grad for tensor in tensors)):
        return values
    weighted = laplacian.mass[:, None] * v if mass is None else mass(v)
    change = (v.conj() * laplacian.stiffness(v)).sum(0).real - values * (v.conj() * weighted).sum(0).real
    result: Tensor = values + (change - change.detach())
    return result


def _lanczos(pencil: _Pencil, k: int, largest: bool) -> tuple[Array, Array]:
    """k extreme pairs, with a search of the M-orthogonal complement for those that one Krylov space passed over."""
    search = _Search(pencil, largest)
    y = search(k, None)
    values, y = _rayleigh_ritz(pencil, y, k, largest)
    more = 1
    for _ in range(ROUNDS):
        extra = search(more, y)
        candidates, _ = _rayleigh_ritz(pencil, extra, more, largest)
        surplus = candidates[-1] - values[0] if largest else values[-1] - candidates[0]
        if surplus <= 1e-8 * (abs(values[0]) if largest else abs(values[-1]) - pencil.shift):
            return values, y
        values, y = _rayleigh_ritz(pencil, np.hstack([y, extra]), k, largest)
        more = min(2 * more, k)
    raise ConvergenceError(
        f"after {ROUNDS} searches there are still eigenvalues that belong among these {k}: the multiplicities are very high; "
        "ask for a different number, or on a small domain for all of them (k = n)"
    )


class _Search:
    """ARPACK on the pencil, or on the complement of known eigenvectors; one factorisation serves every search.

    It looks for the largest eigenvalues of (C − σM)⁻¹ M, or of M⁻¹ C + I (moved by one, since an operator that maps
    the start to zero stops ARPACK). Both are self-adjoint in M, so both are its shift-invert mode.
    """

    def __init__(self, pencil: _Pencil, largest: bool) -> None:
        self.pencil, self.largest = pencil, largest
        self.factor = None
        if not largest:
            M = sp.eye_array(len(pencil.root)) if pencil.M is None else pencil.M
            self.factor = _definite_factor(pencil.C - pencil.shift * M, "stiffness")
        elif pencil.M is not None:
            self.factor = _definite_factor(pencil.M, "mass")

    def __call__(self, count: int, known: Array | None) -> Array:
        pencil, n = self.pencil, len(self.pencil.root)
        dtype = pencil.C.dtype if pencil.M is None else np.result_type(pencil.C.dtype, pencil.M.dtype)

        def without_known(y: Array) -> Array:
            return y if known is None else y - known @ (pencil.weigh(known).conj().T @ y)

        def action(b: Array) -> Array:
            y = self._solve(b)
            return without_known(y + self._solve(pencil.C @ y) if self.largest else y)

        inverse = spla.LinearOperator((n, n), matvec=action, dtype=dtype)
        steps = max(2 * count + 1, 40)
        while True:
            random = np.random.default_rng(0)
            start = without_known(random.normal(size=n).astype(dtype))
            try:
                arpack: Any = spla.eigsh
                # Older versions restart from a fixed seed of their own.
                if "rng" in inspect.signature(arpack).parameters:
                    arpack = partial(arpack, rng=random)
                return np.asarray(arpack(pencil.C, count, pencil.M, sigma=0, OPinv=inverse, v0=start, ncv=min(steps, n))[1])
            except spla.ArpackError as error:
                # Few distinct eigenvalues exhaust a short Krylov space; a longer one has room for their copies.
                if isinstance(error, spla.ArpackNoConvergence) or steps >= n:
                    raise ConvergenceError(
                        f"Lanczos iteration for {count} eigenpairs stopped ({error}): the eigenvalues lie too close together; "
                        "ask for a different number, or on a small domain for all of them (k = n)"
                    ) from None
                steps *= 2

    def _solve(self, b: Array) -> Array:
        if self.factor is None:
            return b
        # SuperLU refuses a complex right-hand side of a real factor.
        if np.iscomplexobj(b) and not np.iscomplexobj(self.factor.L.data):
            return np.asarray(self.factor.solve(b.real) + 1j * self.factor.solve(b.imag))
        return np.asarray(self.factor.solve(b))


def _rayleigh_ritz(pencil: _Pencil, y: Array, k: int, largest: bool) -> tuple[Array, Array]:
    """The best k pairs in the span of y, M-orthonormal, ascending."""
    y, _ = np.linalg.qr(y)
    values, rotation = scipy.linalg.eigh(y.conj().T @ (pencil.C @ y), y.conj().T @ pencil.weigh(y))
    chosen = slice(len(values) - k, None) if largest else slice(k)
    return values[chosen], y @ rotation[:, chosen]


def _definite_factor(matrix: Any, name: str) -> Any:
    """An unpivoted factor A = L D Lᴴ; its D is positive exactly where A is positive definite."""
    try:
        factor = spla.splu(
            sp.csc_array(matrix), permc_spec="MMD_AT_PLUS_A", diag_pivot_thresh=0.0, options={"SymmetricMode": True}
        )
    except RuntimeError:
        factor = None
    if factor is None or not (factor.U.diagonal().real > 0).all():
        wanted = "definite" if name == "mass" else "semi-definite"
        raise DomainError(f"the {name} is not positive {wanted}: look for negative weights or coefficients")
    return factor


def _check_hermitian(matrix: sp.csr_array, name: str) -> None:
    if not np.isfinite(matrix.data).all():
        raise DomainError(f"the {name} holds NaN or infinity: look for a diverged parameter or a degenerate face")
    gap, size = abs(matrix - matrix.conj().T), abs(matrix)
    # A float32 operator was summed in float32, perhaps in another order on the two sides.
    if gap.nnz and float(gap.max()) > 1e-5 * float(size.max()):
        raise DomainError(f"the {name} must be symmetric (Hermitian); it differs from its adjoint by {float(gap.max()):.1e}")


def _scaled(matrix: sp.csr_array, root: Array) -> Any:
    half = sp.diags_array(root)
    scaled = half @ matrix @ half
    return sp.csr_array((scaled + scaled.conj().T) / 2)


def _matmul(matrix: Tensor, x: Tensor) -> Tensor:
    dtype = torch.promote_types(matrix.dtype, x.dtype)
    return matrix.to(dtype) @ x.to(dtype)
