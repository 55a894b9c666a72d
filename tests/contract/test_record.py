"""The record's bytes: fixed vectors, so that no change of code can change what was signed unnoticed."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from nacl.bindings import crypto_sign_open
from nacl.exceptions import BadSignatureError
from nacl.signing import SigningKey

from flopmeter.contract.errors import ContractError
from flopmeter.contract.ids import agent_id
from flopmeter.contract.limits import MAX_RECORD_BYTES
from flopmeter.contract.record import (
    HEADER_BYTES,
    MAX_SEQ,
    MIN_RECORD_BYTES,
    ZERO_HASH,
    Record,
    parse_record,
    record_hash,
    unsigned_record,
)
from flopmeter.wire.v1 import batch_pb2

GENERATOR = Path(__file__).parents[1] / "vectors" / "generate.py"
VECTORS = json.loads(GENERATOR.with_name("records.json").read_text())
PUBLIC = bytes.fromhex(VECTORS["public_key"])
CHAIN = [bytes.fromhex(entry["record"]) for entry in VECTORS["chain"]]


def signature_holds(record: Record) -> bool:
    try:
        crypto_sign_open(record.signature + record.message, PUBLIC)
    except BadSignatureError:
        return False
    return True


def test_vectors_are_what_the_generator_writes() -> None:
    result = subprocess.run([sys.executable, GENERATOR, "--check"], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr


@pytest.mark.parametrize("seq", [1, 2, 3])
def test_every_field_lies_where_the_layout_says(seq: int) -> None:
    raw = CHAIN[seq - 1]
    record = parse_record(raw)
    assert record.agent_id == raw[0:16] == agent_id(PUBLIC) == bytes.fromhex(VECTORS["agent_id"])
    assert record.boot_id == raw[16:32] == bytes.fromhex("00112233445566778899aabbccddeeff")
    assert record.seq == seq == int.from_bytes(raw[32:40], "big")
    assert record.prev_hash == raw[40:72] == (record_hash(CHAIN[seq - 2]) if seq > 1 else ZERO_HASH)
    assert record.payload == raw[72:-64]
    assert record.signature == raw[-64:]
    assert record.message == b"flopmeter-batch-v1\n" + raw[:-64]
    assert record.raw is raw
    assert record.hash.hex() == VECTORS["chain"][seq - 1]["hash"]
    assert signature_holds(record)
    batch = batch_pb2.Batch.FromString(record.payload)
    assert (batch.window_start_boot_ns, batch.window_end_boot_ns) == (
        seq * 60 * 10**9,
        (seq + 1) * 60 * 10**9,
    )
    assert sum(u.duration_ns for u in batch.usage) == 60 * 10**9


@pytest.mark.parametrize("name", VECTORS["tampered"])
def test_tampering_is_noticed(name: str) -> None:
    entry = VECTORS["tampered"][name]
    raw = bytes.fromhex(entry["record"]).ljust(entry["size"], b"\0")
    noticed_by = entry["noticed_by"]
    if noticed_by in ("size", "seq"):
        with pytest.raises(ContractError, match=f"record{' seq' if noticed_by == 'seq' else ''}: expected"):
            parse_record(raw)
        return
    record = parse_record(raw)
    if noticed_by == "signature":
        assert not signature_holds(record)
        return
    assert signature_holds(record), "this tamperer had the key"
    if noticed_by == "identity":
        assert record.agent_id != agent_id(PUBLIC)
    else:
        assert record.prev_hash != record_hash(CHAIN[0])


def test_openssl_verifies_a_record_cut_with_dd(tmp_path: Path) -> None:
    if shutil.which("openssl") is None:
        pytest.skip("openssl is not installed")
    record = parse_record(CHAIN[1])
    (tmp_path / "message").write_bytes(record.message)
    (tmp_path / "signature").write_bytes(record.signature)
    # SubjectPublicKeyInfo of an Ed25519 key: a fixed prefix (RFC 8410) and the key.
    (tmp_path / "key.der").write_bytes(bytes.fromhex("302a300506032b6570032100") + PUBLIC)
    command = ["openssl", "pkeyutl", "-verify", "-rawin", "-pubin", "-keyform", "DER", "-inkey", "key.der"]
    command += ["-in", "message", "-sigfile", "signature"]
    good = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert good.returncode == 0, good.stderr
    (tmp_path / "message").write_bytes(record.message[:-1])
    assert subprocess.run(command, cwd=tmp_path, capture_output=True).returncode != 0


@given(seq=st.integers(1, MAX_SEQ), payload=st.binary(max_size=300), ids=st.binary(min_size=64, max_size=64))
def test_building_and_cutting_are_inverse(seq: int, payload: bytes, ids: bytes) -> None:
    agent, boot, prev = ids[:16], ids[16:32], ids[32:]
    unsigned = unsigned_record(agent_id=agent, boot_id=boot, seq=seq, prev_hash=prev, payload=payload)
    record = parse_record(unsigned + bytes(64))
    assert (record.agent_id, record.boot_id, record.seq, record.prev_hash) == (agent, boot, seq, prev)
    assert record.payload == payload
    assert record.message.endswith(unsigned)


@given(raw=st.binary(max_size=400))
def test_no_bytes_crash_the_parser(raw: bytes) -> None:
    try:
        record = parse_record(raw)
    except ContractError as e:
        assert "expected" in str(e)
        assert "got" in str(e)
    else:
        assert record.raw == raw
        assert record.agent_id + record.boot_id + raw[32:40] + record.prev_hash == raw[:HEADER_BYTES]


def test_two_records_never_share_a_message() -> None:
    """Fixed widths: moving a byte from one field to the next gives another message."""
    one = unsigned_record(agent_id=b"a" * 16, boot_id=b"b" * 16, seq=1, prev_hash=b"c" * 32, payload=b"dd")
    two = unsigned_record(
        agent_id=b"a" * 16, boot_id=b"b" * 16, seq=1, prev_hash=b"c" * 31 + b"d", payload=b"d"
    )
    assert one != two


@pytest.mark.parametrize("size", [0, 1, MIN_RECORD_BYTES - 1, MAX_RECORD_BYTES + 1])
def test_size_limits_are_enforced(size: int) -> None:
    with pytest.raises(ContractError, match=f"got {size}$"):
        parse_record(bytes(size))


def test_sizes_at_the_limits_are_taken() -> None:
    head = unsigned_record(agent_id=bytes(16), boot_id=bytes(16), seq=1, prev_hash=bytes(32), payload=b"")
    assert parse_record(head + bytes(64)).payload == b""
    assert len(parse_record(head + bytes(MAX_RECORD_BYTES - HEADER_BYTES)).raw) == MAX_RECORD_BYTES


@pytest.mark.parametrize("seq", [0, -1, MAX_SEQ + 1])
def test_numbers_outside_the_range_are_refused_when_building(seq: int) -> None:
    with pytest.raises(ContractError, match="record seq"):
        unsigned_record(agent_id=bytes(16), boot_id=bytes(16), seq=seq, prev_hash=bytes(32), payload=b"")


@pytest.mark.parametrize(("agent", "boot", "prev"), [(15, 16, 32), (16, 17, 32), (16, 16, 0), (0, 0, 0)])
def test_header_fields_of_a_wrong_width_are_refused_when_building(agent: int, boot: int, prev: int) -> None:
    with pytest.raises(ContractError, match="record header"):
        unsigned_record(agent_id=bytes(agent), boot_id=bytes(boot), seq=1, prev_hash=bytes(prev), payload=b"")


def test_agent_id_follows_from_the_key_alone() -> None:
    ids = {agent_id(SigningKey(bytes([n]) * 32).verify_key.encode()) for n in range(20)}
    assert len(ids) == 20
    assert {len(i) for i in ids} == {16}
