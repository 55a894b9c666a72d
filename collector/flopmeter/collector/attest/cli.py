"""`flopmeter attest create | list | show`: thin over create.py and view.py."""

import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from flopmeter.cli.output import emit_json, json_option
from flopmeter.collector.cli_parts import (
    every_regime,
    expect_option,
    paint,
    regimes_option,
    run_names,
    store_option,
)
from flopmeter.collector.keys_cli import keys_option
from flopmeter.collector.store_path import store_file

if TYPE_CHECKING:
    from .request import Means

#: profiles.PROFILES, said again so that `--help` loads nothing (a test compares them).
PROFILES = ("aiOffice", "nationalAuthority", "auditor", "downstream")
_FILE = click.Path(path_type=Path)


@click.group()
def attest() -> None:
    """Signed statements about runs, which an outsider can check (docs/attest.md).

    \b
      flopmeter attest create llm-7 --profile aiOffice -o llm-7.json
      flopmeter attest show llm-7.json
    """  # noqa: D301 - click wants the backspace character itself


@attest.command()
@click.argument("run", shell_complete=run_names)
@click.option(
    "--profile",
    type=click.Choice(PROFILES),
    required=True,
    help="Who it is for: what is shown, rounded, withheld.",
)
@click.option(
    "-o",
    "--output",
    type=_FILE,
    required=True,
    help="The file to write. One that is there is never written over.",
)
@click.option(
    "--recipient",
    default="",
    help="Its name: each gets a pseudonym of the run of its own.  [default: the profile]",
)
@click.option(
    "--issuer",
    default="",
    envvar="FLOPMETER_ISSUER",
    help="Who issues it, as the statement says.  [default: the log's name]",
)
@click.option(
    "--role",
    type=click.Choice(("operator", "auditor")),
    default="operator",
    show_default=True,
    help="What the issuer is.",
)
@click.option(
    "--supersedes",
    default="",
    metavar="ID",
    help="The attestation that this one takes the place of; needs --why.",
)
@click.option(
    "--record",
    default="",
    metavar="ID",
    help="Another view of the record of that attestation, or of that digest.",
)
@click.option(
    "--signer",
    metavar="command:PROGRAM",
    envvar="FLOPMETER_SIGNER",
    help="A program that signs (KMS, HSM).  [default: attest.key in --keys]",
)
@click.option(
    "--signer-key",
    type=_FILE,
    envvar="FLOPMETER_SIGNER_KEY",
    help="The public half of its key, PEM. Needed with --signer.",
)
@click.option(
    "--witness-policy",
    type=_FILE,
    envvar=["FLOPMETER_WITNESS_POLICY", "FLOPMETER_COLLECTOR_WITNESS_POLICY"],
    help="Witnesses to ask for cosignatures (C2SP tlog-policy).",
)
@click.option(
    "--tsa",
    multiple=True,
    envvar=["FLOPMETER_TSA", "FLOPMETER_COLLECTOR_TSA"],
    help="URL of an RFC 3161 authority to date the head; may be repeated.",
)
@click.option(
    "--tsa-ca",
    type=_FILE,
    envvar=["FLOPMETER_TSA_CA", "FLOPMETER_COLLECTOR_TSA_CA"],
    help="PEM file of the authorities' root certificates.",
)
@click.option(
    "--estimates",
    type=_FILE,
    envvar=["FLOPMETER_ESTIMATES", "FLOPMETER_COLLECTOR_ESTIMATES"],
    help="TOML file of declared estimates: the second method.",
)
@click.option("--who", help="Who attests.  [default: your login name and this host]")
@click.option("--why", default="", help="Why, in a sentence that an auditor can follow.")
@store_option
@keys_option
@regimes_option
@expect_option
@json_option
def create(*, run: str, as_json: bool, **asked: Any) -> None:
    """Attest RUN as it stands now, and write the file.

    It is logged before it is handed out, and verified as its recipient would: a file that does not verify is not
    written. A run that goes on can be attested; the statement says that it was not over. A mistake is corrected by
    another attestation that names the one it supersedes.

    \b
      flopmeter attest create llm-7 --profile aiOffice -o llm-7.json
    """  # noqa: D301 - click wants the backspace character itself
    from flopmeter.collector.cli_parts import login
    from flopmeter.collector.keys import keys_directory

    from .create import create as make
    from .request import Request

    store = store_file(asked["store"])
    keys = keys_directory(asked["keys_dir"], store)
    issued = make(
        Request(
            store=store,
            keys=keys,
            run=run,
            profile=asked["profile"],
            output=asked["output"],
            who=asked["who"] or login(),
            why=asked["why"],
            recipient=asked["recipient"],
            issuer=asked["issuer"],
            role=asked["role"],
            supersedes=asked["supersedes"],
            record=asked["record"],
        ),
        _means(keys, asked),
    )
    from .view import issued_document, issued_view

    if as_json:
        emit_json(issued_document(issued, asked["output"]))
    else:
        click.echo(issued_view(issued, asked["output"], paint()))


@attest.command("list")
@click.argument("run", required=False, shell_complete=run_names)
@store_option
@json_option
def list_(run: str | None, store: Path, as_json: bool) -> None:
    """Attestations that were issued, of RUN or of all: to whom, by whom, and what superseded what.

    \b
      flopmeter attest list llm-7
    """  # noqa: D301 - click wants the backspace character itself
    from flopmeter.collector.report.queries import reading
    from flopmeter.collector.store.attestations import SELECT, attestation_rows

    from .view import list_view, row_documents

    with reading(store) as reader:
        rows = attestation_rows(reader.rows(SELECT).fetchall())
    documents = [d for d in row_documents(rows) if run in (None, d["run"])]
    if as_json:
        emit_json({"attestations": documents})
    else:
        click.echo(list_view(documents, paint()))


@attest.command()
@click.argument("file", type=_FILE)
@json_option
def show(file: Path, as_json: bool) -> None:
    """What an attestation's FILE says, for people. Nothing is checked: `flopmeter verify` does that.

    \b
      flopmeter attest show llm-7.json
    """  # noqa: D301 - click wants the backspace character itself
    from .reading_file import read_statement
    from .view import statement_view

    statement = read_statement(file)
    if as_json:
        emit_json(statement)
    else:
        click.echo(statement_view(statement["predicate"], paint()))


def _means(keys: Path, asked: dict[str, Any]) -> "Means":
    from flopmeter.collector.report.queries import asked as question
    from flopmeter.contract.w_table import current

    from .request import Means
    from .signing import signer_of

    regimes = every_regime(asked["regimes_dir"])
    expected: Any = ()
    if asked["expect"] is not None:
        from flopmeter.collector.report.expected import read_expected

        expected = read_expected(asked["expect"])
    estimates: Any = ()
    if asked["estimates"] is not None:
        from flopmeter.collector.estimate.files import read_estimates

        estimates = read_estimates(asked["estimates"], current())
    witnesses: Any = None
    if asked["witness_policy"] is not None:
        from flopmeter.collector.log.witnesses import Witnesses, read_policy

        policy = read_policy(asked["witness_policy"])

        def witnesses(vkey: str) -> Witnesses:
            return Witnesses(policy, vkey)

    authorities: Any = None
    if asked["tsa"]:
        from flopmeter.collector.log.timestamps import Authorities

        authorities = Authorities(asked["tsa"], asked["tsa_ca"])
    return Means(
        signer_of(asked["signer"], asked["signer_key"], keys),
        lambda now: question(now, regimes, expected),
        estimates,
        witnesses,
        authorities,
        now_unix_ns=time.time_ns,
    )
