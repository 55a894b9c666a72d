"""What a statement says (schema.json) and what must agree within it (docs/attestation-format.md 4, 5)."""

import json
import re
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from fractions import Fraction
from functools import cache
from importlib import resources
from typing import Any

from flopmeter.evidence.disclosure import field_digest, open_disclosures, record_digest
from flopmeter.evidence.errors import EvidenceError, require

_ALL = ("/totals/executedFlop", "/byPrecision", "/period/", "/method/", "/coverage/")
#: What each profile is owed: paths, or their beginnings, of which nothing may be withheld; the auditor nothing changed.
OWED = {
    "aiOffice": _ALL,
    "nationalAuthority": _ALL,
    "auditor": ("/",),
    "downstream": ("/run/kind", "/period/end"),
}
#: What may be shown otherwise than the record has it: quantities; and from downstream all of a threshold but its status.
_ROUNDED = (
    "/run/lineage",
    "/run/linkedRuns",
    "/totals/",
    "/byPrecision",
    "/method/evidenceClasses",
    "/method/secondMethod",
    "/coverage/expectedDeviceSeconds",
    "/coverage/observedDeviceSeconds",
    "/coverage/gaps",
    "/coverage/unattributedFlop",
)


@cache
def schema() -> Any:
    """A text names a type: a pattern, or members; `x or null`; [x] is a list; `name?` may be redacted."""
    return json.loads(resources.files(__package__).joinpath("schema.json").read_bytes())


def check(value: Any, form: Any, step: str = "schema", path: str = "") -> None:
    """`value` has the `form`, at every depth; the first place where it has not is named."""
    if isinstance(form, str):
        kind = form.removesuffix(" or null")
        if kind != form and value is None:
            return
        form = schema()["types"][kind]
        if isinstance(form, str):
            right = (
                isinstance(value, bool)
                if kind == "bool"
                else isinstance(value, str) and re.fullmatch(form, value)
            )
            require(right, step, f"{path}: expected {kind}, got {str(value)[:80]!r}")
            if kind == "time":
                instant(value)
            return
    if isinstance(form, list):
        require(isinstance(value, list), step, f"{path}: expected a list, got {str(value)[:80]!r}")
        for i, item in enumerate(value):
            check(item, form[0], step, f"{path}/{i}")
        return
    require(isinstance(value, dict), step, f"{path}: expected members, got {str(value)[:80]!r}")
    missing = {name for name in form if name[-1] != "?"} - set(value)
    unknown = set(value) - {name.rstrip("?") for name in form}
    require(
        not missing and not unknown,
        step,
        f"{path}: missing {sorted(missing)}, unknown {sorted(unknown)}"[:400],
    )
    for name, inner in form.items():
        if name.rstrip("?") in value:
            check(value[name.rstrip("?")], inner, step, f"{path}/{name.rstrip('?')}")
    if "point" in value:
        ordered = int(value["lower"]) <= int(value["point"]) <= int(value["upper"])
        require(ordered, step, f"{path}: expected lower <= point <= upper")


def instant(text: str) -> datetime:
    """The second of an RFC 3339 time in UTC."""
    try:
        return datetime.fromisoformat(text[:19]).replace(tzinfo=UTC)
    except ValueError:
        raise EvidenceError("schema", f"expected a time that there is, got {text}") from None


def escaped(key: str) -> str:
    """A key within a path (RFC 6901)."""
    return key.replace("~", "~0").replace("/", "~1")


def fields(predicate: Mapping[str, Any]) -> Iterator[tuple[str, Any, bool]]:
    """(path, value, whether it is there) of every field of the record that this view has a place for."""
    for group, form in schema()["statement"]["predicate"].items():
        if group[-1] == "?":
            yield f"/{group[:-1]}", predicate.get(group[:-1]), group[:-1] in predicate
        elif isinstance(form, dict):
            for name in (n[:-1] for n in form if n[-1] == "?"):
                yield f"/{group}/{name}", predicate[group].get(name), name in predicate[group]
    for path, key, items in (
        ("/totals/countable", "regime", predicate["totals"]["countable"]),
        ("/thresholds", "rule", predicate["thresholds"]),
    ):
        for item in items:
            yield f"{path}/{escaped(item[key])}", item, True


