"""tlog-policy: whose word suffices. A quorum counts witnesses, not signatures."""

import pytest
from evidence_reference import Signer, sha256, signed_checkpoint
from hypothesis import given, settings
from hypothesis import strategies as st

from flopmeter.evidence.errors import EvidenceError
from flopmeter.evidence.note import COSIGNED, COSIGNED_MLDSA, LOG, parse_checkpoint, parse_policy

LEAVES = [sha256(b"%d" % number) for number in range(3)]
ORIGIN = "lab.example/log"
LOG_KEY = Signer(ORIGIN, LOG)
X1, X2, X3, Y1, Y2, Y3 = WITNESSES = [
    Signer(f"{name}.example", COSIGNED) for name in ("x1", "x2", "x3", "y1", "y2", "y3")
]
LINES = "".join(f"witness {one.name[:2].upper()} {one.vkey}\n" for one in WITNESSES)
#: The example of the specification.
EXAMPLE = f"""log {LOG_KEY.vkey}

{LINES}group X-witnesses 2 X1 X2 X3
group Y-witnesses any Y1 Y2 Y3

group X-and-Y all X-witnesses Y-witnesses
quorum X-and-Y
"""


def policy_of(text):
    return parse_policy(text.encode() if isinstance(text, str) else text)


def cosigned(*witnesses, log=LOG_KEY, origin=ORIGIN):
    return parse_checkpoint(signed_checkpoint(origin, LEAVES, log, *witnesses))


def refused(policy, checkpoint):
    with pytest.raises(EvidenceError) as refusal:
        policy.check(checkpoint)
    assert refusal.value.step == "checkpoint"
    return refusal.value.reason


def test_the_example_of_the_specification():
    policy = policy_of(EXAMPLE)
    times = policy.check(cosigned(X1, X3, Y2))
    assert {key.name for key in times} == {"x1.example", "x3.example", "y2.example"}
    assert set(times.values()) == {1_700_000_000}
    for few in ([], [X1, X2, X3], [Y1, Y2, Y3], [X2, Y1]):
        assert "X-and-Y" in refused(policy, cosigned(*few))


@given(st.sets(st.sampled_from(range(6))))
@settings(max_examples=64, deadline=None)
def test_every_subset_of_witnesses(present):
    wanted = sum(one < 3 for one in present) >= 2 and any(one >= 3 for one in present)
    try:
        policy_of(EXAMPLE).check(cosigned(*(WITNESSES[one] for one in sorted(present))))
    except EvidenceError:
        assert not wanted
    else:
        assert wanted


def test_a_witness_with_two_kinds_of_key_counts_once():
    """reference/attestation.md 0.5: a real checkpoint has an Ed25519 and an ML-DSA-44 line of the same witness."""
    pq = Signer("x1.example", COSIGNED_MLDSA)
    keys = f"log {LOG_KEY.vkey}\nwitness A {X1.vkey}\nwitness A-pq {pq.vkey}\nwitness B {X2.vkey}\n"
    policy = policy_of(keys + "group A-either any A A-pq\ngroup both 2 A-either B\nquorum both\n")
    assert "both" in refused(policy, cosigned(X1, pq))
    assert len(policy.check(cosigned(X1, pq, X2))) == 3
    assert len(policy.check(cosigned(pq, X2))) == 2
    # A policy that would count it twice is none.
    for lines in (
        "group two 2 A A-pq\n",
        "group two 2 A A-pq B\n",
        "group two all A A-pq\n",
        "group one any A B\ngroup other any A-pq\ngroup two 2 one other\n",
        "group one 2 A B\ngroup two any A-pq\n",
    ):
        with pytest.raises(EvidenceError, match="counts already"):
            policy_of(keys + lines + "quorum two\n")


