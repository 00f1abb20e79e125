"""Activations of complex fields commute with phases."""

import cmath

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from operators import DomainError, FieldError
from operators.modulus_activation import ModulusReLU, ModulusSort

PHASES = st.floats(-3.1, 3.1)


def drawn(seed, *shape):
    return torch.randn(*shape, dtype=torch.complex128, generator=torch.Generator().manual_seed(seed))


def biased(width):
    activation = ModulusReLU(width, dtype=torch.float64)
    with torch.no_grad():
        activation.bias.copy_(torch.linspace(-1, 0.5, width, dtype=torch.float64))
    return activation


@settings(max_examples=30)
@given(seed=st.integers(0, 100), angle=PHASES)
def test_phases_pass_through(seed, angle):
    z, phase = drawn(seed, 3, 5, 4), cmath.exp(1j * angle)
    for activation in (biased(4), ModulusSort()):
        torch.testing.assert_close(activation(phase * z), phase * activation(z), rtol=1e-13, atol=1e-13)


@settings(max_examples=30)
@given(seed=st.integers(0, 100))
def test_moduli(seed):
    z, activation = drawn(seed, 5, 4), biased(4)
    y = activation(z)
    torch.testing.assert_close(y.abs(), (z.abs() + activation.bias).relu(), rtol=1e-13, atol=1e-13)
    torch.testing.assert_close(y * z.abs(), y.abs() * z, rtol=1e-13, atol=1e-13)
    torch.testing.assert_close(ModulusReLU(4, dtype=torch.float64)(z), z, rtol=1e-14, atol=0.0)
    sorted_ = ModulusSort()(z)
    torch.testing.assert_close(sorted_.abs().sort(-1).values, z.abs().sort(-1).values)
    assert bool((sorted_[:, :2].abs() >= sorted_[:, 2:].abs()).all())


def test_zero_is_zero_and_has_a_gradient():
    z = torch.zeros(2, 4, dtype=torch.complex128, requires_grad=True)
    y = biased(4)(z)
    assert not bool(y.abs().any())
    y.abs().square().sum().backward()
    assert bool(torch.isfinite(torch.view_as_real(z.grad)).all())


def test_real_fields_keep_their_signs():
    activation = biased(4)
    x = torch.tensor([[-2.0, -0.1, 0.2, 3.0]], dtype=torch.float64)
    y = activation(x)
    torch.testing.assert_close(y, x.sign() * (x.abs() + activation.bias).relu())


def test_gradcheck():
    activation = biased(4)

    def parts(bias, real, imag):
        y = torch.func.functional_call(activation, {"bias": bias}, (torch.complex(real, imag),))
        return torch.view_as_real(y)

    real, imag = (drawn(seed, 3, 4).real.clone().requires_grad_() for seed in (1, 2))
    assert torch.autograd.gradcheck(parts, (activation.bias, real, imag))
    assert torch.autograd.gradcheck(lambda a, b: torch.view_as_real(ModulusSort()(torch.complex(a, b))), (real, imag))


def test_what_does_not_fit_is_said():
    with pytest.raises(FieldError, match="z has 3 channels, and the activation 4"):
        ModulusReLU(4)(torch.zeros(2, 3))
    with pytest.raises(FieldError, match="no two halves"):
        ModulusSort()(torch.zeros(2, 3))
    with pytest.raises(DomainError, match="at least 1"):
        ModulusReLU(0)
