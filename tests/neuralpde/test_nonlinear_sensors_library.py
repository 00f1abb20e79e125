"""The learned equation: its terms, the heat equation exactly, and no way to leave the range of numbers."""

import math

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from neuralpde.nonlinear_sensors_equations import BurgersEquation
from neuralpde.nonlinear_sensors_library import TYPICAL, WIDEST, LearnedEquation, real_waves
from neuralpde.testing import assert_within


def smooth(count, channels, cells=24, highest=3, seed=0):
    line = torch.arange(cells, dtype=torch.float64) / cells
    grid = torch.stack(torch.meshgrid(line, line, indexing="ij"), dim=-1).reshape(-1, 2)
    waves = real_waves(grid, highest)[0].float()
    draw = torch.randn(count, channels, waves.shape[1], generator=torch.Generator().manual_seed(seed)) / highest**2
    return (draw @ waves.T).unflatten(-1, (cells, cells))


def test_untrained_it_is_diffusion_of_each_wave():
    equation = LearnedEquation(1)
    D = float(equation.diffusivity.detach())
    x = torch.arange(24) / 24
    field = torch.sin(2 * math.pi * 3 * x)[:, None].expand(24, 24)[None, None]
    found = equation.solve(field, 3)[0, :, 0].detach()
    for frame in range(3):
        assert_within(found[frame], math.exp(-D * 9 / TYPICAL**2 * frame) * field[0, 0], 1e-5)


def test_its_rate_is_the_sum_of_its_terms():
    """For fields far below the bound, and wave numbers that no product carries beyond what is kept."""
    equation = LearnedEquation(2)
    coefficients = 0.3 * torch.randn(2, 17, generator=torch.Generator().manual_seed(1))
    coefficients[:, 0] = torch.tensor([0.2, 0.4])
    equation.take(coefficients)
    fields = 0.02 * smooth(3, 2, highest=2)
    z = torch.fft.rfft2(fields)
    rate = equation.rate(z) + equation.diffusivity[:, None, None] * equation.square * z
    expected = torch.einsum("cp,kcpxy->kcxy", coefficients, equation.terms(fields))
    assert_within(torch.fft.irfft2(rate, s=(24, 24)).detach(), expected, 1e-4 * float(expected.abs().max()))


def test_burgers_equation_is_one_of_its_kind():
    truth = BurgersEquation(cells=24, substeps=8)
    equation = LearnedEquation(2, substeps=8)
    turn = 2 * math.pi * TYPICAL
    coefficients = torch.zeros(2, 17)
    coefficients[:, 0] = truth.diffusivities[0] * turn**2 * truth.interval
    # Of u_l ∂_a, in the order of carriers (u, v, 1) and axes: u ∂_x and v ∂_y.
    coefficients[:, 1] = coefficients[:, 4] = -turn * truth.interval
    equation.take(coefficients)
    fields = 0.3 * smooth(2, 2, highest=2)
    expected = truth.solve(fields, 4)
    assert_within(equation.solve(fields, 4).detach(), expected, 5e-3 * float(expected.abs().max()))


@settings(max_examples=2)
@given(seed=st.integers(0, 10**6), size=st.floats(0.01, 3.0))
def test_no_coefficients_leave_the_range_of_numbers(seed, size):
    """Products read bounded fields and slopes, so whatever is learned grows at most linearly: 1,000 frames."""
    equation = LearnedEquation(2, cells=6, substeps=1)
    draw = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        equation.reaction.copy_(size * torch.randn(equation.reaction.shape, generator=draw))
        equation.advection.copy_(size * torch.randn(equation.advection.shape, generator=draw))
        equation.raw_diffusivity.copy_(torch.randn(2, generator=draw) - 4)
        path = equation.solve(torch.randn(1, 2, 6, 6, generator=draw), 1000)
    assert bool(torch.isfinite(path).all())
    # A rate is a sum of 10 products of at most three bounded numbers and 6 of two; diffusion does not grow the fields.
    most = size * 6 * (10 * WIDEST**3 + 6 * WIDEST**2)
    assert float(path.abs().max()) < 6 * 1000 * most


def test_real_waves_are_orthonormal_on_a_grid():
    line = torch.arange(10, dtype=torch.float64) / 10
    grid = torch.stack(torch.meshgrid(line, line, indexing="ij"), dim=-1).reshape(-1, 2)
    waves, sizes = real_waves(grid, 4)
    assert waves.shape == (100, 81)
    assert sizes.max() == math.hypot(4, 4)
    assert_within(waves.T @ waves / 100, torch.eye(81, dtype=torch.float64), 1e-12)


def test_gradients_reach_every_coefficient_and_the_field():
    equation = LearnedEquation(2, cells=12)
    fields = smooth(2, 2, cells=12).requires_grad_()
    equation.solve(fields, 2)[:, -1].square().sum().backward()
    for name, tensor in [*equation.named_parameters(), ("fields", fields)]:
        assert tensor.grad is not None, name
        assert bool(tensor.grad.abs().sum() > 0), name
