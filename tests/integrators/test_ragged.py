"""Steps of its own for every sample and segment: each is solved as if it were alone, and no other pays for it."""

import itertools
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from integrators.bosh3 import Bosh3
from integrators.checkpointed import Checkpointed
from integrators.controller import PID
from integrators.dopri5 import Dopri5
from integrators.gradients import Direct
from integrators.integrate import integrate
from integrators.norms import RMSNorm, RowNorm
from integrators.ragged import PerSample, PerSegment
from integrators.solution import SolveError, Status
from integrators.tsit5 import Tsit5

DOUBLE = torch.float64
PAIRS = [Dopri5, Tsit5, Bosh3]
TIMES = [[0.0, 0.3, 1.0, 2.0], [2.0, 1.9, 1.5]]


def rates(n, most=30.0):
    return torch.logspace(-1, math.log10(most), n, dtype=DOUBLE)


def forced(k):
    """x' = −k x + sin(k t): from slow to stiff, and not autonomous."""
    return lambda t, x: -k * x + torch.sin(k * t)


def start(*shape, dtype=DOUBLE):
    return torch.rand(*shape, dtype=dtype, generator=torch.Generator().manual_seed(1))


def distance(a, b):
    pairs = zip(a, b, strict=True) if isinstance(a, tuple) else [(a, b)]
    return max(float((x - y).detach().abs().max()) for x, y in pairs)


@pytest.mark.parametrize("norm", [RowNorm(), RMSNorm()])
@pytest.mark.parametrize("t", TIMES, ids=["forwards", "backwards"])
@pytest.mark.parametrize("pair", PAIRS)
def test_every_sample_is_solved_as_if_alone(pair, t, norm):
    solver, k, x0 = pair(rtol=1e-5, atol=1e-7, norm=norm), rates(5, 10.0), start(5, 3, 2)
    together = integrate(forced(k.reshape(5, 1, 1)), x0, t, PerSample(solver), dense=True)
    samples = together.stats.samples
    for i in range(5):
        alone = integrate(forced(k[i]), x0[i], t, solver, dense=True)
        scale = float(alone.x.abs().max()) * (math.exp(float(k[i]) * 0.5) if t[0] > t[-1] else 1.0)
        assert distance(together.x[:, i], alone.x) <= 1e-13 * max(1.0, scale)
        middle = 0.4 * t[0] + 0.6 * t[1]
        assert distance(together.at(middle)[i], alone.at(middle)) <= 1e-13 * max(1.0, scale)
        assert (samples.accepted[i], samples.rejected[i], samples.t[i]) == (alone.stats.accepted, alone.stats.rejected, t[-1])
    assert together.stats.accepted == sum(samples.accepted)
    assert together.stats.rejected == sum(samples.rejected)
    stages = len(solver.c)
    assert together.stats.nfe == 2 + stages * max(a + r for a, r in zip(samples.accepted, samples.rejected, strict=True))


@pytest.mark.parametrize("norm", [RowNorm(), RMSNorm()])
@pytest.mark.parametrize("order", ["sorted", "mixed"])
def test_every_segment_is_solved_as_if_alone(norm, order):
    sizes = [1, 7, 2, 30]
    batch = torch.arange(4).repeat_interleave(torch.tensor(sizes))
    if order == "mixed":
        batch = batch[torch.randperm(len(batch), generator=torch.Generator().manual_seed(0))]
    k, x0, solver = rates(4), start(len(batch), 2), Tsit5(rtol=1e-6, atol=1e-8, norm=norm)
    together = integrate(forced(k[batch][:, None]), x0, [0.0, 0.4, 2.0], PerSegment(batch, solver))
    for i in range(4):
        alone = integrate(forced(k[i]), x0[batch == i], [0.0, 0.4, 2.0], solver)
        assert distance(together.x[:, batch == i], alone.x) <= 1e-13
        assert together.stats.samples.accepted[i] == alone.stats.accepted
    assert together.stats.samples.accepted[0] < together.stats.samples.accepted[3]


