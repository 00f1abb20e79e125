"""Tensors that do not move, defaults that leak, precision that is lost on the way."""

import pytest
import torch

from neuralpde.heat import Heat
from neuralpde.testing_devices import assert_device_agnostic
from neuralpde.testing_measured import LawBrokenError
from neuralpde.testing_search import Search
from operators import Operator, combinatorial_laplacian, cotangent_laplacian, icosphere


class Scaling(Operator):
    def __init__(self, how):
        super().__init__()
        self.shape, self.how = (5, 5), how
        self.register_buffer("two", torch.full((5, 1), 2.0, dtype=torch.float64))
        self.plain = torch.full((5, 1), 2.0, dtype=torch.float64)

    def forward(self, x):
        return self.how(self, x)


def test_what_is_shipped_moves():
    assert float(assert_device_agnostic(Heat(cotangent_laplacian(icosphere(0))))) <= 1
    assert float(assert_device_agnostic(combinatorial_laplacian, search=Search(5))) <= 1
    assert float(assert_device_agnostic(Scaling(lambda self, x: self.two * x + x.new_ones(1)))) <= 1


@pytest.mark.parametrize(
    ("how", "law"),
    [
        (lambda self, x: x * torch.ones(5, 1, dtype=x.dtype), "nothing is made on the default device"),
        (lambda self, x: x[torch.arange(5)], "nothing is made on the default device"),
        (lambda self, x: x.float().to(x.dtype), "precision is kept inside"),
        (lambda self, x: x * torch.tensor(0.1), "the default dtype changes nothing"),
        (lambda self, x: self.plain * x, "float32 and back"),
    ],
)
def test_each_leak_is_told_by_its_law(how, law):
    with pytest.raises(LawBrokenError) as caught:
        assert_device_agnostic(Scaling(how))
    assert caught.value.measured.law == law
    assert torch.get_default_dtype() == torch.float32
