"""The numbered check of docs/attestation-format.md 9: honest files of every profile pass; each lie has its step."""

import base64
import json
import re
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import evidence_files as files
import evidence_reference as ref
import pytest
from cryptography.hazmat.primitives import serialization

from flopmeter.audit.pack import check_pack
from flopmeter.audit.steps import Found, Key, Wanted, verify
from flopmeter.cli.container import read
from flopmeter.evidence import note
from flopmeter.evidence.errors import EvidenceError

KEY = Key(serialization.load_pem_public_key(files.key_pem()), files.key_id())  # type: ignore[arg-type]
Lie = Callable[[dict[str, Any], dict[str, Any]], object]


def check(made: files.Attestation, folder: Path, key: Key = KEY, **wanted: Any) -> Found:
    return verify(read(made.write(folder)), key, Wanted(pack=check_pack, **wanted))


def refused(made: files.Attestation, folder: Path, key: Key = KEY, **wanted: Any) -> EvidenceError:
    with pytest.raises(EvidenceError) as e:
        check(made, folder, key, **wanted)
    return e.value


@pytest.mark.parametrize("profile", files.PROFILES)
def test_an_honest_file_holds(profile: str, tmp_path: Path) -> None:
    found = check(files.attestation(profile), tmp_path)
    assert found.level == "unwitnessed"
    assert {rule: status for rule, status, _ in found.thresholds} == {
        "crossed": "crossed",
        "below": "below",
        "open": "undetermined",
        "eu": "crossed",
    }
    assert bool(found.pack) == (profile == "auditor")


def test_a_folder_of_the_members_is_checked_like_the_zip(tmp_path: Path) -> None:
    folder = files.attestation("auditor").unpacked(tmp_path)
    for path in (folder, folder / "bundle.sigstore.json"):
        assert verify(read(path), KEY, Wanted(pack=check_pack)).pack


def put(path: str, value: Any) -> Lie:
    """Set what stands at a path of the predicate, numbers counting into lists."""

    def lie(predicate: dict[str, Any], _: dict[str, Any]) -> None:
        *way, last = [int(p) if p.isdigit() else p for p in path.split(".")]
        at: Any = predicate
        for step in way:
            at = at[step]
        if value is None and not isinstance(last, int):
            del at[last]
        else:
            at[last] = value

    return lie


def in_evidence(change: Callable[[dict[str, Any]], object]) -> Lie:
    return lambda _, evidence: change(evidence)


def swapped(name: str, of: str) -> Lie:
    def lie(_: dict[str, Any], evidence: dict[str, Any]) -> None:
        first, second = evidence[name][:2]
        first[of], second[of] = second[of], first[of]

    return lie


def more_flop(predicate: dict[str, Any], _: dict[str, Any]) -> None:
    """The total, and its parts, by one; the tree says what it was."""
    for of in (predicate["totals"]["executedFlop"], predicate["byPrecision"][1]["flop"]):
        of["point"] = str(int(of["point"]) + 1)


