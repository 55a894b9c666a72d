"""`flopmeter agent doctor | top | read | record`: looking at a node by hand. Imports on use only."""

import os
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO, TypeVar

import click

from flopmeter.cli.output import emit_json, json_option

if TYPE_CHECKING:
    from flopmeter.agent.errors import SourceError
    from flopmeter.agent.loop import SystemClock
    from flopmeter.agent.reading import NodeFacts
    from flopmeter.contract.clock import Clock

    from .top import Screen
    from .view import Shown

    Frame = tuple[NodeFacts, list[Shown]]

_C = TypeVar("_C", bound=Callable[..., Any])
_MIN_TICK_S = 0.25  # limits.MIN_TICK_NS; said here so that --help needs no further import


def _source_option(command: _C) -> _C:
    return click.option(
        "--source",
        default="nvml",
        show_default=True,
        metavar="SOURCE",
        envvar="FLOPMETER_AGENT_SOURCE",
        show_envvar=True,
        allow_from_autoenv=False,
        help="nvml, dcgm[:URL] (a dcgm-exporter), sim, or trace:FILE.",
    )(command)


def _tick_option(command: _C) -> _C:
    return click.option(
        "--tick",
        "tick_s",
        default=1.0,
        show_default=True,
        type=click.FloatRange(min=_MIN_TICK_S, max=3600),
        metavar="SECONDS",
        help=f"Time between readings, at least {_MIN_TICK_S} s.",
    )(command)


def _check_option(name: str, metavar: str, text: str) -> Callable[[_C], _C]:
    variable = "FLOPMETER_AGENT_" + name.upper().replace("-", "_")
    return click.option(
        f"--{name}",
        default="",
        metavar=metavar,
        envvar=variable,
        show_envvar=True,
        allow_from_autoenv=False,
        help=text,
    )


def _state_option(command: _C) -> _C:
    return click.option(
        "--state",
        default="/var/lib/flopmeter/agent",
        show_default=True,
        type=click.Path(path_type=Path),
        metavar="DIR",
        envvar="FLOPMETER_AGENT_STATE",
        show_envvar=True,
        allow_from_autoenv=False,
        help="The agent's: its certificate, and what it saw of the collector's log.",
    )(command)


@click.command()
@_source_option
@_check_option("slurm-job-mapping-dir", "DIR", "Check this job-mapping directory too.")
@_check_option("slurm-squeue", "FILE", "Check whether this squeue answers, too.")
@_check_option("kubelet", "SOCKET", "Ask this pod-resources socket of the kubelet, too.")
@_check_option("kubernetes-labels", "true|false", "Ask the API server for labels, too.")
@_state_option
@_check_option("collector", "HOST:PORT", "See whether it and this agent take each other's certificates.")
@_check_option("server-name", "NAME", "Name in the collector's certificate.")
@_check_option("tls-cert", "FILE", "Look at these certificate files, too.")
@_check_option("tls-key", "FILE", "The certificate's key.")
@_check_option("tls-ca", "FILE", "Authorities that sign the collector's certificate.")
@json_option
def doctor(  # noqa: PLR0917 - click names its parameters
    source: str,
    slurm_job_mapping_dir: str,
    slurm_squeue: str,
    kubelet: str,
    kubernetes_labels: str,
    state: Path,
    collector: str,
    server_name: str,
    tls_cert: str,
    tls_key: str,
    tls_ca: str,
    as_json: bool,
) -> None:
    """Say what this node can be metered by: per GPU its evidence class, why it is no better, what to change.

    \b
    Exit code: 0 everything is metered as well as it can be, 1 something is
    missing or could be better, 2 nothing can be metered.
    """  # noqa: D301 - click wants the backspace character itself
    from flopmeter.agent.errors import SourceError
    from flopmeter.agent.loop import SystemClock

    from .advice import Advice
    from .collector_check import of_access
    from .doctor import examine, to_json, to_lines
    from .heard import heard
    from .kubernetes import kubernetes_advice
    from .live import OPEN_DEADLINE_S, LiveRounds, open_rounds
    from .slurm_check import of_slurm

    with heard() as warnings:
        try:
            rounds = open_rounds(source, SystemClock(), tick_ns=1_000_000_000, deadline_s=OPEN_DEADLINE_S)
        except SourceError as e:
            _nothing_to_meter(source, e, as_json=as_json)
            sys.exit(2)
        try:
            here = isinstance(rounds, LiveRounds) and source != "sim"
            diagnosis = examine(rounds, here=here)
        finally:
            rounds.close()
    slurm = of_slurm(diagnosis.facts, directory=slurm_job_mapping_dir, squeue=slurm_squeue)
    named = replace(diagnosis.facts, node=os.environ.get("FLOPMETER_AGENT_NODE") or diagnosis.facts.node)
    pods = kubernetes_advice(kubelet, kubernetes_labels == "true", named, SystemClock(), os.environ)
    files = (tls_cert, tls_key, tls_ca)
    access = of_access(state, files=files, collector=collector, server_name=server_name)
    of_source = (Advice(text) for text in warnings)
    diagnosis = replace(diagnosis, node=(*diagnosis.node, *of_source, *slurm, *pods, *access))
    if as_json:
        emit_json(to_json(diagnosis))
    else:
        for line in to_lines(diagnosis, _width(sys.stdout)):
            click.echo(line)
    sys.exit(diagnosis.exit_code)


