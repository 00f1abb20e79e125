"""The contract: f is counted and checked, and its linear and nonlinear parts are taken at their word only once."""

import pytest
import torch

from integrators.ark324 import ARK324
from integrators.fixed import FixedStep
from integrators.integrate import integrate
from integrators.integrator import CountedRightHandSide, Integrator, LinearPart, Split, linear_part
from integrators.sbdf2 import SBDF2
from integrators.solution import SolveError, Statistics, Status
from integrators.state import combine
from integrators.watch import Watch

X = torch.tensor([[1.0], [2.0]], dtype=torch.float64)
ZERO = torch.tensor(0.0, dtype=torch.float64)


class Midpoint(FixedStep):
    """A user's scheme of order 2."""

    def step(self, f, t, x, h):
        return combine(x, h, [1.0], [f(t + h / 2, combine(x, h, [0.5], [f(t, x)]))])


def test_a_new_scheme_writes_step_and_has_everything_else(problem, observed_order):
    solutions = [integrate(problem.f, problem.x0, [0.0, 0.337, 1.0], Midpoint(dt=d)) for d in (1 / 32, 1 / 64, 1 / 128)]
    assert 1.8 <= observed_order([problem.error(s.t, s.x) for s in solutions]) <= 3.2


def test_an_integrator_must_solve():
    with pytest.raises(TypeError, match="abstract"):
        Integrator()
    with pytest.raises(NotImplementedError, match=r"FixedStep must define step\(self, f, t, x, h\)"):
        integrate(lambda t, x: -x, X, [0.0, 1.0], FixedStep(dt=0.1))


def test_evaluations_are_counted_forward_and_backward():
    stats = Statistics()
    f = CountedRightHandSide(lambda t, x: -x, X, stats, max_nfe=3)
    assert torch.equal(f(ZERO, X), -X)
    f.backward = True
    f(ZERO, X)
    f(ZERO, X)
    assert (stats.nfe, stats.nfe_backward) == (1, 2)


@pytest.mark.parametrize("inference", [False, True])
def test_a_number_reaches_f_as_a_scalar_tensor_in_double_precision(inference):
    seen = []
    with torch.inference_mode(inference):
        f = CountedRightHandSide(lambda t, x: seen.append(t) or -x, X.float(), Statistics(), max_nfe=3)
        f(0.1, X.float())
    assert (seen[0].dtype, seen[0].shape, float(seen[0])) == (torch.float64, (), 0.1)


@pytest.mark.parametrize(
    ("backward", "message"), [(False, "the solve reached t = 0 "), (True, "the backward solve of Adjoint reached")]
)
def test_the_budget_stops_before_the_evaluation(backward, message):
    calls = []
    f = CountedRightHandSide(lambda t, x: calls.append(t) or -x, X, Statistics(), max_nfe=2)
    f.backward = backward
    f(ZERO, X)
    f(ZERO, X)
    with pytest.raises(SolveError, match=message) as caught:
        f(ZERO, X)
    assert len(calls) == 2
    assert caught.value.status is Status.BUDGET


def test_a_watch_ends_the_evaluations_too():
    f = CountedRightHandSide(lambda t, x: -x, X, Statistics(), 10, Watch(max_seconds=0.0))
    with pytest.raises(SolveError, match="seconds") as caught:
        f(0.5, X)
    assert caught.value.status is Status.SECONDS


@pytest.mark.parametrize("t", [0.0, ZERO, torch.tensor(0.0, dtype=torch.float64, requires_grad=True)])
def test_a_value_that_is_not_finite_is_blamed_with_time_and_component(t):
    f = CountedRightHandSide(lambda t, x: x / torch.tensor([[1.0], [0.0]]), X, Statistics(), max_nfe=2)
    assert f.blame(t, X) == (
        "the right-hand side is not finite at t = 0 (inf at index [1, 0], and 1 of 2 entries are not finite)"
    )
    assert CountedRightHandSide(lambda t, x: x, X, Statistics(), max_nfe=2).blame(t, X) == ""


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_one_bad_entry_of_one_part_is_found(value):
    bad = torch.zeros(100, dtype=torch.complex128)
    bad[57] = complex(0, value)
    f = CountedRightHandSide(lambda t, x: (x[0], bad), (X, torch.zeros_like(bad)), Statistics(), max_nfe=2)
    assert "at part 1, index [57], and 1 of 100" in f.blame(ZERO, (X, torch.zeros_like(bad)))


