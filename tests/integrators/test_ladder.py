"""The ladder of step lengths: few lengths, few factors, and outputs that change neither."""

import math
from dataclasses import replace

import pytest
import torch

from integrators.gradients import Direct
from integrators.integrate import integrate
from integrators.ladder import same
from integrators.newton_krylov import NewtonKrylov
from integrators.radau import RadauIIA5
from integrators.sdirk2 import SDIRK2
from integrators.sdirk3 import SDIRK3
from integrators.solution import SolveError

methods = pytest.mark.parametrize("method", [SDIRK2, SDIRK3, RadauIIA5])
DECAY = -torch.logspace(0, 4.6, 30, dtype=torch.float64)[:, None]


class Diagonal:
    """dx/dt = λ x for many λ at once; notes the shifts it is asked to solve with."""

    linear = property(lambda self: self)

    def __init__(self, rates=DECAY):
        self.rates = rates
        self.shifts = []

    def __call__(self, t, x):
        return self.rates * x

    def __matmul__(self, x):
        return self.rates * x

    def norm_bound(self):
        return float(self.rates.abs().max())

    def solve(self, s, b):
        self.shifts.append(complex(s))
        return b / (1 - s * self.rates)


ROUGH = torch.ones_like(DECAY)
SMOOTH = (DECAY / 30).exp()


@methods
@pytest.mark.parametrize("start", [ROUGH, SMOOTH], ids=["rough", "smooth"])
@pytest.mark.parametrize("t", [[0.0, 0.01, 0.3, 1.0], [2.0, 2.7]], ids=["from 0", "elsewhere"])
def test_steps_lie_on_the_dyadic_grid(method, start, t):
    f = Diagonal()
    solution = integrate(f, start, t, method(1e-4, 1e-4, gradient=Direct()), history=True)
    span = t[-1] - t[0]
    for s, h in solution.stats.history:
        assert math.log2(span / h) == pytest.approx(round(math.log2(span / h)), abs=1e-9)
        assert (s - t[0]) / h == pytest.approx(round((s - t[0]) / h), abs=1e-6)
    assert sum(h for _, h in solution.stats.history) == pytest.approx(span, rel=1e-12)
    # Each length is one factor, or two where a complex one is needed too; round-off makes none.
    lengths = {round(math.log2(span / h)) for _, h in solution.stats.history}
    assert len(set(f.shifts)) == solution.stats.factorizations
    assert solution.stats.factorizations <= (2 if method is RadauIIA5 else 1) * (len(lengths) + solution.stats.rejected)
    assert len(lengths) <= (8 if start is SMOOTH else 18)


@methods
@pytest.mark.parametrize("start", [ROUGH, SMOOTH], ids=["rough", "smooth"])
def test_the_error_follows_the_tolerance(method, start):
    t = torch.tensor([0.0, 1e-3, 0.1, 0.37, 1.0], dtype=torch.float64)
    exact = start * (t[:, None, None] * DECAY).exp()
    errors = []
    for rtol in (1e-3, 1e-5) if method is SDIRK2 else (1e-3, 1e-5, 1e-7):
        solution = integrate(Diagonal(), start, t, method(rtol, rtol))
        errors.append(float((solution.x - exact).abs().max()))
        assert errors[-1] <= 20 * rtol
    assert errors[-1] <= errors[0] / 10


@methods
def test_output_times_change_no_step(method):
    solver = method(1e-4, 1e-4)
    few, many = (
        integrate(Diagonal(), SMOOTH, t, solver, history=True) for t in ([0.0, 1.0], torch.linspace(0, 1, 64).double())
    )
    assert few.stats.history == many.stats.history
    assert torch.equal(few.final, many.final)
    assert many.stats.solves == few.stats.solves


@methods
def test_reverse_time(method):
    f = Diagonal(torch.tensor([[1.0], [-0.5]], dtype=torch.float64))
    x0 = torch.ones(2, 1, dtype=torch.float64)
    x = integrate(f, x0, [1.0, 0.4, -1.0], method(1e-5, 1e-5)).x
    assert torch.allclose(x[1:, :, 0], torch.tensor([[-0.6, 0.3], [-2.0, 1.0]], dtype=torch.float64).exp(), atol=1e-3, rtol=1e-3)