def test_only_the_log_itself():
    policy = policy_of(f"log {LOG_KEY.vkey}\nquorum none\n")
    assert policy.check(cosigned()) == {}
    assert policy.check(cosigned(X1)) == {}
    assert "no log" in refused(policy_of(f"log {LOG_KEY.vkey}\n{LINES}quorum none\n"), cosigned(X1, log=X2))
    assert "none of" in refused(policy, cosigned(X1, log=Signer(ORIGIN, LOG, seed=b"fork")))
    # A checkpoint of another origin, signed with the key of this one.
    assert "no log" in refused(policy, cosigned(origin="lab.example/other"))


def test_any_of_two_logs_each_for_its_own_origin():
    other = Signer("other.example/log", LOG)
    policy = policy_of(f"log {LOG_KEY.vkey} https://lab.example/\nlog {other.vkey}\nquorum none\n")
    policy.check(cosigned())
    policy.check(cosigned(log=other, origin="other.example/log"))
    refused(policy, cosigned(log=other))


def test_without_a_log_nothing_is_signed_by_a_log():
    policy = policy_of(f"witness X1 {X1.vkey}\nquorum X1\n")
    assert "no log" in refused(policy, cosigned(X1))


def test_a_log_does_not_witness_itself():
    """The same key under both words; and the log's own signature line is no cosignature."""
    itself = Signer(ORIGIN, COSIGNED)
    object.__setattr__(itself, "private", LOG_KEY.private)
    with pytest.raises(EvidenceError, match="no key twice"):
        policy_of(f"log {LOG_KEY.vkey}\nwitness self {itself.vkey}\nquorum self\n")
    with pytest.raises(EvidenceError, match="type"):
        policy_of(f"log {LOG_KEY.vkey}\nwitness self {Signer('w', LOG).vkey}\nquorum self\n")
    with pytest.raises(EvidenceError, match="type"):
        policy_of(f"log {X1.vkey}\nquorum none\n")


def test_a_bad_cosignature_refuses_even_where_the_quorum_is_reached_without_it():
    policy = policy_of(f"log {LOG_KEY.vkey}\n{LINES}quorum X1\n")
    note = signed_checkpoint(ORIGIN, LEAVES, LOG_KEY, X1)
    bad = X2.line("another text\n")
    policy.check(parse_checkpoint(note))
    assert "x2.example" in refused(policy, parse_checkpoint(note + bad.encode()))


def test_urls_and_spaces_and_comments():
    text = f" \t# a comment\n\n\tlog\t {LOG_KEY.vkey}  https://lab.example/\t\n witness A {X1.vkey} https://w.example/w1\n\t\nquorum   A\n"
    policy = policy_of(text)
    assert policy.witnesses["A"][1] == "https://w.example/w1"
    assert policy.check(cosigned(X1))


def test_names_are_compared_byte_by_byte():
    """The Kelvin sign is not the letter K, nor is a composed letter the one with its accent behind it."""
    text = f"log {LOG_KEY.vkey}\nwitness K {X1.vkey}\nwitness \u212a {X2.vkey}\nquorum \u212a\n"
    assert policy_of(text).check(cosigned(X2))
    assert "\u212a" in refused(policy_of(text), cosigned(X1))
    with pytest.raises(EvidenceError, match="unknown"):
        policy_of(f"log {LOG_KEY.vkey}\nwitness e\u0301 {X1.vkey}\nquorum \u00e9\n")


@pytest.mark.parametrize(
    "name", [b"\xe9", b"a\xc2\xa0b", b"\xe2\x80\xae", b"\xc2\x9b2J", b"\xe2\x80\x8b", b"\xff\xfe"]
)
def test_names_that_cannot_be_shown(name):
    """Bytes that are no UTF-8, spaces that are none, text turned round, a terminal's commands, nothing visible: the
    specification leaves them to us, and reports and logs show names. In a comment they harm nobody.
    """
    for line in (b"witness %b " % name + X1.vkey.encode(), b"group %b any X2" % name):
        with pytest.raises(EvidenceError, match="cannot be shown"):
            policy_of(LINES.encode() + line + b"\nquorum X1\n")
    assert policy_of(LINES.encode() + b"# %b\nquorum X1\n" % name).witnesses


