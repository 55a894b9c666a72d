"""The regimes that are shipped: what the reference has, to the letter, and what binds of it."""

import re
from dataclasses import fields, replace
from datetime import UTC, date, datetime
from fractions import Fraction
from pathlib import Path

from flopmeter.collector.law.regimes import (
    MODIFICATION,
    SCOPES,
    Regime,
    due_after_ns,
    every_shipped,
    parse,
    shipped,
)
from flopmeter.collector.law.rules import (
    in_force,
)


def test_the_shipped_regimes_are_those_of_the_reference_to_the_letter():
    assert {(r.id, r.threshold_flop, r.comparison, r.status, r.effective) for r in shipped()} == {
        ("eu-gpai", 10**23, ">", "in-force", date(2025, 8, 2)),
        ("eu-systemic-risk", 10**25, ">", "in-force", date(2025, 8, 2)),
        ("korea", 10**26, ">=", "in-force", date(2026, 1, 22)),
        ("us-ca-sb53", 10**26, ">", "in-force", date(2026, 1, 1)),
        ("us-ct-sb5", 10**26, ">", "in-force", date(2026, 10, 1)),
        ("us-ny-raise", 10**26, ">", "enacted", date(2027, 1, 1)),
        ("us-il-aisma", 10**26, ">", "enacted", date(2027, 1, 1)),
    }
    for r in shipped():
        assert r.open_questions
        assert re.fullmatch(r"[0-9a-f]{64}", r.digest)


def test_each_regime_counts_by_the_profile_of_its_text_and_says_that_the_untagged_counts():
    assert {r.id: r.counting for r in (*shipped(), *shipped(MODIFICATION))} == {
        "eu-gpai": "eu-narrow",
        "eu-systemic-risk": "eu-broad",
        "korea": "korea",
        "us-ca-sb53": "us-state",
        "us-ct-sb5": "us-state",
        "us-ny-raise": "us-state",
        "us-il-aisma": "us-state",
        "eu-modifier": "eu-broad",
        "eu-modifier-unknown": "eu-broad",
        "eu-modifier-unknown-systemic-risk": "eu-broad",
    }
    for r in shipped():
        assert ("what the text is silent on counts" in " ".join(r.counting_note.split())) is r.id.startswith(
            "us-"
        )
        assert ("What nobody tagged counts" in r.counting_note) is not r.id.startswith("us-")


def test_the_modifier_regimes_are_a_third_of_the_original_and_its_two_fallbacks():
    assert {(r.id, r.original, r.threshold_flop, r.share, r.comparison) for r in shipped(MODIFICATION)} == {
        ("eu-modifier", "known", 0, Fraction(1, 3), ">"),
        ("eu-modifier-unknown", "unknown", 10**23, Fraction(1, 3), ">"),
        ("eu-modifier-unknown-systemic-risk", "unknown-systemic-risk", 10**25, Fraction(1, 3), ">"),
    }
    assert not {r.id for r in shipped()} & {r.id for r in shipped(MODIFICATION)}


def test_us_state_regimes_say_coverage_and_claim_no_duty_to_report_compute():
    states = [r for r in shipped() if r.id.startswith("us-")]
    assert len(states) == 4
    for r in states:
        assert r.act == "coverage"
        assert r.unit == "integer-or-floating-point"
        assert "for no report of the compute figure" in r.when_met
        assert not {d.trigger for d in r.deadlines} & {"known", "met"}
        assert r.recipient.startswith("none for the compute figure")


def test_the_eu_regimes_say_that_a_modifier_may_not_be_the_provider():
    """Their total is the model's: with a base of 10^25 a small fine-tune is past the line at once."""
    for r in shipped():
        assert any("eu-modifier says who" in c for c in r.conditions) is r.id.startswith("eu-")


def test_only_the_eu_deadline_is_two_weeks():
    two_weeks = 14 * 86_400 * 10**9
    assert {r.id: due_after_ns(r) for r in shipped() if due_after_ns(r)} == {"eu-systemic-risk": two_weeks}


def test_requirement_11_deadlines_are_data():
    """regulations.md 13.11 and the tables of sections 2 and 6, to the letter."""
    rules = {(r.id, d.id): d for scope in SCOPES for r in shipped(scope) for d in r.deadlines}
    given = {
        key: (d.trigger, d.after_hours, d.after_days) for key, d in rules.items() if d.trigger != "calendar"
    }
    assert given == {
        ("eu-systemic-risk", "notify"): ("known", None, 14),
        ("eu-modifier", "notify"): ("known", None, 14),
        ("eu-modifier-unknown-systemic-risk", "notify"): ("known", None, 14),
        ("us-ca-sb53", "incident"): ("incident", None, 15),
        ("us-ca-sb53", "imminent-incident"): ("incident", 24, None),
        ("us-ny-raise", "incident"): ("incident", 72, None),
        ("us-ny-raise", "imminent-incident"): ("incident", 24, None),
        ("us-il-aisma", "incident"): ("incident", 72, None),
        ("us-il-aisma", "imminent-incident"): ("incident", 24, None),
        ("us-il-aisma", "first-audit"): ("first-covered", None, 90),
    }
    assert {rules[r, "risk-summary"].calendar for r in ("us-ca-sb53", "us-ny-raise")} == {
        ((3, 31), (6, 30), (9, 30), (12, 31))
    }


