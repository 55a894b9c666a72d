"""MIG through the nvml source: GPU instances as entities, made anew and shared; and vGPU, which is refused."""

from contextlib import ExitStack

import pytest
from fakenvml.driver import COMPILER, NO_COMPILER, SECOND, Machine
from processes import wait_for

from flopmeter.agent.reader import Reader
from flopmeter.agent.sources.base import COUNTERS_RESTARTED

pytestmark = pytest.mark.skipif(COMPILER is None, reason=NO_COMPILER)

GPU0, GPU1 = Machine.uuid(0), Machine.uuid(1)
ONE, FIVE = Machine.mig_uuid(1, 1), Machine.mig_uuid(1, 5)
CUT = (
    "gpu g0 clock=1800 hmma=0.45",
    "gpu g1 clock=1800 power=655000",
    "gi g1 1 sms=32 ci=2 start=0 size=2 hmma=0.9 procs=1 memory_used=5000000000",
    "gi g1 5 sms=60 ci=1 start=4 size=4 hmma=0.2 procs=1",
)


@pytest.fixture
def machine(tmp_path):
    with ExitStack() as stack:
        yield lambda *lines, **how: stack.enter_context(Machine(tmp_path, *lines, **how))


def read_all(m, source, ns=SECOND):
    m.advance(ns)
    return {d.entity: source.read(d.entity) for d in source.facts().devices}


def test_gpu_instances_are_entities_of_their_own(machine):
    m = machine(*CUT)
    source = m.source()
    devices = {d.entity: d for d in source.facts().devices}
    assert list(devices) == [GPU0, GPU1, ONE, FIVE]
    # Two compute instances of 16 SMs share GPU instance 1, its sample and its counters: counted once.
    assert [(d.gpu_instance, d.sm_count, d.parent, d.mig, d.pci_address, d.persistence) for d in
            (devices[ONE], devices[FIVE])] == [
        (1, 32, GPU1, True, "00000000:11:00.0", True), (5, 60, GPU1, True, "00000000:11:00.0", True),
    ]  # fmt: skip
    first, second = read_all(m, source), read_all(m, source)
    for entity, sms, share in ((ONE, 32, 0.9), (FIVE, 60, 0.2)):
        a, b = first[entity], second[entity]
        assert b.cycles[248] - a.cycles[248] == sms * 1_800_000_000
        assert b.cycles[252] - a.cycles[252] == sms * round(1_800_000_000 * share)
        assert b.percent[7] == 100 * share
        assert (b.energy_mj, b.power_mw, b.utilization_gpu_pct, b.clock_event_reasons) == (None,) * 4
        assert set(b.sm_clock_mhz) == {1800.0}  # the GPU's
        assert [p.pid for p in b.processes] == [1]
    assert second[ONE].memory_used_bytes == 5_000_000_000
    # The GPU keeps what exists once: energy and power, no pipes, no processes.
    whole = second[GPU1]
    assert whole.energy_mj - first[GPU1].energy_mj == 655_000
    assert (whole.cycles, whole.percent, whole.processes, whole.utilization_gpu_pct) == ({}, {}, None, None)


@pytest.mark.parametrize(
    ("again", "noticed"),
    [
        ("sms=60 ci=1 start=4 size=4 hmma=0.2", False),  # the same shape: seen by its counters alone
        ("sms=16 ci=1 start=4 size=1 hmma=0.2", True),
        ("sms=60 ci=1 start=0 size=4 hmma=0.2", True),
        ("sms=60 ci=2 start=4 size=4 hmma=0.2", True),
    ],
)
def test_an_instance_made_anew_under_the_same_uuid_begins_a_new_epoch(machine, again, noticed):
    m = machine(*CUT)
    source = m.source()
    read_all(m, source)
    m.say("gi g1 5 remove")
    m.say(f"gi g1 5 {again}")
    m.say("gi g1 5 add.248=1e15")  # whatever it counts from, no difference is taken across it
    m.advance(11 * SECOND)
    if not noticed:
        assert source.read(FIVE).error is None
        return
    assert source.read(FIVE).error == COUNTERS_RESTARTED
    assert m.tick(source, FIVE).error == COUNTERS_RESTARTED  # until its device is told
    device = {d.entity: d for d in source.facts().devices}[FIVE]
    assert device.sm_count == (16 if "sms=16" in again else 60)
    assert m.tick(source, FIVE).error == COUNTERS_RESTARTED
    good = m.tick(source, FIVE)
    assert (good.error, good.percent[7]) == (None, 20.0)
    assert m.tick(source, ONE).error is None  # the others go on


def test_without_leave_to_ask_for_the_placement_the_sm_count_tells(machine):
    m = machine(*CUT, "gpu g1 fail.nvmlDeviceGetGpuInstanceById=4")
    source = m.source()
    assert [d.entity for d in source.facts().devices] == [GPU0, GPU1, ONE, FIVE]
    assert m.tick(source, FIVE).error is None
    m.say("gi g1 5 remove")
    m.say("gi g1 5 sms=16 start=4 size=1")
    assert m.tick(source, FIVE, ns=11 * SECOND).error == COUNTERS_RESTARTED


