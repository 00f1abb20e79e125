"""Steps that are implicit in a linear part frozen at the state: for nonlinear diffusion, moving surfaces, phase fields."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Protocol, runtime_checkable

import torch
from torch import Tensor

from integrators import FixedStep, LinearPart, SolveError, State, Status
from integrators.integrator import CountedRightHandSide, Split
from integrators.solution import Time
from integrators.state import combine, first_bad, number


@runtime_checkable
class Lagged(Protocol):
    """A right-hand side f whose stiff part is linear once its coefficients are frozen."""

    def lagged(self, t: Tensor, x: Any) -> tuple[LinearPart, Any]:
        """G with its coefficients as at (t, x), and f(t, x) − G x, or None where that is zero."""


@dataclass(frozen=True)
class SemiImplicitEuler(FixedStep):
    """x' = (I − h G)⁻¹ (x + h N), with f(t, x) = G x + N and G frozen as it is at the beginning (t, x) of the step. Order 1.

    With N = 0 it is the step of lagged diffusivity (Vogel and Oman 1996, SIAM J. Sci. Comput. 17) and of semi-implicit
    mean-curvature flow (Dziuk 1990, Numer. Math. 58); with a constant G the implicit-explicit Euler step, and with a
    stabilised phase field that of Eyre (1998). One factor and one solve a step, and no Newton iteration. Where the right-hand
    side keeps mass or a maximum principle by its weights, as `PLaplacian` and `PeronaMalik` do, so does every step, however
    long.

    Args:
        dt: the largest step.

    Raises:
        TypeError: f has neither `lagged(t, x)` nor `linear`.
    """

    order: ClassVar[int] = 1

    def prepare(self, f: CountedRightHandSide, t: float, x0: State) -> Frozen:
        return Frozen(f)

    def step(self, f: Frozen, t: Time, x: State, h: Time) -> State:
        shift = h if isinstance(h, Tensor) else torch.tensor(h, dtype=torch.float64, device=f.f.device)
        part, rest = f.at(t, x)
        b = x if rest is None else combine(x, h, [1.0], [rest])
        try:
            new: State = part.solve(shift, b)
        except ValueError as error:
            bad = first_bad(b)
            cause = f"the right-hand side is not finite ({bad})" if bad else f"the frozen equation cannot be solved ({error})"
            message = f"the solve diverged: {cause} in the step from t = {number(t):.6g}. Take a smaller dt, or end before it"
            raise SolveError(message, Status.DIVERGED) from error
        f.f.stats.solves += 1
        return new


class Frozen:
    """A right-hand side with its linear part: one and the same where there is a constant one, else as it is at (t, x)."""

    def __init__(self, f: CountedRightHandSide) -> None:
        self.f = f
        self.constant: Split | None = None
        if getattr(f.f, "linear", None) is not None:
            self.constant = Split(f, "SemiImplicitEuler")
            f.stats.factorizations += 1
        elif not isinstance(f.f, Lagged):
            raise TypeError(
                f"SemiImplicitEuler needs a linear part, and {type(f.f).__name__} has neither lagged(t, x) nor `linear`: "
                "use BackwardEuler, SDIRK3 or RKC2"
            )

    def at(self, t: Time, x: State) -> tuple[LinearPart, State | None]:
        """G as it is at (t, x), and what is left of f."""
        if self.constant is not None:
            return self.constant.linear, None if self.constant.rest is None else self.constant.nonlinear(t, x)
        self.f.stats.nfe += 1
        self.f.stats.factorizations += 1
        lagged: tuple[LinearPart, State | None] = self.f.f.lagged(t if isinstance(t, Tensor) else self.f.time(t), x)  # type: ignore[attr-defined]
        return lagged
