"""A lab that lies: what it signs over does not verify, and what does not verify is not handed out.

Each lie is put in before anything is salted, logged and signed, so that the whole file agrees with itself but for that.
"""

import json
import shutil
import sqlite3
from contextlib import closing

import pytest
from attest_books import CROSSED, LAWS, RUN, attest, full_store, keys, predicate

from flopmeter.audit.steps import Key, Wanted, verify
from flopmeter.cli.container import read
from flopmeter.collector.attest import create as create_module
from flopmeter.collector.attest import fields as fields_module
from flopmeter.collector.attest import issuing, recording
from flopmeter.collector.attest.errors import AttestRefused
from flopmeter.collector.attest.signing import key_id, loaded
from flopmeter.collector.check.fsck import check_store
from flopmeter.collector.keys import attest_key
from flopmeter.collector.report.queries import reading
from flopmeter.evidence.errors import EvidenceError


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    path = tmp_path_factory.mktemp("lies") / "books.sqlite"
    full_store(path)
    return path


@pytest.fixture
def path(made, tmp_path):
    shutil.copytree(made.parent, tmp_path / "store")
    return tmp_path / "store" / made.name


def lying(monkeypatch, change):
    """The record says otherwise than the books."""
    real = fields_module.fields

    def fields(*args, **given):
        made = real(*args, **given)
        change(made.values)
        return made

    monkeypatch.setattr(recording, "fields", fields)


def refused(path, tmp_path, profile="auditor"):
    with pytest.raises(AttestRefused) as e:
        attest(path, profile, tmp_path / "x.zip")
    assert [f.name for f in tmp_path.iterdir()] == ["store"]
    return str(e.value)


def threshold(**changed):
    return lambda values: values[f"/thresholds/{CROSSED.id}"].update(changed)


@pytest.mark.parametrize(
    ("change", "step"),
    [
        (threshold(status="below", eventLogIndex=None, firstCrossedAt=None), "arithmetic"),
        (threshold(status="undetermined"), "inclusion"),
        (threshold(eventLogIndex=None), "arithmetic"),
        (threshold(limit=str(10**20)), "inclusion"),
        (lambda v: v["/totals/executedFlop"].update(lower="1"), "sum tree"),
        (lambda v: v["/byPrecision"][0]["flop"].update(upper="1", point="0", lower="0"), "arithmetic"),
        (lambda v: v.update({"/totals/deviceSeconds": "1"}), "sum tree"),
        (lambda v: v["/method/evidenceClasses"].append({"class": "A2", "flopShare": "1/2"}), "arithmetic"),
        (lambda v: v["/method/tables"][0].update(sha256="0" * 64), "pack"),
        (lambda v: v.update({"/totals/executedFlop": 7}), "number"),
    ],
)  # fmt: skip
def test_a_record_that_says_otherwise_than_the_books_is_not_handed_out(
    path, tmp_path, monkeypatch, change, step
):
    lying(monkeypatch, change)
    if step == "number":
        with pytest.raises(Exception, match="expected text"):
            attest(path, "auditor", tmp_path / "x.zip")
        return
    assert f"fails at {step}" in refused(path, tmp_path)


def test_a_group_that_is_left_out_of_the_tree_is_found_by_the_pack(path, tmp_path, monkeypatch):
    real = fields_module.sum_leaves
    monkeypatch.setattr(fields_module, "sum_leaves", lambda *given: real(*given)[:-1])
    assert "fails at sum tree" in refused(path, tmp_path)


def test_a_batch_that_is_left_out_is_found_by_the_pack(path, tmp_path, monkeypatch):
    real = issuing.write_pack

    def write_pack(*args, facts, **given):
        return real(*args, facts={**facts, "lastPosition": str(int(facts["lastPosition"]) - 1)}, **given)

    monkeypatch.setattr(issuing, "write_pack", write_pack)
    assert "fails at pack" in refused(path, tmp_path)


def test_an_event_that_was_suppressed_stops_the_attestation(path, tmp_path, monkeypatch):
    """A store whose event is gone: nothing says in the log what the figures say."""
    real = recording.gather

    def gather(*given):
        found = real(*given)
        object.__setattr__(found, "events", [e for e in found.events if e.type != "threshold.crossed"])
        return found

    monkeypatch.setattr(recording, "gather", gather)
    assert "expected an event in the log that says that eu-near is crossed" in refused(path, tmp_path)