HEX = "ab" * 32
#: Signed as they are: what only the step named can see.
LIES: dict[str, tuple[str, Lie]] = {
    "another key's id as the issuer's": ("schema", put("issuer.keyId", HEX)),
    "a member that nobody knows": ("schema", put("totals.more", "1")),
    "a member missing and not withheld": ("disclosures", put("method.id", None)),
    "a group missing": ("schema", put("coverage", None)),
    "true where members are": ("schema", put("coverage", True)),
    "a text where members are": ("schema", put("totals.executedFlop", "1")),
    "a text where a list is": ("schema", put("thresholds", "crossed")),
    "a number with a sign": ("schema", put("evidence.treeSize", "-1")),
    "a number with a zero in front": ("schema", put("coverage.sequenceBreaks", "07")),
    "a number of 40 digits": ("schema", put("coverage.sequenceBreaks", "1" * 40)),
    "a number that is not text": ("schema", put("coverage.sequenceBreaks", 7)),
    "an Arabic digit": ("schema", put("coverage.sequenceBreaks", "\u0661")),
    "an exponent": ("schema", put("coverage.sequenceBreaks", "1e3")),
    "a point above the upper": ("schema", put("totals.executedFlop.point", "9" * 38)),
    "a 31st of February": ("schema", put("period.start", "2026-02-31T00:00:00Z")),
    "a time without Z": ("schema", put("period.start", "2026-02-01T00:00:00+00:00")),
    "a status that is none": ("schema", put("thresholds.0.status", "nearly")),
    "control characters": ("schema", put("issuer.name", "A \x1b[31m Lab")),
    "no limits named": ("schema", put("scope.limits", [])),
    "a list where a text is": ("schema", put("run.kind", ["rl"])),
    "another profile": ("schema", put("profile", "auditor")),
    "another value than the record has": ("disclosures", put("coverage.cloneAlarms", "1")),
    "another status than the record has": ("disclosures", put("thresholds.1.status", "crossed")),
    "a digest more": ("disclosures", lambda p, _: p["record"]["fieldDigests"].append("z" * 43)),
    "digests out of order": ("disclosures", lambda p, _: p["record"]["fieldDigests"].reverse()),
    "a field disclosed twice": (
        "disclosures",
        in_evidence(lambda e: e["disclosures"].append(e["disclosures"][0])),
    ),
    "a disclosure left out": ("disclosures", in_evidence(lambda e: e["disclosures"].pop())),
    "a threshold left out and disclosed": ("disclosures", lambda p, _: p["thresholds"].pop(0)),
    "a threshold twice": ("disclosures", lambda p, _: p["thresholds"].append(p["thresholds"][0])),
    "withheld of what is owed": (
        "disclosures",
        lambda p, e: (
            p["redactions"].append(
                {
                    "path": "/coverage/agents",
                    "form": "withheld",
                    "reason": "",
                    "digest": _digest(e, "/coverage/agents"),
                }
            ),
            p["coverage"].pop("agents"),
            e["disclosures"].remove(_disclosure(e, "/coverage/agents")),
        ),
    ),
    "redacted by a digest of no field": ("disclosures", put("redactions.0.digest", "A" * 43)),
    "another origin": ("checkpoint", put("evidence.origin", "elsewhere.test/log")),
    "another size than the checkpoint's": ("checkpoint", put("evidence.treeSize", "999999")),
    "another log's key": ("checkpoint", put("evidence.logKey", ref.Signer(files.ORIGIN, 1, b"other").vkey)),
    "a witness's key as the log's": ("checkpoint", put("evidence.logKey", files.WITNESSES[0].vkey)),
    "an older root that was not": (
        "consistency",
        in_evidence(lambda e: e["consistency"][0].update(rootHash=f"sha256:{HEX}")),
    ),
    "proofs of consistency swapped": ("consistency", swapped("consistency", "proof")),
    "a previous head that nothing leads from": ("consistency", put("evidence.previous.treeSize", "1")),
    "proofs of entries swapped": ("inclusion", swapped("proofs", "proof")),
    "indexes of entries swapped": ("inclusion", swapped("proofs", "index")),
    "rows of entries swapped": ("inclusion", swapped("proofs", "body")),
    "an entry left out": ("inclusion", in_evidence(lambda e: e["proofs"].pop(0))),
    "another record's entry": ("inclusion", put("evidence.recordEntry.index", "0")),
    "a start that is an event": ("inclusion", lambda p, e: _start_is(p, e, "event")),
    "a total that is not the tree's": ("sum tree", lambda p, e: (more_flop(p, e), _redisclose(p, e))),
    "device time that is not the tree's": (
        "sum tree",
        lambda p, e: (put("totals.deviceSeconds", "1")(p, e), _redisclose(p, e)),
    ),
    "no opening at all": ("sum tree", in_evidence(lambda e: e["sumTree"].clear())),
    "an opening twice": ("sum tree", in_evidence(lambda e: e["sumTree"].append(e["sumTree"][0]))),
    "a vector changed": ("sum tree", in_evidence(lambda e: e["sumTree"][0]["sums"].__setitem__(5, "1"))),
    "a vector of five sums": ("sum tree", in_evidence(lambda e: e["sumTree"][0]["sums"].pop())),
    "more leaves than there are": ("sum tree", put("evidence.sumTree.leafCount", "4")),
    "a device that is none of them": ("inclusion", in_evidence(lambda e: e["devices"][0].update(index="1"))),
    "points that do not add up": (
        "arithmetic",
        lambda p, e: (
            put("byPrecision.0.flop.point", p["byPrecision"][0]["flop"]["lower"])(p, e),
            _redisclose(p, e),
        ),
    ),
    "a status better than the figures": (
        "arithmetic",
        lambda p, e: (_status(p, "open", "below"), _redisclose(p, e)),
    ),
    "a status worse than the figures": (
        "arithmetic",
        lambda p, e: (_status(p, "below", "crossed"), _redisclose(p, e)),
    ),
    "a limit above by a half": (
        "arithmetic",
        lambda p, e: (_limit(p, "crossed", f"{2 * int(_limit(p, 'crossed')) + 1}/2"), _redisclose(p, e)),
    ),
    "a comparison without the line": (
        "arithmetic",
        lambda p, e: (_threshold(p, "crossed").update(comparison=">"), _redisclose(p, e)),
    ),
    "a limit not in lowest terms": (
        "arithmetic",
        lambda p, e: (_limit(p, "below", f"{2 * int(_limit(p, 'below'))}/2"), _redisclose(p, e)),
    ),
    "shares of classes above one": (
        "arithmetic",
        lambda p, e: (put("method.evidenceClasses.0.flopShare", "2")(p, e), _redisclose(p, e)),
    ),
    "crossed without an event": (
        "arithmetic",
        lambda p, e: (
            [t.update(eventLogIndex=None) for t in p["thresholds"]],
            e.update(proofs=[q for q in e["proofs"] if q["role"] != "event"]),
            _redisclose(p, e),
        ),
    ),
}


