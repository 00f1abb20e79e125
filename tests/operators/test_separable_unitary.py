"""The separable unitary layer is unitary at the start, and after training."""

import copy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from neuralpde.testing import fields, graphs
from operators import (
    FieldError,
    icosphere,
    normalized_laplacian,
    rayleigh_quotient,
    robust_laplacian,
    symmetric_laplacian,
    torus,
)
from operators.separable_unitary import SeparableUnitary

DTYPES = pytest.mark.parametrize("dtype", [torch.float32, torch.float64])


def sphere(dtype=torch.float64):
    return normalized_laplacian(robust_laplacian(icosphere(1))).to(dtype)


@settings(max_examples=25)
@given(data=st.data(), time=st.floats(-5, 5))
def test_it_is_the_product_of_both_exponentials(data, time):
    A = data.draw(graphs().map(lambda graph: symmetric_laplacian(graph).complement()))
    torch.manual_seed(0)
    layer = SeparableUnitary(A, 2, time=time, scale=1.0)
    x = data.draw(fields(A.shape[0], 2, dtype=torch.float64))
    turned = torch.linalg.matrix_exp(1j * time * A.matrix())
    expected = turned @ x.to(torch.complex128) @ torch.linalg.matrix_exp(layer.mixing().detach())
    tolerance = 1e-13 * A.shape[0] * (1 + abs(time)) * float(1 + x.norm())
    torch.testing.assert_close(layer(x).detach(), expected, rtol=0.0, atol=tolerance)


@DTYPES
def test_unitary_throughout_training(dtype):
    laplacian, width = sphere(dtype), 5
    torch.manual_seed(1)
    layer = SeparableUnitary(laplacian.complement(), width)
    x, target = (torch.randn(42, width, dtype=dtype) for _ in range(2))
    optimizer = torch.optim.Adam(layer.parameters(), lr=0.05)
    start = layer.U.detach()
    eye, eps = torch.eye(width, dtype=start.dtype), torch.finfo(dtype).eps
    for step in range(101):
        U = layer.U.detach()
        # The exponential of a matrix of norm ~ 10 rounds each entry a few dozen times.
        assert float(torch.linalg.matrix_norm(U @ U.mH - eye, ord=2)) <= 64 * width * eps, step
        optimizer.zero_grad()
        (layer(x) - target).abs().square().sum().backward()
        optimizer.step()
    assert float((U - start).norm()) > 0.5  # it has learned
    assert abs(float(layer.time.detach()) - 1) > 0.1
    y = layer(x).detach()
    assert float((y.norm() / x.norm() - 1).abs()) <= 256 * eps
    drift = rayleigh_quotient(laplacian, y) - rayleigh_quotient(laplacian, x)
    assert float(drift.abs()) <= 512 * eps


def test_gradcheck_in_field_time_and_mixing():
    torch.manual_seed(2)
    A = symmetric_laplacian(torus(4, 3).graph()).complement()
    layer = SeparableUnitary(A, 2, time=0.7, scale=1.0)
    x = torch.randn(A.shape[0], 2, dtype=torch.float64, requires_grad=True)

    def real_parts(x, V, time):
        return torch.view_as_real(torch.func.functional_call(layer, {"mixing.V": V, "time": time}, (x,)))

    assert torch.autograd.gradcheck(real_parts, (x, layer.mixing.V, layer.time))


def test_it_moves_casts_and_says_what_does_not_fit():
    layer = SeparableUnitary(sphere().complement(), 2)
    moved = layer.on(torus(6, 5))
    assert moved(torch.ones(30, 2, dtype=torch.float64)).shape == (30, 2)
    assert moved.time is layer.time
    assert layer.over(moved.operator).operator is moved.operator
    x = torch.ones(42, 2, dtype=torch.float64)
    before = layer(x).detach()
    assert torch.equal(x, torch.ones(42, 2, dtype=torch.float64))
    single = copy.deepcopy(layer).to(torch.float32)
    assert single.mixing.V.dtype == torch.complex64
    torch.testing.assert_close(single(x.float()).detach().to(torch.complex128), before, rtol=1e-5, atol=1e-5)
    with pytest.raises(FieldError, match="3 channels but W acts on 2"):
        layer(torch.ones(42, 3, dtype=torch.float64))
