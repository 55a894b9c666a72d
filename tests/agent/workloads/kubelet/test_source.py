"""The source whole: what is listed becomes allocations; its thread, its start, its settings."""

import logging
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from random import Random

import pytest
from fake_api_server import FakeApiServer
from fake_kubelet import FakeKubelet, container, gpu_pod, pod
from kubelet_rig import FACTS, G0, G1, U1, U2, Rig, S

from fakes import FakeClock
from flopmeter.agent.errors import KubernetesError, NotGrantedError
from flopmeter.agent.reading import NodeFacts
from flopmeter.agent.settings import AgentSettings
from flopmeter.agent.workloads.allocations import AllocationSource
from flopmeter.agent.workloads.kubelet import open as opening
from flopmeter.agent.workloads.kubelet import source as module
from flopmeter.agent.workloads.kubelet.api import Server
from flopmeter.agent.workloads.kubelet.client import KubeletClient
from flopmeter.agent.workloads.kubelet.source import KubeletSource
from flopmeter.contract.usage import Uncovered, Workload, WorkloadKind


def test_what_is_listed_is_who_holds_it(rig: Rig) -> None:
    source: AllocationSource = rig.source
    assert source.latest() is None
    assert rig.poll(gpu_pod("ml", "a", G0), gpu_pod("ml", "b", G1)) == 1.0
    latest = source.latest()
    assert latest is not None
    assert latest.at_boot_ns == rig.clock.boot
    assert rig.jobs() == {G0: ["ml/a"], G1: ["ml/b"]}
    rig.poll(gpu_pod("ml", "b", G1))
    assert rig.jobs() == {G1: ["ml/b"]}


def test_the_same_list_again_costs_nothing_and_is_newer(rig: Rig) -> None:
    rig.poll(gpu_pod("ml", "a", G0))
    first = rig.source.latest()
    rig.poll()
    second = rig.source.latest()
    assert first is not None
    assert second is not None
    assert second.by_entity is first.by_entity
    assert second.at_boot_ns == first.at_boot_ns + S


def test_a_list_that_does_not_change_is_asked_for_less_often(rig: Rig) -> None:
    waits = [rig.poll(gpu_pod("ml", "a", G0)) for _ in range(module.BUSY_LISTS + 2)]
    assert waits == [1.0] * (module.BUSY_LISTS) + [module.QUIET_PERIOD_S] * 2
    assert rig.poll(gpu_pod("ml", "b", G0)) == 1.0


@pytest.mark.parametrize(("tick_s", "period_s"), [(0.25, 1.0), (1.0, 1.0), (3.0, 3.0), (3600.0, 5.0)])
def test_the_period_is_the_ticks_within_bounds(tmp_path: Path, tick_s: float, period_s: float) -> None:
    """At most once a second; and never so seldom that a list would be too old to be believed."""
    kubelet = FakeKubelet(tmp_path)
    client = KubeletClient(str(kubelet.socket), deadline_s=10.0)
    source = KubeletSource(client, lambda: FACTS, FakeClock(), rng=Random(1), period_s=tick_s)
    assert source.poll() == period_s
    source.close()
    kubelet.stop()


def test_processes_that_changed_wake_it(rig: Rig) -> None:
    """Without the wake it would wait for an hour, and this test for its time limit."""
    rested = threading.Event()

    def rest() -> None:
        rig.source._period_s = 0.01
        assert not rig.source._pause(3600.0)
        rested.set()

    thread = threading.Thread(target=rest)
    thread.start()
    until(lambda: rig.source.met(G0, Workload(WorkloadKind.POD, job=U1)) or rested.is_set())
    thread.join(60)
    assert not thread.is_alive()


def test_a_cgroup_gives_the_name_its_uid(rig: Rig) -> None:
    rig.poll(gpu_pod("ml", "a", G0))
    rig.source.met(G0, Workload(WorkloadKind.POD, job=U1))
    assert rig.jobs() == {G0: [U1]}
    assert dict(rig.source.describe(Workload(WorkloadKind.POD, job=U1)).identities)["k8s.pod"] == "a"
    rig.source.met(G0, Workload(WorkloadKind.SLURM, job="4711"))  # no pod: nothing to learn
    slurm = Workload(WorkloadKind.SLURM, job=U1)
    assert rig.source.describe(slurm) is slurm
    rig.poll()
    assert rig.jobs() == {G0: [U1]}


def test_nothing_is_met_before_the_first_list(rig: Rig) -> None:
    rig.source.met(G0, Workload(WorkloadKind.POD, job=U1))
    assert rig.source.latest() is None


