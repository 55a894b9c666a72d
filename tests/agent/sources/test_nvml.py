"""The nvml source through the real nvidia-ml-py, over a stand-in for the driver's library (tests/fakenvml).

What one reading gives: many cases in one process, under virtual time. GPUs that come and go: test_nvml_life.py.
"""

import os
from pathlib import Path

import pytest
from fakenvml.driver import ANCIENT_DRIVER, COMPILER, NO_COMPILER, OLD_DRIVER, SECOND
from nvml_machine import ALL_CYCLES, BUSY, GPU0, GPU1

from flopmeter.agent.metering.meter import Meter, MeterSettings
from flopmeter.contract.usage import Device, GapReason

pytestmark = pytest.mark.skipif(COMPILER is None, reason=NO_COMPILER)


ALL_PERCENTS = {2, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13}


def test_a_hopper_on_a_new_driver_gives_everything(machine):
    m = machine(
        BUSY, "gpu g1 serial=", f"gpu g0 procs={os.getpid()}:30,1:40 nvlink_rx=1000 pcie_tx=12 reasons=0x4"
    )
    source = m.source()
    first, second = m.tick(source), m.tick(source)
    facts = source.facts()
    assert (facts.node, facts.driver, facts.nvml, facts.source) == ("n", "595.58.03", "13.595.58", "nvml")
    boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip().replace("-", "")
    assert facts.boot_id.hex() == boot
    assert facts.devices[0] == Device(
        entity=GPU0, name="NVIDIA H100 80GB HBM3", compute_capability="9.0", sm_count=132,
        max_sm_clock_mhz=1980, serial="1650000000", pci_address="00000000:10:00.0", persistence=True,
        confidential=False,
    )  # fmt: skip
    assert (facts.devices[1].entity, facts.devices[1].serial, facts.uncovered) == (GPU1, "", ())
    assert second.error is None
    delta = {i: second.cycles[i] - first.cycles[i] for i in second.cycles}
    elapsed = 132 * 1_800_000_000
    assert delta == {
        248: elapsed, 249: elapsed * 95 // 100, 250: elapsed * 45 // 100, 251: 0, 252: elapsed * 45 // 100,
        253: 0, 254: 0, 257: 0, 258: 0, 259: elapsed * 55 // 1000, 260: 0,
    }  # fmt: skip
    assert set(second.percent) == ALL_PERCENTS
    assert (second.percent[5], second.percent[12], second.percent[10]) == (45.0, 5.5, 40.0)
    assert second.rates_mib_s == {20: 12.0, 21: 0.0, 60: 1000.0, 61: 0.0}
    assert second.clock_event_reasons == 4
    assert second.sm_clock_mhz == (1800.0,) * 50
    assert second.energy_mj - first.energy_mj == 655_000
    assert (second.power_mw, second.utilization_gpu_pct) == (655_000, 95.0)
    assert second.memory_used_bytes == 1 << 30
    one, mine = second.processes
    assert (one.pid, mine.pid) == (1, os.getpid())
    assert mine.start_ticks == int(Path("/proc/self/stat").read_text().rpartition(")")[2].split()[19])
    assert (mine.sm_util_pct, one.sm_util_pct) == (30.0, 40.0)
    assert second.workload is None
    assert second.t_boot_ns - first.t_boot_ns == SECOND
    assert second.t_unix_ns - first.t_unix_ns == SECOND
    assert second.t_unix_ns == m.unix_ns()


def test_the_first_reading_waits_until_two_samples_are_far_enough_apart(machine):
    m = machine()
    source = m.source()
    start = m.boot_ns()
    reading = source.read(GPU0)
    assert m.boot_ns() - start >= 100_000_000
    assert reading.cycles[248] > 0
    assert reading.percent[5] == 45.0  # of samples closer than 100 ms it would be NaN


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("scale=average", {248: 1_800_000_000, 252: 810_000_000}),
        ("scale=sum", {248: 132 * 1_800_000_000, 252: 132 * 810_000_000}),
        ("k.hmma=1.25", {248: 132 * 1_800_000_000, 252: 132 * 648_000_000}),  # runs at 1/k of the percentage
        ("sms=78", {248: 78 * 1_800_000_000}),
    ],
)
def test_cycles_of_either_scale_come_as_the_driver_counts_them(machine, line, expected):
    m = machine(BUSY, f"gpu g0 {line}")
    source = m.source()
    first, second = m.tick(source), m.tick(source)
    assert {i: second.cycles[i] - first.cycles[i] for i in expected} == expected
    assert second.percent[7] == 45.0


