"""GET /runs, /runs/{run}, /runs/{run}/report, /entries, /lineage."""

from collections.abc import Callable, Mapping
from typing import Any

from flopmeter.collector.errors import StoreError
from flopmeter.collector.forecast.live import last_kept
from flopmeter.collector.registry.planned import planned_runs
from flopmeter.collector.registry.reporting import run_report
from flopmeter.collector.registry.words import entry_document
from flopmeter.collector.report.documents import run_document
from flopmeter.collector.report.queries import Reader
from flopmeter.collector.spelling import time_text

from .asking import Wish
from .books import Books
from .lineage_graph import graph
from .problems import Problem, missing, quoted
from .shared_runs import shared_runs
from .tenancy import Sight
from .told import body_of, no_run, once, page, paged
from .view import View, size_of

#: What comes first; of two alike, by name.
_ORDERS: Mapping[str, Callable[[Mapping[str, Any]], Any]] = {
    "size": lambda line: -size_of(line),
    "run": lambda _: "",
    "last_seen": lambda line: _falling(line["last_seen"] or ""),
    "nearest": lambda line: -(line["nearest"]["fraction"] if line["nearest"] else -1.0),
    "rate": lambda line: -(int(line["rate"]["flop_per_second"]["point"]) if line["rate"] else -1),
    "open_events": lambda line: tuple(-n for n in (line["open_events"] or {}).values()) or (0,),
}


#: Of planned runs the list says at most so many, and how many there are.
MAX_PLANNED = 100


def runs(books: Books, wish: Wish) -> bytes:
    view = books.view()
    asked = tuple(sorted(wish.texts.items())), wish.numbers["limit"], wish.tenant
    if "after" not in wish.texts:
        return once(view, ("runs", *asked), lambda: _runs(books, view, wish))
    return body_of(_runs(books, view, wish))


def _runs(books: Books, view: View, wish: Wish) -> dict[str, Any]:
    sight = view.sight(wish.tenant)
    said = {name: text for name, text in wish.texts.items() if name != "after"}
    whose = repr((sorted(said.items()), wish.tenant))
    if "after" in wish.texts:
        key, order, begin = books.orders.find(whose, wish.texts["after"])
    else:
        part = said.get("q", "").casefold()
        lines = [
            line
            for name, line in view.lines.items()
            if (sight.whole or sight.run(name))
            and (not part or part in name.casefold())
            and ("status" not in said or line["status"] == said["status"])
        ]
        first = _ORDERS[said.get("sort", "size")]
        order = [line["run"] for line in sorted(lines, key=lambda d: (first(d), d["run"]))]
        key, begin = "", 0
    end = begin + wish.numbers["limit"]
    names = [n for n in order[begin:end] if n in view.lines and (sight.whole or sight.run(n))]
    more = None
    if end < len(order):
        more = [key or books.orders.keep(whose, order), end]
    items = [sight.cleaned(view.lines[n], relatives(view, n)) for n in names]
    shared = [] if sight.whole else shared_with(view, wish.tenant)
    planned = [] if "status" in said else _planned(view, sight, said.get("q", "").casefold())
    return paged(
        view.as_of_unix_ns,
        items,
        more=more,
        total=len(order),
        lines=view.binding,
        shared=shared,
        planned=planned[:MAX_PLANNED],
        planned_total=len(planned),
    )


def _planned(view: View, sight: Sight, part: str) -> list[dict[str, Any]]:
    """Runs of which nothing is metered yet: no status fits them, and no page of runs has them."""
    found = view.made.get("planned")
    if found is None:
        found = view.made["planned"] = planned_runs(view.registry, view.lines)
    return [
        sight.cleaned(p, relatives(view, p["run"]))
        for p in found
        if sight.run(p["run"]) and (not part or part in p["run"].casefold())
    ]


def shared_with(view: View, tenant: str) -> list[dict[str, Any]]:
    """That tenant's parts of runs that others work in too."""
    found = view.made.get("shared")
    if found is None:
        side = view.side
        found = view.made["shared"] = shared_runs(
            side.rows, view.owners, view.registry, side.models, view.question.table
        )
    parts: list[dict[str, Any]] = found.get(tenant, [])
    return parts


def run(books: Books, wish: Wish) -> bytes:
    view, name = books.view(), wish.names["run"]
    check_run(view, wish, name)
    with books.reading() as reader:
        books.events.update(reader)
    key = ("run", name, wish.tenant, books.events.last_event, books.events.last_answer)
    return once(view, key, lambda: _run(books, view, wish, name))


