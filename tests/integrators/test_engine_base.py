"""The typed options of torchdiffeq's methods: each reaches torchdiffeq and does what it says, and bad ones are refused."""

import math
from dataclasses import replace

import pytest
import torch

from integrators import engine
from integrators.adjoint import Adjoint
from integrators.checkpointed import Checkpointed
from integrators.engine_base import AdaptiveEngine, Engine, GridEngine, Interpolation
from integrators.gradients import Direct
from integrators.integrate import integrate
from integrators.norms import RMSNorm, RowNorm
from integrators.solution import SolveError, Status

X0 = torch.tensor([[0.3], [0.5], [0.8]], dtype=torch.float64)


def wave(t, x):
    return torch.cos(9 * t) * x


def steps(solver, f=wave, t=(0.0, 2.0)):
    return [h for _, h in integrate(f, X0, t, solver, history=True).stats.history]


def test_the_kinds_are_abstract():
    for kind in (Engine, AdaptiveEngine):
        with pytest.raises((TypeError, AttributeError)):
            integrate(wave, X0, [0.0, 1.0], kind())
    with pytest.raises(AttributeError):
        integrate(wave, X0, [0.0, 1.0], GridEngine(0.1))


def test_gradients_are_direct_or_adjoint():
    """Checkpointing repeats single steps, which torchdiffeq does not offer."""
    assert engine.Dopri5().gradient == Direct()
    assert engine.Dopri5(gradient=Adjoint()).gradient == Adjoint()
    for wrong in (Checkpointed(), "adjoint", None):
        with pytest.raises(TypeError, match=r"Direct\(\) or Adjoint\(\) for a method of torchdiffeq.*integrators.Dopri5"):
            engine.RK4(0.1, gradient=wrong)


def test_fields_replace_and_compare():
    solver = engine.Dopri8(1e-6, 1e-8, max_step=0.1)
    assert replace(solver, gradient=Adjoint()) == engine.Dopri8(1e-6, 1e-8, max_step=0.1, gradient=Adjoint())
    assert engine.Dopri5() != engine.Bosh3()


def test_the_first_and_the_longest_step():
    assert steps(engine.Dopri5(first_step=0.01))[0] == pytest.approx(0.01)
    assert max(steps(engine.Dopri5(1e-3, 1e-4, max_step=0.05))) <= 0.05 * (1 + 1e-12)
    assert max(steps(engine.Dopri5(1e-3, 1e-4))) > 0.1


def test_growth_and_safety():
    free, slow = (steps(engine.Dopri5(first_step=1e-5, ifactor=f), t=(0.0, 0.1)) for f in (10.0, 2.0))
    assert free[1] / free[0] == pytest.approx(10)
    assert slow[1] / slow[0] == pytest.approx(2)
    assert len(steps(engine.Dopri5(safety=0.5))) > len(steps(engine.Dopri5()))
    sharp = lambda t, x: torch.exp(-((t - 1) ** 2) * 1e4) * torch.ones_like(x)  # noqa: E731
    given = {"first_step": 0.9, "max_step": 0.2}
    few, many = (integrate(sharp, X0, [0.0, 2.0], engine.Dopri5(**given, dfactor=d)).stats.rejected for d in (0.05, 0.8))
    assert few < many


def test_the_limit_of_steps_tried_is_exact():
    with pytest.raises(SolveError, match=r"its limit of 5 steps: .*raise max_num_steps") as caught:
        integrate(wave, X0, [0.0, 0.001, 2.0], engine.Dopri5(max_num_steps=5))
    stats = caught.value.solution.stats
    assert caught.value.status is Status.STEPS
    assert stats.accepted + stats.rejected == 5
    assert caught.value.solution.t.tolist() == [0.0, 0.001]


def test_the_norm_decides_who_is_heard():
    """One active row among 4,096 idle ones: in the RMS it is hidden, in RowNorm it is not."""
    active = torch.zeros(4096, 1, dtype=torch.float64)
    active[7] = 1
    f = lambda t, x: active * torch.cos(20 * t)  # noqa: E731
    exact = math.sin(40) / 20
    errors = {}
    for norm in (RMSNorm(), RowNorm()):
        x = integrate(f, 0 * active, [0.0, 2.0], engine.Dopri5(1e-5, 1e-5, norm=norm)).final
        errors[type(norm)] = abs(float(x[7]) - exact)
    assert errors[RowNorm] < 5e-5 < errors[RMSNorm]


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"first_step": 0.0}, ValueError, "first_step must be positive and finite"),
        ({"safety": math.nan}, ValueError, "safety must be positive and finite"),
        ({"max_step": -1.0}, ValueError, "max_step must be positive"),
        ({"ifactor": 0.5}, ValueError, "grows by ifactor > 1"),
        ({"dfactor": 1.5}, ValueError, "shrinks by dfactor < 1"),
        ({"max_num_steps": 0}, ValueError, "max_num_steps must be a positive integer"),
        ({"max_num_steps": 2.5}, ValueError, "max_num_steps must be a positive integer"),
        ({"max_nfe": True}, ValueError, "max_nfe must be a positive integer"),
        ({"min_step": 0.1}, ValueError, "min_step is not offered: .*whatever its error"),
    ],
)
def test_bad_options_are_refused(options, error, message):
    with pytest.raises(error, match=message):
        engine.Dopri5(**options)


def test_a_grid_is_even_and_ends_at_every_output():
    lengths = steps(engine.RK4(0.1), t=(0.0, 0.25, 0.3, 1.0))
    assert lengths == pytest.approx([0.25 / 3] * 3 + [0.05] + [0.1] * 7)
    even = steps(engine.RK4(0.1, interp=Interpolation.CUBIC), t=(0.0, 0.25, 0.3, 1.0))
    assert even == pytest.approx([0.1] * 10)
    back = steps(engine.RK4(0.1), t=(1.0, 0.3, 0.0))
    assert back == pytest.approx([-0.1] * 10)
    with pytest.raises(TypeError, match=r"Interpolation.NONE, .CUBIC or .LINEAR, not 'cubic'"):
        engine.RK4(0.1, interp="cubic")
