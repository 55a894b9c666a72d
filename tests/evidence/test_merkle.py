"""Proofs of the tree: public probes, the reference tree, and the slow reference for every size up to 64."""

import base64
import json

import pytest
import tlog_scales.tlog as scales
from evidence_reference import VECTORS, consistency_proof, inclusion_proof, many_proof, sha256, tree_root
from hypothesis import given, settings
from hypothesis import strategies as st

from flopmeter.evidence.errors import EvidenceError
from flopmeter.evidence.merkle import (
    SIZE_LIMIT,
    leaf_hash,
    node_hash,
    root_from_many,
    verify_consistency,
    verify_inclusion,
)

LEAVES = [leaf_hash(b"leaf %d" % number) for number in range(64)]
ROOTS = [tree_root(LEAVES[:size]) for size in range(65)]


def probes(name):
    lines = (VECTORS / name).read_text().splitlines()
    return [pytest.param(probe, id=probe["case"]) for probe in map(json.loads, lines)]


def raw(text):
    return base64.b64decode(text or "")


def accepted(check, *args):
    """True or False; anything but an EvidenceError fails the test."""
    try:
        check(*args)
    except EvidenceError:
        return False
    return True


@pytest.mark.parametrize("probe", probes("inclusion.jsonl"))
def test_inclusion_probe(probe):
    proof = [raw(one) for one in probe["proof"] or []]
    leaf, root = raw(probe["leafHash"]), raw(probe["root"])
    taken = accepted(verify_inclusion, probe["leafIdx"], probe["treeSize"], leaf, proof, root)
    assert taken is not probe["wantErr"]


@pytest.mark.parametrize("probe", probes("consistency.jsonl"))
def test_consistency_probe(probe):
    proof = [raw(one) for one in probe["proof"] or []]
    sizes = probe["size1"], probe["size2"]
    taken = accepted(verify_consistency, sizes[0], raw(probe["root1"]), sizes[1], raw(probe["root2"]), proof)
    assert taken is not probe["wantErr"]


def test_all_the_probes_are_there():
    assert len(probes("inclusion.jsonl")) == len(probes("consistency.jsonl")) == 98
    assert sum(probe.values[0]["wantErr"] for probe in probes("inclusion.jsonl")) == 92
    assert sum(probe.values[0]["wantErr"] for probe in probes("consistency.jsonl")) == 92


def test_the_reference_tree_of_certificate_transparency():
    tree = json.loads((VECTORS / "rfc6962_reference_tree.json").read_text())
    leaves = [leaf_hash(bytes.fromhex(leaf)) for leaf in tree["leaves_hex"]]
    for size, root in enumerate(map(bytes.fromhex, tree["roots_hex_by_size"])):
        assert tree_root(leaves[:size]) == root  # the reference that the other tests compare with is right
        if size:
            assert root_from_many(size, dict(enumerate(leaves[:size])), []) == root
        for index in range(size):
            verify_inclusion(index, size, leaves[index], inclusion_proof(index, leaves[:size]), root)


def test_hash_vectors():
    made = {"leaf": leaf_hash, "node": node_hash, "empty": lambda: sha256(b"")}
    for vector in json.loads((VECTORS / "rfc6962_reference_tree.json").read_text())["hash_vectors"]:
        given = [bytes.fromhex(vector["in_hex"])] if "in_hex" in vector else []
        given += [
            vector[name].encode() for name in ("in_ascii", "left_ascii", "right_ascii") if name in vector
        ]
        assert made[vector["op"]](*given).hex() == vector["out"]


def test_every_leaf_of_every_tree_up_to_64():
    for size in range(1, 65):
        for index in range(size):
            proof = inclusion_proof(index, LEAVES[:size])
            verify_inclusion(index, size, LEAVES[index], proof, ROOTS[size])
            assert (
                root_from_many(size, {index: LEAVES[index]}, many_proof({index}, LEAVES[:size]))
                == ROOTS[size]
            )


