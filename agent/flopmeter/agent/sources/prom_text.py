"""A small, strict parser of the Prometheus text format: as much of it as an exporter of gauges uses.

Own, because prometheus_client's parser gives up the whole page at the first bad line and takes several
times longer. Here a malformed line is refused alone and counted: one bad row must not blind all GPUs. What
the caller may conclude from a page with refused lines is the caller's decision.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

#: A sample line of an exporter has some 20 labels of at most 256 characters; longer is not one.
MAX_LINE_BYTES = 16_384

_SAMPLE = re.compile(
    r"([a-zA-Z_:][a-zA-Z0-9_:]*)(?:\{(.*)\})?[ \t]+([^ \t]+)(?:[ \t]+-?[0-9]{1,19})?[ \t]*\Z"
)
_LABEL = re.compile(r'[ \t]*([a-zA-Z_][a-zA-Z0-9_]*)[ \t]*=[ \t]*"((?:[^"\\]|\\[\\"n])*)"[ \t]*(?:,|\Z)')
_INTEGER = re.compile(r"[+-]?[0-9]{1,40}\Z")
_DECIMAL = re.compile(r"[+-]?(?:[0-9]{1,40}(?:\.[0-9]{0,40})?|\.[0-9]{1,40})(?:[eE][+-]?[0-9]{1,4})?\Z")
_SPECIAL = {"nan": "nan", "inf": "inf", "+inf": "inf", "-inf": "-inf"}
_ESCAPED = re.compile(r"\\(.)")


@dataclass(frozen=True, slots=True)
class Sample:
    """One row. Whole numbers stay integers, so that counters beyond 2^53 lose nothing."""

    name: str
    labels: Mapping[str, str]
    value: int | float


@dataclass(frozen=True, slots=True)
class Page:
    """A parsed page. `refused` counts lines that break the format; `first_refused` shows one."""

    samples: tuple[Sample, ...]
    help: Mapping[str, str] = field(default_factory=dict)
    refused: int = 0
    first_refused: str = ""


def parse_page(data: bytes, prefix: str = "") -> Page:
    """Every sample whose name starts with `prefix`. Never raises, whatever the bytes are."""
    samples: list[Sample] = []
    helps: dict[str, str] = {}
    refused = 0
    first_refused = ""
    wanted = prefix.encode()
    for raw in data.split(b"\n"):
        line = raw.strip(b" \t\r")
        if line.startswith(b"#"):
            words = line.split(None, 3)
            if len(words) == 4 and words[1] == b"HELP" and words[2].startswith(wanted):
                helps[words[2].decode("utf-8", "replace")] = words[3].decode("utf-8", "replace")
            continue
        if not line or not line.startswith(wanted):
            continue
        sample = _sample(line)
        if sample is not None:
            samples.append(sample)
        else:
            refused += 1
            first_refused = first_refused or ascii(line[:80])
    return Page(tuple(samples), helps, refused, first_refused)


def _sample(line: bytes) -> Sample | None:
    if len(line) > MAX_LINE_BYTES:
        return None
    try:
        match = _SAMPLE.match(line.decode())
    except UnicodeDecodeError:
        return None
    if match is None:
        return None
    name, label_text, number = match.groups()
    labels = _labels(label_text) if label_text else {}
    value = _number(number)
    return None if labels is None or value is None else Sample(name, labels, value)


def _labels(text: str) -> dict[str, str] | None:
    labels: dict[str, str] = {}
    position = 0
    while position < len(text):
        match = _LABEL.match(text, position)
        if match is None:
            return None
        name, value = match.groups()
        if name in labels:
            return None
        labels[name] = value if "\\" not in value else _ESCAPED.sub(_unescape, value)
        position = match.end()
    return labels


def _unescape(match: re.Match[str]) -> str:
    return "\n" if match[1] == "n" else match[1]


def _number(text: str) -> int | float | None:
    if _INTEGER.match(text):
        return int(text)
    if _DECIMAL.match(text):
        return float(text)
    special = _SPECIAL.get(text.lower())
    return None if special is None else float(special)
