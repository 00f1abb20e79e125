"""R-UniGraph: Lie unitary layers cut off at T_max, and the decoders that follow unitary layers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn

from operators.checks import DomainError, FieldError
from operators.lie_unitary import LieUnitary
from operators.operator import Movable, Operator, rebuild
from operators.unitary import pad_channels


class GraphConvolution(Movable):
    """x ↦ Â (x W) + b (Kipf and Welling 2017).

    Args:
        operator: Â, (n, n), for example `normalized_adjacency(L)`.
        inputs, outputs: channels.
    """

    operator: Operator

    def __init__(self, operator: Operator, inputs: int, outputs: int) -> None:
        super().__init__()
        self.operator = operator
        self.weight = nn.Parameter(torch.empty(inputs, outputs, dtype=operator.dtype, device=operator.device))
        self.bias = nn.Parameter(torch.zeros(outputs, dtype=operator.dtype, device=operator.device))
        nn.init.xavier_uniform_(self.weight)

    def forward(self, x: Tensor) -> Tensor:
        """(..., n, inputs) → (..., n, outputs)."""
        inputs, outputs = self.weight.shape
        # The product with Â costs by the channel: it goes where there are fewer.
        mixed: Tensor = self.operator(x) @ self.weight if inputs <= outputs else self.operator(x @ self.weight)
        return mixed + self.bias

    def over(self, operator: Operator) -> GraphConvolution:
        """The same layer with another Â."""
        return rebuild(self, lambda child: operator)


class GCNDecoder(Movable):
    """Graph convolutions with ReLU between them, none after the last: it neither keeps norm nor Rayleigh quotient.

    Args:
        operator: Â, of every layer.
        channels: of the input, between layers, and of the output: (64, 1) is one layer, (64, 32, 1) two.
    """

    def __init__(self, operator: Operator, channels: Sequence[int]) -> None:
        super().__init__()
        if len(channels) < 2:
            raise DomainError(f"a decoder needs channels of its input and output, such as (64, 1), not {tuple(channels)}")
        self.layers = nn.ModuleList(GraphConvolution(operator, *pair) for pair in pairwise(channels))

    def forward(self, x: Tensor) -> Tensor:
        """(..., n, c) → (..., n, outputs)."""
        for k, layer in enumerate(self.layers):
            x = layer(x.relu() if k else x)
        return x

    def over(self, operator: Operator) -> GCNDecoder:
        """The same layers with another Â."""
        return rebuild(self, lambda child: child.over(operator) if isinstance(child, GraphConvolution) else child)


class MLPDecoder(nn.Sequential):
    """The same multi-layer perceptron at every node, with ReLU between its layers.

    Args:
        channels: of the input, between layers, and of the output.
    """

    def __init__(self, channels: Sequence[int], *, dtype: torch.dtype = torch.float32) -> None:
        if len(channels) < 2:
            raise DomainError(f"a decoder needs channels of its input and output, such as (64, 1), not {tuple(channels)}")
        layers: list[nn.Module] = []
        for inputs, outputs in pairwise(channels):
            layers += [nn.ReLU()] * bool(layers) + [nn.Linear(inputs, outputs, dtype=dtype)]
        super().__init__(*layers)


class RealPart(nn.Module):
    """z ↦ Re z, the published readout: it loses the norm that the layers have kept."""

    def forward(self, z: Tensor) -> Tensor:
        return z.real if z.is_complex() else z


class BothParts(nn.Module):
    """z ↦ (Re z, Im z), (..., n, c) → (..., n, 2c) real: nothing is lost, for a decoder to choose from."""

    def forward(self, z: Tensor) -> Tensor:
        return torch.cat([z.real, z.imag], dim=-1) if z.is_complex() else z


class RUniGraph(Movable):
    """k Lie unitary layers on padded channels, each followed by an activation, then a decoder (R-UniGraph, R-UniMesh).

    With `order` = T_max the layers are the relaxed ones of R-UniGraph; with None they are exactly unitary, and what is not
    unitary is the decoder alone, as in R-UniMesh. `encoded` is the field before the decoder; with exact layers and the identity
    for activation it has the norm and the Rayleigh quotient of the input.

    Args:
        operator: A of every layer, self-adjoint; A = I − L for the Rayleigh quotient of L.
        width: d, the channels of the layers; fields with fewer are padded with zeros.
        layers: k.
        order: T_max, or None for exact layers.
        complex_valued: a complex W: needed at width 1.
        activation: makes one activation; the identity by default. GroupSort keeps the norm but not the Rayleigh quotient.
        decoder: the identity by default.
        scale: of W at the start.

    Raises:
        DomainError: no layer.
    """

    def __init__(
        self,
        operator: Operator,
        width: int,
        layers: int,
        *,
        order: int | None = 3,
        complex_valued: bool = False,
        activation: Callable[[], nn.Module] = nn.Identity,
        decoder: nn.Module | None = None,
        scale: float = 0.1,
    ) -> None:
        super().__init__()
        if layers < 1:
            raise DomainError(f"there must be at least one layer, not {layers}")
        self.width = width
        self.layers = nn.ModuleList(
            LieUnitary(operator, width, complex_valued=complex_valued, order=order, scale=scale) for _ in range(layers)
        )
        self.activations = nn.ModuleList(activation() for _ in range(layers))
        self.decoder = nn.Identity() if decoder is None else decoder

    def encoded(self, x: Tensor) -> Tensor:
        """The field before the decoder, (..., n, c ≤ d) → (..., n, d)."""
        if x.shape[-1] > self.width:
            raise FieldError(f"x has {x.shape[-1]} channels, more than the width {self.width} of the layers: widen the model")
        z = pad_channels(x, self.width)
        for layer, activation in zip(self.layers, self.activations, strict=True):
            z = activation(layer(z))
        return z

    def forward(self, x: Tensor) -> Tensor:
        """(..., n, c) → what the decoder makes of (..., n, d)."""
        result: Tensor = self.decoder(self.encoded(x))
        return result
