"""Salted field digests (RFC 9901), and the one form of JSON in which everything of ours is hashed."""

import json
from hashlib import sha256

import pytest
import rfc8785
from evidence_reference import VECTORS, base64url_of, disclosure, disclosure_digest
from hypothesis import given, settings
from hypothesis import strategies as st

from flopmeter.evidence.disclosure import field_digest, open_disclosures, parse_canonical, record_digest
from flopmeter.evidence.errors import EvidenceError

PUBLISHED = json.loads((VECTORS / "sd_disclosure.json").read_text())["disclosures"]
JCS = sorted(path.stem for path in (VECTORS / "jcs/input").iterdir())


def salt(number):
    return sha256(b"salt %d" % number).digest()[:16]


SHOWN = [
    disclosure(salt(n), f"/totals/field{n}", value)
    for n, value in enumerate(["1", ["a", None], {"x": "€"}, True])
]
HIDDEN = [disclosure(salt(n), f"/run/field{n}", "secret") for n in range(4, 8)]
DIGESTS = sorted(disclosure_digest(one) for one in SHOWN + HIDDEN)


def refused(disclosures, digests=DIGESTS):
    with pytest.raises(EvidenceError) as refusal:
        open_disclosures(disclosures, digests)
    assert refusal.value.step == "disclosures"
    return refusal.value.reason


@pytest.mark.parametrize("vector", PUBLISHED)
def test_the_published_vector(vector):
    assert (
        field_digest(vector["encoded"]) == vector["sha256_base64url"] == disclosure_digest(vector["encoded"])
    )
    # Its JSON has spaces, which RFC 9901 leaves to the issuer: ours is canonical, so ours refuses it.
    assert "canonical" in refused([vector["encoded"]], [vector["sha256_base64url"]])


def test_what_is_disclosed():
    fields = {
        "/totals/field0": "1",
        "/totals/field1": ["a", None],
        "/totals/field2": {"x": "€"},
        "/totals/field3": True,
    }
    assert open_disclosures(SHOWN, DIGESTS) == fields
    assert open_disclosures([], DIGESTS) == {}
    lines = "".join(f"{digest}\n" for digest in DIGESTS)
    assert record_digest(DIGESTS) == sha256(lines.encode()).hexdigest()
    assert record_digest([]) == sha256(b"").hexdigest()


