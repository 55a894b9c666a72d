"""`flopmeter regimes`: list, show, check, sign, status."""

import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from flopmeter.cli.output import emit_json, json_option
from flopmeter.collector.cli_parts import paint, regimes_option, store_option

if TYPE_CHECKING:
    from flopmeter.collector.errors import Fault

    from .laws import Laws
    from .signing import PublicKey

_PATH = click.Path(path_type=Path)
key_option = click.option(
    "--regime-key",
    type=_PATH,
    envvar=["FLOPMETER_REGIME_KEY", "FLOPMETER_COLLECTOR_REGIME_KEY"],
    show_envvar=True,
    help="Public key that must have signed the directory.",
)


@click.group()
def regimes() -> None:
    """Legal thresholds, as data: what binds, what is proposed, what is over.

    Each is a TOML file: the line as an exact number, what is counted, from when, what follows, by when and to
    whom, and where that was read. A site adds its own, or puts one in the place of a shipped one, in a directory
    of its own (--regimes DIR); docs/regimes.md describes the files.

    \b
      flopmeter regimes list
      flopmeter regimes show eu-gpai
    """  # noqa: D301 - click wants the backspace character itself


@regimes.command("list")
@regimes_option
@json_option
def regimes_list(regimes_dir: Path | None, as_json: bool) -> None:
    """Every regime known here: first what binds now or will, by threshold; then what is proposed or historical."""
    from .laws import read_laws
    from .regimes_view import regimes_view

    laws = read_laws(regimes_dir)
    documents = documents_of(laws)
    if as_json:
        emit_json({"regimes": documents})
    else:
        click.echo(regimes_view(documents, paint()))


@regimes.command("show")
@click.argument("regime_id", metavar="ID")
@regimes_option
@json_option
def regimes_show(regime_id: str, regimes_dir: Path | None, as_json: bool) -> None:
    """One regime: its line, what follows and by when, what it counts, what is open, and where it comes from.

    \b
      flopmeter regimes show eu-gpai
    """  # noqa: D301 - click wants the backspace character itself
    import difflib

    from flopmeter.collector.errors import CollectorError

    from .laws import read_laws
    from .regimes_view import regime_view

    known = {d["id"]: d for d in documents_of(read_laws(regimes_dir))}
    if regime_id not in known:
        near = difflib.get_close_matches(regime_id, known, n=1)
        raise CollectorError(
            f"regime {regime_id!r}: expected one of {', '.join(known)}",
            f"did you mean {near[0]!r}?" if near else "a site's own need --regimes DIR",
        )
    if as_json:
        emit_json(known[regime_id])
    else:
        click.echo(regime_view(known[regime_id], paint()))


@regimes.command("check")
@click.argument("path", type=_PATH)
@key_option
@json_option
def regimes_check(path: Path, regime_key: Path | None, as_json: bool) -> None:
    r"""Whether a collector would take PATH: a directory of law files, or one file of it.

    Every fault is told, with file, line, column and key, what was expected, what is there, and what to do. A file is
    read beside the counting profiles of its directory, which it may name. Exit 1: there is a fault.

    \b
      flopmeter regimes check /etc/flopmeter/law
      flopmeter regimes check board.toml
    """
    from datetime import UTC, datetime

    from flopmeter.collector.errors import CollectorError, RegimeError

    from .laws import warnings

    if not path.exists():
        raise CollectorError(
            f"{path}: expected a directory of law files or one of them, found nothing", "name one that exists"
        )
    laws: Laws | None = None
    faults: tuple[Fault, ...] = ()
    try:
        laws = _read(path, _key(regime_key))
    except RegimeError as e:
        faults = e.faults
    odd = warnings(laws, datetime.now(UTC).date()) if laws is not None else []
    if as_json:
        own = [] if laws is None else [d for d in documents_of(laws) if d["origin"] == "site"]
        emit_json(
            {
                "ok": laws is not None,
                "faults": [f._asdict() for f in faults],
                "warnings": [f._asdict() for f in odd],
                "regimes": own,
                "profiles": [] if laws is None else sorted(laws.profiles),
            }
        )
    else:
        _tell(path, laws, faults, odd)
    if laws is None:
        raise click.exceptions.Exit(1)


def _tell(path: Path, laws: "Laws | None", faults: "Iterable[Fault]", odd: "Iterable[Fault]") -> None:
    from flopmeter.cli.layout import folded

    from .regimes_view import line_text

    width = paint().width
    faults, odd = list(faults), list(odd)
    for fault in faults:
        click.echo(folded(f"{fault}\n  {fault.todo}", width), err=True)
    for fault in odd:
        click.echo(folded(f"warning: {fault}\n  {fault.todo}", width), err=True)
    if laws is None:
        click.echo(f"{path}: {len(faults)} fault{'s' if len(faults) > 1 else ''}", err=True)
        return
    own = [d for d in documents_of(laws) if d["origin"] == "site"]
    said = [f"{d['id']}, {line_text(d)}{_in_place(d)}" for d in own] + [
        f"profile {p}" for p in sorted(laws.profiles)
    ]
    click.echo(folded(f"{path}: good: {'; '.join(said) or 'no file of its own'}", width))


