"""Claims of training code: how they add up, whichever way they go wrong. Pure."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flopmeter.collector.law.progress import (
    CLAIM_COLUMNS,
    ClaimHour,
    ClaimKey,
    Side,
    Until,
    add_claims,
    by_workload,
    claim_of,
    compared,
    per_token,
    side_of,
    stored_claim,
)
from flopmeter.contract.flop import Figure
from flopmeter.contract.usage import Progress

P = 1_000_000_000
SIX_P = 6 * P
MINUTE_NS = 60_000_000_000
HOUR_NS = 3_600_000_000_000


def claim(tokens, *, t=0, workload=0, **more):
    return Progress(workload, t, 1 + t, tokens, **{"parameters": P, "ranks": 0, **more})


def hour(flop=0, *, opening=0, ranks=0, first=0, last=HOUR_NS, **more):
    fields = {"tokens": 1, "parameters": P, "flop_per_token": 0, "falls": 0} | more
    return ClaimHour(
        ranks=ranks, flop=flop, opening_flop=opening, first_unix_ns=first, last_unix_ns=last, **fields
    )


def told(*tokens, last=None, **more):
    """One claimer's hour after so many records, a claim in each."""
    current = None
    for minute, number in enumerate(tokens):
        window = (minute * MINUTE_NS, (minute + 1) * MINUTE_NS)
        current = add_claims(last, current, [claim(number, t=minute, **more)], window)
    return current


# --- a claimer's hour ---


def test_rises_are_worth_six_times_parameters():
    row = told(100, 250, 400)
    assert (row.flop, row.opening_flop, row.tokens, row.falls) == (300 * SIX_P, 100 * SIX_P, 400, 0)


def test_what_the_code_counts_itself_comes_first():
    row = told(100, 250, flop_per_token=7)
    assert (row.flop, row.opening_flop) == (150 * 7, 100 * 7)
    assert per_token(claim(1, parameters=0)) == 0


def test_tokens_that_fall_are_a_restart_and_what_is_done_again_counts_again():
    row = told(100, 500, 300, 700)
    assert row.falls == 1
    assert row.flop == (400 + 400) * SIX_P
    assert told(100, 500, 0, 50).flop == (400 + 50) * SIX_P


def test_a_claim_said_again_is_worth_nothing():
    assert told(100, 100, 100).flop == 0


def test_the_next_hour_goes_on_from_the_last():
    first = told(100, 250)
    second = told(400, last=first)
    assert (second.flop, second.opening_flop) == (150 * SIX_P, 0)
    fell = told(50, 80, last=first)
    assert (fell.flop, fell.falls) == (30 * SIX_P, 1)


def test_other_ranks_are_another_count():
    first = told(100, 250, ranks=8)
    second = told(90, last=first, ranks=7)
    assert (second.flop, second.falls, second.opening_flop) == (0, 0, 90 * SIX_P)


def test_the_parameters_of_each_claim_price_its_own_rise():
    current = add_claims(None, None, [claim(0), claim(10, parameters=2 * P, t=1)], (0, 1))
    assert current.flop == 10 * 6 * 2 * P


def test_no_claim_leaves_no_row():
    assert add_claims(None, None, [], (0, 1)) is None
    row = told(5)
    assert add_claims(None, row, [], (0, 1)) is row


def test_claims_of_one_record_are_taken_in_the_order_of_their_times():
    found = by_workload([claim(30, t=3), claim(10, t=1), claim(7, t=2, workload=1)])
    assert [c.tokens for c in found[0]] == [10, 30]
    assert [c.tokens for c in found[1]] == [7]


@given(st.lists(st.integers(0, 2**64 - 1), min_size=1, max_size=30), st.integers(0, 29))
def test_it_does_not_matter_where_an_hour_ends(tokens, cut):
    cut = min(cut, len(tokens))
    whole = told(*tokens)
    head = told(*tokens[:cut]) if cut else None
    tail = told(*tokens[cut:], last=head) if cut < len(tokens) else None
    rows = [row for row in (head, tail) if row is not None]
    assert sum(r.flop for r in rows) == whole.flop
    assert sum(r.falls for r in rows) == whole.falls
    assert sum(r.opening_flop for r in rows) == whole.opening_flop
    rises = sum(max(0, b - a) for a, b in pairwise(tokens))
    assert whole.flop == rises * SIX_P


