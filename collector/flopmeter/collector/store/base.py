"""What ingest asks of a store, with the promises it relies on. Drivers are native; tests are shared.

Two sides, because two threads use it: the event loop looks names up (`Catalogue`), the one writer thread
reads and writes sums (`Books`). Neither may see the other's half-done work, so each has its own connection.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol

from flopmeter.collector.access.rows import AccessRow, NewAccess
from flopmeter.collector.books import GroupKey, HourKey, Sums
from flopmeter.collector.duty.answers import Heard
from flopmeter.collector.duty.deadlines import Deadline, Trigger
from flopmeter.collector.ingest.claims import Claim
from flopmeter.collector.law.progress import ClaimHour, ClaimKey
from flopmeter.collector.registry.codec import EntryRow

from .forecasts import ForecastRow


class NextNumbers(NamedTuple):
    """The next free number of each counted table."""

    agent_no: int
    workload_no: int
    model_no: int


class StoredAgent(NamedTuple):
    """One admitted agent, with the last record of its chain: what its head is, is read from that."""

    agent_no: int
    agent_id: bytes
    public_key: bytes
    node: str
    version: str
    admitted_how: str
    admitted_unix_ns: int
    last_record: bytes | None  # None: no record yet
    last_received_unix_ns: int | None
    usual_window_ns: int | None
    lost: list[tuple[int, int]]  # ranges of numbers, in order
    boots: dict[bytes, int]  # boots before the last record's -> boot time at which their usage ends


class Held(NamedTuple):
    """A workload, as far as it is asked whose compute it is: the run that the rules chose, and what a person may say."""

    run: str
    dtype: str
    scope: str
    kind: int
    job: str
    step: str


class JobRow(NamedTuple):
    """One workload of a job."""

    workload_no: int
    run: str
    run_rule: str
    restart: int
    begun_unix_ns: int
    identities: str


class Judged(NamedTuple):
    """A regime's text and a W table that runs are judged by, since when."""

    regime: str
    digest: str
    w_table: str
    from_position: int
    from_unix_ns: int


class Noted(NamedTuple):
    """The value of a setting that events rest on, from a position on."""

    name: str
    value: int
    from_position: int
    from_unix_ns: int


@dataclass(slots=True)
class Transaction:
    """Rows to write together, each in the column order of the driver's statement of that name."""

    new_agents: list[tuple[Any, ...]] = field(default_factory=list)
    seen_agents: list[tuple[Any, ...]] = field(default_factory=list)
    inventories: list[tuple[Any, ...]] = field(default_factory=list)
    models: list[tuple[Any, ...]] = field(default_factory=list)
    workloads: list[tuple[Any, ...]] = field(default_factory=list)
    moved: list[tuple[Any, ...]] = field(default_factory=list)
    formerly: list[tuple[Any, ...]] = field(default_factory=list)
    identity_rules: list[tuple[Any, ...]] = field(default_factory=list)
    applied: list[tuple[Any, ...]] = field(default_factory=list)
    records: list[tuple[Any, ...]] = field(default_factory=list)
    #: When each record's window began: its leaf in the log says so.
    starts_unix_ns: list[int] = field(default_factory=list)
    #: Number of the last access row that is applied to these records, and so may be logged; None: all are.
    access_upto: int | None = None
    heads: list[tuple[Any, ...]] = field(default_factory=list)
    texts: list[tuple[str, str, int]] = field(default_factory=list)  # digest, text, from_unix_ns
    site_laws: list[tuple[int, int, int, str]] = field(default_factory=list)
    judged: list[tuple[Any, ...]] = field(default_factory=list)
    judged_until: list[tuple[Any, ...]] = field(default_factory=list)
    boots: list[tuple[Any, ...]] = field(default_factory=list)
    clocks: list[tuple[Any, ...]] = field(default_factory=list)
    claims: list[tuple[Any, ...]] = field(default_factory=list)
    claim_ends: list[tuple[Any, ...]] = field(default_factory=list)
    spans: list[tuple[Any, ...]] = field(default_factory=list)
    totals: list[tuple[Any, ...]] = field(default_factory=list)
    hourly: list[tuple[Any, ...]] = field(default_factory=list)
    progress: list[tuple[Any, ...]] = field(default_factory=list)
    noted: list[Noted] = field(default_factory=list)
    access: list[NewAccess] = field(default_factory=list)  # numbered and chained in the transaction
    losses: list[tuple[Any, ...]] = field(default_factory=list)
    conflicts: list[tuple[Any, ...]] = field(default_factory=list)
    events: list[tuple[Any, ...]] = field(default_factory=list)
    deadlines: list[Deadline] = field(default_factory=list)
    log_faults: list[tuple[str, int, str]] = field(default_factory=list)  # event key, unix_ns, what was found
    forecasts: list[ForecastRow] = field(default_factory=list)
    outbox: list[tuple[Any, ...]] = field(default_factory=list)


