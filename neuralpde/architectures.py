"""The rows of BLEND's Table 1: well-known networks as explicit Euler steps of Beltrami flow (Chamberlain et al. 2021, § 3.3).

| | evolves | diffusivity | edges |
|---|---|---|---|
| `chebnet` | X | fixed a_ij | the graph |
| `gat` | X | a(x_i, x_j) | the graph |
| `monet` | X | a(u_i, u_j) | the graph |
| `transformer` | X | a((u_i, x_i), (u_j, x_j)) | all pairs |
| `deep_sets` | X | a(x_i) | none |
| `digl` | X | a(x_i, x_j) | E(U), personalised PageRank |
| `dgcnn` | X | a(x_i, x_j) | E(X(t)), anew in every layer |

Each function gives a `NeuralPDE` whose step of length τ is a layer, x + τ (A x − x): `model(x, [0.0, 4.0])[-1]` is x after four
layers of τ = 1, which share their parameters unless `layers` says otherwise. What networks put between such layers, matrices W
and nonlinearities, is left out as in eq. 11; each docstring says under which settings a layer of PyTorch Geometric is the same.
The same flow under another solver, as `NeuralPDE(model.rhs, Dopri5())`, is the continuous version.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from integrators import Euler
from neuralpde.beltrami import BeltramiFlow
from neuralpde.model import NeuralPDE
from neuralpde.rewired import Rewired, features
from operators import Graph, Laplacian, adjacency_of
from operators.attention import ScaledDotProduct
from operators.diffusivity import Diffusivity, FixedDiffusivity
from operators.gat import GAT
from operators.gaussian_mixture import GaussianMixture, Pseudo, offset
from operators.normalisation import Over, Softmax
from operators.rewiring import NearestNeighbours, PageRankTopK, Rewiring
from operators.stages import Stages


def chebnet(edges: Laplacian | Graph, *, self_loops: float = 0.0, over: Over = Over.ROWS, step: float = 1.0) -> NeuralPDE:
    """x + τ (P x − x) with the random walk P: a layer of ChebNet of K = 2 (Defferrard et al. 2016, NeurIPS), and of GCN.

    With P = D⁻¹ A over rows it is `ChebConv(c, c, K=2, normalization="rw", flow="target_to_source")` with Θ₀ = (1 − τ) I and
    Θ₁ = −τ I at λ_max = 2, where every node has a neighbour; over columns, P = A D⁻¹, the same with the default flow. The
    symmetric normalisation is this one in other units: D^½ times the step of D^−½ x is `ChebConv(..., normalization="sym")`, and
    with self_loops=1 and τ = 1 `GCNConv` of W = I (Kipf and Welling 2017, ICLR). A polynomial of higher K is K − 1 steps.

    Args:
        edges: a graph, or a Laplacian for its off-diagonal weights.
        self_loops: w_ii added to every node.
        over: what P is normalised over.
        step: τ > 0; at τ ≤ 1 each step is an average.
    """
    walk = FixedDiffusivity(_graph(edges), normalise=Softmax(over), self_loops=self_loops)
    return NeuralPDE(_unit_rate(BeltramiFlow(walk, frozen=True)), Euler(step))


def gat(
    edges: Laplacian | Graph,
    channels: int,
    width: int = 8,
    heads: int = 8,
    *,
    slope: float = 0.2,
    self_loops: float = 1.0,
    layers: int = 1,
    step: float = 1.0,
) -> NeuralPDE:
    """x + τ (A(x) x − x) with additive attention: a graph attention network (Veličković et al. 2018, ICLR) as in eq. 11.

    With W = `weight.weight`, a = (`receiver`, `giver`) those of `GATConv(c, width, heads, bias=False)`, A is the mean over the
    heads of its attention coefficients, for every τ; and with one head and τ = 1, `GATConv` is the step followed by W.

    Args:
        edges, channels, width, heads, slope, self_loops: as of the diffusivity `GAT`; of a Laplacian the weights alone.
        layers: how many layers have attention of their own, the k-th from t = kτ on; the last one stays.
        step: τ > 0.
    """
    graph = _graph(edges)

    def attention() -> Diffusivity:
        return GAT(graph, channels, width, heads, slope=slope, self_loops=self_loops)

    return NeuralPDE(_unit_rate(BeltramiFlow(_own(attention, layers, step))), Euler(step))


def monet(
    edges: Laplacian | Graph,
    dimensions: int,
    kernels: int = 3,
    *,
    pseudo: Pseudo = offset,
    self_loops: float = 0.0,
    step: float = 1.0,
) -> NeuralPDE:
    """x + τ (A(u) x − x) with a mixture of Gaussians of the positions u, which stay: MoNet (Monti et al. 2017, CVPR), normalised.

    The state is a pair (u, x). At τ = 1, with μ and σ those of `GMMConv(c, c, dim, kernels, aggr="add", bias=False)`, its root of
    weight zero, g the stack of p_k I, and edge attributes u_j − u_i, the step is its output for x divided by that for 1.

    Args:
        edges, dimensions, kernels, pseudo, self_loops: as of the diffusivity `GaussianMixture`; of a Laplacian the weights alone.
        step: τ > 0.
    """
    mixture = GaussianMixture(_graph(edges), dimensions, kernels, pseudo=pseudo, self_loops=self_loops)
    return NeuralPDE(_unit_rate(BeltramiFlow(mixture, frozen=True, moving=False)), Euler(step))


def transformer(nodes: int, channels: int, width: int = 8, heads: int = 8, *, layers: int = 1, step: float = 1.0) -> NeuralPDE:
    """x + τ (A(u, x) x − x), everyone attending to everyone and to itself: a transformer (Vaswani et al. 2017, NeurIPS).

    The state is x, or a pair (u, x) with a positional encoding u, which steers and stays. With `key` = W_Q and `query` = W_K
    (what receives is our key, and its query), A is the mean over heads of the attention of `TransformerConv(c, width, heads,
    bias=False)` on all pairs with loops; with values W_V = I, concat=False and no skip, the step at τ = 1 is its output.

    Args:
        nodes: n. `.on(complete_graph(m))` gives the same network on m nodes.
        channels: c of x, or of u and x together.
        width, heads: as of the diffusivity `ScaledDotProduct`.
        layers, step: as of `gat`.
    """
    everyone = complete_graph(nodes)

    def attention() -> Diffusivity:
        return ScaledDotProduct(everyone, channels, width, heads, self_loops=1.0)

    return NeuralPDE(_unit_rate(BeltramiFlow(_own(attention, layers, step), moving=False)), Euler(step))


def deep_sets(nodes: int, encode: nn.Module | None = None, decode: nn.Module | None = None) -> NeuralPDE:
    """ρ(Σ_i φ(x_i)): without edges the flow stands still, and encoder and decoder do the work (Zaheer et al. 2017, NeurIPS).

    It is `torch_geometric.nn.aggr.DeepSetsAggregation(φ, ρ)` of one set, and before the sum PyG's `PointNetConv(φ)` on a graph
    without edges, which gives φ(x_i, 0).

    Args:
        nodes: n. `.on(edgeless_graph(m))` gives the same network on m nodes.
        encode: φ, from (..., n, c) to (..., n, d); absent for the identity.
        decode: ρ, of the sum over the nodes (..., d); absent for the sum itself.
    """
    flow = BeltramiFlow(FixedDiffusivity(edgeless_graph(nodes)), frozen=True, moving=False)
    return NeuralPDE(_unit_rate(flow), Euler(1.0), encode, SumOverNodes(decode))


def digl(
    graph: Graph,
    channels: int,
    width: int = 8,
    heads: int = 8,
    *,
    rewiring: Callable[[Graph], Graph] | None = None,
    layers: int = 1,
    step: float = 1.0,
) -> NeuralPDE:
    """x + τ (A(x) x − x) with additive attention on a graph rewired by personalised PageRank, once: DIGL, attentional.

    (Gasteiger et al. 2019, NeurIPS.) As `gat`, it is `GATConv` on the new edges. The variant without attention, `GCNConv` with
    the new weights, is `chebnet(PageRankTopK(64, weighted=True)(graph), self_loops=1.0)`. Edges and weights of
    `PageRankThreshold(ϑ, weighted=True)` are those of PyG's transform `GDC` with PPR, that threshold and no output
    normalisation, less its loops.

    Args:
        graph: undirected.
        channels, width, heads, layers, step: as of `gat`.
        rewiring: from graph to graph; `PageRankTopK(64)`, or fewer on small graphs, if absent.
    """
    if rewiring is None:
        rewiring = PageRankTopK(max(1, min(64, graph.nodes - 1)))
    return gat(rewiring(graph), channels, width, heads, layers=layers, step=step)


def dgcnn(
    nodes: int,
    channels: int,
    width: int = 8,
    heads: int = 8,
    *,
    rewiring: Rewiring = NearestNeighbours(20),  # noqa: B008 (frozen)
    layers: int = 4,
    step: float = 1.0,
) -> NeuralPDE:
    """x + τ (A(x) x − x) with additive attention among the neighbours in x, sought anew before every layer: DGCNN, attentional.

    (Wang et al. 2019, ACM TOG 38; DGM, Kazi et al. 2022, IEEE PAMI.) Each step is `GATConv` on E(x_k). Where its attention is
    flat, `receiver` and `giver` zero, it adds PyG's `EdgeConv` of the message x_j − x_i with aggr="mean", loops among the edges.
    Unlike with `DynamicEdgeConv`, which asks each node for its k nearest, edges go both ways.

    Args:
        nodes: n.
        channels, width, heads: as of `gat`.
        rewiring: from features (n, c) to a graph. Good values: 20 neighbours, as published.
        layers: how many times the graph is made, at t = 0, τ, 2τ, ...; each layer has attention of its own.
        step: τ > 0.
    """
    start = edgeless_graph(nodes)

    def attention() -> Diffusivity:
        return GAT(start, channels, width, heads, self_loops=1.0)

    flow = _unit_rate(BeltramiFlow(_own(attention, layers, step)))
    return NeuralPDE(Rewired(flow, rewiring, _changes(layers, step), of=features), Euler(step))


class SumOverNodes(nn.Module):
    """x ↦ ρ(Σ_i x_i); (..., n, c) → (..., d).

    Args:
        then: ρ; absent for the identity.
    """

    def __init__(self, then: nn.Module | None = None) -> None:
        super().__init__()
        self.then = nn.Identity() if then is None else then

    def forward(self, x: Tensor) -> Tensor:
        pooled: Tensor = self.then(x.sum(-2))
        return pooled


def complete_graph(nodes: int) -> Graph:
    """All pairs of different nodes, both ways."""
    return Graph((~torch.eye(max(0, nodes), dtype=torch.bool)).nonzero().T, nodes)


def edgeless_graph(nodes: int) -> Graph:
    """Nodes without edges."""
    return Graph(torch.zeros(2, 0, dtype=torch.int64), nodes)


def _graph(edges: Laplacian | Graph) -> Graph:
    """The edges of a Laplacian as a graph: masses set the pace of a flow, and these networks have none."""
    if not isinstance(edges, Laplacian):
        return edges
    adjacency = adjacency_of(edges)
    return Graph(torch.stack([adjacency.pattern.col, adjacency.pattern.row]), edges.shape[0], adjacency.values)


def _changes(layers: int, step: float) -> list[float]:
    """When each layer after the first begins."""
    if not isinstance(layers, int) or layers < 1:
        raise ValueError(f"layers must be at least 1 and an integer, not {layers!r}")
    return [k * step for k in range(1, layers)]


def _own(attention: Callable[[], Diffusivity], layers: int, step: float) -> Diffusivity:
    """One diffusivity, or one for each layer."""
    times = _changes(layers, step)
    return Stages([attention() for _ in range(layers)], times) if times else attention()


def _unit_rate(flow: BeltramiFlow) -> BeltramiFlow:
    """α = 1, which is not learned: none of these networks has it."""
    flow.log_rate.requires_grad_(False)
    return flow
