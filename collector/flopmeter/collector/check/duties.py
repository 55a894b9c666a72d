"""Answers and deadlines as they are stored, for duty_check."""

from collections.abc import Iterable, Sequence

from flopmeter.collector.duty.deadlines import Deadline
from flopmeter.collector.duty.watch import RULES
from flopmeter.collector.errors import RegimeError
from flopmeter.collector.law.regimes import Regime, parse
from flopmeter.collector.report.queries import Reader
from flopmeter.collector.store.answers import SELECT, SELECT_DEADLINES, answer_rows

from .duty_check import DutyCheck
from .event_check import StoredEvent
from .rederive import Rederivation


def check_duties(
    reader: Reader, events: Sequence[StoredEvent], regimes: Iterable[Regime], books: Rederivation
) -> DutyCheck:
    """Check them, once every record is in `books`. Raises Difference."""
    db, known = reader.rows, {r.id: r for r in regimes}
    sql = "SELECT name, value, from_position FROM noted WHERE name >= ? ORDER BY from_position"
    noted = [(n.removeprefix(RULES), *rest) for n, *rest in db(sql, (RULES,)) if n.startswith(RULES)]
    deadlines = [(r[0], Deadline._make(r[1:])) for r in db(SELECT_DEADLINES)]
    check = DutyCheck(
        deadlines,
        answer_rows(db(SELECT, (0,))),
        events,
        known,
        _texts(reader, {d.text_digest for _, d in deadlines}) | {(r.id, r.digest): r for r in known.values()},
        marks={name: value for name, value, _ in noted},
        marked={name: position for name, _, position in noted},
        position=books.position,
        received_unix_ns=books.received_unix_ns,
    )
    check.check()
    return check


def _texts(reader: Reader, digests: Iterable[str]) -> dict[tuple[str, str], Regime]:
    """Texts of then, as they were kept when they were first judged by."""
    found = {}
    for digest in digests:
        row = reader.rows("SELECT text FROM texts WHERE digest = ?", (digest,)).fetchone()
        if row is None:
            continue
        try:
            regime = parse(f"text {digest[:12]}", row[0].encode())
        except RegimeError:
            continue  # of another flopmeter, or damaged: what follows from it is told as not derived
        found[regime.id, digest] = regime
    return found
