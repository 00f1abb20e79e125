"""Newton's method for the stages of implicit methods, with nothing but f: y = b + s f(t, y)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from integrators.gmres import Krylov, gmres
from integrators.implicit_function import DENSE, implicit_function
from integrators.integrator import CountedRightHandSide, LinearPart, Split
from integrators.jacobian import Differentiation, Jacobian, wanting_gradients, wants_gradients
from integrators.solution import NotConverged, State, Time
from integrators.state import combine, first_bad, number, parts_of

Factor = tuple[Tensor, Tensor]
ENOUGH = 0.3
"""Part of the tolerance that the estimate of the error left may fill: an estimate it is."""
ROUND_OFFS = 1e4
"""By how much the stiffest of the terms of f may amplify round-off in y."""
HOPELESS = 8
"""After so many failures in a row, each at a tenth of the step, it is not the step that is too long."""


@dataclass(frozen=True)
class NewtonKrylov:
    """Newton's method with GMRES for y = b + s f(t, y): the settings of the implicit methods' nonlinear stages.

    Each iteration solves (I − s J) d = b + s f(t, y) − y with J = ∂f/∂x, of which only products are taken, exact by autograd.
    GMRES stops early while far from the root (Eisenstat and Walker 1996, SIAM J. Sci. Comput. 17, choice 2), and a step that
    does not reduce the residual is halved. If f = G x + N with G to solve with, everything is preconditioned by (I − sG)⁻¹.
    States of at most `dense` real numbers use a dense Jacobian and its LU factor instead, kept while it converges fast, from
    one stage of a step to the next too.

    The gradient of y is that of the implicit function, by one transposed linear solve to near round-off (`implicit_function`).

    Args:
        rtol, atol: how far y may be from the root, entry by entry: atol + rtol·|y|. By default a hundredth of the
            tolerances of an adaptive method, and for fixed steps u^⅔ times the largest entry, u the round-off (4e-11 in
            float64), part by part of a tuple, so that Newton's error never shows beside that of the step.
        iterations: Newton steps at most.
        restart: directions that GMRES keeps, each the size of the state.
        budget: products with J at most, in one Newton step.
        dense: real numbers of a state up to which J is formed; RadauIIA5, which solves for three at once, forms it of all three.
    """

    rtol: float | None = None
    atol: float | None = None
    iterations: int = 20
    restart: int = 30
    budget: int = 300
    dense: int = DENSE

    def __post_init__(self) -> None:
        for name, value in (("rtol", self.rtol), ("atol", self.atol)):
            if value is not None and not (math.isfinite(value) and value > 0):
                raise ValueError(f"{name} must be positive and finite, not {value}")
        for name, least in (("iterations", 1), ("restart", 1), ("budget", 1), ("dense", 0)):
            count = getattr(self, name)
            if isinstance(count, bool) or not isinstance(count, int) or count < least:
                raise ValueError(f"{name} must be an integer of at least {least}, not {count!r}")

    def stages(
        self,
        counted: CountedRightHandSide,
        t: float,
        x0: State,
        linear: Split | LinearPart | None = None,
        *,
        rtol: float | None = None,
        atol: float | None = None,
    ) -> NewtonStages:
        """What solves the stages of one run.

        Args:
            counted: f.
            t, x0: where it starts; x0 gives shapes and precision.
            linear: the linear part of f, for the preconditioner.
            rtol, atol: the tolerances of an adaptive method.
        """
        eps = torch.finfo(parts_of(x0)[0].dtype).eps
        relative = self.rtol if self.rtol is not None else eps ** (2 / 3) if rtol is None else 0.01 * rtol
        absolute = self.atol if self.atol is not None or atol is None else 0.01 * atol
        return NewtonStages(self, counted, x0, linear, max(relative, 16 * eps), absolute)


class NewtonStages:
    """Solves y = b + s f(t, y) by Newton's method; settings and everything else in `NewtonKrylov`."""

    def __init__(
        self,
        settings: NewtonKrylov,
        counted: CountedRightHandSide,
        x0: State,
        linear: Split | LinearPart | None,
        rtol: float,
        atol: float | None,
    ) -> None:
        self.settings, self.counted, self.linear, self.rtol, self.atol = settings, counted, linear, rtol, atol
        self.stats = counted.stats
        self.by = Differentiation(counted.f, x0, counted.stats)
        self.flat = self.by.flat
        self.failures = 0
        self.failure = ""
        self.kept: tuple[float, Factor] | None = None

    def slope(self, t: Time, y: State) -> State:
        """f(t, y), counted."""
        return self.counted(t, y)

    __call__ = slope

    def blame(self, t: Time, x: State) -> str:
        """Why no step from (t, x) succeeds: f is not finite there, or Newton's method fails however short the step."""
        return self.counted.blame(t, x) or (self.failure if self.failures >= HOPELESS else "")

    def solve(self, t: Time, s: Time, b: State, guess: State | None = None, *, again: bool = False) -> State:
        """y with y = b + s f(t, y), near `guess` (b by default); differentiable in t, s, b and whatever f holds.

        Args:
            again: begin with the factor of the solve before, which belongs to the same step: a step is a function of its
                arguments alone.

        Raises:
            NotConverged: there is none near the guess, or it cannot be found.
        """
        # Outside inference mode, where autograd could not give products.
        with torch.inference_mode(False), torch.no_grad():
            start = _usable(b if guess is None else guess)
            equation = _Equation(self, _number(t, self.counted), number(s), _usable(b), start)
            try:
                y = equation.dense(start, again) if self.flat.size <= self.settings.dense else equation.krylov(start)
            except NotConverged as error:
                self.failures, self.failure = self.failures + 1, str(error)
                raise
        self.failures = 0
        if not torch.is_grad_enabled():
            return y

        def g(y: State) -> State:
            return combine(b, s, [1.0], [self.counted(t, y)])

        def uncounted(y: State) -> State:
            return combine(equation.b, equation.s, [1.0], [self.counted.f(equation.t, y)])

        settings = self.settings
        result = implicit_function(
            g, y, self.stats, uncounted=uncounted, precondition=equation.preconditioner, dense=settings.dense,
            restart=settings.restart,
        )  # fmt: skip
        if not self.by.exact and wants_gradients(result):
            self._check_visible(equation.t, y)
        return result

    def _check_visible(self, t: Tensor, y: State) -> None:
        """Raise where f depends on y behind autograd's back: the gradient would be wrong."""
        with torch.enable_grad():
            value = self.counted.f(t, wanting_gradients(y))
        if wants_gradients(value):
            return
        v = torch.linspace(-1, 1, self.flat.size, dtype=self.flat.flat(y).dtype, device=self.counted.device)
        if float((self.by.at(t, y, value) @ v).abs().max()) > 0:
            raise TypeError(
                f"the gradient of this solve would be wrong: autograd does not see that {type(self.counted.f).__name__} depends "
                "on x. Leave out detach() and NumPy in it, or solve inside torch.no_grad()"
            )


