"""`flopmeter verify`: is an attestation's file what its issuer signed, and does it agree with itself? Offline."""

import math
import os
import sys
import time
from collections.abc import Iterable, Iterator, Mapping
from fractions import Fraction
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from .output import band_texts, emit_json, json_option, seconds_text

if TYPE_CHECKING:
    from datetime import datetime

    from flopmeter.audit.pack import Facts, Part, Place
    from flopmeter.audit.steps import Found, Key, Wanted
    from flopmeter.evidence.errors import EvidenceError

_MEANS = {
    "container": "the file has the bytes that its members make, and no others",
    "signature": "signed by the key given, as it is",
    "subject": "evidence and pack are the ones that were signed",
    "schema": "says all that it must, in the grammar of the format",
    "disclosures": "each field is the record's, or named as redacted",
    "checkpoint": "the log signed its head; so did witnesses, as a policy asks",
    "consistency": "the log only grew, also since what was kept",
    "inclusion": "record, events, this attestation itself are in the log",
    "sum tree": "the total is the sum of its leaves",
    "arithmetic": "parts add up; each status is the one of its figures",
    "coverage": "as much was observed as was asked for",
    "pack": "batches, their signatures and places, SM-cycles and FLOP",
}
_ORDER = tuple(_MEANS)  # numbered from 0; docs/attestation-format.md 9
_SMALL = 4_096  # records: less than a start of processes is worth
_FEW = 1 << 20  # bytes of a key, a policy, a checkpoint


class VerifyError(click.ClickException):
    """Something beside the file cannot be read."""

    exit_code = 3


@click.command()
@click.argument("file", type=click.Path(path_type=Path))
@click.option(
    "--key",
    required=True,
    type=click.Path(path_type=Path),
    help="The issuer's public key, or certificate, PEM.",
)
@click.option(
    "--policy", type=click.Path(path_type=Path), help="Logs and witnesses that you trust (C2SP tlog-policy)."
)
@click.option("--since", type=click.Path(path_type=Path), help="The checkpoint that you kept the last time.")
@click.option("--keep", type=click.Path(path_type=Path), help="Write the checkpoint here, for the next time.")
@click.option(
    "--min-coverage-percent", type=click.IntRange(0, 100), default=0, help="Device time observed, at least."
)
@click.option(
    "--tsa-cert", type=click.Path(path_type=Path), help="Certificate of the timestamp authority, PEM."
)
@click.option("--processes", type=click.IntRange(1, 1024), help="For a pack. Default: one for each core.")
@json_option
def verify(  # noqa: PLR0917 - click passes them by name
    file: Path,
    key: Path,
    policy: Path | None,
    since: Path | None,
    keep: Path | None,
    min_coverage_percent: int,
    tsa_cert: Path | None,
    processes: int | None,
    as_json: bool,
) -> None:
    """Check an attestation: a file of `flopmeter attest create`, or the folder of its members.

    Exit code 0: it holds. 1: it does not, and the first step that failed is named. 2: usage. 3: cannot be read.

    \b
    flopmeter verify run.fma --key lab.pem
    flopmeter verify run.fma --key lab.pem --since head --keep head
    """  # noqa: D301 - click wants the backspace character itself
    from flopmeter.audit.steps import Wanted
    from flopmeter.audit.steps import verify as check
    from flopmeter.evidence import note
    from flopmeter.evidence.errors import EvidenceError

    from .container import read

    try:
        trusted = _trusted(key)
        wanted = Wanted(
            policy=None if policy is None else note.parse_policy(_small(policy)),
            since=None if since is None else _kept(since),
            coverage_percent=min_coverage_percent,
            timestamp=None if tsa_cert is None else _stamps(tsa_cert),
        )
    except EvidenceError as e:
        raise VerifyError(f"{policy}: expected a tlog-policy, got one that is not: {e.reason}") from e
    begun = time.monotonic()
    try:
        members = read(file)
        quiet = as_json or not sys.stderr.isatty()
        pool = _Pool(processes or _cores(), quiet=quiet)
        found = check(members, trusted, wanted._replace(pack=pool.check))
        if keep is not None:
            _write(keep, found.head)
    except EvidenceError as e:
        _refused(file, e, as_json=as_json)
        sys.exit(1)
    except OSError as e:
        raise VerifyError(f"{e.filename or file}: {e.strerror}") from e
    if as_json:
        emit_json(_document(file, found, wanted))
    else:
        _told(file, found, wanted, time.monotonic() - begun)


