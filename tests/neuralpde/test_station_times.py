"""Times as people write them, against Python's own reading."""

from datetime import UTC, datetime, timedelta, timezone

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from neuralpde.station_checks import StationError
from neuralpde.station_times import parse_times


@pytest.mark.parametrize(
    "text",
    [
        "2020-01-31T18:00", "2020-01-31 18:00:00", "2020/01/31 18", "2020013118", "202001311800", "20200131180000",
        "2020-01-31T18:00Z", "2020-01-31T18:00:00.000", "2020-01-31T20:00+02:00", "2020-01-31 13:00-0500",
        " 2020-01-31T18:00 UTC",
    ],
)  # fmt: skip
def test_one_moment(text: str) -> None:
    assert parse_times([text], "here")[0] == np.datetime64("2020-01-31T18:00")


@settings(max_examples=20, deadline=None)
@given(moment=st.datetimes(datetime(1700, 1, 1), datetime(2250, 1, 1)), offset=st.integers(-720, 840))
def test_offsets_as_python_reads_them(moment: datetime, offset: int) -> None:
    local = moment.replace(microsecond=0, tzinfo=timezone(timedelta(minutes=offset)))
    expected = np.datetime64(local.astimezone(UTC).replace(tzinfo=None))
    assert parse_times([local.isoformat()], "here")[0] == expected


def test_days_months_and_datetimes() -> None:
    assert (
        parse_times(["20200131", "2020-01-31", "2020/01/31"], "here").tolist()
        == [np.datetime64("2020-01-31", "ns").astype(int)] * 3
    )
    assert parse_times(["2020-02"], "here")[0] == np.datetime64("2020-02-01")
    months = np.array(["2020-01", "2020-02"], "datetime64[M]")
    assert parse_times(months, "here").dtype == np.dtype("datetime64[ns]")


@pytest.mark.parametrize(
    "text", ["31/01/2020", "01-31-2020", "yesterday", "", "2020-13-01", "1e9", "2020-01-31T25:00", "1066-10-14"]
)
def test_what_cannot_be_read(text: str) -> None:
    with pytest.raises(StationError, match="here: a time cannot be read"):
        parse_times(["2020-01-01", text], "here")