def _run(books: Books, view: View, wish: Wish, name: str) -> dict[str, Any]:
    with books.reading() as reader:
        document = _document(books, view, reader, name)
    document |= {
        "as_of": time_text(view.as_of_unix_ns),
        "open_events": books.events.unresolved(name),
    }
    found: dict[str, Any] = view.sight(wish.tenant).cleaned(document, relatives(view, name))
    return found


def _document(books: Books, view: View, reader: Reader, name: str) -> dict[str, Any]:
    rows, question, side = view.rows[name], view.question, view.side
    document = run_document(
        rows,
        side.models,
        question.table,
        (*question.regimes, *question.modifications),
        side.counting,
        rules=view.rules,
        now_unix_ns=question.now_unix_ns,
        raised=books.events.raised(name),
        silence=side.silence,
    )
    progress = books.progress(reader, rows, view)
    return document | {"progress": progress, "forecast": last_kept(reader, name)}


def report(books: Books, wish: Wish) -> bytes:
    view, name = books.view(), wish.names["run"]
    if not view.sight(wish.tenant).run(name):
        raise no_run(name)

    def make() -> dict[str, Any]:
        try:
            with books.reading() as reader:
                found = run_report(reader, name, view.question)
        except StoreError as e:
            if name in view.lines:
                raise
            raise no_run(name) from e
        found["as_of"] = found["time"]
        cleaned: dict[str, Any] = view.sight(wish.tenant).cleaned(found, relatives(view, name))
        return cleaned

    return once(view, ("report", name, wish.tenant), make)


def entries(books: Books, wish: Wish) -> bytes:
    view, name = books.view(), wish.names["run"]
    sight = view.sight(wish.tenant)
    if not sight.run(name):
        raise no_run(name)
    registry = view.registry
    said = registry.about(name)
    if not said and name not in view.lines:
        raise no_run(name)
    names = {*relatives(view, name), *view.owners}
    found = [sight.cleaned(entry_document(e, registry), names) for e in said]
    return page(wish, found, view.as_of_unix_ns)


def lineage(books: Books, wish: Wish) -> bytes:
    view, name = books.view(), wish.names["run"]
    sight = view.sight(wish.tenant)
    known = name in view.lines or bool(view.registry.about(name))
    if not known or not sight.run(name):
        raise no_run(name)
    document = graph(view, sight, name)
    return body_of({"as_of": time_text(view.as_of_unix_ns), "run": name, **document})


def check_run(view: View, wish: Wish, name: str) -> None:
    """Raise Problem where there is no such run to be seen, or its totals cannot be read."""
    sight = view.sight(wish.tenant)
    if name not in view.lines or not sight.run(name):
        raise _gone(view, wish, name)
    fault = view.lines[name]["fault"]
    if name not in view.rows or fault is not None:
        raise Problem(500, f"run {quoted(name)}: {fault}", "see what is wrong: flopmeter collector fsck")


def _gone(view: View, wish: Wish, name: str) -> Problem:
    """Where the work is now that had the name; else that there is nothing of it."""
    sight, registry = view.sight(wish.tenant), view.registry
    if registry.went(name) is not None:
        there = [n for n in registry.each(name) if sight.run(n)]
        if there:
            return missing(
                f"run {quoted(name)}: expected a run of which something is metered; its work is in "
                f"{', '.join(map(quoted, there))} now",
                "ask for that one",
            )
    if not sight.whole and any(part["run"] == name for part in shared_with(view, wish.tenant)):
        return missing(
            f"run {quoted(name)}: expected a run all of whose work is this tenant's, found one that others work in too",
            "GET /api/v1/runs has this tenant's own part, under `shared`",
        )
    if sight.run(name) and registry.about(name):
        return missing(
            f"run {quoted(name)}: expected a run of which something is metered, found only what people said of it",
            "GET /api/v1/runs/{run}/entries has that",
        )
    return no_run(name)


def relatives(view: View, name: str) -> frozenset[str]:
    """Names of what the run stands on, or what stands on it."""
    lineage = view.side.counting.lineage
    return lineage.above(name) | lineage.descendants([name])


def _falling(text: str) -> tuple[int, ...]:
    return tuple(-ord(c) for c in text)
