"""The laws of every explicit pair: order conditions, order of steps and dense output, stability, gradients, compilation."""

import itertools
import math
import shutil
from fractions import Fraction

import pytest
import torch

from integrators.bosh3 import Bosh3
from integrators.checkpointed import Checkpointed
from integrators.dopri5 import Dopri5
from integrators.explicit import ExplicitPair, compiled_step
from integrators.gradients import Direct
from integrators.integrate import integrate
from integrators.method import Trial
from integrators.solution import SolveError
from integrators.tsit5 import Tsit5

PAIRS = [Dopri5, Tsit5, Bosh3]
DENSE = {Dopri5: 4, Tsit5: 4, Bosh3: 3}
X0 = torch.tensor([[0.3], [0.5], [0.8]], dtype=torch.float64)
pairs = pytest.mark.parametrize("pair", PAIRS)


def trees(order):
    """The rooted trees with `order` nodes, each the sorted tuple of the trees at its root."""
    if order == 1:
        return [()]
    found = set()
    for sizes in partitions(order - 1):
        for branches in itertools.product(*(trees(size) for size in sizes)):
            found.add(tuple(sorted(branches)))
    return sorted(found)


def partitions(n, largest=None):
    if n == 0:
        return [()]
    return [(k, *rest) for k in range(min(n, largest or n), 0, -1) for rest in partitions(n - k, k)]


def size(tree):
    return 1 + sum(size(branch) for branch in tree)


def density(tree):
    return size(tree) * math.prod(density(branch) for branch in tree)


def weights_of(tree, A):
    """Φ_i of a tree: Π over its branches of Σ_j a_ij Φ_j(branch)."""
    inner = [weights_of(branch, A) for branch in tree]
    return [math.prod(sum(a * w for a, w in zip(row, phi, strict=True)) for phi in inner) for row in A]


def tableau(pair, exact):
    """A with all its rows, as exact numbers: fractions of small integers, or what the floats are."""
    number = (lambda w: Fraction(w).limit_denominator(400_000)) if exact else Fraction
    rows = [(), *pair.a]
    return [[number(w) for w in row] + [Fraction(0)] * (len(rows) - len(row)) for row in rows], number


@pytest.mark.parametrize(("n", "count"), [(1, 1), (2, 1), (3, 2), (4, 4), (5, 9)])
def test_there_are_as_many_trees_as_butcher_counts(n, count):
    assert len(trees(n)) == count


@pairs
def test_order_conditions(pair):
    exact = pair is not Tsit5
    # Of Tsitouras' sixteen digits, with entries to 13 in A, Σ|b| = 8 and powers to 4: about 4 · 8 · 13 u = 5e-14 at most.
    tol = 0 if exact else 2e-14
    A, number = tableau(pair, exact)
    c = [Fraction(0), *(number(value) for value in pair.c)]
    assert all(abs(sum(row) - value) <= tol for row, value in zip(A, c, strict=True))
    b, e = A[-1], [number(value) for value in pair.e]
    assert all(float(number(w)) == w for row in [*pair.a, pair.e] for w in row)

    def total(weights, tree):
        return sum(w * p for w, p in zip(weights, weights_of(tree, A), strict=True))

    for order in range(1, pair.order + 1):
        for tree in trees(order):
            assert abs(total(b, tree) - Fraction(1, density(tree))) <= tol
            if order < pair.error_order:  # The error estimate is the difference of two formulas that agree to here ...
                assert abs(total(e, tree)) <= tol
    # ... and no further.
    assert any(abs(total(e, tree)) > 1e-4 for tree in trees(pair.error_order))


@pairs
def test_continuous_order_conditions(pair):
    """Σ b_i(θ) Φ_i = θ^n / γ for all trees with n ≤ 4 (3) nodes."""
    A, _ = tableau(pair, exact=False)
    for theta in (0.0, 0.1, 0.35, 0.5, 0.8, 1.0):
        b = pair().weights(theta)
        for order in range(1, DENSE[pair] + 1):
            for tree in trees(order):
                total = sum(w * float(p) for w, p in zip(b, weights_of(tree, A), strict=True))
                assert abs(total - theta**order / density(tree)) <= 1e-14


