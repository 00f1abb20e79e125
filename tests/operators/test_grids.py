"""Grids have the nodes their boundaries say, and the spectrum of their Laplacian is the closed form."""

import itertools
import math
import pickle
from copy import deepcopy

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from neuralpde.testing import assert_within, fields, roundoff
from operators import DomainError, FieldError, combinatorial_laplacian
from operators.grids import Boundary, Grid, grid_laplacian

U = roundoff(torch.float64)
NAN, INF = math.nan, math.inf


@st.composite
def grids(draw, max_nodes=6, max_dimensions=3):
    d = draw(st.integers(1, max_dimensions))
    sizes = draw(st.lists(st.integers(1, max_nodes), min_size=d, max_size=d))
    steps = draw(st.lists(st.sampled_from([0.25, 1.0, 3.0]), min_size=d, max_size=d))
    ends = draw(st.lists(st.sampled_from(Boundary), min_size=d, max_size=d))
    return Grid(sizes, steps, ends)


def axis_eigenvalues(n, h, end):
    k = np.arange(n)
    angle = {
        Boundary.PERIODIC: 2 * np.pi * k / n,
        Boundary.NEUMANN: np.pi * k / n,
        Boundary.DIRICHLET: np.pi * (k + 1) / (n + 1),
    }[end]
    return (2 - 2 * np.cos(angle)) / h**2


def axis_matrix(n, h, end):
    """The textbook matrix, with the ghost node of every end written out."""
    L = np.zeros((n, n))
    for i in range(n):
        for j in (i - 1, i + 1):
            L[i, i] += 1
            if 0 <= j < n:
                L[i, j] -= 1
            elif end is Boundary.PERIODIC:
                L[i, j % n] -= 1
            elif end is Boundary.NEUMANN:
                L[i, i] -= 1  # the ghost has the value of the node itself
    return L / h**2


@given(grid=grids())
def test_the_spectrum_is_the_closed_form(grid):
    L = grid_laplacian(grid)
    parts = [axis_eigenvalues(n, float(h), end) for n, h, end in zip(grid.shape, grid.spacing, grid.boundary, strict=True)]
    expected = np.sort([sum(combination) for combination in itertools.product(*parts)])
    found = np.linalg.eigvalsh(L.symmetrized().stiffness.to_scipy().toarray())
    assert np.abs(found - expected).max() <= 8 * len(found) * U * L.norm_bound()
    assert L.norm_bound() >= expected[-1] * (1 - 8 * U)


@given(grid=grids())
def test_the_matrix_is_the_kronecker_sum_of_the_axes(grid):
    expected = np.zeros((grid.num_nodes,) * 2)
    for k, (n, h, end) in enumerate(zip(grid.shape, grid.spacing, grid.boundary, strict=True)):
        before, after = math.prod(grid.shape[:k]), math.prod(grid.shape[k + 1 :])
        expected += np.kron(np.kron(np.eye(before), axis_matrix(n, float(h), end)), np.eye(after))
    L = grid_laplacian(grid)
    assert_within(L.matrix(), torch.from_numpy(expected), 8 * U * 2 * np.abs(expected).max())
    C = L.stiffness.to_scipy()
    assert (C != C.T).nnz == 0
    assert (L.mass == grid.spacing.prod()).all()


@given(grid=grids())
def test_constants_are_in_the_kernel_unless_some_end_is_held_at_zero(grid):
    held = Boundary.DIRICHLET in grid.boundary
    L = grid_laplacian(grid)
    assert L.kills_constants != held
    if held:
        inverse = torch.linalg.inv(L.matrix())
        assert (inverse >= -1e-12).all()  # and then L has a positive inverse


@given(end=st.sampled_from(Boundary), data=st.data())
def test_second_order_in_the_spacing(end, data):
    """On the smoothest eigenfunction of the continuous problem, whose eigenvalue differs by h² k⁴ / 12."""
    n, k = data.draw(st.integers(16, 64)), data.draw(st.integers(1, 2))
    h = 1 / (n + 1) if end is Boundary.DIRICHLET else 1 / n
    grid = Grid(n, h, end)
    assert grid.extent == pytest.approx((1.0,))
    wave = {
        Boundary.PERIODIC: lambda x: torch.sin(2 * math.pi * k * x),
        Boundary.NEUMANN: lambda x: torch.cos(math.pi * k * x),
        Boundary.DIRICHLET: lambda x: torch.sin(math.pi * k * x),
    }[end]
    frequency = (2 if end is Boundary.PERIODIC else 1) * math.pi * k
    u = wave(grid.points)
    error = grid_laplacian(grid) @ u - frequency**2 * u
    assert error.abs().max() <= 1.001 * h**2 * frequency**4 / 12 + 1e-9


