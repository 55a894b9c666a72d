"""The `dcgm` source: scrapes the node's dcgm-exporter, for GPUs whose pipe counters NVML does not show.

Gauges there are averages over the exporter's own collect interval (30 s by default), so pages are fetched
every few seconds and held in between. MIG instances carry no UUID on the page: their entity is
`MIG-<UUID of the GPU>-<GPU instance>`. Energy, power and cycle totals exist once per GPU and are read for
the GPU only, however many instance rows repeat them.

Cycle totals stand still between two collections and then jump. A reading carries them only when they are
new: in between it has neither cycles nor percentages, so that the meter waits for the next totals and no
interval holds more cycles than its time.
"""

import http.client
import logging
import math
import re
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from urllib.parse import urlsplit

from flopmeter.agent.errors import SourceError
from flopmeter.agent.reading import SM_CYCLES_ELAPSED, NodeFacts, Reading
from flopmeter.contract.clock import Clock
from flopmeter.contract.errors import ContractError
from flopmeter.contract.ids import check_entity, check_label
from flopmeter.contract.limits import MAX_ENTITIES, MAX_SCRAPE_BYTES, MAX_SM_CLOCK_MHZ
from flopmeter.contract.usage import Device
from flopmeter.contract.w_table import current

from . import dcgm_fields as fields
from .node import boot_id, node_name
from .prom_text import Page, Sample, parse_page
from .values import INT32_BLANKS, clock_mhz, counter, percent

log = logging.getLogger(__name__)

DEFAULT_URL = "http://127.0.0.1:9400/metrics"
#: Six scrapes per default collect interval of the exporter: none of its averages is missed.
REFRESH_NS = 5_000_000_000
#: With cycle totals on the page the moment of collection is looked for more closely: their time is that of
#: the scrape that first shows them.
REFRESH_TOTALS_NS = 1_000_000_000
#: Totals that stand still for this long (four default collect intervals) are taken as they are.
STILL_NS = 120_000_000_000
RETRY_NS = 1_000_000_000  # after a failed scrape
TIMEOUT_S = 2.0
#: Above this utilisation, profiling ratios that are all exactly 0 mean "counter failed" (metering.md 2.1).
BUSY_PCT = 10.0
#: SMs of a MIG instance by (model, slices): captured from a real card (1g on A100: 14 SMs, the nvidia-smi
#: capture telegraf-a100-sxm4-v12). Others are not known here, and not guessed.
MIG_SMS: Mapping[tuple[str, str], int] = {("A100", "1g"): 14}

_HINT = (
    "check that dcgm-exporter runs on this node and that --source dcgm:URL names its /metrics page; "
    "its counter file needs DCGM_FI_PROF_PIPE_TENSOR_ACTIVE (and …_TENSOR_HMMA_ACTIVE, …_TENSOR_IMMA_ACTIVE)"
)
_GI = re.compile(r"[0-9]{1,4}\Z")

Fetch = Callable[[str, float, int], bytes]


@dataclass(slots=True)
class _Rows:
    """What a page says about one entity."""

    device: Device
    cycles: dict[int, int] = field(default_factory=dict)
    percents: dict[int, float] = field(default_factory=dict)
    quantities: dict[str, int | float] = field(default_factory=dict)
    alive: list[float] = field(default_factory=list)  # every profiling ratio, pipes or not


@dataclass(frozen=True, slots=True)
class Scrape:
    """One page, understood: entities by UUID, and what was refused on the way."""

    rows: Mapping[str, _Rows]
    driver: str
    nvml: str
    refused: int = 0
    first_refused: str = ""

    def reading(self, entity: str, t_boot_ns: int, t_unix_ns: int) -> Reading:
        rows = self.rows.get(entity)
        if rows is None:
            return Reading(entity, t_boot_ns, t_unix_ns, error="DCGM_ENTITY_NOT_FOUND")
        utilization = rows.quantities.get(fields.UTILIZATION)
        failed = utilization is not None and utilization > BUSY_PCT and rows.alive and not any(rows.alive)
        mhz = rows.quantities.get(fields.CLOCK)
        return Reading(
            entity=entity,
            t_boot_ns=t_boot_ns,
            t_unix_ns=t_unix_ns,
            cycles=rows.cycles,
            percent={} if failed else rows.percents,
            sm_clock_mhz=() if mhz is None else (float(mhz),),
            energy_mj=_whole(rows.quantities.get(fields.ENERGY)),
            power_mw=_whole(rows.quantities.get(fields.POWER)),
            utilization_gpu_pct=None if utilization is None else float(utilization),
            memory_used_bytes=_whole(rows.quantities.get(fields.MEMORY)),
        )


