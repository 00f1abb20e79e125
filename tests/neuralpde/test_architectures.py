"""Every row of BLEND's Table 1 is a layer of PyTorch Geometric, to 1e-10 in float64."""

import copy
import warnings

import pytest
import torch
from torch import nn

with warnings.catch_warnings():
    warnings.simplefilter("ignore", DeprecationWarning)
    from torch_geometric.data import Data
    from torch_geometric.nn import (
        ChebConv,
        DeepSetsAggregation,
        EdgeConv,
        GATConv,
        GCNConv,
        GMMConv,
        PointNetConv,
        TransformerConv,
    )
    from torch_geometric.transforms import GDC
    from torch_geometric.utils import add_self_loops, remove_self_loops

from integrators import Dopri5, Euler
from neuralpde.architectures import (
    chebnet,
    complete_graph,
    deep_sets,
    dgcnn,
    digl,
    edgeless_graph,
    gat,
    monet,
    transformer,
)
from neuralpde.beltrami import BeltramiFlow
from neuralpde.model import NeuralPDE
from neuralpde.testing import assert_within
from operators import DomainError, Graph, combinatorial_laplacian, icosphere, random_walk_laplacian
from operators.diffusivity import FixedDiffusivity
from operators.gaussian_mixture import ends
from operators.normalisation import Over
from operators.rewiring import NearestNeighbours, PageRankThreshold, PageRankTopK

N, CHANNELS = 42, 5


def noise(*shape, seed=0):
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def mesh_graph(weighted=False):
    edges = icosphere(1).graph().edge_index
    low = edges[0] < edges[1]
    weight = torch.rand(int(low.sum()), dtype=torch.float64, generator=torch.Generator().manual_seed(1)) + 0.5
    index = torch.cat([edges[:, low], edges[:, low].flip(0)], 1)
    return Graph(index, N, torch.cat([weight, weight]) if weighted else torch.ones(index.shape[1], dtype=torch.float64))


GRAPH, X, U = mesh_graph(), noise(N, CHANNELS), noise(N, 3, seed=2)


def stepped(model, z, until=1.0):
    """The state after steps up to a time."""
    with torch.no_grad():
        end = model(z, [0.0, until])
    return end[1][-1] if isinstance(z, tuple) else end[-1]


def copy_into(*pairs):
    with torch.no_grad():
        for ours, theirs in pairs:
            ours.copy_(theirs.reshape(ours.shape))


def as_theirs(conv, *args, **kwargs):
    with torch.no_grad():
        return conv.double()(*args, **kwargs)


@pytest.mark.parametrize("tau", [1.0, 0.5])
@pytest.mark.parametrize(("over", "flow"), [(Over.ROWS, "target_to_source"), (Over.COLUMNS, "source_to_target")])
def test_chebnet_is_cheb_conv(over, flow, tau):
    graph = mesh_graph(weighted=True)
    conv = ChebConv(CHANNELS, CHANNELS, K=2, normalization="rw", bias=False, flow=flow)
    eye = torch.eye(CHANNELS)
    copy_into((conv.lins[0].weight, (1 - tau) * eye), (conv.lins[1].weight, -tau * eye))
    theirs = as_theirs(conv, X, graph.edge_index, graph.edge_weight, lambda_max=2.0)
    assert_within(stepped(chebnet(graph, over=over, step=tau), X, tau), theirs, 1e-12)
    # Its default normalisation, in other units.
    conv.normalization = "sym"
    theirs = as_theirs(conv, X, graph.edge_index, graph.edge_weight, lambda_max=2.0)
    root = torch.zeros(N, dtype=torch.float64).index_add(0, graph.edge_index[0], graph.edge_weight).sqrt()[:, None]
    unit = root if over is Over.ROWS else 1 / root
    assert_within(unit * stepped(chebnet(graph, over=over, step=tau), X / unit, tau), theirs, 1e-12)


def test_chebnet_of_higher_degree_is_more_steps():
    """T₂ = 2 P² − 1, so with Θ₀ = ½ I and Θ₂ = ½ I the layer is P²."""
    conv = ChebConv(CHANNELS, CHANNELS, K=3, normalization="rw", bias=False, flow="target_to_source")
    eye = torch.eye(CHANNELS)
    copy_into(*((lin.weight, weight * eye) for lin, weight in zip(conv.lins, (0.5, 0.0, 0.5), strict=True)))
    theirs = as_theirs(conv, X, GRAPH.edge_index, lambda_max=2.0)
    assert_within(stepped(chebnet(GRAPH), X, 2.0), theirs, 1e-12)


def gcn(graph, x):
    conv = GCNConv(CHANNELS, CHANNELS, bias=False)
    copy_into((conv.lin.weight, torch.eye(CHANNELS)))
    return as_theirs(conv, x, graph.edge_index, graph.edge_weight)


