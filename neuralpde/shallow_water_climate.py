"""A climate of shallow water: jets that are always driven and never steady, over three mountains."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from neuralpde.rhs import RightHandSide
from neuralpde.shallow_water import ShallowWater
from neuralpde.williamson import DAY
from operators.domains import TriangleMesh

Water = tuple[Tensor, Tensor]

# Latitude in radians, half width in radians, speed in m/s.
JETS = ((0.75, 0.2, 130.0), (-0.8, 0.2, 104.0), (0.0, 0.3, -8.0))
# Longitude, latitude, half width in radians; height in m.
MOUNTAINS = ((-1.8, 0.7, 0.3, 2500.0), (1.4, 0.6, 0.35, 3250.0), (-1.2, -0.4, 0.25, 2500.0))


class Relaxation(RightHandSide):
    """(dh/dt, du/dt) = −((h, u) − (h, u)*) / τ: Newtonian cooling and Rayleigh friction towards a state of rest or of motion.

    Args:
        state: (h, u)*, of the shape of one state.
        time: τ in s.
    """

    depth: Tensor
    wind: Tensor

    def __init__(self, state: Water, time: float) -> None:
        super().__init__()
        if not (math.isfinite(time) and time > 0):
            raise ValueError(f"the time of relaxation must be positive and finite, in s, not {time}: some days of 86400 s")
        self.register_buffer("depth", state[0], persistent=False)
        self.register_buffer("wind", state[1], persistent=False)
        self.time = time

    def forward(self, t: Tensor, x: Water) -> Water:
        return (self.depth - x[0]) / self.time, (self.wind - x[1]) / self.time


class Climate(NamedTuple):
    """The unforced flow, the flow with its forcing, and the balanced state that it is drawn to."""

    flow: ShallowWater
    forced: RightHandSide
    rest: Water


@dataclass(frozen=True)
class ClimateSettings:
    """What drives the climate.

    Args:
        depth: the mean depth in m.
        relaxation_days: τ in days.
        disturbance: of the stream function that a trajectory starts with, in m²/s, root mean square.
    """

    depth: float = 8000.0
    relaxation_days: float = 25.0
    disturbance: float = 1e7

    def on(self, mesh: TriangleMesh, dt: float) -> Climate:
        """The climate on a mesh; anticipation and hyperviscosity follow from the time step and the size of the cells.

        The jets are unstable, as the slope of absolute vorticity across them changes sign: waves grow, break, and are fed again.
        """
        bottom = mountains(torch.nn.functional.normalize(mesh.vertices.double(), dim=1)).to(mesh.vertices.dtype)
        width = math.sqrt(4 * math.pi / mesh.num_nodes)
        flow = ShallowWater(mesh, topography=bottom, hyperviscosity=1e15 * (width / 0.07) ** 3, anticipation=dt / 2)
        wind = flow.grid.wind(lambda points: zonal_jets(points.double()).to(points.dtype))
        rest = flow.balanced(wind, self.depth)
        return Climate(flow, flow + Relaxation(rest, self.relaxation_days * DAY), rest)

    def starts(self, climate: Climate, count: int, seed: int) -> Water:
        """`count` balanced states: the jets and a random stream function of some thousand kilometres' scale."""
        flow = climate.flow
        generator = torch.Generator().manual_seed(seed)
        psi = torch.stack([_waves(flow.grid.circumcentres.double(), generator) for _ in range(count)])
        disturbance = flow.grid.stream((-self.disturbance * psi[..., None]).to(flow.grid.dtype))
        return flow.balanced(climate.rest[1] + disturbance, self.depth)


def zonal_jets(points: Tensor) -> Tensor:
    """The wind of the jets in m/s at unit vectors (p, 3), along the axes; zero at the poles."""
    latitude = torch.asin(points[:, 2].clamp(-1, 1))
    across = torch.linalg.vector_norm(points[:, :2], dim=1)
    speed = sum(u * torch.exp(-(((latitude - middle) / width) ** 2)) for middle, width, u in JETS) * across.sqrt()
    east = torch.stack([-points[:, 1], points[:, 0], torch.zeros_like(across)], dim=1) / across.clamp(min=1e-12)[:, None]
    wind: Tensor = torch.as_tensor(speed)[:, None] * east
    return wind


def mountains(points: Tensor) -> Tensor:
    """The height of the bottom in m at unit vectors (p, 3); (p, 1)."""
    longitude, latitude = torch.atan2(points[:, 1], points[:, 0]), torch.asin(points[:, 2].clamp(-1, 1))
    total = torch.zeros_like(latitude)
    for east, north, width, height in MOUNTAINS:
        along = torch.remainder(longitude - east + math.pi, 2 * math.pi) - math.pi
        total = total + height * torch.exp(-(along**2 + (latitude - north) ** 2) / width**2)
    return total[:, None]


def _waves(points: Tensor, generator: torch.Generator, count: int = 60) -> Tensor:
    """A sum of plane waves of random directions and phases, seen on the sphere, of unit mean square."""
    total = points.new_zeros(len(points))
    for _ in range(count):
        direction = torch.nn.functional.normalize(torch.randn(3, generator=generator, dtype=torch.float64), dim=0)
        number = float(torch.randint(3, 9, (), generator=generator))
        phase = 2 * math.pi * torch.rand((), generator=generator, dtype=torch.float64)
        total = total + torch.cos(number * math.pi / 2 * (points @ direction) + phase) / number
    scaled: Tensor = total / total.square().mean().sqrt()
    return scaled
