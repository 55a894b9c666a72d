"""Cross-checks: what each says, and what it must not say (reference/metering.md 6.2, 7.2.5)."""

import dataclasses
import json

import pytest

from flopmeter.agent.metering.crosscheck import (
    BOARDS,
    TELL_AGAIN_NS,
    Checks,
    board_watts,
    library_details,
    module_version,
    silent_zero,
)
from flopmeter.agent.metering.interval import ALL_CYCLES, ENERGY, NUMBERS
from flopmeter.agent.metering.meter import Meter, MeterSettings
from flopmeter.agent.reading import CYCLE_IDS, DRAM_BW_UTIL, NVLINK_RX, NVLINK_TX, NodeFacts, Reading
from flopmeter.contract.checks import Check
from flopmeter.contract.usage import NO_LIBRARY, Device, Library, NoticeKind

S = 1_000_000_000
H100 = Device("GPU-1", "NVIDIA H100 80GB HBM3", "9.0", 132, 1980)
PER_S = 132 * 1_755_000_000  # SM-cycles


def numbers(
    seconds: float = 1.0, *, active: float = 0.0, tensor: float = 0.0, fp32: float = 0.0, mj: int = 0
):
    elapsed = round(PER_S * seconds)
    given = {
        "duration_ns": round(seconds * S),
        "sm_elapsed_cycles": elapsed,
        "sm_active_cycles": round(elapsed * active),
        "hmma_cycles": round(elapsed * tensor),
        "tensor_any_cycles": round(elapsed * tensor),
        "fp32_cycles": round(elapsed * fp32),
        "energy_mj": mj,
    }
    return tuple(given.get(name, 0) for name in NUMBERS)


class Gpu:
    """One second after another of a GPU into its checks; what they said is kept."""

    def __init__(self, device: Device = H100, *, exporter: bool = False) -> None:
        self.device, self.exporter = device, exporter
        self.checks = Checks()
        self.now = 0
        self.said: list[str] = []

    def run(
        self,
        seconds: int,
        *,
        step: float = 1.0,
        power_w: float | None = 600.0,
        energy_w: float | None = 600.0,
        active: float = 0.9,
        tensor: float = 0.6,
        fp32: float = 0.0,
        dram: float | None = 40.0,
        nvlink: float | None = 5_000.0,
        utilisation: float | None = 99.0,
    ) -> list[str]:
        for _ in range(seconds):
            self.now += round(step * S)
            reading = Reading(
                "GPU-1", self.now, self.now,
                percent={} if dram is None else {DRAM_BW_UTIL: dram},
                power_mw=None if power_w is None else round(power_w * 1000),
                utilization_gpu_pct=utilisation,
                rates_mib_s={} if nvlink is None else {NVLINK_RX: nvlink / 2, NVLINK_TX: nvlink / 2},
            )  # fmt: skip
            row = numbers(
                step, active=active, tensor=tensor, fp32=fp32, mj=round((energy_w or 0) * step * 1000)
            )
            bits = ALL_CYCLES | (0 if energy_w is None else ENERGY)
            self.said += self.checks.add(self.device, bits, row, reading, exporter=self.exporter)
        return self.said

    @property
    def kinds(self) -> list[str]:
        return [text.partition(":")[0] for text in self.said]


def test_a_gpu_that_trains_says_nothing():
    assert Gpu().run(600) == []


def test_a_gpu_that_idles_says_nothing():
    for watts in (70.0, 120.0):  # clocks down, clocks up
        idle = {"active": 0.0, "tensor": 0.0, "dram": 0.0, "nvlink": 0.0, "utilisation": 0.0}
        assert Gpu().run(600, power_w=watts, energy_w=watts, **idle) == []


@pytest.mark.parametrize(
    ("energy_w", "flagged"), [(631, True), (629, False), (571, False), (569, True), (0, True)]
)
def test_energy_is_held_against_the_integral_of_power(energy_w, flagged):
    gpu = Gpu()
    gpu.run(59, energy_w=energy_w)
    assert gpu.said == []  # not before a minute
    gpu.run(3, energy_w=energy_w)
    assert (Check.ENERGY_POWER in gpu.kinds) is flagged
    if flagged:
        assert gpu.said[0] == (
            f"energy-power: expected 36000000 mJ by power, got {energy_w * 60_000} mJ by the energy counter in 60 s"
        )


