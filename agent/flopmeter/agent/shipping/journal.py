"""The meter's closing state, stored beside each record, so that a restart goes on where the record ended.

    flopmeter-journal/1 SP crc32 of the rest as 8 hex digits SP JSON

Bytes in, bytes out. A journal that is not one (torn, another version, edited) raises JournalError; the
meter then starts anew and says so in a notice.
"""

import json
import zlib
from dataclasses import dataclass, field
from typing import Any

from flopmeter.agent.errors import AgentError
from flopmeter.agent.metering.calibrate import Scale
from flopmeter.agent.metering.ratios import Ratios, load_ratios
from flopmeter.agent.metering.track import dump_device, load_device
from flopmeter.agent.reading import NodeFacts
from flopmeter.contract.usage import Device, GapReason

MAGIC = b"flopmeter-journal/1"
MAX_JOURNAL_BYTES = 8 << 20
#: Boots that a trace played again may start in. A recording with more reboots cannot be resumed.
MAX_PAST_BOOTS = 64


class JournalError(AgentError):
    """The bytes are not a journal of this version."""


@dataclass(slots=True)
class Journal:
    """Everything that a meter needs to go on, but for the tracks, which stay as JSON holds them."""

    boot_id: bytes
    past_boots: list[bytes]
    driver: str
    nvml: str
    devices: tuple[Device, ...]
    scales: dict[str, Scale]  # per model
    puzzled: list[str]  # models whose scale could not be told, which was said
    batch_start_ns: int
    batch_start_unix_ns: int
    resume_ns: int
    now_ns: int
    offset_ns: int  # wall clock minus boot clock
    happened_ns: int
    hole_end_ns: int
    hole_reason: GapReason
    tracks: dict[str, dict[str, Any]]
    ratios: dict[str, Ratios] = field(default_factory=dict)  # k of each pipe, per model
    told: list[str] = field(default_factory=list)  # remarks that records up to here tell of, by name
    began_ns: int = -1  # first item of a meter that had no journal, in this boot


_INTS = (
    "batch_start_ns",
    "batch_start_unix_ns",
    "resume_ns",
    "now_ns",
    "offset_ns",
    "happened_ns",
    "hole_end_ns",
)


def new_journal(facts: NodeFacts) -> Journal:
    """Nothing happened yet, and no device is known."""
    return Journal(
        boot_id=facts.boot_id,
        past_boots=[],
        driver=facts.driver,
        nvml=facts.nvml,
        devices=(),
        scales={},
        puzzled=[],
        batch_start_ns=-1,
        batch_start_unix_ns=-1,
        resume_ns=-1,
        now_ns=-1,
        offset_ns=0,
        happened_ns=-1,
        hole_end_ns=-1,
        hole_reason=GapReason.NONE,
        tracks={},
    )


def dump_journal(j: Journal) -> bytes:
    body = {
        "boot": j.boot_id.hex(),
        "past": [b.hex() for b in j.past_boots[-MAX_PAST_BOOTS:]],
        "driver": j.driver,
        "nvml": j.nvml,
        "devices": [dump_device(d) for d in j.devices],
        "scales": {k: str(v) for k, v in j.scales.items()},
        "ratios": {k: v.dump() for k, v in j.ratios.items()},
        "puzzled": j.puzzled,
        "times": [getattr(j, name) for name in _INTS],
        "hole": int(j.hole_reason),
        "tracks": j.tracks,
        "told": j.told,
        "began": j.began_ns,
    }
    raw = json.dumps(body, separators=(",", ":")).encode()
    return b"%s %08x %s" % (MAGIC, zlib.crc32(raw), raw)


def load_journal(raw: bytes) -> Journal:
    """Raises JournalError for anything that `dump_journal` did not write."""
    magic, _, rest = raw.partition(b" ")
    crc, _, body = rest.partition(b" ")
    if magic != MAGIC:
        raise JournalError(f"journal: expected {MAGIC.decode()}, got {magic[:32]!r}")
    if len(raw) > MAX_JOURNAL_BYTES or crc != b"%08x" % zlib.crc32(body):
        raise JournalError(f"journal: checksum does not fit {len(body)} bytes; it is torn or was edited")
    try:
        data = json.loads(body)
        times = data["times"]
        if len(times) != len(_INTS) or not all(type(t) is int for t in times):
            raise ValueError(f"times: expected {len(_INTS)} integers")
        boot = bytes.fromhex(data["boot"])
        if len(boot) != 16:
            raise ValueError(f"boot id: expected 16 bytes, got {len(boot)}")
        return Journal(
            boot_id=boot,
            past_boots=[bytes.fromhex(b) for b in data["past"]],
            driver=str(data["driver"]),
            nvml=str(data["nvml"]),
            devices=tuple(load_device(d) for d in data["devices"]),
            scales={str(k): Scale(v) for k, v in data["scales"].items()},
            ratios={str(k): load_ratios(v) for k, v in data["ratios"].items()},
            puzzled=[str(m) for m in data["puzzled"]],
            **dict(zip(_INTS, times, strict=True)),
            hole_reason=GapReason(data["hole"]),
            tracks=dict(data["tracks"]),
            told=[str(name) for name in data.get("told", ())],
            began_ns=int(data.get("began", -1)),
        )
    except (KeyError, TypeError, ValueError, AttributeError, RecursionError) as e:
        raise JournalError(f"journal: expected the layout of {MAGIC.decode()}, got {e!r:.200}") from e
