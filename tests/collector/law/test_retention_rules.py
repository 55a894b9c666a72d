"""`[[retention]]` of a regime's file: what is read, what is refused, and what the shipped ones say."""

from importlib import resources

import pytest

from flopmeter.collector.errors import RegimeError
from flopmeter.collector.law.regimes import every_shipped, parse
from flopmeter.collector.law.retention_rules import INCIDENT, PLACED, WITHDRAWN, RetentionRule

RAW = resources.files("flopmeter.collector").joinpath("regimes/korea.toml").read_bytes()
RULE = (
    b'\n[[retention]]\nid = "file"\nwhat = "the file"\nyears = 7\nbegins = "placed"\nsource = "section 9"\n'
)


def test_a_rule_is_read_as_it_is_written() -> None:
    assert parse("x.toml", RAW).retention == ()
    assert parse("x.toml", RAW + RULE).retention == (
        RetentionRule("file", "the file", 7, PLACED, "section 9"),
    )


@pytest.mark.parametrize(
    ("old", "new", "key"),
    [
        (b"years = 7", b"years = 7.5", "years"),
        (b"years = 7", b"years = 0", "years"),
        (b"years = 7", b"years = 101", "years"),
        (b"years = 7", b"", "years"),
        (b'"placed"', b'"sold"', "begins"),
        (b'begins = "placed"\n', b"", "begins"),
        (b'what = "the file"', b'what = ""', "what"),
        (b'source = "section 9"\n', b"", "source"),
        (b"years = 7", b"years = 7\nmonths = 3", "months"),
        (RULE, RULE + RULE, "id"),
        (b"\n[[retention]]", b"\n[retention]", "retention"),
    ],
)
def test_what_is_no_rule_is_refused_with_its_key(old, new, key) -> None:
    raw = (RAW + RULE).replace(old, new, 1) if old != RULE else RAW + new
    with pytest.raises(RegimeError) as refused:
        parse("x.toml", raw)
    assert key in str(refused.value)


def test_the_shipped_terms_are_those_of_the_reference() -> None:
    """reference/regulations.md sections 4 and 6, and 13.25."""
    found = {(r.id, x.id): (x.years, x.begins) for r in every_shipped() for x in r.retention}
    assert found == {
        ("eu-gpai", "documentation"): (10, PLACED),
        ("eu-gpai", "representative"): (10, PLACED),
        ("eu-systemic-risk", "incident-records"): (5, INCIDENT),
        ("us-ca-sb53", "unredacted"): (5, PLACED),
        ("us-ny-raise", "unredacted"): (5, PLACED),
        ("us-il-aisma", "unredacted"): (5, PLACED),
        ("us-il-aisma", "audit"): (5, WITHDRAWN),
    }
