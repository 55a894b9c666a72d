"""Rule lists for run identity: the shipped file, a site's own, and the text that the store keeps of what was in force.

A site's rules stand behind the stated label and before the shipped ones (DESIGN.md section 7); with `shipped = false`
in its file, in their place. First is always the label, last always the job itself. Every fault names file and key.
"""

import functools
import json
import re
from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from typing import Any

from flopmeter.collector.errors import SettingsError
from flopmeter.collector.site_files import read_file, toml
from flopmeter.contract.errors import ContractError
from flopmeter.contract.identity import Identity, check_identities
from flopmeter.contract.usage import WorkloadKind

from .identity import FIELDS, INHERITED, PLACES, Rule, RuleList

SCHEMA = "flopmeter-identity-rules/1"
FILE = "identity_rules.toml"
#: First and last of every list. No site can do without them: what is stated holds, and nothing is nobody's.
LABEL, JOB = "label", "job"
MAX_RULES = 200
MAX_FILE_BYTES = 256 << 10
_KINDS = {k.label: k for k in WorkloadKind if k not in (WorkloadKind.IDLE, WorkloadKind.UNATTRIBUTED)}
_RULE_NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,63}\Z")
_HINT = "see docs/runs.md"
_NEEDED = {"name": "a name in lower case, digits and '-'", "needs": "a list of identities", "run": "text"}
_RULE_KEYS = {*_NEEDED, "kinds", "match", "reject", "attempt", "note"}
_LIST_KEYS = {"schema", "version", "shipped", "reject", "apart", "rule"}


class _Fault(Exception):  # noqa: N818 - becomes a SettingsError that names the file
    def __init__(self, key: str, expected: str, got: object) -> None:
        shown = repr(got)
        super().__init__(
            f"{key}: expected {expected}, got {shown if len(shown) <= 80 else shown[:77] + '...'}"
        )


@functools.cache
def shipped() -> RuleList:
    """The list that comes with this version: the table of reference/deploy.md 1.4, in its order."""
    raw = resources.files("flopmeter.collector").joinpath("ingest", FILE).read_bytes()
    return _list(toml(SettingsError, FILE, raw, hint=_HINT), FILE)


@functools.cache
def before_lists() -> RuleList:
    """How runs were chosen before any list was noted in the store: the stated label, else the job."""
    return _made([_label(frozenset()), _job()], frozenset(), ())


def with_site(path: Path | None) -> RuleList:
    """The list that a collector works by. Raises SettingsError naming file and key."""
    if path is None:
        return shipped()
    name = f"--identity-rules {path}"
    raw = read_file(SettingsError, name, path, MAX_FILE_BYTES, write=_HINT, hint=_HINT)
    data = toml(SettingsError, name, raw, hint=_HINT)
    own = _list(data, name)
    if data.get("shipped") is False:
        return own
    base = shipped()
    taken = {rule.name for rule in base.rules[1:-1]}
    for rule in own.rules[1:-1]:
        if rule.name in taken:
            raise SettingsError(
                f"{name}: rule {rule.name}: expected a name of its own, got that of a shipped rule",
                "give it another name; with `shipped = false` your list stands alone",
            )
    return _made(
        [_label(own.reject | base.reject), *own.rules[1:-1], *base.rules[1:-1], _job()],
        own.reject | base.reject,
        tuple(dict.fromkeys((*own.apart, *base.apart))),
    )


def of_text(text: str) -> RuleList:
    """The list behind a store's text. Raises SettingsError if it is none."""
    try:
        data = json.loads(text)
    except (ValueError, RecursionError) as e:
        raise SettingsError(f"identity rules: expected JSON, got {e}", _HINT) from e
    if not isinstance(data, dict):
        raise SettingsError("identity rules: expected a JSON object", _HINT)
    return _list(data, "identity rules")


def identities_text(found: Mapping[str, str] | tuple[Identity, ...]) -> str:
    """A workload's identities as the store keeps them: a JSON object in one spelling, "" for none."""
    seen = dict(found)
    return json.dumps(seen, ensure_ascii=False, sort_keys=True, separators=(",", ":")) if seen else ""


def identities_of(text: str) -> dict[str, str]:
    """What `identities_text` wrote."""
    return dict(json.loads(text)) if text else {}


# --- from a file's tables to rules ---


def _list(data: Mapping[str, Any], name: str) -> RuleList:
    try:
        return _read(data)
    except _Fault as e:
        raise SettingsError(f"{name}: {e}", _HINT) from e


def _read(data: Mapping[str, Any]) -> RuleList:
    for key in sorted(data.keys() - _LIST_KEYS):
        raise _Fault(f"key {key}", f"one of {', '.join(sorted(_LIST_KEYS))}", data[key])
    if data.get("schema") != SCHEMA:
        raise _Fault("key schema", repr(SCHEMA), data.get("schema", "nothing"))
    if not isinstance(data.get("shipped", True), bool):
        raise _Fault("key shipped", "true or false", data["shipped"])
    if not isinstance(data.get("version", ""), str):
        raise _Fault("key version", "text", data["version"])
    tables = data.get("rule", [])
    if not isinstance(tables, list) or len(tables) > MAX_RULES:
        raise _Fault("key rule", f"at most {MAX_RULES} tables [[rule]]", tables)
    reject = frozenset(v.casefold() for v in _texts(data, "reject", "key reject"))
    apart = _names(data, "apart", "key apart")
    rules = [_rule(table, number) for number, table in enumerate(tables, 1)]
    seen: set[str] = {LABEL, JOB}
    for number, rule in enumerate(rules, 1):
        if rule.name in seen:
            raise _Fault(f"rule {number}, key name", "a name that no other rule has", rule.name)
        seen.add(rule.name)
    return _made([_label(reject), *rules, _job()], reject, apart)


