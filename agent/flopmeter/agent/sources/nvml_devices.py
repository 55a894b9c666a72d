"""What NVML lists: GPUs and MIG GPU instances as entities, and what of the node cannot be metered, and why."""

import logging
import re
import threading
from collections.abc import Callable, Collection, Iterable
from concurrent.futures import Future, InvalidStateError
from concurrent.futures import TimeoutError as FutureTimeout
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import TypeVar

from flopmeter.agent.reading import Process
from flopmeter.contract.clock import Clock
from flopmeter.contract.errors import ContractError
from flopmeter.contract.ids import check_entity, check_label
from flopmeter.contract.limits import MAX_SM_CLOCK_MHZ
from flopmeter.contract.usage import Device, Uncovered

from . import nvml_calls as nvml
from .base import MIG_EMPTY, NO_CORES
from .node import start_ticks
from .nvml_calls import GpmPair, Handle, NvmlError, Processes, Value
from .nvml_clocks import Clocks
from .nvml_gpm import Gpm
from .pci import NVIDIA, VENDORS, Accelerator, normal_address

log = logging.getLogger(__name__)
_T = TypeVar("_T")

#: How long a GPU is waited for when NVML starts: waking one where persistence mode is off takes seconds.
FIND_S = 5.0
HUNG = "NVML_ERROR_TIMEOUT"  # as a read that hangs is told

#: CUDA cores of one SM by compute capability (reference/metering.md 3.1): cores / this = SMs. Others: not known.
_CORES_PER_SM = {"7.0": 64, "7.2": 64, "7.5": 64, "8.0": 64, "8.6": 128, "8.7": 128, "8.9": 128, "9.0": 128}
_CORES_PER_SM_BY_MAJOR = {10: 128, 11: 128, 12: 128}
#: Name of a MIG-backed vGPU: board, slices, GB, kind ("NVIDIA H100-7-80C"); a time-sliced one has no slices
#: ("NVIDIA H100-20C"). Only the former counts rightly (reference/metering.md 1.4).
_MIG_BACKED = re.compile(r"-\d+-\d+[A-Z]+(ME)?$", re.ASCII)
#: How long a process is taken to be the one it was: its number cannot come round in less.
IDENTITY_NS = 10_000_000_000
#: MIG instances may be destroyed and made again at any time; so often they are looked at beside the readings.
INSTANCES_NS = 10_000_000_000
#: How old the memory figure of a reading may be: it changes slowly, and nothing is metered by it.
MEMORY_NS = 10_000_000_000


class Refused(Exception):  # noqa: N818 - not an error: what the device is
    """A device that must not be metered, because its numbers would be wrong."""


@dataclass(slots=True)
class Found:
    """What the driver says of its GPU at one index: its entities, or why there are none."""

    address: str = ""
    model: str = ""
    entities: "list[Entity]" = field(default_factory=list)
    why: str = ""
    may_come_back: bool = False


@dataclass(slots=True)
class Instance:
    """A MIG GPU instance as NVML lists it: by its compute instances, which share its counters."""

    gpu_instance: int
    uuid: str  # of its first compute instance
    placed: tuple[int, int]  # first slice and slices; (-1, -1) = not known, only an administrator may ask
    migs: list[Handle]
    sms: int  # 0 = not known

    @property
    def identity(self) -> tuple[object, ...]:
        """While this stays the counters are those of the same thing (reference/metering.md 6.1)."""
        return self.gpu_instance, self.uuid, self.placed, len(self.migs), self.sms


@dataclass(slots=True, eq=False)
class Entity:
    """One metered entity: a GPU, or a MIG GPU instance."""

    device: Device
    handle: Handle  # the GPU's own
    clocks: Clocks
    memory: Value
    instance: Instance | None = None  # None = a whole GPU
    cut: bool = False  # a GPU whose SMs are metered in its instances
    instances_due_ns: int = 0  # of a GPU: when its instances are to be looked at beside their readings
    gpm: Gpm | None = None
    energy: Value | None = None
    power: Value | None = None
    utilization: Value | None = None
    reasons: Value | None = None
    running: list[Processes] | None = None  # of each compute instance
    started: dict[int, tuple[Process, int]] = field(default_factory=dict)  # by PID, and when it was asked
    memory_bytes: int | None = None
    memory_due_ns: int = 0
    opened_ns: int = 0
    process_seen_us: int = 0
    lately: set[int] = field(
        default_factory=set
    )  # PIDs that were listed since samples of processes were asked for
    strangers_due_ns: int = 0
    watched_until_ns: int = 0
    shares_never: bool = False
    readings: int = 0
    polled: bool = False  # clocks are to be collected between readings
    lack: str = ""  # why the driver tells no more of it
    listed: bool = False  # `facts` has told of it
    restarted: bool = False  # counts something else than before under the same UUID
    busy: bool = False

    def process(self, pid: int, now_ns: int, share: float | None) -> Process:
        known, asked_ns = self.started.get(pid, (None, 0))
        if known is None or not known.start_ticks or now_ns - asked_ns > IDENTITY_NS:
            known = Process(pid, start_ticks(pid))
            self.started[pid] = known, now_ns
        return known if share is None else replace(known, sm_util_pct=share)

    def forget_processes(self, pids: Collection[int]) -> None:
        """Keep what is known of `pids` only."""
        if len(self.started) > len(pids) or not self.started.keys() <= set(pids):
            self.started = {pid: known for pid, known in self.started.items() if pid in pids}

    def close(self) -> None:
        if self.gpm is not None:
            self.gpm.close()
            self.gpm = None


