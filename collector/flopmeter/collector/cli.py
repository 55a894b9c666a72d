"""`flopmeter collector`: serve, fsck, backup, retention, hold, delete. Imports what it runs only when it runs."""

import os
from pathlib import Path
from typing import Any

import click

from flopmeter.cli.lazy import Commands, LazyGroup

from .store_path import DEFAULT_STORE

_LAZY: Commands = {
    "fsck": ("flopmeter.collector.check.cli", "fsck", "Derive every total again from the stored bytes."),
    "backup": (
        "flopmeter.collector.backup.cli",
        "backup",
        "Copy the store while it runs, and check the copy.",
    ),
    "keys": ("flopmeter.collector.keys_cli", "keys", "The public halves of the collector's own keys."),
    "log": ("flopmeter.collector.log.cli", "log", "The evidence log: show it, export it."),
    "token": ("flopmeter.collector.access.cli", "token", "Tokens: for nodes to join, for people to ask."),
    "agents": ("flopmeter.collector.access.cli", "agents", "Who may ship records: list, revoke."),
    "retention": ("flopmeter.collector.retention.cli", "retention", "Until when what must be kept, and why."),
    "hold": ("flopmeter.collector.retention.cli", "hold", "Legal holds: add, release, list."),
    "delete": ("flopmeter.collector.retention.cli", "delete", "Delete a whole store, once nothing binds it."),
}


@click.group(cls=LazyGroup, lazy=_LAZY)
def collector() -> None:
    """Take in what agents ship, keep the books, raise events.

    \b
      flopmeter collector serve --listen 127.0.0.1:4711
      flopmeter collector fsck
    """  # noqa: D301 - click wants the backspace character itself


def _load_config(ctx: click.Context, _param: click.Parameter, value: Path | None) -> Path | None:
    from .settings import check_environment, read_config

    check_environment(
        os.environ,
        [p.envvar for p in ctx.command.params if isinstance(p, click.Option) and isinstance(p.envvar, str)],
    )
    if value is not None:
        ctx.default_map = {**(ctx.default_map or {}), **read_config(value)}
    return value


def _env(name: str) -> str:
    return f"FLOPMETER_COLLECTOR_{name}"


_FILE = click.Path(path_type=Path)


