"""What every diffusivity promises, whatever its score, its normalisation and its edges."""

import pickle
from copy import deepcopy
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from neuralpde.testing import assert_within, fields, graphs, large_graphs, meshes, permutations, permuted, roundoff
from operators import DomainError, FieldError, Graph, combinatorial_laplacian, icosphere, robust_laplacian
from operators.attention import ScaledDotProduct
from operators.diffusivity import Diffusivity, FixedDiffusivity, aligned, joined
from operators.exponential_kernel import ExponentialKernel
from operators.gat import GAT
from operators.gated import Gated
from operators.hard_attention import HardAttention
from operators.normalisation import Over, Softmax, Squareplus
from operators.similarity import Cosine, Pearson

U = roundoff(torch.float64)
KINDS = {
    "fixed": lambda edges, **how: FixedDiffusivity(edges, **how),
    "dot": lambda edges, **how: ScaledDotProduct(edges, 3, 2, 2, **how),
    "cosine": lambda edges, **how: Cosine(edges, 3, 2, 2, **how),
    "pearson": lambda edges, **how: Pearson(edges, 3, 3, 2, **how),
    "exponential": lambda edges, **how: ExponentialKernel(edges, 3, 2, 2, **how),
    "two kernels": lambda edges, **how: ExponentialKernel(edges, 2, 2, 2, positions=1, **how),
    "gat": lambda edges, **how: GAT(edges, 3, 2, 2, **how),
    "gated": lambda edges, **how: Gated(ScaledDotProduct(edges, 3, 2, 2, **how)),
    "hard": lambda edges, **how: HardAttention(GAT(edges, 3, 2, 2, **how), 0.4),
}
EDGES = st.one_of(
    graphs(directed=True),
    large_graphs(max_nodes=80),
    graphs().map(combinatorial_laplacian),
    meshes(max_edits=2).map(robust_laplacian),
)
NORMALISATIONS = [g(over) for g in (Softmax, Squareplus) for over in Over]
every_kind = pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)
quick = settings(max_examples=8)


def grid_graph(rows, columns, dtype=torch.float32):
    """The four neighbours of every node of a lattice."""
    node = torch.arange(rows * columns).reshape(rows, columns)
    pairs = torch.cat(
        [torch.stack([a.flatten(), b.flatten()]) for a, b in ((node[1:], node[:-1]), (node[:, 1:], node[:, :-1]))], 1
    )
    both = torch.cat([pairs, pairs.flip(0)], 1)
    return Graph(both, rows * columns, torch.ones(both.shape[1], dtype=dtype))


def awake(diffusivity, size=1.0):
    """With parameters that are neither zero nor equal."""
    for parameter in diffusivity.parameters():
        torch.nn.init.normal_(parameter, std=size)
    return diffusivity


@st.composite
def cases(draw, edges=EDGES):
    """Edges, how to normalise on them, and a pair of one position and two feature channels."""
    found = draw(edges)
    n = found.num_nodes if isinstance(found, Graph) else found.shape[0]
    how = {"normalise": draw(st.sampled_from(NORMALISATIONS)), "self_loops": draw(st.sampled_from([0.0, 1.0, 0.25]))}
    return found, how, (draw(fields(n, 1)), draw(fields(n, 2)))


@every_kind
@quick
@given(data=st.data())
def test_sums_are_one_so_that_rows_keep_the_hull_and_columns_the_sum(kind, data):
    edges, how, z = data.draw(cases())
    diffusivity, x = awake(kind(edges, **how)), joined(z)
    A = diffusivity(z)
    y = A @ x
    assert diffusivity.over is how["normalise"].over
    assert A.shape == (len(x), len(x))
    assert (A.values >= 0).all()
    # A sum of E shares of E roundings; every share errs by the rounding of its logit, which is the same in a row up to u.
    slack = 16 * (4 + A.pattern.nnz) * U
    if diffusivity.over is Over.COLUMNS:
        assert_within(A.adjoint().row_sums(), 1.0, slack)
        assert_within(y.sum(0), x.sum(0), slack * x.abs().sum(0))
    else:
        assert_within(A.row_sums(), 1.0, slack)
        assert (y <= x.max(0).values + slack * x.abs().max()).all()
        assert (y >= x.min(0).values - slack * x.abs().max()).all()


