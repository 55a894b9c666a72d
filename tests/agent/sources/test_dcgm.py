"""The dcgm source: real pages of real cards, both generations of names and units, and pages that lie."""

import http.server
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from fakes import FakeClock
from flopmeter.agent.errors import SourceError
from flopmeter.agent.metering.meter import Meter, MeterSettings, Sealed
from flopmeter.agent.reading import NodeFacts, Process, Reading
from flopmeter.agent.sources import dcgm_fields
from flopmeter.agent.sources.dcgm import RETRY_NS, DcgmSource, fetch_page
from flopmeter.agent.sources.dcgm_age import FAST_NS, FROZEN_AFTER, SLOW_NS, STILL_NS
from flopmeter.agent.sources.dcgm_page import understand
from flopmeter.agent.sources.prom_text import parse_page
from flopmeter.contract.evidence_class import EvidenceClass
from flopmeter.contract.limits import MAX_SCRAPE_BYTES
from flopmeter.contract.usage import Device, GapReason, Library, Measured, NoticeKind, Usage

PAGES = Path(__file__).parents[3] / "../shared/data/dcgm"
A100 = "GPU-7099682b-a20d-2bcc-74ab-b9060454d81e"
L4 = "GPU-c2f76b33-7953-256e-8f33-1343419b1a1c"
T4 = "GPU-d7cbb0cd-d4bd-c2f7-dfaf-221df5e958ea"
T4_0 = "GPU-7a2e92f2-be71-d37e-a744-541600ffc722"
T4_1 = "GPU-5f587dd4-6505-0873-c6db-8324dbfe5ba9"
GPU = "GPU-00000000-0000-0000-0000-000000000001"


def real(name: str) -> bytes:
    if not PAGES.is_dir():
        pytest.skip("no recorded pages here (../shared/data/dcgm)")
    return (PAGES / f"{name}.prom").read_bytes()


def readings(page: bytes) -> dict[str, Reading]:
    scrape = understand(parse_page(page, "DCGM_FI_"))
    return {entity: scrape.reading(entity, 1, 2) for entity in scrape.rows}


#: page -> entity -> (tensor %, clock MHz, energy mJ, power mW, utilisation %, memory MiB); None = not measured.
REAL = {
    "a100_40g_mig_off_empty": {A100: (0.0, 210.0, 424405577, 45999, 0.0, 0)},
    "a100_40g_mig_on_empty": {A100: (0.0, 1410.0, 8981778, 75960, None, None)},
    "a100_40g_mig_1g_idle": {
        A100: (None, 1410.0, 4617218, 75690, None, None),
        f"MIG-{A100[4:]}-8": (0.0, 1410.0, None, None, None, 6),
    },
    "a100_40g_mig_1g_active": {
        A100: (None, 1410.0, 27151028, 115294, None, None),
        f"MIG-{A100[4:]}-9": (0.0118, 1410.0, None, None, None, 4384),
    },
    "l4_idle_driver580": {L4: (0.0, 210.0, 4742776, 16365, 0.0, 0)},
    "t4_idle_driver580": {T4: (0.0, 300.0, 48287135, 14512, 0.0, 0)},
    "t4x2_one_reserved": {
        T4_0: (0.0, 585.0, 9022652, 28722, 0.0, 128),
        T4_1: (0.0, 300.0, 8855497, 17035, 0.0, 5),
    },
}


@pytest.mark.parametrize("name", REAL)
def test_real_pages(name):
    page = real(name)
    assert understand(parse_page(page, "DCGM_FI_")).refused == 0
    found = {}
    for entity, r in readings(page).items():
        # The default counter file has no SM_ACTIVE, FP*, HMMA, IMMA and no cycles: not measured, never 0.
        assert set(r.percent) <= {1, 5, 10}
        assert r.cycles == {}
        assert r.error is r.workload is r.processes is None
        memory = None if r.memory_used_bytes is None else r.memory_used_bytes >> 20
        clock = r.sm_clock_mhz[0]
        found[entity] = (r.percent.get(5), clock, r.energy_mj, r.power_mw, r.utilization_gpu_pct, memory)
    assert found == REAL[name]


def test_real_devices():
    def device(page: str, entity: str):
        return understand(parse_page(real(page), "DCGM_FI_")).rows[entity].device

    a100 = device("a100_40g_mig_1g_active", A100)
    assert (a100.name, a100.compute_capability, a100.sm_count, a100.mig) == (
        "NVIDIA A100-SXM4-40GB",
        "8.0",
        108,
        False,
    )
    mig = device("a100_40g_mig_1g_active", f"MIG-{A100[4:]}-9")
    assert (mig.mig, mig.parent, mig.gpu_instance, mig.sm_count) == (True, A100, 9, 14)
    assert device("l4_idle_driver580", L4).sm_count == 58
    assert device("t4x2_one_reserved", T4_1).compute_capability == "7.5"
    assert understand(parse_page(real("l4_idle_driver580"), "DCGM_FI_")).driver == "580.105.08"


