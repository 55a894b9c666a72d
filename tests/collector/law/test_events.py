"""Events: each raised once, at the exact operation, worded as the law is."""

import json
from dataclasses import replace
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flopmeter.collector.law.agent_events import fork_event, loss_event, silent_event
from flopmeter.collector.law.events import event_id, to_cloudevent
from flopmeter.collector.law.regimes import shipped
from flopmeter.collector.law.standing import plain
from flopmeter.collector.law.thresholds import threshold_events
from flopmeter.collector.spelling import threshold_text, time_text
from flopmeter.contract.flop import ZERO, Figure

NOW = int(datetime(2026, 11, 21, tzinfo=UTC).timestamp()) * 10**9
NEXT_YEAR = int(datetime(2027, 1, 1, tzinfo=UTC).timestamp()) * 10**9
AGENT = bytes(range(16))


def raise_for(figure, raised=frozenset(), *, at=NOW, regimes=None, ops=ZERO, run="r"):
    by = shipped() if regimes is None else regimes
    return threshold_events(
        plain(run, figure, ops, by), by, raised, at_unix_ns=at, since_position=7, position=9
    )


def exactly(flop):
    return Figure(flop, flop, flop)


def crossed(events):
    return sorted(e.data["regime"] for e in events if e.type == "threshold.crossed")


def test_at_exactly_the_line_only_korea_fires():
    assert crossed(raise_for(exactly(10**25))) == ["eu-gpai"]
    assert crossed(raise_for(exactly(10**25 + 1))) == ["eu-gpai", "eu-systemic-risk"]
    assert crossed(raise_for(exactly(10**26 - 1))) == ["eu-gpai", "eu-systemic-risk"]
    assert crossed(raise_for(exactly(10**26))) == ["eu-gpai", "eu-systemic-risk", "korea"]
    assert crossed(raise_for(exactly(10**26 + 1))) == [
        "eu-gpai",
        "eu-systemic-risk",
        "korea",
        "us-ca-sb53",
        "us-ct-sb5",
    ]


def test_a_regime_not_in_force_raises_nothing():
    past_all = exactly(10**27)
    assert "us-ny-raise" not in crossed(raise_for(past_all))
    assert {"us-ny-raise", "us-il-aisma"} <= set(crossed(raise_for(past_all, at=NEXT_YEAR)))
    off = [replace(r, status="revoked") for r in shipped()]
    assert raise_for(past_all, regimes=off) == []


def test_changing_the_threshold_by_data_alone_changes_what_is_raised():
    (eu,) = [r for r in shipped() if r.id == "eu-systemic-risk"]
    figure = exactly(10**25 + 1)
    assert crossed(raise_for(figure, regimes=[eu])) == ["eu-systemic-risk"]
    assert raise_for(figure, regimes=[replace(eu, threshold_flop=10**26)]) == []