def test_a_proof_is_of_one_place_in_one_tree_only():
    """Leaf, index, size and length: each of the neighbours is refused, for every leaf of every tree up to 24."""
    for size in range(1, 25):
        for index in range(size):
            proof = inclusion_proof(index, LEAVES[:size])
            for other in range(size):
                if other != index:
                    assert not accepted(verify_inclusion, other, size, LEAVES[index], proof, ROOTS[size])
                    assert not accepted(verify_inclusion, index, size, LEAVES[other], proof, ROOTS[size])
            assert not accepted(verify_inclusion, index, size, LEAVES[index], [*proof, ROOTS[1]], ROOTS[size])
            if proof:
                assert not accepted(verify_inclusion, index, size, LEAVES[index], proof[1:], ROOTS[size])
                assert not accepted(verify_inclusion, index, size, LEAVES[index], proof[:-1], ROOTS[size])


def test_every_pair_of_trees_up_to_64():
    for new in range(1, 65):
        for old in range(1, new + 1):
            proof = consistency_proof(old, LEAVES[:new])
            verify_consistency(old, ROOTS[old], new, ROOTS[new], proof)
            fork = [*LEAVES[: old - 1], leaf_hash(b"another")]
            assert not accepted(verify_consistency, old, tree_root(fork), new, ROOTS[new], proof)
            assert not accepted(verify_consistency, old, ROOTS[old], new, ROOTS[new - 1], proof)
            assert not accepted(verify_consistency, old, ROOTS[old], new, ROOTS[new], [*proof, ROOTS[1]])
            if proof:
                assert not accepted(verify_consistency, old, ROOTS[old], new, ROOTS[new], proof[:-1])


@given(st.data())
@settings(max_examples=300, deadline=None)
def test_a_flipped_bit_anywhere_refuses_a_proof(data):
    new = data.draw(st.integers(1, 64))
    old = data.draw(st.integers(1, new))
    inclusion = [LEAVES[old - 1], ROOTS[new], *inclusion_proof(old - 1, LEAVES[:new])]
    consistency = [ROOTS[old], ROOTS[new], *consistency_proof(old, LEAVES[:new])]
    for hashes in (inclusion, consistency):
        place = data.draw(st.integers(0, len(hashes) - 1))
        bit = data.draw(st.integers(0, 255))
        hashes[place] = (int.from_bytes(hashes[place], "big") ^ 1 << bit).to_bytes(32, "big")
    leaf, root, *proof = inclusion
    assert not accepted(verify_inclusion, old - 1, new, leaf, proof, root)
    root1, root2, *proof = consistency
    assert not accepted(verify_consistency, old, root1, new, root2, proof)


@given(st.data())
@settings(max_examples=200, deadline=None)
def test_one_proof_for_many_leaves(data):
    size = data.draw(st.integers(1, 64))
    wanted = data.draw(st.sets(st.integers(0, size - 1), min_size=1))
    proof = many_proof(wanted, LEAVES[:size])
    chosen = {index: LEAVES[index] for index in wanted}
    assert root_from_many(size, chosen, proof) == ROOTS[size]
    # No more hashes than the single proofs have, and of those alone.
    single = {one for index in wanted for one in inclusion_proof(index, LEAVES[:size])}
    assert set(proof) <= single
    # Anything changed leads to another root, or to a refusal.
    assert not accepted(root_from_many, size, chosen, [*proof, ROOTS[1]])
    if proof:
        assert not accepted(root_from_many, size, chosen, proof[:-1])
        swapped = [*proof[1:], proof[0]]
        assert swapped == proof or root_from_many(size, chosen, swapped) != ROOTS[size]
    changed = data.draw(st.sampled_from(sorted(wanted)))
    assert root_from_many(size, chosen | {changed: leaf_hash(b"another")}, proof) != ROOTS[size]
    moved = data.draw(st.integers(0, size - 1))
    if moved not in wanted:
        others = {index: LEAVES[index] for index in wanted if index != changed} | {moved: LEAVES[changed]}
        try:
            assert root_from_many(size, others, proof) != ROOTS[size]
        except EvidenceError as refusal:
            assert refusal.step == "inclusion"


@pytest.mark.parametrize(
    ("size", "indexes"),
    [(0, [0]), (1, []), (1, [1]), (4, [-1]), (4, [4]), (SIZE_LIMIT, [0]), (-1, [0])],
)
def test_leaves_that_a_tree_has_not(size, indexes):
    with pytest.raises(EvidenceError, match="inclusion"):
        root_from_many(size, dict.fromkeys(indexes, LEAVES[0]), [])


