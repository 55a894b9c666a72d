"""`flopmeter export`: formats, files, what is refused, and what happens when something goes away."""

import importlib.util
import io
import json
import os
import pty
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
import tracemalloc
from contextlib import closing
from decimal import Decimal
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from attest_books import LAWS
from builders import Chain
from duty_books import opened
from export_books import EVIL, of_csv, of_lines

from flopmeter.collector.export import cli
from flopmeter.collector.export.columns import SCHEMAS, Kind
from flopmeter.collector.export.formats import csv_text
from flopmeter.collector.export.usage import usage_rows
from flopmeter.collector.export.wanted import Wanted
from flopmeter.collector.report.queries import asked, reading
from flopmeter.collector.spelling import time_text

COMMAND = [sys.executable, "-c", "from flopmeter.cli.main import main; main()", "export"]


def of_parquet(raw: bytes) -> list[dict]:
    table = pq.read_table(io.BytesIO(raw))
    for i, field in enumerate(table.schema):
        if pa.types.is_timestamp(field.type):
            table = table.set_column(i, field.name, table.column(i).cast(pa.int64()))
    return table.to_pylist()


def as_text(kind: Kind, value) -> str:
    """A value of Parquet as CSV has it."""
    if value is None:
        return ""
    if kind is Kind.TIME:
        return time_text(value * 1_000_000)
    if kind is Kind.FLAG:
        return "true" if value else "false"
    return str(int(value)) if isinstance(value, Decimal) else str(value)


@pytest.mark.parametrize("what", SCHEMAS)
def test_three_formats_say_the_same(export, what) -> None:
    schema = SCHEMAS[what]
    names = [c.name for c in schema.columns]
    code, raw, err = export(what)
    assert (code, err) == (0, "")
    table = of_csv(raw)
    assert raw.startswith((",".join(names) + "\r\n").encode())
    assert table
    lines = of_lines(export(what, "--format", "jsonl")[1])
    assert [list(line) for line in lines] == [["schema", *names]] * len(table)
    assert {line["schema"] for line in lines} == {schema.name}
    columns = of_parquet(export(what, "--format", "parquet")[1])
    for row, line, values in zip(table, lines, columns, strict=True):
        for c in schema.columns:
            text = as_text(c.kind, values[c.name])
            assert row[c.name] == text, c.name
            said = line[c.name]
            if c.kind is Kind.FLAG:
                assert said == values[c.name]
            else:
                assert ("" if said is None else str(said)) == text, c.name
                assert said is None or isinstance(said, int) == (c.kind is Kind.INTEGER)


def test_a_hostile_name_is_guarded_in_csv_and_as_it_is_elsewhere(export) -> None:
    _, raw, _ = export("usage", "--run", EVIL)
    assert f",'{EVIL},".encode() in raw
    assert f",{EVIL},".encode() not in raw
    assert {row["run"] for row in of_csv(raw)} == {EVIL}
    assert {row["run"] for row in of_lines(export("usage", "--run", EVIL, "--format", "jsonl")[1])} == {EVIL}


def test_runs_have_the_figures_of_runs_show(export, store, question) -> None:
    found = {row["run"]: row for row in of_lines(export("runs", "--format", "jsonl")[1])}
    with reading(store) as reader:
        documents = {d["run"]: d for d in reader.runs(question)}
    assert set(found) == set(documents)
    for run, d in documents.items():
        row = found[run]
        for what in ("flop", "integer_ops"):
            for bound, said in d["executed"][what].items():
                assert row[f"{what}_{bound}"] == said
        assert row["status"] == d["status"]
        assert row["jobs"] == d["job_count"]
        assert int(row["energy_mj"]) / 1000 == d["energy_joules"]
        assert (int(row["gap_ns"]) + int(row["unreported_ns"])) / 1e9 == d["coverage"]["gap_device_seconds"]
        assert int(row["observed_ns"]) / 1e9 == d["coverage"]["observed_device_seconds"]
        for name, part in d["by_evidence_class"].items():
            if name != "gap":
                assert int(row[f"class_{name.lower()}_ns"]) / 1e9 == part["device_seconds"]
        nearest = next(t for t in d["thresholds"] if t["regime"] == row["nearest_regime"])
        assert row["nearest_verdict"] == nearest["verdict"]
    assert found["assigned-run"]["declared_budget_flop"] == str(10**40)
    assert found["secret-llama"]["owner"] == "skunkworks"


