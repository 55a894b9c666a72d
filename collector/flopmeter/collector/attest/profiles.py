"""Who is shown what of a record: shown as it is, rounded, in one sum, under a pseudonym, or withheld, and why. Pure.

Source: reference/regulations.md 13.18 and 13.19. A rounded view repeats the unrounded status. Nothing is left out
without being named: what is withheld stands in `redactions` with its digest and the reason.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from fractions import Fraction
from typing import Any, NamedTuple

from flopmeter.contract.flop import Figure

from . import rounding
from .errors import AttestError
from .values import figure, figure_of, fraction

AI_OFFICE, NATIONAL, AUDITOR, DOWNSTREAM = PROFILES = (
    "aiOffice",
    "nationalAuthority",
    "auditor",
    "downstream",
)
#: Regimes whose recipient the AI Office is.
_EU = "eu-"


class Form(StrEnum):
    """How a field differs from the record's."""

    WITHHELD = "withheld"
    ROUNDED = "rounded"
    AGGREGATED = "aggregated"
    PSEUDONYMISED = "pseudonymised"


class Redaction(NamedTuple):
    """A field that is not shown as the record has it."""

    path: str
    form: Form
    reason: str


@dataclass(frozen=True, slots=True)
class View:
    """What one profile shows of a record."""

    shown: Mapping[str, Any]  # by path; withheld ones are absent
    redactions: tuple[Redaction, ...]  # sorted by path


class _Rule(NamedTuple):
    """What happens to fields whose path is `path`, or begins with it where it ends in a slash or a star. First come."""

    path: str
    form: Form | None  # None: shown as it is
    reason: str = ""
    change: "Callable[[Any, Mapping[str, Any]], Any] | None" = (
        None  # (value, the whole record) -> what is shown
    )


_PSEUDONYM = _Rule("/run/name", Form.PSEUDONYMISED, "recipients know a run by a name of their own")
_TWO = "two significant figures are owed (regulations 13.18); bounds are rounded outwards"
_ORDER = "an order of magnitude is owed (regulations 13.18)"
_PERCENT = "whole percent: exact shares would give an exact total away"
_NOT_OWED = "not owed to this recipient (regulations 13.18)"
_OTHERS = "another authority's rule"


def view(values: Mapping[str, Any], profile: str) -> View:
    """What `profile` shows of the record. Raises AttestError for a profile that is none."""
    rules = _RULES.get(profile)
    if rules is None:
        raise AttestError(f"profile: expected one of {', '.join(PROFILES)}, got {profile!r}")
    shown: dict[str, Any] = {}
    redactions = []
    # An authority whose rules hold no line of this run is told of the others', rather than of none.
    own = profile != AI_OFFICE or any(p.startswith(f"/thresholds/{_EU}") for p in values)
    for path in sorted(values):
        rule = next(r for r in rules if _fits(r, path) and (own or r.reason != _OTHERS))
        value = values[path]
        if rule.form in (Form.WITHHELD, Form.PSEUDONYMISED):
            redactions.append(Redaction(path, rule.form, rule.reason))
            continue
        shown[path] = value if rule.change is None else rule.change(value, values)
        if rule.form is not None and shown[path] != value:
            redactions.append(Redaction(path, rule.form, rule.reason))
    return View(shown, tuple(redactions))


def _fits(rule: _Rule, path: str) -> bool:
    return path.startswith(rule.path.rstrip("*")) if rule.path.endswith(("/", "*")) else path == rule.path


# ---- changes -----------------------------------------------------------------------------------------------


def _rounded(value: Any, _: Mapping[str, Any]) -> Any:
    return figure(rounding.rounded(figure_of(value)))


def _order(value: Any, _: Mapping[str, Any]) -> Any:
    return figure(rounding.order_of(figure_of(value)))


def _rounded_lines(lines: Any, values: Mapping[str, Any]) -> Any:
    whole = figure_of(values["/totals/executedFlop"])
    parts = rounding.rounded_parts(whole, [figure_of(line["flop"]) for line in lines])
    return [line | {"flop": figure(part)} for line, part in zip(lines, parts, strict=True)]


def _one_line(_: Any, values: Mapping[str, Any]) -> Any:
    whole = rounding.order_of(figure_of(values["/totals/executedFlop"]))
    return [{"pipe": "all", "format": "unknown", "flop": figure(whole)}] if whole.upper else []


def _with(change: Callable[[Figure], Figure]) -> Callable[[Any, Mapping[str, Any]], Any]:
    """Every figure within the value."""

    def walk(value: Any) -> Any:
        if isinstance(value, list):
            return [walk(v) for v in value]
        if isinstance(value, dict):
            if value.keys() == {"lower", "point", "upper"}:
                return figure(change(figure_of(value)))
            return {k: walk(v) for k, v in value.items()}
        return value

    return lambda value, _: walk(value)


def _near(value: Any, _: Mapping[str, Any]) -> Any:
    return fraction(rounding.near(Fraction(value)))


def _energy(value: Any, _: Mapping[str, Any]) -> Any:
    return (
        value
        if value["value"] is None
        else value | {"value": fraction(rounding.near(Fraction(value["value"])))}
    )


