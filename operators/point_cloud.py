"""The Laplacian of a surface that is known by points alone."""

from __future__ import annotations

import warnings
from functools import partial
from typing import Any

import numpy as np
import robust_laplacian as native
import torch
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from operators.checks import DomainError, DomainWarning, is_integer
from operators.domains import PointCloud
from operators.laplacian import Laplacian
from operators.surface import laplacian_of_native

Floats = NDArray[np.float64]

# A point nearer to another than this share of the usual distance is the same point; one further than that multiple is astray.
COINCIDENT, ASTRAY = 1e-6, 50.0
# Share of the variance across the tangent plane: 1/3 in a ball, 0.2 in a sample of one, 0.03 on a sphere of 200 points.
THICK = 0.13
# Ratio of the variances within the tangent plane: 0.7 on a surface, 0.006 on a helix.
THIN = 0.02
# The least neighbourhood that shows a shape, and how many of them are looked at.
SHAPE, SAMPLE = 20, 2000


def point_cloud_laplacian(cloud: PointCloud, neighbours: int = 30) -> Laplacian:
    """The robust Laplacian of the surface that the points lie on, with lumped mass (Sharp and Crane 2020, section 5.7).

    Each point is triangulated with its nearest others in their tangent plane; the triangles of all the points together are
    a non-manifold surface, whose tufted Laplacian this is. All weights are non-negative. A node that ended up in no
    triangle has a zero row.

    It is not equivariant under renaming: in another order of the points, entries differ by as much as a tenth, where the
    triangulations of neighbours disagree and the library below breaks the tie by order. The spectrum agrees to 5 %. The first
    15 eigenvalues of the sphere come out within 10 % from 500 random points, 6 % from 5000, 2 % from 1000 evenly spaced
    ones, but only 30 % from 100. For smaller errors mesh the surface. Not differentiable in the points.

    Args:
        cloud: points in space, or in the plane.
        neighbours: how many nearest points to triangulate, from 3; below 15 the total mass falls short of the area.

    Raises:
        DomainError: coincident points, points on one line, fewer points than neighbours, points that require a gradient.

    Warns:
        DomainWarning: points that fill a volume or lie along a curve, or a point far from all others, whose mass would be the
            square of its distance.
    """
    points = _centred(cloud)
    n, d = cloud.points.shape
    if cloud.points.requires_grad and torch.is_grad_enabled():
        raise DomainError(
            "point_cloud_laplacian has no gradient in the points: detach them, or take least_squares_laplacian(cloud), which has"
        )
    if d not in (2, 3):
        raise DomainError(f"points of a surface have 2 or 3 coordinates, not {d}: use cloud.knn_graph(k) and a graph Laplacian")
    if not is_integer(neighbours) or not 3 <= neighbours < n:
        raise DomainError(
            f"neighbours must be an integer from 3 to {n - 1} (one less than the {n} points), not {neighbours!r}"
            + (": a surface needs at least 4 points" if n < 4 else "")
        )
    size = float(np.abs(points).max())
    if size == 0:
        raise DomainError("all points coincide: a surface needs points apart")
    points = points / size
    _check_spacing(points)
    _check_shape(points, max(neighbours, min(SHAPE, n - 1)))
    try:
        stiffness, mass = native.point_cloud_laplacian(points, n_neighbors=neighbours)
    except RuntimeError as error:
        raise DomainError(
            f"no triangle could be formed around some point ({error}): are the points on a curve? Ask for more neighbours"
        ) from None
    recipe = partial(point_cloud_laplacian, neighbours=neighbours)
    return laplacian_of_native(stiffness, mass.diagonal() * size**2, cloud.points, recipe)


def _centred(cloud: PointCloud) -> Floats:
    points = cloud.points.detach().to("cpu", torch.float64).numpy()
    points = points - points.mean(axis=0)
    return np.column_stack([points, np.zeros(len(points))]) if points.shape[1] == 2 else points


def _check_spacing(points: Floats) -> None:
    """Refuse coincident points, warn of a point astray."""
    distances, found = (np.asarray(column) for column in cKDTree(points).query(points, k=2))
    distance = distances[:, 1]
    # With coincident points the tree may return the point itself first or second.
    other = np.where(found[:, 1] == np.arange(len(points)), found[:, 0], found[:, 1])
    usual = float(np.median(distance[distance > 0])) if (distance > 0).any() else 0.0
    coincident = np.flatnonzero(distance <= COINCIDENT * usual)
    if coincident.size:
        first = int(coincident[0])
        raise DomainError(
            f"{coincident.size} points coincide with another one, the first is {first} with {int(other[first])}: keep one "
            "of each, as torch.unique(points, dim=0, return_inverse=True) does for exact copies; its inverse maps fields back"
        )
    far = int(distance.argmax())
    if distance[far] > ASTRAY * usual:
        warnings.warn(
            f"point {far} is {distance[far] / usual:.0f} times as far from its nearest neighbour as is usual, and its mass will "
            "be about the square of that distance: remove it if it is an outlier",
            DomainWarning,
            stacklevel=3,
        )


def _check_shape(points: Floats, neighbours: int) -> None:
    """Refuse a line; warn where most neighbourhoods are a volume or a curve."""
    spread = np.linalg.svd(points, compute_uv=False)
    if spread[1] <= 1e-6 * spread[0]:
        raise DomainError("the points lie on one line: a surface needs an extent in two directions")
    chosen = np.unique(np.linspace(0, len(points) - 1, SAMPLE).astype(np.int64))
    found: NDArray[Any] = np.asarray(cKDTree(points).query(points[chosen], k=neighbours + 1)[1])
    patch = points[found] - points[found].mean(axis=1, keepdims=True)
    variance = np.linalg.eigvalsh(np.swapaxes(patch, 1, 2) @ patch)
    if np.median(variance[:, 0] / variance.sum(axis=1)) > THICK:
        warnings.warn(
            f"the {neighbours} nearest neighbours of most points fill a volume, and this operator takes them for a surface: use "
            "cloud.knn_graph(k) with a graph Laplacian, or least_squares_laplacian(cloud); or ask for fewer neighbours if the "
            "surface is sampled coarsely",
            DomainWarning,
            stacklevel=3,
        )
    elif np.median(variance[:, 1] / variance[:, 2]) < THIN:
        warnings.warn(
            f"the {neighbours} nearest neighbours of most points lie along a curve, and this operator takes them for a surface: "
            "use cloud.knn_graph(k) with a graph Laplacian, or ask for more neighbours",
            DomainWarning,
            stacklevel=3,
        )
