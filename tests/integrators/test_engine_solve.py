"""One solve by torchdiffeq: jumps, what is rescued from a failure, and what torchdiffeq would get wrong at its steps."""

import math

import pytest
import torch

from integrators import engine
from integrators.integrate import integrate
from integrators.solution import SolveError, Status

X0 = torch.tensor([[0.3], [0.5], [0.8]], dtype=torch.float64)
TIGHT = {"rtol": 1e-8, "atol": 1e-10}
SOLVERS = [engine.Dopri5(**TIGHT), engine.Dopri8(**TIGHT), engine.Bosh3(1e-6, 1e-8), engine.RK4(0.02), engine.ImplicitAdams(0.01)]
SOLVERS += [engine.Heun2(0.02), engine.SciPy(**TIGHT)]
solvers = pytest.mark.parametrize("solver", SOLVERS, ids=lambda s: type(s).__name__)


@solvers
@pytest.mark.parametrize("late", [0.0, 1e6])
@pytest.mark.parametrize("backwards", [False, True])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_f_is_never_asked_beyond_a_jump(solver, late, backwards, dtype):
    """1, then −2, then 3; with the jumps named every method is exact. torchdiffeq's own perturbation is lost at late times."""
    if dtype is torch.float32 and hasattr(solver, "rtol") and not isinstance(solver, engine.ImplicitAdams):
        solver = type(solver)(1e-5, 1e-6)

    def f(s, x):
        s = s - late
        return torch.where(s < 0.3, 1.0, torch.where(s < 0.7, -2.0, 3.0)).to(x) * torch.ones_like(x)

    def exact(s):
        return X0 + min(s, 0.3) - 2 * max(0.0, min(s, 0.7) - 0.3) + 3 * max(0.0, s - 0.7)

    t = [0.0, 0.3, 0.31, 1.0]
    t = t[::-1] if backwards else t
    jumps = [late + 0.3, late + 0.7]
    x = integrate(f, exact(t[0]).to(dtype), [late + s for s in t], solver, jumps=jumps).x
    allowed = 1e-5 if dtype is torch.float32 else 1e-8 if late else 1e-9
    assert float((x.double() - torch.stack([exact(s) for s in t])).abs().max()) <= allowed


@pytest.mark.parametrize("kind", [engine.Dopri8, engine.Bosh3, engine.AdaptiveHeun])
def test_a_first_step_that_ends_at_an_output_does_not_spoil_the_others(kind):
    """torchdiffeq forgets all later step_t once a step ends at one by itself, and interpolates coarsely from then on."""
    t = [0.0, 0.125, 0.2, 0.27, 0.33, 0.7, 1.0]
    f = lambda t, x: torch.cos(3 * t) * torch.ones_like(x)  # noqa: E731
    x = integrate(f, 0 * X0, t, kind(1e-5, 1e-7, first_step=0.125)).x
    exact = torch.tensor([math.sin(3 * s) / 3 for s in t], dtype=torch.float64)[:, None, None]
    assert float((x - exact).abs().max()) <= 5e-5


@solvers
def test_a_failure_keeps_the_outputs_before_it(solver):
    t = [0.0, 0.1, 0.2, 0.4, 0.8]

    def f(s, x):
        if s > 0.5:
            raise SolveError("enough", Status.BUDGET)
        return -x

    kept = integrate(f, X0, t, solver, throw=False)
    assert kept.status is Status.BUDGET
    if not isinstance(solver, engine.SciPy):  # which shows no steps
        assert len(kept.t) >= (1 if isinstance(solver, engine.ImplicitAdams) else 2)
    exact = X0 * torch.exp(-kept.t)[:, None, None]
    assert torch.allclose(kept.x, exact, rtol=1e-4)


def test_an_interrupt_keeps_the_outputs_before_it():
    def f(s, x):
        if s > 0.5:
            raise KeyboardInterrupt
        return -x

    kept = integrate(f, X0, [0.0, 0.2, 0.4, 0.8], engine.RK4(0.05), throw=False)
    assert kept.status is Status.INTERRUPTED
    assert kept.t.tolist() == [0.0, 0.2, 0.4]


def test_what_is_not_finite_beyond_a_boundary_only_shortens_the_step():
    """torchdiffeq dies of the first NaN, even one that a shorter step would not meet."""
    f = lambda t, x: -torch.sqrt(x)  # noqa: E731 — (1 − t/2)²; a long step makes x negative
    solution = integrate(f, torch.ones(1, dtype=torch.float64), [0.0, 1.9], engine.Dopri5(1e-6, 1e-8, first_step=1.9))
    assert float(solution.final) == pytest.approx(0.05**2, rel=1e-3)
    assert solution.stats.rejected > 0


def test_a_state_that_is_not_finite_names_step_and_time():
    with pytest.raises(SolveError, match=r"step 1, at t = 1e\+10, gave a state whose norm is not finite.*smaller step_size"):
        integrate(lambda t, x: x * 1e300, X0, [0.0, 1e10], engine.Euler(1e10))


@pytest.mark.parametrize("solver", [s for s in SOLVERS if not isinstance(s, engine.SciPy)], ids=lambda s: type(s).__name__)
@pytest.mark.parametrize("t", [[0.0, 0.5, 1.0], [1.0, 0.5, 0.0]], ids=["forward", "reverse"])
def test_statistics_and_history(solver, t):
    calls = 0

    def f(s, x):
        nonlocal calls
        calls += 1
        return -x

    with torch.no_grad():
        stats = integrate(f, X0, t, solver, history=True).stats
    assert stats.nfe == calls
    assert stats.accepted == len(stats.history) > 0
    assert stats.history[0][0] == t[0]
    covered = sum(h for _, h in stats.history)
    # torchdiffeq's dopri5 steps beyond the end and interpolates.
    assert covered == pytest.approx(t[-1] - t[0], rel=0.2 if isinstance(solver, engine.Dopri5) else 1e-9)
    with pytest.raises(SolveError, match="limit of 3 steps") as caught:
        integrate(lambda s, x: -torch.sin(40 * s) * x, X0, t, solver, max_steps=3)
    assert caught.value.solution.stats.accepted == 3


def test_a_time_gradient_over_a_crumb_of_a_step():
    """Where the steps leave a last one of 1e-17, torchdiffeq's gradient in the time is anything."""
    f = lambda t, x: torch.cos(3 * t) * x  # noqa: E731
    for first in (0.3, 0.3 - 1e-16, 0.3 * (1 - 1e-12)):
        t = torch.tensor([0.0, 0.3], dtype=torch.float64, requires_grad=True)
        x = integrate(f, X0, t, engine.Dopri8(1e-4, 1e-5, first_step=first)).final.sum()
        (found,) = torch.autograd.grad(x, t)
        exact = float(X0.sum()) * math.exp(math.sin(0.9) / 3) * torch.tensor([-1.0, math.cos(0.9)])
        assert torch.allclose(found, exact.double(), atol=1e-3)