def _shares(value: Any, _: Mapping[str, Any]) -> Any:
    """In whole percent that add up to one: exact shares of a total give its last digits away."""
    percents = rounding.percents([Fraction(c["flopShare"]) for c in value])
    return [c | {"flopShare": fraction(Fraction(n, 100))} for c, n in zip(value, percents, strict=True)]


def _covered(values: Mapping[str, Any]) -> tuple[Fraction, Fraction]:
    """(expected, observed) device-seconds in the same unit: expected to the nearest, observed down."""
    expected = Fraction(values["/coverage/expectedDeviceSeconds"])
    observed = Fraction(values["/coverage/observedDeviceSeconds"])
    unit = rounding.unit_of(expected)
    return rounding.near(expected), min(observed // unit * unit, rounding.near(expected))


def _gaps(change: Callable[[int], int]) -> Callable[[Any, Mapping[str, Any]], Any]:
    def changed(value: Any, values: Mapping[str, Any]) -> Any:
        expected, observed = _covered(values)
        gap = expected - observed
        return value | {
            "seconds": fraction(gap),
            "longestSeconds": fraction(min(rounding.near(Fraction(value["longestSeconds"])), gap)),
            "flopUpperAdded": str(change(int(value["flopUpperAdded"]))),
        }

    return changed


def _upper(change: Callable[[int], int]) -> Callable[[Any, Mapping[str, Any]], Any]:
    return lambda value, _: {"upper": str(change(int(value["upper"])))}


def _status_alone(value: Any, _: Mapping[str, Any]) -> Any:
    return value | dict.fromkeys(("firstCrossedAt", "knownWillBeMetAt", "dueAt"))


def _time(change: Callable[[int], int]) -> tuple[_Rule, ...]:
    """Coverage, its times to two figures and its FLOP as `change` has them."""
    return (
        _Rule("/coverage/expectedDeviceSeconds", Form.ROUNDED, _TWO, lambda _, v: fraction(_covered(v)[0])),
        _Rule("/coverage/observedDeviceSeconds", Form.ROUNDED, _TWO, lambda _, v: fraction(_covered(v)[1])),
        _Rule("/coverage/gaps", Form.ROUNDED, _TWO, _gaps(change)),
        _Rule("/coverage/unattributedFlop", Form.ROUNDED, _TWO, _upper(change)),
    )


def _withheld(*paths: str, reason: str = _NOT_OWED) -> Iterable[_Rule]:
    return (_Rule(path, Form.WITHHELD, reason) for path in paths)


_SHOWN = _Rule("/", None)
_RULES: Mapping[str, tuple[_Rule, ...]] = {
    AUDITOR: (_PSEUDONYM, _SHOWN),
    AI_OFFICE: (
        _PSEUDONYM,
        _Rule("/run/lineage", Form.ROUNDED, _TWO, _with(rounding.rounded)),
        _Rule("/run/linkedRuns", Form.ROUNDED, _TWO, _with(rounding.rounded)),
        _Rule("/totals/executedFlop", Form.ROUNDED, _TWO, _rounded),
        _Rule("/totals/deviceSeconds", Form.ROUNDED, _TWO, _near),
        _Rule("/totals/wallSeconds", Form.ROUNDED, _TWO, _near),
        _Rule("/totals/energyJoules", Form.ROUNDED, _TWO, _energy),
        _Rule(f"/totals/countable/{_EU}*", Form.ROUNDED, _TWO, _with(rounding.rounded)),
        _Rule(f"/thresholds/{_EU}*", None),
        *_withheld("/totals/countable/", "/thresholds/", reason=_OTHERS),
        _Rule("/totals/countable/", Form.ROUNDED, _TWO, _with(rounding.rounded)),
        _Rule("/byPrecision", Form.ROUNDED, _TWO, _rounded_lines),
        _Rule("/method/evidenceClasses", Form.ROUNDED, _PERCENT, _shares),
        _Rule("/method/secondMethod", Form.ROUNDED, _TWO, _with(rounding.rounded)),
        *_time(rounding.up),
        *_withheld("/inventory/devices"),
        _SHOWN,
    ),
    NATIONAL: (
        _PSEUDONYM,
        *_withheld("/run/lineage", "/run/linkedRuns", "/inventory/devices"),
        *_withheld("/totals/deviceSeconds", "/totals/energyJoules"),
        _Rule("/totals/executedFlop", Form.ROUNDED, _ORDER, _order),
        _Rule("/totals/wallSeconds", Form.ROUNDED, _TWO, _near),
        _Rule("/totals/countable/", Form.ROUNDED, _ORDER, _with(rounding.order_of)),
        _Rule("/byPrecision", Form.AGGREGATED, _ORDER, _one_line),
        _Rule("/method/evidenceClasses", Form.ROUNDED, _PERCENT, _shares),
        _Rule("/method/secondMethod", Form.ROUNDED, _ORDER, _with(rounding.order_of)),
        *_time(rounding.power_above),
        _SHOWN,
    ),
    DOWNSTREAM: (
        _PSEUDONYM,
        _Rule("/run/kind", None),
        _Rule("/period/end", None),
        _Rule("/thresholds/", Form.AGGREGATED, "of a threshold its status is owed", _status_alone),
        *_withheld("/"),
    ),
}
