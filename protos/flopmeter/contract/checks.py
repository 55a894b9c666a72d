"""Cross-checks by name: an agent's notice says `name: expected …, got …`, an event of the collector names it too."""

from enum import StrEnum


class Check(StrEnum):
    """What is held against what (reference/metering.md 6.2). Never reuse a name."""

    ENERGY_POWER = "energy-power"
    CYCLES_PER_JOULE = "cycles-per-joule"
    DRAM_PER_FLOP = "dram-per-flop"
    NVLINK_PER_FLOP = "nvlink-per-flop"
    SILENT_ZERO = "silent-zero"
    RATE = "rate"
    SCALE = "scale"
    LIBRARY_PATH = "library-path"
    LIBRARY_CHANGED = "library-changed"
    DRIVER_VERSION = "driver-version"


#: Of a newer agent, whose check is not known here.
OTHER = "other"
_NAMES = frozenset(Check)


def check_name(detail: str) -> str:
    """The check that a notice's detail begins with; OTHER where it names none that is known here."""
    name = detail.partition(":")[0]
    return name if name in _NAMES else OTHER
