"""Pods by the paths of their cgroups: every form that runtimes and drivers make, and those that jobs make up."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flopmeter.agent.workloads.kubelet.pod_cgroup import PodCgroup, pod_of_cgroup

UID = "1f0c3a52-5b3e-4a57-9b4e-0c9c1d2e3f40"
U_ = UID.replace("-", "_")
STATIC = "0f3f8e0a4d2c4b6f8a7e6d5c4b3a2910"
OTHER = "99999999-9999-4999-8999-999999999999"
CID = "3b1a" * 16

FORMS = {
    "v1 cgroupfs": f"/kubepods/besteffort/pod{UID}/{CID}",
    "v1 cgroupfs burstable": f"/kubepods/burstable/pod{UID}/{CID}",
    "v1 cgroupfs guaranteed": f"/kubepods/pod{UID}/{CID}",
    "systemd": f"/kubepods.slice/kubepods-besteffort.slice/kubepods-besteffort-pod{U_}.slice/cri-containerd-{CID}.scope",
    "systemd guaranteed": f"/kubepods.slice/kubepods-pod{U_}.slice/cri-containerd-{CID}.scope",
    "cri-o": f"/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod{U_}.slice/crio-{CID}.scope",
    "cri-o v2": f"/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod{U_}.slice/crio-{CID}.scope/container",
    "docker": f"/kubepods.slice/kubepods-pod{U_}.slice/docker-{CID}.scope",
    "containerd without the systemd driver": f"/kubepods-burstable-pod{U_}.slice:cri-containerd:{CID}",
    "the same below containerd": f"/system.slice/containerd.service/kubepods-burstable-pod{U_}.slice:cri-containerd:{CID}",
    "kind": f"/docker/{'a' * 64}/kubelet/kubepods/besteffort/pod{UID}/{CID}",
    "kind, systemd": "/system.slice/docker-" + "a" * 64 + ".scope/kubelet.slice/kubelet-kubepods.slice/"
    f"kubelet-kubepods-besteffort.slice/kubelet-kubepods-besteffort-pod{U_}.slice/cri-containerd-{CID}.scope",
    "cgroup root": f"/racks/kubepods/burstable/pod{UID}/{CID}",
    "own namespace, systemd, same QoS": f"/../../kubepods-burstable-pod{U_}.slice/cri-containerd-{CID}.scope",
    "own namespace, systemd": f"/../../../kubepods-besteffort.slice/kubepods-besteffort-pod{U_}.slice/cri-containerd-{CID}.scope",
    "own namespace, cgroupfs, same QoS": f"/../../pod{UID}/{CID}",
    "own namespace, cgroupfs": f"/../../../besteffort/pod{UID}/{CID}",
    "own namespace, cgroupfs, guaranteed": f"/../../../pod{UID}/{CID}",
    "a job's own cgroup below": f"/kubepods/pod{UID}/{CID}/trainer/rank0",
}


@pytest.mark.parametrize("path", FORMS.values(), ids=FORMS.keys())
def test_forms(path: str) -> None:
    found = pod_of_cgroup(path)
    assert found is not None
    assert (found.uid, found.container_id) == (UID, CID)


def test_a_static_pod_has_a_hash_for_a_uid() -> None:
    assert pod_of_cgroup(f"/kubepods/burstable/pod{STATIC}/{CID}") == PodCgroup(STATIC, CID, 0)
    slices = f"/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod{STATIC}.slice/crio-{CID}.scope"
    found = pod_of_cgroup(slices)
    assert found is not None
    assert found.uid == STATIC


@pytest.mark.parametrize(
    "path",
    [
        f"/kubepods/pod{UID}",
        f"/kubepods.slice/kubepods-pod{U_}.slice",
        f"/kubepods/pod{UID}/sandbox",
        f"/kubepods/pod{UID}/{CID[:-1]}",  # no container id
        f"/kubepods/pod{UID}/{CID}x",
    ],
)
def test_a_pod_whose_container_is_not_named(path: str) -> None:
    found = pod_of_cgroup(path)
    assert found is not None
    assert (found.uid, found.container_id) == (UID, "")


@pytest.mark.parametrize(
    "path",
    [
        "",
        "/",
        "/../..",
        "/system.slice/sshd.service",
        f"/pod{UID}/{CID}",  # nobody above it: podman names pods so
        f"/system.slice/pod{UID}/{CID}",
        f"/machine.slice/libpod-{CID}.scope",
        "/kubepods/burstable",
        "/kubepods/pod",
        f"/kubepods/pod{UID}0/{CID}",  # too long
        f"/kubepods/pod{UID[:-1]}/{CID}",  # too short
        f"/kubepods/pod{UID.replace('-', '_', 1)}/{CID}",  # dashes and underscores mixed
        f"/kubepods/pod{UID.upper()}/{CID}",
        f"/kubepods/pod{'-' * 36}/{CID}",
        f"/kubepods/pod{STATIC}f/{CID}",
        f"/notkubepods/pod{UID}/{CID}",
        f"/kubepods-podx{U_}.slice",
        f"/kubepods/evil/pod{UID}/{CID}",
        f"/user.slice/user-1000.slice/user@1000.service/kubepods/pod{UID}/{CID}",  # delegated: who knows
        f"/../../user.slice/user-1000.slice/kubepods-pod{U_}.slice/{CID}",
        f"/system.slice/x.service/../../pod{UID}/{CID}",  # the kernel writes .. at the front only
        f"/kubepods/pod{UID}\n/{CID}"[:40],
    ],
)
def test_what_is_no_pod(path: str) -> None:
    assert pod_of_cgroup(path) is None


def test_the_outermost_pod_counts() -> None:
    """A container that may nest cgroups names what it likes inside itself."""
    inner = f"/kubepods/besteffort/pod{OTHER}/{'f' * 64}"
    for outer in (f"/kubepods/pod{UID}/{CID}", f"/../../pod{UID}/{CID}"):
        found = pod_of_cgroup(outer + inner)
        assert found is not None
        assert (found.uid, found.container_id) == (UID, CID)


def test_where_it_begins_is_told() -> None:
    found = pod_of_cgroup(f"/docker/{'a' * 64}/kubepods/pod{UID}/{CID}")
    assert found is not None
    assert found.start == len("/docker/") + 64


@pytest.mark.parametrize(
    "path",
    [
        "/kubepods/pod" * 5_000,
        "/" + "a-" * 30_000 + "kubepods",
        "/.." * 20_000,
        "/kubepods-pod" + "a" * 60_000,
    ],
)
def test_long_paths_that_almost_match_are_none(path: str) -> None:
    """An expression that tried them at every place anew would run into the test's time limit."""
    assert pod_of_cgroup(path) is None


@given(st.text(alphabet="/.-_:podkuebslicabcdef0123456789\n\0", max_size=300))
def test_any_text_is_a_pod_or_none(path: str) -> None:
    found = pod_of_cgroup(path)
    assert found is None or len(found.uid) in (32, 36)
