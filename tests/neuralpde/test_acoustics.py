"""Pressure and flux: the wave equation of first order, whose energy and mass stay."""

import math
import pickle

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from integrators import Dopri5, Exponential, ImplicitMidpoint, RadauIIA5, StoermerVerlet, Yoshida4, integrate
from neuralpde.acoustics import AcousticEnergy, Acoustics
from neuralpde.coefficient import learned
from neuralpde.invariants import Law
from neuralpde.testing import graphs, meshes
from neuralpde.waves import Wave
from operators import DomainError, combinatorial_laplacian, icosphere, robust_laplacian, torus

NOW = torch.tensor(0.3, dtype=torch.float64)


def drawn(f: Acoustics, channels: int = 1) -> tuple[torch.Tensor, torch.Tensor]:
    n, edges = f.divergence.shape
    generator = torch.Generator().manual_seed(0)
    p, w = (torch.randn(k, channels, generator=generator, dtype=torch.float64) for k in (n, edges))
    return p, w


@given(data=st.data(), h=st.sampled_from([0.3, 3.0, -1.0]))
def test_energy_and_mass_stay_and_the_flow_is_the_matrix_exponential(data, h):
    L = data.draw(st.one_of(graphs(min_nodes=2).map(combinatorial_laplacian), meshes(slivers=False).map(robust_laplacian)))
    f = Acoustics(L, 1.0)
    x = drawn(f)
    n, edges = f.divergence.shape
    time = h / math.sqrt(max(L.norm_bound(), 1e-3))
    new = f.linear.exponential(time, x)
    energy, mass = f.invariants
    assert energy.law is mass.law is Law.CONSERVED
    path = tuple(torch.stack([a, b]) for a, b in zip(x, new, strict=True))
    assert energy.violation(path) < 1e-12
    # A random flux on a tiny triangle pumps the pressure up.
    assert mass.violation(path) < 1e-12 * (1 + float(new[0].abs().max()))
    eye = torch.eye(n + edges, dtype=torch.float64)
    G = torch.cat(f.linear @ (eye[:n], eye[n:]))
    expected = torch.linalg.matrix_exp(time * G) @ torch.cat(x)
    assert float((torch.cat(new) - expected).norm()) <= 1e-11 * float(expected.norm()) * (1 + float(G.norm()) * abs(time))


def test_from_rest_the_pressure_is_the_wave():
    L = robust_laplacian(icosphere(2))
    f, p0 = Acoustics(L, 1.3), torch.randn(162, 2, dtype=torch.float64)
    p, w = integrate(f, f.at_rest(p0), [0.0, 1.7], Exponential()).final
    u, v = integrate(Wave(L, 1.3), (p0, torch.zeros_like(p0)), [0.0, 1.7], Exponential()).final
    torch.testing.assert_close(p, u, rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(-1.3 * (f.divergence @ w), v, rtol=1e-9, atol=1e-9)


def test_the_linear_part_is_the_equation_and_its_solves_invert_it():
    f = Acoustics(robust_laplacian(icosphere(1)), 1.3)
    x = drawn(f, 2)
    for one, two in zip(f(NOW, x), f.linear @ x, strict=True):
        assert torch.equal(one, two)
    assert torch.equal(f.drift(NOW, x[1]), f(NOW, x)[0])
    for s in (0.0, 0.4, 0.3 + 0.2j):
        y = f.linear.solve(torch.tensor(s, dtype=torch.complex128 if isinstance(s, complex) else torch.float64), x)
        for left, right, b in zip(y, f.linear @ y, x, strict=True):
            assert float((left - s * right - b).abs().max()) < 1e-12


def test_solvers_agree_and_keep_the_energy_for_long():
    f = Acoustics(robust_laplacian(torus(9, 6)), 0.8)
    x = drawn(f)
    exact = torch.cat(integrate(f, x, [0.0, 1.0], Exponential()).final)
    for solver in (Dopri5(1e-6, 1e-8), RadauIIA5(1e-5, 1e-7), Yoshida4(dt=0.02)):
        found = torch.cat(integrate(f, x, [0.0, 1.0], solver).final)
        assert float((found - exact).norm()) < 1e-3 * float(exact.norm()), solver
    t = torch.linspace(0, 100, 11, dtype=torch.float64)
    energy, mass = f.invariants
    for solver in (Exponential(), ImplicitMidpoint(dt=2.0)):
        assert energy.violation(integrate(f, x, t, solver).x) < 1e-11
    path = integrate(f, x, t[:3], StoermerVerlet(dt=0.03)).x
    assert energy.violation(path) < 0.05
    # Linear, so kept by every solver.
    assert mass.violation(path) < 1e-12


def test_it_is_learned_moved_cast_and_copied():
    f = Acoustics(robust_laplacian(icosphere(1)), learned(0.7))
    final = integrate(f, drawn(f), [0.0, 0.5], Exponential()).final
    (slope,) = torch.autograd.grad(sum(part.pow(2).sum() for part in (final[0],)), f.c.log_value)
    h = 1e-5
    values = []
    for change in (h, -h):
        g = Acoustics(f.laplacian, 0.7 * math.exp(change))
        values.append(float(integrate(g, drawn(f), [0.0, 0.5], Exponential()).final[0].pow(2).sum()))
    assert float(slope) == pytest.approx((values[0] - values[1]) / (2 * h), rel=1e-6)
    moved = f.on(icosphere(0))
    assert moved.c.log_value is f.c.log_value
    assert moved(NOW, drawn(moved))[1].shape == (30, 1)
    single = pickle.loads(pickle.dumps(f)).to(torch.float32)
    p, _ = integrate(single, tuple(part.float() for part in drawn(f)), [0.0, 0.5], Exponential()).final
    torch.testing.assert_close(p.double(), final[0].detach(), rtol=1e-4, atol=1e-4)
    assert isinstance(f.invariants[0], AcousticEnergy)


def test_a_speed_in_time_and_a_laplacian_with_surplus():
    f = Acoustics(robust_laplacian(icosphere(0)), lambda t: 1 + t)
    assert f.linear is None
    assert f.invariants == ()
    assert f(NOW, drawn(f))[0].shape == (12, 1)
    with pytest.raises(DomainError, match="sum to zero"):
        Acoustics(robust_laplacian(torus(9, 6)).symmetrized())
