"""Where sensors stand, in a plane or on the Earth, and which of them are neighbours."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from operators import DomainError, Graph, PointCloud

EARTH_RADIUS = 6371.0088
"""Mean radius in km (IUGG)."""


@dataclass(frozen=True, eq=False)
class Placement:
    """n sensors.

    Args:
        name: in tables.
        points: (n, 2), float64: positions in a plane in the unit of length of the field, or, if `earth`, latitude and longitude
            in degrees.
        earth: whether the points are on the Earth. Lengths are then in km.
    """

    name: str
    points: Tensor
    earth: bool = False

    def __post_init__(self) -> None:
        points = torch.as_tensor(self.points, dtype=torch.float64)
        if points.ndim != 2 or points.shape[1] != 2 or len(points) < 2:
            raise DomainError(f"{self.name}: positions must have shape (n, 2) with n ≥ 2, not {tuple(points.shape)}")
        if not bool(torch.isfinite(points).all()):
            bad = int((~torch.isfinite(points).all(1)).nonzero()[0])
            raise DomainError(f"{self.name}: the position of sensor {bad} is not finite: drop it, or give its coordinates")
        if self.earth and (float(points[:, 0].abs().max()) > 90 or float(points[:, 1].abs().max()) > 360):
            raise DomainError(
                f"{self.name}: latitudes lie within ±90 and longitudes within ±360 degrees: give points as (latitude, longitude)"
            )
        object.__setattr__(self, "points", points)

    @property
    def num_nodes(self) -> int:
        return len(self.points)

    @cached_property
    def cloud(self) -> PointCloud:
        """The points in the plane, or in space in km: nearest along the Earth's surface is nearest along the chord."""
        return PointCloud(self._radial * EARTH_RADIUS if self.earth else self.points)

    @cached_property
    def plane(self) -> Tensor:
        """(n, 2): the points, or the azimuthal equidistant projection in km about their mean direction (east, north)."""
        if not self.earth:
            return self.points
        mean = self._radial.mean(0)
        size = torch.linalg.vector_norm(mean)
        if float(size) < 1e-6:
            raise DomainError(f"{self.name}: sensors all around the globe have no common plane: use `offsets` between neighbours")
        return _tangent(mean / size, self._radial) * EARTH_RADIUS

    def graph(self, k: int = 4) -> Graph:
        """Each sensor joined with its k nearest, both ways, by distance along the surface; unit weights."""
        return self.cloud.knn_graph(min(k, self.num_nodes - 1))

    def distances(self, edge_index: Tensor) -> Tensor:
        """The distance along the surface of each edge (E,)."""
        here, there = self.cloud.points[edge_index]
        chord = torch.linalg.vector_norm(there - here, dim=1)
        return 2 * EARTH_RADIUS * torch.asin((chord / (2 * EARTH_RADIUS)).clamp(max=1)) if self.earth else chord

    def offsets(self, edge_index: Tensor) -> Tensor:
        """From the target of each edge (source, target) to its source, (E, 2), in the plane or as (east, north) in km there."""
        source, target = edge_index
        if not self.earth:
            return self.points[source] - self.points[target]
        return _tangent(self._radial[target], self._radial[source]) * EARTH_RADIUS

    def take(self, nodes: Tensor, name: str | None = None) -> Placement:
        """Some of the sensors."""
        return Placement(name or self.name, self.points[nodes], self.earth)

    @cached_property
    def _radial(self) -> Tensor:
        latitude, longitude = torch.deg2rad(self.points).unbind(1)
        c = torch.cos(latitude)
        return torch.stack([c * torch.cos(longitude), c * torch.sin(longitude), torch.sin(latitude)], dim=1)


def _tangent(at: Tensor, to: Tensor) -> Tensor:
    """The logarithm on the unit sphere from `at` to `to`, unit vectors that broadcast to (m, 3), as (east, north) (m, 2)."""
    x, y, z = at.unbind(-1)
    ring = torch.hypot(x, y)
    polar = ring < 1e-12
    safe = torch.where(polar, 1.0, ring)
    east = torch.stack([torch.where(polar, 0.0, -y / safe), torch.where(polar, 1.0, x / safe), torch.zeros_like(z)], dim=-1)
    north = torch.linalg.cross(at, east)
    along, up = (to * east).sum(-1), (to * north).sum(-1)
    sine = torch.hypot(along, up)
    angle = torch.atan2(sine, (to * at).sum(-1))
    scale = torch.where(sine > 0, angle / torch.where(sine > 0, sine, 1.0), 1.0)
    return torch.stack([along * scale, up * scale], dim=-1)
