"""Attestations of a store made by hand: all that they must say is there, and right, and the verifier agrees."""

import json
import re
from fractions import Fraction
from random import Random

import pytest
from attest_books import (
    BELOW,
    CROSSED,
    LAWS,
    NAMES,
    RUN,
    attest,
    evidence,
    full_store,
    keys,
    members,
    payload,
    predicate,
    sha256,
    statement,
)  # fmt: skip

from flopmeter.audit.pack import check_pack, one_by_one
from flopmeter.audit.steps import Key, Wanted, verify
from flopmeter.cli.container import read
from flopmeter.collector.attest.disclosures import opened
from flopmeter.collector.attest.errors import AttestError, AttestRefused
from flopmeter.collector.attest.profiles import PROFILES
from flopmeter.collector.attest.signing import key_id, loaded
from flopmeter.collector.keys import attest_key
from flopmeter.collector.log.evidence_log import EvidenceLog
from flopmeter.collector.report.queries import asked, reading
from flopmeter.collector.store.reading import open_for_reading
from flopmeter.contract.flop import Figure
from flopmeter.evidence.errors import EvidenceError


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    path = tmp_path_factory.mktemp("attest") / "books.sqlite"
    full_store(path)
    return path


@pytest.fixture(scope="module")
def files(path):
    """One record, in all four views, the auditor's first."""
    found = {"auditor": path.parent / "auditor.zip"}
    first = attest(path, "auditor", found["auditor"])
    for profile in set(PROFILES) - {"auditor"}:
        found[profile] = path.parent / f"{profile}.zip"
        attest(path, profile, found[profile], record=first.row.record_digest)
    return found


@pytest.fixture(scope="module")
def document(path):
    """`runs show --json`, as of the run's end."""
    with reading(path) as reader:
        (last,) = reader.rows("SELECT max(last_unix_ns) FROM workloads WHERE run = ?", (RUN,)).fetchone()
        (found,) = reader.runs(asked(last, LAWS), RUN)
    return found


def checked(file, path):
    """What the verifier finds."""
    spki = attest_key(keys(path)).spki_der

    def pack(*given):
        return check_pack(*given, lambda facts, places, _: one_by_one(facts, places))

    return verify(read(file), Key(loaded(spki), key_id(spki)), Wanted(pack=pack))


def test_every_view_verifies(files, path):
    for file in files.values():
        assert checked(file, path).predicate == predicate(file)