def _cores() -> int:
    """Those that this process may use, where the operating system says so."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _small(path: Path) -> bytes:
    try:
        with path.open("rb") as f:
            raw = f.read(_FEW + 1)
    except OSError as e:
        raise VerifyError(f"{path}: {e.strerror}") from e
    if len(raw) > _FEW:
        raise VerifyError(f"{path}: expected at most {_FEW} bytes, got more")
    return raw


def _kept(path: Path) -> bytes:
    """A checkpoint that was kept; whose it is, is a step of the check."""
    from flopmeter.evidence import note
    from flopmeter.evidence.errors import EvidenceError

    raw = _small(path)
    try:
        note.parse_checkpoint(raw)
    except EvidenceError as e:
        raise VerifyError(
            f"{path}: expected the checkpoint that --keep wrote, got something else: {e.reason}"
        ) from e
    return raw


def _write(path: Path, raw: bytes) -> None:
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    with beside.open("wb") as f:
        f.write(raw)
        f.flush()
        os.fsync(f.fileno())
    beside.replace(path)


def _trusted(path: Path) -> "Key":
    """The issuer's key, with the time for which a certificate says that it is good."""
    import hashlib

    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.x509 import load_pem_x509_certificate

    from flopmeter.audit.steps import Key

    raw, valid = _small(path), None
    try:
        if b"-----BEGIN CERTIFICATE-----" in raw:
            certificate = load_pem_x509_certificate(raw)
            valid = (certificate.not_valid_before_utc, certificate.not_valid_after_utc)
            key: Any = certificate.public_key()
        else:
            key = serialization.load_pem_public_key(raw)
    except Exception as e:  # cryptography has no one class for what is not a key
        raise VerifyError(f"{path}: expected a public key or a certificate in PEM, got none: {e}") from e
    if not isinstance(key, ec.EllipticCurvePublicKey) or key.curve.name != "secp256r1":
        raise VerifyError(f"{path}: expected an ECDSA P-256 key, got another kind")
    spki = key.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    return Key(key, hashlib.sha256(spki).hexdigest(), valid)


def _stamps(path: Path) -> Any:
    """Checks RFC 3161 tokens against the authority's certificate; needs the extra `timestamps`."""
    raw = _small(path)
    try:
        from cryptography.x509 import load_pem_x509_certificates
        from rfc3161_client import VerifierBuilder, decode_timestamp_response
    except ModuleNotFoundError as e:
        raise VerifyError(
            "--tsa-cert needs rfc3161-client: install flopmeter[timestamps], or check the token with `openssl ts`"
        ) from e
    from flopmeter.evidence.errors import EvidenceError

    try:
        builder = VerifierBuilder()
        for certificate in load_pem_x509_certificates(raw):
            builder = builder.add_root_certificate(certificate)
        verifier = builder.build()
    except Exception as e:
        raise VerifyError(f"{path}: expected certificates in PEM, got none: {e}") from e

    def check(token: bytes, checkpoint: bytes) -> "datetime":
        try:
            response = decode_timestamp_response(token)
            verifier.verify_message(response, checkpoint)
        except Exception as e:  # a foreign parser on foreign bytes: x509 has errors that are no ValueError
            raise EvidenceError("checkpoint", f"a timestamp token that does not hold: {e}") from e
        at: datetime = response.tst_info.gen_time
        return at

    return check


# ---- the pack, on every core ---------------------------------------------------------------------------------

_checker: Any = None  # of a process that checks parts


def _start(facts: "Facts") -> None:
    import signal

    from flopmeter.audit.pack import Checker

    global _checker
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    _checker = Checker(facts)


def _part(place: "Place") -> "Part | tuple[str, str]":
    """A part, or which step failed and why: an exception with two arguments does not come back from a process."""
    from flopmeter.evidence.errors import EvidenceError

    try:
        part: Part = _checker(place)
    except EvidenceError as e:
        return e.step, e.reason
    return part


def _whole(found: "Part | tuple[str, str]") -> "Part":
    from flopmeter.audit.pack import Part
    from flopmeter.evidence.errors import EvidenceError

    if isinstance(found, Part):
        return found
    raise EvidenceError(*found)


