"""torchdiffeq's methods behind our objects: engine.Dopri8(rtol=1e-9) and the like.

Several have the name of a solver of our own, so they are used from this module. What torchdiffeq does wrong without a word is
mended or refused: steps that no one chose, coarse interpolation at output times, steps accepted whatever their error, multistep
formulas on uneven grids or of an order that diverges, gradients that are dropped, results that are not finite, endless loops.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import ClassVar

import scipy.integrate
import torch
from torch import Tensor
from torchdiffeq._impl.odeint import SOLVERS

from integrators.adjoint import Adjoint
from integrators.captured import reached_tensors
from integrators.engine_base import AdaptiveEngine, Engine, GridEngine, Interpolation, Options, positive, whole
from integrators.engine_solve import UNCONVERGED, Piece, SciPyPiece, Solve, resolved
from integrators.gradients import Direct, GradientMode
from integrators.integrator import Evaluate
from integrators.solution import Solution, State
from integrators.state import parts_of
from integrators.watch import Watch

__all__ = [
    "RK4", "AdaptiveHeun", "Bosh3", "Dopri5", "Dopri8", "Euler", "ExplicitAdams", "Fehlberg2", "Heun2", "Heun3", "ImplicitAdams",
    "Interpolation", "Midpoint", "SciPy",
]  # fmt: skip


class Dopri5(AdaptiveEngine):
    """Dormand and Prince's pair of orders 5 and 4 (1980), seven stages, with an interpolant of order 4."""

    name: ClassVar[str] = "dopri5"
    steps_to_outputs: ClassVar[bool] = False


class Dopri8(AdaptiveEngine):
    """Dormand and Prince's pair of orders 8 and 7 (Prince and Dormand 1981), thirteen stages."""

    name: ClassVar[str] = "dopri8"


class Bosh3(AdaptiveEngine):
    """Bogacki and Shampine's pair of orders 3 and 2 (1989), four stages."""

    name: ClassVar[str] = "bosh3"


class Fehlberg2(AdaptiveEngine):
    """Fehlberg's pair of orders 2 and 1 (1969), three stages."""

    name: ClassVar[str] = "fehlberg2"


class AdaptiveHeun(AdaptiveEngine):
    """Heun's method of order 2 with Euler's as its error estimate, two stages."""

    name: ClassVar[str] = "adaptive_heun"


class Euler(GridEngine):
    """x' = x + h f(t, x). Order 1."""

    name: ClassVar[str] = "euler"


class Midpoint(GridEngine):
    """x' = x + h f(t + h/2, x + h/2 f(t, x)) (Runge 1895). Order 2."""

    name: ClassVar[str] = "midpoint"


class Heun2(GridEngine):
    """The explicit trapezoidal rule (Heun 1900). Order 2."""

    name: ClassVar[str] = "heun2"


class Heun3(GridEngine):
    """Heun's method of order 3 (1900), three stages."""

    name: ClassVar[str] = "heun3"


class RK4(GridEngine):
    """Kutta's 3/8 rule (1901). Order 4; not the classical method, which is `integrators.RK4`."""

    name: ClassVar[str] = "rk4"


@dataclass(frozen=True, kw_only=True)
class _Adams(GridEngine):
    """Steps stay even from jump to jump, as the formulas ask; output times are interpolated, or end the grid.

    Args:
        max_order: how many derivatives a step uses, from 4 to 12. torchdiffeq's default of 12 diverges even on dx/dt = −x.
    """

    interp: Interpolation = Interpolation.CUBIC
    max_order: int = 4

    def __post_init__(self) -> None:
        super().__post_init__()
        whole(max_order=self.max_order)
        if not 4 <= self.max_order <= 12:
            raise ValueError(f"max_order must lie between 4 and 12, not {self.max_order}: below 4 torchdiffeq takes RK4 instead")
        if self.interp is Interpolation.NONE:
            raise ValueError("a multistep method needs even steps, so output times must be interpolated: Interpolation.CUBIC")

    def options(self, solve: Solve, times: Tensor, first: float | None) -> Options:
        return {**super().options(solve, times, first), "max_order": self.max_order}


