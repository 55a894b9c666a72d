"""The nvml source while GPUs fail, go and come, and its start."""

import json
import os
import subprocess
import sys
import textwrap
import threading
import time

import pytest
from fakenvml.driver import COMPILER, NO_COMPILER, SECOND, build
from nvml_machine import ALL_CYCLES, BUSY, GPU0, GPU1

from flopmeter.agent.errors import SourceError
from flopmeter.agent.sources import nvml_devices
from flopmeter.agent.sources.base import COUNTERS_RESTARTED
from flopmeter.agent.sources.nvml import RETRY_NS

pytestmark = pytest.mark.skipif(COMPILER is None, reason=NO_COMPILER)


# ---- GPUs that fail, go and come ---------------------------------------------------------------------------------


@pytest.mark.parametrize(("state", "error"), [("lost", "GPU_IS_LOST"), ("reset", "RESET_REQUIRED")])
def test_a_lost_gpu_is_an_error_reading_until_the_facts_are_asked_again(machine, state, error):
    m = machine(BUSY, "gpu g1 clock=1800 hmma=0.45")
    source = m.source()
    assert m.tick(source, GPU1).error is None
    m.say(f"gpu g1 state={state}")
    lost, other = m.tick(source, GPU1), m.tick(source, GPU0)
    assert (lost.error, lost.cycles, lost.energy_mj) == (f"NVML_ERROR_{error}", {}, None)
    assert other.error is None
    m.say("gpu g1 state=ok reset")
    assert m.tick(source, GPU1).error == f"NVML_ERROR_{error}"  # the handle is dead
    assert [d.entity for d in source.facts().devices] == [GPU0, GPU1]
    # What it counts now is not what it counted before: no difference may be taken across it.
    assert m.tick(source, GPU1).error == COUNTERS_RESTARTED
    back = m.tick(source, GPU1)
    assert (back.error, back.percent[5]) == (None, 45.0)
    assert m.tick(source, GPU0).error is None  # the other was never reset


def test_a_gpu_lost_for_good_is_told_as_uncovered(machine):
    m = machine(BUSY, "gpu g1")
    source = m.source()
    m.say("gpu g1 state=lost")
    m.tick(source, GPU1)
    facts = source.facts()
    assert [d.entity for d in facts.devices] == [GPU0]
    assert [(u.vendor, u.reason) for u in facts.uncovered] == [("NVIDIA", "NVML_ERROR_GPU_IS_LOST")]
    assert m.tick(source, GPU1).error == "NVML_ERROR_NOT_FOUND"
    assert m.tick(source, GPU0).error is None


def _facts_each_minute(m, source, minutes):
    """As the loop asks: what is listed each time, and how often NVML was started for it."""
    seen = []
    for _ in range(minutes):
        m.advance(60 * SECOND)
        devices = tuple(d.entity for d in source.facts().devices)
        seen.append((devices, m.calls("nvmlInitWithFlags")))
    return seen


@pytest.mark.parametrize("gone", ["state=lost", "state=reset", "fail.nvmlDeviceGetCudaComputeCapability=999"])
def test_a_gpu_that_is_reset_long_after_it_was_lost_is_metered_again(machine, gone):
    """Its reset changes nothing on the bus, and NVML shows it to who starts anew only."""
    m = machine(BUSY, "gpu g1 clock=1800 hmma=0.45")
    source = m.source()
    m.tick(source, GPU1)
    m.say(f"gpu g1 {gone}")
    if gone.startswith("fail"):
        m.say("gpu g0 state=lost")  # another is why NVML is started anew
        m.tick(source, GPU0)
        m.say("gpu g0 state=ok")
    else:
        m.tick(source, GPU1)
    assert GPU1 not in [d.entity for d in source.facts().devices]
    lost = _facts_each_minute(m, source, 60)
    assert {devices for devices, _ in lost} == {(GPU0,)}
    starts = [number for _, number in lost]
    assert (
        starts[0] == 3
    )  # at the next look, and then ever less often: it costs the others' percentages an interval
    assert starts[-1] - starts[0] <= 10
    m.say(f"gpu g1 {gone.partition('=')[0]}={'' if gone.startswith('fail') else 'ok reset'}")
    back = _facts_each_minute(m, source, 12)
    assert back[-1][0] == (GPU0, GPU1)
    assert source.facts().uncovered == ()
    m.tick(source, GPU1)
    assert m.tick(source, GPU1).percent[5] == 45.0
    assert back[-1][1] == _facts_each_minute(m, source, 20)[-1][1]  # and never again without a reason


