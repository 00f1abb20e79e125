"""Checkpointed is Direct in less memory, whatever f holds, and loud where it could not be."""

import gc
import weakref
from dataclasses import replace

import pytest
import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from integrators.checkpointed import Checkpointed
from integrators.dopri5 import Dopri5
from integrators.gradients import Direct
from integrators.integrate import integrate
from integrators.rk4 import RK4
from integrators.solution import SolveError, Status

T = [0.0, 0.4, 1.0]
X0 = torch.linspace(0.1, 1, 6, dtype=torch.float64).reshape(2, 3)
STEPS = RK4(dt=0.1)


def leaf(value):
    return torch.as_tensor(value, dtype=torch.float64).clone().requires_grad_()


def network():
    net = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 3)).double()
    with torch.no_grad():
        for p in net.parameters():
            p.copy_(torch.linspace(-1, 1, p.numel()).reshape(p.shape))
    return net


# -- Equal to Direct: each case gives f, x0 and the leaves to compare


def encoder():
    theta = leaf(0.7)
    return (lambda t, x: -theta * x * x), theta * X0, [theta]


def start_captured():
    theta = leaf(0.7)
    x0 = theta * X0
    return (lambda t, x: x0 - x * x), x0, [theta]


def leaf_start_captured():
    x0 = leaf(X0)
    return (lambda t, x: x0 - x * x), x0, [x0]


def relatives():
    theta = leaf(0.7)
    a = theta.exp()
    b = 2 * a
    return (lambda t, x: a * x - b * x * x + theta * x), X0, [theta]


def views():
    W = leaf(torch.linspace(-1, 1, 27).reshape(3, 3, 3))
    (a, b, _), c = (2 * W).unbind(0), W[1].T
    return (lambda t, x: torch.tanh(x @ a) - x @ c + x @ b / 9), X0, [W]


def buffer_with_gradient():
    class Held(nn.Module):
        def __init__(self, rate):
            super().__init__()
            self.register_buffer("rate", rate)
            self.gain = nn.Parameter(torch.tensor(0.3, dtype=torch.float64))

        def forward(self, t, x):
            return -self.rate * self.gain * x

    theta = leaf(0.7)
    f = Held(2 * theta)
    return f, X0, [theta, f.gain]


def shared_parameters():
    net = network()
    return (lambda t, x: torch.sin(net(torch.cos(net(x))))), X0, list(net.parameters())


def late_parameter():
    net = network()

    def f(t, x):
        return net(x) if t > 0.5 else -x

    return f, X0, list(net.parameters())


def returned_as_it_is():
    theta = leaf(0.7)
    c = theta * X0
    return (lambda t, x: c), X0, [theta]


def complex_parameter():
    w = torch.tensor(-0.3 + 1.2j, dtype=torch.complex128, requires_grad=True)
    return (lambda t, x: w * x), torch.complex(X0, 1 - X0), [w]


def pair():
    a = leaf(0.7)
    return (lambda t, x: (a * x[1], -a * torch.sin(x[0]))), (X0, 1 - X0), [a]


def recomputing():
    a = leaf(0.7)
    return (lambda t, x: checkpoint(lambda y: torch.sin(a * y), x, use_reentrant=False)), X0, [a]


def solve_within():
    a = leaf(0.7)
    return (lambda t, x: integrate(lambda s, y: -a * y, x, [0.0, 0.1], RK4(dt=0.1)).final), X0, [a]


def random():
    torch.manual_seed(3)
    a = leaf(0.7)
    return (lambda t, x: nn.functional.dropout(torch.sin(a * x), 0.3)), X0, [a]


CASES = [
    encoder, start_captured, leaf_start_captured, relatives, views, buffer_with_gradient, shared_parameters, late_parameter,
    returned_as_it_is, complex_parameter, pair, recomputing, solve_within, random,
]  # fmt: skip


def gradients(make, solver):
    f, x0, leaves = make()
    times = leaf(T)
    x = integrate(f, x0, times, solver).x
    loss = sum(part.abs().pow(2).sum() for part in (x if isinstance(x, tuple) else (x,)))
    loss.backward()
    return [part.grad for part in (*leaves, times)]


@pytest.mark.parametrize("settings", [{}, {"snapshots": 2}, {"offload": True}], ids=str)
@pytest.mark.parametrize("make", CASES)
def test_it_is_direct(make, settings):
    direct = gradients(make, replace(STEPS, gradient=Direct()))
    for found, expected in zip(gradients(make, replace(STEPS, gradient=Checkpointed(**settings))), direct, strict=True):
        assert expected is not None
        assert torch.allclose(found, expected, rtol=1e-11, atol=1e-13)


