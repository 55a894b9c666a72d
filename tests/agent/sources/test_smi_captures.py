"""Device facts of real cards, as `nvidia-smi -q -x` printed them: each finds its W row, its SKU and its board."""

import dataclasses
import json
import re
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest

from flopmeter.agent.metering.crosscheck import BUSY_POWER_PERCENT, board_watts
from flopmeter.agent.metering.entity import describe, fit
from flopmeter.agent.reading import Reading
from flopmeter.agent.sources.dcgm_page import understand
from flopmeter.agent.sources.prom_text import parse_page
from flopmeter.agent.sources.trace_lines import LineParser
from flopmeter.agent.sources.values import power_mw
from flopmeter.contract.evidence_class import EvidenceClass
from flopmeter.contract.usage import Device
from flopmeter.contract.w_table import current

CAPTURES = Path(__file__).parents[3] / "../shared/data/smi"

#: nvidia-smi names the architecture and not the capability; which one it is follows from the card (metering.md 3.2).
CAPABILITY = {
    "NVIDIA H100 80GB HBM3": "9.0", "NVIDIA A100-SXM4-40GB": "8.0", "NVIDIA A100-SXM4-80GB": "8.0",
    "NVIDIA GB300": "10.3", "NVIDIA L40S": "8.9", "Tesla T4": "7.5", "NVIDIA A10G": "8.6",
}  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Card:
    """One <gpu> of a capture."""

    device: Device
    power_w: float
    limit_w: float
    migs: tuple[Device, ...]


def cards(name: str) -> list[Card]:
    if not CAPTURES.is_dir():
        pytest.skip("no recorded device facts here (../shared/data/smi)")
    root = ET.fromstring((CAPTURES / name).read_text())
    return [_card(gpu) for gpu in root.iter("gpu")]


def _number(gpu: ET.Element, *paths: str) -> float:
    for path in paths:
        words = (gpu.findtext(path) or "").split()
        if words and words[0].replace(".", "", 1).isdigit():
            return float(words[0])
    raise AssertionError(f"none of {paths}")


def _card(gpu: ET.Element) -> Card:
    name = gpu.findtext("product_name") or ""
    mhz = int(_number(gpu, "max_clocks/sm_clock"))
    uuid = gpu.findtext("uuid") or ""
    device = Device(
        entity=uuid,
        name=name,
        compute_capability=CAPABILITY[name],
        sm_count=0,
        max_sm_clock_mhz=mhz,
        serial=gpu.findtext("serial") or "",
        pci_address=gpu.findtext("pci/pci_bus_id") or "",
        persistence=gpu.findtext("persistence_mode") == "Enabled",
    )
    migs = tuple(
        dataclasses.replace(
            device,
            entity=f"MIG-{uuid[4:]}-{mig.findtext('gpu_instance_id')}",
            mig=True,
            parent=uuid,
            gpu_instance=int(mig.findtext("gpu_instance_id") or -1),
            sm_count=int(mig.findtext("device_attributes/shared/multiprocessor_count") or 0),
        )
        for mig in gpu.iter("mig_device")
        if (mig.findtext("gpu_instance_id") or "").isdigit()
    )
    power = _number(
        gpu,
        "gpu_power_readings/power_draw",
        "gpu_power_readings/instant_power_draw",
        "power_readings/power_draw",
    )
    limit = _number(gpu, "gpu_power_readings/default_power_limit", "power_readings/default_power_limit")
    return Card(device, power, limit, migs)


