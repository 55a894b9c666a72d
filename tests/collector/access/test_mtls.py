"""The agents' port under mTLS, with real gRPC on loopback: who gets in, who does not, and what a running server learns."""

import logging
import socket
from datetime import timedelta

import grpc
import pytest
from access_rig import CHANNEL, Authority, Node, der_of, kinds
from builders import Chain
from processes import wait_for
from serving import settings_for
from wire_client import Ended, WireClient

from flopmeter.collector.access.desk import Desk
from flopmeter.collector.check.fsck import check_store
from flopmeter.collector.errors import SettingsError
from flopmeter.collector.ingest.listening import TLS_OPTIONS
from flopmeter.collector.running import run_collector
from flopmeter.collector.settings import CollectorSettings
from flopmeter.contract.enrolment import agent_uri, key_change_message
from flopmeter.wire.v1 import identity_pb2, ingest_pb2

Refusal = ingest_pb2.Refusal


@pytest.fixture
def running(tmp_path, clock):
    settings = settings_for(tmp_path, admit_new=False, tls_name="localhost,127.0.0.1", http="127.0.0.1:0")
    with run_collector(settings, clock) as running:
        yield running


@pytest.fixture
def desk(running):
    """Of the collector that runs."""
    return running._collector._front.desk


def refusal(client) -> ingest_pb2.Refusal:
    nonce = client.read("challenge").challenge.nonce
    client.send(client.chain.hello(nonce))
    return client.read("refusal").refusal


def sweep(running) -> None:
    """What the server does every five seconds."""
    running.review()


def test_an_agent_with_a_certificate_ships(running, desk, node, store):
    node.joined(desk)
    with WireClient(running.address, node.chain, node.channel(running.address)) as client:
        client.hello()
        client.records(node.chain.next())
        client.ack(1)
    assert kinds(store) == ["token-made", "token-used", "enrolled"]


def test_an_agent_with_the_certificate_of_another_is_refused(running, desk, node, caplog):
    node.joined(desk)
    other = Node(Chain("gpu-002")).joined(desk)
    with (
        caplog.at_level(logging.WARNING),
        WireClient(running.address, other.chain, node.channel(running.address)) as client,
    ):
        said = refusal(client)
    assert said.code == Refusal.CODE_UNKNOWN_AGENT
    assert node.agent_id.hex() in said.message
    assert other.agent_id.hex() in said.message
    assert "refused" in caplog.text


def fails(channel) -> str:
    with channel, pytest.raises(grpc.RpcError) as caught:
        list(channel.stream_stream("/flopmeter.wire.v1.IngestService/Stream")(iter([]), timeout=60))
    assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
    return str(caught.value.details())


def test_no_certificate_and_the_certificate_of_another_authority_end_in_the_handshake(running, desk, node):
    ca = desk.ca.pem
    bare = grpc.ssl_channel_credentials(ca)
    fails(grpc.secure_channel(running.address, bare, options=CHANNEL))
    chain, key = Authority().issue(agent_uri(desk.ca.trust_domain, node.agent_id))
    foreign = grpc.ssl_channel_credentials(ca, key, chain)
    fails(grpc.secure_channel(running.address, foreign, options=CHANNEL))


def test_the_authoritys_own_name_in_another_hand_is_no_authority(running, desk, node):
    """Same subject, another key."""
    fake = Authority(name=desk.ca.certificate.subject)
    chain, key = fake.issue(agent_uri(desk.ca.trust_domain, node.agent_id))
    foreign = grpc.ssl_channel_credentials(desk.ca.pem, key, chain)
    fails(grpc.secure_channel(running.address, foreign, options=CHANNEL))


def test_an_ed25519_leaf_ends_in_the_handshake(running, desk, node):
    """Nobody can get one from us (test_enrol); reference/attestation.md 4.1."""
    from cryptography.hazmat.primitives.asymmetric import ed25519

    key = ed25519.Ed25519PrivateKey.generate()
    ours = Authority(key=desk.ca._key, name=desk.ca.certificate.subject)
    chain, pem = ours.issue(agent_uri(desk.ca.trust_domain, node.agent_id), key=key)
    fails(
        grpc.secure_channel(
            running.address, grpc.ssl_channel_credentials(desk.ca.pem, pem, chain), options=CHANNEL
        )
    )


