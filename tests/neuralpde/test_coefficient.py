"""A coefficient is a number, a field or a function of time, fixed or learned, in the precision of its operator."""

import copy
import math
import pickle

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from neuralpde.coefficient import Coefficient, as_coefficient, learned
from operators import FieldError, Grid, grid_laplacian

L = grid_laplacian(Grid(5, 0.5))
SINGLE = grid_laplacian(Grid(5, 0.5, dtype=torch.float32))
FIELD = torch.linspace(0.5, 2, 5, dtype=torch.float64)[:, None]


def twice(t):
    return 2 * t


class Network(nn.Module):
    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.tensor(3.0, dtype=torch.float64))

    def forward(self, t):
        return self.weight * FIELD * (1 + t)


@given(value=st.floats(1e-6, 1e6), positive=st.booleans(), learn=st.booleans())
def test_a_number_is_itself_fixed_or_learned(value, positive, learn):
    for like in (L, SINGLE):
        a = as_coefficient(value, like, "rate", positive=positive, learn=learn)
        assert a.steady
        assert a.scalar
        assert a().shape == ()
        assert a().dtype == like.dtype
        assert float(a().detach()) == pytest.approx(value, rel=1e-5 if like is SINGLE else 1e-12)
        assert torch.equal(a(0.3), a())
        assert [p.requires_grad for p in a.parameters()] == ([True] if learn else [])
        assert a.logarithm == (positive and learn)
        # Fixed ones are in the checkpoint too: a coefficient is part of the model.
        assert len(a.state_dict()) == 1


def test_what_is_absent_does_not_load_to_no_effect():
    zero, two = as_coefficient(0.0, L, "rate"), as_coefficient(2.0, L, "rate")
    assert zero.absent
    assert not two.absent
    assert not as_coefficient(learned(0.0), L, "rate").absent
    zero.load_state_dict(copy.deepcopy(zero).state_dict())
    for one, other in ((zero, two), (two, zero)):
        with pytest.raises(RuntimeError, match="value"):
            one.load_state_dict(other.state_dict())


def test_it_tells_whether_it_is_negative_now():
    p = nn.Parameter(FIELD.clone())
    a = as_coefficient(p, L, "rate", positive=True)
    assert not a.negative
    with torch.no_grad():
        p[3] = -1e-9
    assert a.negative
    assert as_coefficient(-0.5, L, "rate").negative
    assert not as_coefficient(lambda t: -t, L, "rate").negative


def test_a_learned_positive_one_stays_positive():
    a = as_coefficient(learned(0.5), L, "rate", positive=True)
    (p,) = a.parameters()
    with torch.no_grad():
        p.fill_(-30.0)
    assert 0 < float(a().detach()) < 1e-12
    a().backward()
    assert float(p.grad) == pytest.approx(math.exp(-30))
    free = as_coefficient(learned(-0.5), L, "rate")
    assert float(free().detach()) == -0.5


def test_fields_and_channels():
    for value in (FIELD, FIELD.expand(5, 3), torch.ones(1, 3, dtype=torch.float64)):
        for given_ in (value, learned(value)):
            a = as_coefficient(given_, L, "rate", positive=True)
            assert not a.scalar
            assert a.steady
            torch.testing.assert_close(a().detach(), value)
    one = as_coefficient(torch.full((1, 1), 2.0), SINGLE, "rate")
    assert one.scalar
    assert one().shape == ()
    # Given in another precision, it is the operator's.
    assert as_coefficient(FIELD, SINGLE, "rate")().dtype == torch.float32
    # A copy: what becomes of the tensor afterwards is nothing to a learned one.
    mine = FIELD.clone()
    a = as_coefficient(learned(mine), L, "rate", positive=True)
    mine.zero_()
    torch.testing.assert_close(a().detach(), FIELD)


def test_a_parameter_is_itself_and_shared():
    p = nn.Parameter(torch.tensor(0.5, dtype=torch.float64))
    a, b = (as_coefficient(p, L, "rate", positive=True) for _ in range(2))
    assert a.value is p
    assert b.value is p
    (a() * b()).backward()
    assert float(p.grad) == pytest.approx(1.0)
    assert as_coefficient(a, L, "another") is a


