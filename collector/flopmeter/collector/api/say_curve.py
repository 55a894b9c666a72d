"""GET /runs/{run}/curve: cumulative figures, what is missing in them, what people said of the time, and the forecast."""

import json
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from flopmeter.collector.books import HOUR_NS
from flopmeter.collector.figures import Priced, PriceKey, pricer
from flopmeter.collector.forecast.live import kept_document
from flopmeter.collector.law.regimes import INTEGER_OR_FLOAT
from flopmeter.collector.law.rules import counted, in_force, verdict
from flopmeter.collector.law.standing import standing
from flopmeter.collector.registry.entries import Declare, JobKey, Tag
from flopmeter.collector.report.documents import RunRows
from flopmeter.collector.report.queries import Reader
from flopmeter.collector.spelling import figure_json, time_text
from flopmeter.collector.store.forecasts import LAST, forecast_rows
from flopmeter.contract.flop import Figure, total
from flopmeter.contract.usage import WorkloadKind

from .asking import Wish
from .books import Books
from .curve_book import CurveBook, thinned
from .curve_gaps import gaps_json
from .numbers import numbers_of
from .problems import bad
from .routes import UNITS
from .say_runs import check_run, relatives
from .told import body_of, once
from .view import View

MOST_JOBS = 200
MOST_SPANS = 500
_SECOND_NS = 1_000_000_000
_SPAN = "SELECT first_unix_ns, last_unix_ns FROM workloads WHERE workload_no = ?"


def curve(books: Books, wish: Wish) -> bytes:
    view, name = books.view(), wish.names["run"]
    check_run(view, wish, name)
    with books.reading() as reader:
        numbers = numbers_of(reader)
        if numbers != view.numbers:
            return body_of(_curve(books, view, reader, wish, numbers.position))
        asked = tuple(sorted(wish.texts.items())), tuple(sorted(wish.numbers.items())), wish.tenant
        return once(
            view, ("curve", name, *asked), lambda: _curve(books, view, reader, wish, numbers.position)
        )


def _curve(books: Books, view: View, reader: Reader, wish: Wish, position: int) -> dict[str, Any]:
    name = wish.names["run"]
    rows = view.rows[name]
    newer = position != view.numbers.position
    kept = next(iter(forecast_rows(reader.rows(LAST, (name,)))), None)
    with books.curves.lock:
        book = books.curve(reader, rows, position)
        span = _span(reader, rows) if newer else (rows.first_unix_ns, rows.last_unix_ns)
        since, until = _stretch(book, span, wish.numbers)
        fine = books.curves.by_hours(reader, rows, book, (since, until))
        if not fine:
            since, until = _whole_days(book, since, until)
        drawn = _series(book, span, (since, until), wish, view, fine=fine)
        missing = gaps_json(book.missing(since, until))
    unit = wish.texts.get("unit", UNITS[0])
    forecast = None
    if kept is not None:
        found = json.loads(kept.data)
        forecast = _cone(found, kept_document(kept.unix_ns, kept.method, found), unit)
    document = {
        "as_of": time_text(view.as_of_unix_ns),
        "drawn_as_of": time_text(max(books.clock(), view.as_of_unix_ns) if newer else view.as_of_unix_ns),
        "run": name,
        "unit": unit,
        "step": "hour" if fine else "day",
        **_ends(span, since, until),
        **drawn,
        "gaps": missing,
        "silent": _silent(view, name, unit),
        "purposes": _purposes(view, name),
        **_jobs(rows),
        "lines": _lines(view, name),
        "forecast": forecast,
    }
    found_all: dict[str, Any] = view.sight(wish.tenant).cleaned(document, relatives(view, name))
    return found_all


def _span(reader: Reader, rows: RunRows) -> tuple[int, int]:
    """From the run's first record to its last, as the reader's state has it."""
    found = [reader.rows(_SPAN, (w.workload_no,)).fetchone() for w in rows.workloads]
    return min(first for first, _ in found), max(last for _, last in found)


