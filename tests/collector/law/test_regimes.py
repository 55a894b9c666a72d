"""Regime files: exact, dated, complete; every fault is named by file and key."""

import re
from dataclasses import fields, replace
from datetime import UTC, date, datetime
from fractions import Fraction
from pathlib import Path

import pytest

from flopmeter.collector.errors import RegimeError
from flopmeter.collector.law.deadline_rules import DeadlineRule
from flopmeter.collector.law.regimes import (
    MODIFICATION,
    SCOPES,
    Capacity,
    Regime,
    due_after_ns,
    every_shipped,
    load,
    parse,
    shipped,
    with_site,
)
from flopmeter.collector.law.rules import (
    Verdict,
    capacity_verdict,
    early_lines,
    in_force,
    tenant_verdict,
    verdict,
)
from flopmeter.contract.flop import Figure

GOOD = """
schema = "flopmeter-regime/1"
version = "1"
id = "site-rule"
title = "A site's own rule"
citation = "House rules, 1"
status = "in-force"
status_as_of = 2026-11-21
effective = 2026-01-01
threshold_flop = { base = 10, exponent = 24 }
comparison = ">"
unit = "floating-point"
scope = "run"
counting = "executed"
counting_note = "all of it"
act = "documentation"
when_met = "tell the board"
recipient = "the board"
deadline = "a week"
conditions = []
open_questions = []
source = "the house"
"""

RULE = """
[[deadlines]]
id = "board"
trigger = "known"
what = "tell the board"
recipient = "the board"
after_days = 7
timezone = "Europe/Paris"
source = "the house"
"""


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


MODIFIER = GOOD.replace(
    'scope = "run"',
    'scope = "modification"\noriginal = "unknown"\nshare = { numerator = 1, denominator = 4 }',
)


@pytest.mark.parametrize(
    ("old", "new", "key", "got"),
    [
        ("share = { numerator = 1, denominator = 4 }", "share = 0.25", "share", "0.25"),
        ("share = { numerator = 1, denominator = 4 }", 'share = "1/4"', "share", "'1/4'"),
        ("numerator = 1", "numerator = 0", "share", "0"),
        ("numerator = 1", "numerator = 5", "share", "5"),
        ("numerator = 1", "numerator = true", "share", "True"),
        ("denominator = 4", "denominator = 4, extra = 1", "share", "extra"),
        ("share = { numerator = 1, denominator = 4 }", "", "share", "nothing"),
        ('original = "unknown"', 'original = "famous"', "original", "famous"),
        ('original = "unknown"', "", "original", "nothing"),
        ('original = "unknown"', 'original = "known"', "threshold_flop", "24"),  # it is the original's own
        ("threshold_flop = { base = 10, exponent = 24 }", "", "threshold_flop", "nothing"),
    ],
)
def test_every_fault_of_a_modification_regime_names_file_and_key(old, new, key, got):
    assert parse("good.toml", MODIFIER.encode()).share == Fraction(1, 4)
    text = MODIFIER.replace(old, new)
    assert text != MODIFIER
    with pytest.raises(RegimeError, match=f"^bad.toml: key {key}: expected ") as e:
        parse("bad.toml", text.encode())
    assert got in str(e.value)


def test_a_sites_modification_regime_is_no_run_regime(tmp_path):
    (tmp_path / "own.toml").write_text(MODIFIER)
    assert "site-rule" not in {r.id for r in with_site(tmp_path)}
    assert "site-rule" in {r.id for r in with_site(tmp_path, MODIFICATION)}
    (tmp_path / "evil.toml").write_text(MODIFIER.replace("site-rule", "eu-systemic-risk"))
    with pytest.raises(RegimeError, match="id of its own, got 'eu-systemic-risk'"):
        with_site(tmp_path)


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


def test_a_deadline_rule_as_it_is_written():
    (rule,) = parse("good.toml", (GOOD + RULE).encode()).deadlines
    assert rule == DeadlineRule(
        "board", "known", "tell the board", "the board", None, 7, (), "Europe/Paris", "the house"
    )
    assert rule.after_ns == 7 * 86_400 * 10**9
    hours = RULE.replace("after_days = 7", "after_hours = 24")
    assert parse("x", (GOOD + hours).encode()).deadlines[0].after_ns == 86_400 * 10**9
    days = RULE.replace("after_days = 7", 'calendar = ["10-15", "01-15"]').replace('"known"', '"calendar"')
    (rule,) = parse("x", (GOOD + days).encode()).deadlines
    assert (rule.calendar, rule.after_ns) == (((1, 15), (10, 15)), None)
    both = RULE + RULE.replace('"board"', '"press"')
    assert [d.id for d in parse("x", (GOOD + both).encode()).deadlines] == ["board", "press"]
    assert parse("x", GOOD.encode()).deadlines == ()


