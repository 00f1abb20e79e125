"""Grids of latitude and longitude as triangulations of the unit sphere, with one vertex at each pole."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from operators.checks import DomainError, FieldError, as_field, check_finite
from operators.domains import TriangleMesh

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

# In degrees: what a float32 coordinate file may be off at a pole, some ten metres.
AT_POLE = 1e-4


@dataclass(frozen=True, eq=False)
class LatLon:
    """A grid of latitudes and longitudes, global or of a region, and its mesh on the unit sphere.

    A row at a pole is one node: `to_nodes` averages the row, `to_grid` repeats the node along it. Where a grid that runs around
    the globe stops short of a pole by no more than the spacing of its rows, a node of the pole is added, which gets the average
    of the nearest row; the mesh of a global grid is then closed. Nodes are the grid points row by row, added poles last.

    Args:
        latitude: (rows,) in degrees north, from -90 to 90, rising or falling.
        longitude: (columns,) in degrees east, running eastward or westward, in any turn (0..360, -180..180), once around at most.

    Raises:
        DomainError: coordinates that are not finite, out of order or repeated; fewer than two rows or columns.
    """

    latitude: Tensor
    longitude: Tensor

    def __post_init__(self) -> None:
        for name in ("latitude", "longitude"):
            object.__setattr__(self, name, _coordinate(getattr(self, name), name))
        _check_latitude(self.latitude.numpy())
        steps = self._steps
        columns = len(self.longitude)
        if columns < 2:
            raise DomainError("a grid needs at least two longitudes")
        if not (steps > 0).all() or steps[: columns - 1].sum() >= 360 - 1e-9 * columns:
            raise DomainError(
                "longitudes must run eastward or westward once around the globe at most, each once, not "
                f"{_told(self.longitude)}: sort them with their fields, and drop the column that repeats the first (360 is 0)"
            )

    @property
    def shape(self) -> tuple[int, int]:
        """(rows, columns)."""
        return len(self.latitude), len(self.longitude)

    @cached_property
    def wraps(self) -> bool:
        """Whether the last column is a neighbour of the first."""
        steps = self._steps
        return len(steps) >= 3 and bool(steps[-1] < 180 and steps[-1] <= 1.5 * steps[:-1].max())

    @property
    def num_nodes(self) -> int:
        """The number n of nodes."""
        return self._numbering.count

    @cached_property
    def mesh(self) -> TriangleMesh:
        """The triangulation of the unit sphere in float64, faces counter-clockwise as seen from outside.

        x points to latitude 0 and longitude 0, z to the north pole. Of a global grid it is closed, with Euler characteristic 2.
        """
        return TriangleMesh(unit_vectors(*self.positions), torch.from_numpy(self._faces()))

    @cached_property
    def positions(self) -> tuple[Tensor, Tensor]:
        """Latitude and longitude (n,) of the nodes, in degrees."""
        latitude, longitude = (x.reshape(-1) for x in torch.meshgrid(self.latitude, self.longitude, indexing="ij"))
        numbering = self._numbering
        added = torch.tensor([math.copysign(90.0, float(self.latitude[row])) for row in numbering.added], dtype=torch.float64)
        first = torch.from_numpy(numbering.first)
        return torch.cat([latitude[first], added]), torch.cat([longitude[first], torch.zeros_like(added)])

    @cached_property
    def weights(self) -> Tensor:
        """Weights (rows,) of the rows in means over the grid, themselves of mean one; see `latitude_weights`."""
        return latitude_weights(self.latitude)

    @cached_property
    def cell_weights(self) -> Tensor:
        """`weights` of all grid points (rows · columns,), for fields (..., rows · columns, c) whose poles are not welded."""
        return self.weights.repeat_interleave(self.shape[1])

    @cached_property
    def areas(self) -> Tensor:
        """The solid angles (n,) in float64 of the cells that each node stands for; they sum to 4π on a global grid.

        A node of a polar row has all cells of the row, an added pole none: means over nodes are then those over the grid.
        """
        low, high = np.deg2rad(_row_bounds(self.latitude.numpy()))
        rows = np.sin(high) - np.sin(low)
        steps = np.deg2rad(self._steps)
        if self.wraps:
            columns = (steps + np.roll(steps, 1)) / 2
        else:
            inner = steps[:-1]
            columns = (np.append(inner, inner[-1]) + np.append(inner[0], inner)) / 2
        numbering = self._numbering
        areas = np.bincount(numbering.node.reshape(-1), np.outer(rows, columns).reshape(-1), minlength=numbering.count)
        return torch.from_numpy(areas)

    def to_nodes(self, field: Tensor) -> Tensor:
        """From the grid (..., rows, columns, c) to the nodes (..., n, c)."""
        rows, columns = self.shape
        if not isinstance(field, Tensor) or field.ndim < 3 or field.shape[-3:-1] != self.shape:
            shape = tuple(field.shape) if isinstance(field, Tensor) else type(field).__name__
            raise FieldError(f"field must have shape (..., {rows}, {columns}, c), not {shape}: one channel is field[..., None]")
        numbering = self._numbering
        first = torch.from_numpy(numbering.first).to(field.device)
        nodes = field.flatten(-3, -2).index_select(-2, first)
        for row in numbering.welded:
            node = int(numbering.node[row, 0])
            average = field[..., row, :, :].mean(-2, keepdim=True)
            nodes = torch.cat([nodes[..., :node, :], average, nodes[..., node + 1 :, :]], dim=-2)
        return torch.cat([nodes, *(field[..., row, :, :].mean(-2, keepdim=True) for row in numbering.added)], dim=-2)

    def to_grid(self, nodes: Tensor) -> Tensor:
        """From the nodes (..., n, c) to the grid (..., rows, columns, c); added poles are left out."""
        as_field(nodes, self.num_nodes, "nodes")
        chosen = torch.from_numpy(self._numbering.node.reshape(-1)).to(nodes.device)
        return nodes.index_select(-2, chosen).reshape(*nodes.shape[:-2], *self.shape, nodes.shape[-1])

    @cached_property
    def _steps(self) -> Floats:
        """From each column to the next and from the last to the first, in degrees of the direction that the grid runs in."""
        longitude = self.longitude.numpy()
        steps: Floats = np.mod(np.roll(longitude, -1) - longitude, 360.0)
        return steps if self._eastward else np.mod(-steps, 360.0)

    @cached_property
    def _eastward(self) -> bool:
        longitude = self.longitude.numpy()
        return bool(np.median(np.mod(np.diff(longitude), 360.0)) < 180) if len(longitude) > 1 else True

    @cached_property
    def _numbering(self) -> _Numbering:
        latitude = self.latitude.numpy()
        rows, columns = self.shape
        ends = (0, rows - 1)
        welded = tuple(row for row in ends if _gap(latitude[row]) == 0)
        low, high = _row_bounds(latitude)
        reaches = np.maximum(np.abs(low), np.abs(high)) == 90
        added = tuple(row for row in ends if self.wraps and row not in welded and reaches[row])
        counts = np.full(rows, columns)
        counts[list(welded)] = 1
        starts = np.cumsum(counts) - counts
        node = starts[:, None] + np.minimum(np.arange(columns), counts[:, None] - 1)
        first = np.unique(node.reshape(-1), return_index=True)[1]
        return _Numbering(node, first, welded, added)

    def _faces(self) -> Ints:
        numbering = self._numbering
        count = len(numbering.first)
        poles = {row: np.full((1, self.shape[1]), count + k) for k, row in enumerate(numbering.added)}
        none = np.empty((0, self.shape[1]), np.int64)
        rows = np.concatenate([poles.get(0, none), numbering.node, poles.get(self.shape[0] - 1, none)])
        if self.wraps:
            rows = np.column_stack([rows, rows[:, :1]])
        a, b, c, d = (x.reshape(-1) for x in (rows[:-1, :-1], rows[:-1, 1:], rows[1:, 1:], rows[1:, :-1]))
        # At a pole two corners of a quadrangle are one node, and one of its triangles is left.
        lower, upper = np.column_stack([a, b, c])[a != b], np.column_stack([a, c, d])[c != d]
        faces = np.concatenate([lower, upper])
        northward = bool(self.latitude[1] > self.latitude[0])
        return faces if northward == self._eastward else np.ascontiguousarray(faces[:, ::-1])


@dataclass(frozen=True, eq=False)
class _Numbering:
    """The node of each grid point (rows, columns), the first grid point of each node; end rows at and near a pole."""

    node: Ints
    first: Ints
    welded: tuple[int, ...]
    added: tuple[int, ...]

    @property
    def count(self) -> int:
        return len(self.first) + len(self.added)


def latitude_weights(latitude: Tensor) -> Tensor:
    """The weight of each row of a grid, proportional to the areas of its cells, of mean one.

    w_i = (sin φ_i⁺ − sin φ_i⁻) / mean, with bounds φ midway between rows, and at the poles for the first and last row, as in
    WeatherBench 2 (Rasp et al. 2024, J. Adv. Model. Earth Syst. 16). The end rows of a region, further from the
    pole than from the next row, end half a spacing outside; WeatherBench 2 gives them all that is left up to the pole.

    Args:
        latitude: (rows,) in degrees, rising or falling.

    Returns:
        (rows,) in float64, in the same order.
    """
    latitude = _coordinate(latitude, "latitude")
    _check_latitude(latitude.numpy())
    low, high = np.deg2rad(_row_bounds(latitude.numpy()))
    weights = np.sin(high) - np.sin(low)
    return torch.from_numpy(weights / weights.mean())


def unit_vectors(latitude: Tensor, longitude: Tensor) -> Tensor:
    """Points (n, 3) of the unit sphere at latitudes and longitudes (n,) in degrees; exactly ±z at the poles."""
    theta, phi = torch.deg2rad(latitude), torch.deg2rad(longitude)
    across = torch.where(latitude.abs() >= 90 - AT_POLE, 0.0, torch.cos(theta))
    height = torch.where(latitude.abs() >= 90 - AT_POLE, torch.sign(latitude), torch.sin(theta))
    return torch.stack([across * torch.cos(phi), across * torch.sin(phi), height], dim=1)


def _gap(latitude: float) -> float:
    """The distance from the nearer pole in degrees, zero if the row is at the pole."""
    gap = 90 - abs(float(latitude))
    return 0.0 if gap <= AT_POLE else gap


def _row_bounds(latitude: Floats) -> tuple[Floats, Floats]:
    """The southern and northern ends of the rows' cells, in degrees."""
    between = (latitude[1:] + latitude[:-1]) / 2
    ends = []
    for end, next_row in ((latitude[0], latitude[1]), (latitude[-1], latitude[-2])):
        spacing = abs(end - next_row)
        outward = np.sign(end - next_row)
        pole = 90 * outward
        ends.append(pole if abs(pole - end) <= 1.01 * spacing else end + outward * spacing / 2)
    bounds = np.concatenate([ends[:1], between, ends[1:]])
    return np.minimum(bounds[:-1], bounds[1:]), np.maximum(bounds[:-1], bounds[1:])


