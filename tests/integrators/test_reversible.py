"""Reversible is Direct in the memory of one step, and refuses what forgets where it came from."""

from dataclasses import dataclass
from typing import ClassVar

import pytest
import torch
from torch.autograd import gradcheck

from integrators.dopri5 import Dopri5
from integrators.fixed import FixedStep
from integrators.gradients import Direct
from integrators.implicit_midpoint import ImplicitMidpoint
from integrators.integrate import integrate
from integrators.reversible import Reversible
from integrators.rk4 import RK4
from integrators.verlet import StoermerVerlet
from integrators.yoshida import Yoshida4

T = [0.0, 0.4, 1.0]
Q0 = torch.tensor([[0.3], [0.5]], dtype=torch.float64)
P0 = torch.tensor([[0.0], [0.1]], dtype=torch.float64)


@dataclass(frozen=True)
class Leapfrog(FixedStep):
    """Kick, drift, kick."""

    order: ClassVar[int] = 2
    reversible: ClassVar[bool] = True

    def step(self, f, t, x, h):
        q, p = x
        p = p + h / 2 * f(t, (q, p))[1]
        q = q + h * f(t + h / 2, (q, p))[0]
        return q, p + h / 2 * f(t + h, (q, p))[1]


def leaf(value):
    return torch.as_tensor(value, dtype=torch.float64).clone().requires_grad_()


def pendulum(k):
    return lambda t, x: (x[1], -k * torch.sin(x[0]) * (1 + t))


def gradients(gradient, times, dt=0.03, jumps=()):
    k, q, p, t = leaf(1.3), leaf(Q0), leaf(P0), leaf(times)
    x = integrate(pendulum(k.exp()), (q, p), t, Leapfrog(dt=dt, gradient=gradient), jumps=jumps).x
    (x[0].pow(2).sum() + torch.sin(x[1]).sum()).backward()
    return [part.grad for part in (k, q, p, t)]


@pytest.mark.parametrize("jumps", [(), (0.55,)])
@pytest.mark.parametrize("times", [T, [1.0, 0.4, 0.0], [0.0, 5.0]], ids=["forward", "reverse", "one output"])
def test_it_is_direct(times, jumps):
    for found, expected in zip(gradients(Reversible(), times, jumps=jumps), gradients(Direct(), times, jumps=jumps), strict=True):
        assert torch.allclose(found, expected, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("scheme", [StoermerVerlet, Yoshida4, ImplicitMidpoint])
def test_the_reversible_methods(scheme):
    found = []
    for gradient in (Reversible(), Direct()):
        k, t = leaf(1.3), leaf(T)
        x = integrate(lambda s, x, k=k: (x[1], -k * torch.sin(x[0])), (Q0, P0), t, scheme(dt=0.1, gradient=gradient)).x
        (x[0].pow(2).sum() + torch.sin(x[1]).sum()).backward()
        found.append(torch.cat([k.grad[None], t.grad]))
    assert torch.allclose(*found, rtol=1e-8, atol=1e-10)


def test_gradcheck():
    def final(q, p, k, t):
        return integrate(pendulum(k), (q, p), t, Leapfrog(dt=0.13, gradient=Reversible())).x

    assert gradcheck(final, (leaf(Q0), leaf(P0), leaf(1.3), leaf(T)))


def test_single_precision_over_many_steps():
    """Round-off stays round-off: hundreds of steps there and back."""
    found = []
    for gradient in (Reversible(), Direct()):
        k = torch.tensor(1.3, requires_grad=True)
        solver = Leapfrog(dt=0.05, gradient=gradient)
        integrate(pendulum(k), (Q0.float(), P0.float()), [0.0, 15.0], solver).x[0].pow(2).sum().backward()
        found.append(float(k.grad))
    assert found[0] == pytest.approx(found[1], rel=1e-2)


def test_evaluations_are_counted():
    solution = integrate(pendulum(leaf(1.3)), (Q0, P0), [0.0, 1.0], Leapfrog(dt=0.1, gradient=Reversible()))
    assert solution.stats.nfe == 31
    solution.x[0].sum().backward()
    assert solution.stats.nfe_backward == 60


def test_memory_does_not_grow_with_the_steps():
    def kept(n):
        k, count = leaf(1.3), 0

        def pack(x):
            nonlocal count
            count += x.numel()
            return x

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda x: x):
            integrate(pendulum(k), (Q0, P0), [0.0, 1.0], Leapfrog(dt=1 / n, gradient=Reversible()))
        return count

    assert kept(5) == kept(30) <= 30


