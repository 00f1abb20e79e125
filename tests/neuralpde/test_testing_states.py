"""The form of a state, the round-off of a function, and its fastest rate."""

import pytest
import torch

from neuralpde.heat import Heat
from neuralpde.schroedinger import Schroedinger
from neuralpde.testing_states import Form, drawn_state, dtype_in, fastest_rate, form_of, largest, nodes_in, rounding, same_form
from operators import cotangent_laplacian, icosphere

L = cotangent_laplacian(icosphere(0))


def test_forms():
    assert form_of(Heat(L), 12, torch.float64) == Form((2,))
    assert form_of(Schroedinger(L), 12, torch.float64).is_complex
    assert form_of(lambda t, x: (x[1], -x[0]) if isinstance(x, tuple) else None, 3, torch.float64) == Form((1, 1), True)
    with pytest.raises(TypeError, match=r"takes none of the usual states.*pass states="):
        form_of(lambda t, x: None, 3, torch.float64)


def test_drawn_states_have_the_form_and_are_the_same_every_time():
    form = Form((1, 3), True)
    one, other = (drawn_state(form, 5, torch.float32, torch.Generator().manual_seed(4)) for _ in range(2))
    assert same_form(one, other)
    assert all(torch.equal(a, b) for a, b in zip(one, other, strict=True))
    assert one[1].shape == (5, 3)
    assert one[1].dtype == torch.float32


def test_round_off_grows_with_the_slope():
    x = torch.linspace(-1, 1, 9, dtype=torch.float64)[:, None]
    assert 400 < rounding(lambda x: 1e3 * x, x) / 1.1e-16 / 10 < 600
    assert rounding(lambda x: 0 * x, x) == 0


def test_the_fastest_rate_is_that_of_the_largest_eigenvalue():
    rate = fastest_rate(Heat(L), drawn_state(Form((1,)), 12, torch.float64, torch.Generator().manual_seed(0)))
    assert 0.3 * L.largest_eigenvalue() < rate < 3 * L.largest_eigenvalue()


def test_what_an_equation_tells_of_itself():
    assert nodes_in(Heat(L)) == 12
    assert dtype_in(Heat(L).to(torch.float32)) == torch.float32
    assert largest((torch.zeros(0, 1), torch.tensor([[-2.0]]))) == 2.0
    with pytest.raises(TypeError, match="pass domain= or states="):
        nodes_in(lambda t, x: x)
