"""What one page of dcgm-exporter says: rows become entities. Pure; no clock, no network.

MIG instances carry no UUID on the page: their entity is `MIG-<UUID of the GPU>-<GPU instance>`. Energy, power,
PCIe and NVLink traffic and cycle totals exist once per GPU and are read for the GPU only, however many instance
rows repeat them. Rows are repeated per job and per pod (metering.md 2.2): one counts.
"""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from flopmeter.agent.metering.crosscheck import board_watts, busy_by
from flopmeter.agent.reading import Reading
from flopmeter.contract.errors import ContractError
from flopmeter.contract.ids import check_entity, check_label
from flopmeter.contract.limits import MAX_ENTITIES, MAX_SM_CLOCK_MHZ
from flopmeter.contract.usage import Device
from flopmeter.contract.w_table import current

from . import dcgm_fields as fields
from .prom_text import Page, Sample
from .values import INT32_BLANKS, UINT32_BLANK, clock_mhz, counter, percent, power_mw

#: SMs of a MIG instance by (model, slices): captured from a real card (1g on A100: 14 SMs, the nvidia-smi
#: capture telegraf-a100-sxm4-v12). Others are not known here, and not guessed.
MIG_SMS: Mapping[tuple[str, str], int] = {("A100", "1g"): 14}
_GI = re.compile(r"[0-9]{1,4}\Z")
_MIB = 1 << 20
_BLANKS_32 = INT32_BLANKS | {UINT32_BLANK}
#: What DCGM holds in 64 bits passes those values for real: energy, and since exporter 4.9 hertz and bytes.
_OF_32_BITS = frozenset({fields.CLOCK, fields.MAX_CLOCK, fields.POWER, fields.UTILIZATION, fields.MEMORY})


@dataclass(slots=True)
class Rows:
    """What a page says about one entity."""

    device: Device
    cycles: dict[int, int] = field(default_factory=dict)
    percents: dict[int, float] = field(default_factory=dict)
    rates: dict[int, float] = field(default_factory=dict)
    quantities: dict[str, int | float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Scrape:
    """One page, understood: entities by UUID, and what was refused on the way."""

    rows: Mapping[str, Rows]
    driver: str
    nvml: str
    refused: int = 0
    first_refused: str = ""

    def reading(self, entity: str, t_boot_ns: int, t_unix_ns: int) -> Reading:
        rows = self.rows.get(entity)
        if rows is None:
            return Reading(entity, t_boot_ns, t_unix_ns, error="DCGM_ENTITY_NOT_FOUND")
        utilization = rows.quantities.get(fields.UTILIZATION)
        mhz = rows.quantities.get(fields.CLOCK)
        return Reading(
            entity=entity,
            t_boot_ns=t_boot_ns,
            t_unix_ns=t_unix_ns,
            cycles=rows.cycles,
            percent=rows.percents,
            rates_mib_s=rows.rates,
            sm_clock_mhz=() if mhz is None else (float(mhz),),
            energy_mj=_whole(rows.quantities.get(fields.ENERGY)),
            power_mw=_whole(rows.quantities.get(fields.POWER)),
            utilization_gpu_pct=None if utilization is None else float(utilization),
            memory_used_bytes=_whole(rows.quantities.get(fields.MEMORY)),
        )

    def dead_instances(self) -> frozenset[str]:
        """MIG instances whose zeros are none: their GPU is busy by its power, and all of its instances say 0.

        For a whole GPU the meter finds that out (crosscheck.silent_zero); an instance has no power of its own.
        """
        found: set[str] = set()
        for gpu, rows in self.rows.items():
            mine = [r for r in self.rows.values() if r.device.parent == gpu and r.percents]
            if mine and not any(any(r.percents.values()) for r in mine):
                power = _whole(rows.quantities.get(fields.POWER))
                if busy_by(Reading(gpu, 0, 0, power_mw=power), board_watts(rows.device)):
                    found.update(r.device.entity for r in mine)
        return frozenset(found)


def understand(page: Page) -> Scrape:
    """From rows to entities. Pure: a bad row costs that row, and is counted."""
    return _Reader(page).scrape()


class _Reader:
    def __init__(self, page: Page) -> None:
        self._page = page
        self._rows: dict[str, Rows] = {}
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
        if name in fields.RATIOS or _quantity(name) == fields.MEMORY:
            self._put(mig, mig.device.entity, name, sample)
        elif _quantity(name) == fields.CLOCK:  # one clock for the GPU and all that is cut from it
            self._put(mig, mig.device.entity, name, sample)
            self._put(gpu, uuid, name, sample)
        elif name not in fields.CYCLES:  # energy, power, traffic: the GPU's, repeated in every instance row
            self._put(gpu, uuid, name, sample)

    def _gpu(self, uuid: str, labels: Mapping[str, str]) -> Rows:
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

    def _mig(self, gpu: Device, instance: int, labels: Mapping[str, str]) -> Rows:
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

    def _add(self, device: Device) -> Rows:
        if len(self._rows) >= MAX_ENTITIES:
            raise ValueError(f"expected at most {MAX_ENTITIES} entities")
        rows = self._rows[device.entity] = Rows(device)
        return rows

    def _put(self, rows: Rows, entity: str, name: str, sample: Sample) -> None:
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


def _store(rows: Rows, name: str, value: float, help_text: str) -> bool:
    """Keep a value that the driver can have meant; False = it is a blank. Names we do not read are fine."""
    if (metric := fields.RATIOS.get(name)) is not None:
        if not 0 <= value <= fields.MAX_RATIO:
            return False
        rows.percents.setdefault(metric, min(100.0 * value, 100.5))
        return True
    if (rate := fields.RATES.get(name)) is not None:
        if counter(value) is None:
            return False
        rows.rates.setdefault(rate, value / _MIB)
        return True
    if (cycle := fields.CYCLES.get(name)) is not None:
        count = counter(value)
        if count is not None:
            rows.cycles.setdefault(cycle, count)
        return count is not None
    if name not in fields.QUANTITIES:
        return True
    quantity, unit = fields.QUANTITIES[name]
    if counter(value) is None or (value in _BLANKS_32 and quantity in _OF_32_BITS):
        return False
    ours = fields.to_ours(quantity, value, fields.stated_unit(help_text) or unit)
    checked: int | float | None
    if ours is None:  # a unit that is none of the quantity's
        return False
    if quantity == fields.CLOCK:
        checked = clock_mhz(ours)
    elif quantity == fields.UTILIZATION:
        checked = percent(ours)
    elif quantity == fields.POWER:
        checked = power_mw(round(ours))
    else:
        checked = counter(round(ours))
    if checked is None:
        return False
    if quantity == fields.MAX_CLOCK:
        rows.device = replace(rows.device, max_sm_clock_mhz=min(round(checked), MAX_SM_CLOCK_MHZ))
    else:
        rows.quantities.setdefault(quantity, checked)
    return True


def _forget(rows: Rows, name: str) -> None:
    if name in fields.RATIOS:
        rows.percents.pop(fields.RATIOS[name], None)
    elif name in fields.RATES:
        rows.rates.pop(fields.RATES[name], None)
    elif name in fields.CYCLES:
        rows.cycles.pop(fields.CYCLES[name], None)
    else:
        rows.quantities.pop(_quantity(name), None)


def _label(labels: Mapping[str, str], *names: str) -> str:
    text = next((labels[n] for n in names if labels.get(n)), "")
    return check_label(names[0], text.strip())


def _whole(value: float | None) -> int | None:
    return None if value is None else round(value)
