"""f(t, x) = G x + N(t, x) as implicit-explicit methods step with it: G implicitly, N explicitly."""

from __future__ import annotations

from integrators.integrator import CountedRightHandSide, Split
from integrators.solution import State, Time


class Additive(Split):
    """The parts of f, checked against f once, and f itself where it is called.

    Args:
        counted: f with `linear`, and perhaps `nonlinear`.
        user: the name of the method, for its errors.
        t, x: where the parts are checked against f.

    Raises:
        TypeError: f has no linear part.
        ValueError: f is not what its parts say.
    """

    factored = True
    """Solves with I − s G pay for every new s."""

    def __init__(self, counted: CountedRightHandSide, user: str, t: float, x: State) -> None:
        super().__init__(counted, user)
        self.check(t, x)

    def __call__(self, t: Time, x: State) -> State:
        """f(t, x), counted."""
        return self.f(t, x)
