"""The API server's answers, over TLS: what is asked, what is refused, and what an answer may not do to us."""

import socket
import ssl
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fake_api_server import TLS, FakeApiServer
from hypothesis import given
from hypothesis import strategies as st

from flopmeter.agent.errors import KubernetesError, NotGrantedError
from flopmeter.agent.workloads.kubelet import api as module
from flopmeter.agent.workloads.kubelet.api import Api, Server, slice_uuids
from flopmeter.agent.workloads.kubelet.metadata import Owner

UID = "1f0c3a52-5b3e-4a57-9b4e-0c9c1d2e3f40"
G0 = "GPU-00000000-aaaa-4bbb-8ccc-000000000000"
SLICES = "/apis/resource.k8s.io/{}/resourceslices"


@pytest.fixture
def server(tmp_path: Path) -> Iterator[FakeApiServer]:
    fake = FakeApiServer(tmp_path)
    yield fake
    fake.close()


def api(server: FakeApiServer, node: str = "n1", **rest: Any) -> Api:
    return Api(Server.of_pod(server.environ, server.account), node, **rest)


def test_one_pod_and_its_metadata_alone(server: FakeApiServer) -> None:
    server.pod("ml", "a", UID, labels={"flopmeter.dev/run": "r"})
    meta = api(server).pod(("ml", "a"))
    assert meta is not None
    assert (meta.uid, meta.run) == (UID, "r")
    assert server.asked == ["/api/v1/namespaces/ml/pods/a?resourceVersion=0"]
    assert server.accepts[0].startswith("application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1")
    assert api(server).pod(("ml", "b")) is None


def test_a_name_cannot_ask_for_something_else(server: FakeApiServer) -> None:
    api(server).pod(("../../secrets", "a/../../x?watch=1#"))
    assert server.asked == [
        "/api/v1/namespaces/..%2F..%2Fsecrets/pods/a%2F..%2F..%2Fx%3Fwatch%3D1%23?resourceVersion=0"
    ]


def test_the_token_is_read_for_each_request(server: FakeApiServer) -> None:
    server.pod("ml", "a", UID)
    one = api(server)
    assert one.pod(("ml", "a"))
    server.token = "second"
    with pytest.raises(NotGrantedError, match="401"):
        one.pod(("ml", "a"))
    server.write_token("second")
    assert one.pod(("ml", "a"))


@pytest.mark.parametrize("status", [401, 403])
def test_a_refusal_says_what_to_grant(server: FakeApiServer, status: int) -> None:
    server.objects["/api/v1/namespaces/ml/pods/a"] = status
    with pytest.raises(NotGrantedError, match=f"/api/v1/namespaces/ml/pods/a: {status}") as e:
        api(server).pod(("ml", "a"))
    assert "agent-labels.yaml" in e.value.hint


@pytest.mark.parametrize("status", [429, 500, 503])
def test_a_server_in_trouble_is_asked_again_later(server: FakeApiServer, status: int) -> None:
    server.objects["/api/v1/namespaces/ml/pods/a"] = status
    with pytest.raises(KubernetesError, match=str(status)) as e:
        api(server).pod(("ml", "a"))
    assert not isinstance(e.value, NotGrantedError)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"<html>",
        b"[]",
        b"{",
        b"[" * 100_000,
        b"\xff",
        b'{"metadata": {"name": "b", "namespace": "ml", "uid": "u"}}',
        b"{}",
    ],
)
def test_answers_that_are_none(server: FakeApiServer, body: bytes) -> None:
    server.objects["/api/v1/namespaces/ml/pods/a"] = body
    with pytest.raises(KubernetesError, match="expected"):
        api(server).pod(("ml", "a"))