def _coordinate(values: Any, name: str) -> Tensor:
    x = torch.as_tensor(values).detach().to("cpu", torch.float64)
    if x.ndim != 1:
        raise DomainError(f"{name} must have shape (count,), not {tuple(x.shape)}: pass the axis, not a grid of them")
    check_finite(x, name)
    return x.clone()


def _check_latitude(latitude: Floats) -> None:
    if len(latitude) < 2:
        raise DomainError("a grid needs at least two latitudes")
    beyond = np.abs(latitude) > 90 + AT_POLE
    if beyond.any():
        raise DomainError(f"latitude {latitude[beyond][0]:g} lies beyond a pole: are latitude and longitude exchanged?")
    steps = np.diff(latitude)
    if not ((steps > 0).all() or (steps < 0).all()):
        wrong = int(np.flatnonzero(np.sign(steps) != np.sign(latitude[-1] - latitude[0]))[0])
        raise DomainError(
            f"latitudes must rise or fall all the way, each once, but {latitude[wrong]:g} at index {wrong} is followed by "
            f"{latitude[wrong + 1]:g}: sort them with their fields, and drop what is there twice"
        )


def _told(values: Tensor) -> str:
    shown = [f"{float(x):g}" for x in values]
    return ", ".join(shown if len(shown) <= 6 else [*shown[:3], "...", *shown[-3:]])