def test_an_instance_that_is_destroyed_is_not_found_and_a_new_one_is_listed(machine):
    m = machine(*CUT)
    source = m.source()
    read_all(m, source)
    m.say("gi g1 5 remove")
    assert m.tick(source, FIVE).error == "NVML_ERROR_NOT_FOUND"
    assert m.tick(source, ONE).error is None
    assert [d.entity for d in source.facts().devices] == [GPU0, GPU1, ONE]
    m.say("gi g1 7 sms=16 hmma=0.3")
    seven = m.mig_uuid(1, 7)
    assert [d.entity for d in source.facts().devices] == [GPU0, GPU1, ONE, seven]
    m.tick(source, seven)
    assert m.tick(source, seven).percent[7] == pytest.approx(30.0)


def test_an_instance_without_a_compute_instance_is_no_entity_and_not_idle(machine):
    m = machine(*CUT, "gi g1 9 sms=16 ci=0")
    source = m.source()
    assert [d.entity for d in source.facts().devices] == [GPU0, GPU1, ONE, FIVE]
    read_all(m, source)
    m.say("gi g1 5 ci=0")  # nothing can run in it now, and GPM has no data of it
    reading = m.tick(source, FIVE)
    assert (reading.cycles, reading.percent, reading.processes) == ({}, {}, None)
    assert m.tick(source, FIVE).error == "NVML_ERROR_NOT_FOUND"
    assert [d.entity for d in source.facts().devices] == [GPU0, GPU1, ONE]
    m.say("gi g1 5 ci=1")
    assert [d.entity for d in source.facts().devices] == [GPU0, GPU1, ONE, FIVE]
    m.tick(source, FIVE)
    assert m.tick(source, FIVE).percent[7] == 20.0


def test_a_compute_instance_that_goes_changes_the_instances_sms(machine):
    m = machine(*CUT)
    source = m.source()
    read_all(m, source)
    m.say("gi g1 1 ci=1 sms=16")
    assert {d.entity: d.sm_count for d in source.facts().devices}[ONE] == 16
    assert m.tick(source, ONE).error == COUNTERS_RESTARTED
    assert m.tick(source, ONE).error is None


def test_a_gpu_that_is_cut_later_is_metered_in_its_instances(machine):
    m = machine("gpu g0 hmma=0.5", "gpu g1 hmma=0.5")
    source = m.source()
    assert read_all(m, source)[GPU1].cycles
    m.say("gi g1 1 sms=32 hmma=0.5")
    source.facts()  # notices
    devices = {d.entity: d for d in source.facts().devices}  # and starts NVML anew: the GPU is another device
    assert list(devices) == [GPU0, GPU1, ONE]
    m.advance(SECOND)
    source.read(GPU1)
    whole, one = m.tick(source, GPU1), m.tick(source, ONE)
    assert (whole.cycles, whole.percent) == ({}, {})
    assert one.cycles


def test_a_mig_gpu_without_instances_has_energy_only(machine):
    m = machine("gpu g0 mig=1 power=90000")
    source = m.source()
    (device,) = source.facts().devices
    reading = m.tick(source)
    assert device.sm_count == 0
    assert (reading.error, reading.cycles, reading.percent, reading.power_mw) == (None, {}, {}, 90_000)


def test_a_gpu_of_seven_instances_and_seventy_two_entities_are_read(machine):
    lines = [f"gpu g{i} hmma=0.5 sms=132" for i in range(9)]
    lines += [f"gi g{g} {i} sms=16 hmma=0.{i}" for g in range(9) for i in range(1, 8)]
    m = machine(*lines)
    source = m.source()
    devices = source.facts().devices
    assert len(devices) == 72
    assert all(r.error is None for r in read_all(m, source).values())
    readings = read_all(m, source)
    for g in range(9):
        for i in range(1, 8):
            assert readings[m.mig_uuid(g, i)].percent[7] == pytest.approx(10 * i)


# ---- vGPU -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("lines", "metered"),
    [
        ("virt=2 name=NVIDIA_H100-20C", False),  # a share of a GPU: its counters are not its own
        ("virt=2 name=NVIDIA_H100-20C gpm=0", False),
        ("virt=2 name=GRID_A100X-4C cc=8.0", False),
        ("virt=2 name=NVIDIA_H100XM-7-80C", True),  # MIG-backed
        ("virt=2 name=NVIDIA_A100-7-40C cc=8.0 gpm=0", False),  # the driver says that it cannot
        ("virt=1", True),  # passed through whole
        ("virt=3", True),  # the host of vGPUs
        ("virt=4", True),
        ("fail.nvmlDeviceGetVirtualizationMode=3", True),
    ],
)
def test_vgpu_guests_are_refused_by_name_of_the_reason(machine, lines, metered):
    m = machine(f"gpu g0 {lines} hmma=0.5", "gpu g1")
    source = m.source()
    facts = source.facts()
    assert [d.entity for d in facts.devices] == ([GPU0] if metered else []) + [GPU1]
    if not metered:
        (left,) = facts.uncovered
        assert (left.pci_address, left.vendor) == ("00000000:10:00.0", "NVIDIA")
        assert "vGPU guest" in left.reason
        assert m.tick(source).error == "NVML_ERROR_NOT_FOUND"  # never a reading with wrong values


