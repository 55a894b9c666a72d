"""The spool under torn files, rot, full disks, failing calls and kills: what was durable stays, the rest is said.

The one rule checked after every fault: what a returned `append` promised is there, byte for byte, in order;
beyond it there may be entries of the append that failed, whole and in chain, and nothing else.
"""

import errno
import os
import random
import shutil
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from chains import DIGEST, INVENTORY_BYTES, entries
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from flopmeter.agent.errors import SpoolError, SpoolFullError
from flopmeter.agent.keys import RecordKey, load_or_create_key
from flopmeter.agent.shipping.segment import Entry
from flopmeter.agent.shipping.spool import MIN_LIMIT_BYTES, Spool, Tip
from flopmeter.contract.record import ZERO_HASH

pytestmark = pytest.mark.faults
TESTS = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def key(tmp_path_factory: pytest.TempPathFactory) -> RecordKey:
    return load_or_create_key(tmp_path_factory.mktemp("key"))


@pytest.fixture(scope="module")
def made(key: RecordKey) -> list[Entry]:
    return entries(key, Tip(1, ZERO_HASH, b""), 5, payload=40)


@pytest.fixture(scope="module")
def whole(made: list[Entry], tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """One segment of five entries."""
    spool = Spool.open(tmp_path_factory.mktemp("whole") / "spool")
    spool.append(made)
    spool.close()
    return next(spool.directory.glob("*.seg")).read_bytes()


def opened_over(directory: Path, data: bytes) -> Spool:
    shutil.rmtree(directory, ignore_errors=True)
    directory.mkdir()
    (directory / "0000000001.seg").write_bytes(data)
    return Spool.open(directory)


def check_prefix(spool: Spool, made: list[Entry], data: bytes) -> int:
    """The spool holds a prefix of `made`, goes on from it, and what it cut is kept. Returns how many."""
    held = list(spool.entries(1))
    assert held == made[: len(held)]
    assert spool.tip.next_seq == len(held) + 1
    assert spool.tip.journal == (held[-1].journal if held else b"")
    if spool.cuts:
        cut = spool.cuts[0]
        kept = list((spool.directory / "quarantine").glob("cut-*"))
        assert cut.data in [p.read_bytes() for p in kept]
        assert data.endswith(cut.data)
    spool.append(made[len(held) :])
    directory = spool.directory
    spool.close()
    again = Spool.open(directory)
    assert again.cuts == []
    assert list(again.entries(1)) == made
    again.close()
    return len(held)


def test_a_tail_torn_at_any_byte_is_cut_and_reported(tmp_path: Path, made: list[Entry], whole: bytes) -> None:
    counts = set()
    for size in range(len(whole)):
        spool = opened_over(tmp_path / "spool", whole[:size])
        torn = spool.cuts != []
        n = check_prefix(spool, made, whole[:size])
        ends_on_a_frame = n == 5 or (not torn and size > 0)
        assert torn or ends_on_a_frame or size == 0
        counts.add(n)
    assert counts == {0, 1, 2, 3, 4}


@pytest.mark.parametrize("tail", [bytes(1), bytes(4096), b"\xff" * 37, os.urandom(500)], ids=len)
def test_rubbish_behind_the_last_entry_is_cut(
    tmp_path: Path, made: list[Entry], whole: bytes, tail: bytes
) -> None:
    spool = opened_over(tmp_path / "spool", whole + tail)
    assert len(spool.cuts) == 1
    assert spool.cuts[0].data == tail
    assert "behind record 5" in spool.cuts[0].reason
    assert check_prefix(spool, made, whole + tail) == 5


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_any_flipped_bits_never_give_a_wrong_entry(
    tmp_path: Path, made: list[Entry], whole: bytes, data: st.DataObject
) -> None:
    rotten = bytearray(whole)
    for at in data.draw(st.lists(st.integers(0, len(whole) - 1), min_size=1, max_size=3)):
        rotten[at] ^= data.draw(st.integers(1, 255))
    spool = opened_over(tmp_path / "spool", bytes(rotten))
    assert spool.cuts or bytes(rotten) == whole
    check_prefix(spool, made, bytes(rotten))


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.binary(max_size=600))
def test_any_bytes_in_the_place_of_a_segment_are_set_aside(
    tmp_path: Path, made: list[Entry], junk: bytes
) -> None:
    spool = opened_over(tmp_path / "spool", junk)
    assert check_prefix(spool, made, junk) == 0


