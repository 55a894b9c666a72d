"""Renewal, cloned keys, revocation, another record key."""

import json

import pytest
from access_rig import NONCE, Node, der_of, kinds, rows
from builders import Chain
from cryptography import x509

from flopmeter.collector.access.enrol import CLONED, NEW, REPEAT, Given, KeyChange, judge_sequence
from flopmeter.collector.access.errors import AccessRefused
from flopmeter.collector.access.rows import check_chain
from flopmeter.collector.check.fsck import check_store
from flopmeter.contract.enrolment import key_change_message


@pytest.fixture
def joined(desk, node):
    return node.joined(desk)


def renewed(desk, node, csr=None):
    given = desk.renew(node.agent_id, csr or node.new_key().csr(desk.ca.trust_domain), node.sequence)
    node.certificate, node.sequence = given.pem, given.sequence
    return given


def test_each_renewal_has_the_next_sequence_and_a_row(desk, joined, store):
    first = x509.load_pem_x509_certificate(joined.certificate)
    assert [renewed(desk, joined).sequence for _ in range(3)] == [2, 3, 4]
    assert x509.load_pem_x509_certificate(joined.certificate).serial_number != first.serial_number
    assert kinds(store)[-3:] == ["renewed"] * 3
    assert [json.loads(r.detail)["sequence"] for r in rows(store)[-3:]] == ["2", "3", "4"]
    assert check_chain(rows(store)) is None


def test_a_renewal_whose_answer_was_lost_is_answered_again(desk, joined, store):
    csr = joined.new_key().csr(desk.ca.trust_domain)
    first = desk.renew(joined.agent_id, csr, 1)
    assert desk.renew(joined.agent_id, csr, 1) == first
    assert kinds(store).count("renewed") == 1


def test_two_copies_of_a_key_are_both_refused(desk, joined, store):
    copy = Node(joined.chain, joined.key, joined.certificate, joined.ca, joined.sequence)
    renewed(desk, joined)
    with pytest.raises(AccessRefused) as caught:
        renewed(desk, copy)  # by the sequence that both had
    assert (caught.value.status, caught.value.code) == (409, "cloned")
    assert kinds(store)[-1] == "clone-seen"
    assert json.loads(rows(store)[-1].detail) == {"expected": "2", "got": "1"}
    for either in (joined, copy):
        with pytest.raises(AccessRefused) as caught:
            renewed(desk, either)
        assert caught.value.code == "revoked"
    assert kinds(store).count("clone-seen") == 1  # nobody fills the log with it


def test_a_store_that_was_set_back_locks_no_agent_out_and_still_finds_a_clone(desk, joined, store, caplog):
    """The agent has been given 7 since the copy was made; the thief has an older one."""
    given = desk.renew(joined.agent_id, joined.new_key().csr(desk.ca.trust_domain), 7)
    assert given.sequence == 8
    assert "set back" in caplog.text
    assert json.loads(rows(store)[-1].detail)["asked"] == "7"
    assert check_store(store, []).difference is None
    with pytest.raises(AccessRefused, match="in use twice"):
        desk.renew(joined.agent_id, Node(joined.chain).csr(desk.ca.trust_domain), 7)
    assert check_store(store, []).difference is None


@pytest.mark.parametrize("sequence", [1 << 62, (1 << 63) - 1, -1])
def test_a_sequence_that_could_not_go_on_is_none(desk, joined, store, sequence):
    with pytest.raises(AccessRefused) as caught:
        desk.renew(joined.agent_id, joined.new_key().csr(desk.ca.trust_domain), sequence)
    assert caught.value.code == "malformed"
    assert kinds(store)[-1] == "enrolled"


def test_who_makes_up_a_sequence_is_found_at_the_next_renewal_of_the_other(desk, joined, store):
    desk.renew(joined.agent_id, Node(joined.chain).csr(desk.ca.trust_domain), 1 << 40)
    with pytest.raises(AccessRefused, match="in use twice"):
        renewed(desk, joined)
    assert kinds(store)[-1] == "clone-seen"


@pytest.mark.parametrize(
    ("sequence", "same_csr", "expected"),
    [
        (5, False, NEW),
        (5, True, NEW),
        (4, True, REPEAT),
        (4, False, CLONED),
        (3, True, CLONED),
        (6, False, NEW),
    ],
)
def test_what_a_sequence_says(sequence, same_csr, expected):
    given = Given(5, b"c" * 32, b"", 0)
    assert judge_sequence(given, b"c" * 32 if same_csr else b"o" * 32, sequence) == expected


def test_a_renewal_for_another_name(desk, joined):
    csr = joined.csr(desk.ca.trust_domain, agent_id=bytes(16))
    with pytest.raises(AccessRefused, match="CSR"):
        desk.renew(joined.agent_id, csr, 1)


