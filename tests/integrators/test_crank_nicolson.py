"""Crank–Nicolson: stability function, the damped start, and what it keeps."""

import pytest
import torch

from integrators.crank_nicolson import CrankNicolson
from integrators.integrate import integrate

Z = [-1e6, -2.5, -1e-3, 0.0, 0.7, 3.0, 1j, 20j, -1 + 2j]


def scalar(linear, z):
    return linear(torch.full((1, 1), z, dtype=torch.complex128)), torch.ones(1, 1, dtype=torch.complex128)


def R(z):
    return (1 + z / 2) / (1 - z / 2)


@pytest.mark.parametrize("z", Z)
def test_stability_function(linear, z):
    f, one = scalar(linear, z)
    for damped in (0, 1, 2):
        x = complex(integrate(f, one, [0.0, 3.0], CrankNicolson(dt=1.0, damped=damped)).final)
        expected = (1 - z / 2) ** (-2 * damped) * R(z) ** (3 - damped)
        assert abs(x - expected) <= 1e-12 * max(1, abs(expected))


def test_rough_data_ring_only_without_the_damped_start(linear):
    f, one = linear(torch.full((1, 1), -1e6, dtype=torch.float64)), torch.ones(1, 1, dtype=torch.float64)
    ringing, damped = (float(integrate(f, one, [0.0, 1.0], CrankNicolson(dt=0.1, damped=d)).final) for d in (0, 2))
    assert abs(ringing) > 0.99
    assert abs(damped) < 1e-15


def test_the_start_is_damped_again_after_a_jump():
    f = lambda t, x: -1e6 * (x - (t > 0.5).to(x))  # noqa: E731
    x = integrate(f, torch.zeros(1, 1, dtype=torch.float64), [0.0, 1.0], CrankNicolson(dt=0.1), jumps=[0.5]).final
    assert float(x) == pytest.approx(1, abs=1e-9)


def test_without_damping_the_norm_of_a_rotation_is_kept(linear):
    f = linear(torch.tensor([[0.0, -3.0], [3.0, 0.0]], dtype=torch.float64))
    x0 = torch.tensor([[0.6], [0.8]], dtype=torch.float64)
    x = integrate(f, x0, [0.0, 10.0], CrankNicolson(dt=0.1, damped=0)).final
    assert abs(float(x.norm()) - 1) <= 1e-12


@pytest.mark.parametrize("damped", [-1, 1.0, True])
def test_a_bad_number_of_damped_steps_is_refused(damped):
    with pytest.raises(ValueError, match=f"damped must be an integer of at least 0, not {damped}"):
        CrankNicolson(dt=0.1, damped=damped)
