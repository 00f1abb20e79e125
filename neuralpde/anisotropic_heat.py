"""Heat on a surface with a diffusivity of its own on every triangle, other along than across a direction if need be."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from integrators import LinearPart
from neuralpde.coefficient import Coefficient, CoefficientLike, Learned
from neuralpde.heat import Diffusion
from neuralpde.invariants import DirichletEnergy, Invariant, Law, Mass, Norm
from neuralpde.rhs import RightHandSide
from operators import (
    FieldError,
    Laplacian,
    LinearSolver,
    MeshDiffusion,
    TriangleMesh,
    directional_diffusivity,
    face_gradient,
)


class AnisotropicHeat(RightHandSide):
    """∂u/∂t = div (D ∇u) with a number or a tensor D on each triangle, linear elements, and natural (no-flux) boundary.

        fibres = AnisotropicHeat(mesh, AlongDirection(direction, along=1.0, across=npde.learned(0.1)))

    `forward` takes the gradient on the faces, D times it, and its divergence; `linear` is the same as one assembled Laplacian,
    so every solver works, also while D is learned.

    Good values: rates 1 along and 0.01 across, on a mesh whose edges do not all run askew to the direction; much beyond,
    linear elements lock and heat leaks across.

    Invariants: mass is conserved, norm and energy ½ ∫ ∇u·D ∇u never increase. As with cotangent weights there is no maximum
    principle.

    Args:
        mesh: the surface.
        diffusivity: D ≥ 0 in length²/time: (m,) or (m, d, d), symmetric, one for each face (see `MeshDiffusion`); `learned(...)`
            of numbers (m,), whose logarithm is learned; an `nn.Parameter`, as it is; or a function or module of the mesh giving
            these, which moves with `.on(mesh)`. A field on the vertices becomes one on the faces by `face_average(mesh, x)`.
        solver: of the implicit equations; a direct one by default.

    Raises:
        FieldError: a D that does not fit the faces, or has a negative eigenvalue.

    Source: Andreux, Rodolà, Aubry and Cremers (2014), Anisotropic Laplace–Beltrami operators, equation 5.
    """

    def __init__(
        self,
        mesh: TriangleMesh,
        diffusivity: Tensor | Learned | nn.Module | Callable[[TriangleMesh], Tensor],
        *,
        solver: LinearSolver | None = None,
    ) -> None:
        super().__init__()
        self.solver = solver
        self.logarithm = isinstance(diffusivity, Learned)
        self.function: Callable[[TriangleMesh], Tensor] | None = None
        self._settle(mesh)
        if isinstance(diffusivity, Learned):
            m = mesh.faces.shape[0]
            start = torch.as_tensor(diffusivity.value, dtype=mesh.vertices.dtype, device=mesh.device)
            start = start.expand(m).clone() if start.ndim == 0 else start
            if start.shape != (m,) or not bool((start > 0).all()):
                raise FieldError(f"learned(...) takes positive numbers ({m},), one for each face: for tensors give a module")
            self.value: Tensor = nn.Parameter(start.log())
        elif isinstance(diffusivity, nn.Parameter):
            self.value = diffusivity
        elif isinstance(diffusivity, Tensor):
            self.register_buffer("value", diffusivity)
        elif callable(diffusivity):
            self.function = diffusivity
        else:
            raise TypeError(f"diffusivity is a tensor for the faces, or a function of the mesh, not {type(diffusivity).__name__}")
        with torch.no_grad():
            self._assembled_with(self.diffusivity)

    def _settle(self, mesh: TriangleMesh) -> None:
        self.mesh = mesh
        self.divergence = face_gradient(mesh).divergence()
        self.assembly = MeshDiffusion(mesh)
        self._kept: tuple[MeshDiffusion, Tensor, Laplacian] | None = None

    @property
    def diffusivity(self) -> Tensor:
        """D, (m,) or (m, d, d)."""
        like = self.assembly.mass
        if self.function is None:
            return self.value.exp() if self.logarithm else self.value
        return self.function(self.mesh.to(like.device, like.dtype)).to(like.dtype)

    def forward(self, t: Tensor, u: Tensor) -> Tensor:
        D, gradient = self.diffusivity, self.divergence.gradient
        slopes = gradient.vectors(gradient @ u)
        flux = D[:, None, None] * slopes if D.ndim == 1 else (D.to(slopes.dtype) @ slopes)
        return self.divergence @ gradient.flat(flux)

    def _assembled_with(self, D: Tensor) -> Laplacian:
        kept = self._kept
        if D.requires_grad:
            made: Laplacian = self.assembly(D)
            return made
        same = kept is not None and kept[0] is self.assembly and (kept[1].dtype, kept[1].device) == (D.dtype, D.device)
        if kept is None or not same or not torch.equal(kept[1], D):
            with torch.inference_mode(False):
                plain = D.clone()
                kept = self._kept = (self.assembly, plain, self.assembly(plain))
        return kept[2]

    @property
    def linear(self) -> LinearPart:
        return Diffusion(self._assembled_with(self.diffusivity), 1.0, solver=self.solver)

    @property
    def invariants(self) -> tuple[Invariant, ...]:
        with torch.no_grad():
            laplacian = self._assembled_with(self.diffusivity)
        return Norm(laplacian, Law.NON_INCREASING), DirichletEnergy(laplacian, Law.NON_INCREASING), Mass(laplacian)

    def on(self, domain: TriangleMesh) -> AnisotropicHeat:
        """The same on another mesh, where D is a function of the mesh."""
        if self.function is None:
            raise NotImplementedError(
                "one D for each face is that of one mesh: give a function or module of the mesh, such as AlongDirection"
            )
        like = self.assembly.mass
        moved = super().on(domain)
        moved._settle(domain)
        return moved.to(device=like.device, dtype=like.dtype) if moved.assembly.mass.dtype != like.dtype else moved


class AlongDirection(nn.Module):
    """D = α t tᵀ + β (P − t tᵀ) on every mesh: the rate α along a direction t of each face, β across it, P onto the face.

    Args:
        direction: t, a function of the mesh giving (m, d), of any length; or one vector (d,), whose share in each face is taken.
        along, across: α and β ≥ 0, in length²/time: numbers or `learned(...)`.
    """

    def __init__(
        self,
        direction: Tensor | Callable[[TriangleMesh], Tensor],
        *,
        along: CoefficientLike = 1.0,
        across: CoefficientLike = 1.0,
    ) -> None:
        super().__init__()
        self.direction = direction
        self.alpha = Coefficient("along", along, torch.float64, torch.device("cpu"), positive=True)
        self.beta = Coefficient("across", across, torch.float64, torch.device("cpu"), positive=True)

    def forward(self, mesh: TriangleMesh) -> Tensor:
        direction: Any = self.direction
        t = direction(mesh) if callable(direction) else direction.to(mesh.vertices).expand(mesh.faces.shape[0], -1)
        return directional_diffusivity(mesh, t, self.alpha(), self.beta())
