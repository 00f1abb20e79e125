"""Splitting: orders 2, 4, 6, exact where parts commute, what every flow keeps is kept, and no diffusion backwards."""

import itertools
import math

import pytest
import torch
from torch.autograd import gradcheck, gradgradcheck

from integrators import RK4, Checkpointed, Direct, Exponential, SolveError, integrate
from integrators.implicit_midpoint import ImplicitMidpoint
from integrators.rkl2 import RKL2
from integrators.splitting import Strang, YoshidaSplitting, strang

U = torch.finfo(torch.float64).eps / 2


def noise(*shape, seed=0, dtype=torch.float64):
    return torch.randn(*shape, dtype=dtype, generator=torch.Generator().manual_seed(seed))


def ring(n):
    """The Laplacian of a ring."""
    eye = torch.eye(n, dtype=torch.float64)
    return 2 * eye - torch.roll(eye, 1, 0) - torch.roll(eye, -1, 0)


class Sum:
    """f₁ + f₂ + ..., as a sum of right-hand sides shows itself."""

    def __init__(self, *summands):
        self.summands = list(summands)

    def __call__(self, t, x):
        slopes = [term(t, x) for term in self.summands]
        if isinstance(x, tuple):
            return tuple(sum(parts) for parts in zip(*slopes, strict=True))
        return sum(slopes)


@pytest.fixture
def schroedinger(linear):
    """i u' = L u − cos(t)|u|² u on a ring: two unitary parts, one of them not autonomous."""

    class Schroedinger:
        def __init__(self, n):
            self.linear = linear(-1j * ring(n).to(torch.complex128))

        def nonlinear(self, t, x):
            return 1j * torch.cos(t) * x.abs() ** 2 * x

        def __call__(self, t, x):
            return self.linear @ x + self.nonlinear(t, x)

    return Schroedinger(8)


def phase(t, h, x):
    """The exact flow of u' = i cos(t) |u|² u."""
    return x * torch.exp(1j * (torch.sin(t + h) - torch.sin(t)) * x.abs() ** 2)


def solvers(dt):
    flows = (Exponential(), phase)
    return [Strang(dt, flows=flows), YoshidaSplitting(dt, flows=flows), YoshidaSplitting(dt, flows=flows, order=6)]


@pytest.mark.parametrize("t", [[0.0, 1.0], [0.0, -0.5, -1.0]], ids=["forwards", "backwards"])
@pytest.mark.parametrize("which", [0, 1, 2], ids=["Strang", "order 4", "order 6"])
def test_order(which, t, schroedinger, observed_order):
    x = noise(8, 1, dtype=torch.complex128)
    exact = integrate(schroedinger, x, t, solvers(1 / 100)[2]).final
    steps = (4, 5, 6) if which < 2 else (3, 4, 5)
    errors = [float((integrate(schroedinger, x, t, solvers(2.0**-k)[which]).final - exact).abs().max()) for k in steps]
    order = solvers(1.0)[which].order
    assert order == (2, 4, 6)[which]
    assert abs(observed_order(errors) - order) <= 0.1


@pytest.mark.parametrize("which", [0, 1, 2], ids=["Strang", "order 4", "order 6"])
def test_the_norm_is_kept_and_time_reversed(which, schroedinger):
    x, k, h = noise(8, 1, dtype=torch.complex128), 50, 0.1
    solver = solvers(h)[which]
    there = integrate(schroedinger, x, [0.0, k * h], solver).final
    flows = k * len(solver.fractions(2))
    assert abs(float(there.norm() / x.norm()) - 1) <= 16 * U * flows
    back = integrate(schroedinger, there, [k * h, 0.0], solver).final
    assert float((back - x).abs().max()) <= 16 * U * flows * 4


