"""The `nvml` source: the driver's own counters.

GPM gives since-boot cycle counters (ids 248-260, driver R595 and later) and percentages on Hopper and later;
older GPUs give utilisation, energy and clocks only. Every function may be missing from an old driver and
every value may fail alone: then that value is not read. A GPU that is lost or must be reset gives error
readings until `facts` is asked again, which starts NVML anew. MIG instances are looked at every few seconds.

The driver is never called under a lock: a call that hangs costs what asked for it, and the stop waits for none.
"""

import logging
import threading
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from flopmeter.agent.errors import SourceError
from flopmeter.agent.reading import SM_CYCLES_ELAPSED, NodeFacts, Process, Reading
from flopmeter.contract.clock import Clock
from flopmeter.contract.errors import ContractError
from flopmeter.contract.usage import NO_LIBRARY, Library, Uncovered

from . import nvml_calls as nvml
from . import nvml_devices as devices
from . import pci
from .base import COUNTERS_RESTARTED
from .library import loaded_library
from .node import boot_id, node_name, start_ticks
from .nvml_calls import NvmlError
from .nvml_clocks import POLL_S, Poller
from .nvml_devices import Entity, Found
from .values import counter, percent, power_mw

log = logging.getLogger(__name__)

#: A GPU that was reset is seen by who starts NVML anew only. Where one is missing that may come back this is tried after
#: so long, then half as often each time, until others are missing: it costs the percentages of all there an interval.
RETRY_NS = 30_000_000_000
MOST_RETRY_NS = 600_000_000_000
#: With cycle counters clock samples serve the calibration of their scale only (reference/metering.md 7.2): they
#: are collected for so long, and so many readings.
CALIBRATION_NS = 120_000_000_000
CALIBRATION_READINGS = 10
#: Samples of processes, where one is listed: asked for this often, and after one that came and went, each time.
STRANGERS_NS = 5_000_000_000
WATCH_NS = 60_000_000_000
#: How long `facts` waits for reads under way to leave the driver before it starts NVML anew.
_LEAVE_S = 0.5
_NO_FLOATS: Mapping[int, float] = {}
_NO_CYCLES: Mapping[int, int] = {}
_HINTS = {
    "NVML_ERROR_LIBRARY_NOT_FOUND": "install the NVIDIA driver, or pass libnvidia-ml.so.1 into the container "
    "(NVIDIA_DRIVER_CAPABILITIES=utility); without GPUs use --source sim",
    "NVML_ERROR_DRIVER_NOT_LOADED": "load the NVIDIA kernel module (nvidia-smi shows whether it runs)",
    "NVML_ERROR_NO_PERMISSION": "allow the agent to open /dev/nvidiactl and /dev/nvidia*",
    "NVML_ERROR_LIB_RM_VERSION_MISMATCH": "the driver was updated under its library: reboot or reload it",
}