@pytest.mark.parametrize("make", [encoder, relatives, late_parameter, pair])
@pytest.mark.parametrize("jumps", [(), (0.5,)])
def test_it_is_direct_for_steps_chosen_by_the_error(make, jumps):
    def run(gradient):
        f, x0, leaves = make()
        solution = integrate(f, x0, T, Dopri5(rtol=1e-4, atol=1e-6, gradient=gradient), jumps=jumps)
        sum(part.pow(2).sum() for part in (solution.x if isinstance(solution.x, tuple) else (solution.x,))).backward()
        return [part.grad for part in leaves]

    for found, expected in zip(run(Checkpointed(snapshots=2)), run(Direct()), strict=True):
        assert torch.allclose(found, expected, rtol=1e-11, atol=1e-13)


@pytest.mark.parametrize("jumps", [(), (0.5,)])
def test_carries_that_remember_more_than_the_state(jumps):
    """A method of two steps: its history is restored with the state, and starts anew after a jump."""
    from integrators.fixed import FixedStep
    from integrators.method import Trial
    from integrators.state import combine

    class AdamsBashforth2(FixedStep):
        def start(self, f, t, x):
            return x, x

        def advance(self, f, t, h, carry, before):
            slope = f(t, carry[0])
            w = [1.5, -0.5] if before else [1.0, 0.0]
            return Trial((combine(carry[0], h, w, [slope, carry[1]]), slope))

    def run(gradient):
        a = leaf(0.7)
        x0 = leaf(X0)
        integrate(lambda t, x: -a * x * x, x0, T, AdamsBashforth2(dt=0.02, gradient=gradient), jumps=jumps).x.sum().backward()
        return torch.cat([a.grad[None], x0.grad.flatten()])

    for snapshots in (None, 1, 3):
        assert torch.allclose(run(Checkpointed(snapshots=snapshots)), run(Direct()), rtol=1e-12)


def test_random_numbers_of_an_adaptive_method():
    """The solve is that of Direct, and the generator ends where Direct leaves it; every evaluation is counted."""
    found = []
    for gradient in (Checkpointed(), Direct()):
        f, x0, (a,) = random()
        calls = 0

        def counted(t, x, f=f):
            nonlocal calls
            calls += 1
            return f(t, x)

        solution = integrate(counted, x0, T, Dopri5(rtol=0.9, atol=10.0, gradient=gradient))
        solution.x.sum().backward()
        assert solution.stats.nfe == calls
        found.append((a.grad, torch.get_rng_state()))
    assert torch.equal(found[0][0], found[1][0])
    assert torch.equal(found[0][1], found[1][1])


def test_backward_leaves_the_random_generator_alone():
    f, x0, _ = random()
    x = integrate(f, x0, T, STEPS).x
    before = torch.get_rng_state()
    x.sum().backward()
    assert torch.equal(before, torch.get_rng_state())


def test_autocast_is_repeated():
    """In bfloat16 Direct adds up weight gradients with three digits, and a repetition with more."""
    net = network().float()
    found = []
    for gradient in (Checkpointed(), Direct()):
        net.zero_grad()
        with torch.autocast("cpu", torch.bfloat16):
            x = integrate(lambda t, x: torch.tanh(net(x)).float(), X0.float(), T, replace(STEPS, gradient=gradient)).x
        x.sum().backward()
        found.append([x.detach(), *(p.grad.clone() for p in net.parameters())])
    assert torch.equal(found[0][0], found[1][0])
    for a, b in zip(*found, strict=True):
        assert float((a - b).abs().max()) <= 0.03 * float(b.abs().max())


@pytest.mark.filterwarnings("ignore")  # the compiler's own
def test_a_compiled_right_hand_side():
    def make():
        net = network()
        return torch.compile(lambda t, x: net(x) * torch.cos(t), backend="aot_eager"), X0, list(net.parameters())

    def bare():
        net = network()
        return (lambda t, x: net(x) * torch.cos(t)), X0, list(net.parameters())

    for found, expected in zip(gradients(make, STEPS), gradients(bare, STEPS), strict=True):
        assert torch.allclose(found, expected, rtol=1e-11, atol=1e-13)


@pytest.mark.parametrize(("make", "retained"), [(leaf_start_captured, False), (views, False), (relatives, True)])
def test_graphs_are_freed_unless_outer_history_is_shared(make, retained, monkeypatch):
    """A compiled backward pass donates its buffers, and refuses retain_graph=True."""
    asked, grad = [], torch.autograd.grad
    monkeypatch.setattr(torch.autograd, "grad", lambda *a, **k: (asked.append(k["retain_graph"]), grad(*a, **k))[1])
    f, x0, _ = make()
    integrate(f, x0, T, STEPS).x.sum().backward()
    assert set(asked) == {retained}


# -- What autograd promises


