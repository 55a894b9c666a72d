"""`flopmeter events list | show | ack | resolve | reopen`."""

import functools
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from flopmeter.cli.output import emit_json, json_option
from flopmeter.collector.cli_parts import paint, regimes_option, store_option
from flopmeter.collector.store_path import store_file

if TYPE_CHECKING:
    from .reading import Found, Wanted

_F = TypeVar("_F", bound=Callable[..., Any])

STATES = ("open", "acknowledged", "resolved")
SEVERITIES = ("info", "notice", "warning", "critical")
#: How many are shown where --limit does not say: a few screens; and as JSON, a few MB.
PAGE, JSON_PAGE = 50, 1_000
MIN_INTERVAL_S = 0.1

#: What every answer is given with.
ANSWERING: tuple[Callable[[Any], Any], ...] = (
    click.option("--who", help="Who answers.  [default: your login name and this host]"),
    click.option("--why", required=True, help="Why, in a sentence that an auditor can follow."),
    click.option("--dry-run", is_flag=True, help="Check it and show it; say nothing."),
    store_option,
    json_option,
)


#: Where events go, and what became of them on the way.
_DELIVERY = ("sinks", "test", "dead", "redeliver")


class _Events(click.Group):
    """Commands of other rooms are imported only when they are asked for."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return [*super().list_commands(ctx), *_DELIVERY]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name in _DELIVERY:
            from flopmeter.collector.deliver import cli

            return cli.COMMANDS[cmd_name]
        return super().get_command(ctx, cmd_name)


@click.group(cls=_Events)
def events() -> None:
    """What an operator must know or do.

    \b
      flopmeter events list --severity warning --state open
      flopmeter events show 69ec
      flopmeter events ack 69ec --why "counsel drafts the notification"
      flopmeter events resolve 69ec --why "filed, receipt 7"
      flopmeter events test pager --sinks /etc/flopmeter/sinks.toml

    69ec is the beginning of an id, at least four digits.
    """  # noqa: D301 - click wants the backspace character itself


def _filters(function: _F) -> _F:
    for option in (
        click.option("--before", metavar="ID", help="Only events older than this one: the page before."),
        click.option(
            "--limit",
            type=click.IntRange(0),
            help=f"At most so many, the newest; 0 = all.  [default: {PAGE}, with --json {JSON_PAGE}]",
        ),
        click.option("--until", metavar="TIME", help="Only those raised until then; a bare date: all of it."),
        click.option("--since", metavar="TIME", help="Only those raised from then on: 2027-01-04T10:00Z."),
        click.option("--regime", metavar="ID", help="Only events about this regime."),
        click.option("--run", "--subject", "subject", help="Only events of this run (or subject)."),
        click.option("--state", type=click.Choice(STATES), help="Only those that stand so with people."),
        click.option("--severity", type=click.Choice(SEVERITIES), help="Only those at least so grave."),
        click.option(
            "--type", "kind", help="Only events of this type, or of those it begins: threshold, deadline."
        ),
    ):
        function = option(function)
    return function


@events.command("list")
@_filters
@click.option("--follow", is_flag=True, help="Go on with what is raised, until Ctrl-C; --json: a line each.")
@click.option(
    "--interval", type=click.FloatRange(MIN_INTERVAL_S), default=2.0, show_default=True, help="Seconds."
)
@store_option
@regimes_option
@json_option
def events_list(
    *,
    follow: bool,
    interval: float,
    store: Path,
    regimes_dir: Path | None,
    limit: int | None,
    before: str | None,
    as_json: bool,
    **filters: str | None,
) -> None:
    """The newest events, oldest first, with where each stands; --json prints CloudEvents 1.0."""
    from flopmeter.collector.report.queries import reading

    from .over import condition_of
    from .reading import events_page
    from .view import events_view

    wanted = _wanted(**filters)
    count = limit if limit is not None else JSON_PAGE if as_json else PAGE
    if follow:
        _follow(store, wanted, count, interval, as_json=as_json)
        return
    with reading(store) as reader:
        if before is not None:
            from .saying import look_up

            wanted = wanted.older(look_up(reader.rows, "event", before)[0])
        page = events_page(reader, wanted, count)
        condition = condition_of(reader, regimes_dir, time.time_ns())
        documents = [_document(e, condition.over(e)) for e in page.events]
    older = documents[0]["id"] if page.more else None
    if as_json:
        emit_json({"events": documents, "more": page.more, "before": older})
    else:
        click.echo(events_view(documents, paint(), filtered=wanted.any, older=older or ""))


def _wanted(
    kind: str | None = None,
    severity: str | None = None,
    state: str | None = None,
    *,
    subject: str | None,
    regime: str | None,
    since: str | None,
    until: str | None,
) -> "Wanted":
    from flopmeter.collector.law.events import TYPES
    from flopmeter.collector.law.severity import Severity
    from flopmeter.collector.registry.when import end_of, instant

    from .answers import State
    from .reading import Wanted

    if kind is not None and not any(t == kind or t.startswith(kind + ".") for t in TYPES):
        raise click.BadParameter(
            f"expected one of {', '.join(TYPES)}, got {kind[:80]!r}", param_hint="--type"
        )
    return Wanted(
        kind=kind,
        severity=None if severity is None else Severity(severity),
        state=None if state is None else State(state),
        subject=subject,
        regime=regime,
        since_unix_ns=None if since is None else instant("--since", since),
        until_unix_ns=None if until is None else end_of("--until", until),
    )


def _document(event: "Found", over: Any) -> dict[str, Any]:
    """An event as it stands: CloudEvents, with the extension attribute `state`; and what else is not of the event."""
    from flopmeter.collector.spelling import time_text

    from .documents import answer_document

    document = {**event.cloud, "state": event.state.value}
    document["answer"] = None if event.last is None else answer_document(event.last)
    since = None if over is None or over.since_unix_ns is None else time_text(over.since_unix_ns)
    document["over"] = None if over is None else {"since": since, "because": over.because}
    return document


def _follow(store: Path, wanted: "Wanted", count: int, interval: float, *, as_json: bool) -> None:
    from .following import follow
    from .view import event_lines

    try:
        tell = functools.partial(click.echo, err=True)
        for event in follow(store, wanted, count, interval_s=interval, tell=tell):
            if as_json:
                emit_json(_document(event, None))
            else:
                click.echo("\n".join(event_lines(_document(event, None), paint())))
    except KeyboardInterrupt:
        return


@events.command("show")
@click.argument("event_id", metavar="ID")
@store_option
@regimes_option
@json_option
def events_show(event_id: str, store: Path, regimes_dir: Path | None, as_json: bool) -> None:
    """One event: what it says and rests on, whether it is still so, and what people answered.

    ID is an event's id or the beginning of it.

    \b
      flopmeter events show 5f1c2a
    """  # noqa: D301 - click wants the backspace character itself
    from flopmeter.collector.report.queries import reading

    from .documents import answer_document, deadline_document
    from .over import condition_of
    from .reading import answers_about, duties, event_by_no
    from .saying import look_up
    from .view import event_view

    now = time.time_ns()
    with reading(store) as reader:
        number, _ = look_up(reader.rows, "event", event_id)
        event = event_by_no(reader, number)
        over = condition_of(reader, regimes_dir, now).over(event)
        answers = answers_about(reader, "event", number)
        started = [d for d in duties(reader) if d.deadline.event_no == number]
    document = {
        "event": _document(event, over),
        "answers": [answer_document(a) for a in answers],
        "deadlines": [deadline_document(d.deadline, d.state, d.outcome, now) for d in started],
    }
    if as_json:
        emit_json(document)
    else:
        click.echo(event_view(document, paint()))


def _answering(name: str, state: str, text: str) -> click.Command:
    """A command that answers events."""

    def run(event_ids: tuple[str, ...], *, dry_run: bool, **common: Any) -> None:
        answer_all("event", event_ids, state, "", keep=not dry_run, **common)

    run.__doc__ = text
    command = click.command(name)(click.argument("event_ids", metavar="ID...", nargs=-1, required=True)(run))
    for option in ANSWERING:
        option(command)
    return command


def answer_all(
    about: str,
    ids: tuple[str, ...],
    state: str,
    outcome: str,
    *,
    who: str | None,
    why: str,
    keep: bool,
    store: Path,
    as_json: bool,
) -> None:
    """Answer each in turn, and print what was said. One that cannot be answered ends it; those before it stay."""
    from flopmeter.collector.cli_parts import login

    from .answers import State
    from .documents import answer_document
    from .saying import Person, answer

    path = store_file(store)
    person = Person(login() if who is None else who, why, time.time_ns(), keep)
    done: list[dict[str, Any]] = []
    try:
        for one in ids:
            said = answer(path, about, one, State(state), person, outcome=outcome)
            done.append({"id": said.id, "was": said.was.value, "answer": answer_document(said.answer)})
            if not as_json:
                click.echo(_said(about, done[-1], keep))
    finally:
        if as_json and done:
            emit_json({"dry_run": not keep, f"{about}s": done})


def _said(about: str, document: dict[str, Any], keep: bool) -> str:
    a = document["answer"]
    what = a["state"] + (f" ({a['outcome']})" if a["outcome"] else "")
    said = "is" if keep else "would be (dry run, nothing was said)"
    return f"{about} {document['id'][:12]} {said} {what}, was {document['was']}; by {a['who']}"


events.add_command(
    _answering(
        "ack",
        "acknowledged",
        "Say that somebody has seen it and takes care of it.\n\nID is an event's id or the beginning of it."
        '\n\n\b\n  flopmeter events ack 5f1c2a --why "with counsel"',
    )
)
events.add_command(
    _answering(
        "resolve",
        "resolved",
        "Say that it needs nobody any more. It stays in the books.\n\nID is an event's id or the beginning of it."
        '\n\n\b\n  flopmeter events resolve 5f1c2a --why "notified"',
    )
)
events.add_command(
    _answering(
        "reopen",
        "open",
        "Take a resolution (or an acknowledgement) back.\n\nID is an event's id or the beginning of it."
        '\n\n\b\n  flopmeter events reopen 5f1c2a --why "too early"',
    )
)
