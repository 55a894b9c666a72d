"""What attestations are made of, piece by piece: salted fields, the sum tree, rows that are chained, the container."""

import hashlib
import itertools
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flopmeter.cli.container import read
from flopmeter.collector.attest import container, disclosures, rows
from flopmeter.collector.attest.batches import workload_bytes
from flopmeter.collector.attest.errors import AttestError, AttestRefused
from flopmeter.collector.attest.said import (
    ISSUED,
    RECORD,
    AttestationRow,
    check_chain,
    check_superseded,
    next_row,
    uuid7,
)
from flopmeter.collector.attest.sum_tree import COMPONENTS, SumLeaf, sum_tree
from flopmeter.collector.chained_words import NO_HASH
from flopmeter.evidence.disclosure import field_digest, open_disclosures, record_digest
from flopmeter.evidence.errors import EvidenceError
from flopmeter.evidence.merkle import leaf_hash, verify_inclusion
from flopmeter.evidence.sumtree import SumNode, leaf_node, parent_node, sum_root, verify_opening
from flopmeter.wire.v1 import batch_pb2


def counted():
    """Bytes that are new each time, and the same in each test."""
    numbers = itertools.count()
    return lambda n: hashlib.sha256(str(next(numbers)).encode()).digest()[:n]


# ---- salted fields -----------------------------------------------------------------------------------------


def test_every_field_is_opened_by_its_disclosure_and_by_no_other():
    values = {"/a": "1", "/b": [{"c": None, "d": True}], "/e/f": {"lower": str(2**53 + 1)}}
    record = disclosures.sealed(values, counted())
    assert open_disclosures(list(record.disclosures.values()), record.field_digests) == values
    assert record.values == values
    assert record_digest(record.field_digests) == record.digest
    assert record.field_digests == sorted(record.field_digests)
    assert len(record.field_digests) % disclosures.DECOYS_TO == 0
    assert len(record.field_digests) >= len(values) + disclosures.LEAST_DECOYS
    assert disclosures.of_json(json.loads(json.dumps(record.as_json()))) == record


def test_a_salt_that_comes_twice_is_refused():
    with pytest.raises(AttestError, match="salts"):
        disclosures.sealed({"/a": "1", "/b": "2"}, bytes)


def test_two_records_of_the_same_values_have_nothing_in_common():
    random = counted()
    one, two = (disclosures.sealed({"/a": "1"}, random) for _ in range(2))
    assert not set(one.field_digests) & set(two.field_digests)


@pytest.mark.parametrize("value", [1, 1.5, [1], {"a": {"b": 2}}])
def test_a_number_is_no_value(value):
    with pytest.raises(AttestError, match="expected text"):
        disclosures.sealed({"/a": value}, counted())


def test_the_digest_is_of_the_disclosures_text():
    text = disclosures.disclosure("s" * 22, "/a", "x")
    assert field_digest(text) == disclosures.base64url(hashlib.sha256(text.encode()).digest())


# ---- the sum tree ------------------------------------------------------------------------------------------

vectors = st.lists(st.tuples(*[st.integers(0, 2**90)] * len(COMPONENTS)), min_size=1, max_size=17)


@settings(max_examples=30)
@given(vectors)
def test_every_leaf_leads_to_the_total(found):
    tree = sum_tree([SumLeaf(v, f"leaf {i}") for i, v in enumerate(found)])
    assert tree.total == tuple(map(sum, zip(*found, strict=True)))
    for i, leaf in enumerate(tree.leaves):
        node = leaf_node(len(found), i, leaf.sums, leaf.commitment)
        verify_opening(len(found), i, node, tree.opening(i), total=tree.total, root=tree.root)


def test_the_naive_attack_is_refused():
    """107 shown as 100: each member is satisfied by a sibling of its own (reference/attestation.md 3.2)."""
    commitment = hashlib.sha256(b"x").digest()
    a, b = (leaf_node(2, i, (n,), commitment) for i, n in enumerate((100, 7)))
    less_b, less_a = SumNode((0,), b.hash), SumNode((93,), a.hash)
    # Whichever root is published, one of the two members is not satisfied with 100.
    for top in (parent_node(2, a, less_b), parent_node(2, less_a, b)):
        root, satisfied = sum_root(2, top), 0
        for leaf, index, sibling in ((a, 0, less_b), (b, 1, less_a)):
            try:
                verify_opening(2, index, leaf, [sibling], total=(100,), root=root)
                satisfied += 1
            except EvidenceError:
                pass
        assert satisfied == 1
    # And what is made here is of both.
    tree = sum_tree([SumLeaf((n, 0, 0, 0, 0, 0), str(n)) for n in (100, 7)])
    assert tree.total[0] == 107
    for total in (100, 106):
        with pytest.raises(EvidenceError):
            leaf = leaf_node(2, 0, tree.leaves[0].sums, tree.leaves[0].commitment)
            verify_opening(2, 0, leaf, tree.opening(0), total=(total, *tree.total[1:]), root=tree.root)


@pytest.mark.parametrize("number", [-1, 1 << 112])
def test_a_sum_that_could_cancel_or_wrap_is_refused(number):
    with pytest.raises(EvidenceError):
        sum_tree([SumLeaf((number,) * 6, "x")])


# ---- rows under one root -----------------------------------------------------------------------------------


