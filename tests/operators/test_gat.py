"""Additive attention is that of PyTorch Geometric, given its weights."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch_geometric.nn import GATConv

from neuralpde.testing import assert_within, fields, graphs, roundoff
from operators import DomainError, Graph
from operators.gat import GAT
from operators.normalisation import Softmax

U = roundoff(torch.float64)


def like(layer, graph, heads, width, loops):
    """A GAT with the weights of a GATConv."""
    diffusivity = GAT(graph, layer.in_channels, width, heads, self_loops=loops)
    with torch.no_grad():
        diffusivity.weight.weight.copy_(layer.lin.weight)
        diffusivity.receiver.copy_(layer.att_dst[0])
        diffusivity.giver.copy_(layer.att_src[0])
    return diffusivity


@settings(max_examples=15)
@given(data=st.data())
def test_coefficients_are_those_of_pytorch_geometric(data):
    loops = data.draw(st.booleans())
    graph = data.draw(graphs(directed=True, simple=True, weights=["ones"], min_nodes=2))
    x = data.draw(fields(graph.nodes, 2, exact=True)) / 8
    layer = GATConv(2, 3, heads=2, add_self_loops=loops, bias=False).double()
    _, (index, expected) = layer(x, graph.edge_index, return_attention_weights=True)
    diffusivity = like(layer, graph, 2, 3, float(loops))
    pattern = diffusivity.edges.pattern
    shares = diffusivity.normalise(diffusivity.score(x), diffusivity.edges.weight, pattern)
    places = {(i, j): e for e, (i, j) in enumerate(zip(pattern.row.tolist(), pattern.col.tolist(), strict=True))}
    found = torch.stack([shares[:, places[i, j]] for j, i in index.T.tolist()]) if index.numel() else expected
    assert_within(found, expected.detach(), 256 * U * (1 + x.abs().max()))
    assert_within(diffusivity(x).values, shares.mean(0).detach(), 4 * U)
    alone = pattern.nnz - index.shape[1]
    assert alone == (0 if loops else int((torch.bincount(graph.edge_index[1], minlength=graph.nodes) == 0).sum()))


def test_a_layer_of_pytorch_geometric_is_a_product_with_the_shares():
    graph = Graph(torch.tensor([[0, 1, 2, 3, 0], [1, 2, 0, 0, 3]]), 4, torch.ones(5, dtype=torch.float64))
    layer = GATConv(2, 3, heads=1, bias=False).double()
    x = torch.randn(4, 2, dtype=torch.float64)
    torch.testing.assert_close(like(layer, graph, 1, 3, 1.0)(x) @ layer.lin(x), layer(x, graph.edge_index))


def test_scores_are_the_dense_formula():
    graph = Graph(torch.tensor([[0, 1, 2, 3, 0], [1, 2, 0, 0, 3]]), 4, torch.ones(5, dtype=torch.float64))
    diffusivity, x = GAT(graph, 2, 3, 2, slope=0.1), torch.randn(4, 2, dtype=torch.float64)
    W, receiver, giver = (p.detach().numpy() for p in (diffusivity.weight.weight, diffusivity.receiver, diffusivity.giver))
    pattern, scores = diffusivity.edges.pattern, diffusivity.score(x).detach()
    for e, (i, j) in enumerate(zip(pattern.row.tolist(), pattern.col.tolist(), strict=True)):
        for h in range(2):
            V = W[3 * h : 3 * h + 3]
            s = np.concatenate([receiver[h], giver[h]]) @ np.concatenate([V @ x[i].numpy(), V @ x[j].numpy()])
            assert float(scores[h, e]) == pytest.approx(s if s > 0 else 0.1 * s, rel=1e-12, abs=1e-14)


def test_every_parameter_learns():
    graph = Graph(torch.tensor([[0, 1, 2, 3, 0], [1, 2, 0, 0, 0]]), 4)
    diffusivity = GAT(graph, 2, 3, 2, normalise=Softmax(), self_loops=1.0)
    x = torch.randn(4, 2)
    (diffusivity(x) @ x).square().sum().backward()
    assert all(parameter.grad.abs().sum() > 0 for parameter in diffusivity.parameters())


def test_a_slope_that_is_no_number_is_refused():
    graph = Graph(torch.tensor([[0], [1]]), 2)
    with pytest.raises(DomainError, match="slope must be finite"):
        GAT(graph, 2, slope=float("nan"))
    with pytest.raises(DomainError, match="width must be at least 1"):
        GAT(graph, 2, 0)