def test_the_gradient_in_a_tensor_computed_outside():
    theta = leaf(0.7)
    a = theta.exp()
    x = integrate(lambda t, x: -a * x, X0, T, STEPS).x
    (in_a,) = torch.autograd.grad(x.sum(), a, retain_graph=True)
    a.retain_grad()
    x.sum().backward()
    assert torch.allclose(a.grad, in_a)
    assert torch.allclose(theta.grad, in_a * a)


def test_hooks_see_the_whole_gradient_once():
    found = []
    for gradient in (Checkpointed(), Direct()):
        a, seen = leaf(0.7), []
        a.register_hook(lambda g, seen=seen: (seen.append(float(g)), g / 2)[1])
        a.register_post_accumulate_grad_hook(lambda p, seen=seen: seen.append(float(p.grad)))
        integrate(lambda t, x, a=a: -a * x, X0, T, replace(STEPS, gradient=gradient)).x.sum().backward()
        found.append(seen)
    assert found[0] == pytest.approx(found[1])
    assert len(found[0]) == 2


def test_backward_twice_and_accumulation():
    a = leaf(0.7)
    x = integrate(lambda t, x: -a * x, X0, T, STEPS).x
    x.sum().backward(retain_graph=True)
    once = a.grad.clone()
    x.sum().backward()
    assert torch.allclose(a.grad, 2 * once)
    with pytest.raises(RuntimeError, match="second time"):
        x.sum().backward()


def test_a_parameter_changed_in_place_is_noticed():
    a = leaf(0.7)
    x = integrate(lambda t, x: -a * x, X0, T, STEPS).x
    with torch.no_grad():
        a.mul_(2)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        x.sum().backward()


def test_the_solution_may_be_changed_in_place():
    a = leaf(0.7)
    x = integrate(lambda t, x: -a * x, X0, T, STEPS).x
    (2 * x.mul_(2)).sum().backward()
    b = leaf(0.7)
    (4 * integrate(lambda t, x: -b * x, X0, T, STEPS).x).sum().backward()
    assert torch.allclose(a.grad, b.grad)


@pytest.mark.parametrize("reentrant", [False, True])
def test_a_checkpoint_around_the_solve(reentrant):
    a, b = leaf(0.7), leaf(0.7)
    checkpoint(lambda x: integrate(lambda t, y: -a * y * y, x, T, STEPS).x, leaf(X0), use_reentrant=reentrant).sum().backward()
    integrate(lambda t, y: -b * y * y, X0, T, replace(STEPS, gradient=Direct())).x.sum().backward()
    assert torch.allclose(a.grad, b.grad, rtol=1e-12)


def test_what_is_kept_passes_through_saved_tensor_hooks():
    a, shapes = leaf(0.7), []
    with torch.autograd.graph.saved_tensors_hooks(lambda x: (shapes.append(x.shape), x)[1], lambda x: x):
        x = integrate(lambda t, x: -a * x, X0, T, RK4(dt=0.01, gradient=Checkpointed(snapshots=10))).x
    assert 5 <= sum(shape == X0.shape for shape in shapes) <= 12
    with torch.autograd.graph.save_on_cpu():
        x = integrate(lambda t, x: -a * x, X0, T, STEPS).x
    x.sum().backward()
    assert a.grad is not None


def test_nothing_leaks():
    """Without the collector: a solve leaves no cycle behind, finished or not."""
    a = leaf(0.7)
    gc.collect()
    gc.disable()
    try:
        for backward in (True, False):
            solution = integrate(lambda t, x: -a * x, X0, T, STEPS)
            held = [weakref.ref(solution), weakref.ref(solution.x), weakref.ref(solution.x.grad_fn)]
            if backward:
                solution.x.sum().backward()
            del solution
            assert [ref() for ref in held] == [None] * 3
    finally:
        gc.enable()


def test_backward_frees_the_snapshots_while_the_solution_lives():
    def alive():
        return sum(type(o) is torch.Tensor and o.shape == (7, 13) for o in gc.get_objects())

    a = leaf(0.7)
    x0 = torch.ones(7, 13, dtype=torch.float64)
    before = alive()
    solution = integrate(lambda t, x: -a * x, x0, T, RK4(dt=0.01))
    kept = alive() - before
    solution.x.sum().backward()
    assert kept > 20
    assert alive() - before <= 3


# -- Loud where it cannot be right


def test_a_tensor_reached_late_is_noticed():
    a, late = leaf(0.7), leaf(0.2)
    x = integrate(lambda t, x: -a * x if t < 0.5 else -late * x, X0, T, STEPS).x
    with pytest.raises(RuntimeError, match=r"did not reach when the solve began.*use gradient=Direct\(\)"):
        x.sum().backward()


def test_an_f_that_changed_is_noticed():
    a, scale = leaf(0.7), torch.tensor(1.0)
    x = integrate(lambda t, x: -a * scale * x, X0, T, STEPS).x
    scale.mul_(2)
    with pytest.raises(RuntimeError, match=r"repeating the steps.*differs by.*Mend that, or use gradient=Direct\(\)"):
        x.sum().backward()


