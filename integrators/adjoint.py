"""The continuous adjoint: a second equation solved backwards in time, in constant memory."""

from __future__ import annotations

import itertools
import math
import sys
import warnings
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from integrators.captured import Known, Surroundings, leaves_of, quiet, reached_tensors
from integrators.gradients import Direct, GradientMode, Recipe, transformed
from integrators.integrator import Evaluate, Integrator
from integrators.norms import ErrorNorm
from integrators.solution import Solution, SolveError, SolverWarning, State, Statistics, Status
from integrators.state import parts_of, state_map
from integrators.watch import Watch

if TYPE_CHECKING:
    from integrators.method import Method

Parts = tuple[Tensor, ...]

CURE = (
    "Diffusion cannot be solved backwards stably: use gradient=Checkpointed(), which is exact, or Interpolated(), or a smaller "
    "tolerance"
)
# How far, in tolerances, the backward solve may end from the state that it should come back to.
SLACK = 100.0
POWER_STEPS = 12


@dataclass(frozen=True)
class Adjoint(GradientMode):
    """The continuous adjoint (Pontryagin; Chen et al. 2018, NeurIPS): with a = ∂L/∂x, solve backwards from output to output

        dx/dt = f,   da/dt = −(∂f/∂x)ᵀ a,   dL/dθ = ∫ (∂f/∂θ)ᵀ a dt

    by the solver itself where it is explicit, and by Dopri5 otherwise, in memory that does not grow with the steps. The
    gradient is that of the exact solution, so it agrees with that of the discrete one to the tolerance only. Every tensor with
    a gradient that f reaches is included: parameters, tensors captured by a closure, and those computed outside.

    A trap for diffusion, which solved backwards is unstable: where the decay λ Δt between two outputs exceeds 10, or f says
    that it is `dissipative`, the solve warns; a backward solve that does not return to the states of the forward solve, or
    spends its budget, raises a SolveError. Use `Checkpointed()` or `Interpolated()` there.

    Works for any integrator that is a dataclass with a `gradient`. Second derivatives raise NotImplementedError.

    Args:
        rtol, atol: tolerances of the backward solve; those of the solver if absent.
        max_nfe: the budget of the backward solve, in evaluations of f with its derivative.
        seminorm: leave the integrals ∫ (∂f/∂θ)ᵀ a out of the error norm (Kidger et al. 2021, ICML); refused for dissipative
            flows, where it can give gradients that are wrong by any factor.
    """

    rtol: float | None = None
    atol: float | None = None
    max_nfe: int = 20_000
    seminorm: bool = False

    def __post_init__(self) -> None:
        check_limits(self.rtol, self.atol, self.max_nfe)

    def run(self, method: Method, f: Evaluate, x0: State, t: Tensor, watch: Watch) -> Solution:
        plain = replace(method, gradient=Direct())
        if not torch.is_grad_enabled():
            return plain.solve(f, x0, t, watch)
        refuse(self, watch)
        captured, around = reached_tensors(f, t[0], x0)
        if not any(part.requires_grad for part in (*parts_of(x0), t, *captured)):
            return plain.solve(f, x0, t, watch)
        require_deterministic(around, self)
        back = backward_solver(plain, self.rtol, self.atol)
        if self.seminorm and not hasattr(back, "norm"):
            raise ValueError(f"seminorm=True needs a solver that controls its error by a norm, not {type(method).__name__}")
        recipe = _Backsolve(back, self, plain, f, x0, t, watch, captured, around)
        recipe.check_decay()
        return recipe.attach(x0, t)