def _disclosure(evidence: dict[str, Any], path: str) -> str:
    return next(d for d in evidence["disclosures"] if _opened(d)[1] == path)


def _opened(text: str) -> list[Any]:
    return json.loads(base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)))


def _digest(evidence: dict[str, Any], path: str) -> str:
    return ref.disclosure_digest(_disclosure(evidence, path))


def _threshold(predicate: dict[str, Any], rule: str) -> dict[str, Any]:
    return next(t for t in predicate["thresholds"] if t["rule"] == rule)


def _status(predicate: dict[str, Any], rule: str, status: str) -> None:
    found = _threshold(predicate, rule)
    index = found["eventLogIndex"] or _threshold(predicate, "crossed")["eventLogIndex"]
    found.update(
        status=status, eventLogIndex=index, firstCrossedAt=files.ISSUED if status == "crossed" else None
    )


def _limit(predicate: dict[str, Any], rule: str, limit: str | None = None) -> str:
    found = _threshold(predicate, rule)
    found["limit"] = found["limit"] if limit is None else limit
    return str(found["limit"])


def _start_is(predicate: dict[str, Any], evidence: dict[str, Any], role: str) -> None:
    """The run's start is said to be an entry of another kind, which is proven."""
    index = next(p["index"] for p in evidence["proofs"] if p["role"] == role)
    start = next(p for p in evidence["proofs"] if p["role"] == "start")
    start.update(next(p for p in evidence["proofs"] if p["role"] == role) | {"role": "start"})
    predicate["scope"]["precommittedBy"] = index