def understand(page: Page) -> Scrape:
    """From rows to entities. Pure: a bad row costs that row, and is counted."""
    return _Reader(page).scrape()


class _Reader:
    def __init__(self, page: Page) -> None:
        self._page = page
        self._rows: dict[str, _Rows] = {}
        self._seen: dict[tuple[str, str], int | float] = {}
        self._conflicts: set[tuple[str, str]] = set()
        self._refused = page.refused
        self._first = page.first_refused
        self._driver = self._nvml = ""

    def scrape(self) -> Scrape:
        for sample in self._page.samples:
            try:
                self._take(sample)
            except (ContractError, ValueError) as e:
                self._refuse(f"{sample.name}: {e}")
        for entity, name in self._conflicts:
            _forget(self._rows[entity], name)
        return Scrape(self._rows, self._driver, self._nvml, self._refused, self._first)

    def _refuse(self, what: str) -> None:
        self._refused += 1
        self._first = self._first or what[:200]

    def _take(self, sample: Sample) -> None:
        labels = sample.labels
        uuid = labels.get("UUID") or labels.get("uuid")
        if not uuid:
            return  # a row of the node or of a switch
        check_entity(uuid)
        name = sample.name.removeprefix(fields.PREFIX)
        instance = labels.get("GPU_I_ID", "")
        gpu = self._gpu(uuid, labels)
        if not self._driver:
            self._driver = _label(labels, "DCGM_FI_DRIVER_VERSION", "DCGM_FI_SYSTEM_DRIVER_VERSION")
            self._nvml = _label(labels, "DCGM_FI_NVML_VERSION", "DCGM_FI_SYSTEM_NVML_VERSION")
        if not instance:
            self._put(gpu, uuid, name, sample)
            return
        if not _GI.match(instance):
            raise ValueError(f"GPU_I_ID: expected a number, got {instance[:20]!r}")
        mig = self._mig(gpu.device, int(instance), labels)
        if name in fields.RATIOS or name in fields.LIVENESS or _quantity(name) == fields.MEMORY:
            self._put(mig, mig.device.entity, name, sample)
        elif _quantity(name) == fields.CLOCK:  # one clock for the GPU and all that is cut from it
            self._put(mig, mig.device.entity, name, sample)
            self._put(gpu, uuid, name, sample)
        elif name not in fields.CYCLES:  # energy, power: the GPU's, repeated in every instance row
            self._put(gpu, uuid, name, sample)

    def _gpu(self, uuid: str, labels: Mapping[str, str]) -> _Rows:
        if (rows := self._rows.get(uuid)) is None:
            model = _label(labels, "modelName")
            sku = next((s for s in current().skus if re.search(s.name, model)), None)
            device = Device(
                entity=uuid,
                name=model,
                compute_capability=sku.compute_capability if sku else "",
                sm_count=sku.sms if sku else 0,
                serial=_label(labels, "DCGM_FI_DEV_SERIAL", "DCGM_FI_DEV_BOARD_SERIAL"),
            )
            rows = self._add(device)
        return rows

    def _mig(self, gpu: Device, instance: int, labels: Mapping[str, str]) -> _Rows:
        entity = check_entity(f"MIG-{gpu.entity.removeprefix('GPU-')}-{instance}")
        if (rows := self._rows.get(entity)) is None:
            profile = _label(labels, "GPU_I_PROFILE")
            slices = profile.partition(".")[0]
            sms = next((n for (model, s), n in MIG_SMS.items() if model in gpu.name and s == slices), 0)
            device = Device(
                entity=entity,
                name=f"{gpu.name} MIG {profile}".strip(),
                compute_capability=gpu.compute_capability,
                sm_count=sms,
                mig=True,
                parent=gpu.entity,
                gpu_instance=instance,
            )
            rows = self._add(device)
        return rows

    def _add(self, device: Device) -> _Rows:
        if len(self._rows) >= MAX_ENTITIES:
            raise ValueError(f"expected at most {MAX_ENTITIES} entities")
        rows = self._rows[device.entity] = _Rows(device)
        return rows

    def _put(self, rows: _Rows, entity: str, name: str, sample: Sample) -> None:
        """Rows are repeated per job and per pod: one counts, and copies that differ tell nothing."""
        key = (entity, name)
        if (first := self._seen.get(key)) is not None:
            if first != sample.value and not (math.isnan(first) and math.isnan(sample.value)):
                self._conflicts.add(key)
            return
        self._seen[key] = sample.value
        if not _store(rows, name, sample.value, self._page.help.get(sample.name, "")):
            self._refuse(f"{sample.name} {sample.value}")