def test_shipped_order_is_by_threshold_and_a_regime_is_a_value():
    assert [r.id for r in shipped()][:2] == ["eu-gpai", "eu-systemic-risk"]
    assert replace(shipped()[0]) == shipped()[0]


def test_the_page_on_regimes_describes_these_files():
    """docs/regimes.md: its example parses, its table names each shipped regime, and every key."""
    page = (Path(__file__).parents[3] / "docs/regimes.md").read_text()
    example = page.split("```toml\n")[1].split("```")[0]
    assert parse("board-notice.toml", example.encode()).threshold_flop == 10**24
    for r in shipped():
        line = f"{r.comparison} 10^{len(str(r.threshold_flop)) - 1}"
        assert f"| `{r.id}` | {line} | {r.effective} |" in page
    lines = {"eu-modifier": "1/3 of the original", "eu-modifier-unknown": "10^23/3"}
    for r in shipped(MODIFICATION):
        assert f"| `{r.id}` | > {lines.get(r.id, '10^25/3')} | {r.effective} |" in page
    keys = {f.name for f in fields(Regime)} - {"digest", "profile", "text", "capacity"}
    for key in keys | {"threshold_op_s", "network_gbit_s", "precision", "one_datacenter"}:
        assert f"`{key}`" in page


#: What regulations.md sections 2, 7 and 8 have beside what binds: shipped, off, and said to be so.
OFF = {
    ("us-eo-14110", "revoked", 10**26, ">"),
    ("us-eo-14110-biology", "revoked", 10**23, ">"),
    ("us-eo-14110-cluster", "revoked", 10**20, ">="),
    ("us-bis-702-7", "proposed", 10**26, ">"),
    ("us-bis-702-7-cluster", "proposed", 10**20, ">"),
    ("us-iaas-kyc", "proposed", 0, ">"),
    ("us-ai-diffusion-4e091", "not-enforced", 10**26, ">"),
    ("us-ca-sb1047", "vetoed", 10**26, ">"),
    ("us-ca-sb1047-fine-tune", "vetoed", 3 * 10**25, ">="),
    ("us-s2938", "proposed", 10**26, ">"),
    ("us-hr8094", "proposed", 10**26, ">"),
    ("us-gaaia", "proposed", 10**26, ">"),
}


def test_requirement_3_what_is_revoked_vetoed_or_proposed_is_shipped_and_off():
    off = {r.id: r for r in every_shipped() if not r.may_bind}
    assert {
        (r.id, r.status, r.capacity.op_s if r.capacity else r.threshold_flop, r.comparison)
        for r in off.values()
    } == OFF
    for scope in SCOPES:
        assert not {r.id for r in shipped(scope)} & off.keys()
    for year in (2023, 2024, 2025, 2026, 2030):
        day = int(datetime(year, 12, 1, tzinfo=UTC).timestamp()) * 10**9
        assert not any(in_force(r, day) for r in off.values())
    clusters = [off["us-eo-14110-cluster"].capacity, off["us-bis-702-7-cluster"].capacity]
    assert [(c.op_s, c.network_gbit_s, c.one_datacenter) for c in clusters] == [
        (10**20, 100, True),
        (10**20, 300, False),
    ]
    assert {d.calendar for d in off["us-bis-702-7"].deadlines} == {((1, 15), (4, 15), (7, 15), (10, 15))}
    assert off["us-iaas-kyc"].scope == "tenant"
    assert not off["us-iaas-kyc"].has_line


def test_requirement_3_what_binds_from_2027_binds_from_then():
    last = int(datetime(2026, 12, 31, 23, 59, 59, tzinfo=UTC).timestamp()) * 10**9
    bound = {r.id: in_force(r, last) for r in shipped()}
    assert [r for r, binds in bound.items() if not binds] == ["us-il-aisma", "us-ny-raise"]
    assert all(in_force(r, last + 10**9) for r in shipped())


def test_requirement_20_no_regime_of_a_state_claims_a_duty_to_report_compute():
    for r in every_shipped():
        words = f"{r.when_met} {r.deadline} {r.recipient}"
        if r.act == "coverage" and r.may_bind:
            assert "asks for no report of the compute figure" in r.when_met
            assert "none for the compute figure" in r.recipient
        if not r.may_bind:
            assert any(w in words for w in ("nothing follows", "never bound", "Not enforced")), r.id
