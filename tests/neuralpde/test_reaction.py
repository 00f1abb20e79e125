"""Reaction and diffusion: Fisher's front at 2√(rD), systems by name, linear theory against what grows."""

import copy
import math
import pickle

import pytest
import torch
from torch import nn

from integrators import ARK324, ETDRK4, RK4, SBDF2, integrate
from neuralpde.coefficient import learned
from neuralpde.reaction import FisherKPP, ReactionDiffusion
from operators import Boundary, FieldError, Grid, cotangent_laplacian, grid_laplacian, icosphere

PERIODIC = Boundary.PERIODIC


def line(n, length, ends=PERIODIC):
    return Grid(n, torch.tensor([length / n], dtype=torch.float64), ends)


def random(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


class Brusselator(ReactionDiffusion):
    """The example of the docstring."""

    names = ("u", "v")

    def __init__(self, laplacian, diffusivities=(1.0, 8.0)):
        super().__init__(laplacian, diffusivities)
        self.a = nn.Parameter(torch.tensor(4.5, dtype=torch.float64))

    def reaction(self, t, u, v):
        return self.a - 8.5 * u + u**2 * v, 7.5 * u - u**2 * v


def test_fishers_front_runs_at_twice_the_root_of_rate_and_diffusivity():
    """D = 2, r = 0.5: c = 2; fronts that start sharp lag by (3/2)√(D/r) / t (Bramson 1983)."""
    f = FisherKPP(grid_laplacian(line(280, 140.0, Boundary.NEUMANN)), 2.0, 0.5)
    u0 = (torch.arange(280)[:, None] < 10).double()
    with torch.no_grad():
        x = integrate(f, u0, [0.0, 45.0, 60.0], ARK324(dt=0.25)).x
    # One unit of the integral of u is one of length.
    speed = float(x[2].sum() - x[1].sum()) * 0.5 / 15
    assert speed + 1.5 * math.sqrt(2.0 / 0.5) / 52.5 == pytest.approx(2 * math.sqrt(0.5 * 2.0), rel=0.02)
    (region,) = f.invariants
    assert region.violation(x) < 1e-12


def test_the_travelling_wave_of_ablowitz_and_zeppetella():
    """u = (1 + e^(z/√6))^−2 with z = x − 5t/√6 solves D = r = 1 exactly (1979, Bull. Math. Biol. 41)."""
    errors = []
    for n in (128, 256):
        grid = line(n, 80.0, Boundary.NEUMANN)
        x = grid.points - 40.0

        def exact(t, x=x):
            return (1 + torch.exp((x - 5 * t / math.sqrt(6)) / math.sqrt(6))) ** -2

        with torch.no_grad():
            u = integrate(FisherKPP(grid_laplacian(grid)), exact(0.0), [0.0, 4.0], ARK324(dt=0.1)).final
        errors.append(float((u - exact(4.0)).abs().max()))
    assert math.log2(errors[0] / errors[1]) > 1.9


@pytest.mark.parametrize("solver", [ARK324, ETDRK4, SBDF2])
def test_orders_in_time_with_a_source(solver):
    """u = ½ + ¼ cos x e^(−t), which its source makes a solution of the discrete equation."""
    grid = line(12, 2 * math.pi)
    L = grid_laplacian(grid)
    wave = torch.cos(grid.points) / 4
    curved = L @ wave

    def source(t, u):
        e = torch.exp(-t)
        now = 0.5 + e * wave
        return -e * wave + 0.3 * e * curved - 2 * now * (1 - now)

    f = FisherKPP(L, 0.3, 2.0) + source
    errors = []
    for dt in (0.1, 0.05):
        with torch.no_grad():
            u = integrate(f, 0.5 + wave, [0.0, 1.0], solver(dt=dt)).final
        errors.append(float((u - 0.5 - math.exp(-1.0) * wave).abs().max()))
    assert math.log2(errors[0] / errors[1]) > solver.order - 0.25


def test_linear_theory_is_what_a_small_wave_does():
    grid = line(24, 12.0)
    f = Brusselator(grid_laplacian(grid))
    k = 2 * math.pi * 2 / 12
    eigenvalue = (2 - 2 * math.cos(k * 0.5)) / 0.25
    rest = (4.5, 7.5 / 4.5)
    expected = float(f.growth_rate(eigenvalue, rest))
    wave = torch.cos(k * grid.points)
    x0 = (rest[0] + 1e-7 * wave, rest[1] - 1e-7 * wave)
    with torch.no_grad():
        # After a while only the faster of the two modes is left.
        x = integrate(f, x0, [0.0, 3.0, 4.0], RK4(dt=0.0125)).x[0]
    found = math.log(float(((x[2] - rest[0]) * wave).sum() / ((x[1] - rest[0]) * wave).sum()))
    assert found == pytest.approx(expected, abs=1e-4)
    rates = f.growth_rate(torch.linspace(0, 3, 31), rest)
    assert rates.shape == (31,)
    eigenvalues = torch.linspace(0, 3, 301)
    assert f.preferred(rest) == pytest.approx(float(eigenvalues[f.growth_rate(eigenvalues, rest).argmax()]), abs=0.02)
    assert Brusselator(f.laplacian, (1.0, 1.0)).preferred(rest) == 0.0
    assert Brusselator(f.laplacian, (0.0, 0.0)).preferred(rest) == 0.0
    for uneven in (lambda t: 1.0, random(24, 1).abs()):
        with pytest.raises(ValueError, match="one number each, which diffusivity of v is not"):
            Brusselator(f.laplacian, (1.0, uneven)).preferred(rest)


def test_the_parts_are_the_system_for_every_kind_of_diffusivity():
    L, t = cotangent_laplacian(icosphere(1)), torch.tensor(0.3)
    x = (random(3, 42, 2), random(3, 42, 2, seed=1))
    field = torch.rand(42, 1, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    for rates in ((1.0, 8.0), (learned(1.0), 0.0), (lambda t: 1.0 + t, 8.0), (field, lambda t: t), (0.0, 0.0)):
        f = Brusselator(L, rates)
        whole, rest = f(t, x), f.nonlinear(t, x)
        linear = (0, 0) if f.linear is None else f.linear @ x
        for w, r, g, u, D, reaction in zip(whole, rest, linear, x, f.D, f.reaction(t, *x), strict=True):
            assert float((w - r - g).detach().abs().max()) < 1e-12 * float(w.detach().abs().max())
            assert float((w - reaction + D(t) * (L @ u)).detach().abs().max()) < 1e-12 * float(w.detach().abs().max())
    assert Brusselator(L, (0.0, 0.0)).linear is None
    assert Brusselator(L, (lambda t: t, field)).linear is None


def test_a_diffusivity_that_may_be_learned_from_zero_stays_in_the_linear_part():
    f = Brusselator(cotangent_laplacian(icosphere(0)), (nn.Parameter(torch.zeros((), dtype=torch.float64)), 1.0))
    (f.linear @ (random(12, 1), random(12, 1)))[0].sum().backward()
    assert f.D[0].value.grad is not None


def test_states_have_names():
    f = Brusselator(cotangent_laplacian(icosphere(0)))
    u, v = random(12, 1), random(12, 1, seed=1)
    assert f.state(v=v, u=u) == (u, v)
    assert f.named((u, v)) == {"u": u, "v": v}
    with pytest.raises(TypeError, match="the fields are u, v, not u"):
        f.state(u=u)
    with pytest.raises(FieldError, match=r"the tuple \(u, v\), not Tensor"):
        f(0.0, u)
    with pytest.raises(ValueError, match="3 diffusivities"):
        Brusselator(f.laplacian, (1.0, 2.0, 3.0))
    with pytest.raises(ValueError, match="diffusivity of v"):
        Brusselator(f.laplacian, (1.0, -2.0))

    class Idle(ReactionDiffusion):
        names = ("a",)

    with pytest.raises(NotImplementedError, match=r"reaction\(self, t, a\)"):
        Idle(f.laplacian, [1.0])(0.0, (u,))


def test_gradients_through_the_solver_in_coefficients_and_fields():
    L = cotangent_laplacian(icosphere(0))
    u, v = 4.5 + 0.1 * random(12, 1), 1.6 + 0.1 * random(12, 1, seed=1)

    def end(a, D, u, v):
        f = Brusselator(L, (lambda t: D, 8.0))
        del f.a
        f.a = a
        return integrate(f, (u, v), [0.0, 0.1], RK4(dt=0.05)).final

    inputs = (torch.tensor(4.5, dtype=torch.float64), torch.tensor(0.7, dtype=torch.float64), u, v)
    assert torch.autograd.gradcheck(end, tuple(x.requires_grad_() for x in inputs), fast_mode=True)

    def fisher(D, r, u):
        return integrate(FisherKPP(L, lambda t: D, lambda t: r), u, [0.0, 0.1], RK4(dt=0.05)).final

    field = torch.rand(12, 1, dtype=torch.float64)
    wanted = tuple(x.detach().clone().requires_grad_() for x in (inputs[1], field, u))
    assert torch.autograd.gradcheck(fisher, wanted, fast_mode=True)


def test_other_domains_precision_and_copies():
    f, L = Brusselator(cotangent_laplacian(icosphere(0)), (learned(1.0), 8.0)), cotangent_laplacian(icosphere(1))
    x = (random(42, 1), random(42, 1, seed=1))
    moved, fresh = f.on(icosphere(1)), Brusselator(L)
    assert {id(p) for p in moved.parameters()} == {id(p) for p in f.parameters()}
    for a, b in zip(moved(0.0, x), fresh(0.0, x), strict=True):
        assert float((a - b).detach().abs().max()) < 1e-12
    for twin in (copy.deepcopy(moved), pickle.loads(pickle.dumps(FisherKPP(L)))):
        assert sum(p.numel() for p in twin.parameters()) in (0, 2)
    single = copy.deepcopy(fresh).to(torch.float32)
    assert [u.dtype for u in single(0.0, tuple(u.float() for u in x))] == [torch.float32] * 2
