"""GET and POST of events and deadlines. A person's word goes into the store the way the CLI puts it there."""

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

from flopmeter.collector.duty.answers import DEADLINE, EVENT, OUTCOMES, AnswerRow, State
from flopmeter.collector.duty.documents import answer_document, deadline_document
from flopmeter.collector.duty.notices import COVERAGE
from flopmeter.collector.duty.over import Condition, Over, condition_of
from flopmeter.collector.duty.reading import Duty, Found, answers_about, duties, event_by_no
from flopmeter.collector.duty.saying import Person
from flopmeter.collector.duty.saying import answer as say
from flopmeter.collector.errors import DutyError, DutyRefused, RegimeError
from flopmeter.collector.law.severity import Severity
from flopmeter.collector.report.queries import Reader
from flopmeter.collector.spelling import time_text

from .asking import Wish
from .books import Books
from .event_index import Listed
from .paging import number_of
from .problems import Problem, bad, missing, quoted
from .say_runs import relatives
from .tenancy import Sight
from .told import body_of, paged
from .view import View

_ID = re.compile(r"[0-9a-f]{32}\Z")
#: A page of text, and its keys.
MAX_BODY_BYTES = 16_384


def events(books: Books, wish: Wish) -> bytes:
    view = books.view()
    sight = view.sight(wish.tenant)
    limit = wish.numbers["limit"]
    before = number_of(wish.texts["after"]) if "after" in wish.texts else None
    with books.reading() as reader:
        books.events.update(reader)
        index = books.events
        found: list[Listed] = []
        total = 0
        # Each is counted, and a page of them read: none of it is asked of the store but that page.
        for listed in index.newest_first():
            if not _wanted(listed, wish.texts, index.state(listed.event_no), sight):
                continue
            total += 1
            if (before is None or listed.event_no < before) and len(found) <= limit:
                found.append(listed)
        more = found[limit - 1].event_no if len(found) > limit else None
        read = [_found(reader, e) for e in found[:limit]]
    as_of = books.newest(i for e in read for i in _instants(e.unix_ns, e.last))
    items = [_event(view, sight, e) for e in read]
    return body_of(paged(as_of, items, more=more, total=total))


def event(books: Books, wish: Wish) -> bytes:
    view = books.view()
    sight = view.sight(wish.tenant)
    with books.reading() as reader:
        books.events.update(reader)
        listed = _listed(books, sight, wish.names["id"])
        now = books.clock()
        found = _found(reader, listed)
        over = _condition(books, reader, now).over(found)
        answers = answers_about(reader, EVENT, listed.event_no)
        started = [d for d in duties(reader) if d.deadline.event_no == listed.event_no and _seen(d, sight)]
    told_over = None if over is None else _over(view, sight, listed.subject, over)
    instants = [
        *_instants(found.unix_ns, *answers),
        None if over is None else over.since_unix_ns,
        *(i for d in started for i in _moved(d, now)),
    ]
    told = {
        "as_of": time_text(books.newest(instants)),
        "event": _event(view, sight, found) | {"over": told_over},
        "answers": [answer_document(a) for a in answers],
        "deadlines": [_deadline(d, now) for d in started],
    }
    return body_of(sight.cleaned(told, relatives(view, listed.subject)))


def deadlines(books: Books, wish: Wish) -> bytes:
    view = books.view()
    sight, now = view.sight(wish.tenant), books.clock()
    with books.reading() as reader:
        seen = [d for d in duties(reader) if _seen(d, sight)]
    found = [sight.cleaned(_deadline(d, now), ()) for d in seen]
    as_of = books.newest(i for d in seen for i in _moved(d, now))
    if "after" in wish.texts:
        return _next_deadlines(books, wish, found, as_of)
    texts, overdue = wish.texts, wish.numbers.get("overdue", 0)
    found = [
        d
        for d in found
        if texts.get("state") in (None, d["state"])
        and texts.get("regime") in (None, d["regime"])
        and texts.get("run") in (None, d["run"])
        and (not overdue or d["overdue"])
    ]
    found.sort(key=lambda d: d["state"] == "resolved")
    limit, more = wish.numbers["limit"], None
    if len(found) > limit:
        more = [books.orders.keep(_whose(wish), [d["id"] for d in found]), limit]
    return body_of(paged(as_of, found[:limit], more=more, total=len(found)))


