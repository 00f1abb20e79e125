"""Störmer–Verlet: the symplectic, time-reversible method of order 2 for separable second-order equations."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from integrators.fixed import FixedStep
from integrators.integrator import CountedRightHandSide, Evaluate
from integrators.method import Carry, Trial
from integrators.solution import State, Time
from integrators.state import combine, largest, parts_of


@dataclass(frozen=True)
class StoermerVerlet(FixedStep):
    """Störmer–Verlet (leapfrog) for q' = v(t, p), p' = a(t, q), on a state (q, p).

    p½ = p + h/2 a(t, q),  q' = q + h v(t + h/2, p½),  p' = p½ + h/2 a(t + h, q').

    Order 2, symplectic, and reversible: a step of −h undoes a step of h. For q'' = −ω² q it is stable while dt < 2/ω
    (dt < 2/√λ_max for the wave equation q'' = −L q), and then the energy oscillates by a relative (ω dt)²/4 or less, with no
    trend; beyond, it diverges. An even step is part of this: output times should lie on a grid of dt.

    f(t, (q, p)) gives (v, a), at two evaluations a step of which half of each is thrown away. If f also offers the methods
    `force(t, q)` = a and `drift(t, p)` = v, they are called instead, and a step costs one force, which counts as one
    evaluation.

    Args:
        dt: the largest step.

    Raises:
        TypeError: the state is no pair (q, p).
        ValueError: v depends on q, or a on p (friction, a magnetic field), or `drift` and `force` are not what f gives.

    Source: Hairer, Lubich and Wanner, Geometric Numerical Integration (2006), section I.1.4; Verlet (1967), Phys. Rev. 159.
    """

    order: ClassVar[int] = 2
    reversible: ClassVar[bool] = True
    weights: ClassVar[tuple[float, ...]] = (1.0,)
    """Steps of w h, one for each weight, make a step of h; their sum is 1."""

    def prepare(self, f: CountedRightHandSide, t: float, x0: State) -> Any:
        separable = Separable(f, type(self).__name__, x0)
        separable.check(t, x0)
        return separable

    def start(self, f: Separable, t: Time, x: State) -> Carry:
        q, p = parts_of(x)
        return x, f.force(t, q, p)

    def advance(self, f: Separable, t: Time, h: Time, carry: Carry, before: float) -> Trial:
        (q, p), force = carry
        for w in self.weights:
            step = w * h
            p = combine(p, step, [0.5], [force])
            q = combine(q, step, [1.0], [f.drift(t + step / 2, q, p)])
            t = t + step
            force = f.force(t, q, p)
            p = combine(p, step, [0.5], [force])
        return Trial(((q, p), force))


class Separable:
    """f(t, (q, p)) = (v(t, p), a(t, q)) with its two halves apart."""

    def __init__(self, f: CountedRightHandSide, user: str, x0: State) -> None:
        name = type(f.f).__name__
        if not (isinstance(x0, tuple) and len(x0) == 2):
            form = f"a tuple of {len(x0)}" if isinstance(x0, tuple) else "one tensor"
            raise TypeError(
                f"{user} needs a state (q, p) of positions and momenta, not {form}: write x'' = a(t, x) as "
                "f(t, (q, p)) = (p, a(t, q)), or use ImplicitMidpoint"
            )
        self.f, self.user = f, user
        self._force: Evaluate | None = getattr(f.f, "force", None)
        self._drift: Evaluate | None = getattr(f.f, "drift", None)
        if (self._force is None) != (self._drift is None):
            has, lacks = ("force", "drift") if self._drift is None else ("drift", "force")
            raise TypeError(f"{name} offers {has} but no {lacks}: write both drift(t, p) and force(t, q), or neither")
        self.blame = f.blame

    def __call__(self, t: Time, x: State) -> State:
        return self.f(t, x)

    def force(self, t: Time, q: Any, p: Any) -> Any:
        """a(t, q), counted; p is only what f must be given beside it."""
        if self._force is None:
            return parts_of(self.f(t, (q, p)))[1]
        self.f._count(t)
        return self._like(self._force(self._time(t), q), 1, "force")

    def drift(self, t: Time, q: Any, p: Any) -> Any:
        """v(t, p); counted only where it takes an evaluation of all of f."""
        if self._drift is None:
            return parts_of(self.f(t, (q, p)))[0]
        return self._like(self._drift(self._time(t), p), 0, "drift")

    def _time(self, t: Time) -> Tensor:
        return t if isinstance(t, Tensor) else torch.tensor(t, dtype=torch.float64, device=self.f.device)

    def _like(self, value: Any, k: int, half: str) -> Any:
        shape, dtype = self.f.like[k]
        if not isinstance(value, Tensor) or value.shape != shape or value.dtype != dtype:
            form = f"{tuple(value.shape)} {value.dtype}" if isinstance(value, Tensor) else type(value).__name__
            raise ValueError(
                f"{type(self.f.f).__name__}.{half} must return a tensor {tuple(shape)} {dtype}, like its half of the state, "
                f"not {form}"
            )
        return value

    @torch.no_grad()
    def check(self, t: Time, x0: State) -> None:
        """Raise ValueError unless f is separable at t and x0, found by changing one half of the state at random."""
        q, p = (part.detach() for part in parts_of(x0))
        size = largest((q, p)) or 1.0
        other_q, other_p = (_noise(part, size, k) for k, part in enumerate((q, p)))
        now, name = self._time(t).detach(), type(self.f.f).__name__
        v, a = self._halves(now, q, p)
        for k, (half, what, cause) in enumerate((("q'", "q", "drift"), ("p'", "p", "force"))):
            changed = self._halves(now, other_q, p)[0] if k == 0 else self._halves(now, q, other_p)[1]
            known = (v, a)[k]
            if _differ(known, changed):
                raise ValueError(
                    f"{self.user} needs q' to depend on p alone and p' on q alone, and in {name} {half} depends on {what}: "
                    "use ImplicitMidpoint, which is symplectic for any Hamiltonian, Strang for friction, or Dopri5"
                )
            offered = self._drift if k == 0 else self._force
            if offered is not None and _differ(known, self._like(offered(now, (p, q)[k]), k, cause)):
                raise ValueError(f"{name}.{cause} is not what {name}(t, (q, p)) gives for {half}: mend one of them")

    def _halves(self, t: Tensor, q: Tensor, p: Tensor) -> tuple[Tensor, Tensor]:
        value = self.f.f(t, (q, p))
        self.f._check_form(value)
        v, a = value
        return v, a


def _noise(part: Tensor, size: float, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return size * torch.randn(part.shape, generator=generator, dtype=part.dtype).to(part.device)


def _differ(a: Tensor, b: Tensor) -> bool:
    """Whether they differ by more than the order of summation explains."""
    size = max(largest(a), largest(b))
    return largest(a - b) > 1e3 * torch.finfo(a.dtype).eps * size
