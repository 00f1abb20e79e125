"""f = G x + N as implicit-explicit methods see it: parts that are checked, counted and blamed."""

import pytest
import torch

from integrators.ark324 import ARK324
from integrators.imex import Additive
from integrators.integrate import integrate
from integrators.integrator import CountedRightHandSide
from integrators.sbdf2 import SBDF2
from integrators.solution import SolveError, Statistics, Status

X0 = torch.tensor([[0.3], [0.5], [0.8]], dtype=torch.float64)
G = torch.tensor([[-2.0, 1.0, 0.0], [1.0, -2.0, 1.0], [0.0, 1.0, -2.0]], dtype=torch.float64)
methods = pytest.mark.parametrize("method", [SBDF2(dt=0.1), ARK324()], ids=lambda m: type(m).__name__)


class Semilinear:
    """dx/dt = G x + N(t, x), with mistakes to order."""

    def __init__(self, *, times=1.0, after=float("inf")):
        self.times, self.after = times, after

    linear = property(lambda self: self)

    def __call__(self, t, x):
        return G @ x + self.nonlinear(t, x) * self.times

    def nonlinear(self, t, x):
        return (torch.sin(t) - x**2) / (1.0 if t < self.after else 0.0)

    def __matmul__(self, x):
        return G @ x

    def norm_bound(self):
        return 4.0

    def solve(self, shift, b):
        return torch.linalg.solve(torch.eye(3, dtype=torch.float64) - shift * G, b)


def test_the_parts_are_counted_and_the_whole_is_f():
    stats = Statistics()
    f = Additive(CountedRightHandSide(Semilinear(), X0, stats, 100), "a test", 0.0, X0)
    assert torch.allclose(f(0.3, X0), f @ X0 + f.nonlinear(0.3, X0), rtol=1e-14, atol=1e-15)
    assert torch.allclose(X0, f.solve(0.1, X0 - 0.1 * (G @ X0)), rtol=1e-14, atol=0)
    assert (stats.nfe, stats.solves, stats.factorizations) == (3, 1, 1)


@methods
def test_without_a_linear_part_it_is_a_type_error_that_names_the_cure(method):
    with pytest.raises(TypeError, match=rf"{type(method).__name__} needs a linear part, .*(use|give)"):
        integrate(lambda t, x: -x, X0, [0.0, 1.0], method)


@methods
def test_parts_that_are_not_f_are_refused(method):
    with pytest.raises(ValueError, match=r"linear @ x \+ nonlinear\(t, x\) is not what Semilinear\(t, x\) gives"):
        integrate(Semilinear(times=1.5), X0, [0.0, 1.0], method)


class Strict(Semilinear):
    """One whose solves refuse what is not finite, as sparse factors do."""

    def solve(self, shift, b):
        if not bool(torch.isfinite(b).all()):
            raise ValueError("not finite")
        return super().solve(shift, b)


@pytest.mark.parametrize("method", [SBDF2(dt=0.1), ARK324(), ARK324(dt=0.1)], ids=["SBDF2", "adaptive", "fixed"])
def test_a_solve_that_refuses_what_is_not_finite_is_a_solve_error_too(method):
    with pytest.raises(SolveError, match="diverged") as caught:
        integrate(Strict(after=0.5), X0, [0.0, 0.2, 1.0], method)
    assert caught.value.status is Status.DIVERGED
    assert caught.value.solution.t.tolist() == [0.0, 0.2]


def test_other_errors_of_a_solve_are_passed_on():
    class Broken(Semilinear):
        def solve(self, shift, b):
            raise ValueError("a singular shift")

    with pytest.raises(ValueError, match="a singular shift"):
        integrate(Broken(), X0, [0.0, 1.0], SBDF2(dt=0.1))


@methods
def test_a_nonlinear_part_that_is_not_finite_is_a_solve_error_that_keeps_what_was_reached(method):
    with pytest.raises(SolveError, match="diverged") as caught:
        integrate(Semilinear(after=0.5), X0, [0.0, 0.2, 1.0], method)
    assert caught.value.status is Status.DIVERGED
    assert caught.value.solution.t.tolist() == [0.0, 0.2]