@given(grid=grids(), data=st.data())
def test_folding_is_a_view_with_the_axes_of_the_points(grid, data):
    x = data.draw(fields(grid.num_nodes, batch=(2,)))
    array = grid.folded(x)
    assert array.shape == (2, *grid.shape, x.shape[-1])
    assert array.data_ptr() == x.data_ptr()
    assert torch.equal(grid.flattened(array), x)
    points = grid.folded(grid.points)
    for axis in range(len(grid.shape)):
        assert torch.equal(points.select(axis, 0)[..., axis].unique(), points[..., axis].min().reshape(1))
    assert grid.points.shape == (grid.num_nodes, len(grid.shape))


@given(grid=grids())
def test_the_graph_joins_neighbours_along_the_axes(grid):
    unit = grid_laplacian(Grid(grid.shape, 1.0, [Boundary.NEUMANN if e is Boundary.DIRICHLET else e for e in grid.boundary]))
    assert torch.equal(combinatorial_laplacian(grid.graph()).matrix(), unit.matrix())
    assert grid.graph().edge_weight.dtype == grid.spacing.dtype


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_precision_moves_copies_and_recipes(dtype):
    grid = Grid((4, 3), 0.5, dtype=dtype)
    L = grid_laplacian(grid)
    assert L.dtype == L.mass.dtype == grid.points.dtype == dtype
    assert grid.to(torch.float64).spacing.dtype == torch.float64
    assert grid.to("meta").spacing.device.type == "meta"
    assert L.on(Grid(5)).shape == (5, 5)
    for copied in (pickle.loads(pickle.dumps(grid)), deepcopy(grid)):
        assert torch.equal(grid_laplacian(copied).matrix(), L.matrix())
    assert Grid(2, torch.tensor([0.5])).spacing.dtype == torch.float32


@pytest.mark.parametrize(
    ("arguments", "match"),
    [
        (((),), "shape must be positive integers"),
        ((0,), "shape must be positive integers"),
        (((3, -1),), "shape must be positive integers"),
        (((3, 2.0),), "shape must be positive integers"),
        (((True, 2),), "shape must be positive integers"),
        (((10**5, 10**5),), "10000000000 nodes, over the limit"),
        ((3, 0.0), "spacing must be finite and lie in"),
        ((3, -1.0), "spacing must be finite"),
        ((3, NAN), "spacing must be finite"),
        ((3, [INF]), "spacing must be finite"),
        ((3, 1e-150), "spacing must be finite"),
        ((3, [1.0, 1.0]), "1 axes need as many spacings and boundaries, not \\(2,\\) and 1"),
        (((3, 3), 1.0, [Boundary.PERIODIC]), "2 axes need as many"),
        (((3, 3), 1.0, "periodic"), "boundary must be a Boundary.*try Boundary.PERIODIC"),
        ((3, None), "spacing must be an array or tensor of numbers"),
        ((3, 1.0, ["periodic"]), "boundary must be a Boundary.*try Boundary.PERIODIC"),
        ((3, torch.tensor([1])), "spacing must be float32 or float64, not torch.int64"),
    ],
)
def test_impossible_grids_are_refused(arguments, match):
    with pytest.raises(DomainError, match=match):
        Grid(*arguments)


def test_fields_that_do_not_fit_are_refused():
    grid = Grid((2, 3))
    with pytest.raises(FieldError, match=r"shape \(\.\.\., 6, c\), not \(5, 1\)"):
        grid.folded(torch.ones(5, 1))
    with pytest.raises(FieldError, match=r"shape \(\.\.\., 2, 3, c\), not \(3, 2, 1\)"):
        grid.flattened(torch.ones(3, 2, 1))
    with pytest.raises(DomainError, match="spacing must be finite"):
        Grid(3, 1e60).to(torch.float32)


def test_sizes_may_be_numpy_integers():
    grid = Grid(np.array([3, 4]), np.float32(0.5))
    assert grid.shape == (3, 4)
    assert all(type(n) is int for n in grid.shape)
    assert Grid(np.int64(5)).shape == (5,)


@pytest.mark.parametrize("spacing", [0.05, [0.05, 0.1], np.array([0.05, 0.1])])
def test_a_spacing_given_as_numbers_keeps_all_its_digits(spacing):
    expected = torch.tensor([0.05, 0.05 if np.ndim(spacing) == 0 else 0.1], dtype=torch.float64)
    assert torch.equal(Grid((3, 3), spacing).spacing, expected)
    assert torch.equal(Grid((3, 3), spacing, dtype=torch.float32).spacing, expected.float())
