"""Splitting: the parts of f advanced in turn, each by the flow that suits it."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from torch import Tensor

from integrators.fixed import FixedStep
from integrators.integrator import CountedRightHandSide, Split
from integrators.method import Method
from integrators.solution import State, Time
from integrators.spectral_radius import spectral_radius
from integrators.state import largest, parts_of, state_map
from integrators.yoshida import FOURTH, SIXTH

Flow = Method | Callable[[Tensor, Tensor, Any], Any]


@dataclass(frozen=True)
class Composition(FixedStep):
    """A step of f₁ + f₂ + ... as steps of the parts in turn.

    The parts are `f.summands`, which a sum of right-hand sides has, or (f.linear, f.nonlinear). An evaluation of a part counts
    as one.

    Args:
        dt: the largest step.
        flows: one for each part, in their order: a method of this package, which takes one step without error control
            (or several, of at most its own `dt`), or the exact flow as a function (t, h, x) ↦ x(t + h) of scalar tensors t, h.

    Raises:
        TypeError: f has no parts, or not as many as there are flows.
        ValueError: the parts do not add up to f.
    """

    flows: tuple[Flow, ...] = field(kw_only=True)

    def __post_init__(self) -> None:
        super().__post_init__()
        flows = self.flows
        if not (isinstance(flows, tuple) and len(flows) > 1 and all(isinstance(g, Method) or callable(g) for g in flows)):
            raise TypeError(
                f"flows must be a tuple of two or more methods or functions (t, h, x) -> x, one for each part of f, not {flows!r}"
            )

    @property
    def reversible(self) -> bool:  # type: ignore[override]
        """Whether −h undoes a step: whether it does for every flow (a function may say so by an attribute `reversible`)."""
        return all(getattr(flow, "reversible", False) for flow in self.flows)

    @abstractmethod
    def fractions(self, parts: int) -> list[tuple[int, float]]:
        """(part, fraction of h), in the order in which they advance; each part's fractions add up to 1."""

    def prepare(self, f: CountedRightHandSide, t: float, x0: State) -> Any:
        return Parts(f, type(self).__name__, self.flows, t, x0)

    def step(self, f: Parts, t: Time, x: State, h: Time) -> State:
        # Each part has a clock of its own, which stands still while the others advance.
        done = [0.0] * len(self.flows)
        for k, fraction in self.fractions(len(self.flows)):
            x = f.advance(k, t + done[k] * h, fraction * h, x)
            done[k] += fraction
        return x


@dataclass(frozen=True)
class Strang(Composition):
    """Strang splitting: x' = A(h/2) B(h) A(h/2) x, and A B C B A for three parts.

    Order 2 with flows of order 2 or more, and exact where the parts commute and their flows are exact; what every flow keeps
    (norm, mass, positivity) it keeps. Every partial step goes forwards, so it suits diffusion; put the stiffest part last.

    Source: Strang (1968), SIAM J. Numer. Anal. 5; Hairer, Lubich and Wanner (2006), section II.5.
    """

    order: ClassVar[int] = 2

    def fractions(self, parts: int) -> list[tuple[int, float]]:
        return strang(parts)


@dataclass(frozen=True)
class YoshidaSplitting(Composition):
    """Yoshida's composition of Strang splittings, of w₁h, w₀h, w₁h for order 4, and of seven for order 6.

    Its flows must have that order too. Some partial steps go backwards (all splittings of order above 2 have such), which
    diffusion does not bear: it is for waves, Hamiltonian and unitary flows.

    Args:
        order: 4 or 6.

    Raises:
        ValueError: a part is dissipative, because it says so or because its fastest mode is found to be damped.

    Source: Yoshida (1990), Phys. Lett. A 150; on backward steps Goldman and Kaper (1996), SIAM J. Numer. Anal. 33.
    """

    order: int = field(default=4, kw_only=True)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.order not in (4, 6):
            raise ValueError(f"order must be 4 or 6, not {self.order}: Strang has order 2")

    def fractions(self, parts: int) -> list[tuple[int, float]]:
        joined: list[tuple[int, float]] = []
        for w in FOURTH if self.order == 4 else SIXTH:
            for k, fraction in strang(parts):
                if joined and joined[-1][0] == k:
                    joined[-1] = (k, joined[-1][1] + w * fraction)
                else:
                    joined.append((k, w * fraction))
        return joined

    def prepare(self, f: CountedRightHandSide, t: float, x0: State) -> Any:
        parts: Parts = super().prepare(f, t, x0)
        backwards = -min(w for w in (FOURTH if self.order == 4 else SIXTH)) * self.dt
        parts.refuse_dissipation(t, x0, backwards, f"{type(self).__name__}(order={self.order})")
        return parts


def strang(parts: int) -> list[tuple[int, float]]:
    """A(½) B(½) ... M(1) ... B(½) A(½)."""
    half = [(k, 0.5) for k in range(parts - 1)]
    return [*half, (parts - 1, 1.0), *reversed(half)]


