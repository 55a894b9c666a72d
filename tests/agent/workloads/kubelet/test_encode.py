"""The kubelet's messages: what is taken, and bytes that are none."""

import pytest
from fake_kubelet import claim, container, gpu_pod, listing, pod
from hypothesis import given
from hypothesis import strategies as st

from flopmeter.agent.errors import KubernetesError
from flopmeter.agent.workloads.kubelet import encode
from flopmeter.agent.workloads.kubelet.listing import Claimed, Container
from flopmeter.wire.podresources import podresources_pb2 as pb


def field(number: int, payload: bytes) -> bytes:
    size = len(payload)
    varint = bytes([size]) if size < 128 else bytes([size & 127 | 128, size >> 7])
    return bytes([number << 3 | 2]) + varint + payload


def test_field_numbers_are_the_kubelets() -> None:
    """Bytes put together by number, not by our stubs."""
    devices = (
        field(1, b"nvidia.com/gpu")
        + field(2, b"GPU-1")
        + field(2, b"GPU-2")
        + field(3, field(1, b"\x08\x01"))
    )
    cdi = field(1, b"nvidia.com/gpu=x")
    claimed = (
        field(1, cdi) + field(2, b"gpu.nvidia.com") + field(3, b"n1") + field(4, b"gpu-0") + field(5, b"s")
    )
    dynamic = field(1, b"class") + field(2, b"claim") + field(3, b"ml") + field(4, claimed)
    body = (
        field(1, b"c")
        + field(2, devices)
        + field(3, b"\0\1")
        + field(4, field(1, b"memory"))
        + field(5, dynamic)
    )
    raw = field(1, field(1, b"a") + field(2, b"ml") + field(3, body))
    assert encode.decode_listing(raw) == (
        Container(
            "ml",
            "a",
            "c",
            (("nvidia.com/gpu", "GPU-1"), ("nvidia.com/gpu", "GPU-2")),
            (Claimed("claim", "gpu.nvidia.com", "n1", "gpu-0", ("nvidia.com/gpu=x",), "s"),),
        ),
    )
    assert encode.decode_allocatable(field(1, devices) + field(2, b"\0")) == (
        ("nvidia.com/gpu", "GPU-1"),
        ("nvidia.com/gpu", "GPU-2"),
    )


def test_containers_without_devices_are_left_out_and_the_order_is_fixed() -> None:
    pods = [gpu_pod("ml", "b", "G2"), gpu_pod("ml", "a", "G1"), pod("kube-system", "dns", container("dns"))]
    assert [c.pod for c in encode.decode_listing(listing(*pods))] == ["a", "b"]
    assert encode.decode_listing(listing(*pods)) == encode.decode_listing(listing(*reversed(pods)))


def test_a_device_that_is_named_per_numa_node_is_one() -> None:
    twice = pb.ContainerResources(
        name="c",
        devices=[
            pb.ContainerDevices(resource_name="nvidia.com/gpu", device_ids=["G"]),
            pb.ContainerDevices(resource_name="nvidia.com/gpu", device_ids=["G"]),
        ],
    )
    assert encode.decode_listing(listing(pod("ml", "a", twice)))[0].devices == (("nvidia.com/gpu", "G"),)


def test_names_are_made_fit() -> None:
    odd = pod("m\nl", "p" * 10_000, container("c\x1b", {"r": ["i\0"]}, [claim("q", "d" * 400)]))
    (found,) = encode.decode_listing(listing(odd))
    assert (found.namespace, found.name, found.devices) == ("m_l", "c_", (("r", "i_"),))
    assert len(found.pod) == 256


@pytest.mark.parametrize("raw", [b"\xff", b"\x0a\x05ab", field(1, field(1, b"\xff\xfe")), b"<html>"])
def test_bytes_that_are_no_list(raw: bytes) -> None:
    with pytest.raises(KubernetesError, match="bytes that are none"):
        encode.decode_listing(raw)


def test_bytes_that_are_no_devices() -> None:
    with pytest.raises(KubernetesError, match="bytes that are none"):
        encode.decode_allocatable(field(1, field(1, b"\xff")))


def test_more_than_a_node_can_have_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(encode, "MAX_CONTAINERS", 2)
    monkeypatch.setattr(encode, "MAX_DEVICES", 2)
    encode.decode_listing(listing(gpu_pod("ml", "a", "1", "2"), gpu_pod("ml", "b", "3")))
    with pytest.raises(KubernetesError, match="at most 2 containers"):
        encode.decode_listing(listing(*(gpu_pod("ml", p, p) for p in "abc")))
    with pytest.raises(KubernetesError, match="at most 2 devices"):
        encode.decode_listing(listing(gpu_pod("ml", "a", "1", "2", "3")))
    claims = pod("ml", "a", container("c", claims=[claim("q", d) for d in "123"]))
    with pytest.raises(KubernetesError, match="at most 2 devices"):
        encode.decode_listing(listing(claims))


@given(st.binary(max_size=200))
def test_any_bytes_are_a_list_or_refused(raw: bytes) -> None:
    for decode in (encode.decode_listing, encode.decode_allocatable):
        try:
            decode(raw)
        except KubernetesError as e:
            assert e.hint