#: capture -> cards, name, BF16 rate, highest clock, class of cycle counters, persistence
FACTS = {
    "aicr-h100x8-570.xml": (8, "NVIDIA H100 80GB HBM3", 4096, 1980, EvidenceClass.A1, False),
    "qx-a100.xml": (1, "NVIDIA A100-SXM4-40GB", 2048, 1410, EvidenceClass.A1, True),
    "qx-gb300.xml": (4, "NVIDIA GB300", 8192, 2070, EvidenceClass.A3, True),  # its tensor clock is fitted
    "qx-l40s.xml": (1, "NVIDIA L40S", 1024, 2520, EvidenceClass.A1, True),
    "qx-t4.xml": (1, "Tesla T4", 1024, 1590, EvidenceClass.A1, True),
    "telegraf-a100-sxm4-v12.xml": (1, "NVIDIA A100-SXM4-80GB", 2048, 1410, EvidenceClass.A1, False),
    "telegraf-a10g.xml": (1, "NVIDIA A10G", 1024, 1710, EvidenceClass.A3, False),  # not an A10: not listed
    "telegraf-tesla-t4.xml": (1, "Tesla T4", 1024, 1590, EvidenceClass.A1, False),
}


@pytest.mark.parametrize("name", FACTS)
def test_a_captured_card_finds_its_rates(name):
    count, model, bf16, mhz, grade, persistence = FACTS[name]
    found = cards(name)
    assert len(found) == count
    assert len({c.device.entity for c in found}) == count
    for card in found:
        device = card.device
        assert fit(device) == device  # every fact is one that the contract takes as it is
        assert (device.name, device.max_sm_clock_mhz, device.persistence) == (model, mhz, persistence)
        arch = current().arch(device.compute_capability, device.name)
        assert arch is not None
        assert arch.rates["bf16"] == bf16
        entity = describe(device, current(), source="nvml")
        assert entity.cycles_class is grade
        # Above capability 10 the driver's highest clock is not believed (reference/metering.md 1.5).
        assert entity.ceiling_khz == (3_000_000 if model == "NVIDIA GB300" else mhz * 1000)


@pytest.mark.parametrize("name", FACTS)
def test_a_captured_card_is_on_its_board_and_idle_by_its_power(name):
    """An idle GPU, its clocks up or not, must not look busy: else its true zeros would be taken for a dead counter."""
    for card in cards(name):
        watts = board_watts(card.device)
        assert watts == card.limit_w
        assert card.power_w < watts * BUSY_POWER_PERCENT / 100


def test_mig_instances_have_their_own_sms():
    (card,) = cards("telegraf-a100-sxm4-v12.xml")
    assert [(m.gpu_instance, m.sm_count) for m in card.migs] == [(3, 14), (4, 14), (5, 14), (6, 14)]
    for mig in card.migs:
        entity = describe(mig, current(), source="nvml")
        assert (entity.sm_count, entity.board_watts) == (14, 0)
        assert fit(mig) == mig


#: Other models as NVML names them -> the capability's BF16 rate (None: "no W table"), and whether it is confirmed.
NAMES = {
    ("7.0", "Tesla V100-PCIE-16GB"): (1024, False),
    ("7.0", "Tesla V100-SXM3-32GB"): (1024, False),
    ("8.0", "NVIDIA A100-PCIE-40GB"): (2048, True),
    ("8.0", "NVIDIA A100 80GB PCIe"): (2048, True),
    ("8.0", "NVIDIA A100-SXM-64GB"): (2048, False),  # another die, with 124 SMs
    ("8.0", "NVIDIA A800-SXM4-80GB"): (2048, False),
    ("8.0", "NVIDIA A30"): (2048, False),
    ("8.6", "NVIDIA A10"): (1024, True),
    ("8.6", "NVIDIA RTX A6000"): (1024, False),
    ("8.9", "NVIDIA L40"): (1024, False),
    ("8.9", "NVIDIA L20"): (1024, False),
    ("8.9", "NVIDIA GeForce RTX 4090"): (512, True),
    ("8.9", "NVIDIA GeForce RTX 4090 D"): (512, False),
    ("8.9", "NVIDIA GeForce RTX 4090 Laptop GPU"): (512, False),
    ("9.0", "NVIDIA H200"): (4096, True),
    ("9.0", "NVIDIA H200 NVL"): (4096, False),
    ("9.0", "NVIDIA H100 NVL"): (4096, False),
    ("9.0", "NVIDIA H100 PCIe"): (4096, True),
    ("9.0", "NVIDIA H800"): (4096, False),
    ("9.0", "NVIDIA GH200 480GB"): (4096, True),
    ("9.0", "NVIDIA GH200 144G HBM3e"): (4096, True),
    ("9.0", "NVIDIA H20"): (None, False),  # its rates do not reconcile: not guessed
    ("9.0", "NVIDIA H20-3e"): (None, False),
    ("10.0", "NVIDIA GB200"): (8192, False),
    ("10.3", "NVIDIA B300 SXM6 AC"): (8192, False),
    ("11.0", "NVIDIA Thor"): (None, False),
    ("6.1", "Tesla P40"): (None, False),
}