def _rule(table: object, number: int) -> Rule:
    where = f"rule {number}"
    if not isinstance(table, dict):
        raise _Fault(where, "a table [[rule]]", table)
    name = table.get("name")
    if not isinstance(name, str) or not _RULE_NAME.match(name):
        raise _Fault(f"{where}, key name", _NEEDED["name"], name if "name" in table else "nothing")
    where += f" ({name})"
    for key in sorted(table.keys() - _RULE_KEYS):
        raise _Fault(f"{where}, key {key}", f"one of {', '.join(sorted(_RULE_KEYS))}", table[key])
    needs = _names(table, "needs", f"{where}, key needs", fields=True)
    if not needs:
        raise _Fault(f"{where}, key needs", "at least one identity", table.get("needs", "nothing"))
    kinds = _texts(table, "kinds", f"{where}, key kinds")
    for kind in kinds:
        if kind not in _KINDS:
            raise _Fault(f"{where}, key kinds", f"of {', '.join(_KINDS)}", kind)
    if not isinstance(table.get("note", ""), str):
        raise _Fault(f"{where}, key note", "text", table["note"])
    return Rule(
        name=name,
        needs=needs,
        run=_template(table.get("run"), needs, f"{where}, key run"),
        kinds=frozenset(_KINDS[kind] for kind in kinds),
        match=_match(table.get("match", {}), f"{where}, key match"),
        reject=frozenset(v.casefold() for v in _texts(table, "reject", f"{where}, key reject")),
        attempt=_names(table, "attempt", f"{where}, key attempt"),
    )


def _texts(table: Mapping[str, Any], key: str, where: str) -> tuple[str, ...]:
    value = table.get(key, [])
    if not isinstance(value, list) or not all(isinstance(v, str) and v.strip() for v in value):
        raise _Fault(where, "a list of texts", value)
    return tuple(value)


def _names(table: Mapping[str, Any], key: str, where: str, *, fields: bool = False) -> tuple[str, ...]:
    found = _texts(table, key, where)
    for name in found:
        if not (fields and name in FIELDS):
            _identity_name(name, where)
    if len(set(found)) != len(found):
        raise _Fault(where, "each name once", list(found))
    return found


def _identity_name(name: str, where: str) -> None:
    try:
        check_identities([(name, "x")])
    except ContractError as e:
        raise _Fault(where, "an identity's name, such as 'label:app' or 'slurm.array_job'", name) from e


def _match(value: object, where: str) -> tuple[tuple[str, re.Pattern[str]], ...]:
    if not isinstance(value, dict) or not all(isinstance(v, str) for v in value.values()):
        raise _Fault(where, "a table of identity = 'regular expression'", value)
    found = []
    for name, pattern in value.items():
        _identity_name(name, where)
        try:
            found.append((name, re.compile(pattern)))
        except (re.error, RecursionError, OverflowError) as e:
            raise _Fault(where, f"a regular expression ({e})", pattern) from e
    return tuple(found)


def _template(value: object, needs: tuple[str, ...], where: str) -> tuple[tuple[str, str], ...]:
    """A text such as "jobset:{cluster}/{label:x}" -> (("jobset:", "cluster"), ("/", "label:x")). Only what must be there may stand in it."""
    allowed = (*needs, *PLACES, "job")
    if not isinstance(value, str) or not value.strip():
        raise _Fault(
            where, 'text such as "jobset:{cluster}/{label:app}"', value if value is not None else "nothing"
        )
    parts: list[tuple[str, str]] = []
    rest = value
    while rest:
        text, opened, behind = rest.partition("{")
        if "}" in text or not text.isprintable():
            raise _Fault(where, "printable text, and names in {braces}", value)
        name = ""
        if opened:
            name, closed, behind = behind.partition("}")
            if not closed or name not in allowed:
                raise _Fault(where, f"in braces only {', '.join(allowed)}", value)
        parts.append((text, name))
        rest = behind
    if not any(name in needs for _, name in parts):
        raise _Fault(where, "at least one of `needs` in {braces}, else all would be one run", value)
    return tuple(parts)


def _label(reject: frozenset[str]) -> Rule:
    return Rule(LABEL, ("run",), (("", "run"),), reject=reject)


def _job() -> Rule:
    return Rule(JOB, (), (("", "kind"), (":", "scope"), ("/", "job")))


def _made(rules: list[Rule], reject: frozenset[str], apart: tuple[str, ...]) -> RuleList:
    """With its text: what `of_text` reads. The label and the job stand in every list, and in no text."""
    tables: list[dict[str, Any]] = []
    for rule in rules[1:-1]:
        table: dict[str, Any] = {
            "name": rule.name,
            "needs": list(rule.needs),
            "run": "".join(text + (f"{{{name}}}" if name else "") for text, name in rule.run),
            "kinds": sorted(kind.label for kind in rule.kinds),
            "match": {name: pattern.pattern for name, pattern in rule.match},
            "reject": sorted(rule.reject),
            "attempt": list(rule.attempt),
        }
        tables.append({key: value for key, value in table.items() if value})
    document = {"schema": SCHEMA, "reject": sorted(reject), "apart": list(apart), "rule": tables}
    text = json.dumps(document, ensure_ascii=False, sort_keys=True, separators=(",", ":"))
    return RuleList(tuple(rules), reject, apart, text)


assert not _RULE_NAME.match(LABEL + INHERITED)  # a rule's name cannot be mistaken for an inherited one
