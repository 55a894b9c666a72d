"""Which GPU is which /dev/nvidiaN, as the kernel module says it."""

import os

from flopmeter.agent.sources.pci import normal_address

FOLDER = "/proc/driver/nvidia/gpus"
_MAX_GPUS = 64
_MAX_BYTES = 16 << 10


def minor_numbers(folder: str = FOLDER) -> dict[str, int]:
    """Minor number by PCI address, as NVML writes addresses; empty where the module or the folder is not there."""
    try:
        names = sorted(os.listdir(folder))[:_MAX_GPUS]  # noqa: PTH208 - a folder of /proc
    except OSError:
        return {}
    found: dict[str, int] = {}
    for name in names:
        try:
            with open(f"{folder}/{name}/information", "rb") as f:  # noqa: PTH123
                lines = f.read(_MAX_BYTES).decode(errors="replace").splitlines()
        except OSError:
            continue  # gone meanwhile
        said = {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in lines)}
        minor = said.get("Device Minor", "")
        if minor.isascii() and minor.isdigit() and len(minor) < 6:
            found[normal_address(said.get("Bus Location") or name)] = int(minor)
    return found