class _Pool:
    """Runs the parts of a pack: here where they are few, else in processes of their own."""

    def __init__(self, processes: int, *, quiet: bool) -> None:
        self._processes, self._quiet = processes, quiet

    def check(
        self, members: Mapping[str, Any], manifest: Any, predicate: Any, opened: list[tuple[int, ...]]
    ) -> str:
        from flopmeter.audit.pack import check_pack

        return check_pack(members, manifest, predicate, opened, self._run)

    def _run(self, facts: "Facts", places: Iterator["Place"], records: int) -> Iterable["Part"]:
        from flopmeter.audit.pack import one_by_one

        if self._processes == 1 or records < _SMALL:
            yield from self._progress(one_by_one(facts, places), records)
            return
        from concurrent.futures import ProcessPoolExecutor
        from concurrent.futures.process import BrokenProcessPool
        from multiprocessing import get_context

        pool = ProcessPoolExecutor(self._processes, get_context("spawn"), _start, (facts,))
        try:
            yield from self._progress(map(_whole, pool.map(_part, places)), records)
        except BrokenProcessPool as e:
            raise VerifyError(
                "a process that checked the pack was ended; with less memory, try --processes 1"
            ) from e
        finally:
            pool.shutdown(cancel_futures=True)

    def _progress(self, parts: Iterable["Part"], records: int) -> Iterator["Part"]:
        done = 0
        for part in parts:
            yield part
            done += part.records
            if not self._quiet:
                click.echo(f"\rpack: {done} of {records} batches checked", nl=False, err=True)
        if not self._quiet:
            click.echo("\r" + " " * 60 + "\r", nl=False, err=True)


# ---- what is said --------------------------------------------------------------------------------------------


def _refused(file: Path, e: "EvidenceError", *, as_json: bool) -> None:
    number = _ORDER.index(e.step)
    if as_json:
        emit_json(
            {"file": str(file), "verified": False, "step": number, "failed": e.step, "reason": e.reason}
        )
        return
    click.echo(f"{click.style('NOT VERIFIED', fg='red')}  {file}")
    for n, (step, means) in enumerate(_MEANS.items()):
        if n > number:
            break
        click.echo(f"  {n:>2} {step:<12} {'FAILED' if n == number else means}")
    click.echo("\n" + click.wrap_text(_printable(e.reason), 76, "  ", "  "))
    click.echo("\nNothing behind that step was looked at. Do not rely on anything in this file.")


def _document(file: Path, found: "Found", wanted: "Wanted") -> dict[str, Any]:
    p = found.predicate
    return {
        "file": str(file),
        "verified": True,
        "level": found.level,
        "attestationId": p["attestationId"],
        "profile": p["profile"],
        "issuedAt": p["issuedAt"],
        "issuer": p["issuer"],
        "supersedes": p["supersedes"],
        "run": p["run"],
        "period": p["period"],
        "totals": p["totals"],
        "thresholds": [
            {"rule": rule, "status": status, "known": how}
            | {name: t[name] for name in ("comparison", "limit", "total", "ruleTableSha256")}
            for (rule, status, how), t in zip(found.thresholds, p["thresholds"], strict=True)
        ],
        "coverage": p["coverage"],
        "tables": [{**t, "known": t["sha256"] in _tables()} for t in p["method"].get("tables", ())],
        "redactions": [{"path": r["path"], "form": r["form"]} for r in p["redactions"]],
        "steps": [step for step in _ORDER if _applies(step, found, wanted)],
        "pack": found.pack or None,
        "head": {"origin": p["evidence"]["origin"], "treeSize": p["evidence"]["treeSize"]},
        "timestamps": {"verified": str(found.timestamps[0]), "there": str(found.timestamps[1])},
        "limits": p["scope"]["limits"],
    }


def _applies(step: str, found: "Found", wanted: "Wanted") -> bool:
    return bool({"coverage": wanted.coverage_percent, "pack": found.pack}.get(step, True))


