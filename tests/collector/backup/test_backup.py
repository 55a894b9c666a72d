"""A backup is one state of the books, byte for byte, whatever is committed meanwhile; it is whole and checked, or it
is not there.
"""

import json
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest
from builders import Chain
from click.testing import CliRunner
from desk import Desk

from flopmeter.collector.backup import copying
from flopmeter.collector.backup.cli import backup
from flopmeter.collector.backup.copying import back_up
from flopmeter.collector.backup.ends import APPENDED
from flopmeter.collector.backup.place import target_of, whole_or_not
from flopmeter.collector.check.fsck import check_store, result_text
from flopmeter.collector.errors import BackupRefused, StoreError
from flopmeter.collector.store.schema import MIGRATIONS


@pytest.fixture
def filled(tmp_path):
    """A desk with thirty records, and the agent that sends more."""
    with Desk(tmp_path / "live" / "books.sqlite") as desk:
        chain = Chain("n1")
        agent = desk.agent(chain)
        for _ in range(30):
            desk.offer(agent, chain.next())
        desk.commit()
        yield desk, agent, chain


def one_more(desk, agent, chain):
    desk.offer(agent, chain.next())
    desk.commit()


def dump(path):
    with sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro&immutable=1", uri=True) as db:
        text = "\n".join(db.iterdump())
    db.close()
    return text


def left_in(folder):
    return sorted(p.name for p in folder.iterdir())


def test_it_is_the_store_of_one_instant_though_every_step_meets_a_commit(filled, tmp_path, monkeypatch):
    """Commits beside it neither wait nor begin it anew: what it holds is what stood when it began."""
    desk, agent, chain = filled
    monkeypatch.setattr(copying, "STEP_PAGES", 4)
    steps = []

    def meanwhile(what, done, whole):
        if what == "copied":
            steps.append((done, whole))
            one_more(
                desk, agent, chain
            )  # on the store's own connection: it would raise if it were locked out

    before = dump_of_state(desk)
    done = back_up(desk.store.path, tmp_path / "copy.sqlite", progress=meanwhile)

    assert len(steps) > 10, "too few steps to meet anything"
    assert [d for d, _ in steps] == sorted(d for d, _ in steps), "it began anew"
    assert len({whole for _, whole in steps}) == 1, "it saw the store grow"
    assert done.ends["records"] == 30 < desk.rows("SELECT max(position) FROM records")[0][0]
    assert dump(done.file) == before
    result = check_store(done.file, ())
    assert result.difference is None, result_text(result)


def dump_of_state(desk):
    return "\n".join(desk.store.catalogue._connection.iterdump())


def test_what_waited_in_the_wal_is_not_left_to_the_next_commit(filled, tmp_path):
    """While the state is held no page of a later commit can be carried over; the backup does it when it lets go."""
    desk, agent, chain = filled
    wal = desk.store.path.with_name("books.sqlite-wal")
    in_hand = []

    def meanwhile(what, _done, _whole):
        if what == "copied" and not in_hand:
            for _ in range(200):
                one_more(desk, agent, chain)
            in_hand.append(wal.stat().st_size)

    back_up(desk.store.path, tmp_path / "copy.sqlite", progress=meanwhile)
    assert in_hand
    assert in_hand[0] > 4096 * 1_000, "the WAL never grew past what one commit carries over"
    # The WAL index (sqlite.org/walformat.html 2.1): frames there are at byte 16, those carried over at byte 96.
    index = desk.store.path.with_name("books.sqlite-shm").read_bytes()
    frames, carried = (int.from_bytes(index[at : at + 4], sys.byteorder) for at in (16, 96))
    assert frames == carried > 1_000


