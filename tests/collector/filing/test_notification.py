"""The EU notification over a ledger checked by hand: figures, margins, what was left out and on whose word."""

import pytest
from filing_ledger import MINUTE_FLOP, POINT, RUN, fill, gathered, regime

from flopmeter.collector.filing.compute import margin_fields, moved_by_rounding, summary
from flopmeter.collector.filing.kinds import KINDS, make
from flopmeter.collector.law.regimes import shipped
from flopmeter.collector.paper.blocks import GIVEN, TO_FILL, UNKNOWN, every_field
from flopmeter.collector.registry.entries import Declare, External, JobKey, Link, Purpose, Relation, Tag
from flopmeter.collector.registry.say import say
from flopmeter.contract.flop import Figure
from flopmeter.contract.usage import WorkloadKind
from flopmeter.contract.w_table import current

JOB = JobKey("c1", int(WorkloadKind.SLURM), "4711")
LINE = regime(str(10**25))


@pytest.fixture
def path(tmp_path):
    return fill(tmp_path / "books.sqlite")


def notification(path, line=LINE):
    return make(KINDS["eu-notification"], gathered(path, (line,)))


def fields(document):
    return {f["name"]: f for f in every_field(document)}


def tables(document):
    return {t["name"]: t["rows"] for s in document["sections"] for t in s["tables"]}


def test_requirement_19_two_significant_figures_beside_the_unrounded_comparison(path):
    document = notification(path)
    found = fields(document)
    assert POINT == 1_985_347_584_000_000_000, "by hand: 90 minutes of 22,059,417,600,000,000"
    assert found["compute.flop"]["value"] == "2.0×10^18 FLOP"
    assert found["compute.point"]["value"] == str(POINT)
    lower, upper = int(found["compute.lower"]["value"]), int(found["compute.upper"]["value"])
    assert lower < POINT < upper
    assert found["compute.comparison"]["value"] == (
        f"lower bound {lower} > 10^25: no; estimate {POINT} > 10^25: no; upper bound {upper} > 10^25: no"
    )
    assert found["compute.rounding"]["value"].startswith("nothing:")
    assert document["figures"]["point"] == str(POINT)
    assert document["figures"]["rounding_moves_it_across"] is False


@pytest.mark.parametrize("line", [1_985 * 10**15, 199 * 10**16])
def test_requirement_19_rounding_never_moves_a_value_across_a_line_unseen(path, line):
    """2.0 x 10^18 is past 1.99 x 10^18, and what was computed is not; of 1.985 x 10^18 both are."""
    document = notification(path, regime(str(line)))
    said = fields(document)["compute.rounding"]["value"]
    moves = line > POINT
    assert said.startswith("ROUNDING MOVES THE ESTIMATE ACROSS THE THRESHOLD") is moves
    assert document["figures"]["rounding_moves_it_across"] is moves
    if moves:
        assert (
            f"the unrounded estimate {POINT} does not meet > {line}, the rounded 2.0×10^18 meets it" in said
        )
        assert (
            "estimate 1985347584000000000 > 1990000000000000000: no"
            in fields(document)["compute.comparison"]["value"]
        )


def test_requirement_19_one_operation_past_the_line_is_past_it_though_it_is_rounded_down():
    past = Figure(10**25 + 1, 10**25 + 1, 10**25 + 1)
    assert moved_by_rounding(past, LINE)
    assert not moved_by_rounding(Figure(10**25, 10**25, 10**25), LINE)
    found = summary(past, LINE)
    assert (found["two_significant_figures"], found["verdict"]) == ("1.0×10^25", "crossed")


