"""`flopmeter runs`: thin over queries and views; what people say of runs is in the registry's room."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from flopmeter.cli.output import emit_json, json_option
from flopmeter.collector.cli_parts import (
    as_of_option,
    books,
    every_regime,
    expect_option,
    expected_of,
    paint,
    regimes_as_of,
    regimes_option,
    run_names,
    store_option,
)
from flopmeter.collector.store_path import store_file

if TYPE_CHECKING:
    from .expected import ExpectedNode
    from .watching import Look

MIN_INTERVAL_S = 0.1


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


@runs.command("list")
@as_of_option
@expect_option
@store_option
@regimes_option
@json_option
def runs_list(
    as_of: str | None, expect: Path | None, store: Path, regimes_dir: Path | None, as_json: bool
) -> None:
    """Every run with its FLOP, bounds and nearest threshold; the largest first. Then those that are only planned."""
    from flopmeter.collector.registry.planned import planned_runs

    from . import queries
    from .runs_view import runs_view

    nodes = expected_of(expect)
    with books(store, as_of) as (reader, unix_ns):
        question = queries.asked(unix_ns, regimes_as_of(store, as_of, unix_ns, regimes_dir), nodes)
        documents = reader.runs(question) if as_json else reader.briefs(question)
        unattributed = reader.unowned(question)["unattributed"]
        planned = planned_runs(reader.registry(), {d["run"] for d in documents})
    if as_json:
        emit_json({"runs": documents, "planned": planned, "unattributed": unattributed})
    else:
        click.echo(runs_view(documents, paint(), unattributed, planned))


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
