"""Signed notes, checkpoints, cosignatures, verifier keys: what C2SP says, strictly."""

import base64
import random
import subprocess
import sys

import pytest
import tlog_scales.signing as scales_signing
import tlog_scales.tlog as scales
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import mldsa
from evidence_reference import Signer, base64_of, checkpoint_text, sha256, signed_checkpoint, tlog_proof
from hypothesis import given, settings
from hypothesis import strategies as st

from flopmeter.evidence.errors import EvidenceError
from flopmeter.evidence.note import (
    COSIGNED,
    COSIGNED_MLDSA,
    LOG,
    NOTE_LIMIT,
    parse_checkpoint,
    parse_key,
    parse_proof,
    signers,
)

LOG_KEY = Signer("lab.example/log", LOG)
WITNESS = Signer("witness.example/w1", COSIGNED)
WITNESS_PQ = Signer("witness.example/w1", COSIGNED_MLDSA)
LEAVES = [sha256(b"%d" % number) for number in range(5)]
NOTE = signed_checkpoint("lab.example/log", LEAVES, LOG_KEY, WITNESS, WITNESS_PQ)
KEYS = [parse_key(one.vkey) for one in (LOG_KEY, WITNESS, WITNESS_PQ)]
TEXT = checkpoint_text("lab.example/log", 5, LEAVES[0])


def refused(note, keys=KEYS):
    with pytest.raises(EvidenceError) as refusal:
        signers(parse_checkpoint(note), keys)
    assert refusal.value.step == "checkpoint"
    return refusal.value.reason


def signed(text, *keys, seconds=1_700_000_000):
    return (text + "\n" + "".join(key.line(text, seconds) for key in keys)).encode()


def test_a_checkpoint_with_three_kinds_of_signature():
    checkpoint = parse_checkpoint(NOTE)
    assert (checkpoint.origin, checkpoint.size) == ("lab.example/log", 5)
    log, witness, witness_pq = KEYS
    assert signers(checkpoint, KEYS) == {log: None, witness: 1_700_000_000, witness_pq: 1_700_000_000}
    assert signers(checkpoint, [witness]) == {witness: 1_700_000_000}  # the others are unknown: passed over


def test_the_example_of_the_specification():
    """C2SP signed-note 1.0: the key parses; its note is no checkpoint, so the signature is checked by hand."""
    key = parse_key("example.com/foo+530d903a+AekyeRrm56hApGFkyQR4ZCbV54Id2LKaANYcrnKv3U2k")
    assert (key.name, key.id.hex(), key.kind) == ("example.com/foo", "530d903a", LOG)
    note = (
        "This is an example message.\n\n— example.com/foo Uw2QOkn8srV1yJGh2VYRlL1Tnagv1YEq6TfXppzi2ONncAlTgK7Ztg1E"
        "RYNZXsYjOBH3mFXmRKuwHjG1Yu72IneyaQM=\n"
    )
    with pytest.raises(EvidenceError, match="not a checkpoint"):
        parse_checkpoint(note.encode())
    line = note.splitlines()[2].split(" ")
    lines = ((line[1], base64.b64decode(line[2])[:4], base64.b64decode(line[2])[4:]),)
    body = parse_checkpoint(NOTE)._replace(text=b"This is an example message.\n", lines=lines)
    assert signers(body, [key]) == {key: None}