class _Equation:
    """F(y) = y − b − s f(t, y) = 0 for one (t, s, b)."""

    def __init__(self, stages: NewtonStages, t: Tensor, s: float, b: State, guess: State) -> None:
        self.stages, self.settings, self.flat = stages, stages.settings, stages.flat
        self.t, self.s, self.b = t, s, b
        self.scale = self._scale(guess)
        self.evaluations = 0
        self.preconditioner = None if stages.linear is None else self._precondition
        self._transposed: tuple[Tensor, Tensor] | None = None

    def _scale(self, y: State) -> Tensor:
        """The error that may be left in y, entry by entry."""
        stages, parts = self.stages, []
        whole = max(float(part.abs().max()) for part in (*parts_of(y), *parts_of(self.b)))
        for x, b in zip(parts_of(y), parts_of(self.b), strict=True):
            size = x.abs()
            if stages.atol is None:
                largest = float(size.max()) or float(b.abs().max()) or 1.0
                # Round-off in one part of a tuple can reach every other.
                size = torch.full_like(size, largest * stages.rtol + whole * torch.finfo(size.dtype).eps)
            else:
                size = stages.atol + stages.rtol * size
            parts.append(torch.complex(size, size) if x.is_complex() else size)
        return self.flat.flat(tuple(parts))

    def residual(self, y: Tensor) -> tuple[Tensor, State, State]:
        """F(y), with the state y and f there."""
        x = self.flat.state(y)
        value = self.stages.counted(self.t, x)
        self.evaluations += 1
        return self.flat.flat(combine(x, -self.s, [1.0], [value])) - self.flat.flat(self.b), x, value

    def size(self, d: Tensor) -> float:
        """The largest entry of d in units of the tolerance."""
        return float((d / self.scale).abs().max())

    def krylov(self, guess: State) -> State:
        """Inexact Newton steps by preconditioned GMRES, with a line search on the preconditioned residual."""
        y = self.flat.flat(guess)
        F, x, value = self.residual(y)
        F = self._conditioned(F)
        norm = self._norm(F, x, value)
        before, forcing, products = norm, 0.1, 0
        for _ in range(self.settings.iterations):
            if norm == 0:
                return x
            jacobian = self.stages.by.at(self.t, x, value)
            # No more accurate than needed to meet the tolerance with this step.
            target = max(forcing, min(0.1, ENOUGH / self.size(F)))
            found = self._correction(jacobian, F, target * norm)
            products += found.products
            if not found.residual < 0.9 * norm:
                raise self._failure(norm, f"GMRES left {found.residual / norm:.2g} of it after {found.products} products")
            step = self.size(found.x)
            length = 1.0
            while True:
                trial = y + length * found.x
                F, x, value = self.residual(trial)
                F = self._conditioned(F)
                before, norm = norm, float(torch.linalg.vector_norm(F))
                if norm <= (1 - 1e-4 * length) * before:
                    break
                if step <= 1 or self._is_round_off(found.x, y):
                    return x
                if self._closer(jacobian, F, step, length):
                    break
                norm, length = before, length / 2
                if length < 1e-3:
                    raise self._failure(norm, "no step along Newton's direction reduces it")
            y = trial
            self.scale = self._scale(x)
            step = self.size(found.x)
            # ‖F‖ falls as the error does: what is left of the last step is about this.
            if length == 1 and step * norm / before <= ENOUGH:
                return x
            forcing = min(0.1, max(0.9 * (norm / before) ** 2, 1e-10))
        raise self._failure(norm, f"{self.settings.iterations} Newton steps and {products} products were not enough")

    def _correction(self, jacobian: Jacobian, F: Tensor, tol: float) -> Krylov:
        """d with (I − sJ) d = −F, both sides preconditioned."""
        return gmres(
            lambda v: self._conditioned(v - self.s * (jacobian @ v)),
            -F,
            tol,
            restart=self.settings.restart,
            budget=self.settings.budget,
        )

    def _closer(self, jacobian: Jacobian, F: Tensor, step: float, length: float) -> bool:
        """Whether the next correction, by the same Jacobian, would be the smaller one, though the residual grew: the natural
        monotonicity test, which does not depend on how the equations are scaled (Deuflhard 2004, Newton Methods, 3.3)."""
        norm = float(torch.linalg.vector_norm(F))
        if not math.isfinite(norm):
            return False
        found = self._correction(jacobian, F, 0.1 * norm)
        return found.residual < 0.9 * norm and self.size(found.x) <= (1 - length / 4) * step

    def dense(self, guess: State, again: bool) -> State:
        """Newton steps by an LU factor of I − sJ, renewed where it converges slowly; damped by the natural monotonicity
        test (Deuflhard 2004, Newton Methods for Nonlinear Problems, 3.3)."""
        y = self.flat.flat(guess)
        F, x, value = self.residual(y)
        self._norm(F, x, value)
        kept = self.stages.kept
        fresh, length = not (again and kept is not None and kept[0] == self.s), 1.0
        factor = self._factor(x, value) if fresh or kept is None else kept[1]
        d = _lu_solve(factor, F)
        size = self.size(d)
        for _ in range(4 * self.settings.iterations):
            if size <= 1e-3:
                return self.flat.state(y - d)
            trial = y - length * d
            F, x, value = self.residual(trial)
            next_d = _lu_solve(factor, F)
            theta = self.size(next_d) / size
            if theta <= 1 - length / 4:
                self.scale = self._scale(x)
                y, d, size, fresh = trial, next_d, self.size(next_d), False
                if length == 1 and theta * size / (1 - theta) <= ENOUGH:
                    return self.flat.state(y - d)
                if theta <= 0.1 and length == 1:
                    continue
                length = min(1.0, 4 * length)
            elif fresh:
                if size <= 1 or self._is_round_off(d, y):
                    return self.flat.state(y)
                length /= 4
                if length < 1e-4:
                    raise self._failure(float(torch.linalg.vector_norm(F)), "no step along Newton's direction reduces it")
                continue
            else:
                F, x, value = self.residual(y)
            factor, fresh = self._factor(x, value), True
            d = _lu_solve(factor, F)
            size = self.size(d)
        raise self._failure(float(torch.linalg.vector_norm(F)), f"{self.evaluations} evaluations were not enough")

    def _is_round_off(self, d: Tensor, y: Tensor) -> bool:
        """Whether a step that reduces nothing is so small that round-off alone explains it."""
        largest = max(float(y.abs().max()), float(self.flat.flat(self.b).abs().max()))
        return float(d.abs().max()) <= ROUND_OFFS * torch.finfo(y.dtype).eps * largest

    def _factor(self, x: State, value: State) -> Factor:
        J = self.stages.by.at(self.t, x, value).matrix()
        A = torch.eye(len(J), dtype=J.dtype, device=J.device) - self.s * J
        if not bool(torch.isfinite(A).all()):
            raise NotConverged(f"Newton's method failed at t = {float(self.t):.6g}: the Jacobian of f is not finite there")
        LU, pivots, info = torch.linalg.lu_factor_ex(A)
        if int(info):
            raise NotConverged(
                f"Newton's method failed at t = {float(self.t):.6g}: I − {self.s:.3g}·∂f/∂x is singular there; take another step"
            )
        self.stages.kept = self.s, (LU, pivots)
        return LU, pivots

    def _conditioned(self, v: Tensor) -> Tensor:
        return v if self.preconditioner is None else self.preconditioner(v, False)

    def _precondition(self, v: Tensor, transposed: bool) -> Tensor:
        """(I − sG)⁻¹ v, or its transpose by the backward pass of a solve."""
        linear, flat = self.stages.linear, self.flat
        assert_linear: Any = linear
        s = torch.tensor(self.s, dtype=torch.float64, device=v.device)
        if not transposed:
            with torch.no_grad():
                return flat.flat(assert_linear.solve(s, flat.state(v)))
        if self._transposed is None:
            with torch.enable_grad():
                b = v.detach().requires_grad_()
                self._transposed = b, flat.flat(assert_linear.solve(s, flat.state(b)))
        b, solved = self._transposed
        return torch.autograd.grad(solved, b, v, retain_graph=True)[0]

    def _norm(self, F: Tensor, x: State, value: State) -> float:
        norm = float(torch.linalg.vector_norm(F))
        if not math.isfinite(norm):
            bad = first_bad(value)
            what = f"f is not finite where it starts ({bad})" if bad else "the residual overflows where it starts"
            raise NotConverged(f"Newton's method failed at t = {float(self.t):.6g}: {what}; take a smaller step, or look at f")
        return norm

    def _failure(self, residual: float, what: str) -> NotConverged:
        return NotConverged(
            f"Newton's method did not converge at t = {float(self.t):.6g}, with s = {self.s:.3g}: after {self.evaluations} "
            f"evaluations the residual ‖y − b − s f(t, y)‖ is {residual:.3g}, and {what}. Take a smaller step; if f is stiff, "
            "give it a `linear` part that holds the stiff terms, which then preconditions; if f is not smooth, smooth it"
        )


def _lu_solve(factor: Factor, b: Tensor) -> Tensor:
    result: Tensor = torch.linalg.lu_solve(*factor, b[:, None])[:, 0]
    return result


def _usable(x: State) -> State:
    """The state detached, and outside inference mode."""
    parts = tuple(part.clone() if part.is_inference() else part.detach() for part in parts_of(x))
    return parts if isinstance(x, tuple) else parts[0]


def _number(t: Time, counted: CountedRightHandSide) -> Tensor:
    if isinstance(t, Tensor):
        return t.detach().clone()
    return torch.tensor(t, dtype=torch.float64, device=counted.device)
