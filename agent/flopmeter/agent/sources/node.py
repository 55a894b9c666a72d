"""What the kernel says of this node: name, boot id, start times of processes. Plain OS calls."""

import os
import socket

from flopmeter.agent.errors import SourceError

BOOT_ID_FILE = "/proc/sys/kernel/random/boot_id"


def node_name() -> str:
    """The host's name, as Slurm and Kubernetes know it (in a pod: set `node` or use the host's UTS)."""
    return socket.gethostname()


def boot_id() -> bytes:
    """16 bytes, new with every boot of the host; the same inside containers."""
    try:
        with open(BOOT_ID_FILE, "rb") as f:  # noqa: PTH123
            return bytes.fromhex(f.read(64).strip().replace(b"-", b"").decode("ascii"))[:16]
    except (OSError, ValueError) as e:
        raise SourceError(
            f"{BOOT_ID_FILE}: expected the boot id, got {e}", "run on Linux with /proc mounted"
        ) from e


def start_ticks(pid: int) -> int:
    """Field 22 of /proc/PID/stat: start of the process in clock ticks since boot; 0 = gone or hidden."""
    try:
        fd = os.open(f"/proc/{pid}/stat", os.O_RDONLY | os.O_CLOEXEC)
        try:
            text = os.read(fd, 1024)
        finally:
            os.close(fd)
        # The command name, field 2, may hold spaces and parentheses: count from its last parenthesis.
        return int(text[text.rindex(b")") + 2 :].split(None, 20)[19])
    except (OSError, ValueError, IndexError):
        return 0
