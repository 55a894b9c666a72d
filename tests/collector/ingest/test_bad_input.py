"""Everything that can be wrong with what an agent sends, and the exact answer to each.

Each case starts from an agent with two good records in the books, so that a refusal can also be seen to
leave the books and the chain as they were, and the good third record is taken afterwards.
"""

import re

import pytest
from builders import WINDOW_NS, Chain, busy
from desk import DAY_NS, Desk

from flopmeter.collector.ingest.admission import Admission
from flopmeter.collector.ingest.decide import (
    DUPLICATE,
    TAKEN,
    PushbackReason,
    PushedBack,
    RefusalCode,
    Refused,
)
from flopmeter.contract.limits import MAX_CLOCK_AHEAD_NS, MAX_RECORD_BYTES
from flopmeter.contract.usage import Workload, WorkloadKind


def changed(chain, **values):
    """The next record with fields of its Batch changed."""
    message = chain.batch()
    for name, value in values.items():
        setattr(message, name, value)
    return chain.seal(message.SerializeToString())


def with_row(chain, **values):
    message = chain.batch()
    for name, value in values.items():
        setattr(message.usage[0], name, value)
    return chain.seal(message.SerializeToString())


def flipped(raw, at):
    return raw[:at] + bytes([raw[at] ^ 1]) + raw[at + 1 :]


def good(chain):
    return chain.seal(chain.batch().SerializeToString())


def other(chain):
    """Another agent's chain that has got as far."""
    stranger = Chain("stranger")
    stranger.next()
    stranger.next()
    return stranger


