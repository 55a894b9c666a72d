"""`flopmeter collector fsck`: the books derived again, and what came of it."""

import sys
import time
from pathlib import Path

import click

from flopmeter.cli.output import emit_json, json_option
from flopmeter.collector.cli_parts import every_regime, paint, regimes_option, store_option
from flopmeter.collector.store_path import store_file


@click.command()
@store_option
@regimes_option
@json_option
def fsck(store: Path, regimes_dir: Path | None, as_json: bool) -> None:
    """Derive the books again from the stored bytes and name the first difference.

    Exit 0: every total, hour, head, loss and event follows from the signed records. Exit 1: it does not,
    and the difference is named. Exit 3: the store cannot be read.
    """
    from flopmeter.cli.layout import folded
    from flopmeter.collector.ingest.listening import collector_version
    from flopmeter.collector.spelling import time_text

    from .fsck import check_store, keep_outcome, result_document, result_text

    shown = [0.0]

    def progress(done: int, whole: int) -> None:
        now = time.monotonic()
        if now - shown[0] > 0.1 or done == whole:
            shown[0] = now
            click.echo(f"\r{done:,} of {whole:,} records\x1b[K", err=True, nl=False)

    on_terminal = sys.stderr.isatty()
    result = check_store(
        store_file(store), every_regime(regimes_dir), progress=progress if on_terminal else None
    )
    keep_outcome(result, time_text(time.time_ns()), collector_version())
    if on_terminal:
        click.echo("\r\x1b[K", err=True, nl=False)
    if as_json:
        emit_json(result_document(result))
    else:
        click.echo(folded(result_text(result), paint().width), err=result.difference is not None)
    if result.difference is not None:
        raise click.exceptions.Exit(1)