def test_a_plaintext_client_gets_nothing_and_is_in_the_log(running, capfd):
    fails(grpc.insecure_channel(running.address, options=CHANNEL))
    said: list[str] = []
    wait_for(
        "gRPC's own line on stderr",
        lambda: said.append(capfd.readouterr().err) or "Handshake failed" in "".join(said),
    )
    host, _, port = running.address.rpartition(":")
    with socket.create_connection((host, int(port)), timeout=60) as raw:
        raw.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
        got = raw.recv(4_096)
        assert got[:1] in (b"", b"\x15")  # hung up, or a TLS alert: no HTTP/2 settings frame


def test_a_certificate_that_expired_while_its_connection_was_open_opens_no_stream(running, desk, node, clock):
    node.joined(desk)
    with node.channel(running.address) as channel:
        with WireClient(running.address, node.chain, channel) as client:
            client.hello()
            client.channel = grpc.insecure_channel("localhost:1")  # ours stays open
        clock.move(hours=25)
        again = WireClient(running.address, node.chain, channel)
        assert "expired" in refusal(again).message


def test_an_expired_certificate_ends_in_the_handshake(running, desk, node):
    ours = Authority(key=desk.ca._key, name=desk.ca.certificate.subject)
    chain, key = ours.issue(agent_uri(desk.ca.trust_domain, node.agent_id), ends=-timedelta(hours=1))
    fails(
        grpc.secure_channel(
            running.address, grpc.ssl_channel_credentials(desk.ca.pem, key, chain), options=CHANNEL
        )
    )


def test_a_revoked_agents_stream_is_ended_and_it_gets_no_other(running, desk, node, store, caplog):
    node.joined(desk)
    with WireClient(running.address, node.chain, node.channel(running.address)) as client:
        client.hello()
        client.records(node.chain.next())
        client.ack(1)
        Desk(store, None).revoke_agent(node.agent_id, who="ann", why="stolen")
        with caplog.at_level(logging.WARNING):
            sweep(running)
        with pytest.raises(Ended) as ended:
            while True:
                client.read()
        assert ended.value.code is grpc.StatusCode.PERMISSION_DENIED
    assert "refused from now on" in caplog.text
    with WireClient(running.address, node.chain, node.channel(running.address)) as client:
        assert "was revoked" in refusal(client).message


def test_renewal_over_mtls_and_a_clone(running, desk, node, store, caplog):
    node.joined(desk)
    copy = Node(node.chain, node.key, node.certificate, node.ca, node.sequence)
    csr = node.new_key().csr(desk.ca.trust_domain)
    old = Node(node.chain, copy.key, copy.certificate, copy.ca)
    answer = old.renew(running.address, csr, 1)
    assert answer.sequence == 2
    node.certificate = answer.certificate_pem
    with WireClient(running.address, node.chain, node.channel(running.address)) as client:
        client.hello()
        with caplog.at_level(logging.WARNING), pytest.raises(grpc.RpcError) as caught:
            copy.renew(running.address, a_second(copy, desk), 1)
        assert caught.value.code() is grpc.StatusCode.PERMISSION_DENIED
        assert "cloned" in caught.value.details()
        assert "in use twice" in caplog.text
        sweep(running)
        with pytest.raises(Ended) as ended:
            while True:
                client.read()
        assert ended.value.code is grpc.StatusCode.PERMISSION_DENIED
    wait_for("event", lambda: running.counters.events["evidence.fork"] == 1)
    with pytest.raises(grpc.RpcError, match="revoked"):
        node.renew(running.address, a_second(node, desk), 2)
    assert kinds(store)[-1] == "clone-seen"


def a_second(node, desk):
    return Node(node.chain).csr(desk.ca.trust_domain)


@pytest.mark.parametrize("bad", [b"\xff\xff", b"x" * 9_000, b"\x10" + b"\xff" * 9 + b"\x01"])
def test_what_is_no_renewal(running, desk, node, bad):
    node.joined(desk)
    with node.channel(running.address) as channel, pytest.raises(grpc.RpcError) as caught:
        channel.unary_unary("/flopmeter.wire.v1.IdentityService/Renew")(bad, timeout=60)
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT


# --- certificates of another authority ---