def find_within(
    deadline_s: float, index: int, clock: Clock, *, confidential: bool | None, left: Callable[[], None]
) -> Found:
    """The GPU that NVML lists at `index`. A call that hangs is left behind, with the thread that made it; `left` is told
    when it has come back, or at once.
    """
    answer: Future[Found] = Future()
    found = Found()

    def look() -> None:
        try:
            _fill(found, index, clock, confidential=confidential)
            answer.set_result(found)
        except InvalidStateError:  # too late
            for e in found.entities:
                e.close()
        except BaseException as e:  # noqa: BLE001 - raised again where it was asked
            with suppress(InvalidStateError):
                answer.set_exception(e)
        finally:
            left()

    threading.Thread(target=look, name=f"nvml-gpu-{index}", daemon=True).start()
    try:
        return answer.result(deadline_s)
    except FutureTimeout:
        if answer.cancel():
            return Found(found.address, found.model, why=HUNG, may_come_back=True)
        return answer.result()


def _fill(found: Found, index: int, clock: Clock, *, confidential: bool | None) -> None:
    try:
        handle = nvml.device_at(index)
        found.address, found.model = address_of(handle), text(nvml.name, handle)
        found.entities = find(handle, clock, confidential=confidential)
    except NvmlError as e:
        if e.code in nvml.DRIVER_GONE:
            raise  # reloaded meanwhile: that is no word on this GPU
        found.why, found.may_come_back = e.name, e.code not in nvml.NEVER
    except (ContractError, Refused) as e:
        found.why = str(e)


def find(handle: Handle, clock: Clock, *, confidential: bool | None) -> list[Entity]:
    """The GPU and its MIG instances. Raises NvmlError, ContractError or Refused if it cannot be metered."""
    capability = "{}.{}".format(*nvml.compute_capability(handle))
    gpm, lack = _gpm_support(handle)
    name = text(nvml.name, handle)
    if _quiet(nvml.virtualization, handle) == nvml.VGPU_GUEST and not (gpm and _MIG_BACKED.search(name)):
        raise Refused(
            f"vGPU guest ({name}): its counters are not those of its share of the GPU; run the agent on the host"
        )
    mode = _quiet(nvml.mig_mode, handle)
    mig = mode is not None and mode[0] == 1
    cores = _quiet(nvml.cores, handle) or 0
    per_sm = _CORES_PER_SM.get(capability) or _CORES_PER_SM_BY_MAJOR.get(int(capability.partition(".")[0]), 0)
    mhz = _quiet(nvml.max_sm_clock, handle) or 0
    persistence = _quiet(nvml.persistence, handle)
    gpu = Device(
        entity=check_entity(nvml.uuid(handle)),
        name=name,
        compute_capability=capability,
        sm_count=cores // per_sm if per_sm else 0,
        max_sm_clock_mhz=mhz if 0 < mhz <= MAX_SM_CLOCK_MHZ else 0,
        serial=text(nvml.serial, handle),
        pci_address=address_of(handle),
        persistence=None if persistence is None else persistence == 1,
        confidential=confidential,
    )
    entity = Entity(
        gpu,
        handle,
        Clocks(handle, clock),
        nvml.memory_used(handle),
        energy=nvml.energy_mj(handle),
        power=nvml.power_mw(handle),
        utilization=nvml.utilization_pct(handle),
        reasons=nvml.event_reasons(handle),
        opened_ns=clock.boot_ns(),
        instances_due_ns=clock.boot_ns() + INSTANCES_NS,
    )
    listed = list_instances(handle) if mig else []
    instances = [open_instance(entity, each, clock) for each in listed]
    entity.cut = bool(instances)
    entity.lack = lack
    if not instances:
        entity.running = _processes([handle])
        if mig or (per_sm and not cores):
            entity.lack = MIG_EMPTY if mig else NO_CORES
    for each in instances or [entity]:
        if gpm:
            open_gpm(each, clock)
    return [entity, *instances]


