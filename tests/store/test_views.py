"""Views for people with a tool of their own: against the books, and in Datasette and sqlite-utils as they are."""

import json
import re
import sqlite3
import subprocess
from contextlib import closing
from pathlib import Path

import pytest
from attest_books import LAWS
from export_books import EVIL, export_store

from flopmeter.collector.books import SUM_FIELDS
from flopmeter.collector.check.fsck import check_store
from flopmeter.collector.duty.reading import duties
from flopmeter.collector.report.queries import asked, reading
from flopmeter.collector.running import run_collector
from flopmeter.collector.settings import CollectorSettings
from flopmeter.collector.spelling import time_text
from flopmeter.collector.store.migrate import AT_HOME_FROM, _statements, migrate
from flopmeter.collector.store.schema import MIGRATIONS
from flopmeter.collector.store.schema_views import _SUMS, _limbs, _text
from flopmeter.collector.store.sqlite import SqliteStore
from flopmeter.contract.evidence_class import EvidenceClass
from flopmeter.contract.pipes import PIPES
from flopmeter.contract.usage import GapReason, WorkloadKind

VIEWS = ("runs_now", "usage_hourly", "events_now", "deadlines_now", "nodes_now", "entries_now")
PEERS = Path(__file__).parents[2] / ".venv-peers/bin"
peers = pytest.mark.skipif(not (PEERS / "datasette").exists(), reason="peers are not installed: make peers")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    export_store(tmp_path / "books.sqlite")
    return tmp_path / "books.sqlite"


def select(path: Path, sql: str, *values: object) -> list[dict]:
    still = (
        "" if path.with_name(path.name + "-wal").exists() else "&immutable=1"
    )  # else files would stay there
    with closing(sqlite3.connect(f"file:{path}?mode=ro{still}", uri=True)) as db:
        db.row_factory = sqlite3.Row
        return [dict(row) for row in db.execute(sql, values)]


def test_there_are_these_views_and_no_others(path: Path) -> None:
    found = select(path, "SELECT name FROM sqlite_master WHERE type = 'view'")
    assert {row["name"] for row in found} == set(VIEWS)


def test_runs_now_has_the_cycles_of_runs_show(path: Path) -> None:
    # By the rules: what was assigned is in another run of `runs show`.
    rows = {row["run_by_rules"]: row for row in select(path, "SELECT * FROM runs_now")}
    with reading(path) as reader:
        documents = {d["run"]: d for d in reader.runs(asked(0, LAWS))}
    assert set(rows) - {"+sum"} == set(documents) - {"assigned-run"} != set()
    for run, d in documents.items():
        row = rows["+sum" if run == "assigned-run" else run]
        for pipe in PIPES:
            assert row[f"{pipe.value}_cycles"] == d["by_pipe"][pipe.value]["sm_cycles"]
        assert row["sm_elapsed_cycles"] == d["executed"]["sm_elapsed_cycles"]
        assert int(row["energy_mj"]) / 1000 == d["energy_joules"]
        assert int(row["duration_ns"]) / 1e9 == d["coverage"]["expected_device_seconds"]
        assert row["device_hours"] == pytest.approx(d["coverage"]["expected_device_seconds"] / 3600)
        assert row["gap_device_hours"] == pytest.approx(d["coverage"]["gap_device_seconds"] / 3600)
        assert (row["first_seen"], row["last_seen"]) == (d["first_seen"], d["last_seen"])
        assert row["jobs"] == d["job_count"]
        assert set(row["evidence_classes"].split(",")) == set(d["by_evidence_class"])
        assert set(row["gpu_models"].split(",")) == set(d["by_model"])


@pytest.mark.parametrize(
    "numbers",
    [
        [],
        ["0"],
        ["5", "7"],
        ["999999999999", "1"],
        ["999999999999999999999999", "1"],
        ["123456789012345678901234567890123456"],
        ["18446744073709551615"] * 1000,
        ["1" + "0" * 30] * 999 + ["1"],
    ],
)
def test_sums_of_decimal_text_are_exact(numbers: list[str]) -> None:
    with closing(sqlite3.connect(":memory:")) as db:
        db.execute("CREATE TABLE g (n TEXT)")
        db.executemany("INSERT INTO g VALUES (?)", [(n,) for n in numbers])
        sql = f"SELECT {_text('n')} FROM (SELECT {_limbs('n')} FROM g GROUP BY 1 = 1)"
        found = [text for (text,) in db.execute(sql)]
    assert found == ([str(sum(map(int, numbers)))] if numbers else [])