def test_graphs_of_one_big_graph_do_not_wait_for_each_other():
    """Diffusion on paths of different lengths and conductances, with their edges in one list."""
    sizes, speeds = [3, 9, 5], [1.0, 0.2, 40.0]
    edges, batch, weight, offset = [], [], [], 0
    for i, (n, speed) in enumerate(zip(sizes, speeds, strict=True)):
        edges += [(offset + j, offset + j + 1) for j in range(n - 1)]
        weight += [speed] * (n - 1)
        batch += [i] * n
        offset += n
    (source, target), w, batch = torch.tensor(edges).T, torch.tensor(weight, dtype=DOUBLE)[:, None], torch.tensor(batch)

    def heat(t, x):
        flow = w * (x[..., target, :] - x[..., source, :])
        return torch.zeros_like(x).index_add(-2, source, flow).index_add(-2, target, -flow)

    x0 = start(2, len(batch), 3)
    solver = Dopri5(rtol=1e-8, atol=1e-10)
    solution = integrate(heat, x0, [0.0, 1.0], PerSegment(batch, solver))
    G = torch.stack([heat(0.0, e[:, None])[:, 0] for e in torch.eye(len(batch), dtype=DOUBLE)], dim=1)
    assert distance(solution.final, torch.linalg.matrix_exp(G) @ x0) <= 1e-7
    steps = solution.stats.samples.accepted
    assert steps[2] > 3 * max(steps[0], steps[1])
    for i in range(3):
        assert distance(solution.final[:, batch == i].mean(1), x0[:, batch == i].mean(1)) <= 1e-14


@pytest.mark.parametrize("idle", [63, 4095])
def test_one_active_sample_among_thousands_of_idle_ones(idle):
    """Acceptance 4 of the integrators: an error within 2× of the sample alone."""
    speed = torch.zeros(idle + 1, 1, dtype=DOUBLE)
    where = idle // 3
    speed[where] = 1.0

    def oscillate(t, x):
        return speed * torch.stack((x[..., 1], -x[..., 0]), dim=-1) * (1 + t)

    x0 = torch.tensor([1.0, 0.0], dtype=DOUBLE).expand(idle + 1, 2).clone()
    solver = Dopri5(rtol=1e-6, atol=1e-8, norm=RMSNorm())  # The norm that hides it in a batch.
    exact = torch.tensor([math.cos(12.0), -math.sin(12.0)], dtype=DOUBLE)
    alone = integrate(lambda t, x: (1 + t) * torch.stack((x[1], -x[0])), x0[0], [0.0, 4.0], solver)
    together = integrate(oscillate, x0, [0.0, 4.0], PerSample(solver))
    hidden = integrate(oscillate, x0, [0.0, 4.0], solver)
    error = distance(together.final[where], exact)
    assert error <= 2 * distance(alone.final, exact)
    assert distance(hidden.final[where], exact) > 5 * error
    assert torch.equal(torch.cat((together.final[:where], together.final[where + 1 :])), x0[1:])
    assert together.stats.nfe <= alone.stats.nfe + 6
    assert together.stats.samples.accepted[where] == alone.stats.accepted


def test_a_finished_sample_stays_exactly_where_it_is():
    """f is NaN beyond the end, and asked there by none."""
    k = torch.tensor([0.0, 1.0, 200.0], dtype=DOUBLE).reshape(3, 1)
    seen = []

    def f(t, x):
        seen.append((t.detach().clone(), x.detach().clone()))
        return -k * (x - torch.cos(t)) + (1.0 - t).sqrt()

    solution = integrate(f, start(3, 2), [0.0, 1.0], PerSample(Bosh3(rtol=1e-4, atol=1e-6)))
    assert bool(torch.isfinite(solution.x).all())
    for i in (0, 1):
        after = [x[i] for t, x in seen if float(t[i]) == 1.0]
        assert len(after) > 50
        assert sum(not torch.equal(x, solution.final[i]) for x in after) <= 5  # The stages of its own last attempts.


@pytest.mark.parametrize("make", [lambda b: PerSample(Tsit5(rtol=1e-7)), lambda b: PerSegment(b, Tsit5(rtol=1e-7))])
def test_permuting_the_groups_permutes_the_solution_bit_by_bit(make):
    n = 37
    k, x0, batch = rates(n), start(n, 4), torch.arange(n)
    p = torch.randperm(n, generator=torch.Generator().manual_seed(3))
    solution, permuted = (
        integrate(forced(k[q][:, None]), x0[q], [0.0, 0.7, 1.0], make(batch)) for q in (batch, p)
    )
    assert torch.equal(solution.x[:, p], permuted.x)
    assert [solution.stats.samples.accepted[i] for i in p.tolist()] == permuted.stats.samples.accepted