def test_requirement_12_what_is_not_within_the_margin_says_so_and_is_never_as_if():
    """30 % either way is in; one operation more is out."""
    e = 10**20
    inside = {f["name"]: f for f in margin_fields(Figure(e * 7 // 10, e, e * 13 // 10))}
    assert inside["margin.within"]["value"] == "within margin"
    outside = {f["name"]: f for f in margin_fields(Figure(e * 7 // 10, e, e * 13 // 10 + 1))}
    assert outside["margin.within"]["value"] == (
        "not within margin: this figure must not be signed or filed as one that is"
    )
    assert outside["margin.above_percent"]["value"] == "30.1 %", "rounded up: never shown better than it is"
    assert "C(2025) 5045, Annex A.2" in outside["margin.within"]["note"]


def test_requirement_12_the_ledgers_own_interval_is_not_within_and_the_draft_says_why(path):
    document = notification(path)
    assert "not within margin" in fields(document)["margin.within"]["value"]
    assert "answers for it" in fields(document)["margin.if_declared"]["note"]
    assert "dtype" in {row[0] for row in tables(document)["uncertainties.width"]}
    assert document["figures"]["within_margin"] is False


def test_without_an_estimate_there_is_no_nought(path):
    """Percentages alone give an upper bound; a rounded 0 FLOP would be a claim."""
    from flopmeter.collector.filing.compute import figure_fields

    (flop, *_) = figure_fields(Figure(0, 0, 10**24), LINE)
    assert (flop["state"], flop["value"]) == (UNKNOWN, None)
    assert margin_fields(Figure(0, 0, 10**24))[0]["state"] == UNKNOWN


def test_gaps_are_priced_and_named(path):
    document = notification(path)
    assert tables(document)["gaps.reasons"] == [["read-failed", "0.02"]]
    classes = {row[0]: row for row in tables(document)["evidence.classes"]}
    assert classes["A1"][1:] == ["98.9 %", "1.50", str(POINT)], "90 of 91 device-minutes"
    assert classes["gap"][1:] == ["1.1 %", "0.02", "0"]


def test_versions_say_which_texts_tables_and_programs_made_it(path):
    document = notification(path)
    found = fields(document)
    line = LINE
    assert found["regime.eu-systemic-risk"]["value"] == "test-1"
    assert line.digest in found["regime.eu-systemic-risk"]["note"]
    assert "eu-broad" in found["profile.eu-broad"]["label"]
    assert found["w_table"]["value"] == current().id
    assert current().digest in found["w_table"]["note"]
    assert found["agents"]["value"] == "0.1.0 (1)"
    assert found["books"]["value"].startswith("60 records, the last with SHA-256 ")
    assert found["collector"]["state"] == GIVEN


def test_what_was_left_out_stands_with_who_when_why_and_evidence(path):
    now = gathered(path, (LINE,)).now_unix_ns
    tag = Tag(RUN, Purpose.EVALUATION, job=JOB, evidence=("ticket 88", "log sha256:1234"))
    say(path, lambda _: tag, "ada@lab", "held-out tests | of the week", lambda: now)
    document = notification(path)
    (row,) = tables(document)["exclusions.left_out"]
    assert row[:3] == [RUN, "evaluation", str(POINT)]
    assert row[5].startswith("entry 1, ada@lab, 2026-")
    assert row[5].endswith(": held-out tests | of the week")
    assert row[6] == "ticket 88; log sha256:1234"
    assert fields(document)["compute.point"]["value"] == "0"
    assert fields(document)["compute.flop"]["value"] == "0 FLOP", (
        "all of it is left out: nought, and known to be"
    )
    assert fields(document)["compute.upper"]["value"] == "0"


def test_lineage_is_counted_and_shown(path):
    now = gathered(path, (LINE,)).now_unix_ns
    outside = Figure(2 * 10**18, 2 * 10**18, 2 * 10**18)
    for statement in (External("base-9", outside, "its card"), Link(RUN, Relation.CONTINUES, "base-9")):
        say(path, lambda _, s=statement: s, "ada@lab", "so it is", lambda: now)
    document = notification(path)
    assert tables(document)["lineage.parents"] == [
        ["continues", "base-9", "2000000000000000000 FLOP, by its card"]
    ]
    assert tables(document)["lineage.counted"] == [["base-9", "continues base-9", str(2 * 10**18)]]
    assert fields(document)["compute.point"]["value"] == str(POINT + 2 * 10**18)
    assert fields(document)["compute.flop"]["value"] == "4.0×10^18 FLOP"


def test_events_of_the_regime_and_the_plan_start_the_clock(tmp_path):
    """The line is at half of what is done: the crossing is in the books."""
    line = regime(str(30 * MINUTE_FLOP * 7 // 10))
    path = fill(tmp_path / "books.sqlite", regimes=(line,))
    now = gathered(path, (line,)).now_unix_ns
    say(path, lambda _: Declare(RUN, budget_flop=4 * 10**18), "ada@lab", "plan", lambda: now)
    document = notification(path, line)
    rows = tables(document)["trigger.events"]
    assert [row[1] for row in rows][-1] in ("threshold.crossed", "threshold.undetermined")
    assert all(RUN in row[3] for row in rows)
    assert fields(document)["plan.budget_flop"]["value"] == str(4 * 10**18)
    assert fields(document)["trigger.known_at"]["state"] == TO_FILL


def test_a_plan_starts_the_clock_and_its_deadline_stands_in_the_draft(tmp_path):
    """A line just above what is done, and a plan past it: known that it will be met, and due two weeks later."""
    line = regime(
        str(3 * POINT),
        deadlines='[{ id = "two-weeks", trigger = "known", what = "notify", recipient = "an office", '
        'after_days = 14, timezone = "UTC", source = "Art. 1" }]',
    )
    path = fill(tmp_path / "books.sqlite", regimes=(line,), budget=5 * POINT)
    document = notification(path, line)
    found = fields(document)
    (event,) = [row for row in tables(document)["trigger.events"] if row[1] == "threshold.forecast"]
    assert "plan" in event[3]
    (row,) = tables(document)["trigger.deadlines"]
    assert row[:2] == ["notify", "an office"]
    assert row[4] == "open"
    assert found["plan.budget_flop"]["value"] == str(5 * POINT)
    assert "9.9×10^18 FLOP" in found["plan.budget_flop"]["note"]
    assert "forecast.answer" not in found, "an hour is too young for a forecast to be kept"


def test_when_a_line_would_be_met_is_said_with_its_interval(path):
    import dataclasses

    m = gathered(path, (LINE,))
    crosses = {"earliest": "1800000000000000000", "point": "1800003600000000000", "latest": None}
    forecast = {
        "unix_ns": "1795000000000000000",
        "until": "1799000000000000000",
        "confidence_percent": 90,
        "lines": [{"regime": LINE.id, "answer": "may-be-met", "crosses": crosses}],
    }
    document = make(KINDS["eu-notification"], dataclasses.replace(m, forecast=forecast))
    assert fields(document)["forecast.answer"]["value"] == "may be met"
    assert fields(document)["forecast.crosses"]["value"] == (
        "at the earliest 2027-01-15T08:00:00.000Z, as estimated 2027-01-15T09:00:00.000Z"
    )


def test_a_run_that_is_only_declared_has_a_draft_from_its_plan(path):
    now = gathered(path, (LINE,)).now_unix_ns
    say(path, lambda _: Declare("next", budget_flop=3 * 10**25), "ada@lab", "plan", lambda: now)
    document = make(KINDS["eu-notification"], gathered(path, (LINE,), "next"))
    found = fields(document)
    assert found["compute.flop"]["state"] == UNKNOWN
    assert found["plan.budget_flop"]["value"] == str(3 * 10**25)
    assert "figures" not in document


def test_requirement_28_every_kind_names_profile_version_open_questions_and_what_compute_is_not(path):
    m = gathered(path, shipped())
    for kind in KINDS.values():
        document = make(kind, m)
        assert document["note"] == "Compute is a trigger for scrutiny, not a measure of risk."
        assert document["status"] == "DRAFT"
        assert document["banner"].startswith("DRAFT.")
        (last,) = [s for s in document["sections"] if s["name"] == "open"]
        for r in m.regimes:
            if r.id in last["fields"][0]["value"]:
                assert f"profile {r.counting}, version" in last["fields"][0]["value"]
                assert all(any(q in point for point in last["points"]) for q in r.open_questions)
        assert "rolled-back" in " ".join(last["points"])


def test_what_a_person_must_fill_in_is_listed(path):
    document = notification(path)
    assert {"filer.name", "filer.signature", "filer.model"} <= set(document["to_fill"])
    assert "condition.eu-systemic-risk.1" in document["to_fill"]


MODIFIER = regime(
    str(3 * 10**18),
    regime_id="eu-modifier-unknown",
    scope='"modification"',
    original='"unknown"',
    share="{ numerator = 1, denominator = 3 }",
)
KNOWN = regime(
    "1",
    regime_id="eu-modifier",
    threshold_flop="",
    scope='"modification"',
    original='"known"',
    share="{ numerator = 1, denominator = 3 }",
)


def modified(path, *, flop=None):
    now = gathered(path, (LINE,)).now_unix_ns
    unknown, outside = Declare("base-9", owner="another"), Figure(flop or 0, flop or 0, flop or 0)
    original = unknown if flop is None else External("base-9", outside, "its card")
    statements = [original, Link(RUN, Relation.FINE_TUNES, "base-9")]
    for statement in statements:
        say(path, lambda _, s=statement: s, "ada@lab", "so it is", lambda: now)
    m = gathered(path, (LINE, MODIFIER, KNOWN))
    law = KNOWN if flop is not None else MODIFIER
    return fields(make(KINDS["eu-notification"], m, regime_id=law.id))


@pytest.mark.parametrize(
    ("flop", "met"),
    [
        (3 * POINT + 3, False),
        (3 * POINT, False),
        (3 * POINT - 1, True),
    ],  # a third of it is not less than POINT, or is
)
def test_a_modification_is_held_against_an_exact_third_of_the_original(tmp_path, flop, met):
    found = modified(fill(tmp_path / "books.sqlite"), flop=flop)
    assert found["threshold"]["value"] == "> 1/3 of the original's compute"
    assert found["modification.1.original"]["value"] == "base-9"
    assert found["modification.1.original_flop"]["value"] == str(flop)
    assert found["modification.1.flop"]["value"] == "2.0×10^18 FLOP"
    assert found["modification.1.point"]["value"] == str(POINT), "without what it modifies"
    assert f"estimate {POINT} > " in found["modification.1.comparison"]["value"]
    (said,) = [p for p in found["modification.1.comparison"]["value"].split("; ") if p.startswith("estimate")]
    assert said.endswith("yes" if met else "no")
    assert "not within margin" in found["modification.1.margin.within"]["value"]


def test_of_an_unknown_original_the_texts_fallback_is_the_line_and_rounding_is_told(tmp_path):
    """A third of 3 x 10^18 is 10^18, which both are past; of 5.97 x 10^18 it is 1.99 x 10^18, which 2.0 alone is past."""
    found = modified(fill(tmp_path / "books.sqlite"))
    assert found["modification.1.original_flop"]["state"] == UNKNOWN
    assert found["modification.1.rounding"]["value"].startswith("nothing:")
    exact = modified(fill(tmp_path / "more.sqlite"), flop=597 * 10**16)
    assert exact["modification.1.rounding"]["value"].startswith("ROUNDING MOVES THE ESTIMATE ACROSS THE LINE")


def test_who_modifies_nothing_has_no_figure_of_it(path):
    found = fields(make(KINDS["eu-notification"], gathered(path, (LINE, KNOWN)), regime_id="eu-modifier"))
    assert found["modification.flop"]["state"] == UNKNOWN
