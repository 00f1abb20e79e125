"""Times as people write them, in UTC."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import numpy as np

from neuralpde.station_checks import StationError
from neuralpde.weather_record import Times, WeatherError, moments

# An offset from UTC at the end of a time of day: +01:00, -0500, +00.
OFFSET = re.compile(r"(?<=\d)([+-])(\d{2}):?(\d{2})?$")


def parse_times(texts: Sequence[Any] | np.ndarray[Any, Any], where: str) -> Times:
    """Times in UTC from texts, or from datetime64.

    Read are 2020-01-31, 2020-01-31T18:00, 2020/01/31 18:00:00, 20200131, 2020013118 and 202001311800; Z or an offset such as
    +01:00 at the end is taken into account.

    Raises:
        StationError: what cannot be read, such as 31/01/2020, whose month is in doubt.
    """
    array = np.asarray(texts)
    try:
        if array.dtype.kind == "M":
            return moments(array)
        unique, index = np.unique(array.astype(str), return_inverse=True)
        read = np.array([_parsed(text) for text in unique.tolist()], "datetime64[ns]")
        return read[index.reshape(array.shape)]
    except (ValueError, OverflowError) as error:
        told = error if isinstance(error, (StationError, WeatherError)) else f"{error}"
        raise StationError(f"{where}: a time cannot be read ({told}): write it as 2020-01-31T18:00, in UTC") from error


def _parsed(text: str) -> np.datetime64:
    plain = text.strip().replace("/", "-")
    if not plain:
        raise ValueError("an empty cell")
    if plain.isdigit() and len(plain) in (8, 10, 12, 14):
        parts = [plain[:4], plain[4:6], plain[6:8]]
        clock = [plain[i : i + 2] for i in range(8, len(plain), 2)]
        plain = "-".join(parts) + ("T" + ":".join(clock) if clock else "")
    shift = np.timedelta64(0, "m")
    plain = plain.removesuffix("Z").removesuffix(" UTC").strip()
    clocked = len(plain) > 10
    offset = OFFSET.search(plain) if clocked else None
    if offset:
        sign = -1 if offset[1] == "-" else 1
        shift = np.timedelta64(sign * (60 * int(offset[2]) + int(offset[3] or 0)), "m")
        plain = plain[: offset.start()].strip()
    if not re.match(r"\d{4}-\d{2}(-\d{2}([T ]\d{2}(:\d{2}){0,2}(\.\d+)?)?)?$", plain):
        raise ValueError(repr(text))
    found: Any = moments(np.array(np.datetime64(plain)))[()] - shift
    return np.datetime64(found)
