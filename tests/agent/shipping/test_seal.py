"""A sealed record is what the contract says, checked with other tools than those that made it."""

from itertools import pairwise
from pathlib import Path

import pytest
from chains import BOOT, entries
from nacl.signing import VerifyKey

from flopmeter.agent.keys import load_or_create_key
from flopmeter.agent.shipping.seal import RecordTooLargeError, behind, reseal, seal_record
from flopmeter.agent.shipping.spool import Tip
from flopmeter.contract.limits import MAX_RECORD_BYTES
from flopmeter.contract.record import DOMAIN, ZERO_HASH, parse_record, record_hash


def test_a_record_carries_its_number_its_chain_and_a_good_signature(tmp_path: Path) -> None:
    key = load_or_create_key(tmp_path)
    raw = seal_record(key, BOOT, Tip(7, bytes(range(32)), b""), b"payload")
    record = parse_record(raw)
    assert (record.agent_id, record.boot_id, record.seq) == (key.agent_id, BOOT, 7)
    assert (record.prev_hash, record.payload) == (bytes(range(32)), b"payload")
    VerifyKey(key.public).verify(DOMAIN + raw[:-64], raw[-64:])
    assert raw == seal_record(key, BOOT, Tip(7, bytes(range(32)), b"other journal"), b"payload")


def test_a_chain_goes_on_from_each_record(tmp_path: Path) -> None:
    made = entries(load_or_create_key(tmp_path), Tip(1, ZERO_HASH, b""), 4)
    for before, after in pairwise(made):
        assert after.prev_hash == record_hash(before.record)
        assert behind(before) == Tip(after.seq, after.prev_hash, before.journal)


def test_sealing_again_changes_number_chain_and_signature_only(tmp_path: Path) -> None:
    key = load_or_create_key(tmp_path)
    entry = entries(key, Tip(3, ZERO_HASH, b""), 1)[0]
    again = reseal(key, entry, Tip(9, bytes(range(32)), b""))
    old, new = parse_record(entry.record), parse_record(again.record)
    assert (new.payload, new.boot_id, new.agent_id) == (old.payload, old.boot_id, old.agent_id)
    assert (new.seq, new.prev_hash) == (9, bytes(range(32)))
    VerifyKey(key.public).verify(new.message, new.signature)
    assert (again.journal, again.inventory_digest) == (entry.journal, entry.inventory_digest)
    assert again.window_end_boot_ns == entry.window_end_boot_ns


def test_a_record_just_small_enough_is_sealed_and_one_byte_more_is_not(tmp_path: Path) -> None:
    key, tip = load_or_create_key(tmp_path), Tip(1, ZERO_HASH, b"")
    room = MAX_RECORD_BYTES - 72 - 64
    assert len(seal_record(key, BOOT, tip, bytes(room))) == MAX_RECORD_BYTES
    with pytest.raises(RecordTooLargeError, match="at most 1048576") as caught:
        seal_record(key, BOOT, tip, bytes(room + 1))
    assert "--window" in caught.value.hint
