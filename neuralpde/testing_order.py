"""`assert_order`: the order of convergence, in time or in space, from errors at a few resolutions."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from integrators import Integrator, integrate
from neuralpde.heat import Diffusion
from neuralpde.testing_measured import Measured, require
from neuralpde.testing_search import name_of
from operators import Graph, combinatorial_laplacian

ORDER_SLACK = 0.25


def assert_order(
    subject: Callable[[float], Any], p: float, steps: Sequence[float] | None = None, *, least: float = 1e-12
) -> Measured:
    """Assert that errors fall as hᵖ or faster.

    The observed order is the slope of log error over log h between neighbouring steps, the best of the last two pairs whose
    errors are above `least`, where round-off takes over. Tolerance: 0.25, what the next term of the expansion may change.

    Args:
        subject: h ↦ error, the largest difference from the exact solution at this step or spacing; or h ↦ integrator, such as
            the class `RK4` itself, which then solves an equation with a known solution: nonlinear, non-autonomous, with a linear
            part; linear where the method needs that; an oscillator of (q, p) where it needs two parts.
        p: the promised order.
        steps: falling; 1/8 … 1/64 by default for an integrator.

    Returns:
        What the observed order falls short of p, with the tolerance 0.25; `where` tells the errors.

    Raises:
        LawBrokenError: an AssertionError that tells step, error and slope.
        ValueError: fewer than two errors are above round-off.
    """
    __tracebackhide__ = True
    name = name_of(subject)
    steps = steps or [2.0**-k for k in range(2, 7)]
    if isinstance(subject(steps[0]), Integrator):
        problem = _problem(subject(steps[0]))
        integrator = subject

        def subject(h: float) -> float:
            return problem(integrator(h))

    errors = [float(subject(h)) for h in steps]
    told = ", ".join(f"{h:.3g}: {e:.2e}" for h, e in zip(steps, errors, strict=True))
    if not all(math.isfinite(e) and e >= 0 for e in errors):
        return require(Measured(f"order {p:g}", math.inf, ORDER_SLACK, "…", f"(errors {told})"), name)
    kept = [(h, e) for h, e in zip(steps, errors, strict=True) if e > least]
    if len(kept) < 2:
        raise ValueError(
            f"{name} has errors {told}: fewer than two are above {least:g}, so no order can be seen; take larger steps"
        )
    slopes = [math.log(a[1] / b[1]) / math.log(a[0] / b[0]) for a, b in itertools.pairwise(kept)]
    observed = max(slopes[-2:])
    where = f"(observed {observed:.2f}; errors by h {told})"
    rule = "what the next term of the expansion in h may change of an order"
    return require(Measured(f"converges with order {p:g}", max(0.0, p - observed), ORDER_SLACK, rule, where), name)


class _Nonlinear:
    """x' = G x + N(t, x) with the solution x_i(t) = cos(t + i) on a path of three nodes, and N quadratic in x."""

    def __init__(self) -> None:
        ends = torch.tensor([[0, 1], [1, 2]])
        path = Graph(torch.cat([ends, ends.flip(0)], 1), 3, torch.ones(4, dtype=torch.float64))
        self.linear = Diffusion(combinatorial_laplacian(path), torch.tensor(0.5, dtype=torch.float64))

    def __call__(self, t: Tensor, x: Tensor) -> Tensor:
        slope: Tensor = self.linear @ x + self.nonlinear(t, x)
        return slope

    def nonlinear(self, t: Tensor, x: Tensor) -> Tensor:
        exact = self.exact(t)
        slope: Tensor = -torch.sin(t + self.phase) - self.linear @ exact + (x**2 - exact**2) / 2
        return slope

    phase = torch.arange(3, dtype=torch.float64)[:, None]

    def exact(self, t: Any) -> Tensor:
        return torch.cos(torch.as_tensor(t, dtype=torch.float64) + self.phase)

    def error(self, solver: Integrator) -> float:
        solution = integrate(self, self.exact(0.0), [0.0, 1.0], solver)
        return float((_final(solution) - self.exact(1.0)).abs().max())


class _Linear(_Nonlinear):
    """x' = G x, against the matrix exponential."""

    nonlinear = None  # type: ignore[assignment]

    def __call__(self, t: Tensor, x: Tensor) -> Tensor:
        slope: Tensor = self.linear @ x
        return slope

    def error(self, solver: Integrator) -> float:
        x0 = self.exact(0.0)
        matrix = self.linear @ torch.eye(3, dtype=torch.float64)
        return float((_final(integrate(self, x0, [0.0, 1.0], solver)) - torch.linalg.matrix_exp(matrix) @ x0).abs().max())


class _Pendulum:
    """q' = p, p' = −q − q³, against a solution of much smaller steps."""

    linear = None
    nonlinear = None

    def drift(self, t: Tensor, p: Tensor) -> Tensor:
        return p

    def force(self, t: Tensor, q: Tensor) -> Tensor:
        return -q - q**3

    def __call__(self, t: Tensor, x: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        return self.drift(t, x[1]), self.force(t, x[0])

    def error(self, solver: Integrator) -> float:
        from integrators import Dopri5

        x0 = (torch.ones(1, 1, dtype=torch.float64), torch.zeros(1, 1, dtype=torch.float64))
        exact = integrate(self, x0, [0.0, 1.0], Dopri5(rtol=1e-13, atol=1e-14)).x
        found = integrate(self, x0, [0.0, 1.0], solver).x
        return max(float((a[-1] - b[-1]).abs().max()) for a, b in zip(found, exact, strict=True))


def _problem(solver: Integrator) -> Callable[[Integrator], float]:
    """The error on the first of the equations that the method takes."""
    told = []
    for problem in (_Nonlinear(), _Linear(), _Pendulum()):
        try:
            problem.error(solver)
        except (TypeError, ValueError, AttributeError, RuntimeError) as error:
            told.append(f"{type(problem).__name__.strip('_')}: {error}")
        else:
            return problem.error
    raise TypeError(f"{type(solver).__name__} solves none of the equations of this test: " + "; ".join(told))


def _final(solution: Any) -> Tensor:
    last: Tensor = solution.x[-1]
    return last
