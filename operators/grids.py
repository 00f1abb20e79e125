"""Regular grids in any dimension, and their Laplacian by finite differences."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum

import numpy as np
import torch
from torch import Tensor

from operators.checks import DomainError, FieldError, as_field, is_integer
from operators.domains import Domain, Graph
from operators.laplacian import Laplacian
from operators.mesh_repair import as_tensor
from operators.sparse import SparseOperator

MOST_NODES = 100_000_000


class Boundary(Enum):
    """What happens at the two ends of an axis with n nodes of spacing h.

    PERIODIC: nodes at 0, h, …, (n − 1)h of a circle of length nh.
    DIRICHLET: nodes at h, 2h, …, nh, between ends 0 and (n + 1)h where the field is zero.
    NEUMANN: nodes at h/2, 3h/2, …, in the middle of cells between ends 0 and nh that nothing flows through.
    """

    PERIODIC = "periodic"
    DIRICHLET = "Dirichlet"
    NEUMANN = "Neumann"


@dataclass(frozen=True, eq=False)
class Grid(Domain):
    """A box of regularly spaced nodes in one, two, three or more dimensions; the last axis runs fastest.

    Args:
        shape: the number of nodes along each axis.
        spacing: the distance of neighbours along each axis, (d,) float32 or float64; a number for all axes alike.
            Its dtype and device are those of operators on this grid.
        boundary: of each axis, or of all alike.
    """

    shape: tuple[int, ...]
    spacing: Tensor
    boundary: tuple[Boundary, ...]

    def __init__(
        self,
        shape: int | Sequence[int],
        spacing: float | Sequence[float] | Tensor = 1.0,
        boundary: Boundary | Sequence[Boundary] = Boundary.NEUMANN,
        *,
        dtype: torch.dtype = torch.float64,
    ) -> None:
        sizes = tuple(shape) if isinstance(shape, (Sequence, np.ndarray)) else (shape,)
        if not sizes or any(not is_integer(n) or n < 1 for n in sizes):
            raise DomainError(f"shape must be positive integers, one for each axis, not {shape!r}")
        sizes = tuple(int(n) for n in sizes)
        if math.prod(sizes) > MOST_NODES:
            raise DomainError(f"a grid of shape {sizes} has {math.prod(sizes)} nodes, over the limit of {MOST_NODES}")
        steps = as_tensor(spacing, "spacing")
        if not isinstance(spacing, Tensor):
            # Not through the default dtype: 0.05 would become 0.0500000007.
            steps = torch.as_tensor(spacing, dtype=torch.float64).to(dtype)
        if steps.ndim == 0:
            steps = steps.expand(len(sizes)).clone()
        ends = (boundary,) * len(sizes) if isinstance(boundary, Boundary) else tuple(boundary)
        if not all(isinstance(end, Boundary) for end in ends):
            raise DomainError(f"boundary must be a Boundary, or one for each axis, not {boundary!r}: try Boundary.PERIODIC")
        if steps.shape != (len(sizes),) or len(ends) != len(sizes):
            raise DomainError(f"{len(sizes)} axes need as many spacings and boundaries, not {tuple(steps.shape)} and {len(ends)}")
        object.__setattr__(self, "shape", sizes)
        object.__setattr__(self, "spacing", steps)
        object.__setattr__(self, "boundary", ends)
        self._check_rounding()

    def _check_rounding(self) -> None:
        steps = self.spacing
        if steps.dtype not in (torch.float32, torch.float64):
            raise DomainError(f"spacing must be float32 or float64, not {steps.dtype}")
        # Squared, and multiplied over the axes, these still are numbers.
        limit = 10.0 ** ((30 if steps.dtype == torch.float32 else 300) / (len(self.shape) + 2))
        if not bool(((steps >= 1 / limit) & (steps <= limit)).all()):
            raise DomainError(f"spacing must be finite and lie in {1 / limit:.0e} to {limit:.0e}, not {steps.tolist()}")

    @property
    def num_nodes(self) -> int:
        return math.prod(self.shape)

    @property
    def extent(self) -> tuple[float, ...]:
        """The length of each axis, from end to end."""
        cells = [n + (end is Boundary.DIRICHLET) for n, end in zip(self.shape, self.boundary, strict=True)]
        return tuple(count * float(h) for count, h in zip(cells, self.spacing, strict=True))

    @property
    def points(self) -> Tensor:
        """The coordinates of the nodes, (n, d)."""
        first = {Boundary.PERIODIC: 0.0, Boundary.DIRICHLET: 1.0, Boundary.NEUMANN: 0.5}
        axes = [
            (torch.arange(n, dtype=h.dtype, device=h.device) + first[end]) * h
            for n, end, h in zip(self.shape, self.boundary, self.spacing, strict=True)
        ]
        return torch.stack(torch.meshgrid(*axes, indexing="ij"), dim=-1).reshape(-1, len(axes))

    def folded(self, x: Tensor) -> Tensor:
        """A field as an array over the axes, a view where possible; (..., n, c) → (..., n₁, …, n_d, c)."""
        as_field(x, self.num_nodes)
        return x.reshape(*x.shape[:-2], *self.shape, x.shape[-1])

    def flattened(self, x: Tensor) -> Tensor:
        """The inverse of `folded`; (..., n₁, …, n_d, c) → (..., n, c)."""
        axes = len(self.shape)
        if x.ndim < axes + 1 or tuple(x.shape[-axes - 1 : -1]) != self.shape:
            raise FieldError(f"field must have shape (..., {', '.join(map(str, self.shape))}, c), not {tuple(x.shape)}")
        return x.reshape(*x.shape[: -axes - 1], self.num_nodes, x.shape[-1])

    def graph(self) -> Graph:
        """The graph of neighbours along the axes, both directions, unit weights."""
        source, target, _ = neighbours(self)
        return Graph(torch.stack([source, target]), self.num_nodes, torch.ones_like(source, dtype=self.spacing.dtype))


def neighbours(grid: Grid) -> tuple[Tensor, Tensor, Tensor]:
    """Neighbouring nodes, both ways, and the axis between them: (E,) each."""
    node = torch.arange(grid.num_nodes, device=grid.spacing.device).reshape(grid.shape)
    sources, targets, axes = [], [], []
    for axis, (n, end) in enumerate(zip(grid.shape, grid.boundary, strict=True)):
        here, there = node.narrow(axis, 0, n - 1), node.narrow(axis, 1, n - 1)
        pairs = [(here, there)]
        # A circle of one node has no neighbours; one of two has them on both sides.
        if end is Boundary.PERIODIC and n > 1:
            pairs.append((node.narrow(axis, n - 1, 1), node.narrow(axis, 0, 1)))
        for a, b in pairs:
            sources += [a.reshape(-1), b.reshape(-1)]
            targets += [b.reshape(-1), a.reshape(-1)]
            axes.append(torch.full((2 * a.numel(),), axis, device=node.device))
    return torch.cat(sources), torch.cat(targets), torch.cat(axes)


def grid_laplacian(grid: Grid) -> Laplacian:
    """L = −Σ_k ∂²/∂x_k² by second differences, (2u_i − u_{i−1} − u_{i+1})/h² along each axis, with mass h₁ ⋯ h_d.

    Along an axis of n nodes the eigenvalues are (2 − 2 cos θ)/h², with θ = 2πk/n (periodic), πk/n (Neumann),
    k = 0 … n − 1, or πk/(n + 1), k = 1 … n (Dirichlet, where constants are not in the kernel).
    """
    source, target, axis = neighbours(grid)
    steps = grid.spacing.double()
    cell = steps.prod()
    weight = cell / steps**2
    diagonal = steps.new_zeros(grid.num_nodes).index_add(0, target, weight[axis])
    node = torch.arange(grid.num_nodes, device=steps.device)
    folded = diagonal.reshape(grid.shape)
    for k, (n, end) in enumerate(zip(grid.shape, grid.boundary, strict=True)):
        if end is Boundary.DIRICHLET:
            folded.narrow(k, 0, 1).add_(weight[k])
            folded.narrow(k, n - 1, 1).add_(weight[k])
    stiffness = SparseOperator.from_entries(
        torch.cat([target, node]), torch.cat([source, node]), torch.cat([-weight[axis], diagonal]), (grid.num_nodes,) * 2
    )
    laplacian = Laplacian(stiffness, cell.expand(grid.num_nodes).clone(), grid_laplacian)
    return laplacian.to(dtype=grid.spacing.dtype)
