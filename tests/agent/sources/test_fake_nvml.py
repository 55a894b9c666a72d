"""The stand-in behaves as the driver does, seen through nvidia-ml-py's own functions, as everybody else calls them."""

import ctypes
from contextlib import ExitStack

import pynvml
import pytest
from fakenvml.driver import COMPILER, NO_COMPILER, SECOND, Machine

pytestmark = pytest.mark.skipif(COMPILER is None, reason=NO_COMPILER)


@pytest.fixture
def machine(tmp_path):
    with ExitStack() as stack:

        def start(*lines, **how):
            m = stack.enter_context(Machine(tmp_path, *lines, **how))
            pynvml.nvmlInit()
            return m, pynvml.nvmlDeviceGetHandleByIndex(0)

        yield start


def code(call, *args):
    with pytest.raises(pynvml.NVMLError) as e:
        call(*args)
    return e.value.value


def test_running_processes_are_sized_by_a_first_call(machine):
    m, gpu = machine("gpu g0 procs=5:10:1024,6:20:2048")
    count = ctypes.c_uint(1)
    call = pynvml.nvmlLib.nvmlDeviceGetComputeRunningProcesses_v3
    buffer = (ctypes.c_char * 24)()
    assert call(gpu, ctypes.byref(count), buffer) == pynvml.NVML_ERROR_INSUFFICIENT_SIZE
    assert (count.value, bytes(buffer)) == (2, bytes(24))
    found = pynvml.nvmlDeviceGetComputeRunningProcesses(gpu)
    assert [(p.pid, p.usedGpuMemory) for p in found] == [(5, 1024), (6, 2048)]
    m.say("gpu g0 procs=")
    assert pynvml.nvmlDeviceGetComputeRunningProcesses(gpu) == []


def test_a_v3_call_with_longer_entries_is_misread_by_the_binding(machine):
    _, gpu = machine("gpu g0 stride=32 procs=5,6")
    assert [p.pid for p in pynvml.nvmlDeviceGetComputeRunningProcesses(gpu)] == [5, 0]
    assert [p.pid for p in pynvml.nvmlDeviceGetComputeRunningProcesses_v2(gpu)] == [5, 6]