class Continuous(Recipe):
    """A gradient by the adjoint equation: the forward solve, the derivative of f, and the march over the outputs."""

    def __init__(
        self,
        settings: Any,
        method: Any,
        f: Evaluate,
        x0: State,
        t: Tensor,
        watch: Watch,
        captured: list[Tensor],
        around: Surroundings,
    ) -> None:
        super().__init__(x0, captured)
        self.around = around
        self.settings, self.method, self.f, self.watch = settings, method, f, watch
        self.x0: State = state_map(torch.Tensor.detach, x0)
        self.t = t.detach()
        self.stats = Statistics()
        self.searched = Statistics(nfe=around.evaluations)

    def solve(self) -> Solution:
        solution: Solution = self.method.solve(self.f, self.x0, self.t, self.watch)
        self.stats = solution.stats
        self.stats.nfe += self.searched.nfe
        self.stats.nvp += self.searched.nvp
        return solution

    def kept(self, solution: Solution) -> list[Tensor]:
        return list(parts_of(solution.x))

    def spend(self, t: Tensor) -> None:
        """Count a backward evaluation."""
        self.stats.nfe_backward += 1
        if self.stats.nfe_backward > self.settings.max_nfe:
            name = type(self.settings).__name__
            raise SolveError(
                f"the backward solve of {name} reached t = {float(t):.6g} and spent its budget of {self.settings.max_nfe} "
                f"evaluations. {CURE}, or raise {name}(max_nfe=...)",
                Status.BUDGET,
            )

    def derivative(self, s: Tensor, x: Parts, a: Parts, known: Known) -> tuple[Parts, list[Tensor], list[Tensor]]:
        """f(s, x), (∂f/∂x)ᵀ a and (∂f/∂θ)ᵀ a."""
        self.spend(s)
        with torch.enable_grad():
            probe = leaves_of(x)
            dx = self.f(s.detach(), self.state(probe))
        starts = parts_of(probe)
        inputs = [*starts, *self.captured]
        pairs = [(part, weight) for part, weight in zip(parts_of(dx), a, strict=True) if part.requires_grad]
        found: list[Tensor | None] = [None] * len(inputs)
        if pairs:
            roots = [part for part, _ in pairs]
            known.require(roots, starts)
            weights = [weight for _, weight in pairs]
            found = list(torch.autograd.grad(roots, inputs, weights, retain_graph=self.around.shared, allow_unused=True))
        full = [torch.zeros_like(part) if g is None else g for part, g in zip(inputs, found, strict=True)]
        return tuple(part.detach() for part in parts_of(dx)), full[: self.count], full[self.count :]

    def pull(self, grads: list[Tensor | None], t: Tensor, x0: State, kept: list[Tensor]) -> list[Tensor | None]:
        x = tuple(kept[: self.count])
        a = tuple(torch.zeros_like(part[0]) for part in x)
        theta = [torch.zeros_like(part) for part in self.captured]
        in_t = torch.zeros_like(t) if t.requires_grad else None
        known = Known(self.captured)
        with self.around.again(), quiet(self.captured), torch.no_grad():
            for j in range(len(x[0]) - 1, 0, -1):
                here, there = tuple(part[j] for part in x), tuple(part[j - 1] for part in x)
                if in_t is not None:
                    in_t[j] = self._slope(t[j], here, [None if g is None else g[j] for g in grads])
                a = tuple(part if g is None else part + g[j] for part, g in zip(a, grads, strict=True))
                a, theta = self.back(j, here, there, a, theta, known)
            if in_t is not None:
                in_t[0] = -self._slope(t[0], tuple(part[0] for part in x), list(a))
            a = tuple(part if g is None else part + g[0] for part, g in zip(a, grads, strict=True))
        return [in_t, *a, *theta]

    def _slope(self, s: Tensor, x: Parts, a: list[Tensor | None]) -> float:
        """Re ⟨a, f(s, x)⟩."""
        if all(part is None for part in a):
            return 0.0
        self.spend(s)
        dx = parts_of(self.f(s.detach(), self.state(x)))
        return sum(float((w.conj() * part).real.sum()) for w, part in zip(a, dx, strict=True) if w is not None)

    def back(
        self, j: int, here: Parts, there: Parts, a: Parts, theta: list[Tensor], known: Known
    ) -> tuple[Parts, list[Tensor]]:
        """a and the gradient in θ at t[j − 1], from those at t[j]; x is `here` at t[j] and `there` at t[j − 1]."""
        raise NotImplementedError

    def solve_back(self, solver: Integrator, f: Any, y: Any, j: int, dense: bool = False) -> Solution:
        """Solve from t[j] to t[j − 1]."""
        times = torch.stack([self.t[j], self.t[j - 1]])
        try:
            return solver.solve(f, y, times, Watch(jumps=self.watch.jumps, dense=dense))
        except SolveError as error:
            if error.status is Status.BUDGET:
                raise
            name = type(self.settings).__name__
            raise SolveError(f"the backward solve of {name} failed ({error}). {CURE}", error.status) from error


