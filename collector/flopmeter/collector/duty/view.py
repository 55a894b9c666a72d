"""Events and deadlines for people. Pure."""

from collections.abc import Mapping, Sequence
from typing import Any

from flopmeter.cli.layout import Paint
from flopmeter.collector import empty
from flopmeter.collector.registry.words import paragraph
from flopmeter.collector.spelling import minute

from .answers import State

COLOURS = {"info": None, "notice": "cyan", "warning": "yellow", "critical": "red"}
SHOWN_ID = 12  # digits of an id: enough to be unique among millions
_DAY_S, _HOUR_S, _MINUTE_S = 86_400, 3_600, 60


def event_lines(e: Mapping[str, Any], paint: Paint) -> list[str]:
    """One event on a page: when, how grave, what, of whom; then what it says and what became of it."""
    state = e.get("state", State.OPEN)  # an event as it was raised has none yet
    settled = state == State.RESOLVED
    head = f"{minute(e['time'])}  {e['id'][:SHOWN_ID]}  "
    grave = paint(e["severity"], COLOURS[e["severity"]], bold=not settled, dim=settled)
    lines = [f"{head}{grave}  {paint(e['type'], bold=not settled, dim=settled)}"]
    lines += [paint(line, bold=not settled, dim=settled) for line in paragraph(e["subject"], paint.width, 4)]
    lines += paragraph(e["data"].get("message", ""), paint.width, 4)
    due = e["data"].get("due")
    if due:
        recipient = e["data"].get("recipient") or ""
        lines += [
            paint(line, "red" if not settled else None)
            for line in paragraph(f"due {minute(due)} UTC, to {recipient}", paint.width, 4)
        ]
    if e.get("answer"):
        lines += paragraph(f"{state} by {e['answer']['who']}: {e['answer']['why']}", paint.width, 4)
    if e.get("over"):
        lines += paragraph(over_text(e["over"]), paint.width, 4)
    return lines


def over_text(over: Mapping[str, Any]) -> str:
    """When and why its condition ceased."""
    since = f" since {minute(over['since'])} UTC" if over.get("since") else ""
    return f"no longer so{since}: {over['because']}"


def events_view(
    events: Sequence[Mapping[str, Any]], paint: Paint, *, filtered: bool = False, older: str = ""
) -> str:
    """`events list`: what was raised, oldest first. `older`: the id to go on before, if there are older ones."""
    if not events:
        return empty.NO_EVENT_MATCHES if filtered else empty.EVENTS
    lines = []
    if older:
        lines += paragraph(f"(older ones: --before {older[:SHOWN_ID]}, or --limit 0)", paint.width, 0)
    for e in events:
        lines += event_lines(e, paint)
    return "\n".join(lines)


def event_view(document: Mapping[str, Any], paint: Paint) -> str:
    """`events show`."""
    e = document["event"]
    lines = event_lines({**e, "answer": (document["answers"] or [None])[-1]}, paint)
    lines += ["", *paragraph(f"id {e['id']}, at position {e['position']} of the books", paint.width, 4)]
    lines += _figures(e["data"], paint)
    if document["deadlines"]:
        lines += ["", "Deadlines it started:"]
        for d in document["deadlines"]:
            lines += deadline_lines(d, paint)
    return "\n".join([*lines, "", *_history(document["answers"], paint)])


def _figures(data: Mapping[str, Any], paint: Paint) -> list[str]:
    """What it rests on: every plain value that the message is made of."""
    lines = []
    for key, value in data.items():
        if key in ("message", "due", "recipient") or value is None or value in ([], {}):
            continue
        lines += paragraph(f"{key.replace('_', ' ')}: {_plain(value)}", paint.width, 4, 6)
    return lines


def _plain(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{k} {v}" for k, v in value.items() if not isinstance(v, (dict, list)))
    return "; ".join(map(str, value)) if isinstance(value, list) else str(value)


def _history(answers: Sequence[Mapping[str, Any]], paint: Paint) -> list[str]:
    if not answers:
        return ["Nobody has answered it."]
    lines = ["Answers:"]
    for a in answers:
        what = a["state"] + (f" ({a['outcome']})" if a["outcome"] else "")
        lines += paragraph(f"{minute(a['time'])} UTC  {what}, {a['who']}: {a['why']}", paint.width, 4, 6)
    return lines


def deadline_lines(d: Mapping[str, Any], paint: Paint) -> list[str]:
    """One deadline: when, what is left, what, to whom, since when, and where it stands."""
    settled = d["state"] == State.RESOLVED
    left = int(d["seconds_left"])
    said = d["state"] + (f" ({d['outcome']})" if d["outcome"] else "")
    if settled:
        when = said
    elif d["overdue"]:
        when = f"{said}, overdue by {left_text(-left)}"
    else:
        when = f"{said}, {left_text(left)} left"
    colour = "red" if d["overdue"] else "yellow" if not settled and left < _DAY_S * 2 else None
    head = f"{d['due'][:16].replace('T', ' ')} UTC  {d['id'][:SHOWN_ID]}  "
    lines = [head + paint(when, colour, bold=not settled, dim=settled)]
    whose = f"run {d['run']}: " if d["run"] else ""
    lines += [paint(line, dim=settled) for line in paragraph(f"{whose}{d['what']}", paint.width, 4)]
    lines += paragraph(f"to {d['recipient']}; {d['regime']}, {d['rule']}", paint.width, 4)
    since = f"by {d['due_local']}; the clock runs since {minute(d['trigger'])} UTC"
    return [*lines, *paragraph(since, paint.width, 4)]


def deadlines_view(documents: Sequence[Mapping[str, Any]], paint: Paint, *, filtered: bool) -> str:
    """`deadlines list`: the next first."""
    if not documents:
        return empty.NO_DEADLINE_MATCHES if filtered else empty.DEADLINES
    return "\n".join(line for d in documents for line in deadline_lines(d, paint))


def deadline_view(document: Mapping[str, Any], paint: Paint) -> str:
    """`deadlines show`."""
    d = document["deadline"]
    lines = deadline_lines(d, paint)
    lines += ["", *paragraph(f"id {d['id']}, opened {minute(d['opened'])} UTC", paint.width, 4)]
    trigger = document["trigger_event"]
    lines += paragraph(
        f"started by event {trigger['id'][:SHOWN_ID]}: {trigger['type']}"
        if trigger
        else "opened by a person",
        paint.width,
        4,
    )
    if document["note"]:
        lines += paragraph(document["note"], paint.width, 4)
    return "\n".join([*lines, "", *_history(document["answers"], paint)])


def left_text(seconds: int) -> str:
    """3 d 4 h, 5 h 10 min, 7 min: rounded down."""
    days, rest = divmod(max(seconds, 0), _DAY_S)
    hours, minutes = rest // _HOUR_S, rest % _HOUR_S // _MINUTE_S
    if days:
        return f"{days} d {hours} h"
    return f"{hours} h {minutes} min" if hours else f"{minutes} min"