def test_events_and_deadlines_are_those_that_are_listed(export, store, question) -> None:
    from flopmeter.collector.duty.reading import Wanted as Listed
    from flopmeter.collector.duty.reading import duties, events_page

    with reading(store) as reader:
        events = events_page(reader, Listed(), 0).events
        due = duties(reader)
    found = of_lines(export("events", "--format", "jsonl")[1])
    assert [row["id"] for row in found] == [e.cloud["id"] for e in events] != []
    assert [row["severity"] for row in found] == [e.cloud["severity"] for e in events]
    assert [row["message"] for row in found] == [e.cloud["data"]["message"] for e in events]
    some = found[len(found) // 2]["time"]
    early = of_lines(export("events", "--until", some, "--format", "jsonl")[1])
    late = of_lines(export("events", "--since", some, "--format", "jsonl")[1])
    assert {r["id"] for r in early} | {r["id"] for r in late} == {r["id"] for r in found}
    mine = of_lines(export("events", "--run", "secret-llama", "--format", "jsonl")[1])
    assert {r["subject"] for r in mine} == {"secret-llama"}
    rows = of_lines(export("deadlines", "--format", "jsonl")[1])
    assert {r["id"] for r in rows} == {d.deadline.id for d in due} != set()
    assert {r["event_id"] for r in rows} <= {r["id"] for r in found}


def test_a_tenants_events_tell_nothing_of_others(export, store, tmp_path) -> None:
    """secret-llama goes on from another-run, which is nobody's."""
    books = tmp_path / "books.sqlite"
    shutil.copy(store, books)
    data = {
        "message": "Run secret-llama, which stands on another-run",
        "ancestors": [{"of": "another-run", "flop": {"lower": "1", "point": "2", "upper": "3141592"}}],
    }
    with closing(sqlite3.connect(books)) as db:
        db.execute(
            "INSERT INTO events SELECT max(event_no) + 1, 'x', 'x', 'threshold.crossed', 'secret-llama', "
            "max(time_unix_ns), 1, 1, ? FROM events",
            (json.dumps(data),),
        )
        db.commit()
    whole = export("events", "--run", "secret-llama", "--format", "jsonl", of=books)[1]
    assert b"another-run" in whole
    assert b"3141592" in whole
    mine = export("events", "--tenant", "owner:skunkworks", "--format", "jsonl", of=books)[1]
    assert b"3141592" not in mine
    assert b"another-run" not in mine
    rows, all_rows = of_lines(mine), of_lines(whole)
    assert [r["id"] for r in rows] == [r["id"] for r in all_rows]
    assert {r["position"] for r in rows} == {r["event_no"] for r in rows} == {None}
    assert [r["severity"] for r in rows] == [r["severity"] for r in all_rows]


def test_a_tenants_events_and_runs_are_those_of_its_runs(export) -> None:
    for what, column in (("events", "subject"), ("deadlines", "run"), ("runs", "run")):
        rows = of_lines(export(what, "--tenant", "owner:skunkworks", "--format", "jsonl")[1])
        assert {r[column] for r in rows} == {"secret-llama"}
        assert of_lines(export(what, "--tenant", "owner:no-one", "--format", "jsonl")[1]) == []
        code, _, err = export(what, "--tenant", "owner:no-one", "--run", "secret-llama")
        assert code == 3
        assert "did you mean" not in err


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (("usage", "--since", "yesterday"), 2, "expected a date"),
        (("usage", "--since", "2026-11-02", "--until", "2026-11-01"), 2, "expected a time after"),
        (("usage", "--format", "xlsx"), 2, "xlsx"),
        (("usage", "--run", "no-such-run"), 3, "none of that name"),
        (("events", "--run", "no-such-run"), 3, "none of that name"),
        (("nonsense",), 2, "No such command"),
        (("usage", "-o", "/no/such/folder/x.csv"), 3, "cannot write: No such file"),
    ],
)
def test_what_cannot_be_is_refused(export, words, code, said) -> None:
    got, out, err = export(*words)
    assert (got, out) == (code, b"")
    assert said in err


