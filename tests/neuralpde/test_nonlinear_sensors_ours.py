"""Forecasts by assimilation: at sensors that nobody trained at, through gaps and at uneven times, from the given frames alone."""

from copy import deepcopy
from dataclasses import replace
from functools import partial

import pytest
import torch

from neuralpde.nonlinear_sensors_data import NonlinearSensors
from neuralpde.nonlinear_sensors_equations import FitzHughNagumoEquation
from neuralpde.nonlinear_sensors_ours import LearnedFieldMethod, Seen, _Joint, improve
from neuralpde.sensor_case import Given
from neuralpde.sensor_gaps import whole
from neuralpde.sensor_placement import Placement
from operators import DomainError

METHOD = LearnedFieldMethod(cells=12, substeps=1, highest=3, windows=4, rounds=1, of_fields=8, of_coefficients=3, assimilate=16)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    class Slow(FitzHughNagumoEquation):
        modes = 2

    sizes = {"sensors": 24, "placements": 2, "unseen": 1, "train": 8, "validation": 1, "test": 2, "given": 4, "horizon": 4}
    cases = NonlinearSensors(Slow(16, 3), **sizes).cases()
    told = []
    forecaster = METHOD.fit(cases.train, cases.validation, 0, tmp_path_factory.mktemp("a") / "x", lambda *a: told.append(a))
    assert all(0 <= step <= steps for step, steps, _ in told)
    return cases, forecaster


def error(forecaster, given, case):
    return float((forecaster.forecast(given) - case.targets[0]).square().mean())


def persistence(case):
    return float((case.values[:, case.given - 1 : case.given] - case.targets[0]).square().mean())


def test_it_forecasts_where_nobody_trained(trained):
    cases, forecaster = trained
    for case in (cases.test[0], cases.unseen[0]):
        assert error(forecaster, case.inputs, case) < 0.2 * persistence(case)


def test_it_forecasts_through_gaps(trained):
    cases, forecaster = trained
    case = cases.unseen[0]
    seen = torch.rand(case.inputs.values.shape, generator=torch.Generator().manual_seed(0)) > 0.3
    given = replace(case.inputs, values=torch.where(seen, case.inputs.values, 0.0), seen=seen)
    assert error(forecaster, given, case) < 0.3 * persistence(case)
    # What is hidden is not read: other values there change nothing.
    other = replace(given, values=torch.where(seen, given.values, 0.0))
    assert torch.equal(forecaster.forecast(other), forecaster.forecast(given))


def test_it_forecasts_from_uneven_times_and_to_any_time(trained):
    cases, forecaster = trained
    case = cases.test[0]
    kept = [0, 1, 3]
    given = replace(case.inputs, values=case.values[:, kept], seen=case.seen[:, kept], times=case.times[:, kept])
    assert error(forecaster, given, case) < 0.3 * persistence(case)
    some = replace(case.inputs, wanted=case.inputs.wanted[:, [1, 3]])
    assert torch.allclose(forecaster.forecast(some), forecaster.forecast(case.inputs)[:, [1, 3]], atol=1e-5)


def test_windows_are_forecast_one_by_one(trained):
    cases, forecaster = trained
    case = cases.test[1]
    # Round-off decides whether a last step of the minimisation is taken.
    alone = forecaster.forecast(case.some(slice(1)).inputs)
    assert torch.allclose(alone, forecaster.forecast(case.inputs)[:1], atol=5e-3)


def test_it_is_small_and_not_random(trained):
    _, forecaster = trained
    assert forecaster.parameters == 2 * (1 + 6 + 10) + 2 * 5
    assert not METHOD.random
    assert not METHOD.bound


def test_the_earth_is_no_periodic_plane():
    place = Placement("a", torch.tensor([[48.0, 2.0], [49.0, 3.0]]), earth=True)
    empty = torch.zeros(1, 1, 2, 1)
    given = Given(place, empty, empty == 0, torch.zeros(1, 1, dtype=torch.float64), torch.ones(1, 1, dtype=torch.float64))
    with pytest.raises(DomainError, match="not on the Earth"):
        Seen(given, 1.0, 1.0, 8)


def test_a_correction_never_makes_the_equation_worse(trained):
    cases, forecaster = trained
    field = deepcopy(forecaster)
    views = [Seen(whole(case.some(slice(2))), field.interval, 1.0, 12) for case in cases.train]
    white = [field.guess(view) for view in views]
    joint = _Joint(field, views)
    field.equation.take(1.3 * field.equation.coefficients.detach())
    for _ in range(2):
        before = joint.loss(white)
        changed = improve(field, views, white, partial(joint.loss, white))
        assert joint.loss(white) < before if changed else joint.loss(white) == before
    assert views[0].whole_frames.tolist() == list(range(8))


def test_without_two_frames_an_interval_apart_the_equation_stays(trained):
    cases, forecaster = trained
    field = deepcopy(forecaster)
    case = cases.train[0].some(slice(2))
    late = replace(case, times=case.times * 1.5)
    views = [Seen(whole(late), field.interval, 1.0, 12)]
    assert views[0].whole_frames.tolist() == [0]
    before = field.equation.coefficients
    assert not improve(field, views, [field.guess(views[0])], lambda: 0.0)
    assert torch.equal(field.equation.coefficients, before)


def test_forecasts_far_away_and_of_wild_equations_are_numbers(trained):
    cases, forecaster = trained
    field = deepcopy(forecaster)
    draw = torch.Generator().manual_seed(0)
    field.equation.take(10 * torch.randn(field.equation.coefficients.shape, generator=draw))
    given = cases.unseen[0].some(slice(1)).inputs
    far = replace(given, wanted=given.wanted[:, -1:] + 50 * field.interval)
    assert bool(torch.isfinite(field.forecast(far)).all())