def test_a_restart_of_the_kubelet_is_outlived(rig: Rig, caplog: pytest.LogCaptureFixture) -> None:
    """While it is away nobody gives devices out: what it said stands. It is said once, and asked again soon."""
    rig.poll(gpu_pod("ml", "a", G0))
    rig.source.met(G0, Workload(WorkloadKind.POD, job=U1))
    rig.kubelet.stop()
    with caplog.at_level(logging.WARNING):
        waits = [rig.poll() for _ in range(8)]
    assert all(1.0 <= wait <= module.MAX_WAIT_S for wait in waits)
    assert len(set(waits)) > 2  # jittered, growing
    assert sum("no socket at" in r.message for r in caplog.records) == 1
    assert rig.jobs() == {G0: [U1]}
    (problem,) = rig.source.problems
    assert "mount the directory" in problem.change
    rig.kubelet.start()
    assert rig.poll() == 1.0
    assert rig.source.problems == ()
    assert rig.jobs() == {G0: [U1]}


def test_a_list_is_not_believed_for_ever(rig: Rig) -> None:
    rig.poll(gpu_pod("ml", "a", G0))
    rig.clock.advance(module.BELIEVED_NS)
    assert rig.source.latest() is not None
    rig.clock.advance(1)
    assert rig.source.latest() is None


def test_after_a_time_without_lists_another_uid_may_be_the_pods(rig: Rig) -> None:
    rig.poll(gpu_pod("ml", "a", G0))
    rig.source.met(G0, Workload(WorkloadKind.POD, job=U1))
    rig.source.met(G0, Workload(WorkloadKind.POD, job=U2))
    assert rig.jobs() == {G0: [U1]}
    rig.clock.advance(module.GAP_NS)
    rig.poll()
    rig.source.met(G0, Workload(WorkloadKind.POD, job=U2))
    assert rig.jobs() == {G0: [U2]}


def test_bytes_that_are_no_list_leave_what_was_known(rig: Rig) -> None:
    rig.poll(gpu_pod("ml", "a", G0))
    rig.kubelet.answer = b"\xff\xff"
    assert rig.poll() >= 1.0
    assert rig.jobs() == {G0: ["ml/a"]}
    assert "bytes that are none" in rig.source.problems[0].why


def test_unresolved_devices_are_said_once_and_until_they_are_gone(
    rig: Rig, caplog: pytest.LogCaptureFixture
) -> None:
    odd = pod("ml", "a", container("c", {"nvidia.com/gpu": ["nvidia0"]}))
    with caplog.at_level(logging.WARNING):
        for _ in range(3):
            rig.poll(odd, gpu_pod("ml", "b", G1))
    assert rig.jobs() == {G1: ["ml/b"]}
    assert sum("nvidia0" in r.message for r in caplog.records) == 1
    assert "nvidia.com/gpu nvidia0: which GPU has that device node" in rig.source.problems[0].why
    rig.minors = {"00000000:10:00.0": 0}
    rig.clock.advance(module.ALLOCATABLE_EVERY_NS)  # the kernel module is looked at again
    rig.poll()
    rig.poll()
    assert rig.jobs() == {G0: ["ml/a"], G1: ["ml/b"]}
    assert rig.source.problems == ()


def test_new_devices_are_known_with_the_next_list(rig: Rig) -> None:
    rig.facts = replace(FACTS, devices=FACTS.devices[:1])
    rig.poll(gpu_pod("ml", "b", G1))
    assert rig.jobs() == {}
    rig.facts = FACTS
    rig.poll()
    assert rig.jobs() == {G1: ["ml/b"]}


def test_gpus_that_could_be_given_out_and_nobody_meters_are_said(tmp_path: Path) -> None:
    rig = Rig(tmp_path)
    rig.kubelet.stop()
    from flopmeter.wire.podresources import podresources_pb2 as pb

    ids = [G0, "GPU-99999999-aaaa-4bbb-8ccc-000000000009"]
    devices = [
        pb.ContainerDevices(resource_name="nvidia.com/gpu", device_ids=ids),
        pb.ContainerDevices(resource_name="rdma/hca", device_ids=["0"]),
    ]
    rig.kubelet.allocatable = pb.AllocatableResponse(devices=devices).SerializeToString()
    rig.kubelet.start()
    rig.poll(gpu_pod("ml", "a", G0))
    (problem,) = rig.source.problems
    assert problem.why.startswith("could be given out, and is not known: nvidia.com/gpu GPU-99999999-")
    assert problem.why.endswith("no GPU of that UUID is metered here")
    (unmetered,) = rig.source.unmetered()
    assert (unmetered.vendor, unmetered.model) == ("NVIDIA", "GPU-99999999-aaaa-4bbb-8ccc-000000000009")
    rig.facts = replace(FACTS, uncovered=(unmetered,))  # what the node is told of comes back from there
    assert rig.source.unmetered() == (unmetered,)
    broken = Uncovered("00000000:19:00.0", "NVIDIA", "", "NVML_ERROR_GPU_IS_LOST")
    rig.facts = replace(FACTS, uncovered=(broken,))
    assert rig.source.unmetered() == ()  # it may be that one: not counted twice
    rig.close()


