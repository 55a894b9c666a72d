"""The quarantine keeps what a person may want, and no more than its limit."""

import logging
import os
from pathlib import Path

import pytest

from flopmeter.agent.shipping.quarantine import Quarantine
from flopmeter.agent.shipping.spool import Spool


@pytest.fixture
def kept(tmp_path: Path) -> Quarantine:
    return Quarantine(tmp_path, limit_bytes=1000)


def put(kept: Quarantine, name: str, size: int, age_s: int) -> None:
    path = kept.keep(name, bytes(size), "why")
    for file in (path, path.with_name(name + ".txt")):
        os.utime(file, (10**9 - age_s, 10**9 - age_s))


def names(kept: Quarantine) -> set[str]:
    return {p.name for p in kept.directory.iterdir()}


def test_the_oldest_give_way_by_age_not_by_name(kept: Quarantine, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING)
    put(kept, "record-9", 400, age_s=90)
    put(kept, "record-1", 400, age_s=10)
    assert (kept.dropped, kept.total_bytes) == (0, 808)
    put(kept, "record-5", 400, age_s=0)
    assert names(kept) == {"record-1", "record-1.txt", "record-5", "record-5.txt"}
    assert (kept.dropped, kept.total_bytes) == (1, 808)
    assert "record-9 (404 bytes) removed" in caplog.text


def test_what_was_just_kept_stays_however_large_or_old_it_looks(kept: Quarantine) -> None:
    put(kept, "small", 10, age_s=-(10**9))  # the clock was wrong when it came
    path = kept.keep("large", bytes(5000), "why")
    assert names(kept) == {"large", "large.txt"}
    assert path.read_bytes() == bytes(5000)
    assert kept.dropped == 1


def test_a_thing_kept_again_is_one_thing(kept: Quarantine) -> None:
    for _ in range(5):
        put(kept, "record-1", 600, age_s=0)
    assert (kept.dropped, kept.total_bytes) == (0, 604)


def test_room_that_cannot_be_made_is_no_failure(kept: Quarantine, monkeypatch: pytest.MonkeyPatch) -> None:
    put(kept, "record-1", 600, age_s=9)

    def fails(*args: object, **kwargs: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "unlink", fails)
    put(kept, "record-2", 600, age_s=0)
    assert kept.dropped == 0
    assert {"record-1", "record-2"} <= names(kept)


def test_a_spool_has_one(tmp_path: Path) -> None:
    spool = Spool.open(tmp_path)
    spool.aside.limit_bytes = 100
    spool.quarantine("record-1-00", bytes(90), "why")
    spool.quarantine("record-2-00", bytes(90), "why")
    assert spool.aside.dropped == 1
    assert [p.name for p in sorted((tmp_path / "quarantine").iterdir())] == ["record-2-00", "record-2-00.txt"]
    spool.close()
