"""The kubelet's socket: a real gRPC server on the other side, and what a socket can do instead of answering."""

import os
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest
from fake_kubelet import FakeKubelet, gpu_pod, listing

from flopmeter.agent.errors import KubernetesError
from flopmeter.agent.workloads.kubelet.client import MAX_MESSAGE_BYTES, KubeletClient


@pytest.fixture
def kubelet(tmp_path: Path) -> Iterator[FakeKubelet]:
    fake = FakeKubelet(tmp_path)
    yield fake
    fake.stop()


@pytest.fixture
def client(kubelet: FakeKubelet) -> Iterator[KubeletClient]:
    client = KubeletClient(str(kubelet.socket), deadline_s=10.0)
    yield client
    client.close()


def test_list_and_what_is_not_implemented(kubelet: FakeKubelet, client: KubeletClient) -> None:
    kubelet.say(gpu_pod("ml", "a", "GPU-1"))
    assert client.list_pods() == listing(gpu_pod("ml", "a", "GPU-1"))
    assert client.allocatable() is None  # as Kubernetes 1.20: no failure
    assert client.list_pods()


def test_allocatable(tmp_path: Path, kubelet: FakeKubelet, client: KubeletClient) -> None:
    kubelet.stop()
    kubelet.allocatable = b"\x0a\x00"
    kubelet.start()
    assert client.allocatable() == b"\x0a\x00"


def test_a_kubelet_that_restarts_is_asked_again_at_once(kubelet: FakeKubelet, client: KubeletClient) -> None:
    """Its socket is another file afterwards, and no wait of the old channel's stands in the way."""
    assert client.list_pods() == b""
    for _ in range(3):
        kubelet.stop()
        with pytest.raises(KubernetesError, match="no socket at"):
            client.list_pods()
        kubelet.start()
        assert client.list_pods() == b""


def test_a_kubelet_that_comes_up_slowly_is_asked_at_once(tmp_path: Path) -> None:
    """Its socket is there before it listens. gRPC's own wait after refused connections, seconds by then, is not ours."""
    path = tmp_path / "kubelet.sock"
    client = KubeletClient(str(path), deadline_s=10.0)
    with socket.socket(socket.AF_UNIX) as early:
        early.bind(str(path))
        for _ in range(5):
            with pytest.raises(KubernetesError, match="UNAVAILABLE"):
                client.list_pods()
    path.unlink()
    kubelet = FakeKubelet(tmp_path)
    assert client.list_pods() == b""
    client.close()
    kubelet.stop()


def test_a_socket_that_nobody_listens_on(tmp_path: Path) -> None:
    path = tmp_path / "dead.sock"
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
    client = KubeletClient(str(path), deadline_s=10.0)
    with pytest.raises(KubernetesError, match="List: UNAVAILABLE"):
        client.list_pods()
    client.close()


def test_a_socket_that_hangs_costs_the_deadline(tmp_path: Path) -> None:
    """It accepts and says nothing, for ever."""
    path = tmp_path / "hung.sock"
    with socket.socket(socket.AF_UNIX) as hung:
        hung.bind(str(path))
        hung.listen()
        client = KubeletClient(str(path), deadline_s=0.2)
        with pytest.raises(KubernetesError, match="DEADLINE_EXCEEDED"):
            client.list_pods()
        client.close()


def test_a_call_under_way_ends_when_the_client_closes(kubelet: FakeKubelet) -> None:
    asked, answer = threading.Event(), threading.Event()

    def wait() -> bytes:
        asked.set()
        answer.wait(60)
        return b""

    kubelet.answer = wait
    client = KubeletClient(str(kubelet.socket), deadline_s=60.0)
    said: list[str] = []

    def call() -> None:
        try:
            client.list_pods()
        except KubernetesError as e:
            said.append(str(e))

    thread = threading.Thread(target=call)
    thread.start()
    assert asked.wait(60)
    client.close()
    thread.join(60)
    answer.set()
    assert len(said) == 1
    client.close()


@pytest.mark.parametrize("code", [grpc.StatusCode.INTERNAL, grpc.StatusCode.PERMISSION_DENIED])
def test_a_refusal_is_said_with_its_code(
    kubelet: FakeKubelet, client: KubeletClient, code: grpc.StatusCode
) -> None:
    kubelet.refuse = code
    with pytest.raises(KubernetesError, match=f"List: {code.name}: told to"):
        client.list_pods()
    kubelet.refuse = None
    assert client.list_pods() == b""


def test_a_kubelet_without_list_is_an_error(kubelet: FakeKubelet, client: KubeletClient) -> None:
    kubelet.refuse = grpc.StatusCode.UNIMPLEMENTED
    with pytest.raises(KubernetesError, match=r"does not know /v1\.PodResourcesLister/List"):
        client.list_pods()


def test_an_answer_beyond_the_limit_is_refused_and_the_next_is_read(
    kubelet: FakeKubelet, client: KubeletClient
) -> None:
    kubelet.answer = b"\0" * (MAX_MESSAGE_BYTES + 1)
    with pytest.raises(KubernetesError, match="RESOURCE_EXHAUSTED"):
        client.list_pods()
    kubelet.answer = b"\0" * (1 << 20)
    assert len(client.list_pods()) == 1 << 20


def test_the_authority_is_localhost(tmp_path: Path) -> None:
    """Go's servers refuse a path there. Read off the wire: the header stands in the first HTTP/2 frames as it is."""
    path = tmp_path / "raw.sock"
    got = bytearray()
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(path))
        server.listen()

        def read() -> None:
            peer, _ = server.accept()
            with peer:
                peer.sendall(bytes(3) + b"\4" + bytes(5))  # an empty SETTINGS frame: then headers are sent
                while b"PodResourcesLister" not in got or b"localhost" not in got:
                    part = peer.recv(65_536)
                    if not part:
                        return
                    got.extend(part)

        thread = threading.Thread(target=read)
        thread.start()
        client = KubeletClient(str(path), deadline_s=5.0)
        with pytest.raises(KubernetesError):
            client.list_pods()
        client.close()
        thread.join(60)
    assert b"localhost" in got
    assert str(path).encode() not in got


def test_paths_that_are_no_socket(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for path, said in (
        ("none", "no socket at"),
        ("file", "expected a socket"),
        ("file/x", "Not a directory"),
        (".", "expected a socket"),
    ):
        with pytest.raises(KubernetesError, match=said) as e:
            KubeletClient(str(tmp_path / path)).list_pods()
        assert e.value.hint


def test_a_directory_that_is_closed_to_us(kubelet: FakeKubelet, monkeypatch: pytest.MonkeyPatch) -> None:
    """As the kubelet's is to everybody but root. (Tests may run as root, whom no mode stops.)"""

    def refuse(path: str) -> os.stat_result:
        raise PermissionError(13, "Permission denied", path)

    monkeypatch.setattr(os, "stat", refuse)
    with pytest.raises(KubernetesError, match="Permission denied") as e:
        KubeletClient(str(kubelet.socket)).list_pods()
    assert "uid 0" in e.value.hint
