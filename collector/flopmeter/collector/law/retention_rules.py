"""Retention rules: what must be kept, how long, and from when on, as `[[retention]]` of a regime's file. Pure."""

from dataclasses import dataclass

from .toml_keys import Keys

PLACED = "placed"  # the day on which the run's model was placed on the market
WITHDRAWN = (
    "withdrawn"  # the last day on which it was deployed; only of runs that may have met the regime's line
)
INCIDENT = "incident"  # the day on which an incident of the regime was opened
BEGINS = (PLACED, WITHDRAWN, INCIDENT)
MAX_YEARS = 100


@dataclass(frozen=True, slots=True)
class RetentionRule:
    """One thing that must be kept: for whole years, from the day after the one that `begins` names."""

    id: str  # of its own within the regime
    what: str  # in words: what is kept
    years: int
    begins: str  # one of BEGINS
    source: str


def retention_rules(keys: Keys) -> tuple[RetentionRule, ...]:
    """The `[[retention]]` of a regime's file; none, if it has none. Raises RegimeError."""
    found: dict[str, RetentionRule] = {}
    for table in keys.tables("retention"):
        rule = RetentionRule(
            table.id(),
            table.text("what"),
            table.count("years", MAX_YEARS),
            table.one_of("begins", BEGINS),
            table.text("source"),
        )
        table.none_left()
        if rule.id in found:
            raise table.fault("id", "an id that no other retention of this file has", rule.id)
        found[rule.id] = rule
    return tuple(found.values())
