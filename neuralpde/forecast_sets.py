"""The sets of `neuralpde reproduce weather`: where each comes from, how it is divided, and which models run on it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from neuralpde.climatology import MeanClimatology, climatology_of
from neuralpde.files import RunFolderError
from neuralpde.forecast_baselines import ClimatologyMethod, DampedPersistence, PersistenceMethod
from neuralpde.forecast_case import ForecastCase, latitude_features
from neuralpde.forecast_geostrophic_ours import GeostrophicOurs
from neuralpde.forecast_method import ForecastMethod
from neuralpde.forecast_networks import GCNMethod, RUniMeshMethod
from neuralpde.forecast_patterns_ours import PatternOurs
from neuralpde.forecast_water_ours import BareWater, WaterOurs
from neuralpde.shallow_water_set import ShallowWaterSet
from neuralpde.weather_record import Variable, WeatherError
from neuralpde.weather_samples import era5_ensemble, era5_uk
from neuralpde.weather_store import open_weather

Told = Callable[[int, int], None]

BRITAIN = "era5_t2m_uk_hourly_201903.npz"
ENSEMBLE = "era5_ens10_z_t_500_850_global3deg.npz"
# A store of so many values is read once into memory, of 4 GB; each window of a larger one when it is needed.
MOST_VALUES = 10**9
BASELINES = (PersistenceMethod(), ClimatologyMethod(), DampedPersistence())


@dataclass(frozen=True)
class Prepared:
    """A set, ready to be learned from.

    Args:
        shown: the lead times in the printed table and on maps, in hours.
        note: what a reader of the table must know.
    """

    case: ForecastCase
    methods: tuple[ForecastMethod, ...]
    shown: tuple[float, ...]
    note: str = ""


def shallow_water(data: ShallowWaterSet, path: Path, told: Told) -> Prepared:
    """Simulated shallow water: other trajectories are forecast than are learned from."""
    leads = min(40, 4 * data.days - 4)
    if leads < 1:
        raise RunFolderError(f"--days must be at least 2 for three frames and a forecast, not {data.days}")
    records = data.simulate(path, told)
    static = torch.cat([latitude_features(records.train), records.orography / 1000], dim=1)
    case = ForecastCase(
        name="shallow-water",
        train=records.train,
        test=records.test,
        inputs=3,
        leads=leads,
        stride=12,
        climatology=MeanClimatology.of(records.train),
        static=static,
        orography=records.orography,
    )
    simulators = (model(refinements=data.truth_refinements) for model in (BareWater, WaterOurs))
    note = (
        "the networks see frames, orography and place; simulator and ours also know the equations and the earth's constants, not "
        "what drives the jets, on other nodes than the truth's: simulator runs them bare, ours with forces that it learned"
    )
    shown = tuple(hours for hours in (6, 24, 48, 72, 120, 168, 240) if hours <= leads * 6)
    return Prepared(case, (*BASELINES, GCNMethod(steps=800), RUniMeshMethod(steps=200), *simulators), shown, note)


def britain(path: Path) -> Prepared:
    """Hourly temperature over Britain and Ireland: three weeks to learn from, the rest of the month to forecast."""
    record = era5_uk(find(path, BRITAIN))
    train, test = record.split("2019-03-22", inputs=7)
    static = latitude_features(train)
    case = ForecastCase("era5-t2m", train, test, 7, 48, 3, climatology_of(train), (static - static.mean(0)) / static.std(0))
    note = "one month of one region: ten days of testing are two or three spells of weather"
    networks = (GCNMethod(steps=150, windows=2), RUniMeshMethod(steps=60, windows=2, unroll=2, layers=3))
    return Prepared(case, (*BASELINES, *networks, PatternOurs()), (1, 3, 6, 12, 24, 36, 48), note)


def ensemble(path: Path) -> Prepared:
    """Geopotential and temperature of ten members at four times: the first change is learned from, later ones are forecast."""
    record = era5_ensemble(find(path, ENSEMBLE))
    train, test = record.split(str(record.times[2]), inputs=1)
    case = ForecastCase("era5-z500-t850", train, test, 1, 2, 1, MeanClimatology.of(train), latitude_features(train))
    note = (
        "ten members of one forecast from one date are nearly one sample, and the climatology is the mean of the two training "
        "times: this tells whether the models run on real fields, and which are worse than persistence; no more"
    )
    methods = (*BASELINES[:2], GCNMethod(windows=2, steps=60), RUniMeshMethod(windows=1, steps=40), GeostrophicOurs())
    return Prepared(case, methods, (12, 24), note)


def weatherbench(path: Path, variables: tuple[str, ...], cut: str | None, days: int) -> Prepared:
    """A store in WeatherBench 2's layout: the times before the cut are learned from, those after it forecast."""
    record = open_weather(path, tuple(parsed(text) for text in variables))
    if record.members * len(record) * record.place.num_nodes * len(record.variables) <= MOST_VALUES:
        record = record.loaded()
    per_day = 24 / record.step_hours
    inputs, leads = 3, max(1, round(days * per_day))
    train, test = record.split(0.75 if cut is None else cut, inputs=inputs)
    if len(test) < inputs + leads:
        raise WeatherError(f"{len(test) - inputs} frames after the cut are too few for {days} days: cut earlier, or fewer --days")
    stride = max(1, round(per_day / 2), (len(test) - inputs - leads) // 60)
    case = ForecastCase("wb2", train, test, inputs, leads, stride, climatology_of(train), latitude_features(train))
    wanted = np.array([record.step_hours, 24, 72, 120, 168, 240])
    ends = np.array(case.lead_hours)
    # Steps need not divide a day.
    nearest = (float(ends[np.abs(ends - h).argmin()]) for h in wanted if h <= ends[-1] + record.step_hours / 2)
    shown = tuple(dict.fromkeys(nearest))
    return Prepared(case, (*BASELINES, GCNMethod(), RUniMeshMethod(), PatternOurs(patterns=(20, 40), lag=24)), shown)


def shorter(prepared: Prepared, names: tuple[str, ...], steps: int | None) -> Prepared:
    """With these methods alone, beside persistence and climatology, and networks that train for so many steps."""
    by_name = {method.name: method for method in prepared.methods}
    missing = [name for name in names if name not in by_name]
    if missing:
        raise RunFolderError(f"there is no method {', '.join(missing)}: choose among {', '.join(by_name)}")
    always = [method.name for method in BASELINES[:2]]
    chosen = [by_name[name] for name in dict.fromkeys([*always, *names])] if names else list(prepared.methods)
    if steps is not None:
        chosen = [replace(m, steps=steps) if isinstance(m, (GCNMethod, RUniMeshMethod)) else m for m in chosen]
    return replace(prepared, methods=tuple(chosen))


def find(path: Path, name: str) -> Path:
    """The sample's file: `path` itself, or `name` in that folder or in its folder `sensors`."""
    for candidate in (path, path / name, path / "sensors" / name):
        if candidate.is_file():
            return candidate
    raise RunFolderError(f"there is no {name} in {path}: give its file or folder with --data")


def parsed(text: str) -> Variable:
    """A variable from "geopotential:500" or "2m_temperature"."""
    name, _, level = text.partition(":")
    if not name or (level and not level.isdigit()):
        raise RunFolderError(f"{text!r} is no variable: write it as geopotential:500, or 2m_temperature")
    return Variable(name, int(level) if level else None)
