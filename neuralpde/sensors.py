"""Fields known at sensors: records of stations, cases for learning that do not leak, and methods that forecast.

    from neuralpde import sensors

    record = sensors.read_stations("measured.csv", variables=[sensors.Variable("t", units="degC")])
    cases = sensors.to_cases(record, sensors.StationSplit(given=12, horizon=12, held_out=0.2))
    method = sensors.StationOurs()
    forecaster = method.fit([cases.train], [cases.validation], 0, Path("ours.ckpt"), lambda step, steps, note: None)
    print(sensors.mean_error(forecaster, [cases.test]), sensors.mean_error(forecaster, [cases.held_out]))

A method of yours is a `SensorMethod`, what it has learned a `Forecaster`: windows of values with gaps in, at times that may be
irregular, and the values at the wanted times out. `leaks_of_method` finds out whether it knows what it must not.
"""

from neuralpde.pa_dgn_methods import (
    MeshRecurrentGraphMethod,
    PADGNMethod,
    RecurrentGraphMethod,
    StandardRecurrentGraphMethod,
)
from neuralpde.sensor_baselines import Climatology, JointVar, Persistence, Var
from neuralpde.sensor_case import Given, SensorCase
from neuralpde.sensor_leaks import Leak, leaks_of_cases, leaks_of_forecaster, leaks_of_method
from neuralpde.sensor_method import Forecaster, SensorMethod
from neuralpde.sensor_networks import Gru, Mlp
from neuralpde.sensor_networks_graph import Gn
from neuralpde.sensor_placement import Placement
from neuralpde.sensor_score import mean_error
from neuralpde.sensor_table import run_sensor_table
from neuralpde.station_cases import StationCases, StationScaling, StationSplit, to_cases
from neuralpde.station_checks import StationError, StationWarning
from neuralpde.station_degraded import hidden, irregular, latest
from neuralpde.station_figures import draw_stations
from neuralpde.station_files import read_stations, write_stations
from neuralpde.station_ghcn import read_ghcn_daily
from neuralpde.station_netcdf import read_netcdf
from neuralpde.station_noaa import read_global_hourly, read_isd_lite, read_lcd
from neuralpde.station_ours import StationOurs
from neuralpde.station_record import StationRecord
from neuralpde.station_samples import era5_uk_sensors, molene, noaa_strbook, pacific_sst
from neuralpde.station_synthetic import SyntheticStations
from neuralpde.station_table import Columns, Sites, read_table
from neuralpde.weather_record import Variable

__all__ = [
    "Climatology", "Columns", "Forecaster", "Given", "Gn", "Gru", "JointVar", "Leak", "MeshRecurrentGraphMethod", "Mlp",
    "PADGNMethod", "Persistence", "Placement", "RecurrentGraphMethod", "SensorCase", "SensorMethod", "Sites",
    "StandardRecurrentGraphMethod", "StationCases", "StationError", "StationOurs", "StationRecord", "StationScaling",
    "StationSplit", "StationWarning", "SyntheticStations", "Var", "Variable", "draw_stations", "era5_uk_sensors", "hidden",
    "irregular", "latest", "leaks_of_cases", "leaks_of_forecaster", "leaks_of_method", "mean_error", "molene", "noaa_strbook",
    "pacific_sst", "read_ghcn_daily", "read_global_hourly", "read_isd_lite", "read_lcd", "read_netcdf", "read_stations",
    "read_table", "run_sensor_table", "to_cases", "write_stations",
]  # fmt: skip
