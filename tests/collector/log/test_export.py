"""The export: C2SP tlog-tiles as other people's logs have them, resumable, and never of what does not hold."""

import base64
import json
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from builders import UNIX_NS, Chain
from click.testing import CliRunner
from desk import Desk
from evidence_reference import tree_root
from log_rig import leaves_of, opened, tamper
from tlog_scales.reader import TilesReader
from tlog_scales.signing import Vkey

from flopmeter.collector.errors import CollectorError, LogError, LogForkedError
from flopmeter.collector.ingest.decide import TAKEN
from flopmeter.collector.log.append import Appender
from flopmeter.collector.log.cli import log as log_command
from flopmeter.collector.log.export import export, tile_path
from flopmeter.collector.log.tree import HASH_BYTES, WIDTH, Tree, tile_widths
from flopmeter.evidence.merkle import leaf_hash
from flopmeter.evidence.note import parse_checkpoint, parse_key, signers

GOLDEN = json.loads((Path(__file__).parents[2] / "vectors/tessera_log.json").read_text())


class Files:
    """A log in tlog-tiles layout, read as a client reads it: checkpoint, then the tiles of that size."""

    def __init__(self, files: dict[str, bytes], size: int) -> None:
        self.files, self.size = files, size

    def tile(self, level: int | str, number: int) -> bytes:
        full, rest = next(
            (f, r) for at, f, r in tile_widths(self.size) if at == (0 if level == "entries" else level)
        )
        return self.files[tile_path(level, number, WIDTH if number < full else rest)]

    def hashes(self, level: int, start: int, end: int) -> bytes:
        number = start // WIDTH
        return self.tile(level, number)[
            (start - number * WIDTH) * HASH_BYTES : (end - number * WIDTH) * HASH_BYTES
        ]

    def leaves(self) -> list[bytes]:
        found = []
        for number in range(-(-self.size // WIDTH)):
            data, at = self.tile("entries", number), 0
            while at < len(data):
                length = int.from_bytes(data[at : at + 2], "big")
                found.append(data[at + 2 : at + 2 + length])
                at += 2 + length
            assert at == len(data)
        return found


def read(directory: Path) -> dict[str, bytes]:
    return {str(p.relative_to(directory)): p.read_bytes() for p in directory.rglob("*") if p.is_file()}


def check_files(files: dict[str, bytes], leaves: list[bytes] | None = None) -> int:
    """What a client checks: the head's root out of the tiles, and out of the leaves. The size."""
    note = parse_checkpoint(files["checkpoint"])
    log = Files(files, note.size)
    assert Tree(log).root(note.size) == note.root
    found = log.leaves()
    assert tree_root([leaf_hash(leaf) for leaf in found]) == note.root
    if leaves is not None:
        assert found == leaves[: note.size]
    return note.size


@pytest.mark.parametrize("name", GOLDEN["checkpoints"])
def test_the_golden_log_of_tessera_is_read_as_it_was_meant(name):
    """Another program's log, tiles and signed heads: our tree comes to its roots, our paths find its files."""
    files = {path: base64.b64decode(data) for path, data in GOLDEN["tiles"].items()}
    files["checkpoint"] = GOLDEN["checkpoints"][name].encode()
    note, key = parse_checkpoint(files["checkpoint"]), parse_key(GOLDEN["source"]["key"])
    assert key in signers(note, [key])
    if note.size:
        assert check_files(files) == note.size
    else:
        assert note.root == tree_root([])


@pytest.mark.parametrize(
    ("number", "width", "expected"),
    [
        (0, 256, "000"),
        (7, 3, "007.p/3"),
        (999, 256, "999"),
        (1_000, 256, "x001/000"),
        (1_234_067, 256, "x001/x234/067"),  # C2SP tlog-tiles, "Merkle Tree"
        (1_234_067, 255, "x001/x234/067.p/255"),
    ],
)
def test_paths_are_those_of_the_text(number, width, expected):
    assert tile_path(0, number, width) == f"tile/0/{expected}"
    assert tile_path("entries", number, width) == f"tile/entries/{expected}"


def grow(path: Path, count: int, key) -> None:
    with opened(path) as log:
        db = log._connection
        db.execute("BEGIN IMMEDIATE")
        last = db.execute("SELECT coalesce(max(loss_no), 0) FROM losses").fetchone()[0]
        db.executemany(
            "INSERT INTO losses VALUES (?, 1, 1, 1, 1, '')", [(last + 1 + i,) for i in range(count)]
        )
        Appender(db).append()
        db.execute("COMMIT")
        log.seal(key, lambda: UNIX_NS)


def run(path: Path, directory: Path, **more) -> int:
    with opened(path) as log:
        return export(log._connection, directory, **more).files


def test_an_export_is_a_log_that_goes_on(path, tmp_path, key):
    out = tmp_path / "out"
    with Desk(path) as desk:
        chain = Chain()
        agent = desk.agent(chain)
        for _ in range(5):
            assert desk.offer(agent, chain.next()) is TAKEN
        desk.commit()
    for count in (1, 200, 100, 500):
        grow(path, count, key)
        before = read(out) if out.exists() else {}
        run(path, out)
        files = read(out)
        leaves = leaves_of(path)
        assert check_files(files, leaves) == len(leaves)
        assert {
            n: d for n, d in before.items() if n != "checkpoint"
        }.items() <= files.items()  # nothing is ever changed
    assert run(path, out) == 1  # nothing new: the checkpoint, whose cosignatures may have come
    assert not [n for n in files if n.endswith(".tmp")]
    whole = tmp_path / "whole"
    run(path, whole)
    final = read(whole)
    assert final.items() <= files.items()  # the same, less the partial tiles of heads between


class Served:
    """An export as tlog-scales fetches it."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    def get(self, *path: str) -> bytes | None:
        file = self.directory.joinpath(*path)
        return file.read_bytes() if file.is_file() else None


def test_an_independent_reader_of_tiles_reads_ours(path, tmp_path, key):
    """tlog-scales, which shares nothing with us: the signed head, the root, leaves, and the same proofs."""
    sizes = []
    for count in (3, 300, 66_000):
        grow(path, count, key)
        sizes.append(len_of(path))
    run(path, tmp_path / "out")
    files = read(tmp_path / "out")
    assert (len(files["tile/1/000"]), len(files["tile/2/000.p/1"])) == (8_192, 32)
    reader = TilesReader(Served(tmp_path / "out"))
    head = reader.get_checkpoint()
    with opened(path) as log:
        head.verify(Vkey.from_string(log.identity.vkey))
    with opened(path) as log:
        assert (head.origin, head.size, head.root_hash) == (log.identity.origin, sizes[-1], log.latest().root)
        assert reader.calculate_root_hash() == head.root_hash
        for index in (0, 255, 256, 65_535, 65_536, sizes[-1] - 1):
            assert reader.get_entry(index) == log.leaf(index)
            theirs = reader.get_inclusion_proof(index, head.size)
            theirs.check(log.leaf_hash(index), head.root_hash)
            assert theirs.node_hashes == log.inclusion(index, head.size)
        for old in sizes:
            assert reader.get_consistency_proof(old, head.size).node_hashes == log.consistency(old, head.size)


def len_of(path: Path) -> int:
    with opened(path) as log:
        return log.size


def test_without_leaves_there_are_only_hashes(path, tmp_path, key):
    grow(path, 300, key)
    run(path, tmp_path / "out", with_leaves=False)
    files = read(tmp_path / "out")
    assert not [n for n in files if "entries" in n]
    note = parse_checkpoint(files["checkpoint"])
    assert Tree(Files(files, 300)).root(300) == note.root


def test_an_export_that_was_cut_is_gone_on_with(path, tmp_path, key):
    """Without a checkpoint it is no export yet; half a file has another name."""
    grow(path, 1_000, key)
    out = tmp_path / "out"
    calls = iter(range(100))

    def stop(done: int, of: int) -> None:
        if next(calls) == 1:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(path, out, progress=stop)
    assert "checkpoint" not in read(out)
    (out / "tile/0/002.tmp").write_bytes(b"half")
    run(path, out)
    assert check_files({n: d for n, d in read(out).items() if not n.endswith(".tmp")}) == 1_000


def test_a_directory_of_something_else_is_left_alone(path, tmp_path, key):
    grow(path, 3, key)
    out = tmp_path / "out"
    out.mkdir()
    (out / "notes.txt").write_text("mine")
    with pytest.raises(LogError, match="expected an empty directory or an export of this log"):
        run(path, out)
    assert read(out) == {"notes.txt": b"mine"}


def test_the_export_of_a_log_that_this_one_does_not_continue_is_kept(path, tmp_path, key):
    """A restored store: its head is smaller than the one that was exported, or another of the same size."""
    grow(path, 10, key)
    old = path.with_suffix(".old")
    with closing(sqlite3.connect(path)) as db, closing(sqlite3.connect(old)) as copy:
        db.backup(copy)
    grow(path, 10, key)
    out = tmp_path / "out"
    run(path, out)
    before = read(out)
    with pytest.raises(LogError, match="20 leaves, this log 10"):
        run(old, out)
    tamper(old, "UPDATE losses SET reason = 'other' WHERE loss_no = 10")
    tamper(old, "DELETE FROM checkpoints")
    tamper(old, "DELETE FROM log")
    grow(old, 15, key)
    with pytest.raises(LogError, match="expected an export that this log continues"):
        run(old, out)
    note = (out / "checkpoint").read_bytes()
    (out / "checkpoint").write_bytes(b"another.example" + note[note.index(b"\n") :])
    with pytest.raises(LogError, match=r"of the log 'another\.example'"):
        run(path, out)
    (out / "checkpoint").write_text("rubbish")
    with pytest.raises(LogError, match="expected an export that this log continues"):
        run(path, out)
    assert {n: d for n, d in read(out).items() if n != "checkpoint"} == {
        n: d for n, d in before.items() if n != "checkpoint"
    }


def test_what_does_not_hold_is_not_exported(path, tmp_path, key):
    grow(path, 300, key)
    tamper(path, "UPDATE losses SET reason = 'y' WHERE loss_no = 270")
    with pytest.raises(LogForkedError, match="loss_no 270"):
        run(path, tmp_path / "out")
    assert "checkpoint" not in read(tmp_path / "out")
    tamper(path, "UPDATE tiles SET hashes = zeroblob(32)")
    with pytest.raises(LogForkedError, match="got another root"):
        run(path, tmp_path / "out2")


def invoke(*args: object) -> tuple[int, str]:
    result = CliRunner().invoke(log_command, [str(a) for a in args])
    if isinstance(result.exception, CollectorError):
        return result.exception.exit_code, str(result.exception)
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result.exit_code, result.output


def test_the_commands(path, tmp_path, key):
    code, said = invoke("show", "--store", path, "--json")
    assert (code, json.loads(said)["checkpoint"]) == (0, None)
    assert invoke("export", tmp_path / "out", "--store", path) == (
        3,
        "the evidence log has no checkpoint yet",
    )
    grow(path, 300, key)
    with opened(path) as log:
        log._connection.execute(
            "INSERT INTO cosignatures VALUES (1, 'w.example', '\N{EM DASH} w.example AAAA', 5)"
        )
        log._connection.execute("INSERT INTO losses VALUES (301, 1, 1, 1, 1, '')")
        root = log.latest().root.hex()
    document = json.loads(invoke("show", "--store", path, "--json")[1])
    assert (document["size"], document["leaves"], document["waiting"]) == (300, {"loss": 300}, {"loss": 1})
    assert document["checkpoint"]["cosigned_by"] == ["w.example"]
    assert document["checkpoint"]["root"] == root
    code, said = invoke("show", "--store", path)
    assert code == 0
    assert all(len(line) <= 80 for line in said.splitlines() if not line.startswith("vkey"))
    assert "covers all" in said
    assert "w.example" in said
    code, said = invoke("export", tmp_path / "out", "--store", path, "--json")
    assert (code, json.loads(said)["size"], json.loads(said)["files_written"]) == (0, 300, 6)
    assert invoke("show", "--store", tmp_path / "none.sqlite")[0] == 3
    (tmp_path / "file").write_text("")
    assert invoke("export", tmp_path / "file" / "below", "--store", path)[0] == 3