@pytest.mark.parametrize("key", NAMES, ids=lambda key: key[1])
def test_models_by_the_names_that_drivers_give(key):
    capability, name = key
    arch = current().arch(capability, name)
    confirmed = current().confirmed(capability, name)
    assert (arch and arch.rates["bf16"], confirmed) == NAMES[key]


@pytest.mark.parametrize(
    ("value", "read"),
    [
        (700_000, 700_000),
        (0, 0),
        (10_000_000, 10_000_000),
        (4_294_967_295, None),
        (2_147_483_632, None),
        (None, None),
    ],
)
def test_a_power_that_no_gpu_draws_was_not_read(value, read):
    """NVML says "not available" as 4294967295 mW; the same through a trace."""
    assert power_mw(value) == read
    line = {"t_boot_ns": 1, "t_unix_ns": 1, "entity": "GPU-1", "power_mw": value}
    refused: list[str] = []
    reading = LineParser(refused.append).parse(json.dumps(line).encode())
    assert isinstance(reading, Reading)
    assert reading.power_mw == read
    assert refused == ([] if read == value else ["power_mw"])


BLANKS = (
    "140737488355328.0", "140737488355329", "140737488355330.000000", "140737488355331", "9223372036854775792",
    "9223372036854775794", "9223372036854775807", "NaN",
)  # fmt: skip
NO_COUNTER = "4294967295"  # of 32 bits; a counter of 64 bits passes that value for real
ROWS = {
    "DCGM_FI_PROF_PIPE_TENSOR_ACTIVE": "percents",
    "DCGM_FI_PROF_DRAM_ACTIVE": "percents",
    "DCGM_FI_DEV_SM_CLOCK": "quantities",
    "DCGM_FI_DEV_SM_CLOCK_HERTZ": "quantities",
    "DCGM_FI_DEV_GPU_UTIL": "quantities",
    "DCGM_FI_DEV_POWER_USAGE": "quantities",
    "DCGM_FI_DEV_FB_USED": "quantities",
    "DCGM_FI_DEV_TOTAL_ENERGY_CONSUMPTION": "quantities",
    "DCGM_FI_PROF_NVLINK_TX_BYTES": "rates",
    "DCGM_FI_PROF_SM_CYCLES_ELAPSED_TOTAL": "cycles",
}


@pytest.mark.parametrize(
    ("row", "blank"),
    [
        (row, blank)
        for row in ROWS
        for blank in (*BLANKS, NO_COUNTER)
        if blank != NO_COUNTER or not re.search("TOTAL|HERTZ|BYTES", row)
    ],
)
def test_blanks_of_every_width_are_refused_through_the_parser(row, blank):
    labels = '{gpu="0",UUID="GPU-1",modelName="NVIDIA L4"}'
    page = f"{row}{labels} {blank}\nDCGM_FI_DEV_MAX_SM_CLOCK{labels} 2040\n"
    scrape = understand(parse_page(page.encode(), "DCGM_FI_"))
    assert getattr(scrape.rows["GPU-1"], ROWS[row]) == {}
    assert scrape.refused == 1
    assert row in scrape.first_refused
