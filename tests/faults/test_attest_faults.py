"""Attesting that is cut off at any of its writes: no file, books that are sound, and the next one goes on from there."""

import shutil
from pathlib import Path

import pytest
from attest_books import LAWS, attest, full_store, predicate
from faulty_sqlite import Crash, Faults

from flopmeter.collector.attest import create
from flopmeter.collector.check.fsck import check_store
from flopmeter.collector.errors import StoreError
from flopmeter.collector.store.attestations import INSERT, INSERT_MATERIAL, SqliteAttestations

pytestmark = pytest.mark.faults


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("faults") / "books.sqlite"
    full_store(path)
    attest(path, "downstream", path.parent / "first.zip")
    return path


@pytest.mark.parametrize("dies", [False, True], ids=["fails", "dies"])
@pytest.mark.parametrize("before", [True, False], ids=["before", "after"])
@pytest.mark.parametrize(
    ("statement", "skip"),
    [
        (INSERT, 0),  # the record
        (INSERT_MATERIAL, 0),
        (INSERT, 1),  # that it was issued
        ("INSERT INTO log ", 0),
        ("INSERT INTO log ", 1),
        ("INSERT INTO checkpoints", 0),
        ("INSERT INTO checkpoints", 1),
        *(("COMMIT", n) for n in range(5)),
    ],
)
def test_cut_off_at_any_write_it_leaves_no_file_and_sound_books(
    made: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    statement: str,
    skip: int,
    *,
    before: bool,
    dies: bool,
) -> None:
    shutil.copytree(made.parent, tmp_path / "store")
    path, output, faults = tmp_path / "store" / made.name, tmp_path / "x.zip", Faults()
    faults.plan(statement, before=before, error=Crash() if dies else None, skip=skip)
    with monkeypatch.context() as m:
        m.setattr(create, "SqliteAttestations", lambda p: SqliteAttestations(p, connect=faults.connect))
        with pytest.raises(Crash if dies else StoreError):
            attest(path, "aiOffice", output)
    assert faults.error is None, "the statement did not run: this case tests nothing"
    assert [f.name for f in tmp_path.iterdir()] == ["store"]
    assert check_store(path, LAWS).difference is None
    issued = attest(path, "aiOffice", output)
    assert predicate(output)["attestationId"] == issued.attestation_id
    assert check_store(path, LAWS).difference is None
