"""Logging a record: what is gathered of a run, sealed field by field, and its digest in the evidence log."""

from flopmeter.collector.chained_words import NO_HASH
from flopmeter.collector.law.regimes import RUN, Regime
from flopmeter.collector.log.entry import BATCH
from flopmeter.collector.log.evidence_log import EvidenceLog
from flopmeter.collector.registry.entries import Declare
from flopmeter.collector.report.documents import figure_of
from flopmeter.collector.report.queries import Reader
from flopmeter.collector.store.attestations import SqliteAttestations
from flopmeter.contract.flop import Figure

from . import disclosures
from .errors import AttestRefused
from .fields import counted_of, fields, in_force_then
from .gather import Gathered, gather
from .material import facts_of, material_json
from .request import Means, Request
from .said import RECORD, AttestationRow, next_row
from .software import software
from .standing import Crossing, Told, crossing

ENTRY, EVENT = "entry", "event"
_TOKENS = "SELECT count(*) FROM timestamps"


def recorded(books: SqliteAttestations, reader: Reader, request: Request, means: Means) -> AttestationRow:
    """The row of the record, durable and in the log. Raises AttestRefused, and StoreError."""
    now = means.now_unix_ns()
    g = gather(reader, request.run, means.question(now), means.estimates)
    log = EvidenceLog(books.connection)
    # All that was read is committed; what people said of it may still wait for its place in the log.
    books.in_transaction(lambda _: log.append_waiting())
    first = log.index_of(BATCH, g.seen.first_position)
    if first is None:
        raise AttestRefused(
            f"record {g.seen.first_position}: expected it in the evidence log, found it not there yet",
            "start `flopmeter collector serve` on this store once: it logs what an older flopmeter has left",
        )
    index_of = {e.number: i for e in g.registry.entries if (i := log.index_of(ENTRY, e.number)) is not None}
    events = {e.number: i for e in g.events if (i := log.index_of(EVENT, e.number)) is not None}
    made = fields(
        g,
        _crossings(g, events),
        index_of,
        means.random,
        software=software(),
        timestamps=books.connection.execute(_TOKENS).fetchone()[0],
    )
    record = disclosures.sealed(made.values, means.random)
    material = material_json(record, made, facts_of(g, made, _declared(g, index_of, first)))
    unsealed = AttestationRow(
        attestation_no=0,
        unix_ns=now,
        position=g.position,
        kind=RECORD,
        attestation_id="",
        commitment=str(made.values["/run/commitment"]).removeprefix("sha256:"),
        run=request.run,
        profile="",
        recipient="",
        record_digest=record.digest,
        statement_sha256="",
        supersedes="",
        who=request.who,
        why=request.why,
        detail="{}",
        salt=means.random(16),
        prev_hash=NO_HASH,
        hash=NO_HASH,
    )
    return books.append_attestation(
        lambda before: (next_row(before, unsealed), material), lambda _: log.append_waiting()
    )


def _crossings(g: Gathered, log_index: dict[int, int]) -> dict[str, Crossing]:
    told = Told(g.run, g.events, g.due, g.owing_ids, log_index)
    return {
        r.id: crossing(r, counted_of(g, r), _of_records(g, r), told)
        for r in in_force_then(g)
        if r.scope == RUN
    }


def _of_records(g: Gathered, r: Regime) -> Figure:
    """What the regime counts without what silent agents may have done."""
    whole, owed = counted_of(g, r), figure_of(g.document["countable"][r.id]["unreported"])
    return Figure(whole.lower - owed.lower, whole.point - owed.point, whole.upper - owed.upper)


def _declared(g: Gathered, index_of: dict[int, int], first: int) -> int | None:
    """Log index of the run's first declaration, if it was there before the run's first record was."""
    names = {g.run, *g.registry.names(g.run)}
    said = [
        index_of[e.number]
        for e in g.registry.entries
        if isinstance(e.statement, Declare) and e.statement.run in names and e.number in index_of
    ]
    return min((i for i in said if i < first), default=None)
