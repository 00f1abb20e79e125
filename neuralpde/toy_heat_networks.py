"""The networks of the toy experiment, published and ours."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import ClassVar

from torch import Tensor, nn

from integrators import Direct, Exponential
from neuralpde.metriplectic import MetriplecticFlow
from neuralpde.model import KeepChannels, NeuralPDE, PadChannels
from neuralpde.toy_heat import STEP, toy_laplacian
from neuralpde.toy_heat_methods import Dense, ImplicitEuler, Persistence, Stencil, ToyMethod, adjacency, self_looped
from neuralpde.toy_heat_training import Fitted, Trained
from neuralpde.uni_graph import BothParts, GCNDecoder, RUniGraph
from operators import Graph, Movable
from operators.learned_truncation import LearnedTruncation
from operators.separable_unitary import SeparableUnitary

LAYERS = 12
T_MAX = 3
# θ of a layer exp(iθA) starts as N(0, 1), as published: of SkewHermitian's V only the imaginary part counts at width 1, and it
# has half the variance.
PUBLISHED_SCALE = math.sqrt(2)


@dataclass(frozen=True)
class GCN(Trained):
    """Twelve graph convolutions with ReLU between them, published with width 128.

    It is slow to learn: for long it predicts little more than each node's degree. Here its layers are narrower than published
    and its batches smaller, to get further in the same time.
    """

    name: ClassVar[str] = "gcn"
    learning_rate: float = 3e-3
    batch: int = 8
    lengths: int = 32
    width: int = 32

    def build(self, graph: Graph) -> Movable:
        return GCNDecoder(Dense(self_looped(graph)), (1, *[self.width] * (LAYERS - 1), 1))


@dataclass(frozen=True)
class Unitary(Trained):
    """Twelve exact Lie unitary layers of width 1, complex, with the identity for activation; the prediction is Re z."""

    name: ClassVar[str] = "unitary"
    starts: int = 6

    def build(self, graph: Graph) -> Movable:
        return RUniGraph(adjacency(graph), 1, LAYERS, order=None, complex_valued=True, scale=PUBLISHED_SCALE)


@dataclass(frozen=True)
class Truncated(Trained):
    """R-UniGraph: the same layers cut off at T_max = 3."""

    name: ClassVar[str] = "r-unigraph"
    starts: int = 6
    order: int = T_MAX

    def build(self, graph: Graph) -> Movable:
        return RUniGraph(adjacency(graph), 1, LAYERS, order=self.order, complex_valued=True, scale=PUBLISHED_SCALE)


@dataclass(frozen=True)
class LearnedOrder(Trained):
    """R-UniGraph with the truncation order of every layer learned."""

    name: ClassVar[str] = "learned-t-max"
    starts: int = 6

    def build(self, graph: Graph) -> Movable:
        A = adjacency(graph)
        start = T_MAX + 0.5
        layer = partial(LearnedTruncation, A, 1, complex_valued=True, order=start, scale=PUBLISHED_SCALE)
        return Chain([layer() for _ in range(LAYERS)])


@dataclass(frozen=True)
class Separable(Fitted):
    """exp(i t Ã) x U, strictly unitary, and one linear readout of real and imaginary part."""

    name: ClassVar[str] = "separable"

    def build(self, graph: Graph) -> Movable:
        return Chain([SeparableUnitary(adjacency(graph), 1), BothParts(), nn.Linear(2, 1, bias=False)])


@dataclass(frozen=True)
class Ours(Fitted):
    """dx/dt = J(L̂) x − R(L̂) x, solved exactly, on two channels: J = L̂ ⊗ W skew, R = (ρ₁ L̂ + ρ₂ L̂²) with ρ ≥ 0, L̂ = L / λ_max.

    Norm and Rayleigh quotient can only fall, at rates that are learned: W, ρ₁ and ρ₂, for all graphs.
    """

    name: ClassVar[str] = "ours"
    # A factor of ten away from the truth, (1, 0), so that finding it is learning.
    start: tuple[float, ...] = (0.1, 0.1)

    def build(self, graph: Graph) -> Movable:
        flow = MetriplecticFlow(toy_laplacian(graph), STEP, self.start, width=2, rotation=1)
        return OneStep(NeuralPDE(flow, Exponential(gradient=Direct()), PadChannels(2), KeepChannels(1)))


class Chain(Movable):
    """Layers one after the other, which move to another domain together."""

    def __init__(self, layers: Sequence[nn.Module]) -> None:
        super().__init__()
        self.layers = nn.ModuleList(layers)

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers:
            x = layer(x)
        return x


class OneStep(Movable):
    """x(t) ↦ x(t + ½) of a neural PDE."""

    def __init__(self, model: NeuralPDE) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: Tensor) -> Tensor:
        path: Tensor = self.model(x, [0.0, STEP])
        return path[-1]


METHODS: tuple[type[ToyMethod], ...] = (
    Persistence,
    ImplicitEuler,
    Stencil,
    GCN,
    Unitary,
    Truncated,
    LearnedOrder,
    Separable,
    Ours,
)
