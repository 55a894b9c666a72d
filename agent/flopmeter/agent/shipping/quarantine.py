"""What was cut off or refused, kept for a person: never sent, and never more than a limit, the oldest going first."""

import logging
from pathlib import Path

from flopmeter.agent.files import sync_directory, write_file

log = logging.getLogger(__name__)

#: A person looks within days; a record is some kilobytes, so that this is thousands of them.
LIMIT_BYTES = 64 << 20
_WHY = ".txt"


class Quarantine:
    """The directory of it: each thing a file, and beside it a text that says why it is here."""

    def __init__(self, directory: Path, limit_bytes: int = LIMIT_BYTES) -> None:
        self.directory = directory
        self.limit_bytes = limit_bytes
        self.dropped = 0  # things that gave way since this start

    def keep(self, name: str, data: bytes, reason: str) -> Path:
        """Keep `data`. Durable on return; what is older gives way above the limit, this never."""
        path = self.directory / name
        write_file(path, data)
        write_file(path.with_name(name + _WHY), reason.encode() + b"\n")
        self._make_room(path)
        return path

    @property
    def total_bytes(self) -> int:
        return sum(size for _, size, _ in self._things())

    def _things(self) -> list[tuple[int, int, Path]]:
        """(when, bytes with its text, path) of each, the oldest first."""
        found: dict[str, list[tuple[int, int, Path]]] = {}
        for path in self.directory.iterdir():
            try:
                info = path.stat()
            except FileNotFoundError:  # it gave way meanwhile
                continue
            name = path.name.removesuffix(_WHY)
            found.setdefault(name, []).append((info.st_mtime_ns, info.st_size, self.directory / name))
        return sorted((min(f[0] for f in fs), sum(f[1] for f in fs), fs[0][2]) for fs in found.values())

    def _make_room(self, newest: Path) -> None:
        things = self._things()
        total = sum(size for _, size, _ in things)
        try:
            for _, size, path in things:
                if total <= self.limit_bytes:
                    break
                if path == newest:
                    continue
                path.unlink(missing_ok=True)
                path.with_name(path.name + _WHY).unlink(missing_ok=True)
                total -= size
                self.dropped += 1
                log.warning(
                    "quarantine: %s (%d bytes) removed, as more than %d bytes lie in %s",
                    path.name,
                    size,
                    self.limit_bytes,
                    self.directory,
                )
            sync_directory(self.directory)
        except OSError as e:  # nothing needs it gone but the disk: next time
            log.warning("quarantine: cannot make room in %s: %s", self.directory, e.strerror or e)
