"""A withheld value is in no byte that leaves; what was withheld is listed."""

import ast
import json
import re
from pathlib import Path

import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from flopmeter.collector.deliver.message import change_message, event_message
from flopmeter.collector.deliver.redact import (
    FIELDS,
    FIGURES,
    GROUPS,
    IDENTITIES,
    NODE,
    PLAIN,
    Redaction,
    redact,
)

RUN, NODE_NAME = "gpt-9-secret", "rack7-node3"
FLOP = {"lower": "12345678901234567890", "point": "22345678901234567890", "upper": "32345678901234567890"}
ROW = {
    "event_no": 1,
    "id": "0123456789abcdef0123456789abcdef",
    "type": "threshold.crossed",
    "subject": RUN,
    "time_unix_ns": 1_790_000_000_000_000_000,
    "since_position": 3,
    "position": 4,
    "data": json.dumps(
        {
            "message": f"Run {RUN} on {NODE_NAME} executed {FLOP['lower']} FLOP.",
            "run": RUN,
            "node": NODE_NAME,
            "regime": "eu-gpai",
            "verdict": "crossed",
            "flop": FLOP,
            "countable": {
                "flop": FLOP,
                "ancestors": [{"run": "base-model-x", "path": [RUN, "base-model-x"], "flop": FLOP}],
            },
            "note": "base-model-x is what it stands on",
            "threshold_flop": "1" + "0" * 25,
            "something_new": f"about {RUN}",
        }
    ),
}
CHANGE = {
    "answer_no": 7,
    "unix_ns": 1_790_000_001_000_000_000,
    "state": "acknowledged",
    "who": "alice",
    "why": f"{RUN} is mine",
}


def of(*words):
    return Redaction(tuple(w for w in words if w in GROUPS), tuple(w for w in words if w not in GROUPS))