def check_disclosures(predicate: Mapping[str, Any], disclosures: list[str]) -> set[str]:
    """Every field is disclosed as it is shown, or named among the redactions; the paths of those."""
    step, record, redactions = "disclosures", predicate["record"], predicate["redactions"]
    require(
        f"sha256:{record_digest(record['fieldDigests'])}" == record["digest"],
        step,
        "record.digest is of other fields",
    )
    opened = open_disclosures(disclosures, record["fieldDigests"])
    forms, hidden = {r["path"]: r["form"] for r in redactions}, {r["digest"] for r in redactions}
    once = len(forms) == len(hidden) == len(redactions) and hidden <= set(record["fieldDigests"])
    once = once and not set(forms) & set(opened) and not hidden & set(map(field_digest, disclosures))
    require(once, step, "a redaction's path or digest comes twice, is disclosed, or is not of the record")
    shown = {"/run/name"}  # what run.pseudonym stands for; shown to nobody
    for path, value, there in fields(predicate):
        require(path not in shown, step, f"{path} stands there twice")
        shown.add(path)
        if path in opened:
            require(there and opened[path] == value, step, f"{path}: shown otherwise than the record has it")
        else:
            named = forms.get(path, "") not in {"", "withheld"} if there else forms.get(path) == "withheld"
            require(named, step, f"{path}: neither disclosed nor redacted in a way that fits")
    require(set(opened) <= shown, step, f"disclosed and not shown: {sorted(set(opened) - shown)}"[:200])
    owed, auditor = OWED[predicate["profile"]], predicate["profile"] == "auditor"
    # What is owed may be rounded (regulations.md 13.18: two figures, an order of magnitude), never withheld.
    whole = (
        (p for p in forms if p != "/run/name") if auditor else (p for p in forms if forms[p] == "withheld")
    )
    less = [p for p in whole if p.startswith(owed)]
    require(
        not less and predicate["thresholds"],
        step,
        f"withheld or changed, and owed: {less or '/thresholds'}"[:200],
    )
    may = (*_ROUNDED, "/thresholds/") if predicate["profile"] == "downstream" else _ROUNDED
    other = [
        p
        for p, form in forms.items()
        if (form == "pseudonymised") is not (p == "/run/name")
        or (form in {"rounded", "aggregated"} and not p.startswith(may))
    ]
    require(not other, step, f"changed, and no quantity that could be rounded: {other}"[:200])
    return set(forms)