def test_hashes_of_other_lengths():
    for short in (b"", LEAVES[0][:31], LEAVES[0] + b"\0", LEAVES[0] + LEAVES[1]):
        for leaves, siblings in (({0: short}, [LEAVES[1]]), ({0: LEAVES[0]}, [short])):
            with pytest.raises(EvidenceError, match="32 bytes"):
                root_from_many(2, leaves, siblings)
        with pytest.raises(EvidenceError, match="32 bytes"):
            verify_inclusion(0, 1, short, [], short)
        with pytest.raises(EvidenceError, match="32 bytes"):
            verify_consistency(1, LEAVES[0], 2, node_hash(LEAVES[0], short), [short])


def test_nothing_is_proven_from_the_empty_tree():
    with pytest.raises(EvidenceError, match="consistency"):
        verify_consistency(0, sha256(b""), 4, ROOTS[4], [])
    with pytest.raises(EvidenceError, match="consistency"):
        verify_consistency(0, sha256(b""), 0, sha256(b""), [])
    # RFC text leaves room here, and this independent library takes it (reference/attestation.md 2.3).
    scales.ConsistencyProof(0, 4, []).check(sha256(b""), ROOTS[4])


@pytest.mark.parametrize(("index", "size"), [(2**62, 2**63 - 1), (2**63 - 2, 2**63 - 1), (0, 2**63 - 1)])
def test_the_largest_trees(index, size):
    """A proof in a tree of 2^63 - 1 leaves: made by hashing upwards, as the definition has it."""
    node, proof, root = index, [], LEAVES[0]
    last = size - 1
    while last:
        sibling = sha256(b"%d" % len(proof))
        if node % 2 == 1:
            root = sha256(b"\x01" + sibling + root)
            proof.append(sibling)
        elif node < last:
            root = sha256(b"\x01" + root + sibling)
            proof.append(sibling)
        node, last = node // 2, last // 2
    verify_inclusion(index, size, LEAVES[0], proof, root)
    assert len(proof) <= 63
    with pytest.raises(EvidenceError, match="no leaf"):
        verify_inclusion(index, SIZE_LIMIT, LEAVES[0], proof, root)
    assert not accepted(verify_inclusion, index, size, LEAVES[0], [*proof, *proof], root)


def test_an_independent_library_agrees():
    """tlog-scales 0.0.3, a literal translation of RFC 9162: what we take, it takes, and the reverse."""
    for new in (1, 2, 3, 7, 8, 13, 33, 64):
        for old in range(1, new):
            proof = consistency_proof(old, LEAVES[:new])
            scales.ConsistencyProof(old, new, proof).check(ROOTS[old], ROOTS[new])
        for index in range(new):
            proof = inclusion_proof(index, LEAVES[:new])
            scales.InclusionProof(index, new, proof).check(LEAVES[index], ROOTS[new])
            for wrong in (proof[:-1], proof[::-1]) if len(proof) > 1 else ():
                with pytest.raises(scales.InclusionProofInvalid):
                    scales.InclusionProof(index, new, wrong).check(LEAVES[index], ROOTS[new])
                assert not accepted(verify_inclusion, index, new, LEAVES[index], wrong, ROOTS[new])


@pytest.mark.parametrize(("index", "size"), [(-1, 1), (-1, 4), (0, 0), (4, 4), (-4, -2), (0, -1)])
def test_no_such_leaf(index, size):
    for length in range(4):
        with pytest.raises(EvidenceError, match="there is no leaf"):
            verify_inclusion(index, size, LEAVES[0], [LEAVES[0]] * length, LEAVES[0])


@pytest.mark.parametrize(("old", "new"), [(4, 2), (2, 1), (3, 2), (-1, 1), (1, SIZE_LIMIT), (2**62, 2**61)])
def test_no_tree_goes_on_with_a_smaller_one(old, new):
    """Not even with one root for both, which a careless check takes for equal."""
    for root1, root2 in ((ROOTS[4], ROOTS[2]), (ROOTS[4], ROOTS[4])):
        with pytest.raises(EvidenceError, match="do not continue"):
            verify_consistency(old, root1, new, root2, [])
