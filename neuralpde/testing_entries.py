"""The entries of an operator: the magnitudes that a product accumulates, by which its round-off is judged."""

from __future__ import annotations

from typing import Any

import numpy as np
import scipy.sparse as sp
import torch
from torch import Tensor

from neuralpde.testing_bounds import aspect
from operators import Divergence, Domain, DomainError, Gradient, Laplacian, Operator, SparseOperator, TriangleMesh

MOST_COLUMNS = 4000


def as_operator(A: Any) -> Operator:
    """An operator, or a matrix (torch, NumPy or SciPy; dense or sparse) as one."""
    if isinstance(A, Operator):
        return A
    if isinstance(A, Tensor):
        dense = A.to_dense() if A.layout != torch.strided else A
        if dense.ndim != 2:
            raise TypeError(f"a matrix has two axes, not shape {tuple(dense.shape)}")
        return _Dense(dense)
    if isinstance(A, np.ndarray):
        return as_operator(torch.from_numpy(A))
    if sp.issparse(A):
        return SparseOperator.from_scipy(A)  # type: ignore[arg-type]
    raise TypeError(f"expected an Operator or a matrix, not {type(A).__name__}")


class _Dense(Operator):
    """A dense matrix; nothing is checked or converted, so that what it gets wrong shows."""

    def __init__(self, matrix: Tensor) -> None:
        super().__init__()
        self.register_buffer("entries", matrix, persistent=False)
        self.shape = (matrix.shape[0], matrix.shape[1])

    def forward(self, x: Tensor) -> Tensor:
        product: Tensor = self.get_buffer("entries") @ x
        return product

    def adjoint(self) -> Operator:
        return _Dense(self.get_buffer("entries").mH)


def magnitudes(A: Operator) -> sp.csr_array:
    """|A_ij|, from the operator's own entries or, up to 4,000 columns, from its products with unit vectors."""
    with torch.no_grad():
        if type(A) is Laplacian:
            return sp.csr_array(sp.diags_array(1 / _numpy(A.mass)) @ abs(A.stiffness.to_scipy()))
        if type(A) is Gradient:
            return sp.csr_array(abs(A.stencil.to_scipy()))
        if type(A) is Divergence:
            return sp.csr_array(abs(A.back.to_scipy()))
        if isinstance(A, SparseOperator):
            return sp.csr_array(abs(A.to_scipy()))
        if A.shape[1] > MOST_COLUMNS:
            raise DomainError(
                f"{type(A).__name__} has {A.shape[1]} columns, too many to look at each: take a domain of {MOST_COLUMNS}"
            )
        unit = torch.eye(A.shape[1], dtype=A.dtype, device=A.device)
        return sp.csr_array(abs(_numpy(A(unit))))


def weights_of(A: Operator) -> Tensor:
    """|w_i| of the inner product of A's values, which is Σ w_i x̄_i·y_i; ones if there are too many to look at each."""
    m = A.shape[0]
    with torch.no_grad():
        if isinstance(A, Laplacian):
            return A.mass.double()
        if isinstance(A, Gradient):
            return A.weight.abs().double()
        if isinstance(A, Divergence):
            return A.gradient.mass.double()
        if m > MOST_COLUMNS:
            return torch.ones(m, dtype=torch.float64)
        unit = torch.eye(m, dtype=A.dtype, device=A.device)[..., None]
        return A.inner(unit, unit).abs().double().cpu()


def accumulated(size: sp.csr_array, x: Tensor) -> Tensor:
    """Σ_j |A_ij| |x_j| of each row, with a little more for long rows, which are added up one by one."""
    rows = torch.from_numpy(np.asarray(size @ _numpy(x.detach().abs().double())))
    longest = torch.from_numpy(np.sqrt(np.diff(size.indptr)) / 16)
    return rows * (1 + longest[:, None])


def amplification(domain: Domain | None) -> float:
    """What the geometry makes of the round-off of coordinates: max |x| over the least height of a triangle; 1 on a graph."""
    return max(1.0, aspect(domain)) if isinstance(domain, TriangleMesh) else 1.0


def _numpy(tensor: Tensor) -> Any:
    return tensor.detach().cpu().resolve_conj().numpy()
