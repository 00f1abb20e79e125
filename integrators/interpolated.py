"""The adjoint along the forward solution's own interpolant: stable for dissipative flows; parameters by quadrature."""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from integrators.adjoint import CURE, Continuous, Parts, check_limits, refuse, require_deterministic
from integrators.captured import Known, reached_tensors
from integrators.gradients import Dense, Direct, GradientMode
from integrators.integrator import Evaluate
from integrators.solution import Solution, SolveError, State, Status
from integrators.state import parts_of
from integrators.watch import Watch

if TYPE_CHECKING:
    from integrators.method import Method, Step

# Nodes in (0, 1] of the 15-point Kronrod rule and its weights, then those of the 7-point Gauss rule within it
# (Kronrod 1965; Piessens et al. 1983, QUADPACK, dqk15).
NODES = (
    0.991455371120812639206854697526329,
    0.949107912342758524526189684047851,
    0.864864423359769072789712788640926,
    0.741531185599394439863864773280788,
    0.586087235467691130294144691693013,
    0.405845151377397166906606412076961,
    0.207784955007898467600689403773245,
    0.0,
)
KRONROD = (
    0.022935322010529224963732008058970,
    0.063092092629978553290700663189204,
    0.104790010322250183839876322541518,
    0.140653259715525918745189590510238,
    0.169004726639267902826583426598550,
    0.190350578064785409913256402421014,
    0.204432940075298892414161999234649,
    0.209482141084727828012999174891714,
)
GAUSS = (0.0, 0.129484966168869693270611432679082, 0.0, 0.279705391489276667901467771423780,
         0.0, 0.381830050505118944950369775488975, 0.0, 0.417959183673469387755102040816327)  # fmt: skip


@dataclass(frozen=True)
class Interpolated(GradientMode):
    """The continuous adjoint along the dense output of the forward solve, which is kept instead of solved again backwards:

        da/dt = −(∂f/∂x)ᵀ a  at x(t) interpolated,     dL/dθ = ∫ (∂f/∂θ)ᵀ a dt  by Gauss–Kronrod quadrature

    Only the linear equation for a is solved backwards, and for a dissipative flow that is as stable as the flow is forwards
    (Kim et al. 2021, Chaos 31, "Stiff neural ordinary differential equations"; Sapienza et al. 2024, arXiv:2406.09699). The
    15-point rule is refined by halving until its difference from the 7-point Gauss rule in it is within the tolerance.
    Memory: every step's state and stages, without their graphs. The gradient is that of the exact solution, to the tolerance,
    and no better than the solver's dense output.

    Args:
        rtol, atol: tolerances of a and of the integrals; those of the solver, or 1e-6 and 1e-8, if absent.
        max_nfe: the budget of the backward pass, in evaluations of f with its derivative.
    """

    rtol: float | None = None
    atol: float | None = None
    max_nfe: int = 200_000

    def __post_init__(self) -> None:
        check_limits(self.rtol, self.atol, self.max_nfe)

    def run(self, method: Method, f: Evaluate, x0: State, t: Tensor, watch: Watch) -> Solution:
        from integrators.method import Method as Own

        if not isinstance(method, Own):
            raise TypeError(f"Interpolated() needs the dense output of a solver of our own, which {type(method).__name__} is not")
        plain = replace(method, gradient=Direct())
        if not torch.is_grad_enabled():
            return plain.solve(f, x0, t, watch)
        refuse(self, watch)
        captured, around = reached_tensors(f, t[0], x0)
        if not any(part.requires_grad for part in (*parts_of(x0), t, *captured)):
            return plain.solve(f, x0, t, watch)
        require_deterministic(around, self)
        return _Along(self, plain, f, x0, t, replace(watch, dense=True), captured, around).attach(x0, t)


