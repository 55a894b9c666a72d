"""Times as people write them, and the whole hours within a stretch of them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flopmeter.collector.errors import RegistryError
from flopmeter.collector.registry.when import HOUR_NS, end_of, hour_text, instant, span_text, whole_hours

DAY = 1_795_132_800_000_000_000  # 2026-11-20T00:00:00Z: date -u -d 2026-11-20 +%s


@pytest.mark.parametrize(
    ("text", "unix_ns"),
    [
        ("2026-11-20", DAY),
        (" 2026-11-20T00:00Z ", DAY),
        ("2026-11-20T01:00:00+01:00", DAY),
        ("2026-11-20T14:30", DAY + 14 * HOUR_NS + HOUR_NS // 2),
        ("2026-11-20 14:30:00.000001", DAY + 14 * HOUR_NS + HOUR_NS // 2 + 1000),
        ("1970-01-01", 0),
    ],
)
def test_a_time_is_utc_unless_it_says_otherwise(text: str, unix_ns: int) -> None:
    assert instant("t", text) == unix_ns


@pytest.mark.parametrize(
    "text",
    [
        "",
        "soon",
        "2026-13-01",
        "20.11.2026",
        "1969-12-31",
        "2263-01-01",
        "0001-01-01T00:00+14:00",
        "x" * 9999,
    ],
)
def test_what_is_no_time_is_refused_in_one_line(text: str) -> None:
    with pytest.raises(RegistryError, match=r"^--from: expected a (date|time)") as e:
        instant("--from", text)
    assert "2026-11-20" in e.value.hint
    assert len(str(e.value)) < 200


def test_the_end_of_a_date_is_the_end_of_its_day() -> None:
    assert end_of("--end", "2026-11-20") == DAY + 24 * HOUR_NS - 1
    assert end_of("--end", "2026-11-20T00:00Z") == DAY
    assert end_of("--end", "2262-04-11") == (1 << 63) - 1


def test_ends_are_moved_inward_to_whole_hours_and_said() -> None:
    span = whole_hours("2026-11-20T10:20", "2026-11-20T15:59:59")
    first = DAY // HOUR_NS
    assert (span.from_hour, span.until_hour) == (first + 11, first + 15)
    assert len(span.notes) == 2
    assert "2026-11-20T11:00Z" in span.notes[0]
    assert "2026-11-20T15:00Z" in span.notes[1]


def test_whole_hours_stay_and_nothing_is_said_and_an_open_end_stays_open() -> None:
    first = DAY // HOUR_NS
    assert whole_hours("2026-11-20", "2026-11-21") == (first, first + 24, ())
    assert whole_hours("2026-11-20", None) == (first, None, ())
    assert whole_hours(None, "2026-11-20") == (None, first, ())
    assert whole_hours(None, None) == (None, None, ())


@pytest.mark.parametrize(
    ("since", "until"),
    [
        ("2026-11-20T10:20", "2026-11-20T10:40"),
        ("2026-11-20T10:20", "2026-11-20T11:40"),
        ("2026-11-20T10:00", "2026-11-20T10:59"),
        ("2026-11-20T10:00", "2026-11-20T10:00"),
        ("2026-11-21", "2026-11-20"),
    ],
)
def test_a_span_without_a_whole_hour_is_refused_and_the_job_is_named_instead(since: str, until: str) -> None:
    with pytest.raises(RegistryError, match="at least one whole hour") as e:
        whole_hours(since, until)
    assert "--job" in e.value.hint


@given(st.integers(0, 10**6), st.integers(0, 10**6))
def test_no_hour_of_a_span_reaches_outside_of_it(a: int, b: int) -> None:
    """Minutes of 1970 and on: what is tagged is never more than what was said."""

    def text(minute: int) -> str:
        return f"{hour_text(minute // 60)[:14]}{minute % 60:02}Z"

    try:
        span = whole_hours(text(a), text(b))
    except RegistryError:
        assert -(-a // 60) >= b // 60
        return
    assert a <= span.from_hour * 60 < span.until_hour * 60 <= b
    assert span.from_hour * 60 - a < 60
    assert b - span.until_hour * 60 < 60


def test_spans_in_words() -> None:
    assert span_text(None, None) == "all of the time"
    assert span_text(3, None) == "from 1970-01-01T03:00Z on"
    assert span_text(None, 3) == "until 1970-01-01T03:00Z"
    assert span_text(3, 5) == "1970-01-01T03:00Z to 1970-01-01T05:00Z"
