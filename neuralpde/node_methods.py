"""The kinds of methods of `neuralpde reproduce blend`, as settings that build models."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from integrators import Direct, Dopri5, Exponential, Integrator
from neuralpde.beltrami import BeltramiFlow
from neuralpde.node_data import Features, NodeData, row_normalised
from neuralpde.node_models import BeltramiClassifier, GraphAttention, GraphConvolutions, NodeModel
from neuralpde.node_positions import Positions, positions_of
from neuralpde.node_training import Schedule
from operators import Graph
from operators.attention import Projected, ScaledDotProduct
from operators.diffusivity import Diffusivity
from operators.exponential_kernel import ExponentialKernel
from operators.normalisation import Normalisation

Rewiring = Callable[[Graph], Graph]
"""How a graph gets other edges between the same nodes."""


@dataclass(frozen=True)
class Method(ABC):
    """A way to classify nodes: what is made of the data once, the model, and its training."""

    schedule: Schedule

    def prepare(self, data: NodeData, cache: Path | None = None) -> Prepared:
        """What all seeds on these data share. Slow encodings are kept in the folder `cache`, if there is one."""
        return Prepared(data)

    @abstractmethod
    def build(self, given: Prepared) -> NodeModel:
        """A new model with random weights."""

    def as_published(self) -> Method:
        """The same with the solver that it was published with; ours and PyG's have none."""
        return self


@dataclass(frozen=True)
class Prepared:
    """What a method makes of the data once.

    Args:
        data: with the features and edges that the model reads.
        fields: positions, or what has flowed already.
        nfe: what that flow cost.
    """

    data: NodeData
    fields: Features | None = None
    nfe: int = 0


class Score(ABC):
    """How strongly two nodes mix."""

    @abstractmethod
    def build(self, graph: Graph, settings: Beltrami) -> Diffusivity:
        """The diffusivity of a flow with these settings, with new weights."""


@dataclass(frozen=True)
class Joint(Score):
    """Of positions and features side by side: dot product, cosine or Pearson's correlation of keys and queries."""

    kind: type[Projected] = ScaledDotProduct

    def build(self, graph: Graph, settings: Beltrami) -> Diffusivity:
        s, channels = settings, settings.channels + (settings.position_channels if settings.positions else 0)
        return self.kind(graph, channels, s.width, s.heads, normalise=s.normalise, self_loops=s.self_loops)


@dataclass(frozen=True)
class ProductKernel(Score):
    """The product of an exponential kernel of the features and one of the positions."""

    def build(self, graph: Graph, settings: Beltrami) -> Diffusivity:
        s, positions = settings, settings.position_channels if settings.positions else 0
        return ExponentialKernel(
            graph,
            s.channels,
            s.width,
            s.heads,
            positions=positions or None,
            normalise=s.normalise,
            self_loops=s.self_loops,
        )


DOT_PRODUCT = Joint()


@dataclass(frozen=True)
class Beltrami(Method):
    """BLEND and GRAND: z' = α (A(z) z − z) + β z(0).

    Args:
        time: T.
        tol_scale: of the published tolerances, atol = 1e-7 and rtol = 1e-9 times this.
        score: the diffusivity.
        heads, width: the number of heads, and the numbers of a query in each (the papers' attention dimension over heads).
        normalise: softmax or squareplus, over rows or columns.
        channels, position_channels: of the encoded features and positions.
        positions: None for none, as in GRAND.
        rewire: the graph that the flow runs on, made of the given one; None for the given one (BLEND-kNN has one).
        source: whether there is a source β z(0), β = 0 at the start and learned.
        self_loops: the weight of a node in its own average.
        frozen: whether A is computed once a solve ("linear", all the published settings) or at every evaluation.
        published_solver: solve frozen flows by dopri5 at the published tolerances (rtol at least 1e-6: float32), not by the
            exponential.
    """

    time: float
    tol_scale: float
    heads: int
    width: int
    normalise: Normalisation
    channels: int
    position_channels: int
    positions: Positions | None
    source: bool
    self_loops: float
    input_dropout: float
    dropout: float
    score: Score = DOT_PRODUCT
    rewire: Rewiring | None = None
    frozen: bool = True
    published_solver: bool = False

    @property
    def solver(self) -> Integrator:
        """Exact flows for what is linear; dopri5 for what is not, no finer than float32 can tell."""
        if self.frozen and not self.published_solver:
            return Exponential(tol=1e-4, gradient=Direct())
        return Dopri5(rtol=max(1e-9 * self.tol_scale, 1e-6), atol=1e-7 * self.tol_scale)

    def prepare(self, data: NodeData, cache: Path | None = None) -> Prepared:
        positions = None if self.positions is None else positions_of(self.positions, data.graph, cache)
        return Prepared(data if self.rewire is None else replace(data, graph=self.rewire(data.graph)), positions)

    def as_published(self) -> Method:
        return replace(self, published_solver=True)

    def build(self, given: Prepared) -> NodeModel:
        diffusivity = self.score.build(given.data.graph, self)
        # The published α is sigmoid(a) with a = 0 at the start.
        flow = BeltramiFlow(diffusivity, rate=0.5, source=0.0 if self.source else None, frozen=self.frozen)
        return BeltramiClassifier(
            given.data,
            flow,
            self.time,
            self.solver,
            self.channels,
            positions=given.fields,
            position_channels=self.position_channels,
            input_dropout=self.input_dropout,
            dropout=self.dropout,
        )


@dataclass(frozen=True)
class Convolutions(Method):
    """PyG's GCN with Kipf and Welling's settings; features normalised to sum to one."""

    channels: int = 16
    dropout: float = 0.5

    def prepare(self, data: NodeData, cache: Path | None = None) -> Prepared:
        return Prepared(replace(data, features=row_normalised(data.features)))

    def build(self, given: Prepared) -> NodeModel:
        return GraphConvolutions(given.data, self.channels, self.dropout)


@dataclass(frozen=True)
class Attention(Method):
    """PyG's GAT with Veličković et al.'s settings; features normalised to sum to one."""

    channels: int = 8
    heads: int = 8
    dropout: float = 0.6

    def prepare(self, data: NodeData, cache: Path | None = None) -> Prepared:
        return Prepared(replace(data, features=row_normalised(data.features)))

    def build(self, given: Prepared) -> NodeModel:
        return GraphAttention(given.data, self.channels, self.heads, self.dropout)