R, P = RefusalCode, PushbackReason
CASES = {
    "empty": (lambda c: b"", R.MALFORMED, "expected 136 to 1048576 bytes, got 0"),
    "half a header": (lambda c: good(c)[:50], R.MALFORMED, "got 50"),
    "half written": (lambda c: good(c)[:200], R.BAD_SIGNATURE, "does not verify"),
    "last byte missing": (lambda c: good(c)[:-1], R.BAD_SIGNATURE, "does not verify"),
    "a byte too many": (lambda c: good(c) + b"\0", R.BAD_SIGNATURE, "does not verify"),
    "number zero": (lambda c: good(c)[:32] + bytes(8) + good(c)[40:],
                    R.MALFORMED, "expected 1 … 2\\^63-1, got 0"),
    "number past 2^63": (lambda c: good(c)[:32] + b"\xff" * 8 + good(c)[40:], R.MALFORMED, "2\\^63-1"),
    "oversized": (lambda c: c.seal(bytes(MAX_RECORD_BYTES)), R.TOO_LARGE, "at most 1048576 bytes"),
    "unsigned": (lambda c: good(c)[:-64] + bytes(64), R.BAD_SIGNATURE, "does not verify"),
    "signed by another key": (
        lambda c: c.seal(c.batch().SerializeToString(), secret_key=Chain("x").secret_key),
        R.BAD_SIGNATURE, "does not verify"),
    "signed for another purpose": (
        lambda c: c.seal(c.batch().SerializeToString(), domain=b"flopmeter-hello-v1\n"),
        R.BAD_SIGNATURE, "does not verify"),
    "payload changed after signing": (lambda c: flipped(good(c), 100), R.BAD_SIGNATURE, "does not verify"),
    "boot id changed after signing": (lambda c: flipped(good(c), 20), R.BAD_SIGNATURE, "does not verify"),
    "another agent's record": (lambda c: other(c).next(), R.WRONG_AGENT, "one agent's records"),
    "another agent's id, own key": (
        lambda c: c.seal(c.batch().SerializeToString(), agent=other(c).agent_id), R.WRONG_AGENT, "expected agent"),
    "signed garbage": (lambda c: c.seal(b"\xff\xff\xff"), R.MALFORMED, "do not parse"),
    "empty payload": (lambda c: c.seal(b""), R.MALFORMED, "wall-clock times"),
    "batch cut in half, then signed": (
        lambda c: c.seal(c.batch().SerializeToString()[:-9]), R.MALFORMED, "do not parse|boot-time|entity"),
    "number skipped": (
        lambda c: c.seal(c.batch().SerializeToString(), seq=4), P.OUT_OF_SEQUENCE, "expected record 3, got 4"),
    "broken chain": (
        lambda c: c.seal(c.batch().SerializeToString(), prev_hash=bytes(32)), R.BROKEN_CHAIN, "expected prev_hash"),
    "replayed, other bytes": (
        lambda c: c.seal(c.batch().SerializeToString(), seq=2), R.CONFLICT, "another record of this number"),
    "replayed first, other bytes": (
        lambda c: c.seal(c.batch().SerializeToString(), seq=1, prev_hash=bytes(32)),
        R.CONFLICT, "another record of this number"),
    "replayed number, garbage signed": (
        lambda c: c.seal(b"\xff", seq=1), R.CONFLICT, "another record of this number"),
    "window overlaps": (
        lambda c: changed(c, window_start_boot_ns=c.boot_ns - 1), R.OVERLAP, "is in the books already"),
    "window backwards": (
        lambda c: changed(c, window_start_boot_ns=c.boot_ns + WINDOW_NS + 1), R.MALFORMED, "start <= end"),
    "from the future": (
        lambda c: changed(c, window_end_unix_ns=c.unix_ns - 2 * WINDOW_NS + DAY_NS + MAX_CLOCK_AHEAD_NS + 1),
        P.FROM_THE_FUTURE, "300 s ahead of this clock"),
    "inventory not sent": (
        lambda c: changed(c, inventory_digest=bytes(32)), P.INVENTORY_UNKNOWN, "which was not sent"),
    "entity not in the inventory": (lambda c: with_row(c, entity_index=9), R.MALFORMED, "past the inventory"),
    "evidence class of the future": (lambda c: with_row(c, evidence_class=99), R.MALFORMED, "not known"),
    "more cycles than time": (
        lambda c: with_row(c, sm_elapsed_cycles=10**15), R.IMPLAUSIBLE, "elapsed SM-cycles, got 1000000000000000"),
    "more tensor cycles than elapsed": (
        lambda c: with_row(c, hmma_cycles=10**14), R.IMPLAUSIBLE, "hmma_cycles 100000000000000 exceed"),
    "a megawatt": (lambda c: with_row(c, energy_mj=10**12), R.IMPLAUSIBLE, "mJ is more than 10000 W"),
    "run label with control characters": (
        lambda c: c.seal(c.batch(workloads=[Workload(WorkloadKind.SLURM, run="a\nb")]).SerializeToString()),
        R.MALFORMED, "run: expected printable"),
}  # fmt: skip


@pytest.fixture
def desk(tmp_path):
    with Desk(tmp_path / "books.db") as desk:
        yield desk


@pytest.fixture
def chain():
    return Chain("gpu-001")


@pytest.fixture
def agent(desk, chain):
    agent = desk.agent(chain)
    for _ in range(2):
        assert desk.offer(agent, chain.next()) is TAKEN
    desk.commit()
    return agent


@pytest.mark.parametrize("name", CASES)
def test_each_bad_record_gets_its_exact_answer_and_changes_nothing(desk, chain, agent, name):
    make, code, said = CASES[name]
    before = desk.totals(), desk.rows("SELECT hash FROM records"), desk.rows("SELECT * FROM workloads")
    outcome = desk.offer(agent, make(chain))
    if isinstance(code, RefusalCode):
        assert isinstance(outcome, Refused)
        assert outcome.code == code
    else:
        assert isinstance(outcome, PushedBack)
        assert outcome.reason == code
    assert re.search(said, outcome.message), outcome.message
    assert not desk.intake.group.records
    desk.commit()
    assert (
        desk.totals(),
        desk.rows("SELECT hash FROM records"),
        desk.rows("SELECT * FROM workloads"),
    ) == before
    assert desk.offer(agent, chain.next()) is TAKEN  # the good third record


@pytest.mark.parametrize("number", [1, 2])
def test_a_replayed_record_is_known_and_counts_nothing(desk, chain, agent, number):
    before = desk.totals()
    assert desk.offer(agent, chain.records[number - 1]) is DUPLICATE
    desk.commit()
    assert desk.totals() == before


