"""The `dcgm` source: scrapes the node's dcgm-exporter, for GPUs whose pipe counters NVML does not show.

Gauges there are averages over the exporter's own collect interval (30 s by default), so pages are fetched
more often than that and held in between: each average stands for the time until the next, so that nothing counts
twice and nothing is lost. dcgm_page.py says what a page means, dcgm_age.py whether it is still news.

Cycle totals stand still between two collections and then jump. A reading carries them only when they are
new: in between it has neither cycles nor percentages, so that the meter waits for the next totals and no
interval holds more cycles than its time.

Where NVML can be asked too (`beside`), the device's own facts (SM count, compute capability, MIG instances by their
UUIDs), its processes, clock samples, energy and power are read there: fresher than a page, and no table's guess.
"""

import logging
import threading
from collections.abc import Callable
from dataclasses import replace
from urllib.parse import urlsplit

from flopmeter.agent.errors import SourceError
from flopmeter.agent.reading import SM_CYCLES_ELAPSED, NodeFacts, Reading
from flopmeter.contract.clock import Clock
from flopmeter.contract.limits import MAX_SCRAPE_BYTES
from flopmeter.contract.usage import Device, Uncovered

from . import dcgm_fields as fields
from .base import Source
from .dcgm_age import STILL_NS, Freshness
from .dcgm_page import Scrape, understand
from .fetch import fetch_page
from .node import boot_id, node_name
from .prom_text import parse_page

log = logging.getLogger(__name__)

DEFAULT_URL = "http://127.0.0.1:9400/metrics"
RETRY_NS = 1_000_000_000  # after a failed scrape
TIMEOUT_S = 2.0

_HINT = (
    "check that dcgm-exporter runs on this node and that --source dcgm:URL names its /metrics page; "
    "its counter file needs DCGM_FI_PROF_PIPE_TENSOR_ACTIVE (and …_TENSOR_HMMA_ACTIVE, …_TENSOR_IMMA_ACTIVE)"
)

Fetch = Callable[[str, float, int], bytes]