@pytest.mark.parametrize("tick_ms", [250, 1_000])
def test_jobs_that_begin_and_end_beside_a_period_are_no_contradiction(tick_ms):
    """Power is told as the mean of the last second: of a load that has just begun it tells half, of one that ended more."""
    found: list[str] = []
    for begin_ms in range(57_000, 63_000, 50):
        checks, told, spent, before = Checks(), [70.0] * 20, 0.0, 0
        for now_ms in range(50, 130_000, 50):
            busy = begin_ms <= now_ms < begin_ms + 60_000
            told = [*told[1:], 700.0 if busy else 70.0]
            spent += told[-1] * 50
            if now_ms % tick_ms == 0:
                numbers = (tick_ms * 10**6, *(0,) * 10, round(spent) - before)
                before = round(spent)
                power = round(sum(told) / 20 * 1_000)
                reading = Reading("GPU-0", now_ms * 10**6, now_ms * 10**6, power_mw=power, energy_mj=before)
                found += checks.add(H100, int(ENERGY), numbers, reading)
    assert found == []


def test_energy_is_compared_only_over_time_in_which_both_were_read():
    gpu = Gpu()
    for _ in range(20):
        gpu.run(30, energy_w=900)
        gpu.run(1, power_w=None)
    assert Check.ENERGY_POWER not in gpu.kinds
    gpu = Gpu()
    for _ in range(20):
        gpu.run(30, energy_w=900)
        gpu.run(1, step=11.0, energy_w=900)  # a hole: one power sample says nothing of it
    assert Check.ENERGY_POWER not in gpu.kinds


def test_a_tick_longer_than_what_power_is_averaged_over_needs_an_hour():
    gpu = Gpu()
    gpu.run(719, step=5.0, energy_w=700)
    assert Check.ENERGY_POWER not in gpu.kinds
    gpu.run(3, step=5.0, energy_w=700)
    assert Check.ENERGY_POWER in gpu.kinds
    assert Check.ENERGY_POWER not in [s.partition(":")[0] for s in Gpu().run(1500, step=5.0, energy_w=650)]


@pytest.mark.parametrize("capability", ["7.0", "7.5", "8.0"])
def test_a_power_sensor_of_the_moment_is_believed_less(capability):
    """A load of 0.7 s on and 0.3 s off, read every second: the sensor sees 600 W, the counter 450."""
    a100 = Gpu(dataclasses.replace(H100, compute_capability=capability))
    a100.run(70, energy_w=460)
    assert Check.ENERGY_POWER not in a100.kinds
    a100.run(70, energy_w=440)
    assert Check.ENERGY_POWER in a100.kinds


def test_an_exporters_power_is_believed_over_an_hour_only():
    gpu = Gpu(exporter=True)
    assert gpu.run(119, step=30.0, energy_w=700) == []
    assert Check.ENERGY_POWER in [s.partition(":")[0] for s in gpu.run(2, step=30.0, energy_w=700)]
    assert Check.ENERGY_POWER not in [
        s.partition(":")[0] for s in Gpu(exporter=True).run(250, step=30.0, energy_w=650)
    ]


def test_more_tensor_work_than_the_energy_can_pay_for_is_flagged():
    """60 % tensor-active at 60 W: 2.3e9 SM-cycles a joule, over four times full rate at the board's limit."""
    gpu = Gpu()
    gpu.run(70, power_w=60, energy_w=60)
    assert gpu.kinds == ["cycles-per-joule"]
    assert gpu.said[0].startswith(
        "cycles-per-joule: expected at most 1493485714 tensor SM-cycles per joule, got 2316"
    )
    # Zeros as operands draw little: half the limit with every SM busy all the time is no lie.
    assert Gpu().run(70, tensor=1.0, power_w=330, energy_w=330) == []
    assert Gpu(dataclasses.replace(H100, name="NVIDIA X900")).run(70, power_w=60, energy_w=60) == []


def test_tensor_work_without_memory_traffic_is_flagged():
    gpu = Gpu()
    gpu.run(70, dram=0.05)
    assert gpu.said == [
        "dram-per-flop: expected DRAM traffic with tensor pipes active 60 % of 60 s, got 500 ppm"
    ]
    assert Gpu().run(70, dram=0.2) == []
    assert Gpu().run(70, dram=0.05, tensor=0.05) == []
    assert Gpu().run(70, dram=None) == []  # not read is not 0
    half = Gpu()
    for _ in range(40):
        half.run(1, dram=0.0)
        half.run(1, dram=None)
    assert half.said == []


