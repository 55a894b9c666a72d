"""What an object's metadata says of whom it belongs to. Pure: parsed JSON in, identities out.

Only the keys of pod_keys.toml are taken. Labels and annotations may hold anything, secrets too, and those of other
keys are dropped here, before anything is kept.
"""

import hashlib
import re
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any

from flopmeter.agent.workloads.labels import tidy_label
from flopmeter.contract.limits import MAX_LABEL_CHARS

from .holders import PodName

#: A label or annotation by which the lab names a run itself (DESIGN.md 7).
RUN_KEY = "flopmeter.dev/run"
#: Of labels, annotations and owners, in the order of pod_keys.toml: leaves room below contract.identity.MAX_IDENTITIES
#: for the pod's own names and what its processes say. The largest real pod has some fifteen.
MAX_FROM_METADATA = 20
MAX_UID_CHARS = 64
_HASH_CHARS = 16
_KIND = re.compile(r"[A-Z][A-Za-z0-9]{0,62}", re.ASCII)

Found = tuple[tuple[str, str], ...]  # (name of an identity, value), best first


@dataclass(frozen=True, slots=True)
class Owner:
    """The controller of an object."""

    api: str  # "batch/v1"
    kind: str
    name: str
    uid: str


@dataclass(frozen=True, slots=True)
class PodMeta:
    """What the API server says of a pod."""

    name: PodName
    uid: str
    found: Found = ()
    run: str = ""  # as RUN_KEY says it
    owner: Owner | None = None


@cache
def keys() -> tuple[tuple[str, str], ...]:
    """("labels" or "annotations", key) in the order of pod_keys.toml."""
    systems = tomllib.loads((files(__package__) / "pod_keys.toml").read_text("utf-8"))["system"]
    return tuple((where, key) for s in systems for where in ("labels", "annotations") for key in s[where])


def fit(text: str) -> str:
    """As the contract allows labels. What is too long ends in a hash of the whole: cut alone, two would become one."""
    kept = tidy_label(text)
    if len(text.strip()) <= MAX_LABEL_CHARS:
        return kept
    digest = hashlib.sha256(text.encode(errors="replace")).hexdigest()[:_HASH_CHARS]
    return f"{kept[: MAX_LABEL_CHARS - _HASH_CHARS - 1].rstrip()}~{digest}"


def pod_meta(item: object) -> PodMeta | None:
    """Of a pod or its PartialObjectMetadata; None if it has no name, namespace and UID."""
    metadata = _dict(_dict(item).get("metadata"))
    namespace, name, uid = (_text(metadata.get(k)) for k in ("namespace", "name", "uid"))
    if not (namespace and name and uid) or len(uid) > MAX_UID_CHARS:
        return None
    owner = owner_of(metadata)
    found = [*_known(metadata), *_of_owner(owner)]
    said = dict(found)
    run = said.get(f"label:{RUN_KEY}") or said.get(f"annotation:{RUN_KEY}", "")
    return PodMeta((tidy_label(namespace), tidy_label(name)), tidy_label(uid), tuple(found), run, owner)


def cluster_found(item: object) -> Found:
    """What a RayCluster's metadata adds to that of its pods: where it came from."""
    labels = _dict(_dict(_dict(item).get("metadata")).get("labels"))
    return tuple(
        (f"label:{key}", value)
        for where, key in keys()
        if where == "labels"
        and key.startswith("ray.io/originated-from-")
        and (value := _value(labels.get(key)))
    )


def together(*several: Iterable[tuple[str, str]]) -> Found:
    """All of them up to the limit, each name once; the first of a name stays."""
    first: dict[str, str] = {}
    for found in several:
        for name, value in found:
            first.setdefault(name, value)
    return tuple(first.items())[:MAX_FROM_METADATA]


def owner_of(metadata: Mapping[str, Any]) -> Owner | None:
    """The owner that controls it; others only keep it from being collected."""
    owners = metadata.get("ownerReferences")
    for reference in owners if isinstance(owners, list) else ():
        owner = _dict(reference)
        kind, name = _text(owner.get("kind")), _text(owner.get("name"))
        if owner.get("controller") is True and _KIND.fullmatch(kind) and name:
            return Owner(_text(owner.get("apiVersion")), kind, name, _text(owner.get("uid")))
    return None


def _of_owner(owner: Owner | None) -> Found:
    if owner is None:
        return ()
    told = ((f"owner:{owner.kind}", fit(owner.name)), (f"owner-uid:{owner.kind}", fit(owner.uid)))
    return tuple(each for each in told if each[1])


def _known(metadata: Mapping[str, Any]) -> Found:
    tables = {where: _dict(metadata.get(where)) for where in ("labels", "annotations")}
    return tuple(
        (f"{where.removesuffix('s')}:{key}", value)
        for where, key in keys()
        if (value := _value(tables[where].get(key)))
    )


def _value(value: object) -> str:
    return fit(value) if isinstance(value, str) else ""


def _text(value: object) -> str:
    return value if isinstance(value, str) else ""


def _dict(value: object) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}