def test_rot_in_an_old_segment_keeps_the_newer_ones(tmp_path: Path, key: RecordKey) -> None:
    spool = Spool.open(tmp_path / "spool", limit_bytes=MIN_LIMIT_BYTES)
    all_made: list[Entry] = []
    for _ in range(12):
        more = entries(key, spool.tip, 1, payload=3000)
        spool.append(more)
        all_made += more
    paths = sorted(spool.directory.glob("*.seg"))
    assert len(paths) >= 3
    second = spool._segments[1].first_seq
    spool.close()
    rotten = bytearray(paths[0].read_bytes())
    rotten[len(rotten) // 2] ^= 0x40
    paths[0].write_bytes(rotten)
    again = Spool.open(tmp_path / "spool", limit_bytes=MIN_LIMIT_BYTES)
    held = {e.seq for e in again.entries(1)}
    assert held >= set(range(second, 13))
    assert list(again.entries(second)) == all_made[second - 1 :]
    assert len(again.cuts) == 1
    assert again.tip.next_seq == 13
    again.close()


class Fault:
    """Makes the n-th call of an os function fail, before or after it did its work."""

    def __init__(self, name: str, nth: int, code: int, *, after: bool) -> None:
        self.name, self.left, self.code, self.after = name, nth, code, after
        self.real: Callable[..., object] = getattr(os, name)
        self.fired = False

    def __call__(self, *args: object, **kwargs: object) -> object:
        self.left -= 1
        if self.left != 0:
            return self.real(*args, **kwargs)
        self.fired = True
        if self.after:
            self.real(*args, **kwargs)
        raise OSError(self.code, os.strerror(self.code))


CALLS = ("pwrite", "fdatasync", "fsync", "rename", "replace", "truncate", "unlink", "open")


def exercise(directory: Path, key: RecordKey, allowed: list[list[Entry]]) -> None:
    """Appends, acks, a rebase, inventories, over several segments. `allowed`: what may be there, at any time."""
    spool = Spool.open(directory, limit_bytes=MIN_LIMIT_BYTES, keep_acked_bytes=0)

    def append(count: int) -> None:
        more = entries(key, spool.tip, count, payload=2500)
        held = allowed[0]
        # While it runs any part of it may be on disk, whole and in chain; when it has returned, all of it is.
        allowed[:] = [held + more[:n] for n in range(count + 1)]
        spool.append(more)
        allowed[:] = [held + more]

    try:
        spool.keep_inventory(DIGEST, INVENTORY_BYTES)
        for _ in range(4):
            append(2)
        spool.ack(4)
        held = allowed[0]
        again = [*held[:4], *entries(key, Tip(5, held[4].prev_hash, b""), 3, payload=100)]
        allowed[:] = [held, again]
        spool.rebase(5, 5, held[4].prev_hash, iter(again[4:]))
        allowed[:] = [again]
        append(1)
        append(3)
        spool.quarantine("record-1-00", b"data", "why")
    finally:
        spool.close()


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("code", [errno.EIO, errno.ENOSPC], ids=["EIO", "ENOSPC"])
@pytest.mark.parametrize("name", CALLS)
def test_each_call_failing_once_breaks_no_promise(
    tmp_path: Path, key: RecordKey, *, monkeypatch: pytest.MonkeyPatch, name: str, code: int, after: bool
) -> None:
    fired = 0
    for nth in range(1, 60):
        directory = tmp_path / f"spool-{nth}"
        allowed: list[list[Entry]] = [[]]
        fault = Fault(name, nth, code, after=after)
        with monkeypatch.context() as patch:
            patch.setattr(os, name, fault)
            try:
                exercise(directory, key, allowed)
            except SpoolError:
                assert fault.fired
        if not fault.fired:
            break
        fired += 1
        spool = Spool.open(directory, limit_bytes=MIN_LIMIT_BYTES, keep_acked_bytes=0)
        held = list(spool.entries(1))
        oldest = spool.oldest_seq or 1
        assert oldest <= 5, "entries that were not acknowledged are gone"
        assert held in [state[oldest - 1 :] for state in allowed]
        more = entries(key, spool.tip, 1, payload=10)
        spool.append(more)
        assert list(spool.entries(1)) == held + more
        spool.close()
    assert fired > 0, f"{name} is never called: the fault was not injected"


def test_writes_that_are_cut_short_are_completed(
    tmp_path: Path, key: RecordKey, made: list[Entry], monkeypatch: pytest.MonkeyPatch
) -> None:
    real = os.pwrite
    monkeypatch.setattr(os, "pwrite", lambda fd, data, at: real(fd, bytes(data[:7]), at))
    spool = Spool.open(tmp_path / "spool")
    spool.append(made)
    spool.close()
    assert list(Spool.open(tmp_path / "spool").entries(1)) == made


def test_a_failed_fsync_stops_the_spool_until_it_is_read_again(
    tmp_path: Path, made: list[Entry], monkeypatch: pytest.MonkeyPatch
) -> None:
    spool = Spool.open(tmp_path / "spool")
    spool.append(made[:2])
    with monkeypatch.context() as patch:
        patch.setattr(os, "fdatasync", Fault("fdatasync", 1, errno.EIO, after=False))
        with pytest.raises(SpoolError, match="fsync failed") as caught:
            spool.append(made[2:3])
    assert not isinstance(caught.value, SpoolFullError)
    with pytest.raises(SpoolError, match="not known"):
        spool.append(made[2:3])
    spool.close()
    again = Spool.open(tmp_path / "spool")
    assert [e.seq for e in again.entries(1)] in ([1, 2], [1, 2, 3])
    again.close()


def test_a_write_that_cannot_be_undone_stops_the_spool(
    tmp_path: Path, made: list[Entry], monkeypatch: pytest.MonkeyPatch
) -> None:
    spool = Spool.open(tmp_path / "spool")
    spool.append(made[:2])
    with monkeypatch.context() as patch:
        patch.setattr(os, "pwrite", Fault("pwrite", 1, errno.ENOSPC, after=True))
        patch.setattr(os, "ftruncate", Fault("ftruncate", 1, errno.EIO, after=False))
        with pytest.raises(SpoolError, match="could not be undone"):
            spool.append(made[2:4])
    spool.close()
    again = Spool.open(tmp_path / "spool")
    assert list(again.entries(1)) == made[:4]  # whole, in chain, never sent: they count
    again.close()


def fill(directory: Path, key: RecordKey) -> tuple[Spool, int]:
    """Append until the disk is full; the spool must say so and hold exactly what it promised."""
    spool = Spool.open(directory)
    count = 0
    while True:
        try:
            spool.append(entries(key, spool.tip, 3, payload=9000))
        except SpoolFullError as e:
            assert "room" in e.hint
            break
        count += 3
        assert count < 10_000
    assert spool.newest_seq == count
    assert len(list(spool.entries(1))) == count
    with pytest.raises(SpoolFullError):
        spool.append(entries(key, spool.tip, 3, payload=9000))
    return spool, count


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A real filesystem of 1 MiB."""
    if os.geteuid() != 0:
        pytest.skip("mounting a small tmpfs needs root; the file size limit test covers the same path")
    mount = tmp_path / "disk"
    mount.mkdir()
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(mount)], capture_output=True, text=True
    )
    if done.returncode != 0:
        pytest.skip(f"mounting a tmpfs is not allowed here: {done.stderr.strip()}")
    yield mount
    subprocess.run(["umount", "-l", str(mount)], check=True)


def test_a_full_disk_is_survived_and_gone_on_from(small_disk: Path, key: RecordKey) -> None:
    (small_disk / "ballast").write_bytes(bytes(400_000))
    spool, count = fill(small_disk / "spool", key)
    assert count > 30
    spool.close()
    again = Spool.open(small_disk / "spool")
    assert again.cuts == []
    assert (again.newest_seq, again.pending) == (count, count)
    (small_disk / "ballast").unlink()
    more = entries(key, again.tip, 3, payload=9000)
    again.append(more)
    assert list(again.entries(count + 1)) == more
    again.close()


def test_a_disk_that_is_full_from_the_start_is_an_error_with_a_hint(small_disk: Path) -> None:
    with pytest.raises(OSError, match="No space"):
        (small_disk / "ballast").write_bytes(bytes(2 << 20))
    for i in range(300):  # use up the last pages
        try:
            (small_disk / f"b{i}").write_bytes(bytes(4096))
        except OSError:
            break
    with pytest.raises(SpoolError) as caught:
        spool = Spool.open(small_disk / "spool")
        spool.keep_inventory(DIGEST, INVENTORY_BYTES)
    assert "disk" in caught.value.hint


def test_a_file_size_limit_acts_like_a_full_disk(tmp_path: Path) -> None:
    """RLIMIT_FSIZE needs no root: writes beyond it fail with EFBIG."""
    code = """
        import resource, signal, sys
        from pathlib import Path
        sys.path.insert(0, sys.argv[2])
        from chains import entries
        from flopmeter.agent.errors import SpoolFullError
        from flopmeter.agent.keys import load_or_create_key
        from flopmeter.agent.shipping.spool import Spool
        state = Path(sys.argv[1])
        key = load_or_create_key(state)
        spool = Spool.open(state / "spool")
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, resource.RLIM_INFINITY))
        full = 0
        for _ in range(30):
            try:
                spool.append(entries(key, spool.tip, 1, payload=9000))
            except SpoolFullError:
                full += 1
        resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY,) * 2)
        spool.append(entries(key, spool.tip, 1, payload=9000))
        print(full, spool.newest_seq)
        spool.close()
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code), str(tmp_path), str(TESTS)],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    full, newest = map(int, done.stdout.split())
    assert full == 30 - (newest - 1)
    assert newest == 11
    spool = Spool.open(tmp_path / "spool")
    assert spool.cuts == []
    assert [e.seq for e in spool.entries(1)] == list(range(1, 12))
    spool.close()