def test_a_gpu_that_nvml_dropped_is_looked_for_while_its_driver_holds_it(machine):
    m = machine(BUSY, "gpu g1", "node order=g0,g1")
    for address in ("0000:10:00.0", "0000:11:00.0"):
        _show_on_bus(m, address, driver="nvidia")
    _show_on_bus(m, "0000:12:00.0", driver="vfio-pci")  # a virtual machine's: no start of NVML would show it
    source = m.source()
    assert _facts_each_minute(m, source, 10)[-1] == ((GPU0, GPU1), 1)
    m.say("gpu g1 state=lost")
    m.tick(source, GPU1)
    m.say("node order=g0")
    assert [d.entity for d in source.facts().devices] == [GPU0]
    _facts_each_minute(m, source, 3)
    m.say("node order=g0,g1")
    m.say("gpu g1 state=ok reset")
    assert _facts_each_minute(m, source, 10)[-1][0] == (GPU0, GPU1)


def test_averages_that_began_after_the_reading_before_are_not_given(machine):
    m = machine(BUSY, "gpu g1")
    source = m.source()
    assert m.tick(source, GPU0).percent
    m.advance(3 * SECOND)
    m.say("gpu g1 state=lost")
    source.read(GPU1)
    source.facts()  # NVML anew, and the samples with it: the 3 s are in no average
    reading = m.tick(source, GPU0)
    assert (reading.percent, reading.rates_mib_s) == ({}, {})
    assert set(reading.cycles) == ALL_CYCLES
    assert m.tick(source, GPU0).percent[5] == 45.0


def test_gpus_renumbered_removed_and_added_are_the_same_by_uuid(machine):
    m = machine("gpu g0 hmma=0.1", "gpu g1 hmma=0.2", "gpu g2 hmma=0.3", "node order=g0,g1")
    source = m.source()
    assert [d.entity for d in source.facts().devices] == [m.uuid(0), m.uuid(1)]
    m.say("node order=g2,g1,g0")
    _show_on_bus(m, "0000:12:00.0")  # another NVIDIA device on the bus: NVML is started anew to see it
    assert [d.entity for d in source.facts().devices] == [m.uuid(2), m.uuid(1), m.uuid(0)]
    m.advance(SECOND)
    for i in range(3):
        source.read(m.uuid(i))
    m.advance(SECOND)
    assert [source.read(m.uuid(i)).percent[7] for i in range(3)] == [10.0, 20.0, 30.0]
    m.say("node order=g2")
    _show_on_bus(m, "0000:12:00.0", hide=True)
    facts = source.facts()
    assert [d.entity for d in facts.devices] == [m.uuid(2)]
    assert m.tick(source, m.uuid(1)).error == "NVML_ERROR_NOT_FOUND"


def test_facts_do_not_start_nvml_anew_without_a_reason(machine):
    m = machine()
    source = m.source()
    for _ in range(5):
        m.tick(source)
        source.facts()
    assert m.calls("nvmlInitWithFlags") == 1


def _show_on_bus(m, address, *, vendor="10de", device="2330", kind="030200", hide=False, driver=""):
    folder = m.sysfs / "bus" / "pci" / "devices" / address
    if hide:
        for file in folder.iterdir():
            file.unlink()
        folder.rmdir()
        return
    folder.mkdir(parents=True)
    for name, value in (("vendor", vendor), ("device", device), ("class", kind)):
        (folder / name).write_text(f"0x{value}\n")
    if driver:
        (folder / "driver").symlink_to(f"../../../../bus/pci/drivers/{driver}")


def test_a_reloaded_driver_begins_new_epochs_of_all(machine):
    m = machine(BUSY, "gpu g1")
    source = m.source()
    before = m.tick(source)
    m.say("node reload")
    m.say("gpu g0 fail.*=18")  # the library in use is no longer that of the module
    assert m.tick(source).error == "NVML_ERROR_LIB_RM_VERSION_MISMATCH"
    m.say("gpu g0 fail.*=")
    m.say("node driver=596.1")
    assert source.facts().driver == "596.1"
    assert [m.tick(source, uuid).error for uuid in (GPU0, GPU1)] == [COUNTERS_RESTARTED] * 2
    after = m.tick(source)
    assert after.error is None
    assert after.energy_mj < before.energy_mj + 10 * 655_000