class NvmlSource:
    """A Source over NVML. Entities may be read from several threads, each entity by one at a time.

    `poll_s`: how often SM clocks are collected between readings where that is needed; 0 = by `poll` only.
    """

    def __init__(
        self, clock: Clock, node: str = "", *, sysfs: Path = pci.SYSFS, poll_s: float = POLL_S
    ) -> None:
        self._clock = clock
        self._node = node or node_name()
        self._bus = pci.PciBus(sysfs)
        self._boot_id = boot_id()
        self._lock = threading.Lock()  # guards all below
        # Told when the last call, waited for, has left the driver.
        self._idle = threading.Condition(self._lock)
        self._inside = 0  # reads inside NVML right now: it must not be shut down under them
        self._starting = self._waited_for = False
        self._stale = False
        self._broken: set[str] = set()  # UUIDs whose counters may have restarted; "" = all
        self._read_at: dict[str, int] = {}  # boot time of each entity's last reading
        self._entities: dict[str, Entity] = {}
        self._refused: tuple[Uncovered, ...] = ()  # by NVML, or for what they are
        self._uncovered: tuple[Uncovered, ...] = ()
        self._on_bus: tuple[pci.Accelerator, ...] = ()
        self._missing: list[str] = []  # GPUs that may come back: address, or error where it has none
        self._retry_ns = RETRY_NS
        self._retry_due_ns = 0
        self._driver = self._nvml = ""
        self._library: Library = NO_LIBRARY
        self._poller = Poller(self.poll, poll_s)
        self._start()

    def facts(self) -> NodeFacts:
        """The node now. Starts NVML anew after a GPU was lost, now and then while one is missing, and where the PCI bus
        shows another NVIDIA device than before, unless a read still hangs inside it.
        """
        on_bus = self._bus.look()
        try_again = self._missing and self._clock.boot_ns() >= self._retry_due_ns
        if try_again or _nvidia(on_bus) != _nvidia(self._on_bus):
            self._stale = True
        with self._lock:
            again = self._stale
            if again:
                self._starting = again = self._wait_until_left()
        if again:
            try:
                self._stop()
                self._start()
            finally:
                self._starting = False
        else:
            self._check_migs()
            self._look_around(on_bus)
        with self._lock:
            for e in self._entities.values():
                e.listed = True
            listed = tuple(e.device for e in self._entities.values())
            lacks = tuple((e.device.entity, e.lack) for e in self._entities.values() if e.lack)
        return NodeFacts(
            self._node,
            self._boot_id,
            self._driver,
            self._nvml,
            "nvml",
            listed,
            library=self._library,
            uncovered=self._uncovered,
            lacks=lacks,
        )

    def read(self, entity: str) -> Reading:
        with self._lock:
            found = self._entities.get(entity)
            if found is None or self._starting or self._hangs(found):
                code = "NVML_ERROR_NOT_FOUND" if found is None and not self._starting else "READ_HUNG"
                return self._failed(entity, code)
            found.busy = True
            self._inside += 1
        try:
            if found.instance is not None:
                self._check_instances_if_due(found)
            if (now := self._entities.get(entity)) is not found:  # a MIG instance made anew, or gone
                return self._failed(entity, COUNTERS_RESTARTED if now else "NVML_ERROR_NOT_FOUND")
            if found.restarted:
                found.restarted = not found.listed  # not before its device was told
                self._read_at[entity] = self._clock.boot_ns()
                return self._failed(entity, COUNTERS_RESTARTED)
            reading = self._read(found)
            self._read_at[entity] = reading.t_boot_ns
            return reading
        except NvmlError as e:
            if e.code in nvml.FATAL:
                self._stale = True
                self._broken.add(entity if e.code in nvml.GPU_GONE else "")
            return self._failed(entity, e.name)
        finally:
            with self._lock:
                found.busy = False
                self._left()
                replaced = not self._starting and self._entities.get(entity) is not found
            if replaced:
                found.close()

    def poll(self) -> None:
        """Collect SM clocks of the entities that need it, as the poller does."""
        with self._lock:
            if self._starting:
                return
            polled = [e for e in self._entities.values() if e.polled]
            self._inside += 1
        try:
            for e in polled:
                try:
                    e.clocks.collect()
                except NvmlError:
                    continue  # the next reading says so
        finally:
            with self._lock:
                self._left()

    def _left(self) -> None:
        """A call has left the driver. The lock is held."""
        self._inside -= 1
        if not self._inside and self._waited_for:
            self._idle.notify_all()

    def close(self) -> None:
        self._poller.stop()
        with self._lock:
            # A read that hangs keeps NVML: the process's end frees it.
            left = self._wait_until_left()
            self._starting = True  # for good
        if left:
            self._stop()

    def _wait_until_left(self) -> bool:
        """Until no call is inside NVML; none enters meanwhile. The lock is held. False: one hangs."""
        self._starting = self._waited_for = True
        try:
            return self._idle.wait_for(lambda: self._inside == 0, _LEAVE_S)
        finally:
            self._waited_for = False

    def _hangs(self, e: Entity) -> bool:
        """Whether a read is inside the driver with this entity, or with another of a GPU that is cut: it would wait for
        that one, and everybody for it.
        """
        if e.busy or (e.instance is None and not e.cut):
            return e.busy
        gpu = e.device.parent or e.device.entity
        return any(o.busy for o in self._entities.values() if gpu in (o.device.parent, o.device.entity))

    def _failed(self, entity: str, code: str) -> Reading:
        return Reading(entity, self._clock.boot_ns(), self._clock.unix_ns(), error=code)

    # ---- start and stop ------------------------------------------------------------------------------

    def _start(self) -> None:
        try:
            nvml.start()
        except NvmlError as e:
            self._stale = True
            hint = _HINTS.get(e.name, "run `nvidia-smi` to see whether the driver works")
            raise SourceError(f"nvml: cannot start NVML: {e.name}", hint) from e
        try:
            self._driver = devices.text(nvml.driver_version)
            self._nvml = devices.text(nvml.nvml_version)
            self._list()
        except NvmlError as e:
            self._stop()
            self._stale = True
            raise SourceError(f"nvml: cannot list the GPUs: {e.name}", "run `nvidia-smi`") from e
        if not self._library.path:
            self._library = loaded_library(nvml.address_of_library())
        self._stale = False

    def _list(self) -> None:
        try:
            confidential = nvml.confidential()
        except NvmlError:
            confidential = None
        if confidential:
            log.warning("nvml: confidential-computing mode: NVIDIA documents performance counters as off")
        entities: dict[str, Entity] = {}
        refused: list[Uncovered] = []
        missing: list[str] = []
        for index in range(nvml.device_count()):
            found = self._find(index, confidential)
            entities |= {e.device.entity: e for e in found.entities}
            if found.why:
                log.warning("nvml: GPU %d is left out: %s", index, found.why)
                refused.append(Uncovered(found.address, "NVIDIA", found.model, found.why))
                if found.may_come_back:
                    missing.append(found.address or found.why)
        for uuid, e in entities.items():
            e.restarted = "" in self._broken or bool({uuid, e.device.parent} & self._broken)
            if e.device.persistence is False:
                log.warning("nvml: %s: persistence mode is off: its state may be lost between jobs", uuid)
        self._broken.clear()
        self._refused = tuple(refused)
        with self._lock:
            self._entities = entities
        self._look_around(self._bus.look())
        missing += devices.dropped(refused, entities.values(), self._on_bus)
        if sorted(missing) != self._missing:
            self._missing, self._retry_ns = sorted(missing), RETRY_NS
        self._retry_due_ns = self._clock.boot_ns() + self._retry_ns
        self._retry_ns = min(2 * self._retry_ns, MOST_RETRY_NS)

    def _find(self, index: int, confidential: bool | None) -> Found:
        """While a call hangs in one GPU, NVML stays up under it, and the others are found."""
        with self._lock:
            self._inside += 1
        return devices.find_within(
            devices.FIND_S, index, self._clock, confidential=confidential, left=self._came_back
        )

    def _came_back(self) -> None:
        with self._lock:
            self._left()

    def _look_around(self, on_bus: tuple[pci.Accelerator, ...]) -> None:
        """What of the node is not metered, and why."""
        self._on_bus = on_bus
        listed = {e.device.pci_address for e in self._entities.values()}
        found = devices.uncovered(self._refused, listed, on_bus)
        for left in set(found) - set(self._uncovered):
            log.warning("not metered: %s %s %s: %s", left.pci_address, left.vendor, left.model, left.reason)
        self._uncovered = found

    def _stop(self) -> None:
        for e in self._entities.values():
            e.close()
        with self._lock:
            self._entities = {}
        try:
            nvml.stop()
        except NvmlError as e:
            log.info("nvml: shutdown: %s", e.name)

    def _check_migs(self) -> None:
        """Instances may have come, gone, or been made anew under the same UUID: then the counters are others.

        Not of a GPU that a read hangs in: its look would hang too.
        """
        hung = {e.device.parent or e.device.entity for e in self._entities.values() if e.busy}
        for gpu in [e for e in self._entities.values() if not e.device.mig]:
            if gpu.device.entity not in hung:
                self._try_instances(gpu)

    def _check_instances_if_due(self, instance: Entity) -> None:
        """Of its own GPU alone: another that hangs is no matter of this one's."""
        gpu = self._entities.get(instance.device.parent)
        if gpu is not None and self._clock.boot_ns() >= gpu.instances_due_ns:
            self._try_instances(gpu)

    def _try_instances(self, gpu: Entity) -> None:
        gpu.instances_due_ns = self._clock.boot_ns() + devices.INSTANCES_NS
        try:
            self._check_instances(gpu)
        except (NvmlError, ContractError) as e:
            log.info("nvml: %s: its MIG instances cannot be listed: %s", gpu.device.entity, e)

    def _look_again(self, e: Entity) -> None:
        """An instance of its GPU may be gone: look at the next reading."""
        if (gpu := self._entities.get(e.device.parent)) is not None:
            gpu.instances_due_ns = 0

    def _check_instances(self, parent: Entity) -> None:
        before = {u: e for u, e in self._entities.items() if e.device.parent == parent.device.entity}
        mode = nvml.optional(nvml.mig_mode, parent.handle)
        if (mode is None or mode[0] != 1) and not before:
            return
        seen = devices.list_instances(parent.handle)
        known = {e.instance.identity: e for e in before.values() if e.instance}
        if {each.identity for each in seen} == known.keys():
            return
        log.info("nvml: %s: MIG instances changed", parent.device.entity)
        gpm = nvml.optional(nvml.has_gpm, parent.handle)
        now: dict[str, Entity] = {}
        for each in seen:
            same = known.get(each.identity)
            now[each.uuid] = e = same or devices.open_instance(parent, each, self._clock)
            if same is None:
                e.restarted = each.uuid in before
                if gpm:
                    devices.open_gpm(e, self._clock)
        if parent.cut != bool(now):  # cut now, or whole again: SMs and GPM are others
            self._stale = True
        with self._lock:
            kept = {u: e for u, e in self._entities.items() if u not in before}
            self._entities = {**kept, **now}
            gone = [e for u, e in before.items() if now.get(u) is not e]
        for e in gone:
            if not e.busy:
                e.close()

    # ---- one reading ---------------------------------------------------------------------------------

    def _read(self, e: Entity) -> Reading:
        cycles, percents, rates = _NO_CYCLES, _NO_FLOATS, _NO_FLOATS
        t_boot_ns = late_ns = 0
        if e.gpm is not None:
            try:
                got = e.gpm.read()
                t_boot_ns = got.t_ns  # the counters' own time, not that of the calls that follow
                late_ns = got.late_ns
                cycles = got.cycles
                # Averages that began after the reading before, as after a start of NVML, say nothing of the
                # time between.
                if got.since_ns <= self._read_at.get(e.device.entity, got.since_ns):
                    percents, rates = got.percent, got.rates_mib_s
            except NvmlError as error:
                self._gpm_failed(e, error)
        now_ns = self._clock.boot_ns()
        t_boot_ns = t_boot_ns or now_ns
        t_unix_ns = self._clock.unix_ns() - (now_ns - t_boot_ns)
        e.readings += 1
        calibrating = e.readings <= CALIBRATION_READINGS or t_boot_ns - e.opened_ns < CALIBRATION_NS
        # Without id 248 the others mean nothing, and the percentages need the clock.
        by_clock = calibrating or SM_CYCLES_ELAPSED not in cycles
        clocks = e.clocks.take(t_unix_ns, history=by_clock)
        e.polled = e.clocks.short and not e.cut and by_clock
        if e.polled:
            self._poller.need()
        if now_ns >= e.memory_due_ns:
            e.memory_bytes = counter(e.memory.ask())
            e.memory_due_ns = now_ns + devices.MEMORY_NS
        return Reading(  # by position: by name it costs four times as much
            e.device.entity,
            t_boot_ns,
            t_unix_ns,
            cycles,
            percents,
            clocks,
            counter(e.energy.ask()) if e.energy else None,
            power_mw(e.power.ask()) if e.power else None,
            percent(e.utilization.ask()) if e.utilization else None,
            e.memory_bytes,
            None if e.cut else self._processes(e, now_ns),
            None,  # workload: the agent attributes
            rates,
            e.reasons.ask() if e.reasons else None,
            late_ns,
        )

    def _gpm_failed(self, e: Entity, error: NvmlError) -> None:
        """A sample or its metrics failed. An instance that is gone, and a lost GPU, fail the whole reading."""
        if error.code in nvml.FATAL:
            raise error
        if error.code in nvml.NEVER and not (e.gpm is not None and e.gpm.worked):
            e.close()
            log.info("nvml: %s: no GPM: %s", e.device.entity, error.name)
        elif e.device.mig and error.code == nvml.NOT_FOUND:
            self._look_again(e)
            raise error

    def _processes(self, e: Entity, now_ns: int) -> tuple[Process, ...] | None:
        """Compute processes by host PID; None = cannot be asked. Shares are read where there are several."""
        if e.running is None:
            return None
        pids: list[int] = []
        try:
            for running in e.running:
                pids += running.ask()
        except NvmlError as error:
            if error.code in nvml.FATAL:
                raise
            if error.code in nvml.NEVER:
                e.running = None
            elif e.device.mig:
                self._look_again(e)  # a compute instance may be gone
            return None
        if not pids:
            if e.started:
                e.started.clear()
            return ()
        if len(pids) == 1:
            e.forget_processes(pids)
            own = e.process(pids[0], now_ns, None)
            if now_ns < e.strangers_due_ns or e.instance or e.shares_never or not own.start_ticks:
                e.lately.add(own.pid)
                return (own,)
            return self._with_strangers(e, own, now_ns)
        several = sorted(set(pids))
        e.lately.update(several)
        e.forget_processes(several)
        shares = self._shares(e) if len(several) > 1 and not e.instance else {}
        return tuple(e.process(pid, now_ns, shares.get(pid)) for pid in several)

    def _with_strangers(self, e: Entity, own: Process, now_ns: int) -> tuple[Process, ...]:
        """The one process that is listed, and those that came and went since processes' samples were last asked for.

        Who starts and ends between two readings is in no list, and what it did would be the listed one's alone. A sample
        of a process that was never listed and is not there any more shows it. Where one was, more may come: for a
        while samples are asked for at each reading.
        """
        first = not e.process_seen_us  # the oldest samples are of before our time
        shares = self._shares(e)
        e.process_seen_us = e.process_seen_us or self._clock.unix_ns() // 1_000
        lately, e.lately = e.lately, {own.pid}
        strangers = [
            Process(pid, 0, share)
            for pid, share in sorted(shares.items())
            if share > 0 and pid and pid != own.pid and pid not in lately and not start_ticks(pid)
        ]
        if strangers and not first:
            e.watched_until_ns = now_ns + WATCH_NS
            found = (replace(own, sm_util_pct=shares.get(own.pid)), *strangers)
        else:
            found = (own,)
        if now_ns >= e.watched_until_ns:
            e.strangers_due_ns = now_ns + STRANGERS_NS
        return found

    def _shares(self, e: Entity) -> dict[int, float]:
        """Newest smUtil sample per process. No samples = NOT_FOUND: nobody is known to be idle by it."""
        shares: dict[int, tuple[int, float]] = {}
        if e.shares_never:
            return {}
        try:
            samples = nvml.process_utilization(e.handle, e.process_seen_us)
        except NvmlError as error:
            if error.code in nvml.FATAL:
                raise
            e.shares_never = error.code in nvml.NEVER
            return {}
        for pid, t_us, sm_util in samples:
            e.process_seen_us = max(e.process_seen_us, t_us)
            share = percent(sm_util)
            if share is not None and t_us >= shares.get(pid, (0, 0.0))[0]:
                shares[pid] = (t_us, share)
        return {pid: share for pid, (_, share) in shares.items()}


def _nvidia(on_bus: tuple[pci.Accelerator, ...]) -> tuple[pci.Accelerator, ...]:
    return tuple(card for card in on_bus if card.vendor == pci.NVIDIA)
