"""Right, wrong and absent derivatives of first and second order, real and complex."""

import pytest
import torch

from neuralpde.testing_gradients import assert_gradients
from neuralpde.testing_measured import LawBrokenError

X = torch.linspace(-1, 1, 6, dtype=torch.float64).reshape(3, 2)


class Doubled(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return x**2

    @staticmethod
    def backward(ctx, g):
        (x,) = ctx.saved_tensors
        return 2 * g * x.detach()  # right at first order only


@pytest.mark.parametrize(
    ("f", "tensors"),
    [
        (torch.sin, (X,)),
        (lambda x, y: (x @ y.mT, x.sum()), (X, X + 1)),
        (lambda z: z**3, (torch.complex(X, X + 0.5),)),
        (lambda x: x.exp(), (X.float(),)),
        (lambda x: x * 1e-9 + 1e3, (X,)),
        (lambda x: x.sum() * 0 + 1, (X,)),
    ],
)
def test_right_derivatives(f, tensors):
    assert float(assert_gradients(f, *tensors)) <= 1


@pytest.mark.parametrize(
    ("f", "told"),
    [
        (lambda x: x * x.detach(), "gradient in tensor 0"),
        (lambda x: x.detach() ** 2, "autograd has no gradient here"),
        (lambda x: torch.from_numpy(x.detach().numpy() ** 2), "autograd has no gradient here"),
        (Doubled.apply, "second derivative along two directions"),
    ],
)
def test_wrong_and_absent_ones(f, told):
    with pytest.raises(LawBrokenError, match=told):
        assert_gradients(f, X)


def test_second_derivatives_need_not_be_asked():
    assert float(assert_gradients(Doubled.apply, X, second=False)) <= 1


def test_what_has_no_gradient_is_refused():
    with pytest.raises(TypeError, match=r"tensor 0 must be a floating-point tensor, not torch.int64"):
        assert_gradients(lambda x: x, torch.ones(1, dtype=torch.int64))
    with pytest.raises(TypeError, match="at least one tensor"):
        assert_gradients(lambda: X)
