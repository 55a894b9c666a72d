"""The spool in good weather, at its limit, and after a crash left half of something."""

import errno
import os
import tracemalloc
from pathlib import Path

import pytest
from chains import BOOT, DIGEST, INVENTORY_BYTES, entries

from flopmeter.agent.errors import SpoolError, SpoolFullError
from flopmeter.agent.keys import RecordKey, load_or_create_key
from flopmeter.agent.shipping.segment import Entry
from flopmeter.agent.shipping.spool import MIN_LIMIT_BYTES, Spool, Tip
from flopmeter.contract.record import ZERO_HASH, record_hash


@pytest.fixture
def key(tmp_path: Path) -> RecordKey:
    return load_or_create_key(tmp_path / "state")


def reopened(spool: Spool, **limits: int) -> Spool:
    spool.close()
    return Spool.open(spool.directory, **limits)


def held(spool: Spool) -> list[bytes]:
    return [e.record for e in spool.entries(1)]


def segments(spool: Spool) -> list[Path]:
    return sorted(spool.directory.glob("*.seg"))


def test_an_empty_spool_starts_the_chain(tmp_path: Path) -> None:
    spool = Spool.open(tmp_path / "spool")
    assert spool.tip == Tip(1, ZERO_HASH, b"")
    assert (spool.oldest_seq, spool.newest_seq, spool.acked_seq, spool.pending) == (0, 0, 0, 0)
    assert not spool.full
    with pytest.raises(KeyError):
        spool.entry(1)


def test_what_was_appended_is_there_after_a_restart(tmp_path: Path, key: RecordKey) -> None:
    spool = Spool.open(tmp_path / "spool")
    made = entries(key, spool.tip, 5)
    spool.append(made[:2])
    spool.append([])
    spool.append(made[2:])
    for again in (spool, reopened(spool)):
        assert [again.entry(n) for n in range(1, 6)] == made
        assert list(again.entries(3)) == made[2:]
        assert list(again.entries(2, 3)) == made[1:3]
        assert again.tip == Tip(6, record_hash(made[-1].record), made[-1].journal)
        assert (again.oldest_seq, again.newest_seq, again.pending) == (1, 5, 5)
        assert again.cuts == []


def test_entries_out_of_the_chain_are_refused_and_nothing_is_kept(tmp_path: Path, key: RecordKey) -> None:
    spool = Spool.open(tmp_path / "spool")
    made = entries(key, spool.tip, 3)
    with pytest.raises(SpoolError, match="in chain"):
        spool.append([made[0], made[2]])
    with pytest.raises(SpoolError, match="in chain"):
        spool.append(made[1:])
    assert spool.newest_seq == 0
    spool.append(made)
    assert held(spool) == [e.record for e in made]


def test_a_second_agent_on_the_same_spool_is_refused_and_told_who_has_it(tmp_path: Path) -> None:
    spool = Spool.open(tmp_path / "spool")
    with pytest.raises(SpoolError, match=f"in use by process {os.getpid()}") as caught:
        Spool.open(tmp_path / "spool")
    assert caught.value.exit_code == 3
    assert "--state" in caught.value.hint
    spool.close()
    spool.close()
    Spool.open(tmp_path / "spool").close()


def test_acknowledged_records_are_kept_for_a_while_then_forgotten(tmp_path: Path, key: RecordKey) -> None:
    spool = Spool.open(tmp_path / "spool", limit_bytes=MIN_LIMIT_BYTES * 16, keep_acked_bytes=300_000)
    made: list[Entry] = []
    for _ in range(40):
        more = entries(key, spool.tip, 10, payload=3000)
        spool.append(more)
        made += more
        spool.ack(spool.newest_seq)
    assert spool.pending == 0
    assert spool.unacked_bytes == 0
    kept = spool.total_bytes
    assert 300_000 <= kept <= 300_000 + 2 * spool.segment_bytes + 40_000
    oldest = spool.oldest_seq
    assert 1 < oldest < 400
    again = reopened(spool, limit_bytes=MIN_LIMIT_BYTES * 16, keep_acked_bytes=300_000)
    assert (again.oldest_seq, again.newest_seq, again.acked_seq) == (oldest, 400, 400)
    assert list(again.entries(1)) == made[oldest - 1 :]
    assert not again.holds(oldest - 1)


