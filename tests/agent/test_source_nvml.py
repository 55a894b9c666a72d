"""The nvml source through the real nvidia-ml-py, over a stand-in for the driver's library (tests/fakenvml).

Each case runs in a process of its own, because the library is found when NVML is first loaded.
"""

import json
import os
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

GPU0 = "GPU-fa4e0000-0000-0000-0000-000000000000"
GPU1 = "GPU-fa4e0000-0000-0000-0000-000000000001"
FAKE = Path(__file__).parents[1] / "fakenvml" / "fakenvml.c"
COMPILER = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")

PRELUDE = """
import dataclasses, json, os, sys, threading
sys.path.insert(0, os.environ["TESTS"])
from fakes import FakeClock
from flopmeter.agent.errors import SourceError
from flopmeter.agent.sources.nvml import NvmlSource
S = 1_000_000_000
GPU0, GPU1 = "GPU-fa4e0000-0000-0000-0000-000000000000", "GPU-fa4e0000-0000-0000-0000-000000000001"
clock = FakeClock()
def show(**values):
    print(json.dumps(values, default=lambda v: v.hex() if isinstance(v, bytes) else dataclasses.asdict(v)))
def tick(source, entity=GPU0):
    clock.advance(S)
    return source.read(entity)
"""


@pytest.fixture(scope="session")
def libraries(tmp_path_factory) -> dict[str, Path]:
    if COMPILER is None:
        pytest.skip("no C compiler here (cc, gcc or clang) to build the stand-in for libnvidia-ml.so.1")
    found = {}
    for name, flags in (("new", []), ("old", ["-DOLD_DRIVER"])):
        folder = tmp_path_factory.mktemp(f"nvml-{name}")
        library = folder / "libnvidia-ml.so.1"
        command = [COMPILER, "-shared", "-fPIC", "-O1", "-Wall", *flags, str(FAKE), "-lm", "-o", str(library)]
        subprocess.run(command, check=True)
        found[name] = folder
    return found