def _quantity(name: str) -> str:
    return fields.QUANTITIES[name][0] if name in fields.QUANTITIES else ""


def _store(rows: _Rows, name: str, value: float, help_text: str) -> bool:
    """Keep a value that the driver can have meant; False = it is a blank. Names we do not read are fine."""
    if (metric := fields.RATIOS.get(name)) is not None or name in fields.LIVENESS:
        if not 0 <= value <= fields.MAX_RATIO:
            return False
        rows.alive.append(value)
        if metric is not None:
            rows.percents.setdefault(metric, min(100.0 * value, 100.5))
        return True
    if (cycle := fields.CYCLES.get(name)) is not None:
        count = counter(value)
        if count is not None:
            rows.cycles.setdefault(cycle, count)
        return count is not None
    if name not in fields.QUANTITIES:
        return True
    quantity, unit = fields.QUANTITIES[name]
    if counter(value) is None or (value in INT32_BLANKS and quantity != fields.ENERGY):
        return False
    ours = fields.to_ours(quantity, value, fields.stated_unit(help_text) or unit)
    checked: int | float | None
    if ours is None:  # a unit that is none of the quantity's
        return False
    if quantity == fields.CLOCK:
        checked = clock_mhz(ours)
    elif quantity == fields.UTILIZATION:
        checked = percent(ours)
    else:
        checked = counter(round(ours))
    if checked is None:
        return False
    if quantity == fields.MAX_CLOCK:
        rows.device = replace(rows.device, max_sm_clock_mhz=min(round(checked), MAX_SM_CLOCK_MHZ))
    else:
        rows.quantities.setdefault(quantity, checked)
    return True


def _forget(rows: _Rows, name: str) -> None:
    if name in fields.RATIOS:
        rows.percents.pop(fields.RATIOS[name], None)
    elif name in fields.CYCLES:
        rows.cycles.pop(fields.CYCLES[name], None)
    else:
        rows.quantities.pop(_quantity(name), None)


def _label(labels: Mapping[str, str], *names: str) -> str:
    text = next((labels[n] for n in names if labels.get(n)), "")
    return check_label(names[0], text.strip())


def _whole(value: float | None) -> int | None:
    return None if value is None else round(value)


