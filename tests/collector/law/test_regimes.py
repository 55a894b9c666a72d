"""Regime files: exact, dated, complete; every fault is told, with its line and key."""

from datetime import date
from fractions import Fraction

import pytest
from law_files import MODIFIER, REGIME

from flopmeter.collector.errors import RegimeError
from flopmeter.collector.law.deadline_rules import DeadlineRule
from flopmeter.collector.law.regimes import (
    MODIFICATION,
    Capacity,
    every_shipped,
    parse,
    shipped,
)
from flopmeter.collector.law.rules import (
    Verdict,
    capacity_verdict,
    early_lines,
    tenant_verdict,
    verdict,
)
from flopmeter.contract.flop import Figure

GOOD = f"{REGIME.rstrip()}\n"


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


def the_fault(text, key, got):
    """It is the only one, and stands where the file has the key (or its table)."""
    with pytest.raises(RegimeError) as e:
        parse("bad.toml", text.encode())
    (fault,) = e.value.faults
    assert (fault.file, fault.key) == ("bad.toml", key)
    assert got in fault.got or got in fault.expected
    assert fault.todo
    *_, name = key.split(".")
    line = text.split("\n")[fault.line - 1] if fault.line else ""
    assert line[(fault.column or 1) - 1 :].startswith((name, "[[")) or name not in text
    at = f"bad.toml:{fault.line}:{fault.column}: " if fault.line else "bad.toml: "
    assert str(e.value) == f"{at}key {key}: expected {fault.expected}, got {fault.got}"
    assert e.value.hint
    assert e.value.exit_code == 1


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
    the_fault(text, key, got)


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
        ("after_days = 7", "", "trigger", "nothing"),
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
    the_fault(GOOD + text, f"deadlines[0].{key}", got)


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
    the_fault(text, key, got)


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
    the_fault(text, key, got)


@pytest.mark.parametrize("raw", [b"", b"\xff\xfe", b"= 5", b"[" * 5000, b"a = 1\n" * 3])
def test_what_is_no_regime_at_all_is_refused_by_name(raw):
    with pytest.raises(RegimeError, match=r"bad\.toml"):
        parse("bad.toml", raw)


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


def test_every_fault_is_told_at_once_in_order_with_line_and_column():
    text = GOOD.replace("{ base = 10, exponent = 24 }", "1e24").replace(
        'unit = "floating-point"', 'unit = "flop"'
    ).replace('scope = "run"', 'scope = "run"\ncuonting = 1').replace(
        'title = "A site\'s own rule"', "  title = 5"
    ) + RULE.replace("after_days = 7", "after_days = 0.5").replace("Europe/Paris", "Paris")
    with pytest.raises(RegimeError) as e:
        parse("bad.toml", text.encode())
    assert [(f.line, f.column, f.key) for f in e.value.faults] == [
        (5, 3, "title"),
        (10, 1, "threshold_flop"),
        (12, 1, "unit"),
        (14, 1, "cuonting"),
        (30, 1, "deadlines[0].after_days"),
        (31, 1, "deadlines[0].timezone"),
    ]
    said = str(e.value).split("\n")
    assert said[1].startswith("bad.toml:10:1: key threshold_flop: expected a decimal string")
    assert said[1].endswith("got 1e24")
    by_key = {f.key: f.todo for f in e.value.faults}
    assert "1e25 is not 10^25 in binary" in by_key["threshold_flop"]
    assert "docs/regimes.md" in by_key["cuonting"]  # `counting` is there


def test_a_misspelt_key_is_told_twice_with_what_was_meant():
    text = GOOD.replace("threshold_flop", "treshold_flop").replace('comparison = ">"', 'comparision = ">"')
    with pytest.raises(RegimeError) as e:
        parse("bad.toml", text.encode())
    todo = {f.key: f.todo for f in e.value.faults}
    assert todo["threshold_flop"] == "is 'treshold_flop' meant to be it?"
    assert todo["treshold_flop"].endswith("did you mean 'threshold_flop'?")
    assert todo["comparision"].endswith("did you mean 'comparison'?")
    assert len(todo) == 4


@pytest.mark.parametrize(
    ("raw", "line", "column"),
    [(b"a = 1\nb = = 2\n", 2, 5), (b"a = 1\n\nb = '\xff'\n", 3, None), (b"a = 1\na = 2\n", 2, None)],
)
def test_what_is_no_toml_has_a_line_too(raw, line, column):
    with pytest.raises(RegimeError) as e:
        parse("bad.toml", raw)
    (fault,) = e.value.faults
    assert fault.line == line
    assert column is None or fault.column == column


def test_a_wrong_scope_is_one_fault_and_not_one_for_each_key_of_another():
    text = FLEET.replace('"fleet-capacity"', '"fleet"')
    the_fault(text, "scope", "'fleet'")


def test_a_huge_file_is_refused_unread():
    with pytest.raises(RegimeError, match="at most 1048576 bytes"):
        parse("bad.toml", b"#" * (1 << 21))
