"""`flopmeter runs | regimes | fleet`, and `flopmeter collector fsck`: thin over queries and views."""

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from flopmeter.cli.output import emit_json, json_option
from flopmeter.collector.store_path import DEFAULT_STORE, store_file

from .completing import run_names

if TYPE_CHECKING:
    from flopmeter.collector.law.regimes import Regime

    from .expected import ExpectedNode
    from .layout import Paint
    from .queries import Reader
    from .watching import Look

MIN_INTERVAL_S = 0.1

store_option = click.option(
    "--store",
    type=click.Path(path_type=Path),
    default=DEFAULT_STORE,
    envvar=["FLOPMETER_STORE", "FLOPMETER_COLLECTOR_STORE"],
    show_default=True,
    show_envvar=True,
    help="The collector's store: its file, or the directory it lies in.",
)
regimes_option = click.option(
    "--regimes",
    "regimes_dir",
    type=click.Path(path_type=Path),
    default=None,
    envvar=["FLOPMETER_REGIMES", "FLOPMETER_COLLECTOR_REGIMES"],
    show_envvar=True,
    help="A directory with a site's own regime files, beside the shipped ones.",
)


expect_option = click.option(
    "--expect",
    type=click.Path(path_type=Path),
    default=None,
    envvar="FLOPMETER_EXPECT",
    show_envvar=True,
    help="TOML file of the nodes that must exist (docs/coverage.md).",
)


#: What people say of runs is in the registry's room, and imported when it is asked for.
_SAID = ("declare", "assign", "tag", "link", "external", "retract", "accept", "reject")
_READ = ("entries", "report", "suggestions")


class _Runs(click.Group):
    def list_commands(self, ctx: click.Context) -> list[str]:
        return [*super().list_commands(ctx), "summary", *_SAID, *_READ]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name in _SAID:
            from flopmeter.collector.registry import cli

            return cli.COMMANDS[cmd_name]
        if cmd_name == "summary":
            from .job_cli import summary

            return summary
        if cmd_name in _READ:
            from flopmeter.collector.registry import cli_read

            return cli_read.COMMANDS[cmd_name]
        return super().get_command(ctx, cmd_name)


@click.group(cls=_Runs)
def runs() -> None:
    """Training runs and their totals.

    \b
      flopmeter runs list
      flopmeter runs show llm-7
      flopmeter runs report llm-7 -o llm-7.html
    """  # noqa: D301 - click wants the backspace character itself


as_of_option = click.option(
    "--as-of",
    metavar="TIME",
    help="The books as they stood then, derived again from the records: 2026-11-20, 2026-11-20T14:00Z.",
)


@runs.command("list")
@as_of_option
@expect_option
@store_option
@regimes_option
@json_option
def runs_list(
    as_of: str | None, expect: Path | None, store: Path, regimes_dir: Path | None, as_json: bool
) -> None:
    """Every run with its FLOP, bounds and nearest threshold; the largest first."""
    from . import queries
    from .fleet_cli import expected_of
    from .runs_view import runs_view

    nodes = expected_of(expect)
    with books(store, as_of) as (reader, unix_ns):
        question = queries.asked(unix_ns, regimes_as_of(store, as_of, unix_ns, regimes_dir), nodes)
        documents = reader.runs(question) if as_json else reader.briefs(question)
        unattributed = reader.unowned(question)["unattributed"]
    if as_json:
        emit_json({"runs": documents, "unattributed": unattributed})
    else:
        click.echo(runs_view(documents, paint(), unattributed))


@runs.command("show")
@click.argument("run", shell_complete=run_names)
@as_of_option
@expect_option
@store_option
@regimes_option
@json_option
def runs_show(  # noqa: PLR0917 - click passes them by name
    run: str,
    as_of: str | None,
    expect: Path | None,
    store: Path,
    regimes_dir: Path | None,
    as_json: bool,
) -> None:
    """One run: figures against every threshold, how well they are known, and why not better.

    \b
      flopmeter runs show llm-7
      flopmeter runs show llm-7 --json --as-of 2026-11-20
    """  # noqa: D301 - click wants the backspace character itself
    from .fleet_cli import expected_of
    from .runs_view import run_view

    document = _run(run, store, regimes_dir, as_of, expected_of(expect))
    if as_json:
        emit_json(document)
    else:
        click.echo(run_view(document, paint()))