class Catalogue(Protocol):
    """Look-ups by the event loop. Sees committed rows only; never blocks on a writer. Raises StoreError."""

    def agents(self) -> list[StoredAgent]:
        """Every admitted agent with its last committed record and its losses."""
        ...

    def next_numbers(self) -> NextNumbers: ...

    def models(self) -> dict[tuple[str, str], int]:
        """(name, compute capability) -> model_no."""
        ...

    def inventory(self, digest: bytes) -> bytes | None:
        """The inventory's received bytes, or None."""
        ...

    def workload_no(self, identity: tuple[Any, ...]) -> int | None:
        """By (scope, kind, job, step, run_label, user, dtype, restart, identities)."""
        ...

    def job_rows(self, scope: str, kind: int, job: str) -> list[JobRow]:
        """Every workload of that job id, by number."""
        ...

    def claims(self) -> list[Claim]:
        """Which agent metered which entity, and up to when."""
        ...

    def told_twice(self) -> list[tuple[str, int, int]]:
        """(entity, agent_no, agent_no) of each event about two agents on one entity."""
        ...

    def last_answer(self) -> int:
        """Number of the last answer that a person gave; 0 = none."""
        ...

    def last_access(self) -> int:
        """Number of the last row of the access table; 0 = none."""
        ...

    def standing(self, after_no: int, until_no: int) -> list[AccessRow]:
        """Rows between those numbers that change an agent's standing, in order."""
        ...

    def record_hash(self, window_start_s: int, agent_no: int, seq: int) -> bytes | None:
        """Hash of the stored record of that number and window, or None."""
        ...

    def entries(self, after_no: int = 0) -> list[EntryRow]:
        """The registry's entries behind that number, in order."""
        ...


