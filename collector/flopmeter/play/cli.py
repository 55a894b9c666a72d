"""`flopmeter replay` and `flopmeter demo`: assemble, run, print. Everything heavy is imported on use."""

import os
import signal
import sys
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any

import click

from flopmeter.cli.output import emit_json, json_option

if TYPE_CHECKING:
    from .replay import Replayed


@click.command()
@click.argument("file", type=click.Path(path_type=Path))
@click.option(
    "--collector", metavar="HOST:PORT", default="", help="Ship to this collector, not to an own one."
)
@click.option(
    "--state",
    type=click.Path(path_type=Path, file_okay=False),
    help="Keep key, spool and own books in this directory: a replay cut short goes on where it was.",
)
@click.option(
    "--window", metavar="TIME", default="60s", show_default=True, help="Time that one signed batch covers."
)
@json_option
def replay(file: Path, collector: str, state: Path | None, window: str, as_json: bool) -> None:
    """Play a recorded trace through the real agent path, as fast as it goes; print the runs' totals.

    FILE is what `flopmeter agent record` writes (JSON Lines, plain, .gz or .zst). Readings become intervals,
    signed batches, spool, uplink; the books are a collector's. Exit 3 names the line of a trace that is not one.

    \b
      flopmeter replay node-07.jsonl.zst
    """  # noqa: D301 - click wants the backspace character itself
    _settle()
    from flopmeter.agent.settings import load_settings

    from .replay import replay as play

    settings = load_settings({"window": window, "collector": collector}, {}, None)
    done = play(file, collector=settings.collector, state=state, window_ns=settings.window)
    for warning in done.warnings:
        click.echo(f"Warning: {warning}", err=True)
    if as_json:
        emit_json(done.document)
    else:
        _print_replay(done, file, state)


@click.command()
@click.option("--once", is_flag=True, help="Play the history once, print the result, end.")
@click.option(
    "--dir",
    "directory",
    type=click.Path(path_type=Path, file_okay=False),
    help="Keep everything in this empty directory, not in a temporary one.",
)
@click.option(
    "--days", type=click.IntRange(2, 365), default=30, show_default=True, help="Length of the history."
)
@click.option("--nodes", type=click.IntRange(5, 64), default=24, show_default=True, help="Nodes of 8 GPUs.")
@click.option(
    "--open/--no-open",
    "wants_page",
    default=True,
    show_default=True,
    help="Show the page in a browser, where there is a desktop; never over ssh.",
)
@json_option
def demo(  # noqa: PLR0917 - click passes them by name
    once: bool, directory: Path | None, days: int, nodes: int, wants_page: bool, as_json: bool
) -> None:
    """A simulated cluster, metered for real: 24 nodes of 8 GPUs, 30 days of history, then live.

    Simulated are the GPUs' counters, what training code declares and what people say; meters, signed batches,
    spools, gRPC and the collector's books are the real ones, on loopback. Needs no GPU and no root. Its web page is served from the beginning, at the link
    that is printed; with --once there is none. Ctrl-C ends it.
    """
    if as_json and not once:
        raise click.UsageError("--json goes with --once: a live demo has no end to print")
    _settle()
    from .demo import run
    from .story import default

    document = run(default(days, nodes), once=once, directory=directory, quiet=as_json, shown=wants_page)
    if as_json:
        emit_json(document)


def _print_replay(done: "Replayed", file: Path, state: Path | None) -> None:
    from flopmeter.cli.layout import Paint
    from flopmeter.cli.terminal import size, terminal_of
    from flopmeter.collector.duty.view import events_view
    from flopmeter.collector.report.runs_view import run_view

    paint = Paint(colour=terminal_of(sys.stdout).color, width=size()[0])
    runs: list[dict[str, Any]] = done.document["runs"]
    for run in runs:
        click.echo(run_view(run, paint))
        click.echo()
    if done.document["events"]:
        click.echo(events_view(done.document["events"], paint))
        click.echo()
    if not runs:
        idle = done.document["fleet"]["idle_device_seconds"]
        rest = done.document["fleet"]["unattributed_device_seconds"]
        click.echo(f"No run in {file}: {idle:,.0f} device-seconds idle, {rest:,.0f} unattributed.")
    rate = done.readings / done.seconds if done.seconds > 0 else 0.0
    click.echo(
        f"{done.readings:,} readings in {done.seconds:.1f} s ({rate:,.0f}/s), {done.records} signed batches, "
        "each acknowledged after it was durable."
    )
    if done.collector:
        click.echo(
            f"These totals are this trace's own; the collector at {done.collector} has them booked, too."
        )
    if state is not None:
        click.echo(f"Books: {state / 'collector'}   (flopmeter runs list --store {state / 'collector'})")


def _settle() -> None:
    """SIGTERM ends like Ctrl-C: through every `finally`, with nothing half-written and nothing left behind.

    Closing a collector that our own agents talk to is no news: gRPC's C core shall not print it.
    """
    os.environ.setdefault("GRPC_VERBOSITY", "ERROR")

    def interrupt(_number: int, _frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    signal.signal(signal.SIGTERM, interrupt)
