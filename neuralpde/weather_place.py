"""Where weather lives: the nodes of a sphere or a region with the areas they stand for."""

from __future__ import annotations

from functools import cached_property
from typing import Protocol

import torch
from torch import Tensor

from operators import DomainError, TriangleMesh, lumped_mass
from operators.checks import as_field


class Place(Protocol):
    """Nodes on the unit sphere: a `LatLon` grid, `Healpix` pixels or the vertices of a mesh (`MeshNodes`)."""

    @property
    def num_nodes(self) -> int:
        """The number n of nodes."""

    @property
    def shape(self) -> tuple[int, ...]:
        """The spatial shape of its fields (..., *shape, c) before `to_nodes`."""

    @property
    def mesh(self) -> TriangleMesh:
        """The triangulation with these nodes as vertices."""

    @property
    def areas(self) -> Tensor:
        """The solid angle (n,) that each node stands for, in float64."""

    @property
    def positions(self) -> tuple[Tensor, Tensor]:
        """Latitude and longitude (n,) of the nodes, in degrees."""

    def to_nodes(self, field: Tensor) -> Tensor:
        """(..., *shape, c) → (..., n, c)."""

    def to_grid(self, nodes: Tensor) -> Tensor:
        """(..., n, c) → (..., *shape, c)."""


class MeshNodes:
    """The vertices of any triangulated sphere about the origin.

    Args:
        mesh: of any radius; latitude is the angle above its xy plane.
        areas: (n,) of the cells, in any unit; the barycentric areas of the unit sphere if absent.
    """

    def __init__(self, mesh: TriangleMesh, areas: Tensor | None = None) -> None:
        if areas is not None and areas.shape != (mesh.num_nodes,):
            raise DomainError(f"areas must have shape ({mesh.num_nodes},), not {tuple(areas.shape)}")
        if areas is not None and not bool((areas >= 0).all() and areas.sum() > 0):
            raise DomainError("areas must be finite and not negative, and some positive")
        self.mesh = mesh
        self._areas = areas

    @property
    def num_nodes(self) -> int:
        return self.mesh.num_nodes

    @property
    def shape(self) -> tuple[int]:
        return (self.mesh.num_nodes,)

    @cached_property
    def areas(self) -> Tensor:
        if self._areas is not None:
            return self._areas.detach().double()
        radius = torch.linalg.vector_norm(self.mesh.vertices.detach().double(), dim=1).mean()
        areas: Tensor = lumped_mass(self.mesh).double() / radius**2
        return areas

    @cached_property
    def positions(self) -> tuple[Tensor, Tensor]:
        points = torch.nn.functional.normalize(self.mesh.vertices.detach().double(), dim=1)
        latitude = torch.rad2deg(torch.asin(points[:, 2].clamp(-1, 1)))
        return latitude, torch.rad2deg(torch.atan2(points[:, 1], points[:, 0]))

    def to_nodes(self, field: Tensor) -> Tensor:
        return as_field(field, self.num_nodes)

    def to_grid(self, nodes: Tensor) -> Tensor:
        return as_field(nodes, self.num_nodes, "nodes")
