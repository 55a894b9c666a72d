"""The SQLite driver: WAL, synchronous=FULL, one writer, plain executemany (reference/performance.md 4)."""

import os
import sqlite3
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from flopmeter.collector.access.rows import AccessRow
from flopmeter.collector.books import SUM_FIELDS, GroupKey, HourKey, Slot, Sums
from flopmeter.collector.duty.answers import Heard
from flopmeter.collector.duty.deadlines import Deadline, Trigger
from flopmeter.collector.ingest.claims import Claim, Until
from flopmeter.collector.law.agent_events import TWICE_PREFIX
from flopmeter.collector.law.progress import CLAIM_COLUMNS, ClaimHour, ClaimKey, claim_of
from flopmeter.collector.law.thresholds import current_key
from flopmeter.collector.log.append import Appender, backfill
from flopmeter.collector.registry.codec import EntryRow

from . import access, answers, entries, forecasts
from .base import Held, JobRow, Judged, NextNumbers, Noted, StoredAgent, Transaction
from .lock import lock_store
from .migrate import migrate
from .place import Place
from .reading import BUSY_TIMEOUT_S
from .told import told

#: Pages of WAL before a commit also checkpoints: 4 MiB, some fifteen groups of a hundred. Measured after 1.5
#: million rows: 2,000 and 4,000 give 10 % and 15 % fewer rows a second and twice and three times the longest commit.
WAL_AUTOCHECKPOINT_PAGES = 1_000
#: Most memory for pages, per connection: the heads of 50,000 agents and the indexes' right edges.
CACHE_KIB = 32_768

_KEY = ", ".join(GroupKey._fields)
_SUMS = ", ".join(SUM_FIELDS)
_KEY_IS = " AND ".join(f"{name} = ?" for name in GroupKey._fields)


def _insert(table: str, columns: str, verb: str = "INSERT") -> str:
    marks = ", ".join("?" * (columns.count(",") + 1))
    return f"{verb} INTO {table} ({columns}) VALUES ({marks})"


_NEW_AGENT = "agent_no, agent_id, public_key, node, version, admitted_how, admitted_unix_ns"
_INVENTORY = "digest, agent_no, bytes, received_unix_ns"
_WORKLOAD = (
    "workload_no, scope, kind, job, step, run_label, user, dtype, restart, run, run_rule, "
    "first_unix_ns, last_unix_ns, identities, begun_unix_ns"
)
_RECORD = "position, window_start_s, agent_no, seq, window_end_unix_ns, received_unix_ns, hash, record"
_SPAN = "first_unix_ns = min(first_unix_ns, ?), last_unix_ns = max(last_unix_ns, ?)"
_CLAIM = (
    "claim_no, entity, agent_no, boot_id, since_boot_ns, since_unix_ns, "
    "until_boot_id, until_boot_ns, until_unix_ns"
)
#: Of events whose keys flopmeter 0.1.0 made: what tells of which line they are (law.thresholds.current_key).
OLD_DATA = "CASE WHEN key GLOB 'threshold:*:crossed' OR key GLOB 'threshold:*:below' THEN data END"
_EVENT = "event_no, id, key, type, subject, time_unix_ns, since_position, position, data"