class _Along(Continuous):
    def solve(self) -> Solution:
        try:
            solution = super().solve()
        except SolveError as error:
            self._take(error.solution)
            raise
        self._take(solution)
        return solution

    def _take(self, solution: Solution | None) -> None:
        """Keep the dense output apart, so that autograd frees it."""
        dense = solution.interpolant if solution is not None else None
        self.leaves: list[Any] = []
        self.steps: list[Step] = []
        if isinstance(dense, Dense) and solution is not None:
            solution.interpolant = None
            self.dense_run = dense.run
            self.leaves, self.shape = pytree.tree_flatten([(carry, trial) for _, carry, trial in dense.steps])
            self.steps = [step for step, _, _ in dense.steps]

    def kept(self, solution: Solution) -> list[Tensor]:
        flat = [leaf for leaf in self.leaves if isinstance(leaf, Tensor)]
        self.leaves = [None if isinstance(leaf, Tensor) else (leaf,) for leaf in self.leaves]
        return [*parts_of(solution.x), *flat]

    def pull(self, grads: list[Tensor | None], t: Tensor, x0: State, kept: list[Tensor]) -> list[Tensor | None]:
        from integrators.dopri5 import Dopri5

        if not self.steps:  # The solve failed in its first step.
            return super().pull(grads, t, x0, kept)
        rtol = self.settings.rtol or getattr(self.method, "rtol", 1e-6)
        atol = self.settings.atol or getattr(self.method, "atol", 1e-2 * rtol)
        self.solver = Dopri5(rtol=rtol, atol=atol, gradient=Direct(), max_nfe=2**62)
        tensors = iter(kept[self.count :])
        pairs = pytree.tree_unflatten([next(tensors) if leaf is None else leaf[0] for leaf in self.leaves], self.shape)
        steps = [(step, carry, trial) for step, (carry, trial) in zip(self.steps, pairs, strict=True)]
        self.path = Dense(self.dense_run, steps)
        try:
            # The equation for a is linear: at size one atol means the same whatever the units of the loss.
            size = max((float(g.abs().max()) for g in grads if g is not None and g.numel()), default=0.0)
            unit = size if 0 < size < math.inf else 1.0
            pulled = super().pull([None if g is None else g / unit for g in grads], t, x0, kept)
            return [None if g is None else g * unit for g in pulled]
        finally:
            del self.path

    def back(
        self, j: int, here: Parts, there: Parts, a: Parts, theta: list[Tensor], known: Known
    ) -> tuple[Parts, list[Tensor]]:
        def at(s: Tensor) -> Parts:
            # Rounding may carry a stage just beyond the end.
            lo, hi = sorted((float(self.t[j - 1]), float(self.t[j])))
            return parts_of(self.path(s.clamp(lo, hi)))

        def falling(s: Tensor, y: Parts) -> Parts:
            _, da, _ = self.derivative(s, at(s), y, known)
            return tuple(-part for part in da)

        solution = self.solve_back(self.solver, falling, a, j, dense=True)
        if theta:
            dense = solution.interpolant
            if dense is None:
                raise SolveError("the backward solve kept no dense output", Status.DIVERGED)

            def integrand(s: float) -> list[Tensor]:
                now = self.t.new_tensor(s)
                return self.derivative(now, at(now), parts_of(dense(now)), known)[2]

            ends = sorted({float(self.t[j - 1]), float(self.t[j]), *self._jumps(j)})
            sign = 1.0 if float(self.t[j]) > float(self.t[j - 1]) else -1.0
            for lo, hi in itertools.pairwise(ends):
                share = self.integral(integrand, lo, hi)
                theta = [part + sign * value for part, value in zip(theta, share, strict=True)]
        return parts_of(solution.final), theta

    def _jumps(self, j: int) -> list[float]:
        lo, hi = sorted((float(self.t[j - 1]), float(self.t[j])))
        return [s for s in self.watch.jumps if lo < s < hi]

    def integral(self, g: Any, lo: float, hi: float) -> list[Tensor]:
        """∫ g from lo to hi, each component's norm to the tolerance."""
        whole, error = kronrod(g, lo, hi)
        pending = [(lo, hi, whole, error)]
        rtol, atol = self.solver.rtol, self.solver.atol
        while True:
            total = [torch.stack(values).sum(0) for values in zip(*(panel[2] for panel in pending), strict=True)]
            allowed = [atol + rtol * float(part.abs().max()) for part in total]
            ratios = [max(e / a for e, a in zip(panel[3], allowed, strict=True)) for panel in pending]
            if not sum(ratios) > 1:
                return total
            worst = max(range(len(pending)), key=ratios.__getitem__)
            lo, hi, _, _ = pending.pop(worst)
            middle = (lo + hi) / 2
            if not lo < middle < hi or hi - lo < 1e-10 * max(abs(lo), abs(hi), 1e-300):
                raise SolveError(
                    f"the quadrature of Interpolated does not settle at t = {middle:.6g}: f is discontinuous or random there. "
                    f"Name the time in jumps=..., or loosen the tolerance. {CURE}",
                    Status.DIVERGED,
                )
            for a, b in ((lo, middle), (middle, hi)):
                pending.append((a, b, *kronrod(g, a, b)))


def kronrod(g: Any, lo: float, hi: float) -> tuple[list[Tensor], list[float]]:
    """The 15-point Kronrod integrals of the tensors g(s), and the largest difference of each from the 7-point Gauss one."""
    middle, half = (lo + hi) / 2, (hi - lo) / 2
    fine: list[Tensor] = []
    coarse: list[Tensor] = []
    for node, k, w in zip(NODES, KRONROD, GAUSS, strict=True):
        for s in (middle - half * node, middle + half * node) if node else (middle,):
            values = g(s)
            if not fine:
                fine, coarse = [torch.zeros_like(v) for v in values], [torch.zeros_like(v) for v in values]
            fine = [a + half * k * v for a, v in zip(fine, values, strict=True)]
            coarse = [a + half * w * v for a, v in zip(coarse, values, strict=True)] if w else coarse
    return fine, [float((a - b).abs().max()) for a, b in zip(fine, coarse, strict=True)]
