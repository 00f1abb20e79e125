"""Choosing a solver from what a right-hand side shows of itself, and saying why."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, field

from torch import Tensor

from integrators.ark324 import ARK324
from integrators.checkpointed import Checkpointed
from integrators.dopri5 import Dopri5
from integrators.explicit import ExplicitPair
from integrators.exponential import Exponential
from integrators.gradients import GradientMode
from integrators.integrator import CountedRightHandSide, Evaluate, Integrator
from integrators.radau import RadauIIA5
from integrators.rkc2 import RKC2
from integrators.sdirk3 import SDIRK3
from integrators.solution import Solution, SolveError, SolverWarning, State, Statistics
from integrators.spectral_radius import SAFETY, spectral_radius
from integrators.state import batched, parts_of, state_map, unbatched
from integrators.watch import Watch

# From here on stability bounds the steps of an explicit method of order 5, and the gradients through it lose digits.
STIFF = 200.0
# Below this many numbers Newton's method is cheap.
SMALL = 256
# Errors of many steps add up in gradients; at these fractions of the tolerance they stay within ten times it.
RADAU, STABILISED = 0.3, 0.1
# Steps after which it is worth asking whether stability bound them, and after which it is worth interrupting the user.
MANY, FAR_TOO_MANY = 200, 1000


@dataclass(frozen=True)
class Auto(Integrator):
    """The solver that `integrate` uses if it is given none: it looks at f, chooses, and says so in `stats.reason`.

    - f is linear and autonomous, and knows its exponential or has a moderate norm: `Exponential`, exact.
    - f is linear and stiff: `SDIRK3`, or `RadauIIA5` for tight tolerances, with factors used again.
    - f = G x + N(t, x) with a stiff G: `ARK324`.
    - f shows nothing: a power iteration (some ten evaluations) estimates |λ|T. Up to 200: `Dopri5`. Stiff and dissipative:
      `RKC2`, or `RadauIIA5` with Newton's method where the state is small. Stiff and oscillating: `Dopri5`, since
      every step must follow the oscillation anyway. `RadauIIA5` and `RKC2` run at a third and a tenth of the tolerance here,
      for the sake of gradients. Where f has no finite values around x0 to tell from: `Dopri5`.
    - Backwards in time: `Dopri5`, or `Exponential` if f is linear.

    Args:
        rtol, atol: tolerance of the local error.
        gradient: as for every solver.
        max_nfe: the budget of evaluations.
    """

    rtol: float = 1e-5
    atol: float = 1e-7
    gradient: GradientMode = field(default_factory=Checkpointed)
    max_nfe: int = 1_000_000

    def solve(self, f: Evaluate, x0: State, t: Tensor, watch: Watch) -> Solution:
        stats, refusal = Statistics(), None
        for solver, reason in self.choices(f, x0, t, watch, stats):
            try:
                solution = solver.solve(f, x0, t, watch)
            except NotImplementedError as error:  # A linear part without the solves that this choice needs: the next one.
                refusal = error
                continue
            except SolveError as error:
                if error.solution is not None:
                    self._sign(error.solution, solver, reason, stats)
                raise
            self._sign(solution, solver, reason, stats)
            advise(f, solver, solution)  # It may have become stiff on the way.
            return solution
        raise NotImplementedError(f"no solver fits {type(f).__name__} ({refusal}): choose one yourself") from refusal

    def _sign(self, solution: Solution, solver: Integrator, reason: str, stats: Statistics) -> None:
        solution.stats.reason = f"{type(solver).__name__}: {reason}"
        solution.stats.nfe += stats.nfe

    def choices(self, f: Evaluate, x0: State, t: Tensor, watch: Watch, stats: Statistics) -> Iterator[tuple[Integrator, str]]:
        """Solvers with reasons, the best first; the last one always works."""
        times = t.detach()
        span = float((times[-1] - times[0]).abs())
        backwards = bool(times[-1] < times[0])
        kept = {"gradient": self.gradient, "max_nfe": self.max_nfe}
        adaptive = {**kept, "rtol": self.rtol, "atol": self.atol}
        explicit = Dopri5(**adaptive)  # type: ignore[arg-type]
        linear, rest = getattr(f, "linear", None), getattr(f, "nonlinear", None)
        if (affine := getattr(f, "affine", None)) is not None:
            linear, rest = affine, None
        if linear is not None:
            angle = linear.norm_bound() * span
            yield from self._structured(rest is None, hasattr(linear, "exponential"), angle, backwards, kept, adaptive)
            yield explicit, f"‖G‖T = {angle:.2g} is moderate, or nothing better is offered"
            return
        if backwards:
            yield explicit, "backwards in time an explicit method is as good as any"
            return
        counted = CountedRightHandSide(f, x0, stats, self.max_nfe, watch)
        unbatched(x0)
        try:
            estimate = spectral_radius(counted, float(times[0]), state_map(Tensor.detach, x0))
            angle = estimate.value / SAFETY * span
        except Exception:  # f refuses states beside x0, a limit is reached, or f is wrong: the solve will tell.
            angle = math.nan
        if math.isnan(angle):
            yield explicit, "f has no values, or none that are finite, around x0 to tell how stiff it is"
        elif angle <= STIFF:
            yield explicit, f"not stiff: |λ|T is about {angle:.2g}"
        elif estimate.oscillates:
            yield explicit, f"its fastest modes oscillate (|λ|T about {angle:.2g}), so that steps must follow them"
        elif sum(part.numel() for part in parts_of(x0)) <= SMALL:
            yield RadauIIA5(**self._tightened(RADAU)), f"stiff (|λ|T about {angle:.2g}) and small, so Newton's method is cheap"  # type: ignore[arg-type]
        else:
            yield RKC2(**self._tightened(STABILISED)), f"stiff (|λ|T about {angle:.2g}) and dissipative, with nothing to factor"  # type: ignore[arg-type]
        yield explicit, "nothing better is offered"

    def _structured(
        self, whole: bool, exact: bool, angle: float, backwards: bool, kept: dict[str, object], adaptive: dict[str, object]
    ) -> Iterator[tuple[Integrator, str]]:
        if whole and (exact or angle <= STIFF):
            how = "knows its exponential" if exact else f"has a moderate norm (‖G‖T = {angle:.2g})"
            yield Exponential(**kept), f"f is linear and {how}: exact, whatever the step"  # type: ignore[arg-type]
        if backwards or angle <= STIFF:
            return
        if whole:
            for implicit in (SDIRK3,) if self.rtol >= 1e-4 else (RadauIIA5, SDIRK3):
                yield implicit(**adaptive), f"f is linear and stiff (‖G‖T = {angle:.2g})"  # type: ignore[arg-type]
            yield Exponential(**kept), "f is linear, and its implicit equations cannot be solved"  # type: ignore[arg-type]
        else:
            yield ARK324(**adaptive), f"the linear part of f is stiff (‖G‖T = {angle:.2g}), the rest is explicit"  # type: ignore[arg-type]
            yield RKC2(**self._tightened(STABILISED)), f"f is stiff (‖G‖T = {angle:.2g}), and its linear part cannot be solved"  # type: ignore[arg-type]

    def _tightened(self, factor: float) -> dict[str, object]:
        return {"gradient": self.gradient, "max_nfe": self.max_nfe, "rtol": factor * self.rtol, "atol": factor * self.atol}


def advise(f: Evaluate, solver: Integrator, solution: Solution) -> None:
    """Put into `stats.advice` that stability, not accuracy, chose the steps of an explicit solver, with the cure."""
    stats = solution.stats
    if not isinstance(solver, ExplicitPair) or stats.accepted < MANY or len(solution.t) < 2:
        return
    t, x = solution.t.detach(), solution.final
    if batched(x):
        return
    end = float(t[-1])
    step = abs(end - float(t[0])) / stats.accepted
    try:
        estimate = spectral_radius(f, t[-1], state_map(Tensor.detach, x))
    except Exception:  # f refuses states beside its solution, which is not lost for that.
        return
    stats.nfe += estimate.evaluations
    # The intervals of stability of our pairs end near −2.5 and −3.3.
    if not (estimate.dissipates and estimate.value / SAFETY * step > 2.0):
        return
    if getattr(f, "linear", None) is None:
        cure = "RKC2 takes longer steps with f alone, RadauIIA5 solves implicitly"
    elif getattr(f, "nonlinear", None) is None or getattr(f, "affine", None) is not None:
        cure = "SDIRK3, RadauIIA5 or Exponential use its linear part"
    else:
        cure = "ARK324, SBDF2 or ETDRK4 use its linear part"
    stats.advice = f"stability bound the steps (h |λ| is about {estimate.value / SAFETY * step:.2g}), not accuracy: {cure}"
    if stats.accepted >= FAR_TOO_MANY:
        warnings.warn(f"{type(solver).__name__} took {stats.accepted} steps because {stats.advice}", SolverWarning, stacklevel=3)
