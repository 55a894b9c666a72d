"""The source with an API server: labels, Ray clusters and claims are asked for, and refusals are outlived."""

import logging
from collections.abc import Iterator
from pathlib import Path
from random import Random

import pytest
from fake_api_server import FakeApiServer
from fake_kubelet import claim, container, gpu_pod, pod
from kubelet_rig import G0, G1, U1, U2, Rig, S

from fakes import FakeClock
from flopmeter.agent.errors import NotGrantedError
from flopmeter.agent.workloads.kubelet import source as module
from flopmeter.agent.workloads.kubelet.api import Api, Server
from flopmeter.agent.workloads.kubelet.metadata import PodMeta
from flopmeter.agent.workloads.kubelet.source import Labels
from flopmeter.contract.usage import Workload, WorkloadKind


@pytest.fixture
def asking(tmp_path: Path, server: FakeApiServer) -> Iterator[Rig]:
    rig = Rig(tmp_path, Api(Server.of_pod(server.environ, server.account), "n1"))
    yield rig
    rig.close()


# ---- labels ------------------------------------------------------------------------------------


def test_labels_come_when_the_api_server_is_asked(asking: Rig, server: FakeApiServer) -> None:
    server.pod("ml", "a", U1, labels={"flopmeter.dev/run": "r"})
    asking.poll(gpu_pod("ml", "a", G0))
    assert asking.jobs() == {G0: ["ml/a"]}
    asking.source.ask()
    assert asking.jobs() == {G0: [U1]}
    assert asking.source.describe(Workload(WorkloadKind.POD, job=U1)).run == "r"
    asked = len(server.asked)
    asking.source.ask()
    assert len(server.asked) == asked  # not again before it is due
    asking.clock.advance(round(module.REFRESH_S * 1.5) * S)
    server.pod("ml", "a", U1, labels={"flopmeter.dev/run": "renamed"})
    asking.source.ask()
    assert asking.source.describe(Workload(WorkloadKind.POD, job=U1)).run == "renamed"


def test_only_pods_with_a_gpu_are_asked_for(asking: Rig, server: FakeApiServer) -> None:
    asking.poll(gpu_pod("ml", "a", G0), pod("ml", "web", container("c", {"rdma/hca": ["0"]})))
    asking.source.ask()
    assert server.asked == ["/api/v1/namespaces/ml/pods/a?resourceVersion=0"]


def test_a_pod_that_the_server_does_not_know_yet_is_asked_for_again(
    asking: Rig, server: FakeApiServer
) -> None:
    asking.poll(gpu_pod("ml", "a", G0))
    asking.source.ask()
    asking.source.ask()
    assert len(server.asked) == 1
    server.pod("ml", "a", U1)
    asking.clock.advance(round(module.AGAIN_S * 1.5) * S)
    asking.source.ask()
    assert asking.jobs() == {G0: [U1]}


def test_one_pod_in_trouble_does_not_keep_the_others_waiting(asking: Rig, server: FakeApiServer) -> None:
    """Its annotations are beyond what is read: it is asked for again later, those behind it now."""
    server.objects["/api/v1/namespaces/ml/pods/a"] = b" " * (3 << 20)
    server.pod("ml", "b", U2)
    asking.poll(gpu_pod("ml", "a", G0), gpu_pod("ml", "b", G1))
    assert asking.source.ask() >= 1.0
    assert "at most" in asking.source.problems[0].why
    asking.source.ask()
    assert asking.jobs() == {G0: ["ml/a"], G1: [U2]}


def test_a_refusal_is_said_once_and_not_insisted_on(
    asking: Rig, server: FakeApiServer, caplog: pytest.LogCaptureFixture
) -> None:
    server.objects["/api/v1/namespaces/ml/pods/a"] = 403
    asking.poll(gpu_pod("ml", "a", G0))
    with caplog.at_level(logging.WARNING):
        for _ in range(3):
            assert asking.source.ask() >= 1.0
            asking.clock.advance(round(module.AGAIN_S * 2) * S)
    assert sum("403" in r.message for r in caplog.records) == 1
    assert asking.jobs() == {G0: ["ml/a"]}  # degrades to namespace and name
    assert "agent-labels.yaml" in caplog.text