@pytest.mark.parametrize("profile", ["auditor", "downstream"])
def test_one_bit_anywhere_is_found(files, path, tmp_path, profile):
    raw = files[profile].read_bytes()
    random = Random(profile)
    for _ in range(60):
        at = random.randrange(8 * len(raw))
        changed = bytearray(raw)
        changed[at // 8] ^= 1 << at % 8
        # Another name each time: the reader keeps files open by theirs.
        file = tmp_path / f"{at}.zip"
        file.write_bytes(changed)
        with pytest.raises(EvidenceError):
            checked(file, path)
        file.unlink()


def test_the_header_says_who_what_and_when(files, path):
    p = predicate(files["auditor"])
    assert p["schemaVersion"] == "1"
    assert p["issuer"]["role"] == "operator"
    assert p["issuer"]["keyId"] == attest_key(keys(path)).key_id
    assert p["supersedes"] == []
    assert p["issuedAt"].endswith("Z")


def test_the_run_is_named_to_nobody(files):
    p = predicate(files["auditor"])
    assert p["run"]["kind"] == "pretraining"
    assert p["run"]["purposeTags"] == ["experiment", "pretraining"]
    relations = {a["relation"]: a["flopCarried"] for a in p["run"]["lineage"]}
    assert relations["fine-tunes"] == {
        "lower": str(10**12),
        "point": str(2 * 10**12),
        "upper": str(3 * 10**12),
    }
    assert set(relations) == {"fine-tunes", "continues"}
    assert p["run"]["linkedRuns"]["count"] == "1"
    assert int(p["run"]["linkedRuns"]["flop"]["point"]) > 0
    assert RUN.encode() not in payload(files["auditor"])


def test_totals_and_coverage_are_those_of_the_report(files, document):
    p = predicate(files["auditor"])
    assert p["totals"]["executedFlop"] == document["executed"]["flop"]
    (mine,) = [c for c in p["totals"]["countable"] if c["regime"] == CROSSED.id]
    assert mine["flop"] == document["countable"][CROSSED.id]["flop"]
    assert Fraction(p["totals"]["energyJoules"]["value"]) * 1000 == round(document["energy_joules"] * 1000)
    coverage, said = p["coverage"], document["coverage"]
    assert float(Fraction(coverage["expectedDeviceSeconds"])) == said["expected_device_seconds"]
    assert float(Fraction(coverage["observedDeviceSeconds"])) == said["observed_device_seconds"]
    assert float(Fraction(coverage["gaps"]["seconds"])) == said["gap_device_seconds"]
    # One that the agent told of, and the rest of the two that the twin told of twice.
    assert int(coverage["gaps"]["count"]) >= 1
    assert int(coverage["gaps"]["flopUpperAdded"]) > 0
    assert coverage["cloneAlarms"] != "0"
    assert coverage["agents"]["expected"] == "3"
    assert p["period"]["start"][:19] == document["first_seen"][:19]
    assert p["period"]["end"][:19] == document["last_seen"][:19]
    assert p["method"]["within30Percent"] is document["accuracy"]["within"]


def test_what_is_excluded_names_the_entry_that_says_why(files, path):
    (mine,) = [c for c in predicate(files["auditor"])["totals"]["countable"] if c["regime"] == CROSSED.id]
    (excluded,) = mine["excluded"]
    assert excluded["tag"] == "experiment"
    assert int(excluded["flop"]["point"]) > 0
    (proof,) = [p for p in evidence(files["auditor"])["proofs"] if p["role"] == "entry"]
    assert proof["index"] == excluded["evidenceLogIndex"]
    assert "ticket 7" in proof["body"]


def test_precision_adds_up_and_has_every_pipe(files):
    p = predicate(files["auditor"])
    lines = [
        Figure(*(int(line["flop"][b]) for b in ("lower", "point", "upper"))) for line in p["byPrecision"]
    ]
    whole = p["totals"]["executedFlop"]
    assert sum(f.point for f in lines) == int(whole["point"])
    assert sum(f.lower for f in lines) <= int(whole["lower"])
    assert sum(f.upper for f in lines) >= int(whole["upper"])
    kinds = {(line["pipe"], line["format"]) for line in p["byPrecision"]}
    assert {("hmma", "bf16"), ("hmma", "fp8"), ("fp32", "vector"), ("gap", "unknown")} <= kinds


def test_classes_share_the_point(files):
    classes = {
        c["class"]: Fraction(c["flopShare"]) for c in predicate(files["auditor"])["method"]["evidenceClasses"]
    }
    assert sum(classes.values()) == 1
    assert set(classes) == {"A1", "B1"}


def test_thresholds_are_exact_and_name_their_event(files, document, path):
    found = {t["rule"]: t for t in predicate(files["auditor"])["thresholds"]}
    assert found[CROSSED.id]["status"] == "crossed"
    assert found[CROSSED.id]["limit"] == str(10**14)
    assert found[CROSSED.id]["ruleTableSha256"] == CROSSED.digest
    assert found[CROSSED.id]["dueAt"] is not None
    assert found[BELOW.id]["status"] == "below"
    assert found[BELOW.id]["eventLogIndex"] is None
    (event,) = [p for p in evidence(files["auditor"])["proofs"] if p["role"] == "event"]
    body = json.loads(event["body"])
    assert event["index"] == found[CROSSED.id]["eventLogIndex"]
    assert body["type"] == "threshold.crossed"
    assert body["subject"] == RUN


def test_a_start_that_was_declared_before_the_first_batch_is_proven(files):
    p = predicate(files["auditor"])
    (start,) = [x for x in evidence(files["auditor"])["proofs"] if x["role"] == "start"]
    assert start["index"] == p["scope"]["precommittedBy"]
    assert int(start["index"]) < int(p["evidence"]["leafRange"][0])
    assert "skunkworks" in start["body"]


def test_the_record_is_logged_before_the_statement_and_the_statement_after(files, path):
    p = predicate(files["auditor"])
    assert int(p["evidence"]["recordEntry"]["index"]) < int(p["evidence"]["treeSize"])
    receipt = members(files["auditor"])["receipt.tlog-proof"].decode()
    index = int(next(line for line in receipt.splitlines() if line.startswith("index ")).split()[1])
    assert index >= int(p["evidence"]["treeSize"])
    log = EvidenceLog(open_for_reading(path))
    assert json.loads(log.leaf(index))["kind"] == "attestation"
    with reading(path) as reader:
        (digest,) = reader.rows(
            "SELECT statement_sha256 FROM attestations WHERE attestation_id = ?", (p["attestationId"],)
        ).fetchone()
    assert digest == sha256(payload(files["auditor"]))


def test_all_views_have_one_record_digest_and_each_its_pseudonym(files):
    found = {profile: predicate(file) for profile, file in files.items()}
    assert len({p["record"]["digest"] for p in found.values()}) == 1
    assert len({tuple(p["record"]["fieldDigests"]) for p in found.values()}) == 1
    assert len({p["run"]["pseudonym"] for p in found.values()}) == len(PROFILES)


def test_another_record_of_the_same_run_shares_no_salt_and_no_digest(files, path, tmp_path):
    attest(path, "auditor", tmp_path / "again.zip")
    salts = [
        {opened(d)[0] for d in evidence(f)["disclosures"]} for f in (files["auditor"], tmp_path / "again.zip")
    ]
    assert len(salts[0]) == len(evidence(files["auditor"])["disclosures"])
    assert not salts[0] & salts[1]
    assert not {*predicate(files["auditor"])["record"]["fieldDigests"]} & {
        *predicate(tmp_path / "again.zip")["record"]["fieldDigests"]
    }
    # The recipient is led on from the head that it was shown.
    p = predicate(tmp_path / "again.zip")
    was = predicate(files["auditor"])["evidence"]
    assert p["evidence"]["previous"] == {"treeSize": was["treeSize"], "rootHash": was["rootHash"]}
    assert p["run"]["pseudonym"] == predicate(files["auditor"])["run"]["pseudonym"]


def test_who_is_owed_less_reads_no_name_and_no_exact_total(files, document):
    exact = {v for f in (document["executed"]["flop"],) for v in f.values()}
    exact |= {document["countable"][CROSSED.id]["flop"][b] for b in ("lower", "point", "upper")}
    for profile in ("aiOffice", "nationalAuthority", "downstream"):
        raw = b"".join(members(files[profile]).values())
        texts = raw + payload(files[profile])
        for text in evidence(files[profile])["disclosures"]:
            texts += json.dumps(opened(text)).encode()
        for name in NAMES:
            # Four digits stand in some hash or other: as a word of its own is how a name would be told.
            word = rb"(?<![0-9A-Za-z+])" + re.escape(name.encode()) + rb"(?![0-9A-Za-z+])"
            assert re.search(word, texts) is None, (profile, name)
        for number in exact:
            assert number.encode() not in texts, (profile, number)


def test_downstream_reads_its_status_and_hardly_more(files):
    p = predicate(files["downstream"])
    assert p["run"].keys() == {"pseudonym", "kind"}
    assert p["period"].keys() == {"end"}
    assert p["totals"] == {"countable": []}
    assert p["coverage"] == p["method"] == p["inventory"] == {}
    assert {t["rule"]: t["status"] for t in p["thresholds"]} == {CROSSED.id: "crossed", BELOW.id: "below"}
    assert all(t["firstCrossedAt"] is None for t in p["thresholds"])
    named = {r["path"] for r in p["redactions"]}
    assert {
        "/totals/executedFlop",
        "/byPrecision",
        "/inventory/devices",
        f"/totals/countable/{CROSSED.id}",
    } <= named
    assert all(r["reason"] for r in p["redactions"])
    assert all(x["body"] is None for x in evidence(files["downstream"])["proofs"] if x["role"] != "record")


def test_the_ai_office_reads_two_figures_and_its_own_rules(files):
    p = predicate(files["aiOffice"])
    for bound in p["totals"]["executedFlop"].values():
        assert len(bound.rstrip("0")) <= 2 or bound == p["totals"]["executedFlop"]["upper"]
    assert [t["rule"] for t in p["thresholds"]] == [CROSSED.id]
    assert {"path": f"/thresholds/{BELOW.id}", "form": "withheld"}.items() <= next(
        r for r in p["redactions"] if r["path"] == f"/thresholds/{BELOW.id}"
    ).items()
    parts = sum(int(line["flop"]["point"]) for line in p["byPrecision"])
    assert parts == int(p["totals"]["executedFlop"]["point"])
    assert evidence(files["aiOffice"])["sumTree"] == []
    # Exact shares would give the exact total away.
    shares = [Fraction(c["flopShare"]) for c in p["method"]["evidenceClasses"]]
    assert sum(shares) == 1
    assert all(100 % s.denominator == 0 for s in shares)


def test_the_national_authority_reads_an_order_of_magnitude(files):
    p = predicate(files["nationalAuthority"])
    assert all(set(b) <= {"1", "0"} and b.count("1") <= 1 for b in p["totals"]["executedFlop"].values())
    assert "deviceSeconds" not in p["totals"]


def test_the_auditor_opens_every_group_and_every_device(files, document):
    found, p = evidence(files["auditor"]), predicate(files["auditor"])
    assert len(found["sumTree"]) == int(p["evidence"]["sumTree"]["leafCount"])
    assert len(found["devices"]) == sum(int(d["count"]) for d in p["inventory"]["devices"]) == 3
    vectors = [[int(n) for n in leaf["sums"]] for leaf in found["sumTree"]]
    total = [sum(column) for column in zip(*vectors, strict=True)]
    assert [str(n) for n in total[:3]] == [
        p["totals"]["executedFlop"][b] for b in ("lower", "point", "upper")
    ]
    assert Fraction(total[3], 10**9) == Fraction(p["totals"]["deviceSeconds"])


def test_the_pack_has_what_was_left_out_and_its_sums_are_the_books(files, path):
    manifest = json.loads(members(files["auditor"])["pack/manifest.json"])
    assert manifest["leftOut"]
    assert {w["dtype"] for w in manifest["workloads"]} == {"bf16", "fp8"}
    assert "batches of 3 agents" in checked(files["auditor"], path).pack


def test_what_no_attestation_proves_is_said_in_each(files):
    for file in files.values():
        limits = predicate(file)["scope"]["limits"]
        assert limits[0].startswith("Assurance: unwitnessed")
        assert any("nothing proves that it was recorded truthfully" in s for s in limits)
        assert predicate(file)["scope"]["claim"] == "thisRunOnly"


def test_subjects_are_all_members_but_bundle_and_receipt(files):
    for file in files.values():
        subjects = {s["name"]: s["digest"]["sha256"] for s in statement(file)["subject"]}
        there = {n: sha256(raw) for n, raw in members(file).items()}
        assert subjects == {
            n: d for n, d in there.items() if n not in ("bundle.sigstore.json", "receipt.tlog-proof")
        }


def test_a_correction_supersedes_and_keeps_the_old(files, path, tmp_path):
    old = attest(path, "aiOffice", tmp_path / "old.zip")
    with pytest.raises(AttestError, match="why"):
        attest(path, "aiOffice", tmp_path / "new.zip", supersedes=old.attestation_id)
    attest(path, "aiOffice", tmp_path / "new.zip", supersedes=old.attestation_id, why="a tag was wrong")
    (said,) = predicate(tmp_path / "new.zip")["supersedes"]
    assert said == {
        "attestationId": old.attestation_id,
        "statementSha256": old.row.statement_sha256,
        "reason": "a tag was wrong",
    }
    with pytest.raises(AttestRefused, match="superseded"):
        attest(path, "aiOffice", tmp_path / "third.zip", supersedes=old.attestation_id, why="again")
    with pytest.raises(AttestRefused, match="found none"):
        attest(path, "aiOffice", tmp_path / "third.zip", supersedes="0" * 8, why="again")
    assert not (tmp_path / "third.zip").exists()


def test_nothing_is_logged_and_nothing_written_where_it_is_refused(files, path, tmp_path):
    def rows():
        with reading(path) as reader:
            return reader.rows("SELECT count(*) FROM attestations").fetchone()[0]

    before = rows()
    (tmp_path / "there.zip").write_text("mine")
    for changed, error, message in (
        ({"output": tmp_path / "there.zip"}, AttestRefused, "expected no such file"),
        ({"run": "secret-lama"}, AttestRefused, "found none"),
        ({"output": tmp_path / "no" / "such.zip"}, AttestError, "expected a directory"),
        ({"who": "a\nb"}, AttestError, "printable"),
        ({"profile": "everybody"}, AttestError, "profile"),
        ({"record": "0" * 64}, AttestRefused, "found none"),
    ):
        given = {"profile": "auditor", "output": tmp_path / "new.zip"} | changed
        with pytest.raises(error, match=message):
            attest(path, given.pop("profile"), given.pop("output"), **given)
    assert rows() == before
    assert (tmp_path / "there.zip").read_text() == "mine"
    assert [f.name for f in tmp_path.iterdir()] == ["there.zip"]


def test_a_run_that_is_misspelt_is_told_its_name(path, tmp_path):
    with pytest.raises(AttestRefused) as e:
        attest(path, "auditor", tmp_path / "new.zip", run="secret-lama")
    assert RUN in e.value.hint