@pytest.mark.parametrize("signer", [LOG_KEY, WITNESS, WITNESS_PQ], ids=["log", "ed25519", "ml-dsa-44"])
def test_any_flipped_bit_refuses_a_note_by_a_known_key(signer):
    """Every bit of the text, and a sample of the lines: another name or id makes the signer unknown."""
    note = signed(TEXT, signer)
    key = [parse_key(signer.vkey)]
    assert signers(parse_checkpoint(note), key)
    bits = range(len(note) * 8)
    for bit in bits if len(note) < 400 else random.Random(7).sample(bits, 500):
        damaged = bytearray(note)
        damaged[bit // 8] ^= 1 << bit % 8
        refused(bytes(damaged), key)


def test_a_known_key_with_a_bad_signature_refuses_a_note_that_others_signed_well():
    forged = WITNESS.signature(TEXT)[:-1] + bytes([WITNESS.signature(TEXT)[-1] ^ 1])
    note = signed(TEXT, LOG_KEY).decode() + f"— {WITNESS.name} {base64_of(WITNESS.id + forged)}\n"
    assert signers(parse_checkpoint(note.encode()), KEYS[:1])  # who does not know the witness passes it over
    assert "witness.example/w1" in refused(note.encode())


def test_signed_by_nobody_known():
    assert "none of the expected keys" in refused(signed(TEXT, Signer("other.example", LOG)))
    # The right name with the id of another key, and the right id under another name: both unknown.
    other = Signer("lab.example/log", LOG, seed=b"another")
    assert "none of" in refused(signed(TEXT, other))
    line = LOG_KEY.line(TEXT).replace("lab.example/log", "lab.example/lag")
    assert "none of" in refused((TEXT + "\n" + line).encode())
    assert "none of" in refused(NOTE, [])


def test_key_ids_that_collide():
    """A key id is 4 bytes: two keys of one name and id cannot be told apart, and which is meant is not guessed."""
    log = KEYS[0]
    twin = log._replace(public=KEYS[1].public)
    assert "have the id" in refused(NOTE, [log, twin])
    assert signers(parse_checkpoint(NOTE), [log, log]) == {log: None}  # one key given twice is one key
    # An attacker's key with the id of another: the line is checked with the key that is configured, and refused.
    attacker = Signer("lab.example/log", LOG, seed=b"attacker")
    line = f"— lab.example/log {base64_of(LOG_KEY.id + attacker.signature(TEXT))}\n"
    assert "not its own" in refused((TEXT + "\n" + line).encode())


def test_a_byte_order_mark_is_another_origin():
    """Not stripped: it is text, which nobody signed."""
    assert "not its own" in refused(b"\xef\xbb\xbf" + NOTE)


def test_a_signature_of_one_type_does_not_count_as_another():
    """A plain signature in the witness's name and id, and a cosignature as the log's: domains are apart."""
    plain = Signer(WITNESS.name, LOG, seed=WITNESS.seed)
    object.__setattr__(plain, "private", WITNESS.private)  # the very key of the witness
    for payload in (plain.signature(TEXT), b"\0" * 7 + b"\x01" + plain.signature(TEXT)):
        assert refused((TEXT + f"\n— {WITNESS.name} {base64_of(WITNESS.id + payload)}\n").encode())
    cosignature = WITNESS.signature(TEXT)
    for payload in (cosignature, cosignature[8:]):
        line = f"— {plain.name} {base64_of(plain.id + payload)}\n"
        assert "not its own" in refused((TEXT + "\n" + line).encode(), [parse_key(plain.vkey)])
    # ML-DSA-44 of the same name under the Ed25519 id.
    line = f"— {WITNESS.name} {base64_of(WITNESS.id + WITNESS_PQ.signature(TEXT))}\n"
    assert "not its own" in refused((TEXT + "\n" + line).encode())


@pytest.mark.parametrize("seconds", [0, 2**63, 2**64 - 1])
@pytest.mark.parametrize("signer", [WITNESS, WITNESS_PQ], ids=["ed25519", "ml-dsa-44"])
def test_cosigned_at_no_time(seconds, signer):
    """tlog-cosignature: at most 2^63 - 1; 0 says nothing of the newest head (tlog-witness: MUST NOT be zero)."""
    assert "at no time" in refused(signed(TEXT, signer, seconds=seconds))
    assert signers(parse_checkpoint(signed(TEXT, signer, seconds=2**63 - 1)), KEYS)


def test_the_time_is_signed():
    stamp = (1_700_000_001).to_bytes(8, "big")
    for signer in (WITNESS, WITNESS_PQ):
        line = f"— {signer.name} {base64_of(signer.id + stamp + signer.signature(TEXT)[8:])}\n"
        assert "not its own" in refused((TEXT + "\n" + line).encode())


def test_one_key_signs_once():
    note = signed(TEXT, WITNESS).decode() + WITNESS.line(TEXT, 1_700_000_001)
    assert "twice" in refused(note.encode())


def test_sixteen_signatures_of_the_largest_kind_and_many_of_others():
    """signed-note 1.0: at least 16 must be taken, of up to nearly 5 kB each."""
    others = [Signer(f"w{number}.example", COSIGNED_MLDSA) for number in range(3)]
    lines = [f"— big{number}.example {base64_of(bytes(4996))}\n" for number in range(32)]
    note = signed(TEXT, LOG_KEY, *others).decode() + "".join(lines)
    assert len(signers(parse_checkpoint(note.encode()), [KEYS[0], *(parse_key(o.vkey) for o in others)])) == 4


BAD_NOTES = {
    "nothing": b"",
    "no signature": TEXT.encode(),
    "no signature lines": (TEXT + "\n").encode(),
    "no blank line": NOTE.replace(b"\n\n", b"\n", 1),
    "two blank lines": NOTE.replace(b"\n\n", b"\n\n\n", 1),
    "no last newline": NOTE[:-1],
    "one newline more": NOTE + b"\n",
    "CR": NOTE.replace(b"\n", b"\r\n"),
    "CR in one line": NOTE.replace(b"\n", b"\r\n", 1),
    "NUL": NOTE.replace(b"lab", b"la\0", 1),
    "tab": NOTE.replace(b" ", b"\t", 1),
    "escape": NOTE.replace(b"lab", b"la\x1b[2J", 1),
    "not UTF-8": NOTE.replace(b"lab", b"la\xff", 1),
    "half a surrogate": NOTE.replace(b"lab", b"la\xed\xa0\x80", 1),
    "hyphen for dash": NOTE.replace("— ".encode(), b"- "),
    "no space behind the dash": NOTE.replace("— ".encode(), "—".encode()),
    "two spaces": NOTE.replace("— ".encode(), "—  ".encode(), 1),
    "space at the end": NOTE.replace(b"=\n", b"= \n"),
    "space before the size": NOTE.replace(b"\n5\n", b"\n 5\n"),
    "name with plus": NOTE.replace(b"witness", b"wit+ess", 1),
    "name with a no-break space": NOTE.replace("— witness".encode(), "— wit\xa0ess".encode()),
    "name with a line separator": NOTE.replace("— witness".encode(), "— wit\u2028ess".encode()),
    "no name": NOTE.replace("— lab.example/log ".encode(), "—  ".encode()),
    "text behind the signatures": NOTE + b"more\n",
    "leading zero": NOTE.replace(b"\n5\n", b"\n05\n"),
    "plus sign": NOTE.replace(b"\n5\n", b"\n+5\n"),
    "minus sign": NOTE.replace(b"\n5\n", b"\n-5\n"),
    "underscore": NOTE.replace(b"\n5\n", b"\n1_0\n"),
    "hexadecimal": NOTE.replace(b"\n5\n", b"\n0x5\n"),
    "Arabic digit": NOTE.replace(b"\n5\n", "\n٥\n".encode()),
    "Arabic digit behind another": NOTE.replace(b"\n5\n", "\n1٥\n".encode()),
    "fullwidth digit": NOTE.replace(b"\n5\n", "\n５\n".encode()),
    "2^63": NOTE.replace(b"\n5\n", b"\n9223372036854775808\n"),
    "10,000 digits": NOTE.replace(b"\n5\n", b"\n" + b"9" * 10_000 + b"\n"),
    "no origin": b"\n" + NOTE.split(b"\n", 1)[1],
    "two lines": NOTE.replace(b"\n5\n", b"\n"),
    "root of 31 bytes": signed(f"a\n5\n{base64_of(bytes(31))}\n", LOG_KEY),
    "root of 33 bytes": signed(f"a\n5\n{base64_of(bytes(33))}\n", LOG_KEY),
    "root of nothing": signed("a\n5\n=\n", LOG_KEY),
    "root in hexadecimal": signed(f"a\n5\n{bytes(32).hex()}\n", LOG_KEY),
    "root in base64url": signed("a\n5\n" + base64.urlsafe_b64encode(b"\xff" * 32).decode() + "\n", LOG_KEY),
    "root without padding": signed(f"a\n5\n{base64_of(bytes(32))[:-1]}\n", LOG_KEY),
    "root with other trailing bits": signed(f"a\n5\n{base64_of(bytes(32))[:-2]}B=\n", LOG_KEY),
    "root with a space": signed(f"a\n5\n{base64_of(bytes(32))} \n", LOG_KEY),
    "signature without padding": NOTE.replace(b"=\n\xe2", b"\n\xe2"),
    "signature of a key id": (TEXT + f"\n— a {base64_of(bytes(4))}\n").encode(),
    "signature of three bytes": (TEXT + f"\n— a {base64_of(bytes(3))}\n").encode(),
    "no signature behind a name": (TEXT + "\n— a \n").encode(),
    "10 MB of text": b"a" * 10_000_000 + b"\n" + NOTE,
    "10 MB of lines": NOTE + "— a AAAAAAA=\n".encode() * 700_000,
    "10 MB of blank lines": b"\n" * 10_000_000 + NOTE,
    "10 MB of dashes": NOTE + "—".encode() * 3_000_000 + b"\n",
}


@pytest.mark.parametrize("note", BAD_NOTES.values(), ids=BAD_NOTES)
def test_refused_before_any_signature(note):
    with pytest.raises(EvidenceError) as refusal:
        parse_checkpoint(note)
    assert refusal.value.step == "checkpoint"
    assert len(refusal.value.reason) < 700  # of 10 MB, the start is shown
    assert refusal.value.reason.isprintable()


def test_the_longest_note():
    spare = NOTE_LIMIT - len(NOTE)
    line = "— a " + base64_of(bytes(spare // 4 * 3 - 6)) + "\n"
    long = NOTE + line.encode()
    assert NOTE_LIMIT - 8 < len(long) <= NOTE_LIMIT
    assert len(signers(parse_checkpoint(long), KEYS)) == 3
    refused(long + "— a AAAAAAA=\n".encode())


def test_extension_lines():
    """Allowed, opaque; Ed25519 signs them, ML-DSA-44 does not (tlog-cosignature)."""
    text = TEXT + "extension 1\n— looks like a signature\n"
    note = signed(text, LOG_KEY, WITNESS, WITNESS_PQ)
    assert len(signers(parse_checkpoint(note), KEYS)) == 3
    assert parse_checkpoint(note).text == text.encode()
    changed = note.replace(b"extension 1", b"extension 2")
    refused(changed)
    assert list(signers(parse_checkpoint(changed), KEYS[2:])) == KEYS[2:]


def test_a_log_with_a_name_in_unicode():
    """Names are compared byte by byte: a composed letter is not the same as one with its accent behind it."""
    composed, apart = "lab.example/\u00e9", "lab.example/e\u0301"
    key = Signer(composed, LOG)
    note = signed(TEXT, key)
    assert signers(parse_checkpoint(note), [parse_key(key.vkey)])
    assert "none of" in refused(note.decode().replace(composed, apart).encode(), [parse_key(key.vkey)])


BAD_KEYS = {
    "nothing": "",
    "no name": LOG_KEY.vkey.removeprefix("lab.example/log"),
    "one plus": LOG_KEY.vkey.replace("+", "-", 1),
    "space in the name": Signer("lab example", LOG).vkey,
    "no-break space in the name": Signer("lab\xa0example", LOG).vkey,
    "newline in the name": Signer("lab\nexample", LOG).vkey,
    "text turned round in the name": Signer("lab\u202eexample", LOG).vkey,
    "nothing visible in the name": Signer("lab\u200bexample", LOG).vkey,
    "half a surrogate in the name": LOG_KEY.vkey.replace("lab", "l\udc80b"),
    "id in capitals": LOG_KEY.vkey.replace(LOG_KEY.id.hex(), LOG_KEY.id.hex().upper()),
    "id of another": LOG_KEY.vkey.replace(LOG_KEY.id.hex(), WITNESS.id.hex()),
    "name of another": LOG_KEY.vkey.replace("lab", "lob"),
    "id of seven digits": LOG_KEY.vkey.replace(LOG_KEY.id.hex(), LOG_KEY.id.hex()[:7]),
    "trailing space": LOG_KEY.vkey + " ",
    "trailing newline": LOG_KEY.vkey + "\n",
    "key without padding": WITNESS_PQ.vkey.rstrip("="),
    "two keys": f"{LOG_KEY.vkey}{LOG_KEY.vkey}",
    "10 MB": "a" * 10_000_000 + LOG_KEY.vkey,
}


def vkey_of(name, material):
    key_id = sha256(name.encode() + b"\n" + material)[:4].hex()
    return f"{name}+{key_id}+{base64_of(material)}"


@pytest.mark.parametrize("vkey", BAD_KEYS.values(), ids=BAD_KEYS)
def test_not_a_verifier_key(vkey):
    with pytest.raises(EvidenceError) as refusal:
        parse_key(vkey)
    assert refusal.value.step == "checkpoint"
    assert len(refusal.value.reason) < 700


@pytest.mark.parametrize("kind", [0, 2, 3, 5, 7, 0xFA, 0xFF])
def test_keys_of_other_types(kind):
    with pytest.raises(EvidenceError, match="type"):
        parse_key(vkey_of("a.example", bytes([kind]) + WITNESS.public))


@pytest.mark.parametrize(
    ("kind", "length"), [(1, 31), (1, 33), (4, 0), (4, 64), (6, 32), (6, 1311), (6, 1313)]
)
def test_keys_of_other_lengths(kind, length):
    with pytest.raises(EvidenceError, match="length"):
        parse_key(vkey_of("a.example", bytes([kind]) + bytes(length)))


def test_a_key_that_is_no_point_verifies_nothing():
    for kind, public in ((LOG, b"\xff" * 32), (LOG, bytes(32)), (COSIGNED, b"\xff" * 32)):
        key = parse_key(vkey_of("a.example", bytes([kind]) + public))
        line = f"— a.example {base64_of(key.id + bytes(7) + bytes([1]) + bytes(64))}\n"
        assert refused((TEXT + "\n" + line).encode(), [key])


@pytest.mark.parametrize("length", [0, 1, 8, 63, 65, 72, 4000])
@pytest.mark.parametrize("signer", [LOG_KEY, WITNESS, WITNESS_PQ], ids=["log", "ed25519", "ml-dsa-44"])
def test_signatures_of_other_lengths(signer, length):
    payload = (b"\0\0\0\0\0\0\0\1" + bytes(4000))[: max(length, 1)]
    assert refused((TEXT + f"\n— {signer.name} {base64_of(signer.id + payload)}\n").encode())


def test_names_too_long_for_ml_dsa():
    """Its message holds names of at most 255 bytes: refused, not cut."""
    long = Signer("w" * 256, COSIGNED_MLDSA)
    line = f"— {long.name} {base64_of(long.id + (5).to_bytes(8, 'big') + bytes(2420))}\n"
    assert "not its own" in refused((TEXT + "\n" + line).encode(), [parse_key(long.vkey)])
    origin = checkpoint_text("o" * 256, 5, LEAVES[0])
    line = f"— {WITNESS_PQ.name} {base64_of(WITNESS_PQ.id + (5).to_bytes(8, 'big') + bytes(2420))}\n"
    assert "not its own" in refused((origin + "\n" + line).encode())


@pytest.mark.parametrize("why", [ImportError, UnsupportedAlgorithm])
def test_an_older_cryptography_says_that_it_cannot(monkeypatch, why):
    """No module, or a module over an OpenSSL without ML-DSA: refused by name, never passed over."""
    if why is ImportError:
        monkeypatch.setitem(sys.modules, "cryptography.hazmat.primitives.asymmetric.mldsa", None)
    else:

        class Unsupported:
            @staticmethod
            def from_public_bytes(_):
                raise UnsupportedAlgorithm("ML-DSA is not supported by this backend")

        monkeypatch.setattr(mldsa, "MLDSA44PublicKey", Unsupported)
    assert "cannot check" in refused(NOTE)
    assert signers(parse_checkpoint(NOTE), KEYS[:2])


def test_reading_a_note_does_not_load_cryptography():
    """The agent imports these modules for its head of the log; what verifies signatures is loaded when it does."""
    code = "import sys, flopmeter.evidence.note; print('cryptography' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout == "False\n"


# Independent code: tlog-scales 0.0.3


def test_an_independent_library_takes_our_checkpoints():
    note = scales.Checkpoint.from_text(NOTE.decode())
    keys = [scales_signing.Vkey.from_string(one.vkey) for one in (LOG_KEY, WITNESS, WITNESS_PQ)]
    assert len(scales_signing.VkeySet(*keys).verify(note.signatures, note)) == 3
    for key in keys:
        note.verify(key)


def test_we_take_what_an_independent_library_signs():
    makers = [
        scales_signing.PlainEd25519Signer("s.example/log", b"\x05" * 32),
        scales_signing.MLDSA44CosignatureSigner("s.example/w", b"\x06" * 32),
    ]
    note = scales.Checkpoint.make_signed("s.example/log", 7, LEAVES[0], makers).serialize().encode()
    keys = [parse_key(maker.vkey.serialize()) for maker in makers]
    found = signers(parse_checkpoint(note), keys)
    assert list(found) == keys
    assert found[keys[0]] is None
    assert (found[keys[1]] or 0) > 1_700_000_000


@pytest.mark.parametrize("fault", ["no blank line", "no last newline", "CR"])
def test_what_the_independent_library_takes_and_must_not(fault):
    """reference/attestation.md 2.2: three MUST-refuse cases. There the bytes differ from what was signed."""
    note = BAD_NOTES[fault]
    if fault == "no blank line":  # that library skips the fourth line, whatever it says
        note = NOTE.replace(b"\n\n", b"\nanything at all\n", 1)
    read = scales.Checkpoint.from_text(note.decode())
    read.verify(scales_signing.Vkey.from_string(LOG_KEY.vkey))
    refused(note)


# Whatever bytes: one meaning, and never more than the independent library reads


PIECES = [
    b"\n",
    b"\n\n",
    b" ",
    "— ".encode(),
    b"a",
    b"5",
    b"0",
    b"AAAAAAA=",
    b"=",
    b"+",
    b"\r",
    b"\0",
    b"\xff",
    "\u2028".encode(),
]
splices = st.lists(
    st.tuples(st.floats(0, 1), st.integers(0, 3), st.sampled_from(PIECES) | st.binary(max_size=3)), max_size=3
)


def spliced(data, changes):
    """Some bytes of it taken away, others put in their place."""
    for where, gone, put in changes:
        at = int(where * len(data))
        data = data[:at] + put + data[at + gone :]
    return data


@given(splices)
@settings(max_examples=400, deadline=None)
def test_a_note_that_is_taken_has_one_form_and_one_meaning(changes):
    note = spliced(signed(TEXT, LOG_KEY, WITNESS), changes)
    try:
        found = parse_checkpoint(note)
    except EvidenceError:
        return
    lines = "".join(f"— {name} {base64_of(key_id + signature)}\n" for name, key_id, signature in found.lines)
    assert found.text + b"\n" + lines.encode() == note
    assert found.text.startswith(checkpoint_text(found.origin, found.size, found.root).encode())
    if found.text.count(b"\n") == 3 and not set(found.origin) & set("\x85\u2028\u2029"):  # which it splits at
        read = scales.Checkpoint.from_text(note.decode())
        assert (read.origin, read.size, read.root_hash) == (found.origin, found.size, found.root)
        theirs = [(one.name, one.key_id.to_bytes(4, "big"), one.payload) for one in read.signatures]
        assert theirs == list(found.lines)


@given(splices)
@settings(max_examples=400, deadline=None)
def test_a_proof_that_is_taken_has_one_form(changes):
    data = spliced(tlog_proof(3, LEAVES, NOTE[:200], b"extra"), changes)
    try:
        index, hashes, extra, checkpoint = parse_proof(data)
    except EvidenceError:
        return
    assert tlog_proof(index, hashes, checkpoint, extra) == data