@collector.command()
@click.option(
    "--config",
    type=_FILE,
    is_eager=True,
    expose_value=False,
    callback=_load_config,
    envvar=_env("CONFIG"),
    help="TOML file of these settings; flags and FLOPMETER_COLLECTOR_* win over it.",
)
@click.option(
    "--store",
    type=_FILE,
    default=DEFAULT_STORE,
    show_default=True,
    envvar=_env("STORE"),
    help="SQLite file that holds the books, or the directory it lies in.",
)
@click.option(
    "--listen",
    default="127.0.0.1:9840",
    show_default=True,
    envvar=_env("LISTEN"),
    help="Address for agents; without TLS loopback only.",
)
@click.option(
    "--http",
    default="127.0.0.1:9841",
    show_default=True,
    envvar=_env("HTTP"),
    help="Address of the page, the API, /healthz, /readyz, /metrics (docs/web.md); empty = none.",
)
@click.option(
    "--http-tls",
    is_flag=True,
    envvar=_env("HTTP_TLS"),
    help="Serve it by the certificate that agents are served with; else tokens are taken on loopback only.",
)
@click.option(
    "--http-proxied",
    is_flag=True,
    envvar=_env("HTTP_PROXIED"),
    help="A proxy in front of it ends TLS and says X-Forwarded-Proto: https; nobody else may reach it.",
)
@click.option(
    "--admit", type=_FILE, envvar=_env("ADMIT"), help="File of agents' public keys (hex, node) to admit."
)
@click.option(
    "--admit-new", is_flag=True, envvar=_env("ADMIT_NEW"), help="Admit any new key: trust on first use."
)
@click.option(
    "--linger-ms",
    type=int,
    default=100,
    show_default=True,
    envvar=_env("LINGER_MS"),
    help="How long a group of records waits for more before it is committed.",
)
@click.option(
    "--regimes",
    type=_FILE,
    envvar=_env("REGIMES"),
    help="Directory of your own regimes and counting profiles (*.toml); changes are taken while it runs.",
)
@click.option(
    "--regime-key",
    type=_FILE,
    envvar=_env("REGIME_KEY"),
    help="Public key that must have signed that directory (docs/regimes.md); else none of it is taken.",
)
@click.option(
    "--estimates",
    type=_FILE,
    envvar=_env("ESTIMATES"),
    help="TOML file of declared estimates, compared with what is metered (docs/estimate.md).",
)
@click.option(
    "--sites",
    type=_FILE,
    envvar=[_env("SITES"), "FLOPMETER_SITES"],
    help="TOML file of where clusters and nodes stand, and their network's speed (docs/fleet.md).",
)
@click.option(
    "--expect",
    type=_FILE,
    envvar=[_env("EXPECT"), "FLOPMETER_EXPECT"],
    help="TOML file of the nodes that must exist: the page says which are missing (docs/coverage.md).",
)
@click.option(
    "--identity-rules",
    type=_FILE,
    envvar=_env("IDENTITY_RULES"),
    help="TOML file of your own rules for which run a job belongs to (docs/runs.md).",
)
@click.option(
    "--unattributed-minutes",
    type=int,
    default=60,
    show_default=True,
    envvar=_env("UNATTRIBUTED_MINUTES"),
    help="Device time of a node and UTC day, busy and without an owner, that raises usage.unattributed; 0 = never.",
)
@click.option(
    "--progress-margin-percent",
    type=int,
    default=30,
    show_default=True,
    envvar=_env("PROGRESS_MARGIN_PERCENT"),
    help="By how much claims of training code may be off before method.disagrees; 0 = never.",
)
@click.option(
    "--forecast-confidence-percent",
    type=int,
    default=90,
    show_default=True,
    envvar=_env("FORECAST_CONFIDENCE_PERCENT"),
    help="A line is known to be met when the lower edge of this interval meets it: 80, 90, 95 or 99.",
)
@click.option(
    "--forecast-horizon-days",
    type=int,
    default=30,
    show_default=True,
    envvar=_env("FORECAST_HORIZON_DAYS"),
    help="How far ahead a run that declares no end is forecast.",
)
@click.option(
    "--deadline-leads",
    default="7d,2d,1d",
    show_default=True,
    envvar=_env("DEADLINE_LEADS"),
    help="How long before it is due a deadline is told of; of what is due within two weeks, in proportion.",
)
@click.option(
    "--event-log", type=_FILE, envvar=_env("EVENT_LOG"), help="Write every event to this file, as JSON Lines."
)
@click.option(
    "--sinks",
    type=_FILE,
    envvar=_env("SINKS"),
    help="TOML file of where events go: webhook, Alertmanager, mail, file, command (docs/delivery.md).",
)
@click.option(
    "--keys",
    type=_FILE,
    envvar=[_env("KEYS"), "FLOPMETER_KEYS"],
    help="Directory of the collector's own keys; made if absent. [default: keys/ beside the store]",
)
@click.option(
    "--log-origin",
    default="",
    envvar=_env("LOG_ORIGIN"),
    help="Name of the evidence log (docs/evidence-log.md); fixed at its first start, else a random one.",
)
@click.option(
    "--checkpoint-s",
    type=int,
    default=30,
    show_default=True,
    envvar=_env("CHECKPOINT_S"),
    help="How often the evidence log gets a signed head: every 1 to 60 seconds.",
)
@click.option(
    "--witness-policy",
    type=_FILE,
    envvar=_env("WITNESS_POLICY"),
    help="File (C2SP tlog-policy) of the witnesses that cosign the evidence log's heads (docs/witness.md).",
)
@click.option(
    "--tsa",
    multiple=True,
    envvar=_env("TSA"),
    help="URL of an RFC 3161 timestamp authority that dates the log's heads; may be repeated.",
)
@click.option(
    "--tsa-ca",
    type=_FILE,
    envvar=_env("TSA_CA"),
    help="PEM file of the authorities' root certificates.",
)
@click.option(
    "--otlp",
    metavar="URL",
    default="",
    envvar=_env("OTLP"),
    help="Send what /metrics shows by OTLP, once a minute: http://HOST:4318 (docs/metrics.md).",
)
@click.option(
    "--tls-name",
    default="",
    envvar=_env("TLS_NAME"),
    help="Turn on TLS by the embedded authority: names and addresses that agents dial, with commas (docs/identity.md).",
)
@click.option(
    "--tls-cert",
    type=_FILE,
    envvar=_env("TLS_CERT"),
    help="Turn on TLS by files: certificate chain, PEM; read again when it changes.",
)
@click.option("--tls-key", type=_FILE, envvar=_env("TLS_KEY"), help="Private key of --tls-cert, PEM.")
@click.option(
    "--tls-client-ca",
    type=_FILE,
    envvar=_env("TLS_CLIENT_CA"),
    help="Who signs the certificates that agents must have, PEM.",
)
@click.option(
    "--peer-ids",
    default="",
    envvar=_env("PEER_IDS"),
    help="Pattern of a name in them: spiffe://example.org/node/{node}; {agent}, * for a part of a path.",
)
@click.option(
    "--enrol",
    default="",
    envvar=_env("ENROL"),
    help="HTTPS address where agents join by token; 9843 is the usual port. [default: none]",
)
def serve(**values: Any) -> None:
    """Serve agents until SIGTERM. Acknowledges a record only when it is verified, booked and fsynced."""
    import logging

    from .tuning import tune_process

    tune_process()  # before gRPC is imported, which running does
    from .running import serve_forever
    from .settings import CollectorSettings

    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    serve_forever(CollectorSettings(**values))
