"""`flopmeter witness`: keep and cosign the heads of other people's evidence logs. Imports what it runs only when it runs."""

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from .keys import Key

_FILE = click.Path(path_type=Path)


@click.group()
def witness() -> None:
    """Watch over other people's evidence logs: cosign heads that only grow.

    \b
    Examples:
        flopmeter witness key new witness.key --name witness.example.org/1
        flopmeter witness serve --key witness.key --state witness.db --log VKEY
        flopmeter witness show --state witness.db

    Whoever runs it should not be whom it watches. See docs/witness.md.
    """  # noqa: D301 - click wants the backspace character itself


@witness.group()
def key() -> None:
    """The witness's own key: made once, and kept.

    \b
      flopmeter witness key new witness.key --name witness.example/w1
    """  # noqa: D301 - click wants the backspace character itself


@key.command("new")
@click.argument("file", type=_FILE)
@click.option("--name", required=True, help="Name of the witness, like a URL without https://.")
@click.option(
    "--ml-dsa", is_flag=True, help="An ML-DSA-44 key as well: cosignatures that outlive quantum computers."
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def key_new(file: Path, name: str, *, ml_dsa: bool, as_json: bool) -> None:
    """Make a key in FILE, and print its public half for policy files.

    \b
      flopmeter witness key new witness.key --name witness.example/w1
    """  # noqa: D301 - click wants the backspace character itself
    from .keys import create

    _print_keys(create(file, name, ml_dsa=ml_dsa), as_json)


@key.command("show")
@click.argument("file", type=_FILE)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def key_show(file: Path, *, as_json: bool) -> None:
    """Print the public half of the key in FILE.

    \b
      flopmeter witness key show witness.key
    """  # noqa: D301 - click wants the backspace character itself
    from .keys import load

    _print_keys(load(file), as_json)


def _print_keys(keys: tuple["Key", ...], as_json: bool) -> None:
    from .keys import TYPE_NAMES

    if as_json:
        found = [{"type": TYPE_NAMES[k.kind], "name": k.name, "vkey": k.vkey} for k in keys]
        click.echo(json.dumps({"keys": found}))
        return
    for one in keys:
        click.echo(one.vkey)


@witness.command()
@click.option("--state", type=_FILE, required=True, help="The witness's state file.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def show(state: Path, *, as_json: bool) -> None:
    """Print what was cosigned of each log, and what was refused.

    Exit code 1: two heads of one size were signed by a log: it forked, and the state holds the proof.

    \b
      flopmeter witness show --state state/
    """  # noqa: D301 - click wants the backspace character itself
    from .show import shown

    text, forked = shown(state, as_json=as_json)
    click.echo(text)
    if forked:
        raise click.exceptions.Exit(1)


@witness.command()
@click.option(
    "--key",
    "key_file",
    type=_FILE,
    required=True,
    envvar="FLOPMETER_WITNESS_KEY",
    help="File made by `witness key new`.",
)
@click.option(
    "--state",
    type=_FILE,
    required=True,
    envvar="FLOPMETER_WITNESS_STATE",
    help="SQLite file that remembers heads; made if absent. Never restore an older copy.",
)
@click.option(
    "--log",
    "logs",
    multiple=True,
    required=True,
    envvar="FLOPMETER_WITNESS_LOG",
    help="Public key (vkey) of a log to watch; may be repeated.",
)
@click.option(
    "--listen",
    default="127.0.0.1:9844",
    show_default=True,
    envvar="FLOPMETER_WITNESS_LISTEN",
    help="Address to serve on; without TLS loopback only.",
)
@click.option(
    "--tls-cert",
    type=_FILE,
    envvar="FLOPMETER_WITNESS_TLS_CERT",
    help="TLS certificate chain (PEM); read again when it changes.",
)
@click.option("--tls-key", type=_FILE, envvar="FLOPMETER_WITNESS_TLS_KEY", help="Its private key (PEM).")
def serve(**values: Any) -> None:
    """Serve add-checkpoint (C2SP tlog-witness) until SIGTERM.

    \b
      flopmeter witness serve --key witness.key --state state/ --log logs.toml
    """  # noqa: D301 - click wants the backspace character itself
    import logging

    from .running import check_environment, serve_forever

    params = click.get_current_context().command.params
    check_environment(os.environ, [p.envvar for p in params if isinstance(p.envvar, str)])
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    serve_forever(**values)
