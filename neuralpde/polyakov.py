"""The discrete Polyakov functional and its gradient flow: diffusion that is weak across edges, and never raises an energy."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from integrators import LinearPart, State
from neuralpde.coefficient import Coefficient, CoefficientLike, Learned, as_coefficient
from neuralpde.heat import Diffusion
from neuralpde.invariants import Invariant, Law, Mass, MaximumPrinciple, Norm, Part
from neuralpde.nonlinear_diffusion import SlopeDiffusion
from neuralpde.slopes import Slopes
from operators import FieldError, Graph, Laplacian, TriangleMesh
from operators.diffusivity import Joint, joined


class PolyakovFlow(SlopeDiffusion):
    """dz/dt = div(a ∇z), a = 1/√g with g = 1 + α²|∇x|²: graph Beltrami flow as the gradient flow of the Polyakov functional.

    Chamberlain et al. (2021, BLEND), Theorem 1, state that their flow (7) is such a gradient flow "under structural
    assumptions on the diffusivity". These are ours. Places k (nodes, edges or faces, see `Slopes`) have measures μ_k and know
    |∇z|²_k, a weighted sum of |z_j − z_i|² such that Σ_k μ_k |∇z|²_k = ⟨z, L z⟩.

    1. *The metric is a pull-back of which only the volume counts*: one number g_k = 1 + α²|∇x|²_k at each place, the
       determinant in their eq. (4); 1 is the place itself, α²|∇x|² what the features add. All channels share it.
    2. *Embedding and metric are both free.* With an inverse volume a_k > 0 for the metric, the functional is

           S[z, a] = ½ Σ_k μ_k (a_k g_k(z) + 1/a_k),

       a Dirichlet energy ½ Σ μ a |∇z|² and the price of the metric. It is least at a = 1/√g, the edge indicator of eq. (4),
       where S[z] = min_a S[z, a] = Σ_k μ_k √g_k, the area of the embedded graph.
    3. *The metric follows at once, the embedding by the steepest descent* in Σ_i m_i |dz_i|². As ∂S/∂a = 0 there, the
       derivative of S[z] is that at fixed a, and ½ Σ_k μ_k a_k |∇z|²_k has the derivative M L_a z, where L_a = −div(a ∇·).

    So dz/dt = −L_a z. At a node, dz_i/dt = Σ_j a_ij (z_j − z_i), which is (7), with a_ij = (w_ij/m_i) (a_i + a_j)/2 on a
    Laplacian or a graph; with `EdgeSlopes` a_ij = (w_ij/m_i) / √(1 + α² w_ij |x_j − x_i|²/m_e) depends on z_i and z_j alone.
    m_i a_ij is symmetric, so mass is conserved; the rows of a_ij do not sum to one, as attention's do: both together are too
    much to ask. The 1/√g in front of (3) is left out, as in the paper (its footnote 3).

    The state is features x (..., n, c), or with `positions=True` a pair (u, x). Then g = 1 + |∇u|² + α²|∇x|², both move by
    div(a ∇·), and the descent is that in the metric |du|² + α²|dx|² of the joint space.

    S is convex in z. Hence two solutions never part (Σ m_i |z_i − y_i|² falls), and the flow never speeds up (Σ m_i |dz_i/dt|²
    falls). The Dirichlet energy ½⟨z, L z⟩ falls where α = 0, but is not declared: for α > 0 a hub with one
    steep edge and many gentle ones may raise it.

    With α = 0 (and without positions) this is the heat flow −L x; as α → ∞ it is total-variation flow in time t/α. On a flat
    mesh and one channel, S is the area of the surface (u, αx) over it.

    Good values: an image with values in [0, 1], unit spacing and noise of 0.03, scale=50 to 100, t = 1 to 4,
    `SemiImplicitEuler(dt=0.25)`: noise goes, nine tenths of each edge stay. Its steps lower S however long they are, since each
    finds the least of S[z, a] in a, and then that of S[z, a] + |z − z_old|²/2h in z.

    Invariants: mass; S and the norm fall; z stays within the hull of its start where no weight is negative.

    Args:
        domain: a Laplacian with weights ≥ 0, an undirected graph, a mesh, or slopes such as `EdgeSlopes(graph)`.
        scale: α ≥ 0, in length per unit of x; a number or `learned(...)`. Its sign does not matter.
        positions: whether the state is a pair (u, x) of positions and features, u in Euclidean space.
        learn: make a number α a parameter. From α = 0 it cannot learn: the flow depends on α².

    Raises:
        ValueError: a scale that is negative or not finite. TypeError: a scale that is not one number.
    """

    def __init__(
        self,
        domain: Laplacian | Graph | TriangleMesh | Slopes,
        scale: CoefficientLike = 1.0,
        *,
        positions: bool = False,
        learn: bool = False,
    ) -> None:
        super().__init__(domain)
        self.alpha = _one_scale(scale, self.slopes.base, learn)
        self.positions = positions

    @property
    def scale(self) -> Tensor:
        """α."""
        return self.alpha()

    def conductance(self, squared: Tensor) -> Tensor:
        return (1 + self._weight * squared).rsqrt()

    def primitive(self, squared: Tensor) -> Tensor:
        # 2 (√(1 + c s) − 1)/c without the cancellation, and at c = 0 too.
        return 2 * squared / (1 + (1 + self._weight * squared).sqrt())

    def forward(self, t: Tensor, z: Joint) -> Any:
        return _apart(self.slopes.diffuse(self.indicator(z), joined(z)), z)

    def lagged(self, t: Tensor, z: Joint) -> tuple[LinearPart, None]:
        """G y = div(a ∇y) with the indicator a frozen at z, for `SemiImplicitEuler`."""
        if not self.positions:
            return super().lagged(t, self._alone(z))
        return _JointPart(Diffusion(self.slopes.laplacian(self.indicator(z)), 1.0)), None

    def indicator(self, z: Joint) -> Tensor:
        """a = 1/√g at the places of `slopes`, (..., k): 1 where z is flat, small across its edges (eq. 4)."""
        return self.conductance(self._squared(z))

    def energy(self, z: Joint) -> Tensor:
        """Σ_k μ_k (√g_k − 1), over α² if the state is features alone, which makes it ½⟨x, L x⟩ at α = 0; (..., n, c) → (...)."""
        squared = self._squared(z)
        return (self.slopes.measure.to(squared.dtype) * self.primitive(squared)).sum(-1) / 2

    def most(self, z: Joint) -> Tensor:
        """A bound of `energy` at the norm of z: it is concave in |∇z|², whose mean is at most λ ‖z‖²/Σ μ."""
        base = self.slopes.base
        square = sum(
            weight * (base.mass.to(part.dtype)[:, None] * part.square()).sum((-2, -1)) for weight, part in self._parts(z)
        )
        volume = self.slopes.measure.sum().clamp(min=torch.finfo(base.dtype).tiny)
        return volume * self.primitive(base.norm_bound() * square / volume) / 2

    def functional(self, z: Joint, a: Tensor) -> Tensor:
        """S[z, a] = ½ Σ_k μ_k (a_k g_k + 1/a_k − 2) for any metric a > 0 of shape (..., k), in the units of `energy`."""
        squared, c = self._squared(z), self._weight
        # (a g + 1/a − 2)/c with g = 1 + c s; beside a = 1 there is no finite price at c = 0.
        price = (a - 1).square() / torch.where((a == 1) & (c == 0), torch.ones_like(a), a * c)
        return (self.slopes.measure.to(squared.dtype) * (a * squared + price)).sum(-1) / 2

    @property
    def invariants(self) -> tuple[Invariant, ...]:
        if not self.positions:
            return (PolyakovEnergy(self), *super().invariants[1:])
        base = self.slopes.base
        kept: list[Invariant] = [Norm(base, Law.NON_INCREASING), Mass(base)]
        if self.slopes.averages:
            kept.append(MaximumPrinciple(base, Law.NON_INCREASING))
        return (PolyakovEnergy(self), *(Part(k, law, label) for k, label in enumerate("ux") for law in kept))

    @property
    def _weight(self) -> Tensor:
        """c in g = 1 + c s, s being |∇x|² of features, and the whole |∇u|² + α²|∇x|² of a pair."""
        alpha = self.alpha()
        return torch.ones_like(alpha) if self.positions else alpha.square()

    def _squared(self, z: Joint) -> Tensor:
        first, *rest = [weight * self.slopes.squared(part) for weight, part in self._parts(z)]
        return first + rest[0] if rest else first

    def _parts(self, z: Joint) -> list[tuple[Tensor | float, Tensor]]:
        """The parts of the state, each with its weight in |∇z|²."""
        if not self.positions:
            return [(1.0, self._alone(z))]
        u, x = self._pair(z)
        return [(1.0, u), (self.alpha().square(), x)]

    def _alone(self, z: Joint) -> Tensor:
        if isinstance(z, tuple):
            raise FieldError("the state is a pair, but this PolyakovFlow moves features alone: build it with positions=True")
        return _real(z)

    def _pair(self, z: Joint) -> tuple[Tensor, Tensor]:
        if not isinstance(z, tuple) or len(z) != 2:
            raise FieldError("with positions=True the state is a pair (u, x) of positions and features: give both, as in (u, x)")
        u, x = _real(z[0]), _real(z[1])
        if u.shape[:-1] != x.shape[:-1]:
            raise FieldError(
                f"positions and features must be of the same nodes and batch, not {tuple(u.shape)} and {tuple(x.shape)}"
            )
        return u, x


@dataclass(frozen=True, eq=False)
class PolyakovEnergy(Invariant):
    """S(z) = min_a S[z, a] less its value on flat fields, what `PolyakovFlow` lowers by the steepest descent.

    Its scale is the largest value it can take at this norm.

    Args:
        flow: the right-hand side whose energy it is.
    """

    flow: PolyakovFlow
    law: Law = Law.NON_INCREASING

    def measure(self, x: State) -> Tensor:
        return self.flow.energy(x)  # type: ignore[arg-type]

    def scale(self, x: State) -> Tensor:
        return self.flow.most(x)  # type: ignore[arg-type]

    @property
    def name(self) -> str:
        return "Polyakov energy"


class _JointPart:
    """y ↦ div(a ∇y) of positions and features side by side."""

    self_adjoint = True

    def __init__(self, part: Diffusion) -> None:
        self.part = part

    def __matmul__(self, z: Any) -> Any:
        return _apart(self.part @ joined(z), z)

    def norm_bound(self) -> float:
        return self.part.norm_bound()

    def solve(self, shift: Tensor, b: Any) -> Any:
        return _apart(self.part.solve(shift, joined(b)), b)


def _apart(slope: Tensor, like: Joint) -> Any:
    """Channels as they lie in `like`: the inverse of `joined`."""
    if not isinstance(like, tuple):
        return slope
    width = like[0].shape[-1]
    return slope[..., :width], slope[..., width:]


def _real(z: Tensor) -> Tensor:
    if z.is_complex():
        raise FieldError(
            "a Polyakov flow moves real fields: torch.view_as_real(x).flatten(-2) has twice the channels, and its |∇x|"
        )
    return z


def _one_scale(value: CoefficientLike, base: Laplacian, learn: bool) -> Coefficient:
    given = value.value if isinstance(value, Learned) else value
    number = isinstance(given, (int, float)) or (isinstance(given, Tensor) and given.numel() == 1)
    if not number and not (isinstance(given, Coefficient) and given.scalar):
        raise TypeError(f"scale must be one number, or learned(number), not {type(given).__name__}")
    return as_coefficient(value, base, "scale", nonnegative=True, learn=learn)
