"""The solver of reaction and anisotropic diffusion, with its derivatives in the numbers that are unknown and in the field."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from neuralpde.hard_law import MaterialLaw, SourceLaw, positive_tensor, symmetric_basis
from operators import Laplacian, MeshDiffusion, TriangleMesh, face_gradient

GAMMA = 1 - 0.5**0.5
"""The diagonal of Alexander's L-stable method of order 2."""
REST = (1 - GAMMA) / GAMMA
LOGARITHMS = ((-40.0, 20.0), (-4.0, 4.0))
"""The ends of the logarithm of A along the identity, and along the rest: ratios up to some hundreds."""
LONGEST = 2.0
"""The longest step that is taken in the logarithm of A."""


@dataclass(frozen=True)
class Form:
    """What an equation ∂u/∂t = div (g(m) A ∇u) + f(u) leaves open.

    Its unknown numbers are, in this order: the logarithm of A; c of the source f; γ of the material law g.

    Args:
        isotropic: A = κ I with one unknown rate; else any symmetric positive A, with six unknowns.
        source: f.
        material: g.
    """

    isotropic: bool
    source: SourceLaw
    material: MaterialLaw

    @property
    def sizes(self) -> tuple[int, int, int]:
        """How many unknowns A, f and g have."""
        return 1 if self.isotropic else 6, self.source.size, self.material.size

    def moved(self, unknowns: Tensor, change: Tensor) -> Tensor:
        """The first unknowns, some or all, after a change that is shortened where it goes too far for A."""
        count = self.sizes[0]
        size = float(change[:count].norm())
        moved = unknowns + (LONGEST / size if size > LONGEST else 1.0) * change
        return torch.cat([moved[:1].clamp(*LOGARITHMS[0]), moved[1:count].clamp(*LOGARITHMS[1]), moved[count:]])


class Place:
    """A mesh with what its trajectories share: gradient, divergence and the isotropic Laplacian, in float64."""

    def __init__(self, mesh: TriangleMesh) -> None:
        self.mesh = mesh.to(torch.float64)
        self.divergence = face_gradient(self.mesh).divergence()
        self.assembly = MeshDiffusion(self.mesh)
        self.laplacian: Laplacian = self.assembly(torch.ones((), dtype=torch.float64))
        self.share = (self.laplacian.mass / self.laplacian.mass.sum())[:, None]

    def inner(self, x: Tensor, y: Tensor) -> Tensor:
        """⟨x_i, y_j⟩, the mean over the surface; (n, p), (n, q) → (p, q)."""
        means: Tensor = (self.share * x).T @ y
        return means


class Flow:
    """One trajectory's equation with all its numbers given: it steps a field, and tangents and adjoints beside it.

    A step of h is Strang's: h/2 of the source by the midpoint rule, h of the diffusion by Alexander's SDIRK of order 2
    (L-stable: what is stiff is damped), h/2 of the source.

    Args:
        place: the mesh.
        form: the equation.
        material: m (n,).
        unknowns: (sum of form.sizes,).
        h: the step.
    """

    def __init__(self, place: Place, form: Form, material: Tensor, unknowns: Tensor, h: float) -> None:
        self.place, self.form, self.h = place, form, h
        logarithm, self.c, gamma = torch.split(unknowns, list(form.sizes))
        self.tensor, self.tensor_slopes = positive_tensor(logarithm, symmetric_basis(form.isotropic))
        faces = place.mesh.faces
        g, g_slopes = form.material(material, gamma)
        self.g, self.g_slopes = g[faces].mean(1), g_slopes[faces].mean(1)
        D = self.g[:, None, None] * self.tensor
        self.laplacian: Laplacian = place.assembly((D + D.mT) / 2)

    def step(self, u: Tensor, tangents: Tensor | None = None) -> Step:
        """The state u (n, 1) after h, and its derivatives in the first q unknowns beside it.

        Args:
            tangents: (n, q); q counts A, or A and f, or all unknowns. None for none.
        """
        reacted, grown, pushed = self._react(u)
        first = self._solve(reacted)
        diffused = self._solve(reacted - REST * (reacted - first))
        result, regrown, repushed = self._react(diffused)
        if tangents is not None and (q := tangents.shape[1]):
            tangents = self._with_source(grown * tangents, pushed)
            moved = self._solve(tangents + self._slopes(first, q))
            tangents = self._solve(tangents - REST * (tangents - moved) + self._slopes(diffused, q))
            tangents = self._with_source(regrown * tangents, repushed)
        return Step(self, result, tangents, grown, regrown)

    def diffuse(self, x: Tensor) -> Tensor:
        """h of the diffusion, of every column: self-adjoint in the inner product of the mass."""
        return self._solve(x - REST * (x - self._solve(x)))

    def _react(self, u: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """h/2 of the source: the state, and its derivatives in the state and in c."""
        half = self.h / 2
        f, slope, by_c = self.form.source(u[:, 0], self.c)
        later, later_slope, later_by_c = self.form.source(u[:, 0] + half / 2 * f, self.c)
        growth = 1 + half * later_slope * (1 + half / 2 * slope)
        return u + half * later[:, None], growth[:, None], half * (later_by_c + half / 2 * later_slope[:, None] * by_c)

    def _with_source(self, tangents: Tensor, pushed: Tensor) -> Tensor:
        start, size, _ = self.form.sizes
        if tangents.shape[1] > start and size:
            tangents[:, start : start + size] += pushed
        return tangents

    def _solve(self, b: Tensor) -> Tensor:
        return self.laplacian.solve(GAMMA * self.h, b)

    def _slopes(self, y: Tensor, q: int) -> Tensor:
        """γ h ∂(−L)/∂(the first q unknowns) y."""
        tensors, source, _ = self.form.sizes
        gradient = self.place.divergence.gradient
        slopes = gradient.vectors(gradient(y))[:, :, 0]
        # (m, j) times (j, (i, p)), as one product of matrices.
        by_tensor = self.tensor_slopes.permute(2, 1, 0).reshape(slopes.shape[1], -1)
        flux = ((self.g[:, None] * slopes) @ by_tensor).reshape(*slopes.shape, tensors)
        if q > tensors + source:
            flux = torch.cat([flux, (slopes @ self.tensor)[:, :, None] * self.g_slopes[:, None, :]], dim=2)
        change = GAMMA * self.h * self.place.divergence(gradient.flat(flux))
        gap = change.new_zeros(len(change), min(source, q - tensors))
        return torch.cat([change[:, :tensors], gap, change[:, tensors:]], dim=1)


@dataclass(frozen=True)
class Step:
    """A step of a flow that was made.

    Args:
        state: u after it (n, 1).
        tangents: derivatives of u in the unknowns (n, q), if asked for.
        grown, regrown: the derivatives of the two half steps of the source in u (n, 1).
    """

    flow: Flow
    state: Tensor
    tangents: Tensor | None
    grown: Tensor
    regrown: Tensor

    @property
    def following(self) -> Tensor:
        """The tangents, of a step that was asked for them."""
        if self.tangents is None:
            raise ValueError("this step was made without tangents: give them to Flow.step")
        return self.tangents

    def forward(self, x: Tensor) -> Tensor:
        """The derivative in the field: ∂u(t + h)/∂u(t) x, of every column."""
        return self.regrown * self.flow.diffuse(self.grown * x)

    def backward(self, x: Tensor) -> Tensor:
        """Its adjoint in the inner product of the mass."""
        return self.grown * self.flow.diffuse(self.regrown * x)