def test_percentages_are_weighted_by_cycles_not_by_time(machine):
    # Half of the time at 345 MHz and busy, half at 1980 MHz and idle (metering.md 1.5).
    m = machine("gpu g0 clock=345:0.5,1980:0.5 hmma=1:0.5,0:0.5")
    source = m.source()
    m.tick(source)
    reading = m.tick(source)
    assert reading.percent[7] == pytest.approx(100 * 345 / (345 + 1980), abs=1e-9)


@pytest.mark.parametrize(
    ("lines", "cycles", "percents"),
    [
        (["gpu g0 cycles=0"], set(), ALL_PERCENTS),  # R590 and older
        (["gpu g0 cycles=0", "node strict=1"], set(), ALL_PERCENTS),  # and it refuses lists with unknown ids
        (["gpu g0 err.8=3 err.252=3"], ALL_CYCLES - {252}, ALL_PERCENTS - {8}),
        (["gpu g0 err.252=999 err.5=21"], ALL_CYCLES - {252}, ALL_PERCENTS - {5}),
        (["gpu g0 value.5=nan value.7=250 value.12=-1"], ALL_CYCLES, ALL_PERCENTS - {5, 7, 12}),
        (["gpu g0 value.252=nan value.249=inf value.250=-3"], ALL_CYCLES - {252, 249, 250}, ALL_PERCENTS),
        (["gpu g0 value.5=nan"], ALL_CYCLES, ALL_PERCENTS - {5}),
        (["gpu g0 value.7=250"], ALL_CYCLES, ALL_PERCENTS - {7}),
        (["gpu g0 value.12=-1"], ALL_CYCLES, ALL_PERCENTS - {12}),
        (["gpu g0 value.10=inf"], ALL_CYCLES, ALL_PERCENTS - {10}),
        (["gpu g0 value.252=nan"], ALL_CYCLES - {252}, ALL_PERCENTS),
        (["gpu g0 value.252=inf"], ALL_CYCLES - {252}, ALL_PERCENTS),
        (["gpu g0 value.250=-3"], ALL_CYCLES - {250}, ALL_PERCENTS),
        (["gpu g0 value.252=140737488355329"], ALL_CYCLES - {252}, ALL_PERCENTS),
        (["gpu g0 value.252=140737488355332"], ALL_CYCLES, ALL_PERCENTS),  # real totals pass the blanks
        # DCGM's blanks, should a driver ever give them (metering.md 2.2).
        (["gpu g0 value.252=140737488355328 value.248=9223372036854775794"], ALL_CYCLES - {248, 252}, ALL_PERCENTS),
        (["gpu g0 gpm=0"], set(), set()),  # Ampere
        (["gpu g0 fail.nvmlGpmMetricsGet=999"], set(), set()),
        (["gpu g0 fail.nvmlGpmSampleGet=3"], set(), set()),
    ],
)  # fmt: skip
def test_metrics_that_fail_are_not_read_and_the_others_are(machine, lines, cycles, percents):
    m = machine(BUSY, *lines)
    source = m.source()
    m.tick(source)
    reading = m.tick(source)
    assert (set(reading.cycles), set(reading.percent)) == (cycles, percents)
    assert (reading.error, reading.power_mw, reading.utilization_gpu_pct) == (None, 655_000, 95.0)


@pytest.mark.parametrize("function", ["nvmlGpmSampleGet", "nvmlGpmMetricsGet"])
def test_gpm_that_worked_and_is_then_not_supported_is_asked_again(machine, function):
    m = machine(BUSY)
    source = m.source()
    assert set(m.tick(source).cycles) == ALL_CYCLES
    m.say(f"gpu g0 fail.{function}=3")
    without = m.tick(source)
    assert (without.error, without.cycles, without.percent) == (None, {}, {})
    m.say(f"gpu g0 fail.{function}=")
    m.tick(source)
    assert set(m.tick(source).cycles) == ALL_CYCLES


