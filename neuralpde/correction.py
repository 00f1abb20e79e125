"""Physics with a learned correction inside the right-hand side."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from integrators import LinearPart
from neuralpde.invariants import Invariant
from neuralpde.rhs import Function, RightHandSide, Sum, as_right_hand_side
from neuralpde.symmetry import Symmetry


class Corrected(RightHandSide):
    """f(t, x) = physics(t, x) + correction(t, x).

    The linear part of the physics stays exposed, and the correction joins the nonlinear one, so that implicit-explicit solvers
    (`SBDF2`, `ARK324`) take the same steps with and without it. Of the declared invariants those stay that both terms declare:
    a `ConservativeClosure` keeps the mass, any other network drops it.

    Args:
        physics: what is known.
        correction: what is learned: a closure, or any module or function of (t, x).

    Good values: `Corrected(CahnHilliard(L, 0.15), ConservativeClosure(L))`.
    """

    def __init__(self, physics: Function, correction: Function) -> None:
        super().__init__()
        self.physics = as_right_hand_side(physics)
        self.correction = as_right_hand_side(correction)

    @property
    def uncorrected(self) -> RightHandSide:
        """The physics alone."""
        return self.physics

    @property
    def _sum(self) -> Sum:
        return Sum(self.physics, _Explicit(self.correction))

    def forward(self, t: Tensor, x: Any) -> Any:
        return self._sum(t, x)

    @property
    def jumps(self) -> tuple[float, ...]:
        return self._sum.jumps

    @property
    def restarts(self) -> tuple[float, ...]:
        return self._sum.restarts

    def starting_at(self, x0: Any) -> RightHandSide:
        return self._of(self.physics.starting_at(x0), self.correction.starting_at(x0))

    def restarting_at(self, t: Tensor, x: Any, x0: Any) -> RightHandSide:
        return self._of(self.physics.restarting_at(t, x, x0), self.correction.restarting_at(t, x, x0))

    def _of(self, physics: RightHandSide, correction: RightHandSide) -> RightHandSide:
        return self if physics is self.physics and correction is self.correction else Corrected(physics, correction)

    @property
    def invariants(self) -> tuple[Invariant, ...]:
        return self._sum.invariants

    @property
    def symmetries(self) -> tuple[Symmetry, ...]:
        return self._sum.symmetries

    @property
    def linear(self) -> LinearPart | None:
        return self.physics.linear

    @property
    def nonlinear(self) -> Function | None:
        return None if self.physics.linear is None else self._sum.nonlinear


class _Explicit(RightHandSide):
    """A term without its linear part: what is learned changes at every step of training, and a factor would not last."""

    def __init__(self, term: RightHandSide) -> None:
        super().__init__()
        self.term = term

    def forward(self, t: Tensor, x: Any) -> Any:
        return self.term(t, x)

    @property
    def jumps(self) -> tuple[float, ...]:
        return self.term.jumps

    @property
    def restarts(self) -> tuple[float, ...]:
        return self.term.restarts

    @property
    def invariants(self) -> tuple[Invariant, ...]:
        return self.term.invariants

    @property
    def symmetries(self) -> tuple[Symmetry, ...]:
        return self.term.symmetries