def check_arithmetic(predicate: Mapping[str, Any], redacted: set[str]) -> list[tuple[str, str, str]]:
    """Parts add up, and each status is the one of its figures: (rule, status, how it is known)."""
    step, totals = "arithmetic", predicate["totals"]
    figures = {
        f"countable:{c['regime']}": (c["flop"], f"/totals/countable/{escaped(c['regime'])}")
        for c in totals["countable"]
    }
    figures["executed"] = (totals.get("executedFlop"), "/totals/executedFlop")
    total, exact = figures["executed"][0], "/totals/executedFlop" not in redacted
    if total and exact and "byPrecision" in predicate and "/byPrecision" not in redacted:
        parts = [p["flop"] for p in predicate["byPrecision"]]
        sums, whole = (
            [sum(int(p[b]) for p in ps) for b in ("lower", "point", "upper")] for ps in (parts, [total])
        )
        right = sums[1] == whole[1] and sums[0] <= whole[0] and sums[2] >= whole[2]
        require(right, step, f"byPrecision adds up to {sums}, executedFlop is {whole}")
    classes = predicate["method"].get("evidenceClasses", [])
    share = sum(Fraction(c["flopShare"]) for c in classes)
    require(share == 1 or not classes, step, f"the evidence classes' shares add up to {share}, not to 1")
    _check_time(predicate, redacted)
    if (
        total and exact
    ):  # points are exact: what is not counted must be excluded, by an entry that is in the log
        for c in totals["countable"]:
            point = sum(int(part["flop"]["point"]) for part in (c, *c["excluded"]))
            full = point >= int(total["point"]) or f"/totals/countable/{escaped(c['regime'])}" in redacted
            require(full, step, f"{c['regime']}: counted and excluded are less than what was executed")
    found = []
    for t in predicate["thresholds"]:
        figure, path = figures.get(t["total"], (None, f"/totals/countable/{escaped(t['total'][10:])}"))
        there = figure or path in redacted
        require(there, step, f"{t['rule']}: of {t['total']}, which is neither shown nor redacted")
        dated = (t["status"] == "crossed") is (t["firstCrossedAt"] is not None)
        dated = dated or f"/thresholds/{escaped(t['rule'])}" in redacted
        require(dated, step, f"{t['rule']}: {t['status']}, and firstCrossedAt is {t['firstCrossedAt']}")
        limit, status, how = Fraction(t["limit"]), t["status"], "stated, its total is not shown"
        require(str(limit) == t["limit"], step, f"{t['rule']}: the limit is not in lowest terms")
        if figure:
            lower, upper = (int(figure[b]) > limit or (int(figure[b]) == limit and t["comparison"] == ">=")
                            for b in ("lower", "upper"))  # fmt: skip
            told = "crossed" if lower else "undetermined" if upper else "below"
            how = "stated, its total is rounded" if path in redacted and told != status else "recomputed"
            fits = told == status or (path in redacted and told == "undetermined")
            require(fits, step, f"{t['rule']}: stated as {status}, the figures say {told}")
        logged = t["eventLogIndex"] is not None or status == "below"
        require(logged, step, f"{t['rule']}: {status} without an event in the log")
        found.append((t["rule"], status, how))
    return found


def _check_time(predicate: Mapping[str, Any], redacted: set[str]) -> None:
    """Period, device time and coverage agree, as far as they are shown as the record has them; rounded they still add up."""
    step, found = "arithmetic", dict[str, Any]()
    for group in ("period", "totals", "coverage"):
        kept = {f"/{group}/{n}": v for n, v in predicate[group].items()}
        found |= {path: v for path, v in kept.items() if group == "coverage" or path not in redacted}
    begin, end, wall = (found.get(p) for p in ("/period/start", "/period/end", "/totals/wallSeconds"))
    if begin and end:
        took = max(Fraction(0), seconds(end) - seconds(begin))  # clocks may have been set back
        require(wall in {None, str(took)}, step, f"from {begin} to {end} are {took} s, wallSeconds is {wall}")
    expected, observed, gaps = (
        found.get(f"/coverage/{n}") for n in ("expectedDeviceSeconds", "observedDeviceSeconds", "gaps")
    )
    if expected and observed and gaps:
        missing = Fraction(expected) - Fraction(observed)
        told = f"coverage: {missing} device-seconds were not observed, gaps.seconds is {gaps['seconds']}"
        require(missing == Fraction(gaps["seconds"]), step, told)
    device = found.get("/totals/deviceSeconds")
    same = device in {None, expected} or expected is None or "/coverage/expectedDeviceSeconds" in redacted
    require(same, step, f"deviceSeconds is {device}, coverage.expectedDeviceSeconds is {expected}")


def seconds(text: str) -> Fraction:
    """Unix seconds of an RFC 3339 time in UTC, exact."""
    whole = instant(text) - datetime(1970, 1, 1, tzinfo=UTC)
    return whole.days * 86_400 + whole.seconds + Fraction(f"0{text[19:-1]}")
