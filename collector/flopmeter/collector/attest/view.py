"""What `flopmeter attest` prints: for programs with stable keys, for people within the page's width. Pure."""

import textwrap
from collections.abc import Iterable, Mapping, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

from flopmeter.cli.layout import Paint, Row, table
from flopmeter.cli.output import band_texts, seconds_text
from flopmeter.collector import empty
from flopmeter.collector.spelling import threshold_text

from .issuing import Issued
from .said import ISSUED, AttestationRow
from .values import time_text

_STATUS = {
    "crossed": ("crossed: even the lower bound meets it", "red"),
    "below": ("below: not even the upper bound meets it", "green"),
    "undetermined": ("cannot be told from this evidence", "yellow"),
}


def issued_document(issued: Issued, file: Path) -> dict[str, Any]:
    row = issued.row
    return {
        "attestation": row.attestation_id,
        "file": str(file),
        "run": row.run,
        "profile": row.profile,
        "recipient": row.recipient,
        "record_digest": row.record_digest,
        "statement_sha256": row.statement_sha256,
        "supersedes": row.supersedes or None,
        "assurance": issued.assurance,
        "thresholds": {t["rule"]: t["status"] for t in issued.predicate["thresholds"]},
    }


def issued_view(issued: Issued, file: Path, paint: Paint) -> str:
    row = issued.row
    lines = [
        paint(f"{file}: attestation {row.attestation_id}", bold=True),
        *_pairs(
            [
                ("run", row.run),
                ("for", f"{row.profile}, {row.recipient}" if row.recipient != row.profile else row.profile),
                ("record", f"sha256:{row.record_digest}"),
                *([("supersedes", row.supersedes)] if row.supersedes else []),
            ],
            paint,
        ),
        *_wrapped(issued.assurance, paint),
        *_thresholds(issued.predicate, paint),
        "",
        "Hand it over with the public key (`flopmeter collector keys show`), the key on",
        "a way of its own. It is checked with: flopmeter verify FILE --key PUB",
    ]
    return "\n".join(lines)


def row_documents(rows: Sequence[AttestationRow]) -> list[dict[str, Any]]:
    """Issued ones, the newest first."""
    by = {r.supersedes: r.attestation_id for r in rows if r.supersedes}
    return [
        {
            "attestation": r.attestation_id,
            "time": time_text(r.unix_ns),
            "run": r.run,
            "profile": r.profile,
            "recipient": r.recipient,
            "record_digest": r.record_digest,
            "statement_sha256": r.statement_sha256,
            "supersedes": r.supersedes or None,
            "superseded_by": by.get(r.attestation_id),
            "who": r.who,
            "why": r.why,
        }
        for r in reversed(rows)
        if r.kind == ISSUED
    ]


def list_view(documents: Sequence[Mapping[str, Any]], paint: Paint) -> str:
    if not documents:
        return empty.ATTESTATIONS
    lines = []
    for d in documents:
        lines.append(paint(d["attestation"], bold=not d["superseded_by"], dim=bool(d["superseded_by"])))
        pairs = [
            ("run", d["run"]),
            ("for", f"{d['profile']}, {d['recipient']}"),
            ("issued", f"{d['time'][:19]}Z by {d['who']}"),
            ("why", d["why"]),
            ("record", d["record_digest"]),
        ]
        pairs += [("supersedes", d["supersedes"])] if d["supersedes"] else []
        pairs += [("superseded by", d["superseded_by"])] if d["superseded_by"] else []
        lines += _pairs(pairs, paint)
    return "\n".join(lines)


def statement_view(p: Mapping[str, Any], paint: Paint) -> str:
    """A predicate for people. Whoever made the file chose its texts: what is not printable in them is not printed."""
    p = _printable(p)
    period, totals = p["period"], p["totals"]
    lines = [
        paint(f"Attestation {p['attestationId']}", bold=True),
        *_pairs(
            [
                ("issued", f"{p['issuedAt']} by {p['issuer']['name']}, {p['issuer']['role']}"),
                ("for", p["profile"]),
                ("run", f"{p['run']['pseudonym']} ({p['run'].get('kind', 'kind withheld')})"),
                (
                    "period",
                    f"{period.get('start', 'withheld')} to {period.get('end', 'withheld')}"
                    + ("" if period.get("closed", True) else ", not over"),
                ),
                *((f"supersedes {s['attestationId']}", s["reason"]) for s in p["supersedes"]),
            ],
            paint,
        ),
    ]
    if "executedFlop" in totals:
        f = totals["executedFlop"]
        lines += ["", paint("Executed", bold=True), *_pairs([("FLOP", _figure(f))], paint)]
    pairs = [
        (name, seconds_text(float(Fraction(totals[key]))))
        for name, key in (("device time", "deviceSeconds"), ("wall time", "wallSeconds"))
        if key in totals
    ]
    lines += _pairs(pairs, paint)
    lines += _thresholds(p, paint)
    if p["redactions"]:
        rows: list[Row] = [[(r["path"], {}), (r["form"], {})] for r in p["redactions"]]
        lines += ["", paint("Not shown as recorded", bold=True), table(("field", "how"), rows, paint)]
    lines += ["", paint("What it does not prove", bold=True)]
    for sentence in p["scope"]["limits"]:
        lines += _wrapped(f"- {sentence}", paint)
    lines += ["", "Not checked here: flopmeter verify FILE --key PUB"]
    return "\n".join(lines)


def _thresholds(p: Mapping[str, Any], paint: Paint) -> list[str]:
    lines = ["", paint("Thresholds", bold=True)]
    for t in p["thresholds"]:
        text, colour = _STATUS.get(t["status"], (t["status"], None))
        limit = threshold_text(int(t["limit"])) if t["limit"].isdigit() else t["limit"]
        lines += _pairs([(f"{t['rule']} {t['comparison']} {limit}", paint(text, colour))], paint)
    return lines


def _printable(value: Any) -> Any:
    if isinstance(value, str):
        return "".join(c if c.isprintable() else "?" for c in value)
    if isinstance(value, Mapping):
        return {key: _printable(inner) for key, inner in value.items()}
    return [_printable(inner) for inner in value] if isinstance(value, list) else value


def _figure(f: Mapping[str, str]) -> str:
    lower, point, upper = band_texts(f)
    return f"{point} ({lower} to {upper})"


def _pairs(pairs: Iterable[tuple[str, str]], paint: Paint) -> list[str]:
    pairs = list(pairs)
    width = max((len(name) for name, _ in pairs), default=0)
    lines = []
    for name, value in pairs:
        head = f"  {name:<{width}}  "
        if "\x1b" in value or len(head) + len(value) <= paint.width:
            lines.append(head + value)
        else:
            indent = " " * min(len(head), 6)
            lines += [
                head.rstrip(),
                *textwrap.wrap(value, paint.width, initial_indent=indent, subsequent_indent=indent),
            ]
    return lines


def _wrapped(text: str, paint: Paint) -> list[str]:
    return textwrap.wrap(text, paint.width, initial_indent="  ", subsequent_indent="  ")