def test_a_driver_that_does_not_come_back_is_tried_again(machine):
    m = machine()
    source = m.source()
    m.say("gpu g0 state=lost")
    m.tick(source)
    m.say("node init=9")
    for _ in range(2):
        with pytest.raises(SourceError, match="NVML_ERROR_DRIVER_NOT_LOADED"):
            source.facts()
        assert m.tick(source).error == "NVML_ERROR_NOT_FOUND"
    m.say("node init=0")
    m.say("gpu g0 state=ok")
    assert [d.entity for d in source.facts().devices] == [GPU0]
    assert [m.tick(source).error for _ in range(2)] == [COUNTERS_RESTARTED, None]


@pytest.mark.parametrize("code", [1, 9, 18])
def test_a_driver_that_goes_while_its_gpus_are_listed_takes_none_off_the_list(machine, code):
    m = machine(BUSY, "gpu g1")
    source = m.source()
    m.say("gpu g0 state=lost")
    m.tick(source)
    m.say("gpu g0 state=ok")
    m.say(f"gpu g1 fail.nvmlDeviceGetCudaComputeCapability={code}")
    with pytest.raises(SourceError, match="cannot list the GPUs"):  # who meters keeps those it knows
        source.facts()
    m.say("gpu g1 fail.nvmlDeviceGetCudaComputeCapability=")
    assert [d.entity for d in source.facts().devices] == [GPU0, GPU1]
    assert m.tick(source, GPU1).error is None


def test_a_gpu_that_is_lost_beside_one_that_stays_lost_is_back_soon(machine):
    m = machine(BUSY, "gpu g1 state=lost", "gpu g2")
    source = m.source()
    assert _facts_each_minute(m, source, 60)[-1][0] == (GPU0, m.uuid(2))
    m.say("gpu g2 state=lost")
    m.tick(source, m.uuid(2))
    source.facts()
    m.say("gpu g2 state=ok")
    assert _facts_each_minute(m, source, 2)[-1][0] == (GPU0, m.uuid(2))


def _in_thread(call, until):
    """Start `call` in a thread and wait until it is where it hangs."""
    results = []
    thread = threading.Thread(target=lambda: results.append(call()), daemon=True)
    thread.start()
    deadline = time.monotonic() + 60
    while not until() and time.monotonic() < deadline:
        pass
    assert until()
    return thread, results


def test_a_hung_read_blocks_neither_other_gpus_nor_the_stop_and_nvml_stays_up_under_it(machine, tmp_path):
    m = machine(BUSY, "gpu g1")
    source = m.source()
    m.tick(source)
    hang = tmp_path / "hang"
    hang.touch()
    m.say(f"gpu g0 hang.nvmlGpmSampleGet={hang}")
    asked = m.calls("nvmlGpmSampleGet")
    thread, results = _in_thread(lambda: m.tick(source), lambda: m.calls("nvmlGpmSampleGet") > asked)
    assert source.read(GPU0).error == "READ_HUNG"
    m.say("gpu g1 state=lost")
    assert source.read(GPU1).error == "NVML_ERROR_GPU_IS_LOST"
    assert [d.entity for d in source.facts().devices] == [GPU0, GPU1]  # not anew while a read is inside
    assert m.calls("nvmlShutdown") == 0
    source.close()
    assert m.calls("nvmlShutdown") == 0
    hang.unlink()
    thread.join(60)
    assert results[0].error is None


def test_a_card_that_came_while_a_read_hung_is_seen_when_it_has_come_back(machine, tmp_path):
    m = machine(BUSY, "gpu g1", "node order=g0")
    source = m.source()
    hang = tmp_path / "hang"
    hang.touch()
    m.say(f"gpu g0 hang.nvmlGpmSampleGet={hang}")
    asked = m.calls("nvmlGpmSampleGet")
    thread, _ = _in_thread(lambda: m.tick(source), lambda: m.calls("nvmlGpmSampleGet") > asked)
    m.say("node order=g0,g1")
    _show_on_bus(m, "0000:11:00.0")
    facts = source.facts()
    assert [d.entity for d in facts.devices] == [GPU0]
    assert [u.pci_address for u in facts.uncovered] == ["00000000:11:00.0"]  # not metered yet, and said so
    hang.unlink()
    thread.join(60)
    facts = source.facts()
    assert [d.entity for d in facts.devices] == [GPU0, GPU1]
    assert facts.uncovered == ()


