"""What one page of a dcgm-exporter comes to: real pages of real cards, both generations of names and units."""

from pathlib import Path

import pytest
from dcgm_pages import GPU, LABELS, METERED, metered, row, usage_of

from flopmeter.agent.metering.meter import Sealed
from flopmeter.agent.reading import Reading
from flopmeter.agent.sources import dcgm_fields
from flopmeter.agent.sources.dcgm_page import understand
from flopmeter.agent.sources.prom_text import parse_page
from flopmeter.contract.evidence_class import EvidenceClass
from flopmeter.contract.usage import GapReason, Measured, NoticeKind

PAGES = Path(__file__).parents[3] / "../shared/data/dcgm"
A100 = "GPU-7099682b-a20d-2bcc-74ab-b9060454d81e"
L4 = "GPU-c2f76b33-7953-256e-8f33-1343419b1a1c"
T4 = "GPU-d7cbb0cd-d4bd-c2f7-dfaf-221df5e958ea"
T4_0 = "GPU-7a2e92f2-be71-d37e-a744-541600ffc722"
T4_1 = "GPU-5f587dd4-6505-0873-c6db-8324dbfe5ba9"


def real(name: str) -> bytes:
    if not PAGES.is_dir():
        pytest.skip("no recorded pages here (../shared/data/dcgm)")
    return (PAGES / f"{name}.prom").read_bytes()


def readings(page: bytes) -> dict[str, Reading]:
    scrape = understand(parse_page(page, "DCGM_FI_"))
    return {entity: scrape.reading(entity, 1, 2) for entity in scrape.rows}


def one(text: str) -> Reading:
    return readings(text.encode())[GPU]


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
