import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from neuralpde.convection_grid import FieldGrid
from operators import DomainError
from operators.sparse import sparse_product

GRID = FieldGrid(torch.tensor([-1.0, 2.0], dtype=torch.float64), torch.tensor([3.0, 5.0], dtype=torch.float64), 12)
PATTERN, ENTRIES = GRID.differences()
INSIDE = torch.zeros(12, 12, dtype=torch.bool)
INSIDE[2:-2, 2:-2] = True


def polynomial(numbers, points):
    x, y = points.unbind(-1)
    return sum(c * x**p * y**q for c, (p, q) in zip(numbers, ((0, 0), (1, 0), (0, 1), (2, 0), (1, 1), (0, 2)), strict=True))


@settings(max_examples=30)
@given(st.lists(st.floats(-3, 3), min_size=6, max_size=6), st.lists(st.floats(-2, 2), min_size=3, max_size=3))
def test_any_share_of_higher_differences_is_exact_on_quadratics(numbers, shares) -> None:
    pattern, entries = PATTERN, ENTRIES
    x, y = GRID.points.unbind(-1)
    f = polynomial(numbers, GRID.points)[:, None]
    _, bx, by, bxx, bxy, byy = numbers
    exact = (bx + 2 * bxx * x + bxy * y, by + bxy * x + 2 * byy * y, torch.full_like(x, 2 * bxx + 2 * byy))
    for k in range(3):
        found = sparse_product(entries[2 * k] + shares[k] * entries[2 * k + 1], f, pattern)[:, 0]
        inside = INSIDE.flatten()
        # Values up to 100 are divided by h² ≥ 0.07 sixteen times over.
        torch.testing.assert_close(found[inside], exact[k][inside], rtol=0, atol=1e-10)


def test_constants_have_no_derivative_anywhere() -> None:
    pattern, entries = PATTERN, ENTRIES
    for each in entries:
        assert float(sparse_product(each, torch.ones(144, 1, dtype=torch.float64), pattern).abs().max()) < 1e-12


def test_beyond_the_edge_the_field_continues() -> None:
    """The first difference at the edge is half the one-sided one, as where an absent neighbour is left out."""
    pattern, entries = PATTERN, ENTRIES
    f = torch.randn(12, 12, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    found = sparse_product(entries[0], f.reshape(-1, 1), pattern).reshape(12, 12)
    torch.testing.assert_close(found[0], (f[1] - f[0]) / (2 * GRID.spacing[0]))
    torch.testing.assert_close(found[-1], (f[-1] - f[-2]) / (2 * GRID.spacing[0]))


@given(st.lists(st.floats(-2, 2), min_size=16, max_size=16), st.floats(-1, 3), st.floats(2, 5))
def test_reading_is_exact_on_bicubic_fields_up_to_the_edge(numbers, x, y) -> None:
    point = torch.tensor([[x, y]], dtype=torch.float64)

    def cubic(points):
        local = (points - GRID.low) / (GRID.high - GRID.low)
        return sum(c * local[:, 0] ** (k // 4) * local[:, 1] ** (k % 4) for k, c in enumerate(numbers))

    index, weights = GRID.read(point)
    found = (weights * cubic(GRID.points)[index]).sum(1)
    torch.testing.assert_close(found, cubic(point), rtol=0, atol=1e-11)


def test_a_sensor_on_a_grid_point_reads_it_and_one_outside_reads_the_edge() -> None:
    values = torch.randn(144, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    index, weights = GRID.read(GRID.points)
    torch.testing.assert_close((weights * values[index]).sum(1), values)
    outside = torch.tensor([[-7.0, 5.0]], dtype=torch.float64)
    index, weights = GRID.read(outside)
    torch.testing.assert_close((weights * values[index]).sum(1), values[11:12])


def test_waves_are_orthogonal_on_their_period() -> None:
    """With a margin of one spacing the box is the period of the grid's points."""
    waves, sizes = GRID.waves(3, 1 / 11)
    assert waves.shape == (144, 49)
    assert sizes.shape == (49,)
    gram = waves.T @ waves / 144
    expected = torch.eye(49, dtype=torch.float64) / 2
    expected[0, 0] = 1
    torch.testing.assert_close(gram, expected, rtol=0, atol=1e-12)


def test_smooth_functions_span_the_polynomials() -> None:
    f = polynomial([1.0, -2.0, 0.5, 0.3, 2.0, -1.0], GRID.points)
    solution = torch.linalg.lstsq(GRID.smooth(2), f[:, None]).solution
    torch.testing.assert_close(GRID.smooth(2) @ solution, f[:, None])


def test_bad_boxes_are_refused() -> None:
    with pytest.raises(DomainError, match="on a line"):
        FieldGrid.around(torch.tensor([[0.0, 1.0], [2.0, 1.0]]), 12)
    with pytest.raises(DomainError, match="at least 6"):
        FieldGrid.around(torch.rand(5, 2), 5)