def test_a_refusal_waits_minutes() -> None:
    class Refusing:
        def pod(self, name: object) -> PodMeta:
            raise NotGrantedError("no")

    labels = Labels(Refusing(), FakeClock(), Random(1))  # type: ignore[arg-type]
    labels.want(frozenset({("ml", "a")}), slices=False)
    assert labels.step(lambda meta: None) >= module.REFUSED_S / 2


def test_another_uid_on_its_gpu_makes_a_pod_doubtful(asking: Rig, server: FakeApiServer) -> None:
    """A StatefulSet's pod made anew between two lists: the cgroup says so before any refresh is due."""
    server.pod("ml", "a", U1)
    asking.poll(gpu_pod("ml", "a", G0))
    asking.source.ask()
    server.pod("ml", "a", U2)
    asking.source.met(G0, Workload(WorkloadKind.POD, job=U2))
    assert asking.jobs() == {G0: [U1]}
    asking.source.ask()
    asking.clock.advance(round(module.AGAIN_S * 1.5) * S)
    asking.source.ask()
    assert asking.jobs() == {G0: [U2]}


def test_where_a_ray_cluster_came_from_is_asked_for_once(asking: Rig, server: FakeApiServer) -> None:
    owner = {"apiVersion": "ray.io/v1", "kind": "RayCluster", "name": "c", "uid": "cu", "controller": True}
    for name, uid in (("w0", U1), ("w1", U2)):
        server.pod("ml", name, uid, labels={"ray.io/cluster": "c"}, ownerReferences=[owner])
    cluster = "/apis/ray.io/v1/namespaces/ml/rayclusters/c"
    server.objects[cluster] = {"metadata": {"labels": {"ray.io/originated-from-cr-name": "ppo"}}}
    asking.poll(gpu_pod("ml", "w0", G0), gpu_pod("ml", "w1", G1))
    asking.source.ask()
    for uid in (U1, U2):
        seen = dict(asking.source.describe(Workload(WorkloadKind.POD, job=uid)).identities)
        assert seen["label:ray.io/originated-from-cr-name"] == "ppo"
        assert seen["label:ray.io/cluster"] == "c"
    assert server.asked.count(cluster) == 1


def test_a_ray_cluster_that_may_not_be_asked_for_costs_no_labels(asking: Rig, server: FakeApiServer) -> None:
    owner = {"apiVersion": "ray.io/v1", "kind": "RayCluster", "name": "c", "uid": "cu", "controller": True}
    server.pod("ml", "w0", U1, labels={"ray.io/cluster": "c"}, ownerReferences=[owner])
    server.objects["/apis/ray.io/v1/namespaces/ml/rayclusters/c"] = 403
    asking.poll(gpu_pod("ml", "w0", G0))
    asking.source.ask()
    asking.source.ask()
    assert (
        dict(asking.source.describe(Workload(WorkloadKind.POD, job=U1)).identities)["label:ray.io/cluster"]
        == "c"
    )
    assert len(server.asked) == 2


def test_a_claim_is_resolved_by_its_slice(asking: Rig, server: FakeApiServer) -> None:
    server.pod("ml", "a", U1)
    claimed = pod(
        "ml", "a", container("c", claims=[claim("gpus", "gpu-1", cdi="k8s.gpu.nvidia.com/claim=x-gpu-1")])
    )
    asking.poll(claimed)
    assert asking.jobs() == {}
    assert "gpu.nvidia.com/n1/gpu-1" in asking.source.problems[0].why
    spec = {"driver": "gpu.nvidia.com", "pool": {"name": "n1", "generation": 1}}
    device = {"name": "gpu-1", "attributes": {"uuid": {"string": G1}}}
    server.objects["/apis/resource.k8s.io/v1/resourceslices"] = {
        "items": [{"spec": {**spec, "devices": [device]}}]
    }
    asking.source.ask()
    asking.poll()
    assert asking.jobs() == {G1: ["ml/a"]}
    assert asking.source.problems == ()
    asking.source.ask()
    assert asking.jobs() == {G1: [U1]}


def test_slices_are_not_asked_for_where_no_claim_is(asking: Rig, server: FakeApiServer) -> None:
    asking.poll(gpu_pod("ml", "a", G0))
    asking.source.ask()
    assert not [path for path in server.asked if "resourceslices" in path]
