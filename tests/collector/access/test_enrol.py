"""Who gets a certificate and who does not: one test for each way to ask for one that is not theirs."""

import hashlib
import json
from datetime import timedelta

import pytest
from access_rig import Node, a_csr, der_of, desk_at, general, join_token, kinds, pem_of, rows
from builders import Chain
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtendedKeyUsageOID

from flopmeter.collector.access.errors import AccessRefused
from flopmeter.collector.access.rows import check_chain
from flopmeter.contract.enrolment import agent_uri, enrol_message


def refused(desk, asked) -> AccessRefused:
    with pytest.raises(AccessRefused) as caught:
        desk.enrol(asked)
    return caught.value


def test_a_node_with_a_token_gets_a_certificate_for_itself_and_nothing_else(desk, node, store):
    token = join_token(desk)
    csr = node.csr(desk.ca.trust_domain)
    given = desk.enrol(node.asks(token, csr))
    leaf = x509.load_pem_x509_certificate(given.pem)
    leaf.verify_directly_issued_by(desk.ca.certificate)
    names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert list(names) == [general(agent_uri(desk.ca.trust_domain, node.agent_id))]
    assert leaf.extensions.get_extension_for_class(x509.BasicConstraints).value.ca is False
    usage = leaf.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    assert list(usage) == [ExtendedKeyUsageOID.CLIENT_AUTH]
    assert leaf.not_valid_after_utc - leaf.not_valid_before_utc <= timedelta(hours=24, minutes=5)
    assert leaf.public_key() == node.key.public_key()
    assert given.sequence == 1
    made, used, enrolled = rows(store)
    assert [made.kind, used.kind, enrolled.kind] == ["token-made", "token-used", "enrolled"]
    assert (enrolled.agent_id, enrolled.subject) == (node.agent_id, "gpu-001")
    said = json.loads(enrolled.detail)
    assert said["key"] == node.chain.public_key.hex()
    assert said["certificate_sha256"] == hashlib.sha256(leaf.public_bytes(Encoding.DER)).hexdigest()
    assert check_chain(rows(store)) is None


def test_an_expired_token(desk, node, clock, store):
    asked = node.asks(join_token(desk, lasts_s=60), node.csr(desk.ca.trust_domain))
    clock.move(seconds=61)
    assert refused(desk, asked).code == "token-expired"
    assert kinds(store) == ["token-made"]


def test_a_token_that_was_used_by_another_node(desk, node, store):
    token = join_token(desk)
    desk.enrol(node.asks(token, node.csr(desk.ca.trust_domain)))
    other = Node(Chain("gpu-002"))
    assert refused(desk, other.asks(token, other.csr(desk.ca.trust_domain))).code == "token-used"
    assert kinds(store).count("enrolled") == 1


def test_a_token_that_was_used_by_the_same_node_for_another_key(desk, node):
    token = join_token(desk)
    desk.enrol(node.asks(token, node.csr(desk.ca.trust_domain)))
    assert refused(desk, node.asks(token, node.new_key().csr(desk.ca.trust_domain))).code == "token-used"


def test_a_token_serves_as_many_nodes_as_it_was_made_for(desk):
    token = join_token(desk, uses=2)
    for name in ("gpu-001", "gpu-002"):
        n = Node(Chain(name))
        desk.enrol(n.asks(token, n.csr(desk.ca.trust_domain)))
    third = Node(Chain("gpu-003"))
    assert refused(desk, third.asks(token, third.csr(desk.ca.trust_domain))).code == "token-used"


def test_a_revoked_token(desk, node):
    token = join_token(desk)
    desk.revoke_token(token.token_id, who="ann", why="printed on a wiki page")
    assert refused(desk, node.asks(token, node.csr(desk.ca.trust_domain))).code == "token-revoked"


def test_a_token_for_nodes_of_another_name(desk, node, store):
    token = join_token(desk, nodes="cpu-*")
    fault = refused(desk, node.asks(token, node.csr(desk.ca.trust_domain)))
    assert fault.code == "wrong-node"
    assert "'cpu-*'" in str(fault)
    assert kinds(store) == ["token-made"]


