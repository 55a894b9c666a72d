"""`flopmeter agent`: assembles the parts from the settings and runs them. Imports on use only."""

import dataclasses
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from flopmeter.cli.lazy import Commands, LazyGroup
from flopmeter.cli.output import emit_json, json_option

COMMANDS: Commands = {
    "run": ("flopmeter.agent.cli", "run", "Meter this node until stopped."),
    "top": ("flopmeter.agent.tools.cli", "top", "Watch what is metered, live."),
    "doctor": (
        "flopmeter.agent.tools.cli",
        "doctor",
        "Check whether this node can be metered, and how well.",
    ),
    "read": ("flopmeter.agent.tools.cli", "read", "Print one reading of each GPU."),
    "rekey": ("flopmeter.agent.cli", "rekey", "Change the record key of a stopped agent."),
    "record": ("flopmeter.agent.tools.cli", "record", "Record readings into a trace file."),
}


@click.group(cls=LazyGroup, lazy=COMMANDS)
def agent() -> None:
    """Meter the GPUs of this node and ship what was metered to a collector.

    First `flopmeter agent doctor`: it says what this node can be metered by, and what is missing.

    \b
      flopmeter agent doctor
      flopmeter agent run --collector collector.example:4711
    """  # noqa: D301 - click wants the backspace character itself


_C = TypeVar("_C", bound=Callable[..., Any])


def _option(name: str, metavar: str, text: str) -> Callable[[_C], _C]:
    """An option that is only a layer of the settings: no default of its own, no variable of click's making."""
    variable = "FLOPMETER_AGENT_" + name.upper().replace("-", "_")
    return click.option(f"--{name}", metavar=metavar, allow_from_autoenv=False, help=f"{text}  [{variable}]")


_config_option = click.option(
    "--config",
    type=click.Path(dir_okay=False, path_type=Path),
    envvar="FLOPMETER_AGENT_CONFIG",
    show_envvar=True,
    allow_from_autoenv=False,
    help="TOML file with a table [agent] whose keys are these options.",
)


@click.command()
@_option("source", "SOURCE", "nvml, dcgm[:URL] (a dcgm-exporter), sim, or trace:FILE (default nvml).")
@_option("state", "DIR", "Record key and spool; one agent at a time (default /var/lib/flopmeter/agent).")
@_option("collector", "HOST:PORT", "Where to ship; without a certificate to this machine only. Unset: spool.")
@_option("join", "TOKEN", "Join by this token; better in a file or variable: process lists show it.")
@_option("join-file", "FILE", "Join by the token in FILE: a secret of systemd, Kubernetes, or your own.")
@_option("enrol", "HOST:PORT", "The collector's enrolment (default: the collector's host, port 9843).")
@_option("tls-cert", "FILE", "Certificate that somebody else renews, PEM; picked up when it changes.")
@_option("tls-key", "FILE", "Its key.")
@_option("tls-ca", "FILE", "Authorities that sign the collector's certificate.")
@_option("server-name", "NAME", "Name in the collector's certificate (default: the host of --collector).")
@_option("node", "NAME", "Name of this node, for people (default: the host name).")
@_option("cluster", "NAME", "Name of the cluster: job numbers are told apart by it.")
@_option("window", "TIME", "Usage is sealed and shipped this often (default 60s).")
@_option("tick", "TIME", "GPUs are read this often (default 1s, at least 250ms).")
@_option("read-deadline", "TIME", "A read that takes longer is a gap for its GPU (default 2s).")
@_option("stop-timeout", "TIME", "On SIGTERM, how long to wait for the collector (default 20s).")
@_option("spool-limit", "SIZE", "Unshipped records beyond this are bridged, without detail (default 256MiB).")
@_option("keep-acked", "SIZE", "Shipped records kept, to refill a restored collector (default 32MiB).")
@_option(
    "kubelet", "SOCKET", "The kubelet's pod-resources socket: whose pods hold which GPU (default: none)."
)
@_option(
    "kubernetes-labels", "true|false", "Ask the API server for run labels of these pods (default false)."
)
@_option("slurm-job-mapping-dir", "DIR", "Where Slurm's prolog writes whose each GPU is (default: none).")
@_option("slurm-squeue", "FILE", "The squeue program, to be asked for job names and arrays (default: none).")
@_option("slurm-squeue-period", "TIME", "squeue is asked no more often than this (default 60s).")
@_option("job-variables", "A,B", "More variables of jobs to read and ship (default: docs/agent.md's list).")
@_option("declare-socket", "PATH", "Where training code declares to: auto, off, or a path (default auto).")
@_option("metrics-address", "HOST:PORT", "Serve /metrics and /healthz there, usually 127.0.0.1:9842.")
@_option("otlp", "URL", "Send the same by OTLP, once a minute: http://HOST:4318 (docs/metrics.md).")
@_option("log-level", "LEVEL", "debug, info, warning or error (default info).")
@_config_option
def run(config: Path | None, **flags: str | None) -> None:
    """Meter this node until stopped (SIGTERM, SIGINT); then seal, ship for a bounded time, exit 0.

    \b
    Try it without a GPU:
      flopmeter agent run --source sim --state ./agent-state --window 10s

    \b
    On a GPU node, with a token of flopmeter collector token create:
      flopmeter agent run --collector collector.site:9840 --join-file /run/token

    What was read but could not be shipped stays in the state directory, and is shipped by the next start.
    Precedence: option > variable > --config file > default.
    """  # noqa: D301 - click wants the backspace character itself
    from .run import run_agent
    from .settings import load_settings

    run_agent(load_settings(flags, os.environ, config))


@click.command()
@_option("state", "DIR", "The agent's (default /var/lib/flopmeter/agent).")
@_option("collector", "HOST:PORT", "Where it ships; it is told of the new key by the old one.")
@_option("server-name", "NAME", "Name in the collector's certificate (default: the host of --collector).")
@_config_option
@json_option
def rekey(config: Path | None, as_json: bool, **flags: str | None) -> None:
    """Change the record key of a stopped agent that joined: it goes on as another agent, and the books say so.

    All records must have been acknowledged. Cut off at any point, it is run again, or the agent started:
    both go on. The agent's settings count, too (--config, variables).

    \b
    Exit code: 0 changed, 1 not changed as things are (it runs, records wait, it
    was refused), 2 usage, 3 the collector cannot be asked or gave no answer.
    """  # noqa: D301 - click wants the backspace character itself
    from .rekey import rekey as change
    from .settings import load_settings

    settings = load_settings(flags, os.environ, config)
    changed = change(settings.state, settings.collector, settings.server_name)
    assert changed is not None
    if as_json:
        emit_json(dataclasses.asdict(changed))
        return
    until = time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(changed.not_after_unix_s))
    if changed.old_agent_id:
        click.echo(f"agent {changed.old_agent_id} is over")
    click.echo(f"agent {changed.new_agent_id} goes on, certificate until {until}")
    click.echo(f"public key {changed.new_public_key}")