@pytest.mark.parametrize(
    ("old", "new", "key", "got"),
    [
        ("after_days = 7", "after_days = 0", "after_days", "0"),
        ("after_days = 7", "after_days = 1.5", "after_days", "1.5"),
        ("after_days = 7", "after_days = true", "after_days", "True"),
        ("after_days = 7", "after_days = 36526", "after_days", "36526"),
        ("after_days = 7", "after_hours = -24", "after_hours", "-24"),
        ("after_days = 7", "", "trigger", "None"),
        ("after_days = 7", "after_days = 7\nafter_hours = 1", "trigger", "after_hours, after_days"),
        ("after_days = 7", 'calendar = ["04-15"]', "trigger", "calendar"),
        ('trigger = "known"', 'trigger = "calendar"', "trigger", "after_days"),
        ('trigger = "known"', 'trigger = "soon"', "trigger", "soon"),
        ('trigger = "known"', "", "trigger", "nothing"),
        ("Europe/Paris", "Europe/Atlantis", "timezone", "Atlantis"),
        ("Europe/Paris", "../../etc/passwd", "timezone", "passwd"),
        ('timezone = "Europe/Paris"', "", "timezone", "nothing"),
        ('id = "board"', 'id = "The Board"', "id", "The Board"),
        ('what = "tell the board"', 'what = " "', "what", "' '"),
        ('what = "tell the board"', 'what = "tell"\nwhen = "soon"', "when", "soon"),
    ],
)
def test_every_fault_of_a_deadline_names_file_and_key(old, new, key, got):
    text = RULE.replace(old, new)
    assert text != RULE
    with pytest.raises(RegimeError) as e:
        parse("bad.toml", (GOOD + text).encode())
    assert str(e.value).startswith(f"bad.toml: key deadlines[0].{key}: expected ")
    assert got in str(e.value)


@pytest.mark.parametrize(
    "days", ["[]", '["02-29"]', '["13-01"]', '["4-15"]', '["04-31"]', '["04-15", "04-15"]']
)
def test_days_of_the_year_exist_every_year_and_stand_once(days):
    text = RULE.replace("after_days = 7", f"calendar = {days}").replace('"known"', '"calendar"')
    with pytest.raises(RegimeError, match=r"deadlines\[0\]\.calendar: expected days of the year"):
        parse("bad.toml", (GOOD + text).encode())


def test_two_deadlines_of_one_id_and_what_is_no_table_are_refused():
    with pytest.raises(RegimeError, match=r"deadlines\[1\]\.id: expected an id that no other"):
        parse("bad.toml", (GOOD + RULE + RULE).encode())
    with pytest.raises(RegimeError, match=r"deadlines: expected tables"):
        parse("bad.toml", (GOOD + 'deadlines = ["soon"]\n').encode())


TENANT_RULE = GOOD.replace('scope = "run"', 'scope = "tenant"')
CAPACITY = """threshold_op_s = { base = 10, exponent = 20 }
network_gbit_s = 100
precision = "any"
one_datacenter = true"""
FLEET = (
    GOOD.replace('scope = "run"', 'scope = "fleet-capacity"')
    .replace("threshold_flop = { base = 10, exponent = 24 }", CAPACITY)
    .replace('"floating-point"', '"operations-per-second"')
)


def test_a_tenant_regime_and_a_capacity_are_of_their_own_scopes():
    regime = parse("t.toml", TENANT_RULE.encode())
    assert (regime.scope, regime.threshold_flop, regime.capacity) == ("tenant", 10**24, None)
    regime = parse("f.toml", FLEET.encode())
    assert regime.capacity == Capacity(10**20, 100, "any", one_datacenter=True)
    assert (regime.threshold_flop, regime.has_line) == (0, True)


