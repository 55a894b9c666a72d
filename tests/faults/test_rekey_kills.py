"""SIGKILL before every step of a change of the record key: run again, or started, it ends with one key, and the collector agrees."""

import json
import signal
import sqlite3
import subprocess
import sys
from random import Random

import pytest
from pipelines import FAST, MAKE_METER, live
from serving import settings_for
from sim_node import SimRecording

from flopmeter.agent.access.credentials import Joined
from flopmeter.agent.access.state import load_identity, load_request
from flopmeter.agent.keys import load_or_create_key, under_way
from flopmeter.agent.pipeline import Pipeline, PipelineSettings
from flopmeter.agent.rekey import rekey
from flopmeter.agent.shipping.spool import Spool
from flopmeter.collector.check.fsck import check_store
from flopmeter.collector.running import RunningCollector
from flopmeter.contract.record import ZERO_HASH

#: Changes the key, and kills itself right before the n-th thing that others or a crash could see.
CHILD = """
import asyncio, os, pathlib, signal, sys
state, collector, limit = sys.argv[1], sys.argv[2], int(sys.argv[3])
seen = 0
def count():
    global seen
    seen += 1
    if seen == limit:
        os.kill(os.getpid(), signal.SIGKILL)
def counted(call):
    def do(*args, **kwargs):
        count()
        return call(*args, **kwargs)
    return do
from flopmeter.agent import rekey
from flopmeter.agent.access import channel, encode, step
for owner, names in ((os, ("fsync", "truncate", "link")), (pathlib.Path, ("replace", "rename", "unlink", "rmdir", "mkdir"))):
    for name in names:
        setattr(owner, name, counted(getattr(owner, name)))
made = channel.caller
def caller(*args):
    call = made(*args)
    async def ask(*request):
        count()
        answer = await call(*request)
        count()
        return answer
    return ask
channel.caller = caller
rekey.rekey(pathlib.Path(state), collector)
print(seen)
"""
WAIT_S = 60.0


@pytest.fixture
def running(tmp_path):
    more = {"tls_name": "localhost,127.0.0.1", "enrol": "127.0.0.1:0", "admit_new": False}
    with RunningCollector(settings_for(tmp_path, **more)) as running:
        yield running


def opened(state, running, recording, token: str) -> Pipeline:
    host, _, port = running.enrol_address.rpartition(":")
    settings = PipelineSettings(
        state=state,
        collector=running.address,
        timing=FAST,
        access=lambda node, _: Joined(state, node, (host, int(port)), lambda: token, rng=Random(1)),
    )
    return Pipeline.open(recording.facts(), MAKE_METER, settings, agent_version="0.1.0", rng=Random(1))


def test_killed_at_every_step_it_is_one_agent_in_the_end_and_ships_as_that(tmp_path, running):
    """One agent's key is changed again and again, each time killed one step later."""
    desk = running._collector._front.desk
    made, _ = desk.make_join_token(name="", nodes="*", uses=1, lasts_s=3600, who="test")
    state, token = tmp_path / "state", made.text()
    recording = live(SimRecording(1_200, gpus=1))
    items = iter(list(recording.items()))
    agents: list[str] = []
    everybody: list[str] = []  # who there was, at some time
    killed = halfway = 0
    for limit in range(1, 100):
        pipeline = opened(state, running, recording, token)
        for _ in range(12):
            pipeline.observe(next(items))
        assert pipeline.stop(WAIT_S), pipeline.status
        agents.append(load_or_create_key(state).agent_id.hex())
        everybody.append(agents[-1])
        done = subprocess.run(
            [sys.executable, "-c", CHILD, str(state), running.address, str(limit)],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert all(p.stat().st_mode & 0o077 == 0 for p in [*state.glob("*.key"), *state.glob("rekey/*")])
        if done.returncode == 0:
            break
        assert done.returncode == -signal.SIGKILL, done.stderr
        killed += 1
        if under_way(state):
            halfway += 1
            was = load_or_create_key(state).agent_id.hex()
            everybody.append(
                was
            )  # behind the last step but one the change is whole, and the command begins another
            # By turns as a start and as the command go on.
            ended = rekey(state, running.address, only_finish=bool(limit % 2))
            assert ended is not None or load_or_create_key(state).agent_id.hex() == was, limit
        assert not under_way(state)
        assert load_request(state) is None
        assert load_identity(state).agent_id == load_or_create_key(state).agent_id.hex(), limit
        spool = Spool.open(state / "spool")
        newest = spool.entry(spool.newest_seq).record[:16].hex() if spool.newest_seq else ""
        changed = load_or_create_key(state).agent_id.hex() != agents[-1]
        assert newest == ("" if changed else agents[-1]), limit
        assert (spool.tip[:2] == (1, ZERO_HASH)) == changed
        spool.close()
    assert killed >= 20, "every step was to be met"
    assert halfway >= 15
    changes = len({*everybody, load_or_create_key(state).agent_id.hex()}) - 1
    running.stop()
    with sqlite3.connect(tmp_path / "b.db") as db:
        rows = [
            json.loads(d)
            for (d,) in db.execute("SELECT detail FROM access WHERE kind = 'key-changed' ORDER BY 1")
        ]
        clones = db.execute("SELECT count(*) FROM access WHERE kind = 'clone-seen'").fetchone()[0]
        (told_ns,) = db.execute("SELECT sum(duration_ns) FROM totals").fetchone()
        seqs = db.execute(
            "SELECT agent_no, count(*), max(seq), min(seq) FROM records GROUP BY agent_no"
        ).fetchall()
    db.close()
    assert len(rows) == changes, "the collector knows of each change, and of no other"
    assert len({r["old"] for r in rows}) == changes
    assert clones == 0
    assert all(count == last and first == 1 for _, count, last, first in seqs)
    # One GPU, read last before each stop: no nanosecond is lost or told twice.
    assert told_ns == (12 * len(agents) - 1) * 10**9
    assert check_store(tmp_path / "b.db", ()).difference is None