def test_the_budget_is_told_where_the_times_need_gradients():
    """float() of a tensor that needs a gradient warns; the message must come all the same."""
    t = torch.tensor(0.5, dtype=torch.float64, requires_grad=True)
    with pytest.raises(SolveError, match=r"t = 0\.5"):
        CountedRightHandSide(lambda t, x: x, X, Statistics(), 0)(t, X)


def test_writing_into_the_argument_or_the_last_value_is_noticed():
    with pytest.raises(ValueError, match=r"changes its argument x in place"):
        CountedRightHandSide(lambda t, x: x.mul_(-1), X, Statistics(), 9)(0.0, X.clone())
    buffer = torch.zeros_like(X)
    f = CountedRightHandSide(lambda t, x: buffer.copy_(-x), X, Statistics(), 9)
    f(0.0, X)
    with pytest.raises(ValueError, match=r"writes into the tensor that it returned before.*clone"):
        f(0.0, X)


# -- The parts of f


class Semilinear(torch.nn.Module):
    """dx/dt = G x + sin(t) − x³."""

    def __init__(self, linear, nonlinear=lambda t, x: torch.sin(t) - x**3):
        super().__init__()
        self.linear = linear
        self.nonlinear = nonlinear

    def forward(self, t, x):
        return self.linear @ x + torch.sin(t) - x**3


def split(f, **options):
    return Split(CountedRightHandSide(f, X, Statistics(), 5), "Solver", **options)


def test_a_linear_part_is_given_or_refused_with_what_is_missing(linear):
    f = linear(torch.eye(2))
    assert linear_part(f, "Exponential") is f
    assert isinstance(f, LinearPart)
    with pytest.raises(TypeError, match=r"Exponential needs a linear .*Tanh exposes no linear part: use Dopri5 or RK4"):
        linear_part(torch.nn.Tanh(), "Exponential")
    f = torch.nn.Tanh()
    f.linear = torch.eye(2)
    with pytest.raises(TypeError, match=r"Tanh.linear must offer `@`, `norm_bound\(\)` and `solve\(shift, b\)`"):
        linear_part(f, "Exponential")


def test_an_affine_part_is_all_of_f_for_those_who_ask(linear):
    G = torch.tensor([[-1.0, 0.5], [0.0, -2.0]], dtype=torch.float64)
    f = Semilinear(linear(G), lambda t, x: torch.ones_like(x))
    f.affine = linear(2 * G)
    assert split(f).linear is f.linear
    assert split(f).rest is f.nonlinear
    assert split(f, affine=True).linear is f.affine
    assert split(f, whole=True, affine=True).rest is None
    with pytest.raises(TypeError, match="has a nonlinear part too"):
        split(f, whole=True)
    del f.affine
    assert split(f, affine=True).linear is f.linear


def test_the_parts_are_counted(linear):
    G = torch.tensor([[-1.0, 0.5], [0.0, -2.0]], dtype=torch.float64)
    s = split(Semilinear(linear(G)))
    assert torch.equal(s @ X, G @ X)
    assert torch.equal(s.nonlinear(0.5, X), torch.sin(torch.tensor(0.5, dtype=torch.float64)) - X**3)
    assert s.stats.nfe == 2
    solved = s.solve(0.1, X)
    assert torch.allclose(solved - 0.1 * G @ solved, X)
    s.solve(torch.tensor(0.1, dtype=torch.float64), X)
    s.solve(0.2, X)
    assert (s.stats.solves, s.stats.factorizations) == (3, 2)
    for _ in range(2):
        s.solve(0.1, X)
    with pytest.raises(SolveError, match="its budget of 5 linear solves: raise max_nfe"):
        s.solve(0.1, X)


