import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from neuralpde.recurrent_graph_network_cells import GatedSequence, affine


def cell_of(unit: GatedSequence, inputs: int) -> torch.nn.GRUCell:
    cell = torch.nn.GRUCell(inputs, unit.width, dtype=unit.weight.dtype)
    with torch.no_grad():
        cell.weight_ih.copy_(unit.weight)
        cell.weight_hh.copy_(unit.recurrent_weight)
        cell.bias_ih.copy_(unit.bias)
        cell.bias_hh.copy_(unit.recurrent_bias)
    return cell


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 2e-6), (torch.float64, 1e-14)])
def test_a_sequence_is_torchs_cell_frame_by_frame(dtype: torch.dtype, tolerance: float) -> None:
    torch.manual_seed(0)
    unit = GatedSequence(5, 8).to(dtype)
    cell = cell_of(unit, 5)
    x, start = torch.randn(4, 3, 7, 5, dtype=dtype), 0.5 * torch.randn(3, 7, 8, dtype=dtype)
    weight = torch.randn(4, 3, 7, 8, dtype=dtype)

    def plain() -> torch.Tensor:
        path, state = [], start.reshape(-1, 8)
        for frame in x:
            state = cell(frame.reshape(-1, 5), state)
            path.append(state.view(3, 7, 8))
        return torch.stack(path)

    ours = unit(affine(x, unit.weight, unit.bias), start)
    assert (ours - plain()).abs().max() < tolerance
    (weight * ours).sum().backward()
    (weight * plain()).sum().backward()
    for mine, other in (
        (unit.weight, cell.weight_ih),
        (unit.bias, cell.bias_ih),
        (unit.recurrent_weight, cell.weight_hh),
        (unit.recurrent_bias, cell.bias_hh),
    ):
        # Sums of 84 rows of products of order one.
        assert (mine.grad - other.grad).abs().max() < 100 * tolerance


def test_gradients() -> None:
    torch.manual_seed(0)
    unit = GatedSequence(2, 3).double()
    i = torch.randn(3, 4, 9, dtype=torch.float64, requires_grad=True)
    start = torch.randn(4, 3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(unit, (i, start))
    x, w, b = (torch.randn(s, dtype=torch.float64, requires_grad=True) for s in ((2, 5, 3), (4, 3), (4,)))
    assert torch.autograd.gradcheck(lambda x, w, b: affine(x, w, b), (x, w, b))
    assert torch.autograd.gradcheck(lambda x, w: affine(x, w, rectified=True), (x, w))


@settings(max_examples=20, deadline=None)
@given(
    inputs=st.integers(1, 9), outputs=st.integers(1, 9), rows=st.integers(0, 6), rectified=st.booleans(), seed=st.integers(0, 99)
)
def test_affine_is_torchs_for_slices_of_weights_and_transposed_fields(
    inputs: int, outputs: int, rows: int, rectified: bool, seed: int
) -> None:
    random = torch.Generator().manual_seed(seed)
    weight = torch.randn(outputs, inputs + 3, generator=random)[:, 2 : 2 + inputs].requires_grad_()
    x, b = torch.randn(inputs, rows, generator=random).T, torch.randn(outputs, generator=random)
    expected = torch.nn.functional.linear(x.double(), weight.double(), b.double())
    y = affine(x, weight, b, rectified)
    assert (y - (expected.relu() if rectified else expected)).abs().sum() < 1e-4
    (slope,) = torch.autograd.grad(y.sum(), weight)
    active = (y > 0).float() if rectified else torch.ones_like(y)
    assert (slope - active.T @ x).abs().sum() < 1e-4


@settings(max_examples=20, deadline=None)
@given(scale=st.floats(1e-3, 1e30), seed=st.integers(0, 99))
def test_states_never_leave_the_unit_interval(scale: float, seed: int) -> None:
    torch.manual_seed(seed)
    unit = GatedSequence(2, 4)
    with torch.no_grad():
        for parameter in unit.parameters():
            parameter.mul_(10)
    path = unit(scale * torch.randn(6, 5, 12))
    # Each state is a convex combination of tanh and the state before, up to a rounding a step.
    assert path.abs().max() <= 1 + 1e-5
