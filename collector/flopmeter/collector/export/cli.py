"""`flopmeter export usage | events | deadlines | runs`."""

import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any, BinaryIO, Self

import click

from flopmeter.collector.cli_parts import regimes_option, store_option

if TYPE_CHECKING:
    from .columns import Rows, Schema
    from .wanted import Wanted

FORMATS = ("csv", "jsonl", "parquet")
_ENDINGS = {".jsonl": "jsonl", ".ndjson": "jsonl", ".parquet": "parquet"}
_REDRAW_S = 0.2


@click.group()
def export() -> None:
    """Usage, events, deadlines and runs for other programs.

    \b
      flopmeter export usage --run llm-7 -o llm-7.parquet
      flopmeter export usage --since 2026-11-01 --until 2026-11-30 >november.csv
      flopmeter export events --format jsonl | jq -r .message
      flopmeter export runs --tenant slurm-account:tres/physics

    All of a file is one state of the books, also while a collector writes them. docs/exports.md names every column
    with its unit.
    """  # noqa: D301 - click wants the backspace character itself


def _command(name: str, what: str, of_time: str) -> None:
    def run(**asked: Any) -> None:
        _export(name, **asked)

    run.__doc__ = what
    command: Any = run
    for option in (
        regimes_option,
        store_option,
        click.option(
            "-o", "--output", type=click.Path(path_type=Path), help="Into this file, whole or not at all."
        ),
        click.option(
            "--format",
            "shape",
            type=click.Choice(FORMATS),
            help="[default: by the ending of -o, else csv]",
        ),
        click.option(
            "--tenant",
            metavar="ID",
            default="",
            help="Only this tenant's, as in `flopmeter fleet tenants --json`.",
        ),
        click.option("--until", metavar="TIME", help=f"Only {of_time} until then; a bare date: all of it."),
        click.option(
            "--since", metavar="TIME", help=f"Only {of_time} from then on: 2026-11-20, 2026-11-20T14:00Z."
        ),
        click.option("--run", default="", help="Only of this run."),
    ):
        command = option(command)
    export.command(name)(command)


_command(
    "usage",
    """The books by the hour: SM-cycles, energy and FLOP of each workload, GPU model and evidence class.

    A run's rows add up to the figures of `flopmeter runs show`, to the last operation.
    """,
    "hours that begin",
)
_command("events", "Every event, with where it stands with people.", "those raised")
_command("deadlines", "What is due, when, to whom, and what became of it.", "those due")
_command("runs", "A line per run: figures, device time, evidence classes, the nearest line.", "runs seen")


def _export(
    name: str,
    *,
    run: str,
    tenant: str,
    since: str | None,
    until: str | None,
    shape: str | None,
    output: Path | None,
    store: Path,
    regimes_dir: Path | None,
) -> None:
    from flopmeter.collector.cli_parts import every_regime
    from flopmeter.collector.registry.when import end_of, instant
    from flopmeter.collector.report.queries import asked, reading

    from .columns import SCHEMAS
    from .destination import new_file, standard_output
    from .wanted import Wanted

    wanted = Wanted(
        run,
        tenant,
        None if since is None else instant("--since", since),
        None if until is None else end_of("--until", until),
    )
    if None not in (wanted.since_unix_ns, wanted.until_unix_ns) and _backwards(wanted):
        raise click.UsageError(f"--until {until}: expected a time after --since {since}")
    to_stdout = output is None or str(output) == "-"
    shape = shape or ("csv" if to_stdout or output is None else _ENDINGS.get(output.suffix.lower(), "csv"))
    if shape == "parquet":
        _check_parquet(to_stdout=to_stdout)
    signal.signal(signal.SIGTERM, _interrupt)
    seen = _Seen(wanted=sys.stderr.isatty() and not (to_stdout and sys.stdout.isatty()))
    destination = standard_output() if to_stdout or output is None else new_file(output)
    question = asked(time.time_ns(), every_regime(regimes_dir))
    # The file has its name only once the books have been read to their end without a fault.
    try:
        with destination as to, reading(store) as reader, seen:
            _write(to, SCHEMAS[name], shape, seen.count(_rows(name, reader, question, wanted, seen.hour)))
    except BrokenPipeError as e:  # whoever read it has enough: `| head`
        raise click.exceptions.Exit(0) from e


def _rows(name: str, reader: Any, question: Any, wanted: "Wanted", hour: Callable[[int], None]) -> "Rows":
    if name == "usage":
        from .usage import usage_rows

        return usage_rows(reader, question, wanted, hour)
    if name == "runs":
        from .runs import run_rows

        return run_rows(reader, question, wanted)
    from .duties import deadline_rows, event_rows

    return event_rows(reader, wanted) if name == "events" else deadline_rows(reader, question, wanted)


def _write(to: BinaryIO, schema: "Schema", shape: str, rows: "Rows") -> None:
    if shape == "parquet":
        from importlib.metadata import version

        from .parquet import write_parquet

        write_parquet(to, schema, rows, version("flopmeter"))
        return
    from .formats import csv_text, json_lines

    texts = csv_text if shape == "csv" else json_lines
    to.writelines(text.encode() for text in texts(schema, rows))


def _backwards(wanted: "Wanted") -> bool:
    return (wanted.since_unix_ns or 0) > (wanted.until_unix_ns or 0)


def _check_parquet(*, to_stdout: bool) -> None:
    import importlib.util

    if importlib.util.find_spec("pyarrow") is None:
        raise click.ClickException(
            "Parquet needs the package 'pyarrow', which is not installed here; install flopmeter[parquet], or take "
            "--format csv or jsonl"
        )
    if to_stdout and sys.stdout.isatty():
        raise click.UsageError("Parquet is not for a terminal: name a file with -o, or pipe it on")


def _interrupt(_number: int, _frame: FrameType | None) -> None:
    """SIGTERM ends it like Ctrl-C: through every `finally`, so that no half of a file stays behind."""
    raise KeyboardInterrupt


class _Seen:
    """How far it is, on a terminal: rows so far, and of usage the day."""

    def __init__(self, *, wanted: bool) -> None:
        self._wanted = wanted
        self._at = 0.0
        self._day = ""
        self._rows = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._wanted and self._at:
            click.echo("\r\x1b[K", err=True, nl=False)

    def hour(self, hour: int) -> None:
        if self._wanted and time.monotonic() - self._at > _REDRAW_S:
            self._day = time.strftime(", %Y-%m-%d", time.gmtime(hour * 3600))
            self._draw()

    def count(self, rows: "Rows") -> "Rows":
        if not self._wanted:
            return rows
        return self._counted(rows)

    def _counted(self, rows: "Rows") -> "Rows":
        for row in rows:
            self._rows += 1
            yield row
            if self._rows % 1000 == 0 and time.monotonic() - self._at > _REDRAW_S:
                self._draw()

    def _draw(self) -> None:
        self._at = time.monotonic()
        click.echo(f"\r{self._rows:,} rows{self._day}\x1b[K", err=True, nl=False)
