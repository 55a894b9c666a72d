"""Regimes as documents and as pages: the line, what follows, and what its counting profile counts. Pure."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from flopmeter.cli.layout import Paint, Row, table, wrapped
from flopmeter.cli.output import flop_text
from flopmeter.collector import empty

from .profiles import Profile, Ruling
from .regimes import HISTORICAL, KNOWN, MODIFICATION, Regime
from .rules import in_force

_COLOUR = {"counts": "green", "silent": "yellow", "excluded": None}
_SAID = {"counts": "counts", "silent": "silent", "excluded": "left out"}
_NAME, _ANSWER = 23, 13  # columns of the matrix


def regime_document(regime: Regime, now_unix_ns: int) -> dict[str, Any]:
    """The file as JSON, and whether it binds; numbers that can be large or broken are strings."""
    document = asdict(regime)
    document["threshold_flop"] = str(regime.threshold_flop)
    document["share"] = str(regime.share)
    document["early"] = [str(part) for part in regime.early]
    del document["text"]
    document["historical"] = regime.status in HISTORICAL
    document["may_bind"] = regime.may_bind
    if regime.capacity is not None:
        document["capacity"]["op_s"] = str(regime.capacity.op_s)
    for key in ("status_as_of", "effective", "ends"):
        document[key] = document[key].isoformat() if document[key] else None
    document["in_force"] = in_force(regime, now_unix_ns)
    profile = regime.counted_by
    document["profile"] = profile_document(profile) if profile else None
    return document


def profile_document(profile: Profile) -> dict[str, Any]:
    """One column of the counting matrix."""
    return {
        "id": profile.id,
        "title": profile.title,
        "version": profile.version,
        "digest": profile.digest,
        "source": profile.source,
        "open_questions": list(profile.open_questions),
        "purposes": {p.value: _ruling(r) for p, r in profile.purposes.items()},
        "relations": {r.value: _ruling(ruling) for r, ruling in profile.relations.items()},
    }


def _ruling(ruling: Ruling) -> dict[str, Any]:
    return {
        "answer": ruling.answer.value,
        "words": ruling.words,
        "source": ruling.source,
        "inferred": ruling.inferred,
    }


def regimes_view(regimes: Sequence[Mapping[str, Any]], paint: Paint) -> str:
    """`regimes list`."""
    head = ("regime", "line (FLOP)", "status", "effective", "what follows", "title")
    rows: list[Row] = [
        (
            (r["id"], {"bold": True, "dim": not r["may_bind"]}),
            (line_text(r), {}),
            (status_text(r), {"fg": "green" if r["in_force"] else "yellow" if r["may_bind"] else None}),
            (r["effective"] or "-", {}),
            (r["act"], {}),
            (r["title"], {"dim": True}),
        )
        for r in regimes
    ]
    notes = [f"{r['id']} is the site's own{_instead(r)}." for r in regimes if r["origin"] == "site"]
    notes.append("What is proposed or historical raises nothing; a site turns one on with a file of its own.")
    lines = [line for note in notes for line in wrapped(note, paint.width, "", "")]
    return "\n".join([table(head, rows, paint, spare=(5, 4)), *(paint(line, dim=True) for line in lines)])


def _instead(r: Mapping[str, Any]) -> str:
    return f" and stands in the place of the shipped {r['replaces']}" if r["replaces"] else ""


def status_view(document: Mapping[str, Any], paint: Paint) -> str:
    """`regimes status`."""
    said = {
        "same": ("as here", "green"),
        "other-text": ("another text is here", "yellow"),
        "not-here": ("not among the files here", "yellow"),
        "not-judged": ("here, and not judged by", "yellow"),
        "faulty": ("not compared", "yellow"),
    }
    rows: list[Row] = [
        (
            (r["regime"], {"bold": True}),
            (r["version"] or "-", {}),
            ((r["digest"] or "-")[:12], {}),
            ((r["since"] or "-")[:16], {}),
            (said[r["files"]][0], {"fg": said[r["files"]][1]}),
        )
        for r in document["regimes"]
    ]
    if not any(r["since"] for r in document["regimes"]):
        return empty.JUDGED
    return table(("regime", "version", "sha256", "judged by since", "files"), rows, paint, spare=(2,))


def status_text(r: Mapping[str, Any]) -> str:
    """Whether it binds, in a word or two."""
    if r["in_force"]:
        return "binds now"
    if r["replaced_by"]:
        return "replaced"
    return "historical" if r["historical"] else str(r["status"])


def line_text(r: Mapping[str, Any]) -> str:
    """The line of a regime document in a few characters."""
    if r["capacity"]:
        return f"{r['comparison']} {power(r['capacity']['op_s'])} op/s"
    if r["scope"] != MODIFICATION and r["threshold_flop"] == "0":
        return "none in the text"
    if r["scope"] != MODIFICATION:
        return f"{r['comparison']} {power(r['threshold_flop'])}"
    if r["share"] == "1":
        return f"{r['comparison']} {power(r['threshold_flop'])} of its own"
    of = "original" if r["original"] == KNOWN else power(r["threshold_flop"])
    return f"{r['comparison']} {r['share']} of {of}"


def power(threshold: str) -> str:
    """10^25 where it is a power of ten."""
    return f"10^{len(threshold) - 1}" if threshold.strip("0") == "1" else flop_text(int(threshold))


def regime_view(r: Mapping[str, Any], paint: Paint) -> str:
    """`regimes show`: the whole file, in words, and what it counts."""
    title = wrapped(f"{r['id']}  {r['title']}", paint.width, "", "")
    line = f"{line_text(r)} {r['unit'].replace('-', ' ')} operations"
    if r["scope"] != MODIFICATION and r["threshold_flop"] != "0":
        line = f"{r['comparison']} {r['threshold_flop']} {r['unit'].replace('-', ' ')} operations"
    lines = [
        title[0].replace(r["id"], paint(r["id"], bold=True), 1),
        *title[1:],
        *(paint(line, dim=True) for line in wrapped(r["citation"], paint.width, "", "")),
        "",
        f"  line        {line}",
        f"  status      {r['status']} as of {r['status_as_of']}"
        + (f", effective {r['effective']}" if r["effective"] else "")
        + (f", ends {r['ends']}" if r["ends"] else ""),
    ]
    if not r["in_force"]:
        why = f"replaced by the site's {r['replaced_by']}: " if r["replaced_by"] else ""
        why += "historical: " if r["historical"] else ""
        lines.append(f"{'':14}{paint(f'{why}not in force now: raises nothing', 'yellow')}")
    texts = (
        ("counted", r["counting_note"] if r["profile"] else f"Executed total. {r['counting_note']}"),
        ("when met", r["when_met"]),
        ("recipient", r["recipient"]),
        ("deadline", r["deadline"]),
        *(("", _due(d)) for d in r["deadlines"]),
        ("early", _early(r)),
        ("also needed", "; ".join(r["conditions"]) or "nothing else"),
        ("open", "; ".join(r["open_questions"]) or "no open question recorded"),
        ("source", r["source"]),
        ("file", f"version {r['version']}, sha256 {r['digest']}, {_origin(r)}"),
    )
    for name, text in texts:
        lines += _named(name, text, paint)
    if r["profile"]:
        lines += ["", *_matrix(r["profile"], paint)]
    return "\n".join(lines)


def _due(d: Mapping[str, Any]) -> str:
    if d["calendar"]:
        when = "each " + ", ".join(f"{month:02d}-{day:02d}" for month, day in d["calendar"])
    else:
        when = f"{d['after_hours']} hours" if d["after_hours"] else f"{d['after_days']} days"
        when += f" after: {_TRIGGERS[d['trigger']]}"
    return f"{d['id']}: {when} ({d['timezone']}). {d['what']}. To: {d['recipient']}. From: {d['source']}."


_TRIGGERS = {
    "known": "met, or known that it will be",
    "met": "met",
    "first-covered": "first met by any run of the organisation",
    "incident": "an incident that a person opens",
}


def _early(r: Mapping[str, Any]) -> str:
    return (
        f"warns from {' and '.join(r['early'])} of the line on"
        if r["early"]
        else "no warning before the line"
    )


def _origin(r: Mapping[str, Any]) -> str:
    return f"the site's own{_instead(r)}" if r["origin"] == "site" else "shipped with this version"


def _matrix(p: Mapping[str, Any], paint: Paint) -> list[str]:
    lines = [
        paint(f"  What it counts: profile {p['id']}", bold=True),
        *wrapped(p["title"], paint.width, "    ", ""),
    ]
    lines += ["", *_rulings("what the time was for", p["purposes"], paint)]
    lines += ["", *_rulings("what the run stands on", p["relations"], paint), ""]
    note = (
        "Untagged time counts, and so does what the text is silent on; a report says which. (R): inferred, the "
        "text does not say it in words. --json has the source of each."
    )
    lines += [paint(line, dim=True) for line in wrapped(note, paint.width, "    ", "")]
    lines += _named("open", "; ".join(p["open_questions"]) or "no open question recorded", paint)
    lines += _named("source", p["source"], paint)
    lines += _named("file", f"version {p['version']}, sha256 {p['digest']}", paint)
    return lines


def _rulings(head: str, rulings: Mapping[str, Mapping[str, Any]], paint: Paint) -> list[str]:
    lines = [paint(f"    {head}", dim=True)]
    for name, r in rulings.items():
        answer = f"{_SAID[r['answer']]}{' (R)' if r['inferred'] else ''}"
        first, *rest = wrapped(r["words"], paint.width, " " * (_NAME + _ANSWER + 4), "")
        shown = paint(f"{answer:{_ANSWER}}", _COLOUR[r["answer"]])
        lines += [f"    {name:{_NAME}}{shown}{first.strip()}", *rest]
    return lines


def _named(name: str, text: str, paint: Paint) -> list[str]:
    first, *rest = wrapped(text, paint.width, " " * 14, "")
    return [f"  {name:12}{first.strip()}", *rest]