def test_reversible_where_every_flow_is():
    def flow(t, h, x):
        return x

    assert not Strang(0.1, flows=(ImplicitMidpoint(dt=1.0), flow)).reversible
    flow.reversible = True
    assert Strang(0.1, flows=(ImplicitMidpoint(dt=1.0), flow)).reversible
    assert YoshidaSplitting(0.1, flows=(ImplicitMidpoint(dt=1.0), flow)).reversible
    assert not Strang(0.1, flows=(ImplicitMidpoint(dt=1.0), RK4(dt=1.0))).reversible


@pytest.mark.parametrize("method", [Strang, YoshidaSplitting])
def test_exact_where_the_parts_commute(method, linear):
    """One step over any length, for rotations of one plane at a time."""
    blocks = torch.zeros(2, 4, 4, dtype=torch.float64)
    blocks[0, 0, 1], blocks[0, 1, 0], blocks[1, 2, 3], blocks[1, 3, 2] = 1, -1, 3, -3
    f = Sum(linear(blocks[0]), linear(blocks[1]))
    x = noise(4, 1)
    y = integrate(f, x, [0.0, 2.5], method(math.inf, flows=(Exponential(), Exponential()))).final
    assert torch.allclose(y, torch.linalg.matrix_exp(2.5 * blocks.sum(0)) @ x, rtol=0, atol=1e-13)


def test_three_parts(linear, observed_order):
    G = [0.7 * noise(3, 3, seed=k) for k in range(3)]
    f, x = Sum(*map(linear, G)), noise(3, 1)
    exact = torch.linalg.matrix_exp(sum(G)) @ x
    flows = (Exponential(), RK4(dt=math.inf), lambda t, h, x: torch.linalg.matrix_exp(h * G[2]) @ x)
    errors = [float((integrate(f, x, [0.0, 1.0], Strang(2.0**-k, flows=flows)).final - exact).abs().max()) for k in (4, 5, 6)]
    assert abs(observed_order(errors) - 2) <= 0.1


def test_the_fractions():
    assert strang(2) == [(0, 0.5), (1, 1.0), (0, 0.5)]
    assert strang(3) == [(0, 0.5), (1, 0.5), (2, 1.0), (1, 0.5), (0, 0.5)]
    for order, parts in itertools.product((4, 6), (2, 3)):
        flows = (RK4(dt=1.0),) * parts
        fractions = YoshidaSplitting(0.1, flows=flows, order=order).fractions(parts)
        assert all(a != b for (a, _), (b, _) in itertools.pairwise(fractions))
        assert [k for k, _ in fractions] == [k for k, _ in fractions][::-1]
        for part in range(parts):
            assert sum(w for k, w in fractions if k == part) == pytest.approx(1, abs=1e-14)


