"""One scheduler's job in one line, for its own accounting (Slurm's AdminComment). Pure: documents, and text from them.

The line is made to be kept where others' programs read it: printable ASCII without quotes, bars and blanks in values,
and short. It says of the job what the books say of it, and of nobody else.
"""

import hashlib
import re
from collections.abc import Mapping, Sequence
from typing import Any

from flopmeter.cli.output import flop_text, lower_text, upper_text
from flopmeter.collector.spelling import figure_json, time_text
from flopmeter.contract.evidence_class import EvidenceClass

from .run_figures import RunFigures
from .unreported import Unreported

#: What the line begins with: whose it is, and its version. Keys may be added; none changes its meaning under the same number.
MARK = "flopmeter/1"
#: Slurm keeps 65,535 bytes in an AdminComment and cuts what is longer without a word (slurmdbd 22.05.8 on MariaDB, tried);
#: slurmctld took 5,000. Jobs are listed one a line, so this is for people's eyes.
MAX_CHARS = 240
MAX_NAME_CHARS = 64
#: Nobody reports the job any more, and everybody has told of the time behind it; some agent that is heard has not;
#: an agent that held it when it was last heard is silent.
COMPLETE, OPEN, LATE = "complete", "open", "late"

_SECOND_NS = 1_000_000_000
_HOUR_NS = 3_600 * _SECOND_NS
_MJ_PER_KWH = 3_600_000_000
_UNSAFE = re.compile(r"[^A-Za-z0-9._:/@+\-]")
_HASH_CHARS = 6


def summary_document(
    name: str,
    job: str,
    runs: Sequence[str],
    figures: RunFigures,
    missing: Unreported,
    *,
    state: str,
    restarts: int,
    seen_unix_ns: tuple[int, int],
) -> dict[str, Any]:
    """What `runs summary --json` prints of one job: exact figures, and the line made of them."""
    device_ns = figures.expected_ns
    document = {
        "job": job,
        "name": name,
        "state": state,
        "runs": list(runs),
        "restarts": restarts,
        "first_seen": time_text(seen_unix_ns[0]),
        "last_seen": time_text(seen_unix_ns[1]),
        "flop": figure_json(figures.flop),
        "device_seconds": device_ns / _SECOND_NS,
        "by_evidence_class": {
            label: {"device_seconds": part.duration_ns / _SECOND_NS}
            for label, part in figures.by_evidence_class.items()
        },
        "coverage": {
            "expected_device_seconds": device_ns / _SECOND_NS,
            "observed_device_seconds": figures.observed_ns / _SECOND_NS,
            "gap_device_seconds": (figures.gap_ns + figures.unreported_ns) / _SECOND_NS,
        },
        "energy_joules": figures.energy_mj / 1000,
        "energy_unmeasured_device_seconds": figures.energy_unmeasured_ns / _SECOND_NS,
        "apportioned_device_seconds": figures.apportioned_ns / _SECOND_NS,
        "no_w_table": list(figures.no_w_table),
        "silent_nodes": list(missing.nodes),
    }
    return document | {"line": _line(document, figures, device_ns)}


def _line(d: Mapping[str, Any], f: RunFigures, device_ns: int) -> str:
    flop = f.flop
    classes = ",".join(
        f"{label}:{_percent(part.duration_ns, device_ns, up=label == EvidenceClass.GAP.label)}"
        for label, part in f.by_evidence_class.items()
        if part.duration_ns
    )
    said = {
        "job": plain_name(d["job"]),
        "flop": flop_text(flop.point),
        "lower": lower_text(flop.lower),
        "upper": upper_text(flop.upper),
        "class": classes or "none",
        "gpu_h": f"{_hundredths(device_ns, _HOUR_NS)}",
        "coverage": _percent(f.observed_ns, device_ns) if device_ns else "none",
        # with "+": at least, for of some of the time nobody read it; "none": of all of it
        "energy_kwh": "none"
        if f.energy_unmeasured_ns and not f.energy_mj
        else _hundredths(f.energy_mj, _MJ_PER_KWH) + ("+" if f.energy_unmeasured_ns else ""),
    }
    if d["restarts"]:
        said["restarts"] = str(d["restarts"])
    if f.apportioned_ns:
        said["shared"] = _percent(f.apportioned_ns, device_ns, up=True)
    if d["silent_nodes"]:
        said["silent_nodes"] = str(len(d["silent_nodes"]))
    if f.no_w_table:
        said["no_w_table"] = str(len(f.no_w_table))
    text = " ".join((MARK, *(f"{key}={value}" for key, value in said.items())))
    runs = d["runs"]
    more = f",+{len(runs) - 1}" if len(runs) > 1 else ""
    room = max(MAX_CHARS - len(text) - len(" run=") - len(more), _HASH_CHARS + 2)
    return f"{text} run={plain_name(runs[0], min(room, MAX_NAME_CHARS))}{more}" if runs else text


def plain_name(name: str, limit: int = MAX_NAME_CHARS) -> str:
    """A name in few characters that nothing takes for anything else; of one that had to change, with a bit of its hash."""
    shown = _UNSAFE.sub("_", name)
    if shown == name and len(name) <= limit:
        return name
    mark = "~" + hashlib.sha256(name.encode("utf-8", "surrogatepass")).hexdigest()[:_HASH_CHARS]
    return shown[: limit - len(mark)] + mark


def _percent(part: int, whole: int, *, up: bool = False) -> str:
    """Tenths of a percent, rounded down; `up`: what is bad is rounded up."""
    tenths = -(-part * 1000 // whole) if up else part * 1000 // whole
    return f"{tenths // 10}.{tenths % 10}%"


def _hundredths(value: int, unit: int) -> str:
    n = value * 100 // unit
    return f"{n // 100}.{n % 100:02d}"