def _in_place(document: Mapping[str, Any]) -> str:
    return f" in the place of {document['replaces']}" if document["replaces"] else ""


def _read(path: Path, key: "PublicKey | None") -> "Laws":
    from .laws import LawFile, of_files, read_files, read_laws
    from .profiles import SCHEMA

    if path.is_dir():
        return read_laws(path, key)
    if key is not None:
        raise click.UsageError("--regime-key: a directory is signed as a whole; name the directory")
    beside = read_files(path.parent)
    wanted = [
        f for f in beside if f.name == path.name or (SCHEMA.encode() in f.raw and path.suffix == ".toml")
    ]
    if path.name not in {f.name for f in wanted}:
        wanted.append(LawFile(path.name, path.read_bytes()))
    return of_files(wanted)


@regimes.command("sign")
@click.argument("directory", type=_PATH)
@click.option("--key", type=_PATH, required=True, help="Private Ed25519 key, in PEM.")
def regimes_sign(directory: Path, key: Path) -> None:
    r"""Sign a DIRECTORY of law files, so that a collector with --regime-key takes it.

    What is signed is checked first. Writes a manifest that `sha256sum --check` reads, and beside it a signature
    that `openssl pkeyutl -verify` checks. Every change needs a new signature: a file that is added, changed, taken
    away or put back in an older edition is refused until then.

    \b
      openssl genpkey -algorithm ed25519 -out law.key
      openssl pkey -in law.key -pubout -out law.pub
      flopmeter regimes sign /etc/flopmeter/law --key law.key
    """
    from .laws import read_laws
    from .signing import MANIFEST, SIGNATURE, read_private_key, sign

    laws = read_laws(directory)
    public = sign(directory, {f.name: f.raw for f in laws.files}, read_private_key(key))
    click.echo(
        f"{directory}: {len(laws.files)} files signed: {MANIFEST}, {SIGNATURE}; public key {public.hex()}"
    )


@regimes.command("status")
@store_option
@regimes_option
@key_option
@json_option
def regimes_status(store: Path, regimes_dir: Path | None, regime_key: Path | None, as_json: bool) -> None:
    """By which texts the runs of a store are judged now, since when, and whether those are the files here.

    A collector takes changed files within seconds; of bad ones it keeps the last good set. Exit 1: what is judged
    by is not what is here.
    """
    from flopmeter.cli.layout import folded
    from flopmeter.collector.errors import RegimeError
    from flopmeter.collector.report.queries import reading

    from .laws import read_laws
    from .regimes_view import status_view
    from .status import law_status

    laws, error = None, None
    try:
        laws = read_laws(regimes_dir, _key(regime_key))
    except RegimeError as e:
        error = e
    with reading(store) as reader:
        document = law_status(reader.rows, laws)
    document["faults"] = [f._asdict() for f in error.faults] if error is not None else []
    document["ok"] = document["ok"] and error is None
    if as_json:
        emit_json(document)
    else:
        click.echo(status_view(document, paint()))
        if error is not None:
            click.echo(
                folded(f"The files here are not taken:\n{error}\n{error.hint}", paint().width), err=True
            )
    if not document["ok"]:
        raise click.exceptions.Exit(1)


def _key(path: Path | None) -> "PublicKey | None":
    if path is None:
        return None
    from .signing import read_public_key

    return read_public_key(path)


def documents_of(laws: "Laws") -> list[dict[str, Any]]:
    """Every regime as a document: what may bind by scope and line, then the rest, then what was replaced."""
    from .regimes import SCOPES
    from .regimes_view import regime_document

    now = time.time_ns()
    by = {r.replaces: r.id for r in laws.regimes if r.replaces}
    ours = {f.raw.decode() for f in laws.files}
    order = sorted(laws.regimes, key=lambda r: (not r.may_bind, SCOPES.index(r.scope)))
    found = []
    for regime in (*order, *(r for n, r in laws.replaced.items() if n not in {o.id for o in order})):
        document = regime_document(regime, now)
        document["origin"] = "site" if regime.text in ours else "shipped"
        document["replaced_by"] = by[regime.id] if regime in laws.replaced.values() else None
        if document["replaced_by"]:
            document["in_force"] = document["may_bind"] = False
        found.append(document)
    return found
