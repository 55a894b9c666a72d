"""Whether the files at a store's path are those that are open. POSIX lets a file be deleted or replaced under a
program, which then goes on writing into what nobody will ever read again: an ack for that would be a lie.
"""

import os
from pathlib import Path

from flopmeter.collector.errors import StoreError

_Id = tuple[int, int]


class Place:
    """Made when the store has just been opened; two stats a `check`."""

    def __init__(self, path: Path) -> None:
        wal = path.with_name(f"{path.name}-wal")
        self._files = {path: _id(path), wal: _id(wal)}

    def check(self) -> None:
        """Raises StoreError unless each file is still where it was opened."""
        for path, opened in self._files.items():
            found = _id(path)
            if found == opened and found is not None:
                continue
            if opened is None and found is not None:  # the WAL appears with the first transaction
                self._files[path] = found
                continue
            there = "no file" if found is None else "another file"
            raise StoreError(
                f"{path}: expected the file that this collector has open, found {there} in its place: it was "
                "deleted, moved or replaced",
                "put it back, and commits go on; or restart the collector on a good copy: agents keep what was not "
                "acknowledged and send it again. While this process runs, its own copy is under /proc/"
                f"{os.getpid()}/fd",
            )


def _id(path: Path) -> _Id | None:
    try:
        s = path.stat()
    except OSError:
        return None
    return s.st_dev, s.st_ino
