"""Accelerators that the kernel sees on the PCI bus, whoever drives them: so that none is silently left out."""

import re
from dataclasses import dataclass, replace
from pathlib import Path

SYSFS = Path("/sys")

NVIDIA = "10de"
#: PCI vendor ids of accelerators. 1da3 is Habana Labs (Gaudi), Intel's.
VENDORS = {NVIDIA: "NVIDIA", "1002": "AMD", "8086": "Intel", "1da3": "Intel"}
#: Class codes (PCI Code and ID Assignment): VGA, 3D and other display controllers, processing accelerators.
#: 0380 is what data-centre cards without a display say (AMD Instinct MI100, Intel Max).
CLASSES = frozenset(("0300", "0302", "0380", "1200"))
#: Intel's processor graphics is always this function of the first bus.
_INTEL_INTEGRATED = re.compile(r"[0-9a-f]+:00:02\.[0-7]", re.ASCII)
#: AMD's processor graphics by device id (pci.ids: Raven, Renoir, Cezanne, Van Gogh, Rembrandt, Raphael, Phoenix,
#: Mendocino, Strix, Granite Ridge, Krackan). They are VGA controllers; an Instinct never is.
_AMD_INTEGRATED = frozenset(
    (
        "15dd",
        "15d8",
        "1636",
        "1638",
        "164c",
        "15e7",
        "163f",
        "1681",
        "164d",
        "164e",
        "15bf",
        "15c8",
        "1900",
        "1901",
        "1506",
        "150e",
        "1586",
        "13c0",
        "1114",
    )
)


@dataclass(frozen=True, slots=True)
class Accelerator:
    address: str  # as NVML writes it: "00000000:18:00.0"
    vendor: str  # PCI vendor id, four hex digits
    device: str  # PCI device id
    driver: str  # kernel driver that holds it; "" = none

    @property
    def vendor_name(self) -> str:
        return VENDORS[self.vendor]

    @property
    def model(self) -> str:
        return f"{self.vendor}:{self.device}"


def normal_address(text: str) -> str:
    """A PCI address as NVML writes it (domain of eight digits, capitals); other text as it is."""
    domain, _, rest = text.strip().partition(":")
    return f"{domain:0>8}:{rest}".upper() if rest else text


def accelerators(sysfs: Path = SYSFS) -> tuple[Accelerator, ...]:
    """By address. Processor graphics, management controllers' VGA and virtual functions of a card are none.

    A folder that cannot be read (no /sys in a container) gives none.
    """
    try:
        folders = sorted((sysfs / "bus" / "pci" / "devices").iterdir())
    except OSError:
        return ()
    found = []
    for folder in folders:
        try:
            kind, vendor, device = (_number(folder / name) for name in ("class", "vendor", "device"))
        except (OSError, ValueError):
            continue  # gone meanwhile
        if kind[:4] not in CLASSES or vendor not in VENDORS or (folder / "physfn").exists():
            continue
        integrated = (vendor == "8086" and _INTEL_INTEGRATED.fullmatch(folder.name)) or (
            vendor == "1002" and kind.startswith("03") and device in _AMD_INTEGRATED
        )
        if integrated:
            continue
        found.append(Accelerator(normal_address(folder.name), vendor, device, _driver(folder)))
    return tuple(found)


class PciBus:
    """The bus, looked at again and again: what has not changed is not read again."""

    def __init__(self, sysfs: Path = SYSFS) -> None:
        self._sysfs = sysfs
        self._names: list[str] | None = None
        self._found: tuple[Accelerator, ...] = ()

    def look(self) -> tuple[Accelerator, ...]:
        """As `accelerators`. Which driver holds each is asked every time, devices only where one came or went."""
        folder = self._sysfs / "bus" / "pci" / "devices"
        try:
            names = sorted(entry.name for entry in folder.iterdir())
        except OSError:
            names = []
        if names != self._names:
            self._names, self._found = names, accelerators(self._sysfs)
            return self._found
        known = {normal_address(name): name for name in names}
        self._found = tuple(replace(a, driver=_driver(folder / known[a.address])) for a in self._found)
        return self._found


def _number(file: Path) -> str:
    """A hex number without its 0x, in small letters: "0x030200" is "030200"."""
    text = file.read_text("ascii").strip().removeprefix("0x").lower()
    int(text, 16)
    return text


def _driver(folder: Path) -> str:
    try:
        return (folder / "driver").readlink().name
    except OSError:
        return ""
