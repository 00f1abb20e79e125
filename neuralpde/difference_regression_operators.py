"""Fixed differences at sensors as matrices (p, n, n), features of a regression for each sensor: u ↦ (F_1 u, …, F_p u)."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from neuralpde.sensor_placement import Placement
from operators import PointCloud
from operators.difference_graph import DelaunayEdges, DifferenceGraph, KNearest
from operators.mesh_difference import FixedDifference, MeshDifference, StandardDifference
from operators.stencils import least_squares_gradient, least_squares_laplacian

Floats = NDArray[np.float64]
# What the cotangent of a flat triangle is cut to.
_MOST = 1e6
_FLAT = 1e-6


def standard_features(placement: Placement, join: KNearest | DelaunayEdges) -> Tensor:
    """Gradient (2) and Laplacian of the plain differences on a graph in the plane, (3, n, n)."""
    return _matrices(StandardDifference(DifferenceGraph(PointCloud(placement.plane), join)))


def mesh_features(placement: Placement) -> Tensor:
    """Gradient (2) and cotangent Laplacian of the Delaunay triangulation, (3, n, n)."""
    return _matrices(MeshDifference(PointCloud(placement.plane)))


def least_squares_features(placement: Placement) -> Tensor:
    """Gradient (2) and Laplacian of local quadratic fits, (3, n, n); coincident sensors have their mean."""
    places, place = torch.unique(placement.plane, dim=0, return_inverse=True)
    cloud, n = PointCloud(places), len(places)
    eye = torch.eye(n, dtype=torch.float64)
    features = torch.cat([least_squares_gradient(cloud).vectors(eye).movedim(1, 0), (least_squares_laplacian(cloud) @ eye)[None]])
    copies = torch.nn.functional.one_hot(place, n).to(features)
    return copies @ features @ (copies / copies.sum(0)).T


def edge_features(placement: Placement, neighbours: int) -> Tensor:
    """Each sensor itself and each of its neighbours, one feature each, (1 + most neighbours, n, n)."""
    source, target = placement.graph(neighbours).edge_index
    n = placement.num_nodes
    order = torch.argsort(target, stable=True)
    source, target = source[order], target[order]
    degree = torch.bincount(target, minlength=n)
    rank = torch.arange(len(target)) - (degree.cumsum(0) - degree)[target]
    features = torch.zeros(1 + int(degree.max()), n, n, dtype=torch.float64)
    features[0] = torch.eye(n, dtype=torch.float64)
    features[1 + rank, target, source] = 1
    return features


def ring_features(placement: Placement, neighbours: int) -> Tensor:
    """Gradient (2) and Laplacian of the triangles that each sensor makes with its neighbours in turn around it, (3, n, n).

    The gradient is the mean of the triangles' by area, the Laplacian's weights are the absolute cotangents opposite each edge,
    scaled to a mean of 1. The triangles of different sensors overlap, so neither is consistent; a triangle without area has no
    gradient, and coincident sensors are no neighbours.

    Source: Seo, Meng and Liu 2020, §2.2, as their code has it on a graph of nearest neighbours.
    """
    points = placement.plane.numpy()
    source, target = placement.graph(neighbours).edge_index.numpy()
    n = len(points)
    features = np.zeros((3, n, n))
    for i in range(n):
        around = source[target == i]
        offset = points[around] - points[i]
        apart = np.abs(offset).max(axis=1) > 0
        around, offset = around[apart], offset[apart]
        around = around[np.argsort(-np.arctan2(offset[:, 1], offset[:, 0]), kind="stable")]
        total = 0.0
        for a, b in zip(around, np.roll(around, -1), strict=True):
            corners = points[[i, a, b]]
            doubled = _cross(corners[1] - corners[0], corners[2] - corners[0])
            # What rounding has made of three sensors in a line is no area.
            doubled *= abs(doubled) > _FLAT * float(np.square(np.ptp(corners, axis=0)).sum())
            total += abs(doubled)
            for k, node in enumerate((i, a, b)):
                side = corners[(k + 2) % 3] - corners[(k + 1) % 3]
                features[:2, i, node] += np.sign(doubled) * np.array([-side[1], side[0]])
            for node, opposite in ((a, b), (b, a)):
                weight = _cotangent(points[i] - points[opposite], points[node] - points[opposite])
                features[2, i, node] -= weight
                features[2, i, i] += weight
        if total > 0:
            features[:2, i] /= total
        if features[2, i, i] > 0:
            features[2, i] *= len(around) / features[2, i, i]
    return torch.from_numpy(features)


def _cross(u: Floats, v: Floats) -> float:
    return float(u[0] * v[1] - u[1] * v[0])


def _cotangent(u: Floats, v: Floats) -> float:
    sine, cosine = abs(_cross(u, v)), abs(float(u @ v))
    return cosine / max(sine, cosine / _MOST) if cosine > 0 else 0.0


def _matrices(operator: FixedDifference) -> Tensor:
    n = operator.laplacian.shape[0]
    eye = torch.eye(n, dtype=operator.laplacian.dtype)
    return operator.features(eye).movedim(1, 0)
