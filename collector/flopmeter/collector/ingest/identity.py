"""Which run a workload belongs to: the first rule of an ordered list that fits. Pure.

The list is data (identity_rules.py reads it, docs/runs.md explains it). All that was seen of a workload is kept; a
rule only chooses, and the books say which rule chose.
"""

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass

from flopmeter.contract.limits import MAX_LABEL_CHARS
from flopmeter.contract.usage import Inventory, Workload, WorkloadKind

from .decide import scope_of

#: Behind the name of a rule that did not fit the row itself, but another one of its job.
INHERITED = " (inherited)"
#: What a workload says beside its identities, for `needs` and templates. The second line: templates only.
FIELDS = ("run", "job", "step", "user")
PLACES = ("kind", "scope", "cluster", "node")
NOBODY = ("", "none")
_HASH_CHARS = 16


@dataclass(frozen=True, slots=True)
class Rule:
    """One line of the list: fits where all of `needs` were seen, none with a value that says nothing."""

    name: str
    needs: tuple[str, ...]  # identities, or FIELDS
    run: tuple[tuple[str, str], ...]  # template: (literal text, name of a value behind it, "" = none)
    kinds: frozenset[WorkloadKind] = frozenset()  # empty: all that are somebody's
    match: tuple[tuple[str, re.Pattern[str]], ...] = ()  # of those identities the whole value
    reject: frozenset[str] = frozenset()  # casefolded values of any of `needs`
    attempt: tuple[str, ...] = ()  # identities that tell one attempt of the run from the next

    def fits(self, workload: Workload, seen: Mapping[str, str], none: frozenset[str]) -> bool:
        """`none`: casefolded values that a user's own identities must not have in any rule."""
        if self.kinds and workload.kind not in self.kinds:
            return False
        for name in self.needs:
            value = seen.get(name, "").strip().casefold()
            if not value or value in self.reject or (value in none and _by_user(name)):
                return False
        return all(pattern.fullmatch(seen.get(name, "")) for name, pattern in self.match)


@dataclass(frozen=True, slots=True)
class RuleList:
    """The rules in their order. The last one always fits: what no rule groups is its own run."""

    rules: tuple[Rule, ...]
    reject: frozenset[str] = frozenset()  # casefolded values that users' own identities may not name a run by
    #: Identities by which a scheduler's job differs from a later one of the same id.
    apart: tuple[str, ...] = ()
    text: str = ""  # as the store keeps it (identity_rules.of_text reads it again)

    @property
    def digest(self) -> str:
        """SHA-256 of the text, hex."""
        return hashlib.sha256(self.text.encode()).hexdigest()

    def rank(self, rule: str) -> int | None:
        """The lower, the stronger. None: not of this list; what it chose stands, and nothing follows it."""
        name = rule.removesuffix(INHERITED)
        return next((rank for rank, known in enumerate(self.rules) if known.name == name), None)


def choose(workload: Workload, inventory: Inventory, rules: RuleList) -> tuple[str, str]:
    """(run, name of the rule that chose). Idle and unattributed time is nobody's: ("", "none")."""
    if workload.kind in (WorkloadKind.IDLE, WorkloadKind.UNATTRIBUTED):
        return NOBODY
    seen = values(workload)
    for rule in rules.rules:
        if rule.fits(workload, seen, rules.reject):
            seen |= {
                "kind": workload.kind.label,
                "scope": scope_of(workload, inventory),
                "cluster": inventory.cluster,
                "node": inventory.node,
            }
            return _short("".join(text + seen.get(name, "") for text, name in rule.run)), rule.name
    raise AssertionError("the last rule of a list fits everything")  # as identity_rules.py makes them


def values(workload: Workload) -> dict[str, str]:
    """What a rule may look at, by name."""
    seen = dict(workload.identities)
    seen |= {"run": workload.run, "job": workload.job, "step": workload.step, "user": workload.user}
    return seen


def _by_user(name: str) -> bool:
    return name == "run" or name.startswith(("env:", "declared:"))


def _short(run: str) -> str:
    """A run's name is a label: put together it may be too long, and then ends in a hash of the whole."""
    if len(run) <= MAX_LABEL_CHARS:
        return run
    digest = hashlib.sha256(run.encode()).hexdigest()[:_HASH_CHARS]
    return f"{run[: MAX_LABEL_CHARS - _HASH_CHARS - 1].rstrip()}~{digest}"


def attempt_of(rules: RuleList, run_rule: str, seen: Mapping[str, str]) -> str:
    """The attempt that a row tells of, by the rule that chose for it; "" = none told."""
    name = run_rule.removesuffix(INHERITED)
    for rule in rules.rules:
        if rule.name == name:
            return next((seen[a] for a in rule.attempt if seen.get(a)), "")
    return ""
