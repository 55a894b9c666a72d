"""`flopmeter events sinks | test | dead | redeliver`: where events go, and what became of them on the way."""

import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from flopmeter.cli.output import emit_json, json_option, seconds_text
from flopmeter.collector.cli_parts import every_regime, paint, regimes_option, store_option
from flopmeter.collector.store_path import store_file

from .settings import EVENT_LOG

if TYPE_CHECKING:
    from .redeliver import Served
    from .settings import SinkSettings

sinks_option = click.option(
    "--sinks",
    "sinks_file",
    type=click.Path(path_type=Path),
    required=True,
    envvar=["FLOPMETER_SINKS", "FLOPMETER_COLLECTOR_SINKS"],
    show_envvar=True,
    help="TOML file of where events go (docs/delivery.md).",
)


@click.command("sinks")
@sinks_option
@store_option
@regimes_option
@json_option
def sinks_command(sinks_file: Path, store: Path, regimes_dir: Path | None, as_json: bool) -> None:
    """Check the sinks file; how each outbox stands. Sends nothing.

    \b
      flopmeter events sinks --sinks sinks.toml
    """  # noqa: D301 - click wants the backspace character itself
    from .office import configured
    from .redeliver import served

    found = configured(None, sinks_file, {r.id for r in every_regime(regimes_dir)})
    path = store_file(store)
    known = {s.sink: s for s in served(path)} if path.is_file() else {}
    documents = [_sink_document(s, known.pop(s.name, None)) for s in found]
    documents += [
        {"sink": s.sink, "type": s.type, "configured": False, **_standing(s)} for s in known.values()
    ]
    if as_json:
        emit_json({"sinks": documents})
    else:
        click.echo(_sinks_view(documents))


def _sink_document(sink: "SinkSettings", stands: "Served | None") -> dict[str, Any]:
    return {
        "sink": sink.name,
        "type": sink.target.type,
        "configured": True,
        "types": list(sink.wanted.types),
        "severities": list(sink.wanted.severities),
        "regimes": list(sink.wanted.regimes),
        "states": sink.follows_states,
        "redact": [*sink.redaction.groups, *sink.redaction.paths],
        "timeout_seconds": sink.timeout_s,
        "give_up_after_hours": sink.give_up_hours,
        **_standing(stands),
    }


def _standing(stands: "Served | None") -> dict[str, Any]:
    from flopmeter.collector.spelling import time_text

    if stands is None:
        return {"since": None, "delivered": 0, "waiting": 0, "dead": 0, "oldest_waiting": None, "said": ""}
    return {
        "since": time_text(stands.since_unix_ns),
        "delivered": stands.delivered,
        "waiting": stands.waiting,
        "dead": stands.dead,
        "oldest_waiting": None if stands.oldest_unix_ns is None else time_text(stands.oldest_unix_ns),
        "said": stands.said,
    }


def _sinks_view(documents: list[dict[str, Any]]) -> str:
    from flopmeter.cli.layout import folded, table

    page = paint()
    rows: list[list[tuple[str, dict[str, Any]]]] = [
        [
            (d["sink"], {"bold": True}),
            (d["type"], {}),
            (_gets(d), {}),
            (str(d["delivered"]), {}),
            (str(d["waiting"]), {"fg": "yellow" if d["waiting"] else None}),
            (str(d["dead"]), {"fg": "red" if d["dead"] else None}),
        ]
        for d in documents
    ]
    lines = [
        table(("SINK", "TYPE", "GETS", "DELIVERED", "WAITING", "DEAD"), rows, page, spare=(2,), cut=(0, 2))
    ]
    lines += [folded(f"{d['sink']}: {d['said']}", page.width) for d in documents if d["said"]]
    if any(d["dead"] for d in documents):
        lines.append("`flopmeter events dead` shows what was put aside.")
    return "\n".join(lines)


def _gets(document: dict[str, Any]) -> str:
    if document["sink"] == EVENT_LOG:
        return "every event, by --event-log"
    if not document["configured"]:
        return "nothing: in no file now"
    parts = [", ".join(document[key]) for key in ("types", "severities", "regimes") if document[key]]
    said = "; ".join(parts) or "every event"
    return said + (" without " + ", ".join(document["redact"]) if document["redact"] else "")


