"""Ours in the derivative table: consistent before it learns, far better after."""

from pathlib import Path

import pytest
import torch

from neuralpde.directional import Bowl, DirectionalTask, Ripples, directional_task, drawn_points, leak_free_split
from neuralpde.directional_method import LeastSquares, squared_error
from neuralpde.directional_ours import LearnedKernel


def quiet(*told):
    pass


def test_it_beats_least_squares_by_far_on_edges_and_placements_that_it_has_not_seen(tmp_path):
    task, other = (directional_task(Ripples(), drawn_points(150, seed)) for seed in (0, 9))
    split = leak_free_split(task, 0)
    learned = LearnedKernel(neighbours=20, steps=20).fit(task, split, 0, tmp_path / "ours.safetensors", quiet)
    formula = LeastSquares().fit(task, split, 0, Path("unused"), quiet)
    assert squared_error(learned, task, split.test) < 1e-2 * squared_error(formula, task, split.test)
    assert squared_error(learned, other) < 1e-2 * squared_error(formula, other)
    assert learned.parameters == 3
    assert squared_error(learned, directional_task(Bowl(), drawn_points(120, 4))) < 1e-18


@pytest.mark.parametrize("moved", ["test", "validation"])
def test_the_slopes_of_test_edges_change_nothing_and_those_of_validation_edges_only_the_choice(tmp_path, moved):
    task = directional_task(Ripples(), drawn_points(60, 1))
    split = leak_free_split(task, 0)
    slopes = task.slopes.clone()
    slopes[getattr(split, moved)] += 10.0
    other = DirectionalTask(task.cloud, task.graph, task.values, slopes)
    method = LearnedKernel(steps=3)
    found = [
        method.fit(each, split, 0, tmp_path / f"{k}.safetensors", quiet).estimate(task) for k, each in enumerate((task, other))
    ]
    if moved == "test":
        assert torch.equal(*found)


def test_few_points_still_have_a_stencil(tmp_path):
    task = directional_task(Ripples(), drawn_points(20, 1))
    learned = LearnedKernel(steps=2).fit(task, leak_free_split(task, 0), 0, tmp_path / "ours.safetensors", quiet)
    assert bool(torch.isfinite(learned.estimate(task)).all())
