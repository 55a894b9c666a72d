"""The letter by which a fleet of thousands tells each clock: never nearer than it is sure to be."""

import hypothesis.strategies as st
import pytest
from hypothesis import given

from flopmeter.collector.api.fleet_cells import (
    FURTHER,
    NOT_KNOWN,
    SAID_ABOVE_MS,
    WITHIN_MS,
    NodeRow,
    around_ms,
    clock_code,
    packed,
)
from flopmeter.collector.clock_offset import Offset

MS = 1_000_000


@given(st.integers(-3_000 * MS, 3_000 * MS), st.integers(0, 2_000 * MS))
def test_all_of_the_interval_lies_within_what_is_told(lower: int, width: int) -> None:
    clock = Offset(lower, lower + width, 1)
    middle, within = around_ms(clock)
    assert (middle - within) * MS <= clock.lower_ns <= clock.upper_ns <= (middle + within) * MS
    assert within * MS <= width // 2 + 2 * MS
    code = clock_code(clock)
    if code == FURTHER:
        assert clock.surely_ns > SAID_ABOVE_MS * MS or max(-lower, lower + width) > 1_000 * MS
    else:
        assert -WITHIN_MS[code] * MS <= clock.lower_ns
        assert clock.upper_ns <= WITHIN_MS[code] * MS


@pytest.mark.parametrize(
    ("clock", "code"),
    [
        (None, NOT_KNOWN),
        (Offset(0, 0, 1), "a"),
        (Offset(0, MS + 1, 1), "b"),
        (Offset(-1_000 * MS, 1_000 * MS, 1), "j"),
        (Offset(-1_000 * MS - 1, 0, 1), FURTHER),
        (Offset(SAID_ABOVE_MS * MS, 30 * MS, 1), "f"),
        (Offset(SAID_ABOVE_MS * MS + 1, 30 * MS, 1), FURTHER),
    ],
)
def test_the_letters(clock: Offset | None, code: str) -> None:
    assert clock_code(clock) == code


def test_further_ones_are_told_by_row() -> None:
    clocks = [None, Offset(0, MS, 1), Offset(-41_204 * MS, -41_200 * MS, 1), Offset(0, 3 * MS, 1)]
    rows = packed([NodeRow(f"n{i}", "L", "A", "c", "1", "m", "", 0, 0, c) for i, c in enumerate(clocks)])
    assert rows["clock"] == "-a!c"
    assert rows["offset"] == [[2, -41_202, 2]]
