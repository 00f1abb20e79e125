"""Weather maps that move themselves: potential vorticity and temperature carried by the balanced wind of a geopotential."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from neuralpde.rhs import RightHandSide
from neuralpde.shallow_water import EARTH_RADIUS, EARTH_ROTATION
from operators import Laplacian, lumped_mass, robust_laplacian
from operators.domains import TriangleMesh

# Where f falls below that of this latitude, winds no longer follow the geopotential.
TROPICS = math.radians(15.0)


class Jacobian:
    """J(a, b) = ∂a/∂x ∂b/∂y − ∂a/∂y ∂b/∂x on a triangulated sphere, linear on each triangle, lumped: M⁻¹ ∫ φ J(a, b).

    With M-weighted sums, Σ J = 0, Σ a J = 0 and Σ b J = 0 to round-off: flow along ψ keeps the mean, its own energy and the
    variance of what it carries (Arakawa 1966, J. Comput. Phys. 1).

    Args:
        mesh: a sphere about the origin, faces counter-clockwise as seen from outside.
    """

    def __init__(self, mesh: TriangleMesh) -> None:
        self.faces = mesh.faces
        self.mass = lumped_mass(mesh)

    def __call__(self, a: Tensor, b: Tensor) -> Tensor:
        """(..., n, c) and (..., n, c) → (..., n, c)."""
        (i, j, k) = self.faces.unbind(1)
        a0, b0 = a[..., i, :], b[..., i, :]
        # Twice the integral over a triangle, whatever its shape.
        twice = (a[..., j, :] - a0) * (b[..., k, :] - b0) - (a[..., k, :] - a0) * (b[..., j, :] - b0)
        share = twice / 6
        total = torch.zeros_like(share[..., :1, :].expand(*share.shape[:-2], len(self.mass), share.shape[-1]))
        for corner in (i, j, k):
            total = total.index_add(-2, corner, share)
        return total / self.mass[:, None]


class BalancedFlow(RightHandSide):
    """dq/dt = −J(ψ, q), dθ/dt = −J(ψ, θ), with q = f − (L + F) ψ at each level (Charney, Fjørtoft and von Neumann 1950).

    The state is (q, θ), (..., n, levels) each, on the unit sphere, in 1/s and K; ψ in m² s⁻¹ over the radius squared.

    Args:
        mesh: a sphere about the origin, faces counter-clockwise.
        deformation: F, the square of the earth's radius over that of deformation: it slows the longest waves.
    """

    def __init__(self, mesh: TriangleMesh, deformation: float) -> None:
        super().__init__()
        if not (math.isfinite(deformation) and deformation > 0):
            raise ValueError(f"the deformation number must be positive and finite, not {deformation}: 2 to 20 are usual")
        self.jacobian = Jacobian(mesh)
        self.laplacian: Laplacian = robust_laplacian(mesh)
        self.deformation = deformation
        height = torch.nn.functional.normalize(mesh.vertices.double(), dim=1)[:, 2:]
        self.coriolis = (2 * EARTH_ROTATION * height).to(mesh.vertices.dtype)

    def start(self, geopotential: Tensor, temperature: Tensor) -> tuple[Tensor, Tensor]:
        """The state of geopotential in m² s⁻² and temperature in K, (..., n, levels) each."""
        f, least = self.coriolis, 2 * EARTH_ROTATION * math.sin(TROPICS)
        mass = self.laplacian.mass[:, None]
        mean = (mass * geopotential).sum(-2, keepdim=True) / mass.sum()
        psi = (geopotential - mean) * f / (f.square() + least**2) / EARTH_RADIUS**2
        return f - self.laplacian(psi) - self.deformation * psi, temperature

    def stream(self, q: Tensor) -> Tensor:
        """ψ = (L + F)⁻¹ (f − q)."""
        return self.laplacian.solve(1 / self.deformation, (self.coriolis - q) / self.deformation)

    def geopotential_change(self, before: Tensor, after: Tensor) -> Tensor:
        """f (ψ' − ψ) in m² s⁻², the change of geopotential from q to q'; none on the equator."""
        return self.coriolis * (self.stream(after) - self.stream(before)) * EARTH_RADIUS**2

    def forward(self, t: Tensor, x: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        q, temperature = x
        psi = self.stream(q)
        return -self.jacobian(psi, q), -self.jacobian(psi, temperature)
