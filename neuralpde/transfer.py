"""Fields from a fine domain to a coarse one and back."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from operators import Boundary, DomainError, Grid, SparseOperator, TriangleMesh, icosphere, lumped_mass, subdivide


class Transfer(nn.Module):
    """R from fine to coarse, and P from coarse to fine: R u = (Pᵀ M u) / (Pᵀ m), averages by mass over the hats of P.

    R keeps constants, and stays within the range of the field (where P does); it keeps the mass Σ m_i u_i, where a coarse node
    has the mass Pᵀ m. R is the adjoint of P in the inner products of these masses.

    Args:
        prolongation: P (fine n, coarse n), rows that sum to one.
        mass: m (fine n,), positive.
    """

    mass: Tensor
    coarse_mass: Tensor

    def __init__(self, prolongation: SparseOperator, mass: Tensor) -> None:
        super().__init__()
        fine, coarse = prolongation.shape
        if mass.shape != (fine,):
            raise DomainError(f"the mass must have shape ({fine},), one for each fine node, not {tuple(mass.shape)}")
        sums = prolongation.row_sums().detach()
        if not bool(((sums - 1).abs() <= 1e3 * torch.finfo(sums.dtype).eps).all()):
            raise DomainError("the rows of the prolongation do not sum to one: constants would not stay constant")
        self.prolongation = prolongation
        self.transpose = prolongation.adjoint()
        share = self.transpose(mass[:, None])[:, 0]
        if not bool((share > 0).all()):
            raise DomainError(f"{int((share <= 0).sum())} of {coarse} coarse nodes take part in no fine one: drop them")
        self.register_buffer("mass", mass, persistent=False)
        self.register_buffer("coarse_mass", share, persistent=False)

    def restrict(self, u: Tensor) -> Tensor:
        """R u; (..., fine n, c) → (..., coarse n, c)."""
        averaged: Tensor = (self.transpose @ (self.mass[:, None] * u)) / self.coarse_mass[:, None]
        return averaged

    def prolong(self, u: Tensor) -> Tensor:
        """P u; (..., coarse n, c) → (..., fine n, c)."""
        finer: Tensor = self.prolongation @ u
        return finer

    def forward(self, u: Tensor) -> Tensor:
        return self.restrict(u)


def sphere_transfer(fine: int, coarse: int) -> Transfer:
    """Between `icosphere(fine)` and `icosphere(coarse)`, whose nodes are the first ones of the finer."""
    if coarse > fine:
        raise DomainError(f"the coarse sphere has more refinements ({coarse}) than the fine one ({fine}): swap them")
    return Transfer(subdivide(icosphere(coarse), fine - coarse).prolongation, lumped_mass(icosphere(fine)))


def mesh_transfer(coarse: TriangleMesh, fine: TriangleMesh, times: int) -> Transfer:
    """Between a mesh and what `subdivide(coarse, times)` made of it, wherever its nodes have been moved since."""
    refinement = subdivide(coarse, times)
    if not torch.equal(refinement.mesh.faces, fine.faces):
        raise DomainError(f"the fine mesh is not the coarse one subdivided {times} times: its faces differ")
    return Transfer(refinement.prolongation, lumped_mass(fine))


def grid_transfer(fine: Grid, times: int) -> tuple[Grid, Transfer]:
    """The grid with every `times` nodes of an axis joined into one, and the way there: averages over blocks of cells.

    P is constant on each block, and R the plain mean. Axes must be periodic or Neumann, whose nodes stand for cells.
    """
    if isinstance(times, bool) or not isinstance(times, int) or times < 1 or any(n % times for n in fine.shape):
        raise DomainError(f"{times!r} must be a positive integer that divides every axis of {fine.shape}")
    if Boundary.DIRICHLET in fine.boundary:
        raise DomainError("the nodes of a Dirichlet axis do not stand for cells: use Neumann or periodic axes")
    coarse = Grid([n // times for n in fine.shape], fine.spacing * times, fine.boundary)
    axes = [torch.arange(n) // times for n in fine.shape]
    block = torch.zeros((), dtype=torch.int64)
    for axis, n in zip(torch.meshgrid(*axes, indexing="ij"), coarse.shape, strict=True):
        block = block * n + axis
    ones = torch.ones(fine.num_nodes, dtype=fine.spacing.dtype)
    P = SparseOperator.from_entries(torch.arange(fine.num_nodes), block.reshape(-1), ones, (fine.num_nodes, coarse.num_nodes))
    cell = math.prod(fine.spacing.tolist())
    return coarse, Transfer(P, torch.full((fine.num_nodes,), cell, dtype=fine.spacing.dtype))
