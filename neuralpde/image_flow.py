"""Beltrami flow of images: an image is a surface over its pixels, and flows by its own Laplacian, towards less area."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product
from typing import Any

import torch
from torch import Tensor, nn

from integrators import LinearPart, State
from neuralpde.coefficient import CoefficientLike, Learned, as_coefficient
from neuralpde.heat import Diffusion
from neuralpde.invariants import Invariant, Law, Mass, MaximumPrinciple, Norm, one_field
from neuralpde.rhs import RightHandSide
from operators import Boundary, FieldError, Grid, Laplacian, SparseOperator, grid_laplacian
from operators.checks import DomainError, as_field


class ImageBeltramiFlow(RightHandSide):
    """∂x/∂t = (1/√g) div(√g G⁻¹ ∇x), G = I + α² Σ_c ∇x_c ∇x_cᵀ, g = det G: smooths an image, slowly across its edges.

    The image is the surface (u₁, u₂, αx₁, …, αx_c), G its metric and the right-hand side its Laplace–Beltrami operator (Sochen,
    Kimmel and Malladi 1998, IEEE Trans. Image Process. 7; eqs. 1–4 of Chamberlain et al. 2021). The channels share one G, so
    that their edges align. For one channel √g G⁻¹ ∇x = ∇x/√g, and the flow is their eq. 3, (1/√g) div(∇x/√g), exactly; for
    several, eq. 3 on each channel is another flow, which lets the coupling's direction go: `isotropic`. α = 0 is heat.

    In the discrete image every pixel has four corners, each with the differences to one neighbour along each axis; √g there,
    summed with the corner's area, is the area of the surface. The flow is the exact gradient flow of this area S, in the
    inner product of the surface: α² m_i √g_i dx_i/dt = −∂S/∂x_i, where √g_i is the mean of the pixel's four corners.

    Good values: an image with values in [0, 1] and unit spacing, α = 20 to 60, t = 2 to 20 (an edge of contrast 1/α is slowed
    by half), by `Euler(dt=0.2)`, `RKC2()`, or for one image at a time `SemiImplicitEuler(dt=2.0)`, of which a step of any
    length lowers the area. One sees noise go and outlines stay.

    Invariants: S falls (not if `isotropic` with several channels). Every channel stays within the hull of its start (one
    channel, or `isotropic`: the tensor has negative weights on the diagonals of a grid). If `conservative`, the mass of every
    channel stays and the norm falls.

    Args:
        grid: of two axes, NEUMANN (nothing flows out of the picture) or PERIODIC; pixels in rows, the field is (..., n, c).
        scale: α ≥ 0, in length per unit of x; a number or `learned(...)`.
        channels: c, 1 for grayscale, 3 for colours.
        isotropic: the diffusivity a = 1/√g (eq. 4) on every channel, alike in all directions.
        conservative: div(√g G⁻¹ ∇x), without the 1/√g in front, as the paper has it on graphs (its footnote 3).
        learn: make a number α a parameter; it is kept positive by learning log α.

    Raises:
        DomainError: the grid has not two axes, or a DIRICHLET one.
        FieldError: an image of another size, or of another number of channels.
        ValueError: α is negative or not finite.
    """

    def __init__(
        self,
        grid: Grid,
        scale: CoefficientLike,
        *,
        channels: int = 1,
        isotropic: bool = False,
        conservative: bool = False,
        learn: bool = False,
    ) -> None:
        super().__init__()
        if isinstance(channels, bool) or not isinstance(channels, int) or channels < 1:
            raise ValueError(f"channels must be a positive integer, such as 3 for colours, not {channels!r}")
        given = scale.value if isinstance(scale, Learned) else scale
        if not isinstance(given, (int, float, Tensor)) or (isinstance(given, Tensor) and given.numel() != 1):
            raise TypeError(f"scale must be one number, or learned(number), not {type(given).__name__} {given!r}")
        self.pixels = Pixels(grid)
        learned = learn or isinstance(scale, Learned)
        self.alpha = as_coefficient(scale, self.pixels.base, "scale", positive=learned, nonnegative=True, learn=learn)
        self.channels, self.isotropic, self.conservative = channels, isotropic, conservative

    @property
    def scale(self) -> Tensor:
        """α."""
        return self.alpha()

    @property
    def _tensor(self) -> bool:
        return self.channels > 1 and not self.isotropic

    def forward(self, t: Tensor, x: Tensor) -> Tensor:
        image = self._image(x)
        flows = Flows()
        roots: Any = 0
        for i, j, corner in self._corners(image):
            roots = roots + corner.root
            first, second = corner.flow(self._tensor)
            flows.add(0, i, first)
            flows.add(1, j, second)
        total = self.pixels.gathered(flows)
        return self.pixels.flattened(total / 4 if self.conservative else total / roots)

    def lagged(self, t: Tensor, x: Tensor) -> tuple[LinearPart, None]:
        """G v = (1/√g) div(√g G⁻¹ ∇v) with the metric frozen at x, for `SemiImplicitEuler`: −L of the surface as it is."""
        image = self._image(x)
        if image.ndim > 3:
            raise FieldError("the semi-implicit step takes one image at a time, (n, c): solve for each of the batch by itself")
        along, across = Flows(), []
        roots: Any = 0
        for i, j, corner in self._corners(image):
            roots = roots + corner.root
            first, second, mixed = corner.tensor(self._tensor)
            along.add(0, i, first)
            along.add(1, j, second)
            if mixed is not None:
                across.append((i, j, mixed))
        mass = self.pixels.base.mass
        if not self.conservative:
            mass = mass * roots.flatten() / 4
        return Diffusion(Laplacian(self.pixels.stiffness(along, across), mass), 1.0), None

    def area(self, x: Tensor) -> Tensor:
        """S(x) = ∫ √g, the area of the image as a surface; (..., n, c) → (...)."""
        roots = torch.stack([corner.root for _, _, corner in self._corners(self._image(x))])
        return roots.sum((0, -3, -2, -1)) * self.pixels.cell.to(x.dtype) / 4

    def _image(self, x: Tensor) -> Tensor:
        as_field(x, self.pixels.base.shape[0])
        if x.shape[-1] != self.channels or not x.is_floating_point():
            raise FieldError(
                f"this flow is of real images of {self.channels} channel(s), not {x.dtype} of {x.shape[-1]}: name the number, "
                "as in ImageBeltramiFlow(grid, scale, channels=3)"
            )
        return self.pixels.folded(x)

    def _corners(self, image: Tensor) -> Iterator[tuple[int, int, Corner]]:
        """The four corners of every pixel: 0 backwards and 1 forwards along each axis."""
        alpha = self.alpha().to(image.dtype)
        first, second = self.pixels.slopes(image)
        for i, j in product((0, 1), (0, 1)):
            yield i, j, Corner(alpha, first[i], second[j])

    @property
    def invariants(self) -> tuple[Invariant, ...]:
        base = self.pixels.base
        found: list[Invariant] = []
        if self.channels == 1 or not self.isotropic:
            found.append(ImageArea(self))
        if not self._tensor:
            found.append(MaximumPrinciple(base, Law.NON_INCREASING))
        if self.conservative:
            found += [Norm(base, Law.NON_INCREASING), Mass(base)]
        return tuple(found)


@dataclass(frozen=True, eq=False)
class ImageArea(Invariant):
    """S(x) = ∫ √det(I + α² Σ_c ∇x_c ∇x_cᵀ), the area of an image as a surface.

    Args:
        flow: the flow whose α and pixels it is measured with.
    """

    flow: ImageBeltramiFlow
    law: Law = Law.NON_INCREASING

    def measure(self, x: State) -> Tensor:
        return self.flow.area(one_field(x))

    def scale(self, x: State) -> Tensor:
        return self.measure(x)

    @property
    def name(self) -> str:
        return "area of the image"


class Corner:
    """The metric of one corner of every pixel, from the slopes p and q of the channels along the two axes.

    With the wedge W = p qᵀ − q pᵀ over the channels, g = 1 + α² (|p|² + |q|²) + α⁴ |W|²/2 and √g G⁻¹ (p, q) =
    (p + α² W q, q − α² W p)/√g: sums of what is not negative, in which nothing cancels; of one channel W = 0.

    Args:
        alpha: α.
        p, q: (..., c, n₁, n₂).

    Attributes:
        root: √g, (..., 1, n₁, n₂).
    """

    def __init__(self, alpha: Tensor, p: Tensor, q: Tensor) -> None:
        self.square, self.p, self.q = alpha**2, p, q
        g = 1 + self.square * (p.square() + q.square()).sum(-3, keepdim=True)
        # Every channel with each other one, c at a time: tiny matrices would cost more.
        self.wedges = []
        for shift in range(1, p.shape[-3]):
            other_p, other_q = p.roll(shift, -3), q.roll(shift, -3)
            # α² W and not α⁴ |W|²: what is squared last overflows last.
            wedge = self.square * (p * other_q - q * other_p)
            g = g + wedge.square().sum(-3, keepdim=True) / 2
            self.wedges.append((wedge, other_p, other_q))
        self.root = g.sqrt()

    def flow(self, tensor: bool) -> tuple[Tensor, Tensor]:
        """√g G⁻¹ ∇x, or else ∇x/√g, along the two axes; (..., c, n₁, n₂) each."""
        p, q = self.p, self.q
        for wedge, other_p, other_q in self.wedges if tensor else ():
            p, q = p + wedge * other_q, q - wedge * other_p
        return p / self.root, q / self.root

    def tensor(self, tensor: bool) -> tuple[Tensor, Tensor, Tensor | None]:
        """The entries 11, 22 and 12 of √g G⁻¹; or those of 1/√g, of which 12 is None. (n₁, n₂) each."""
        root = self.root[..., 0, :, :]
        if not tensor:
            return 1 / root, 1 / root, None
        pp, qq, pq = self.p.square().sum(-3), self.q.square().sum(-3), (self.p * self.q).sum(-3)
        return (1 + self.square * qq) / root, (1 + self.square * pp) / root, -self.square * pq / root


class Flows:
    """What the corners know of both axes, summed over the corners that share a difference."""

    def __init__(self) -> None:
        self.sums: list[list[Any]] = [[0, 0], [0, 0]]

    def add(self, axis: int, side: int, value: Tensor) -> None:
        """A value at the corners behind (0) or ahead (1) of every pixel along an axis."""
        self.sums[axis][side] = self.sums[axis][side] + value

    def ahead(self, axis: int, dim: int) -> Tensor:
        """The sum on the edge from every pixel to the one ahead of it; of the last one, on the edge to the first."""
        behind, ahead = self.sums[axis]
        total: Tensor = ahead + behind.roll(-1, dim)
        return total


class Pixels(nn.Module):
    """A two-dimensional grid as an image: the differences between its pixels, and the sum of what flows along them.

    Args:
        grid: of two axes, NEUMANN or PERIODIC.
    """

    reach_0: Tensor
    reach_1: Tensor
    cell: Tensor

    def __init__(self, grid: Grid) -> None:
        super().__init__()
        if not isinstance(grid, Grid) or len(grid.shape) != 2:
            what = f"{len(grid.shape)} axes" if isinstance(grid, Grid) else f"a {type(grid).__name__}"
            raise DomainError(f"an image lies on a Grid of two axes, as in Grid((height, width)), not on {what}")
        if Boundary.DIRICHLET in grid.boundary:
            raise DomainError("an image has no zeros around it: give its grid Boundary.NEUMANN or Boundary.PERIODIC")
        self.shape = grid.shape
        self.base = grid_laplacian(grid)
        for axis, (n, h, end) in enumerate(zip(grid.shape, grid.spacing, grid.boundary, strict=True)):
            reach = (1 / h.double()).repeat(n)
            if end is Boundary.NEUMANN:
                # The last pixel has nothing ahead of it.
                reach[-1] = 0
            self.register_buffer(f"reach_{axis}", (reach[:, None] if axis == 0 else reach).to(h.dtype), persistent=False)
        self.register_buffer("cell", grid.spacing.double().prod().to(grid.spacing.dtype), persistent=False)

    def folded(self, x: Tensor) -> Tensor:
        """One picture for each channel; (..., n, c) → (..., c, n₁, n₂)."""
        return x.mT.reshape(*x.shape[:-2], x.shape[-1], *self.shape)

    def flattened(self, image: Tensor) -> Tensor:
        """The inverse of `folded`."""
        return image.flatten(-2).mT

    def slopes(self, image: Tensor) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
        """The differences backwards and forwards over the spacing, along each axis; zero beyond a side."""
        forwards = [self._reach(axis, image) * (image.roll(-1, axis - 2) - image) for axis in (0, 1)]
        first, second = ((forward.roll(1, axis - 2), forward) for axis, forward in enumerate(forwards))
        return first, second

    def gathered(self, flows: Flows) -> Tensor:
        """Four times the divergence of what flows at the corners; → (..., c, n₁, n₂)."""
        first, second = (self._reach(axis, ahead) * ahead for axis, ahead in enumerate(map(flows.ahead, (0, 1), (-2, -1))))
        return first - first.roll(1, -2) + second - second.roll(1, -1)

    def stiffness(self, along: Flows, across: list[tuple[int, int, Tensor]]) -> SparseOperator:
        """C of the tensor that the corners have: its entries 11 and 22 `along` the axes, 12 `across` from corner to corner."""
        node = torch.arange(self.base.shape[0], device=self.cell.device).reshape(self.shape)
        reach = [self._reach(axis, self.cell).expand(self.shape) for axis in (0, 1)]
        weights = [self.cell / 4 * reach[axis] ** 2 * along.ahead(axis, axis - 2) for axis in (0, 1)]
        edges: list[tuple[Tensor, Tensor, Tensor]] = [(node, node.roll(-1, axis), weights[axis]) for axis in (0, 1)]
        for i, j, mixed in across:
            # Σ 2 d₁ d₂ with both differences at one pixel: two more edges along the axes, and one less between the neighbours.
            one, other = (node.roll(1 - 2 * side, axis) for axis, side in ((0, i), (1, j)))
            reaches = [reach[axis] if side else reach[axis].roll(1, axis) for axis, side in ((0, i), (1, j))]
            sign = 1 if i == j else -1
            w = sign * self.cell / 4 * reaches[0] * reaches[1] * mixed
            edges += [(node, one, w), (node, other, w), (one, other, -w)]
        low, high, w = (torch.cat([edge[k].flatten() for edge in edges]) for k in range(3))
        rows, columns = torch.cat([low, high, low, high]), torch.cat([high, low, low, high])
        return SparseOperator.from_entries(rows, columns, torch.cat([-w, -w, w, w]), self.base.shape)

    def _reach(self, axis: int, like: Tensor) -> Tensor:
        return (self.reach_0 if axis == 0 else self.reach_1).to(like.dtype)

    def on(self, grid: Any) -> Pixels:
        """The same for another grid."""
        return Pixels(grid).to(device=self.cell.device, dtype=self.cell.dtype)