def test_a_gpu_whose_facts_cannot_be_read_is_uncovered_with_nvmls_error(machine):
    m = machine("gpu g0 fail.nvmlDeviceGetCudaComputeCapability=17", "gpu g1", "gpu g2 uuid=not_a_uuid")
    facts = m.source().facts()
    assert [d.entity for d in facts.devices] == [GPU1]
    assert (facts.uncovered[0].pci_address, facts.uncovered[0].model, facts.uncovered[0].reason) == (
        "00000000:10:00.0", "NVIDIA H100 80GB HBM3", "NVML_ERROR_OPERATING_SYSTEM",
    )  # fmt: skip
    assert "not_a_uuid" in facts.uncovered[1].reason


def _show(m, address, ids, kind, driver=""):
    vendor, _, device = ids.partition(":")
    folder = m.sysfs / "bus" / "pci" / "devices" / address
    folder.mkdir(parents=True)
    for name, value in (("vendor", vendor), ("device", device), ("class", kind)):
        (folder / name).write_text(f"0x{value}\n")
    if driver:
        (folder / "driver").symlink_to(f"../../../../bus/pci/drivers/{driver}")


def test_what_the_bus_shows_and_nvml_lacks_is_uncovered(machine):
    m = machine("gpu g0", "gpu g1 state=lost")
    _show(m, "0000:10:00.0", "10de:2330", "030200", "nvidia")  # g0
    _show(m, "0000:11:00.0", "10de:2330", "030200", "nvidia")  # g1, which has no address in NVML any more
    _show(m, "0000:12:00.0", "10de:2330", "030200", "vfio-pci")
    _show(m, "0000:21:00.0", "1002:74a1", "120000", "amdgpu")
    _show(m, "0000:02:00.0", "1a03:2000", "030000", "ast")  # the board's management controller
    source = m.source()
    found = {u.pci_address: u for u in source.facts().uncovered}
    assert set(found) == {"00000000:11:00.0", "00000000:12:00.0", "00000000:21:00.0"}
    assert found["00000000:11:00.0"].reason == "NVML_ERROR_GPU_IS_LOST"
    assert "vfio-pci" in found["00000000:12:00.0"].reason
    amd = found["00000000:21:00.0"]
    assert (amd.vendor, amd.model) == ("AMD", "1002:74a1")
    _show(m, "0000:22:00.0", "8086:0bd5", "038000", "i915")  # plugged in later
    assert {u.vendor for u in source.facts().uncovered} == {"NVIDIA", "AMD", "Intel"}
    assert m.calls("nvmlInitWithFlags") == 1


def test_a_mig_check_between_readings_is_seldom(machine):
    m = machine(*CUT)
    source = m.source()
    asked = m.calls("nvmlDeviceGetMigDeviceHandleByIndex")
    for _ in range(40):
        m.advance(SECOND)
        for entity in (GPU0, GPU1, ONE, FIVE):
            source.read(entity)
    per_check = 7
    assert m.calls("nvmlDeviceGetMigDeviceHandleByIndex") - asked == 4 * per_check


def test_a_gpu_that_hangs_while_instances_are_looked_at_costs_no_instance_of_another(machine, tmp_path):
    m = machine(*CUT, "gi g0 1 sms=32 hmma=0.5")
    source = m.source()
    reader = Reader(source, m, deadline_s=0.2)
    others = [GPU1, ONE, FIVE]
    reader.read([GPU0, Machine.mig_uuid(0, 1), *others])
    hang = tmp_path / "hang"
    hang.touch()
    m.say(f"gpu g0 hang.*={hang}")
    for _ in range(35):  # three looks
        m.advance(SECOND)
        readings = reader.read([GPU0, Machine.mig_uuid(0, 1), *others])
        assert [r.error for r in readings] == ["NVML_ERROR_TIMEOUT", "READ_HUNG", None, None, None]
    m.say("gi g1 5 remove")
    m.say("gi g1 5 sms=16 start=4 size=1 hmma=0.2")
    assert {d.entity: d.sm_count for d in reader.facts().devices}[
        FIVE
    ] == 16  # though another's look would hang
    m.advance(SECOND)
    reader.read(others)
    m.advance(SECOND)
    assert [r.error for r in reader.read(others)] == [None] * 3
    hang.unlink()
    m.say("gpu g0 hang.*=")
    wait_for("the hung call has come back", lambda: not reader.stuck)
    reader.close()