@pytest.mark.parametrize("dt", [0.05, 1.0])
def test_a_generator_of_its_own_is_noticed(dt):
    a, generator = leaf(0.7), torch.Generator().manual_seed(0)
    x = integrate(lambda t, x: -a * x * torch.rand(x.shape, generator=generator), X0, [0.0, 1.0], RK4(dt=dt)).x
    with pytest.raises(RuntimeError, match="random by a generator of its own"):
        x.sum().backward()


@pytest.mark.parametrize("snapshots", [0, -1, 2.0, True])
def test_bad_numbers_of_snapshots_are_refused(snapshots):
    with pytest.raises(ValueError, match="snapshots must be a positive integer or None"):
        Checkpointed(snapshots=snapshots)


# -- Failures, transforms, modes


def test_what_was_reached_before_a_failure_has_its_gradient():
    found = []
    for gradient in (Checkpointed(), Direct()):
        a = leaf(2.0)
        solver = Dopri5(gradient=gradient, max_nfe=300)
        f = lambda t, x, a=a: a * x * x  # noqa: E731
        solution = integrate(f, X0, [0.0, 0.1, 0.2, 0.4, 0.8, 1.6], solver, throw=False)
        assert solution.status is not Status.SUCCESS
        assert len(solution.t) == len(solution.x) == 4
        solution.x.sum().backward()
        found.append(a.grad)
        with pytest.raises(SolveError) as caught:
            integrate(f, X0, [0.0, 0.1, 1.6], solver)
        assert caught.value.solution.x.requires_grad
    assert torch.allclose(*found)


def test_an_error_of_f_passes_through():
    def f(t, x):
        if t > 0.3:
            raise ZeroDivisionError("mine")
        return -x

    with pytest.raises(ZeroDivisionError, match="mine"):
        integrate(f, leaf(X0), T, STEPS)


def test_function_transforms():
    def final(a, x0):
        return integrate(lambda t, x: a * torch.sin(x), x0, T, STEPS).x

    a = torch.tensor(0.5, dtype=torch.float64)
    slope = torch.autograd.functional.jacobian(lambda a: final(a, X0), a)
    assert torch.allclose(torch.func.jacrev(final)(a, X0), slope)
    assert torch.allclose(torch.func.jacfwd(final)(a, X0), slope)
    assert torch.allclose(torch.func.jvp(final, (a, X0), (torch.ones_like(a), torch.zeros_like(X0)))[1], slope)
    assert torch.allclose(torch.func.vmap(final, (0, None))(torch.stack([a, 2 * a]), X0)[0], final(a, X0))
    with torch.autograd.forward_ad.dual_level():
        dual = final(torch.autograd.forward_ad.make_dual(a, torch.ones_like(a)), X0)
        assert torch.allclose(torch.autograd.forward_ad.unpack_dual(dual).tangent, slope)


def test_inference_mode():
    with torch.inference_mode():
        x0 = X0.clone()
        inside = integrate(lambda t, x: -x, x0, T, STEPS).final
    assert torch.allclose(integrate(lambda t, x: -x, x0, T, STEPS).final, inside)
    a = leaf(0.7)
    integrate(lambda t, x: -a * x, x0, T, STEPS).x.sum().backward()
    assert a.grad is not None


def test_evaluations_are_counted():
    calls, a = 0, leaf(0.7)

    def f(t, x):
        nonlocal calls
        calls += 1
        return -a * x

    solution = integrate(f, X0, T, RK4(dt=0.01))
    assert solution.stats.nfe == calls == 401
    solution.x.sum().backward()
    assert solution.stats.nfe == 401
    assert solution.stats.nfe_backward == calls - 401 == 400
    with torch.no_grad():
        assert integrate(f, X0, T, RK4(dt=0.01)).stats.nfe == 400


def test_the_default_repeats_each_step_once():
    a = leaf(0.7)
    solution = integrate(lambda t, x: -a * x, X0, T, RK4(dt=0.01))
    solution.x.sum().backward()
    assert solution.stats.nfe_backward == 400


def test_a_given_number_of_snapshots_is_never_passed(monkeypatch):
    from integrators import checkpointed

    most, stretches = 0, checkpointed.stretches

    def counted(kept, *rest):
        nonlocal most
        for stretch in stretches(kept, *rest):
            most = max(most, len(kept))
            yield stretch

    monkeypatch.setattr(checkpointed, "stretches", counted)
    a = leaf(0.7)
    integrate(lambda t, x: -a * x, X0, T, RK4(dt=0.01, gradient=Checkpointed(snapshots=7))).x.sum().backward()
    assert 1 <= most <= 7