@pairs
def test_dense_output_meets_the_steps_smoothly(pair):
    """x and dx/dt at both ends: the first slope, and the last, which the next step begins with."""
    stages = len(pair.e)
    theta = torch.tensor([0.0, 1.0], dtype=torch.float64, requires_grad=True)
    values, slopes = [], []
    for w in pair().weights(theta):
        values.append((w + 0 * theta).detach().tolist())
        slopes.append(torch.autograd.grad(w.sum(), theta, retain_graph=True)[0].tolist())
    start, end = zip(*values, strict=True)
    assert start == pytest.approx([0.0] * stages, abs=1e-14)
    assert end == pytest.approx([*pair.a[-1], 0.0], abs=1e-13)
    start, end = zip(*slopes, strict=True)
    assert start == pytest.approx([1.0] + [0.0] * (stages - 1), abs=1e-13)
    assert end == pytest.approx([0.0] * (stages - 1) + [1.0], abs=1e-13)


def march(pair, f, x, times):
    """Steps between the given times; the trial of the last one too."""
    carry = pair.start(f, times[0], x)
    for t, later in itertools.pairwise(times):
        before, h = carry, later - t
        trial = pair.advance(f, t, h, carry, 0.0)
        carry = trial.carry
    return carry[0], before, trial, h


def limit(errors):
    """The observed order as h → 0, from errors at h, h/2 and h/4: what it still lacks shrinks as h."""
    first, second = (math.log2(a / b) for a, b in itertools.pairwise(errors))
    return max(second, 2 * second - first)


def timed(f):
    return lambda t, x: f(torch.as_tensor(t, dtype=torch.float64), x)


@pairs
@pytest.mark.parametrize("even", [True, False], ids=["even steps", "uneven steps"])
@pytest.mark.parametrize("sign", [1.0, -1.0], ids=["forward", "reverse"])
def test_order_of_the_steps(problem, pair, even, sign):
    f, errors = timed(problem.f), []
    for n in (16, 32, 64):
        s = torch.linspace(0, 1, n + 1, dtype=torch.float64)
        times = (s if even else s + 0.15 * torch.sin(2 * math.pi * s) / (2 * math.pi)).tolist()
        times = [0.8 * sign * value for value in times]
        x = march(pair(), f, problem.x0, times)[0]
        stacked = tuple(part[None] for part in x) if isinstance(x, tuple) else x[None]
        errors.append(problem.error(torch.tensor([times[-1]], dtype=torch.float64), stacked))
    assert pair.order - 0.1 <= limit(errors) <= pair.order + 1.0


@pairs
@pytest.mark.parametrize("theta", [0.2, 0.6, 0.9])
def test_order_of_the_dense_output(pair, theta):
    """Within one step x(t + θh) is off by O(h^(q+1)) with q the order of the extension."""
    f = timed(lambda t, x: torch.cos(t) * x * (2 - x))
    solver, errors = pair(), []
    for h in (0.1, 0.05, 0.025):
        _, before, trial, _ = march(solver, f, X0, [0.3, 0.3 + h])
        dense = solver.interpolate(f, 0.3, h, before, trial, theta)
        # x/(2 − x) grows as exp(2 ∫ cos).
        rise = math.exp(2 * (math.sin(0.3 + theta * h) - math.sin(0.3)))
        ratio = X0 / (2 - X0) * rise
        errors.append(float((dense - 2 * ratio / (1 + ratio)).abs().max()))
    assert DENSE[pair] + 0.9 <= limit(errors) <= DENSE[pair] + 2


