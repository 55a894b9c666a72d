"""The operator reads who is refused and why, and nobody can fill the log."""

import pytest

from flopmeter.collector.ingest.refusal_log import LINES_A_MINUTE, MAX_REMEMBERED, REPEAT_S, RefusalLog

KEY = bytes(range(32))


@pytest.fixture
def lines(caplog):
    return lambda: [r.getMessage() for r in caplog.records]


def test_an_agent_and_a_reason_is_named_now_and_then(lines):
    refusals = RefusalLog()
    for second in range(int(REPEAT_S)):
        refusals.say(KEY, "node n1", "unknown agent", "not admitted", float(second))
    assert lines() == [f"refused 'node n1', public key {KEY.hex()}: unknown agent: 'not admitted'"]
    refusals.say(KEY, "node n1", "unknown agent", "not admitted", REPEAT_S)
    refusals.say(KEY, "node n1", "conflict", "a clone", REPEAT_S)  # another reason
    assert len(lines()) == 3


def test_strangers_with_ever_new_keys_get_so_many_lines_a_minute_and_the_rest_is_counted(lines):
    refusals = RefusalLog()
    for number in range(MAX_REMEMBERED + 500):
        refusals.say(number.to_bytes(32, "big"), "x", "unknown agent", "", 1.0)
    assert len(lines()) == LINES_A_MINUTE
    refusals.say(KEY, "x", "unknown agent", "", 61.0)
    assert f"{MAX_REMEMBERED + 500 - LINES_A_MINUTE} more refusals" in lines()[-2]
    assert len(refusals._said) <= MAX_REMEMBERED


def test_what_is_remembered_is_bounded(lines):
    refusals = RefusalLog()
    for number in range(MAX_REMEMBERED + 5):
        refusals.say(number.to_bytes(32, "big"), "x", "unknown agent", "", 60.0 * number)
    assert len(refusals._said) <= MAX_REMEMBERED


def test_a_stranger_cannot_write_a_line_of_its_own(lines):
    RefusalLog().say(b"", "n\nERROR all is lost", "malformed", "x\ny" + "z" * 10_000, 0.0)
    (line,) = lines()
    assert "\n" not in line
    assert "public key none" in line
    assert len(line) < 1_000