def test_its_pages_are_the_stores_own_to_the_last_byte(filled, tmp_path):
    """Not a rewritten store: even pages that hold nothing any more are evidence."""
    desk, _, _ = filled
    still = tmp_path / "still.sqlite"
    with sqlite3.connect(desk.store.path) as db:
        db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    db.close()
    shutil.copy(desk.store.path, still)
    done = back_up(still, tmp_path / "copy.sqlite")
    raw, copied = still.read_bytes(), done.file.read_bytes()
    assert len(raw) == len(copied)
    differ = {i for i, (a, b) in enumerate(zip(raw, copied, strict=True)) if a != b}
    # File change counter (24-27), schema cookie (40-43), version-valid-for (92-95), library version (96-99).
    assert differ <= {*range(24, 28), *range(40, 44), *range(92, 100)}, sorted(differ)[:10]


def test_it_opens_takes_records_and_is_for_its_owner_only(filled, tmp_path):
    desk, _, chain = filled
    done = back_up(desk.store.path, tmp_path / "copy.sqlite")
    assert done.file.stat().st_mode & 0o777 == 0o600
    assert left_in(tmp_path) == ["copy.sqlite", "live"]
    with Desk(done.file) as restored:
        restored.offer(restored.agent(chain), chain.next())
        restored.commit()
        assert restored.rows("SELECT max(position) FROM records") == [(31,)]


def test_every_table_that_is_appended_to_is_compared():
    """A table that only grows has a trigger that says so, or is numbered as it comes."""
    db = sqlite3.connect(":memory:")
    for _, script in MIGRATIONS:
        db.executescript(script)
    for table, column in APPENDED.items():
        assert db.execute(
            "SELECT count(*) FROM pragma_table_info(?) WHERE name = ? AND pk", (table, column)
        ).fetchone()[0]
    kept = {
        name
        for (name,) in db.execute(
            "SELECT DISTINCT tbl_name FROM sqlite_master WHERE type = 'trigger' AND name LIKE '%go%on' AND tbl_name != 'tiles'"
        )
    }
    db.close()
    assert kept <= APPENDED.keys()


@pytest.mark.parametrize("what", ["file", "folder", "dangling link", "wal", "journal"])
def test_it_writes_over_nothing(filled, tmp_path, what):
    desk, _, _ = filled
    target = tmp_path / "copy.sqlite"
    taken = target.with_name("copy.sqlite-" + what) if what in ("wal", "journal") else target
    if what == "folder":
        (target / "copy.sqlite").mkdir(
            parents=True
        )  # named as a folder it is written into: then its name is taken
        target = target / "copy.sqlite"
    elif what == "dangling link":
        taken.symlink_to(tmp_path / "elsewhere")
    else:
        taken.write_bytes(b"mine")
    with pytest.raises(BackupRefused, match="expected a name that nothing has yet"):
        back_up(desk.store.path, target)
    assert not (tmp_path / "elsewhere").exists()
    if what not in ("folder", "dangling link"):
        assert taken.read_bytes() == b"mine"


def test_a_name_that_is_taken_while_it_copies_is_not_written_over(filled, tmp_path):
    desk, _, _ = filled
    target = tmp_path / "copy.sqlite"

    def meanwhile(*_):
        target.write_bytes(b"mine")

    with pytest.raises(BackupRefused, match="expected a name that nothing has yet"):
        back_up(desk.store.path, target, progress=meanwhile)
    assert target.read_bytes() == b"mine"
    assert left_in(tmp_path) == ["copy.sqlite", "live"]


@pytest.mark.parametrize("links", [True, False], ids=["links", "no-links"])
def test_on_a_file_system_without_hard_links_it_is_renamed(filled, tmp_path, monkeypatch, links):
    desk, _, _ = filled
    if not links:
        monkeypatch.setattr(os, "link", refusing(95))  # EOPNOTSUPP
    done = back_up(desk.store.path, tmp_path / "copy.sqlite")
    assert check_store(done.file, ()).difference is None
    assert done.file.stat().st_nlink == 1
    assert left_in(tmp_path) == ["copy.sqlite", "live"]


def refusing(code):
    def refuse(*_args, **_kwargs):
        raise OSError(code, os.strerror(code))

    return refuse


