"""A method is a value."""

from neuralpde.forecast_baselines import PersistenceMethod
from neuralpde.forecast_method import Learned
from neuralpde.forecast_networks import GCNMethod
from neuralpde.weather_forecasts import Persistence


def test_equal_settings_are_equal_methods():
    assert GCNMethod(steps=5) == GCNMethod(steps=5) != GCNMethod(steps=6)
    assert repr(GCNMethod(steps=5)) != repr(GCNMethod(steps=6))
    assert (GCNMethod.random, PersistenceMethod.random) == (True, False)
    assert Learned(Persistence()).parameters == 0