LABELS = f'gpu="0",UUID="{GPU}",modelName="NVIDIA A100-SXM4-80GB",Hostname="n",DCGM_FI_DRIVER_VERSION="575.1"'


def row(name: str, value: object, labels: str = LABELS) -> str:
    return f"{name}{{{labels}}} {value}\n"


def one(text: str) -> Reading:
    return readings(text.encode())[GPU]


def test_a_page_of_exporter_4_9_with_renamed_metrics_and_base_units():
    labels = (
        f'gpu="0",uuid="{GPU}",modelName="NVIDIA H100 80GB HBM3",hostname="n",'
        'DCGM_FI_SYSTEM_DRIVER_VERSION="595.58.03",DCGM_FI_DEV_BOARD_SERIAL="165"'
    )
    page = (
        "# HELP DCGM_FI_DEV_SM_CLOCK_HERTZ SM clock frequency (in Hz).\n"
        + row("DCGM_FI_DEV_SM_CLOCK_HERTZ", "1.83e+09", labels)
        + row("DCGM_FI_DEV_SM_MAX_CLOCK_HERTZ", 1980000000, labels)
        + "# HELP DCGM_FI_DEV_GPU_ENERGY_JOULES_TOTAL Total energy (in J).\n"
        + row("DCGM_FI_DEV_GPU_ENERGY_JOULES_TOTAL", "27151.028", labels)
        + row("DCGM_FI_DEV_BOARD_POWER_WATTS", 655.5, labels)
        + "# HELP DCGM_FI_DEV_GPU_UTIL_RATIO GPU utilization (ratio).\n"
        + row("DCGM_FI_DEV_GPU_UTIL_RATIO", 0.97, labels)
        + row("DCGM_FI_DEV_FB_USED_BYTES", 70 << 30, labels)
        + row("DCGM_FI_PROF_TENSOR_UTIL_RATIO", 0.46, labels)
        + row("DCGM_FI_PROF_HMMA_UTIL_RATIO", 0.45, labels)
        + row("DCGM_FI_PROF_SM_CYCLES_ELAPSED_TOTAL", 9007199254740993, labels)
        + row("DCGM_FI_PROF_HMMA_CYCLES_ACTIVE_TOTAL", 4000000000000000, labels)
    )
    r = one(page)
    assert r.sm_clock_mhz == (1830.0,)
    assert r.energy_mj == 27151028
    assert r.power_mw == 655500
    assert r.utilization_gpu_pct == 97.0
    assert r.memory_used_bytes == 70 << 30
    assert r.percent == {5: 46.0, 7: 45.0}
    assert r.cycles == {248: 9007199254740993, 252: 4000000000000000}  # beyond 2^53: to the last cycle
    scrape = understand(parse_page(page.encode()))
    device = scrape.rows[GPU].device
    assert (device.sm_count, device.max_sm_clock_mhz, device.serial) == (132, 1980, "165")
    assert scrape.driver == "595.58.03"


@pytest.mark.parametrize(
    ("name", "help_text", "value", "quantity", "expected"),
    [
        ("DCGM_FI_DEV_SM_CLOCK", "SM clock frequency (in MHz).", 1410, "clock", 1410.0),
        ("DCGM_FI_DEV_SM_CLOCK", "SM clock frequency (in Hz).", 1410000000, "clock", 1410.0),
        ("DCGM_FI_DEV_SM_CLOCK", "Clock of the SMs, sampled in hardware", 1410, "clock", 1410.0),
        ("DCGM_FI_DEV_SM_CLOCK", "SM clock (in furlongs)", 1410, "clock", None),
        ("DCGM_FI_DEV_SM_CLOCK_HERTZ", "", 1410000000, "clock", 1410.0),
        ("DCGM_FI_DEV_SM_CLOCK_HERTZ", "SM clock (in MHz)", 1410, "clock", 1410.0),
        ("DCGM_FI_DEV_SM_CLOCK", "", 1410000000, "clock", None),
        (
            "DCGM_FI_DEV_TOTAL_ENERGY_CONSUMPTION",
            "Total energy consumption since boot (in mJ).",
            5,
            "energy",
            5,
        ),
        ("DCGM_FI_DEV_TOTAL_ENERGY_CONSUMPTION", "Total energy consumption (in J).", 5, "energy", 5000),
        (
            "DCGM_FI_DEV_TOTAL_ENERGY_CONSUMPTION",
            "Total energy consumption since the driver was last reloaded (in mJ).",
            5,
            "energy",
            5,
        ),
        ("DCGM_FI_DEV_TOTAL_ENERGY_CONSUMPTION", "", 2147483632, "energy", 2147483632),
        ("DCGM_FI_DEV_GPU_UTIL", "GPU utilization (in %).", 97, "util", 97.0),
        ("DCGM_FI_DEV_GPU_UTIL", "GPU utilization (ratio).", 0.97, "util", 97.0),
        ("DCGM_FI_DEV_GPU_UTIL_RATIO", "GPU utilization (in %).", 97, "util", 97.0),
        ("DCGM_FI_DEV_GPU_UTIL_RATIO", "", 97, "util", None),
        ("DCGM_FI_DEV_POWER_USAGE", "Power draw (in W).", 115.294, "power", 115294),
        ("DCGM_FI_DEV_FB_USED", "Framebuffer memory used (in MiB).", 2147483632, "memory", None),
        ("DCGM_FI_DEV_FB_USED", "Frame buffer memory used (in MB).", 3, "memory", 3 << 20),
    ],
)
def test_the_unit_comes_from_the_help_text_or_the_name(name, help_text, value, quantity, expected):
    page = (f"# HELP {name} {help_text}\n" if help_text else "") + row(name, value)
    rows = understand(parse_page(page.encode())).rows[GPU]
    assert rows.quantities == ({} if expected is None else {quantity: expected})


