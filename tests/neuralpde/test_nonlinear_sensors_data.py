"""Windows at sensors: exact interpolation, own sessions for every kind, normalised by the training windows alone."""

import math

import pytest
import torch

from neuralpde.nonlinear_sensors_data import NonlinearSensors, observed, trigonometric
from neuralpde.nonlinear_sensors_equations import FitzHughNagumoEquation
from neuralpde.testing import assert_within
from operators import DomainError

SMALL = NonlinearSensors(
    FitzHughNagumoEquation(16, 2),
    sensors=12,
    placements=2,
    unseen=1,
    train=4,
    validation=2,
    test=2,
    given=2,
    horizon=2,
    spin_up=1,
)


@pytest.mark.parametrize("cells", [8, 9])
def test_waves_of_the_grid_are_interpolated_exactly(cells):
    points = torch.rand(5, 2, dtype=torch.float64)
    grid = torch.arange(cells, dtype=torch.float64) / cells

    def wave(x, y):
        return torch.cos(2 * math.pi * (3 * x - 2 * y) + 0.4) + torch.sin(2 * math.pi * y)

    field = wave(grid[:, None], grid[None])
    found = observed(field[None, None], trigonometric(points, cells))[0, :, 0]
    assert_within(found, wave(points[:, 0], points[:, 1]), 1e-12)


def test_cases_have_their_shapes_and_are_normalised_by_training():
    cases = SMALL.cases()
    assert [len(part) for part in (cases.train, cases.validation, cases.test, cases.unseen)] == [2, 2, 2, 1]
    assert cases.train[0].values.shape == (4, 4, 12, 2)
    assert (cases.test[0].given, cases.test[0].horizon) == (2, 2)
    learned = torch.cat([case.values.flatten(0, 2) for case in cases.train])
    assert_within(learned.mean(0), torch.zeros(2), 1e-5)
    assert_within(learned.std(0), torch.ones(2), 1e-5)
    assert cases.test[0].times[0].tolist() == pytest.approx([0.0, 0.8, 1.6, 2.4])


def test_every_kind_and_placement_has_sessions_of_its_own():
    cases = SMALL.cases()
    parts = [case.values[k] for kind in (cases.train, cases.validation, cases.test) for case in kind for k in range(2)]
    assert all(not torch.allclose(a, b) for i, a in enumerate(parts) for b in parts[:i])
    places = [case.placement.points for case in (*cases.train, *cases.unseen)]
    assert all(float(torch.cdist(a, b).min()) > 0 for i, a in enumerate(places) for b in places[:i])
    for train, test in zip(cases.train, cases.test, strict=True):
        assert torch.equal(train.placement.points, test.placement.points)


def test_the_seed_decides_everything():
    again = SMALL.cases()
    assert torch.equal(SMALL.cases().unseen[0].values, again.unseen[0].values)


def test_bad_sizes_are_refused():
    with pytest.raises(DomainError, match="sensors must be at least 8, not 3"):
        NonlinearSensors(FitzHughNagumoEquation(), sensors=3)
