"""Which runs have series, and what is shown when nobody answers: bounded, never standing still, never silent."""

import asyncio
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from run_items import THRESHOLD, figure, fleet, item, items, lines, overview

from flopmeter.collector.api.question import Answer
from flopmeter.collector.api.run_metrics import KEEP_S, MAX_RUNS, choose, run_metrics, verdict_of
from flopmeter.collector.law.regimes import shipped
from flopmeter.collector.law.rules import verdict
from flopmeter.collector.metrics_books import ASK_EVERY_S, QUESTION, STALE_S, WANTED_S, BooksMetrics
from flopmeter.contract.flop import Figure

NOW = 1_795_000_000.0  # 2026-11-18


def seen(ago_s):
    from datetime import UTC, datetime

    return datetime.fromtimestamp(NOW - ago_s, UTC).isoformat().replace("+00:00", "Z")


def names(chosen):
    return {i["run"] for i in chosen}


# ---- which runs ------------------------------------------------------------------------------------------


def test_the_largest_and_the_most_recent_have_series():
    old_and_large = [item(f"large-{n}", point=10**24, last_seen=seen(86_400)) for n in range(3)]
    new_and_small = [item(f"new-{n}", point=1, last_seen=seen(n)) for n in range(3)]
    others = [item(f"other-{n}", point=10, last_seen=seen(3_600)) for n in range(50)]
    assert names(choose([*others, *new_and_small, *old_and_large], NOW, 6)) == {
        *(f"large-{n}" for n in range(3)),
        *(f"new-{n}" for n in range(3)),
    }


def test_a_run_that_rests_leaves_unless_something_about_it_is_open():
    quiet = {"critical": 0, "warning": 0, "notice": 0, "info": 0}
    alert = {**quiet, "notice": 1}
    found = choose(
        [
            item("rests", last_seen=seen(KEEP_S + 1), open_events=quiet),
            item("rests, open", last_seen=seen(KEEP_S + 1), open_events=alert),
            item("went just now", last_seen=seen(KEEP_S - 1), open_events=quiet),
        ],
        NOW,
        100,
    )
    assert names(found) == {"rests, open", "went just now"}


@given(
    st.lists(st.tuples(st.integers(0, 10**26), st.integers(0, 2 * KEEP_S)), max_size=40),
    st.integers(1, 12),
)
@settings(max_examples=60, deadline=None)
def test_never_more_than_allowed_and_the_rest_is_in_the_sum(runs, most):
    all_of_them = [item(f"r{n}", point=p, last_seen=seen(ago)) for n, (p, ago) in enumerate(runs)]
    said = run_metrics([], all_of_them, overview(len(runs)), fleet(), now_unix_s=NOW, most=most)["samples"]
    shown = {row[0] for row in said.get("flopmeter_run_info", [])}
    assert len(shown) <= most
    assert said["flopmeter_runs_left_out"] == [[len(runs) - len(shown)]]
    for bound in ("lower", "point", "upper"):
        own = sum(v for run, b, v in said.get("flopmeter_run_executed_flop", []) if b == bound)
        left = next(v for b, v in said["flopmeter_runs_left_out_executed_flop"] if b == bound)
        assert own + left == sum(int(i["executed"][bound]) for i in all_of_them)


def test_a_run_whose_line_cannot_be_made_takes_no_other_down():
    faulty = {**dict.fromkeys(item("x")), "run": "broken", "fault": "says why"}
    said = run_metrics(lines(1), [faulty, *items(2)], overview(3), None, now_unix_s=NOW)["samples"]
    assert len(said["flopmeter_run_info"]) == 2
    assert said["flopmeter_runs_left_out"] == [[1]]  # counted, though nobody knows how large it is
    assert not [n for n in said if n.startswith("flopmeter_fleet")]  # and so its totals are absent, not zero