def test_a_guessed_secret_and_an_unknown_token_are_refused_in_the_same_words(desk, node, store):
    token = join_token(desk)
    csr = node.csr(desk.ca.trust_domain)
    guessed = refused(desk, node.asks(token, csr, secret=bytes(32)))
    unknown = refused(desk, node.asks(token, csr, token_id="0123456789ab"))
    assert (guessed.status, guessed.code, str(guessed)) == (unknown.status, unknown.code, str(unknown))
    assert guessed.code == "unknown-token"
    assert kinds(store) == ["token-made"]  # what strangers try fills no log


def test_an_api_token_is_no_join_token(desk, node):
    text, made = desk.make_api_token(role="admin", name="ann", lasts_s=0, who="ann")
    secret = bytes.fromhex(text.rpartition(".")[2])
    asked = node.asks(join_token(desk), node.csr(desk.ca.trust_domain))
    assert refused(desk, asked._replace(token_id=made.token_id, secret=secret)).code == "unknown-token"


def other_names(node, domain):
    mine = general(agent_uri(domain, node.agent_id))
    return {
        "another agent": [general(agent_uri(domain, bytes(16)))],
        "another trust domain": [general(agent_uri("elsewhere.example", node.agent_id))],
        "its own and another's": [mine, general(agent_uri(domain, bytes(16)))],
        "the collector": [x509.DNSName("localhost")],
        "its own and the collector": [mine, x509.DNSName("localhost")],
        "none": [],
        "upper case": [general(agent_uri(domain, node.agent_id).replace("agent/", "AGENT/"))],
    }


@pytest.mark.parametrize("which", sorted(other_names(Node(Chain("x")), "d")))
def test_a_csr_for_another_name(desk, node, store, which):
    csr = a_csr(other_names(node, desk.ca.trust_domain)[which], node.key)
    assert refused(desk, node.asks(join_token(desk), csr)).code == "bad-csr"
    assert kinds(store) == ["token-made"]


def test_a_csr_that_asks_to_be_an_authority(desk, node):
    mine = general(agent_uri(desk.ca.trust_domain, node.agent_id))
    csr = a_csr([mine], node.key, extensions=(x509.BasicConstraints(ca=True, path_length=None),))
    assert refused(desk, node.asks(join_token(desk), csr)).code == "bad-csr"


@pytest.mark.parametrize(
    "key",
    [
        ed25519.Ed25519PrivateKey.generate(),
        ec.generate_private_key(ec.SECP384R1()),
        rsa.generate_private_key(65_537, 2_048),
    ],
    ids=["ed25519", "p384", "rsa"],
)
def test_a_csr_for_a_key_of_another_sort_says_which_is_expected(desk, node, key):
    mine = general(agent_uri(desk.ca.trust_domain, node.agent_id))
    fault = refused(desk, node.asks(join_token(desk), a_csr([mine], key)))
    assert fault.code == "bad-csr"
    assert "P-256" in str(fault)


def test_a_csr_with_a_bad_signature(desk, node):
    der = bytearray(der_of(node.csr(desk.ca.trust_domain)))
    der[-1] ^= 1  # within the ECDSA signature's s
    fault = refused(
        desk, node.asks(join_token(desk), node.csr(desk.ca.trust_domain))._replace(csr=bytes(der))
    )
    assert fault.code == "bad-csr"
    assert "signature" in str(fault)


@pytest.mark.parametrize(
    "csr", [b"", b"-----BEGIN CERTIFICATE REQUEST-----\n", b"\x30\x03\x02\x01\x01", b"x" * 4_096]
)
def test_what_is_no_csr(desk, node, csr):
    asked = node.asks(join_token(desk), node.csr(desk.ca.trust_domain))._replace(csr=csr)
    assert refused(desk, asked).code == "bad-csr"


