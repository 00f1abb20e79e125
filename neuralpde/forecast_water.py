"""Shallow water as a model of weather seen on a coarse sphere: lifted to a fine one, driven by learned forces, observed again."""

from __future__ import annotations

import torch
from torch import Tensor

from integrators import integrate
from integrators.rk4 import RK4
from neuralpde.rhs import RightHandSide
from neuralpde.shallow_water import ShallowWater
from neuralpde.shallow_water_climate import Water
from neuralpde.shallow_water_set import east_north
from neuralpde.sphere_lifting import Lifting
from operators.domains import TriangleMesh
from operators.sphere_meshes import centroidal_icosphere

# Each round takes most of what is left between the winds at the vertices and those of the state.
SHARPENING_ROUNDS = 3


class MeanForce(RightHandSide):
    """(dh/dt, du/dt) = G − r (x − x̄): a steady force, and a pull towards the mean state; both are learned.

    Relaxation towards any x* at the rate r is of this form, with G = r (x* − x̄), and so is every steady source.

    Args:
        mean: x̄ = (h, u).
    """

    mean_depth: Tensor
    mean_wind: Tensor
    depth: Tensor
    wind: Tensor
    rates: Tensor

    def __init__(self, mean: Water) -> None:
        super().__init__()
        self.register_buffer("mean_depth", mean[0])
        self.register_buffer("mean_wind", mean[1])
        self.register_buffer("depth", torch.zeros_like(mean[0]))
        self.register_buffer("wind", torch.zeros_like(mean[1]))
        self.register_buffer("rates", mean[0].new_zeros(2))

    def forward(self, t: Tensor, x: Water) -> Water:
        h, u = x
        return self.depth - self.rates[0] * (h - self.mean_depth), self.wind - self.rates[1] * (u - self.mean_wind)


class WaterModel:
    """A flow of shallow water on a fine sphere, and the way to it and back from height and wind on a coarse one.

    Args:
        coarse: where height, eastward and northward wind (..., n, 3) are observed.
        orography: the height of the bottom there, (n, 1) in m.
        refinements: of the model's own icosphere.
    """

    def __init__(self, coarse: TriangleMesh, orography: Tensor, refinements: int) -> None:
        mesh = centroidal_icosphere(refinements, dtype=torch.float32)
        self.dt = 19200.0 / 2**refinements
        plain = ShallowWater(mesh)
        self.lifting = Lifting(mesh, plain.grid.cell_areas, coarse)
        self.basis = east_north(coarse).float()
        self.flow = ShallowWater(
            mesh, topography=self.lifting(orography), hyperviscosity=1e15 * 8.0 ** (4 - refinements), anticipation=self.dt / 2
        )

    def analyse(self, frames: Tensor) -> Water:
        """The smoothest state that is seen as these frames, (..., n, 3)."""
        grid = self.flow.grid
        h = self.lifting(frames[..., :1]) - self.flow.topography
        vectors = self.lifting(torch.einsum("nad,...na->...nd", self.basis, frames[..., 1:]))
        u = grid.wind(vectors)
        for _ in range(SHARPENING_ROUNDS):
            u = u + grid.wind(vectors - grid.at_vertices(u))
        return h, u

    def observe(self, state: Water) -> Tensor:
        """Height and wind on the coarse sphere, (..., n, 3)."""
        h, u = state
        height = self.lifting.restrict(h + self.flow.topography)
        vectors = self.lifting.restrict(self.flow.grid.at_vertices(u))
        return torch.cat([height, torch.einsum("nad,...nd->...na", self.basis, vectors)], dim=-1)

    @torch.no_grad()
    def run(self, force: RightHandSide, state: Water, hours: float, steps: int) -> Water:
        """The states (steps + 1, ...) every `hours`, the first included."""
        times = torch.arange(steps + 1) * (3600.0 * hours)
        path = integrate(self.flow + force, state, times, RK4(dt=self.dt)).x
        return path[0], path[1]