@every_kind
@quick
@given(data=st.data())
def test_renaming_the_nodes_renames_the_diffusivity(kind, data):
    graph, how, _ = data.draw(cases(graphs(directed=True)))
    z = data.draw(fields(graph.nodes, 1, exact=True)), data.draw(fields(graph.nodes, 2, exact=True))
    p = data.draw(permutations(graph.nodes))
    diffusivity = awake(kind(graph, **how)).eval()
    renamed = diffusivity.on(permuted(graph, p))
    expected = diffusivity(z).matrix()[p][:, p]
    # A score errs by the size of the products it sums, and a share by its score: a few thousand for these fields.
    size = 1 + float(joined(z).square().sum(-1).max()) * 64
    assert_within(renamed((z[0][p], z[1][p])).matrix(), expected, 64 * U * (size + graph.nodes))


@every_kind
@pytest.mark.parametrize("over", Over)
def test_a_batch_is_a_loop_and_one_part_may_lack_it(kind, over):
    diffusivity = awake(kind(robust_laplacian(icosphere(0)), normalise=Softmax(over)))
    u, x = torch.randn(12, 1, dtype=torch.float64), torch.randn(2, 3, 12, 2, dtype=torch.float64)
    together = diffusivity((u, x))
    values = together.values.expand(2, 3, -1)
    for i in range(2):
        for j in range(3):
            torch.testing.assert_close(values[i, j], diffusivity((u, x[i, j])).values)
    assert (together @ x).shape == x.shape


@every_kind
def test_derivatives_of_both_orders_in_the_state_and_the_parameters(kind):
    graph = Graph(torch.tensor([[0, 1, 2, 3, 0, 2], [1, 2, 0, 0, 3, 2]]), 5, torch.tensor([1.0, 2, 1, 3, 1, 1]).double())
    diffusivity = awake(kind(graph, normalise=Squareplus(Over.COLUMNS)))
    names, parameters = zip(*diffusivity.named_parameters(), strict=True) if list(diffusivity.parameters()) else ((), ())
    u, x = (torch.randn(5, c, dtype=torch.float64, requires_grad=True) for c in (1, 2))

    def f(u, x, *values):
        A = torch.func.functional_call(diffusivity, dict(zip(names, values, strict=True)), ((u, x),))
        return A @ x

    inputs = (u, x, *(p.detach().clone().requires_grad_() for p in parameters))
    assert torch.autograd.gradcheck(f, inputs, fast_mode=True)
    assert torch.autograd.gradgradcheck(f, inputs, fast_mode=True)


@every_kind
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_lower_precision_gives_the_rounded_answer(kind, dtype):
    exact = awake(kind(grid_graph(4, 5, torch.float64)), 0.5).eval()
    z = tuple(torch.randn(20, c, dtype=torch.float64).to(dtype).double() for c in (1, 2))
    with torch.no_grad():
        for parameter in exact.parameters():
            parameter.copy_(parameter.to(dtype))
    A = deepcopy(exact).to(dtype)((z[0].to(dtype), z[1].to(dtype)))
    assert A.dtype == dtype
    assert_within(A.values.double(), exact(z).values.detach(), 64 * roundoff(dtype))


@every_kind
def test_copies_pickles_and_other_domains_hold_the_same_parameters(kind):
    diffusivity = awake(kind(grid_graph(3, 4, torch.float64))).eval()
    z = tuple(torch.randn(12, c, dtype=torch.float64) for c in (1, 2))
    for copy in (deepcopy(diffusivity), pickle.loads(pickle.dumps(diffusivity))):
        assert torch.equal(copy(z).values, diffusivity(z).values)
    moved = diffusivity.on(grid_graph(2, 3, torch.float64))
    assert all(a is b for a, b in zip(moved.parameters(), diffusivity.parameters(), strict=True))
    assert moved((z[0][:6], z[1][:6])).shape == (6, 6)
    assert set(diffusivity.state_dict()) == {name for name, _ in diffusivity.named_parameters()}


def test_one_graph_for_the_compiler_and_the_eager_answer():
    torch.compiler.reset()
    diffusivity = awake(Gated(GAT(grid_graph(3, 4, torch.float64), 3, 2, 2)))
    u, x = (torch.randn(12, c, dtype=torch.float64, requires_grad=True) for c in (1, 2))

    def f(u, x):
        return diffusivity((u, x))(x)

    expected = f(u, x)
    # aot_eager traces like the default backend but needs no C++ compiler.
    actual = torch.compile(f, fullgraph=True, backend="aot_eager")(u, x)
    torch.testing.assert_close(actual, expected)
    torch.testing.assert_close(torch.autograd.grad(actual.square().sum(), x), torch.autograd.grad(expected.square().sum(), x))


