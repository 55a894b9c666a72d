"""The uplink against a scripted collector on loopback: streams that break, wait, and end."""

import gc
import logging
import threading
from itertools import pairwise
from pathlib import Path
from random import Random

import pytest
from chains import BOOT, WINDOW_NS, append, open_chain
from uplinks import WAIT_S, Connect, gaps_of, in_books, payload_of, settled

from fakes import FakeCollector
from flopmeter.agent.errors import SpoolFullError
from flopmeter.agent.shipping.backoff import Backoff
from flopmeter.agent.shipping.chain import Chain, HeadFacts
from flopmeter.agent.shipping.status import Timing
from flopmeter.contract.record import record_hash
from flopmeter.contract.usage import GapReason
from flopmeter.wire.v1 import ingest_pb2 as pb


def test_records_go_up_and_acks_come_down(collector: FakeCollector, chain: Chain, connect: Connect) -> None:
    append(chain, 0, 3)
    uplink = connect(collector.target)
    settled(uplink, 3)
    append(chain, 3, 2)
    settled(uplink, 5)
    in_books(collector, chain)
    assert chain.spool.pending == 0
    status = uplink.status
    assert status.connected
    assert (status.acked_seq, status.connects, status.last_error) == (5, 1, "")
    assert status.last_ack_unix_ns > 0
    hello = collector.hellos[0]
    assert (hello.node, hello.agent_version, hello.boot_id) == ("node-a", "0.1.0", BOOT)
    assert (hello.oldest_seq, hello.newest_seq) == (1, 3)
    assert len(collector.inventories) == 1


def test_a_backlog_travels_many_records_in_a_message(
    collector: FakeCollector, chain: Chain, connect: Connect
) -> None:
    append(chain, 0, 600)
    settled(connect(collector.target), 600)
    in_books(collector, chain)
    assert max(collector.messages) == 256
    assert len(collector.messages) < 60


def test_no_more_is_in_flight_than_the_collector_allows(
    collector: FakeCollector, chain: Chain, connect: Connect
) -> None:
    collector.max_in_flight = 4
    append(chain, 0, 50)
    settled(connect(collector.target), 50)
    assert max(collector.messages) <= 4


def test_a_restart_resumes_from_the_collectors_word(
    collector: FakeCollector, chain: Chain, connect: Connect, tmp_path: Path
) -> None:
    append(chain, 0, 5)
    first = connect(collector.target)
    settled(first, 5)
    first.stop()
    chain.spool.close()
    (tmp_path / "state/spool/acked").unlink()  # the hint is lost
    again = open_chain(tmp_path / "state")
    assert again.spool.pending == 5
    uplink = connect(collector.target, chain=again)
    settled(uplink, 5)
    append(again, 5, 1)
    settled(uplink, 6)
    assert len(collector.received) == 6
    in_books(collector, again)
    uplink.stop()
    again.spool.close()


@pytest.mark.parametrize("after", [0, 1, 7, 30])
def test_a_dropped_stream_loses_and_doubles_nothing(
    collector: FakeCollector, chain: Chain, connect: Connect, after: int
) -> None:
    collector.drop_after = after
    collector.max_in_flight = 5
    append(chain, 0, 31)
    uplink = connect(collector.target)
    settled(uplink, 31)
    in_books(collector, chain)
    assert uplink.status.connects == 2


def test_a_collector_that_comes_late_finds_everything(chain: Chain, connect: Connect) -> None:
    first = FakeCollector()
    port = first.port
    first.stop()
    append(chain, 0, 3)
    uplink = connect(f"127.0.0.1:{port}", Timing(connect_s=0.1, backoff_base_s=0.01, backoff_cap_s=0.05))
    assert uplink.wait_for(lambda: "no connection" in uplink.status.last_error, WAIT_S)
    assert not uplink.status.connected
    late = FakeCollector(port)
    try:
        settled(uplink, 3)
        in_books(late, chain)
    finally:
        late.stop()


def test_no_ack_within_the_deadline_means_a_new_stream(
    collector: FakeCollector, chain: Chain, connect: Connect
) -> None:
    collector.mute = True
    append(chain, 0, 3)
    uplink = connect(collector.target, Timing(ack_s=0.2, backoff_base_s=0.01, backoff_cap_s=0.05))
    assert uplink.wait_for(lambda: "no ack for" in uplink.status.last_error, WAIT_S), uplink.status
    collector.mute = False
    settled(uplink, 3)
    assert uplink.status.connects > 1
    in_books(collector, chain)