def test_permuting_the_segments_permutes_the_solution_bit_by_bit():
    batch = torch.tensor([2, 0, 0, 1, 2, 0, 1, 3])
    k, x0 = rates(4), start(8, 3)
    p = torch.tensor([3, 1, 0, 2])
    for norm in (RowNorm(), RMSNorm()):
        one = integrate(forced(k[batch][:, None]), x0, [0.0, 1.0], PerSegment(batch, Dopri5(norm=norm)))
        other = integrate(forced(k[batch][:, None]), x0, [0.0, 1.0], PerSegment(p[batch], Dopri5(norm=norm)))
        assert torch.equal(one.x, other.x)


@pytest.mark.parametrize("dtype", [torch.float32, torch.complex64, torch.complex128])
@pytest.mark.parametrize("batch", [None, torch.tensor([0, 1, 1, 2, 2, 2])])
def test_precisions_and_complex_states(dtype, batch):
    n = 3 if batch is None else len(batch)
    k = rates(n, 8.0)[:, None].to(dtype) * (1 + (1j if dtype.is_complex else 0))
    x0 = start(n, 2, dtype=dtype)
    pair = Tsit5(rtol=1e-5, atol=1e-7)
    solution = integrate(lambda t, x: -k * x, x0, [0.0, 0.5, 1.0], PerSample(pair) if batch is None else PerSegment(batch, pair))
    assert solution.x.dtype == dtype
    assert distance(solution.final, torch.exp(-k) * x0) <= 2e-4 * (1 if dtype.itemsize > 8 else 2)


def test_tuples_whose_parts_may_differ_in_size():
    k = rates(4, 5.0).reshape(4, 1)

    def f(t, x):
        u, v = x
        return k * v[:, :1] * torch.ones_like(u), torch.stack((-k[:, 0] * u[:, 0], 0 * k[:, 0]), -1)

    x0 = (torch.ones(4, 1, dtype=DOUBLE), torch.zeros(4, 2, dtype=DOUBLE))
    u, v = integrate(f, x0, [0.0, 1.0], PerSample(Dopri5(rtol=1e-8, atol=1e-8))).final
    assert distance((u, v), (torch.cos(k), torch.cat((-torch.sin(k), 0 * k), 1))) <= 1e-6


def test_samples_that_are_numbers():
    k = rates(5, 3.0)
    x = integrate(lambda t, x: -k * x, torch.ones(5, dtype=DOUBLE), [0.0, 1.0], PerSample(Dopri5(rtol=1e-8))).final
    assert distance(x, torch.exp(-k)) <= 1e-7


@pytest.mark.parametrize("t", [[0.1, 0.5, 0.8, 1.0], [1.0, 0.7, 0.1]])
@pytest.mark.parametrize("left", [True, False])
def test_every_sample_meets_a_jump(t, left):
    """f jumps at 0.5 and 0.75, and may take either value there."""
    k = rates(3, 20.0)[:, None]
    before = (lambda t, s: t <= s) if left else (lambda t, s: t < s)

    def f(t, x):
        return torch.where(before(t, 0.5), -k * x, torch.where(before(t, 0.75), 3.0 * k, torch.full_like(k, -1.0)))

    def exact(x, a, b):
        for lo, hi in ((0.1, 0.5), (0.5, 0.75), (0.75, 1.0)) if a < b else ((1.0, 0.75), (0.75, 0.5), (0.5, 0.1)):
            lo, hi = (min(max(s, min(a, b)), max(a, b)) for s in (lo, hi))
            middle = (lo + hi) / 2
            x = x * torch.exp(-k * (hi - lo)) if middle < 0.5 else x + (hi - lo) * (3 * k if middle < 0.75 else -1.0)
        return x

    x0 = start(3, 2)
    solution = integrate(f, x0, t, PerSample(Tsit5(rtol=1e-9, atol=1e-9)), jumps=[0.5, 0.75], dense=True)
    for s, x in zip(t, solution.x, strict=True):
        assert distance(x, exact(x0, t[0], s)) <= 1e-6 * float(x.abs().max())
    for s in (0.5, 0.5001, 0.6, 0.75):
        x = solution.at(s)
        assert distance(x, exact(x0, t[0], s)) <= 1e-6 * float(x.abs().max())
    assert sum(solution.stats.samples.rejected) <= 3 * 3


GRADIENTS = [Direct(), Checkpointed(), Checkpointed(snapshots=2)]


def decay(k):
    return lambda t, x: -k * x * (1 + x * x.conj()) + torch.cos(3 * k.real * t)


