"""R-UniMesh as published: its sizes, its layers against a dense exponential, and that it moves between meshes."""

import copy
import pickle

import pytest
import scipy.linalg
import torch

from neuralpde.uni_mesh import RUniMesh, by_convolution, by_perceptron, robust_adjacency
from operators import bumpy, icosphere, normalized_adjacency, robust_laplacian, torus
from operators.checks import DomainError, FieldError

BALL, RING = bumpy(icosphere(1), 0.2), torus(8, 5)


def made(mesh=BALL, width=8, layers=2, **how):
    torch.manual_seed(0)
    return RUniMesh(robust_adjacency(mesh), width, layers, **how)


def count(model):
    return sum(parameter.numel() for parameter in model.parameters())


@pytest.mark.parametrize(
    ("width", "decoder", "parameters"),
    [(64, by_convolution, 36_929), (64, by_perceptron, 45_249), (256, by_convolution, 590_081)],
    ids=["mesh", "mesh-perceptron", "weather"],
)
def test_it_has_the_published_sizes(width, decoder, parameters):
    assert count(made(width=width, layers=9, decoder=decoder)) == parameters


@pytest.mark.parametrize(("order", "close"), [(None, 1e-13), (10, 1e-4)])
def test_a_layer_is_the_exponential_of_its_adjacency_times_a_skew_matrix(order, close):
    model = made(layers=1, order=order, decoder=lambda operator, width, outputs: torch.nn.Identity())
    x = torch.randn(BALL.num_nodes, 5, dtype=torch.float64)
    V = model.net.layers[0].mixing.V.detach()
    A = normalized_adjacency(robust_laplacian(BALL)).to_scipy().toarray()
    padded = torch.nn.functional.pad(x, (0, 3))
    dense = scipy.linalg.expm(scipy.sparse.kron(A, ((V - V.T) / 2).T.numpy()).toarray())
    turned = torch.from_numpy(dense @ padded.flatten().numpy()).reshape(-1, 8)
    first, second = turned[:, :4], turned[:, 4:]
    expected = torch.cat([torch.maximum(first, second), torch.minimum(first, second)], dim=1)
    torch.testing.assert_close(model(x), expected, rtol=0, atol=close)


@pytest.mark.parametrize("decoder", [by_convolution, by_perceptron])
def test_on_another_mesh_it_is_the_model_built_there_with_the_same_parameters(decoder):
    model = made(decoder=decoder)
    there = model.on(RING)
    built = made(RING, decoder=decoder)
    built.load_state_dict(model.state_dict())
    x = torch.randn(3, RING.num_nodes, 5, dtype=torch.float64)
    assert torch.equal(there(x), built(x))
    there(x).sum().backward()
    assert all(parameter.grad is not None for parameter in model.parameters())
    with pytest.raises(FieldError):
        model(x)


def test_relabelled_nodes_give_the_relabelled_result():
    order = torch.randperm(BALL.num_nodes, generator=torch.Generator().manual_seed(1))
    place = torch.argsort(order)
    from operators import TriangleMesh

    relabelled = TriangleMesh(BALL.vertices[order], place[BALL.faces])
    model, x = made(), torch.randn(BALL.num_nodes, 5, dtype=torch.float64)
    torch.testing.assert_close(model.on(relabelled)(x[order]), model(x)[order], rtol=0, atol=1e-12)


def test_gradients_batches_copies_and_precisions():
    model = made(icosphere(0), width=6, outputs=2)
    x = torch.randn(2, 12, 5, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(model, (x,))
    torch.testing.assert_close(model(x)[1], model(x[1]), rtol=0, atol=1e-14)
    for twin in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert torch.equal(twin(x), model(x))
    narrow = made(icosphere(0).to(torch.float32), width=6, outputs=2)
    assert narrow(x.float()).dtype == torch.float32
    assert narrow(x.float()).shape == (2, 12, 2)


def test_odd_widths_and_too_wide_fields_are_refused():
    with pytest.raises(DomainError, match="even"):
        made(width=7)
    with pytest.raises(DomainError, match="at least one layer"):
        made(layers=0)
    with pytest.raises(FieldError, match="width 8"):
        made()(torch.randn(BALL.num_nodes, 9, dtype=torch.float64))