@click.command("test")
@click.argument("sink")
@sinks_option
@json_option
def test_command(sink: str, sinks_file: Path, as_json: bool) -> None:
    """Send a marked test event to SINK; say what it answered.

    Exit 0: it took it. 1: it answered, and refused. 3: nobody answered.

    \b
      flopmeter events test pager --sinks sinks.toml
    """  # noqa: D301 - click wants the backspace character itself
    from uuid import uuid4

    from flopmeter.collector.errors import SettingsError

    from .answer import Kind
    from .message import test_message
    from .sender import sender_for
    from .sink_file import read_sinks

    found = {s.name: s for s in read_sinks(sinks_file)}
    if sink not in found:
        raise SettingsError(
            f"sink {sink!r}: expected one of {', '.join(found)}", f"write it into {sinks_file}"
        )
    settings = found[sink]
    sender = sender_for(settings, time.time_ns)
    sender.check()
    message = test_message(sink, time.time_ns(), uuid4().hex)
    begun = time.monotonic()
    (answer,) = sender.send([message])
    seconds = time.monotonic() - begun
    if as_json:
        emit_json(
            {
                "sink": sink,
                "id": message.id,
                "outcome": answer.kind.value,
                "said": answer.said,
                "seconds": seconds,
            }
        )
    else:
        from flopmeter.cli.layout import folded

        text = f"{sink}: {answer.kind}: {answer.said} (event {message.id}, {seconds_text(seconds)})"
        click.echo(folded(text, paint().width), err=not answer.delivered)
    if not answer.delivered:
        raise click.exceptions.Exit(3 if answer.kind is Kind.FAILED else 1)


@click.command("dead")
@click.option("--sink", help="Only of this sink.")
@store_option
@json_option
def dead_command(sink: str | None, store: Path, as_json: bool) -> None:
    """Deliveries that were put aside, and why."""
    from flopmeter.collector.spelling import time_text

    from .answer import line
    from .redeliver import dead_letters

    found = dead_letters(store_file(store), sink)
    if as_json:
        emit_json(
            {
                "dead": [
                    {
                        "event": d.event_id,
                        "event_no": d.event_no,
                        "type": d.type,
                        "subject": d.subject,
                        "sink": d.sink,
                        "answer_no": d.answer_no or None,
                        "attempts": d.attempts,
                        "first_attempt": time_text(d.first_unix_ns),
                        "put_aside": time_text(d.dead_unix_ns),
                        "said": d.said,
                    }
                    for d in found
                ]
            }
        )
    elif not found:
        click.echo("Nothing was put aside.")
    else:
        from flopmeter.cli.layout import folded

        lines = []
        for d in found:
            what = f"{d.event_id[:12]}  {d.type}  {line(d.subject)}"
            lines.append(what + ("  (an answer)" if d.answer_no else ""))
            lines.append(
                f"  {d.sink}: {d.attempts} attempts, put aside {time_text(d.dead_unix_ns)}: {d.said}"
            )
        lines.append("`flopmeter events redeliver ID --sink NAME`, or `--all-dead`, tries again.")
        click.echo(folded("\n".join(lines), paint().width))


@click.command("redeliver")
@click.argument("ids", nargs=-1, metavar="[ID]...")
@click.option("--sink", help="To this sink; needed with ids.")
@click.option("--all-dead", is_flag=True, help="All that was put aside, of --sink or of every sink.")
@store_option
@json_option
def redeliver_command(
    ids: tuple[str, ...], sink: str | None, all_dead: bool, store: Path, as_json: bool
) -> None:
    """Deliver events again, or to a sink that was added later.

    A running collector does it within seconds; else it is done at the next start.

    \b
      flopmeter events redeliver 5f1c2a
    """  # noqa: D301 - click wants the backspace character itself
    from .redeliver import redeliver, redeliver_dead

    if bool(ids) == all_dead:
        raise click.UsageError("expected the ids of events, or --all-dead")
    path = store_file(store)
    if all_dead:
        count = redeliver_dead(path, sink)
    elif sink is None:
        raise click.UsageError("expected --sink NAME: whom the events are for")
    else:
        count = len(redeliver(path, ids, sink))
    if as_json:
        emit_json({"redelivered": count, "sink": sink})
    else:
        click.echo(f"{count} {'delivery is' if count == 1 else 'deliveries are'} due again.")


COMMANDS = {c.name: c for c in (sinks_command, test_command, dead_command, redeliver_command) if c.name}
