"""What a sink must not learn is taken out of an event before any of it is written anywhere. Pure.

Fail closed: a field that no group names is withheld with every group; whatever repeats a withheld value is withheld
too; and the sentence in `message` is not edited but replaced. What was withheld is listed, with the reason.
"""

import copy
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

FIGURES, IDENTITIES, NODE = "figures", "identities", "node"
GROUPS = (FIGURES, IDENTITIES, NODE)


def _names(text: str) -> frozenset[str]:
    return frozenset(text.split())


#: Fields of `data` that no group withholds: the law, the method, when, and what kind of thing happened.
PLAIN = _names("""
    access_no act answers as_of basis check citation comparison conditions confidence_percent counting counting_note day deadline
    declared due due_local entries event event_type forecast formula from from_seq last_seq lead_seconds margin_percent
    met_since method network_over_gbit_per_s note noticed open_above open_questions part precision profile_digest reason received
    recipient regime regime_digest regime_text regime_version rule rule_digest seq side since sink sites_digest state test
    threshold_flop threshold_op_per_s timezone to to_seq trigger unit verdict w_table what when_met window_end
    whole_fleet""")
#: Fields of `data` by what they tell. One may be in several groups.
FIELDS = {
    FIGURES: _names("""
        accuracy budget_flop countable counted counted_of_budget crosses detail device_seconds due_if_met estimate estimate_digest
        estimate_flop executed flop flop_per_hour gpus_sure integer_ops limit_minutes line measured op_per_s original_flop
        plan planned projected share stands_on until"""),
    IDENTITIES: _names(
        "by countable estimate estimate_digest found original plan run stands_on subject tenant user who why"
    ),
    NODE: _names("""
        agent booked_agent booked_node detail entity found node refused_hash site stored_hash"""),
}
#: Below a withheld field, the fields that hold names; the others hold words of ours.
_NAMES = FIELDS[IDENTITIES] | FIELDS[NODE] | {"name", "of", "path"}
#: From this length on a withheld value is looked for anywhere; a shorter one only as a word of its own.
_ANYWHERE_CHARS = 4
_DROP: Any = object()


@dataclass(frozen=True, slots=True)
class Redaction:
    """What is withheld: whole groups, and single fields by JSON pointer (RFC 6901), /subject or below /data."""

    groups: tuple[str, ...] = ()
    paths: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.groups or self.paths)


NOTHING = Redaction()


def redact(
    document: dict[str, Any], redaction: Redaction, about: dict[str, Any] | None = None
) -> dict[str, Any]:
    """A copy of a CloudEvent without what is withheld. Unchanged (and not copied) where nothing is.

    `about`: the event that it is about, if that is another: what is withheld of it is not repeated here either.
    """
    if not redaction:
        return document
    values = [] if about is None else _withhold(copy.deepcopy(about), redaction)[1]
    found = copy.deepcopy(document)
    withheld, own = _withhold(found, redaction)
    values += own
    data = found["data"]
    data.pop("message", None)
    for key in list(data):
        left, cut = _scrubbed({key: data.pop(key)}, values)
        data.update(left)
        if cut:
            withheld.setdefault(f"/data/{_escaped(key)}", "repeats a withheld value")
    if "subject" in found and _repeats(found["subject"], values):
        withheld.setdefault("/subject", "repeats a withheld value")
        del found["subject"]
    if not withheld:
        return document
    data["message"] = _message(found)
    data["withheld"] = [
        {"field": field, "reason": f"not for this sink: {reason}"}
        for field, reason in sorted(withheld.items())
    ]
    return found