def damage(monkeypatch, partial_bytes):
    """What is written is not what is read back."""
    real = copying._check_copy

    def after_damage(partial, ends, say):
        partial_bytes(partial)
        real(partial, ends, say)

    monkeypatch.setattr(copying, "_check_copy", after_damage)


def flipped_record(partial):
    raw = bytearray(partial.read_bytes())
    with sqlite3.connect(partial) as db:
        record = db.execute("SELECT record FROM records WHERE position = 7").fetchone()[0]
    db.close()
    raw[raw.index(record) + 100] ^= 1
    partial.write_bytes(raw)


def cut(partial):
    os.truncate(partial, partial.stat().st_size // 2 // 4096 * 4096)


def zeroed(partial):
    with partial.open("r+b") as f:
        f.seek(4096 * 9)
        f.write(bytes(4096))


def without_the_last(partial):
    with sqlite3.connect(partial) as db:
        db.execute("DELETE FROM records WHERE position = 30")
    db.close()


def a_hole_in_the_log(partial):
    with sqlite3.connect(partial) as db:
        db.execute("DROP TRIGGER log_is_kept")
        db.execute("DELETE FROM log WHERE first_index = (SELECT min(first_index) FROM log)")
    db.close()


@pytest.mark.parametrize("how", [flipped_record, cut, zeroed, without_the_last, a_hole_in_the_log])
def test_a_copy_that_is_not_what_was_read_gets_no_name(filled, tmp_path, monkeypatch, how):
    desk, _, _ = filled
    damage(monkeypatch, how)
    with pytest.raises((BackupRefused, StoreError)):
        back_up(desk.store.path, tmp_path / "copy.sqlite")
    assert [n for n in left_in(tmp_path) if n.endswith((".sqlite", ".partial"))] == []


def test_a_full_disk_is_said_and_leaves_nothing(filled, tmp_path):
    """The limit on a file's size fails the same write as a full disk does."""
    desk, _, _ = filled
    code = (
        "import resource, signal, sys; signal.signal(signal.SIGXFSZ, signal.SIG_IGN);"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000));"
        "from flopmeter.cli.main import main; main()"
    )
    target = tmp_path / "copy.sqlite"
    ran = subprocess.run(
        [sys.executable, "-c", code, "collector", "backup", "--store", desk.store.path, "-o", target],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert ran.returncode == 3, ran.stderr
    assert "cannot write" in ran.stderr
    assert "free space" in ran.stderr
    assert left_in(tmp_path) == ["live"]


KILLED = """
import os, signal, sys
from pathlib import Path
from flopmeter.collector.backup import copying
copying.STEP_PAGES = 4
def progress(what, done, whole):
    if what == sys.argv[3] and (what == "checked" or done * 2 > whole):
        os.kill(os.getpid(), signal.SIGKILL)
copying.back_up(Path(sys.argv[1]), Path(sys.argv[2]), progress=progress)
"""


@pytest.mark.parametrize("where", ["copied", "checked"])
def test_killed_midway_it_leaves_a_partial_that_the_next_removes(filled, tmp_path, where):
    desk, agent, chain = filled
    out = tmp_path / "out"
    out.mkdir()
    killed = target_of(out, desk.store.path, 1_750_000_000_000_000_000)
    ran = subprocess.run([sys.executable, "-c", KILLED, desk.store.path, killed, where], timeout=60)
    assert ran.returncode == -signal.SIGKILL
    assert left_in(out) == [f"{killed.name}.partial"]
    (out / "other-20250101T000000000Z.sqlite.partial").write_bytes(b"of another store")
    (out / "books-mine.partial").write_bytes(b"of a person")

    one_more(desk, agent, chain)
    done = back_up(desk.store.path, target_of(out, desk.store.path, 1_750_000_060_000_000_000))
    assert left_in(out) == [
        done.file.name,
        "books-mine.partial",
        "other-20250101T000000000Z.sqlite.partial",
    ]
    assert check_store(done.file, ()).records == 31


def test_two_into_one_folder_do_not_clear_each_others(filled, tmp_path):
    desk, _, _ = filled
    with whole_or_not(tmp_path / "one.sqlite", desk.store.path) as partial:
        with pytest.raises(BackupRefused, match="another backup"):
            back_up(desk.store.path, tmp_path / "two.sqlite")
        assert partial.exists()


def test_to_another_file_system(filled, tmp_path):
    desk, _, _ = filled
    shm = Path("/dev/shm")
    if not shm.is_dir() or shm.stat().st_dev == tmp_path.stat().st_dev:
        shm = Path.home()
    folder = shm / f"flopmeter-backup-{os.getpid()}"
    folder.mkdir()
    try:
        done = back_up(desk.store.path, folder / "copy.sqlite")
        assert check_store(done.file, ()).difference is None
        assert left_in(folder) == ["copy.sqlite"]
    finally:
        shutil.rmtree(folder)


def test_keys_are_copied_only_when_asked_and_as_they_must_be_kept(filled, tmp_path):
    desk, _, _ = filled
    keys = desk.store.path.with_name("keys")
    keys.mkdir(mode=0o700)
    (keys / "log.key").write_bytes(b"secret")
    (keys / "log.key").chmod(0o600)
    (keys / "deeper").mkdir()
    runner = CliRunner()
    arguments = ["--store", str(desk.store.path), "--json", "-o"]
    without = json.loads(runner.invoke(backup, [*arguments, str(tmp_path / "a.sqlite")]).output)
    assert without["keys"] is None
    assert any("private keys" in line for line in without["not_held"])
    assert b"secret" not in (tmp_path / "a.sqlite").read_bytes()
    held = json.loads(runner.invoke(backup, [*arguments, str(tmp_path / "b.sqlite"), "--with-keys"]).output)
    folder = Path(held["keys"]["folder"])
    assert held["keys"]["files"] == left_in(folder) == ["log.key"]
    assert not any("private keys" in line for line in held["not_held"])
    assert folder.stat().st_mode & 0o777 == 0o700
    assert (folder / "log.key").stat().st_mode & 0o777 == 0o600
    assert (folder / "log.key").read_bytes() == b"secret"


def test_keys_that_cannot_be_read_leave_neither_copy_nor_keys(filled, tmp_path):
    desk, _, _ = filled
    keys = tmp_path / "other-keys"
    keys.mkdir()
    (keys / "log.key").symlink_to("/etc/hostname")
    with pytest.raises(StoreError, match="cannot copy the keys"):
        back_up(desk.store.path, tmp_path / "copy.sqlite", keys=keys)
    with pytest.raises(StoreError, match="cannot copy the keys"):
        back_up(desk.store.path, tmp_path / "copy.sqlite", keys=tmp_path / "none")
    assert left_in(tmp_path) == ["live", "other-keys"]


def test_what_is_no_store_or_not_there_is_said(tmp_path):
    (tmp_path / "a.sqlite").write_bytes(b"SQLite format 3\0" + bytes(5_000))
    for store in (tmp_path / "a.sqlite", tmp_path / "none.sqlite"):
        with pytest.raises(StoreError):
            back_up(store, tmp_path / "copy.sqlite")
    with pytest.raises(StoreError, match="cannot open"):
        back_up(tmp_path / "a.sqlite", tmp_path / "no" / "copy.sqlite")
    assert left_in(tmp_path) == ["a.sqlite"]


def test_a_person_reads_what_it_is_and_what_it_is_not(filled, tmp_path):
    desk, _, _ = filled
    ran = CliRunner().invoke(backup, ["--store", str(desk.store.path), "-o", str(tmp_path)])
    assert ran.exit_code == 0, ran.output
    (made,) = tmp_path.glob("books-*.sqlite")
    assert made.name in ran.output.replace("\n  ", "")
    assert "30 records" in ran.output
    assert "private keys" in ran.output
    assert max(map(len, ran.output.splitlines())) <= 80 or str(tmp_path) in ran.output
