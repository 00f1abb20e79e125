"""The contract between a right-hand side and what advances it in time."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor

from integrators.solution import NotConverged, Solution, SolveError, State, Statistics, Status, Time
from integrators.state import batched, first_bad, noise_like, number, parts_of, state_map
from integrators.watch import Watch

Evaluate = Callable[[Any, Any], State]
ROUND_OFFS = 1e4
"""Round-off of the largest entry that may show in any other, in units of it: sums of so many terms."""


@runtime_checkable
class LinearPart(Protocol):
    """A linear map x ↦ G x, seen as an operator. Implicit, exponential and IMEX integrators use it.

    A right-hand side f(t, x) = G x + N(t, x) exposes G as `f.linear` and N as the method `f.nonlinear(t, x)`; with
    `f.nonlinear` absent or None, G is the whole of f. G must not depend on t.

    It may say `self_adjoint = True`, which means self-adjoint in some inner product and negative semi-definite: the rational
    approximations of exp and φ_k are then used, which are right on (−∞, 0] only, and nobody checks it. With a method
    `keep_factors(count)` it is told how many shifts a method goes round.

    G is homogeneous, G 0 = 0. A right-hand side f(t, x) = G x + b with a constant b, its `nonlinear`, may besides offer
    `f.affine`: all of f as one part, whose `@`, `solve` (of y − s f(y) = b′) and `exponential` (its flow) take b along. Solvers
    that use a part for nothing else take it as they take a whole `linear`.
    """

    def __matmul__(self, x: Any) -> Any:
        """G x."""

    def norm_bound(self) -> float:
        """An upper bound of ‖G‖."""

    def solve(self, shift: Tensor, b: Any) -> Any:
        """(I − s G)⁻¹ b, differentiable in s, b and what G is made of.

        RadauIIA5, CaratheodoryFejer and the ETD methods ask for complex s and b too; a part that cannot solve something raises
        NotImplementedError, and `integrate` without a solver then makes another choice.
        """


class Integrator(ABC):
    """Something that solves dx/dt = f(t, x) from x0 at the given times, with its own tolerances and gradient."""

    @abstractmethod
    def solve(self, f: Evaluate, x0: State, t: Tensor, watch: Watch) -> Solution:
        """Solve from t[0]; the inputs have been checked. Call `integrate`, which checks them."""


class CountedRightHandSide:
    """f with every evaluation counted and its form checked, so that no solver below can hang or broadcast.

    A time may be a number; f is given a scalar float64 tensor. Values are not looked at here: solvers look at what comes of
    them, once a step, and ask `blame` for the cause.
    """

    def __init__(self, f: Evaluate, x0: State, stats: Statistics, max_nfe: int, watch: Watch | None = None) -> None:
        self.f = f
        self.stats = stats
        self.max_nfe = max_nfe
        self.watch = watch if watch is not None and watch.max_seconds < math.inf else None
        self.backward = False
        parts = parts_of(x0)
        self.like = [(part.shape, part.dtype) for part in parts]
        self.device = parts[0].device
        self.is_tuple = isinstance(x0, tuple)
        self.inference = torch.is_inference_mode_enabled()
        self.last: State = ()
        self.last_version = version_of(())

    def __call__(self, t: Time, x: State) -> State:
        stats = self.stats
        if self.backward or self.watch is not None or stats.nfe >= self.max_nfe:
            self._count(t)
        else:
            stats.nfe += 1
        if not isinstance(t, Tensor):
            t = self.time(t)
        if self.inference:
            dx = self.f(t, x)
            self._check_form(dx)
            return dx
        version = version_of(x)
        dx = self.f(t, x)
        self._check_form(dx)
        if version_of(x) != version:
            raise ValueError("the right-hand side changes its argument x in place: write x = x + ... instead of x += ...")
        if version_of(self.last) != self.last_version:
            raise ValueError("the right-hand side writes into the tensor that it returned before: return a clone() of it")
        self.last, self.last_version = dx, version_of(dx)
        return dx

    def time(self, t: float) -> Tensor:
        """The number t as f is given it; on a GPU without waiting for it."""
        return torch.full((), t, dtype=torch.float64, device=self.device)

    def blame(self, t: Time, x: State) -> str:
        """Whether f is finite at (t, x): where it is not, with its time and component, or "" if it is."""
        now = t if isinstance(t, Tensor) else self.time(t)
        with torch.no_grad():
            bad = first_bad(self.f(now, x))
        return f"the right-hand side is not finite at t = {number(now):.6g} ({bad})" if bad else ""

    def uncount(self, evaluations: int) -> None:
        """Take back evaluations that were counted beforehand and not made."""
        if self.backward:
            self.stats.nfe_backward -= evaluations
        else:
            self.stats.nfe -= evaluations

    def _count(self, t: Time) -> None:
        stats = self.stats
        if self.backward:
            stats.nfe_backward += 1
            if stats.nfe_backward > self.max_nfe:
                raise SolveError(
                    f"the backward solve of Adjoint reached t = {number(t):.6g} and spent its budget of {self.max_nfe} "
                    "evaluations. Diffusion cannot be solved backwards stably: use gradient=Checkpointed(), or raise "
                    "Adjoint(max_nfe=...) if the equation is reversible",
                    Status.BUDGET,
                )
            return
        if stats.nfe >= self.max_nfe:
            raise SolveError(
                f"the solve reached t = {number(t):.6g} and spent its budget of {self.max_nfe} evaluations: the equation "
                "is stiff (use SDIRK3, ARK324 or Exponential), random, or discontinuous; or raise max_nfe",
                Status.BUDGET,
            )
        stats.nfe += 1
        if self.watch is not None:
            self.watch.check_clock(number(t))

    def _check_form(self, dx: object) -> None:
        if type(dx) is Tensor and not self.is_tuple:  # The usual case, quickly.
            shape, dtype = self.like[0]
            if dx.shape == shape and dx.dtype == dtype:
                return
        if isinstance(dx, tuple) != self.is_tuple:
            expected = "a tuple of tensors" if self.is_tuple else "one tensor"
            raise TypeError(f"the right-hand side must return {expected}, like the state, not {type(dx).__name__}")
        parts = dx if isinstance(dx, tuple) else (dx,)
        if len(parts) != len(self.like):
            raise ValueError(f"the right-hand side returns {len(parts)} tensors for a state of {len(self.like)}")
        for part, (shape, dtype) in zip(parts, self.like, strict=True):
            if not isinstance(part, Tensor):
                raise TypeError(f"the right-hand side must return a tensor, not {type(part).__name__}")
            if part.shape != shape or part.dtype != dtype:
                raise ValueError(
                    f"the right-hand side returns {tuple(part.shape)} {part.dtype} for a state of {tuple(shape)} {dtype}: "
                    "dx/dt must have the state's shape and dtype exactly (nothing is broadcast or converted)"
                )


def version_of(x: State) -> int | list[int]:
    """What changes when a tensor of x is written into."""
    return [part._version for part in x] if isinstance(x, tuple) else x._version


class Split:
    """f(t, x) = G x + N(t, x) with its parts counted: what implicit, exponential and IMEX methods step with.

    Args:
        f: the counted right-hand side, with `linear` and perhaps `nonlinear`.
        user: the name of the method, for its errors.
        whole: G must be all of f.
        affine: the user only asks for f itself, its flow or its implicit equation, so that `f.affine` will do as all of f.
    """

    def __init__(self, f: CountedRightHandSide, user: str, *, whole: bool = False, affine: bool = False) -> None:
        name = type(f.f).__name__
        both = getattr(f.f, "affine", None) if affine else None
        linear = getattr(f.f, "linear", None) if both is None else both
        if linear is None:
            raise TypeError(
                f"{user} needs a linear part, and {name} exposes no linear part: use Dopri5 or RK4, RKC2 or RadauIIA5 if it is "
                "stiff, or give it a `linear` property"
            )
        if not isinstance(linear, LinearPart):
            raise TypeError(f"{name}.linear must offer `@`, `norm_bound()` and `solve(shift, b)`")
        self.f = f
        self.stats = f.stats
        self.linear = linear
        self.rest = getattr(f.f, "nonlinear", None) if both is None else None
        if whole and self.rest is not None:
            raise TypeError(
                f"{user} needs a linear right-hand side, and {name} has a nonlinear part too: use ARK324, SBDF2 or ETDRK4, "
                "which treat the two parts apart"
            )
        self._shifts: set[complex] = set()

    def __matmul__(self, x: State) -> State:
        """G x, counted as an evaluation."""
        self.f._count(0.0)
        result: State = self.linear @ x
        return result

    def nonlinear(self, t: Time, x: State) -> State:
        """N(t, x), counted as an evaluation; zero, and free, without a nonlinear part."""
        if self.rest is None:
            return tuple(torch.zeros_like(part) for part in x) if isinstance(x, tuple) else torch.zeros_like(x)
        self.f._count(t)
        now = t if isinstance(t, Tensor) else torch.tensor(t, dtype=torch.float64, device=self.f.device)
        value = self.rest(now, x)
        self.f._check_form(value)
        result: State = value
        return result

    def solve(self, shift: Time | complex, b: State) -> State:
        """(I − s G)⁻¹ b, counted; s and b may be complex."""
        stats = self.stats
        if stats.solves >= self.f.max_nfe:
            raise SolveError(f"the solve spent its budget of {self.f.max_nfe} linear solves: raise max_nfe", Status.BUDGET)
        stats.solves += 1
        key = complex(shift.detach() if isinstance(shift, Tensor) else shift)
        if key not in self._shifts:
            self._shifts.add(key)
            stats.factorizations += 1
        if not isinstance(shift, Tensor):
            kind = torch.complex128 if isinstance(shift, complex) else torch.float64
            shift = torch.tensor(shift, dtype=kind, device=self.f.device)
        try:
            result: State = self.linear.solve(shift, b)
        except ValueError as error:
            bad = first_bad(b)
            if not bad:
                raise
            # A step that overflowed is no bad input: an adaptive method tries a shorter one.
            raise NotConverged(
                f"the solve diverged: an implicit equation has a right-hand side that is not finite ({bad}). The step is too "
                "long for the explicit part of the equation: take a smaller dt"
            ) from error
        return result

    def blame(self, t: Time, x: State) -> str:
        """Where f is not finite at (t, x), in words; "" if it is."""
        return self.f.blame(t, x)

    def check(self, t: Time, x: State) -> None:
        """Raise ValueError unless f = G x + N, entry by entry, at t and one random state like x."""
        # Of the state's own size: a nonlinear part may overflow elsewhere.
        z = state_map(lambda part, noise: noise * part.detach().abs().max().clamp(min=1e-3), x, noise_like(x))
        now = t.detach() if isinstance(t, Tensor) else torch.tensor(t, dtype=torch.float64, device=self.f.device)
        # The same dice twice, for an f with dropout in it, and none taken from the user's.
        devices = [self.f.device] if self.f.device.type == "cuda" else []
        with torch.no_grad(), torch.random.fork_rng(devices):
            whole = parts_of(self.f.f(now, z))
        with torch.no_grad(), torch.random.fork_rng(devices):
            linear = parts_of(self.linear @ z)
            rest = [torch.zeros_like(part) for part in whole] if self.rest is None else parts_of(self.rest(now, z))
        for f, g, n in zip(whole, linear, rest, strict=True):
            if batched((f, g, n)):
                continue
            terms, difference, eps = f.abs() + g.abs() + n.abs(), (f - g - n).abs(), torch.finfo(f.dtype).eps
            # Of the largest entry only the round-off, or a wrong slow component would hide behind the stiff ones.
            excess = difference - eps**0.5 * terms - min(ROUND_OFFS * eps, eps**0.5) * terms.max()
            if bool((excess > 0).any()):
                worst = excess.nan_to_num(-math.inf).argmax()
                name = type(self.f.f).__name__
                what = "linear @ x" if self.rest is None else "linear @ x + nonlinear(t, x)"
                gap, reach = float(difference.ravel()[worst]), float(terms.ravel()[worst])
                raise ValueError(
                    f"{name}.{what} is not what {name}(t, x) gives: on a random state they differ by {gap:.3g} where "
                    f"the terms reach {reach:.3g}. Mend `linear`{'' if self.rest is None else ' or `nonlinear`'}, or let it "
                    "return None and use an explicit integrator"
                )


def linear_part(f: object, user: str) -> LinearPart:
    """f.linear where it is the whole right-hand side, or an error that says what can be done."""
    return Split(_uncounted(f), user, whole=True).linear


def _uncounted(f: Any) -> CountedRightHandSide:
    return CountedRightHandSide(f, torch.zeros(1), Statistics(), 1)