def test_without_a_nonlinear_part_it_is_zero_and_free(linear):
    s = split(linear(torch.eye(2, dtype=torch.float64)), whole=True)
    assert torch.equal(s.nonlinear(0.0, X), 0 * X)
    assert s.stats.nfe == 0


def test_a_method_for_all_of_f_refuses_a_nonlinear_part(linear):
    message = r"Solver needs a linear right-hand side, and Semilinear has a nonlinear part too: use ARK324"
    with pytest.raises(TypeError, match=message):
        split(Semilinear(linear(torch.eye(2))), whole=True)


@pytest.mark.parametrize("t", [0.0, torch.tensor(0.3, dtype=torch.float64, requires_grad=True)])
@pytest.mark.parametrize("dtype", [torch.float64, torch.complex128])
def test_parts_that_are_what_f_says_pass_the_check(linear, t, dtype):
    G = torch.tensor([[-1.0, 0.5], [0.0, -2.0]], dtype=dtype)
    split(linear(G)).check(t, X.to(dtype))
    split(Semilinear(linear(G))).check(t, X.to(dtype))


def test_parts_that_are_not_what_f_says_are_refused_by_name(linear):
    G = torch.tensor([[-1.0, 0.5], [0.0, -2.0]], dtype=torch.float64)
    wrong = Semilinear(linear(G), lambda t, x: torch.sin(t) + x**3)
    message = r"Semilinear\.linear @ x \+ nonlinear\(t, x\) is not what Semilinear\(t, x\) gives: .*Mend"
    with pytest.raises(ValueError, match=message):
        split(wrong).check(0.0, X)
    whole = Semilinear(linear(G), None)
    with pytest.raises(ValueError, match=r"Semilinear\.linear @ x is not what"):
        split(whole).check(0.0, X)


def test_a_wrong_slow_component_does_not_hide_behind_a_stiff_one(linear):
    G = torch.diag(torch.tensor([-1.0, -1e8], dtype=torch.float64))
    wrong = Semilinear(linear(torch.diag(torch.tensor([-1.01, -1e8], dtype=torch.float64))), None)
    wrong.forward = lambda t, x: G @ x
    with pytest.raises(ValueError, match=r"differ by .* where the terms reach"):
        split(wrong).check(0.0, X)


def test_dropout_in_the_nonlinear_part_is_no_difference_and_no_dice_are_taken(linear):
    G, drop = torch.tensor([[-1.0, 0.5], [0.0, -2.0]], dtype=torch.float64), torch.nn.Dropout(0.5)
    random = Semilinear(linear(G), lambda t, x: drop(torch.tanh(x)))
    random.forward = lambda t, x: G @ x + random.nonlinear(t, x)
    before = torch.get_rng_state()
    for _ in range(5):
        split(random).check(0.0, torch.ones(40, 2, dtype=torch.float64)[:2])
        assert torch.equal(torch.get_rng_state(), before)
        torch.rand(1)
        before = torch.get_rng_state()


def test_an_overflow_in_a_step_shortens_adaptive_steps_and_is_a_typed_failure_of_fixed_ones(linear):
    """u' = −u + 1e3 u (1 − u²): the explicit part of a long step overflows before the implicit solve sees it."""

    class Strict(linear):
        def nonlinear(self, t, x):
            return 1e3 * x * (1 - x**2)

        def forward(self, t, x):
            return self @ x + self.nonlinear(t, x)

        def solve(self, shift, b):
            if not bool(torch.isfinite(b).all()):
                raise ValueError("as Laplacian.solve does")
            return super().solve(shift, b)

    f, x0 = Strict(-torch.eye(2, dtype=torch.float64)), torch.tensor([[3.0], [0.5]], dtype=torch.float64)
    with pytest.raises(SolveError, match=r"right-hand side that is not finite .* take a smaller dt") as caught:
        integrate(f, x0, [0.0, 5.0, 50.0], SBDF2(dt=5.0))
    assert caught.value.status is Status.DIVERGED
    assert caught.value.solution.t[0] == 0.0
    assert float((integrate(f, x0, [0.0, 5.0], ARK324(first_step=5.0)).final.abs() - 1).abs().max()) <= 1e-3
