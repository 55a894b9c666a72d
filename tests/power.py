"""A disk that can lose its power, and a process that can die at any system call. For tests of durability.

with Disk(root) as disk, Death(nth) as death:
    …                       # raises Died at the nth call that changes files, and at all behind it
disk.cut()                  # only what was synced is there: contents by fsync, names by fsync of their directory
"""

import contextlib
import os
import shutil
import stat
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any, Self

#: What changes files or makes them durable. Opening with O_CREAT goes by `mkdir`'s neighbour `open` in os only.
CALLS = (
    "pwrite",
    "fsync",
    "fdatasync",
    "rename",
    "replace",
    "link",
    "unlink",
    "truncate",
    "ftruncate",
    "mkdir",
)


class Died(BaseException):
    """The process is gone. Not an Exception, so that nothing catches it and carries on."""


class Death:
    """The process dies at its `nth` call of CALLS, `before` or after that took effect; 0 = it lives."""

    def __init__(self, nth: int = 0, *, before: bool = True) -> None:
        self.left, self.before = nth, before
        self.dead = False
        self._undo: dict[str, Callable[..., Any]] = {}

    def _around(self, real: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            if self.dead:
                raise Died
            self.left -= 1
            if self.left != 0:
                return real(*args, **kwargs)
            self.dead = True
            if not self.before:
                real(*args, **kwargs)
            raise Died

        return call

    def __enter__(self) -> Self:
        for name in CALLS:
            self._undo[name] = getattr(os, name)
            setattr(os, name, self._around(self._undo[name]))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for name, real in self._undo.items():
            setattr(os, name, real)


_ours: set[int] = set()  # descriptors that disks keep


def let_go(root: Path) -> None:
    """Close every descriptor below `root`, as a death does: locks go with them."""
    for link in list(Path("/proc/self/fd").iterdir()):
        with contextlib.suppress(OSError):
            if int(link.name) not in _ours and root in link.readlink().parents:
                os.close(int(link.name))


class Disk:
    """Watches what is synced below `root`. What is there at the start is durable."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._contents: dict[int, bytes] = {}  # of a file, by inode, as last synced
        self._names: dict[int, dict[str, int]] = {}  # of a directory, by inode, as last synced
        self._kept: dict[int, int] = {}  # inode -> descriptor, so that its number is not used again
        self._undo = os.fsync, os.fdatasync
        self._all_is_durable()

    def __enter__(self) -> Self:
        self._undo = os.fsync, os.fdatasync
        fsync, fdatasync = self._undo

        def watched(real: Callable[[int], None]) -> Callable[[int], None]:
            def sync(fd: int) -> None:
                real(fd)
                self._synced(fd)

            return sync

        os.fsync, os.fdatasync = watched(fsync), watched(fdatasync)  # type: ignore[assignment]
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        os.fsync, os.fdatasync = self._undo

    def close(self) -> None:
        for fd in self._kept.values():
            os.close(fd)
            _ours.discard(fd)
        self._kept.clear()

    def let_go(self) -> None:
        """The process is gone, the power is not: all that it wrote is there."""
        let_go(self.root)

    def cut(self, lucky: Callable[[str], bool] = lambda what: False) -> None:
        """The power fails. What was not synced is gone, but where `lucky(file name)` says otherwise."""
        self.let_go()
        found: dict[str, bytes | None] = {}
        self._collect(self.root.stat().st_ino, "", found, lucky)
        self.close()
        for path in self.root.iterdir():
            shutil.rmtree(path) if path.is_dir() else path.unlink()
        for name, data in found.items():
            if data is None:
                (self.root / name).mkdir(mode=0o700)
            else:
                (self.root / name).write_bytes(data)
                (self.root / name).chmod(0o600)
        self._all_is_durable()

    def _collect(
        self, inode: int, prefix: str, found: dict[str, bytes | None], lucky: Callable[[str], bool]
    ) -> None:
        names = self._names.get(inode, {})
        if inode in self._kept and lucky(prefix or "."):
            names = self._listing(self._kept[inode])
        for name, child in names.items():
            path = prefix + name
            fd = self._kept.get(child)
            if fd is not None and stat.S_ISDIR(os.fstat(fd).st_mode):
                found[path] = None
                self._collect(child, path + "/", found, lucky)
            elif fd is not None and lucky(path):
                found[path] = _read(fd)
            else:
                found[path] = self._contents.get(child, b"")

    def _synced(self, fd: int) -> None:
        at = Path(f"/proc/self/fd/{fd}").readlink()
        if self.root not in (at, *at.parents):
            return
        inode = self._keep(fd)
        if stat.S_ISDIR(os.fstat(fd).st_mode):
            self._names[inode] = self._listing(fd)
        else:
            self._contents[inode] = _read(self._kept[inode])

    def _keep(self, fd: int) -> int:
        inode = os.fstat(fd).st_ino
        if inode not in self._kept:
            self._kept[inode] = os.open(f"/proc/self/fd/{fd}", os.O_RDONLY)
            _ours.add(self._kept[inode])
        return inode

    def _listing(self, fd: int) -> dict[str, int]:
        found = {}
        for name in os.listdir(fd):
            child = os.open(name, os.O_RDONLY | os.O_NOFOLLOW, dir_fd=fd)
            found[name] = self._keep(child)
            os.close(child)
        return found

    def _all_is_durable(self) -> None:
        self._contents.clear()
        self._names.clear()
        for folder, _, files in os.walk(self.root):
            for name in (".", *files):
                fd = os.open(os.path.join(folder, name), os.O_RDONLY)  # noqa: PTH118 - as os.walk gives them
                self._synced(fd)
                os.close(fd)


def _read(fd: int) -> bytes:
    return os.pread(fd, os.fstat(fd).st_size, 0)