class Books(Protocol):
    """Reads and writes of the one writer thread. Raises StoreError."""

    def next_position(self) -> int: ...

    def next_event_no(self) -> int: ...

    def models(self) -> dict[int, tuple[str, str]]: ...

    def workloads(self, workload_nos: Iterable[int]) -> dict[int, Held]: ...

    def workloads_of_run(self, run: str) -> list[int]:
        """Workloads that the rules gave to `run`."""
        ...

    def workloads_of_job(self, scope: str, kind: int, job: str) -> list[int]: ...

    def totals(self, keys: Iterable[GroupKey]) -> dict[GroupKey, Sums]: ...

    def hourly(self, keys: Iterable[HourKey]) -> dict[HourKey, Sums]: ...

    def workload_totals(self, workload_nos: Iterable[int]) -> Iterator[tuple[GroupKey, Sums]]: ...

    def workload_hours(
        self, workload_nos: Iterable[int], from_hour: int = 0
    ) -> Iterator[tuple[HourKey, Sums]]:
        """Hourly sums of those workloads that end in that hour or later, bridges that began before it among them."""
        ...

    def last_claim(self, workload_no: int, agent_no: int) -> tuple[ClaimKey, ClaimHour] | None:
        """A claimer's latest hour."""
        ...

    def claim_hours(
        self, workload_nos: Iterable[int], from_hour: int = 0
    ) -> Iterator[tuple[ClaimKey, ClaimHour]]: ...

    def workloads_once(self, run: str) -> list[int]:
        """Workloads that were booked under `run`, and are not any more or are again."""
        ...

    def names_lost(self, workload_nos: Iterable[int] | None = None) -> set[str]:
        """Names that any of these workloads was booked under once; None: that any was."""
        ...

    def noted(self, name: str) -> int | None:
        """The value of a setting as it was noted last."""
        ...

    def runs(self) -> list[str]:
        """Every run that the rules gave anything to."""
        ...

    def event_keys(self, subject: str) -> set[str]: ...

    def has_event(self, key: str) -> bool: ...

    def event_keys_from(self, prefix: str) -> set[str]:
        """Keys that begin so."""
        ...

    def last_records(self) -> Iterator[tuple[int, bytes]]:
        """(agent_no, its last record) of every agent that has one; one after the other: together they are large."""
        ...

    def inventory(self, digest: bytes) -> bytes | None:
        """The inventory's received bytes, or None."""
        ...

    def identity_rules(self) -> str:
        """Digest of the rule list that was noted last; "" = none."""
        ...

    def applied(self) -> int:
        """Number of the last entry that runs were judged by; 0 = none."""
        ...

    def site_laws(self) -> tuple[int, str]:
        """(number, files) of the site's regimes as last applied; (0, "[]"): none ever was."""
        ...

    def text(self, digest: str) -> str | None:
        """A regime file or counting profile by which something was judged."""
        ...

    def judged(self) -> list[Judged]:
        """What runs are judged by, as last noted."""
        ...

    def entries(self, after_no: int = 0) -> list[EntryRow]:
        """The registry's entries behind that number, in order: a person may have made one since the last look."""
        ...

    def deadlines(self) -> list[tuple[int, Deadline]]:
        """Every deadline with its number, in order."""
        ...

    def told_deadlines(self) -> list[str]:
        """Keys of the events that told of deadlines."""
        ...

    def triggers(self, types: Iterable[str]) -> list[Trigger]:
        """Every event of those types, in order."""
        ...

    def answers_heard(self, after_no: int) -> list[Heard]:
        """Answers about deadlines behind that number, in order, and the last one of all, whatever it is about."""
        ...

    def next_forecast_no(self) -> int: ...

    def last_forecast(self, run: str) -> ForecastRow | None: ...

    def runs_forecast_since(self, unix_ns: int) -> list[str]:
        """Runs of which a forecast was made since then."""
        ...

    def first_seen(self, workload_nos: Iterable[int]) -> int | None:
        """Start of the first window that names any of them, Unix ns; None: none is in the books."""
        ...

    def write(self, transaction: Transaction) -> None:
        """All rows or none. On return they are durable: they survive power loss (synchronous=FULL).

        On StoreError nothing is known to be durable: the caller must forget what it computed and read
        the store again before it writes or acknowledges anything.
        """
        ...

    def probe(self) -> None:
        """Write and commit something harmless, to learn whether commits work again. Raises StoreError."""
        ...


class LastEntry(NamedTuple):
    """What an entry is appended to."""

    entry_no: int  # of the last entry; 0: there is none
    hash: bytes
    position: int  # of the last record in the books


class EntryLog(Protocol):
    """The registry's side: what people say, from their own process, beside a collector that runs. Raises StoreError."""

    def entries(self, after_no: int = 0) -> list[EntryRow]:
        """Entries behind that number, in order."""
        ...

    def append_entry(self, make: Callable[[LastEntry], EntryRow]) -> EntryRow:
        """Append what `make` returns, and nothing if it raises. On return it is durable.

        `make` is called once, with nobody else able to append meanwhile, and must not take long: a collector's
        commit waits for it. The driver refuses a row that is not the next one, and any change of one that is there.
        """
        ...