@given(st.integers(0, 2**64 - 1), st.integers(0, 2**64 - 1), st.integers(0, 2**100))
def test_a_row_is_stored_and_read_whole(tokens, parameters, flop):
    row = hour(flop, tokens=tokens, parameters=parameters)
    key = ClaimKey(1, 2, 3)
    assert len(stored_claim(key, row)) == len(CLAIM_COLUMNS.split(", "))
    assert claim_of(stored_claim(key, row)) == (key, row)


# --- a run's claims ---


def one(rows, until=None):
    return compared({ClaimKey(*key): row for key, row in rows.items()}, until or {})


def test_processes_are_added_and_words_for_the_whole_run_are_not():
    parts = one({(1, 1, 5): hour(10, ranks=4, tokens=7), (1, 2, 5): hour(20, ranks=4, tokens=9)})
    assert (parts.declared_flop, parts.tokens, parts.ranks) == (30, 16, 8)
    whole = one({(1, 1, 5): hour(10, tokens=7), (1, 2, 5): hour(20, tokens=9)})
    assert (whole.declared_flop, whole.tokens, whole.ranks) == (20, 9, 0)
    mixed = one({(1, 1, 5): hour(10, ranks=4), (1, 2, 5): hour(20)})
    assert mixed.declared_flop == 20, "what speaks for the whole run has the parts in it"


def test_one_job_after_the_other_within_an_hour_are_added():
    half = HOUR_NS // 2
    rows = {(1, 1, 5): hour(10, last=half), (2, 1, 5): hour(20, first=half)}
    assert one(rows).declared_flop == 30
    rows[3, 2, 5] = hour(15, first=half, last=half + 1)  # beside the second
    assert one(rows).declared_flop == 30


def test_the_opening_counts_where_the_counters_allow_it_with_the_hours_before_it():
    rows = {(1, 1, 5): hour(10, opening=100), (1, 1, 6): hour(10)}
    allowed = one(rows, {(1, 5): Until(3, 100)})
    assert (allowed.declared_flop, allowed.hours, allowed.opening_left_out) == (120, (3, 4, 5, 6), False)
    refused = one(rows, {(1, 5): Until(3, 99)})
    assert (refused.declared_flop, refused.hours, refused.opening_left_out) == (20, (5, 6), True)
    assert one(rows).opening_left_out, "nothing is known of the workload"


def test_hours_without_a_formula_are_left_out_and_told():
    rows = {(1, 1, 5): hour(10), (1, 1, 6): hour(0, parameters=0), (2, 1, 6): hour(5)}
    found = one(rows)
    assert (found.hours, found.unpriced_hours, found.declared_flop) == ((5,), 1, 10)


def test_hours_without_a_claim_are_not_compared():
    assert one({(1, 1, 5): hour(10), (1, 1, 9): hour(10)}).hours == (5, 9)
    assert one({}).empty


# --- the verdict ---


@pytest.mark.parametrize(
    ("lower", "upper", "side"),
    [
        (0, 69, Side.LESS),
        (0, 70, None),
        (50, 200, None),
        (130, 900, None),
        (131, 900, Side.MORE),
        (0, 0, Side.LESS),
    ],
)
def test_they_disagree_where_no_figure_fits_both(lower, upper, side):
    assert side_of(Figure(lower, lower, upper), 100) is side


def test_the_margin_is_a_setting():
    assert side_of(Figure(0, 0, 89), 100, 10) is Side.LESS
    assert side_of(Figure(0, 0, 89), 100, 11) is None
    assert side_of(Figure(111, 111, 200), 100, 10) is Side.MORE
    assert side_of(Figure(5, 5, 5), 0, 99) is Side.MORE, "work, and not a token claimed"
