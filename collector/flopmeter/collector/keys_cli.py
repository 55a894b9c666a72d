"""`flopmeter collector keys show`: the public halves, to be handed to whoever checks."""

from pathlib import Path

import click

from flopmeter.cli.output import emit_json, json_option
from flopmeter.collector.store_path import store_file

from .cli_parts import store_option

keys_option = click.option(
    "--keys",
    "keys_dir",
    type=click.Path(path_type=Path),
    envvar=["FLOPMETER_KEYS", "FLOPMETER_COLLECTOR_KEYS"],
    help="Directory of the collector's keys.  [default: keys/ beside the store]",
)


@click.group()
def keys() -> None:
    """The public halves of the collector's own keys.

    \b
      flopmeter collector keys show
    """  # noqa: D301 - click wants the backspace character itself


@keys.command()
@store_option
@keys_option
@json_option
def show(store: Path, keys_dir: Path | None, as_json: bool) -> None:
    """Print the log's verifier key (vkey) and the attestation key (PEM), for `flopmeter verify` and for witnesses.

    Neither is a secret. Hand them over on a way that you trust: whoever is given another's keys believes the other.
    """
    import contextlib

    from flopmeter.collector.store.reading import open_for_reading

    from .keys import attest_key, keys_directory
    from .log.evidence_log import EvidenceLog

    path = store_file(store)
    with contextlib.closing(open_for_reading(path)) as connection:
        identity = EvidenceLog(connection).identity
    attest = attest_key(keys_directory(keys_dir, path), make=False)
    if as_json:
        emit_json(
            {
                "log": None if identity is None else {"origin": identity.origin, "vkey": identity.vkey},
                "attest": {"key_id": attest.key_id, "spki_pem": attest.spki_pem},
            }
        )
        return
    click.echo("The evidence log (checkpoints), as C2SP signed-note writes it:\n")
    click.echo(f"  {identity.vkey if identity else 'none yet: it is made with the first checkpoint'}")
    click.echo(f"\nAttestations: ECDSA P-256, key id {attest.key_id[:16]}…\n")
    click.echo(attest.spki_pem, nl=False)