class DcgmSource:
    """A Source over one exporter page. `read` is safe from several threads."""

    def __init__(self, url: str, clock: Clock, fetch: Fetch | None = None, node: str = "") -> None:
        if urlsplit(url).scheme not in ("http", "https"):
            raise SourceError(
                f"dcgm: expected an http or https URL, got {url!r}", f"for example dcgm:{DEFAULT_URL}"
            )
        self.url = url
        self._clock = clock
        self._fetch = fetch or fetch_page
        self._node = node or node_name()
        self._boot_id = boot_id()
        self._lock = threading.Lock()
        self._scrape: Scrape | None = None
        self._failure = ""
        self._next_ns = -1
        self._last_refused = ""
        self._totals: dict[str, tuple[int, int]] = {}  # entity -> elapsed cycles last given out, and when
        self.facts()

    def facts(self) -> NodeFacts:
        scrape, failure = self._page()
        if scrape is None:
            raise SourceError(f"dcgm: cannot read {self.url}: {failure}", _HINT)
        if not scrape.rows:
            raise SourceError(f"dcgm: expected rows of GPUs at {self.url}, got none", _HINT)
        return NodeFacts(
            node=self._node,
            boot_id=self._boot_id,
            driver=scrape.driver,
            nvml=scrape.nvml,
            source="dcgm",
            devices=tuple(rows.device for rows in scrape.rows.values()),
        )

    def read(self, entity: str) -> Reading:
        scrape, failure = self._page()
        t_boot_ns, t_unix_ns = self._clock.boot_ns(), self._clock.unix_ns()
        if scrape is None:
            code = "DCGM_SCRAPE_TIMEOUT" if "timed out" in failure else "DCGM_SCRAPE_FAILED"
            return Reading(entity, t_boot_ns, t_unix_ns, error=code)
        reading = scrape.reading(entity, t_boot_ns, t_unix_ns)
        return self._only_new_totals(reading) if reading.cycles else reading

    def _only_new_totals(self, reading: Reading) -> Reading:
        elapsed = reading.cycles.get(SM_CYCLES_ELAPSED)
        if elapsed is None:  # the others mean nothing without it
            return replace(reading, cycles={})
        with self._lock:
            given, when_ns = self._totals.get(reading.entity, (-1, 0))
            if elapsed == given and reading.t_boot_ns - when_ns < STILL_NS:
                return replace(reading, cycles={}, percent={})
            self._totals[reading.entity] = elapsed, reading.t_boot_ns
        return replace(reading, percent={})

    def close(self) -> None:
        pass

    def _page(self) -> tuple[Scrape | None, str]:
        """The page, fetched again when it is old. A failed scrape leaves nothing to read: no stale values."""
        with self._lock:
            now = self._clock.boot_ns()
            if now >= self._next_ns:
                try:
                    page = parse_page(self._fetch(self.url, TIMEOUT_S, MAX_SCRAPE_BYTES), fields.PREFIX)
                    self._scrape, self._failure = understand(page), ""
                    totals = any(rows.cycles for rows in self._scrape.rows.values())
                    self._next_ns = now + (REFRESH_TOTALS_NS if totals else REFRESH_NS)
                except SourceError as e:
                    self._scrape, self._failure = None, str(e)
                    self._next_ns = now + RETRY_NS
                    log.warning("dcgm: scrape of %s failed: %s", self.url, e)
                self._tell_refused()
            return self._scrape, self._failure

    def _tell_refused(self) -> None:
        first = self._scrape.first_refused if self._scrape else ""
        if first and first != self._last_refused:
            assert self._scrape is not None
            log.warning("dcgm: %d rows refused, for example %s", self._scrape.refused, first)
        self._last_refused = first


def fetch_page(url: str, timeout_s: float, limit: int) -> bytes:
    """GET `url`, within `timeout_s` in all and never holding more than `limit` bytes. Raises SourceError."""
    deadline = time.monotonic() + timeout_s
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))  # the node's own exporter: no proxy
    chunks: list[bytes] = []
    size = 0
    try:
        request = urllib.request.Request(url, headers={"Accept": "text/plain;version=0.0.4"})  # noqa: S310
        with opener.open(request, timeout=timeout_s) as response:
            while chunk := response.read1(1 << 16):
                size += len(chunk)
                if size > limit:
                    raise SourceError(f"expected a page of at most {limit} bytes, got more")
                if time.monotonic() > deadline:
                    raise SourceError(f"timed out after {timeout_s} s, {size} bytes came")
                chunks.append(chunk)
            if response.length:  # bytes promised that did not come: half a page would look like lost GPUs
                raise SourceError(f"cut off: {response.length} bytes of the page are missing")
    except urllib.error.URLError as e:
        raise SourceError(str(getattr(e, "reason", e) or e)) from e
    except (OSError, http.client.HTTPException, ValueError) as e:
        raise SourceError(str(e) or type(e).__name__) from e
    return b"".join(chunks)