def _width(stream: TextIO) -> int:
    from flopmeter.cli.terminal import DEFAULT_COLUMNS, size

    return max(60, size()[0]) if stream.isatty() else DEFAULT_COLUMNS


def _nothing_to_meter(source: str, error: "SourceError", *, as_json: bool) -> None:
    """Why, what to do, and what the bus shows all the same."""
    from .doctor import on_the_bus, unreadable, unreadable_lines

    seen = on_the_bus() if source.startswith(("nvml", "dcgm")) else ()
    if as_json:
        emit_json(unreadable(source, error, seen))
        return
    for line in unreadable_lines(error, seen, _width(sys.stderr)):
        click.echo(line, err=True)


@click.command()
@_source_option
@_tick_option
@click.option("--once", is_flag=True, help="Show one interval, then end (of a trace: the last one).")
@_state_option
@json_option
def top(source: str, tick_s: float, once: bool, state: Path, as_json: bool) -> None:
    """Watch what is metered: per GPU its class, pipes, TFLOP/s with bounds, power, energy, workload.

    On a terminal q ends it, s sorts, p pauses, ? explains the columns; elsewhere each round is printed below the
    last, until ^C. Colour and redrawing only on a terminal; NO_COLOR is respected.

    \b
      flopmeter agent top
      flopmeter agent top --once --json
      flopmeter agent top --source trace:node-07.jsonl.zst
    """  # noqa: D301 - click wants the backspace character itself
    from flopmeter.agent.loop import SystemClock, stop_on_signals
    from flopmeter.cli.terminal import size, terminal_of

    from . import top as screens
    from .collector_check import of_access

    clock = SystemClock()
    terminal = terminal_of(sys.stdout)
    if once or as_json:
        terminal = replace(terminal, live=False)
    screen = screens.Screen(terminal, size()[0], alarms=lambda: [a.why for a in of_access(state) if a.change])
    with stop_on_signals(clock.stop):
        if terminal.live:
            _attend(screen, clock, source, tick_s)
        else:
            _print_rounds(screen, clock, source, tick_s, once=once, as_json=as_json)
    if screen.frame is None or all(one.error for one in screen.frame[1]):
        sys.exit(3)


def _attend(screen: "Screen", clock: "SystemClock", source: str, tick_s: float) -> None:
    """On a terminal: drawn over, and keys are heard."""
    from flopmeter.cli.keyboard import ENTER, LEAVE, RESIZED, AttendedClock, attended
    from flopmeter.cli.terminal import size

    from . import top as screens

    def show() -> None:
        screen.width, screen.height = size()
        sys.stdout.write(screens.draw(screen))
        sys.stdout.flush()

    def press(key: str) -> bool:
        end = key != RESIZED and screen.press(key)
        if not end:
            show()
        return end

    with attended(ENTER, LEAVE) as keyboard:
        for frame in _frames(source, AttendedClock(clock, keyboard, press), tick_s, tick_s):
            screen.take(*frame)
            show()


