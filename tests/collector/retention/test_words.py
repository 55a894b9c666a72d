"""Words on keeping: what may be said, what it comes to, and that nothing said can be changed unseen."""

from datetime import UTC, date, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flopmeter.collector.chained_words import NO_HASH
from flopmeter.collector.errors import RetentionError, RetentionRefused
from flopmeter.collector.retention.words import (
    DEFAULT_YEARS,
    SaidRow,
    check_chain,
    check_release,
    earliest_day,
    latest_day,
    next_row,
    row_hash,
    said_of,
)

NOW = 1_790_000_000 * 10**9  # 2026-09-21T14:13:20Z
SOME = [
    ("hold", "r1", ""),
    ("hold", "", ""),
    ("placed", "r1", "2026-09-01"),
    ("release", "", "1"),
    ("years", "", "12"),
    ("withdrawn", "r1", "2026-09-20"),
    ("dropped", "r2", "2026-09-21"),
]


def rows(said=SOME) -> list[SaidRow]:
    found: list[SaidRow] = []
    for i, (kind, run, value) in enumerate(said):
        last = found[-1] if found else None
        found.append(next_row(last, i // 2, kind, run, value, who="ann", why=f"word {i}", unix_ns=NOW + i))
    return found


def test_a_later_word_replaces_an_earlier_and_a_release_ends_a_hold() -> None:
    said = said_of(rows([*SOME, ("placed", "r1", "2026-09-02"), ("years", "", "11")]))
    assert [(h.said_no, h.run) for h in said.holds.values()] == [(2, "")]
    assert said.market_day("r1")[0] == date(2026, 9, 2)
    assert said.withdrawn_day("r1")[0] == date(2026, 9, 20)
    assert said.years == 11
    assert (
        said.market_day("r2")[0] == said.withdrawn_day("r2")[0] == date(2026, 9, 21)
    )  # dropped: neither will be
    assert said.market_day("r3") is said.withdrawn_day("r3") is None
    assert said_of([]).years == DEFAULT_YEARS == 10


def test_a_model_placed_again_after_its_withdrawal_is_deployed_again() -> None:
    said = said_of(
        rows([("placed", "r", "2026-01-01"), ("withdrawn", "r", "2026-02-01"), ("placed", "r", "2026-03-01")])
    )
    assert said.withdrawn_day("r") is None


def test_a_withdrawal_without_a_market_date_begins_nothing() -> None:
    assert said_of(rows([("withdrawn", "r", "2026-02-01")])).withdrawn_day("r") is None


@pytest.mark.parametrize(
    ("kind", "run", "value"),
    [
        ("keep", "r", ""),
        ("placed", "r", "2026-9-1"),
        ("placed", "r", "20260901"),
        ("placed", "r", "2026-W36-2"),
        ("placed", "r", "2026-02-30"),
        ("placed", "r", "2026-09-23"),  # has not begun anywhere
        ("placed", "r", ""),
        ("placed", "", "2026-09-01"),
        ("years", "", "101"),
        ("years", "", "-1"),
        ("years", "", "٣"),
        ("years", "", "9" * 10_000),
        ("years", "r", "12"),
        ("release", "r", "1"),
        ("release", "", "01"),
        ("hold", "r", "x"),
        ("hold", "r\n", ""),
        ("hold", "x" * 10_000, ""),
    ],
)
def test_what_is_no_word_on_keeping_is_refused(kind, run, value) -> None:
    with pytest.raises(RetentionError):
        next_row(None, 0, kind, run, value, who="ann", why="why", unix_ns=NOW)


@pytest.mark.parametrize(("who", "why"), [("", "w"), ("a", " "), ("a\x1b[2J", "w"), ("a", "x" * 2_001)])
def test_nobody_and_no_reason_are_refused(who, why) -> None:
    with pytest.raises(RetentionError):
        next_row(None, 0, "hold", "r", "", who=who, why=why, unix_ns=NOW)


def test_only_a_hold_that_stands_is_released() -> None:
    said = said_of(rows())
    check_release(said, 2)
    for number in (1, 3, 99):
        with pytest.raises(RetentionRefused):
            check_release(said, number)


def test_a_good_chain_is_good() -> None:
    assert check_chain(rows()) is None
    assert check_chain([]) is None


@pytest.mark.parametrize("column", SaidRow._fields)
def test_any_change_of_any_row_is_found(column) -> None:
    for i, row in enumerate(rows()):
        value = getattr(row, column)
        changed = row._replace(
            **{
                column: value + 1
                if isinstance(value, int)
                else value + "x"
                if isinstance(value, str)
                else NO_HASH[:-1] + b"\1"
            }
        )
        fault = check_chain([*rows()[:i], changed, *rows()[i + 1 :]])
        assert fault is not None
        assert fault.number == i + 1


def test_a_row_taken_out_or_put_in_is_found() -> None:
    good = rows()
    assert check_chain([*good[:2], *good[3:]]).number == 3
    assert check_chain([*good[:1], good[0], *good[1:]]).number == 2


def test_a_well_sealed_release_of_no_hold_is_found() -> None:
    """Whoever can seal a row must still obey the rules."""
    good = rows()[:1]
    forged = next_row(good[0], 0, "release", "", "7", who="eve", why="w", unix_ns=NOW)
    assert check_chain([*good, forged]).number == 2


@given(st.integers(0, 4_102_444_800 * 10**9))
def test_a_day_begins_first_in_the_east_and_ends_last_in_the_west(unix_ns) -> None:
    today = datetime.fromtimestamp(unix_ns // 10**9, UTC).date()
    assert earliest_day(unix_ns) <= today <= latest_day(unix_ns)
    assert (latest_day(unix_ns) - earliest_day(unix_ns)).days in (1, 2)


@pytest.mark.parametrize("column", SaidRow._fields)
def test_a_column_of_another_type_is_a_fault_and_no_crash(column) -> None:
    """Sealed well by whoever did it: SQLite takes any type in any column."""
    (row,) = rows()[:1]
    for value in (None, b"x", "x", 7, 1.5):
        if type(value) is not type(getattr(row, column)):
            odd = row._replace(**{column: value})
            assert (
                check_chain(
                    [odd._replace(hash=row_hash(odd)) if column not in ("prev_hash", "hash") else odd]
                )
                is not None
            )
