"""The evidence log, killed around its seals: what anybody was shown is there afterwards, and is continued."""

import os
import signal
import subprocess
import sys
import threading
from pathlib import Path
from random import Random

import pytest
from log_rig import check_whole, opened

from flopmeter.collector.keys import log_key
from flopmeter.collector.store.sqlite import SqliteStore
from flopmeter.evidence.merkle import verify_consistency

pytestmark = pytest.mark.faults

KILLS = 24
#: Appends in transactions of some leaves and seals, for ever; says each head when it may be shown: size, root.
LOOP = """
import sqlite3, sys, time
from pathlib import Path
from flopmeter.collector.keys import log_key
from flopmeter.collector.log.append import Appender
from flopmeter.collector.log.evidence_log import EvidenceLog
path = Path(sys.argv[1])
db = sqlite3.connect(path, isolation_level=None, timeout=60)
db.execute("PRAGMA synchronous = FULL")
log, key = EvidenceLog(db), log_key(path.parent / "keys")
while True:
    db.execute("BEGIN IMMEDIATE")
    for _ in range(int(sys.argv[2])):
        db.execute("INSERT INTO losses (agent_no, from_seq, to_seq, noticed_unix_ns, reason) VALUES (1, 1, 1, 1, '')")
    Appender(db).append()
    db.execute("COMMIT")
    head = log.seal(key, time.time_ns)
    print(head.size, head.root.hex(), flush=True)
"""


@pytest.mark.timeout(200)
@pytest.mark.parametrize("processes", [1, 2])
def test_killed_at_any_instant_no_head_that_was_shown_is_lost(tmp_path: Path, processes: int) -> None:
    """With two at once, each is killed while the other goes on."""
    rng = Random(20261122)
    path = tmp_path / "books.sqlite"
    SqliteStore(path).close()
    log_key(tmp_path / "keys")
    shown: list[tuple[int, str]] = []

    def live(kills: int, seed: int) -> None:
        mine = Random(seed)
        for _ in range(kills):
            command = [sys.executable, "-c", LOOP, str(path), str(mine.choice((1, 7, 300)))]
            process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
            assert process.stdout is not None
            assert process.stderr is not None
            wanted = mine.randint(0, 6)
            for _ in range(wanted):
                line = process.stdout.readline().split()
                assert len(line) == 2, process.stderr.read().decode()[-2000:]
                shown.append((int(line[0]), line[1].decode()))
            killer = threading.Timer(mine.uniform(0, 0.02), lambda p=process: os.kill(p.pid, signal.SIGKILL))
            killer.start()
            for line in process.stdout:  # what it still showed before it died
                if line.endswith(b"\n"):
                    size, root = line.split()
                    shown.append((int(size), root.decode()))
            killer.join()
            assert process.wait(60) == -signal.SIGKILL, process.stderr.read().decode()[-2000:]
            process.stdout.close()
            process.stderr.close()

    failed: list[BaseException] = []

    def guarded(seed: int) -> None:
        try:
            live(KILLS // processes, seed)
        except BaseException as e:  # noqa: BLE001 - told by the test's own thread
            failed.append(e)

    threads = [threading.Thread(target=guarded, args=(rng.randrange(1 << 30),)) for _ in range(processes)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert failed == []
    assert len(shown) > KILLS
    check_whole(path)
    with opened(path) as log:
        stored = {head.size: head.root.hex() for head in log.checkpoints()}
        assert all(stored.get(size) == root for size, root in shown)
        last = log.latest()
        assert last is not None
        for size, root in shown:
            proof = log.consistency(size, last.size)
            verify_consistency(size, bytes.fromhex(root), last.size, last.root, proof)