def test_a_start_that_hangs_does_not_block_reads(machine, tmp_path):
    m = machine(BUSY, "gpu g1")
    source = m.source()
    m.say("gpu g1 state=lost")
    source.read(GPU1)
    hang = tmp_path / "hang"
    hang.touch()
    m.say(f"gpu g0 hang.nvmlDeviceGetHandleByIndex_v2={hang}")
    thread, results = _in_thread(source.facts, lambda: m.calls("nvmlDeviceGetHandleByIndex_v2") == 3)
    assert source.read(GPU0).error == "READ_HUNG"
    hang.unlink()
    thread.join(60)
    assert [d.entity for d in results[0].devices] == [GPU0]
    assert m.tick(source).error is None


def test_an_unknown_entity_is_an_error_reading(machine):
    assert machine().source().read("GPU-x").error == "NVML_ERROR_NOT_FOUND"


# ---- the start ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("code", "name", "hint"),
    [
        (9, "NVML_ERROR_DRIVER_NOT_LOADED", "kernel module"),
        (4, "NVML_ERROR_NO_PERMISSION", "/dev/nvidiactl"),
        (18, "NVML_ERROR_LIB_RM_VERSION_MISMATCH", "reboot"),
        (777, "NVML_ERROR_777", "nvidia-smi"),
    ],
)
def test_nvml_that_does_not_start_is_an_error_with_a_hint(machine, code, name, hint):
    m = machine(f"node init={code}")
    with pytest.raises(SourceError, match=name) as e:
        m.source()
    assert hint in e.value.hint


LOADED = """
    import dataclasses, json, os, sys
    from flopmeter.agent.errors import SourceError
    from flopmeter.agent.loop import SystemClock
    from flopmeter.agent.sources.nvml import NvmlSource
    try:
        source = NvmlSource(SystemClock(), node="n")
    except SourceError as e:
        print(json.dumps({"error": str(e), "hint": e.hint}))
        sys.exit()
    facts = source.facts()
    reading = source.read(facts.devices[0].entity)
    source.close()
    print(json.dumps({"library": dataclasses.asdict(facts.library), "cycles": len(reading.cycles)}))
"""


def run_alone(**environment):
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(LOADED)],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_the_library_in_use_is_told_by_path_and_hash(tmp_path):
    import hashlib

    script = tmp_path / "script"
    script.write_text(f"{BUSY}\n")
    library = build()
    got = run_alone(LD_LIBRARY_PATH=str(library.parent), FAKENVML_SCRIPT=str(script))
    assert got["library"]["path"] == str(library)
    assert got["library"]["sha256"] == hashlib.sha256(library.read_bytes()).hexdigest()
    assert got["cycles"] == 11
    # Put before the driver's own: what answers is found, not what has the right name.
    spoof = build(copy=1)
    got = run_alone(LD_LIBRARY_PATH=str(library.parent), LD_PRELOAD=str(spoof), FAKENVML_SCRIPT=str(script))
    assert got["library"]["path"] == str(spoof)


def test_no_library_is_an_error_with_a_hint():
    got = run_alone(LD_LIBRARY_PATH="/nonexistent")
    assert "NVML_ERROR_LIBRARY_NOT_FOUND" in got["error"]
    assert "--source sim" in got["hint"]


@pytest.mark.parametrize("function", ["nvmlGpmSampleGet", "nvmlDeviceGetUUID"])
def test_a_gpu_that_hangs_when_nvml_starts_keeps_no_other_from_being_metered(
    machine, tmp_path, monkeypatch, function
):
    monkeypatch.setattr(nvml_devices, "FIND_S", 0.05)
    hang = tmp_path / "hang"
    hang.touch()
    m = machine(BUSY, f"gpu g1 hmma=0.5 hang.{function}={hang}")
    source = m.source()
    facts = source.facts()
    assert [d.entity for d in facts.devices] == [GPU0]
    (left,) = facts.uncovered
    assert (left.vendor, left.reason) == ("NVIDIA", "NVML_ERROR_TIMEOUT")
    assert left.model  # as far as it had told before
    m.tick(source)
    assert m.tick(source).error is None
    m.advance(RETRY_NS)
    assert [d.entity for d in source.facts().devices] == [GPU0]  # NVML stays up under the call
    assert m.tick(source).error is None
    m.say(f"gpu g1 hang.{function}=")
    hang.unlink()
    deadline = time.monotonic() + 60
    while len(source.facts().devices) < 2 and time.monotonic() < deadline:
        m.advance(RETRY_NS)
    assert [d.entity for d in source.facts().devices] == [GPU0, GPU1]
    assert source.facts().uncovered == ()
    source.close()