def test_no_proof_of_the_record_key_and_proofs_of_something_else(desk, node, store):
    token, csr = join_token(desk, uses=9), node.csr(desk.ca.trust_domain)
    other = Node(Chain("gpu-001", key_seed="thief"))
    elsewhere = enrol_message(bytes(32), der_of(csr), token.token_id, "gpu-001")
    fresh = node.asks(token, a_csr([general(agent_uri(desk.ca.trust_domain, node.agent_id))]))
    for what, asked in {
        "none": node.asks(token, csr, signature=bytes(64)),
        "another's": node.asks(token, csr, signature=other.asks(token, csr).signature),
        "for another CSR": fresh._replace(csr=csr),
        "for another nonce": node.asks(token, csr, signature=node.sign(elsewhere)),
        "for another node": node.asks(token, csr)._replace(node="gpu-007"),
        "for another token": node.asks(join_token(desk), csr)._replace(
            token_id=token.token_id, secret=token.secret
        ),
    }.items():
        assert refused(desk, asked).code == "bad-proof", what
    assert "enrolled" not in kinds(store)


def test_another_agents_key_with_ones_own_csr(desk, node):
    """The CSR names the hash of the record key: whoever has only one of the two keys gets nothing."""
    thief = Node(Chain("gpu-001", key_seed="thief"))
    csr = thief.csr(desk.ca.trust_domain, agent_id=node.agent_id)
    assert refused(desk, thief.asks(join_token(desk), csr)).code == "bad-csr"


def test_an_answer_that_was_lost_is_given_again_and_costs_no_second_use(desk, node, store):
    token, csr = join_token(desk), node.csr(desk.ca.trust_domain)
    first = desk.enrol(node.asks(token, csr))
    again = desk.enrol(node.asks(token, csr, nonce=bytes(32)))
    assert again == first
    assert kinds(store) == ["token-made", "token-used", "enrolled"]


def test_a_revoked_agent_does_not_come_back_by_another_token(desk, node, store):
    node.joined(desk)
    desk.revoke_agent(node.agent_id, who="ann", why="stolen")
    asked = node.asks(join_token(desk), node.new_key().csr(desk.ca.trust_domain))
    assert refused(desk, asked).code == "revoked"
    assert kinds(store)[-1] == "token-made"


def test_another_token_gives_the_agent_the_next_sequence(desk, node):
    node.joined(desk)
    given = desk.enrol(node.asks(join_token(desk), node.new_key().csr(desk.ca.trust_domain)))
    assert given.sequence == 2


@pytest.mark.parametrize("name", ["", "a\nb", "n" * 300])
def test_what_no_node_is_called(desk, node, name):
    asked = node.asks(join_token(desk), node.csr(desk.ca.trust_domain))._replace(node=name)
    assert refused(desk, asked).code == "malformed"


def test_no_secret_is_anywhere_in_the_store(desk, node, tmp_path, store):
    token = join_token(desk)
    text, _ = desk.make_api_token(role="viewer", name="ann", lasts_s=0, who="ann")
    desk.enrol(node.asks(token, node.csr(desk.ca.trust_domain)))
    api = bytes.fromhex(text.rpartition(".")[2])
    held = [p for p in tmp_path.rglob("*") if p.is_file()]
    assert store in held
    for path in held:
        data = path.read_bytes()
        for secret in (token.secret, api, pem_of(node.key)):
            for form in (secret, secret.hex().encode(), secret.hex().upper().encode()):
                assert form not in data, path
    assert hashlib.sha256(token.secret).hexdigest().encode() in store.read_bytes() + b"".join(
        p.read_bytes() for p in held
    )


def test_without_an_authority_no_certificate_is_given(tmp_path, clock, node):
    from flopmeter.collector.access.desk import Desk

    desk = desk_at(tmp_path, clock)
    asked = node.asks(join_token(desk), node.csr(desk.ca.trust_domain))
    assert refused(Desk(tmp_path / "b.db", None, clock), asked).code == "not-found"