def test_a_collector_that_says_nothing_is_left_after_the_deadline(
    collector: FakeCollector, chain: Chain, connect: Connect
) -> None:
    collector.silent_handshake = True
    append(chain, 0, 1)
    uplink = connect(collector.target, Timing(handshake_s=0.1, backoff_base_s=0.01, backoff_cap_s=0.05))
    assert uplink.wait_for(lambda: "no challenge" in uplink.status.last_error, WAIT_S)
    collector.silent_handshake = False
    settled(uplink, 1)


def test_answers_that_are_no_messages_end_the_stream_with_a_reason(
    collector: FakeCollector, chain: Chain, connect: Connect
) -> None:
    collector.garbage = True
    append(chain, 0, 1)
    uplink = connect(collector.target)
    assert uplink.wait_for(lambda: "does not parse" in uplink.status.last_error, WAIT_S)
    collector.garbage = False
    settled(uplink, 1)


@pytest.mark.parametrize(
    "reason",
    [
        pb.Pushback.REASON_STORE_UNAVAILABLE,
        pb.Pushback.REASON_OVERLOADED,
        pb.Pushback.REASON_SHUTTING_DOWN,
        pb.Pushback.REASON_FROM_THE_FUTURE,
        pb.Pushback.REASON_OUT_OF_SEQUENCE,
        77,
    ],
)
def test_a_pushback_is_obeyed_and_the_records_come_again(
    collector: FakeCollector, chain: Chain, connect: Connect, reason: int
) -> None:
    collector.pushbacks = [(4, reason, 50), (9, reason, 1)]
    append(chain, 0, 20)
    uplink = connect(collector.target)
    settled(uplink, 20)
    in_books(collector, chain)
    assert uplink.status.pushbacks >= 2
    # Told where to go on, it goes on there, on the same stream; only a collector that stops ends it.
    assert (uplink.status.connects > 1) == (reason == pb.Pushback.REASON_SHUTTING_DOWN)


def test_an_inventory_that_the_collector_lost_is_sent_again(
    collector: FakeCollector, chain: Chain, connect: Connect
) -> None:
    append(chain, 0, 2)
    uplink = connect(collector.target)
    settled(uplink, 2)
    collector.ask_inventory = True
    append(chain, 2, 3)
    settled(uplink, 5)
    in_books(collector, chain)
    assert uplink.status.connects == 1


def test_a_restored_collector_is_refilled(collector: FakeCollector, chain: Chain, connect: Connect) -> None:
    append(chain, 0, 10)
    uplink = connect(collector.target)
    settled(uplink, 10)
    uplink.stop()
    collector.forget(4)
    collector.head_window_end = 4 * WINDOW_NS
    append(chain, 10, 2)
    again = connect(collector.target)
    settled(again, 12)
    in_books(collector, chain)
    assert chain.take_remarks() == ([], (BOOT, 4 * WINDOW_NS, False))


def test_what_a_restored_collector_lacks_is_pending_again_at_once(chain: Chain) -> None:
    """So that it is not forgotten while it is sent again."""
    append(chain, 0, 10)
    chain.ack(10)
    head = HeadFacts(5, record_hash(chain.spool.entry(4).record), BOOT, 4 * WINDOW_NS)
    assert chain.resume(head) == 5
    assert (chain.spool.acked_seq, chain.spool.pending) == (4, 6)


def test_a_stream_that_is_refused_says_why_and_is_tried_again_later(
    collector: FakeCollector, chain: Chain, connect: Connect
) -> None:
    collector.refuse_stream = pb.Refusal.CODE_UNKNOWN_AGENT
    append(chain, 0, 2)
    uplink = connect(collector.target)
    assert uplink.wait_for(lambda: "unknown agent: go away" in uplink.status.last_error, WAIT_S)
    assert uplink.status.refusals > 0
    assert chain.spool.pending == 2
    collector.refuse_stream = 0
    settled(uplink, 2)


def test_heartbeats_are_sent_when_there_is_nothing_else(
    collector: FakeCollector, chain: Chain, connect: Connect
) -> None:
    uplink = connect(collector.target, Timing(heartbeat_s=0.02))
    assert uplink.wait_for(lambda: uplink.status.connected, WAIT_S)
    seen: list[int] = []
    while len(seen) < 10_000 and collector.heartbeats < 3:
        uplink.wait_for(lambda: False, 0.005)
        seen.append(collector.heartbeats)
    assert collector.heartbeats >= 3


