import pytest
import torch

from neuralpde.pa_dgn import PADGN, RGN, GraphDynamics, RGNMeshOP, RGNStandardOP, SensorGraph
from operators import DomainError, FieldError, PointCloud, SparsityPattern
from operators.mesh_difference import MeshDifference


def sensors(n: int, positions: int = 3, seed: int = 0, dtype: torch.dtype = torch.float32) -> SensorGraph:
    random = torch.Generator().manual_seed(seed)
    cloud = PointCloud(torch.rand(n, 2, generator=random, dtype=torch.float64))
    source, target = cloud.knn_graph(4).edge_index
    told = torch.randn(n, positions, generator=random, dtype=dtype)
    return SensorGraph(SparsityPattern(target, source, (n, n)), told, MeshDifference(cloud).to(dtype=dtype))


@pytest.mark.parametrize(
    ("network", "count"),
    [(RGN, 345_876), (RGNStandardOP, 341_057), (RGNMeshOP, 342_152), (PADGN, 340_001)],
    ids=lambda v: getattr(v, "__name__", str(v)),
)
def test_sizes_of_table_4(network: type[GraphDynamics], count: int) -> None:
    assert sum(p.numel() for p in network().parameters()) == count


def test_the_unread_perceptron_of_rgn_is_unread() -> None:
    torch.manual_seed(0)
    network, graph, frames = RGN(width=4), sensors(9), torch.randn(2, 3, 9, 1)
    path = network(frames, 2, graph)
    with torch.no_grad():
        for parameter in network.unread.parameters():
            parameter.add_(1)
    assert torch.equal(network(frames, 2, graph), path)


@pytest.mark.parametrize("channels", [1, 2])
@pytest.mark.parametrize("network", [RGN, RGNStandardOP, RGNMeshOP, PADGN], ids=lambda v: v.__name__)
def test_known_frames_at_once_are_known_frames_in_turn(network: type[GraphDynamics], channels: int) -> None:
    torch.manual_seed(0)
    model, graph = network(channels, 3, width=4).double(), sensors(9, dtype=torch.float64)
    frames = torch.randn(2, 6, 9, channels, dtype=torch.float64)
    state, path = None, []
    for k in range(6):
        # Four frames are known; the fifth is forced, the sixth is the forecast's own.
        x, state = model.step(frames[None, :, k] if k < 5 else path[-1], graph, state)
        path.append(x)
    found = model(frames[:, :4], 3, graph, [frames[:, 4], None])
    torch.testing.assert_close(found, torch.cat(path).transpose(0, 1), rtol=1e-12, atol=1e-13)
    # Windows know nothing of each other.
    torch.testing.assert_close(model(frames[:1, :4], 3, graph, [frames[:1, 4], None]), found[:1], rtol=1e-12, atol=1e-13)


def test_with_weights_one_the_differences_are_the_plain_ones() -> None:
    model, graph = PADGN(1, 3, differences=2, width=4).double(), sensors(9, dtype=torch.float64)
    with torch.no_grad():
        for coefficients in (model.gradient, model.laplacian):
            coefficients.out.second.weight.zero_()
            coefficients.out.second.bias.fill_(1)
    x = torch.randn(1, 2, 9, 1, dtype=torch.float64)
    around, along = model.features(x, graph)
    plain_around, plain_along = RGNStandardOP(1).features(x, graph)
    torch.testing.assert_close(around, plain_around.expand_as(around), rtol=1e-13, atol=1e-13)
    torch.testing.assert_close(along, plain_along.expand_as(along), rtol=1e-13, atol=1e-13)


def test_gradients() -> None:
    torch.manual_seed(0)
    model, graph = PADGN(1, 2, differences=2, width=3).double(), sensors(7, 2, dtype=torch.float64)
    frames = torch.randn(2, 2, 7, 1, dtype=torch.float64, requires_grad=True)
    weight = model.gradient.edge.first.weight
    assert torch.autograd.gradcheck(lambda x, w: model(x, 2, graph), (frames, weight))


@pytest.mark.parametrize("seed", [0])
def test_an_untrained_rollout_of_a_thousand_steps_grows_at_most_linearly(seed: int) -> None:
    torch.manual_seed(seed)
    model, graph = PADGN(1, 3, width=8), sensors(6, seed=seed)
    with torch.no_grad():
        path = model(torch.randn(1, 3, 6, 1), 1000, graph)
    # Each step adds V h + d with |h| ≤ 1.
    decoder = model.network.blocks[-1].node.decoder
    most = float(decoder.weight.detach().abs().sum() + decoder.bias.detach().abs())
    assert bool(torch.isfinite(path).all())
    # The last of the given frames on: before it, the steps start from what was given.
    assert float(path[:, 2:].diff(dim=1).abs().max()) <= most * (1 + 1e-4) + 1e-3


def test_a_bound_holds_for_any_parameters_and_changes_nothing_within() -> None:
    torch.manual_seed(0)
    model, graph, frames = PADGN(1, 3, width=4, bound=5.0), sensors(6), torch.randn(1, 3, 6, 1).clamp(-2, 2)
    free = PADGN(1, 3, width=4)
    free.load_state_dict(model.state_dict())
    with torch.no_grad():
        within = free(frames, 2, graph)
        assert float(within.abs().max()) < 5
        assert torch.equal(model(frames, 2, graph), within)
        for parameter in model.parameters():
            parameter.mul_(100)
        path = model(frames, 100, graph)
    assert bool(torch.isfinite(path).all())
    assert float(path.abs().max()) <= 5
    with pytest.raises(DomainError, match="bound"):
        PADGN(bound=0)


def test_what_does_not_fit_is_refused() -> None:
    graph = sensors(9)
    model = PADGN(1, 3, width=4)
    with pytest.raises(FieldError, match="frames must have shape"):
        model(torch.zeros(2, 3, 8, 1), 2, graph)
    with pytest.raises(FieldError, match="NaN"):
        model(torch.full((2, 3, 9, 1), torch.nan), 2, graph)
    with pytest.raises(FieldError, match="at least one step"):
        model(torch.zeros(2, 3, 9, 1), 0, graph)
    with pytest.raises(FieldError, match="positions must have shape"):
        PADGN(1, 2, width=4)(torch.zeros(2, 3, 9, 1), 2, graph)
    with pytest.raises(DomainError, match="triangulation"):
        RGNMeshOP(1, 0, width=4)(torch.zeros(2, 3, 9, 1), 2, SensorGraph(graph.pattern, graph.positions))
    with pytest.raises(DomainError, match="difference"):
        PADGN(differences=0)