def test_diffusion_with_reaction(linear, observed_order):
    """Stiff diffusion by RKL2, logistic growth by its exact flow; positive, and with every partial step forwards."""
    L = 100 * ring(12)

    def logistic(t, x):
        return 2 * x * (1 - x)

    def growth(t, h, x):
        return x / (x + (1 - x) * torch.exp(-2 * h))

    f = Sum(lambda t, x: -(L @ x), logistic)
    x = torch.rand(12, 1, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    exact = integrate(f, x, [0.0, 0.5], RKL2(rtol=1e-9, atol=1e-11)).final
    errors = []
    for k in (5, 6, 7):
        y = integrate(f, x, [0.0, 0.5], Strang(2.0**-k, flows=(growth_flow := growth, RKL2())[::-1])).final
        assert float(y.min()) > 0
        errors.append(float((y - exact).abs().max()))
    assert errors[-1] <= 1e-3
    assert growth_flow is growth


def test_a_flow_keeps_to_steps_of_its_own():
    """RK4(dt=0.05) under partial steps of 0.1 and 0.2 takes 2 and 4 of them."""
    calls = [0, 0]

    def part(k):
        def f(t, x):
            calls[k] += 1
            return -x

        return f

    f = Sum(part(0), part(1))
    stats = integrate(f, noise(3, 1), [0.0, 0.2], Strang(0.2, flows=(RK4(dt=0.05), RK4(dt=0.05)), gradient=Direct())).stats
    checks = 2
    assert [n - checks for n in calls] == [16, 16]
    assert stats.nfe == 32


def test_each_part_has_its_own_clock():
    """x' = cos(3t) + sin(5t): both quadratures are done exactly, whatever the order in which they are taken."""
    parts = (lambda t, x: torch.cos(3 * t) + 0 * x, lambda t, x: torch.sin(5 * t) + 0 * x)
    flows = (lambda t, h, x: x + (torch.sin(3 * (t + h)) - torch.sin(3 * t)) / 3,
             lambda t, h, x: x - (torch.cos(5 * (t + h)) - torch.cos(5 * t)) / 5)  # fmt: skip
    for method in (Strang, YoshidaSplitting):
        y = integrate(Sum(*parts), torch.zeros(1, 1, dtype=torch.float64), [0.0, 1.0], method(0.3, flows=flows)).final
        assert float(y) == pytest.approx(math.sin(3) / 3 + (1 - math.cos(5)) / 5, abs=1e-13)


# -- Refusals

ROTATION = torch.tensor([[0.0, 1.0], [-1.0, 0.0]], dtype=torch.float64)


def rotate(t, x):
    return ROTATION @ x


@pytest.mark.parametrize("order", [4, 6])
def test_no_diffusion_backwards(order):
    flows = (RK4(dt=math.inf), RK4(dt=math.inf))
    stiff = Sum(rotate, lambda t, x: -100 * x)
    with pytest.raises(ValueError, match=r"takes steps backwards.*part 2 of Sum damps its fastest mode.*use Strang"):
        integrate(stiff, noise(2, 1), [0.0, 1.0], YoshidaSplitting(0.1, flows=flows, order=order))

    def damped(t, x):
        return -0.01 * x

    damped.dissipative = True
    with pytest.raises(ValueError, match="function is dissipative: use Strang"):
        integrate(Sum(rotate, damped), noise(2, 1), [0.0, 1.0], YoshidaSplitting(0.1, flows=flows, order=order))
    integrate(Sum(rotate, damped), noise(2, 1), [0.0, 1.0], Strang(0.1, flows=flows))
    mild = Sum(rotate, lambda t, x: -0.01 * x)
    integrate(mild, noise(2, 1), [0.0, 1.0], YoshidaSplitting(0.1, flows=flows, order=order))


def test_right_hand_sides_without_parts():
    with pytest.raises(TypeError, match="Strang needs the parts of f, and function shows none"):
        integrate(rotate, noise(2, 1), [0.0, 1.0], Strang(0.1, flows=(RK4(dt=1.0), RK4(dt=1.0))))
    with pytest.raises(TypeError, match="Strang got 3 flows for the 2 parts of Sum"):
        integrate(Sum(rotate, rotate), noise(2, 1), [0.0, 1.0], Strang(0.1, flows=(RK4(dt=1.0),) * 3))


def test_parts_that_do_not_add_up(linear):
    class Wrong(Sum):
        def __call__(self, t, x):
            return 2 * super().__call__(t, x)

    with pytest.raises(ValueError, match="the parts of Wrong do not add up"):
        integrate(Wrong(rotate, rotate), noise(2, 1), [0.0, 1.0], Strang(0.1, flows=(RK4(dt=1.0), RK4(dt=1.0))))


def test_bad_arguments():
    for flows in ((RK4(dt=1.0),), [RK4(dt=1.0)] * 2, (RK4(dt=1.0), "RK4")):
        with pytest.raises(TypeError, match="flows must be a tuple of two or more"):
            Strang(0.1, flows=flows)
    with pytest.raises(ValueError, match="order must be 4 or 6, not 2"):
        YoshidaSplitting(0.1, flows=(RK4(dt=1.0), RK4(dt=1.0)), order=2)
    with pytest.raises(ValueError, match="dt must be positive"):
        Strang(0.0, flows=(RK4(dt=1.0), RK4(dt=1.0)))


def test_flows_that_go_wrong():
    f = Sum(rotate, rotate)
    with pytest.raises(ValueError, match=r"flow 2 does not give.*returns \(\) torch.float64 for a state of \(2, 1\)"):
        integrate(f, noise(2, 1), [0.0, 1.0], Strang(0.1, flows=(RK4(dt=1.0), lambda t, h, x: x.sum())))
    with pytest.raises(SolveError, match="diverged"):
        integrate(f, noise(2, 1), [0.0, 1.0], Strang(0.1, flows=(RK4(dt=1.0), lambda t, h, x: x / 0)))
    with pytest.raises(TypeError, match="Exponential needs a linear part"):
        integrate(f, noise(2, 1), [0.0, 1.0], Strang(0.1, flows=(RK4(dt=1.0), Exponential())))


# -- Tuples, precision, gradients


def test_tuples_and_single_precision():
    """The pendulum by kicks and drifts is Störmer–Verlet."""
    kick = lambda t, x: (0 * x[0], -torch.sin(x[0]))  # noqa: E731
    drift = lambda t, x: (x[1], 0 * x[1])  # noqa: E731
    flows = (lambda t, h, x: (x[0], x[1] - h * torch.sin(x[0])), lambda t, h, x: (x[0] + h * x[1], x[1]))
    for dtype in (torch.float32, torch.float64):
        x = (torch.full((2, 1), 1.2, dtype=dtype), torch.full((2, 1), 0.3, dtype=dtype))
        q, p = integrate(Sum(kick, drift), x, [0.0, 0.1], Strang(0.1, flows=flows)).final
        half = x[1] - 0.05 * torch.sin(x[0])
        assert q.dtype == dtype
        assert torch.allclose(q, x[0] + 0.1 * half, rtol=8 * torch.finfo(dtype).eps)
        assert torch.allclose(p, half - 0.05 * torch.sin(q), rtol=8 * torch.finfo(dtype).eps)


def leaf(value):
    return torch.as_tensor(value, dtype=torch.float64).clone().requires_grad_()


@pytest.mark.parametrize("gradient", [Direct(), Checkpointed(), Checkpointed(snapshots=2)], ids=str)
@pytest.mark.parametrize("method", [Strang, YoshidaSplitting])
def test_gradcheck(method, gradient, linear):
    def final(x, a, t):
        G = torch.tensor([[0.0, 1.0], [-1.0, 0.0]], dtype=torch.float64) * a
        f = Sum(linear(G), lambda s, x: torch.sin(a * s) * x**2)
        solver = method(0.35, flows=(Exponential(), RK4(dt=math.inf)), gradient=gradient)
        return integrate(f, x, t, solver).x

    assert gradcheck(final, (leaf([[0.3], [0.5]]), leaf(0.7), leaf([0.0, 0.4, 1.0])), atol=1e-5, rtol=1e-3)


@pytest.mark.parametrize("gradient", [Direct(), Checkpointed()], ids=str)
def test_second_derivatives(gradient, linear):
    def final(x, a):
        f = Sum(linear(ROTATION * a), lambda s, x: a * x**2)
        return integrate(f, x, [0.0, 0.4], Strang(0.35, flows=(ImplicitMidpoint(dt=1.0), RK4(dt=1.0)), gradient=gradient)).final

    assert gradgradcheck(final, (leaf([[0.3], [0.5]]), leaf(0.7)), atol=1e-5, rtol=1e-3)


def test_a_flow_with_a_tensor_that_f_does_not_hold_is_refused():
    a = leaf(0.7)
    f = Sum(rotate, lambda t, x: -x)
    x = noise(2, 1).requires_grad_()
    y = integrate(f, x, [0.0, 1.0], Strang(0.5, flows=(RK4(dt=1.0), lambda t, h, x: x * torch.exp(-h * a)))).final
    with pytest.raises(RuntimeError, match="gradient would be lost"):
        y.sum().backward()