def test_an_answer_that_never_ends(server: FakeApiServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_BODY_BYTES", 200_000)
    server.objects["/api/v1/namespaces/ml/pods/a"] = b" " * 1_000_000
    with pytest.raises(KubernetesError, match="at most 200000 bytes"):
        api(server).pod(("ml", "a"))


def test_an_answer_that_comes_too_slowly(server: FakeApiServer) -> None:
    """Each part comes in time, all of them do not: the request as a whole has a limit."""
    server.objects["/api/v1/namespaces/ml/pods/a"] = b" " * 1_000_000
    times = iter([0.0, 1.0, 21.0])
    with pytest.raises(KubernetesError, match="within 20 s"):
        api(server, now_s=lambda: next(times)).pod(("ml", "a"))


def test_a_server_that_says_nothing(server: FakeApiServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_SILENCE_S", 0.2)
    server.hold.clear()
    with pytest.raises(KubernetesError, match="timed out"):
        api(server).pod(("ml", "a"))


def test_nobody_there(server: FakeApiServer) -> None:
    one = api(server)
    server.close()
    with pytest.raises(KubernetesError, match="Connection refused"):
        one.pod(("ml", "a"))


def test_a_server_that_the_ca_does_not_know_gets_no_token(tmp_path: Path) -> None:
    """Somebody in between: the handshake fails before anything is said."""
    (tmp_path / "token").write_text("secret")
    heard = bytearray()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(TLS / "server.crt", TLS / "server.key")
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            peer, _ = listener.accept()
            with peer:
                try:
                    with context.wrap_socket(peer, server_side=True) as tls:
                        heard.extend(tls.recv(65_536))
                except OSError:
                    return

        thread = threading.Thread(target=serve)
        thread.start()
        other = ssl.create_default_context()
        (tmp_path / "ca.crt").write_text(ssl.DER_cert_to_PEM_cert(other.get_ca_certs(binary_form=True)[0]))
        server = Server("127.0.0.1", listener.getsockname()[1], tmp_path / "token", tmp_path / "ca.crt")
        with pytest.raises(KubernetesError, match="CERTIFICATE_VERIFY_FAILED"):
            Api(server, "n1").pod(("ml", "a"))
        thread.join(60)
    assert not heard


def test_an_account_that_is_incomplete(tmp_path: Path) -> None:
    environ = {"KUBERNETES_SERVICE_HOST": "10.0.0.1"}
    with pytest.raises(KubernetesError, match="expected to run in a pod"):
        Server.of_pod({}, tmp_path)
    with pytest.raises(KubernetesError, match="expected to run in a pod"):
        Server.of_pod({**environ, "KUBERNETES_SERVICE_PORT": "tcp://x"}, tmp_path)
    with pytest.raises(KubernetesError, match="no token at") as e:
        Server.of_pod(environ, tmp_path)
    assert "automountServiceAccountToken" in e.value.hint
    (tmp_path / "token").write_text("t")
    assert Server.of_pod(environ, tmp_path).port == 443
    with pytest.raises(KubernetesError, match="No such file"):  # no CA
        Api(Server.of_pod(environ, tmp_path), "n1").pod(("ml", "a"))


@pytest.mark.parametrize("token", ["", "\n", "a\nHost: x", "tök"])
def test_a_token_that_is_none_is_not_sent(server: FakeApiServer, token: str) -> None:
    server.write_token(token)
    with pytest.raises(KubernetesError):
        api(server).pod(("ml", "a"))
    assert server.asked == []


def test_where_a_ray_cluster_came_from(server: FakeApiServer) -> None:
    labels = {"ray.io/originated-from-crd": "RayJob", "ray.io/originated-from-cr-name": "ppo", "team": "x"}
    server.objects["/apis/ray.io/v1/namespaces/rl/rayclusters/ppo-x"] = {"metadata": {"labels": labels}}
    owner = Owner("ray.io/v1", "RayCluster", "ppo-x", "u")
    assert api(server).cluster(("rl", "pod"), owner) == (
        ("label:ray.io/originated-from-crd", "RayJob"),
        ("label:ray.io/originated-from-cr-name", "ppo"),
    )
    assert api(server).cluster(("rl", "pod"), Owner("ray.io/v1", "RayCluster", "gone", "u")) == ()


def device(name: object, uuid: object = G0, *, basic: bool = False, key: str = "uuid") -> dict[str, Any]:
    attributes = {"attributes": {key: {"string": uuid}, "index": {"int": 0}}}
    return {"name": name, "basic": attributes} if basic else {"name": name, **attributes}


def resource_slice(
    *devices: Any, pool: str = "n1", generation: object = 1, driver: str = "gpu.nvidia.com"
) -> dict[str, Any]:
    return {
        "spec": {"driver": driver, "pool": {"name": pool, "generation": generation}, "devices": list(devices)}
    }


def test_slices_by_the_version_that_the_server_has(server: FakeApiServer) -> None:
    server.objects[SLICES.format("v1beta1")] = {"items": [resource_slice(device("gpu-0", basic=True))]}
    one = api(server)
    assert one.resource_slices() == {("gpu.nvidia.com", "n1", "gpu-0"): G0}
    assert [a.split("/")[3] for a in server.asked] == ["v1", "v1beta2", "v1beta1"]
    assert server.asked[-1].endswith("?fieldSelector=spec.nodeName%3Dn1")
    one.resource_slices()
    assert len(server.asked) == 4  # the version is remembered
    assert api(server, node="a b&c").resource_slices()
    assert server.asked[-1].endswith("?fieldSelector=spec.nodeName%3Da%20b%26c")


def test_a_server_without_slices(server: FakeApiServer) -> None:
    with pytest.raises(NotGrantedError, match="no version of resource"):
        api(server).resource_slices()
    server.objects[SLICES.format("v1")] = 403
    with pytest.raises(NotGrantedError, match="403"):
        api(server).resource_slices()


def test_only_the_newest_generation_of_a_pool_counts() -> None:
    items = [
        resource_slice(device("gpu-0", "GPU-old"), device("gpu-9", "GPU-gone"), generation=1),
        resource_slice(device("gpu-0", "GPU-new"), generation=2),
        resource_slice(device("gpu-1", "MIG-x", key="gpu.nvidia.com/uuid"), generation=2),
        resource_slice(device("gpu-0", "GPU-other"), pool="n2", generation=1),
        resource_slice(device("nic-0", "x"), driver="dra.networking"),
    ]
    assert slice_uuids(items) == {
        ("gpu.nvidia.com", "n1", "gpu-0"): "GPU-new",
        ("gpu.nvidia.com", "n1", "gpu-1"): "MIG-x",
        ("gpu.nvidia.com", "n2", "gpu-0"): "GPU-other",
    }


@pytest.mark.parametrize(
    "items",
    [
        None,
        [None, 1, {}, {"spec": None}, {"spec": {"driver": "gpu.nvidia.com", "pool": []}}],
        [
            resource_slice(
                None,
                3,
                device(None),
                device("a", None),
                device("b", ["x"]),
                {"name": "c"},
                {"name": "d", "basic": 3},
            )
        ],
        [resource_slice(device("gpu-0"), generation="1")],
        [resource_slice({"name": "e", "attributes": {"uuid": "GPU-x"}})],
    ],
)
def test_slices_that_are_none(items: object) -> None:
    assert slice_uuids(items) == {}


_JSON = st.recursive(
    st.none() | st.integers() | st.text(max_size=6) | st.just("gpu.nvidia.com"),
    lambda c: (
        st.lists(c, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                [
                    "spec",
                    "pool",
                    "driver",
                    "name",
                    "generation",
                    "devices",
                    "attributes",
                    "uuid",
                    "string",
                    "basic",
                ]
            ),
            c,
            max_size=5,
        )
    ),
    max_leaves=15,
)


@given(_JSON)
def test_any_json_gives_texts(items: object) -> None:
    for key, uuid in slice_uuids(items).items():
        assert all(isinstance(part, str) for part in (*key, uuid))