def test_a_name_of_ten_thousand_characters_is_refused_in_a_line(export) -> None:
    code, out, err = export("usage", "--run", "x" * 10_000)
    assert (code, out) == (3, b"")
    assert len(err) < 600


def test_without_a_store_nothing_is_made(export, tmp_path) -> None:
    code, out, err = export("usage", "-o", str(tmp_path / "x.csv"), of=tmp_path / "none")
    assert (code, out) == (3, b"")
    assert "found no such file" in err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("what", "damage"),
    [
        ("usage", "DELETE FROM models"),
        ("usage", "DELETE FROM workloads"),
        ("usage", "UPDATE hourly SET hmma_cycles = 'many'"),
        ("usage", "UPDATE hourly SET evidence_class = 99"),
        ("usage", "UPDATE hourly SET gap_reason = 99 WHERE evidence_class = 8"),
        ("events", "UPDATE events SET data = '{'"),
        ("events", "UPDATE events SET data = x'00'"),
    ],
)
def test_damaged_books_are_an_error_and_no_crash(export, store, tmp_path, what, damage) -> None:
    books = tmp_path / "books.sqlite"
    shutil.copy(store, books)
    with closing(sqlite3.connect(books)) as db:
        db.execute(damage)
        db.commit()
    target = tmp_path / "out.csv"
    code, out, err = export(what, "-o", str(target), of=books)
    assert (code, out) == (3, b"")
    assert "found one that cannot be" in err
    assert "collector fsck" in err
    assert not target.exists()


def test_without_pyarrow_it_says_what_to_install(export, monkeypatch) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda n, *a: None if n == "pyarrow" else find(n, *a))
    code, out, err = export("usage", "--format", "parquet")
    assert (code, out) == (3, b"")
    assert "flopmeter[parquet]" in err


def test_a_file_is_there_whole_or_as_it_was(export, monkeypatch, tmp_path) -> None:
    target = tmp_path / "u.parquet"
    assert export("usage", "-o", str(target))[:2] == (0, b"")
    before = target.read_bytes()
    assert before[:4] == before[-4:] == b"PAR1"  # by its ending
    assert export("usage", "-o", str(tmp_path / "u.ndjson"))[0] == 0
    assert of_lines((tmp_path / "u.ndjson").read_bytes())

    def broken(*words):
        yield from iter([])
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("flopmeter.collector.export.usage.usage_rows", broken)
    code, _, err = export("usage", "-o", str(target))
    assert code == 3
    assert "No space left" in err
    assert target.read_bytes() == before
    assert sorted(p.name for p in tmp_path.iterdir()) == ["u.ndjson", "u.parquet"]


def test_a_store_that_changes_hands_meanwhile_gives_no_file(export, monkeypatch, store, tmp_path) -> None:
    """Read as one that nobody has open, while a collector starts on it."""
    mine = tmp_path / "books.sqlite"
    shutil.copy(store, mine)
    target = tmp_path / "u.csv"

    def rows(*words):
        with opened(mine, *LAWS) as desk:
            desk.agent(Chain("a-new-node"))
        yield from iter([])

    monkeypatch.setattr("flopmeter.collector.export.usage.usage_rows", rows)
    code, _, err = export("usage", "-o", str(target), of=mine)
    assert code == 3
    assert "ask again" in err
    assert not target.exists()


def test_it_is_one_state_while_a_collector_commits(store, tmp_path) -> None:
    mine = tmp_path / "books.sqlite"
    shutil.copy(store, mine)
    question = asked(time.time_ns(), LAWS)
    with opened(mine, *LAWS) as desk:
        with reading(mine) as reader:
            expected = list(usage_rows(reader, question, Wanted()))
        chain = Chain("late-node")
        chain.unix_ns = desk.now
        agent = desk.agent(chain)
        with reading(mine) as reader:
            rows = usage_rows(reader, question, Wanted())
            got = [next(rows)]
            desk.offer(agent, chain.next())
            desk.commit()
            got += list(rows)
        with reading(mine) as reader:
            later = list(usage_rows(reader, question, Wanted()))
    assert got == expected
    assert len(later) > len(expected)