@pairs
@pytest.mark.parametrize("dtype", [torch.float64, torch.complex128, torch.float32])
def test_dense_solutions_are_as_exact_as_the_outputs(pair, dtype):
    rtol = 1e-4 if dtype == torch.float32 else 1e-7
    f = lambda t, x: torch.cos(t).to(x.dtype) * x  # noqa: E731
    solution = integrate(f, X0.to(dtype), [0.0, 3.0], pair(rtol, rtol / 100), dense=True)
    for s in (0.0, 0.01, 0.777, 2.0, 3.0):
        assert float((solution.at(s) - X0 * math.exp(math.sin(s))).abs().max()) <= 20 * rtol


@pairs
def test_a_dense_solution_is_differentiable_in_its_time(pair):
    solution = integrate(lambda t, x: torch.cos(t) * x, X0, [0.0, 3.0], pair(1e-8, 1e-10), dense=True)
    s = torch.tensor(1.234, dtype=torch.float64, requires_grad=True)
    (slope,) = torch.autograd.grad(solution.at(s).sum(), s)
    exact = math.cos(1.234) * math.exp(math.sin(1.234)) * float(X0.sum())
    assert abs(float(slope) - exact) <= 1e-5


@pairs
@pytest.mark.parametrize("z", [-3.0, -1.0, -1e-3, 0.0, 0.7, 3.0, 1j, 2.8j, -1 + 2j])
def test_stability_function(pair, z):
    """1 + Σ (b A^(k−1) 1) z^k, in exact rationals, against one step."""
    A, _ = tableau(pair, exact=False)
    value, phi = 1.0 + 0j, [Fraction(1)] * len(A)
    for k in range(1, len(A) + 1):
        value += float(sum(w * p for w, p in zip(A[-1], phi, strict=True))) * z**k
        phi = [sum(a * p for a, p in zip(row, phi, strict=True)) for row in A]
    x = march(pair(), lambda t, x: z * x, torch.ones(1, dtype=torch.complex128), [0.0, 1.0])[0]
    assert abs(complex(x) - value) <= 1e-12


class Heun(ExplicitPair):
    """Heun's method with Euler's inside, first same as last."""

    order, error_order = 2, 2
    c = (1.0, 1.0)
    a = ((1.0,), (0.5, 0.5))
    e = (-0.5, 0.5, 0.0)


class Decay(torch.nn.Module):
    def __init__(self, k):
        super().__init__()
        self.k = k

    def forward(self, t, x):
        return -self.k * torch.sin(t + 1) * x * x