@methods
def test_jumps_begin_a_new_ladder(method):
    f = lambda t, x: -x + (t > 0.3).to(x)  # noqa: E731
    x0 = torch.zeros(1, dtype=torch.float64)
    solution = integrate(f, x0, [0.0, 1.0], method(1e-5, 1e-5), jumps=[0.3], history=True)
    assert float(solution.final) == pytest.approx(1 - math.exp(-0.7), abs=1e-4)
    assert any(s == pytest.approx(0.3, abs=1e-12) for s, _ in solution.stats.history)


@methods
def test_nothing_to_factor_means_no_ladder(method):
    f = Diagonal(-torch.ones(1, 1, dtype=torch.float64))
    with_factors, without = (
        integrate(g, torch.ones(1, 1, dtype=torch.float64), [0.0, 1.0], method(1e-6, 1e-6), history=True).stats
        for g in (f, lambda t, x: -x)
    )
    assert without.factorizations == 0
    on_grid = [abs(math.log2(h) - round(math.log2(h))) < 1e-9 for _, h in without.history]
    assert not all(on_grid)
    assert with_factors.factorizations >= 1


def test_a_length_grows_only_on_its_grid_and_where_it_pays():
    fit = lambda h, t, before: SDIRK3().fit(type("F", (), {"factored": True}), h, t, 0.0, 1.0, before)  # noqa: E731
    tiny = 2.0**-10
    assert fit(0.3, 0.0, 0.0) == 0.25
    assert fit(5.0, 0.0, 0.0) == 1.0
    assert fit(4.1 * tiny, 4 * tiny, tiny) == 4 * tiny
    assert fit(4.1 * tiny, 5 * tiny, tiny) == tiny  # Off the grid of four.
    assert fit(2.1 * tiny, 4 * tiny, tiny) == tiny  # It may soon grow again.
    assert fit(2.1 * tiny, 40 * tiny, tiny) == 2 * tiny
    assert fit(4.1 / 32, 28 / 32, 1 / 32) == 1 / 32  # Four steps are cheaper than a factor.
    assert fit(0.9 * tiny, 5 * tiny, tiny) == tiny / 2
    assert fit(tiny, 1 - tiny * (1 + 1e-12), tiny) == pytest.approx(tiny)


def test_a_length_is_kept_where_round_off_alone_differs():
    assert same(0.1 + 1e-17, 0.1) == 0.1
    assert same(0.1000001, 0.1) == 0.1000001
    assert same(0.1, 0.0) == 0.1
    h = torch.tensor(0.3 - 0.2, dtype=torch.float64, requires_grad=True)
    kept = same(h, 0.1)
    assert float(kept.detach()) == 0.1
    kept.backward()
    assert float(h.grad) == 1


@methods
def test_a_stage_without_solution_shortens_an_adaptive_step_and_ends_a_fixed_one(method):
    """x = x₀ + h x² has no real root for h x₀ > 1/4."""
    f = lambda t, x: x * x  # noqa: E731
    x0 = torch.ones(1, 1, dtype=torch.float64)
    solution = integrate(f, x0, [0.0, 0.9], method(1e-5, 1e-5, first_step=0.9))
    assert float(solution.final) == pytest.approx(10, rel=2e-2)
    assert solution.stats.rejected > 0
    with pytest.raises(SolveError, match="Newton's method did not converge at t = "):
        integrate(f, x0, [0.0, 9.0], method(dt=9.0, newton=NewtonKrylov(dense=0)))


@methods
def test_bad_settings_are_refused(method):
    with pytest.raises(ValueError, match="rtol must be positive and finite, not 0"):
        method(rtol=0.0)
    with pytest.raises(ValueError, match="dt must be positive, not 0"):
        replace(method(), dt=0.0)