@given(st.integers(1, 40))
def test_each_row_is_proven_alone(size):
    texts = [f"row {i}" for i in range(size)]
    for i, (text, proof) in enumerate(zip(texts, rows.rows_proofs(texts), strict=True)):
        verify_inclusion(i, size, leaf_hash(text.encode()), proof, rows.rows_root(texts))


# ---- the attestations table --------------------------------------------------------------------------------


def row(kind=RECORD, **changed):
    issued = kind == ISSUED
    found = AttestationRow(
        attestation_no=0, unix_ns=1, position=7, kind=kind,
        attestation_id=uuid7(1, b"x" * 10) if issued else "", commitment="c" * 64, run="r1",
        profile="auditor" if issued else "", recipient="me" if issued else "", record_digest="a" * 64,
        statement_sha256="b" * 64 if issued else "", supersedes="", who="ada", why="said", detail="{}",
        salt=bytes(16), prev_hash=NO_HASH, hash=NO_HASH,
    )  # fmt: skip
    return found._replace(**changed)


def chained(*unsealed):
    found = []
    for one in unsealed:
        found.append(next_row(found[-1] if found else None, one))
    return found


def test_a_good_chain_holds():
    assert check_chain(chained(row(), row(ISSUED))) is None


@pytest.mark.parametrize(
    ("column", "value"),
    [("run", "r2"), ("record_digest", "d" * 64), ("recipient", "you"), ("why", "else"), ("salt", b"y" * 16),
     ("attestation_no", 9), ("prev_hash", b"z" * 32), ("position", "7"), ("commitment", "e" * 64)],
)  # fmt: skip
def test_a_changed_row_is_found(column, value):
    rows = chained(row(), row(ISSUED), row())
    rows[1] = rows[1]._replace(**{column: value})
    fault = check_chain(rows)
    assert fault is not None
    assert fault.number == 2


def test_a_rows_hash_is_over_all_before_it_and_its_salt():
    """The hash leaves the house in a leaf: it binds what was said before, and no name can be guessed from it."""
    one = chained(row(who="ada"), row(ISSUED))[1]
    other = chained(row(who="eve"), row(ISSUED))[1]
    assert one[:16] == other[:16]
    assert one.hash != other.hash
    assert chained(row(), row(ISSUED, salt=b"y" * 16))[1].hash != chained(row(), row(ISSUED))[1].hash


def test_an_issued_row_without_its_record_is_found():
    assert check_chain(chained(row(record_digest="f" * 64), row(ISSUED))).column == "record_digest"


@pytest.mark.parametrize(
    "changed",
    [{"kind": "said"}, {"run": ""}, {"attestation_id": "7"}, {"record_digest": "A" * 64}, {"who": " "},
     {"who": "x" * 3_000}, {"detail": "[]"}, {"supersedes": "1"}, {"salt": b""}, {"run": "a\nb"}],
)  # fmt: skip
def test_what_is_no_row_is_not_made(changed):
    with pytest.raises(AttestError):
        next_row(None, row(ISSUED)._replace(**changed))


def test_what_may_be_superseded():
    first, other = uuid7(1, b"a" * 10), uuid7(2, b"b" * 10)
    rows = chained(row(), row(ISSUED, attestation_id=first))
    assert check_superseded(rows, "r1", first).attestation_id == first
    for run, wanted, message in (("r2", first, "of run r2"), ("r1", other, "found none")):
        with pytest.raises(AttestRefused, match=message):
            check_superseded(rows, run, wanted)
    rows += chained(*rows, row(ISSUED, attestation_id=other, supersedes=first))[-1:]
    with pytest.raises(AttestRefused, match="superseded"):
        check_superseded(rows, "r1", first)


def test_a_uuid7_has_the_milliseconds_and_the_version():
    found = uuid7(0x0123456789AB, b"\xff" * 10)
    assert found == "01234567-89ab-7fff-bfff-ffffffffffff"
    assert uuid7(1, b"a" * 10) < uuid7(2, b"a" * 10)


# ---- container and wire ------------------------------------------------------------------------------------


def test_the_container_is_what_the_verifier_reads(tmp_path):
    (tmp_path / "big").write_bytes(b"r" * 3_000_000)
    names = ("bundle.sigstore.json", "evidence.json", "receipt.tlog-proof")
    contents = (b"{}", tmp_path / "big", b"")
    members = [container.member(n, c) for n, c in zip(names, contents, strict=True)]
    with (tmp_path / "x.zip").open("wb") as f:
        container.write(f, members)
    found = read(tmp_path / "x.zip")
    assert [(n, m.size, m.sha256) for n, m in found.items()] == [(m.name, m.size, m.sha256) for m in members]


@given(st.lists(st.text(max_size=30), max_size=5), st.binary(max_size=20))
def test_workloads_are_cut_out_as_they_stand(jobs, extra):
    message = batch_pb2.Batch(agent_version="1", window_start_boot_ns=7)
    for job in jobs:
        message.workloads.add(kind=3, job=job, identities=[batch_pb2.Identity(name="n", value=job)])
    # A field of a newer agent that this version does not know stays where it is.
    raw = message.SerializeToString() + b"\xfa\x3e" + bytes([len(extra)]) + extra
    assert workload_bytes(raw) == [w.SerializeToString() for w in message.workloads]