@pairs
@pytest.mark.parametrize("gradient", [Direct(), Checkpointed()], ids=["direct", "checkpointed"])
@pytest.mark.parametrize("dtype", [torch.float64, torch.complex128])
def test_gradients_in_state_parameter_and_times(pair, gradient, dtype):
    rtol = 1e-6 if pair is Bosh3 else 1e-9

    def solve(k, x0, t):
        return integrate(Decay(k), x0, t, pair(rtol, rtol / 100, gradient=gradient)).x

    k = torch.tensor(0.7, dtype=torch.float64, requires_grad=True)
    x0 = X0.to(dtype).clone().requires_grad_()
    t = torch.tensor([0.0, 0.07, 0.13], dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(solve, (k, x0, t))
    if dtype == torch.float64 and pair is not Tsit5:
        assert torch.autograd.gradgradcheck(solve, (k, x0, t))


@pairs
@pytest.mark.parametrize("gradient", [Direct(), Checkpointed()], ids=["direct", "checkpointed"])
def test_gradients_follow_closed_forms(pair, gradient):
    """x = x0 exp(−k (sin t1 − sin t0)): every derivative is known."""
    k = torch.tensor(0.7, dtype=torch.float64, requires_grad=True)
    x0 = X0.clone().requires_grad_()
    t = torch.tensor([0.3, 1.0, 2.0], dtype=torch.float64, requires_grad=True)
    x = integrate(lambda s, x: -k * torch.cos(s) * x, x0, t, pair(1e-8, 1e-10, gradient=gradient)).x
    exact = x0 * torch.exp(-k * (torch.sin(t) - torch.sin(t[0])))[:, None, None]
    weight = torch.linspace(1, 2, x.numel(), dtype=torch.float64).view_as(x)
    ours = torch.autograd.grad((weight * x).sum(), (k, x0, t))
    for a, b in zip(ours, torch.autograd.grad((weight * exact).sum(), (k, x0, t)), strict=True):
        assert float((a - b).abs().max()) <= 1e-5


@pairs
def test_reverse_time_returns(pair):
    f = lambda t, x: (torch.cos(t) * x[1], -x[0])  # noqa: E731
    x0 = (X0, 2 * X0)
    there = integrate(f, x0, [0.0, 2.0], pair(1e-8, 1e-10)).final
    back = integrate(f, there, [2.0, 0.0], pair(1e-8, 1e-10)).final
    assert max(float((a - b).abs().max()) for a, b in zip(back, x0, strict=True)) <= 100 * 1e-8


def test_recorded_and_unrecorded_steps_agree():
    """In place without gradients, fresh tensors with them: the same numbers."""
    x0 = torch.randn(5, 2, generator=torch.Generator().manual_seed(0))
    f = lambda t, x: torch.sin(x) - t.float()  # noqa: E731
    with torch.no_grad():
        quick = integrate(f, x0, [0.0, 0.3, 2.0], Dopri5()).x
    slow = integrate(f, x0.clone().requires_grad_(), [0.0, 0.3, 2.0], Dopri5(gradient=Direct())).x
    assert torch.equal(quick, slow.detach())


def test_a_step_leaves_its_arguments_alone():
    x, slope = X0.clone(), -X0
    with torch.no_grad():
        trial = Dopri5().advance(lambda t, x: -x, 0.0, 0.1, (x, slope), 0.0)
    assert isinstance(trial, Trial)
    assert torch.equal(x, X0)
    assert torch.equal(slope, -X0)
    assert torch.equal(trial.stages[0], -X0)


def test_a_new_pair_is_a_tableau():
    solution = integrate(lambda t, x: -x, X0, [0.0, 0.5, 1.0], Heun(1e-6, 1e-8))
    assert float((solution.final - X0 * math.exp(-1)).abs().max()) <= 1e-4


@pytest.mark.filterwarnings("ignore")  # The compiler's own.
@pytest.mark.skipif(shutil.which("g++") is None and shutil.which("clang++") is None, reason="torch.compile needs a C++ compiler")
def test_whole_steps_compile():
    torch._dynamo.reset()
    k = torch.tensor(0.7, dtype=torch.float64, requires_grad=True)
    x0 = X0.clone().requires_grad_()
    f = Decay(k)
    solvers = (Heun(1e-4, 1e-6, compiled=c, gradient=Direct()) for c in (True, False))
    compiled, plain = (integrate(f, x0, [0.0, 0.4, 1.0], solver) for solver in solvers)
    assert compiled.stats.nfe == plain.stats.nfe
    assert torch.allclose(compiled.x, plain.x, rtol=1e-13, atol=0)
    assert compiled_step(Heun, f) is compiled_step(Heun, f)
    ours, theirs = (torch.autograd.grad(s.x.sum(), (k, x0)) for s in (compiled, plain))
    for a, b in zip(ours, theirs, strict=True):
        assert torch.allclose(a, b, rtol=1e-12, atol=0)


def test_a_compiled_solver_wants_something_to_remember_it_by():
    class Unhashable:
        __hash__ = None

        def __call__(self, t, x):
            return -x

    with pytest.raises(TypeError, match=r"compiled=True needs .* a Unhashable cannot: wrap it in a function"):
        integrate(Unhashable(), X0, [0.0, 1.0], Dopri5(compiled=True))


def test_a_compiled_solver_keeps_its_budget():
    f = torch.nn.Identity()
    known = compiled_step(Dopri5, f)
    assert callable(known)
    with pytest.raises(SolveError, match="budget of 3 evaluations"):
        integrate(lambda t, x: -x, X0, [0.0, 1.0], Dopri5(compiled=True, max_nfe=3, gradient=Direct()))
