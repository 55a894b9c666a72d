"""The site's law files while a collector runs: taken when they change and are good; else the last good ones stay.

A look is a stat of each file. What is read is taken whole or not at all (laws.py), and judged by from the next commit on.
"""

import json
import logging
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from flopmeter.collector.errors import RegimeError

from .laws import SUFFIX, LawFile, Laws, of_files, read_laws
from .signing import MANIFEST, SIGNATURE

if TYPE_CHECKING:
    from flopmeter.collector.store.base import Books

    from .signing import PublicKey

log = logging.getLogger(__name__)
_SIGNED = (MANIFEST, SIGNATURE)


class LawWatch:
    """Looked at by one thread at a time; `laws` and `fault` may be read by any."""

    def __init__(
        self,
        directory: Path | None,
        key: "PublicKey | None",
        laws: Laws,
        *,
        fault: RegimeError | None = None,
        unix_ns: Callable[[], int] = time.time_ns,
    ) -> None:
        """`laws`: what holds until a look finds others. `fault`: why these are not what the directory has."""
        self._directory = directory
        self._key = key
        self._unix_ns = unix_ns
        self.laws = laws
        self.fault = fault
        self.since_unix_ns = unix_ns()  # from when on `laws`, or `fault`, is so
        self._stamp = None if fault is not None or directory is None else _stamp(directory)

    def look(self) -> bool:
        """Whether there are others now, and they are good."""
        directory = self._directory
        if directory is None:
            return False
        stamp = _stamp(directory)  # before they are read: what changes meanwhile is seen the next time
        if stamp == self._stamp:
            return False
        self._stamp = stamp
        try:
            found = read_laws(directory, self._key)
        except RegimeError as e:
            if str(e) != str(self.fault):
                self.since_unix_ns = self._unix_ns()
                log.error(  # noqa: TRY400 - the faults say all
                    "law files of %s are not taken; what was good before is judged by on:\n%s\n%s",
                    directory,
                    e,
                    e.hint,
                )
            self.fault = e
            return False
        if self.fault is not None:
            log.info("law files of %s are good again", directory)
        changed = self.fault is not None or found.files != self.laws.files
        self.fault = None
        if changed:
            self.since_unix_ns = self._unix_ns()
        if found.files == self.laws.files:
            return False
        for line in changes(self.laws, found):
            log.info("law files of %s: %s", directory, line)
        self.laws = found
        return True


def last_good(books: "Books") -> Laws | None:
    """The shipped files with the site's as they were applied last; None: it never had any that were good.

    Raises StoreError.
    """
    _, files = books.site_laws()
    found = []
    for name, digest in json.loads(files):
        text = books.text(digest)
        if text is None:
            return None
        found.append(LawFile(name, text.encode()))
    try:
        return of_files(found) if found else None
    except RegimeError:  # good by an older flopmeter, and not by this one
        return None


def changes(before: Laws, now: Laws) -> list[str]:
    """What a log says of it: each regime that came, went, or has another text."""
    old, new = {r.id: r for r in before.regimes}, {r.id: r for r in now.regimes}
    lines = [f"{name} is no longer judged by" for name in sorted(old.keys() - new.keys())]
    for name in sorted(new.keys()):
        regime, was = new[name], old.get(name)
        text = f"version {regime.version}, sha256 {regime.digest}"
        if was is None:
            lines.append(f"{name} is new: {text}")
        elif (was.digest, was.profile) != (regime.digest, regime.profile):
            lines.append(f"{name} is another text: {text}")
    return lines


def _stamp(directory: Path) -> object:
    """What changes when a file is written, replaced, added or taken away."""
    found = []
    try:
        with os.scandir(directory) as entries:
            for entry in entries:
                if entry.name.endswith(SUFFIX) or entry.name in _SIGNED:
                    state = entry.stat()  # of what a link leads to: Kubernetes mounts are links
                    found.append((entry.name, state.st_mtime_ns, state.st_size, state.st_ino))
    except OSError as e:
        return e.errno
    return sorted(found)