def test_usage_hourly_is_the_books_by_the_hour(path: Path) -> None:
    assert tuple(SUM_FIELDS) == ("duration_ns", *_SUMS)
    rows = select(path, "SELECT * FROM usage_hourly")
    with reading(path) as reader:
        kept = list(reader.rows(f"SELECT hour, back, {', '.join(SUM_FIELDS)} FROM hourly"))
    assert sorted((r["hour_until"], *(r[n] for n in SUM_FIELDS)) for r in rows) == sorted(
        (time_text((hour + 1) * 3_600 * 10**9).replace(".000", ""), *sums) for hour, _, *sums in kept
    )
    assert any(r["hour_from"] < r["hour_until"][:11] for r in rows)
    assert {r["run_by_rules"] for r in rows} >= {"", EVIL}
    assert {0, 1} == {r["apportioned"] for r in rows} == {r["of_others"] for r in rows}


def test_every_class_reason_and_kind_has_its_name(tmp_path: Path) -> None:
    """One row of each, by its number: a new number of the wire needs a new migration."""
    path = tmp_path / "books.sqlite"
    SqliteStore(path).close()
    with closing(sqlite3.connect(path)) as db:
        db.execute("INSERT INTO models VALUES (1, 'X', '9.0')")
        zeros = ", ".join("'0'" for _ in SUM_FIELDS)
        for kind in WorkloadKind:
            columns = "workload_no, kind, scope, job, step, run_label, user, dtype, restart, run, run_rule, first_unix_ns, last_unix_ns, identities, begun_unix_ns"
            db.execute(
                f"INSERT INTO workloads ({columns}) VALUES (?, ?, '', '', '', '', '', '', 0, 'r', '', 0, 0, '', 0)",
                (int(kind), int(kind)),
            )
        for kind in WorkloadKind:
            for grade in EvidenceClass:
                for reason in GapReason:
                    db.execute(
                        f"INSERT INTO hourly VALUES (0, 0, ?, 1, ?, 0, 0, ?, {zeros})",
                        (int(kind), int(grade), int(reason)),
                    )
        db.commit()
    rows = select(path, "SELECT DISTINCT workload_kind, evidence_class, gap_reason FROM usage_hourly")
    assert {r["workload_kind"] for r in rows} == {k.label for k in WorkloadKind}
    assert {r["evidence_class"] for r in rows} == {c.label for c in EvidenceClass}
    assert {r["gap_reason"] for r in rows} == {r.label for r in GapReason if r} | {""}


def test_events_deadlines_and_nodes_are_those_of_the_commands(path: Path) -> None:
    with reading(path) as reader:
        events = reader.events()
        due = duties(reader)
        agents = {a.agent_id: a for a in reader.agents()}
        said = len(reader.registry().entries)
    rows = select(path, "SELECT * FROM events_now")
    assert [(r["id"], r["raised"], r["type"], r["message"], r["regime"]) for r in rows] == [
        (e["id"], e["time"], e["type"], e["data"]["message"], e["data"].get("regime")) for e in events
    ]
    assert {r["state"] for r in rows} == {"open"}
    rows = select(path, "SELECT * FROM deadlines_now")
    assert (
        {(r["id"], r["due"], r["run"], r["state"]) for r in rows}
        == {(d.deadline.id, time_text(d.deadline.due_unix_ns), d.deadline.subject, "open") for d in due}
        != set()
    )
    assert {r["overdue"] for r in rows} <= {0, 1}
    rows = select(path, "SELECT * FROM nodes_now")
    assert {r["agent_id"] for r in rows} == set(agents)
    for row in rows:
        agent = agents[row["agent_id"]]
        assert (row["node"], row["last_record"]) == (agent.node, agent.last_seq)
        assert row["metered_until"] == time_text(agent.window_end_unix_ns)
    rows = select(path, "SELECT * FROM entries_now")
    assert len(rows) == said
    assert {"declare", "tag", "link", "assign"} <= {r["kind"] for r in rows}


def test_an_answer_is_in_the_views(path: Path) -> None:
    from flopmeter.collector.duty.answers import State
    from flopmeter.collector.duty.saying import Person, answer

    event = select(path, "SELECT id FROM events_now")[0]["id"]
    deadline = select(path, "SELECT id FROM deadlines_now")[0]["id"]
    person = Person("ada@lab", "seen", 1_790_000_000_123_456_789)
    answer(path, "event", event, State.ACKNOWLEDGED, person)
    answer(path, "deadline", deadline, State.RESOLVED, person, outcome="done")
    (row,) = select(path, "SELECT * FROM events_now WHERE id = ?", event)
    assert (row["state"], row["answered_by"], row["why"]) == ("acknowledged", "ada@lab", "seen")
    assert row["answered"] == time_text(person.unix_ns)
    (row,) = select(path, "SELECT * FROM deadlines_now WHERE id = ?", deadline)
    assert (row["state"], row["outcome"], row["overdue"]) == ("resolved", "done", 0)