@pytest.mark.parametrize(
    ("old", "new", "key", "got"),
    [
        ("exponent = 20 }", "exponent = 20.0 }", "threshold_op_s", "20.0"),
        ("network_gbit_s = 100", "network_gbit_s = 0", "network_gbit_s", "0"),
        ("network_gbit_s = 100", "network_gbit_s = 99.5", "network_gbit_s", "99.5"),
        ('precision = "any"', 'precision = "int3"', "precision", "int3"),
        ("one_datacenter = true", "one_datacenter = 1", "one_datacenter", "1"),
        ('"operations-per-second"', '"floating-point"', "unit", "floating-point"),
        (CAPACITY, CAPACITY + "\nthreshold_flop = { base = 10, exponent = 26 }", "threshold_flop", "26"),
    ],
)
def test_every_fault_of_a_capacity_names_file_and_key(old, new, key, got):
    text = FLEET.replace(old, new)
    assert text != FLEET
    with pytest.raises(RegimeError, match=f"^bad.toml: key {key}: expected ") as e:
        parse("bad.toml", text.encode())
    assert got in str(e.value)


def test_a_text_without_a_number_has_no_line_and_nothing_meets_it():
    text = TENANT_RULE.replace("{ base = 10, exponent = 24 }", '"none-in-text"')
    regime = parse("none.toml", text.encode())
    assert not regime.has_line
    assert verdict(Figure(10**40, 10**40, 10**40), regime) is Verdict.BELOW


def test_a_good_file_and_both_ways_to_write_a_threshold():
    regime = parse("good.toml", GOOD.encode())
    assert regime.threshold_flop == 10**24
    digits = GOOD.replace("{ base = 10, exponent = 24 }", f'"{10**24 + 1}"')
    assert parse("good.toml", digits.encode()).threshold_flop == 10**24 + 1
    assert parse("x", (GOOD + "ends = 2027-01-01\n").encode()).ends == date(2027, 1, 1)


@pytest.mark.parametrize(
    ("old", "new", "key", "got"),
    [
        ("{ base = 10, exponent = 24 }", "1e24", "threshold_flop", "1e24"),
        ("{ base = 10, exponent = 24 }", "1000000000000000000.0", "threshold_flop", "1000000000000000000.0"),
        ("{ base = 10, exponent = 24 }", "1000", "threshold_flop", "1000"),
        ("{ base = 10, exponent = 24 }", '"1e24"', "threshold_flop", "'1e24'"),
        ("{ base = 10, exponent = 24 }", '"-5"', "threshold_flop", "'-5'"),
        ("{ base = 10, exponent = 24 }", '"007"', "threshold_flop", "'007'"),
        ("{ base = 10, exponent = 24 }", '"' + "9" * 41 + '"', "threshold_flop", "digits"),
        ("exponent = 24", "exponent = 24.5", "threshold_flop", "24.5"),
        ("exponent = 24", "exponent = 99999999999", "threshold_flop", "99999999999"),
        ("exponent = 24", "exponent = -1", "threshold_flop", "-1"),
        ("exponent = 24", "exponent = true", "threshold_flop", "True"),
        ("exponent = 24", "exponent = 24, extra = 1", "threshold_flop", "extra"),
        ('comparison = ">"', 'comparison = "≥"', "comparison", "≥"),
        ('status = "in-force"', 'status = "maybe"', "status", "maybe"),
        ('status = "in-force"', "status = 1", "status", "1"),
        ("effective = 2026-01-01", 'effective = "2026-01-01"', "effective", "'2026-01-01'"),
        ("effective = 2026-01-01", "effective = 2026-01-01T00:00:00Z", "effective", "datetime"),
        ("effective = 2026-01-01", "effective = 2027-01-01", "status", "'in-force'"),
        ('deadline = "a week"', 'deadline = "a week"\ndeadline_days = 7', "deadline_days", "7"),
        ('deadline = "a week"', 'deadline = "a week"\nends = 2026-01-01', "ends", "2026"),
        ("conditions = []", "conditions = [1]", "conditions", "[1]"),
        ("conditions = []", "", "conditions", "nothing"),
        ("conditions = []", "conditions = []\ntreshold = 5", "treshold", "5"),
        ('id = "site-rule"', 'id = "Site Rule"', "id", "Site Rule"),
        ('title = "A site\'s own rule"', 'title = "  "', "title", "'  '"),
        ('schema = "flopmeter-regime/1"', 'schema = "flopmeter-regime/2"', "schema", "regime/2"),
        ('counting = "executed"', 'counting = "countable"', "counting", "countable"),
        ('scope = "run"', 'scope = "planet"', "scope", "planet"),
        ('scope = "run"', 'scope = "run"\nshare = { numerator = 1, denominator = 3 }', "share", "numerator"),
        ('scope = "run"', 'scope = "run"\noriginal = "known"', "original", "known"),
    ],
)
def test_every_fault_names_file_and_key(old, new, key, got):
    text = GOOD.replace(old, new)
    assert text != GOOD
    with pytest.raises(RegimeError) as e:
        parse("bad.toml", text.encode())
    assert str(e.value).startswith(f"bad.toml: key {key}: expected ")
    assert got in str(e.value)
    assert e.value.hint
    assert e.value.exit_code == 1