@pytest.fixture
def play(libraries):
    def run(script: str, library: str = "new", **env: str) -> dict:
        environment = {
            **os.environ,
            "LD_LIBRARY_PATH": str(libraries[library]) if library in libraries else "/nonexistent",
            "TESTS": str(Path(__file__).parents[1]),
            **{f"FAKENVML_{k.upper()}": v for k, v in env.items()},
        }
        done = subprocess.run(
            [sys.executable, "-c", PRELUDE + textwrap.dedent(script)],
            env=environment,
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    return run


READ_TWICE = """
source = NvmlSource(clock, node="n")
first, second = tick(source), tick(source)
show(facts=source.facts(), first=first, second=second)
source.close()
"""


def test_a_hopper_on_a_new_driver_gives_everything(play):
    got = play(READ_TWICE, pids=f"{os.getpid()},1")
    facts, first, second = got["facts"], got["first"], got["second"]
    assert (facts["node"], facts["driver"], facts["nvml"], facts["source"]) == (
        "n",
        "595.58.03",
        "13.595.58",
        "nvml",
    )
    assert facts["boot_id"] == Path("/proc/sys/kernel/random/boot_id").read_text().strip().replace("-", "")
    gpu, other = facts["devices"]
    assert gpu == {
        "entity": GPU0, "name": "NVIDIA H100 80GB HBM3", "compute_capability": "9.0", "sm_count": 132,
        "max_sm_clock_mhz": 1980, "serial": "1650000000", "mig": False, "parent": "", "gpu_instance": -1,
        "pci_address": "", "persistence": None, "confidential": None,
    }  # fmt: skip
    assert (other["entity"], other["serial"]) == (GPU1, "")
    assert second["error"] is None
    delta = {i: second["cycles"][i] - first["cycles"][i] for i in second["cycles"]}
    assert delta["248"] == 1_800_000_000 * 132
    assert delta["252"] == pytest.approx(0.45 * delta["248"], abs=1)
    assert delta["259"] == 0
    assert set(delta) == {"248", "249", "250", "251", "252", "253", "254", "257", "258", "259", "260"}
    assert second["percent"]["5"] == 45.0
    assert "8" not in second["percent"]  # the driver said NOT_SUPPORTED, and left a value behind
    assert first["sm_clock_mhz"] == [1802.0]  # of a buffer from before the start, only the newest
    assert second["sm_clock_mhz"] == [1800.0, 1801.0, 1802.0]
    assert second["energy_mj"] - first["energy_mj"] == 655_000
    assert (second["power_mw"], second["utilization_gpu_pct"]) == (655_000, 97.0)
    assert second["memory_used_bytes"] == 70 << 30
    one, mine = second["processes"]
    assert (one["pid"], mine["pid"]) == (1, os.getpid())
    assert mine["start_ticks"] == int(Path("/proc/self/stat").read_text().rpartition(")")[2].split()[19])
    assert (mine["sm_util_pct"], one["sm_util_pct"]) == (30.0, 40.0)
    assert second["workload"] is None
    assert second["t_boot_ns"] - first["t_boot_ns"] == 1_000_000_000
    assert second["t_unix_ns"] - first["t_unix_ns"] == 1_000_000_000


def test_the_first_reading_waits_until_two_samples_are_far_enough_apart(play):
    got = play("""
        source = NvmlSource(clock)
        start = clock.boot_ns()
        show(reading=source.read(GPU0), waited=clock.boot_ns() - start)
    """)
    assert got["waited"] >= 100_000_000
    assert got["reading"]["cycles"]["248"] > 0


def test_a_driver_before_r595_gives_percentages(play):
    second = play(READ_TWICE, no_cycles="1")["second"]
    assert second["cycles"] == {}
    assert second["percent"]["7"] == 45.0


def test_a_driver_that_refuses_lists_with_unknown_ids_is_asked_id_by_id(play):
    got = play(READ_TWICE, strict="1")
    for reading in (got["first"], got["second"]):
        assert reading["cycles"] == {}
        assert (reading["percent"]["5"], reading["percent"]["12"]) == (45.0, 5.5)


def test_values_that_fail_alone_are_not_read(play):
    second = play(READ_TWICE, nan="1")["second"]
    assert not {"5", "7"} & set(second["percent"])
    assert "252" not in second["cycles"]
    assert second["cycles"]["248"] > 0
    assert second["error"] is None


def test_an_ampere_has_no_gpm(play):
    second = play(READ_TWICE, no_gpm="1")["second"]
    assert (second["cycles"], second["percent"], second["error"]) == ({}, {}, None)
    assert (second["utilization_gpu_pct"], second["sm_clock_mhz"]) == (97.0, [1800.0, 1801.0, 1802.0])


def test_functions_that_an_old_driver_lacks_cost_their_value_only(play):
    second = play(READ_TWICE, library="old", pids="1")["second"]
    assert second["energy_mj"] is None
    assert second["sm_clock_mhz"] == [1777.0]
    assert [p["pid"] for p in second["processes"]] == [1]
    assert second["cycles"]["248"] > 0


def test_processes_without_samples_have_no_share_and_none_is_not_unknown(play):
    second = play(READ_TWICE, pids="1,2", idle_pids="1")["second"]
    assert [p["sm_util_pct"] for p in second["processes"]] == [None, None]
    assert play(READ_TWICE)["second"]["processes"] == []


def test_mig_gpu_instances_are_entities_of_their_own(play):
    got = play("""
        source = NvmlSource(clock)
        devices = source.facts().devices
        for d in devices: source.read(d.entity)
        clock.advance(S)
        show(devices=devices, readings={d.entity: source.read(d.entity) for d in devices})
    """, mig="1", pids="1")  # fmt: skip
    whole, parent, one, five = got["devices"]
    assert (whole["entity"], parent["entity"], parent["mig"]) == (GPU0, GPU1, False)
    # Two compute instances of 16 SMs share GPU instance 1 and its counters.
    assert [(d["gpu_instance"], d["sm_count"], d["parent"], d["mig"]) for d in (one, five)] == [
        (1, 32, GPU1, True),
        (5, 60, GPU1, True),
    ]
    readings = got["readings"]
    assert readings[one["entity"]]["cycles"]["248"] % (32 * 1_800_000_000) == 0
    assert readings[five["entity"]]["cycles"]["248"] % (60 * 1_800_000_000) == 0
    for d in (one, five):
        reading = readings[d["entity"]]
        assert (reading["energy_mj"], reading["power_mw"], reading["utilization_gpu_pct"]) == (
            None,
            None,
            None,
        )
        assert reading["memory_used_bytes"] == 5 << 30
        assert reading["sm_clock_mhz"]
        assert [p["pid"] for p in reading["processes"]] == [1]
    # The GPU keeps what exists once: energy and power, no pipes, no processes.
    assert readings[GPU1]["energy_mj"] > 0
    assert (readings[GPU1]["cycles"], readings[GPU1]["percent"], readings[GPU1]["processes"]) == (
        {},
        {},
        None,
    )


def test_a_lost_gpu_is_an_error_reading_until_the_facts_are_asked_again(play):
    got = play("""
        source = NvmlSource(clock)
        before = tick(source, GPU1)
        os.environ["FAKENVML_LOST"] = "1"
        lost, other = tick(source, GPU1), tick(source, GPU0)
        del os.environ["FAKENVML_LOST"]
        still = tick(source, GPU1)
        devices = [d.entity for d in source.facts().devices]
        back = tick(source, GPU1)
        show(before=before, lost=lost, other=other, still=still, back=back, devices=devices)
    """)
    assert got["before"]["error"] is None
    assert got["lost"]["error"] == got["still"]["error"] == "NVML_ERROR_GPU_IS_LOST"
    assert (got["lost"]["cycles"], got["lost"]["energy_mj"]) == ({}, None)
    assert got["other"]["error"] is None
    assert got["devices"] == [GPU0, GPU1]
    assert (got["back"]["error"], got["back"]["percent"]["5"]) == (None, 45.0)


def test_a_gpu_lost_for_good_is_left_out_of_the_facts(play):
    got = play("""
        source = NvmlSource(clock)
        os.environ["FAKENVML_LOST"] = "1"
        tick(source, GPU1)
        show(devices=[d.entity for d in source.facts().devices], after=tick(source, GPU1), other=tick(source))
    """)
    assert got["devices"] == [GPU0]
    assert got["after"]["error"] == "NVML_ERROR_NOT_FOUND"
    assert got["other"]["error"] is None


def test_a_hung_read_blocks_neither_other_gpus_nor_the_stop_and_nvml_stays_up_under_it(play, tmp_path):
    hang = tmp_path / "hang"
    got = play(f"""
        source = NvmlSource(clock)
        tick(source)
        open({str(hang)!r}, "w").close()
        os.environ["FAKENVML_HANG_FILE"] = {str(hang)!r}
        results = []
        thread = threading.Thread(target=lambda: results.append(tick(source)))
        thread.start()
        while source._reading == 0: pass
        again = source.read(GPU0)
        os.environ["FAKENVML_LOST"] = "1"
        other = source.read(GPU1)
        devices = [d.entity for d in source.facts().devices]
        source.close()
        os.remove({str(hang)!r})
        thread.join()
        show(again=again, other=other, devices=devices, hung=results[0])
    """)
    assert got["again"]["error"] == "READ_HUNG"
    assert got["other"]["error"] == "NVML_ERROR_GPU_IS_LOST"
    assert got["devices"] == [GPU0, GPU1]  # not started anew while a read is inside
    assert got["hung"]["error"] is None


def test_an_unknown_entity_is_an_error_reading(play):
    assert play("show(r=NvmlSource(clock).read('GPU-x'))")["r"]["error"] == "NVML_ERROR_NOT_FOUND"


REFUSED = """
try:
    NvmlSource(clock)
except SourceError as e:
    show(error=str(e), hint=e.hint)
"""


@pytest.mark.parametrize(
    ("library", "code", "name", "hint"),
    [
        ("none", "0", "NVML_ERROR_LIBRARY_NOT_FOUND", "--source sim"),
        ("new", "9", "NVML_ERROR_DRIVER_NOT_LOADED", "kernel module"),
        ("new", "4", "NVML_ERROR_NO_PERMISSION", "/dev/nvidiactl"),
        ("new", "18", "NVML_ERROR_LIB_RM_VERSION_MISMATCH", "reboot"),
        ("new", "777", "NVML_ERROR_777", "nvidia-smi"),
    ],
)
def test_nvml_that_does_not_start_is_an_error_with_a_hint(play, library, code, name, hint):
    got = play(REFUSED, library=library, init=code)
    assert name in got["error"]
    assert hint in got["hint"]