def test_the_newest_record_is_never_forgotten(tmp_path: Path, key: RecordKey) -> None:
    spool = Spool.open(tmp_path / "spool", keep_acked_bytes=0, limit_bytes=MIN_LIMIT_BYTES)
    for _ in range(30):
        spool.append(entries(key, spool.tip, 1, payload=6000))
        spool.ack(spool.newest_seq)
    assert spool.newest_seq == 30
    assert spool.holds(30)
    assert len(segments(spool)) <= 2


def test_the_newest_record_stays_though_a_segment_behind_it_was_begun(
    tmp_path: Path, key: RecordKey, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(fd: int, data: bytes, at: int) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    spool = Spool.open(tmp_path / "spool", keep_acked_bytes=0, limit_bytes=MIN_LIMIT_BYTES)
    spool.append(entries(key, spool.tip, 1, payload=9000))
    with monkeypatch.context() as patch:
        patch.setattr(os, "pwrite", full)
        with pytest.raises(SpoolFullError):
            spool.append(entries(key, spool.tip, 1, payload=9000))
    assert len(segments(spool)) == 2
    spool.ack(1)
    assert spool.holds(1)


def test_what_is_not_acknowledged_is_not_forgotten_with_what_is(tmp_path: Path, key: RecordKey) -> None:
    """They share a segment, and room is asked for."""
    spool = Spool.open(tmp_path / "spool", keep_acked_bytes=0, limit_bytes=MIN_LIMIT_BYTES)
    with pytest.raises(SpoolFullError):
        while True:
            spool.append(entries(key, spool.tip, 1, payload=3000))
    newest = spool.newest_seq
    assert spool._segments[0].count > 1
    spool.ack(1)
    spool.append(entries(key, spool.tip, 1, payload=3000))
    assert spool.pending == newest
    assert [e.seq for e in spool.entries(2)] == list(range(2, newest + 2))


def test_at_the_limit_appends_are_refused_until_something_is_acknowledged(
    tmp_path: Path, key: RecordKey
) -> None:
    spool = Spool.open(tmp_path / "spool", limit_bytes=MIN_LIMIT_BYTES, keep_acked_bytes=0)
    with pytest.raises(SpoolFullError) as caught:
        while True:
            spool.append(entries(key, spool.tip, 1, payload=5000))
    assert "--spool-limit" in caught.value.hint
    newest, size = spool.newest_seq, spool.total_bytes
    assert spool.unacked_bytes <= MIN_LIMIT_BYTES
    with pytest.raises(SpoolFullError):
        spool.append(entries(key, spool.tip, 1, payload=5000))
    assert (spool.newest_seq, spool.total_bytes) == (newest, size)
    spool.ack(newest - 1)
    spool.append(entries(key, spool.tip, 1, payload=5000))
    assert spool.newest_seq == newest + 1


def test_acknowledged_records_give_way_to_new_ones_before_the_spool_is_full(
    tmp_path: Path, key: RecordKey
) -> None:
    spool = Spool.open(tmp_path / "spool", limit_bytes=MIN_LIMIT_BYTES, keep_acked_bytes=10**9)
    for _ in range(60):
        spool.append(entries(key, spool.tip, 1, payload=5000))
        spool.ack(spool.newest_seq)
    assert spool.newest_seq == 60
    assert spool.total_bytes <= MIN_LIMIT_BYTES + 2 * spool.segment_bytes


def test_a_collector_that_was_restored_makes_records_pending_again(tmp_path: Path, key: RecordKey) -> None:
    spool = Spool.open(tmp_path / "spool")
    spool.append(entries(key, spool.tip, 10))
    spool.ack(9)
    spool.ack(4)
    assert spool.acked_seq == 9
    spool.regress(4)
    assert (spool.acked_seq, spool.pending) == (4, 6)
    assert reopened(spool).acked_seq == 4
    spool.ack(10**9)


def test_an_ack_beyond_what_is_held_is_cut_to_it(tmp_path: Path, key: RecordKey) -> None:
    spool = Spool.open(tmp_path / "spool")
    spool.append(entries(key, spool.tip, 3))
    spool.ack(10**9)
    assert (spool.acked_seq, spool.pending) == (3, 0)


@pytest.mark.parametrize("text", ["", "7", "x\n", "-1\n", "٣\n", "9" * 4000])
def test_a_damaged_acked_hint_is_no_harm(tmp_path: Path, key: RecordKey, text: str) -> None:
    spool = Spool.open(tmp_path / "spool")
    spool.append(entries(key, spool.tip, 3))
    spool.close()
    (tmp_path / "spool" / "acked").write_text(text)
    assert Spool.open(tmp_path / "spool").acked_seq == 0


def test_inventories_are_kept_by_their_hash_and_dropped_when_nothing_names_them(
    tmp_path: Path, key: RecordKey
) -> None:
    spool = Spool.open(tmp_path / "spool")
    spool.keep_inventory(DIGEST, INVENTORY_BYTES)
    spool.keep_inventory(bytes(32), b"nobody names it")
    spool.append(entries(key, spool.tip, 1))
    spool = reopened(spool)
    assert spool.inventory(DIGEST) == INVENTORY_BYTES
    with pytest.raises(SpoolError, match="cannot be read"):
        spool.inventory(bytes(32))
    (spool.directory / "inventory" / DIGEST.hex()).write_bytes(b"other")
    with pytest.raises(SpoolError, match="do not give its name"):
        spool.inventory(DIGEST)


def test_a_rebase_replaces_what_was_not_accepted(tmp_path: Path, key: RecordKey) -> None:
    spool = Spool.open(tmp_path / "spool")
    made = entries(key, spool.tip, 6)
    spool.append(made)
    spool.ack(2)
    other = entries(key, Tip(3, made[2].prev_hash, b""), 3, payload=50)
    spool.rebase(3, 3, made[2].prev_hash, iter(other))
    for again in (spool, reopened(spool)):
        assert list(again.entries(1)) == made[:2] + other
        assert (again.acked_seq, again.pending, again.tip.next_seq) == (2, 3, 6)
        assert again.tip.journal == other[-1].journal
    spool = Spool.open(tmp_path / "spool2")
    spool.append(made)
    spool.rebase(1, 500, bytes(range(32)), iter(()))
    for again in (spool, reopened(spool)):
        assert held(again) == []
        assert again.tip == Tip(500, bytes(range(32)), made[-1].journal)
        assert (again.acked_seq, again.oldest_seq, again.newest_seq) == (499, 0, 0)
    more = entries(key, again.tip, 2)
    again.append(more)
    assert list(reopened(again).entries(1)) == more


def test_a_rebase_that_a_crash_interrupts_is_all_or_nothing(
    tmp_path: Path, key: RecordKey, monkeypatch: pytest.MonkeyPatch
) -> None:
    spool = Spool.open(tmp_path / "spool")
    made = entries(key, spool.tip, 6)
    spool.append(made)
    other = entries(key, Tip(4, made[3].prev_hash, b""), 2, payload=50)

    def crash(self: Spool, voids_from: int) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Spool, "_void", crash)  # behind the rename, before the old ones are cut
        with pytest.raises(KeyboardInterrupt):
            spool.rebase(4, 4, made[3].prev_hash, iter(other))
    again = reopened(spool)
    assert list(again.entries(1)) == made[:3] + other
    assert list(reopened(again).entries(1)) == made[:3] + other

    def broken() -> object:
        yield other[0]
        raise KeyboardInterrupt

    spool = Spool.open(tmp_path / "spool2")
    spool.append(made)
    with pytest.raises(KeyboardInterrupt):  # before the rename
        spool.rebase(4, 4, made[3].prev_hash, broken())
    assert list(reopened(spool).entries(1)) == made


