"""The rows of the derivative table that follow from formulas."""

from pathlib import Path

import pytest
import torch

from neuralpde.directional import Bowl, PlaneFunction, Ripples, directional_task, drawn_points, published_split
from neuralpde.directional_method import (
    FiniteGradient,
    LeastSquares,
    MeshOperator,
    StandardOperator,
    nearest_count,
    squared_error,
)


class Slope(PlaneFunction):
    """A linear function."""

    name = "slope"

    def value(self, points):
        return 2 * points[..., 0] - 3 * points[..., 1] + 7

    def gradient(self, points):
        return points.new_tensor([2.0, -3.0]).expand_as(points)


def fitted(method, task):
    return method.fit(task, published_split(task, 0), 0, Path("unused"), lambda *told: None)


@pytest.mark.parametrize("method", [FiniteGradient(), MeshOperator(), LeastSquares()], ids=lambda method: method.name)
def test_formulas_are_exact_on_linear_functions(method):
    task = directional_task(Slope(), drawn_points(80, 2))
    # Slivers of the hull multiply rounding by a thousand or so.
    assert squared_error(fitted(method, task), task) < 1e-20


def test_least_squares_is_exact_on_the_quadratic_of_the_paper_and_agrees_with_a_direct_solve():
    task = directional_task(Bowl(), drawn_points(200, 0))
    assert squared_error(fitted(LeastSquares(), task), task) < 1e-24
    task = directional_task(Ripples(), drawn_points(60, 0))
    found = fitted(LeastSquares(), task).estimate(task)
    source, target = task.graph.edge_index.tolist()
    near = {i: {s for s, t in zip(source, target, strict=True) if t == i} for i in range(60)}
    two = sorted(set().union(near[7], *(near[j] for j in near[7])) - {7})
    away = task.cloud.points[two] - task.cloud.points[7]
    weight = 1 / torch.linalg.vector_norm(away, dim=1)
    x, y = away.unbind(1)
    matrix = torch.stack([x, y, x * x, x * y, y * y], dim=1) * weight[:, None]
    gradient = torch.linalg.lstsq(matrix, (task.values[two] - task.values[7]) * weight).solution[:2]
    edges = (task.graph.edge_index[0] == 7).nonzero()[:, 0]
    torch.testing.assert_close(found[edges], task.directions[edges] @ gradient, rtol=0, atol=1e-10)


def test_the_standard_operator_is_the_difference_times_the_best_factor():
    task = directional_task(Ripples(), drawn_points(80, 2))
    learned = fitted(StandardOperator(), task)
    edges = published_split(task, 0).train
    best = squared_error(learned, task, edges)
    for factor in (0.99, 1.01):
        learned.factor *= factor
        assert squared_error(learned, task, edges) > best
        learned.factor /= factor
    assert learned.parameters == 1
    assert fitted(FiniteGradient(), task).parameters == 0
    assert nearest_count(task.cloud, 500) == 79