class DcgmSource:
    """A Source over one exporter page. `read` is safe from several threads.

    `beside`: another source of the same GPUs (NVML), asked for what the page does not say. Its failures cost
    only what it alone knows. It is closed with this one.
    """

    def __init__(
        self,
        url: str,
        clock: Clock,
        fetch: Fetch | None = None,
        node: str = "",
        beside: Source | None = None,
    ) -> None:
        if urlsplit(url).scheme not in ("http", "https"):
            raise SourceError(
                f"dcgm: expected an http or https URL, got {url!r}", f"for example dcgm:{DEFAULT_URL}"
            )
        self.url = url
        self._clock = clock
        self._fetch = fetch or fetch_page
        self._node = node or node_name()
        self._boot_id = boot_id()
        self._beside = beside
        self._known: dict[str, Device] = {}  # by the page's name of the entity: what `beside` says of it
        self._named: dict[str, str] = {}  # entity as given out -> as on the page, where they differ
        self._lock = threading.Lock()
        self._scrape: Scrape | None = None
        self._dead: frozenset[str] = frozenset()
        self._age = Freshness()
        self._failure = ""
        self._next_ns = -1
        self._told: dict[str, str] = {}
        self._totals: dict[str, tuple[int, int]] = {}  # entity -> elapsed cycles last given out, and when
        self.facts()

    def facts(self) -> NodeFacts:
        scrape, failure = self._page()
        if scrape is None:
            raise SourceError(f"dcgm: cannot read {self.url}: {failure}", _HINT)
        if not scrape.rows:
            raise SourceError(f"dcgm: expected rows of GPUs at {self.url}, got none", _HINT)
        facts = NodeFacts(
            node=self._node,
            boot_id=self._boot_id,
            driver=scrape.driver,
            nvml=scrape.nvml,
            source="dcgm",
            devices=tuple(rows.device for rows in scrape.rows.values()),
        )
        return self._with_beside(facts)

    def _with_beside(self, facts: NodeFacts) -> NodeFacts:
        """Devices as NVML describes them; what is on the node and not on the page is uncovered."""
        if self._beside is None:
            return facts
        try:
            other = self._beside.facts()
        except SourceError as e:
            self._tell("beside", f"dcgm: NVML cannot be asked beside the exporter: {e}")
            return facts
        by_place = {_place(d): d for d in other.devices}
        known = {d.entity: by_place[_place(d)] for d in facts.devices if _place(d) in by_place}
        described = tuple(_described(d, known.get(d.entity)) for d in facts.devices)
        named = {new.entity: d.entity for d, new in zip(facts.devices, described, strict=True)}
        with self._lock:
            self._known = known
            self._named = named
        pages = {d.entity for d in facts.devices}
        missing = tuple(
            Uncovered(d.pci_address, "NVIDIA", d.name, "the exporter's page does not show it")
            for d in other.devices
            if not d.mig and d.entity not in pages
        )
        return replace(
            facts,
            driver=facts.driver or other.driver,
            nvml=facts.nvml or other.nvml,
            devices=described,
            library=other.library,
            uncovered=(*other.uncovered, *missing),
        )

    def read(self, entity: str) -> Reading:
        scrape, failure = self._page()
        with self._lock:
            on_page = self._named.get(entity, entity)
            known = self._known.get(on_page)
            stale = self._age.stale(on_page, self._clock.boot_ns())
            frozen = self._age.frozen(on_page)
        beside = self._read_beside(known)
        t_boot_ns, t_unix_ns = self._clock.boot_ns(), self._clock.unix_ns()
        if scrape is None:
            code = "DCGM_SCRAPE_TIMEOUT" if "timed out" in failure else "DCGM_SCRAPE_FAILED"
            return Reading(entity, t_boot_ns, t_unix_ns, error=code)
        reading = scrape.reading(on_page, t_boot_ns, t_unix_ns)
        if reading.error is None:
            parent = scrape.rows[on_page].device.parent
            with self._lock:
                stale = stale or self._age.stale(parent, t_boot_ns)
                frozen = frozen or self._age.frozen(parent)
        if stale:
            self._tell(on_page, f"dcgm: {on_page}: the energy counter stands still: the page is stale")
            return Reading(entity, t_boot_ns, t_unix_ns, error="DCGM_PAGE_STALE")
        if frozen or on_page in self._dead:
            what = "stand still while energy rises" if frozen else "are all 0 while the GPU is busy"
            self._tell(on_page, f"dcgm: {on_page}: profiling values {what}: they are not used")
            reading = reading._replace(percent={})
        else:
            self._tell(on_page, "")
        if beside is not None and reading.error is None:
            reading = _with_fresher(reading, beside)
        if reading.entity != entity:
            reading = reading._replace(entity=entity)
        return self._only_new_totals(reading) if reading.cycles else reading

    def _read_beside(self, known: Device | None) -> Reading | None:
        if self._beside is None or known is None:
            return None
        return self._beside.read(known.entity)

    def _only_new_totals(self, reading: Reading) -> Reading:
        elapsed = reading.cycles.get(SM_CYCLES_ELAPSED)
        if elapsed is None:  # the others mean nothing without it
            return reading._replace(cycles={})
        with self._lock:
            given, when_ns = self._totals.get(reading.entity, (-1, 0))
            if elapsed == given and reading.t_boot_ns - when_ns < STILL_NS:
                return reading._replace(cycles={}, percent={})
            self._totals[reading.entity] = elapsed, reading.t_boot_ns
        return reading._replace(percent={})

    def close(self) -> None:
        if self._beside is not None:
            self._beside.close()

    def _page(self) -> tuple[Scrape | None, str]:
        """The page, fetched again when it is old. A failed scrape leaves nothing to read: no stale values."""
        with self._lock:
            now = self._clock.boot_ns()
            if now >= self._next_ns:
                try:
                    page = parse_page(self._fetch(self.url, TIMEOUT_S, MAX_SCRAPE_BYTES), fields.PREFIX)
                    self._scrape, self._failure = understand(page), ""
                    self._dead = self._scrape.dead_instances()
                    self._age.took(self._scrape, now)
                    self._next_ns = now + self._age.refresh_ns
                except SourceError as e:
                    self._scrape, self._failure = None, str(e)
                    self._next_ns = now + RETRY_NS
                    log.warning("dcgm: scrape of %s failed: %s", self.url, e)
                self._tell_of_page()
            return self._scrape, self._failure

    def _tell_of_page(self) -> None:
        scrape = self._scrape
        refused = f"for example {scrape.first_refused}" if scrape and scrape.first_refused else ""
        self._tell("rows", refused and f"dcgm: rows refused, {refused}")
        self._tell(
            "outrun",
            "dcgm: the exporter collects as often as it is scraped, or more often: what its averages are over is "
            "less than the time between them; a collect interval of 2 s or more loses nothing"
            if self._age.outrun
            else "",
        )

    def _tell(self, about: str, what: str) -> None:
        """A warning when it is news; "" = all is well again."""
        if what and self._told.get(about) != what:
            log.warning("%s", what)
        self._told[about] = what


def _place(device: Device) -> tuple[str, int]:
    """What names a device on a page and in NVML alike: the GPU, and the GPU instance within it."""
    return (device.parent, device.gpu_instance) if device.mig else (device.entity, -1)


def _described(device: Device, known: Device | None) -> Device:
    """NVML's facts, and what only the page says."""
    if known is None:
        return device
    return replace(
        known,
        name=known.name or device.name,
        compute_capability=known.compute_capability or device.compute_capability,
        sm_count=known.sm_count or device.sm_count,
        max_sm_clock_mhz=known.max_sm_clock_mhz or device.max_sm_clock_mhz,
        serial=known.serial or device.serial,
    )


def _with_fresher(reading: Reading, beside: Reading) -> Reading:
    """The page's profiling values with what NVML reads at this moment.

    Energy and power are never the page's then, not even where this read of NVML failed: the page's are older, and
    a counter may not run backwards.
    """
    if beside.error is not None:
        return reading._replace(energy_mj=None, power_mw=None)
    return reading._replace(
        sm_clock_mhz=beside.sm_clock_mhz or reading.sm_clock_mhz,
        energy_mj=beside.energy_mj,
        power_mw=beside.power_mw,
        utilization_gpu_pct=beside.utilization_gpu_pct,
        memory_used_bytes=beside.memory_used_bytes,
        processes=beside.processes,
        clock_event_reasons=beside.clock_event_reasons,
    )
