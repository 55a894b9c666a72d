"""From a store to a file that an outsider checks: a witness cosigned its head, an authority dated it, the verifier counts both."""

import json
from contextlib import closing
from pathlib import Path

import pytest
from attest_books import LAWS, RUN, full_store, keys, predicate
from processes import flopmeter
from tsa_rig import make_tsa, stamping
from witness_rig import Clock, Log, served
from witness_rig import keys as witness_keys

from flopmeter.collector.keys import log_key
from flopmeter.collector.log.evidence_log import EvidenceLog
from flopmeter.collector.store.reading import open_for_reading
from flopmeter.evidence.note import parse_key
from flopmeter.witness.heads import Heads
from flopmeter.witness.witness import Witness

SILENT = witness_keys("silent.example", seed=b"\x33" * 32)[0]


@pytest.fixture(scope="module")
def issued(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder: run.zip, and what an outsider was handed beside it."""
    folder = tmp_path_factory.mktemp("lab")
    store = folder / "books.sqlite"
    full_store(store)
    (folder / "laws").mkdir()
    for law in LAWS:
        (folder / "laws" / f"{law.id}.toml").write_text(law.text)
    common = ["--profile", "downstream", "--store", store, "--regimes", folder / "laws", "--who", "ada@lab"]
    first = flopmeter("attest", "create", RUN, *common, "-o", folder / "alone.zip", "--json")
    assert first.returncode == 0, first.stderr
    with closing(open_for_reading(store)) as db:
        identity = EvidenceLog(db).identity
    assert identity is not None
    ours, tsa = witness_keys(ml_dsa=True), make_tsa(folder)
    with (
        closing(Heads(folder / "witness.db")) as heads,
        stamping(tsa) as authority,
        served(Witness(ours, [parse_key(identity.vkey)], heads, Clock())) as server,
    ):
        policy = folder / "policy"
        lines = [f"log {identity.vkey}"]
        lines += [f"witness w{i} {k.vkey} {server.url}" for i, k in enumerate(ours)]
        lines += [f"witness silent {SILENT.vkey} http://127.0.0.1:9", "group w 1 w0 w1", "quorum w"]
        policy.write_text("\n".join(lines) + "\n")
        words = ["--witness-policy", policy, "--tsa", authority.url, "--tsa-ca", tsa.ca]
        made = flopmeter("attest", "create", RUN, *common, *words, "-o", folder / "run.zip", "--json")
        assert made.returncode == 0, made.stderr
    (folder / "made.json").write_text(made.stdout)
    shown = flopmeter("collector", "keys", "show", "--store", store, "--json")
    assert shown.returncode == 0, shown.stderr
    (folder / "lab.pem").write_text(pem_of(json.loads(shown.stdout)))
    assert log_key(keys(store)).public == parse_key(identity.vkey).public
    return folder


def pem_of(document: object) -> str:
    """The attestation key among what `keys show` prints."""
    found = [v for v in leaves(document) if "BEGIN PUBLIC KEY" in v]
    assert len(found) == 1
    return found[0]


def leaves(document: object) -> list[str]:
    if isinstance(document, dict):
        return [leaf for value in document.values() for leaf in leaves(value)]
    if isinstance(document, list):
        return [leaf for value in document for leaf in leaves(value)]
    return [document] if isinstance(document, str) else []


def test_the_statement_says_who_cosigned_and_how_many_dated_it(issued: Path) -> None:
    said = json.loads((issued / "made.json").read_text())["assurance"]
    assert said == "Assurance: witnessed (1 of 2 that the operator names: w0); 1 RFC 3161 timestamps of it."
    assert len(predicate(issued / "run.zip")["evidence"]["timestamps"]) == 1
    assert predicate(issued / "run.zip")["evidence"]["checkpoint"].count("witness.example/1") == 2
    assert predicate(issued / "alone.zip")["evidence"]["timestamps"] == []


def verify(issued: Path, file: str, policy: str) -> tuple[int, dict[str, object]]:
    (issued / "theirs").write_text(policy)
    words = [
        "--key",
        issued / "lab.pem",
        "--policy",
        issued / "theirs",
        "--tsa-cert",
        issued / "ca.pem",
        "--json",
    ]
    done = flopmeter("verify", issued / file, *words)
    return done.returncode, json.loads(done.stdout)


def test_a_verifier_with_the_same_witness_takes_it(issued: Path) -> None:
    code, found = verify(issued, "run.zip", (issued / "policy").read_text())
    assert code == 0, found
    assert found["timestamps"] == {"verified": "1", "there": "1"}


def test_a_verifier_that_asks_for_another_witness_does_not(issued: Path) -> None:
    policy = (issued / "policy").read_text()
    assert verify(issued, "run.zip", policy.replace("quorum w", "quorum silent"))[0] == 1
    code, found = verify(issued, "alone.zip", policy)
    assert code == 1
    assert "quorum" in json.dumps(found)
    other = Log("lab.example/log", b"\x44" * 32)
    assert verify(issued, "run.zip", policy.replace(policy.split()[1], other.vkey))[0] == 1