def _next_deadlines(books: Books, wish: Wish, found: list[dict[str, Any]], as_of_unix_ns: int) -> bytes:
    """In the order of the first page: a deadline that somebody resolves meanwhile goes to the end of another."""
    by_id = {d["id"]: d for d in found}
    key, order, begin = books.orders.find(_whose(wish), wish.texts["after"])
    end = begin + wish.numbers["limit"]
    items = [by_id[name] for name in order[begin:end] if name in by_id]
    return body_of(
        paged(as_of_unix_ns, items, more=[key, end] if end < len(order) else None, total=len(order))
    )


def _whose(wish: Wish) -> str:
    """What a cursor of deadlines is good for."""
    asked = sorted((name, text) for name, text in wish.texts.items() if name != "after")
    return repr(("deadlines", asked, wish.numbers.get("overdue"), wish.tenant))


def deadline(books: Books, wish: Wish) -> bytes:
    view = books.view()
    sight = view.sight(wish.tenant)
    with books.reading() as reader:
        duty = _duty(reader, sight, wish.names["id"])
        now = books.clock()
        answers = answers_about(reader, DEADLINE, duty.number)
        no = duty.deadline.event_no
        trigger = None if no is None else event_by_no(reader, no)
        instants = [*_instants(None if trigger is None else trigger.unix_ns, *answers), *_moved(duty, now)]
        document = {
            "as_of": time_text(books.newest(instants)),
            "deadline": _deadline(duty, now),
            "trigger_event": None if trigger is None else trigger.cloud,
            "answers": [answer_document(a) for a in answers],
            "note": COVERAGE if duty.deadline.act == "coverage" else None,
        }
    return body_of(sight.cleaned(document, relatives(view, duty.deadline.subject)))


def answer_event(books: Books, wish: Wish) -> bytes:
    said = _said(wish, outcomes=False)
    sight = books.view().sight(wish.tenant)
    with books.reading() as reader:
        books.events.update(reader)
    listed = _listed(books, sight, wish.names["id"])
    return _append(books, wish, EVENT, listed.id, said)


def answer_deadline(books: Books, wish: Wish) -> bytes:
    said = _said(wish, outcomes=True)
    sight = books.view().sight(wish.tenant)
    with books.reading() as reader:
        duty = _duty(reader, sight, wish.names["id"])
    return _append(books, wish, DEADLINE, duty.deadline.id, said)


def _append(books: Books, wish: Wish, about: str, name: str, said: Mapping[str, str]) -> bytes:
    person = Person(f"token:{wish.question.who}", said["why"], books.clock())
    try:
        made = say(books.store, about, name, State(said["state"]), person, outcome=said.get("outcome", ""))
    except DutyRefused as e:
        raise Problem(409, _first(e), e.hint) from e
    except DutyError as e:
        raise bad(_first(e), e.hint) from e
    document = {"id": made.id, "was": made.was.value, "answer": answer_document(made.answer)}
    return body_of(books.view().sight(wish.tenant).cleaned(document, ()))


def _said(wish: Wish, *, outcomes: bool) -> dict[str, str]:
    """What was sent, checked. Raises Problem."""
    raw = wish.question.body
    if len(raw) > MAX_BODY_BYTES:
        raise Problem(413, f"body: expected at most {MAX_BODY_BYTES} bytes, got {len(raw)}")
    try:
        said = json.loads(raw.decode())
    except (ValueError, RecursionError) as e:
        raise bad(
            "body: expected a JSON object, got something else", 'as in {"state": "acknowledged", "why": "…"}'
        ) from e
    takes = ("state", "why", "outcome") if outcomes else ("state", "why")
    if not isinstance(said, dict) or not all(isinstance(v, str) for v in said.values()):
        raise bad(
            "body: expected a JSON object of texts, got something else", f"its keys are {', '.join(takes)}"
        )
    unknown = sorted(said.keys() - set(takes))
    if unknown:
        raise bad(f"body: expected the keys {', '.join(takes)}, got {quoted(unknown[0])}")
    if said.get("state") not in set(State):
        raise bad(f"state: expected one of {', '.join(State)}, got {quoted(str(said.get('state')))}")
    if "why" not in said:
        raise bad("why: expected a sentence that an auditor can follow, got none")
    if outcomes and (said["state"] == State.RESOLVED) != (said.get("outcome") in OUTCOMES):
        raise bad(
            f"outcome: expected one of {', '.join(OUTCOMES)} with the state resolved, and none with another, "
            f"got {quoted(str(said.get('outcome')))}"
        )
    return said


