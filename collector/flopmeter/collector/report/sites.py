"""The operator's own file of sites (`--sites FILE`): where clusters and nodes stand, and how fast their network is.

    [[site]]
    name = "dc-west"                # one datacenter
    clusters = ["train-*"]          # patterns of cluster names: * and ?; absent = any cluster
    nodes = ["gpu-0*"]              # patterns of node names; absent = any node; one of the two must be there
    network_gbit_per_s = 400        # that joins these nodes; absent = not known

An agent sees neither. A node is of the first entry that fits it; of none, its site and network are not known, which
is said wherever it matters and never taken for slow or far away (reference/regulations.md 13.23).
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, TypeGuard

from flopmeter.collector.errors import CollectorError
from flopmeter.collector.site_files import read_file, toml

MAX_FILE_BYTES = 8 << 20
MAX_NAME = 200  # characters
MAX_GBIT_PER_S = 1_000_000
_KEYS = ("name", "clusters", "nodes", "network_gbit_per_s")
_HINT = "docs/fleet.md shows the file"


@dataclass(frozen=True, slots=True)
class Place:
    """Where a node stands. "" and None: not known."""

    site: str
    network_gbit_per_s: int | None


UNKNOWN = Place("", None)


@dataclass(frozen=True, slots=True)
class SiteEntry:
    """One entry. An empty tuple of patterns: any."""

    place: Place
    clusters: tuple[str, ...]
    nodes: tuple[str, ...]

    def fits(self, cluster: str | None, node: str) -> bool:
        """`cluster` None: of a node that no agent ever spoke of; it fits no entry that asks for one."""
        if self.clusters and (cluster is None or not _any(cluster, self.clusters)):
            return False
        return not self.nodes or _any(node, self.nodes)


def _any(name: str, patterns: tuple[str, ...]) -> bool:
    return any(fnmatchcase(name, pattern) for pattern in patterns)


@dataclass(frozen=True, slots=True)
class Sites:
    """All entries, in the file's order, and which text they are."""

    entries: tuple[SiteEntry, ...] = ()
    digest: str = ""  # SHA-256 of the file's bytes, hex; "" = there is no file
    text: str = ""

    def place(self, cluster: str | None, node: str) -> Place:
        """The first entry that fits."""
        return next((e.place for e in self.entries if e.fits(cluster, node)), UNKNOWN)


NO_SITES = Sites()


def read_sites(path: Path | None) -> Sites:
    """The file's entries; without a file none. Raises CollectorError naming entry and key."""
    if path is None:
        return NO_SITES
    name = f"--sites {path}"
    raw = read_file(CollectorError, name, path, MAX_FILE_BYTES, write="name a TOML file of sites", hint=_HINT)
    return parse_sites(name, raw)


def parse_sites(name: str, raw: bytes) -> Sites:
    """`name` is what messages call it. Raises CollectorError."""
    if len(raw) > MAX_FILE_BYTES:  # fsck's is of the store, and read by nobody yet
        raise CollectorError(f"{name}: expected at most {MAX_FILE_BYTES:,} bytes, got more", _HINT)
    document = toml(CollectorError, name, raw, hint=_HINT)
    unknown = [key for key in document if key != "site"]
    entries = document.get("site")
    if unknown or not isinstance(entries, list) or not entries:
        got = f"key {unknown[0]!r}" if unknown else f"{entries!r:.60}"
        raise CollectorError(f"{name}: expected [[site]] entries and nothing else, got {got}", _HINT)
    found = tuple(_entry(f"{name}: site {number}", entry) for number, entry in enumerate(entries, 1))
    return Sites(found, hashlib.sha256(raw).hexdigest(), raw.decode())


def _entry(where: str, entry: Any) -> SiteEntry:
    if not isinstance(entry, dict):
        raise CollectorError(f"{where}: expected a table, got {entry!r:.60}", _HINT)
    for key in entry:
        if key not in _KEYS:
            raise CollectorError(f"{where}: unknown key {key!r:.60}", f"known keys: {', '.join(_KEYS)}")
    site = entry.get("name")
    if not _is_name(site):
        raise CollectorError(
            f"{where}: name: expected a line of 1 to {MAX_NAME} characters, got {site!r:.60}", _HINT
        )
    clusters, nodes = (_patterns(where, key, entry) for key in ("clusters", "nodes"))
    if not clusters and not nodes:
        raise CollectorError(f"{where}: expected patterns of clusters or of nodes, got neither", _HINT)
    speed = entry.get("network_gbit_per_s")
    if speed is not None and (type(speed) is not int or not 0 < speed <= MAX_GBIT_PER_S):
        raise CollectorError(
            f"{where}: network_gbit_per_s: expected a whole number from 1 to {MAX_GBIT_PER_S}, got {speed!r:.60}",
            "leave it out where it is not known",
        )
    return SiteEntry(Place(site, speed), clusters, nodes)


def _patterns(where: str, key: str, entry: Mapping[str, Any]) -> tuple[str, ...]:
    value = entry.get(key)
    if value is None:
        return ()
    if not isinstance(value, list) or not value or not all(_is_name(p) for p in value):
        raise CollectorError(
            f"{where}: {key}: expected a list of patterns of names, got {value!r:.60}", _HINT
        )
    return tuple(value)


def _is_name(value: Any) -> TypeGuard[str]:
    return (
        isinstance(value, str) and 0 < len(value) <= MAX_NAME and value.isprintable() and bool(value.strip())
    )
