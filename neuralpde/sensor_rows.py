"""The rows of the tables at real stations: which methods, and fewer of them or shorter trained."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields, replace
from typing import Any

from neuralpde.difference_regression import LeastSquaresRegression, RingRegression, StandardRegression
from neuralpde.difference_regression_learned import LearnedDifferenceRegression
from neuralpde.files import RunFolderError
from neuralpde.pa_dgn_methods import (
    MeshRecurrentGraphMethod,
    PADGNMethod,
    RecurrentGraphMethod,
    StandardRecurrentGraphMethod,
)
from neuralpde.sensor_baselines import Climatology, JointVar, Persistence, Var
from neuralpde.sensor_clock import ClockGru, OnAnomalies
from neuralpde.sensor_method import SensorMethod
from neuralpde.sensor_networks import Gru, Mlp
from neuralpde.sensor_networks_graph import Gn
from neuralpde.station_ours import StationOurs


def station_methods(sensors: int) -> tuple[SensorMethod, ...]:
    """All rows, ours last; the recurrent graph networks are trained in batches of fewer windows at more sensors.

    Args:
        sensors: that are trained on.
    """
    windows = max(1, min(8, 140 // sensors))
    return (
        Persistence(),
        Climatology(),
        Var(),
        JointVar(),
        StandardRegression(),
        RingRegression(),
        LeastSquaresRegression(),
        LearnedDifferenceRegression(),
        Mlp(),
        Gru(),
        ClockGru(),
        Gn(),
        RecurrentGraphMethod(steps=40, windows=windows),
        StandardRecurrentGraphMethod(steps=40, windows=windows),
        MeshRecurrentGraphMethod(steps=40, windows=windows),
        PADGNMethod(steps=40, windows=windows),
        StationOurs(),
    )


def sst_methods(sensors: int) -> tuple[SensorMethod, ...]:
    """All rows for monthly anomalies, from which the calendar's mean is taken already."""
    return tuple(method for method in station_methods(sensors) if not isinstance(method, Climatology | OnAnomalies))


def chosen(methods: Sequence[SensorMethod], names: Sequence[str], steps: int | None) -> tuple[SensorMethod, ...]:
    """Persistence and the named methods, or all; those that train with so many steps.

    Raises:
        RunFolderError: an unknown name.
    """
    known = [method.name for method in methods]
    unknown = [name for name in names if name not in known]
    if unknown:
        raise RunFolderError(f"there is no method {', '.join(unknown)} here: choose from {', '.join(known)}")
    picked: list[Any] = [one for one in methods if not names or one.name in names or one.name == "persistence"]
    if steps is None:
        return tuple(picked)
    return tuple(
        replace(method, steps=steps) if any(field.name == "steps" for field in fields(method)) else method for method in picked
    )
