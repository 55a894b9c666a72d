"""`flopmeter deadlines list | show | open | ack | resolve | export`."""

import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from flopmeter.cli.output import emit_json, json_option
from flopmeter.collector.cli_parts import every_regime, paint, regimes_option, store_option
from flopmeter.collector.store_path import store_file

from .cli import ANSWERING, STATES, answer_all

if TYPE_CHECKING:
    from .reading import Duty

OUTCOMES = ("done", "not-applicable")
PRIVATE = 0o640


@click.group()
def deadlines() -> None:
    """What is due, when, and to whom.

    \b
      flopmeter deadlines list --overdue
      flopmeter deadlines ack 4051 --why "counsel drafts it"
      flopmeter deadlines resolve 4051 --outcome done --why "filed, receipt 7"
      flopmeter deadlines open us-ca-sb53 incident --at 2027-01-04T10:00Z \\
        --why "weights leaked: ticket 12"
      flopmeter deadlines export --ics deadlines.ics

    4051 is the beginning of an id, at least four digits.
    """  # noqa: D301 - click wants the backspace character itself


@deadlines.command("list")
@click.option("--state", type=click.Choice(STATES), help="Only those that stand so.")
@click.option("--overdue", is_flag=True, help="Only those that are past and not resolved.")
@click.option("--regime", metavar="ID", help="Only those of this regime.")
@click.option("--run", help="Only those about this run.")
@store_option
@json_option
def deadlines_list(
    *, state: str | None, overdue: bool, regime: str | None, run: str | None, store: Path, as_json: bool
) -> None:
    """Every deadline, the next first; what is resolved last."""
    from .view import deadlines_view

    found = [
        d
        for d in _documents(store)
        if (state is None or d["state"] == state)
        and (not overdue or d["overdue"])
        and (regime is None or d["regime"] == regime)
        and (run is None or d["run"] == run)
    ]
    found.sort(key=lambda d: d["state"] == "resolved")
    if as_json:
        emit_json({"deadlines": found})
    else:
        click.echo(deadlines_view(found, paint(), filtered=bool(state or overdue or regime or run)))


def _documents(store: Path) -> list[dict[str, Any]]:
    from flopmeter.collector.report.queries import reading

    from .documents import deadline_document
    from .reading import duties

    now = time.time_ns()
    with reading(store) as reader:
        return [deadline_document(d.deadline, d.state, d.outcome, now) for d in duties(reader)]


@deadlines.command("show")
@click.argument("deadline_id", metavar="ID")
@store_option
@json_option
def deadlines_show(deadline_id: str, store: Path, as_json: bool) -> None:
    """One deadline: what is due to whom, what started it, and what people answered.

    ID is a deadline's id or the beginning of it.

    \b
      flopmeter deadlines show 5f1c2a
    """  # noqa: D301 - click wants the backspace character itself
    from flopmeter.collector.report.queries import reading

    from .documents import answer_document, deadline_document
    from .notices import COVERAGE
    from .reading import answers_about, duties, event_by_no
    from .saying import look_up
    from .view import deadline_view

    now = time.time_ns()
    with reading(store) as reader:
        number, _ = look_up(reader.rows, "deadline", deadline_id)
        duty = next(d for d in duties(reader) if d.number == number)
        answers = answers_about(reader, "deadline", number)
        no = duty.deadline.event_no
        event = None if no is None else event_by_no(reader, no).cloud
    document = {
        "deadline": deadline_document(duty.deadline, duty.state, duty.outcome, now),
        "trigger_event": event,
        "answers": [answer_document(a) for a in answers],
        "note": COVERAGE if duty.deadline.act == "coverage" else None,
    }
    if as_json:
        emit_json(document)
    else:
        click.echo(deadline_view(document, paint()))


@deadlines.command("open")
@click.argument("regime_id", metavar="REGIME")
@click.argument("rule", metavar="RULE")
@click.option("--at", required=True, metavar="TIME", help="When it happened: 2027-01-04T10:00Z.")
@click.option("--run", "subject", default="", help="The run it is about, if it is about one.")
@regimes_option
def deadlines_open(
    *,
    regime_id: str,
    rule: str,
    at: str,
    subject: str,
    regimes_dir: Path | None,
    who: str | None,
    why: str,
    dry_run: bool,
    store: Path,
    as_json: bool,
) -> None:
    """Start a clock that only a person can start: an incident, under RULE of REGIME.

    `flopmeter regimes show REGIME` lists its rules. The same incident is opened once.

    \b
      flopmeter deadlines open us-ca-sb53 incident --at 2026-11-20 --why "leak"
    """  # noqa: D301 - click wants the backspace character itself
    from flopmeter.collector.cli_parts import login
    from flopmeter.collector.errors import DutyRefused
    from flopmeter.collector.law.rules import in_force
    from flopmeter.collector.registry.when import instant

    from .answers import State
    from .documents import answer_document, deadline_document
    from .saying import Person, open_incident
    from .view import deadline_lines

    known = {r.id: r for r in every_regime(regimes_dir)}
    regime = known.get(regime_id)
    if regime is None:
        raise DutyRefused(
            f"regime {regime_id[:80]!r}: expected one of {', '.join(known)}",
            "a site's own need --regimes DIR",
        )
    now = time.time_ns()
    person = Person(login() if who is None else who, why, now, not dry_run)
    deadline, said = open_incident(
        store_file(store), regime, rule, person, trigger_unix_ns=instant("--at", at), subject=subject
    )
    if not in_force(regime, now):
        click.echo(
            f"Note: {regime.id} does not bind now ({regime.status}); the clock runs all the same.", err=True
        )
    document = deadline_document(deadline, State.OPEN, "", now)
    if as_json:
        emit_json({"dry_run": dry_run, "deadline": document, "answer": answer_document(said)})
    else:
        click.echo("dry run, nothing was opened; it would be:" if dry_run else "opened:")
        click.echo("\n".join(deadline_lines(document, paint())))


