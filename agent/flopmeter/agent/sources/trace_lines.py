"""Reads one line of a flopmeter-trace/1 file (docs/trace-format.md). Pure: text in, values out.

Whatever a line holds, reading it gives a value or raises LineError. Numbers that NVML would not return are
dropped as failed reads of that value and named to `refused`.
"""

import hashlib
import json
import re
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from flopmeter.agent.reading import (
    CYCLE_IDS,
    DRAM_BW_UTIL,
    GRAPHICS_UTIL,
    PERCENT_IDS,
    RATE_IDS,
    Happening,
    HappeningKind,
    NodeFacts,
    Process,
    Reading,
)
from flopmeter.contract.errors import ContractError
from flopmeter.contract.ids import check_entity, check_label
from flopmeter.contract.limits import MAX_ENTITIES, MAX_SM_CLOCK_MHZ, MAX_WORKLOADS
from flopmeter.contract.usage import IDLE, Device, Workload, WorkloadKind
from flopmeter.contract.w_table import DTYPE_RATE

from .values import clock_mhz, counter, percent, power_mw

FORMAT = "flopmeter-trace/1"
MAX_TIME_NS = (1 << 63) - 1
#: More SMs than any GPU has (the largest listed has 188, metering.md 3.3).
MAX_SM_COUNT = 4_096

_CYCLE_KEYS = {str(i): i for i in CYCLE_IDS}
_PERCENT_KEYS = {str(i): i for i in (*PERCENT_IDS, GRAPHICS_UTIL, DRAM_BW_UTIL)}
_RATE_KEYS = {str(i): i for i in RATE_IDS}
_KINDS = {kind.label: kind for kind in WorkloadKind}
_COMPUTE_CAPABILITY = re.compile(r"(\d{1,3}\.\d{1,2})?\Z")

_T = TypeVar("_T")

Refused = Callable[[str], None]


class LineError(ValueError):
    """The line breaks the format: what was expected, what was got."""


class NotJsonError(LineError):
    """The line is not JSON: what a half-written line looks like."""


def parse_object(line: bytes) -> dict[str, Any]:
    """The JSON object of one line. Depth, digits and encoding out of bounds are LineErrors like any other."""
    try:
        value = json.loads(line.decode())
    except RecursionError:
        raise LineError("expected a flat JSON object, got one nested too deep") from None
    except ValueError as e:  # JSONDecodeError, UnicodeDecodeError, integers of over 4300 digits
        raise NotJsonError(f"expected one JSON object, got {line[:60]!r} ({e})") from None
    if type(value) is not dict:
        raise LineError(f"expected one JSON object, got {line[:60]!r}")
    return value


def parse_header(line: bytes) -> NodeFacts:
    """The first line: what the node is."""
    data = parse_object(line)
    if data.get("format") != FORMAT:
        raise LineError(f'expected "format":"{FORMAT}", got {_short(data.get("format"))}')
    recorded_from = _text(data, "source")
    return NodeFacts(
        node=_text(data, "node", required=True),
        boot_id=boot_id(_text(data, "boot_id", required=True)),
        driver=_text(data, "driver"),
        nvml=_text(data, "nvml"),
        source=recorded_from if recorded_from == "dcgm" else "trace",
        devices=parse_devices(data.get("devices")),
        cluster=_text(data, "cluster"),
    )


def boot_id(text: str) -> bytes:
    """16 bytes: a UUID as the kernel prints it, with or without dashes; other text by its hash."""
    digits = text.replace("-", "")
    if re.fullmatch(r"[0-9A-Fa-f]{32}", digits):
        return bytes.fromhex(digits)
    return hashlib.sha256(b"flopmeter-trace boot_id " + text.encode()).digest()[:16]


def parse_devices(value: object) -> tuple[Device, ...]:
    """All metered entities of the node, each once."""
    if type(value) is not list or len(value) > MAX_ENTITIES:
        raise LineError(f"devices: expected a list of at most {MAX_ENTITIES}, got {_short(value)}")
    devices = tuple(_device(item) for item in value)
    if len({d.entity for d in devices}) != len(devices):
        raise LineError("devices: expected every entity once, got one twice")
    return devices


