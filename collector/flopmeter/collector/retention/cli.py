"""`flopmeter collector retention | hold | delete`: until when what must be kept, and people's word on it."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from flopmeter.cli.output import emit_json, json_option
from flopmeter.collector.cli_parts import every_regime, login, paint, regimes_option, run_names, store_option
from flopmeter.collector.store_path import store_file

_F = TypeVar("_F", bound=Callable[..., Any])
_who = click.option("--who", help="Who says it.  [default: your login name and this host]")
_why = click.option("--why", required=True, help="Why, in a sentence that an auditor can follow.")


def _word(function: _F) -> _F:
    """What every word on keeping is said with."""
    for option in (json_option, store_option, _why, _who):
        function = option(function)
    return function


@click.group(invoke_without_command=True)
@store_option
@regimes_option
@json_option
@click.pass_context
def retention(ctx: click.Context, store: Path, regimes_dir: Path | None, as_json: bool) -> None:
    """Until when each run, and the whole store, must be kept, and for which duty.

    A term counts from the day on which a model was placed on the market (retention placed), or was given up (retention
    dropped); while nobody has said so, it has no end. Exit 0: the page. What may be deleted: flopmeter collector delete.

    \b
      flopmeter collector retention
      flopmeter collector retention placed llm-7 2026-11-20 --why "released"
    """  # noqa: D301 - click wants the backspace character itself
    if ctx.invoked_subcommand is not None:
        return
    from .queries import read_kept
    from .view import retention_document, retention_view
    from .words import earliest_day

    kept = read_kept(store_file(store), every_regime(regimes_dir))
    document = retention_document(kept, earliest_day(time.time_ns()))
    if as_json:
        emit_json(document)
    else:
        click.echo(retention_view(document, paint()))


@retention.command()
@click.argument("run", shell_complete=run_names)
@click.argument("day")
@_word
def placed(run: str, day: str, **common: Any) -> None:
    """Say that RUN's model was placed on the market on DAY (2027-03-01).

    \b
      flopmeter collector retention placed llm-7 2026-11-20 --why "released"
    """  # noqa: D301 - click wants the backspace character itself
    _say("placed", run, day, **common)


@retention.command()
@click.argument("run", shell_complete=run_names)
@click.argument("day")
@_word
def dropped(run: str, day: str, **common: Any) -> None:
    """Say that RUN's model was given up on DAY and will not be placed on the market.

    \b
      flopmeter collector retention dropped llm-7 2026-11-20 --why "given up"
    """  # noqa: D301 - click wants the backspace character itself
    _say("dropped", run, day, **common)


@retention.command()
@click.argument("run", shell_complete=run_names)
@click.argument("day")
@_word
def withdrawn(run: str, day: str, **common: Any) -> None:
    """Say that DAY was the last on which RUN's model was deployed, anywhere.

    \b
      flopmeter collector retention withdrawn llm-7 2028-03-01 --why "replaced"
    """  # noqa: D301 - click wants the backspace character itself
    _say("withdrawn", run, day, **common)


@retention.command()
@click.argument("number", type=click.IntRange(0, 100))
@_word
def years(number: int, **common: Any) -> None:
    """Set this store's own term, from the market date; 10 years unless set. It shortens no duty of a regime.

    \b
      flopmeter collector retention years 10 --why "counsel, 2026-11-20"
    """  # noqa: D301 - click wants the backspace character itself
    _say("years", "", str(number), **common)


@click.group()
def hold() -> None:
    """Legal holds: what a hold is over is not deleted until it is released, whatever term has ended.

    \b
      flopmeter collector hold add llm-7 --why "request of 2026-11-20"
      flopmeter collector hold list
    """  # noqa: D301 - click wants the backspace character itself


@hold.command("add")
@click.argument("run", required=False, shell_complete=run_names)
@click.option("--everything", is_flag=True, help="Over the whole store, whatever it will hold.")
@_word
def add(run: str | None, everything: bool, **common: Any) -> None:
    """Put a hold on RUN, or on everything.

    \b
      flopmeter collector hold add llm-7 --why "request of 2026-11-20"
    """  # noqa: D301 - click wants the backspace character itself
    if everything == (run is not None):
        raise click.UsageError("expected a RUN, or --everything; got both or neither")
    _say("hold", run or "", "", **common)


@hold.command()
@click.argument("number", type=click.IntRange(1))
@_word
def release(number: int, **common: Any) -> None:
    """Release the hold of that NUMBER.

    \b
      flopmeter collector hold release 1 --why "answered"
    """  # noqa: D301 - click wants the backspace character itself
    _say("release", "", str(number), **common)


@hold.command("list")
@store_option
@regimes_option
@json_option
def list_holds(store: Path, regimes_dir: Path | None, as_json: bool) -> None:
    """The holds that stand: over what, by whom, when and why."""
    from .queries import read_kept
    from .view import holds_view, said_document

    kept = read_kept(store_file(store), every_regime(regimes_dir))
    holds = [said_document(row) for row in kept.said.holds.values()]
    if as_json:
        emit_json({"holds": holds})
    else:
        click.echo(holds_view(holds, paint()))


@click.command()
@store_option
@regimes_option
@click.option(
    "--confirm", metavar="NAME", help="The store's file name, typed again. Without it nothing is deleted."
)
@_who
@click.option("--why", help="Why, in a sentence that an auditor can follow. Needed with --confirm.")
@json_option
def delete(
    *,
    store: Path,
    regimes_dir: Path | None,
    confirm: str | None,
    who: str | None,
    why: str | None,
    as_json: bool,
) -> None:
    """Delete a whole store that nothing says must be kept any longer; leave a certificate of what it was.

    Exit 1, and nothing is deleted: a duty, a hold or an unresolved deadline stands, which is named with the first day
    on which it may be deleted; or the books do not follow from the records. A part of a store cannot be deleted:
    records are chains and every total follows from all of them (docs/retention.md).
    """
    from .delete import check_deletable, delete_store

    file = store_file(store)
    if not file.is_file():
        from flopmeter.collector.errors import StoreError

        raise StoreError(f"{file}: expected a store, found no such file", "name it with --store")
    now = time.time_ns()
    if confirm is None:
        check_deletable(file, every_regime(regimes_dir), now)
        document = {"deleted": False, "store": str(file), "certificate": None}
        said = f"{file}: nothing stands for which it must be kept. Nothing was deleted: --confirm {file.name} does it."
    else:
        if confirm != file.name or not (why or "").strip():
            raise click.UsageError(f"expected --confirm {file.name} and --why; got {confirm!r} and {why!r}")
        gone = delete_store(
            file,
            every_regime(regimes_dir),
            who=login() if who is None else who,
            why=why or "",
            now_unix_ns=now,
        )
        document = {
            "deleted": True,
            "store": str(file),
            "certificate": str(gone.certificate),
            "sha256": gone.sha256,
        }
        said = f"{file} is deleted. What it was: {gone.certificate}. Copies and backups are not touched."
    if as_json:
        emit_json(document)
    else:
        from flopmeter.cli.layout import folded

        click.echo(folded(said, paint().width))


def _say(kind: str, run: str, value: str, *, who: str | None, why: str, store: Path, as_json: bool) -> None:
    from .queries import say
    from .view import said_document

    row = say(store, kind, run, value, who=login() if who is None else who, why=why, unix_ns=time.time_ns)
    if as_json:
        emit_json(said_document(row))
    else:
        what = " ".join(
            w for w in (f"run {run}" if run else "everything" if kind == "hold" else "", value) if w
        )
        click.echo(f"word {row.said_no} on keeping is in the books: {kind} {what}")
