"""`flopmeter collector log show | export`: the evidence log, read while a collector runs."""

import contextlib
import sys
import time
from pathlib import Path
from typing import Any

import click

from flopmeter.cli.layout import wrapped
from flopmeter.cli.output import emit_json, json_option, seconds_text
from flopmeter.collector.cli_parts import store_option
from flopmeter.collector.store_path import store_file

_WIDTH = 80


@click.group()
def log() -> None:
    """The evidence log: what is in it, its heads, and a copy for whoever checks (docs/evidence-log.md).

    \b
      flopmeter collector log show
      flopmeter collector log export log/
    """  # noqa: D301 - click wants the backspace character itself


@log.command()
@store_option
@json_option
def show(store: Path, as_json: bool) -> None:
    """Size, name, key, the last checkpoint and its age, and who cosigned it."""
    from flopmeter.collector.store.reading import open_for_reading
    from flopmeter.collector.store.told import told

    from .said import log_document, witness_documents

    path = store_file(store)
    with contextlib.closing(open_for_reading(path)) as connection, told(str(path), "read"):
        document = log_document(connection, time.time_ns())
        witnesses = document["witnesses"] = witness_documents(connection)
    if as_json:
        emit_json(document)
        return
    click.echo(f"evidence log  {document['origin'] or 'has no name yet: no checkpoint was signed'}")
    if document["vkey"]:
        click.echo(f"vkey          {document['vkey']}")
    counts = ", ".join(f"{n} {kind}" for kind, n in document["leaves"].items())
    click.echo(f"leaves        {document['size']}" + (f"  ({counts})" if counts else ""))
    if document["waiting"]:
        click.echo("no index yet  " + ", ".join(f"{n} {kind}" for kind, n in document["waiting"].items()))
    head = document["checkpoint"]
    if head is None:
        click.echo("checkpoint    none")
        _witnesses(witnesses)
        return
    covered = "all" if head["size"] == document["size"] else f"{head['size']} of {document['size']} leaves"
    click.echo(f"checkpoint    {head['number']}, of {head['time']}, covers {covered}")
    click.echo(
        f"age           {seconds_text(head['age_seconds'])}"
        + (" (nothing was added since)" if covered == "all" else "")
    )
    click.echo(f"root          {head['root']}")
    click.echo(f"cosigned by   {', '.join(head['cosigned_by']) or 'nobody'}")
    _witnesses(witnesses)


def _witnesses(documents: list[dict[str, Any]]) -> None:
    """How each stood when it was asked last; what it said is its own text."""
    for w in documents:
        size = w["cosigned_size"]
        held = "cosigned nothing yet" if size is None else f"cosigned {size} leaves at {w['cosigned']}"
        lines = wrapped(f"{w['name']}: {held}, asked at {w['asked']}", _WIDTH, "witness       ", "")
        if w["error"]:
            said = "".join(c if c.isprintable() else "?" for c in w["error"])
            lines += wrapped(f"last error: {said}", _WIDTH, "              ", "  ")
        click.echo("\n".join(lines))


@log.command()
@click.argument("directory", type=click.Path(path_type=Path, file_okay=False))
@store_option
@click.option(
    "--without-leaves",
    is_flag=True,
    help="Hashes alone: for the public, who is not to guess what leaves say.",
)
@json_option
def export(directory: Path, store: Path, without_leaves: bool, as_json: bool) -> None:
    """Write the log to DIRECTORY as C2SP tlog-tiles: checkpoint, tile/LEVEL/…, tile/entries/….

    Goes on from an export that is there. Leaves hold hashes, agents' ids, times and salts: no names, no figures.

    \b
      flopmeter collector log export log/
    """  # noqa: D301 - click wants the backspace character itself
    from flopmeter.collector.errors import LogError
    from flopmeter.collector.store.reading import open_for_reading
    from flopmeter.collector.store.told import told

    from .export import export as run

    def progress(done: int, of: int) -> None:
        if sys.stderr.isatty():
            click.echo(f"\r{done} of {of} leaves", nl=False, err=True)

    path = store_file(store)
    with contextlib.closing(open_for_reading(path)) as connection, told(str(path), "read"):
        try:
            made = run(connection, directory, with_leaves=not without_leaves, progress=progress)
        except OSError as e:
            raise LogError(
                f"{e.filename or directory}: cannot write: {e.strerror or e}",
                "name a directory with space for it",
            ) from e
    if sys.stderr.isatty():
        click.echo("", err=True)
    head = made.checkpoint
    if as_json:
        emit_json(
            {
                "origin": head.origin,
                "size": head.size,
                "root": head.root.hex(),
                "checkpoint": head.number,
                "files_written": made.files,
                "bytes_written": made.bytes,
            }
        )
    else:
        click.echo(f"{head.size} leaves under checkpoint {head.number} of {head.origin}")
        click.echo(f"{made.files} files written, {made.bytes} bytes; root {head.root.hex()}")
