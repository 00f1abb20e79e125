"""torchdiffeq's adaptive methods, with every failure typed and every gradient complete."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import ClassVar

import torch
import torchdiffeq
from torch import Tensor

from integrators.gradients import Adjoint, Direct, reachable_leaves
from integrators.integrator import CountedRightHandSide, Evaluate, Integrator
from integrators.solution import Solution, SolveError, SolverWarning, State, Statistics, Status
from integrators.state import Packing, parts_of


@dataclass(frozen=True)
class Adaptive(Integrator):
    """An embedded Runge–Kutta pair with step control by the local error.

    Args:
        rtol, atol: a step is accepted when the RMS over the state of error / (atol + rtol·|x|) is at most 1.
        gradient: `Direct()` (exact, the default) or `Adjoint()`.
        max_nfe: the budget of evaluations of the forward solve.
    """

    rtol: float = 1e-5
    atol: float = 1e-7
    gradient: Direct | Adjoint = field(default_factory=Direct)
    max_nfe: int = 100_000

    method: ClassVar[str]

    def __post_init__(self) -> None:
        for name, value in (("rtol", self.rtol), ("atol", self.atol)):
            if not (math.isfinite(value) and value > 0):
                raise ValueError(f"{name} must be positive and finite, not {value}")
        if not isinstance(self.gradient, (Direct, Adjoint)):
            raise TypeError(f"gradient must be Direct() or Adjoint(), not {self.gradient!r}")

    def solve(self, f: Evaluate, x0: State, t: Tensor) -> Solution:
        precision = torch.finfo(parts_of(x0)[0].dtype)
        if self.rtol < 4 * precision.eps:
            raise ValueError(
                f"rtol = {self.rtol:.1e} cannot be met in {precision.dtype} (round-off {precision.eps:.1e}), and the solver "
                f"would crawl: use float64, or rtol ≥ {4 * precision.eps:.1e}"
            )
        return _Solve(self, f, x0).run(t)


@dataclass(frozen=True)
class Dopri5(Adaptive):
    """Dormand and Prince's pair of orders 5 and 4 (1980), seven stages, by torchdiffeq."""

    method: ClassVar[str] = "dopri5"


@dataclass(frozen=True)
class Bosh3(Adaptive):
    """Bogacki and Shampine's pair of orders 3 and 2 (1989), four stages, by torchdiffeq. Cheap at loose tolerances."""

    method: ClassVar[str] = "bosh3"


