"""The contract of operators, and moving a module to another domain with shared parameters."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from neuralpde.testing import assert_within, fields, roundoff
from operators import FieldError, Movable, Operator, icosphere, robust_laplacian, torus
from operators.operator import rebuild


class Doubling(Operator):
    """The least a new operator needs: a shape and a forward."""

    def __init__(self, n):
        super().__init__()
        self.shape = (n, n)
        self.register_buffer("two", torch.tensor(2.0, dtype=torch.float64), persistent=False)

    def forward(self, x):
        return self.two * x


class Model(Movable):
    """Operators and parameters at several depths."""

    def __init__(self, mesh):
        super().__init__()
        self.laplacian = robust_laplacian(mesh)
        self.nested = nn.ModuleList([nn.Linear(2, 2), nn.Sequential(nn.BatchNorm1d(2))])
        self.deep = nn.ModuleDict({"inner": robust_laplacian(mesh)})
        self.absent = None
        self.register_module("missing", None)
        self.scale = nn.Parameter(torch.ones(()))


@given(n=st.integers(1, 5), data=st.data())
def test_a_new_operator_has_a_checked_product_and_a_matrix(n, data):
    A = Doubling(n)
    x = data.draw(fields(n))
    assert torch.equal(A @ x, 2 * x)
    assert torch.equal(A.matrix(), 2 * torch.eye(n, dtype=torch.float64))
    assert (A.dtype, A.device) == (torch.float64, torch.device("cpu"))
    with pytest.raises(FieldError, match="must have shape"):
        A @ torch.ones(n + 1, 1, dtype=torch.float64)


@pytest.mark.parametrize("dtype", [torch.float64, torch.complex128])
@given(data=st.data())
def test_inner_is_conjugate_linear_in_its_first_slot(dtype, data):
    x, y = (data.draw(fields(3, 2, batch=(2,), dtype=dtype)) for _ in range(2))
    inner = Doubling(3).inner(x, y)
    magnitude = (x.abs() * y.abs()).sum((-2, -1))
    assert inner.shape == (2,)
    assert_within(
        inner,
        torch.stack([torch.vdot(a.flatten(), b.flatten()) for a, b in zip(x, y, strict=True)]),
        32 * roundoff(dtype) * magnitude,
    )
    assert_within(Doubling(3).inner(y, x), inner.conj(), 32 * roundoff(dtype) * magnitude)


def test_what_an_operator_does_not_know_it_says():
    A = Doubling(2)
    with pytest.raises(NotImplementedError, match="Doubling does not know its adjoint"):
        A.adjoint()
    with pytest.raises(NotImplementedError, match="Doubling does not know a bound of its norm"):
        A.norm_bound()
    with pytest.raises(NotImplementedError, match=r"built from tensors.*robust_laplacian\(mesh\)"):
        A.on(None)
    with pytest.raises(NotImplementedError):
        Operator().forward(torch.ones(1, 1))


def test_dtype_follows_to():
    assert Doubling(2).to(torch.float32).dtype == torch.float32
    assert Operator().dtype == torch.get_default_dtype()


def test_on_shares_every_parameter_and_buffer_and_moves_every_operator():
    model = Model(icosphere(0))
    moved = model.on(torus(8, 6))
    assert isinstance(moved, Model)
    assert moved.laplacian.shape == moved.deep["inner"].shape == (48, 48)
    assert model.laplacian.shape == model.deep["inner"].shape == (12, 12)
    before, after = dict(model.named_parameters()), dict(moved.named_parameters())
    assert before.keys() == after.keys()
    assert all(after[name] is before[name] for name in before)
    assert moved.nested[1][0].running_mean is model.nested[1][0].running_mean
    assert moved.missing is None


def test_training_the_moved_model_trains_the_original():
    model = Model(icosphere(0))
    moved = model.on(torus(8, 6))
    optimizer = torch.optim.SGD(moved.parameters(), lr=1.0)
    moved.scale.sum().backward()
    optimizer.step()
    assert model.scale.item() == 0.0


def test_adding_to_the_moved_model_leaves_the_original_alone():
    model = Model(icosphere(0))
    moved = model.on(torus(8, 6))
    moved.extra = nn.Linear(1, 1)
    moved.nested.append(nn.Linear(1, 1))
    assert not hasattr(model, "extra")
    assert len(model.nested) == 2


def test_rebuild_asks_only_for_children_that_can_move():
    asked = []
    rebuild(Model(icosphere(0)), lambda child: asked.append(type(child).__name__) or child)
    assert asked == ["Laplacian", "Laplacian"]