@pytest.fixture
def other(tmp_path):
    """Writes what cert-manager would; gives the authority and the settings."""
    authority = Authority()
    paths = {
        "tls_cert": tmp_path / "tls.crt",
        "tls_key": tmp_path / "tls.key",
        "tls_client_ca": tmp_path / "ca.crt",
    }

    def write(pair=None):
        chain, key = pair or authority.issue("localhost", "127.0.0.1")
        for name, data in (("tls_key", key), ("tls_cert", chain), ("tls_client_ca", authority.pem)):
            new = paths[name].with_suffix(".new")
            new.write_bytes(data)
            new.replace(paths[name])
        return chain

    write()
    return authority, paths, write


def with_names(authority, chain, *names):
    node = Node(chain, ca=authority.pem)
    node.certificate, _ = authority.issue(*names, key=node.key)
    return node


def test_spiffe_ids_are_read_and_must_fit_the_node(tmp_path, clock, other):
    authority, paths, _ = other
    ids = "spiffe://example.org/ns/*/node/{node}"
    with run_collector(settings_for(tmp_path, peer_ids=ids, **paths), clock) as running:
        good = with_names(authority, Chain("gpu-001"), "spiffe://example.org/ns/metering/node/gpu-001")
        with WireClient(running.address, good.chain, good.channel(running.address)) as client:
            client.hello()
        for name in (
            "spiffe://example.org/ns/metering/node/gpu-002",
            "spiffe://example.org/ns/a/b/node/gpu-001",
            "spiffe://example.org.evil.example/ns/a/node/gpu-001",
            "spiffe://example.org/ns/metering/node/gpu-001/x",
            "gpu-001",
        ):
            node = with_names(authority, Chain("gpu-001"), name)
            with WireClient(running.address, node.chain, node.channel(running.address)) as client:
                assert "--peer-ids" in refusal(client).message
        with pytest.raises(grpc.RpcError) as caught:
            good.renew(running.address, b"", 1)
        assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED


def served_by(address: str) -> bytes:
    """The certificate that a new connection gets, DER."""
    import ssl

    host, _, port = address.rpartition(":")
    return ssl.get_server_certificate((host, int(port)), timeout=60).encode()


def test_a_certificate_that_is_swapped_is_served_without_a_restart_and_a_bad_one_is_not(
    tmp_path, clock, other, caplog
):
    authority, paths, write = other
    with run_collector(settings_for(tmp_path, **paths), clock) as running:
        node = with_names(authority, Chain("gpu-001"), "spiffe://example.org/x")
        with WireClient(running.address, node.chain, node.channel(running.address)) as client:
            client.hello()
            first = served_by(running.address)
            second = write()
            wait_for("the new one", lambda: served_by(running.address) == second)
            assert second != first
            good = write((b"half a file", b""))
            with caplog.at_level(logging.ERROR):
                wait_for(
                    "said", lambda: served_by(running.address) and "last good certificate" in caplog.text
                )
            assert served_by(running.address) == second
            assert good == b"half a file"
            third = write()
            wait_for("the third", lambda: served_by(running.address) == third)
            client.records(node.chain.next())  # the stream that was open all the time
            client.ack(1)
        again = Node(node.chain, node.key, node.certificate, node.ca)
        with WireClient(running.address, again.chain, again.channel(running.address)) as client:
            assert client.hello().resume_seq == 2


# --- settings ---