@pytest.mark.parametrize("gradient", GRADIENTS, ids=["direct", "checkpointed", "two snapshots"])
@pytest.mark.parametrize("dtype", [DOUBLE, torch.complex128])
@pytest.mark.parametrize("segments", [False, True])
def test_gradients(gradient, dtype, segments):
    # Steps that do not change under differences: fixed by first_step and a tolerance that is always met.
    pair = Dopri5(rtol=10.0, atol=10.0, first_step=0.07, gradient=gradient)
    batch = torch.tensor([0, 1, 1])
    solver = PerSegment(batch, pair) if segments else PerSample(pair)
    x0 = start(3, 2, dtype=dtype).requires_grad_()
    k = torch.tensor([[0.5], [2.0], [4.0]], dtype=DOUBLE, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x0, k: integrate(decay(k), x0, [0.0, 0.15, 0.4], solver).x, (x0, k))


@pytest.mark.parametrize("gradient", [Direct(), Checkpointed()])
@pytest.mark.parametrize("segments", [False, True])
def test_gradients_in_time(gradient, segments):
    """The lengths of steps follow the times a little, and count as constants: exact to the tolerance."""
    pair = Tsit5(rtol=1e-8, atol=1e-8, gradient=gradient)
    solver = PerSegment(torch.tensor([0, 1, 1]), pair) if segments else PerSample(pair)
    t = torch.tensor([0.1, 0.12, 0.2], dtype=DOUBLE, requires_grad=True)
    k, x0 = torch.tensor([[0.5], [2.0], [4.0]], dtype=DOUBLE), start(3, 2, dtype=torch.complex128)
    assert torch.autograd.gradcheck(lambda t: integrate(decay(k), x0, t, solver).x, t, eps=1e-4, atol=1e-5)


@pytest.mark.parametrize("gradient", [Direct(), Checkpointed()])
def test_second_derivatives(gradient):
    pair = Bosh3(rtol=10.0, atol=10.0, first_step=0.1, gradient=gradient)
    x0 = start(2, 2).requires_grad_()
    k = torch.tensor([[0.5], [2.0]], dtype=DOUBLE, requires_grad=True)
    assert torch.autograd.gradgradcheck(lambda x0, k: integrate(decay(k), x0, [0.0, 0.1, 0.2], PerSample(pair)).x, (x0, k))


@pytest.mark.parametrize("jumps", [(), (0.6,)])
@pytest.mark.parametrize("t", [[0.0, 0.3, 1.0], [1.0, 0.8, 0.0]])
def test_checkpointed_is_direct(t, jumps):
    """With rejections, an output in the middle, a jump, and a gradient in t."""
    found = []
    for gradient in GRADIENTS:
        k = rates(4, 6.0)[:, None].clone().requires_grad_()
        x0, times = start(4, 2).requires_grad_(), torch.tensor(t, dtype=DOUBLE, requires_grad=True)

        def f(s, x, k=k):
            return -k * x + torch.where(s < 0.6, torch.exp(torch.sin(20 * s)), torch.cos(s) - 2)

        solution = integrate(f, x0, times, PerSample(Dopri5(rtol=1e-4, atol=1e-6, gradient=gradient)), jumps=jumps)
        loss = (solution.x**2).sum()
        found.append((loss.detach(), *torch.autograd.grad(loss, (x0, k, times))))
        assert solution.stats.rejected > 0
    for other in found[1:]:
        for a, b in zip(found[0], other, strict=True):
            assert distance(a, b) <= 1e-12 * (1 + float(a.abs().max()))


@pytest.mark.parametrize("gradient", [Direct(), Checkpointed()])
@pytest.mark.parametrize("t", [[0.1, 0.5, 0.8, 1.0], [1.0, 0.7, 0.1], [0.1, 0.2, 0.4]])
def test_the_gradient_in_time_where_f_jumps(gradient, t):
    """The jump stays where it is when t[0] moves."""

    def f(s, x):
        return torch.where(s < 0.5, -2.0 * x, 3.0 * torch.ones_like(x))

    def final(t):
        return integrate(f, x0, t, PerSample(Tsit5(rtol=1e-8, atol=1e-8, gradient=gradient)), jumps=[0.5]).final

    x0 = start(2, 2)
    assert torch.autograd.gradcheck(final, torch.tensor(t, dtype=DOUBLE, requires_grad=True), eps=1e-4, atol=1e-5)


