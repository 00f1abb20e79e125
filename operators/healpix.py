"""HEALPix: pixels of equal area on the unit sphere, on rings of latitude, and their triangulation."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from operators.checks import DomainError, as_field, is_integer
from operators.domains import TriangleMesh
from operators.sphere_meshes import spherical_delaunay

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]

# Where the twelve base pixels lie: the ring of their lowest corner, and their longitude in units of π/4.
_BASE_RING = np.array([2, 2, 2, 2, 3, 3, 3, 3, 4, 4, 4, 4])
_BASE_COLUMN = np.array([1, 3, 5, 7, 0, 2, 4, 6, 1, 3, 5, 7])


@dataclass(frozen=True)
class Healpix:
    """The 12 nside² pixel centres of HEALPix as nodes, each standing for the same area.

    Args:
        nside: the pixels along an edge of each of the twelve base pixels; a power of two for the nested order.
        nested: number the pixels by base pixel along a Z curve; otherwise by rings from north to south.

    Gorski, Hivon, Banday, Wandelt, Hansen, Reinecke and Bartelmann 2005, Astrophys. J. 622, 759–771, section 4.
    """

    nside: int
    nested: bool = False

    def __post_init__(self) -> None:
        if not is_integer(self.nside) or not 1 <= self.nside <= 1024:
            raise DomainError(f"nside must be a whole number from 1 to 1024 (12.6 million pixels), not {self.nside!r}")
        if self.nested and self.nside & (self.nside - 1):
            raise DomainError(f"the nested order needs an nside that is a power of two, not {self.nside}: use nested=False")

    @property
    def num_nodes(self) -> int:
        """n = 12 nside²."""
        return 12 * self.nside**2

    @property
    def shape(self) -> tuple[int]:
        """(n,): the pixels are the nodes."""
        return (self.num_nodes,)

    @cached_property
    def _angles(self) -> tuple[Floats, Floats]:
        """z = sin(latitude) and the longitude in radians of the pixels."""
        z, longitude = _ring_centres(self.nside)
        if self.nested:
            rings = _ring_of_nested(self.nside)
            z, longitude = z[rings], longitude[rings]
        return z, longitude

    @property
    def positions(self) -> tuple[Tensor, Tensor]:
        """Latitude and longitude (n,) of the pixel centres, in degrees."""
        z, longitude = self._angles
        return torch.from_numpy(np.rad2deg(np.arcsin(z))), torch.from_numpy(np.rad2deg(longitude))

    @cached_property
    def mesh(self) -> TriangleMesh:
        """The hull of the pixel centres: a Delaunay triangulation of the unit sphere, in float64."""
        z, longitude = self._angles
        across = np.sqrt((1 - z) * (1 + z))
        return spherical_delaunay(torch.from_numpy(np.column_stack([across * np.cos(longitude), across * np.sin(longitude), z])))

    @property
    def areas(self) -> Tensor:
        """The solid angles (n,) of the pixels: π / (3 nside²) each."""
        return torch.full((self.num_nodes,), math.pi / (3 * self.nside**2), dtype=torch.float64)

    def to_nodes(self, field: Tensor) -> Tensor:
        """Pixels are nodes: (..., n, c) as it is."""
        return as_field(field, self.num_nodes)

    def to_grid(self, nodes: Tensor) -> Tensor:
        """Nodes are pixels: (..., n, c) as it is."""
        return as_field(nodes, self.num_nodes, "nodes")

    def reordered(self, field: Tensor) -> Tensor:
        """A field (..., n, c) of this order, in the other order: ring to nested, nested to ring."""
        as_field(field, self.num_nodes)
        rings = torch.from_numpy(_ring_of_nested(self.nside)).to(field.device)
        return field.index_select(-2, torch.argsort(rings) if self.nested else rings)


def _ring_centres(nside: int) -> tuple[Floats, Floats]:
    """Gorski et al. 2005, eqs. 2 to 9: z and the longitude of the pixels, by rings."""
    ring = np.arange(1, 4 * nside)
    from_pole = np.minimum(ring, 4 * nside - ring)
    pixels = 4 * np.minimum(from_pole, nside)
    cap = from_pole < nside
    height = np.where(cap, 1 - from_pole**2 / (3 * nside**2), (4 - 2 * from_pole / nside) / 3)
    z = np.where(ring > 2 * nside, -height, height)
    # Rings of the caps start half a pixel off the meridian, those between every other time.
    start = np.where(cap | ((ring - nside) % 2 == 0), 0.5, 0.0)
    index = np.concatenate([np.arange(count) for count in pixels])
    longitude = (index + np.repeat(start, pixels)) * (2 * math.pi / np.repeat(pixels, pixels))
    return np.repeat(z, pixels), longitude


def _ring_of_nested(nside: int) -> Ints:
    """The number in ring order of each pixel of the nested order (Gorski et al. 2005, section 4)."""
    if nside & (nside - 1):
        raise DomainError(f"nside {nside} has no nested order: it must be a power of two")
    base, inside = np.divmod(np.arange(12 * nside**2), nside**2)
    east, north = _every_other_bit(inside), _every_other_bit(inside >> 1)
    ring = _BASE_RING[base] * nside - east - north - 1
    from_pole = np.minimum(np.minimum(ring, 4 * nside - ring), nside)
    shift = np.where((ring >= nside) & (ring <= 3 * nside), (ring - nside) % 2, 0)
    # Columns are half pixels: neighbours on a ring are two apart.
    column = (_BASE_COLUMN[base] * from_pole + east - north + 1 + shift) // 2 - 1
    column = np.mod(column, 4 * from_pole)
    counts = 4 * np.minimum(np.minimum(np.arange(1, 4 * nside), 4 * nside - np.arange(1, 4 * nside)), nside)
    starts = np.cumsum(counts) - counts
    rings: Ints = starts[ring - 1] + column
    return rings


def _every_other_bit(numbers: Ints) -> Ints:
    found = np.zeros_like(numbers)
    for bit in range(11):
        found |= ((numbers >> (2 * bit)) & 1) << bit
    return found