@pytest.mark.parametrize("rewire", [lambda graph: graph, PageRankTopK(6, weighted=True)], ids=["gcn", "digl"])
def test_chebnet_with_loops_is_gcn_conv_on_a_rewired_graph_too(rewire):
    graph = rewire(mesh_graph(weighted=True))
    root = torch.ones(N, dtype=torch.float64).index_add(0, graph.edge_index[0], graph.edge_weight).sqrt()[:, None]
    ours = root * stepped(chebnet(graph, self_loops=1.0), X / root)
    assert_within(ours, gcn(graph, X), 1e-12)


def twin_of_gat(attention, loops=True):
    """PyG's layer with the parameters of a diffusivity."""
    heads, width = attention.receiver.shape
    conv = GATConv(CHANNELS, width, heads, bias=False, add_self_loops=loops, negative_slope=attention.slope)
    conv = conv.double()
    parameters = (
        (conv.lin.weight, attention.weight.weight),
        (conv.att_dst, attention.receiver),
        (conv.att_src, attention.giver),
    )
    copy_into(*parameters)
    return conv


def attended(conv, graph, x, tau=1.0):
    """x + τ (A x − x) with the mean attention of PyG's heads."""
    with torch.no_grad():
        _, (index, alpha) = conv(x, graph.edge_index, return_attention_weights=True)
    mean = alpha.mean(1, keepdim=True)
    return x + tau * (torch.zeros_like(x).index_add(0, index[1], mean * x[index[0]]) - x)


@pytest.mark.parametrize("loops", [True, False])
def test_gat_is_gat_conv(loops):
    torch.manual_seed(0)
    model = gat(GRAPH, CHANNELS, width=4, heads=3, self_loops=float(loops), step=0.5)
    conv = twin_of_gat(model.rhs.diffusivity, loops)
    assert_within(stepped(model, X, 0.5), attended(conv, GRAPH, X, 0.5), 1e-12)
    # With one head, the whole layer: the step, then W.
    single = gat(GRAPH, CHANNELS, width=4, heads=1, self_loops=float(loops))
    conv = twin_of_gat(single.rhs.diffusivity, loops)
    theirs = as_theirs(conv, X, GRAPH.edge_index)
    assert_within(stepped(single, X) @ single.rhs.diffusivity.weight.weight.detach().T, theirs, 1e-12)


def test_layers_have_attention_of_their_own():
    torch.manual_seed(0)
    model = gat(GRAPH, CHANNELS, width=4, heads=2, layers=3, step=0.5)
    x = X
    for stage in model.rhs.diffusivity.stages:
        x = attended(twin_of_gat(stage), GRAPH, x, 0.5)
    assert_within(stepped(model, X, 1.5), x, 1e-12)
    shared = gat(GRAPH, CHANNELS, width=4, heads=2)
    conv, x = twin_of_gat(shared.rhs.diffusivity), X
    for _ in range(3):
        x = attended(conv, GRAPH, x)
    assert_within(stepped(shared, X, 3.0), x, 1e-12)
    learned = sum(p.numel() for p in shared.parameters() if p.requires_grad)
    assert sum(p.numel() for p in model.parameters() if p.requires_grad) == 3 * learned
    for bad in (0, 1.5, "2"):
        with pytest.raises(ValueError, match="layers must be at least 1"):
            gat(GRAPH, CHANNELS, layers=bad)


def test_a_laplacian_gives_its_weights_and_not_its_pace():
    """A network has steps of A x − x, whatever the masses: with the rates of a Laplacian a step of 1 would overshoot."""
    graph = mesh_graph(weighted=True)
    for laplacian in (combinatorial_laplacian(graph), random_walk_laplacian(graph)):
        for build, z in (
            (chebnet, X),
            (lambda edges: gat(edges, CHANNELS, 4, 2), X),
            (lambda edges: monet(edges, 3), (U, X)),
        ):
            torch.manual_seed(0)
            expected = stepped(build(graph), z, 2.0)
            torch.manual_seed(0)
            found = stepped(build(laplacian), z, 2.0)
            assert_within(found, expected, 1e-12)
            assert float(found.abs().max()) <= float(X.abs().max()) + 1e-12


def test_graphs_that_are_too_small_are_named():
    with pytest.raises(DomainError, match="at least one node"):
        complete_graph(-1)
    with pytest.raises(DomainError, match="1 others of 1 nodes do not exist"):
        digl(edgeless_graph(1), CHANNELS)


def degrees(graph):
    return torch.zeros(N, dtype=torch.float64).index_add(0, graph.edge_index[1], graph.edge_weight)[:, None]


