"""R-UniGraph: what its layers keep, what the decoders do, and that all of it moves together."""

import pytest
import torch
from torch import nn

from neuralpde.uni_graph import BothParts, GCNDecoder, GraphConvolution, MLPDecoder, RealPart, RUniGraph
from operators import (
    DomainError,
    FieldError,
    icosphere,
    normalized_laplacian,
    rayleigh_quotient,
    robust_laplacian,
    torus,
)
from operators.group_sort import GroupSort
from operators.modulus_activation import ModulusReLU


def laplacian_of(mesh, dtype=torch.float64):
    return normalized_laplacian(robust_laplacian(mesh)).to(dtype)


def field(nodes, channels, dtype=torch.float64):
    return torch.randn(nodes, channels, dtype=dtype, generator=torch.Generator().manual_seed(0))


def model_on(laplacian, width=4, **how):
    torch.manual_seed(0)
    return RUniGraph(laplacian.complement(), width, 3, scale=1.0, **how)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("complex_valued", [False, True])
def test_exact_layers_keep_norm_and_quotient_and_truncated_ones_do_not(dtype, complex_valued):
    laplacian = laplacian_of(icosphere(1), dtype)
    x = field(laplacian.shape[0], 2, dtype)
    quotient = float(rayleigh_quotient(laplacian, x))
    exact = model_on(laplacian, order=None, complex_valued=complex_valued).encoded(x).detach()
    relaxed = model_on(laplacian, order=3, complex_valued=complex_valued).encoded(x).detach()
    tolerance = 256 * torch.finfo(dtype).eps
    assert float(exact.norm() / x.norm()) == pytest.approx(1, abs=tolerance)
    assert float(rayleigh_quotient(laplacian, exact)) == pytest.approx(quotient, abs=tolerance)
    assert abs(float(relaxed.norm() / x.norm()) - 1) > 1e-3
    assert abs(float(rayleigh_quotient(laplacian, relaxed)) - quotient) > 1e-4


def test_group_sort_keeps_the_norm_alone():
    laplacian = laplacian_of(icosphere(1))
    x = field(laplacian.shape[0], 4)
    z = model_on(laplacian, order=None, activation=GroupSort).encoded(x).detach()
    assert float(z.norm() / x.norm()) == pytest.approx(1, abs=1e-13)
    assert abs(float(rayleigh_quotient(laplacian, z) - rayleigh_quotient(laplacian, x))) > 1e-3


def test_graph_convolution_is_its_formula_both_ways_round():
    A = laplacian_of(icosphere(1)).complement()
    for inputs, outputs in ((2, 5), (5, 2)):
        layer = GraphConvolution(A, inputs, outputs)
        x = field(42, inputs)
        expected = A.matrix() @ x @ layer.weight + layer.bias
        torch.testing.assert_close(layer(x), expected, rtol=1e-12, atol=1e-12)


def test_gcn_decoder_has_relu_between_its_layers_only():
    A = laplacian_of(icosphere(1)).complement()
    decoder = GCNDecoder(A, (3, 4, 1))
    x = field(42, 3)
    first, second = decoder.layers
    torch.testing.assert_close(decoder(x), second(first(x).relu()), rtol=0.0, atol=0.0)
    assert isinstance(MLPDecoder((3, 4, 1))[1], nn.ReLU)
    assert len(MLPDecoder((3, 1))) == 1
    mlp = MLPDecoder((3, 4, 1), dtype=torch.float64)
    torch.testing.assert_close(mlp(x)[7], mlp(x[7]))  # node by node
    for decoder_type in (lambda c: GCNDecoder(A, c), MLPDecoder):
        with pytest.raises(DomainError, match=r"such as \(64, 1\), not \(3,\)"):
            decoder_type((3,))


def test_readouts():
    z = torch.complex(field(5, 2), field(5, 2) + 1)
    assert torch.equal(RealPart()(z), z.real)
    assert torch.equal(BothParts()(z), torch.cat([z.real, z.imag], dim=-1))
    assert torch.equal(RealPart()(z.real), z.real)
    assert torch.equal(BothParts()(z.real), z.real)


def test_all_of_it_moves_with_its_parameters():
    A = laplacian_of(icosphere(1)).complement()
    torch.manual_seed(1)
    model = RUniGraph(A, 4, 2, order=None, activation=GroupSort, decoder=GCNDecoder(A, (4, 3, 1)))
    moved = model.on(torus(6, 5))
    assert moved(field(30, 1)).shape == (30, 1)
    assert {id(p) for p in moved.parameters()} == {id(p) for p in model.parameters()}
    B = laplacian_of(icosphere(0)).complement()
    over = model.decoder.over(B)
    assert over(field(12, 4)).shape == (12, 1)
    assert model(field(42, 1)).shape == (42, 1)
    assert model(torch.stack([field(42, 1)] * 3)).shape == (3, 42, 1)


def test_it_learns():
    A = laplacian_of(icosphere(0)).complement()
    torch.manual_seed(2)
    decoder = nn.Sequential(ModulusReLU(2, dtype=torch.float64), BothParts(), nn.Linear(4, 1, dtype=torch.float64))
    model = RUniGraph(A, 2, 2, complex_valued=True, decoder=decoder)
    x, y = field(12, 1), field(12, 2)[:, 1:]
    optimizer = torch.optim.Adam(model.parameters(), lr=0.05)
    losses = []
    for _ in range(30):
        optimizer.zero_grad()
        loss = (model(x) - y).square().mean()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert all(p.grad is not None for p in model.parameters())
    assert losses[-1] < 0.9 * losses[0]


def test_what_does_not_fit_is_said():
    A = laplacian_of(icosphere(1)).complement()
    with pytest.raises(FieldError, match="5 channels, more than the width 4"):
        RUniGraph(A, 4, 2)(field(42, 5))
    with pytest.raises(DomainError, match="at least one layer"):
        RUniGraph(A, 4, 0)
