"""doctor on Kubernetes: what of the kubelet and the API server can be had, and what to change."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner
from fake_api_server import FakeApiServer
from fake_kubelet import FakeKubelet, container, gpu_pod, pod

from fakes import FakeClock
from flopmeter.agent.reading import NodeFacts
from flopmeter.agent.tools.advice import Advice
from flopmeter.agent.tools.doctor import Diagnosis
from flopmeter.agent.tools.kubernetes import kubernetes_advice
from flopmeter.agent.workloads.kubelet.api import Server
from flopmeter.cli.main import flopmeter
from flopmeter.contract.usage import Device

G0 = "GPU-00000000-aaaa-4bbb-8ccc-000000000000"
FACTS = NodeFacts("n1", bytes(16), "590", "13", "nvml", (Device(G0, "NVIDIA H100", "9.0", 132),))
IN_A_POD = {"KUBERNETES_SERVICE_HOST": "10.0.0.1"}


def advice(kubelet: str = "", labels: bool = False, environ: dict[str, str] | None = None) -> list[Advice]:
    return kubernetes_advice(kubelet, labels, FACTS, FakeClock(), environ or {})


@pytest.fixture
def kubelet(tmp_path: Path) -> Iterator[FakeKubelet]:
    fake = FakeKubelet(tmp_path)
    fake.say(gpu_pod("ml", "a", G0))
    yield fake
    fake.stop()


def test_a_node_without_kubernetes_hears_nothing_of_it() -> None:
    assert advice() == []


def test_a_pod_that_does_not_ask_the_kubelet_is_told_to() -> None:
    (one,) = advice(environ=IN_A_POD)
    assert "--kubelet" in one.change


def test_no_socket_says_what_to_mount() -> None:
    (one,) = advice("/nowhere/kubelet.sock")
    assert "no socket at /nowhere/kubelet.sock" in one.why
    assert "mount" in one.change


def test_all_is_well_and_labels_are_a_choice(kubelet: FakeKubelet) -> None:
    """Not granting labels is nothing that has to be changed: the exit code stays 0."""
    found = advice(str(kubelet.socket), environ=IN_A_POD)
    assert [a.why.split(":")[0] for a in found] == [
        "the kubelet gives 1 GPUs here to 1 pods",
        "labels are not granted",
    ]
    assert not any(a.change for a in found)


def test_a_device_that_cannot_be_resolved(kubelet: FakeKubelet) -> None:
    kubelet.say(pod("ml", "a", container("c", {"nvidia.com/gpu": ["nvidia0"]})))
    found = advice(str(kubelet.socket))
    assert "nvidia.com/gpu nvidia0" in found[0].why
    assert "docs/kubernetes.md" in found[0].change
    assert replace(Diagnosis(FACTS, ()), node=tuple(found)).exit_code == 2  # nothing is metered at all here


def test_labels_that_are_not_granted(
    kubelet: FakeKubelet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (one, _) = advice(str(kubelet.socket), labels=True)
    assert "expected to run in a pod" in one.why
    account = tmp_path / "account"
    account.mkdir()
    server = FakeApiServer(account)
    monkeypatch.setattr(Server.of_pod.__func__, "__defaults__", (account,))  # type: ignore[attr-defined]
    try:
        server.objects["/api/v1/namespaces/ml/pods/a"] = 403
        refused = advice(str(kubelet.socket), labels=True, environ=server.environ)
        assert "403" in refused[0].why
        assert "agent-labels.yaml" in refused[0].change
        server.pod("ml", "a", "1f0c3a52-5b3e-4a57-9b4e-0c9c1d2e3f40")
        (well,) = advice(str(kubelet.socket), labels=True, environ=server.environ)
        assert not well.change
    finally:
        server.close()


def test_doctor_asks_by_option_and_by_variable(kubelet: FakeKubelet) -> None:
    kubelet.say(pod("ml", "a", container("c", {"nvidia.com/gpu": ["GPU-none"]})))
    variables = {"FLOPMETER_AGENT_KUBELET": str(kubelet.socket)}
    for arguments, env in (((f"--kubelet={kubelet.socket}",), {}), ((), variables)):
        done = CliRunner(env=env).invoke(flopmeter, ["agent", "doctor", "--source=sim", *arguments])
        assert "nvidia.com/gpu GPU-none: no GPU of that UUID is metered here" in done.output
        assert done.exit_code == 1
    assert "GPU-none" not in CliRunner().invoke(flopmeter, ["agent", "doctor", "--source=sim"]).output