@pytest.mark.parametrize("regime", [r for r in shipped() if r.has_line], ids=lambda r: r.id)
def test_the_verdict_is_that_of_the_law(regime):
    line = {"threshold_flop": str(regime.threshold_flop), "comparison": regime.comparison}
    for lower in (-1, 0, 1):
        for upper in (-1, 0, 1):
            if lower <= upper:
                t = regime.threshold_flop
                f = Figure(t + lower, t + lower, t + upper)
                said = {"lower": str(f.lower), "upper": str(f.upper)}
                assert verdict_of(said, line) == verdict(f, regime)


def test_a_crossing_is_dated_while_the_line_is_crossed_and_where_it_was_recorded():
    at = {("certain", "law-0"): 1_794_000_000_500_000_000, ("maybe", "law-0"): 1}
    every = [
        item("certain", countable={"law-0": figure(THRESHOLD * 4)}),
        item("not recorded yet", countable={"law-0": figure(THRESHOLD * 4)}),
        item(
            "maybe", countable={"law-0": figure(THRESHOLD)}
        ),  # by a person's entry it is not certain any more
    ]
    said = run_metrics(lines(1), every, overview(3), None, crossed=at, now_unix_s=NOW)["samples"]
    assert said["flopmeter_run_crossed_timestamp_seconds"] == [["certain", "law-0", 1_794_000_000.5]]


def test_a_third_of_somebody_elses_total_is_a_line_too():
    of = {**lines(1)[0], "threshold_flop": "10/3", "comparison": ">"}
    said = run_metrics(
        [of], [item("r", countable={"law-0": figure(3, 1)})], overview(1), None, now_unix_s=NOW
    )
    assert said["samples"]["flopmeter_run_threshold_flop"] == [["r", "law-0", pytest.approx(10 / 3)]]
    assert said["samples"]["flopmeter_run_verdict_info"] == [["r", "law-0", "below", 1]]


def test_what_is_not_forecast_or_not_measured_is_absent():
    said = run_metrics(
        [], [item("r", forecast=None)], {**overview(1), "next_deadline": None}, None, now_unix_s=NOW
    )
    assert not [n for n in said["samples"] if "forecast" in n or "energy" in n or "next_deadline" in n]
    nothing = {"regime": None, "answer": "not-in-sight", "crosses": None}
    said = run_metrics([], [item("r", forecast=nothing)], overview(1), None, now_unix_s=NOW)
    assert not [n for n in said["samples"] if "forecast" in n]
    edge = {"earliest": None, "point": None, "latest": None}
    young = {"regime": "law-0", "answer": "too-young", "crosses": edge}
    said = run_metrics([], [item("r", forecast=young)], overview(1), None, now_unix_s=NOW)
    assert said["samples"]["flopmeter_run_forecast_info"] == [["r", "law-0", "too-young", 1]]
    assert "flopmeter_run_forecast_crossing_timestamp_seconds" not in said["samples"]


# ---- the side that shows it ------------------------------------------------------------------------------


class Clock:
    def __init__(self):
        self.s = 1000.0

    def __call__(self):
        return self.s


def good(runs=1):
    said = run_metrics(lines(1), items(runs), overview(runs), fleet(), now_unix_s=NOW)
    return Answer(200, "application/json", json.dumps(said).encode())


def shown(books):
    return {s.name: s.value for f in books.families() for s in f.samples}


def test_figures_that_nobody_renews_leave_instead_of_standing_still():
    clock = Clock()
    books = BooksMetrics(clock)
    books.take(good())
    clock.s += STALE_S - 1
    assert "flopmeter_run_info" in shown(books)
    clock.s += 1
    left = shown(books)
    assert set(left) == {
        "flopmeter_collector_books_answer_timestamp_seconds",
        "flopmeter_collector_books_failures_total",
    }
    assert left["flopmeter_collector_books_answer_timestamp_seconds"] == NOW  # since when is still said


