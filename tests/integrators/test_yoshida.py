"""Yoshida's compositions: order conditions, orders 4 and 6, symplectic, reversible, and their limits of stability."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.autograd import gradcheck

from integrators import Checkpointed, Direct, SolveError, integrate
from integrators.yoshida import FOURTH, SIXTH, Yoshida4, Yoshida6

U = torch.finfo(torch.float64).eps / 2
both = pytest.mark.parametrize(("method", "order"), [(Yoshida4, 4), (Yoshida6, 6)])


def start(dtype=torch.float64):
    return torch.tensor([[1.2]], dtype=dtype), torch.tensor([[0.3]], dtype=dtype)


def driven(t, x):
    q, p = x
    return (2 + torch.sin(t)) * p, -(q**3) + torch.cos(3 * t)


def test_order_conditions():
    """Σw = 1, Σw³ = 0, and for order 6 also Σw⁵ = 0 and Σ_k w_k³ (Σ_{j<k} w_j + w_k/2)² = 0 (Hairer, Lubich, Wanner V.3.2)."""
    for weights, powers in ((FOURTH, (3,)), (SIXTH, (3, 5))):
        assert abs(math.fsum(weights) - 1) <= 1e-15
        assert weights == weights[::-1]
        for power in powers:
            assert abs(math.fsum(w**power for w in weights)) <= 1e-14
    done, total = 0.0, 0.0
    for w in SIXTH:
        total += w**3 * (done + w / 2) ** 2
        done += w
    assert abs(total) <= 1e-14


@both
@pytest.mark.parametrize("t", [[0.0, 1.0], [0.0, -1.0]], ids=["forwards", "backwards"])
def test_order(method, order, t, observed_order):
    exact = integrate(driven, start(), t, Yoshida6(dt=1 / 256)).final
    errors = []
    for k in (3, 4, 5):
        x = integrate(driven, start(), t, method(dt=2.0**-k)).final
        errors.append(max(float((a - b).abs().max()) for a, b in zip(x, exact, strict=True)))
    assert abs(observed_order(errors) - order) <= 0.1


@both
def test_order_for_complex_states(method, order, observed_order):
    q, p = torch.full((2, 1), 0.3 + 0.7j, dtype=torch.complex128), torch.full((2, 1), 1j, dtype=torch.complex128)
    f = lambda t, x: (x[1], -4 * x[0])  # noqa: E731
    exact = q * math.cos(2.0) + p / 2 * math.sin(2.0)
    errors = [float((integrate(f, (q, p), [0.0, 1.0], method(dt=2.0**-k)).final[0] - exact).abs().max()) for k in (2, 3, 4)]
    assert abs(observed_order(errors) - order) <= 0.1


@both
@given(values=st.lists(st.floats(-0.4, 0.4), min_size=4, max_size=4), h=st.floats(0.05, 1.0))
def test_symplectic(method, order, values, h):
    x = torch.tensor(values, dtype=torch.float64)

    def henon_heiles(t, x):
        q, p = x
        return p, torch.stack((-q[0] - 2 * q[0] * q[1], -q[1] - q[0] ** 2 + q[1] ** 2))

    def step(x):
        return torch.cat(integrate(henon_heiles, (x[:2], x[2:]), [0.0, h], method(dt=h, gradient=Direct())).final)

    J = torch.autograd.functional.jacobian(step, x)
    omega = torch.kron(torch.tensor([[0.0, 1.0], [-1.0, 0.0]]), torch.eye(2)).double()
    assert float((J.T @ omega @ J - omega).abs().max()) <= 256 * U * (1 + float(J.abs().max())) ** 2


@both
def test_back_again(method, order):
    k, h = 200, 0.1
    there = integrate(driven, start(), [0.0, k * h], method(dt=h)).final
    back = integrate(driven, there, [k * h, 0.0], method(dt=h)).final
    for a, b in zip(back, start(), strict=True):
        assert float((a - b).abs().max()) <= 4 * len(method.weights) * k * U * 4


@both
def test_the_energy_does_not_drift(method, order):
    f = lambda t, x: (x[1], -torch.sin(x[0]))  # noqa: E731
    t = torch.arange(1001, dtype=torch.float64)[::10] * 0.2
    q, p = integrate(f, start(), t, method(dt=0.2)).x
    energy = (p**2 / 2 + 1 - torch.cos(q)).flatten()
    deviation = energy / energy[0] - 1
    assert float(deviation[50:].abs().max()) <= 1.1 * float(deviation[:50].abs().max())
    assert float(deviation.abs().max()) <= 2 * 0.2**order


@both
def test_the_limit_of_stability(method, order):
    """The limits that the docstrings give, ω dt < 1.57 and 2.26, by the trace of a step of the oscillator."""

    def trace(z):
        identity = torch.eye(2, dtype=torch.float64)
        q, p = integrate(lambda t, x: (x[1], -x[0]), (identity[:1], identity[1:]), [0.0, z], method(dt=z)).final
        return abs(float(q[0, 0] + p[0, 1]))

    limit = {4: 1.57, 6: 2.26}[order]
    assert all(trace(limit * k / 50) < 2 for k in range(1, 51))
    assert trace(limit + 0.02) > 2


@both
def test_refusals_name_the_method(method, order):
    with pytest.raises(ValueError, match=f"{method.__name__} needs q' to depend on p alone"):
        integrate(lambda t, x: (x[1], -x[0] - x[1]), start(), [0.0, 1.0], method(dt=0.1))
    with pytest.raises(TypeError, match=f"{method.__name__} needs a state"):
        integrate(lambda t, x: -x, start()[0], [0.0, 1.0], method(dt=0.1))
    with pytest.raises(SolveError, match="diverged"):
        integrate(lambda t, x: (x[1], -100 * x[0]), start(), [0.0, 1500.0], method(dt=0.232))


@both
@pytest.mark.parametrize("gradient", [Direct(), Checkpointed()], ids=str)
def test_gradcheck(method, order, gradient):
    def leaf(value):
        return torch.as_tensor(value, dtype=torch.float64).clone().requires_grad_()

    def final(q, p, a, t):
        f = lambda s, x: ((2 + torch.sin(s)) * x[1], -a * x[0] ** 3 + torch.cos(3 * s))  # noqa: E731
        return integrate(f, (q, p), t, method(dt=0.35, gradient=gradient)).x

    assert gradcheck(final, (leaf([[1.2]]), leaf([[0.3]]), leaf(0.7), leaf([0.0, 0.4, 1.0])), atol=1e-5, rtol=1e-3)
