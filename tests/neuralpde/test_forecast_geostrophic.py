"""The Jacobian is antisymmetric and keeps its three sums; a zonal flow rests; a Rossby wave moves at its speed."""

import math

import pytest
import torch

from integrators import integrate
from integrators.rk4 import RK4
from neuralpde.forecast_geostrophic import BalancedFlow, Jacobian
from neuralpde.shallow_water import EARTH_ROTATION
from neuralpde.testing import roundoff
from operators.sphere_meshes import centroidal_icosphere

U = roundoff(torch.float64)
MESH = centroidal_icosphere(3)


def test_the_jacobian_keeps_mean_energy_and_variance():
    J = Jacobian(MESH)
    a, b = torch.randn(2, 3, MESH.num_nodes, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0)).unbind(0)
    M, product = J.mass[:, None], J(a, b)
    assert torch.allclose(product, -J(b, a), atol=256 * U * float(product.abs().max()))
    for field in (torch.ones_like(a), a, b):
        total = (M * field * product).sum(-2)
        assert float(total.abs().max()) < 1e3 * U * float((M * field * product).abs().sum(-2).max())


def test_the_jacobian_of_smooth_fields():
    x, y, z = MESH.vertices.unbind(1)
    # On the unit sphere J(a, b) = x · (grad a × grad b), so that J(x, y) = z.
    found = Jacobian(MESH)(x[:, None], y[:, None])[:, 0]
    assert float((found - z).abs().max()) < 0.03


def test_a_zonal_flow_rests_and_a_wave_moves_at_its_speed():
    flow = BalancedFlow(MESH, 6.0)
    x, y, z = MESH.vertices.unbind(1)
    # ψ = ε Re (x + iy)²: degree 2, order 2, westward at 2 · 2Ω / (6 + F) in longitude over the order.
    psi = 1e-7 * (x * x - y * y)[:, None]
    q = flow.coriolis - flow.laplacian(psi) - 6.0 * psi
    hours = 6.0
    path = integrate(flow, (q, torch.zeros_like(q)), torch.tensor([0.0, 3600 * hours]), RK4(dt=1800.0)).x[0]
    moved = flow.stream(path[-1])[:, 0]
    angle = 2 * EARTH_ROTATION / (6 + 6.0) * 3600 * hours
    c, s = math.cos(2 * angle), math.sin(2 * angle)
    expected = 1e-7 * ((x * x - y * y) * c - 2 * x * y * s)
    assert float((moved - expected).norm() / expected.norm()) < 0.03
    rest = flow.coriolis - flow.laplacian(1e-6 * z[:, None]) - 6e-6 * z[:, None]
    rates = flow(torch.zeros(()), (rest, z[:, None]))
    wave = flow(torch.zeros(()), (q, z[:, None]))
    assert float(rates[1].abs().max()) < 0.05 * 10 * float(wave[1].abs().max())


def test_nothing_changes_geopotential_on_the_equator_and_all_of_it_elsewhere():
    flow = BalancedFlow(MESH, 6.0)
    z = MESH.vertices[:, 2:]
    before = flow.start(5e4 + 1e3 * z, 250 + z)[0]
    after = flow.start(5e4 + 1.1e3 * z, 250 + z)[0]
    change = flow.geopotential_change(before, after)
    # z on the equator is round-off, and f and ψ are both proportional to it.
    assert float(change[z.abs() < 1e-12].abs().max()) < 1e-12
    polar = z > 0.9
    assert torch.allclose(change[polar], 100 * z[polar], rtol=0.1)
    with pytest.raises(ValueError, match="deformation"):
        BalancedFlow(MESH, 0.0)
