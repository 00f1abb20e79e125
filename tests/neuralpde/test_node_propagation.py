"""The symmetric flow is the matrix exponential; draws may share a solve; fields that flowed are read by node."""

import numpy as np
import pytest
import scipy.linalg
import torch

from integrators import Dopri5, Exponential
from neuralpde.beltrami import BeltramiFlow
from neuralpde.node_propagation import Perceptron, RandomPropagation, SymmetricFlow
from neuralpde.testing_nodes import node_blocks
from operators.diffusivity import FixedDiffusivity

DATA = node_blocks(60)


def symmetric(source=None, loops=1.0, time=2.0, solver=None, dtype=torch.float64):
    flow = BeltramiFlow(FixedDiffusivity(DATA.graph.to(dtype), self_loops=loops), 1.5, source=source, frozen=True)
    return SymmetricFlow(flow.requires_grad_(False), time, solver or Exponential(tol=1e-8))


@pytest.mark.parametrize("loops", [0.5, 1.0])
def test_it_is_the_matrix_exponential(loops):
    weight = loops * np.eye(60)
    weight[tuple(DATA.graph.edge_index.numpy())] = 1
    root = weight.sum(1) ** -0.5
    S = root[:, None] * weight * root
    z = torch.randn(60, 3, dtype=torch.float64)
    flow = scipy.linalg.expm(1.5 * 2.0 * (S - np.eye(60)))
    assert np.allclose(symmetric(loops=loops)(z).numpy(), flow @ z.numpy(), atol=1e-6)


def test_with_a_source_it_is_what_dopri5_finds():
    z = torch.randn(60, 3, dtype=torch.float64)
    exact, stepped = symmetric(0.7), symmetric(0.7, solver=Dopri5(rtol=1e-9, atol=1e-10))
    assert torch.allclose(exact(z), stepped(z), atol=1e-6)
    assert 0 < exact.nfe < stepped.nfe


def test_what_does_not_flow_stays():
    """S √d = √d, with any source."""
    flow = symmetric(2.0)
    assert torch.allclose(flow(flow.root), flow.root, atol=1e-6)


def test_a_time_that_is_not_positive_is_refused():
    with pytest.raises(ValueError, match="time must be positive"):
        symmetric(time=0.0)


def model(**options):
    flow = symmetric(1.0, dtype=torch.float32, solver=Exponential(tol=1e-5))
    return RandomPropagation(DATA, flow, 8, **{"drop_nodes": 0.0, "input_dropout": 0.0, "dropout": 0.0, **options})


def test_draws_without_dropout_are_the_pass_itself():
    torch.manual_seed(0)
    classifier = model()
    nodes = torch.tensor([3, 0, 7])
    assert torch.allclose(classifier.draws(2, nodes), classifier()[nodes].expand(2, -1, -1), atol=1e-5)
    assert classifier.nfe > 0


def test_draws_differ_and_dropped_nodes_keep_the_mean():
    torch.manual_seed(0)
    classifier = model(drop_nodes=0.5)
    one, other = classifier.draws(2, torch.arange(60))
    assert not torch.allclose(one, other)
    with torch.no_grad():
        mean = torch.stack([classifier._draw() for _ in range(3000)]).mean(0)
        classifier.eval()
        whole = classifier._draw()
    assert float((mean - whole).norm() / whole.norm()) < 0.05
    dropped = model(drop_nodes=0.5)._draw()
    rows = dropped.detach().abs().sum(1) == 0
    assert 10 < int(rows.sum()) < 50


def test_all_but_the_flow_learns():
    torch.manual_seed(0)
    classifier = model()
    classifier().square().sum().backward()
    learned = {name for name, p in classifier.named_parameters() if p.grad is not None}
    assert learned == {"encode.weight", "bias", "decode.weight", "decode.bias"}


def test_a_perceptron_reads_the_nodes_it_is_asked_for():
    torch.manual_seed(0)
    fields = torch.randn(60, 5)
    classifier = Perceptron(fields, 3, 8, 0.0, 0.0, nfe=4)
    nodes = torch.tensor([9, 1])
    assert torch.allclose(classifier.draws(2, nodes), classifier()[nodes].expand(2, -1, -1), atol=1e-6)
    assert classifier.nfe == 4
    assert not any(name == "fields" for name in classifier.state_dict())
