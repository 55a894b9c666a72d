"""doctor through the real binding, on the stand-in driver: what an admin reads on such a node."""

import os
from contextlib import ExitStack

import pytest
from fakenvml.driver import COMPILER, NO_COMPILER, OLD_DRIVER, SECOND, Machine

from flopmeter.agent.sources.dcgm import DcgmSource
from flopmeter.agent.tools.doctor import examine, to_json, to_lines
from flopmeter.agent.tools.live import LiveRounds

pytestmark = pytest.mark.skipif(COMPILER is None, reason=NO_COMPILER)

HOPPER = "gpu g0 clock=1800 hmma=0.45 power=600000"
AMPERE = "gpu g0 name=NVIDIA_A100-SXM4-80GB cc=8.0 sms=108 max_clock=1410 gpm=0 clock=1410 util=90"


@pytest.fixture
def machine(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "readlink", {"/proc/self/ns/pid": "pid:[4026531836]"}.__getitem__)
    with ExitStack() as stack:
        yield lambda *lines, **how: stack.enter_context(Machine(tmp_path, *lines, **how))


def doctor(m, source=None):
    rounds = LiveRounds(source or m.source(), m, SECOND)
    try:
        diagnosis = examine(rounds, here=True)
    finally:
        rounds.close()
    return diagnosis, to_json(diagnosis)


def classes(found) -> list[str | None]:
    return [d["evidence_class"] for d in found["devices"]]


def whys(found) -> str:
    """All that is said, but of the library: the stand-in lies in no folder that a driver is installed in."""
    said = [f for d in found["devices"] for f in d["findings"]] + found["findings"]
    return "\n".join(f["why"] for f in said if not f["why"].startswith("library-path: "))


def test_a_hopper_node_with_a_new_driver_has_nothing_to_mend(machine):
    diagnosis, found = doctor(machine(HOPPER))
    assert classes(found) == ["A1"]
    assert whys(found) == ""
    # But for the library itself: not where a driver puts it, and that is said.
    assert [f["why"].partition(":")[0] for f in found["findings"]] == ["library-path"]
    assert found["library"]["path"].endswith("libnvidia-ml.so.1")
    assert diagnosis.exit_code == 1


def test_an_older_driver_means_a2_and_says_which_one_is_better(machine):
    diagnosis, found = doctor(machine("node driver=570.86.15", f"{HOPPER} cycles=0"))
    assert classes(found) == ["A2"]
    assert whys(found).startswith("no since-boot cycle counters")
    assert "R595" in "\n".join(to_lines(diagnosis))


def test_persistence_off(machine):
    _, found = doctor(machine(f"{HOPPER} persistence=0"))
    assert "persistence mode is off" in whys(found)


def test_confidential_mode_with_gpm_off_is_an_upper_bound(machine):
    diagnosis, found = doctor(machine("node cc=1", f"{HOPPER} gpm=0 util=90"))
    assert classes(found) == ["C"]
    assert "confidential-computing mode is on" in whys(found)
    assert diagnosis.exit_code == 1


@pytest.mark.parametrize(
    ("lines", "why", "change"),
    [
        ((f"{HOPPER} util=90 fail.nvmlGpmSampleGet=4",), "refuses this user its GPM counters", "as root"),
        ((f"{HOPPER} util=90 fail.nvmlGpmQueryDeviceSupport=4",), "NVML_ERROR_NO_PERMISSION", "as root"),
        ((f"{HOPPER} util=90 gpm=0",), "no GPM metrics here", "GPM is off on vGPU"),
        ((f"{HOPPER} cores=0",), "does not tell its cores", "update the driver"),
        (
            (HOPPER, "gi g0 1 sms=60 start=0 size=4 ci=0"),
            "MIG mode is on, and no GPU instance",
            "nvidia-smi mig -cgi",
        ),
    ],
)
def test_why_the_driver_tells_no_more(machine, lines, why, change):
    _, found = doctor(machine(*lines))
    ((said,),) = [d["findings"] for d in found["devices"]]
    assert why in said["why"]
    assert change in said["change"]


def test_a_driver_older_than_gpm(machine):
    _, found = doctor(machine("node driver=470.82", f"{HOPPER} util=90", without=OLD_DRIVER))
    ((said,),) = [d["findings"] for d in found["devices"]]
    assert said == {
        "why": "driver 470.82 is too old for GPM metrics",
        "change": "update the driver: R595 or later has cycle counters",
    }


@pytest.mark.parametrize(("state", "change"), [("lost", "reset or a reboot"), ("reset", "reset or a reboot")])
def test_a_gpu_that_was_lost_before_anybody_looked(machine, state, change):
    diagnosis, found = doctor(machine(HOPPER, f"gpu g1 state={state}"))
    (card,) = found["uncovered"]
    assert change in card["change"]
    assert diagnosis.exit_code == 1


def test_an_unknown_model_is_metered_in_cycles(machine):
    _, found = doctor(machine("gpu g0 name=NVIDIA_R900 cc=10.1 sms=200 clock=1800 hmma=0.5"))
    assert "no W table for NVIDIA R900" in whys(found)
    assert found["metered"] == 1
    _, found = doctor(machine("gpu g0 name=NVIDIA_R900 cc=13.0 sms=200 clock=1800 hmma=0.5"))
    assert "the SM count of NVIDIA R900" in whys(
        found
    )  # cores per SM of capability 13.0: not known, not guessed


def test_a_vgpu_is_not_covered_and_nothing_can_be_metered(machine):
    diagnosis, found = doctor(machine(HOPPER, "gpu g1 name=GRID_A100-10C virt=2 gpm=0"))
    assert classes(found) == ["A1"]
    (card,) = found["uncovered"]
    assert "vGPU" in card["reason"]
    assert diagnosis.exit_code == 1


def test_a_lost_gpu_beside_a_good_one(machine):
    m = machine(HOPPER, "gpu g1 clock=1800 hmma=0.45")
    source = m.source()
    m.say("gpu g1 state=lost")
    diagnosis, found = doctor(m, source)
    assert diagnosis.exit_code == 1
    assert "NVML_ERROR_GPU_IS_LOST" in whys(found)


def test_before_hopper_an_exporter_is_advised_and_with_it_nvml_tells_the_device(machine):
    m = machine("node driver=580.1", AMPERE, without=OLD_DRIVER)
    diagnosis, found = doctor(m)
    assert classes(found) == ["C"]
    assert "NVML has no pipe counters before Hopper" in whys(found)
    assert diagnosis.exit_code == 1

    labels = f'gpu="0",UUID="{Machine.uuid(0)}",modelName="NVIDIA A100-SXM4-80GB"'
    rows = (
        "TENSOR_ACTIVE",
        "TENSOR_HMMA_ACTIVE",
        "TENSOR_IMMA_ACTIVE",
        "FP64_ACTIVE",
        "FP32_ACTIVE",
        "FP16_ACTIVE",
    )
    page = "".join(f"DCGM_FI_PROF_PIPE_{row}{{{labels}}} 0.25\n" for row in rows)
    page += "".join(f"DCGM_FI_PROF_{row}{{{labels}}} 0.5\n" for row in ("SM_ACTIVE", "DRAM_ACTIVE"))
    source = DcgmSource("http://x", m, lambda *_: page.encode(), node="n", beside=m.source())
    diagnosis, found = doctor(m, source)
    assert classes(found) == ["B1"]
    assert whys(found) == ""
    (device,) = found["devices"]
    assert device["sm_count"] == 108  # from the device, by NVML
    assert found["driver"] == "580.1"