@pytest.mark.parametrize("name", sorted(dcgm_fields.RATIOS))
def test_every_ratio_arrives_under_its_gpm_id_whatever_its_help_says(name):
    page = f"# HELP DCGM_FI_{name} Ratio of cycles (in %).\n" + row(f"DCGM_FI_{name}", "0.250000")
    assert one(page).percent == {dcgm_fields.RATIOS[name]: 25.0}


@pytest.mark.parametrize(
    "value", ["NaN", "140737488355328", "140737488355330.0", "1.006", "-0.1", "+Inf", "9223372036854775794"]
)
def test_blank_ratios_are_not_measured(value):
    scrape = understand(
        parse_page(
            (row("DCGM_FI_PROF_PIPE_TENSOR_ACTIVE", value) + row("DCGM_FI_PROF_SM_ACTIVE", 0.5)).encode()
        )
    )
    assert scrape.reading(GPU, 1, 2).percent == {2: 50.0}
    assert scrape.refused == 1
    assert "PIPE_TENSOR_ACTIVE" in scrape.first_refused


@pytest.mark.parametrize(
    "value", ["NaN", "9223372036854775792", "9223372036854775794", "140737488355328", "-1"]
)
def test_blank_counters_are_not_measured(value):
    r = one(
        row("DCGM_FI_DEV_TOTAL_ENERGY_CONSUMPTION", value)
        + row("DCGM_FI_PROF_SM_CYCLES_ELAPSED_TOTAL", value)
    )
    assert (r.energy_mj, r.cycles) == (None, {})