def _device(data: object) -> Device:
    if type(data) is not dict:
        raise LineError(f"device: expected an object, got {_short(data)}")
    capability = _text(data, "compute_capability")
    if not _COMPUTE_CAPABILITY.match(capability):
        raise LineError(f'compute_capability: expected text like "9.0", got {_short(capability)}')
    parent = _text(data, "parent")
    return Device(
        entity=_entity(data.get("entity")),
        name=_text(data, "name"),
        compute_capability=capability,
        sm_count=_whole(data, "sm_count", MAX_SM_COUNT, default=0),
        max_sm_clock_mhz=_whole(data, "max_sm_clock_mhz", MAX_SM_CLOCK_MHZ, default=0),
        serial=_text(data, "serial"),
        mig=data.get("mig") is True,
        parent=_entity(parent) if parent else "",
        gpu_instance=_whole(data, "gpu_instance", 1_000, default=-1),
        pci_address=_text(data, "pci_address"),
        persistence=_switch(data, "persistence"),
        confidential=_switch(data, "confidential"),
    )


class LineParser:
    """Turns the lines after the first into readings and happenings. Workloads that repeat are shared."""

    def __init__(self, refused: Refused) -> None:
        self._refused = refused
        self._workloads: dict[tuple[object, ...], Workload] = {}

    def parse(self, line: bytes) -> Reading | Happening:
        data = parse_object(line)
        t_boot_ns = data.get("t_boot_ns")
        t_unix_ns = data.get("t_unix_ns")
        if type(t_boot_ns) is not int or not 0 <= t_boot_ns <= MAX_TIME_NS:
            raise LineError(f"t_boot_ns: expected nanoseconds as an integer, got {_short(t_boot_ns)}")
        if type(t_unix_ns) is not int or not 0 <= t_unix_ns <= MAX_TIME_NS:
            raise LineError(f"t_unix_ns: expected nanoseconds as an integer, got {_short(t_unix_ns)}")
        if data.get("event") is not None:
            return self._happening(data, t_boot_ns, t_unix_ns)
        entity = data.get("entity")
        if type(entity) is not str:
            raise LineError(f"expected an entity or an event, got {_short(entity)}")
        workload = self._workload(data["workload"]) if "workload" in data else None
        if data.get("error") is not None:
            code = _text(data, "error", required=True)
            return Reading(entity, t_boot_ns, t_unix_ns, workload=workload, error=code)
        try:
            return self._reading(data, entity, t_boot_ns, t_unix_ns, workload)
        except TypeError as e:  # from values: text or a list where a number belongs
            raise LineError(f"values: {e}") from None

    def _reading(
        self, data: dict[str, Any], entity: str, t_boot_ns: int, t_unix_ns: int, workload: Workload | None
    ) -> Reading:
        cycles: dict[int, int] = {}
        percents: dict[int, float] = {}
        rates: dict[int, float] = {}
        gpm = data.get("gpm")
        if gpm is not None:
            if type(gpm) is not dict:
                raise LineError(f"gpm: expected an object, got {_short(gpm)}")
            for key, value in gpm.items():
                if (metric := _CYCLE_KEYS.get(key)) is not None:
                    if (count := counter(value)) is not None:
                        cycles[metric] = count
                    else:
                        self._refused(f"gpm.{key}")
                elif (metric := _PERCENT_KEYS.get(key)) is not None:
                    if (share := percent(value)) is not None:
                        percents[metric] = share
                    else:
                        self._refused(f"gpm.{key}")
                elif (metric := _RATE_KEYS.get(key)) is not None:
                    if counter(value) is not None:
                        rates[metric] = value
                    else:
                        self._refused(f"gpm.{key}")
        return Reading(
            entity,
            t_boot_ns,
            t_unix_ns,
            cycles,
            percents,
            self._clocks(data.get("sm_clock_mhz")),
            self._value(data, "energy_mj", counter),
            self._value(data, "power_mw", power_mw),
            self._value(data, "utilization_gpu_pct", percent),
            self._value(data, "memory_used_bytes", counter),
            self._processes(data.get("processes")),
            workload,
            rates,
            self._value(data, "clock_event_reasons", counter),
            self._value(data, "late_ns", counter) or 0,
        )

    def _value(self, data: dict[str, Any], key: str, check: Callable[[object], _T | None]) -> _T | None:
        value = data.get(key)
        if value is None:
            return None
        checked = check(value)
        if checked is None:
            self._refused(key)
        return checked

    def _clocks(self, value: object) -> tuple[float, ...]:
        if value is None:
            return ()
        samples = value if type(value) is list else (value,)
        clocks = tuple(mhz for sample in samples if (mhz := clock_mhz(sample)) is not None)
        if len(clocks) != len(samples):
            self._refused("sm_clock_mhz")
        return clocks

    def _processes(self, value: object) -> tuple[Process, ...] | None:
        if value is None:
            return None
        if type(value) is not list or not all(type(item) is dict for item in value):
            raise LineError(f"processes: expected a list of objects, got {_short(value)}")
        return tuple(
            Process(
                pid=_whole(item, "pid", MAX_TIME_NS),
                start_ticks=_whole(item, "start_ticks", MAX_TIME_NS, default=0),
                sm_util_pct=self._value(item, "sm_util_pct", percent),
            )
            for item in value
        )

    def _workload(self, value: object) -> Workload:
        if value is None:
            return IDLE
        if type(value) is not dict:
            raise LineError(f"workload: expected an object or null, got {_short(value)}")
        fields = ("kind", "job", "step", "run", "user", "dtype", "restart")
        key = tuple(value.get(name) for name in fields)
        try:
            known = self._workloads.get(key)
        except TypeError:
            raise LineError(f"workload: expected text fields, got {_short(value)}") from None
        if known is None:
            known = self._new_workload(value)
            if len(self._workloads) >= MAX_WORKLOADS:
                self._workloads.clear()
            self._workloads[key] = known
        return known

    def _new_workload(self, data: dict[str, Any]) -> Workload:
        kind = _KINDS.get(str(data.get("kind")))
        if kind is None:
            raise LineError(
                f"workload kind: expected one of {', '.join(_KINDS)}, got {_short(data.get('kind'))}"
            )
        dtype = _text(data, "dtype")
        if dtype and dtype not in DTYPE_RATE:  # the point stays at the default; nothing is guessed
            self._refused("workload.dtype")
            dtype = ""
        return Workload(
            kind=kind,
            job=_text(data, "job"),
            step=_text(data, "step"),
            run=_text(data, "run"),
            user=_text(data, "user"),
            dtype=dtype,
            restart=_whole(data, "restart", (1 << 31) - 1, default=0),
        )

    def _happening(self, data: dict[str, Any], t_boot_ns: int, t_unix_ns: int) -> Happening:
        name = data["event"]
        if name not in tuple(HappeningKind):
            raise LineError(f"event: expected one of {', '.join(HappeningKind)}, got {_short(name)}")
        kind = HappeningKind(name)
        entity = data.get("entity")
        return Happening(
            kind=kind,
            t_boot_ns=t_boot_ns,
            t_unix_ns=t_unix_ns,
            entity="" if entity is None else _entity(entity),
            boot_id=boot_id(_text(data, "boot_id", required=True)) if kind is HappeningKind.REBOOT else b"",
            devices=parse_devices(data.get("devices")) if kind is HappeningKind.MIG_CHANGE else (),
        )


