"""A Laplacian whose fields are held fixed at some nodes."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from operators.checks import DomainError, check_field
from operators.laplacian import Laplacian
from operators.mesh_repair import as_tensor, check_capacity
from operators.sparse import SparseOperator


class DirichletLaplacian(Laplacian):
    """The block L_ff of a Laplacian at its free nodes f: fields on them, zero at the fixed nodes g.

    For fixed values u_g ≠ 0, L u at the free nodes is L_ff u_f + `load`(u_g). Heat with such values, by any integrator, is
    the steady state h plus what decays with zeros:

        h = ConjugateGradient(preconditioner=Jacobi()).solve(L, -L.load(values))
        u = L.extend(h + integrate(Heat(L), L.restrict(u0) - h, times, BackwardEuler(dt)).x, values)

    Constants are not in the kernel of a component with a fixed node.

    Args:
        laplacian: on all n nodes.
        fixed: bool (n,) or distinct integers (g,), such as `boundary_vertices(mesh)`.
    """

    free: Tensor
    fixed: Tensor

    def __init__(self, laplacian: Laplacian, fixed: Any) -> None:
        if not isinstance(laplacian, Laplacian):
            raise DomainError(f"fix nodes of a Laplacian, such as robust_laplacian(mesh), not of a {type(laplacian).__name__}")
        n = laplacian.shape[0]
        held = _mask(fixed, n).to(laplacian.device)
        free, bound = (~held).nonzero()[:, 0], held.nonzero()[:, 0]
        place = torch.full((n,), -1, device=held.device)
        place[free], place[bound] = torch.arange(len(free), device=held.device), torch.arange(len(bound), device=held.device)
        row, col, values = laplacian.stiffness.pattern.row, laplacian.stiffness.pattern.col, laplacian.stiffness.values
        inside, across = ~held[row] & ~held[col], ~held[row] & held[col]
        blocks = [
            SparseOperator.from_entries(place[row[part]], place[col[part]], values[part], (len(free), columns))
            for part, columns in ((inside, len(free)), (across, len(bound)))
        ]
        super().__init__(blocks[0], laplacian.mass[free])
        self.coupling = blocks[1]
        self.nodes = n
        self.register_buffer("free", free, persistent=False)
        self.register_buffer("fixed", bound, persistent=False)

    def restrict(self, x: Tensor) -> Tensor:
        """The values at the free nodes; (..., n, c) → (..., f, c)."""
        check_field(x, self.nodes, self.dtype, self.device)
        return x.index_select(-2, self.free)

    def extend(self, x: Tensor, values: Tensor | float = 0.0) -> Tensor:
        """The field on all nodes; (..., f, c) → (..., n, c), with `values`, a number or (..., g, c), at the fixed ones."""
        check_field(x, self.shape[0], self.dtype, self.device)
        if isinstance(values, Tensor):
            check_field(values, len(self.fixed), x.dtype, self.device, "values")
        held = torch.as_tensor(values, dtype=x.dtype, device=x.device)
        held = held.expand(*x.shape[:-2], len(self.fixed), x.shape[-1])
        full = x.new_zeros(*x.shape[:-2], self.nodes, x.shape[-1])
        return full.index_copy(-2, self.free, x).index_copy(-2, self.fixed, held)

    def load(self, values: Tensor) -> Tensor:
        """L_fg u_g, what the fixed values add to L u at the free nodes; (..., g, c) → (..., f, c)."""
        check_field(values, len(self.fixed), self.dtype, self.device, "values")
        added: Tensor = self.coupling(values) / self.mass[:, None]
        return added

    def on(self, domain: Any) -> DirichletLaplacian:
        """Not known: the fixed nodes are those of one domain."""
        raise NotImplementedError(
            "which nodes are fixed is not known on another domain: build it there, as in "
            "dirichlet(robust_laplacian(mesh), boundary_vertices(mesh))"
        )


def dirichlet(laplacian: Laplacian, fixed: Any) -> DirichletLaplacian:
    """The Laplacian restricted to the nodes that are not `fixed`, where fields are zero.

    Args:
        fixed: bool (n,) or distinct integers (g,); at least one node must remain free.

    Raises:
        DomainError: indices out of range or repeated, or no free node left.
    """
    return DirichletLaplacian(laplacian, fixed)


def _mask(fixed: Any, n: int) -> Tensor:
    nodes = as_tensor(fixed, "fixed")
    if nodes.dtype == torch.bool:
        if nodes.shape != (n,):
            raise DomainError(f"fixed must have shape ({n},), one for each node, not {tuple(nodes.shape)}")
        mask = nodes
    else:
        # An empty list is a tensor of floats.
        nodes = nodes.to(torch.int64) if nodes.numel() == 0 else nodes
        if nodes.ndim != 1 or nodes.is_floating_point() or nodes.is_complex():
            raise DomainError(f"fixed must be bool ({n},) or integers (g,), not {nodes.dtype} {tuple(nodes.shape)}")
        check_capacity(nodes, "fixed", int(nodes.max()) + 1 if nodes.numel() else 0)
        if nodes.numel() and (int(nodes.min()) < 0 or int(nodes.max()) >= n):
            raise DomainError(f"fixed must lie in 0 to {n - 1}, not {int(nodes.min())} to {int(nodes.max())}")
        mask = torch.zeros(n, dtype=torch.bool, device=nodes.device)
        mask[nodes.long()] = True
        if int(mask.sum()) != nodes.numel():
            raise DomainError("fixed names a node more than once: pass torch.unique(nodes)")
    if bool(mask.all()):
        raise DomainError("every node is fixed: there is nothing left to solve for")
    return mask