@every_kind
@pytest.mark.parametrize("normalise", NORMALISATIONS, ids=str)
def test_what_the_compiler_sees_is_the_eager_diffusivity(kind, normalise, monkeypatch):
    diffusivity = awake(kind(grid_graph(3, 4, torch.float64), normalise=normalise))
    z = tuple(torch.randn(2, 12, c, dtype=torch.float64) for c in (1, 2))
    expected = diffusivity(z).values
    monkeypatch.setattr(torch.compiler, "is_compiling", lambda: True)
    torch.testing.assert_close(diffusivity(z).values, expected)


def test_an_edge_of_a_graph_is_entry_target_source():
    graph = Graph(torch.tensor([[0, 0, 2], [1, 2, 1]]), 4, torch.tensor([1.0, 1.0, 3.0]))
    walk = FixedDiffusivity(graph)(torch.zeros(4, 1)).matrix()
    expected = torch.tensor([[1.0, 0, 0, 0], [0.25, 0, 0.75, 0], [1.0, 0, 0, 0], [0, 0, 0, 1.0]])
    torch.testing.assert_close(walk, expected)


def test_columns_of_a_directed_graph_share_what_their_node_gives():
    graph = Graph(torch.tensor([[0, 0, 2], [1, 2, 1]]), 4, torch.tensor([1.0, 3.0, 5.0]))
    walk = FixedDiffusivity(graph, normalise=Softmax(Over.COLUMNS))(torch.zeros(4, 1)).matrix()
    # Node 1 gives to nobody and so keeps what it has; node 3 is alone; node 0 receives nothing.
    expected = torch.tensor([[0, 0, 0, 0], [0.25, 1.0, 1.0, 0], [0.75, 0, 0, 0], [0, 0, 0, 1.0]])
    torch.testing.assert_close(walk, expected)


@quick
@given(
    graph=graphs(directed=True, weights=["ones", "dyadic"]), loops=st.sampled_from([0.0, 0.5]), over=st.sampled_from(list(Over))
)
def test_the_walk_is_the_dense_one_with_loops_and_repeated_edges_added_up(graph, loops, over):
    W = torch.zeros(graph.nodes, graph.nodes, dtype=torch.float64)
    for (source, target), weight in zip(graph.edge_index.T.tolist(), graph.edge_weight.tolist(), strict=True):
        W[target, source] += weight
    W = W + loops * torch.eye(graph.nodes)
    axis = 1 if over is Over.ROWS else 0
    W = W + torch.diag((W.sum(axis) == 0).double())
    walk = FixedDiffusivity(graph, normalise=Softmax(over), self_loops=loops)(
        torch.zeros(graph.nodes, 1, dtype=torch.float64)
    ).matrix()
    assert_within(walk, W / W.sum(axis, keepdim=True), 64 * U)


def test_a_laplacian_gives_its_rate_and_a_graph_the_papers():
    L = robust_laplacian(icosphere(1))
    x = torch.randn(42, 2, dtype=torch.float64)
    of_mesh, of_graph = FixedDiffusivity(L), FixedDiffusivity(icosphere(1).graph())
    torch.testing.assert_close(of_mesh.rate[:, None] * (x - of_mesh(x) @ x), L @ x)
    assert of_mesh.laplacian is L
    assert torch.equal(of_graph.rate, torch.ones(42, dtype=torch.float64))
    torch.testing.assert_close(of_graph.laplacian @ x, of_graph.laplacian.diagonal()[:, None] * (x - of_graph(x) @ x))


def test_a_directed_graph_has_no_laplacian_but_one_of_rounded_weights_has():
    directed = Graph(torch.tensor([[0], [1]]), 2)
    assert FixedDiffusivity(directed).laplacian is None
    uneven = Graph(torch.tensor([[0, 1], [1, 0]]), 2, torch.tensor([1.0, 1.5]))
    assert FixedDiffusivity(uneven).laplacian is None
    index = torch.tensor([[0, 0, 0, 1, 1, 1], [1, 1, 1, 0, 0, 0]])
    repeated = Graph(index, 2, torch.tensor([0.1, 0.2, 0.3, 0.3, 0.2, 0.1]))
    assert FixedDiffusivity(repeated).laplacian is not None


def test_edges_of_weight_zero_are_none():
    graph = Graph(torch.tensor([[0, 1, 1, 2], [1, 0, 2, 1]]), 3, torch.tensor([1.0, 1.0, 0.0, 0.0]))
    A = FixedDiffusivity(graph)(torch.zeros(3, 1))
    torch.testing.assert_close(A.matrix(), torch.tensor([[0.0, 1, 0], [1, 0, 0], [0, 0, 1]]))
    assert A.pattern.nnz == 3


