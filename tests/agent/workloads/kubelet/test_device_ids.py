"""Device ids in every form, and that none is guessed."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flopmeter.agent.reading import NodeFacts
from flopmeter.agent.workloads.kubelet.device_ids import Gpus, Meant, gpus_of, meant, uuid_of_cdi
from flopmeter.contract.usage import Device, Uncovered

G0, G1, G2 = (f"GPU-0000000{n}-aaaa-4bbb-8ccc-00000000000{n}" for n in range(3))
M1, M2 = (f"MIG-1111111{n}-aaaa-4bbb-8ccc-00000000000{n}" for n in (1, 2))
OLD = "MIG-GPU-00000009-aaaa-4bbb-8ccc-000000000009/1/0"
UID = "1f0c3a52-5b3e-4a57-9b4e-0c9c1d2e3f40"


def gpu(uuid: str, address: str) -> Device:
    return Device(uuid, "NVIDIA H100", "9.0", 132, pci_address=address)


def instance(uuid: str, parent: str, number: int) -> Device:
    return Device(uuid, "NVIDIA H100 MIG 1g.10gb", "9.0", 16, mig=True, parent=parent, gpu_instance=number)


# GPU 2 is cut; minor numbers run against NVML's order, as they do on real boards.
FACTS = NodeFacts(
    "n1",
    b"\1" * 16,
    "590",
    "13",
    "nvml",
    (
        gpu(G0, "00000000:18:00.0"),
        gpu(G1, "00000000:2A:00.0"),
        gpu(G2, "00000000:3A:00.0"),
        instance(M1, G2, 1),
        instance(M2, G2, 2),
        instance(OLD.replace("/", "-"), G2, 7),
    ),
)
MINORS = {"00000000:18:00.0": 1, "00000000:2A:00.0": 0, "00000000:3A:00.0": 2}
GPUS = gpus_of(FACTS, MINORS)


@pytest.mark.parametrize(
    ("device_id", "wanted"),
    [
        (G0, Meant(G0)),
        (M1, Meant(M1)),
        (OLD, Meant(OLD.replace("/", "-"))),
        (f"{G0}::3", Meant(G0, shared=True)),
        (f"{M1}::0", Meant(M1, shared=True)),
        (f"{OLD}::0", Meant(OLD.replace("/", "-"), shared=True)),
        ("0", Meant(G0)),
        ("2", Meant(G2)),
        ("1::7", Meant(G1, shared=True)),
        ("nvidia0", Meant(G1)),  # the minor number is not the index
        ("nvidia1", Meant(G0)),
        ("nvidia0/vgpu0", Meant(G1, shared=True)),
        ("nvidia2/gi1", Meant(M1)),
        ("nvidia2/gi2/vgpu3", Meant(M2, shared=True)),
    ],
)
def test_forms(device_id: str, wanted: Meant) -> None:
    assert meant("nvidia.com/gpu", device_id, GPUS) == wanted


@pytest.mark.parametrize(
    ("device_id", "why"),
    [
        ("GPU-99999999-aaaa-4bbb-8ccc-000000000009", "no GPU of that UUID is metered here"),
        (f"{M1}x", "no GPU of that UUID is metered here"),
        ("3", "an index that NVML does not have"),
        ("nvidia7", "which GPU has that device node is not known (/proc/driver/nvidia/gpus)"),
        ("nvidia2/gi5", "no such MIG instance is metered here"),
        ("nvidia0/gi1", "no such MIG instance is metered here"),  # of a GPU that is not cut
        ("0:1", "a form of id that is not known"),  # an index of a MIG instance
        ("gpu0", "a form of id that is not known"),
        ("", "a form of id that is not known"),
        ("٣", "a form of id that is not known"),  # a digit, though none of ASCII's
        ("nvidia٠", "a form of id that is not known"),
        ("nvidia0/", "a form of id that is not known"),
        ("nvidia0/vgpu", "a form of id that is not known"),
    ],
)
def test_what_cannot_be_told_is_said(device_id: str, why: str) -> None:
    assert meant("nvidia.com/gpu", device_id, GPUS) == Meant("", False, why)


@pytest.mark.parametrize(
    ("resource", "device_id"),
    [
        ("rdma/hca", "0"),
        ("nvidia.com/hostdev", "0000:03:00.0"),
        ("nvidia.com/GA102GL_A10", "45"),  # KubeVirt: an IOMMU group
        ("amd.com/gpu", "0"),
        ("example.com/nic", "nvidia0"),
        ("nvidia.com/gpu nonsense", "0"),
    ],
)
def test_devices_that_are_no_gpus(resource: str, device_id: str) -> None:
    assert meant(resource, device_id, GPUS) is None


@pytest.mark.parametrize(
    "resource", ["nvidia.com/gpu.shared", "nvidia.com/mig-1g.10gb", "example.com/my-gpu"]
)
def test_a_uuid_counts_under_any_name_of_a_resource(resource: str) -> None:
    assert meant(resource, G0, GPUS) == Meant(G0)


def test_an_index_is_not_resolved_where_a_gpu_is_missing() -> None:
    """Behind a GPU that NVML lists and nothing meters, each would be taken for its neighbour."""
    missing = replace(FACTS, uncovered=(Uncovered("00000000:2A:00.0", "NVIDIA", "H100", "lost"),))
    for facts in (missing, replace(FACTS, source="dcgm")):
        told = meant("nvidia.com/gpu", "0", gpus_of(facts, MINORS))
        assert told is not None
        assert told.entity == ""
        assert "is not known whole" in told.why
    other = replace(
        FACTS, uncovered=(Uncovered("00000000:99:00.0", "AMD", "MI300", "NVML reads NVIDIA only"),)
    )
    assert meant("nvidia.com/gpu", "0", gpus_of(other, MINORS)) == Meant(G0)


def test_without_minor_numbers_device_nodes_are_not_resolved() -> None:
    told = meant("nvidia.com/gpu", "nvidia0", gpus_of(FACTS, {}))
    assert told is not None
    assert told.entity == ""


@pytest.mark.parametrize(
    ("names", "uuid"),
    [
        (["nvidia.com/gpu=" + G0], G0),
        (["management.nvidia.com/gpu=" + G0], G0),
        (["k8s.gpu.nvidia.com/device=" + M1], M1),
        (["k8s.gpu.nvidia.com/claim=" + UID + "-" + G0], G0),
        (
            ["k8s.gpu.nvidia.com/claim=" + UID + "-gpu-0"],
            "",
        ),  # NVIDIA's driver: the claim's UID, a minor number
        (["k8s.gpu.nvidia.com/claim=" + UID + "-gpu-0-mig-1g18gb-19-0"], ""),
        (["nvidia.com/gpu=0"], ""),
        (["nvidia.com/gpu=all"], ""),
        ([G0], ""),  # no CDI name
        (["nvidia.com/gpu=" + G0 + "0"], ""),
        (["nvidia.com/gpu=" + G0, "nvidia.com/gpu=" + G1], ""),  # which of the two?
        (["runtime.nvidia.com/gpu=" + G0, "nvidia.com/gpu=" + G0], G0),
        ([], ""),
        (["=" * 10_000], ""),
    ],
)
def test_uuids_in_cdi_names(names: list[str], uuid: str) -> None:
    assert uuid_of_cdi(names) == uuid


@given(st.text(alphabet="GPUMIGnvidiagvu0123456789-/:=. ٣\n", max_size=80), st.booleans())
def test_any_id_is_something_or_nothing(text: str, known: bool) -> None:
    told = meant("nvidia.com/gpu", text, GPUS if known else Gpus())
    if told is not None:
        assert bool(told.entity) != bool(told.why)
        assert not told.entity or told.entity in GPUS.entities
    uuid_of_cdi([text])