@pytest.mark.parametrize("raw", [b"", b"\xff\xfe", b"= 5", b"[" * 5000, b"a = 1\n" * 3])
def test_what_is_no_regime_at_all_is_refused_by_name(raw):
    with pytest.raises(RegimeError, match=r"bad\.toml"):
        parse("bad.toml", raw)


def test_a_site_adds_and_cannot_replace(tmp_path):
    (tmp_path / "own.toml").write_text(GOOD)
    (tmp_path / "README").write_text("not a regime")
    assert {r.id for r in with_site(tmp_path)} == {r.id for r in shipped()} | {"site-rule"}
    (tmp_path / "evil.toml").write_text(GOOD.replace("site-rule", "eu-systemic-risk"))
    with pytest.raises(RegimeError, match="id of its own, got 'eu-systemic-risk'"):
        with_site(tmp_path)
    with pytest.raises(RegimeError, match="cannot read"):
        load(tmp_path / "absent")


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
    for key in (f.name for f in fields(Regime) if f.name != "digest"):
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


def test_the_early_line_is_an_exact_fraction_and_stands_in_data():
    systemic = next(r for r in shipped() if r.id == "eu-systemic-risk")
    (early,) = early_lines(systemic)
    assert early * 13 == 10**26  # 10^25/1.3, not 7.69e24
    text = GOOD + "early = [{ numerator = 3, denominator = 4 }, { numerator = 1, denominator = 2 }]\n"
    assert early_lines(parse("x", text.encode())) == (Fraction(10**24, 2), Fraction(3 * 10**24, 4))
    assert early_lines(parse("x", (GOOD + "early = []\n").encode())) == ()
    assert early_lines(shipped(MODIFICATION)[0], Fraction(13, 3)) == (Fraction(10, 3),)
    assert early_lines(shipped(MODIFICATION)[0]) == ()  # its line is the original's
    for fault in ("early = [0.77]", "early = 1", "early = [{ numerator = 4, denominator = 3 }]"):
        with pytest.raises(RegimeError, match="key early"):
            parse("bad.toml", (GOOD + fault + "\n").encode())


def test_a_capacity_and_a_tenants_sum_have_the_three_answers():
    cluster = next(r for r in every_shipped() if r.id == "us-bis-702-7-cluster")
    at, over = 10**20, 10**20 + 1
    assert capacity_verdict(Figure(at, at, at), cluster) is Verdict.BELOW
    assert capacity_verdict(Figure(over, over, over), cluster) is Verdict.CROSSED
    assert capacity_verdict(Figure(at, over, over), cluster) is Verdict.UNDETERMINED
    assert (
        capacity_verdict(
            Figure(at, at, at), next(r for r in every_shipped() if r.id == "us-eo-14110-cluster")
        )
        is Verdict.CROSSED
    )
    tenant = parse("t.toml", TENANT_RULE.encode())
    half = 10**24 // 2
    assert tenant_verdict([Figure(half, half, half)] * 2, tenant) is Verdict.BELOW
    assert (
        tenant_verdict([Figure(half, half, half), Figure(half, half, half + 1)], tenant)
        is Verdict.UNDETERMINED
    )
    assert tenant_verdict([Figure(half, half, half), Figure(half + 1, half + 1, half + 1)], tenant) is (
        Verdict.CROSSED
    )
    assert tenant_verdict([], tenant) is Verdict.BELOW
