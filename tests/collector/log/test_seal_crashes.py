"""Heads, killed and crowded: whole or not there, one log for all who append and seal."""

import os
import sqlite3
import threading
from contextlib import closing
from pathlib import Path

import pytest
from builders import UNIX_NS, Chain
from desk import Desk
from faulty_sqlite import COMMIT, Crash, Faults
from log_rig import check_whole, kinds, now, opened, say, take

from flopmeter.collector.errors import StoreError
from flopmeter.collector.log import seal as seal_module
from flopmeter.collector.log.evidence_log import EvidenceLog


@pytest.mark.parametrize("error", [Crash(), sqlite3.OperationalError("database or disk is full")])
@pytest.mark.parametrize("before", [True, False])
def test_a_head_is_whole_or_not_there_and_only_a_durable_one_is_shown(path, key, error, before):
    """D3: killed, or with a full disk, at every statement of a seal."""
    with Desk(path) as desk:
        take(desk, Chain(), 300)
        desk.commit()
    shown: list[int] = []
    for at in ("BEGIN IMMEDIATE", "INSERT INTO tiles", "INSERT INTO checkpoints", COMMIT):
        faults = Faults()
        with closing(faults.connect(path, isolation_level=None)) as connection:
            log = EvidenceLog(connection)
            log.fix_identity("", key)
            faults.plan(at, before=before, error=error)
            with pytest.raises(type(error)):
                shown.append(log.seal(key, now).number)
        check_whole(path)
        with opened(path) as log:
            count = len(list(log.checkpoints()))
            assert count == (1 if at == COMMIT and not before else 0)
    assert shown == []
    with opened(path) as log:
        assert log.seal(key, now).number == 1
    check_whole(path)


def test_several_append_and_seal_at_once_and_there_is_one_log(path, key):
    """Two that seal, one that commits records, one that speaks: each with a connection of its own, as processes have."""
    chain, failed = Chain(), []
    released: list[list[tuple[int, int]]] = [[], []]
    done = threading.Event()

    def guarded(call):
        def run():
            try:
                call()
            except BaseException as e:
                failed.append(e)
                raise

        return threading.Thread(target=run)

    def collect() -> None:
        with Desk(path) as desk:
            for _ in range(40):
                take(desk, chain, 3)
                desk.commit()
        done.set()

    def speak() -> None:
        for _ in range(25):
            say(path)
            with opened(path) as log:
                log._connection.execute("BEGIN IMMEDIATE")
                log.append_waiting()
                log._connection.execute("COMMIT")

    def seal(mine: list[tuple[int, int]]) -> None:
        with opened(path) as log:
            while not done.is_set():
                if log.size:
                    wanted, head = log.size, log.seal(key, now)
                    assert head.size >= wanted
                    mine.append((head.number, head.size))

    threads = [
        guarded(collect),
        guarded(speak),
        *(guarded(lambda mine=mine: seal(mine)) for mine in released),
    ]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert failed == []
    check_whole(path)
    with opened(path) as log:
        stored = {c.number: c.size for c in log.checkpoints()}
    for mine in released:
        assert mine == sorted(mine)
        assert set(mine) <= set(stored.items())
    assert kinds(path).count("batch") == 120
    assert kinds(path).count("entry") == 25


def test_a_head_that_another_makes_meanwhile_is_continued_not_called_a_fork(path, key, monkeypatch):
    """Another process seals while this one derives: what this one reads is one state, and it begins again behind it."""
    with Desk(path) as desk:
        take(desk, Chain(), 300)
        desk.commit()
    check = seal_module.Sealer._check_leaves
    others: list[int] = []

    def first(sealer, old: int, size: int) -> None:
        if not others:
            others.append(0)
            with opened(path) as other:
                others.append(other.seal(key, now).number)
        check(sealer, old, size)

    monkeypatch.setattr(seal_module.Sealer, "_check_leaves", first)
    with opened(path) as log:
        assert log.seal(key, now).number == 1
    assert others == [0, 1]
    check_whole(path)


def test_the_same_contradiction_twice_in_a_group_is_one_event(path):
    with Desk(path) as desk:
        desk.intake.group.log_faults += ["a fault", "another", "a fault"]
        assert [e.type for e in desk.commit().events] == ["evidence.fork"] * 2
        desk.intake.group.log_faults += ["a fault"]
        assert desk.commit().events == ()
        assert desk.rows("SELECT count(*) FROM log_faults") == [(2,)]


def test_a_clock_that_steps_changes_no_head(path, key):
    with Desk(path) as desk:
        for unix_ns in (UNIX_NS, 0, UNIX_NS - 10**15, (1 << 63) - 1):
            take(desk, desk_chain(path))
            desk.commit()
            with opened(path) as log:
                log.seal(key, lambda at=unix_ns: at)
    check_whole(path)


_CHAINS: dict[Path, Chain] = {}


def desk_chain(path: Path) -> Chain:
    return _CHAINS.setdefault(path, Chain())


def test_the_secret_of_a_rolled_back_transaction_is_not_used_again(path):
    """A salt that never was committed would give leaves that nobody can make again."""
    faults = Faults()
    with Desk(path, connect=faults.connect) as desk:
        chain = Chain()
        take(desk, chain)
        faults.plan(COMMIT, before=True)
        with pytest.raises(StoreError):
            desk.commit()
        desk.recover()
        take(desk, Chain(key_seed=os.urandom(4).hex()))
        desk.commit()
    check_whole(path)
