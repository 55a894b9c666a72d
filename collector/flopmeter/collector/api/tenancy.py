"""Whose a run is, and what of an answer shows another's. Pure."""

import logging
import re
from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import Any

from flopmeter.collector.ingest.identity_rules import identities_of
from flopmeter.collector.registry.entries import JobKey
from flopmeter.collector.registry.state import Registry
from flopmeter.collector.report.documents import RunRows, WorkloadRow
from flopmeter.collector.report.tenants import Tenant, tenant_of

log = logging.getLogger(__name__)
#: What stands in the place of a name that is not to be seen.
HIDDEN = "another tenant's run"
#: Keys of what counts everybody's records, entries and answers.
_OF_ALL = frozenset({"position", "sinceposition", "number"})
_FIGURE = frozenset({"lower", "point", "upper"})
#: Keys under which a text of digits alone is somebody's name, and no figure.
_NAMES = frozenset({"name", "run", "of", "parent", "original", "subject", "ancestors", "base_models", "path"})
#: Times and numbers.
_NO_NAMES = re.compile(r"(\d{4}-\d\d-\d\dT[\d:.]+Z|\d+)\Z")

_seen = lru_cache(maxsize=4_096)(identities_of)


def owners(rows: Iterable[RunRows], registry: Registry) -> dict[str, str]:
    """Run -> Tenant.id of whoever all of its work is; "" where it is of several: then it is no tenant's to see whole."""
    found = {}
    for r in rows:
        try:
            whose = {tenant_of_work(r.run, w, registry) for w in r.workloads}
        except Exception as e:  # noqa: BLE001 - whatever is wrong with who ran it, it is no tenant's
            log.warning("run %r: whose it is cannot be read: %s: %s", r.run, type(e).__name__, e)
            whose = set()
        found[r.run] = whose.pop().id if len(whose) == 1 else ""
    return found


def tenant_of_work(run: str, w: WorkloadRow, registry: Registry) -> Tenant:
    """Whose a workload of that run is. Raises ValueError for identities that cannot be read."""
    declared = registry.declared(run)
    owner = None if declared is None else declared.owner
    return tenant_of(owner, JobKey(w.scope, w.kind, w.job), _seen(w.identities))


class Sight:
    """What one token may see."""

    def __init__(self, tenant: str, of: Mapping[str, str], registry: Registry) -> None:
        self.tenant, self._of, self._registry = tenant, of, registry

    @property
    def whole(self) -> bool:
        """Whether it may see everything."""
        return not self.tenant

    def run(self, name: str) -> bool:
        """Whether that run is to be seen: also one of which people only said something."""
        if not self.tenant:
            return True
        if name in self._of:
            return self._of[name] == self.tenant
        declared = self._registry.declared(name)
        if declared is None or not declared.owner:
            return False
        return Tenant(*_BY_OWNER, declared.owner).id == self.tenant

    def named(self, name: str) -> bool:
        """Whether the name may show. An external model is nobody's: what it took is public, or somebody's word."""
        return self.run(name) or (name in self._registry.externals and name not in self._of)

    def runs(self) -> list[str]:
        return [name for name, whose in self._of.items() if not self.tenant or whose == self.tenant]

    def cleaned(self, value: Any, names: Iterable[str]) -> Any:
        """`value` without what tells of others: `names` that are not to be seen, and figures that stand beside them."""
        if not self.tenant:
            return value
        hidden = sorted(n for n in set(names) if n and not self.named(n))
        if not hidden and not isinstance(value, dict | list):
            return value
        return _Mask({name: f"{HIDDEN} {i}" for i, name in enumerate(hidden, 1)}).of(value)


_BY_OWNER = (tenant_of("x", JobKey("", 0, ""), {}).by, "")


class _Mask:
    """Puts `words` in the place of names: of a whole text, and of a name that stands by itself in a sentence."""

    def __init__(self, words: Mapping[str, str]) -> None:
        self._words = words
        self._masks = frozenset(words.values())
        longest_first = sorted(words, key=lambda name: (-len(name), name))
        alone = "|".join(map(re.escape, longest_first))
        self._named = re.compile(rf"(?<![\w:/.@-])(?:{alone})(?![\w:/@-])") if words else None

    def of(self, value: Any, key: str = "") -> Any:
        if isinstance(value, str):
            return self._text(value, key)
        if isinstance(value, list):
            return [self.of(v, key) for v in value]
        if not isinstance(value, dict) or value.keys() >= _FIGURE:
            return value
        found = {self._text(k, "name"): self.of(v, k) for k, v in value.items() if k not in _OF_ALL}
        if self._masks.intersection(v for v in found.values() if isinstance(v, str)):
            for k, v in found.items():  # a row of what another did: that it is there shows, how much does not
                if isinstance(v, dict) and v.keys() >= _FIGURE:
                    found[k] = None
        return found

    def _text(self, text: str, key: str) -> str:
        if text in self._words:
            return text if text.isdigit() and key not in _NAMES else self._words[text]
        if self._named is None or _NO_NAMES.match(text):
            return text
        return self._named.sub(lambda found: self._words[found[0]], text)
