"""The learned truncation order: exact at whole numbers, smooth between, found by training; and what it cannot do."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from operators import (
    DomainError,
    Grid,
    UnitaryGenerator,
    icosphere,
    normalized_laplacian,
    robust_laplacian,
    symmetric_laplacian,
    torus,
)
from operators.learned_truncation import LearnedTruncation, gate, truncated
from operators.lie_unitary import LieUnitary

WHOLE = pytest.mark.parametrize("order", [0, 1, 2, 3, 6])


def grid_adjacency(side=4):
    return symmetric_laplacian(Grid((side, side)).graph()).complement()


def generator_on(A, width=2, scale=1.5):
    torch.manual_seed(0)
    return LieUnitary(A, width, scale=scale).generator


def field(A, width=2, seed=1):
    return torch.randn(A.shape[0], width, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def number(value, **how):
    return torch.tensor(float(value), dtype=torch.float64, **how)


@WHOLE
def test_whole_orders_are_the_partial_sums(order):
    A = grid_adjacency()
    G, x = generator_on(A), field(A)
    exact = sum(powers(G, x, order))
    torch.testing.assert_close(truncated(G, x, number(order)), exact, rtol=1e-15, atol=1e-15)


def powers(G, x, order):
    terms = [x]
    for k in range(1, order + 1):
        terms.append(G(terms[-1]) / k)
    return terms


@settings(max_examples=30)
@given(s=st.floats(0, 8))
def test_it_interpolates_between_the_partial_sums(s):
    # By the textbook Catmull–Rom cubic through four neighbouring partial sums, p_{−1} = 0 included.
    A = grid_adjacency()
    G, x = generator_on(A), field(A)
    n = min(math.floor(s), 7)
    u = s - n
    sums = [torch.zeros_like(x)]
    for term in powers(G, x, n + 2):
        sums.append(sums[-1] + term)
    before, left, right, after = (sums[n + k] if n + k >= 0 else sums[0] for k in (0, 1, 2, 3))
    expected = 0.5 * (
        2 * left
        + (right - before) * u
        + (2 * before - 5 * left + 4 * right - after) * u**2
        + (3 * left - before - 3 * right + after) * u**3
    )
    torch.testing.assert_close(truncated(G, x, number(s)), expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("value", [0.4, 2.0, 2.7, 5.0])
def test_gradcheck_in_field_and_order_also_at_whole_numbers(value):
    A = grid_adjacency(3)
    G, x = generator_on(A), field(A).requires_grad_()
    assert torch.autograd.gradcheck(lambda x, s: truncated(G, x, s), (x, number(value, requires_grad=True)))


def test_gates_are_one_above_and_zero_below():
    u = torch.arange(-6, 7, dtype=torch.float64)
    torch.testing.assert_close(gate(u), (u >= 0).double(), rtol=0.0, atol=1e-15)
    fine = torch.linspace(-4, 4, 801, dtype=torch.float64)
    assert bool((gate(fine)[fine >= 1] == 1).all())
    assert not bool(gate(fine)[fine <= -2].any())
    assert float(gate(fine).diff().abs().max()) < 0.02  # continuous


def test_training_finds_the_order_that_made_the_data():
    A = grid_adjacency()
    layer = LearnedTruncation(A, 2, order=1.4, most=8)
    with torch.no_grad():
        layer.mixing.V.copy_(torch.tensor([[0.0, 1.0], [-1.0, 0.0]]))
        x = torch.stack([field(A, seed=seed) for seed in range(2)])
        truth = truncated(UnitaryGenerator(A, layer.mixing), x, number(4))
    layer.mixing.requires_grad_(False)
    # The loss falls by orders of magnitude on the way, which Adam's default memory of large gradients would take for noise.
    optimizer = torch.optim.Adam([layer.place], lr=0.2, betas=(0.8, 0.9))
    for step in range(120):
        optimizer.param_groups[0]["lr"] = 0.2 * 0.97**step
        optimizer.zero_grad()
        (layer(x) - truth).square().mean().backward()
        optimizer.step()
    assert float(layer.order.detach()) == pytest.approx(4, abs=0.05)


@settings(max_examples=30)
@given(s=st.floats(0.1, 7.9), angle=st.floats(0.1, 3.0))
def test_no_order_tells_smooth_modes_from_rough_ones(s, angle):
    # A grid is bipartite: x is the smoothest mode, of eigenvalue 1 of Ã, and its signs flipped on every other node the
    # roughest, of eigenvalue −1. Every truncation multiplies both by the same factor: it is no smoothing.
    side = 4
    A = grid_adjacency(side)
    values, vectors = torch.linalg.eigh(A.matrix())
    smooth = vectors[:, -1:].expand(-1, 2)
    node = torch.arange(side * side)
    rough = smooth * ((node // side + node % side) % 2 * 2 - 1)[:, None]
    assert float(values[-1]) == pytest.approx(1)
    torch.testing.assert_close(A(rough), -rough, rtol=1e-12, atol=1e-12)
    W = torch.tensor([[0.0, angle], [-angle, 0.0]], dtype=torch.float64)
    G = UnitaryGenerator(A, lambda: W)
    sizes = [float(truncated(G, x, number(s)).norm() / x.norm()) for x in (smooth, rough)]
    assert sizes[0] == pytest.approx(sizes[1], rel=1e-12)
    # The orders that lose norm lose it most where |a| is large, at both ends alike; the middle of the spectrum is kept.
    middle = vectors[:, values.abs().argmin()][:, None].expand(-1, 2)
    assert float(truncated(G, middle, number(3)).norm() / middle.norm()) == pytest.approx(1, abs=1e-9)


def test_it_moves_and_says_what_cannot_be():
    A = normalized_laplacian(robust_laplacian(icosphere(1))).complement()
    layer = LearnedTruncation(A, 2, complex_valued=True, order=3.5)
    assert float(layer.order.detach()) == pytest.approx(3.5)
    y = layer(torch.ones(3, 42, 2, dtype=torch.float64))
    assert y.shape == (3, 42, 2)
    assert y.is_complex()
    moved = layer.on(torus(6, 5))
    assert moved.place is layer.place
    assert layer.over(moved.operator)(torch.ones(30, 2, dtype=torch.float64)).shape == (30, 2)
    assert layer.to(torch.float32).mixing.V.dtype == torch.complex64
    for order in (0, 10, -1):
        with pytest.raises(DomainError, match="must start between 0 and 10"):
            LearnedTruncation(A, 2, order=order)