def _stretch(book: CurveBook, span: tuple[int, int], numbers: Mapping[str, int]) -> tuple[int, int]:
    """The hours that are asked for, both with it. Raises Problem where the end is before the beginning."""
    if "from" in numbers and "to" in numbers and numbers["from"] >= numbers["to"]:
        raise bad("to: expected a time behind `from`, got one before it, or the same")
    first, last = book.ends or (span[0] // HOUR_NS,) * 2
    since = max(first, numbers["from"] // HOUR_NS) if "from" in numbers else first
    until = min(last, (numbers["to"] - 1) // HOUR_NS) if "to" in numbers else last
    return since, until


def _whole_days(book: CurveBook, since: int, until: int) -> tuple[int, int]:
    """The days that the hours are of, as far as they hold anything."""
    days = book.days(since, until)
    return min(since, days[0].first), max(until, days[-1].last)


def _end_of(hour: int, last_unix_ns: int) -> int:
    """When the hour is over, or the run's last record was."""
    end = (hour + 1) * HOUR_NS
    return min(end, last_unix_ns) if last_unix_ns > hour * HOUR_NS else end


def _ends(span: tuple[int, int], since: int, until: int) -> dict[str, str]:
    first, last = span
    return {
        "first": time_text(first),
        "last": time_text(last),
        "from": time_text(max(since * HOUR_NS, first)),
        "to": time_text(_end_of(max(until, since), last)),
    }


def _series(
    book: CurveBook, span: tuple[int, int], stretch: tuple[int, int], wish: Wish, view: View, *, fine: bool
) -> dict[str, Any]:
    models, table = view.side.models, view.question.table

    pricers: dict[PriceKey, Callable[[Iterable[int]], Priced]] = {}

    def priced(key: PriceKey, sums: tuple[int, ...]) -> tuple[Figure, Figure]:
        of = pricers.get(key)
        if of is None:
            of = pricers[key] = pricer(key, models[key.model_no], table)
        found = of(sums)
        return found.flop, found.integer_ops

    hours = book.hours(*stretch) if fine else [d.last for d in book.days(*stretch)]
    hours = thinned(hours, wish.numbers["points"])
    figures = []
    for hour in hours:
        flop, ops = book.at(hour, priced, table)
        figures.append(flop + ops if wish.texts.get("unit") == INTEGER_OR_FLOAT else flop)
    return {
        "times": [time_text(_end_of(hour, span[1])) for hour in hours],
        "cumulative": {
            bound: [str(getattr(f, bound)) for f in figures] for bound in ("lower", "point", "upper")
        },
    }


def _silent(view: View, name: str, unit: str) -> dict[str, Any] | None:
    missing = view.side.silence.of(name)
    if not missing.nodes:
        return None
    flop, ops = missing.tally.figures(view.side.models, view.question.table)
    return {
        "since": time_text(missing.since_unix_ns),
        "nodes": list(missing.nodes),
        "device_seconds": missing.duration_ns / _SECOND_NS,
        "flop": figure_json(flop + ops if unit == INTEGER_OR_FLOAT else flop),
    }


def _purposes(view: View, name: str) -> list[dict[str, Any]]:
    """What is said and in force, the oldest word first: where two overlap, a job's beats the run's, the later the earlier.

    A job's is of the time in which the job was seen. The declared purpose is of what no tag of the run says otherwise.
    """
    registry, rows = view.registry, view.rows[name]
    spans: list[dict[str, Any]] = []
    whole: list[tuple[int, int]] = []
    declared: tuple[str, int] | None = None
    for entry in registry.about(name):
        said = entry.statement
        if entry.number in registry.retracted or getattr(said, "run", None) != name:
            continue
        if isinstance(said, Declare) and said.purpose is not None:
            declared = said.purpose.value, entry.number
        if not isinstance(said, Tag):
            continue
        since, until = (None if h is None else h * HOUR_NS for h in (said.from_hour, said.until_hour))
        if said.job is not None:
            seen = [w for w in rows.workloads if JobKey(w.scope, w.kind, w.job) == said.job]
            since = max(
                [n for n in (since, min((w.first_unix_ns for w in seen), default=None)) if n is not None],
                default=None,
            )
            until = min(
                [n for n in (until, max((w.last_unix_ns for w in seen), default=None)) if n is not None],
                default=None,
            )
        elif said.fraction is None:
            whole.append((since or 0, rows.last_unix_ns if until is None else until))
        fraction = None if said.fraction is None else str(said.fraction)
        job = None if said.job is None else said.job.job
        spans.append(_said_for(since, until, said.purpose.value, entry.number, fraction=fraction, job=job))
    if declared is not None:
        rest = _untagged(whole, rows.first_unix_ns, rows.last_unix_ns)
        spans = [*(_said_for(since, until, *declared) for since, until in rest), *spans]
    return spans[-MOST_SPANS:]


def _said_for(
    since: int | None,
    until: int | None,
    purpose: str,
    entry: int,
    *,
    fraction: str | None = None,
    job: str | None = None,
) -> dict[str, Any]:
    return {
        "from": None if since is None else time_text(since),
        "to": None if until is None else time_text(until),
        "purpose": purpose,
        "fraction": fraction,
        "job": job,
        "entry": entry,
    }


def _untagged(tagged: list[tuple[int, int]], first: int, last: int) -> list[tuple[int, int]]:
    """What of [first, last) lies in none of those."""
    found, at = [], first
    for since, until in sorted(tagged):
        if at < min(since, last):
            found.append((at, min(since, last)))
        at = max(at, until)
    return [*found, (at, last)] if at < last else found


def _jobs(rows: RunRows) -> dict[str, Any]:
    """The jobs by when they began, and each one's attempts."""
    attempts: dict[JobKey, dict[int, tuple[int, int]]] = {}
    users: dict[JobKey, str] = {}
    for w in rows.workloads:
        job = JobKey(w.scope, w.kind, w.job)
        first, last = attempts.setdefault(job, {}).get(w.restart, (w.first_unix_ns, w.last_unix_ns))
        attempts[job][w.restart] = min(first, w.first_unix_ns), max(last, w.last_unix_ns)
        users[job] = w.user
    by_begin = sorted(attempts, key=lambda j: (min(f for f, _ in attempts[j].values()), j))
    return {
        "jobs": [
            {
                "scope": job.scope,
                "kind": WorkloadKind(job.kind).label,
                "job": job.job,
                "user": users[job],
                "attempts": [
                    {"restart": restart, "first_seen": time_text(first), "last_seen": time_text(last)}
                    for restart, (first, last) in sorted(attempts[job].items())
                ],
            }
            for job in by_begin[-MOST_JOBS:]
        ],
        "jobs_total": len(attempts),
    }


def _lines(view: View, name: str) -> list[dict[str, Any]]:
    """Those of GET /runs, with what each counts of this run."""
    side, question = view.side, view.question
    work = side.counting.work(name)
    executed = total(s.flop for s in work), total(s.integer_ops for s in work)
    binding = [r for r in question.regimes if r.has_line and in_force(r, question.now_unix_ns)]
    stands = standing(side.counting, name, executed, binding)
    by_id = {line["regime"]: line for line in view.binding}
    found = []
    for r in binding:
        figure = view.lines[name]["countable"][r.id]
        basis = Figure(*(int(figure[bound]) for bound in ("lower", "point", "upper")))
        records = counted(r, stands.of(r).flop, stands.of(r).integer_ops)
        found.append(
            by_id[r.id]
            | {
                "counted": figure,
                "verdict": verdict(basis, r).value,
                "verdict_of_records": verdict(records, r).value,
            }
        )
    return found


def _cone(document: Mapping[str, Any], brief: Mapping[str, Any], unit: str) -> dict[str, Any] | None:
    """From where the run was to where it will be, by the widest way of counting in that unit."""
    series = [s for s in document["series"] if any(of[1] == unit and not of[2] for of in s["of"])]
    if not series or series[0]["projected"] is None:
        return None
    return {
        "time": brief["time"],
        "until": brief["until"],
        "confidence_percent": brief["confidence_percent"],
        "state": series[0]["state"],
        "now": series[0]["total"],
        "projected": series[0]["projected"],
        "lines": brief["lines"],
    }