def test_a_spool_that_breaks_stops_the_uplink_and_says_so(
    collector: FakeCollector, chain: Chain, connect: Connect, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.CRITICAL)
    append(chain, 0, 3)
    path = next(iter(chain.spool.directory.glob("*.seg")))
    data = bytearray(path.read_bytes())
    data[-10] ^= 1
    path.write_bytes(data)
    uplink = connect(collector.target)
    assert uplink.wait_for(lambda: uplink.status.fatal is not None, WAIT_S) or uplink.status.fatal
    assert "record 3" in str(uplink.status.fatal)


def test_stop_ends_the_thread_while_it_waits_to_reconnect(chain: Chain, connect: Connect) -> None:
    uplink = connect("127.0.0.1:1", Timing(connect_s=0.05, backoff_base_s=1000, backoff_cap_s=1000))
    assert uplink.wait_for(lambda: uplink.status.last_error != "", WAIT_S)
    uplink.stop()
    assert not uplink._thread.is_alive()


def test_stop_ends_the_thread_while_a_collector_says_nothing(
    collector: FakeCollector, chain: Chain, connect: Connect
) -> None:
    collector.silent_handshake = True
    append(chain, 0, 1)
    uplink = connect(collector.target, Timing(connect_s=600, handshake_s=600))
    for _ in range(100_000):
        if collector.silenced:
            break
        uplink.wait_for(lambda: False, 0.0005)
    assert collector.silenced
    uplink.stop()
    assert not uplink._thread.is_alive()
    assert uplink.status.fatal is None


def test_stop_ends_the_thread_while_nobody_listens(chain: Chain, connect: Connect) -> None:
    uplink = connect("127.0.0.1:1", Timing(connect_s=600))
    uplink.stop()
    assert not uplink._thread.is_alive()
    assert uplink.status.fatal is None


def test_records_that_cannot_be_moved_for_want_of_room_are_moved_when_there_is(
    collector: FakeCollector, chain: Chain, connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A full disk must not end the agent while it learns that a record is refused."""
    append(chain, 0, 3)
    real, refused = chain.spool.rebase, []

    def rebase(*args: object) -> None:
        if len(refused) < 3:
            refused.append(args)
            raise SpoolFullError("no room, said the test", "make some")
        real(*args)  # type: ignore[arg-type]

    monkeypatch.setattr(chain.spool, "rebase", rebase)
    bad = payload_of(chain, 2)
    collector.refuse_payloads = lambda payload: payload == bad
    uplink = connect(collector.target)
    settled(uplink, 3)
    in_books(collector, chain)
    assert len(refused) == 3
    assert uplink.status.fatal is None
    assert [gaps_of(raw)[0][1] for raw in collector.records.values()] == [
        GapReason.NONE,
        GapReason.RECORD_LOST,
        GapReason.NONE,
    ]


def test_a_collector_that_is_gone_for_long_costs_no_memory_threads_or_files(
    chain: Chain, connect: Connect, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(
        logging.CRITICAL, "flopmeter.agent.shipping.uplink"
    )  # pytest keeps every line, a kilobyte each
    append(chain, 0, 5)
    quick = Timing(connect_s=0.002, backoff_base_s=0.0001, backoff_cap_s=0.0001)
    uplink = connect("127.0.0.1:1", quick)

    def after(tries: int) -> tuple[int, int, int]:
        until = uplink.backoff.failures + tries
        assert uplink.wait_for(lambda: uplink.backoff.failures >= until, 60), uplink.status
        gc.collect()
        status = Path("/proc/self/status").read_text()
        kib = int(status.split("VmRSS:")[1].split()[0])
        return kib, threading.active_count(), len(list(Path("/proc/self/fd").iterdir()))

    # What leaks grows in every span; the allocator, and what other tests left behind, only in some.
    spans = list(pairwise(after(200) for _ in range(5)))
    assert min(later[0] - before[0] for before, later in spans) < 256
    assert min(later[1] - before[1] for before, later in spans) <= 0
    assert min(later[2] - before[2] for before, later in spans) <= 0


def test_backoff_is_exponential_jittered_and_capped() -> None:
    class Top(Random):
        def uniform(self, a: float, b: float) -> float:
            assert a == 0.0
            return b

    backoff = Backoff(Top(), base_s=1.0, cap_s=60.0)
    assert [backoff.next_s() for _ in range(8)] == [1, 2, 4, 8, 16, 32, 60, 60]
    assert backoff.next_s(30.0) == 90.0
    backoff.reset()
    assert backoff.next_s(5.0) == 6.0
    backoff.longest()
    assert backoff.next_s() == 60.0
    jittered = Backoff(Random(7), 1.0, 60.0)
    draws = [jittered.next_s() for _ in range(200)][10:]
    assert min(draws) < 10
    assert 50 < max(draws) <= 60
