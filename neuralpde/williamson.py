"""The standard test cases of shallow water on the sphere: flows and initial states."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from neuralpde.shallow_water import EARTH_GRAVITY, EARTH_RADIUS, EARTH_ROTATION, ShallowWater
from operators.c_grid import CGrid
from operators.checks import check_field
from operators.domains import TriangleMesh

DAY = 86400.0

Model = Callable[..., ShallowWater]


class Case(NamedTuple):
    """A flow, and the state (h, u) that it starts from: `flow, start = williamson5(mesh)`."""

    flow: ShallowWater
    start: tuple[Tensor, Tensor]


def williamson2(mesh: TriangleMesh, alpha: float = 0.0, model: Model = ShallowWater) -> Case:
    """Case 2: a zonal wind of 40 m/s in geostrophic balance, which stays as it is for ever.

    g h = g h₀ − (R Ω u₀ + ½ u₀²) (x̂ · â)² and u = u₀ â × x̂, on a sphere that rotates about the same axis
    â = (−sin α, 0, cos α); g h₀ = 2.94e4 m²/s², u₀ = 2πR / 12 days.

    Args:
        mesh: a Delaunay triangulation of a sphere, such as `centroidal_icosphere(4)`.
        alpha: the angle of the axis with the z axis of the mesh; 0 and π/4 are usual.
        model: makes the flow: ShallowWater, a subclass, or `partial(ShallowWater, anticipation=600.0)`.

    Williamson, Drake, Hack, Jakob and Swarztrauber 1992, J. Comput. Phys. 102, 211–224, section 3.2.
    """
    if not math.isfinite(alpha):
        raise ValueError(f"alpha must be a finite angle in radians, not {alpha}")
    axis = torch.tensor([-math.sin(alpha), 0.0, math.cos(alpha)], dtype=torch.float64)
    flow = model(mesh, rotation=EARTH_ROTATION * axis)
    return Case(flow, _zonal(flow.grid, axis, 2.94e4, 2 * math.pi * EARTH_RADIUS / (12 * DAY)))


def williamson5(mesh: TriangleMesh, model: Model = ShallowWater) -> Case:
    """Case 5: a zonal wind of 20 m/s meets a mountain 2 km high at 90° W, 30° N; planetary waves run around the globe.

    As case 2 with α = 0, h₀ = 5960 m and u₀ = 20 m/s for the height of the surface, above a cone of radius π/9 (20°).
    It has no solution in closed form; its height after 15 days is compared with a fine spectral solution.

    Williamson et al. 1992, section 3.5.
    """
    reach = math.pi / 9
    grid = CGrid(mesh, EARTH_RADIUS)
    longitude, latitude = _angles(grid.centres.double())
    across = torch.remainder(longitude + math.pi / 2 + math.pi, 2 * math.pi) - math.pi
    distance = torch.hypot(across, latitude - math.pi / 6).clamp(max=reach)
    mountain = (2000 * (1 - distance / reach))[:, None].to(grid.dtype)
    flow = model(mesh, topography=mountain)
    axis = torch.tensor([0.0, 0.0, 1.0], dtype=torch.float64)
    surface, wind = _zonal(flow.grid, axis, EARTH_GRAVITY * 5960.0, 20.0)
    return Case(flow, (surface - mountain, wind))


def williamson6(mesh: TriangleMesh, model: Model = ShallowWater) -> Case:
    """Case 6: a Rossby–Haurwitz wave of four crests that moves east by about 12° a day, nearly without changing its shape.

    A solution in closed form of the equations without divergence; here it keeps its shape for a week or two, then falls to
    an instability of its own. ω = K = 7.848e-6 /s, h₀ = 8 km.

    Williamson et al. 1992, section 3.6.
    """
    flow = model(mesh)
    grid, R, omega, K, rotation = flow.grid, 4, 7.848e-6, 7.848e-6, EARTH_ROTATION
    longitude, latitude = _angles(grid.centres.double())
    c = torch.cos(latitude)
    A = omega / 2 * (2 * rotation + omega) * c**2
    A = A + K**2 / 4 * ((R + 1) * c ** (2 * R + 2) + (2 * R**2 - R - 2) * c ** (2 * R) - 2 * R**2 * c ** (2 * R - 2))
    B = 2 * (rotation + omega) * K / ((R + 1) * (R + 2)) * c**R * ((R**2 + 2 * R + 2) - (R + 1) ** 2 * c**2)
    C = K**2 / 4 * c ** (2 * R) * ((R + 1) * c**2 - (R + 2))
    head = A + B * torch.cos(R * longitude) + C * torch.cos(2 * R * longitude)
    depth = 8000 + EARTH_RADIUS**2 / EARTH_GRAVITY * head

    def wind(points: Tensor) -> Tensor:
        longitude, latitude = _angles(points)
        c, s = torch.cos(latitude), torch.sin(latitude)
        eastward = omega * c + K * c ** (R - 1) * (R * s**2 - c**2) * torch.cos(R * longitude)
        northward = -K * R * c ** (R - 1) * s * torch.sin(R * longitude)
        return EARTH_RADIUS * (eastward[:, None] * _east(longitude) + northward[:, None] * _north(longitude, latitude))

    return Case(flow, (depth[:, None].to(grid.dtype), _wind(grid, wind)))


class Errors(NamedTuple):
    """Relative errors over the sphere: of the mean size, of the mean square and of the worst cell."""

    l1: float
    l2: float
    linf: float


def errors(grid: CGrid, h: Tensor, reference: Tensor) -> Errors:
    """The errors of a field (n, 1) over the size of the reference, weighted by areas (Williamson et al. 1992, eqs. 82 to 84)."""
    check_field(h, len(grid.cell_areas), grid.dtype, grid.device, "h")
    check_field(reference, len(grid.cell_areas), grid.dtype, grid.device, "the reference")
    area, off, size = grid.cell_areas[:, None].double(), (h - reference).double().abs(), reference.double().abs()
    return Errors(
        float((area * off).sum() / (area * size).sum()),
        float(((area * off**2).sum() / (area * size**2).sum()).sqrt()),
        float(off.max() / size.max()),
    )


def _zonal(grid: CGrid, axis: Tensor, head: float, speed: float) -> tuple[Tensor, Tensor]:
    """The depth and the wind of a solid rotation in geostrophic balance, with g h = `head` on its equator."""
    height = (grid.centres.double() @ axis.to(grid.device))[:, None]
    drop = EARTH_RADIUS * EARTH_ROTATION * speed + speed**2 / 2
    depth = (head - drop * height**2) / EARTH_GRAVITY
    return depth.to(grid.dtype), _wind(grid, lambda x: speed * torch.linalg.cross(axis.to(x.device).expand_as(x), x))


def _wind(grid: CGrid, field: Callable[[Tensor], Tensor]) -> Tensor:
    """As `grid.wind`, with the field asked in double precision."""
    return grid.wind(lambda x: field(x.double()).to(grid.dtype))


def _angles(points: Tensor) -> tuple[Tensor, Tensor]:
    return torch.atan2(points[:, 1], points[:, 0]), torch.asin(points[:, 2].clamp(-1, 1))


def _east(longitude: Tensor) -> Tensor:
    return torch.stack([-torch.sin(longitude), torch.cos(longitude), torch.zeros_like(longitude)], dim=1)


def _north(longitude: Tensor, latitude: Tensor) -> Tensor:
    s = torch.sin(latitude)
    return torch.stack([-s * torch.cos(longitude), -s * torch.sin(longitude), torch.cos(latitude)], dim=1)