def test_every_flipped_bit_of_a_disclosure():
    for bit in range(len(SHOWN[2]) * 8):
        damaged = bytearray(SHOWN[2].encode())
        damaged[bit // 8] ^= 1 << bit % 8
        refused([damaged.decode("latin-1")])


BAD = {
    "not of this record": [disclosure(salt(9), "/totals/field0", "1")],
    "another value": [disclosure(salt(0), "/totals/field0", "2")],
    "another path": [disclosure(salt(0), "/totals/field1", "1")],
    "twice": [SHOWN[0], SHOWN[0]],
    "padding": [SHOWN[0] + "="],
    "trailing bits": [SHOWN[0][:-1] + chr(ord(SHOWN[0][-1]) + 1)],
    "a newline": [SHOWN[0] + "\n"],
    "a space": [" " + SHOWN[0]],
    "standard base64": [disclosure(salt(2), "/x", "???>>>").replace("_", "/").replace("-", "+") + "+/"],
    "nothing": [""],
    "not ASCII": ["é"],
    "half a surrogate": ["\ud800"],
    "not UTF-8": [base64url_of(b'["\xff","/x","1"]')],
    "10 MB": ["A" * 10_000_000],
}


@pytest.mark.parametrize("disclosures", BAD.values(), ids=BAD)
def test_refused(disclosures):
    assert len(refused(disclosures)) < 700


ODD = {
    "two members": ["AAAAAAAAAAAAAAAAAAAAAA", "/x"],
    "four members": ["AAAAAAAAAAAAAAAAAAAAAA", "/x", "1", "2"],
    "an object": {"salt": "AAAAAAAAAAAAAAAAAAAAAA", "path": "/x", "value": "1"},
    "a text": "AAAAAAAAAAAAAAAAAAAAAA",
    "a path that is a list": ["AAAAAAAAAAAAAAAAAAAAAA", ["/x"], "1"],
    "no salt": [None, "/x", "1"],
    "a short salt": ["AAAAAAAAAAAAAAAAAAAAA", "/x", "1"],
    "a long salt": ["AAAAAAAAAAAAAAAAAAAAAAA", "/x", "1"],
    "a salt with trailing bits": ["AAAAAAAAAAAAAAAAAAAAAB", "/x", "1"],
    "a salt that is no base64url": ["AAAAAAAAAAAAAAAAAAAA+/", "/x", "1"],
}


@pytest.mark.parametrize("content", ODD.values(), ids=ODD)
def test_of_another_form_even_where_the_digest_is_in_the_record(content):
    text = base64url_of(json.dumps(content, separators=(",", ":")).encode())
    refused([text], [disclosure_digest(text)])


def test_a_path_or_a_salt_that_comes_twice():
    again = disclosure(salt(20), "/totals/field0", "2")
    same_salt = disclosure(salt(0), "/totals/other", "2")
    for other in (again, same_salt):
        digests = sorted([*DIGESTS, disclosure_digest(other)])
        assert "twice" in refused([SHOWN[0], other], digests)
        assert open_disclosures([other], digests)


@pytest.mark.parametrize(
    "digests",
    [
        DIGESTS[::-1],
        [*DIGESTS, DIGESTS[-1]],
        [DIGESTS[0] + "="],
        [DIGESTS[0][:-1]],
        [DIGESTS[0] + "\n"],
        ["A" * 42 + "B"],
        [""],
    ],
    ids=["order", "twice", "padding", "short", "newline", "trailing bits", "empty"],
)
def test_lists_of_digests_that_have_no_one_record(digests):
    with pytest.raises(EvidenceError, match="disclosures"):
        record_digest(digests)


# Canonical JSON: RFC 8785


@pytest.mark.parametrize("name", JCS)
def test_public_triples(name):
    """What rfc8785 makes of them is what they say; our reader takes those without numbers, and nothing else."""
    source = (VECTORS / f"jcs/input/{name}.json").read_bytes()
    canonical = (VECTORS / f"jcs/output/{name}.json").read_bytes()
    assert bytes.fromhex((VECTORS / f"jcs/outhex/{name}.txt").read_text()) == canonical
    assert rfc8785.dumps(json.loads(source)) == canonical
    if name in {"arrays", "structures", "values"}:  # numbers: ours are decimal strings
        with pytest.raises(EvidenceError, match="numbers"):
            parse_canonical(canonical, "schema")
    else:
        assert parse_canonical(canonical, "schema") == json.loads(source)
    with pytest.raises(EvidenceError, match="canonical"):
        parse_canonical(source, "schema")


def test_all_triples_are_there():
    assert JCS == ["arrays", "french", "structures", "unicode", "values", "weird"]


texts = st.text(
    st.characters(exclude_categories=("Cs",)) | st.sampled_from('\0\x1f\x7f"\\/\u2028\ufb33\U0001f602'),
    max_size=6,
)
values = st.recursive(
    st.none() | st.booleans() | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=4),
    max_leaves=8,
)


@given(values)
@settings(max_examples=300, deadline=None)
def test_we_read_exactly_what_an_independent_writer_makes(value):
    made = rfc8785.dumps(value)
    assert parse_canonical(made, "schema") == value
    for other in (
        json.dumps(value).encode(),
        json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode(),
        made + b"\n",
        b" " + made,
        b"\xef\xbb\xbf" + made,
        made.decode().encode("utf-16"),
    ):
        if other != made:
            with pytest.raises(EvidenceError, match="schema: not canonical"):
                parse_canonical(other, "schema")


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"0",
        b"-1",
        b"1.5",
        b"1e400",
        b"NaN",
        b"-Infinity",
        b'{"a":Infinity}',
        b'{"a":"1","a":"1"}',
        b'{"a":"1","a":"2"}',
        b'{"b":"1","a":"2"}',
        b'{"a" :"1"}',
        b'"\\u0061"',
        b'"\\/"',
        b'"\\ud83d\\ude02"',
        b'"\\ud800"',
        b'"\xed\xa0\x80"',
        b'"\x7f\x01"',
        b"'a'",
        b"[,]",
        b'["a",]',
        b"nul",
        b"[" * 100_000,
        b"[" * 100_000 + b"]" * 100_000,
        b'{"a":' * 50_000 + b"null" + b"}" * 50_000,
        b"9" * 100_000,
    ],
    ids=lambda data: repr(data[:24]),
)
def test_json_in_another_form(data):
    with pytest.raises(EvidenceError, match="schema: not canonical"):
        parse_canonical(data, "schema")