BAD = {
    "nothing": "",
    "no quorum": LINES,
    "two quorums": LINES + "quorum X1\nquorum X1\n",
    "two quorums of none": "quorum none\nquorum none\n",
    "no last newline": LINES + "quorum X1",
    "CR": (LINES + "quorum X1\n").replace("\n", "\r\n"),
    "NUL": LINES + "quorum X1\0\n",
    "DEL": LINES + "# \x7f\nquorum X1\n",
    "an unknown word": LINES + "quorums X1\n",
    "a word in capitals": LINES + "Quorum X1\n",
    "an unknown quorum": LINES + "quorum X4\n",
    "a quorum before its witness": "quorum X1\n" + LINES,
    "a quorum of two": LINES + "quorum X1 X2\n",
    "a quorum of nothing": LINES + "quorum\n",
    "a witness without a key": "witness X1\nquorum none\n",
    "a witness with another key's text": f"witness X1 {X1.vkey}x\nquorum X1\n",
    "a witness with two URLs": f"witness X1 {X1.vkey} a b\nquorum X1\n",
    "a log with two URLs": f"log {LOG_KEY.vkey} a b\nquorum none\n",
    "a log without a key": "log\nquorum none\n",
    "one name twice": LINES + f"witness X1 {Signer('z.example', COSIGNED).vkey}\nquorum X1\n",
    "one key twice": LINES + f"witness Z {X1.vkey}\nquorum X1\n",
    "one log twice": f"log {LOG_KEY.vkey}\nlog {LOG_KEY.vkey}\nquorum none\n",
    "a witness named none": f"witness none {X1.vkey}\nquorum none\n",
    "a group named none": LINES + "group none any X1\nquorum none\n",
    "a group named like a witness": LINES + "group X1 any X2\nquorum X1\n",
    "a group named twice": LINES + "group g any X1\ngroup g any X2\nquorum g\n",
    "a group of itself": LINES + "group g any g\nquorum g\n",
    "a group of a later one": LINES + "group g any h\ngroup h any X1\nquorum g\n",
    "a group of nobody": LINES + "group g any\nquorum g\n",
    "a group of none": LINES + "group g any none\nquorum g\n",
    "a group of an unknown name": LINES + "group g any X1 X9\nquorum g\n",
    "a member twice": LINES + "group g 2 X1 X1\nquorum g\n",
    "a member twice in any": LINES + "group g any X1 X1\nquorum g\n",
    "a member of two groups": LINES + "group g any X1\ngroup h any X1\nquorum h\n",
    "nobody needed": LINES + "group g 0 X1 X2\nquorum g\n",
    "more needed than there are": LINES + "group g 3 X1 X2\nquorum g\n",
    "less than nobody": LINES + "group g -1 X1 X2\nquorum g\n",
    "a leading zero": LINES + "group g 01 X1 X2\nquorum g\n",
    "most": LINES + "group g most X1 X2\nquorum g\n",
    "10 MB": "# " + "a" * 10_000_000 + "\nquorum none\n",
}


@pytest.mark.parametrize("text", BAD.values(), ids=BAD)
def test_not_a_policy(text):
    with pytest.raises(EvidenceError) as refusal:
        policy_of(text)
    assert refusal.value.step == "checkpoint"
    assert len(refusal.value.reason) < 700


def test_a_duplicate_key_is_found_under_another_name_and_type():
    """tlog-policy: duplicate are two vkeys of one public key, even if name and key id differ."""
    again = Signer("z.example", COSIGNED)
    object.__setattr__(again, "private", X1.private)
    with pytest.raises(EvidenceError, match="no key twice"):
        policy_of(f"{LINES}witness Z {again.vkey}\nquorum X1\n")


def test_many_groups_one_in_the_other():
    """Deep nesting costs neither stack nor time: 32 of each must work, thousands do."""
    groups = "".join(f"group g{n} any g{n - 1}\n" for n in range(1, 5000))
    policy = policy_of(f"log {LOG_KEY.vkey}\nwitness g0 {X1.vkey}\n{groups}quorum g4999\n")
    assert policy.check(cosigned(X1))
    refused(policy, cosigned())
