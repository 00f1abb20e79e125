"""R-UniMesh: Lie unitary layers on a triangle mesh, and a decoder that need not be unitary."""

from __future__ import annotations

from collections.abc import Callable
from typing import Self, TypeVar

from torch import Tensor, nn

from neuralpde.uni_graph import GCNDecoder, MLPDecoder, RUniGraph
from operators import Movable, TriangleMesh, normalized_adjacency, robust_laplacian
from operators.checks import DomainError
from operators.group_sort import GroupSort
from operators.operator import Operator, rebuild

M = TypeVar("M", bound=nn.Module)
Decoder = Callable[[Operator, int, int], nn.Module]


def by_convolution(operator: Operator, width: int, outputs: int) -> GCNDecoder:
    """One graph convolution, width · outputs + outputs numbers."""
    return GCNDecoder(operator, (width, outputs))


def by_perceptron(operator: Operator, width: int, outputs: int) -> MLPDecoder:
    """The same perceptron of three layers at every node, 2 (width² + width) + width · outputs + outputs numbers."""
    return MLPDecoder((width, width, width, outputs), dtype=operator.dtype)


def robust_adjacency(mesh: TriangleMesh) -> Operator:
    """Ã = D^-½ W D^-½, W the weights of the robust Laplacian and D their sums: no area and no unit of length is left in it."""
    return normalized_adjacency(robust_laplacian(mesh))


class RUniMesh(Movable):
    """x ↦ decode(σ(exp(Ã · W_k) … σ(exp(Ã · W_1) [x, 0, …, 0]))), the published model of MeshPDE and of its weather forecast.

    σ is GroupSort and each exponential of y ↦ Ã y W is cut off after the power T_max = `order`; None is the exact one. The
    encoder has width² numbers a layer, of which the skew parts count. Width 64, 9 layers and one convolution make 36,929
    numbers, with the perceptron for decoder 45,249; the weather model, width 256, 9 layers and one convolution, 590,081.

    Padding keeps the norm and the mesh Rayleigh quotient, exact layers keep both, GroupSort the norm alone, the decoder neither.

    Args:
        operator: Ã: `robust_adjacency(mesh)`, or another self-adjoint operator.
        width: d, the channels of the layers; even, for GroupSort pairs them.
        layers: k.
        order: T_max: 3 for heat and 10 for other equations as published.
        outputs: channels of the result.
        decoder: `by_convolution` or `by_perceptron`, or makes any other module of Ã, the width and the outputs.
        scale: the standard deviation of the entries that each W is made of, at the start.

    Raises:
        DomainError: an odd width, or no layer.
    """

    def __init__(
        self,
        operator: Operator,
        width: int = 64,
        layers: int = 9,
        *,
        order: int | None = 3,
        outputs: int = 1,
        decoder: Decoder = by_convolution,
        scale: float = 0.1,
    ) -> None:
        super().__init__()
        if width % 2:
            raise DomainError(f"GroupSort pairs channels, so the width must be even, not {width}")
        self.net = RUniGraph(
            operator,
            width,
            layers,
            order=order,
            activation=GroupSort,
            decoder=decoder(operator, width, outputs),
            scale=scale,
        )

    def forward(self, x: Tensor) -> Tensor:
        """(..., n, c ≤ width) → (..., n, outputs)."""
        result: Tensor = self.net(x)
        return result

    def encoded(self, x: Tensor) -> Tensor:
        """The field before the decoder, (..., n, width)."""
        return self.net.encoded(x)

    def on(self, mesh: TriangleMesh) -> Self:
        """The same model, its parameters shared, on another mesh."""
        return self.over(robust_adjacency(mesh))

    def over(self, operator: Operator) -> Self:
        """The same model, its parameters shared, with another Ã."""
        return moved_to(self, operator)


def moved_to(module: M, operator: Operator) -> M:
    """A view of a module in which all layers, their parameters shared, stand on one other operator."""
    return rebuild(module, lambda child: child.over(operator) if hasattr(child, "over") else moved_to(child, operator))