@pytest.mark.parametrize("nodes", [1, 4])
def test_a_graph_without_edges_keeps_every_field(nodes):
    graph = Graph(torch.zeros(2, 0, dtype=torch.int64), nodes)
    for kind in KINDS.values():
        x = torch.randn(nodes, 2)
        assert torch.equal(awake(kind(graph))((x[:, :1], x)) @ x, x)


def test_a_fixed_diffusivity_is_one_matrix_for_a_batch():
    diffusivity = FixedDiffusivity(grid_graph(3, 3), heads=4)
    x = torch.randn(5, 9, 2)
    A = diffusivity(x)
    assert A.values.ndim == 1
    assert diffusivity.score(x).shape == (4, 5, A.pattern.nnz)
    torch.testing.assert_close(Diffusivity.forward(diffusivity, x).values, A.values.expand(5, -1))


def test_bad_edges_are_refused():
    graph = grid_graph(2, 2)
    for edges in (icosphere(0), None, torch.ones(3, 3)):
        with pytest.raises(DomainError, match="must be a Laplacian or a Graph"):
            FixedDiffusivity(edges)
    with pytest.raises(DomainError, match="1 edge weights are negative"):
        FixedDiffusivity(Graph(torch.tensor([[0], [1]]), 2, torch.tensor([-1.0])))
    with pytest.raises(DomainError, match="self-loops must be finite and not negative"):
        FixedDiffusivity(graph, self_loops=-1.0)
    with pytest.raises(DomainError, match="heads must be at least 1"):
        FixedDiffusivity(graph, heads=0)
    with pytest.raises(DomainError, match="must be a Laplacian or a Graph"):
        FixedDiffusivity(graph).on(icosphere(0))
    with pytest.raises(NotImplementedError, match="must define score"):
        Diffusivity(graph)(torch.zeros(4, 1))


@every_kind
def test_bad_states_are_refused(kind):
    diffusivity = kind(grid_graph(2, 2))
    good = torch.zeros(4, 1), torch.zeros(4, 2)
    with pytest.raises(FieldError, match="must have shape"):
        diffusivity((torch.zeros(3, 1), good[1]))
    with pytest.raises(FieldError, match="nothing is converted silently"):
        diffusivity((good[0], good[1].double()))
    with pytest.raises(FieldError, match=r"a pair \(u, x\) of positions and features, not a tuple of 3"):
        diffusivity((*good, good[0]))
    if not isinstance(diffusivity, FixedDiffusivity):
        with pytest.raises(FieldError, match=r"reads . real channels, not"):
            diffusivity((good[0], torch.zeros(4, 5)))
        with pytest.raises(FieldError, match=r"are not of one batch"):
            diffusivity((torch.zeros(2, 4, 1), torch.zeros(3, 4, 2)))
        with pytest.raises(DomainError, match="not finite"):
            awake(diffusivity)((good[0] + torch.nan, good[1]))


def test_joined_states():
    u, x = torch.zeros(4, 1), torch.ones(2, 4, 3)
    assert joined((u, x)).shape == (2, 4, 4)
    assert torch.equal(joined((u, x))[..., 0], torch.zeros(2, 4))
    assert joined(x) is x
    assert [part.shape for part in aligned(u, x)] == [(2, 4, 1), (2, 4, 3)]


def test_a_custom_diffusivity_is_one_method():
    class Difference(Diffusivity):
        def score(self, z):
            i, j = self.edges.pattern.row, self.edges.pattern.col
            return -(z[..., i, 0] - z[..., j, 0]).abs()[None]

    x = torch.tensor([[0.0], [0.0], [5.0], [5.0]])
    A = Difference(Graph(torch.tensor([[1, 2, 0], [0, 0, 1]]), 4))(x).matrix()
    assert A[0, 1] > 0.99
    assert A[0, 2] < 0.01


def test_a_head_more_is_a_mean_more():
    graph = grid_graph(3, 3, torch.float64)
    both, x = awake(ScaledDotProduct(graph, 2, 3, 2)), torch.randn(9, 2, dtype=torch.float64)
    alone = []
    for head in range(2):
        one = ScaledDotProduct(graph, 2, 3)
        with torch.no_grad():
            one.key.weight.copy_(both.key.weight[3 * head : 3 * head + 3])
            one.query.weight.copy_(both.query.weight[3 * head : 3 * head + 3])
        alone.append(one(x).values)
    torch.testing.assert_close(both(x).values, (alone[0] + alone[1]) / 2)


def test_normalisations_are_values():
    assert replace(Softmax(), over=Over.COLUMNS) == Softmax(Over.COLUMNS)
    assert FixedDiffusivity(grid_graph(2, 2)).over is Over.ROWS
