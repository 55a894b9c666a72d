"""Until when: the longest term binds, what is not known has no end, and a parent is kept as long as its children."""

from dataclasses import replace
from datetime import date, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flopmeter.collector.law.regimes import every_shipped, shipped
from flopmeter.collector.law.retention_rules import RetentionRule
from flopmeter.collector.retention import until as module
from flopmeter.collector.retention.until import (
    STORE,
    Facts,
    Incident,
    Unresolved,
    after_years,
    first_day,
    kept_for,
    standing,
)
from flopmeter.collector.retention.words import Said, next_row, said_of

NOON = 12 * 3_600 * 10**9


def ns(day: str) -> int:
    """Noon UTC of a day."""
    return round(datetime.fromisoformat(f"{day}T00:00:00+00:00").timestamp()) * 10**9 + NOON


def said(*words: tuple[str, str, str], at: str = "2029-01-01") -> Said:
    rows = []
    for kind, run, value in words:
        last = rows[-1] if rows else None
        rows.append(next_row(last, 0, kind, run, value, who="ann", why="because", unix_ns=ns(at)))
    return said_of(rows)


#: One regime of force with each kind of rule, and one that is only proposed and would want a hundred years.
EU = next(r for r in shipped() if r.id == "eu-gpai")
LAW = (
    replace(EU, id="short", retention=(RetentionRule("texts", "texts", 5, "placed", "law 1"),)),
    replace(EU, id="audits", retention=(RetentionRule("audit", "audits", 5, "withdrawn", "law 2"),)),
    replace(EU, id="events", retention=(RetentionRule("incident", "incidents", 5, "incident", "law 3"),)),
    replace(
        EU, id="bill", status="proposed", retention=(RetentionRule("all", "all", 100, "placed", "no law"),)
    ),
)
LONG = replace(EU, id="long", retention=(RetentionRule("file", "the file", 15, "placed", "law 4"),))


def day(run: str, facts: Facts, words: Said, law=LAW) -> date | None:
    return first_day(kept_for(run, facts, words, law))


@pytest.mark.parametrize(
    ("begun", "years", "first"),
    [
        ("2027-03-01", 10, "2037-03-02"),  # the anniversary is the last day of the term
        ("2027-12-31", 5, "2033-01-01"),
        ("2028-02-29", 10, "2038-03-02"),  # no such anniversary: 1 March is the last day
        ("2028-02-29", 4, "2032-03-01"),
        ("2027-03-01", 0, "2027-03-02"),
    ],
)
def test_a_term_ends_with_its_anniversary(begun, years, first) -> None:
    assert after_years(date.fromisoformat(begun), years) == date.fromisoformat(first)


@given(st.dates(date(1970, 1, 1), date(2150, 1, 1)), st.integers(0, 100))
def test_a_term_is_never_shorter_than_its_years(begun, years) -> None:
    first = after_years(begun, years)
    assert (first - timedelta(days=1)).year - begun.year == years
    assert first > begun
    assert (first - begun).days >= 365 * years + 1


def test_ten_years_from_the_market_date_unless_a_law_says_longer() -> None:
    facts = Facts({"r": ns("2026-11-01")})
    placed = said(("placed", "r", "2027-03-01"))
    assert day("r", facts, placed) == date(2037, 3, 2)
    assert day("r", facts, placed, (*LAW, LONG)) == date(2042, 3, 2)


def test_no_setting_is_shorter_than_the_longest_duty() -> None:
    facts = Facts({"r": ns("2026-11-01")})
    words = said(("placed", "r", "2027-03-01"), ("years", "", "0"))
    assert day("r", facts, words, ()) == date(2027, 3, 2)
    assert day("r", facts, words) == date(2032, 3, 2)  # `short`
    assert day("r", facts, words, (*LAW, LONG)) == date(2042, 3, 2)
    assert day("r", facts, said(("placed", "r", "2027-03-01"), ("years", "", "30"))) == date(2057, 3, 2)


def test_a_market_date_that_nobody_said_is_never_over() -> None:
    reasons = kept_for("r", Facts({"r": ns("1990-01-01")}), said(), LAW)
    assert first_day(reasons) is None
    assert standing(reasons, date(2999, 1, 1))
    assert "nobody has said when" in reasons[0].so_far


def test_a_term_counts_from_the_last_usage_where_that_is_later() -> None:
    """What somebody says of the past cannot free what was measured since."""
    facts = Facts({"r": ns("2026-11-01")})
    assert day("r", facts, said(("placed", "r", "1999-01-01"))) == date(2036, 11, 3)  # 2 November in the east


def test_audit_material_is_kept_for_five_years_after_the_deployment_has_ended() -> None:
    facts = Facts({"r": ns("2026-11-01")}, near=frozenset({("audits", "r")}))
    placed = ("placed", "r", "2027-03-01")
    assert day("r", facts, said(placed)) is None  # deployed, for all that is known
    assert day("r", facts, said(placed, ("withdrawn", "r", "2028-06-30"))) == date(2037, 3, 2)
    late = said(placed, ("withdrawn", "r", "2028-06-30"), ("years", "", "1"))
    assert day("r", facts, late) == date(2033, 7, 1)
    away = Facts({"r": ns("2026-11-01")}, near=frozenset({("audits", "other")}))
    assert day("r", away, said(placed, ("years", "", "1"))) == date(
        2032, 3, 2
    )  # it never came near that line


def test_incidents_are_kept_from_their_day() -> None:
    facts = Facts(
        {}, incidents=(Incident("events", "", ns("2027-01-01")), Incident("events", "", ns("2027-05-01")))
    )
    assert day(STORE, facts, said()) == date(2032, 5, 3)


