"""Verdicts on exact integers, at the line and one operation to either side of it."""

from dataclasses import replace
from datetime import UTC, date, datetime

import pytest

from flopmeter.collector.law.regimes import shipped
from flopmeter.collector.law.rules import Verdict, counted, in_force, verdict
from flopmeter.contract.flop import Figure

REGIMES = {r.id: r for r in shipped()}


def unix_ns(*when: int) -> int:
    return int(datetime(*when, tzinfo=UTC).timestamp()) * 10**9


def exactly(flop: int) -> Figure:
    return Figure(flop, flop, flop)


@pytest.mark.parametrize(
    ("regime", "line", "at_the_line"),
    [
        ("eu-gpai", 10**23, Verdict.BELOW),
        ("eu-systemic-risk", 10**25, Verdict.BELOW),
        ("us-ca-sb53", 10**26, Verdict.BELOW),
        ("us-ct-sb5", 10**26, Verdict.BELOW),
        ("us-ny-raise", 10**26, Verdict.BELOW),
        ("us-il-aisma", 10**26, Verdict.BELOW),
        ("korea", 10**26, Verdict.CROSSED),
    ],
)
def test_requirement_2_exact_boundary(regime, line, at_the_line):
    r = REGIMES[regime]
    assert verdict(exactly(line - 1), r) is Verdict.BELOW
    assert verdict(exactly(line), r) is at_the_line
    assert verdict(exactly(line + 1), r) is Verdict.CROSSED


def test_bounds_decide_not_the_point():
    r = REGIMES["eu-systemic-risk"]
    line = 10**25
    assert verdict(Figure(line, line * 2, line * 4), r) is Verdict.UNDETERMINED
    assert verdict(Figure(line + 1, line * 2, line * 4), r) is Verdict.CROSSED
    assert verdict(Figure(0, 0, line), r) is Verdict.BELOW
    assert verdict(Figure(0, 0, line + 1), r) is Verdict.UNDETERMINED


def test_requirement_15_integer_operations_count_only_where_the_law_names_them():
    flop, ops = Figure(5, 6, 7), Figure(1, 2, 3)
    assert counted(REGIMES["eu-systemic-risk"], flop, ops) == flop
    assert counted(REGIMES["korea"], flop, ops) == flop
    assert counted(REGIMES["us-ca-sb53"], flop, ops) == Figure(6, 8, 10)


def test_a_law_binds_from_its_first_day_and_no_longer_from_its_end():
    ny = REGIMES["us-ny-raise"]
    assert not in_force(ny, unix_ns(2026, 11, 21))
    assert not in_force(ny, unix_ns(2027, 1, 1) - 1)
    assert in_force(ny, unix_ns(2027, 1, 1))
    ended = replace(ny, ends=date(2028, 1, 1))
    assert in_force(ended, unix_ns(2028, 1, 1) - 1)
    assert not in_force(ended, unix_ns(2028, 1, 1))


@pytest.mark.parametrize("status", ["proposed", "revoked", "vetoed"])
def test_what_is_no_law_never_binds(status):
    assert not in_force(replace(REGIMES["eu-gpai"], status=status), unix_ns(2026, 11, 21))