def test_a_metric_that_fails_once_comes_back_and_one_that_is_not_there_is_asked_for_once(machine):
    m = machine(BUSY, "gpu g0 err.252=999 err.253=3")
    source = m.source()
    assert 252 not in m.tick(source).cycles
    m.say("gpu g0 err.252= err.253=")
    reading = m.tick(source)
    assert 252 in reading.cycles
    assert 253 not in reading.cycles


@pytest.mark.parametrize("entries", [98, 210, 333, 477])
def test_drivers_built_with_a_shorter_array_know_fewer_ids(machine, entries):
    m = machine(BUSY, f"node gpm_max={entries}")
    source = m.source()
    m.tick(source)
    reading = m.tick(source)
    assert set(reading.cycles) == (ALL_CYCLES if entries > 248 else set())
    assert set(reading.percent) == ALL_PERCENTS
    assert set(reading.rates_mib_s) == {20, 21, 60, 61}


FUNCTIONS = {
    "nvmlDeviceGetTotalEnergyConsumption": "energy_mj",
    "nvmlDeviceGetPowerUsage": "power_mw",
    "nvmlDeviceGetUtilizationRates": "utilization_gpu_pct",
    "nvmlDeviceGetMemoryInfo": "memory_used_bytes",
}


@pytest.mark.parametrize(("function", "value"), FUNCTIONS.items())
@pytest.mark.parametrize("how", ["missing", "3", "4", "999"])
def test_a_function_that_fails_costs_its_value_only_and_is_not_asked_forever(machine, function, value, how):
    lines = [BUSY] if how == "missing" else [BUSY, f"gpu g0 fail.{function}={how}"]
    m = machine(*lines, without=[function] if how == "missing" else [])
    source = m.source()
    for _ in range(25):
        reading = m.tick(source)
    assert getattr(reading, value) is None
    others = [getattr(reading, other) for other in FUNCTIONS.values() if other != value]
    assert None not in [reading.cycles.get(248), *others]
    if how != "999":
        assert m.calls(function) <= 1  # it never answers
    elif function != "nvmlDeviceGetMemoryInfo":
        assert m.calls(function) == 25  # it may answer the next time


def test_every_value_may_be_missing_at_once(machine):
    m = machine("gpu g0 fail.*=3")
    facts = m.source().facts()
    assert facts.devices == ()
    assert [(u.vendor, u.reason) for u in facts.uncovered] == [("NVIDIA", "NVML_ERROR_NOT_SUPPORTED")]


@pytest.mark.parametrize(("driver", "energy"), [(OLD_DRIVER, True), (ANCIENT_DRIVER, False)])
def test_functions_that_an_old_driver_lacks_cost_their_value_only(machine, driver, energy):
    m = machine("gpu g0 cc=8.0 sms=108 clock=1410 hmma=0.5 procs=1 reasons=1", without=driver)
    source = m.source()
    reading = m.tick(source)
    assert (reading.energy_mj is not None) is energy
    assert set(reading.sm_clock_mhz) == {1410.0}
    assert [p.pid for p in reading.processes] == [1]
    assert (reading.cycles, reading.percent, reading.utilization_gpu_pct) == ({}, {}, 50.0)
    assert reading.clock_event_reasons == 1  # by the name that the function had then
    assert source.facts().devices[0].sm_count == 108
    assert source.facts().devices[0].confidential is None


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("cc=9.0 sms=132", ("9.0", 132)),
        ("cc=8.0 sms=108", ("8.0", 108)),
        ("cc=8.6 sms=72", ("8.6", 72)),
        ("cc=10.3 sms=148", ("10.3", 148)),
        ("cc=13.0 sms=200", ("13.0", 0)),  # how many cores an SM has there nobody has told: not guessed
        ("cc=9.0 cores=0", ("9.0", 0)),
    ],
)
def test_the_sm_count_is_read_from_the_device_never_guessed(machine, line, expected):
    m = machine(f"gpu g0 {line} name=NVIDIA_X9000")
    (device,) = m.source().facts().devices
    assert (device.compute_capability, device.sm_count) == expected
    assert device.name == "NVIDIA X9000"