def _text(data: Mapping[str, Any], key: str, *, required: bool = False) -> str:
    value = data.get(key)
    if type(value) is int and abs(value) <= MAX_TIME_NS:  # job numbers are often written as numbers
        value = str(value)
    if value is None and not required:
        return ""
    if type(value) is not str or (required and not value):
        raise LineError(f"{key}: expected text, got {_short(value)}")
    try:
        return check_label(key, value)
    except ContractError as e:
        raise LineError(str(e)) from None


def _entity(value: object) -> str:
    try:
        return check_entity(value if type(value) is str else "")
    except ContractError as e:
        raise LineError(str(e)) from None


def _switch(data: Mapping[str, Any], key: str) -> bool | None:
    """True, false, or not known."""
    value = data.get(key)
    if value is None or type(value) is bool:
        return value
    raise LineError(f"{key}: expected true or false, got {_short(value)}")


def _whole(data: Mapping[str, Any], key: str, most: int, *, default: int | None = None) -> int:
    value = data.get(key)
    if value is None and default is not None:
        return default
    if type(value) is not int or not min(0, default or 0) <= value <= most:
        raise LineError(f"{key}: expected an integer from 0 to {most}, got {_short(value)}")
    return value


def _short(value: object) -> str:
    text = "nothing" if value is None else ascii(value) if not isinstance(value, int) else hex(value)
    return text if len(text) <= 60 else text[:57] + "…"
