"""The best moment of one dense solve: where a score peaks, the earliest among equals, by no second solve."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from integrators import RK4, BackwardEuler, Dopri5, Exponential, PerSample, Solution, integrate
from neuralpde.heat import Heat
from neuralpde.stopping_time import BestTime, best_time
from operators import icosphere, robust_laplacian


def turning(t, x):
    """(cos t, sin t) from (1, 0)."""
    return torch.stack([-x[..., 1], x[..., 0]], dim=-1)


START = torch.tensor([[1.0, 0.0]], dtype=torch.float64)
CIRCLE = integrate(turning, START, [0.0, 3.0], Dopri5(rtol=1e-8, atol=1e-10), dense=True)


def test_the_peak_is_found_at_a_step_or_at_the_times_given():
    evaluations = CIRCLE.stats.nfe
    stop = best_time(CIRCLE, lambda x: x[0, 1])
    # sin t is largest at π/2; a step beside it is no further than the longest step.
    ends = CIRCLE.interpolant.ends
    assert stop.t in ends
    assert stop.t == min([0.0, *ends], key=lambda s: -math.sin(s))
    assert stop.score == pytest.approx(math.sin(stop.t), abs=1e-6)
    fine = best_time(CIRCLE, lambda x: float(x[0, 1]), torch.linspace(0, 3, 301))
    assert fine.t == pytest.approx(math.pi / 2, abs=0.01)
    assert fine.state[0].tolist() == pytest.approx([math.cos(fine.t), math.sin(fine.t)], abs=1e-5)
    t, score, state = fine
    assert isinstance(fine, BestTime)
    assert score == float(state[0, 1])
    assert CIRCLE.at(t).equal(state)
    assert CIRCLE.stats.nfe == evaluations


@given(scores=st.lists(st.integers(-2, 2), min_size=1, max_size=12), backward=st.booleans())
def test_the_earliest_of_the_largest(scores, backward):
    sign = -1.0 if backward else 1.0
    t = sign * torch.arange(len(scores), dtype=torch.float64)
    solution = Solution(t, torch.tensor(scores, dtype=torch.float64)[:, None, None])
    stop = best_time(solution, lambda x: x)
    assert abs(stop.t) == scores.index(max(scores))
    assert stop.score == max(scores)
    # In whatever order the times are given.
    assert best_time(solution, lambda x: x, t.flip(0)) == stop


def test_every_step_and_every_output_is_looked_at_once():
    seen = []
    solution = integrate(turning, START, [0.0, 0.25, 1.0], RK4(dt=0.1), dense=True)
    best_time(solution, lambda x: seen.append(math.atan2(float(x[0, 1]), float(x[0, 0]))) or 0.0)
    assert len(seen) == len({round(s, 6) for s in seen})
    assert seen == sorted(seen)
    wanted = {0.0, 0.25, 1.0, *(float(s) for s in solution.interpolant.ends)}
    assert len(seen) == len({round(s, 9) for s in wanted})
    # Of a solver that jumps from output to output, times are asked for.
    heat = Heat(robust_laplacian(icosphere(1)))
    jumped = integrate(heat, torch.ones(42, 1, dtype=torch.float64), [0.0, 1.0], Exponential(), dense=True)
    assert best_time(jumped, lambda x: -((float(x.sum()) - 42) ** 2), [0.0, 0.3, 0.7]).t in {0.0, 0.3, 0.7}


def test_early_stopping_finds_the_clean_field_under_noise():
    """Diffusion takes noise first and the signal later: the best moment is inside, and worse at 3T."""
    mesh = icosphere(2)
    clean = mesh.vertices[:, 2:]
    noisy = clean + 0.3 * torch.randn(162, 1, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    solution = integrate(Heat(robust_laplacian(mesh)), noisy, [0.0, 1.0], Dopri5(), dense=True)
    stop = best_time(solution, lambda x: -(x - clean).square().mean())
    assert 0.01 < stop.t < 0.3
    assert -stop.score < 0.3 * float((noisy - clean).square().mean())
    assert -stop.score < 0.3 * float((solution.final - clean).square().mean())


def test_tuples_gradients_and_other_dense_outputs():
    x = START.clone().requires_grad_()
    pair = integrate(lambda t, s: (turning(t, s[0]), -s[1]), (x, START), [0.0, 2.0], Dopri5(), dense=True)
    stop = best_time(pair, lambda s: s[0][0, 1])
    assert isinstance(stop.state, tuple)
    (gradient,) = torch.autograd.grad(stop.state[0][0, 1], x)
    assert gradient[0, 0] == pytest.approx(math.sin(stop.t), abs=1e-3)
    assert best_time(pair, lambda s: -float(s[1].sum())).t == 2.0
    each = integrate(turning, START.expand(2, 1, 2), [0.0, 2.0], PerSample(Dopri5()), dense=True)
    assert best_time(each, lambda x: x[0, 0, 1], [0.5, 1.5]).t == 1.5
    ones = torch.ones(12, 1, dtype=torch.float64)
    implicit = integrate(Heat(robust_laplacian(icosphere(0))), ones, [0.0, 1.0], BackwardEuler(dt=0.5), dense=True)
    assert best_time(implicit, lambda x: 1.0).t == 0.0


def test_refusals_name_the_cure():
    plain = integrate(turning, START, [0.0, 1.0], RK4(dt=0.5))
    with pytest.raises(ValueError, match="dense=True"):
        best_time(plain, lambda x: 0.0, [0.5])
    assert best_time(plain, lambda x: x[0, 1]).t == 1.0
    with pytest.raises(ValueError, match="times is empty"):
        best_time(CIRCLE, lambda x: 0.0, [])
    with pytest.raises(ValueError, match="lies outside the solve"):
        best_time(CIRCLE, lambda x: 0.0, [1.0, 4.0])
    with pytest.raises(ValueError, match="score at t = 0 is NaN"):
        best_time(CIRCLE, lambda x: math.nan)
    with pytest.raises(ValueError, match="score must give one number"):
        best_time(CIRCLE, lambda x: x)
