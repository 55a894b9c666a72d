"""What a declared purpose is of: the run's time that no tag of the run says otherwise."""

from hypothesis import given
from hypothesis import strategies as st

from flopmeter.collector.api.say_curve import _untagged

ENDS = st.tuples(st.integers(0, 30), st.integers(0, 30)).map(sorted).map(tuple)


def test_before_between_and_behind_tags() -> None:
    assert _untagged([], 5, 9) == [(5, 9)]
    assert _untagged([(6, 7)], 5, 9) == [(5, 6), (7, 9)]
    assert _untagged([(0, 6), (8, 99)], 5, 9) == [(6, 8)]
    assert _untagged([(0, 99)], 5, 9) == []


@given(st.lists(ENDS, max_size=5), ENDS)
def test_each_instant_is_tagged_or_is_not(tagged: list[tuple[int, int]], whole: tuple[int, int]) -> None:
    found = _untagged(tagged, *whole)
    for at in range(*whole):
        assert sum(a <= at < b for a, b in found) == (not any(a <= at < b for a, b in tagged))