def test_an_incident_of_another_regime_is_not_its_where_it_has_a_clock_of_its_own() -> None:
    law = [r for r in every_shipped() if r.id == "us-ca-sb53"]
    law = [replace(law[0], retention=(RetentionRule("incident", "incidents", 5, "incident", "law 3"),))]
    facts = Facts({}, incidents=(Incident("us-ny-raise", "", ns("2027-01-01")),))
    assert kept_for(STORE, facts, said(), law) == ()


def test_the_eu_wants_an_incident_kept_that_can_be_opened_under_other_laws_only() -> None:
    """Its own days for reporting one are in no text that was read: nobody opens a deadline for it."""
    facts = Facts({"r": 0}, incidents=(Incident("us-ca-sb53", "r", ns("2034-01-01")),))
    words = said(("placed", "r", "2027-01-01"))
    (kept,) = [
        r for r in kept_for("r", facts, words, every_shipped()) if r.name.endswith("/incident-records")
    ]
    assert (kept.name, kept.first_day) == ("eu-systemic-risk/incident-records", date(2039, 1, 3))


def test_a_hold_wins_over_every_term_until_it_is_released() -> None:
    facts = Facts({"r": ns("1990-01-01"), "s": ns("1990-01-01")})
    both = (("placed", "r", "1990-01-01"), ("placed", "s", "1990-01-01"))
    assert day(STORE, facts, said(*both)) == date(2000, 1, 3)
    on_r = said(*both, ("hold", "r", ""))
    assert day("r", facts, on_r) is day(STORE, facts, on_r) is None
    assert day("s", facts, on_r) == date(2000, 1, 3)
    everything = said(*both, ("hold", "", ""))
    assert day("r", facts, everything) is day("s", facts, everything) is day(STORE, facts, everything) is None
    assert day(STORE, facts, said(*both, ("hold", "", ""), ("release", "", "3"))) == date(2000, 1, 3)


def test_a_hold_over_a_run_that_is_no_more_holds_the_store() -> None:
    words = said(("hold", "gone", ""))
    assert day(STORE, Facts({}), words) is None


def test_a_deadline_that_nobody_resolved_keeps_the_store() -> None:
    placed = said(("placed", "r", "1990-01-01"))
    for run in ("r", "gone", ""):
        facts = Facts({"r": ns("1990-01-01")}, unresolved=(Unresolved(7, run, "notify"),))
        reasons = kept_for(STORE, facts, placed, LAW)
        assert first_day(reasons) is None
        assert [r.name for r in reasons if r.first_day is None] == ["deadline 7"]


def test_a_run_is_kept_as_long_as_what_stands_on_it() -> None:
    facts = Facts(
        {"base": ns("2010-01-01"), "mid": ns("2011-01-01"), "tune": ns("2026-01-01")},
        children={"base": {"mid"}, "mid": {"tune", "base"}},  # a circle ends, whoever made one
    )
    words = said(
        ("placed", "base", "2010-06-01"), ("placed", "mid", "2011-06-01"), ("placed", "tune", "2026-06-01")
    )
    assert [day(r, facts, words) for r in ("tune", "mid", "base")] == [date(2036, 6, 2)] * 3
    assert kept_for("base", facts, words, LAW)[0].run == "tune"
    assert day("base", facts, said(("placed", "base", "2010-06-01"))) is None


def test_what_stands_on_a_run_and_is_not_here_keeps_the_store_too() -> None:
    facts = Facts({"base": ns("1990-01-01")}, children={"base": {"elsewhere"}})
    words = said(("placed", "base", "1990-01-01"))
    assert day("base", facts, words) is day(STORE, facts, words) is None


def test_a_hold_over_one_run_is_not_another_runs() -> None:
    words = said(("placed", "r", "1990-01-01"), ("hold", "gone", ""))
    assert day("r", Facts({"r": ns("1990-01-01")}), words) == date(2000, 1, 3)


def test_the_store_is_kept_for_the_sites_term_from_its_last_record() -> None:
    """Also what has no owner: nobody knows of which model it will turn out to be."""
    facts = Facts({}, last_record_unix_ns=ns("2026-11-01"))
    assert day(STORE, facts, said()) == date(2036, 11, 3)
    assert day(STORE, facts, said(("years", "", "20"))) == date(2046, 11, 3)
    assert kept_for(STORE, Facts({}), said(), LAW) == ()


@given(
    st.sets(st.sampled_from("abcd")),
    st.lists(
        st.sampled_from(
            [("placed", r, "2001-01-01") for r in "abcd"]
            + [("dropped", r, "2002-01-01") for r in "abcd"]
            + [("hold", r, "") for r in "abcd"]
            + [("years", "", "40")]
        ),
        max_size=8,
    ),
    st.dictionaries(st.sampled_from("abcd"), st.sets(st.sampled_from("abcd"))),
)
def test_the_store_is_never_free_before_any_of_its_runs(runs, words, children) -> None:
    facts = Facts(dict.fromkeys(runs, ns("2000-01-01")), children=children)
    whole = day(STORE, facts, said(*words))
    for run in runs:
        one = day(run, facts, said(*words))
        assert whole is None or (one is not None and one <= whole)


def test_what_every_run_must_be_kept_for_costs_no_look_at_all_runs(monkeypatch) -> None:
    """With a thousand unresolved deadlines each run's page asked a thousand times after all runs."""
    asked = []
    every = module._every
    monkeypatch.setattr(module, "_every", lambda facts: asked.append(1) or every(facts))
    facts = Facts(
        {f"r{i}": ns("2026-01-01") for i in range(100)},
        unresolved=tuple(Unresolved(i, f"r{i}", "notify") for i in range(100)),
    )
    kept_for("r1", facts, said(), LAW)
    kept_for(STORE, facts, said(), LAW)
    assert len(asked) < 10
