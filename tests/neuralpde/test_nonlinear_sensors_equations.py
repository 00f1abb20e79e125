"""The simulated equations: closed forms, SciPy, and fourth order in time."""

import math

import numpy as np
import pytest
import torch
from scipy.integrate import solve_ivp

from neuralpde.nonlinear_sensors_equations import (
    EQUATIONS,
    BurgersEquation,
    FitzHughNagumoEquation,
    GrayScottEquation,
    wave_numbers,
)
from neuralpde.testing import assert_within


def test_burgers_is_the_solution_of_cole_and_hopf():
    """A velocity that depends on x alone: u = −2ν φ_x / φ, with φ the solution of the heat equation."""
    equation = BurgersEquation(cells=64, substeps=8)
    nu, frames = equation.diffusivities[0], 3
    x = torch.arange(64, dtype=torch.float64) / 64
    start = 0.3 * torch.sin(2 * math.pi * x)
    fields = torch.stack([start[:, None].expand(64, 64), torch.zeros(64, 64, dtype=torch.float64)])[None]
    found = equation.solve(fields, frames)[0, -1]
    fine = np.arange(1024) / 1024
    phi = np.exp(0.3 * np.cos(2 * np.pi * fine) / (2 * np.pi) / (2 * nu))
    k = np.fft.fftfreq(1024, 1 / 1024)
    spectrum = np.fft.fft(phi) * np.exp(-nu * (2 * np.pi * k) ** 2 * (frames - 1) * equation.interval)
    exact = -2 * nu * np.fft.ifft(2j * np.pi * k * spectrum).real / np.fft.ifft(spectrum).real
    # The front is resolved by 21 wave numbers: they fall to 1e-5 of the first.
    assert_within(found[0], torch.from_numpy(exact[::16])[:, None].expand(64, 64), 1e-4)
    assert_within(found[1], torch.zeros(64, 64, dtype=torch.float64), 1e-12)


@pytest.mark.parametrize("equation", [FitzHughNagumoEquation(cells=8, substeps=40), GrayScottEquation(cells=8, substeps=40)])
def test_uniform_fields_follow_the_reaction(equation):
    start = np.array([0.6, 0.3])
    fields = torch.from_numpy(start)[None, :, None, None].expand(1, 2, 8, 8)
    found = equation.solve(fields, 3)[0, -1]

    def rate(t, y):
        both = torch.from_numpy(y)[None, :, None, None]
        return equation.rest(both, torch.zeros(1, 2, 2, 1, 1))[0, :, 0, 0].numpy()

    exact = solve_ivp(rate, (0, 2 * equation.interval), start, rtol=1e-10, atol=1e-12).y[:, -1]
    assert_within(found, torch.from_numpy(exact)[:, None, None].expand(2, 8, 8), 1e-6)


def test_the_reactions_are_those_of_the_textbook():
    one = torch.tensor([[[[0.5]], [[0.25]]]], dtype=torch.float64)
    flat = torch.zeros(1, 2, 2, 1, 1, dtype=torch.float64)
    gray_scott = GrayScottEquation().rest(one, flat).flatten().tolist()
    assert gray_scott == pytest.approx([0.037 * 0.5 - 0.5 * 0.0625, 0.5 * 0.0625 - 0.097 * 0.25])
    nagumo = FitzHughNagumoEquation().rest(one, flat).flatten().tolist()
    assert nagumo == pytest.approx([0.5 - 0.125 / 3 - 0.25 + 0.5, 0.2 * (0.5 + 0.7 - 0.2)])


@pytest.mark.parametrize("name", sorted(EQUATIONS))
def test_time_is_of_fourth_order(name):
    equation = EQUATIONS[name]
    start = equation.sessions(0, 1, 0)
    end = {s: type(equation)(64, s).solve(start, 2)[:, -1] for s in (8, 16, 32)}
    coarse, fine = (float((end[a] - end[b]).norm()) for a, b in ((8, 16), (16, 32)))
    assert 3.3 < math.log2(coarse / fine) < 4.8


@pytest.mark.parametrize("name", sorted(EQUATIONS))
def test_sessions_depend_on_their_number_alone_and_have_few_modes(name):
    equation = EQUATIONS[name]
    some = equation.sessions(0, 3, 5)
    assert torch.equal(some[2:], equation.sessions(2, 1, 5))
    assert not torch.equal(some, equation.sessions(0, 3, 6))
    kx, ky = wave_numbers(equation.cells)
    beyond = (kx.abs() > equation.modes) | (ky > equation.modes)
    noise = equation.noise(torch.Generator().manual_seed(0), 2)
    assert float((torch.fft.rfft2(noise) * beyond).abs().max()) < 1e-9
    assert noise.square().mean((-2, -1)).tolist() == pytest.approx([1, 1])
    assert noise.mean((-2, -1)).abs().max() < 1e-12