#: Transaction field -> statement, in the order they run. Names come before what uses them.
WRITES: tuple[tuple[str, str], ...] = (
    ("new_agents", _insert("agents", _NEW_AGENT)),
    ("seen_agents", "UPDATE agents SET node = ?, version = ? WHERE agent_no = ?"),
    ("inventories", _insert("inventories", _INVENTORY, "INSERT OR IGNORE")),
    ("models", _insert("models", "model_no, name, compute_capability")),
    ("workloads", _insert("workloads", _WORKLOAD)),
    ("moved", "UPDATE workloads SET run = ?, run_rule = ? WHERE workload_no = ?"),
    ("formerly", _insert("formerly", "workload_no, run", "INSERT OR IGNORE")),
    (
        "identity_rules",
        _insert("identity_rules", "from_position, from_unix_ns, digest, text", "INSERT OR REPLACE"),
    ),
    ("records", _insert("records", _RECORD)),
    ("heads", _insert("heads", "agent_no, position, usual_window_ns", "INSERT OR REPLACE")),
    ("boots", _insert("boots", "agent_no, boot_id, window_end_boot_ns")),
    ("clocks", _insert("clocks", "agent_no, lower_ns, upper_ns, measured_unix_ns", "INSERT OR REPLACE")),
    ("claims", _insert("claims", _CLAIM)),
    (
        "claim_ends",
        "UPDATE claims SET until_boot_id = ?, until_boot_ns = ?, until_unix_ns = ? WHERE claim_no = ?",
    ),
    ("spans", f"UPDATE workloads SET {_SPAN} WHERE workload_no = ?"),  # noqa: S608
    ("totals", _insert("totals", f"{_KEY}, {_SUMS}", "INSERT OR REPLACE")),
    ("hourly", _insert("hourly", f"hour, back, {_KEY}, {_SUMS}", "INSERT OR REPLACE")),
    ("progress", _insert("progress", CLAIM_COLUMNS, "INSERT OR REPLACE")),
    ("noted", _insert("noted", ", ".join(Noted._fields), "INSERT OR REPLACE")),
    ("losses", _insert("losses", "agent_no, from_seq, to_seq, noticed_unix_ns, reason")),
    ("conflicts", _insert("conflicts", "agent_no, seq, hash, record, received_unix_ns", "INSERT OR IGNORE")),
    ("log_faults", _insert("log_faults", "key, unix_ns, said")),
    ("events", _insert("events", _EVENT)),
    ("deadlines", answers.INSERT_DEADLINE),
    ("forecasts", forecasts.INSERT),
    ("outbox", _insert("outbox", "event_no, sink")),
    (
        "judged_until",
        "UPDATE judged SET until_position = ? WHERE regime = ? AND digest = ? AND w_table = ? AND from_position = ?",
    ),
    ("applied", _insert("applied", "entry_no, from_position, from_unix_ns")),
    ("texts", _insert("texts", "digest, text, from_unix_ns", "INSERT OR IGNORE")),
    ("site_laws", _insert("site_laws", "law_no, from_position, from_unix_ns, files")),
    # A text that comes back where it had gone, with no record between, is judged by again from the same position.
    ("judged", _insert("judged", ", ".join(Judged._fields), "INSERT OR REPLACE")),
)
_AGENTS = f"""
    SELECT {", ".join(f"agents.{name}" for name in _NEW_AGENT.split(", "))}, record, received_unix_ns, usual_window_ns
    FROM agents LEFT JOIN heads USING (agent_no) LEFT JOIN records USING (position)"""  # noqa: S608
_JOB_ROWS = f"SELECT {', '.join(JobRow._fields)} FROM workloads WHERE scope = ? AND kind = ? AND job = ? ORDER BY workload_no"  # noqa: S608
_TOTALS = f"SELECT {_SUMS} FROM totals WHERE {_KEY_IS}"  # noqa: S608
_HOURLY = f"SELECT {_SUMS} FROM hourly WHERE hour = ? AND back = ? AND {_KEY_IS}"  # noqa: S608
_HELD = f"SELECT {', '.join(Held._fields)} FROM workloads WHERE workload_no = ?"  # noqa: S608
_WORKLOAD_TOTALS = f"SELECT {_KEY}, {_SUMS} FROM totals WHERE workload_no = ?"  # noqa: S608
_WORKLOAD_HOURS = f"SELECT hour, back, {_KEY}, {_SUMS} FROM hourly WHERE workload_no = ? AND hour >= ?"  # noqa: S608


