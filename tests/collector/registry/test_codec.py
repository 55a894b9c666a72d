"""One text per statement, one statement per text, and a refusal that says what was expected."""

import contextlib
import hashlib
import json
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from registry_entries import JOBS, entry, statements

from flopmeter.collector.chained_words import NO_HASH
from flopmeter.collector.errors import RegistryError
from flopmeter.collector.registry.codec import canonical, decode, encode, entry_hash, to_entry, to_row
from flopmeter.collector.registry.entries import Assign, Declare, Purpose, Retract, Statement, Tag


@given(statements | st.builds(Retract, st.integers(1, 10**9)))
def test_what_is_written_is_what_is_read(statement: Statement) -> None:
    text = encode(statement)
    assert decode(text) == statement
    assert encode(decode(text)) == text


@given(statements)
def test_no_number_is_a_json_number_and_keys_are_sorted(statement: Statement) -> None:
    value = json.loads(encode(statement))
    assert canonical(value) == encode(statement)

    def look(v: object) -> None:
        assert not isinstance(v, int | float) or isinstance(v, bool)
        for child in v.values() if isinstance(v, dict) else v if isinstance(v, list) else ():
            look(child)

    look(value)


def test_the_text_of_a_statement_stays_as_it_is() -> None:
    """Hashes of years hang on it."""
    said = Tag("r1", Purpose.EVALUATION, 3, None, JOBS[0], ("https://x/é",))
    assert encode(said) == (
        '{"evidence":["https://x/é"],"from_hour":"3","job":{"job":"4711","kind":"slurm","scope":"c1"},'
        '"kind":"tag","purpose":"evaluation","run":"r1"}'
    )
    made = entry(1, Declare("r1", owner="nlp"))
    text = (
        '{"entry_no":"1","position":"1","statement":{"kind":"declare","owner":"nlp","run":"r1"},'
        '"unix_ns":"1000000000","who":"ada@lab","why":"said"}'
    )
    expected = hashlib.sha256(b"flopmeter-entry/1\0" + bytes(32) + text.encode()).digest()
    assert entry_hash(NO_HASH, made) == expected


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "expected a JSON object"),
        ("[]", "expected a JSON object"),
        ("nonsense", "expected a JSON object"),
        ("[" * 100_000, "expected a JSON object"),
        ('{"run":"r1"}', "expected a kind of declare, assign"),
        ('{"kind":["declare"],"run":"r1"}', "expected a kind of declare, assign"),
        ('{"kind":"declare","run":1}', "run: expected a text, got 1"),
        ('{"kind":"declare"}', "run: expected a text, got None"),
        ('{"budget_flop":1,"kind":"declare","run":"r1"}', "budget_flop: expected a text"),
        ('{"budget_flop":1.0,"kind":"declare","run":"r1"}', "numbers are decimal strings"),
        ('{"budget_flop":NaN,"kind":"declare","run":"r1"}', "numbers are decimal strings"),
        ('{"budget_flop":"1e25","kind":"declare","run":"r1"}', "expected an integer as a decimal string"),
        ('{"budget_flop":"007","kind":"declare","run":"r1"}', "expected an integer as a decimal string"),
        ('{"budget_flop":"-0","kind":"declare","run":"r1"}', "canonical text"),
        ('{"budget_flop":"' + "9" * 5000 + '","kind":"declare","run":"r1"}', "expected an integer"),
        ('{"kind":"declare","purpose":"fun","run":"r1"}', "purpose: expected one of pretraining"),
        ('{"kind":"declare","run":"r1","run":"r2"}', "a key stands twice"),
        ('{"kind":"declare","run":"r1","zeal":"x"}', "unknown zeal"),
        ('{"run":"r1","kind":"declare"}', "canonical text"),
        ('{"kind": "declare","run":"r1"}', "canonical text"),
        ('{"base_models":[],"kind":"declare","run":"r1"}', "canonical text"),
        ('{"base_models":[1],"kind":"declare","run":"r1"}', "expected a list of texts"),
        ('{"job":{"job":"1","kind":"slurmm","scope":"c"},"kind":"assign","run":""}', "expected one of idle"),
        ('{"job":{"job":"1","kind":"slurm"},"kind":"assign","run":""}', "scope: expected a text"),
        ('{"job":"1","kind":"assign","run":""}', "job: expected an object"),
        ('{"kind":"assign","run":""}', "job: expected a job"),
        ('{"accepted":"true","kind":"decision","suggestion":"s"}', "expected true or false"),
        ('{"kind":"link","parent":"a","relation":"likes","run":"b"}', "expected one of continues"),
        ('{"evidence":["e"],"fraction":"2/8","kind":"tag","purpose":"recomputation","run":"r"}', "canonical"),
        (
            '{"evidence":["e"],"fraction":"1/0","kind":"tag","purpose":"recomputation","run":"r"}',
            "such as 1/4",
        ),
        ('{"flop":{"lower":"1","point":"1"},"kind":"external","name":"n","source":"s"}', "upper: expected"),
        ('{"kind":"retract"}', "number: expected an entry's number"),
    ],
)
def test_what_is_not_a_statement_is_refused_and_says_what_was_expected(text: str, said: str) -> None:
    with pytest.raises(RegistryError) as e:
        decode(text)
    assert said in str(e.value)
    assert len(str(e.value)) < 600
    assert e.value.hint


@given(st.text(max_size=60))
def test_no_text_breaks_the_reader(text: str) -> None:
    with contextlib.suppress(RegistryError):
        assert encode(decode(text)) == text


@given(statements)
def test_a_row_is_its_entry(statement: Statement) -> None:
    made = entry(7, statement)
    row = to_row(made, NO_HASH)
    assert to_entry(row) == made
    assert row.hash == entry_hash(NO_HASH, made)


def test_every_part_of_an_entry_is_in_its_hash() -> None:
    made = entry(2, Assign(JOBS[0], "r1"))
    others = [
        replace(made, number=3),
        replace(made, unix_ns=made.unix_ns + 1),
        replace(made, position=made.position + 1),
        replace(made, who="eve@lab"),
        replace(made, why="other"),
        replace(made, statement=Assign(JOBS[0], "r2")),
    ]
    hashes = [entry_hash(NO_HASH, e) for e in (made, *others)] + [entry_hash(b"\1" * 32, made)]
    assert len(set(hashes)) == len(hashes)


def test_a_row_that_does_not_decode_names_its_number() -> None:
    row = to_row(entry(7, Declare("r1", owner="a")), NO_HASH)._replace(statement="{}")
    with pytest.raises(RegistryError, match="entry 7: statement: expected a kind of"):
        to_entry(row)