@pytest.mark.parametrize("pseudo", ["offset", "ends"])
def test_monet_is_gmm_conv_normalised(pseudo):
    torch.manual_seed(0)
    source, target = GRAPH.edge_index
    if pseudo == "offset":
        u, model = U, monet(GRAPH, 3, 4)
        edge = u[source] - u[target]
    else:
        u, model = degrees(GRAPH).rsqrt(), monet(GRAPH, 2, 4, pseudo=ends)
        edge = torch.cat([u[target], u[source]], 1)
    mixture = model.rhs.diffusivity
    with torch.no_grad():
        mixture.logit.normal_()
        mixture.log_width.normal_(std=0.3)
    conv = GMMConv(CHANNELS, CHANNELS, edge.shape[1], 4, aggr="add", bias=False).double()
    # Without a root PyG 2.8 raises; without weight it is none.
    nn.init.zeros_(conv.root.weight)
    eye = torch.eye(CHANNELS, dtype=torch.float64)
    share = mixture.logit.detach().exp()[0]
    copy_into((conv.mu, mixture.mean), (conv.sigma, mixture.log_width.exp()), (conv.g, torch.cat([p * eye for p in share], 1)))
    theirs = as_theirs(conv, X, GRAPH.edge_index, edge) / as_theirs(conv, torch.ones_like(X), GRAPH.edge_index, edge)
    assert_within(stepped(model, (u, X)), theirs, 1e-12)
    # The positions steer and stay.
    with torch.no_grad():
        assert torch.equal(model((u, X), [0.0, 2.0])[0][-1], u)


def all_pairs():
    return add_self_loops(complete_graph(N).edge_index, num_nodes=N)[0]


@pytest.mark.parametrize("positions", [False, True])
def test_a_transformer_is_transformer_conv(positions):
    torch.manual_seed(0)
    wide = CHANNELS + 3 * positions
    model = transformer(N, wide, width=CHANNELS, heads=2).double()
    attention = model.rhs.diffusivity
    with torch.no_grad():
        attention.query.weight.normal_()
    conv = TransformerConv(wide, CHANNELS, heads=2, concat=False, bias=False, root_weight=False).double()
    # Values are the features alone.
    value = torch.cat([torch.zeros(CHANNELS, 3 * positions), torch.eye(CHANNELS)], 1).repeat(2, 1)
    copy_into(
        (conv.lin_query.weight, attention.key.weight),
        (conv.lin_key.weight, attention.query.weight),
        (conv.lin_value.weight, value),
    )
    z = (U, X) if positions else X
    theirs = as_theirs(conv, torch.cat([U, X], 1) if positions else X, all_pairs())
    assert_within(stepped(model, z), theirs, 1e-12)
    if positions:
        with torch.no_grad():
            assert torch.equal(model(z, [0.0, 2.0])[0][-1], U)
    # On other nodes, with the same parameters.
    fewer = model.on(complete_graph(7).to(torch.float64))
    assert stepped(fewer, (U[:7], X[:7]) if positions else X[:7]).shape == (7, CHANNELS)


def test_deep_sets_and_point_net():
    torch.manual_seed(0)
    phi, rho = nn.Sequential(nn.Linear(CHANNELS, 7), nn.Tanh()).double(), nn.Linear(7, 2).double()
    model = deep_sets(N, phi, rho).double()
    theirs = as_theirs(DeepSetsAggregation(phi, rho), X, index=torch.zeros(N, dtype=torch.int64), dim_size=1)[0]
    assert_within(stepped(model, X), theirs, 1e-12)
    assert_within(stepped(model, X[torch.randperm(N)]), theirs, 1e-12)
    # PointNet without edges sees each point with its offset from itself, zero.
    local = nn.Linear(CHANNELS + 3, 7).double()
    points = PointNetConv(local)
    alone = as_theirs(points, X, U, edgeless_graph(N).edge_index)
    encode = lambda x: local(torch.cat([x, torch.zeros_like(U)], 1))  # noqa: E731
    flow = model.solve(X, [0.0, 1.0]).final
    assert torch.equal(flow, phi(X))
    assert_within(encode(X).detach(), alone, 1e-12)
    pooled = deep_sets(5).double().on(edgeless_graph(N).to(torch.float64))
    assert_within(stepped(pooled, X), X.sum(0), 1e-12)
    assert stepped(model, noise(3, N, CHANNELS)).shape == (3, 2)