def _told(file: Path, found: "Found", wanted: "Wanted", seconds: float) -> None:
    p = found.predicate
    issuer, run, total = p["issuer"], p["run"], p["totals"].get("executedFlop")
    click.echo(f"{click.style('VERIFIED', fg='green')}  {file}  ({seconds_text(math.ceil(seconds))})\n")
    _line("run", f"{run['pseudonym']}, {run.get('kind', 'kind withheld')}")
    period = p["period"]
    open_ = "" if period.get("closed", True) else ", still going on"
    _line("period", f"{period.get('start', 'withheld')} to {period.get('end', 'withheld')}{open_}")
    _line("issued", f"{p['issuedAt']} by {issuer['name']} ({issuer['role']}), profile {p['profile']}")
    _line("level", found.level)
    if total:
        rounded = any(r["path"] == "/totals/executedFlop" for r in p["redactions"])
        figures = ", ".join(map(" ".join, zip(("lower", "point", "upper"), band_texts(total), strict=True)))
        _line("executed", f"FLOP: {figures}{' (rounded outwards)' if rounded else ''}")
    else:
        _line("executed", "withheld")
    _line("coverage", _coverage(p["coverage"]))
    click.echo("\nThresholds")
    words = {"crossed": "CROSSED", "below": "below", "undetermined": "cannot be told from this evidence"}
    for (rule, status, how), t in zip(found.thresholds, p["thresholds"], strict=True):
        line = f"{_printable(rule)}, {t['comparison']} {_exact(t['limit'])}: {words[status]} ({how})"
        click.echo(click.wrap_text(line, 78, "  ", "    "))
    click.echo("\nChecked")
    for number, (step, means) in enumerate(_MEANS.items()):
        said = (
            means if _applies(step, found, wanted) else "not asked for" if step == "coverage" else "no pack"
        )
        click.echo(f"  {number:>2} {step:<12} {said}")
    if found.pack:
        click.echo(click.wrap_text(found.pack, 78, "  ", "  "))
    _reservations(p, found, wanted)
    click.echo("\nWhat it does not prove, by the issuer's own word")
    for limit in p["scope"]["limits"]:
        click.echo(click.wrap_text(_printable(limit), 78, "  - ", "    "))


def _reservations(p: Mapping[str, Any], found: "Found", wanted: "Wanted") -> None:
    said = []
    if wanted.policy is None:
        said.append(
            "No policy was given: that the log showed everybody the same is its own word. --policy FILE"
        )
    if wanted.since is None:
        said.append("No earlier checkpoint was given: keep this one. --keep FILE, next time --since FILE")
    if found.timestamps[0] < found.timestamps[1]:
        left = found.timestamps[1] - found.timestamps[0]
        said.append(
            f"{left} timestamp tokens are there and were not checked: --tsa-cert FILE, or `openssl ts -verify`"
        )
    if found.proofs[1]:
        said.append(f"{found.proofs[1]} log entries are proven to be there without what they say.")
    if p["redactions"]:
        forms = ", ".join(f"{r['path']} {r['form']}" for r in p["redactions"])
        said.append(f"Not shown as the record has it: {forms}")
    if any(t["sha256"] not in _tables() for t in p["method"].get("tables", ())):
        said.append(
            "The W table is none of this flopmeter's: what a cycle is worth is the issuer's word. Hold it against yours."
        )
    said.append(
        "Each line is read from the issuer's rule tables: hold it against the text of the law. Ask the issuer whether "
        "another attestation has taken the place of this one."
    )
    said += [f"Takes the place of attestation {s['attestationId']}: {s['reason']}" for s in p["supersedes"]]
    click.echo("\nTo know")
    for text in said:
        click.echo(click.wrap_text(_printable(text), 78, "  - ", "    "))


def _coverage(coverage: Mapping[str, Any]) -> str:
    """How much of the device time was observed, in whole percent downwards."""
    observed, expected = (
        Fraction(coverage[n]) if n in coverage else None
        for n in ("observedDeviceSeconds", "expectedDeviceSeconds")
    )
    if observed is None or not expected:
        return "withheld" if observed is None or expected is None else "no device time"
    times = " of ".join(seconds_text(math.floor(t)) for t in (observed, expected))
    return f"{math.floor(100 * observed / expected)} % of the device time observed, {times}"


def _exact(limit: str) -> str:
    """A line without the zeros at its end, which nobody counts: 10^25, 3*10^23."""
    digits = limit.rstrip("0")
    zeros = len(limit) - len(digits)
    if "/" in limit or zeros < 4 or len(digits) > 4:
        return limit
    return f"10^{zeros}" if digits == "1" else f"{digits}*10^{zeros}"


@cache
def _tables() -> frozenset[str]:
    """SHA-256 of the W tables that this flopmeter has."""
    import hashlib
    from importlib import resources

    found = resources.files("flopmeter.contract").iterdir()
    return frozenset(hashlib.sha256(f.read_bytes()).hexdigest() for f in found if f.name.endswith(".toml"))


def _line(name: str, text: str) -> None:
    click.echo(click.wrap_text(f"{name:<10}{_printable(text)}", 78, "", " " * 10))


def _printable(text: str) -> str:
    """Whatever a file says, a terminal is told nothing but letters."""
    return "".join(c if c.isprintable() else "\ufffd" for c in text)