def test_a_reader_that_has_enough_is_no_error(store) -> None:
    for shape in cli.FORMATS:
        process = subprocess.Popen(
            [*COMMAND, "usage", "--format", shape, "--store", store],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )  # fmt: skip
        process.stdout.close()
        err = process.stderr.read()
        assert (process.wait(60), err) == (0, b"")
        process.stderr.close()


def test_a_full_disk_behind_standard_output_is_said(store) -> None:
    with Path("/dev/full").open("wb") as full:
        done = subprocess.run([*COMMAND, "usage", "--store", store], stdout=full, stderr=subprocess.PIPE)
    assert done.returncode == 3
    assert b"is not whole" in done.stderr


def test_ended_by_a_signal_it_leaves_nothing_behind(store, tmp_path) -> None:
    fifo = tmp_path / "gate"
    os.mkfifo(fifo)
    # It waits in the middle of the rows, until it is told to end.
    code = f"""
import flopmeter.collector.export.usage as u
def rows(*words):
    with open({str(fifo)!r}, "w") as f:
        f.write("begun")
    import time
    while True:
        time.sleep(0.05)
    yield
u.usage_rows = rows
from flopmeter.cli.main import main
main()
"""
    words = ["export", "usage", "--store", str(store), "-o", str(tmp_path / "u.csv")]
    process = subprocess.Popen([sys.executable, "-c", code, *words], stderr=subprocess.PIPE)
    assert fifo.read_text() == "begun"
    assert [p.suffix for p in tmp_path.iterdir() if p != fifo] == [".part"]
    process.send_signal(signal.SIGTERM)
    assert process.wait(60) == 130
    process.stderr.close()
    assert list(tmp_path.iterdir()) == [fifo]


def test_on_a_terminal_it_shows_how_far_it_is_and_wipes_it_away(store, tmp_path) -> None:
    code = "import flopmeter.collector.export.cli as c; c._REDRAW_S = 0\nfrom flopmeter.cli.main import main; main()"
    ours, theirs = pty.openpty()
    words = ["export", "usage", "--store", str(store), "-o", str(tmp_path / "u.csv")]
    subprocess.run([sys.executable, "-c", code, *words], stderr=theirs, check=True, timeout=60)
    os.close(theirs)
    said = os.read(ours, 65_536).decode()
    os.close(ours)
    assert "rows, 20" in said
    assert said.endswith("\r\x1b[K")
    assert (tmp_path / "u.csv").stat().st_mode & 0o777 == 0o666 & ~_umask()


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def test_ten_times_the_rows_take_no_more_memory(store, tmp_path) -> None:
    mine = tmp_path / "books.sqlite"
    shutil.copy(store, mine)
    peaks = []
    with closing(sqlite3.connect(mine)) as db:
        (most,) = db.execute("SELECT max(hour) FROM hourly").fetchone()
        columns = ", ".join(r[1] for r in db.execute("PRAGMA table_info(hourly)") if r[1] != "hour")
        for hours in (400, 1_300):
            db.execute(
                f"WITH RECURSIVE h(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM h WHERE x < ?) "
                f"INSERT OR REPLACE INTO hourly (hour, {columns}) SELECT {most} + x, {columns} FROM h, "
                f"(SELECT * FROM hourly WHERE hour = (SELECT min(hour) FROM hourly))",
                (hours,),
            )
            db.commit()
            with reading(mine) as reader:
                tracemalloc.start()
                written = rows = 0
                for piece in csv_text(
                    SCHEMAS["usage"], usage_rows(reader, asked(time.time_ns(), LAWS), Wanted())
                ):
                    written += len(piece)
                    rows += piece.count("\r\n")
                peaks.append((rows, written, tracemalloc.get_traced_memory()[1]))
                tracemalloc.stop()
    (few, _, small), (many, size, large) = peaks
    assert many > 3 * few
    assert large < small * 12 // 10
    assert large < size
