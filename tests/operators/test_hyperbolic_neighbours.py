"""Searches in the Poincaré ball find what comparing all pairs finds, from the centre to the rim, block by block."""

import math

import numpy as np
import pytest

from operators import hyperbolic_neighbours
from operators.checks import DomainError
from operators.hyperbolic_neighbours import hyperbolic_nearest, hyperbolic_within


def ball(n, d, spread, seed=0):
    """Points whose hyperbolic distance from the centre is about 3 `spread`: nearly all near the rim, as a tree embeds."""
    random = np.random.default_rng(seed)
    direction = random.normal(size=(n, d))
    far = np.tanh(random.gamma(6, spread / 2, size=(n, 1)) / 2)
    return direction / np.linalg.norm(direction, axis=1, keepdims=True) * far


def distances(points):
    square = ((points[:, None] - points[None]) ** 2).sum(-1)
    size = np.linalg.norm(points, axis=1)
    room = (1 - size) * (1 + size)
    distance = np.arccosh(1 + 2 * square / (room[:, None] * room))
    np.fill_diagonal(distance, np.inf)
    return distance


def joined(pairs, n):
    matrix = np.zeros((n, n), dtype=bool)
    matrix[pairs[0], pairs[1]] = True
    assert matrix.sum() == pairs.shape[1]
    return matrix


@pytest.mark.parametrize("spread", [0.01, 1.0, 3.0])
@pytest.mark.parametrize("dimension", [1, 2, 8])
@pytest.mark.parametrize("block", [200, 8_000_000])
def test_all_pairs_agree(spread, dimension, block, monkeypatch):
    monkeypatch.setattr(hyperbolic_neighbours, "_BLOCK", block)
    points = ball(400, dimension, spread)
    distance = distances(points)
    brute = distance <= np.sort(distance, axis=1)[:, 6:7]
    assert np.array_equal(joined(hyperbolic_nearest(points, 7), 400), brute | brute.T)
    radius = float(np.quantile(distance[np.isfinite(distance)], 0.03))
    assert np.array_equal(joined(hyperbolic_within(points, radius), 400), distance <= radius)


def test_the_bound_of_the_search_is_nearly_the_distance_of_the_kth(monkeypatch):
    # Else all points would be looked at for each: with a loose bound, half a ball lies within it.
    points = ball(2000, 2, 1.5)
    tree = hyperbolic_neighbours._Ball(points)
    everyone = np.arange(2000)
    assert tree.counts(everyone, tree.reach(everyone, 8)).mean() < 20


def test_the_radius_includes_its_end():
    # Two points at distance 2 artanh(x) from the centre, on either side.
    points = np.array([[0.5, 0.0], [0.0, 0.0], [-0.5, 0.0]])
    step = 2 * math.atanh(0.5)
    assert hyperbolic_within(points, step * (1 + 1e-12)).shape[1] == 4
    assert hyperbolic_within(points, step * (1 - 1e-12)).shape[1] == 0
    assert hyperbolic_within(points, 2 * step * (1 + 1e-12)).shape[1] == 6


@pytest.mark.parametrize("more", [0, 6])
def test_points_a_hair_from_the_rim_and_from_each_other(more):
    points = np.array([[1 - 1e-15, 0.0], [0.0, 1 - 1e-12], [1e-9, 0.0], [0.0, 0.0], [0.0, 1 - 2e-12]])
    points = np.concatenate([points, np.zeros((5, more))], axis=1)
    assert {(2, 3), (3, 2)} <= set(map(tuple, hyperbolic_nearest(points, 1).T))
    assert {(1, 4), (4, 1)} <= set(map(tuple, hyperbolic_nearest(points, 1).T))
    assert hyperbolic_within(points, 1e-8).shape[1] == 2
    assert hyperbolic_within(points, 1e6).shape[1] == 20


def test_copies_are_each_others_neighbours():
    points = np.concatenate([np.full((500, 2), 0.6), np.full((3, 2), -0.1), ball(50, 2, 1.0)])
    matrix = joined(hyperbolic_nearest(points, 5), 553)
    assert matrix[:500, :500].sum(1).min() >= 5
    assert matrix[500:503, 500:503].sum() == 6
    assert matrix.sum(1).min() >= 5


@pytest.mark.parametrize("k", [0, 10, 1.5, True])
def test_a_count_that_is_none_is_refused(k):
    with pytest.raises(DomainError, match="k must be an integer from 1 to 9"):
        hyperbolic_nearest(ball(10, 2, 1.0), k)


def test_more_edges_than_allowed_are_counted_and_refused():
    for dimension in (2, 8):
        with pytest.raises(DomainError, match="pairs, over the limit of 1000"):
            hyperbolic_within(ball(200, dimension, 1.0), 50.0, most_edges=1000)
    with pytest.raises(DomainError, match="take a smaller k"):
        hyperbolic_nearest(ball(10_001, 1, 1.0), 10_000)
