"""MoNet's mixture of Gaussians: shares that depend on where neighbours lie, and on nothing else."""

import copy
import pickle

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from neuralpde.testing import assert_within, fields, graphs, roundoff
from operators import DomainError, FieldError, Graph, icosphere, robust_laplacian
from operators.gaussian_mixture import GaussianMixture, ends, offset
from operators.normalisation import Over, Softmax, Squareplus

GRAPH = icosphere(0).graph().to(torch.float64)


def noise(*shape, seed=0):
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def trained(edges, dimensions, *args, **kwargs):
    torch.manual_seed(0)
    mixture = GaussianMixture(edges, dimensions, *args, **kwargs)
    with torch.no_grad():
        mixture.logit.normal_()
        mixture.log_width.normal_(std=0.3)
    return mixture


def by_hand(mixture, u, pseudo):
    """The shares entry by entry: a_ij = w_ij Σ_k p_k exp(−½ |(e − μ_k)/σ_k|²) over its row sum, averaged over heads."""
    n = u.shape[0]
    pattern, shares = mixture.edges.pattern, []
    for p, mean, width in zip(mixture.logit.exp(), mixture.mean, mixture.log_width.exp(), strict=True):
        kernel = torch.zeros(n, n, dtype=u.dtype)
        for i, j, w in zip(pattern.row.tolist(), pattern.col.tolist(), mixture.edges.weight, strict=True):
            e = pseudo(u[i], u[j])
            kernel[i, j] = w * (p * torch.exp(-(((e - mean) / width) ** 2).sum(-1) / 2)).sum()
        shares.append(kernel / kernel.sum(1, keepdim=True))
    return torch.stack(shares).mean(0)


@pytest.mark.parametrize("heads", [1, 2])
@pytest.mark.parametrize(("pseudo", "dimensions"), [(offset, 3), (ends, 6)])
def test_it_is_the_mixture_over_its_sum(pseudo, dimensions, heads):
    mixture = trained(GRAPH, dimensions, 4, heads, pseudo=pseudo, self_loops=0.5)
    u = noise(12, 3)
    with torch.no_grad():
        assert_within(mixture((u, noise(12, 2))).matrix(), by_hand(mixture, u, pseudo), 1e-13)


def test_it_reads_positions_alone():
    mixture = trained(GRAPH, 3)
    u = noise(12, 3)
    one, other = (mixture((u, noise(12, 2, seed=k))).values for k in (1, 2))
    assert torch.equal(one, other)
    assert not torch.equal(one, mixture((noise(12, 3, seed=5), noise(12, 2))).values)


@given(
    data=st.data(),
    normalise=st.sampled_from([Softmax(), Softmax(Over.COLUMNS), Squareplus()]),
    far=st.sampled_from([1.0, 1e3]),
)
def test_shares_sum_to_one_however_far_apart_the_nodes_are(data, normalise, far):
    """A sum of exponentials would underflow at 40 widths; its logarithm does not."""
    graph: Graph = data.draw(graphs())
    mixture = trained(graph, 2, normalise=normalise)
    u = far * data.draw(fields(graph.nodes, 2, exact=True))
    A = mixture((u, u))
    assert float(A.values.detach().min()) >= 0
    sums = (A if normalise.over is Over.ROWS else A.adjoint()).row_sums()
    assert_within(sums, torch.ones_like(sums), 8 * graph.nodes * roundoff(u.dtype))


@given(data=st.data())
def test_renumbering_commutes(data):
    graph: Graph = data.draw(graphs(min_nodes=2))
    order = torch.tensor(data.draw(st.permutations(range(graph.nodes))))
    renamed = Graph(order[graph.edge_index], graph.nodes, graph.edge_weight)
    mixture = trained(graph, 2)
    u, x = data.draw(fields(graph.nodes, 2, exact=True)), data.draw(fields(graph.nodes, 1, exact=True))
    there = torch.empty_like(u), torch.empty_like(x)
    there[0][order], there[1][order] = u, x
    moved = mixture.on(renamed)
    assert moved.mean is mixture.mean
    ours, theirs = mixture((u, x)) @ x, (moved(there) @ there[1])[order]
    assert_within(theirs, ours, 1e-11 * float(x.abs().max()))


def test_gradients():
    mixture = trained(GRAPH, 2, 2, 2, pseudo=nn.Bilinear(3, 3, 2).double())
    names, values = zip(*mixture.named_parameters(), strict=True)
    assert {"mean", "log_width", "logit", "pseudo.weight", "pseudo.bias"} == set(names)
    u = noise(12, 3).requires_grad_()

    def shares(u, *values):
        return torch.func.functional_call(mixture, dict(zip(names, values, strict=True)), ((u, u),)).values

    assert torch.autograd.gradcheck(shares, (u, *values))


def test_precision_batches_and_copies():
    mixture = trained(robust_laplacian(icosphere(0)), 3, heads=2)
    u, x = noise(2, 4, 12, 3), noise(2, 4, 12, 1)
    whole = mixture((u, x)).values
    assert whole.shape == (2, 4, mixture.edges.pattern.nnz)
    assert_within(whole[1, 3], mixture((u[1, 3], x[1, 3])).values, 1e-13)
    # Places that all members share give one matrix.
    assert mixture((u[0, 0], x)).values.shape == (mixture.edges.pattern.nnz,)
    single = copy.deepcopy(mixture).float()
    assert_within(single((u.float(), x.float())).values.double(), whole, 1e-4)
    assert torch.equal(pickle.loads(pickle.dumps(mixture))((u, x)).values, whole)
    assert sorted(mixture.state_dict()) == ["log_width", "logit", "mean"]


def test_refusals_name_the_cure():
    for name in ("dimensions", "kernels"):
        with pytest.raises(DomainError, match=f"{name} must be at least 1"):
            GaussianMixture(GRAPH, **{"dimensions": 1, name: 0})
    mixture = GaussianMixture(GRAPH, 3)
    with pytest.raises(FieldError, match=r"give it a pair \(u, x\)"):
        mixture(noise(12, 3))
    with pytest.raises(FieldError, match="in its pseudo-coordinates, reads 3 real channels, not 2"):
        mixture((noise(12, 2), noise(12, 1)))
    with pytest.raises(FieldError):
        mixture((noise(11, 3), noise(11, 1)))
    with pytest.raises(DomainError, match="not finite"):
        mixture((noise(12, 3) * torch.inf, noise(12, 1)))