@pytest.mark.parametrize("gradient", [Direct(), Checkpointed()])
def test_rejected_trials_leave_no_nan_in_the_gradient(gradient):
    """The first trial of one sample leaves the domain of √ far behind."""
    k = torch.tensor([[1.0], [1e3]], dtype=DOUBLE, requires_grad=True)

    def f(t, x):
        return -k * x.sqrt()

    x0 = torch.ones(2, 1, dtype=DOUBLE, requires_grad=True)
    solver = PerSample(Dopri5(rtol=1e-6, atol=1e-6, first_step=1.8e-3, gradient=gradient))
    solution = integrate(f, x0, [0.0, 1.8e-3], solver)
    assert solution.stats.samples.rejected[1] > 0
    exact = (1 - k.detach() * 1.8e-3 / 2) ** 2
    assert distance(solution.final, exact) <= 1e-5
    (g,) = torch.autograd.grad(solution.final.sum(), k)
    assert distance(g, -(1 - k.detach() * 1.8e-3 / 2) * 1.8e-3) <= 1e-6


def test_a_norm_and_a_controller_of_ones_own():

    class Half(RowNorm):
        def of(self, ratio):
            return super().of(ratio) / 2

    k, x0 = rates(3)[:, None], start(3, 2)
    solver = Dopri5(norm=Half(), controller=PID)
    together = integrate(forced(k), x0, [0.0, 1.0], PerSample(solver))
    for i in range(3):
        alone = integrate(forced(k[i]), x0[i], [0.0, 1.0], solver)
        assert together.stats.samples.accepted[i] == alone.stats.accepted
        assert distance(together.final[i], alone.final) <= 1e-13


def test_history_tells_the_steps_of_each():
    k = rates(3)[:, None]
    solution = integrate(forced(k), start(3, 2), [1.0, 0.2], PerSample(Bosh3(rtol=1e-3)), history=True)
    samples = solution.stats.samples
    assert [len(steps) for steps in samples.history] == samples.accepted
    assert sorted(solution.stats.history) == sorted(step for steps in samples.history for step in steps)
    for steps in samples.history:
        assert steps[0][0] == 1.0
        assert sum(steps[-1]) == pytest.approx(0.2, abs=1e-15)
        for (t, h), (s, _) in itertools.pairwise(steps):
            assert t + h == s


def test_a_single_failure_keeps_what_all_have_reached():
    k = torch.tensor([[1.0], [0.0]], dtype=DOUBLE)
    t = [0.0, 0.4, 0.8, 1.5]
    with pytest.raises(SolveError, match=r"t = 1(\.0*)?, in sample 0, the error stays too large|near|sample 0") as caught:
        integrate(lambda t, x: k * x * x, torch.ones(2, 1, dtype=DOUBLE), t, PerSample(Dopri5()))
    solution = caught.value.solution
    assert solution.status is Status.DIVERGED
    assert solution.t.tolist() == t[:3]
    assert len(solution.x) == 3
    assert distance(solution.x[:, 0, 0], 1 / (1 - torch.tensor(t[:3], dtype=DOUBLE))) <= 1e-3
    assert solution.stats.samples.t[1] == 1.5


def test_limits():
    k, x0 = rates(4)[:, None], start(4, 2)
    few = integrate(forced(k), x0, [0.0, 0.1, 9.0], PerSample(Dopri5()), max_steps=5, throw=False)
    assert few.status is Status.STEPS
    assert max(few.stats.samples.accepted) == 5
    spent = integrate(forced(k), x0, [0.0, 0.1, 9.0], PerSample(Dopri5(max_nfe=50)), throw=False)
    assert spent.status is Status.BUDGET
    assert spent.stats.nfe == 50
    late = integrate(forced(k), x0, [0.0, 9.0], PerSample(Dopri5()), max_seconds=1e-9, throw=False)
    assert late.status is Status.SECONDS


def test_nan_is_named_with_its_sample_and_time():
    def f(t, x):
        return torch.where((t > 0.5) & (torch.arange(3)[:, None] == 1), torch.nan, -x)

    with pytest.raises(SolveError, match=r"at t = 0\.5, in sample 1, .*just beyond the right-hand side is not finite"):
        integrate(f, start(3, 2), [0.0, 1.0], PerSample(Dopri5()))
    with pytest.raises(SolveError, match=r"in sample 1 the right-hand side is not finite at t = 0\.7 \(nan at index \[1, 0\]"):
        integrate(f, start(3, 2), [0.7, 1.0], PerSample(Dopri5()))