class ExplicitAdams(_Adams):
    """Adams and Bashforth's method of order max_order − 1 (1883), started by RK4; one evaluation a step."""

    name: ClassVar[str] = "explicit_adams"


@dataclass(frozen=True, kw_only=True)
class ImplicitAdams(_Adams):
    """Adams and Moulton's method of order max_order, solved by functional iteration: not for stiff equations.

    Args:
        rtol, atol: when the iteration has converged.
        max_iters: iterations at most; a SolveError where they do not suffice (torchdiffeq goes on with a warning).
    """

    rtol: float = 1e-7
    atol: float = 1e-9
    max_iters: int = 10

    name: ClassVar[str] = "implicit_adams"
    cure: ClassVar[str] = (
        "steps below about 1 / ‖∂f/∂x‖, which functional iteration needs: a smaller step_size, more max_iters, or a solver for "
        "stiff equations such as SDIRK3"
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        positive(rtol=self.rtol, atol=self.atol)
        whole(max_iters=self.max_iters)

    def tolerances(self, x0: State) -> tuple[float, float]:
        least = 4 * torch.finfo(parts_of(x0)[0].dtype).eps
        return max(self.rtol, least), self.atol

    @contextmanager
    def guard(self) -> Iterator[None]:
        with warnings.catch_warnings():
            warnings.filterwarnings("error", UNCONVERGED, UserWarning)
            yield

    def options(self, solve: Solve, times: Tensor, first: float | None) -> Options:
        return {**super().options(solve, times, first), "max_iters": self.max_iters}


@dataclass(frozen=True, kw_only=True)
class SciPy(Engine):
    """One of SciPy's solvers, by torchdiffeq's bridge: on the CPU, in real or paired arithmetic, without recorded steps.

    Args:
        rtol, atol: relative and absolute tolerance of the local error.
        solver: the class of the solver, such as `scipy.integrate.Radau`.
        max_step: the longest step.
        gradient: `Adjoint()`; a gradient through SciPy's own steps does not exist.
    """

    rtol: float = field(default=1e-5, kw_only=False)
    atol: float = field(default=1e-7, kw_only=False)
    solver: type[scipy.integrate.OdeSolver] = scipy.integrate.LSODA
    max_step: float = math.inf
    gradient: GradientMode = field(default_factory=Adjoint)

    name: ClassVar[str] = "scipy_solver"
    piece: ClassVar[type[Piece]] = SciPyPiece

    def __post_init__(self) -> None:
        super().__post_init__()
        positive(rtol=self.rtol, atol=self.atol)
        if not self.max_step > 0:
            raise ValueError(f"max_step must be positive, not {self.max_step}")
        if not (isinstance(self.solver, type) and issubclass(self.solver, scipy.integrate.OdeSolver)):
            raise TypeError(f"solver must be a class such as scipy.integrate.Radau, not {self.solver!r}")

    def solve(self, f: Evaluate, x0: State, t: Tensor, watch: Watch) -> Solution:
        if watch.max_steps < math.inf or watch.history:
            raise TypeError("SciPy's solvers do not show their steps to count or keep: use max_nfe or max_seconds, no history")
        if isinstance(self.gradient, Direct) and torch.is_grad_enabled():
            reached, _ = reached_tensors(f, t[0], x0)
            if any(part.requires_grad for part in (*parts_of(x0), t, *reached)):
                raise TypeError("SciPy's steps leave no graph, so the gradient would be dropped: use gradient=Adjoint()")
        return super().solve(f, x0, t, watch)

    def tolerances(self, x0: State) -> tuple[float, float]:
        return resolved(self.rtol, self.atol, x0)

    @contextmanager
    def guard(self) -> Iterator[None]:
        with warnings.catch_warnings():
            # torchdiffeq hands `min_step` to every solver, and only LSODA has one.
            warnings.filterwarnings("ignore", "[^.]*no effect for a chosen solver", UserWarning)
            yield

    def options(self, solve: Solve, times: Tensor, first: float | None) -> Options:
        return {"solver": self.solver, "max_step": self.max_step}


if "tsit5" in SOLVERS:

    class Tsit5(AdaptiveEngine):
        """Tsitouras's pair of orders 5 and 4 (2011), where the installed torchdiffeq has it."""

        name: ClassVar[str] = "tsit5"