def test_what_readers_do_without_is_views_and_the_clocks_of_agents() -> None:
    """Any other migration that makes or changes a table moves AT_HOME_FROM behind itself."""
    for _, script in MIGRATIONS[AT_HOME_FROM:]:
        for statement in _statements(script):
            words = re.sub(r"--[^\n]*", "", statement).split()
            assert words[:2] in (["CREATE", "VIEW"], ["DROP", "VIEW"]) or words[:3] == [
                "CREATE",
                "TABLE",
                "clocks",
            ]


def test_a_store_without_views_is_read_checked_and_migrated(path: Path, monkeypatch) -> None:
    assert [name for name, _ in MIGRATIONS][17:] == ["0018-views", "0019-clocks"]
    with closing(sqlite3.connect(path, isolation_level=None)) as db:
        for view in VIEWS:
            db.execute(f"DROP VIEW {view}")
        db.execute("DROP TABLE clocks")
        db.execute("DELETE FROM _sqlite_migrations WHERE name IN ('0018-views', '0019-clocks')")
        db.execute("PRAGMA user_version = 17")
    with reading(path) as reader:
        assert reader.run_names()
        assert [a.clock for a in reader.agents()] == [None] * len(reader.agents())
    assert check_store(path, LAWS).difference is None
    with closing(sqlite3.connect(path, isolation_level=None)) as db:
        migrate(db, str(path))
    assert check_store(path, LAWS).difference is None
    assert select(path, "SELECT count(*) AS n FROM runs_now")[0]["n"] > 1
    with closing(sqlite3.connect(path, isolation_level=None)) as db:
        db.execute("DROP VIEW nodes_now")
    found = check_store(path, LAWS).difference
    assert found is not None
    assert "view nodes_now" in str(found)


def datasette(path: Path, address: str, *words: str) -> object:
    done = subprocess.run(
        [PEERS / "datasette", "serve", *words, path, "--get", address],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr + done.stdout
    return json.loads(done.stdout) if ".json" in address else done.stdout


@peers
def test_datasette_reads_every_view_while_a_collector_runs_and_after(path: Path) -> None:
    settings = CollectorSettings(store=path, listen="127.0.0.1:0", http="", admit_new=True)
    there = {p.name for p in path.parent.iterdir()}
    collector = run_collector(settings)
    try:
        counts = {v: select(path, f"SELECT count(*) AS n FROM {v}")[0]["n"] for v in VIEWS}
        assert all(counts.values())
        for view, count in counts.items():
            rows = datasette(path, f"/books/{view}.json?_shape=array&_size=1000")
            assert isinstance(rows, list)
            assert len(rows) >= count  # it goes on raising events
        page = datasette(path, "/books")
        assert all(f'/books/{view}"' in str(page) for view in VIEWS)
    finally:
        collector.stop()
    assert {p.name for p in path.parent.iterdir()} - there <= {"books.sqlite.lock", "keys"}
    # Nobody has it open: -i says so to Datasette, which then leaves nothing beside it.
    before = {p.name for p in path.parent.iterdir()}
    assert len(datasette(path, "/books/runs_now.json?_shape=array", "-i")) >= counts["runs_now"]  # type: ignore[arg-type]
    inspected = subprocess.run([PEERS / "datasette", "inspect", path], capture_output=True, timeout=60)
    assert inspected.returncode == 0
    assert {p.name for p in path.parent.iterdir()} - before <= {"books.sqlite-shm", "books.sqlite-wal"}
    run_collector(settings).stop()
    assert check_store(path, LAWS).difference is None


@peers
def test_sqlite_utils_reads_every_view_and_leaves_the_store_usable(path: Path) -> None:
    settings = CollectorSettings(store=path, listen="127.0.0.1:0", http="", admit_new=True)

    def look() -> None:
        for view in VIEWS:
            done = subprocess.run(
                [PEERS / "sqlite-utils", "rows", path, view], capture_output=True, text=True, timeout=60
            )
            assert done.returncode == 0, done.stderr
            assert len(json.loads(done.stdout)) > 0

    collector = run_collector(settings)
    try:
        look()
    finally:
        collector.stop()
    before = {p.name for p in path.parent.iterdir()}
    look()
    assert {p.name for p in path.parent.iterdir()} == before
    assert check_store(path, LAWS).difference is None