class SqliteStore:
    """An opened store, held by an exclusive lock until `close`."""

    def __init__(self, path: Path, *, connect: Callable[..., sqlite3.Connection] = sqlite3.connect) -> None:
        """Open, migrate and lock `path`. Raises StoreError, also if another collector has it.

        `connect` is sqlite3.connect, or a test's that fails where it is told to.
        """
        self.path = path
        self._lock = lock_store(path)
        try:
            with told(str(path), "open"):
                self._writer = self._open(connect)
                migrate(self._writer, str(path))
                self._reader = self._open(connect)
                self._reader.execute("PRAGMA query_only = 1")
        except BaseException:
            os.close(self._lock)
            raise
        self.books = SqliteBooks(self._writer, str(path), Place(path))
        self.catalogue = SqliteCatalogue(self._reader, str(path))

    def _open(self, connect: Callable[..., sqlite3.Connection]) -> sqlite3.Connection:
        connection = connect(
            self.path,
            timeout=BUSY_TIMEOUT_S,
            isolation_level=None,
            check_same_thread=False,
            cached_statements=64,
        )
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute(f"PRAGMA cache_size = -{CACHE_KIB}")
        connection.execute(f"PRAGMA wal_autocheckpoint = {WAL_AUTOCHECKPOINT_PAGES}")
        return connection

    def log_origin(self) -> str:
        """The name of the store's evidence log; "": it has none yet. Raises StoreError."""
        with told(str(self.path), "read"):
            row = self._writer.execute("SELECT coalesce(origin, '') FROM log_identity").fetchone()
        return "" if row is None else str(row[0])

    def backfill_log(self) -> int:
        """Give what an older flopmeter wrote its place in the evidence log; before anything is committed.

        May take minutes, and says so. Returns how many leaves that were. Raises StoreError.
        """
        with told(str(self.path), "commit"):
            return backfill(self._writer)

    def close(self) -> None:
        """Close both connections (the last one checkpoints) and give the lock back."""
        self._reader.close()
        self._writer.close()
        os.close(self._lock)


