"""`flopmeter collector backup`."""

import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from flopmeter.cli.output import emit_json, json_option
from flopmeter.collector.cli_parts import paint, store_option
from flopmeter.collector.store_path import store_file

if TYPE_CHECKING:
    from .copying import Backup, Progress

#: What a site keeps beside its store, and a backup does not hold. Said each time, so that nobody learns it at a restore.
NOT_HELD = (
    "files that `collector serve` is started with: settings, --admit, --regimes, --sinks, TLS certificates",
    "agents' own keys and spools: what a restored store lacks, they send again as far as they keep it",
)
NO_KEYS = "private keys of the log, the attestations and the CA (--with-keys copies them): without them a restored store is checked, but not gone on with under its names"


@click.command()
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path),
    required=True,
    metavar="FILE|DIR",
    help="File to write, or a folder, in which it is named after the store and the time.",
)
@store_option
@click.option(
    "--with-keys", is_flag=True, help="Copy the private keys too, into a folder FILE.keys beside it."
)
@click.option(
    "--keys",
    type=click.Path(path_type=Path),
    metavar="DIR",
    envvar="FLOPMETER_COLLECTOR_KEYS",
    help="Folder of the private keys.  [default: keys, beside the store]",
)
@json_option
def backup(*, output: Path, store: Path, with_keys: bool, keys: Path | None, as_json: bool) -> None:
    """Copy the whole store as it is at one instant, also while the collector runs; check the copy; then name it.

    Exit 0: FILE is whole, on its disk, and checked. Exit 1: something has that name, or the copy is not sound; nothing
    was written over. Exit 3: cannot read or write. How to restore: docs/backup.md.

    \b
      flopmeter collector backup -o books-2026-11-22.sqlite
    """  # noqa: D301 - click wants the backspace character itself
    from .copying import back_up
    from .place import target_of

    file = store_file(store)
    target = target_of(output, file, time.time_ns())
    folder = (keys or file.with_name("keys")) if with_keys else None
    done = back_up(file, target, keys=folder, progress=_progress())
    if as_json:
        emit_json(document(done))
    else:
        from flopmeter.cli.layout import folded

        click.echo(folded(text(done), paint().width))


def document(done: "Backup") -> dict[str, Any]:
    """`backup --json`."""
    return {
        "backup": str(done.file),
        "store": str(done.store),
        "bytes": str(done.size_bytes),
        "sha256": done.sha256,
        "last": {table: str(number) for table, number in done.ends.items()},
        "log": {"leaves": str(done.leaves), "heads": str(done.heads)},
        "keys": None if done.keys is None else {"folder": str(done.keys), "files": list(done.key_files)},
        "not_held": list(not_held(done)),
    }


def not_held(done: "Backup") -> tuple[str, ...]:
    """What is not in it."""
    return NOT_HELD if done.keys is not None else (NO_KEYS, *NOT_HELD)


def text(done: "Backup") -> str:
    """What a person reads."""
    lines = [
        f"{done.file}: whole and checked, {done.size_bytes:,} bytes.",
        f"{done.ends['records']:,} records; {done.leaves:,} leaves of the evidence log, {done.heads:,} signed heads.",
        f"SHA-256 {done.sha256}",
    ]
    if done.keys is not None:
        lines.append(
            f"{done.keys}: {len(done.key_files)} private keys. Whoever reads them can sign in your name."
        )
    return "\n".join((*lines, *(f"Not in it: {what}." for what in not_held(done))))


def _progress() -> "Progress | None":
    """On a terminal, a line that grows."""
    import sys

    if not sys.stderr.isatty():
        return None
    shown = [0.0]

    def show(what: str, done: int, whole: int) -> None:
        now = time.monotonic()
        if now - shown[0] > 0.1 or done == whole:
            shown[0] = now
            unit = "pages" if what == "copied" else "records"
            click.echo(f"\r{done:,} of {whole:,} {unit} {what}\x1b[K", err=True, nl=False)
            if done == whole:
                click.echo("\r\x1b[K", err=True, nl=False)

    return show