WRITER = """
    import sys
    from pathlib import Path
    sys.path.insert(0, sys.argv[2])
    from chains import entries
    from flopmeter.agent.keys import load_or_create_key
    from flopmeter.agent.shipping.spool import Spool
    state = Path(sys.argv[1])
    key = load_or_create_key(state)
    spool = Spool.open(state / "spool", limit_bytes=1 << 20, keep_acked_bytes=100_000)
    print("open", spool.oldest_seq, spool.newest_seq, len(spool.cuts), flush=True)
    while True:
        spool.append(entries(key, spool.tip, 1 + spool.tip.next_seq % 4, payload=2000))
        print("durable", spool.newest_seq, flush=True)
        spool.ack(spool.newest_seq - 20)
"""


def test_kills_at_any_moment_break_no_promise(tmp_path: Path) -> None:
    """SIGKILL, 50 times, on one state: every append that returned before the kill is there afterwards."""
    rng = random.Random(20261122)
    promised = 0
    for _ in range(50):
        child = subprocess.Popen(
            [sys.executable, "-c", textwrap.dedent(WRITER), str(tmp_path), str(TESTS)],
            stdout=subprocess.PIPE,
            text=True,
        )
        assert child.stdout is not None
        first = child.stdout.readline().split()
        assert first[:1] == ["open"], f"the writer could not open the spool again: exit {child.wait(10)}"
        assert int(first[2]) >= promised, "an append that had returned is gone"
        for _ in range(rng.randrange(0, 60)):
            child.stdout.readline()
        deadline = time.monotonic() + rng.random() * 0.003
        while time.monotonic() < deadline:
            pass
        child.send_signal(signal.SIGKILL)
        out, _ = child.communicate()
        seen = [int(line.split()[1]) for line in out.splitlines() if line.startswith("durable ")]
        promised = max([promised, int(first[2]), *seen])
    spool = Spool.open(tmp_path / "spool", limit_bytes=1 << 20, keep_acked_bytes=100_000)
    held = list(spool.entries(1))
    assert spool.newest_seq >= promised > 500
    expected = entries(load_or_create_key(tmp_path), Tip(1, ZERO_HASH, b""), spool.newest_seq, payload=2000)
    assert held == expected[held[0].seq - 1 :]
    spool.close()