class Parts:
    """f = f₁ + f₂ + ... with its parts counted and ready for their flows."""

    def __init__(self, f: CountedRightHandSide, user: str, flows: tuple[Flow, ...], t: float, x0: State) -> None:
        self.f, self.flows, self.blame = f, flows, f.blame
        name = type(f.f).__name__
        self.parts = _parts(f, user)
        if len(self.parts) != len(flows):
            raise TypeError(f"{user} got {len(flows)} flows for the {len(self.parts)} parts of {name}: give one for each part")
        self._check(t, x0, name)
        counted = [CountedRightHandSide(part, x0, f.stats, f.max_nfe, f.watch) for part in self.parts]
        self.counted = counted
        self.ready = [
            flow.prepare(part, t, x0) if isinstance(flow, Method) else part for flow, part in zip(flows, counted, strict=True)
        ]

    def __call__(self, t: Time, x: State) -> State:
        return self.f(t, x)

    def advance(self, k: int, t: Time, h: Time, x: State) -> State:
        """x advanced from t to t + h by part k alone."""
        flow, f = self.flows[k], self.ready[k]
        if not isinstance(flow, Method):
            y: State = flow(self._tensor(t), self._tensor(h), x)
            try:
                self.f._check_form(y)
            except (TypeError, ValueError) as error:
                raise type(error)(f"flow {k + 1} does not give x(t + h), a state like x, but what is none: {error}") from error
            return y
        longest = getattr(flow, "dt", None) or math.inf
        length = float(h.detach()) if isinstance(h, Tensor) else h
        n = max(1, math.ceil(min(abs(length) / longest - 1e-9, 1e15)))
        carry, before = flow.start(f, t, x), 0.0
        for i in range(n):
            carry = flow.advance(f, t + i * (h / n), h / n, carry, before).carry
            before = length / n
        x = carry[0]
        return x

    def _tensor(self, value: Time) -> Tensor:
        return value if isinstance(value, Tensor) else torch.tensor(value, dtype=torch.float64, device=self.f.device)

    @torch.no_grad()
    def _check(self, t: float, x0: State, name: str) -> None:
        generator = torch.Generator().manual_seed(0)

        def noise(part: Tensor) -> Tensor:
            drawn = torch.randn(part.shape, generator=generator, dtype=part.dtype).to(part.device)
            return drawn * max(float(part.detach().abs().max()), 1e-3)

        z, now = state_map(noise, x0), self._tensor(t)
        terms = [parts_of(self.f.f(now, z)), *(parts_of(part(now, z)) for part in self.parts)]
        for whole, *rest in zip(*terms, strict=True):
            size = max(largest(whole), *(largest(part) for part in rest))
            difference = largest(whole - torch.stack(rest).sum(0))
            if difference > torch.finfo(whole.dtype).eps ** 0.5 * size:
                raise ValueError(
                    f"the parts of {name} do not add up to {name}(t, x): on a random state they differ by {difference:.3g} where "
                    f"the terms reach {size:.3g}. Mend its `summands`, or its `linear` and `nonlinear`"
                )

    def refuse_dissipation(self, t: float, x0: State, backwards: float, user: str) -> None:
        """Raise ValueError if a part could not be solved over −`backwards`."""
        cure = "use Strang, whose partial steps all go forwards, or ARK324"
        for part in (self.f.f, *self.parts):
            if getattr(part, "dissipative", False):
                raise ValueError(f"{user} takes steps backwards, and {type(part).__name__} is dissipative: {cure}")
        for k, part in enumerate(self.counted):
            found = spectral_radius(part, t, x0)
            if found.dissipates and not found.value * backwards <= 1:
                raise ValueError(
                    f"{user} takes steps backwards, of up to {backwards:.3g}, and part {k + 1} of {type(self.f.f).__name__} "
                    f"damps its fastest mode at a rate of about {-found.quotient.real:.3g}, which would grow: {cure}, or take a "
                    "smaller dt"
                )


class LinearTerm:
    """x ↦ G x as a right-hand side."""

    def __init__(self, f: Any) -> None:
        self.linear = f.linear

    def __call__(self, t: Tensor, x: Any) -> Any:
        return self.linear @ x


class NonlinearTerm:
    """N(t, x) as a right-hand side."""

    def __init__(self, f: Any) -> None:
        self.rest = f.nonlinear

    def __call__(self, t: Tensor, x: Any) -> Any:
        return self.rest(t, x)


def _parts(f: CountedRightHandSide, user: str) -> list[Any]:
    summands = getattr(f.f, "summands", None)
    if summands is not None:
        return list(summands)
    if getattr(f.f, "linear", None) is None or getattr(f.f, "nonlinear", None) is None:
        raise TypeError(
            f"{user} needs the parts of f, and {type(f.f).__name__} shows none: add right-hand sides (f = f1 + f2), give it "
            "`summands`, a list of functions of (t, x), or `linear` and `nonlinear`; or use Dopri5"
        )
    Split(f, user)  # Refuses a linear part that is none.
    return [LinearTerm(f.f), NonlinearTerm(f.f)]
