"""The pure rules: sequence, loss, window, run and scope."""

from dataclasses import replace

import pytest
from builders import Chain

from flopmeter.collector.encode import decode_batch
from flopmeter.collector.ingest import decide as ingest
from flopmeter.collector.ingest.decide import (
    DUPLICATE,
    Head,
    PushbackReason,
    PushedBack,
    RefusalCode,
    Refused,
)
from flopmeter.contract.record import ZERO_HASH, parse_record, record_hash
from flopmeter.contract.usage import Inventory, Workload, WorkloadKind
from flopmeter.wire.v1 import ingest_pb2

NODE = Inventory("node7", "c1", "", "", "sim", ())


def test_codes_and_reasons_are_the_wires():
    assert {c.name: int(c) for c in RefusalCode} == {
        name.removeprefix("CODE_"): number for name, number in ingest_pb2.Refusal.Code.items() if number
    }
    assert {r.name: int(r) for r in PushbackReason} == {
        name.removeprefix("REASON_"): number for name, number in ingest_pb2.Pushback.Reason.items() if number
    }


@pytest.mark.parametrize(
    ("kind", "scope"),
    [
        (WorkloadKind.IDLE, "c1/node7"),
        (WorkloadKind.UNATTRIBUTED, "c1/node7"),
        (WorkloadKind.SLURM, "c1"),
        (WorkloadKind.POD, "c1"),
        (WorkloadKind.OTHER, "c1"),
        (WorkloadKind.PROCESS, "c1/node7"),
    ],
)
def test_within_what_a_jobs_name_means_one_thing(kind, scope):
    assert ingest.scope_of(Workload(kind, job="42"), NODE) == scope


def records(n):
    chain = Chain()
    return [parse_record(chain.next()) for _ in range(n)]


def test_only_the_next_number_is_taken():
    first, second, third = records(3)
    head = Head()
    assert ingest.sequence(head, first) is None
    out = ingest.sequence(head, second)
    assert isinstance(out, PushedBack)
    assert out.reason == PushbackReason.OUT_OF_SEQUENCE
    head = Head(1, record_hash(first.raw))
    assert ingest.sequence(head, second) is None
    assert isinstance(ingest.sequence(head, third), PushedBack)


def test_a_first_record_must_chain_to_nothing():
    first = parse_record(Chain().seal(b"", prev_hash=b"x" * 32))
    out = ingest.sequence(Head(), first)
    assert isinstance(out, Refused)
    assert out.code == RefusalCode.BROKEN_CHAIN


@pytest.mark.parametrize(
    ("last_seq", "oldest", "gone"),
    [
        (0, 0, None),
        (0, 1, None),
        (0, 2, (1, 1)),
        (5, 0, None),
        (5, 3, None),
        (5, 6, None),
        (5, 7, (6, 6)),
        (5, 20, (6, 19)),
    ],
)
def test_loss_is_what_the_agent_no_longer_has(last_seq, oldest, gone):
    assert ingest.loss(Head(last_seq), oldest) == gone


def test_after_a_loss_any_previous_hash_is_good_once():
    head = Head(5, b"h" * 32, lost=[(6, 9)])
    assert head.next_seq == 10
    chain = Chain()
    tenth = parse_record(chain.seal(b"", seq=10, prev_hash=b"?" * 32))
    assert ingest.sequence(head, tenth) is None
    assert ingest.loss(head, 10) is None
    assert ingest.loss(head, 12) == (10, 11)
    head.last_seq, head.last_hash = 10, tenth.hash
    eleventh = parse_record(chain.seal(b"", seq=11, prev_hash=b"?" * 32))
    out = ingest.sequence(head, eleventh)
    assert isinstance(out, Refused)
    assert out.code == RefusalCode.BROKEN_CHAIN


def test_behind_the_head_bytes_decide():
    (first,) = records(1)
    head = Head(3, b"h" * 32)
    assert ingest.behind(head, first, first.hash, first.hash) is DUPLICATE
    for known in (None, b"o" * 32):
        out = ingest.behind(head, first, first.hash, known)
        assert isinstance(out, Refused)
        assert out.code == RefusalCode.CONFLICT


def test_a_record_that_was_declared_lost_is_no_fork():
    (first,) = records(1)
    head = Head(3, b"h" * 32, lost=[(1, 2)])
    out = ingest.behind(head, first, first.hash, None)
    assert isinstance(out, Refused)
    assert out.code == RefusalCode.BROKEN_CHAIN
    assert "declared lost" in out.message


def test_windows_of_one_boot_may_touch_and_not_overlap():
    (record,) = records(1)
    head = Head(3, ZERO_HASH, record.boot_id, 1_000, 1)
    assert ingest.window(head, record, 1_000, 1, now_unix_ns=1) is None
    out = ingest.window(head, record, 999, 1, now_unix_ns=1)
    assert isinstance(out, Refused)
    assert out.code == RefusalCode.OVERLAP
    other_boot = Head(3, ZERO_HASH, b"another boot 16b", 1_000, 1)
    assert ingest.window(other_boot, record, 5, 1, now_unix_ns=1) is None


def test_a_boot_that_is_over_does_not_come_back():
    (record,) = records(1)
    head = Head(3, ZERO_HASH, b"another boot 16b", 1_000, 1, boots={record.boot_id: 700})
    booked = ingest.window(head, record, 699, 1, now_unix_ns=1)
    assert isinstance(booked, Refused)
    assert booked.code == RefusalCode.OVERLAP  # its usage is in the books: nothing is counted twice
    later = ingest.window(head, record, 700, 1, now_unix_ns=1)
    assert isinstance(later, Refused)
    assert later.code == RefusalCode.CONFLICT


def test_moving_to_another_boot_remembers_where_the_one_before_ended():
    first, second = records(2)
    head = Head()

    def taken(record, digest, end_boot_ns):
        window = replace(decode_batch(record.payload), window_end_boot_ns=end_boot_ns)
        ingest.move(head, record, digest, window, received_unix_ns=5, stopped=False)

    taken(first, b"h1", 2_000_000_000_000)
    taken(second, b"h2", 3_000_000_000_000)
    assert head.boots == {}
    other = second._replace(boot_id=b"another boot 16b")
    taken(other, b"h3", 1_500_000_000_000)
    assert head.boots == {first.boot_id: 3_000_000_000_000}
    assert (head.boot_id, head.window_end_boot_ns) == (other.boot_id, 1_500_000_000_000)
    assert head.last_hash == b"h3"