def _withhold(found: dict[str, Any], redaction: Redaction) -> tuple[dict[str, str], list[str]]:
    """Take out what is withheld: why, by field; and the values that must not be repeated."""
    data = found.get("data")
    if not isinstance(data, dict):
        data = found["data"] = {}
    withheld: dict[str, str] = {}
    values: list[str] = []

    def withhold(field: str, value: Any, reason: str) -> None:
        withheld.setdefault(field, reason)
        if reason == FIGURES:
            values.extend(
                text for text, number, _ in _words(value) if number and len(text) >= _ANYWHERE_CHARS
            )
        elif reason in (IDENTITIES, NODE):
            values.extend(text for text, _, named in _words(value) if named)
        else:
            values.extend(text for text, _, _ in _words(value))

    if "subject" in found and {IDENTITIES, NODE} & set(redaction.groups):
        withhold("/subject", found.pop("subject"), "a name")
    for key in list(data):
        reason = _reason(key, redaction.groups)
        if reason:
            withhold(f"/data/{_escaped(key)}", data.pop(key), reason)
    for path in redaction.paths:
        value = _cut(found, path)
        if value is not _DROP:
            withhold(path, value, "this field")
    return withheld, values


def _reason(key: str, groups: tuple[str, ...]) -> str:
    if key == "message":
        return ""
    for group in groups:
        if key in FIELDS[group]:
            return group
    known = key in PLAIN or any(key in fields for fields in FIELDS.values())
    return "" if known or not groups else "not known to be harmless"


def _message(document: dict[str, Any]) -> str:
    """Of the type and the id alone: whatever else the sentence said may have been what is withheld."""
    return (
        f"{document['type']}: its details are withheld from this sink. Where the books are kept, "
        f"flopmeter events show {document['id']} tells them."
    )


def _escaped(key: str) -> str:
    return key.replace("~", "~0").replace("/", "~1")


def _cut(document: dict[str, Any], path: str) -> Any:
    """Take out what `path` points at; _DROP where it points at nothing."""
    at: Any = document
    *way, last = (part.replace("~1", "/").replace("~0", "~") for part in path.split("/")[1:])
    for part in way:
        if isinstance(at, dict) and part in at:
            at = at[part]
        elif isinstance(at, list) and part.isdecimal() and int(part) < len(at):
            at = at[int(part)]
        else:
            return _DROP
    if isinstance(at, dict) and last in at:
        return at.pop(last)
    if isinstance(at, list) and last.isdecimal() and int(last) < len(at):
        value, at[int(last)] = at[int(last)], None  # the others keep their places
        return value
    return _DROP


def _words(value: Any, *, named: bool = True) -> Iterator[tuple[str, bool, bool]]:
    """Every text and number in a value as text; whether it is a number; whether it stands where names stand."""
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from _words(inner, named=key in _NAMES)
    elif isinstance(value, list):
        for inner in value:
            yield from _words(inner, named=named)
    elif (
        isinstance(value, str | int | float) and not isinstance(value, bool) and (text := str(value).strip())
    ):
        yield text, not isinstance(value, str) or text.isdecimal(), named


def _scrubbed(value: Any, values: Iterable[str]) -> tuple[Any, bool]:
    """The value without what repeats a withheld one, and whether there was any."""
    if isinstance(value, dict):
        kept, cut = {}, False
        for key, inner in value.items():
            if _repeats(key, values):
                cut = True
                continue
            left, inner_cut = _scrubbed(inner, values)
            cut = cut or inner_cut
            if left is not _DROP:
                kept[key] = left
        return kept, cut
    if isinstance(value, list):
        lefts = [_scrubbed(inner, values) for inner in value]
        return [left for left, _ in lefts if left is not _DROP], any(cut for _, cut in lefts)
    if value is None or isinstance(value, bool):
        return value, False
    return (_DROP, True) if _repeats(str(value), values) else (value, False)


def _repeats(text: str, values: Iterable[str]) -> bool:
    folded = text.casefold()
    for value in values:
        sought = value.casefold()
        if len(sought) >= _ANYWHERE_CHARS:
            if sought in folded:
                return True
        elif re.search(rf"(?<!\w){re.escape(sought)}(?!\w)", folded):
            return True
    return False