def list_instances(handle: Handle) -> list[Instance]:
    """MIG GPU instances that hold a compute instance. Raises NvmlError if it is fatal, ContractError."""
    found: dict[int, Instance] = {}
    for index in range(_quiet(nvml.mig_count, handle) or 0):
        mig = _quiet(nvml.mig_at, handle, index)
        number = None if mig is None else _quiet(nvml.gpu_instance_of, mig)
        if number is None:
            continue
        sms = _quiet(nvml.mig_sms, mig) or 0
        if (known := found.get(number)) is not None:
            known.migs.append(mig)
            known.sms = known.sms + sms if sms and known.sms else 0
            continue
        # Drivers before R470 name them MIG-GPU-…/gi/ci.
        uuid = check_entity(nvml.uuid(mig).replace("/", "-"))
        placed = _quiet(nvml.placement, handle, number) or (-1, -1)
        found[number] = Instance(number, uuid, placed, [mig], sms)
    return list(found.values())


def open_instance(parent: Entity, instance: Instance, clock: Clock) -> Entity:
    """The instance as an entity, without GPM yet. Raises NvmlError if it is fatal."""
    first = instance.migs[0]
    device = replace(
        parent.device,
        entity=instance.uuid,
        name=text(nvml.name, first) or parent.device.name,
        sm_count=instance.sms,
        mig=True,
        parent=parent.device.entity,
        gpu_instance=instance.gpu_instance,
    )
    return Entity(
        device,
        parent.handle,
        Clocks(parent.handle, clock),  # NVML has clocks per GPU only
        nvml.memory_used(first),
        instance=instance,
        running=_processes(instance.migs),
        opened_ns=clock.boot_ns(),
    )


def _gpm_support(handle: Handle) -> tuple[bool, str]:
    """Whether the driver offers GPM, and its error name where it cannot say. Raises NvmlError if it is fatal."""
    try:
        return nvml.has_gpm(handle), ""
    except NvmlError as e:
        if e.code in nvml.FATAL:
            raise
        return False, e.name


def open_gpm(entity: Entity, clock: Clock) -> None:
    """The first sample. Without one the entity has no GPM; raises NvmlError if that is fatal."""
    try:
        entity.gpm = Gpm(GpmPair(entity.handle, entity.device.gpu_instance), clock)
    except NvmlError as e:
        if e.code in nvml.FATAL:
            raise
        entity.lack = entity.lack or e.name
        log.info("nvml: %s: no GPM: %s", entity.device.entity, e.name)


def uncovered(
    refused: Iterable[Uncovered], listed: Iterable[str], on_bus: Iterable[Accelerator]
) -> tuple[Uncovered, ...]:
    """What the node holds and nothing here meters: what NVML listed and was refused, and what it did not list.

    A GPU that fell out of NVML has no address there: it is told to be the one that the bus shows and NVML lacks.
    """
    known = {normal_address(a) for a in listed}
    by_address = {normal_address(u.pci_address): u for u in refused if u.pci_address}
    nameless = [u for u in refused if not u.pci_address]
    found: list[Uncovered] = []
    for card in on_bus:
        if card.address in known:
            continue
        if (said := by_address.pop(card.address, None)) is not None:
            found.append(Uncovered(card.address, said.vendor, said.model or card.model, said.reason))
        elif card.vendor == NVIDIA and nameless:
            said = nameless.pop(0)
            found.append(Uncovered(card.address, said.vendor, said.model or card.model, said.reason))
        elif card.vendor == NVIDIA:
            held = f"held by driver {card.driver}" if card.driver else "no driver holds it"
            found.append(Uncovered(card.address, "NVIDIA", card.model, f"NVML does not list it; {held}"))
        else:
            reason = "NVML reads NVIDIA devices only"
            found.append(Uncovered(card.address, VENDORS[card.vendor], card.model, reason))
    return (*found, *by_address.values(), *nameless)


def dropped(
    refused: Iterable[Uncovered], listed: Iterable[Entity], on_bus: Iterable[Accelerator]
) -> frozenset[str]:
    """Addresses of GPUs that NVIDIA's driver holds and NVML does not list."""
    known = {normal_address(e.device.pci_address) for e in listed}
    known |= {normal_address(u.pci_address) for u in refused}
    held = (c.address for c in on_bus if c.vendor == NVIDIA and c.driver == "nvidia")
    return frozenset(held) - known


def address_of(handle: Handle) -> str:
    """PCI address as NVML writes it; "" if it cannot be had."""
    return text(nvml.pci_address, handle)


def text(function: Callable[..., str], *args: object) -> str:
    """A name from the driver; "" if it cannot be had or is no text that may stand in the books."""
    try:
        return check_label("name", function(*args).strip())
    except (NvmlError, ContractError):
        return ""


def _processes(handles: list[Handle]) -> list[Processes] | None:
    try:
        return [Processes(handle) for handle in handles]
    except NvmlError:
        return None


def _quiet(function: Callable[..., _T], *args: object) -> _T | None:
    """The answer, or None; an error after which the handle is of no use is raised."""
    try:
        return function(*args)
    except NvmlError as e:
        if e.code in nvml.FATAL:
            raise
        return None