class _Backsolve(Continuous):
    def __init__(self, back: Any, *args: Any) -> None:
        super().__init__(*args)
        self.solver = back
        if self.settings.seminorm:
            self.solver = replace(back, norm=_First(back.norm, 2 * self.count))

    def back(
        self, j: int, here: Parts, there: Parts, a: Parts, theta: list[Tensor], known: Known
    ) -> tuple[Parts, list[Tensor]]:
        n = self.count

        def augmented(s: Tensor, y: Parts) -> Parts:
            dx, da, dtheta = self.derivative(s, y[:n], y[n : 2 * n], known)
            return (*parts_of(dx), *(-part for part in da), *(-part for part in dtheta))

        final = self.solve_back(self.solver, augmented, (*here, *a, *theta), j).final
        self._require_return(final[:n], there, j)  # type: ignore[arg-type]
        return tuple(final[n : 2 * n]), list(final[2 * n :])

    def _require_return(self, found: Parts, there: Parts, j: int) -> None:
        """The backward solve must come back to the state of the forward one."""
        # A fixed step has no tolerance; its error may be a tenth of the state.
        rtol, atol = (max(getattr(s, name, 1e-3) for s in (self.method, self.solver)) for name in ("rtol", "atol"))
        for part, expected in zip(found, there, strict=True):
            off = float((part - expected).abs().max())
            allowed = SLACK * (atol + rtol * float(expected.abs().max()))
            if not off <= allowed:
                raise SolveError(
                    f"the backward solve of Adjoint is not to be trusted: at t = {float(self.t[j - 1]):.6g} it is {off:.3g} away "
                    f"from the state of the forward solve, where {allowed:.3g} is allowed. {CURE}, or ask for more outputs in t",
                    Status.DIVERGED,
                )

    def check_decay(self) -> None:
        """Warn of a solve that is unstable backwards; refuse the seminorm on it."""
        name = type(self.f).__name__
        dissipative = bool(getattr(self.f, "dissipative", False))
        times = self.t.tolist()
        longest = max(abs(b - a) for a, b in itertools.pairwise(times))
        rate, _ = self.dominant(self.t[0], parts_of(self.x0))
        decay = -rate * longest * (1.0 if times[-1] > times[0] else -1.0)
        if self.settings.seminorm and (dissipative or decay > 2):
            raise ValueError(
                f"Adjoint(seminorm=True) on {name}, which is dissipative (λ Δt ≈ {decay:.3g} between two outputs), can return "
                "gradients that are wrong by any factor: leave seminorm=False, or better use gradient=Checkpointed()"
            )
        if dissipative or decay > 10:
            warnings.warn(
                f"Adjoint solves {name} backwards in time, and it is dissipative (λ Δt ≈ {decay:.3g} between two outputs), so "
                "that solve is unstable: prefer gradient=Checkpointed(), the exact gradient, or Interpolated()",
                SolverWarning,
                stacklevel=outside(),
            )

    def dominant(self, t: Tensor, x: Parts) -> tuple[float, float]:
        """Rayleigh quotient and size of the dominant eigenvalue of ∂f/∂x, by a few power iterations."""
        with torch.enable_grad():
            probe = leaves_of(x)
            dx = parts_of(self.f(t, self.state(probe)))
        self.searched.nfe += 1
        starts = parts_of(probe)
        roots = [part for part in dx if part.requires_grad]
        generator = torch.Generator().manual_seed(0)
        v = [torch.randn(part.shape, generator=generator, dtype=part.dtype).to(part.device) for part in starts]
        rate = size = 0.0
        for _ in range(POWER_STEPS if roots else 0):
            norm = math.sqrt(sum(float(part.abs().square().sum()) for part in v))
            if not (math.isfinite(norm) and norm > 0):
                break
            v = [part / norm for part in v]
            weights = [w for w, part in zip(v, dx, strict=True) if part.requires_grad]
            found = torch.autograd.grad(roots, starts, weights, retain_graph=True, allow_unused=True)
            self.searched.nvp += 1
            w = [torch.zeros_like(part) if g is None else g for part, g in zip(starts, found, strict=True)]
            rate = sum(float((p.conj() * q).real.sum()) for p, q in zip(v, w, strict=True))
            size = math.sqrt(sum(float(part.abs().square().sum()) for part in w))
            v = w
        return rate, size