def test_traffic_between_gpus_that_do_nothing_is_flagged():
    nothing = {"active": 0.0, "tensor": 0.0, "power_w": 120.0, "energy_w": 120.0, "utilisation": 0.0}
    gpu = Gpu()
    gpu.run(70, nvlink=50_000, **nothing)
    assert gpu.said == [
        "nvlink-per-flop: expected active SMs with 50000 MiB/s over NVLink for 60 s, got none"
    ]
    assert Gpu().run(70, nvlink=500, **nothing) == []
    assert Gpu().run(70, nvlink=50_000) == []


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"utilisation": 95.0, "power_w": 120.0, "energy_w": 120.0}, "utilisation 95 %"),
        ({"utilisation": None}, "600 W of 700 W"),
        ({"utilisation": 0.0}, "600 W of 700 W"),
        ({"utilisation": 5.0, "power_w": 150.0, "energy_w": 150.0}, ""),
        ({"utilisation": 95.0, "fp32": 0.2, "active": 0.8}, ""),  # work that uses no tensor pipe
        ({"utilisation": 95.0, "dram": 80.0}, ""),  # a copy
    ],
)
def test_counters_that_stand_still_on_a_busy_gpu_are_flagged(values, said):
    gpu = Gpu()
    gpu.run(70, **{"active": 0.0, "tensor": 0.0, "dram": 0.0, "nvlink": 0.0} | values)
    assert gpu.said == ([f"silent-zero: expected active SMs with {said} for 60 s, got none"] if said else [])


def test_a_check_is_told_once_an_hour():
    gpu = Gpu()
    gpu.run(7200, dram=0.0, energy_w=900)
    assert sorted(gpu.kinds) == ["dram-per-flop"] * 2 + ["energy-power"] * 2
    assert gpu.checks.may_tell("x", gpu.now)
    assert not gpu.checks.may_tell("x", gpu.now + TELL_AGAIN_NS - 1)
    assert gpu.checks.may_tell("x", gpu.now + TELL_AGAIN_NS)
    assert gpu.checks.may_tell("x", 5)  # another boot: its clock started anew


def test_checks_go_on_from_a_journal_as_if_never_stopped():
    one, two = Gpu(), Gpu()
    for gpu in (one, two):
        gpu.run(45, dram=0.0, energy_w=900)
    two.checks = Checks.load(json.loads(json.dumps(two.checks.dump())))
    assert two.checks == one.checks
    for gpu in (one, two):
        gpu.run(30, dram=0.0, energy_w=900)
    assert one.said == two.said
    assert len(one.said) == 2
    for bad in ([], [[1], {}], [["x"] * 18, {}], [[0] * 18, {"a": "b"}]):
        with pytest.raises((ValueError, TypeError)):
            Checks.load(bad)


# ---- one reading ------------------------------------------------------------------------------------------


def test_a_silent_zero_is_every_profiling_value_at_0_on_a_busy_gpu():
    def said(percent, **given):
        return silent_zero(Reading("GPU-1", 1, 2, percent=percent, **given), 700)

    assert said({5: 0.0, 10: 0.0}, utilization_gpu_pct=50.0) == (
        "silent-zero: expected profiling values above 0 with utilisation 50 %, got 0"
    )
    assert "421 W of 700 W" in said({5: 0.0}, power_mw=421_000)
    assert said({5: 0.0}, power_mw=419_000) == ""
    assert said({5: 0.0}, utilization_gpu_pct=10.0) == ""
    assert said({5: 0.0, 10: 0.001}, utilization_gpu_pct=99.0) == ""
    assert said({}, utilization_gpu_pct=99.0) == ""  # nothing was said to be 0
    assert said({5: 0.0}) == ""


def test_boards():
    """What is 60 % of the limit must be above an idle GPU with its clocks up: the board may not be another one."""
    names = {
        "NVIDIA H100 80GB HBM3": 700, "NVIDIA H100 PCIe": 350, "NVIDIA H100 NVL": 400, "NVIDIA H200": 700,
        "NVIDIA H200 NVL": 600, "NVIDIA GH200 480GB": 1000, "NVIDIA A100-SXM4-40GB": 400, "NVIDIA L4": 72,
        "NVIDIA A100-SXM4-80GB": 500, "NVIDIA A100 80GB PCIe": 300, "NVIDIA A100-PCIE-40GB": 250,
        "Tesla T4": 70, "NVIDIA A10": 150, "NVIDIA A10G": 300, "NVIDIA L40S": 350, "NVIDIA L40": 300,
        "NVIDIA B200": 1200, "NVIDIA GB300": 1400, "Tesla V100-SXM2-16GB": 300, "NVIDIA X900": 0, "": 0,
    }  # fmt: skip
    found = {name: board_watts(dataclasses.replace(H100, name=name)) for name in names}
    assert found == names
    assert board_watts(dataclasses.replace(H100, mig=True)) == 0
    assert all(50 <= b.watts <= 1_500 for b in BOARDS)


# ---- the library ------------------------------------------------------------------------------------------