def _print_rounds(
    screen: "Screen", clock: "SystemClock", source: str, tick_s: float, *, once: bool, as_json: bool
) -> None:
    """Elsewhere: each round below the last."""
    for count, frame in enumerate(_frames(source, clock, tick_s, 0.0 if once else tick_s), start=1):
        screen.take(*frame)
        if not once:
            _show(screen, as_json)
        elif count == 2 and not source.startswith("trace:"):  # the first reading has no interval before it
            break
    if once and screen.frame is not None:
        _show(screen, as_json)


def _frames(source: str, clock: "Clock", tick_s: float, pace_s: float) -> "Iterator[Frame]":
    from flopmeter.agent.workloads.attribution import Attributor
    from flopmeter.agent.workloads.processes import ProcFinder

    from . import top as screens
    from .live import LiveRounds, open_rounds

    rounds = open_rounds(source, clock, round(tick_s * 1e9), pace_s=pace_s)
    try:
        yield from screens.frames(
            rounds, Attributor(ProcFinder()) if isinstance(rounds, LiveRounds) else None
        )
    finally:
        rounds.close()


def _show(screen: "Screen", as_json: bool) -> None:
    from . import top as screens

    if as_json and screen.frame is not None:
        emit_json(screens.to_json(*screen.frame) | {"alarms": screen.alarms()})
    else:
        sys.stdout.write(screens.draw(screen))
    sys.stdout.flush()


@click.command()
@_source_option
@click.option(
    "--json", "as_json", is_flag=True, help="Accepted for symmetry: the output is JSON Lines anyway."
)
def read(source: str, as_json: bool) -> None:
    """Print one reading of each GPU as JSON Lines, exactly as the driver gave it (docs/trace-format.md).

    Exit code 3 if none could be read.
    """
    del as_json
    from flopmeter.agent.loop import SystemClock

    from .live import open_rounds
    from .record import first_readings

    rounds = open_rounds(source, SystemClock(), tick_ns=1_000_000_000)
    good = 0
    try:
        for line, was_read in first_readings(rounds):
            click.echo(line, nl=False)
            good += was_read
    finally:
        rounds.close()
    sys.exit(0 if good else 3)


@click.command()
@click.argument("file", type=click.Path(dir_okay=False, path_type=Path))
@_source_option
@_tick_option
@click.option(
    "--seconds", default=0.0, type=click.FloatRange(min=0), help="Stop after this long (default: ^C)."
)
@click.option("--overwrite", is_flag=True, help="Replace FILE if it is there.")
@json_option
def record(  # noqa: PLR0917 - click names its parameters
    file: Path, source: str, tick_s: float, seconds: float, overwrite: bool, as_json: bool
) -> None:
    """Record readings into FILE, to be played by `flopmeter replay`. Compressed by suffix: .gz, .zst.

    What a trace holds: docs/trace-format.md. It names the node, the GPUs and the processes' numbers; look
    through it before you give it away.

    \b
      flopmeter agent record node-07.jsonl.zst --seconds 600
      flopmeter replay node-07.jsonl.zst
    """  # noqa: D301 - click wants the backspace character itself
    from flopmeter.agent.loop import SystemClock, stop_on_signals

    from .live import open_rounds
    from .record import record as write

    clock = SystemClock()
    with stop_on_signals(clock.stop):
        rounds = open_rounds(source, clock, round(tick_s * 1e9))
        try:
            done = write(rounds, clock, file, seconds=seconds, overwrite=overwrite)
        finally:
            rounds.close()
    if as_json:
        emit_json(
            {
                "file": str(file),
                "readings": done.readings,
                "failed": done.failed,
                "seconds": round(done.seconds, 3),
                "bytes": done.size,
            }
        )
    else:
        failed = f" ({done.failed} failed)" if done.failed else ""
        click.echo(f"{file}: {done.readings} readings{failed} in {done.seconds:.0f} s, {done.size} bytes")
        click.echo(f"play it: flopmeter replay {file}")
    if done.readings == done.failed:
        sys.exit(3)