def test_an_f_that_branches_on_time_is_told_why_it_cannot():
    with pytest.raises(RuntimeError) as caught:
        integrate(lambda t, x: -x if t < 0.5 else x, start(3, 2), [0.0, 1.0], PerSample(Dopri5()))
    assert any("torch.where(t < 5, a, b)" in note for note in caught.value.__notes__)


@given(st.lists(st.integers(0, 5), min_size=1, max_size=12), st.integers(1, 3))
@settings(max_examples=20, deadline=None)
def test_any_index_will_do(index, channels):
    """Empty segments, one node, any order."""
    batch = torch.tensor(index)
    x0 = 1 + start(len(index), channels)
    solution = integrate(lambda t, x: -(1.0 + batch[:, None]) * x, x0, [0.0, 0.6, 1.0], PerSegment(batch, Dopri5()), dense=True)
    for s, x in zip(solution.t, solution.x, strict=True):
        assert distance(x, torch.exp(-(1.0 + batch[:, None]) * s) * x0) <= 1e-4
    assert distance(solution.at(0.3), torch.exp(-(1.0 + batch[:, None]) * 0.3) * x0) <= 1e-4
    used = {int(i) for i in index}
    assert all((steps > 0) == (i in used) for i, steps in enumerate(solution.stats.samples.accepted))


def test_times_outside_the_solve_are_refused():
    solution = integrate(lambda t, x: -x, start(3, 2), [0.0, 1.0], PerSample(Dopri5()), dense=True)
    with pytest.raises(ValueError, match=r"t = 1\.5 lies outside the solve, which covers 0 to 1"):
        solution.at(1.5)


class TestBadInput:
    def test_pairs(self):
        with pytest.raises(TypeError, match="PerSample needs an explicit pair such as Dopri5"):
            PerSample(None)
        with pytest.raises(TypeError, match="PerSegment needs an explicit pair such as Dopri5"):
            PerSegment(torch.tensor([0]), 3)

    def test_gradients_that_know_one_time_only(self):
        from integrators.adjoint import Adjoint

        with pytest.raises(TypeError, match=r"PerSample takes its gradient step by step: use Checkpointed\(\) or Direct\(\)"):
            PerSample(Dopri5(gradient=Adjoint()))

    def test_norms_of_segments(self):
        class Odd(RMSNorm.__base__):
            def of(self, ratio):
                return ratio.max()

        with pytest.raises(TypeError, match=r"PerSegment measures errors by RowNorm\(\) or RMSNorm\(\)"):
            PerSegment(torch.tensor([0]), Dopri5(norm=Odd()))

    @pytest.mark.parametrize("batch", [None, torch.tensor([0.0]), torch.tensor([True])])
    def test_index_types(self, batch):
        with pytest.raises(TypeError, match="batch must be a tensor of integers"):
            PerSegment(batch, Dopri5())

    @pytest.mark.parametrize("batch", [torch.zeros(2, 2, dtype=torch.int64), torch.zeros(0, dtype=torch.int64)])
    def test_index_shapes(self, batch):
        with pytest.raises(ValueError, match=r"batch must have the shape \(n,\)"):
            PerSegment(batch, Dopri5())

    @pytest.mark.parametrize("batch", [[-1, 0], [0, 10**9]])
    def test_index_values(self, batch):
        with pytest.raises(ValueError, match="number the segments from 0 on"):
            PerSegment(torch.tensor(batch), Dopri5())

    def test_states(self):
        f = lambda t, x: x  # noqa: E731
        with pytest.raises(ValueError, match=r"PerSample needs a state \(B, ...\)"):
            integrate(f, torch.ones(()), [0.0, 1.0], PerSample(Dopri5()))
        with pytest.raises(ValueError, match=r"PerSample needs a state \(B, ...\)"):
            integrate(f, (torch.ones(2, 1), torch.ones(3, 1)), [0.0, 1.0], PerSample(Dopri5()))
        with pytest.raises(ValueError, match=r"a batch index of 2 nodes, .*\(\.\.\., 2, c\), not \(3, 1\)"):
            integrate(f, torch.ones(3, 1), [0.0, 1.0], PerSegment(torch.tensor([0, 1]), Dopri5()))

    def test_tolerances_that_the_precision_cannot_hold(self):
        with pytest.raises(ValueError, match="cannot be met in float32"):
            integrate(lambda t, x: x, torch.ones(3, 1), [0.0, 1.0], PerSample(Dopri5(rtol=1e-9)))
