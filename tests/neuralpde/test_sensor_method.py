"""A method is a value; a forecaster without weights has none."""

import pickle

from neuralpde.sensor_baselines import JointVar, Persistence
from neuralpde.sensor_method import Forecaster
from neuralpde.sensor_networks import Gru


class Nothing(Forecaster):
    def forecast(self, given):
        return given.values[:, -1:]


def test_equal_settings_are_equal_methods():
    assert Gru(steps=5) == Gru(steps=5) != Gru(steps=6)
    assert repr(Gru(steps=5)) != repr(Gru(steps=6))
    assert pickle.loads(pickle.dumps(Gru(steps=5))) == Gru(steps=5)
    assert (Gru.random, Persistence.random, JointVar.bound, Persistence.bound) == (True, False, True, False)


def test_no_parameters_unless_told():
    assert Nothing().parameters == 0