def test_functions_and_networks_are_asked_at_their_time():
    a = as_coefficient(twice, L, "rate")
    assert not a.steady
    assert not a.scalar
    assert float(a(0.3)) == pytest.approx(0.6)
    assert float(a(torch.tensor(0.3))) == pytest.approx(0.6)
    assert a(0.3).dtype == torch.float64
    assert as_coefficient(twice, SINGLE, "rate")(0.3).dtype == torch.float32
    constant = as_coefficient(lambda t: 2, L, "rate")
    assert float(constant(0.0)) == 2.0
    b = as_coefficient(Network(), L, "rate", positive=True)
    torch.testing.assert_close(b(1.0).detach(), 6 * FIELD)
    b(1.0).sum().backward()
    assert all(p.grad is not None for p in b.parameters())
    with pytest.raises(ValueError, match="the rate is a function of time: ask the coefficient itself"):
        a()
    for bad in (lambda t: "fast", lambda t: 1j * t, lambda t: None):
        with pytest.raises(ValueError, match="the function given as rate must return a real number or tensor"):
            as_coefficient(bad, L, "rate")(0.0)


@pytest.mark.parametrize("value", [0.0, -1.0, math.nan, math.inf, -FIELD, FIELD * math.nan])
def test_what_must_be_positive_is_refused_before_it_is_used(value):
    for given_ in (value, learned(value)):
        with pytest.raises(ValueError, match="rate must be positive and finite"):
            as_coefficient(given_, L, "rate", positive=True)
    if not math.isfinite(float(torch.as_tensor(value).sum())):
        with pytest.raises(ValueError, match="rate must be finite"):
            as_coefficient(value, L, "rate")


def test_other_refusals_name_the_cure():
    with pytest.raises(ValueError, match="rate must not be negative: the least is -1"):
        as_coefficient(-1.0, L, "rate", nonnegative=True)
    assert float(as_coefficient(0.0, L, "rate", nonnegative=True)()) == 0
    for wrong in (torch.ones(5), torch.ones(4, 1), torch.ones(5, 5, 4, 1)):
        with pytest.raises(FieldError, match=r"rate must be one number or a field of shape \(5, 1\) or \(5, c\)"):
            as_coefficient(wrong, L, "rate")
    for wrong in (None, "1", True, [1.0], learned("x"), learned(True)):  # type: ignore[arg-type]
        with pytest.raises(TypeError, match="rate must be a number, a tensor, learned"):
            as_coefficient(wrong, L, "rate")
    with pytest.raises(TypeError, match="rate must be real"):
        as_coefficient(torch.tensor(1j), L, "rate")


@pytest.mark.parametrize(
    "value",
    [0.7, FIELD, learned(0.7), learned(FIELD), twice, Network()],
    ids=["number", "field", "learned number", "learned field", "function", "network"],
)
def test_copies_moves_and_checkpoints(value):
    a = as_coefficient(value, L, "rate")
    assert "rate" in repr(a)
    for again in (copy.deepcopy(a), pickle.loads(pickle.dumps(a))):
        assert torch.equal(again(0.3), a(0.3))
    assert not any(p is q for p in copy.deepcopy(a).parameters() for q in a.parameters())
    single = copy.deepcopy(a).to(torch.float32)
    assert single(0.3).dtype == torch.float32 or isinstance(value, Network)
    other = as_coefficient(value, L, "rate")
    other.load_state_dict(a.state_dict())
    assert torch.equal(other(0.3), a(0.3))
    assert isinstance(a, Coefficient)


def test_a_checkpoint_of_a_learned_number_does_not_load_into_a_fixed_one_as_its_logarithm():
    learning, fixed = (as_coefficient(v, L, "diffusivity", positive=True) for v in (learned(0.5), 0.5))
    for source, target in ((learning, fixed), (fixed, learning)):
        with pytest.raises(RuntimeError, match="Missing key"):
            target.load_state_dict(source.state_dict())
