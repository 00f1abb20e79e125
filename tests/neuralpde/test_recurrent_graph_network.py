import pytest
import torch

from neuralpde.recurrent_graph_network import RecurrentGraphNetwork
from operators import DomainError, FieldError, PointCloud, SparsityPattern


def ring(n: int, shift: torch.Tensor | None = None) -> SparsityPattern:
    i = torch.arange(n)
    rows, columns = torch.cat([i, (i + 1) % n, (i + 2) % n]), torch.cat([(i + 1) % n, i, i])
    if shift is not None:
        rows, columns = shift[rows], shift[columns]
    return SparsityPattern(rows, columns, (n, n))


def plain(network: RecurrentGraphNetwork, nodes: torch.Tensor, edges: torch.Tensor, pattern: SparsityPattern) -> torch.Tensor:
    """The network written out with concatenation, `GRUCell`'s formulas and index_add, frame by frame."""

    def unit(layer: torch.nn.Module, x: torch.Tensor, h: torch.Tensor) -> torch.Tensor:
        i = x @ layer.weight.T + layer.bias
        g = h @ layer.recurrent_weight.T + layer.recurrent_bias
        (ir, iz, im), (gr, gz, gm) = i.chunk(3, -1), g.chunk(3, -1)
        z = torch.sigmoid(iz + gz)
        return (1 - z) * torch.tanh(im + torch.sigmoid(ir + gr) * gm) + z * h

    def update(part: torch.nn.Module, x: torch.Tensor, states: list[torch.Tensor]) -> torch.Tensor:
        for k, layer in enumerate((part.first, part.second)):
            states[k] = x = unit(layer, x, states[k])
        out = part.decoder(x)
        return out.relu() if part.rectified else out

    n, width = pattern.shape[0], network.blocks[0].edge.first.width
    remembered = [[[torch.zeros(m, width, dtype=nodes.dtype)] * 2 for m in (pattern.nnz, n)] for _ in network.blocks]
    path = []
    for v, e in zip(nodes, edges, strict=True):
        for block, (at_edges, at_nodes) in zip(network.blocks, remembered, strict=True):
            e = update(block.edge, torch.cat([e, v[pattern.col], v[pattern.row]], -1), at_edges)
            zero = torch.zeros(n, width, dtype=nodes.dtype)
            sums = zero.index_add(0, pattern.col, e), zero.index_add(0, pattern.row, e)
            v = update(block.node, torch.cat([v, *sums], -1), at_nodes)
        path.append(v)
    return torch.stack(path)


def test_it_is_the_update_rule_of_the_paper_and_may_be_cut_into_parts() -> None:
    torch.manual_seed(0)
    pattern, network = ring(6), RecurrentGraphNetwork(2, 3, 1, width=4).double()
    nodes, edges = torch.randn(5, 6, 2, dtype=torch.float64), torch.randn(5, pattern.nnz, 3, dtype=torch.float64)
    expected = plain(network, nodes, edges, pattern)
    whole, _ = network(nodes[:, None], edges[:, None], pattern)
    torch.testing.assert_close(whole[:, 0], expected, rtol=1e-12, atol=1e-13)
    first, state = network(nodes[:2], edges[:2], pattern)
    second, _ = network(nodes[2:], edges[2:], pattern, state)
    torch.testing.assert_close(torch.cat([first, second]), expected, rtol=1e-12, atol=1e-13)


def test_sensors_may_be_renamed() -> None:
    torch.manual_seed(0)
    network, order = RecurrentGraphNetwork(2, 0, 1, width=4).double(), torch.randperm(6)
    nodes = torch.randn(3, 6, 2, dtype=torch.float64)
    renamed = torch.empty_like(nodes)
    renamed[:, order] = nodes
    expected, _ = network(nodes, None, ring(6))
    found, _ = network(renamed, None, ring(6, order))
    torch.testing.assert_close(found[:, order], expected, rtol=1e-12, atol=1e-13)


def test_what_does_not_fit_is_refused() -> None:
    pattern = ring(6)
    with pytest.raises(DomainError, match="at least 1"):
        RecurrentGraphNetwork(0, 0, 1)
    network = RecurrentGraphNetwork(2, 3, 1, width=4)
    with pytest.raises(FieldError, match="nodes must have shape"):
        network(torch.zeros(1, 5, 2), torch.zeros(1, pattern.nnz, 3), pattern)
    for edges in (None, torch.zeros(1, 4, 3)):
        with pytest.raises(FieldError, match="edges must have shape"):
            network(torch.zeros(1, 6, 2), edges, pattern)


def test_gradients_on_nearest_neighbours() -> None:
    torch.manual_seed(0)
    cloud = PointCloud(torch.rand(7, 2, dtype=torch.float64))
    source, target = cloud.knn_graph(2).edge_index
    pattern, network = SparsityPattern(target, source, (7, 7)), RecurrentGraphNetwork(1, 1, 1, width=3).double()
    nodes = torch.randn(2, 7, 1, dtype=torch.float64, requires_grad=True)
    edges = torch.randn(2, pattern.nnz, 1, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda v, e: network(v, e, pattern)[0], (nodes, edges))
