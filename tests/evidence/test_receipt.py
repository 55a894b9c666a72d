"""tlog-proof@v1: the grammar's good and refused texts, and a receipt checked from leaf to quorum."""

import json
import random

import pytest
from evidence_reference import (
    VECTORS,
    Signer,
    base64_of,
    inclusion_proof,
    signed_checkpoint,
    tlog_proof,
    tree_root,
)

from flopmeter.evidence.errors import EvidenceError
from flopmeter.evidence.merkle import leaf_hash, verify_inclusion
from flopmeter.evidence.note import COSIGNED, LOG, parse_checkpoint, parse_key, parse_proof, signers

GRAMMAR = json.loads((VECTORS / "tlog_proof_format.json").read_text())
HASH = base64_of(bytes(range(32)))
HEAD = "c2sp.org/tlog-proof@v1\n"


@pytest.mark.parametrize("good", GRAMMAR["marshal"], ids=lambda good: good["text"].split("\n")[-2])
def test_published_texts(good):
    index, hashes, extra, checkpoint = parse_proof(good["text"].encode())
    assert index == good["index"]
    assert [base64_of(one) for one in hashes] == good["hashes"]
    assert (base64_of(extra) if extra else None) == good.get("extra")
    assert checkpoint == good["checkpoint"].encode()
    assert tlog_proof(index, hashes, checkpoint, extra) == good["text"].encode()


@pytest.mark.parametrize("bad", GRAMMAR["refuse"], ids=lambda bad: bad["why"])
def test_published_refusals(bad):
    with pytest.raises(EvidenceError, match="checkpoint: "):
        parse_proof(bad["text"].encode())


BAD = {
    "nothing": "",
    "header only": HEAD,
    "another version": "c2sp.org/tlog-proof@v2\nindex 0\n\ncheckpoint\n",
    "header with a space": "c2sp.org/tlog-proof@v1 \nindex 0\n\ncheckpoint\n",
    "header with any character for its dot": "c2sp-org/tlog-proof@v1\nindex 0\n\ncheckpoint\n",
    "CR": (HEAD + "index 0\n\ncheckpoint\n").replace("\n", "\r\n"),
    "a line before": "\n" + HEAD + "index 0\n\ncheckpoint\n",
    "no blank line": HEAD + "index 0\ncheckpoint\n",
    "no newline": HEAD + "index 0",
    "index with a leading zero": HEAD + "index 00\n\ncheckpoint\n",
    "index with two spaces": HEAD + "index  0\n\ncheckpoint\n",
    "index with a space behind": HEAD + "index 0 \n\ncheckpoint\n",
    "index with a tab": HEAD + "index\t0\n\ncheckpoint\n",
    "index in capitals": HEAD + "Index 0\n\ncheckpoint\n",
    "index with a plus": HEAD + "index +1\n\ncheckpoint\n",
    "index in other digits": HEAD + "index ٣\n\ncheckpoint\n",
    "index of 2^63": HEAD + "index 9223372036854775808\n\ncheckpoint\n",
    "index of 10,000 digits": HEAD + f"index {'9' * 10_000}\n\ncheckpoint\n",
    "two indexes": HEAD + "index 0\nindex 0\n\ncheckpoint\n",
    "extra behind the index": HEAD + "index 0\nextra AAAA\n\ncheckpoint\n",
    "two extras": HEAD + "extra AAAA\nextra AAAA\nindex 0\n\ncheckpoint\n",
    "extra of nothing": HEAD + "extra \nindex 0\n\ncheckpoint\n",
    "extra without padding": HEAD + "extra AA\nindex 0\n\ncheckpoint\n",
    "extra with other trailing bits": HEAD + "extra AB==\nindex 0\n\ncheckpoint\n",
    "extra in base64url": HEAD + "extra -_8=\nindex 0\n\ncheckpoint\n",
    "hash without padding": HEAD + f"index 0\n{HASH[:-1]}\n\ncheckpoint\n",
    "hash with other trailing bits": HEAD + f"index 0\n{HASH[:-2]}9=\n\ncheckpoint\n",
    "hash with a space": HEAD + f"index 0\n{HASH} \n\ncheckpoint\n",
    "hash of 31 bytes": HEAD + f"index 0\n{base64_of(bytes(31))}\n\ncheckpoint\n",
    "65 hashes": HEAD + "index 0\n" + (HASH + "\n") * 65 + "\ncheckpoint\n",
    "10 MB": HEAD + "index 0\n\n" + "a" * 10_000_000,
}


@pytest.mark.parametrize("bad", BAD.values(), ids=BAD)
def test_refused(bad):
    with pytest.raises(EvidenceError) as refusal:
        parse_proof(bad.encode())
    assert refusal.value.step == "checkpoint"
    assert len(refusal.value.reason) < 700


def test_not_utf8():
    with pytest.raises(EvidenceError, match="tlog-proof"):
        parse_proof(HEAD.encode() + b"index 0\n\ncheck\xffpoint\n")


def test_64_hashes_are_read():
    assert len(parse_proof((HEAD + "index 0\n" + (HASH + "\n") * 64 + "\ncheckpoint\n").encode())[1]) == 64


def test_a_receipt_from_leaf_to_witness():
    entries = [b"entry %d" % number for number in range(11)]
    leaves = [leaf_hash(entry) for entry in entries]
    log, witness = Signer("lab.example/log", LOG), Signer("w.example", COSIGNED)
    keys = [parse_key(log.vkey), parse_key(witness.vkey)]
    note = signed_checkpoint("lab.example/log", leaves, log, witness)
    for number, entry in enumerate(entries):
        receipt = tlog_proof(number, inclusion_proof(number, leaves), note, entry)
        index, hashes, extra, checkpoint = parse_proof(receipt)
        head = parse_checkpoint(checkpoint)
        assert len(signers(head, keys)) == 2
        verify_inclusion(index, head.size, leaf_hash(extra or b""), hashes, head.root)
        assert head.root == tree_root(leaves)
    # Any bit but those of the lines' base64 of unknown signers leads to a refusal.
    for bit in random.Random(11).sample(range(len(receipt) * 8), 800):
        damaged = bytearray(receipt)
        damaged[bit // 8] ^= 1 << bit % 8
        with pytest.raises(EvidenceError):
            index, hashes, extra, checkpoint = parse_proof(bytes(damaged))
            head = parse_checkpoint(checkpoint)
            if len(signers(head, keys)) < 2:
                raise EvidenceError("checkpoint", "a signer's name or id was changed: now unknown")
            verify_inclusion(index, head.size, leaf_hash(extra or b""), hashes, head.root)
