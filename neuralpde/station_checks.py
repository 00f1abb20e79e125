"""What is wrong with measurements from stations, found before anything is learned from them."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from neuralpde.weather_record import Times, Variable

Floats = NDArray[np.float64]
Flags = NDArray[np.bool_]

# What files write where nothing was measured, if it is not an empty cell or NaN.
MARKERS = np.array([-99, -99.9, -999, -999.9, -9999, -99999, -32768, 99.9, 999, 999.9, 9999, 9999.9, 99999, 999999, 32767, 1e20])
# The values a quantity can have on Earth, by its unit; a median outside is a wrong unit.
POSSIBLE = {
    "K": (150.0, 350.0),
    "degC": (-100.0, 70.0),
    "degF": (-150.0, 160.0),
    "Pa": (4.5e4, 1.2e5),
    "hPa": (450.0, 1200.0),
    "%": (0.0, 110.0),
    "m s**-1": (-150.0, 150.0),
    "degree": (-180.0, 360.0),
    # Some networks write −0.1 for a trace of rain.
    "mm": (-0.2, 3000.0),
}


class StationError(ValueError):
    """Measurements from stations that cannot be used as they are; the text names the cause and the cure."""


class StationWarning(UserWarning):
    """Measurements from stations that can be used, but perhaps should not be; the text names the cause and the cure."""


def check_times(name: str, times: Times) -> None:
    """Times must be there, and increase."""
    if np.isnat(times).any():
        raise StationError(f"{name}: time {int(np.isnat(times).argmax())} is missing (NaT): drop that frame")
    steps = np.diff(times)
    wrong = np.flatnonzero(steps <= np.timedelta64(0, "ns"))
    if len(wrong) == 0:
        return
    i = int(wrong[0])
    if (steps[wrong] == np.timedelta64(0, "ns")).all():
        raise StationError(f"{name}: {len(wrong)} times occur twice, the first is {times[i]} (frame {i}): keep one frame of each")
    raise StationError(
        f"{name}: times must increase, but {times[i]} is followed by {times[i + 1]} (frame {i}): sort the frames by time first"
    )


def check_stations(name: str, ids: Sequence[str], latitude: Floats, longitude: Floats) -> None:
    """Each station once, each at a place of its own that is known."""
    seen: dict[str, int] = {}
    for index, station in enumerate(ids):
        if not station.strip() or station.lower() == "nan":
            raise StationError(f"{name}: a station has no name (column {index}): give each row its station, or drop the row")
        if station in seen:
            raise StationError(f"{name}: station {station} occurs twice (columns {seen[station]} and {index}): keep one of them")
        seen[station] = index
    unknown = ~(np.isfinite(latitude) & np.isfinite(longitude))
    if unknown.any():
        i = int(unknown.argmax())
        raise StationError(
            f"{name}: the coordinates of {int(unknown.sum())} stations are missing, the first is {ids[i]}: give latitude and "
            "longitude, or drop the station"
        )
    outside = (np.abs(latitude) > 90) | (np.abs(longitude) > 360)
    if outside.any():
        i = int(outside.argmax())
        swapped = np.abs(longitude).max() <= 90 and np.abs(latitude).max() <= 360
        cure = "latitude and longitude seem to be swapped" if swapped else "give degrees, not metres or thousandths of degrees"
        raise StationError(f"{name}: station {ids[i]} is at latitude {latitude[i]:g}, longitude {longitude[i]:g}: {cure}")
    places: dict[tuple[float, float], str] = {}
    for station, place in zip(ids, zip(latitude.round(6), (longitude % 360).round(6), strict=True), strict=True):
        if place in places:
            raise StationError(
                f"{name}: stations {places[place]} and {station} are at the same place ({place[0]:g}, {place[1]:g}): the "
                "distance between neighbours would be zero; keep one of them, or merge the two"
            )
        places[place] = station


def check_values(name: str, values: Floats, seen: Flags, variables: Sequence[Variable]) -> None:
    """Refuse infinities, undeclared markers of missing values, and units that the values contradict.

    Args:
        values, seen: (T, n, c).

    Warns:
        StationWarning: single values that no place on Earth has.
    """
    for channel, variable in enumerate(variables):
        data = values[..., channel][seen[..., channel]]
        if data.size == 0:
            raise StationError(f"{name}: {variable} was never measured: leave the variable out")
        if not np.isfinite(data).all():
            raise StationError(f"{name}: {variable} is infinite somewhere: write NaN, or nothing, where nothing was measured")
        for marker in markers_among(data):
            raise StationError(
                f"{name}: {variable} is {marker:g} in {int((data == marker).sum())} places, far from all other values: that "
                f"seems to mean that nothing was measured. Load it with missing=({marker:g},), or write NaN there"
            )
        _check_unit(name, data, variable)


def markers_among(data: Floats) -> list[float]:
    """The usual markers of missing values that occur far outside of the other values."""
    found: list[float] = []
    candidates = MARKERS[np.isin(MARKERS, data)]
    if len(candidates) == 0:
        return found
    rest = data[~np.isin(data, candidates)]
    if rest.size == 0:
        return [float(candidates[0])]
    low, middle, high = np.quantile(rest, [0.01, 0.5, 0.99])
    # Five times the usual range to either side: real extremes lie within, a marker does not.
    reach = 5 * max(high - low, 1e-3 * abs(middle), 1e-9)
    for marker in candidates:
        if marker < low - reach or marker > high + reach:
            found.append(float(marker))
    return found


def _check_unit(name: str, data: Floats, variable: Variable) -> None:
    if variable.units not in POSSIBLE:
        return
    low, high = POSSIBLE[variable.units]
    middle = float(np.median(data))
    if not low <= middle <= high:
        like = [
            unit for unit, (least, most) in POSSIBLE.items() if least <= middle <= most and unit in _SAME.get(variable.units, ())
        ]
        told = f"they look like {' or '.join(like)}" if like else "they may be scaled"
        raise StationError(
            f"{name}: the median of {variable} is {middle:g}, which is no value in {variable.units}: {told}; convert the values "
            "or correct the unit"
        )
    astray = (data < low) | (data > high)
    if astray.any():
        warnings.warn(
            f"{name}: {int(astray.sum())} values of {variable} lie outside of {low:g} to {high:g} {variable.units}, for example "
            f"{data[astray][0]:g}: leave them out with record.within({variable.name!r}, {low:g}, {high:g})",
            StationWarning,
            stacklevel=4,
        )


_SAME: dict[str, tuple[str, ...]] = {
    "K": ("degC", "degF"), "degC": ("K", "degF"), "degF": ("K", "degC"), "Pa": ("hPa",), "hPa": ("Pa",),
}  # fmt: skip


def as_texts(ids: Sequence[Any]) -> tuple[str, ...]:
    """Names of stations as texts, whole numbers without a decimal point."""
    return tuple(f"{one:.0f}" if isinstance(one, (float, np.floating)) and float(one).is_integer() else str(one) for one in ids)