def test_an_agent_that_was_never_given_a_certificate(desk, node):
    with pytest.raises(AccessRefused) as caught:
        desk.renew(node.agent_id, node.csr(desk.ca.trust_domain), 1)
    assert caught.value.code == "unknown-agent"


def test_a_revoked_agent_gets_no_more_certificates(desk, joined, store):
    desk.revoke_agent(joined.agent_id, who="ann", why="decommissioned")
    with pytest.raises(AccessRefused) as caught:
        renewed(desk, joined)
    assert caught.value.code == "revoked"
    assert json.loads(rows(store)[-1].detail) == {"who": "ann", "why": "decommissioned"}
    with pytest.raises(AccessRefused, match="already"):
        desk.revoke_agent(joined.agent_id, who="ann", why="again")
    with pytest.raises(AccessRefused, match="found none"):
        desk.revoke_agent(bytes(16), who="ann", why="nobody")


def test_an_expired_certificate_is_renewed_by_the_record_key(desk, joined, clock, store):
    clock.move(hours=100)
    csr = joined.new_key().csr(desk.ca.trust_domain)
    given = desk.renew_expired(joined.agent_id, csr, 1, NONCE, joined.proof(csr))
    assert given.sequence == 2
    thief = Node(Chain("gpu-001", key_seed="thief"), sequence=2)
    thief_csr = thief.csr(desk.ca.trust_domain, agent_id=joined.agent_id)
    for what, proof in {
        "none": bytes(64),
        "another's": thief.proof(thief_csr),
        "of another CSR": joined.proof(csr),
    }.items():
        with pytest.raises(AccessRefused) as caught:
            desk.renew_expired(joined.agent_id, thief_csr, 2, NONCE, proof)
        assert caught.value.code == "bad-proof", what
    assert "clone-seen" not in kinds(store)  # whoever has not the key cannot have the agent locked out


# --- another record key ---


def change(desk, old: Node, new: Node, **other) -> KeyChange:
    csr = new.csr(desk.ca.trust_domain)
    message = key_change_message(old.agent_id, new.chain.public_key, der_of(csr), old.sequence)
    asked = KeyChange(
        old.agent_id, new.chain.public_key, csr, old.sequence, old.sign(message), new.sign(message)
    )
    return asked._replace(**other)


@pytest.fixture
def successor():
    return Node(Chain("gpu-001", key_seed="next"))


def test_a_new_record_key_is_signed_by_both_and_takes_the_place_of_the_old(desk, joined, successor, store):
    given = desk.change_key(change(desk, joined, successor))
    assert given.sequence == 1
    changed, enrolled = rows(store)[-2:]
    assert (changed.kind, changed.agent_id) == ("key-changed", joined.agent_id)
    assert (enrolled.kind, enrolled.agent_id, enrolled.subject) == (
        "enrolled",
        successor.agent_id,
        "gpu-001",
    )
    said = json.loads(changed.detail)
    assert (said["old"], said["new"]) == (joined.agent_id.hex(), successor.agent_id.hex())
    with pytest.raises(AccessRefused, match="took another record key"):
        renewed(desk, joined)
    successor.sequence = 1
    assert renewed(desk, successor).sequence == 2


def test_a_lost_answer_to_a_key_change(desk, joined, successor, store):
    asked = change(desk, joined, successor)
    assert desk.change_key(asked) == desk.change_key(asked)
    assert kinds(store).count("key-changed") == 1


def test_a_key_change_that_one_of_the_keys_did_not_sign(desk, joined, successor, store):
    good = change(desk, joined, successor)
    thief = Node(Chain("gpu-001", key_seed="thief"))
    for asked in (
        good._replace(by_old=good.by_new),
        good._replace(by_new=good.by_old),
        good._replace(by_old=bytes(64)),
        good._replace(public_key=thief.chain.public_key, csr=thief.csr(desk.ca.trust_domain)),
    ):
        with pytest.raises(AccessRefused) as caught:
            desk.change_key(asked)
        assert caught.value.code == "bad-proof"
    assert "key-changed" not in kinds(store)


def test_a_key_change_by_an_outdated_sequence_is_a_clones(desk, joined, successor, store):
    asked = change(desk, joined, successor)
    renewed(desk, joined)
    with pytest.raises(AccessRefused) as caught:
        desk.change_key(asked)
    assert caught.value.code == "cloned"
    assert kinds(store)[-1] == "clone-seen"


def test_no_agent_takes_the_key_of_another(desk, joined, successor):
    successor.joined(desk)
    with pytest.raises(AccessRefused, match="never used"):
        desk.change_key(change(desk, joined, successor))