def test_undetermined_then_the_estimate_passes_then_crossed_each_once():
    (eu,) = [r for r in shipped() if r.id == "eu-systemic-risk"]
    line = 10**25
    seen, raised, clocks = [], set(), []
    for figure in (
        Figure(1, line // 4, line),
        Figure(1, line // 2, line + 1),
        Figure(2, line - 1, line + 9),
        Figure(3, line + 1, 2 * line),
        Figure(4, line + 2, 2 * line),
        Figure(line + 1, 2 * line, 4 * line),
        Figure(2 * line, 4 * line, 8 * line),
    ):
        for e in raise_for(figure, raised, regimes=[eu]):
            seen.append((e.type, e.data["verdict"], e.data["estimate"]))
            clocks.append((e.data["due"] is not None, e.data["due_if_met"] is not None))
            assert ("If the estimate is right" in e.data["message"]) == clocks[-1][1]
            raised.add(e.key)
    assert seen == [
        ("threshold.undetermined", "undetermined", "below"),
        ("threshold.undetermined", "undetermined", "crossed"),
        ("threshold.crossed", "crossed", "crossed"),
    ]
    assert clocks == [(False, False), (False, True), (True, False)]
    assert raised == {
        "threshold:eu-systemic-risk:r:undetermined:below:>10^25",
        "threshold:eu-systemic-risk:r:undetermined:crossed:>10^25",
        "threshold:eu-systemic-risk:r:crossed:crossed:>10^25",
    }


@given(st.lists(st.tuples(*[st.integers(0, 3 * 10**26)] * 3), max_size=12))
def test_whatever_the_path_no_key_is_raised_twice_and_a_crossing_is_never_missed(steps):
    low = point = high = 0
    raised: list[str] = []
    for a, b, c in steps:  # growing totals, bounds in order
        low, point, high = low + a, point + a + b, high + a + b + c
        raised += [e.key for e in raise_for(Figure(low, point, high), set(raised))]
    assert len(raised) == len(set(raised))
    assert ("threshold:eu-systemic-risk:r:crossed:crossed:>10^25" in raised) == (low > 10**25)
    assert ("threshold:korea:r:crossed:crossed:>=10^26" in raised) == (low >= 10**26)


def test_idle_and_unattributed_time_is_no_run():
    assert raise_for(exactly(10**30), run="") == []


def test_integer_operations_can_cross_the_us_line_and_not_the_eu_one():
    ops = exactly(10**26)
    assert crossed(raise_for(exactly(1), ops=ops)) == ["us-ca-sb53", "us-ct-sb5"]


def test_us_states_are_told_coverage_and_the_eu_its_two_weeks():
    events = {e.data["regime"]: e for e in raise_for(exactly(10**26 + 1))}
    california = events["us-ca-sb53"].data
    assert california["act"] == "coverage"
    assert "asks for no report of the compute figure" in california["when_met"]
    assert california["due"] is None
    eu = events["eu-systemic-risk"].data
    assert eu["due"] == "2026-12-05T00:00:00.000Z"
    assert "two weeks" in eu["deadline"]
    said = "Where it was known before that it would be, what is due runs since then"
    assert [name for name, e in events.items() if said in e.data["message"]] == ["eu-systemic-risk"]
    for e in events.values():
        assert "not a measure of risk" in e.data["message"]
        assert e.data["counting"] == next(r.counting for r in shipped() if r.id == e.data["regime"])
        assert e.data["open_questions"]


def test_big_numbers_travel_as_decimal_strings_and_lose_nothing():
    (event,) = [e for e in raise_for(exactly(10**26 + 1)) if e.data["regime"] == "korea"]
    data = json.loads(event.data_json)
    assert data["flop"] == {"lower": str(10**26 + 1), "point": str(10**26 + 1), "upper": str(10**26 + 1)}
    assert data["threshold_flop"] == "1" + "0" * 26


def test_the_id_follows_from_the_key_alone():
    early = raise_for(exactly(10**24))[0]
    late = raise_for(exactly(10**24 + 5), at=NEXT_YEAR)[0]
    assert early.key == late.key
    assert early.id == late.id == event_id(early.key)
    assert len(early.id) == 32


def test_forks_losses_and_silences_have_a_key_each():
    a = fork_event(
        AGENT, "n1", 5, stored_hash=b"\1" * 32, refused_hash=b"\2" * 32, at_unix_ns=NOW, position=3
    )
    b = fork_event(AGENT, "n1", 5, stored_hash=None, refused_hash=b"\3" * 32, at_unix_ns=NOW, position=3)
    assert (a.type, a.data["stored_hash"], b.data["stored_hash"]) == ("evidence.fork", "01" * 32, None)
    loss = loss_event(AGENT, "n1", 6, 9, "spool was replaced", at_unix_ns=NOW, position=4)
    assert loss.type == "coverage.lost"
    assert "Records 6 to 9" in loss.data["message"]
    silent = silent_event(AGENT, "n1", 9, NOW, NOW, at_unix_ns=NOW + 1, position=4)
    assert silent.type == "agent.silent"
    assert len({e.key for e in (a, b, loss, silent)}) == 4
    assert all(e.subject == f"agent/{AGENT.hex()}" for e in (a, b, loss, silent))


def test_cloudevent_has_what_the_specification_requires():
    event = raise_for(exactly(10**24))[0]
    row = {
        "id": event.id,
        "type": event.type,
        "subject": event.subject,
        "time_unix_ns": event.time_unix_ns,
        "since_position": 7,
        "position": 9,
        "data": event.data_json,
    }
    cloud = to_cloudevent(row)
    assert cloud["specversion"] == "1.0"
    assert (cloud["id"], cloud["type"], cloud["subject"]) == (event.id, "threshold.crossed", "r")
    assert cloud["source"]
    assert cloud["time"] == "2026-11-21T00:00:00.000Z"
    assert cloud["datacontenttype"] == "application/json"
    assert cloud["data"]["regime"] == "eu-gpai"
    assert all(k.isalnum() and k.islower() for k in cloud)


@pytest.mark.parametrize(("flop", "text"), [(10**25, "10^25"), (3 * 10**25, "3" + "0" * 25), (1, "10^0")])
def test_threshold_text(flop, text):
    assert threshold_text(flop) == text


def test_time_text_is_rfc3339_to_the_millisecond():
    assert time_text(NOW + 1_999_999) == "2026-11-21T00:00:00.001Z"
    assert time_text((1 << 63) - 1).startswith("2262-04-11T")


def test_a_threshold_event_says_how_well_its_figure_is_known():
    """The EU asks for the uncertainties beside the figure (reference/regulations.md section 4)."""
    wide = Figure(2 * 10**25, 4 * 10**25, 8 * 10**25)
    event = next(e for e in raise_for(wide) if e.data["regime"] == "eu-systemic-risk")
    assert event.data["accuracy"] == {
        "limit_percent": 30,
        "within": False,
        "below_percent": 50.0,
        "above_percent": 100.0,
        "best_estimate": {"flop": str(5 * 10**25), "percent": 60.0},
    }
    assert all(e.data["accuracy"]["within"] for e in raise_for(exactly(10**26)))