def test_rows_repeated_per_job_count_once_and_copies_that_differ_count_not_at_all():
    tensor, energy = "DCGM_FI_PROF_PIPE_TENSOR_ACTIVE", "DCGM_FI_DEV_TOTAL_ENERGY_CONSUMPTION"
    page = "".join(
        row(tensor, 0.4, f'{LABELS},hpc_job="{job}"')
        + row(energy, 1000 + job // 3, f'{LABELS},hpc_job="{job}"')
        for job in (1, 2, 3)
    )
    r = one(page)
    assert r.percent == {5: 40.0}
    assert r.energy_mj is None
    assert len(readings(page.encode())) == 1


def test_mig_rows_stay_apart_and_repeat_neither_energy_nor_power_nor_cycles():
    page = "".join(
        row(
            "DCGM_FI_DEV_TOTAL_ENERGY_CONSUMPTION", 777, f'{LABELS},GPU_I_PROFILE="{profile}",GPU_I_ID="{gi}"'
        )
        + row("DCGM_FI_DEV_POWER_USAGE", 300, f'{LABELS},GPU_I_PROFILE="{profile}",GPU_I_ID="{gi}"')
        + row(
            "DCGM_FI_PROF_SM_CYCLES_ELAPSED_TOTAL",
            10**15,
            f'{LABELS},GPU_I_PROFILE="{profile}",GPU_I_ID="{gi}"',
        )
        + row(
            "DCGM_FI_PROF_PIPE_TENSOR_ACTIVE", gi / 10, f'{LABELS},GPU_I_PROFILE="{profile}",GPU_I_ID="{gi}"'
        )
        for gi, profile in ((1, "1g.10gb"), (2, "2g.20gb"), (5, "3g.40gb"))
    )
    found = readings(page.encode())
    migs = {e: r for e, r in found.items() if e.startswith("MIG-")}
    assert [r.percent for r in migs.values()] == [{5: 10.0}, {5: 20.0}, {5: 50.0}]
    assert sum(r.energy_mj or 0 for r in found.values()) == 777
    assert sum(r.power_mw or 0 for r in found.values()) == 300_000
    assert all(r.cycles == {} for r in found.values())
    rows = understand(parse_page(page.encode())).rows
    # 1g on A100 is known (14 SMs); the others are not, and are not guessed.
    assert [rows[e].device.sm_count for e in migs] == [14, 0, 0]
    assert {rows[e].device.parent for e in migs} == {GPU}


METERED = (  # a page as an A100 under a GEMM gives it, but for what a test adds
    row("DCGM_FI_DEV_SM_CLOCK", 1410) + row("DCGM_FI_DEV_MAX_SM_CLOCK", 1410)
)


def metered(page: Callable[[int], str], seconds: int = 10) -> list[Sealed]:
    """Ticks of one second through the source and the meter; `page` by second."""
    clock, exporter = FakeClock(), Exporter(page(0).encode())
    source = DcgmSource("http://x/metrics", clock, exporter, node="n")
    meter = Meter(source.facts(), MeterSettings(), agent_version="0")
    sealed = []
    for s in range(seconds + 1):
        exporter.page = page(s).encode()
        for device in source.facts().devices:
            sealed += meter.observe(source.read(device.entity))
        clock.advance(1_000_000_000)
    if (last := meter.flush(final=True)) is not None:
        sealed.append(last)
    return sealed


def usage_of(sealed: list[Sealed], entity: str = GPU) -> list[Usage]:
    return [
        u for one in sealed for u in one.batch.usage if one.inventory.devices[u.entity_index].entity == entity
    ]


def said(sealed: list[Sealed]) -> list[str]:
    return [n.detail for one in sealed for n in one.batch.notices if n.kind is NoticeKind.CROSS_CHECK]


DEAD = row("DCGM_FI_PROF_PIPE_TENSOR_ACTIVE", 0) + row("DCGM_FI_PROF_DRAM_ACTIVE", "0.000000")


@pytest.mark.parametrize("busy", [row("DCGM_FI_DEV_GPU_UTIL", 95), row("DCGM_FI_DEV_POWER_USAGE", 390.5)])
def test_profiling_that_says_0_while_the_gpu_is_busy_has_failed(busy):
    """A silent zero (reference/metering.md 2.1): an upper bound or a gap, never "0 FLOP", and it is told once."""
    sealed = metered(lambda s: METERED + busy + DEAD)
    usage = usage_of(sealed)
    by_utilisation = "GPU_UTIL" in busy
    assert {u.evidence_class for u in usage} == {EvidenceClass.C if by_utilisation else EvidenceClass.GAP}
    assert {u.gap_reason for u in usage} == {GapReason.NONE if by_utilisation else GapReason.REFUSED}
    assert sum(u.duration_ns for u in usage) == 10_000_000_000
    (told,) = said(sealed)
    assert told.startswith("silent-zero: expected profiling values above 0 with ")
    assert told.endswith(("95 %, got 0", "390 W of 500 W, got 0"))


@pytest.mark.parametrize(
    "page",
    [
        row("DCGM_FI_DEV_GPU_UTIL", 0) + row("DCGM_FI_DEV_POWER_USAGE", 46) + DEAD,  # idle
        row("DCGM_FI_DEV_GPU_UTIL", 0) + row("DCGM_FI_DEV_POWER_USAGE", 76) + DEAD,  # idle, clocks up
        # A copy within the device: no tensor pipe, and the memory is busy.
        row("DCGM_FI_DEV_GPU_UTIL", 95)
        + row("DCGM_FI_PROF_PIPE_TENSOR_ACTIVE", 0)
        + row("DCGM_FI_PROF_DRAM_ACTIVE", 0.81),
        # A kernel that uses no tensor pipe.
        row("DCGM_FI_DEV_GPU_UTIL", 95)
        + row("DCGM_FI_PROF_PIPE_TENSOR_ACTIVE", 0)
        + row("DCGM_FI_PROF_SM_ACTIVE", 0.93),
    ],
)
def test_a_zero_that_is_true_stays_a_zero(page):
    sealed = metered(lambda s: METERED + page)
    usage = usage_of(sealed)
    assert {u.evidence_class for u in usage} == {EvidenceClass.B2}
    assert all(Measured.TENSOR_OTHER in u.measured and u.tensor_other_cycles == 0 for u in usage)
    assert said(sealed) == []


def instances(tensor: float, power: float) -> str:
    labels = [f'{LABELS},GPU_I_PROFILE="1g.10gb",GPU_I_ID="{gi}"' for gi in (7, 8)]
    return "".join(
        row("DCGM_FI_DEV_SM_CLOCK", 1410, label)
        + row("DCGM_FI_DEV_POWER_USAGE", power, label)
        + row("DCGM_FI_PROF_PIPE_TENSOR_ACTIVE", tensor if label.endswith('"8"') else 0, label)
        for label in labels
    )


def test_zeros_of_all_instances_of_a_gpu_that_draws_its_full_power_are_no_reading():
    """An instance has neither utilisation nor power of its own (metering.md 2.3): its GPU's power is looked at."""
    mig = f"MIG-{GPU[4:]}-7"
    dead = usage_of(metered(lambda s: instances(0, 390)), mig)
    assert {(u.evidence_class, u.gap_reason) for u in dead} == {(EvidenceClass.GAP, GapReason.READ_FAILED)}
    for tensor, power in ((0.5, 390), (0, 76)):
        assert {
            u.evidence_class for u in usage_of(metered(lambda s, t=tensor, p=power: instances(t, p)), mig)
        } == {EvidenceClass.B2}


def test_a_bad_row_costs_that_row_only():
    page = (
        "DCGM_FI_DEV_SM_CLOCK{oops 1410\n"
        + row("DCGM_FI_DEV_SM_CLOCK", 99, 'UUID="../etc/passwd",modelName="x"')
        + row("DCGM_FI_DEV_SM_CLOCK", 99, f'UUID="{GPU}",modelName="{"x" * 300}"')
        + row("DCGM_FI_DEV_SM_CLOCK", 99, f'{LABELS},GPU_I_ID="one"')
        + row("DCGM_FI_DEV_SM_CLOCK", "lots")
        + row("DCGM_FI_DEV_SM_CLOCK", 1410)
        + "garbage\n# HELP\n# TYPE x\n\x00\n"
        + row("DCGM_FI_DEV_NVSWITCH_X", 4, 'nvswitch="nvswitch0"')
    )
    scrape = understand(parse_page(page.encode(), "DCGM_FI_"))
    assert set(scrape.rows) == {GPU}
    assert scrape.reading(GPU, 1, 2).sm_clock_mhz == (1410.0,)
    assert scrape.refused == 5


def test_an_unlisted_model_is_metered_as_unknown():
    device = (
        understand(parse_page(row("DCGM_FI_DEV_SM_CLOCK", 1, f'UUID="{GPU}",modelName="Tesla K80"').encode()))
        .rows[GPU]
        .device
    )
    assert (device.name, device.compute_capability, device.sm_count) == ("Tesla K80", "", 0)


# ---- the source: pages over time --------------------------------------------------------------------------


class Exporter:
    """Hands out the page (or raises the error) that it is set to; counts how often it was asked."""

    def __init__(self, page: bytes | Exception) -> None:
        self.page = page
        self.asked = 0

    def __call__(self, url: str, timeout_s: float, limit: int) -> bytes:
        self.asked += 1
        if isinstance(self.page, Exception):
            raise self.page
        return self.page


def test_one_scrape_serves_all_entities_until_it_is_old():
    clock, exporter = FakeClock(), Exporter(row("DCGM_FI_DEV_SM_CLOCK", 1410).encode())
    source = DcgmSource("http://x/metrics", clock, exporter, node="n")
    assert source.facts().node == "n"
    for _ in range(3):
        assert source.read(GPU).sm_clock_mhz == (1410.0,)
    assert exporter.asked == 1
    clock.advance(SLOW_NS)
    exporter.page = row("DCGM_FI_DEV_SM_CLOCK", 900).encode()
    reading = source.read(GPU)
    assert (reading.sm_clock_mhz, reading.t_boot_ns) == ((900.0,), clock.boot_ns())
    assert exporter.asked == 2
    source.close()


def test_cycle_totals_are_given_out_once_per_collection():
    def page(elapsed: int) -> bytes:
        total = row("DCGM_FI_PROF_SM_CYCLES_ELAPSED_TOTAL", elapsed)
        return (total + row("DCGM_FI_PROF_PIPE_TENSOR_ACTIVE", 0.5)).encode()

    clock, exporter = FakeClock(), Exporter(page(10**15))
    source = DcgmSource("http://x/metrics", clock, exporter)
    assert source.read(GPU).cycles == {248: 10**15}
    for _ in range(29):  # a tick a second, a collection every thirty
        clock.advance(1_000_000_000)
        held = source.read(GPU)
        assert (held.cycles, held.percent, held.error) == ({}, {}, None)
    exporter.page = page(10**15 + 30 * 10**9)
    clock.advance(1_000_000_000)
    new = source.read(GPU)
    assert (new.cycles, new.percent) == ({248: 10**15 + 30 * 10**9}, {})
    clock.advance(STILL_NS)
    assert source.read(GPU).cycles == new.cycles  # an SM that stands still is a reading too
    exporter.page = (
        row("DCGM_FI_PROF_HMMA_CYCLES_ACTIVE_TOTAL", 5).encode() + row("DCGM_FI_PROF_SM_ACTIVE", 0.5).encode()
    )
    clock.advance(SLOW_NS)
    assert (source.read(GPU).cycles, source.read(GPU).percent) == ({}, {2: 50.0})


def test_totals_of_a_slow_exporter_are_metered_whole():
    """Through the meter: what was counted from the first collection to the last, to the cycle, and no gap."""
    clock, exporter = FakeClock(), Exporter(b"")
    per_s = 108 * 1_300_000_000  # a sum over 108 SMs at 1300 MHz

    def collect(s: int) -> None:
        totals = {
            "SM_CYCLES_ELAPSED": per_s * s,
            "MMA_CYCLES_ACTIVE": per_s * s // 2,
            "HMMA_CYCLES_ACTIVE": per_s * s // 2,
        }
        rows = [row(f"DCGM_FI_PROF_{k}_TOTAL", 10**15 + v) for k, v in totals.items()]
        exporter.page = "".join([*rows, row("DCGM_FI_DEV_SM_CLOCK", 1300)]).encode()

    collect(0)
    source = DcgmSource("http://x/metrics", clock, exporter, node="n")
    meter = Meter(source.facts(), MeterSettings(), agent_version="0")
    sealed = []
    for s in range(301):  # ten collections
        if s % 30 == 0:
            collect(s)
        sealed += meter.observe(source.read(GPU))
        clock.advance(1_000_000_000)
    if (last := meter.flush(final=True)) is not None:
        sealed.append(last)
    usage = [u for one in sealed for u in one.batch.usage]
    assert {u.gap_reason for u in usage} == {GapReason.NONE}
    assert sum(u.sm_elapsed_cycles for u in usage) == 300 * per_s
    assert sum(u.hmma_cycles for u in usage) == 150 * per_s
    assert sum(u.duration_ns for u in usage) == 300 * 1_000_000_000


def test_an_exporter_that_goes_away_leaves_errors_not_old_values_and_is_asked_again():
    clock, exporter = FakeClock(), Exporter(row("DCGM_FI_DEV_SM_CLOCK", 1410).encode())
    source = DcgmSource("http://x/metrics", clock, exporter)
    clock.advance(SLOW_NS)
    page, exporter.page = exporter.page, SourceError("connection refused")
    assert source.read(GPU).error == "DCGM_SCRAPE_FAILED"
    exporter.page = SourceError("timed out after 2 s")
    clock.advance(RETRY_NS)
    assert source.read(GPU).error == "DCGM_SCRAPE_TIMEOUT"
    with pytest.raises(SourceError, match="timed out"):
        source.facts()
    asked = exporter.asked
    assert source.read(GPU).error == "DCGM_SCRAPE_TIMEOUT"
    assert exporter.asked == asked  # eight GPUs do not make eight scrapes a second of a dead exporter
    exporter.page = page
    clock.advance(RETRY_NS)
    assert source.read(GPU).error is None
    assert source.read("GPU-gone").error == "DCGM_ENTITY_NOT_FOUND"


def energy(s: int, *, period: int = 30) -> str:
    return row("DCGM_FI_DEV_TOTAL_ENERGY_CONSUMPTION", 10**9 + s // period * period * 400_000)


def test_a_page_whose_energy_stands_still_is_stale():
    """An exporter goes on serving what it had when its host engine died: a gap, not the last average for ever."""

    def busy(s: int) -> str:
        return METERED + row("DCGM_FI_PROF_PIPE_TENSOR_ACTIVE", 0.5 + s // 30 % 9 / 1000)

    died = 300
    usage = usage_of(metered(lambda s: busy(min(s, died)) + energy(min(s, died)), 600))
    gap_s = sum(u.duration_ns for u in usage if u.evidence_class is EvidenceClass.GAP) / 1e9
    assert {u.gap_reason for u in usage if u.evidence_class is EvidenceClass.GAP} == {GapReason.READ_FAILED}
    assert gap_s == pytest.approx(600 - died - STILL_NS / 1e9, abs=SLOW_NS / 1e9)
    # A GPU whose exporter collects every two minutes is not stale in between.
    slow = usage_of(metered(lambda s: busy(s) + energy(s, period=110), 600))
    assert {u.evidence_class for u in slow} == {EvidenceClass.B2}
    # One that collects less often is believed as soon as that is known: after the first time.
    seldom = usage_of(metered(lambda s: busy(s) + energy(s, period=200), 1200))
    gap_s = sum(u.duration_ns for u in seldom if u.evidence_class is EvidenceClass.GAP) / 1e9
    assert gap_s == pytest.approx(200 - STILL_NS / 1e9, abs=SLOW_NS / 1e9)


def test_ratios_that_stand_still_while_energy_rises_are_not_used():
    """The profiling module stopped; the rest of the page goes on (reference/metering.md 2.1)."""

    def page(tensor: Callable[[int], float]) -> Callable[[int], str]:
        ratio = "DCGM_FI_PROF_PIPE_TENSOR_ACTIVE"
        return lambda s: METERED + energy(s) + row("DCGM_FI_DEV_GPU_UTIL", 97) + row(ratio, tensor(s))

    usage = usage_of(metered(page(lambda s: 0.512345), 600))
    assert {u.evidence_class for u in usage} == {EvidenceClass.B2, EvidenceClass.C}
    before_s = sum(u.duration_ns for u in usage if u.evidence_class is EvidenceClass.B2) / 1e9
    assert before_s == pytest.approx(FROZEN_AFTER * 30, abs=SLOW_NS / 1e9)
    steady = usage_of(metered(page(lambda s: 0.512345 + s // 30 % 7 * 1e-6), 600))
    assert {u.evidence_class for u in steady} == {EvidenceClass.B2}
    for tensor, dram in (
        (0, 0),
        (0, "0.000001"),
        (0, "1.000000"),
    ):  # idle, as good as idle, copying at full rate
        still = row("DCGM_FI_PROF_PIPE_TENSOR_ACTIVE", tensor) + row("DCGM_FI_PROF_DRAM_ACTIVE", dram)
        idle = usage_of(metered(lambda s, still=still: METERED + energy(s) + still, 600))
        assert {u.evidence_class for u in idle} == {EvidenceClass.B2}


def test_each_average_counts_once_for_the_time_until_the_next():
    """Faster scrapes than collections see duplicates; what they add up to is the sum of the averages."""
    means = [0.1, 0.9, 0.4, 0.6]

    def page(s: int) -> str:
        return METERED + energy(s) + row("DCGM_FI_PROF_PIPE_TENSOR_ACTIVE", means[min(s // 30, 3)])

    usage = usage_of(metered(page, 120))
    tensor = sum(u.tensor_other_cycles for u in usage)
    whole = 108 * 1_410_000_000 * 120
    # Each is seen up to one fetch late; the first and last of a job differ by that much of one average.
    late = 108 * 1_410_000_000 * SLOW_NS // 10**9
    assert tensor == pytest.approx(sum(means) / 4 * whole, abs=late)
    assert sum(u.duration_ns for u in usage) == 120_000_000_000


def test_an_exporter_that_collects_often_is_scraped_often(caplog):
    clock, exporter = FakeClock(), Exporter(b"")
    fetched = []

    def run(seconds: int, period: int) -> int:
        asked = exporter.asked
        for _ in range(seconds):
            exporter.page = (METERED + energy(clock.boot_ns() // 10**9, period=period)).encode()
            source.read(GPU)
            clock.advance(FAST_NS)
        return exporter.asked - asked

    exporter.page = (METERED + energy(0)).encode()
    source = DcgmSource("http://x/metrics", clock, exporter, node="n")
    assert run(60, 30) == pytest.approx(12, abs=1)
    fetched.append(run(60, 1))
    assert fetched[0] > 40
    assert "collects as often as it is scraped" in caplog.text
    assert run(60, 30) < 30  # and less often again
    assert run(60, 30) == pytest.approx(12, abs=1)


class Nvml:
    """A source beside the exporter that knows the devices; `reads` by entity."""

    def __init__(self, *devices: Device, **reads: object) -> None:
        self.devices, self.reads, self.closed = devices, reads, False
        self.fails: SourceError | None = None

    def facts(self) -> NodeFacts:
        if self.fails:
            raise self.fails
        library = Library("/usr/lib/libnvidia-ml.so.1", "ab" * 32, "")
        return NodeFacts("n", bytes(16), "580.1", "13", "nvml", self.devices, library=library)

    def read(self, entity: str) -> Reading:
        return Reading(entity, 1, 2, **self.reads)

    def close(self) -> None:
        self.closed = True


def test_what_the_page_does_not_say_is_asked_of_nvml_beside_it():
    gpu = Device(GPU, "NVIDIA A100-SXM4-80GB", "8.0", 108, 1410, serial="165", persistence=True)
    mig = Device(
        "MIG-0-real",
        "NVIDIA A100-SXM4-80GB MIG 2g.20gb",
        "8.0",
        28,
        1410,
        mig=True,
        parent=GPU,
        gpu_instance=3,
    )
    other = Device("GPU-2", "NVIDIA A100-SXM4-80GB", "8.0", 108, pci_address="0:2")
    process = Process(4711)
    nvml = Nvml(
        gpu, mig, other,
        energy_mj=7, power_mw=8, sm_clock_mhz=(1200.0, 1300.0), processes=(process,), utilization_gpu_pct=50.0,
    )  # fmt: skip
    label = f'{LABELS},GPU_I_PROFILE="2g.20gb",GPU_I_ID="3"'
    page = row("DCGM_FI_DEV_TOTAL_ENERGY_CONSUMPTION", 5, label) + row(
        "DCGM_FI_PROF_PIPE_TENSOR_ACTIVE", 0.5, label
    )
    source = DcgmSource("http://x", FakeClock(), Exporter(page.encode()), node="n", beside=nvml)
    facts = source.facts()
    # SM counts come from the device: the page's table does not know a 2g instance, and guesses none.
    assert facts.devices == (gpu, mig)
    assert [(u.vendor, u.pci_address, u.reason) for u in facts.uncovered] == [
        ("NVIDIA", "0:2", "the exporter's page does not show it")
    ]
    assert facts.library.path == "/usr/lib/libnvidia-ml.so.1"
    reading = source.read("MIG-0-real")
    assert (reading.entity, reading.percent) == ("MIG-0-real", {5: 50.0})
    assert (reading.processes, reading.sm_clock_mhz) == ((process,), (1200.0, 1300.0))
    assert (source.read(GPU).energy_mj, source.read(GPU).power_mw) == (7, 8)
    nvml.reads = {"error": "NVML_ERROR_UNKNOWN"}
    held = source.read(GPU)  # the page's energy is older than NVML's was: none
    assert (held.energy_mj, held.error) == (None, None)
    nvml.fails = SourceError("gone")
    assert {d.entity for d in source.facts().devices} == {GPU, f"MIG-{GPU[4:]}-3"}
    source.close()
    assert nvml.closed


def test_a_page_without_gpus_and_a_url_that_is_none_are_refused_with_a_hint():
    for page in (b"", b"<html>not found</html>", b"go_gc 1\n"):
        with pytest.raises(SourceError, match="expected rows of GPUs") as caught:
            DcgmSource("http://x", FakeClock(), Exporter(page))
        assert "dcgm-exporter" in caught.value.hint
    for url in ("file:///etc/passwd", "localhost:9400", "", "ftp://x/"):
        with pytest.raises(SourceError, match="http or https"):
            DcgmSource(url, FakeClock(), Exporter(b""))


# ---- the fetch, against a real server ---------------------------------------------------------------------


class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        if self.path == "/metrics":
            body = row("DCGM_FI_DEV_SM_CLOCK", 1410).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)
        elif self.path in ("/endless", "/drip"):
            self.send_response(200)
            self.end_headers()
            try:
                while not self.server.stopping.wait(0.05 if self.path == "/drip" else 0):
                    self.wfile.write(b"x" if self.path == "/drip" else b"x" * 65536)
            except OSError:
                pass  # the client has had enough
        elif self.path == "/silent":
            self.server.stopping.wait(30)
        elif self.path == "/cut":
            self.send_response(200)
            self.send_header("Content-Length", "1000")
            self.end_headers()
            self.wfile.write(b"DCGM")
        elif self.path == "/nonsense":
            self.wfile.write(b"\x00\xff nonsense\r\n\r\n")
        elif self.path == "/to-file":
            self.send_response(302)
            self.send_header("Location", "file:///etc/passwd")
            self.end_headers()
        else:
            self.send_error(404)

    def log_message(self, *args: object) -> None:
        pass


@pytest.fixture
def server():
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as s:
        s.stopping = threading.Event()
        s.daemon_threads = True
        thread = threading.Thread(target=s.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield f"http://127.0.0.1:{s.server_address[1]}"
        s.stopping.set()
        s.shutdown()
        thread.join()


def test_a_page_is_fetched(server, monkeypatch):
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")  # the node's own exporter is asked directly
    source = DcgmSource(f"{server}/metrics", FakeClock())
    assert source.read(GPU).sm_clock_mhz == (1410.0,)


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("/endless", "at most 1000000 bytes"),
        ("/drip", "timed out"),
        ("/silent", "timed out"),
        ("/cut", "996 bytes of the page are missing"),
        ("/nonsense", "nonsense"),
        ("/to-file", "Found"),
        ("/absent", "Not Found"),
    ],
)
def test_a_server_that_misbehaves_is_an_error_in_bounded_time(server, path, message):
    with pytest.raises(SourceError, match=message):
        # Only what is to time out is given little time: a slow machine must not make the others time out.
        fetch_page(server + path, 0.4 if message == "timed out" else 30, 1_000_000)


def test_nobody_there_and_no_such_url_are_errors():
    with pytest.raises(SourceError, match="refused"):
        fetch_page("http://127.0.0.1:1/metrics", 0.4, MAX_SCRAPE_BYTES)
    with pytest.raises(SourceError):
        fetch_page("http://[nonsense/", 0.4, MAX_SCRAPE_BYTES)