@deadlines.command("ack")
@click.argument("deadline_ids", metavar="ID...", nargs=-1, required=True)
def deadlines_ack(deadline_ids: tuple[str, ...], **common: Any) -> None:
    """Say that somebody takes care of it. It is told of until it is resolved.

    ID is a deadline's id or the beginning of it.

    \b
      flopmeter deadlines ack 5f1c2a --why "with counsel since today"
    """  # noqa: D301 - click wants the backspace character itself
    _answer(deadline_ids, "acknowledged", "", **common)


@deadlines.command("resolve")
@click.argument("deadline_ids", metavar="ID...", nargs=-1, required=True)
@click.option(
    "--outcome",
    type=click.Choice(OUTCOMES),
    required=True,
    help="done: it was handed in. not-applicable: it is not owed; of a calendar, no further date follows.",
)
def deadlines_resolve(deadline_ids: tuple[str, ...], outcome: str, **common: Any) -> None:
    """Say that it was done, or that it is not owed: nothing more is told of it.

    ID is a deadline's id or the beginning of it.

    \b
      flopmeter deadlines resolve 5f1c2a --outcome done --why "filed, 88"
    """  # noqa: D301 - click wants the backspace character itself
    _answer(deadline_ids, "resolved", outcome, **common)


@deadlines.command("reopen")
@click.argument("deadline_ids", metavar="ID...", nargs=-1, required=True)
def deadlines_reopen(deadline_ids: tuple[str, ...], **common: Any) -> None:
    """Take a resolution (or an acknowledgement) back: the clock never stopped.

    ID is a deadline's id or the beginning of it.

    \b
      flopmeter deadlines reopen 5f1c2a --why "the filing was returned"
    """  # noqa: D301 - click wants the backspace character itself
    _answer(deadline_ids, "open", "", **common)


def _answer(
    ids: tuple[str, ...],
    state: str,
    outcome: str,
    *,
    who: str | None,
    why: str,
    dry_run: bool,
    store: Path,
    as_json: bool,
) -> None:
    answer_all(
        "deadline", ids, state, outcome, who=who, why=why, keep=not dry_run, store=store, as_json=as_json
    )


for _command in ("open", "ack", "resolve", "reopen"):
    for _option in ANSWERING:
        _option(deadlines.commands[_command])


@deadlines.command("export")
@click.option(
    "--ics",
    "file",
    type=click.Path(path_type=Path, dir_okay=False, allow_dash=True),
    required=True,
    help="The iCalendar file to write; - is standard output.",
)
@click.option("--all", "every", is_flag=True, help="What is resolved too, as what became of it.")
@store_option
def deadlines_export(file: Path, every: bool, store: Path) -> None:
    """Write deadlines as an iCalendar file, with an alarm at each lead time.

    Importing it again updates: each deadline has the same uid for ever.

    \b
      flopmeter deadlines export --ics deadlines.ics
    """  # noqa: D301 - click wants the backspace character itself
    from flopmeter.collector.errors import CollectorError
    from flopmeter.collector.report.queries import reading

    from .deadlines import DEFAULT_LEADS_NS
    from .ics import calendar
    from .reading import duties

    with reading(store) as reader:
        found = [d for d in duties(reader) if every or d.state != "resolved"]
    raw = calendar([_entry(d) for d in found], DEFAULT_LEADS_NS, time.time_ns())
    if str(file) == "-":
        click.echo(raw, nl=False)
        return
    try:
        _replace(file, raw)
    except OSError as e:
        raise CollectorError(
            f"--ics {file}: cannot write: {e.strerror or e}", "name a file in a folder of yours"
        ) from e
    click.echo(f"{file}: {len(found)} deadlines")


def _entry(duty: "Duty") -> Any:
    from .ics import Entry

    changed = duty.deadline.opened_unix_ns if duty.last is None else duty.last.unix_ns
    return Entry(duty.deadline, duty.state, duty.outcome, duty.answers, changed)


def _replace(file: Path, raw: bytes) -> None:
    """Whole or not at all: a calendar program may read it at any moment."""
    import os

    fresh = file.with_name(f"{file.name}.{os.getpid()}.new")
    try:
        handle = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, PRIVATE)
        with os.fdopen(handle, "wb") as out:
            out.write(raw)
        fresh.replace(file)
    except OSError:
        fresh.unlink(missing_ok=True)
        raise
