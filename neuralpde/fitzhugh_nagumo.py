"""FitzHugh and Nagumo's excitable medium: pulses and spirals."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from torch import Tensor

from neuralpde.coefficient import CoefficientLike, as_coefficient
from neuralpde.invariants import Invariant
from neuralpde.reaction import ReactionDiffusion, numbers_of
from operators import Laplacian


class FitzHughNagumo(ReactionDiffusion):
    """dv/dt = −D_v L v + v − v³/3 − w + I, dw/dt = −D_w L w + ε (v + a − b w): excitable, as nerve and heart are.

    Good values: the defaults rest at v = −1.1994, w = −0.6243; a push of v beyond about −0.5 over a length of a few √D_v starts a
    pulse, which runs at a speed of about 0.8 √D_v, some 40 √D_v long, and leaves a refractory tail. I = 0.5 oscillates.
    On a surface broken fronts curl up into spirals. `ARK324()`, or `SBDF2(dt=0.1)`; spacings up to √D_v.

    Args:
        laplacian: L = M⁻¹ C, positive semi-definite, in 1/length² on a surface.
        diffusivities: D_v, D_w ≥ 0 in length²/time.
        timescale: ε > 0, how slowly w follows. threshold: a. recovery: b > 0. current: I, all without unit.

    Invariants: a rectangle |v| ≤ A, |w| ≤ B that contains the rest state, with edge weights ≥ 0 (`InvariantRegion`).

    FitzHugh 1961, Biophys. J. 1; Nagumo, Arimoto and Yoshizawa 1962, Proc. IRE 50.
    """

    names = ("v", "w")

    def __init__(
        self,
        laplacian: Laplacian,
        diffusivities: Sequence[CoefficientLike] = (1.0, 0.0),
        *,
        timescale: CoefficientLike = 0.08,
        threshold: CoefficientLike = 0.7,
        recovery: CoefficientLike = 0.8,
        current: CoefficientLike = 0.0,
    ) -> None:
        super().__init__(laplacian, diffusivities)
        self.epsilon = as_coefficient(timescale, laplacian, "timescale", positive=True)
        self.a = as_coefficient(threshold, laplacian, "threshold")
        self.b = as_coefficient(recovery, laplacian, "recovery", positive=True)
        self.current = as_coefficient(current, laplacian, "current")

    def reaction(self, t: Tensor, *fields: Tensor) -> tuple[Tensor, ...]:
        v, w = fields
        return v - v**3 / 3 - w + self.current(t), self.epsilon(t) * (v + self.a(t) - self.b(t) * w)

    def rest(self) -> tuple[float, float]:
        """The state (v, w) at which nothing happens, v − v³/3 − (v + a) / b + I = 0: the one of least v, the only one for b ≤ 1.

        Raises:
            ValueError: coefficients that are not numbers.
        """
        numbers = numbers_of(self.a, self.b, self.current)
        if numbers is None:
            raise ValueError("a rest state needs threshold, recovery and current to be one number each")
        a, b, current = numbers
        v = min(_real_roots([-1 / 3, 0.0, 1 - 1 / b, current - a / b]))
        return v, (v + a) / b

    @property
    def invariants(self) -> tuple[Invariant, ...]:
        numbers = numbers_of(self.a, self.b, self.current, self.epsilon)
        if numbers is None:
            return ()
        a, b, current, _ = numbers
        # At v = A the slope A − A³/3 + B + |I| must not be positive, at w = B neither A + |a| − b B.
        A = max(_real_roots([-1 / 3, 0.0, 1 + 1 / b, abs(current) + abs(a) / b])) * (1 + 1e-9)
        B = (A + abs(a)) / b
        return self.region((-A, -B), (A, B))


def _real_roots(polynomial: list[float]) -> list[float]:
    """Those of a polynomial, the highest power first."""
    return [float(root.real) for root in np.roots(polynomial) if abs(root.imag) <= 1e-9 * (1 + abs(root.real))]