@pytest.mark.parametrize(("told", "believed"), [(1980, 1980), (0, 0), (99_999, 0), (1_000, 1_000)])
def test_the_highest_clock_is_the_drivers_or_not_known(machine, told, believed):
    (device,) = machine(f"gpu g0 max_clock={told}").source().facts().devices
    assert device.max_sm_clock_mhz == believed


def test_a_highest_clock_below_the_real_boost_does_not_refuse_blackwells_cycles(machine):
    # reference/metering.md 1.5: unreliable on some Blackwell datacenter SKUs.
    m = machine("gpu g0 name=NVIDIA_B200 cc=10.0 sms=148 max_clock=1000 clock=1965 hmma=0.5")
    source = m.source()
    meter = Meter(source.facts(), MeterSettings(), agent_version="t")
    sealed = [s for _ in range(20) for s in meter.observe(m.tick(source))]
    usage = [u for s in (*sealed, meter.flush(final=True)) for u in s.batch.usage]
    assert {u.gap_reason for u in usage} == {GapReason.NONE}
    assert sum(u.hmma_cycles for u in usage) == 19 * 148 * 1_965_000_000 // 2


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        (["gpu g0 persistence=0"], (False, False)),
        (["gpu g0 persistence=-1", "node cc=-1"], (None, None)),
        (["node cc=1"], (True, True)),
    ],
)
def test_persistence_and_confidential_computing_are_told(machine, lines, expected):
    (device,) = machine(BUSY, *lines).source().facts().devices
    assert (device.persistence, device.confidential) == expected


# ---- processes ------------------------------------------------------------------------------------------------


def test_processes_without_samples_have_no_share_and_none_is_not_unknown(machine):
    m = machine("gpu g0 procs=1:10,2:20 proc_samples=0")
    source = m.source()
    assert [p.sm_util_pct for p in m.tick(source).processes] == [None, None]
    m.say("gpu g0 procs=")
    assert m.tick(source).processes == ()
    m.say("gpu g0 fail.nvmlDeviceGetComputeRunningProcesses_v3=999")
    assert m.tick(source).processes is None


def test_processes_come_and_go_also_more_than_there_was_room_for(machine):
    m = machine("gpu g0 procs=5")
    source = m.source()
    for pids in ([5], [], [6, 7], range(100, 300), range(1000, 1200), [9]):
        m.say(f"gpu g0 procs={','.join(map(str, pids))}")
        assert [p.pid for p in m.tick(source).processes] == list(pids)


def test_a_driver_whose_v3_call_writes_longer_entries_is_asked_by_the_v2_call(machine):
    m = machine("gpu g0 stride=32 procs=11,12,13,14,15")
    source = m.source()
    assert [p.pid for p in m.tick(source).processes] == [11, 12, 13, 14, 15]
    asked = m.calls("nvmlDeviceGetComputeRunningProcesses_v3")
    assert [p.pid for p in m.tick(source).processes] == [11, 12, 13, 14, 15]
    assert m.calls("nvmlDeviceGetComputeRunningProcesses_v3") == asked


def test_shares_are_of_samples_newer_than_the_last(machine):
    m = machine("gpu g0 procs=1:10,2:20")
    source = m.source()
    assert [p.sm_util_pct for p in m.tick(source).processes] == [10.0, 20.0]
    # No new sample within 50 ms of time: nothing is known, which is not zero.
    again = [p.sm_util_pct for _ in range(3) for p in m.tick(source, ns=50_000_000).processes]
    assert None in again
    m.say("gpu g0 procs=1:250,2:30")
    assert [p.sm_util_pct for p in m.tick(source).processes] == [None, 30.0]


def test_what_changes_slowly_is_asked_seldom(machine, monkeypatch):
    asked = []
    real = os.open
    monkeypatch.setattr(os, "open", lambda path, *a: (asked.append(path), real(path, *a))[1])
    m = machine(f"gpu g0 procs={os.getpid()}")
    source = m.source()
    for _ in range(30):
        m.tick(source)
    assert m.calls("nvmlDeviceGetMemoryInfo") == 3
    assert 2 <= len([p for p in asked if str(p).endswith("/stat")]) <= 4
    assert m.calls("nvmlDeviceGetName") == 2  # at the start: for the device and for what is left out