class SqliteCatalogue:
    """store.base.Catalogue on a read-only connection."""

    def __init__(self, connection: sqlite3.Connection, path: str) -> None:
        self._connection = connection
        self._path = path

    def _all(self, sql: str, values: tuple[Any, ...] = ()) -> list[Any]:
        with told(self._path, "read"):
            return self._connection.execute(sql, values).fetchall()

    def _one(self, sql: str, values: tuple[Any, ...]) -> Any:
        rows = self._all(sql, values)
        return rows[0][0] if rows else None

    def agents(self) -> list[StoredAgent]:
        lost: dict[int, list[tuple[int, int]]] = {}
        for agent_no, first, last in self._all(
            "SELECT agent_no, from_seq, to_seq FROM losses ORDER BY agent_no, from_seq"
        ):
            lost.setdefault(agent_no, []).append((first, last))
        boots: dict[int, dict[bytes, int]] = {}
        for agent_no, boot_id, end in self._all("SELECT agent_no, boot_id, window_end_boot_ns FROM boots"):
            boots.setdefault(agent_no, {})[boot_id] = end
        return [
            StoredAgent._make((*row, lost.get(row[0], []), boots.get(row[0], {})))
            for row in self._all(_AGENTS)
        ]

    def next_numbers(self) -> NextNumbers:
        row = self._all(
            "SELECT (SELECT coalesce(max(agent_no), 0) + 1 FROM agents), "
            "(SELECT coalesce(max(workload_no), 0) + 1 FROM workloads), "
            "(SELECT coalesce(max(model_no), 0) + 1 FROM models)"
        )[0]
        return NextNumbers(*row)

    def models(self) -> dict[tuple[str, str], int]:
        rows = self._all("SELECT name, compute_capability, model_no FROM models")
        return {(name, capability): no for name, capability, no in rows}

    def inventory(self, digest: bytes) -> bytes | None:
        found: bytes | None = self._one("SELECT bytes FROM inventories WHERE digest = ?", (digest,))
        return found

    def workload_no(self, identity: tuple[Any, ...]) -> int | None:
        found: int | None = self._one(
            "SELECT workload_no FROM workloads WHERE scope = ? AND kind = ? AND job = ? AND step = ? "
            "AND run_label = ? AND user = ? AND dtype = ? AND restart = ? AND identities = ?",
            identity,
        )
        return found

    def job_rows(self, scope: str, kind: int, job: str) -> list[JobRow]:
        rows = self._all(_JOB_ROWS, (scope, kind, job))
        return [JobRow._make(row) for row in rows]

    def claims(self) -> list[Claim]:
        found = []
        for *row, boot_id, boot_ns, unix_ns in self._all(f"SELECT {_CLAIM} FROM claims ORDER BY claim_no"):  # noqa: S608
            claim = Claim(*row)
            if boot_id is not None:
                claim.until = Until(boot_id, boot_ns, unix_ns)
            found.append(claim)
        return found

    def told_twice(self) -> list[tuple[str, int, int]]:
        numbers = {agent_id.hex(): no for agent_id, no in self._all("SELECT agent_id, agent_no FROM agents")}
        end = TWICE_PREFIX[:-1] + chr(ord(TWICE_PREFIX[-1]) + 1)
        found = []
        for (key,) in self._all("SELECT key FROM events WHERE key >= ? AND key < ?", (TWICE_PREFIX, end)):
            entity, one, two = key.removeprefix(TWICE_PREFIX).rsplit(":", 2)
            if one in numbers and two in numbers:  # else fsck says what is wrong
                found.append((entity, numbers[one], numbers[two]))
        return found

    def entries(self, after_no: int = 0) -> list[EntryRow]:
        return entries.entry_rows(self._all(entries.SELECT, (after_no,)))

    def last_answer(self) -> int:
        return int(self._all("SELECT coalesce(max(answer_no), 0) FROM answers")[0][0])

    def last_access(self) -> int:
        return int(self._all(access.LAST_NO)[0][0])

    def standing(self, after_no: int, until_no: int) -> list[AccessRow]:
        return access.access_rows(self._all(access.SELECT_STANDING, (after_no, until_no)))

    def record_hash(self, window_start_s: int, agent_no: int, seq: int) -> bytes | None:
        found: bytes | None = self._one(
            "SELECT hash FROM records WHERE window_start_s = ? AND agent_no = ? AND seq = ?",
            (window_start_s, agent_no, seq),
        )
        return found