def own_address() -> str:
    """An address of this machine that is not loopback; no packet is sent."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))
        except OSError:
            pytest.skip("this machine has no address but loopback")
        return str(probe.getsockname()[0])


def test_plain_text_for_other_hosts_is_refused_at_the_start_and_mtls_is_not(tmp_path, clock, node):
    address = own_address()
    with pytest.raises(SettingsError, match="without TLS it would be plain text") as caught:
        CollectorSettings(store=tmp_path / "b.db", listen=f"{address}:0")
    assert "--tls-name" in caught.value.hint
    settings = settings_for(tmp_path, listen=f"{address}:0", tls_name=address)
    with run_collector(settings, clock) as running:
        fails(grpc.insecure_channel(running.address, options=CHANNEL))
        node.joined(running._collector._front.desk)
        with WireClient(running.address, node.chain, node.channel(running.address)) as client:
            client.hello()


@pytest.mark.parametrize(
    "given",
    [
        {"tls_cert": "x"},
        {"tls_cert": "x", "tls_key": "x"},
        {"tls_name": "a", "tls_cert": "x", "tls_key": "x", "tls_client_ca": "x"},
        {"peer_ids": "spiffe://a/b"},
        {"tls_name": "a", "peer_ids": "spiffe://a/b"},
        {"enrol": "127.0.0.1:0"},
        {"tls_name": "a", "enrol": "nowhere"},
        {"tls_name": "a b"},
        {"tls_name": ","},
    ],
)
def test_settings_that_do_not_go_together(given):
    with pytest.raises(SettingsError):
        CollectorSettings(**given)


def test_a_start_without_good_files_says_which(tmp_path, clock, other):
    _, paths, _ = other
    paths["tls_key"].write_bytes(b"")
    with pytest.raises(SettingsError, match=r"tls\.key"):
        run_collector(settings_for(tmp_path, **paths), clock)
    with pytest.raises(SettingsError, match="--peer-ids"):
        run_collector(settings_for(tmp_path, peer_ids="spiffe://x/{host}", **paths), clock)


def test_metrics_tell_when_the_certificate_ends(running, desk):
    import urllib.request

    with urllib.request.urlopen(f"http://{running.http_address}/metrics") as answer:
        page = answer.read().decode()
    end = running._collector._front.tls.not_after_unix_s
    told = next(line for line in page.splitlines() if line.startswith("flopmeter_collector_tls_not_after"))
    assert float(told.split()[1]) == end
    assert "flopmeter_collector_tls_good 1.0" in page


def test_a_connection_ends_in_time_and_the_agent_comes_again_without_loss(tmp_path, clock, node, monkeypatch):
    """Half a day, here half a second: what is in a certificate holds no longer than that on a connection."""
    ages = {"grpc.max_connection_age_ms": 500, "grpc.max_connection_age_grace_ms": 500}
    assert dict(TLS_OPTIONS)["grpc.max_connection_age_ms"] <= 86_400_000
    options = tuple({**dict(TLS_OPTIONS), **ages}.items())
    monkeypatch.setattr("flopmeter.collector.ingest.listening.TLS_OPTIONS", options)
    with run_collector(settings_for(tmp_path, tls_name="localhost,127.0.0.1"), clock) as running:
        node.joined(running._collector._front.desk)
        with WireClient(running.address, node.chain, node.channel(running.address)) as client:
            client.hello()
            client.records(node.chain.next())
            client.ack(1)
            with pytest.raises(Ended) as ended:
                client.read()
            assert ended.value.code is grpc.StatusCode.UNAVAILABLE
        with WireClient(running.address, node.chain, node.channel(running.address)) as client:
            assert client.hello().resume_seq == 2
            client.records(node.chain.next())
            client.ack(2)


def test_a_new_record_key_over_the_wire(running, desk, node, store):
    """From the answer on the old key is refused, and the new one ships."""
    node.joined(desk)
    after = Node(Chain("gpu-001", key_seed="next"), ca=node.ca)
    csr = after.csr(desk.ca.trust_domain)
    message = key_change_message(node.agent_id, after.chain.public_key, der_of(csr), 1)
    asked = identity_pb2.ChangeKeyRequest(
        public_key=after.chain.public_key,
        csr=csr,
        sequence=1,
        signature_by_old=node.sign(message),
        signature_by_new=after.sign(message),
    )
    with WireClient(running.address, node.chain, node.channel(running.address)) as client:
        client.hello()
        client.records(node.chain.next())
        client.ack(1)
        with node.channel(running.address) as channel:
            call = channel.unary_unary("/flopmeter.wire.v1.IdentityService/ChangeKey")
            answer = identity_pb2.RenewResponse.FromString(call(asked.SerializeToString(), timeout=60))
        assert answer.sequence == 1
        sweep(running)
        with pytest.raises(Ended) as ended:
            while True:
                client.read()
        assert ended.value.code is grpc.StatusCode.PERMISSION_DENIED
    with WireClient(running.address, node.chain, node.channel(running.address)) as client:
        assert "took another record key" in refusal(client).message
    after.certificate = answer.certificate_pem
    with WireClient(running.address, after.chain, after.channel(running.address)) as client:
        client.hello()
        client.records(after.chain.next())
        client.ack(1)
    assert kinds(store)[-2:] == ["key-changed", "enrolled"]
    assert check_store(store, []).difference is None
