"""One collector per store: the lock file beside it."""

import fcntl
import os
from pathlib import Path

from flopmeter.collector.errors import StoreError


def lock_store(path: Path) -> int:
    """An exclusive flock beside the store, until the handle is closed: a second collector would break both's memory."""
    name = f"{path}.lock"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle = os.open(name, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as e:
        raise StoreError(
            f"{name}: cannot open: {e.strerror}", "check the directory and its permissions"
        ) from e
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as e:
        holder = os.read(handle, 32).decode(errors="replace").strip()
        os.close(handle)
        raise StoreError(
            f"{path}: another collector{f' (pid {holder})' if holder else ''} has this store open",
            "stop it first, or name another file with --store",
        ) from e
    os.ftruncate(handle, 0)
    os.pwrite(handle, f"{os.getpid()}\n".encode(), 0)
    return handle