def _first(e: DutyError) -> str:
    return str(e).partition("\n")[0]


def _wanted(listed: Listed, texts: Mapping[str, str], state: State, sight: Sight) -> bool:
    kind = texts.get("type")
    return (
        (sight.whole or sight.run(listed.subject))
        and texts.get("run") in (None, listed.subject)
        and texts.get("regime") in (None, listed.regime)
        and texts.get("state") in (None, state.value)
        and (kind is None or listed.type == kind or listed.type.startswith(kind + "."))
        and ("severity" not in texts or listed.severity.rank >= Severity(texts["severity"]).rank)
    )


def _over(view: View, sight: Sight, run: str, over: Over) -> dict[str, Any]:
    """What somebody said of another tenant's run is not this one's to read, also where it ended its event."""
    since = None if over.since_unix_ns is None else time_text(over.since_unix_ns)
    because = over.because
    if not sight.whole and over.entry_no and all(e.number != over.entry_no for e in view.registry.about(run)):
        because = "what was said of a run that it stands on, or that stands on it"
    return {"since": since, "because": because}


def _condition(books: Books, reader: Reader, now_unix_ns: int) -> Condition:
    """As the command line has it; while the files of regimes cannot be read, by what the collector judges by."""
    try:
        return condition_of(reader, books.regimes_dir, now_unix_ns)
    except RegimeError:
        return condition_of(reader, None, now_unix_ns)


def _found(reader: Reader, listed: Listed) -> Found:
    """Raises Problem for one whose row cannot be read."""
    try:
        if not listed.sound:
            raise ValueError
        return event_by_no(reader, listed.event_no)
    except (ValueError, TypeError, KeyError, OverflowError, OSError) as e:
        raise Problem(
            500,
            f"event {quoted(listed.id)}: its row in the books cannot be read",
            "see what is wrong: flopmeter collector fsck",
        ) from e


def _event(view: View, sight: Sight, found: Found) -> dict[str, Any]:
    document: dict[str, Any] = {
        **found.cloud,
        "state": found.state.value,
        "answer": None if found.last is None else answer_document(found.last),
    }
    if not sight.whole:
        document = sight.cleaned(document, relatives(view, found.cloud["subject"]))
    return document


def _deadline(duty: Duty, now_unix_ns: int) -> dict[str, Any]:
    """As `deadlines list --json`, without what moves by itself: how long it is until `due` whoever shows it says."""
    document = deadline_document(duty.deadline, duty.state, duty.outcome, now_unix_ns)
    del document["seconds_left"]
    return document


def _instants(unix_ns: int | None, *answers: AnswerRow | None) -> Iterator[int | None]:
    """When it was raised, and when people said something of it."""
    yield unix_ns
    for answer in answers:
        yield None if answer is None else answer.unix_ns


def _moved(duty: Duty, now_unix_ns: int) -> Iterator[int | None]:
    """When a deadline was opened, answered, and past."""
    due = duty.deadline.due_unix_ns
    yield from _instants(duty.deadline.opened_unix_ns, duty.last)
    yield due if due <= now_unix_ns else None


def _listed(books: Books, sight: Sight, name: str) -> Listed:
    found = books.events.by_id.get(name.lower()) if _ID.match(name.lower()) else None
    if found is None or not (sight.whole or sight.run(found.subject)):
        raise missing(
            f"event {quoted(name)}: expected one that this token may see, found none",
            "GET /api/v1/events lists them",
        )
    return found


def _duty(reader: Reader, sight: Sight, name: str) -> Duty:
    for duty in duties(reader):
        if duty.deadline.id == name.lower() and _seen(duty, sight):
            return duty
    raise missing(
        f"deadline {quoted(name)}: expected one that this token may see, found none",
        "GET /api/v1/deadlines lists them",
    )


def _seen(duty: Duty, sight: Sight) -> bool:
    """Those of the organisation as a whole are not one tenant's."""
    return sight.whole or (duty.deadline.subject != "" and sight.run(duty.deadline.subject))
