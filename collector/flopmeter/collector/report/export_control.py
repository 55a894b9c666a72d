"""Total processing performance (TPP) and performance density of a card: figures of US export control. Pure.

    TPP = 2 x MacTOPS x bit length = dense TOPS x bit length, at the bit length that gives most
    performance density = TPP / applicable die area in mm2

They stand apart: they weight operations by their width, and every threshold on training counts operations as they are
(reference/regulations.md section 9, and 13.15). No figure of this module is an operation, and none is added up. TOPS are
taken to four significant figures, as data sheets print them (H100: 1979 x 8 = 15,832). Rules are data
(export_control.toml); what a card is classified as is its maker's to say.
"""

import functools
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import ROUND_HALF_EVEN, Context
from fractions import Fraction
from importlib import resources
from typing import Any

from flopmeter.collector.estimate.peaks import DTYPES, dense
from flopmeter.contract.w_table import Sku, WTable

from .peak import sku_of

_TERA = 10**12
_FOUR = Context(prec=4, rounding=ROUND_HALF_EVEN)
MET, NOT_MET, NOT_KNOWN = "met", "not met", "not known"
_KEYS = ("tpp_from", "tpp_below", "density_from", "dram_gb_per_s_below")


@dataclass(frozen=True, slots=True)
class Rule:
    """A rule on a card: any of `tests` is enough, all of a test's bounds must hold."""

    id: str
    citation: str
    says: str
    source: str
    tests: tuple[Mapping[str, Fraction], ...]


@dataclass(frozen=True, slots=True)
class Die:
    """An area of logic dies, for models whose name has `name` in it (a regular expression)."""

    name: str
    mm2: Fraction
    source: str


@dataclass(frozen=True, slots=True)
class Control:
    """The data file."""

    version: str
    bits: Mapping[str, int]
    rules: tuple[Rule, ...]
    dies: tuple[Die, ...]


@functools.cache
def shipped() -> Control:
    """The file that comes with this version."""
    raw = resources.files("flopmeter.collector").joinpath("report/export_control.toml").read_bytes()
    return parse(raw)


def parse(raw: bytes) -> Control:
    """Numbers are decimal strings: exact."""
    data = tomllib.loads(raw.decode())
    rules = tuple(
        Rule(
            r["id"],
            r["citation"],
            r["says"],
            r["source"],
            tuple({key: Fraction(test[key]) for key in _KEYS if key in test} for test in r["any_of"]),
        )
        for r in data["rule"]
    )
    dies = tuple(Die(d["name"], Fraction(d["mm2"]), d["source"]) for d in data["die"])
    return Control(data["version"], data["bits"], rules, dies)


@dataclass(frozen=True, slots=True)
class Card:
    """The figures of one model. None: not known."""

    tpp: Fraction | None
    tops: Fraction | None
    precision: str
    bits: int
    die: Die | None

    @property
    def density(self) -> Fraction | None:
        return None if self.tpp is None or self.die is None else self.tpp / self.die.mm2


def card(model: str, table: WTable, control: Control) -> Card:
    """Of a model that the W table knows no peak of nothing is said."""
    sku = sku_of(model, table)
    die = next((d for d in control.dies if re.search(d.name, model)), None)
    best = Card(None, None, "", 0, die)
    for precision, bits in control.bits.items() if sku is not None else ():
        assert sku is not None
        tops = _tops(sku, precision, table)
        if tops is not None and (best.tpp is None or tops * bits > best.tpp):
            best = Card(tops * bits, tops, precision, bits, die)
    return best


def _tops(sku: Sku, precision: str, table: WTable) -> Fraction | None:
    """Dense tera-operations a second of one card, to four significant figures: printed, else computed."""
    printed = sku.peaks.get(DTYPES.get(precision, precision))
    if printed is not None:
        return Fraction(_FOUR.create_decimal(str(printed)))
    if precision not in DTYPES:
        return None
    computed = dense(sku, precision, table)
    return None if computed is None else Fraction(_FOUR.create_decimal(int(computed))) / _TERA


def answer(rule: Rule, found: Card) -> str:
    """MET, NOT_MET, or NOT_KNOWN where a figure that decides it is not known."""
    answers = [_test(test, found) for test in rule.tests]
    if MET in answers:
        return MET
    return NOT_KNOWN if NOT_KNOWN in answers else NOT_MET


def _test(test: Mapping[str, Fraction], found: Card) -> str:
    holds: list[bool | None] = []
    for key, bound in test.items():
        # DRAM bandwidth is in neither the W table nor an inventory: not known of any card.
        value = {"tpp": found.tpp, "density": found.density}.get(key.partition("_")[0])
        if value is None:
            holds.append(None)
        else:
            holds.append(value < bound if key.endswith("below") else value >= bound)
    if False in holds:
        return NOT_MET
    return NOT_KNOWN if None in holds else MET


def card_json(model: str, table: WTable) -> dict[str, Any]:
    """`fleet inventory --json`, of one model under "export_control"; numbers are decimal strings."""
    control = shipped()
    found = card(model, table, control)
    density = found.density
    return {
        "tpp": None if found.tpp is None else _decimal(found.tpp),
        "at": None
        if found.tops is None
        else f"{_decimal(found.tops)} dense TOPS × {found.bits} bit ({found.precision})",
        "performance_density": None if density is None else _decimal(density),
        "die_mm2": None if found.die is None else _decimal(found.die.mm2),
        "die_source": None if found.die is None else found.die.source,
        "rules": {rule.id: answer(rule, found) for rule in control.rules},
        "version": control.version,
    }


def rules_json() -> list[dict[str, str]]:
    """What the rules say, and where that is from."""
    return [{"id": r.id, "citation": r.citation, "says": r.says, "source": r.source} for r in shipped().rules]


def _decimal(value: Fraction) -> str:
    """Two decimals at most, half to even, no zeros behind."""
    text = f"{round(value * 100) // 100}.{round(value * 100) % 100:02d}"
    return text.rstrip("0").rstrip(".")
