"""On turning waves the flow on patterns is far better than both baselines; short spans are refused or left unscaled."""

from pathlib import Path

from weather_cases import case

from neuralpde.forecast_baselines import ClimatologyMethod, PersistenceMethod
from neuralpde.forecast_patterns_ours import PatternOurs
from neuralpde.weather_forecasts import score


def rmse(method, one):
    learned = method.fit(one, 0, Path("unused"), lambda *told: None)
    return score(learned.forecast, one.windows, one.climatology).rmse, learned.parameters


def test_turning_waves_are_followed():
    one = case(members=6)
    ours, parameters = rmse(PatternOurs(patterns=(4,)), one)
    persistence, climatology = (rmse(method(), one)[0] for method in (PersistenceMethod, ClimatologyMethod))
    assert parameters > 0
    assert bool((ours < persistence).all() and (ours < climatology).all())
    # Half of the mean is damped persistence, so that half its error stays.
    assert float(ours[3, 0]) < 0.6 * float(persistence[3, 0])


def test_a_span_too_short_for_parts():
    one = case(frames=24, leads=8)
    assert rmse(PatternOurs(patterns=(4,)), one)[0].isfinite().all()
