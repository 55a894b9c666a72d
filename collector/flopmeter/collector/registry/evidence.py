"""What a tag refers to as evidence: a URL, a digest, or a file, whose digest is recorded beside its name."""

import hashlib
import os
import re
import stat
from pathlib import Path

from flopmeter.collector.errors import RegistryError

#: More is not read while somebody waits; its digest can be given instead.
MAX_EVIDENCE_BYTES = 1 << 30
_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]{0,31}://\S+\Z")
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}\Z")
_BLOCK = 1 << 20


def reference(text: str) -> str:
    """What is recorded for one --evidence. Raises RegistryError."""
    text = text.strip()
    if _URL.match(text) or _DIGEST.match(text):
        return text
    shown = text if len(text) <= 80 else text[:77] + "..."
    try:
        digest = _digest(Path(text))
    except (OSError, ValueError) as e:
        why = e.strerror if isinstance(e, OSError) and e.strerror else str(e)
        raise RegistryError(
            f"evidence {shown!r}: expected a URL, a sha256:… digest (64 hex digits) or a file that can be read: {why}",
            "name the place where the evidence is kept; a note of your own is a file, too",
        ) from e
    return f"{text} sha256:{digest}"


def _digest(path: Path) -> str:
    # Not blocking: a FIFO that nobody writes to must not hold the command for ever.
    handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    with os.fdopen(handle, "rb") as f:
        state = os.fstat(handle)
        if not stat.S_ISREG(state.st_mode):
            raise ValueError("no regular file")
        if state.st_size > MAX_EVIDENCE_BYTES:
            raise ValueError(f"over {MAX_EVIDENCE_BYTES} bytes; give its digest instead (sha256sum FILE)")
        whole = hashlib.sha256()
        while block := f.read(_BLOCK):
            whole.update(block)
    return whole.hexdigest()