USUAL = Library(
    "/usr/lib/x86_64-linux-gnu/libnvidia-ml.so.595.58.03", "a" * 64,
    "NVRM version: NVIDIA UNIX x86_64 Kernel Module  595.58.03  Tue Mar  3 00:00:00 UTC 2026",
)  # fmt: skip
OPEN = "NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  570.148.08  Release Build  (dvs-builder@U22)"


def test_a_usual_library_says_nothing():
    assert library_details(USUAL, "595.58.03") == []
    assert library_details(USUAL, "595.58.03", USUAL) == []
    assert library_details(NO_LIBRARY, "595.58.03", USUAL) == []
    assert library_details(dataclasses.replace(USUAL, kernel_module=OPEN), "570.148.08") == []
    assert module_version("garbage") == module_version("") == ""


@pytest.mark.parametrize(
    "path",
    [
        "libnvidia-ml.so.1",
        "/home/eve/libnvidia-ml.so.1",
        "/usr/lib/../../tmp/libnvidia-ml.so.1",
        "/usr/lib/x.so",
    ],
)
def test_a_library_from_elsewhere_is_flagged(path):
    (said,) = library_details(dataclasses.replace(USUAL, path=path), "595.58.03")
    assert said.startswith("library-path: expected ")
    assert said.endswith(f", got {path}")


def test_a_library_that_changed_and_a_module_of_another_version_are_flagged():
    other = dataclasses.replace(USUAL, sha256="b" * 64)
    assert library_details(other, "595.58.03", USUAL) == [
        f"library-changed: expected sha256 {'a' * 64}, got {'b' * 64}"
    ]
    assert library_details(USUAL, "610.1") == ["driver-version: expected kernel module 610.1, got 595.58.03"]
    gone = dataclasses.replace(USUAL, path=f"{USUAL.path} (deleted)", sha256="")
    assert [s.partition(":")[0] for s in library_details(gone, "595.58.03")] == ["library-changed"]


# ---- through the meter ------------------------------------------------------------------------------------


def notices(meter: Meter, readings) -> list[tuple[str, str]]:
    found = []
    for sealed in (*(s for r in readings for s in meter.observe(r)), meter.flush(final=True)):
        if sealed is not None:
            devices = sealed.inventory.devices
            found += [
                (devices[n.entity_index].entity if n.entity_index >= 0 else "", n.detail)
                for n in sealed.batch.notices
                if n.kind is NoticeKind.CROSS_CHECK
            ]
    return found


def readings(seconds: int, *, dram: float, energy_w: int = 600):
    for s in range(seconds):
        cycles = {
            i: 10**15 + s * (PER_S if i == 248 else PER_S // 2 if i in (249, 250, 252) else 0)
            for i in CYCLE_IDS
        }
        yield Reading(
            "GPU-1", s * S, s * S + 10**18, cycles, {DRAM_BW_UTIL: dram}, (1755.0,),
            energy_mj=10**9 + s * energy_w * 1000, power_mw=600_000, processes=(),
        )  # fmt: skip


def test_the_meter_flags_and_corrects_nothing():
    facts = NodeFacts("n", bytes(16), "595.58.03", "13", "nvml", (H100,), library=USUAL)
    sound = Meter(facts, MeterSettings(), agent_version="0")
    assert notices(sound, readings(200, dram=40.0)) == []
    odd = dataclasses.replace(facts, library=dataclasses.replace(USUAL, path="/srv/libnvidia-ml.so.1"))
    meter = Meter(odd, MeterSettings(), agent_version="0")
    found = notices(meter, readings(200, dram=0.0, energy_w=900))
    assert sorted((entity, text.partition(":")[0]) for entity, text in found) == [
        ("", "library-path"), ("GPU-1", "dram-per-flop"), ("GPU-1", "energy-power"),
    ]  # fmt: skip
    cycles = []
    for dram in (40.0, 0.0):
        meter = Meter(facts, MeterSettings(), agent_version="0")
        sealed = [s for r in readings(200, dram=dram) for s in meter.observe(r)]
        cycles.append([u for s in sealed for u in s.batch.usage])
    assert cycles[0] == cycles[1]


def test_a_library_that_changes_while_the_agent_runs_is_told_once():
    facts = NodeFacts("n", bytes(16), "595.58.03", "13", "nvml", (H100,), library=USUAL)
    meter = Meter(facts, MeterSettings(), agent_version="0")
    meter.refacts(facts)
    changed = dataclasses.replace(facts, library=dataclasses.replace(USUAL, sha256="b" * 64))
    for _ in range(3):
        meter.refacts(changed)
    assert [text.partition(":")[0] for _, text in notices(meter, readings(3, dram=40.0))] == [
        "library-changed"
    ]