def test_hundreds_of_problems_are_not_kept(rig: Rig) -> None:
    rig.poll(gpu_pod("ml", "a", *(f"GPU-none-{n}" for n in range(500))))
    assert len(rig.source.problems) < 50


# ---- threads -----------------------------------------------------------------------------------


def until(true: Callable[[], object]) -> None:
    deadline = time.monotonic() + 60
    while not true():
        assert time.monotonic() < deadline
        threading.Event().wait(0.005)


def test_live_from_the_settings(
    tmp_path: Path, server: FakeApiServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As `flopmeter agent run` begins it: threads, a real socket, TLS; a process alone is what it takes."""
    from flopmeter.agent.loop import SystemClock

    kubelet = FakeKubelet(tmp_path)
    kubelet.say(gpu_pod("ml", "a", G0))
    server.pod("ml", "a", U1, labels={"flopmeter.dev/run": "r"})
    for name, value in server.environ.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(Server.of_pod.__func__, "__defaults__", (server.account,))  # type: ignore[attr-defined]
    settings = AgentSettings(kubelet=str(kubelet.socket), kubernetes_labels=True)
    source = opening.kubelet_source(settings, lambda: FACTS, SystemClock())
    assert source is not None
    try:
        until(lambda: (latest := source.latest()) and [w.run for w in latest.by_entity[G0]] == ["r"])
        assert source.problems == ()
    finally:
        source.close()
        source.close()
        kubelet.stop()
    assert not [t for t in threading.enumerate() if t.name in ("kubelet", "kubernetes-api")]


def test_the_first_list_is_there_when_it_has_started(rig: Rig) -> None:
    """The first reading ends the time in which the agent was down: without the list that would be nobody's."""
    rig.kubelet.say(gpu_pod("ml", "a", G0))
    asked = threading.Event()
    told = rig.kubelet.answer
    assert isinstance(told, bytes)

    def answer() -> bytes:
        asked.wait(0.2)
        return told

    rig.kubelet.answer = answer
    rig.source.start(wait_s=60)
    try:
        assert rig.jobs() == {G0: ["ml/a"]}
    finally:
        asked.set()
        rig.source.close()


def test_a_kubelet_that_is_not_there_holds_no_start_up(rig: Rig) -> None:
    rig.kubelet.stop()
    rig.source.start(wait_s=600)  # the first failure ends it
    try:
        assert rig.source.latest() is None
        assert rig.source.problems
    finally:
        rig.source.close()


def test_without_the_setting_there_is_no_source() -> None:
    def never() -> NodeFacts:
        raise AssertionError

    assert opening.kubelet_source(AgentSettings(), never, FakeClock()) is None


def test_labels_without_a_token_are_said_and_the_rest_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    settings = AgentSettings(kubelet=str(tmp_path / "none.sock"), kubernetes_labels=True)
    with caplog.at_level(logging.WARNING):
        source = opening.kubelet_source(settings, lambda: FACTS, FakeClock())
    assert source is not None
    source.close()
    assert "expected to run in a pod" in caplog.text


def test_a_defect_does_not_end_the_thread(rig: Rig, caplog: pytest.LogCaptureFixture) -> None:
    called = threading.Event()

    def broken() -> float:
        called.set()
        raise ZeroDivisionError

    thread = threading.Thread(target=rig.source._run, args=(broken, rig.source._stop.wait))
    thread.start()
    assert called.wait(60)
    rig.source.close()
    thread.join(60)
    assert not thread.is_alive()
    assert "failed in a way it should not" in caplog.text


def test_errors_of_this_family_are_the_agents() -> None:
    assert issubclass(NotGrantedError, KubernetesError)


def test_a_node_without_kubernetes_pays_for_none_of_it() -> None:
    """What every agent imports of this package brings neither gRPC nor TLS."""
    code = (
        "import sys, flopmeter.agent.workloads.processes, flopmeter.agent.workloads.kubelet.open\n"
        "print(sorted({'grpc', 'google.protobuf', 'ssl', 'http.client'} & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout == "[]\n"