class SqliteBooks:
    """store.base.Books on the writing connection."""

    def __init__(self, connection: sqlite3.Connection, path: str, place: Place) -> None:
        self._connection = connection
        self._path = path
        self._place = place
        self._log = Appender(connection)

    def _all(self, sql: str, values: tuple[Any, ...] = ()) -> list[Any]:
        with told(self._path, "read"):
            return self._connection.execute(sql, values).fetchall()

    def next_position(self) -> int:
        return int(self._all("SELECT coalesce(max(position), 0) + 1 FROM records")[0][0])

    def next_event_no(self) -> int:
        return int(self._all("SELECT coalesce(max(event_no), 0) + 1 FROM events")[0][0])

    def models(self) -> dict[int, tuple[str, str]]:
        rows = self._all("SELECT model_no, name, compute_capability FROM models")
        return {no: (name, capability) for no, name, capability in rows}

    def workloads(self, workload_nos: Iterable[int]) -> dict[int, Held]:
        found = {}
        for number in workload_nos:
            for row in self._all(_HELD, (number,)):
                found[number] = Held._make(row)
        return found

    def workloads_of_run(self, run: str) -> list[int]:
        return [no for (no,) in self._all("SELECT workload_no FROM workloads WHERE run = ?", (run,))]

    def workloads_of_job(self, scope: str, kind: int, job: str) -> list[int]:
        sql = "SELECT workload_no FROM workloads WHERE scope = ? AND kind = ? AND job = ?"
        return [no for (no,) in self._all(sql, (scope, kind, job))]

    def totals(self, keys: Iterable[GroupKey]) -> dict[GroupKey, Sums]:
        found = {}
        for key in keys:
            for row in self._all(_TOTALS, key):
                found[key] = [int(text) for text in row]
        return found

    def hourly(self, keys: Iterable[HourKey]) -> dict[HourKey, Sums]:
        found = {}
        for key in keys:
            for row in self._all(_HOURLY, (*key.slot, *key.group)):
                found[key] = [int(text) for text in row]
        return found

    def workload_totals(self, workload_nos: Iterable[int]) -> Iterator[tuple[GroupKey, Sums]]:
        for number in workload_nos:
            for row in self._all(_WORKLOAD_TOTALS, (number,)):
                yield GroupKey._make(row[:6]), [int(text) for text in row[6:]]

    def workload_hours(
        self, workload_nos: Iterable[int], from_hour: int = 0
    ) -> Iterator[tuple[HourKey, Sums]]:
        for number in workload_nos:
            for row in self._all(_WORKLOAD_HOURS, (number, from_hour)):
                yield HourKey(Slot(*row[:2]), GroupKey._make(row[2:8])), [int(text) for text in row[8:]]

    def last_claim(self, workload_no: int, agent_no: int) -> tuple[ClaimKey, ClaimHour] | None:
        rows = self._all(
            f"SELECT {CLAIM_COLUMNS} FROM progress WHERE workload_no = ? AND agent_no = ? ORDER BY hour DESC LIMIT 1",  # noqa: S608
            (workload_no, agent_no),
        )
        return claim_of(rows[0]) if rows else None

    def claim_hours(
        self, workload_nos: Iterable[int], from_hour: int = 0
    ) -> Iterator[tuple[ClaimKey, ClaimHour]]:
        sql = f"SELECT {CLAIM_COLUMNS} FROM progress WHERE workload_no = ? AND hour >= ?"  # noqa: S608
        for number in workload_nos:
            yield from map(claim_of, self._all(sql, (number, from_hour)))

    def workloads_once(self, run: str) -> list[int]:
        return [no for (no,) in self._all("SELECT workload_no FROM formerly WHERE run = ?", (run,))]

    def names_lost(self, workload_nos: Iterable[int] | None = None) -> set[str]:
        if workload_nos is None:
            return {run for (run,) in self._all("SELECT DISTINCT run FROM formerly")}
        sql = "SELECT run FROM formerly WHERE workload_no = ?"
        return {run for no in workload_nos for (run,) in self._all(sql, (no,))}

    def noted(self, name: str) -> int | None:
        rows = self._all(
            "SELECT value FROM noted WHERE name = ? ORDER BY from_position DESC LIMIT 1", (name,)
        )
        return int(rows[0][0]) if rows else None

    def runs(self) -> list[str]:
        return [
            run for (run,) in self._all("SELECT DISTINCT run FROM workloads WHERE run != '' ORDER BY run")
        ]

    def has_event(self, key: str) -> bool:
        return bool(self._all("SELECT 1 FROM events WHERE key = ?", (key,)))

    def event_keys_from(self, prefix: str) -> set[str]:
        end = prefix[:-1] + chr(ord(prefix[-1]) + 1)
        return {
            key for (key,) in self._all("SELECT key FROM events WHERE key >= ? AND key < ?", (prefix, end))
        }

    def last_records(self) -> Iterator[tuple[int, bytes]]:
        with told(self._path, "read"):
            yield from self._connection.execute(
                "SELECT heads.agent_no, record FROM heads JOIN records USING (position)"
            )

    def inventory(self, digest: bytes) -> bytes | None:
        rows = self._all("SELECT bytes FROM inventories WHERE digest = ?", (digest,))
        return rows[0][0] if rows else None

    def identity_rules(self) -> str:
        rows = self._all("SELECT digest FROM identity_rules ORDER BY from_position DESC LIMIT 1")
        return str(rows[0][0]) if rows else ""

    def applied(self) -> int:
        return int(self._all("SELECT coalesce(max(entry_no), 0) FROM applied")[0][0])

    def site_laws(self) -> tuple[int, str]:
        rows = self._all("SELECT law_no, files FROM site_laws ORDER BY law_no DESC LIMIT 1")
        return (int(rows[0][0]), str(rows[0][1])) if rows else (0, "[]")

    def text(self, digest: str) -> str | None:
        rows = self._all("SELECT text FROM texts WHERE digest = ?", (digest,))
        return str(rows[0][0]) if rows else None

    def judged(self) -> list[Judged]:
        columns = ", ".join(Judged._fields)
        rows = self._all(f"SELECT {columns} FROM judged WHERE until_position IS NULL")  # noqa: S608
        return [Judged(*row) for row in rows]

    def event_keys(self, subject: str) -> set[str]:
        rows = self._all(f"SELECT key, {OLD_DATA} FROM events WHERE subject = ?", (subject,))  # noqa: S608
        return {current_key(key, data) for key, data in rows}

    def entries(self, after_no: int = 0) -> list[EntryRow]:
        return entries.entry_rows(self._all(entries.SELECT, (after_no,)))

    def deadlines(self) -> list[tuple[int, Deadline]]:
        return [(row[0], Deadline._make(row[1:])) for row in self._all(answers.SELECT_DEADLINES)]

    def told_deadlines(self) -> list[str]:
        return [key for (key,) in self._all(answers.TOLD)]

    def triggers(self, types: Iterable[str]) -> list[Trigger]:
        found = []
        for kind in types:
            found += answers.trigger_rows(self._all(answers.TRIGGERS, (kind,)))
        return sorted(found)

    def answers_heard(self, after_no: int) -> list[Heard]:
        return answers.heard_rows(self._all(answers.HEARD, (after_no,)))

    def next_forecast_no(self) -> int:
        return int(self._all(forecasts.NEXT_NO)[0][0])

    def last_forecast(self, run: str) -> forecasts.ForecastRow | None:
        return next(iter(forecasts.forecast_rows(self._all(forecasts.LAST, (run,)))), None)

    def runs_forecast_since(self, unix_ns: int) -> list[str]:
        return [run for (run,) in self._all(forecasts.RUNS_SINCE, (unix_ns,))]

    def first_seen(self, workload_nos: Iterable[int]) -> int | None:
        found = [row[0] for no in workload_nos for row in self._all(forecasts.FIRST_SEEN, (no,))]
        return min(found, default=None)

    def write(self, transaction: Transaction) -> None:
        connection = self._connection
        with told(self._path, "commit"):
            if connection.in_transaction:  # a rollback that failed too
                connection.execute("ROLLBACK")
            try:
                connection.execute("BEGIN IMMEDIATE")
                admitted = access.append(connection.execute, transaction.access)
                for name, sql in WRITES:
                    rows = getattr(transaction, name)
                    if rows:
                        connection.executemany(sql, rows)
                self._log.append(
                    access_upto=transaction.access_upto,
                    access_new=len(admitted),
                    records=transaction.records,
                    starts_unix_ns=transaction.starts_unix_ns,
                )
                connection.execute("COMMIT")
                # D2: durable from here. A crash before this line leaves nothing of the group, and every
                # agent still has its records; a crash after it leaves all of it, and the records come
                # again and are recognised by number and hash.
            except BaseException:
                self._log.forget()
                if connection.in_transaction:
                    connection.execute("ROLLBACK")
                raise
        self._place.check()  # … if the file is still one that a restart would find

    def probe(self) -> None:
        self._place.check()
        with told(self._path, "commit"):
            version = self._connection.execute("PRAGMA user_version").fetchone()[0]
            self._connection.execute(f"PRAGMA user_version = {int(version)}")