def test_digl_is_gat_conv_on_the_edges_of_gdc():
    torch.manual_seed(0)
    threshold = 0.012
    rewiring = PageRankThreshold(threshold, restart=0.15, weighted=True)
    graph = rewiring(GRAPH)
    assert N < graph.edge_index.shape[1] < N * (N - 1)
    gdc = GDC(
        self_loop_weight=1,
        normalization_in="sym",
        normalization_out=None,
        diffusion_kwargs={"method": "ppr", "alpha": 0.15},
        sparsification_kwargs={"method": "threshold", "eps": threshold},
        exact=True,
    )
    theirs = gdc(Data(edge_index=GRAPH.edge_index, num_nodes=N))
    index, weight = remove_self_loops(theirs.edge_index, theirs.edge_attr)
    matrix = lambda index, weight: torch.zeros(N, N).double().index_put(tuple(index), weight.double())  # noqa: E731
    # PyG's inverse is in single precision.
    assert_within(matrix(graph.edge_index, graph.edge_weight), matrix(index, weight), 1e-6)
    plain = PageRankThreshold(threshold, restart=0.15)
    model = digl(GRAPH, CHANNELS, width=4, heads=2, rewiring=plain)
    conv = twin_of_gat(model.rhs.diffusivity)
    assert_within(stepped(model, X), attended(conv, Graph(index, N, torch.ones(index.shape[1])), X), 1e-12)
    assert digl(GRAPH, CHANNELS).rhs.diffusivity.edges.pattern.nnz == N * N


def test_dgcnn_seeks_its_neighbours_anew_in_every_layer():
    torch.manual_seed(0)
    near = NearestNeighbours(5)
    model = dgcnn(N, CHANNELS, width=4, heads=2, rewiring=near, layers=3, step=0.7).double()
    x, edges = X, []
    for stage in model.rhs.flow.diffusivity.stages:
        graph = near(x)
        edges.append(graph.edge_index)
        x = attended(twin_of_gat(stage), graph, x, 0.7)
    assert_within(stepped(model, X, 2.1), x, 1e-12)
    assert not (edges[0].shape == edges[1].shape and torch.equal(edges[0], edges[1]))


def test_dgcnn_without_attention_is_edge_conv():
    model = dgcnn(N, CHANNELS, width=4, heads=2, rewiring=NearestNeighbours(5), layers=1).double()
    attention = model.rhs.flow.diffusivity
    with torch.no_grad():
        attention.receiver.zero_()
        attention.giver.zero_()
    message = nn.Linear(2 * CHANNELS, CHANNELS, bias=False).double()
    conv = EdgeConv(message, aggr="mean")
    copy_into((message.weight, torch.cat([torch.zeros(CHANNELS, CHANNELS), torch.eye(CHANNELS)], 1)))
    index = add_self_loops(NearestNeighbours(5)(X).edge_index, num_nodes=N)[0]
    theirs = X + as_theirs(conv, X, index)
    assert_within(stepped(model, X), theirs, 1e-12)


MODELS = {
    "chebnet": lambda: chebnet(GRAPH),
    "gat": lambda: gat(GRAPH, CHANNELS, 4, 2),
    "monet": lambda: monet(GRAPH, 3),
    "transformer": lambda: transformer(N, CHANNELS, 4, 2).double(),
    "deep sets": lambda: deep_sets(N).double(),
    "digl": lambda: digl(GRAPH, CHANNELS, 4, 2, rewiring=PageRankTopK(6)),
    "dgcnn": lambda: dgcnn(N, CHANNELS, 4, 2, rewiring=NearestNeighbours(5), layers=2).double(),
}


@pytest.mark.parametrize("name", MODELS)
def test_every_row_is_a_beltrami_flow_with_explicit_steps(name):
    """What the step is of, the rate, the precision, gradients, and the same flow under an adaptive solver."""
    torch.manual_seed(0)
    model = MODELS[name]()
    flow = model.rhs.flow if name == "dgcnn" else model.rhs
    assert isinstance(model, NeuralPDE)
    assert isinstance(model.solver, Euler)
    assert isinstance(flow, BeltramiFlow)
    assert "rhs.log_rate" not in {key for key, p in model.named_parameters() if p.requires_grad}
    z = (U, X) if name == "monet" else X
    fine = NeuralPDE(model.rhs, Dopri5(rtol=1e-6), decode=model.decode)
    coarse, exact = stepped(model, z), stepped(fine, z)
    assert coarse.shape == exact.shape
    # One long step and the flow go the same way.
    start = X.sum(0) if name == "deep sets" else X
    assert float(((coarse - start) * (exact - start)).sum()) >= 0
    single = copy.deepcopy(model).float()
    rounded = stepped(single, (U.float(), X.float()) if name == "monet" else X.float())
    assert rounded.dtype == torch.float32
    assert_within(rounded.double(), coarse, 1e-4)
    x = X.clone().requires_grad_()
    end = model((U, x) if name == "monet" else x, [0.0, 1.0])
    loss = (end[1] if name == "monet" else end)[-1].square().sum()
    learned = [p for p in model.parameters() if p.requires_grad]
    gradients = torch.autograd.grad(loss, [x, *learned], allow_unused=True)
    assert bool(torch.isfinite(gradients[0]).all())
    assert name in ("dgcnn",) or all(g is not None for g in gradients)
    assert isinstance(flow.diffusivity, FixedDiffusivity) == (name in ("chebnet", "deep sets"))
