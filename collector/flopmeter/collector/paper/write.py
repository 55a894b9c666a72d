"""A file that is there whole or not at all, readable by its owner alone."""

import os
import stat
from contextlib import suppress
from pathlib import Path

from flopmeter.collector.errors import FilingError


def write_whole(
    path: Path, text: str, *, overwrite: bool = False, taken: str = "name another, or move it away"
) -> None:
    """`text` at `path`, mode 0600, in one step; over a file only where that is asked for. Raises FilingError.

    A name that is taken is refused with `taken`: what somebody worked on is never written over by mistake.
    """
    if not overwrite and os.path.lexists(path):
        raise FilingError(f"{path}: expected a name that is free, found a file", taken)
    if overwrite and os.path.lexists(path) and not stat.S_ISREG(path.lstat().st_mode):
        # A rename would put a file in the place of a device, a pipe or a link.
        raise FilingError(f"{path}: expected a file to replace, found something else", "name a file")
    part = path.with_name(f".{path.name[:200]}.{os.getpid()}.part")
    try:
        descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
    except OSError as e:
        raise FilingError(
            f"{path}: cannot write: {e.strerror}", "name a file in a directory that exists"
        ) from e
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8", errors="backslashreplace") as f:
            f.write(text)
            f.flush()
            os.fsync(f.fileno())
        if overwrite:
            part.replace(path)
        else:
            os.link(part, path)  # unlike a rename it never replaces what came there meanwhile
            part.unlink()
    except OSError as e:
        with suppress(OSError):
            part.unlink(missing_ok=True)
        raise FilingError(
            f"{path}: cannot write: {e.strerror}", "free some space, or name another place"
        ) from e