def leaves(value):
    if isinstance(value, dict):
        for key, inner in value.items():
            yield key
            yield from leaves(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from leaves(inner)
    elif value is not None:
        yield str(value)


def test_without_redaction_the_event_is_as_it_is():
    document = event_message(ROW, Redaction()).document
    assert document["data"]["run"] == RUN
    assert "withheld" not in document["data"]


def test_requirement_18_a_withheld_field_is_listed_as_withheld_with_its_reason():
    body = event_message(ROW, of(IDENTITIES)).body.decode()
    for name in (RUN, "base-model-x"):
        assert name not in body
    document = json.loads(body)
    withheld = {w["field"]: w["reason"] for w in document["data"]["withheld"]}
    assert withheld["/data/run"] == "not for this sink: identities"
    assert withheld["/subject"] == "not for this sink: a name"
    assert withheld["/data/note"] == "not for this sink: repeats a withheld value"
    assert document["data"]["regime"] == "eu-gpai"
    assert document["data"]["flop"] == FLOP
    assert document["data"]["node"] == NODE_NAME
    assert document["id"] in document["data"]["message"]


def test_figures_are_in_no_byte():
    body = event_message(ROW, of(FIGURES)).body.decode()
    assert not any(figure in body for figure in FLOP.values())
    document = json.loads(body)
    assert document["subject"] == RUN
    assert document["data"]["threshold_flop"] == "1" + "0" * 25


def test_nodes_are_in_no_byte():
    assert NODE_NAME not in event_message(ROW, of(NODE)).body.decode()


def test_a_field_that_no_group_names_is_withheld_with_every_group():
    for group in GROUPS:
        document = event_message(ROW, of(group)).document
        assert "something_new" not in document["data"]
        fields = {w["field"]: w["reason"] for w in document["data"]["withheld"]}
        assert fields["/data/something_new"] == "not for this sink: not known to be harmless"


def test_single_fields_by_json_pointer():
    document = event_message(ROW, of("/data/flop/point")).document
    assert document["data"]["flop"] == {"lower": FLOP["lower"], "upper": FLOP["upper"]}
    assert FLOP["point"] not in event_message(ROW, of("/data/flop/point")).body.decode()
    inner = event_message(ROW, of("/data/countable/ancestors/0/run")).body.decode()
    assert "base-model-x" not in inner
    assert event_message(ROW, of("/data/nothing/there")).document["data"]["run"] == RUN


def test_a_withheld_subject_takes_what_repeats_it():
    assert RUN not in event_message(ROW, of("/subject")).body.decode()


def test_a_name_is_found_however_it_is_written():
    row = ROW | {"data": json.dumps({"message": "m", "run": RUN, "note": f"of {RUN.upper()}"})}
    assert RUN.upper() not in event_message(row, of("/data/run")).body.decode()


def test_answers_are_redacted_as_their_events_are():
    body = change_message(ROW, CHANGE, of(IDENTITIES), CHANGE).body.decode()
    assert RUN not in body
    assert "alice" not in body
    assert json.loads(body)["type"] == "threshold.crossed.acknowledged"


@pytest.mark.parametrize("words", [(IDENTITIES,), ("/data/run",), ("/subject",)])
def test_what_is_said_of_who_answered_is_redacted_too(words):
    """Alertmanager's annotation is made of it."""
    message = event_message(ROW, of(*words), CHANGE)
    assert RUN not in message.answered
    if words == (IDENTITIES,):
        assert message.answered == "withheld: withheld"


def test_the_reason_is_kept_where_nothing_forbids_it():
    assert event_message(ROW, of(FIGURES), CHANGE).answered == f"alice: {RUN} is mine"


NAMES = st.text(min_size=4, max_size=40).filter(lambda s: s.strip() == s)
ANYWHERE = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
#: What stands in every document whatever it is about: a name that is a part of it cannot be told apart.
FRAME = (
    json.dumps(
        event_message(
            ROW | {"data": '{"message": "x", "run": "§§§§"}', "subject": "§§§§"}, of(*GROUPS)
        ).document
    )
    + " repeats a withheld value this field not known to be harmless figures identities node /data/"
)


@settings(deadline=None)
@given(
    secret=NAMES,
    where=ANYWHERE,
    key=st.sampled_from(sorted(FIELDS[IDENTITIES] | {"note", "new"})),
    words=st.sampled_from([(IDENTITIES,), ("/data/run",), GROUPS, ("/subject",)]),
)
@example(secret='a"b\\c<é\u2028', where=['x a"b\\c<é\u2028 y'], key="note", words=("/data/run",))
@example(secret="4711", where=4711, key="note", words=(IDENTITIES,))
@example(secret="İSTANBUL", where="at istanbul", key="note", words=("/data/run",))
def test_a_withheld_value_is_in_no_byte(secret, where, key, words):
    """Wherever it is repeated: in the sentence, in another field, in a key, below."""
    assume(secret.casefold() not in FRAME.casefold())
    data = {
        "message": f"Run {secret} did it",
        "reason": f"because of {secret}.",
        key: [where, secret, {secret: 1, "deeper": f"<{secret}>"}],
        "run": secret,
    }
    row = ROW | {"subject": secret, "data": json.dumps(data)}
    message = event_message(row, of(*words), CHANGE | {"why": f"for {secret}"})
    found = list(leaves(json.loads(message.body)))
    assert not [text for text in found if secret in text]
    assert secret.encode() not in message.body
    assert json.dumps(secret)[1:-1].encode() not in message.body
    assert secret not in message.answered


@settings(deadline=None)
@given(secret=st.from_regex(r"[a-z0-9]{1,3}", fullmatch=True))
def test_a_short_name_is_found_as_a_word(secret):
    """Of one to three letters only whole words are names: the letter a stands in every sentence."""
    data = {"message": f"Run {secret} did it", "reason": f"of {secret}", "note": secret, "run": secret}
    document = redact(
        {"type": "x.y", "id": "f" * 32, "subject": secret, "data": data}, Redaction(paths=("/data/run",))
    )
    assert "subject" not in document
    assert set(document["data"]) <= {"message", "withheld"}
    said = document["data"]["message"].replace(document["id"], "").replace(document["type"], "")
    assume(
        not re.search(
            rf"\b{secret}\b",
            "its details are withheld from this sink Where the books are kept flopmeter events show tells them",
        )
    )
    assert not re.search(rf"\b{secret}\b", said)


def event_fields():
    """(module, fields) of every dict in the collector's sources that is the data of an event: it says a `message`."""
    sources = Path(__file__).parents[3] / "collector"
    for path in sorted(sources.rglob("*.py")):
        text = path.read_text()
        if "NewEvent(" not in text:
            continue
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.Dict):
                keys = {k.value for k in node.keys if isinstance(k, ast.Constant)}
                if keys & {"message", "regime"}:
                    yield str(path.relative_to(sources)), keys


def test_every_field_of_every_event_is_classified():
    """One that is not is withheld with every group: safe, and of no use to anybody. Say in redact.py what it tells."""
    known = PLAIN | {"message"} | frozenset().union(*FIELDS.values())
    found = dict.fromkeys(name for name, _ in event_fields())
    assert len(found) >= 8
    assert {(name, key) for name, keys in event_fields() for key in keys - known} == set()


def test_no_field_is_both_plain_and_withheld():
    assert not PLAIN & frozenset().union(*FIELDS.values())


@pytest.mark.parametrize(
    ("words", "secret"),
    [
        (("node",), NODE_NAME),
        (("figures",), FLOP["point"]),
        (("identities",), "base-model-x"),
        (("/data/countable/ancestors/0/run",), "base-model-x"),
    ],
)
def test_what_a_person_answers_repeats_nothing_that_is_withheld_of_the_event(words, secret):
    """What is told of an answer has few of the event's fields, and the person's words may have any."""
    change = CHANGE | {"why": f"ask whoever knows {secret}, and me"}
    message = change_message(ROW, change, of(*words), change)
    left = json.dumps([message.document, message.about, message.answered])
    assert secret not in left
    assert message.document["data"]["state"] == "acknowledged"
    assert {"/data/why"} <= {w["field"] for w in message.document["data"]["withheld"]}