class _Solve:
    """One solve. torchdiffeq reads the callbacks below by name."""

    def __init__(self, solver: Adaptive, f: Evaluate, x0: State) -> None:
        self.solver = solver
        self.f = f
        self.x0 = x0
        self.packing = Packing(x0)
        self.stats = Statistics()
        self.counted = CountedRightHandSide(f, x0, self.stats, solver.max_nfe)
        self.reached = -math.inf
        self.start = torch.zeros((), dtype=torch.float64)

    def __call__(self, t: Tensor, packed: Tensor) -> Tensor:
        # torchdiffeq rounds the time to the state's precision; counted from the start, it keeps its digits.
        return self.packing.pack(self.counted(self.start + t.double(), self.packing.unpack(packed)))

    def callback_step(self, t: Tensor, packed: Tensor, dt: Tensor) -> None:
        if not (t + dt > t and t - dt < t):  # torchdiffeq's assert for this is absent under python -O
            raise self._vanishing(f"underflow in dt {float(dt.detach())}")

    def callback_step_adjoint(self, t: Tensor, packed: object, dt: Tensor) -> None:
        if not (t + dt > t and t - dt < t):
            raise SolveError(
                f"the backward solve of Adjoint stopped at t = {float((self.start + t).detach()):.6g}: its step became too small "
                "to matter. Diffusion cannot be solved backwards stably: use gradient=Direct()",
                Status.DIVERGED,
            )

    def _vanishing(self, reason: str) -> SolveError:
        return SolveError(
            f"the solve stopped at t = {self.reached:.6g} after {self.stats.accepted} steps: {reason}. The step became "
            "too small to matter, because the solution is singular, discontinuous or stiff there",
            Status.DIVERGED,
        )

    def callback_accept_step(self, t: Tensor, packed: Tensor, dt: Tensor) -> None:
        self.stats.accepted += 1
        self.reached = float((self.start + t + dt).detach())

    def callback_reject_step(self, t: Tensor, packed: Tensor, dt: Tensor) -> None:
        self.stats.rejected += 1

    def run(self, t: Tensor) -> Solution:
        # Detached, it only moves the origin: the gradient in t flows through t − start.
        self.start = t[0].detach()
        try:
            gradient = self.solver.gradient
            packed = self._with_adjoint(t, gradient) if isinstance(gradient, Adjoint) else self._direct(t)
        except SolveError as error:
            error.solution = self._reached_states(t, error.status)
            raise
        except AssertionError as error:
            failure = self._vanishing(str(error))
            failure.solution = self._reached_states(t, failure.status)
            raise failure from error
        return Solution(t, self.packing.unpack(packed), self.stats)

    def _options(self, t: Tensor) -> dict[str, Tensor]:
        """Bosh3 steps to every output time: torchdiffeq's interpolant for it is of order 1, far below its steps."""
        return {"step_t": t.detach() - self.start} if self.solver.method == "bosh3" else {}

    def _direct(self, t: Tensor) -> Tensor:
        return self._odeint(self, self.packing.pack(self.x0), t)

    def _odeint(self, f: Callable[[Tensor, Tensor], Tensor], x0: Tensor, t: Tensor) -> Tensor:
        solver = self.solver
        packed: Tensor = torchdiffeq.odeint(
            f, x0, t - self.start, rtol=solver.rtol, atol=solver.atol, method=solver.method, options=self._options(t)
        )
        return packed

    def _with_adjoint(self, t: Tensor, gradient: Adjoint) -> Tensor:
        solver = self.solver
        if getattr(self.f, "dissipative", False):
            warnings.warn(
                f"Adjoint solves {type(self.f).__name__} backwards in time, and it is dissipative, so that solve is "
                "unstable: prefer gradient=Direct(), the exact gradient",
                SolverWarning,
                stacklevel=5,
            )
        leaves = reachable_leaves(self.f, t[0], self.x0)
        self.stats.nfe += 1
        precision = parts_of(self.x0)[0].real.dtype
        for leaf in leaves:
            if torch.promote_types(leaf.dtype, precision) != precision:
                raise TypeError(
                    f"Adjoint solves for the gradients in the state's precision, {precision}, and cannot hold that of a "
                    f"{leaf.dtype} parameter: use gradient=Direct(), or another dtype"
                )
        packed: Tensor = torchdiffeq.odeint_adjoint(
            self,
            self.packing.pack(self.x0),
            t - self.start,
            rtol=solver.rtol,
            atol=solver.atol,
            method=solver.method,
            options=self._options(t),
            adjoint_options={},
            adjoint_params=leaves,
            adjoint_rtol=gradient.rtol or solver.rtol,
            adjoint_atol=gradient.atol or solver.atol,
        )
        self.counted.backward = True
        self.counted.max_nfe = gradient.max_nfe
        if packed.requires_grad:
            packed.register_hook(_refuse_second_order)  # type: ignore[no-untyped-call]
        return packed

    def _reached_states(self, t: Tensor, status: Status) -> Solution:
        """The states at the output times before the failure, computed again: torchdiffeq drops them with its error."""
        times = t[t.detach() <= self.reached] if self.reached > -math.inf else t[:1]
        first = self.packing.pack(self.x0).detach()
        if len(times) < 2:
            return Solution(t[:1], self.packing.unpack(first[None]), self.stats, status)
        fresh = CountedRightHandSide(self.f, self.x0, Statistics(), self.stats.nfe + 10)
        try:
            with torch.no_grad():
                packed = self._odeint(
                    lambda s, x: self.packing.pack(fresh(self.start + s.double(), self.packing.unpack(x))), first, times.detach()
                )
        except (SolveError, AssertionError):
            # A random right-hand side need not repeat itself; the failure to report is the first one.
            return Solution(t[:1], self.packing.unpack(first[None]), self.stats, status)
        return Solution(times, self.packing.unpack(packed), self.stats, status)


def _refuse_second_order(grad: Tensor) -> None:
    """torchdiffeq's adjoint returns gradients without a graph, so that what depends on them would silently get none."""
    if torch.is_grad_enabled():
        raise NotImplementedError("Adjoint has no second derivatives (create_graph=True): use gradient=Direct()")