def test_a_record_on_its_way_into_the_books_is_a_duplicate_too(desk, chain, agent):
    third = chain.next()
    assert desk.offer(agent, third) is TAKEN
    assert desk.offer(agent, third) is DUPLICATE
    forged = chain.seal(b"", seq=3)
    outcome = desk.offer(agent, forged)
    assert isinstance(outcome, Refused)
    assert outcome.code == R.CONFLICT
    assert len(desk.intake.group.records) == 1


def test_unknown_fields_are_taken_and_kept_byte_for_byte(desk, chain, agent):
    newer = chain.batch().SerializeToString() + bytes([0xFA, 0x07, 3]) + b"new"
    raw = chain.next(payload=newer)
    assert desk.offer(agent, raw) is TAKEN
    desk.commit()
    assert desk.rows("SELECT record FROM records WHERE seq = 3") == [(raw,)]


def test_at_the_edge_of_the_future_a_record_is_taken(desk, chain, agent):
    message = chain.batch()
    message.window_end_unix_ns = desk.now + MAX_CLOCK_AHEAD_NS
    assert desk.offer(agent, chain.seal(message.SerializeToString())) is TAKEN


def test_boot_time_starts_again_after_a_reboot(desk, chain, agent):
    chain.reboot()
    assert desk.offer(agent, chain.next()) is TAKEN


def test_a_refused_batch_leaves_no_names_behind(desk, chain, agent):
    bad = [Workload(WorkloadKind.SLURM, job="new"), Workload(WorkloadKind.SLURM, job="a\nb")]
    outcome = desk.offer(agent, chain.seal(chain.batch([busy(0)], bad).SerializeToString()))
    assert isinstance(outcome, Refused)
    assert not desk.intake.group
    good = [Workload(WorkloadKind.SLURM, job="later")]
    assert desk.offer(agent, chain.next([busy(0)], good)) is TAKEN
    desk.commit()
    assert [r[0] for r in desk.rows("SELECT job FROM workloads")] == ["4711", "later"]


HELLOS = {
    "key of 31 bytes": ({"public_key": bytes(31)}, R.MALFORMED, "expected 32 bytes"),
    "node with control characters": ({"node": "a\nb"}, R.MALFORMED, "node: expected printable"),
    "version too long": ({"version": "x" * 257}, R.MALFORMED, "agent_version: expected at most 256"),
    "oldest past newest": ({"oldest_seq": 9}, R.MALFORMED, "oldest_seq <= newest_seq"),
    "newest past 2^63": ({"newest_seq": 1 << 63}, R.MALFORMED, "< 2\\^63"),
    "not admitted": ({}, R.UNKNOWN_AGENT, "was not admitted; add its public key"),
}


@pytest.mark.parametrize("name", HELLOS)
def test_bad_hellos_are_refused_by_name(tmp_path, chain, name):
    values, code, said = HELLOS[name]
    admission = Admission(admit_new=name != "not admitted")
    with Desk(tmp_path / "b.db", admission=admission) as desk:
        what = {
            "public_key": chain.public_key,
            "node": "n",
            "version": "1",
            "oldest_seq": 0,
            "newest_seq": 0,
            "now_unix_ns": desk.now,
        } | values
        outcome = desk.intake.hello(**what)
        assert isinstance(outcome, Refused)
        assert outcome.code == code
        assert re.search(said, outcome.message), outcome.message
        assert not desk.intake.group


def test_a_listed_key_is_admitted(tmp_path, chain):
    with Desk(tmp_path / "b.db", admission=Admission({chain.public_key: "gpu-001"})) as desk:
        assert desk.agent(chain).admitted_how == "file"
        assert isinstance(desk.hello(Chain("other")), Refused)


def test_a_bad_inventory_is_refused(desk, chain, agent):
    outcome = desk.intake.inventory(agent, b"\xff\xff", desk.now)
    assert outcome is not None
    assert outcome.code == R.MALFORMED
