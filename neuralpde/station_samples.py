"""The real stations and grids that the sensor tables are made from."""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from neuralpde.station_checks import StationError
from neuralpde.station_record import StationRecord
from neuralpde.weather_record import Variable, regular_times

MOLENE = "molene_radome_hourly_201401.npz"
BRITAIN = "era5_t2m_uk_hourly_201903.npz"
STRBOOK = "noaa_strbook_daily_1990_1993.npz"
PACIFIC = "sst_pacific_monthly_1970_2003.npz"

UNITS = {
    "t": "K",
    "td": "K",
    "u": "%",
    "dd": "degree",
    "ff": "m s**-1",
    "fxi": "m s**-1",
    "rr1": "mm",
    "pmer": "Pa",
    "pres": "Pa",
}


def molene(path: Path | str, variables: Sequence[str] = ("t",)) -> StationRecord:
    """Hourly measurements of Météo-France's network in Brittany in January 2014, from `molene_radome_hourly_201401.npz`.

    The 44 stations with less than 5 % of their temperatures missing.

    Args:
        variables: of t, td (K), u (%), dd (degree), ff, fxi (m/s), rr1 (mm), pmer, pres (Pa).
    """
    arrays = read_arrays(path, ("values", "vars", "station_id", "lat", "lon", "alt_m", "time", "t_ok"))
    chosen = columns(path, [str(name) for name in arrays["vars"]], variables)
    return StationRecord.of(
        "molene",
        arrays["values"][:, arrays["t_ok"]][..., chosen],
        arrays["time"],
        arrays["lat"][arrays["t_ok"]],
        arrays["lon"][arrays["t_ok"]],
        [Variable(name, units=UNITS[name]) for name in variables],
        arrays["station_id"][arrays["t_ok"]],
        arrays["alt_m"][arrays["t_ok"]],
    )


def era5_uk_sensors(path: Path | str, sensors: int = 100, seed: int = 0) -> StationRecord:
    """Hourly temperature at 2 m in March 2019 at points drawn from ERA5's grid over Britain and Ireland, in kelvin.

    Args:
        path: of `era5_t2m_uk_hourly_201903.npz`.
        sensors: of the 1617 points, without replacement.
    """
    arrays = read_arrays(path, ("t2m", "lat", "lon", "time0"))
    latitude, longitude = (axis.reshape(-1) for axis in np.meshgrid(arrays["lat"], arrays["lon"], indexing="ij"))
    values = arrays["t2m"].reshape(len(arrays["t2m"]), -1)
    chosen = drawn(path, len(latitude), sensors, seed)
    times = regular_times(str(arrays["time0"]), 1.0, len(values))
    variable = Variable("2m_temperature", units="K")
    return StationRecord.of("era5-uk", values[:, chosen], times, latitude[chosen], longitude[chosen], [variable], chosen)


def noaa_strbook(path: Path | str, variables: Sequence[str] = ("Tmax",)) -> StationRecord:
    """Daily measurements of NOAA stations in the central United States, 1990 to 1993, from `noaa_strbook_daily_1990_1993.npz`.

    137 stations.

    Args:
        variables: of Tmax, Tmin, TDP (°F), Precip.
    """
    arrays = read_arrays(path, ("values", "vars", "id", "lat", "lon", "date0"))
    chosen = columns(path, [str(name).removesuffix("_F") for name in arrays["vars"]], variables)
    channels = [Variable(name, units="degF" if name.startswith("T") else "") for name in variables]
    times = np.datetime64(str(arrays["date0"]), "D") + np.arange(len(arrays["values"]))
    return StationRecord.of("noaa", arrays["values"][..., chosen], times, arrays["lat"], arrays["lon"], channels, arrays["id"])


def pacific_sst(path: Path | str, sensors: int = 200, seed: int = 0) -> StationRecord:
    """Monthly anomalies of the Pacific's surface temperature, 1970 to 2003, at points drawn from a grid of 2°, in kelvin.

    Args:
        path: of `sst_pacific_monthly_1970_2003.npz`.
        sensors: of the 2261 points at sea, without replacement.
    """
    arrays = read_arrays(path, ("sst", "lat", "lon", "date0"))
    chosen = drawn(path, len(arrays["lat"]), sensors, seed)
    times = (np.datetime64(str(arrays["date0"]), "M") + np.arange(len(arrays["sst"]))).astype("datetime64[ns]")
    # An anomaly in kelvin is not near 290: it must not be checked as a temperature.
    variable = Variable("sst_anomaly", units="K of anomaly")
    return StationRecord.of(
        "sst", arrays["sst"][:, chosen], times, arrays["lat"][chosen], arrays["lon"][chosen], [variable], chosen
    )


def drawn(path: Path | str, points: int, sensors: int, seed: int) -> Any:
    """The indices of `sensors` of the points, in order."""
    if not 2 <= sensors <= points:
        raise StationError(f"{path} has {points} points: draw from 2 to {points} of them, not {sensors}")
    return np.sort(np.random.default_rng(seed).permutation(points)[:sensors])


def columns(path: Path | str, present: Sequence[str], wanted: Sequence[str]) -> list[int]:
    """Where the wanted variables are among those present."""
    unknown = [name for name in wanted if name not in present]
    if unknown or not wanted:
        raise StationError(f"{path} has no variable {', '.join(unknown) or 'without a name'}: it has {', '.join(present)}")
    return [list(present).index(name) for name in wanted]


def read_arrays(path: Path | str, needed: Sequence[str] = ()) -> dict[str, Any]:
    """The arrays of an .npz file.

    Raises:
        FileNotFoundError: there is none. StationError: it is damaged, or another file.
    """
    try:
        # Given the name, np.load leaves a damaged file open.
        with Path(path).open("rb") as file, np.load(file, allow_pickle=False) as loaded:
            arrays = dict(loaded)
    except FileNotFoundError as error:
        raise FileNotFoundError(f"there is no file {path}: check the path") from error
    except (zipfile.BadZipFile, zlib.error, OSError, ValueError, EOFError, TypeError, NotImplementedError, RuntimeError) as error:
        raise StationError(f"{path} is damaged or no .npz file ({error}): fetch it again") from error
    missing = [name for name in needed if name not in arrays]
    if missing:
        raise StationError(
            f"{path} has no array {', '.join(missing)}, only {', '.join(arrays)}: it is not the file that this reads"
        )
    return arrays