def test_a_view_that_withholds_what_is_owed_is_refused(path, tmp_path, monkeypatch):
    real = issuing.view

    def view(values, profile):
        found = real(values, profile)
        less = {p: v for p, v in found.shown.items() if p != "/coverage/gaps"}
        return type(found)(less, found.redactions)

    monkeypatch.setattr(issuing, "view", view)
    assert "fails at disclosures" in refused(path, tmp_path, "aiOffice")


def test_a_file_of_another_key_does_not_verify(path, tmp_path):
    attest(path, "downstream", tmp_path / "x.zip")
    other = attest_key(tmp_path / "other").spki_der
    with pytest.raises(EvidenceError) as e:
        verify(read(tmp_path / "x.zip"), Key(loaded(other), key_id(other)), Wanted())
    assert e.value.step == "signature"


def test_a_receipt_of_another_attestation_does_not_verify(path, tmp_path, monkeypatch):
    """An attestation that was not logged itself: it borrows the receipt of one that was."""
    real, receipts = issuing._receipt, []

    def receipt(*given):
        receipts.append(real(*given))
        return receipts[0]

    monkeypatch.setattr(issuing, "_receipt", receipt)
    attest(path, "downstream", tmp_path / "x.zip")
    with pytest.raises(AttestRefused, match=r"fails at (inclusion|consistency)"):
        attest(path, "downstream", tmp_path / "y.zip")


def test_what_failed_stands_in_the_log_and_another_follows(path, tmp_path, monkeypatch):
    with monkeypatch.context() as m:
        lying(m, threshold(status="below"))
        refused(path, tmp_path)
    issued = attest(path, "auditor", tmp_path / "good.zip")
    with reading(path) as reader:
        rows = reader.rows("SELECT kind FROM attestations ORDER BY 1").fetchall()
    assert [kind for (kind,) in rows] == ["issued", "issued", "record", "record"]
    assert predicate(tmp_path / "good.zip")["attestationId"] == issued.attestation_id
    assert json.loads(issued.row.detail)["keyId"] == attest_key(keys(path)).key_id
    assert issued.row.run == RUN


def test_a_file_that_came_meanwhile_is_not_written_over(path, tmp_path, monkeypatch):
    output = tmp_path / "x.zip"
    monkeypatch.setattr(create_module, "check_file", lambda *_: output.write_text("mine"))
    with pytest.raises(AttestRefused, match="expected no such file"):
        attest(path, "downstream", output)
    assert output.read_text() == "mine"


def test_of_two_that_supersede_one_the_second_is_refused(path, tmp_path, monkeypatch):
    old = attest(path, "downstream", tmp_path / "old.zip").attestation_id
    real = issuing.bundle

    def bundle(*given):
        monkeypatch.setattr(issuing, "bundle", real)
        attest(path, "downstream", tmp_path / "quicker.zip", supersedes=old, why="first")
        return real(*given)

    monkeypatch.setattr(issuing, "bundle", bundle)
    with pytest.raises(AttestRefused, match="superseded"):
        attest(path, "downstream", tmp_path / "slower.zip", supersedes=old, why="second")
    assert not (tmp_path / "slower.zip").exists()


@pytest.mark.parametrize(
    ("change", "found"),
    [
        (lambda m: m["groups"][0]["sums"].__setitem__(1, "7"), "material, groups, their sum"),
        (lambda m: m["devices"].pop(), "material, devices, their root"),
        (lambda m: m["record"]["decoys"].pop(), "material, its digest"),
        (lambda m: m.pop("facts"), "material"),
    ],
)
def test_fsck_finds_what_a_record_was_made_of_changed(path, tmp_path, change, found):
    attest(path, "auditor", tmp_path / "x.zip")
    with closing(sqlite3.connect(path)) as db:
        number, text = db.execute("SELECT attestation_no, material FROM attested").fetchone()
        material = json.loads(text)
        change(material)
        (trigger,) = db.execute("SELECT sql FROM sqlite_master WHERE name = 'attested_stay'").fetchone()
        db.execute("DROP TRIGGER attested_stay")
        db.execute(
            "UPDATE attested SET material = ? WHERE attestation_no = ?", (json.dumps(material), number)
        )
        db.execute(trigger)
        db.commit()
    difference = check_store(path, LAWS).difference
    assert (difference.table, difference.column) == ("attested", found)