def test_segments_of_two_spools_in_one_directory_are_refused(tmp_path: Path, key: RecordKey) -> None:
    one, two = Spool.open(tmp_path / "one"), Spool.open(tmp_path / "two")
    made = entries(key, one.tip, 3)
    one.append(made)
    two.append(made)
    two.close()
    one.close()
    (tmp_path / "two" / "0000000001.seg").rename(tmp_path / "one" / "0000000002.seg")
    with pytest.raises(SpoolError, match="two spools"):
        Spool.open(tmp_path / "one")


def test_a_limit_too_small_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SpoolError, match="at least"):
        Spool.open(tmp_path / "spool", limit_bytes=MIN_LIMIT_BYTES - 1)


def test_a_spool_without_a_place_is_an_error_with_a_hint(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(SpoolError, match="cannot be opened"):
        Spool.open(tmp_path / "file" / "spool")


def test_a_closed_spool_takes_nothing_more(tmp_path: Path, key: RecordKey) -> None:
    spool = Spool.open(tmp_path / "spool")
    made = entries(key, spool.tip, 1)
    spool.close()
    with pytest.raises(SpoolError, match="closed"):
        spool.append(made)


def test_boot_and_number_stand_in_the_record(tmp_path: Path, key: RecordKey) -> None:
    entry = entries(key, Tip(7, ZERO_HASH, b""), 1)[0]
    assert (entry.boot_id, entry.seq, entry.prev_hash) == (BOOT, 7, ZERO_HASH)


def test_a_large_spool_is_opened_in_little_memory(tmp_path: Path) -> None:
    """Moving records makes one segment of all that waits: up to the limit, 256 MiB."""
    key = load_or_create_key(tmp_path)
    spool = Spool.open(tmp_path / "spool")
    spool.rebase(1, 1, ZERO_HASH, entries(key, Tip(1, ZERO_HASH, b""), 60, payload=1_000_000))
    spool.close()
    (path,) = (tmp_path / "spool").glob("*.seg")
    assert path.stat().st_size > 59_000_000
    tracemalloc.start()
    try:
        again = Spool.open(tmp_path / "spool")
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert again.pending == 60
    assert peak < 8 << 20
    again.close()


def test_a_right_number_behind_another_hash_is_refused(tmp_path: Path, key: RecordKey) -> None:
    spool = Spool.open(tmp_path / "spool")
    spool.append(entries(key, spool.tip, 1))
    with pytest.raises(SpoolError, match="in chain"):
        spool.append(entries(key, Tip(2, b"x" * 32, b""), 1))
    assert spool.newest_seq == 1


def test_a_new_segment_knows_the_state_before_its_first_entry(tmp_path: Path, key: RecordKey) -> None:
    """Where that is torn and the segment before it damaged, the meter goes on from there."""
    spool = Spool.open(tmp_path / "spool", limit_bytes=MIN_LIMIT_BYTES)
    while len(segments(spool)) < 2:
        spool.append(entries(key, spool.tip, 1, payload=2500))
    first, second = spool._segments
    before = spool.entry(first.last_seq)
    os.truncate(second.path, second._base + 10)
    again = reopened(spool, limit_bytes=MIN_LIMIT_BYTES)
    assert again.tip == Tip(before.seq + 1, record_hash(before.record), before.journal)
    again.close()


def test_what_is_forgotten_was_acknowledged_whatever_the_hint_says(tmp_path: Path, key: RecordKey) -> None:
    spool = Spool.open(tmp_path / "spool", limit_bytes=MIN_LIMIT_BYTES, keep_acked_bytes=0)
    hint = spool.directory / "acked"
    for _ in range(9):
        spool.append(entries(key, spool.tip, 1, payload=2500))
        spool.ack(spool.newest_seq)
        if spool.oldest_seq > 1:
            break
    forgotten = spool.oldest_seq - 1
    assert 0 < forgotten < 16, "the hint is not written for its own sake yet"
    assert int(hint.read_text()) >= forgotten, "the hint comes before the forgetting"
    spool.close()
    hint.unlink()
    again = Spool.open(spool.directory, limit_bytes=MIN_LIMIT_BYTES)
    assert again.acked_seq == forgotten
    again.close()


def test_a_whole_frame_with_the_wrong_number_is_cut(tmp_path: Path, key: RecordKey) -> None:
    spool = Spool.open(tmp_path / "spool")
    made = entries(key, spool.tip, 3)
    spool.append(made[:1])
    with segments(spool)[0].open("ab") as f:
        f.write(made[2].frame())
    again = reopened(spool)
    assert held(again) == [made[0].record]
    assert "record 3 where 2 was expected" in again.cuts[0].reason
    again.close()
