"""Phase separation on the meshes of MeshPDE."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from integrators import SBDF2, Integrator, integrate
from neuralpde.heat_data import FRAMES, Truth
from neuralpde.mesh_equation import ConservingEquation, generator, path_of
from neuralpde.phase_field import CahnHilliard
from neuralpde.semi_implicit import SemiImplicitEuler
from operators import TriangleMesh

MEANS = (0.0, 0.3, -0.3, 0.15, -0.15)


@dataclass(frozen=True)
class MeshCahnHilliard(ConservingEquation):
    """Cahn–Hilliard, u_t = −L μ, μ = ε² L u + u³ − u, with ε the spacing of the mesh and dt = ε²: one law in dt L on all meshes.

    The authors' generator is not public; this one is defined here.

    - ε² = 4 A / (√3 m), A the area and m the number of faces: ε is the edge of m equilateral triangles of the same area. An
      interface tanh(x / √2 ε) is three edges wide from −0.8 to 0.8, and the fastest stripes have the wavelength 2π √2 ε.
    - dt = ε², with mobility 1, so that u_t dt = −Z (Z u + u³ − u) with Z = dt L, whatever the mesh. The fastest mode grows by e^¼
      a frame; the phases part within some 15 frames, and the rest of the 201 is coarsening.
    - Start: means 0, 0.3, −0.3, 0.15, −0.15 of the conditions in turn, plus white noise smoothed by (I + ε² L)⁻², without mean
      and of standard deviation 0.2. Both truths begin with the same white noise; each smooths it with its own L.
    - Published: L = M⁻¹ C with the plain cotangent C and barycentric masses (not S, which keeps neither constants nor the mass),
      and one semi-implicit step a frame in mixed form, stabilised by a = 2 (`SemiImplicitEuler`; Eyre 1998):
      (u' − u)/dt = −L (ε² L u' + 2 u' + u³ − 3 u). Mass is kept, the energy falls, and the scheme's own path is the truth: it
      lags behind the equation.
    - Surface: the robust L and eight steps of `SBDF2` a frame.

    Invariants: Σ m u to round-off; ½ ε² ⟨u, L u⟩ + ¼ Σ m (u² − 1)² falls.
    """

    spread: float = 0.2
    """The standard deviation of the noise at the start."""
    stabilization: float = 2.0
    """a of the published scheme."""
    steps_a_frame: int = 8
    """Of the surface truth."""

    name: ClassVar[str] = "cahn-hilliard"
    train_meshes: ClassVar[tuple[str, ...]] = ("bunny_coarse", "ellipsoid", "sphere")
    test_meshes: ClassVar[tuple[str, ...]] = ("supertoroid", "spot_low")

    def width(self, mesh: TriangleMesh) -> float:
        """ε, in length."""
        return math.sqrt(4 * float(mesh.area) / (math.sqrt(3) * mesh.faces.shape[0]))

    def time_step(self, name: str, mesh: TriangleMesh, truth: Truth) -> float:
        return self.width(mesh) ** 2

    def initial_fields(self, mesh: TriangleMesh, truth: Truth, conditions: int, seed: int) -> Tensor:
        random, laplacian = generator(mesh, seed, 13), self.laplacian(mesh, truth).to(torch.float64)
        area, square = laplacian.mass.sum(), torch.tensor(self.width(mesh) ** 2, dtype=torch.float64)
        fields = []
        for k in range(conditions):
            noise = torch.from_numpy(random.standard_normal((mesh.num_nodes, 1))) / laplacian.mass.sqrt()[:, None]
            for _ in range(2):
                noise = laplacian.solve(square, noise)
            noise = noise - laplacian.inner(noise, torch.ones_like(noise)) / area
            fields.append(MEANS[k % len(MEANS)] + self.spread * noise / (laplacian.inner(noise, noise) / area).sqrt())
        return torch.stack(fields)

    def simulate(self, mesh: TriangleMesh, truth: Truth, dt: float, start: Tensor) -> Tensor:
        published = truth is Truth.PUBLISHED
        laplacian = self.laplacian(mesh, truth).to(torch.float64)
        equation = CahnHilliard(laplacian, self.width(mesh), stabilization=self.stabilization if published else 0.0)
        method: Integrator = SemiImplicitEuler(dt=dt) if published else SBDF2(dt=dt / self.steps_a_frame)
        with torch.no_grad():
            return path_of(integrate(equation, start, dt * torch.arange(FRAMES, dtype=torch.float64), method))

    def parameters(self, mesh: TriangleMesh, truth: Truth, dt: float) -> dict[str, Any]:
        return {"width": self.width(mesh), "mobility": 1.0, "means": list(MEANS)}