def test_process_utilization_has_samples_or_is_not_found(machine):
    m, gpu = machine("gpu g0 procs=5:30")
    (sample,) = pynvml.nvmlDeviceGetProcessUtilization(gpu, 0)
    assert (sample.pid, sample.smUtil) == (5, 30)
    assert abs(sample.timeStamp - m.unix_ns() // 1000) < 200_000
    again = code(pynvml.nvmlDeviceGetProcessUtilization, gpu, sample.timeStamp)
    assert again == pynvml.NVML_ERROR_NOT_FOUND


def test_clock_samples_are_those_of_the_schedule(machine):
    m, gpu = machine("gpu g0 clock=345:0.5,1980:0.5 ring_ms=100 ring_len=8")
    m.advance(SECOND)
    kind, samples = pynvml.nvmlDeviceGetSamples(gpu, pynvml.NVML_PROCESSOR_CLK_SAMPLES, 0)
    assert kind == 1
    values = [s.sampleValue.uiVal for s in samples]
    assert values == [345, 345, 1980, 1980, 1980, 1980, 1980, 345]
    last = samples[-1].timeStamp
    assert last == m.unix_ns() // 1000
    assert code(pynvml.nvmlDeviceGetSamples, gpu, 5, last) == pynvml.NVML_ERROR_NOT_FOUND


def test_energy_is_the_integral_of_power(machine):
    m, gpu = machine("gpu g0 power=100000:1,700000:1")
    m.advance(10 * SECOND + SECOND // 2)
    assert pynvml.nvmlDeviceGetTotalEnergyConsumption(gpu) == 5 * 800_000 + 50_000
    assert pynvml.nvmlDeviceGetPowerUsage(gpu) == 100_000
    m.say("gpu g0 power=500000")
    m.advance(SECOND)
    assert pynvml.nvmlDeviceGetTotalEnergyConsumption(gpu) == 5 * 800_000 + 50_000 + 500_000


@pytest.mark.parametrize(("state", "number"), [("lost", 15), ("reset", 16)])
def test_a_lost_gpu_stays_lost_until_nvml_is_started_again(machine, state, number):
    m, gpu = machine("gpu g0", "gpu g1")
    m.say(f"gpu g0 state={state}")
    assert code(pynvml.nvmlDeviceGetPowerUsage, gpu) == number
    m.say("gpu g0 state=ok")
    assert code(pynvml.nvmlDeviceGetPowerUsage, gpu) == number
    pynvml.nvmlShutdown()
    assert code(pynvml.nvmlDeviceGetPowerUsage, gpu) == pynvml.NVML_ERROR_UNINITIALIZED
    pynvml.nvmlInit()
    assert pynvml.nvmlDeviceGetPowerUsage(pynvml.nvmlDeviceGetHandleByIndex(0)) == 70_000


def test_a_renumbered_node_has_the_same_uuids_in_another_order(machine):
    m, _ = machine("gpu g0", "gpu g1")
    m.say("node order=g1")
    assert pynvml.nvmlDeviceGetCount() == 2  # not before the next start
    pynvml.nvmlShutdown()
    pynvml.nvmlInit()
    assert pynvml.nvmlDeviceGetCount() == 1
    assert pynvml.nvmlDeviceGetUUID(pynvml.nvmlDeviceGetHandleByIndex(0)) == m.uuid(1)


def test_a_function_that_the_driver_lacks_is_not_found_by_the_loader(machine):
    _, gpu = machine("gpu g0", without=["nvmlDeviceGetPowerUsage"])
    assert code(pynvml.nvmlDeviceGetPowerUsage, gpu) == pynvml.NVML_ERROR_FUNCTION_NOT_FOUND


def samples_apart(m, gpu, ns):
    older, newer = pynvml.nvmlGpmSampleAlloc(), pynvml.nvmlGpmSampleAlloc()
    pynvml.nvmlGpmSampleGet(gpu, older)
    m.advance(ns)
    pynvml.nvmlGpmSampleGet(gpu, newer)
    return older, newer


@pytest.mark.parametrize("entries", [98, 210, 333, 477])
def test_only_the_entries_asked_for_are_touched_whatever_the_bindings_array_is_long(machine, entries):
    m, gpu = machine("gpu g0 hmma=0.25")

    class Request(ctypes.Structure):
        _fields_ = (
            ("version", ctypes.c_uint),
            ("numMetrics", ctypes.c_uint),
            ("sample1", pynvml.c_nvmlGpmSample_t),
            ("sample2", pynvml.c_nvmlGpmSample_t),
            ("metrics", pynvml.c_nvmlGpmMetric_t * entries),
            ("canary", ctypes.c_char * 4096),
        )

    request = Request(version=pynvml.NVML_GPM_METRICS_GET_VERSION, numMetrics=2)
    request.sample1, request.sample2 = samples_apart(m, gpu, SECOND)
    request.metrics[0].metricId, request.metrics[1].metricId = 7, 248
    before = bytes(request)[24 + 2 * 40 :]
    pynvml.nvmlGpmMetricsGet(request)
    assert [request.metrics[i].value for i in range(2)] == [25.0, 132 * 1_980_000_000.0]
    assert bytes(request)[24 + 2 * 40 :] == before


def test_samples_closer_than_100_ms_give_invalid_values(machine):
    m, gpu = machine("gpu g0 hmma=0.25")
    request = pynvml.c_nvmlGpmMetricsGet_t(version=1, numMetrics=1)
    request.sample1, request.sample2 = samples_apart(m, gpu, SECOND // 20)
    request.metrics[0].metricId = 7
    value = pynvml.nvmlGpmMetricsGet(request).metrics[0].value
    assert value != value  # noqa: PLR0124 - NaN


def test_mig_children_have_their_own_sms_and_the_same_uuid_when_made_again(machine):
    m, gpu = machine("gpu g0", "gi g0 1 sms=32 ci=2 start=0 size=2", "gi g0 5 sms=60 start=4 size=4")
    handles = [pynvml.nvmlDeviceGetMigDeviceHandleByIndex(gpu, i) for i in range(3)]
    assert code(pynvml.nvmlDeviceGetMigDeviceHandleByIndex, gpu, 3) == pynvml.NVML_ERROR_NOT_FOUND
    assert [pynvml.nvmlDeviceGetGpuInstanceId(h) for h in handles] == [1, 1, 5]
    sms = [pynvml.nvmlDeviceGetAttributes_v2(h).multiprocessorCount for h in handles]
    assert sms == [16, 16, 60]  # of the compute instances
    info = pynvml.nvmlGpuInstanceGetInfo(pynvml.nvmlDeviceGetGpuInstanceById(gpu, 5))
    assert (info.placement.start, info.placement.size) == (4, 4)
    assert code(pynvml.nvmlDeviceGetUtilizationRates, gpu) == pynvml.NVML_ERROR_NOT_SUPPORTED
    uuid = pynvml.nvmlDeviceGetUUID(handles[2])
    m.say("gi g0 5 remove")
    assert code(pynvml.nvmlDeviceGetUUID, handles[2]) == pynvml.NVML_ERROR_NOT_FOUND
    m.say("gi g0 5 sms=16")
    assert pynvml.nvmlDeviceGetUUID(pynvml.nvmlDeviceGetMigDeviceHandleByIndex(gpu, 2)) == uuid


def test_a_gpu_instance_without_a_compute_instance_gives_no_data(machine):
    m, gpu = machine("gpu g0", "gi g0 1 sms=32 ci=0 hmma=0.5")
    request = pynvml.c_nvmlGpmMetricsGet_t(version=1, numMetrics=1)
    older, newer = pynvml.nvmlGpmSampleAlloc(), pynvml.nvmlGpmSampleAlloc()
    pynvml.nvmlGpmMigSampleGet(gpu, 1, older)
    m.advance(SECOND)
    pynvml.nvmlGpmMigSampleGet(gpu, 1, newer)
    request.sample1, request.sample2 = older, newer
    request.metrics[0].metricId = 7
    assert pynvml.nvmlGpmMetricsGet(request).metrics[0].nvmlReturn == pynvml.NVML_ERROR_NO_DATA


def test_the_same_script_at_the_same_time_gives_the_same_counters(machine, tmp_path):
    lines = ("gpu g0 hmma=0.1:0.3,0.9:0.2 clock=345:0.17,1980:0.31 power=1:0.1,900000:0.2",)
    first, gpu = machine(*lines)
    for _ in range(7):
        first.advance(SECOND // 3)
        pynvml.nvmlDeviceGetPowerUsage(gpu)
    (tmp_path / "again").mkdir()
    energy = pynvml.nvmlDeviceGetTotalEnergyConsumption(gpu)
    with Machine(tmp_path / "again", *lines) as second:
        second.advance(7 * (SECOND // 3))
        pynvml.nvmlInit()
        assert pynvml.nvmlDeviceGetTotalEnergyConsumption(pynvml.nvmlDeviceGetHandleByIndex(0)) == energy
