"""Graph networks: equivariant, local to their hops, and equal to the same blocks written edge by edge."""

from copy import deepcopy
from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from neuralpde.testing import assert_within, roundoff
from operators import DomainError, FieldError, SparsityPattern
from operators.graph_network import GraphNetwork, NetworkShape

U = roundoff(torch.float64)
SHAPES = [
    NetworkShape(width=5),
    NetworkShape(width=4, hops=2, layers=1, both_ways=False, context=3),
    NetworkShape(width=4, hops=2, layers=3, normalised=True, context=2),
]


def pattern_of(pairs, n):
    i, j = torch.tensor(pairs, dtype=torch.int64).reshape(-1, 2).T
    key = torch.unique(i * n + j)
    return SparsityPattern(key // n, key % n, (n, n))


@st.composite
def patterns(draw):
    n = draw(st.integers(1, 6))
    pairs = draw(st.lists(st.tuples(st.integers(0, n - 1), st.integers(0, n - 1)), max_size=12))
    return pattern_of(pairs, n)


def network(shape, outputs=2, edges=2):
    torch.manual_seed(0)
    return GraphNetwork(3, edges, outputs, shape, dtype=torch.float64)


def features(pattern, *batch, edges=2):
    torch.manual_seed(1)
    nodes = torch.randn(*batch, pattern.shape[0], 3, dtype=torch.float64)
    return nodes, torch.randn(*batch, pattern.nnz, edges, dtype=torch.float64) if edges else None


def written_out(net, nodes, links, pattern):
    """The same blocks with concatenated features and loops over edges."""

    def update(block, parts):
        first = block.first(torch.cat(parts))
        return block.rest(first[None])[0]

    edges = list(zip(pattern.row.tolist(), pattern.col.tolist(), strict=True))
    u = [torch.zeros(net.shape.context, dtype=torch.float64)] if net.shape.context else []
    given_links = [] if links is None else links
    e = [update(net.edge_updates[0], [nodes[i], nodes[j], *([links[k]] if len(given_links) else []), *u])
         for k, (i, j) in enumerate(edges)]  # fmt: skip
    v = list(nodes)
    for hop in range(net.shape.hops):
        zero = torch.zeros(net.shape.width, dtype=torch.float64)
        into = [sum((e[k] for k, (i, _) in enumerate(edges) if i == a), zero) for a in range(len(v))]
        out = [sum((e[k] for k, (_, j) in enumerate(edges) if j == a), zero) for a in range(len(v))]
        both = ([into[a], out[a]] if net.shape.both_ways else [into[a]] for a in range(len(v)))
        v = [update(net.node_updates[hop], [v[a], *read, *u]) for a, read in enumerate(both)]
        if u:
            mean = sum(e, zero) / max(len(e), 1)
            u = [update(net.context_updates[hop], [sum(v, zero) / len(v), mean, *u])]
        e = [update(net.edge_updates[hop + 1], [v[i], v[j], e[k], *u]) for k, (i, j) in enumerate(edges)]
    return torch.stack(e) if e else torch.zeros(0, net.outputs, dtype=torch.float64)


@pytest.mark.parametrize("shape", SHAPES, ids=["plain", "context", "normalised"])
@pytest.mark.parametrize("edges", [0, 2])
@given(pattern=patterns())
def test_it_is_the_blocks_written_edge_by_edge(shape, edges, pattern):
    net = network(shape, edges=edges)
    nodes, links = features(pattern, edges=edges)
    expected = written_out(net, nodes, links, pattern).detach()
    assert_within(net(nodes, links, pattern).detach(), expected, 4096 * U * (1 + expected.abs()))


@pytest.mark.parametrize("shape", SHAPES, ids=["plain", "context", "normalised"])
@given(data=st.data())
def test_renaming_the_nodes_renames_the_edges(shape, data):
    pattern = data.draw(patterns())
    n = pattern.shape[0]
    order = torch.tensor(data.draw(st.permutations(range(n))))
    renamed = SparsityPattern(order[pattern.row], order[pattern.col], (n, n))
    nodes, links = features(pattern)
    moved = torch.empty_like(nodes)
    moved[order] = nodes
    net = network(shape)
    here, there = net(nodes, links, pattern).detach(), net(moved, links[renamed.order], renamed).detach()
    assert_within(there, here[renamed.order], 4096 * U * (1 + here[renamed.order].abs()))


@pytest.mark.parametrize("hops", [1, 2])
def test_an_edge_sees_as_far_as_the_hops(hops):
    n = 8
    pattern = pattern_of([(a, a + 1) for a in range(n - 1)] + [(a + 1, a) for a in range(n - 1)], n)
    net = network(NetworkShape(width=8, hops=hops))
    nodes, links = features(pattern)
    nodes.requires_grad_()
    edge = int(((pattern.row == 0) & (pattern.col == 1)).nonzero())
    (slope,) = torch.autograd.grad(net(nodes, links, pattern)[edge].sum(), nodes)
    seen = slope.abs().sum(1) > 0
    assert seen.tolist() == [True] * (hops + 2) + [False] * (n - hops - 2)


def test_the_sizes_are_those_of_the_paper():
    """Table 4 and the convection model of Seo, Meng and Liu: 60,038 in two networks; 65,760 of PA-DGN's 340,001."""
    convection = GraphNetwork(3, 0, 3, NetworkShape(normalised=True))
    stations = GraphNetwork(4, 0, 48, NetworkShape())
    assert 2 * convection.parameter_count == 60038
    assert 2 * stations.parameter_count == 65760


@pytest.mark.parametrize("shape", SHAPES, ids=["plain", "context", "normalised"])
def test_each_batch_member_is_alone_and_shared_edge_features_broadcast(shape):
    pattern = pattern_of([(0, 1), (1, 0), (1, 2), (2, 1)], 3)
    net = network(shape)
    nodes, links = features(pattern, 2, 3)
    together = net(nodes, links[0, 0], pattern).detach()
    for a in range(2):
        for b in range(3):
            alone = net(nodes[a, b], links[0, 0], pattern).detach()
            assert_within(together[a, b], alone, 4096 * U * (1 + alone.abs()))


@pytest.mark.parametrize("shape", SHAPES, ids=["plain", "context", "normalised"])
def test_gradients_are_right_and_reach_every_parameter(shape):
    pattern = pattern_of([(0, 1), (1, 0), (1, 2), (2, 1), (0, 2)], 3)
    net = network(shape)
    nodes, links = features(pattern, 2)
    assert torch.autograd.gradcheck(lambda v, e: net(v, e, pattern), (nodes.requires_grad_(), links.requires_grad_()))
    wide = network(replace(shape, width=16, context=16 if shape.context else 0))
    wide(*features(pattern, 64), pattern).square().sum().backward()
    for name, parameter in wide.named_parameters():
        assert parameter.grad is not None, name
        assert bool(parameter.grad.abs().sum() > 0), name


def test_copies_pickles_and_precisions_agree():
    pattern = pattern_of([(0, 1), (1, 0), (1, 2), (2, 1)], 3)
    net = network(SHAPES[1])
    nodes, links = features(pattern)
    assert torch.equal(deepcopy(net)(nodes, links, pattern), net(nodes, links, pattern))
    single = deepcopy(net).float()
    expected = net(nodes, links, pattern).detach()
    assert_within(single(nodes.float(), links.float(), pattern).detach().double(), expected, 1e-4 * (1 + expected.abs()))
    assert isinstance(net.output, nn.Linear)


def test_bad_sizes_and_features_are_refused():
    pattern = pattern_of([(0, 1), (1, 0)], 2)
    for name in ("width", "hops", "layers"):
        with pytest.raises(DomainError, match=f"{name} must be an integer of at least 1, not 0"):
            NetworkShape(**{name: 0})
    with pytest.raises(DomainError, match="outputs must be an integer of at least 1, not 0"):
        GraphNetwork(1, 0, 0)
    net = network(SHAPES[0])
    nodes, links = features(pattern)
    with pytest.raises(FieldError, match=r"node features must have shape \(\.\.\., 2, 3\), not \(3, 3\)"):
        net(torch.ones(3, 3, dtype=torch.float64), links, pattern)
    with pytest.raises(FieldError, match=r"edge features have shape \(\.\.\., 2, 2\), not None"):
        net(nodes, None, pattern)
    with pytest.raises(FieldError, match=r"edge features have shape \(\.\.\., 2, 2\), not \(2,\)"):
        net(nodes, links[0], pattern)
    with pytest.raises(FieldError, match="have a batch that the node features"):
        net(nodes, links.expand(5, 2, 2), pattern)
    with pytest.raises(FieldError, match="this network reads none"):
        network(SHAPES[0], edges=0)(nodes, links, pattern)