@pytest.mark.parametrize(
    "answer",
    [
        Answer(503, "application/problem+json", b"{}"),
        Answer(200, "application/json", b"no json"),
        Answer(200, "application/json", b"[]"),
        Answer(200, "application/json", b'{"as_of": 1, "samples": {"flopmeter_unknown": []}}'),
        Answer(200, "application/json", b'{"as_of": 1, "samples": {"flopmeter_fleet_gpus": [[null]]}}'),
        Answer(200, "application/json", b'{"as_of": 1, "samples": {"flopmeter_fleet_gpus": [["x"]]}}'),
        Answer(
            200,
            "application/json",
            b'{"as_of": 1, "samples": {"flopmeter_fleet_gpus": [[1%s]]}}' % (b"0" * 400),
        ),
        Answer(
            200, "application/json", b'{"as_of": 1, "samples": {"flopmeter_runs_left_out": [["a", "b", 1]]}}'
        ),
        Answer(200, "application/json", b'{"as_of": "then", "samples": {}}'),
    ],
)
def test_what_is_no_answer_is_a_failure_and_the_last_one_stays(answer):
    books = BooksMetrics(Clock())
    books.take(good())
    with pytest.raises(ValueError, match=r".+"):
        books.take(answer)
    assert "flopmeter_run_info" in shown(books)


def followed(books, clock, answers, steps):
    """Run `follow` for so many waits; what it asked, and how long it waited each time."""
    asked, waits = [], []

    async def ask(question):
        asked.append(question)
        said = answers[min(len(asked), len(answers)) - 1]
        if isinstance(said, Exception):
            raise said
        return said

    async def sleep(seconds):
        waits.append(seconds)
        clock.s += seconds
        if len(waits) == steps:
            raise asyncio.CancelledError

    with pytest.raises(asyncio.CancelledError):
        asyncio.run(books.follow(ask, sleep))
    return asked, waits


def test_nobody_is_asked_while_nobody_scrapes():
    clock = Clock()
    books = BooksMetrics(clock)
    asked, waits = followed(books, clock, [good()], 10)
    assert not asked
    shown(books)
    asked, waits = followed(books, clock, [good()], 60)
    assert asked == [QUESTION] * len(asked)
    assert waits.count(ASK_EVERY_S) == len(asked) == WANTED_S // ASK_EVERY_S
    assert set(waits) == {ASK_EVERY_S, 1.0}


def test_who_sends_by_otlp_asks_whether_or_not_somebody_scrapes():
    clock = Clock()
    asked, waits = followed(BooksMetrics(clock, always=True), clock, [good()], 5)
    assert len(asked) == 5
    assert set(waits) == {ASK_EVERY_S}


def test_a_process_that_does_not_answer_is_counted_and_said_once(caplog):
    clock = Clock()
    books = BooksMetrics(clock)
    shown(books)
    followed(books, clock, [OSError("gone"), OSError("gone"), good(), OSError("gone")], 4)
    assert shown(books)["flopmeter_collector_books_failures_total"] == 3
    assert len([m for m in caplog.messages if "gone" in m]) == 2  # again after it had answered
    assert "flopmeter_run_info" in shown(books)


def test_names_of_runs_cannot_break_the_page():
    from prometheus_client import CollectorRegistry
    from prometheus_client.exposition import generate_latest
    from prometheus_client.parser import text_string_to_metric_families

    evil = [
        'a"} 1\nflopmeter_run_info{run="b',
        "\u202e\x00\x1b[31m",
        "<script>",
        "\\",
        "x" * 10_000,
        "\ud7ff\u2028",
    ]
    books = BooksMetrics(Clock())
    said = run_metrics(lines(1), [item(name) for name in evil], overview(1), None, now_unix_s=NOW)
    books.take(Answer(200, "", json.dumps(said).encode()))

    class Page:
        def collect(self):
            return books.families()

    registry = CollectorRegistry()
    registry.register(Page())
    text = generate_latest(registry).decode()
    read = {
        s.labels["run"]
        for f in text_string_to_metric_families(text)
        for s in f.samples
        if s.name == "flopmeter_run_info"
    }
    assert read == set(evil)


def test_as_many_runs_as_there_may_be_are_bounded_in_bytes():
    said = run_metrics(lines(9), items(10_000, 9), overview(10_000), fleet(), now_unix_s=NOW)
    assert len(said["samples"]["flopmeter_run_info"]) == MAX_RUNS
    assert len(json.dumps(said)) < 1_000_000