@runs.command("watch")
@click.argument("run", required=False, shell_complete=run_names)
@store_option
@regimes_option
@click.option(
    "--interval", type=click.FloatRange(MIN_INTERVAL_S), default=2.0, show_default=True, help="Seconds."
)
@click.option(
    "--times", type=click.IntRange(0), default=0, help="Stop after so many looks; 0 = until Ctrl-C."
)
def runs_watch(run: str | None, store: Path, regimes_dir: Path | None, interval: float, times: int) -> None:
    """Runs as they grow: redrawn on a terminal, a line per change elsewhere.

    Each with its band against the lines in force, what it does in a second, and when it meets the next line if it
    goes on so. On a terminal q ends it, j and k or the arrows move where there are more runs than room.

    \b
      flopmeter runs watch
      flopmeter runs watch llm-7 --interval 30 >> llm-7.log
    """  # noqa: D301 - click wants the backspace character itself
    from flopmeter.cli.terminal import terminal_of

    from .watching import on_terminal, print_changes

    def look() -> "Look":
        from .watching import look_at

        return look_at(store, run, every_regime(regimes_dir), lambda: _run(run or "", store, regimes_dir))

    try:
        if terminal_of(sys.stdout).live:
            on_terminal(look, interval, times, paint)
        else:
            print_changes(look, interval, times)
    except KeyboardInterrupt:
        click.echo()


@contextmanager
def books(store: Path, as_of: str | None) -> "Iterator[tuple[Reader, int]]":
    """The store as it is, or as it stood; and the moment that it is asked for."""
    from . import queries

    if as_of is None:
        with queries.reading(store) as reader:
            yield reader, time.time_ns()
    else:
        from flopmeter.collector.registry.cli_read import books_as_of

        with books_as_of(store, as_of) as found:
            yield found


def _run(
    run: str,
    store: Path,
    regimes_dir: Path | None,
    as_of: str | None = None,
    nodes: "tuple[ExpectedNode, ...]" = (),
) -> dict[str, Any]:
    import difflib

    from flopmeter.collector.errors import StoreError
    from flopmeter.collector.forecast.live import last_kept

    from . import queries

    with books(store, as_of) as (reader, unix_ns):
        regimes = regimes_as_of(store, as_of, unix_ns, regimes_dir)
        found = reader.runs(queries.asked(unix_ns, regimes, nodes), run, series=True)
        if not found or not run:
            registry = reader.registry()
            if registry.went(run) is not None:
                there = " and ".join(registry.each(run))
                raise StoreError(
                    f"run {run!r}: expected a run of which something is metered; its work is in {there} now",
                    f"`flopmeter runs show {registry.each(run)[0]}` shows it; `flopmeter runs report {run}` what was said",
                )
            if registry.about(run):
                raise StoreError(
                    f"run {run!r}: expected a run of which something was metered, found only what people said of it",
                    f"`flopmeter runs report {run}` shows that",
                )
            near = difflib.get_close_matches(run, reader.run_names(), n=3, cutoff=0.4)
            raise StoreError(
                f"run {run!r}: expected a run in {store_file(store)}, found none of that name"
                + ("" if as_of is None else f" as of {as_of}"),
                f"did you mean {', '.join(near)}?" if near else "`flopmeter runs list` shows them all",
            )
        return found[0] | {"forecast": last_kept(reader, run)}


@click.command()
@store_option
@regimes_option
@json_option
def fsck(store: Path, regimes_dir: Path | None, as_json: bool) -> None:
    """Derive the books again from the stored bytes and name the first difference.

    Exit 0: every total, hour, head, loss and event follows from the signed records. Exit 1: it does not,
    and the difference is named. Exit 3: the store cannot be read.
    """
    from flopmeter.collector.check.fsck import check_store, keep_outcome, result_document, result_text
    from flopmeter.collector.ingest.listening import collector_version
    from flopmeter.collector.spelling import time_text

    from .layout import folded

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


def regimes_of(directory: Path | None) -> "tuple[Regime, ...]":
    from flopmeter.collector.law.laws import with_site

    return with_site(directory)


def every_regime(directory: Path | None) -> "tuple[Regime, ...]":
    from flopmeter.collector.law.laws import read_laws

    return read_laws(directory).binding


def regimes_as_of(
    store: Path, as_of: str | None, unix_ns: int, directory: Path | None
) -> "tuple[Regime, ...]":
    """Those that runs were judged by then, as the store kept them; with no `as_of` those here."""
    here = every_regime(directory)
    if as_of is None:
        return here
    from .laws_then import regimes_then

    return regimes_then(store, unix_ns, here)


def paint() -> "Paint":
    """What pages for people are made with here and now."""
    from flopmeter.cli.terminal import size, terminal_of

    from .layout import Paint

    return Paint(colour=terminal_of(sys.stdout).color, width=size()[0])
