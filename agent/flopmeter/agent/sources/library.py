"""Which NVML this process has loaded: a spoofed one shows (reference/metering.md 6.2)."""

import hashlib
from pathlib import Path

from flopmeter.contract.usage import Library

PROC = Path("/proc")


def loaded_library(address: int, proc: Path = PROC) -> Library:
    """Path and SHA-256 of the file that `address` lies in, and the kernel module's own version line.

    What cannot be read is "". The address is that of a function in use: an LD_PRELOAD in between is found too.
    """
    path = _mapped_file(address, proc / "self" / "maps") if address else ""
    digest = ""
    if path:
        try:
            with open(path, "rb") as f:  # noqa: PTH123
                digest = hashlib.file_digest(f, "sha256").hexdigest()
        except OSError:
            pass  # deleted or replaced since: the path alone says so
    try:
        with (proc / "driver" / "nvidia" / "version").open(encoding="ascii", errors="replace") as f:
            module = " ".join(f.readline(1024).split())
    except OSError:
        module = ""
    return Library(path, digest, module)


def _mapped_file(address: int, maps: Path) -> str:
    """The file whose mapping holds `address`; a file that was deleted keeps the kernel's mark of it."""
    try:
        lines = maps.read_text("utf-8", "replace").splitlines()
    except OSError:
        return ""
    for line in lines:
        span, *_, path = line.split(maxsplit=5)
        start, _, end = span.partition("-")
        if int(start, 16) <= address < int(end, 16):
            return path if path.startswith("/") else ""
    return ""
