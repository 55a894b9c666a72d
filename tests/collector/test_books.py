"""Where usage stands in the books: under one hour, or under all that it spans."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flopmeter.collector.books import BRIDGE_S, HOUR_NS, Slot, slot_of
from flopmeter.contract.limits import DEFAULT_WINDOW_NS

SECOND = 1_000_000_000
BRIDGE_NS = BRIDGE_S * SECOND
H = 497_000  # some hour since 1970
AT = H * HOUR_NS

times = st.integers(1, (1 << 63) - 1)
spans = st.one_of(st.integers(0, 2 * BRIDGE_NS), st.integers(0, 400 * 24 * HOUR_NS), st.just(BRIDGE_NS))


@pytest.mark.parametrize(
    ("start", "end", "told", "slot"),
    [
        (AT, AT + 60 * SECOND, 60 * SECOND, Slot(H)),
        (AT - 30 * SECOND, AT + 30 * SECOND, 60 * SECOND, Slot(H)),  # over the edge, by less than can be seen
        (AT - 60 * SECOND, AT, 60 * SECOND, Slot(H - 1)),  # ends with the hour: nothing of it is of the next
        (AT - BRIDGE_NS + 1, AT + 1, BRIDGE_NS, Slot(H)),
        (AT - BRIDGE_NS, AT + 1, BRIDGE_NS + 1, Slot(H, 1)),
        (AT, AT + HOUR_NS, HOUR_NS, Slot(H)),  # a window of the whole hour
        (AT - HOUR_NS // 2, AT + HOUR_NS // 2, HOUR_NS, Slot(H, 1)),
        (AT - 20 * HOUR_NS, AT + 1, 20 * HOUR_NS, Slot(H, 20)),
        # A gap over a reboot, an interval that ends in this window: they reach back behind its start.
        (AT + 10 * SECOND, AT + 70 * SECOND, 20 * HOUR_NS, Slot(H, 20)),
        # A clock that was set back, so that the window seems to end before it began.
        (AT + HOUR_NS, AT + SECOND, 60 * SECOND, Slot(H)),
        (AT + HOUR_NS, AT + SECOND, 3 * HOUR_NS, Slot(H, 3)),
        # A clock that was right only at the end.
        (1, AT + 1, 60 * SECOND, Slot(H, H)),
        (1, 1, 400 * 24 * HOUR_NS, Slot(0)),
    ],
)
def test_where_usage_stands(start, end, told, slot):
    assert slot_of(start, end, told) == slot


@given(times, times, spans)
def test_no_nanosecond_is_outside_of_its_slot_by_more_than_a_short_windows_length(start, end, told):
    slot = slot_of(start, end, told)
    assert 0 <= slot.first <= slot.hour
    since = max(min(start, end - told), 0)
    assert slot.hour * HOUR_NS < end <= (slot.hour + 1) * HOUR_NS
    assert slot.first * HOUR_NS - since < BRIDGE_NS
    if end - since > BRIDGE_NS:
        assert slot.first * HOUR_NS <= since, "a bridge is never outside at all"
        assert since < (slot.first + 1) * HOUR_NS, "and spans no hour that it does not touch"


@given(times, st.integers(0, BRIDGE_NS))
def test_usual_windows_make_no_row_twice(end, length):
    """An hour's rows are those of one slot, however its windows lie."""
    assert slot_of(max(end - length, 1), end, length).back == 0
    assert 5 * DEFAULT_WINDOW_NS <= BRIDGE_NS


@given(times, times, spans)
def test_the_rule_of_older_stores_is_the_hour_of_the_windows_end(start, end, told):
    assert slot_of(start, end, told, bridge_s=0) == Slot(end // HOUR_NS)