def test_other_methods_are_refused():
    for solver in (Dopri5(gradient=Reversible()), RK4(dt=0.1, gradient=Reversible())):
        with pytest.raises(TypeError, match=rf"which {type(solver).__name__} cannot: use a method with `reversible = True`"):
            integrate(lambda t, x: -x, Q0, T, solver)


def test_dissipative_equations_are_refused():
    class Damped(torch.nn.Module):
        dissipative = True

        def forward(self, t, x):
            return (x[1], -x[0] - x[1])

    with pytest.raises(TypeError, match=r"cannot go back through Damped, which is dissipative.*Checkpointed\(\)"):
        integrate(Damped(), (Q0, P0), T, Leapfrog(dt=0.1, gradient=Reversible()))


@pytest.mark.parametrize("changed", [False, True])
def test_a_way_back_that_misses_the_start_is_noticed(changed):
    """Damping makes the kick irreversible; and so does an f that changed meanwhile."""
    k, scale = leaf(1.3), torch.tensor(1.0)
    f = (lambda t, x: (x[1], -k * scale * x[0])) if changed else (lambda t, x: (x[1], -k * x[0] - 2 * x[1]))
    x = integrate(f, (Q0, P0), [0.0, 1.0], Leapfrog(dt=0.1, gradient=Reversible())).x
    scale.mul_(2)
    with pytest.raises(RuntimeError, match=r"undoing the steps of Leapfrog gave a state at t = 0 .*Checkpointed\(\)"):
        x[0].sum().backward()


def test_a_random_right_hand_side_is_refused():
    with pytest.raises(ValueError, match=r"draws random numbers, and Reversible"):
        integrate(lambda t, x: (x[1], torch.rand_like(x[0])), (leaf(Q0), P0), T, Leapfrog(dt=0.1, gradient=Reversible()))


def test_a_tensor_reached_late_is_noticed():
    a, late = leaf(0.7), leaf(0.2)
    f = lambda t, x: (x[1], -a * x[0] if t < 0.5 else -late * x[0])  # noqa: E731
    x = integrate(f, (Q0, P0), T, Leapfrog(dt=0.1, gradient=Reversible())).x
    with pytest.raises(RuntimeError, match="did not reach when the solve began"):
        x[0].sum().backward()


def test_second_derivatives_transforms_and_dense_output_are_refused():
    k = leaf(1.3)
    solver = Leapfrog(dt=0.1, gradient=Reversible())
    x = integrate(pendulum(k), (Q0, P0), T, solver).x[0]
    with pytest.raises(NotImplementedError, match="no second derivatives"):
        torch.autograd.grad(x.sum(), k, create_graph=True)
    with pytest.raises(NotImplementedError, match=r"Reversible does not work inside torch.func"):
        torch.func.jacrev(lambda k: integrate(pendulum(k), (Q0, P0), T, solver).x[0])(k.detach())
    with pytest.raises(ValueError, match="dense=True gives no gradient with Reversible"):
        integrate(pendulum(k), (Q0, P0), T, solver, dense=True)


def test_without_gradients_it_costs_nothing():
    with torch.no_grad():
        assert integrate(pendulum(leaf(1.3)), (Q0, P0), [0.0, 1.0], Leapfrog(dt=0.1, gradient=Reversible())).stats.nfe == 30