@dataclass(frozen=True)
class _First(ErrorNorm):
    """The norm over the first parts of a state only."""

    norm: ErrorNorm
    count: int

    def __call__(self, error: State, x0: State, x1: State, rtol: float, atol: float) -> float:
        n = self.count
        return self.norm(parts_of(error)[:n], parts_of(x0)[:n], parts_of(x1)[:n], rtol, atol)

    def of(self, ratio: Tensor) -> Tensor:
        return self.norm.of(ratio)


def backward_solver(method: Any, rtol: float | None, atol: float | None) -> Integrator:
    """The method itself where it can solve the augmented equation, and Dopri5 otherwise."""
    from integrators.dopri5 import Dopri5
    from integrators.explicit import ExplicitPair
    from integrators.fixed import Euler
    from integrators.method import Method
    from integrators.rk4 import RK4

    names = {f.name for f in fields(method)}
    own = isinstance(method, (ExplicitPair, RK4, Euler)) or not isinstance(method, Method)
    if not own:
        relative: float = getattr(method, "rtol", 1e-6) if rtol is None else rtol
        absolute: float = getattr(method, "atol", 1e-2 * relative) if atol is None else atol
        return Dopri5(rtol=relative, atol=absolute, gradient=Direct(), max_nfe=2**62)
    given: dict[str, Any] = {"rtol": rtol, "atol": atol, "max_nfe": 2**62, "compiled": False}
    return replace(method, **{k: v for k, v in given.items() if v is not None and k in names})  # type: ignore[no-any-return]


def check_limits(rtol: float | None, atol: float | None, max_nfe: int) -> None:
    """Check the fields that the continuous gradients share."""
    for name, value in (("rtol", rtol), ("atol", atol)):
        if value is not None and not (math.isfinite(value) and value > 0):
            raise ValueError(f"{name} must be positive and finite, not {value}")
    if isinstance(max_nfe, bool) or not isinstance(max_nfe, int) or max_nfe < 1:
        raise ValueError(f"max_nfe must be a positive integer, not {max_nfe!r}")


def refuse(gradient: GradientMode, watch: Watch) -> None:
    """Refuse what a gradient with a backward pass of its own cannot do."""
    name = type(gradient).__name__
    if transformed():
        raise NotImplementedError(f"{name} does not work inside torch.func or forward-mode transforms: use gradient=Direct()")
    if watch.dense:
        raise ValueError(
            f"dense=True gives no gradient with {name}: name the times in t, or use gradient=Checkpointed() or Direct()"
        )


def require_deterministic(around: Surroundings, gradient: GradientMode) -> None:
    """Refuse a random right-hand side."""
    if around.random:
        raise ValueError(
            f"the right-hand side draws random numbers, and {type(gradient).__name__} cannot draw the same again: use "
            "gradient=Checkpointed() with a fixed step, or Direct()"
        )


def outside() -> int:
    """The stack level, seen from the caller, of the first frame outside this package."""
    level, frame = 0, sys._getframe(1)
    while frame.f_back is not None and str(frame.f_globals.get("__name__", "")).split(".")[0] == "integrators":
        level, frame = level + 1, frame.f_back
    return level + 1