def _redisclose(predicate: dict[str, Any], evidence: dict[str, Any]) -> None:
    """A record of what the predicate says now; a liar that makes one has to log it, which this one did not."""
    from flopmeter.audit.statement import fields

    old = {_opened(d)[1]: d for d in evidence["disclosures"]}
    new = {
        path: ref.disclosure(files.salt_of(path), path, value)
        for path, value, there in fields(predicate)
        if there
    }
    changed = {path for path in old if old[path] != new[path]}
    gone = {ref.disclosure_digest(old[path]) for path in changed}
    kept = [d for d in predicate["record"]["fieldDigests"] if d not in gone]
    digests = sorted([*kept, *(ref.disclosure_digest(new[path]) for path in changed)])
    evidence["disclosures"] = [new[path] if path in changed else old[path] for path in old]
    told = files.digest_of("".join(f"{d}\n" for d in digests).encode())
    row = next(p for p in evidence["proofs"] if p["role"] == "record")
    before = predicate["record"]["digest"][7:]
    predicate["record"] = {"fieldDigests": digests, "digest": f"sha256:{told}"}
    row["body"] = row["body"].replace(before, told)


@pytest.mark.parametrize("name", LIES)
def test_a_lie_that_is_signed_is_refused_by_its_step(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    step, lie = LIES[name]
    if (
        "_redisclose" in lie.__code__.co_names
    ):  # as if the false record had been logged: the step behind must see it
        monkeypatch.setattr("flopmeter.audit.steps._row", _believing)
        monkeypatch.setattr("flopmeter.audit.steps._tells", lambda *_: True)
    e = refused(files.attestation("aiOffice", change=lie), tmp_path)
    assert e.step == step, str(e)


def _believing(leaf: bytes, body: str, step: str) -> Any:
    return {**json.loads(body), "leaf": json.loads(leaf)["kind"]}


def test_a_rounded_total_may_leave_a_status_open_and_never_contradict_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = check(files.attestation("downstream"), tmp_path)
    assert ("below", "below", "stated, its total is rounded") in found.thresholds
    monkeypatch.setattr("flopmeter.audit.steps._row", _believing)
    monkeypatch.setattr("flopmeter.audit.steps._tells", lambda *_: True)

    def lie(predicate: dict[str, Any], evidence: dict[str, Any]) -> None:
        _limit(predicate, "below", "1")
        _redisclose(predicate, evidence)

    assert refused(files.attestation("downstream", change=lie), tmp_path).step == "arithmetic"


def test_a_false_record_that_was_not_logged_is_refused(tmp_path: Path) -> None:
    e = refused(
        files.attestation("aiOffice", change=lambda p, v: (more_flop(p, v), _redisclose(p, v))), tmp_path
    )
    assert e.step == "inclusion"


def test_an_auditor_is_shown_what_each_entry_says(tmp_path: Path) -> None:
    hide = in_evidence(lambda e: next(p for p in e["proofs"] if p["role"] == "event").update(body=None))
    assert check(files.attestation("aiOffice", change=hide), tmp_path).proofs[1] == 1
    assert "not shown what entries" in refused(files.attestation("auditor", change=hide), tmp_path).reason


# ---- the key -------------------------------------------------------------------------------------------------


def test_another_key_is_refused(tmp_path: Path) -> None:
    from cryptography.hazmat.primitives.asymmetric import ec

    other = ec.generate_private_key(ec.SECP256R1()).public_key()
    assert refused(files.attestation(), tmp_path, Key(other, files.key_id())).step == "signature"
    assert refused(files.attestation(), tmp_path, Key(KEY.public, HEX)).step == "signature"


@pytest.mark.parametrize(("first", "last"), [(2020, 2025), (2027, 2030)])
def test_a_key_that_was_not_valid_when_it_was_issued_is_refused(
    first: int, last: int, tmp_path: Path
) -> None:
    valid = (datetime(first, 1, 1, tzinfo=UTC), datetime(last, 1, 1, tzinfo=UTC))
    e = refused(files.attestation(), tmp_path, KEY._replace(valid=valid))
    assert e.step == "signature"
    assert "not valid" in e.reason


# ---- subjects ------------------------------------------------------------------------------------------------


def test_a_wrong_subject_is_refused(tmp_path: Path) -> None:
    made, other = files.attestation(), files.attestation("downstream")
    made.files["evidence.json"] = other.files["evidence.json"]
    assert refused(made, tmp_path).step == "subject"


@pytest.mark.parametrize("name", files.PACK)
def test_a_pack_of_another_run_is_refused(name: str, tmp_path: Path) -> None:
    made = files.attestation("auditor")
    made.files[name] = made.files[name] + b"\n"
    assert refused(made, tmp_path).step == "subject"


def test_a_pack_that_was_taken_out_is_missed(tmp_path: Path) -> None:
    made = files.attestation("auditor")
    for name in files.PACK:
        del made.files[name]
    assert refused(made, tmp_path).step == "subject"


def test_a_pack_that_was_put_in_is_refused(tmp_path: Path) -> None:
    made, other = files.attestation(), files.attestation("auditor")
    made.files |= {name: other.files[name] for name in files.PACK}
    assert refused(made, tmp_path).step == "subject"


@pytest.mark.parametrize(
    ("raw", "where"),
    [
        (b'{"a":"1","a":"1"}', "twice"),
        (b'{"a":NaN}', "NaN"),
        (b'{"a":1}', "a number"),
        (b'{"a":' + b"9" * 100_000 + b"}", "a huge number"),
        (b'{"a": "1"}', "a space"),
        (b"[" * 100_000, "a nest"),
        (b'{"a":"\\ud800"}', "half a surrogate"),
        (b"\xff", "no UTF-8"),
        (b"", "nothing"),
        (b"\xef\xbb\xbf{}", "a byte order mark"),
    ],
)
def test_json_that_is_not_the_one_form_is_refused_wherever_it_stands(
    raw: bytes, where: str, tmp_path: Path
) -> None:
    made = files.attestation()
    payload = base64.b64decode(json.loads(made.files["bundle.sigstore.json"])["dsseEnvelope"]["payload"])
    statement = json.loads(payload)
    made.files["evidence.json"] = raw
    statement["subject"][0]["digest"]["sha256"] = files.digest_of(raw)
    made.files["bundle.sigstore.json"] = files.signed(files.canonical(statement))
    assert refused(made, tmp_path).step == "schema", where
    made.files["bundle.sigstore.json"] = files.signed(raw)
    assert refused(made, tmp_path).step == "schema", where
    made.files["bundle.sigstore.json"] = raw
    assert refused(made, tmp_path).step == "signature", where


def test_reordered_json_of_the_same_meaning_is_refused(tmp_path: Path) -> None:
    made = files.attestation()
    for name, step in (("bundle.sigstore.json", "signature"), ("evidence.json", "subject")):
        other = files.attestation()
        value = json.loads(made.files[name])
        other.files[name] = json.dumps(
            dict(reversed(value.items())), separators=(",", ":"), ensure_ascii=False
        ).encode()
        assert json.loads(other.files[name]) == value
        assert refused(other, tmp_path).step == step


# ---- witnesses, time, what was kept --------------------------------------------------------------------------


def test_the_level_says_who_witnessed(tmp_path: Path) -> None:
    made = files.attestation(witnesses=files.WITNESSES[:2])
    found = check(made, tmp_path, policy=note.parse_policy(files.policy(2)))
    assert found.level == "witnessed(2 of 3, witness.test/a, witness.test/b)"
    e = refused(made, tmp_path, policy=note.parse_policy(files.policy(3)))
    assert e.step == "checkpoint"


def test_a_policy_for_another_log_is_not_met(tmp_path: Path) -> None:
    other = ref.Signer(files.ORIGIN, 1, b"other").vkey
    text = re.sub(rb"log .*\n", f"log {other}\n".encode(), files.policy())
    made = files.attestation(witnesses=files.WITNESSES)
    e = refused(made, tmp_path, policy=note.parse_policy(text))
    assert e.step == "checkpoint"
    assert "none of the policy's" in e.reason


def test_issued_before_it_was_witnessed_is_back_dated(tmp_path: Path) -> None:
    def earlier(predicate: dict[str, Any], _: dict[str, Any]) -> None:
        predicate["issuedAt"] = "2026-11-22T14:00:00Z"

    for first, later in ((files.WITNESSES, ()), (files.WITNESSES, files.WITNESSES), ((), files.WITNESSES)):
        made = files.attestation(witnesses=first, later=later, change=earlier)
        e = refused(made, tmp_path, policy=note.parse_policy(files.policy()))
        assert e.step == "checkpoint"
        assert "after it was issued" in e.reason


def test_a_quorum_under_the_receipts_head_counts_for_what_it_continues(tmp_path: Path) -> None:
    made = files.attestation(witnesses=files.WITNESSES[:1], later=files.WITNESSES)
    found = check(made, tmp_path, policy=note.parse_policy(files.policy(3)))
    assert found.level.startswith("witnessed(3 of 3, ")


def test_a_token_is_checked_by_who_can(tmp_path: Path) -> None:
    token = base64.b64encode(b"a token").decode()
    made = files.attestation(change=put("evidence.timestamps", [token]))
    assert check(made, tmp_path).timestamps == (0, 1)
    seen: list[tuple[bytes, bytes]] = []

    def at(hour: int) -> Callable[[bytes, bytes], datetime]:
        return lambda raw, text: (seen.append((raw, text)), datetime(2026, 11, 22, hour, tzinfo=UTC))[1]

    found = check(made, tmp_path, timestamp=at(14))
    assert found.level == "timestamped"
    assert seen[0][0] == b"a token"
    assert made.predicate["evidence"]["checkpoint"].startswith(seen[0][1].decode() + "\n— ")
    assert refused(made, tmp_path, timestamp=at(16)).step == "checkpoint"


def test_what_was_kept_must_lead_to_this_head(tmp_path: Path) -> None:
    made = files.attestation()
    for head in made.heads.values():
        check(made, tmp_path, since=head)
    found = check(made, tmp_path)
    check(made, tmp_path, since=found.head)
    later = made.log.note()  # of the receipt: newer than the statement's
    assert "stale" in refused(made, tmp_path, since=later).reason
    forked = files.Log([*made.log.leaves[:3], b"another"]).note()
    assert refused(made, tmp_path, since=forked).step == "consistency"
    elsewhere = ref.signed_checkpoint(
        files.ORIGIN, made.log.hashes[:5], ref.Signer(files.ORIGIN, 1, b"other")
    )
    assert refused(made, tmp_path, since=elsewhere).step == "checkpoint"


def test_coverage_is_the_verifiers_to_ask_for(tmp_path: Path) -> None:
    made = files.attestation()
    check(made, tmp_path, coverage_percent=90)
    assert refused(made, tmp_path, coverage_percent=100).step == "coverage"


@pytest.mark.parametrize("column", ["kind", "attestation_id", "statement_sha256", "record_digest"])
def test_a_receipt_of_something_else_is_refused(column: str, tmp_path: Path) -> None:
    made = files.attestation(change_receipt=lambda row: row.update({column: "other"}))
    assert refused(made, tmp_path).step == "inclusion"


def test_a_receipt_of_another_attestation_is_refused(tmp_path: Path) -> None:
    made, other = files.attestation(), files.attestation("downstream")
    made.files["receipt.tlog-proof"] = other.files["receipt.tlog-proof"]
    assert refused(made, tmp_path).step == "inclusion"


def test_a_receipt_from_a_fork_is_refused(tmp_path: Path) -> None:
    made, other = files.attestation(), files.attestation(around=4)
    made.files["receipt.tlog-proof"] = other.files["receipt.tlog-proof"]
    assert refused(made, tmp_path).step == "consistency"
