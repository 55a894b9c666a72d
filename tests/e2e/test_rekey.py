"""An agent changes its record key: by a real collector, with a real meter, and the books go on where they were."""

import json
import os
import sqlite3
import stat
from itertools import pairwise
from random import Random

import pytest
from books_dump import rows
from pipelines import FAST, MAKE_METER, live, notices, sums
from serving import settings_for
from sim_node import SimRecording

from flopmeter.agent import rekey as rekeying
from flopmeter.agent.access.credentials import Joined
from flopmeter.agent.access.state import Request, load_identity, save_request
from flopmeter.agent.errors import AgentError
from flopmeter.agent.keys import KEY_FILE, load_or_create_key
from flopmeter.agent.pipeline import Pipeline, PipelineSettings
from flopmeter.agent.rekey import RekeyError, rekey
from flopmeter.agent.run import run_agent
from flopmeter.agent.settings import AgentSettings
from flopmeter.agent.shipping.spool import Spool
from flopmeter.cli.main import flopmeter
from flopmeter.collector.check.fsck import check_store
from flopmeter.collector.encode import decode_batch
from flopmeter.collector.running import RunningCollector
from flopmeter.contract.evidence_class import EvidenceClass
from flopmeter.contract.record import ZERO_HASH, parse_record
from flopmeter.contract.usage import GapReason

WAIT_S = 60.0
TICKS = 60
HALF = 31  # of 60 s, in windows of 10 s


@pytest.fixture
def running(tmp_path):
    more = {"tls_name": "localhost,127.0.0.1", "enrol": "127.0.0.1:0", "admit_new": False}
    with RunningCollector(settings_for(tmp_path, **more)) as running:
        yield running


class Node:
    """A node with two GPUs, whose agent lives from item to item of a recording."""

    def __init__(self, tmp_path, running) -> None:
        self.state = tmp_path / "state"
        self.running = running
        self.address = running.address
        self.desk = running._collector._front.desk
        made, _ = self.desk.make_join_token(name="", nodes="*", uses=1, lasts_s=3600, who="test")
        self.token = made.text()
        self.recording = live(SimRecording(TICKS))
        self.items = list(self.recording.items())

    def open(self, *, ships: bool = True) -> Pipeline:
        host, _, port = self.running.enrol_address.rpartition(":")
        settings = PipelineSettings(
            state=self.state,
            collector=self.address if ships else "",
            timing=FAST,
            access=lambda node, forget: Joined(
                self.state, node, (host, int(port)), lambda: self.token, rng=Random(1), other_authority=forget
            ),
        )
        return Pipeline.open(
            self.recording.facts(), MAKE_METER, settings, agent_version="0.1.0", rng=Random(1)
        )

    def lives(self, first: int, last: int, *, ships: bool = True) -> None:
        """Readings of ticks `first` up to before `last`, then a clean stop."""
        pipeline = self.open(ships=ships)
        for item in self.items[2 * first : 2 * last]:
            pipeline.observe(item)
        assert pipeline.stop(WAIT_S) is ships

    def rekeys(self, **more):
        return rekey(self.state, self.address, **more)


@pytest.fixture
def node(tmp_path, running):
    return Node(tmp_path, running)


def agent_of(state) -> str:
    return load_or_create_key(state).agent_id.hex()


def records(tmp_path) -> list[tuple[str, int, bytes]]:
    with sqlite3.connect(tmp_path / "b.db") as db:
        found = [bytes(raw) for (raw,) in db.execute("SELECT record FROM records ORDER BY position")]
    db.close()
    parsed = [parse_record(raw) for raw in found]
    return [(p.agent_id.hex(), p.seq, p.payload) for p in parsed]


def kinds(tmp_path) -> list[str]:
    with sqlite3.connect(tmp_path / "b.db") as db:
        found = [kind for (kind,) in db.execute("SELECT kind FROM access ORDER BY access_no")]
    db.close()
    return found


def spool_is_of(state, agent: str) -> bool:
    spool = Spool.open(state / "spool")
    try:
        return all(e.record[:16].hex() == agent for e in spool.entries(1))
    finally:
        spool.close()


def test_the_books_go_on_under_the_new_key_and_nothing_is_told_twice(tmp_path, running, node):
    node.lives(0, HALF)
    old = agent_of(node.state)
    changed = node.rekeys()
    assert (changed.old_agent_id, changed.new_agent_id) == (old, agent_of(node.state))
    assert changed.new_agent_id != old
    assert not changed.resumed
    node.token = ""  # no token is needed
    node.lives(HALF + 9, TICKS)  # nobody reads for nine seconds
    running.stop()

    told = records(tmp_path)
    assert [(agent, seq) for agent, seq, _ in told] == [
        *((old, seq) for seq in range(1, 5)),
        *((changed.new_agent_id, seq) for seq in range(1, len(told) - 3)),
    ]
    batches = [decode_batch(payload) for _, _, payload in told]
    ends = [(b.window_start_boot_ns, b.window_end_boot_ns) for b in batches]
    assert all(before[1] == after[0] for before, after in pairwise(ends))

    # All time of both GPUs is told of once. The GPU that was read last before the stop was read just when the window
    # ended: one exact interval. The other's last reading was 1 ms before, and what reaches back is a gap from there.
    total = sums(batches)
    assert total["1 ns"] == (TICKS - 1) * 10**9
    assert (TICKS - 1) * 10**9 - total["0 ns"] == 1_000_000
    gaps = [
        (u.entity_index, u.gap_reason, u.duration_ns)
        for b in batches
        for u in b.usage
        if u.evidence_class is EvidenceClass.GAP
    ]
    assert gaps == [(0, GapReason.RECORD_LOST, 10 * 10**9 - 1_000_000)]
    calm = sums(calm_batches(tmp_path))
    for what in ("elapsed", "hmma", "mj"):
        assert total[f"1 {what}"] == calm[f"1 {what}"] > 0, what
    assert not [n for n in notices(batches) if "TWICE" in n.name]
    assert rows(tmp_path / "b.db", "SELECT key FROM events WHERE type = 'evidence.fork'") == []
    measured = "sum(sm_elapsed_cycles), sum(hmma_cycles), sum(energy_mj) FROM totals WHERE gap_reason = 0"
    booked = rows(tmp_path / "b.db", f"SELECT {measured}")
    assert booked == ["|".join(str(total[f"0 {x}"] + total[f"1 {x}"]) for x in ("elapsed", "hmma", "mj"))]
    assert rows(tmp_path / "b.db", "SELECT sum(duration_ns) FROM totals") == [
        str(total["0 ns"] + total["1 ns"])
    ]
    assert kinds(tmp_path)[-2:] == ["key-changed", "enrolled"]
    assert check_store(tmp_path / "b.db", ()).difference is None


def calm_batches(tmp_path):
    """The same node, metered by one agent that is stopped and started at the same times."""
    recording = live(SimRecording(TICKS))
    items = list(recording.items())
    state = tmp_path / "calm"
    for first, last in ((0, HALF), (HALF + 9, TICKS)):
        pipeline = Pipeline.open(
            recording.facts(), MAKE_METER, PipelineSettings(state=state), agent_version="0.1.0", rng=Random(1)
        )
        for item in items[2 * first : 2 * last]:
            pipeline.observe(item)
        pipeline.stop(0)
    spool = Spool.open(state / "spool")
    found = [decode_batch(parse_record(e.record).payload) for e in spool.entries(1)]
    spool.close()
    return found


def test_it_is_refused_while_the_agent_runs_or_records_wait(node):
    node.lives(0, HALF)
    before = (node.state / KEY_FILE).read_bytes()
    pipeline = node.open(ships=False)
    try:
        with pytest.raises(RekeyError, match="the agent is running"):
            node.rekeys()
    finally:
        pipeline.close()
    node.lives(HALF, HALF + 15, ships=False)
    with pytest.raises(RekeyError, match="2 records wait for the collector") as refused:
        node.rekeys()
    assert refused.value.exit_code == 1
    assert "start the agent once" in refused.value.hint
    assert not (node.state / "rekey").exists()
    assert (node.state / KEY_FILE).read_bytes() == before


def test_a_renewal_without_answer_comes_first(node):
    node.lives(0, 5)
    save_request(node.state, Request("t", 1, "spiffe://x", "csr", "key"))
    with pytest.raises(RekeyError, match="a renewal of the certificate has no answer yet"):
        node.rekeys()


def test_a_collector_that_is_not_there_changes_nothing(node, running, monkeypatch):
    node.lives(0, 5)
    before = {p.name: p.read_bytes() for p in node.state.iterdir() if p.is_file()}
    running.stop()
    monkeypatch.setattr(rekeying, "CONNECT_S", 0.3)
    with pytest.raises(RekeyError, match="no connection within") as unreachable:
        node.rekeys()
    assert unreachable.value.exit_code == 3
    assert unreachable.value.hint == "nothing was changed"
    assert {p.name: p.read_bytes() for p in node.state.iterdir() if p.is_file()} == before
    assert not (node.state / "rekey").exists()


def test_an_agent_that_was_revoked_gets_no_new_key(node, tmp_path):
    node.lives(0, 5)
    old = agent_of(node.state)
    node.desk.revoke_agent(bytes.fromhex(old), who="test", why="sold")
    with pytest.raises(RekeyError, match="PERMISSION_DENIED: revoked") as refused:
        node.rekeys()
    assert refused.value.exit_code == 1
    assert agent_of(node.state) == old
    assert not (node.state / "rekey").exists()
    assert "key-changed" not in kinds(tmp_path)


def test_an_agent_without_certificate_is_told_of_the_way_by_hand(tmp_path):
    load_or_create_key(tmp_path / "state")
    with pytest.raises(RekeyError, match="has no certificate") as refused:
        rekey(tmp_path / "state", "127.0.0.1:9840")
    assert "admit the new key by hand" in refused.value.hint
    with pytest.raises(RekeyError, match="there is no agent"):
        rekey(tmp_path / "nowhere", "127.0.0.1:9840")
    assert not (tmp_path / "nowhere").exists()


def test_no_answer_leaves_it_to_be_asked_again_and_neither_key_signs(node, tmp_path, monkeypatch):
    """The collector took the new key, and its answer was lost."""
    node.lives(0, 5)
    old = agent_of(node.state)
    with monkeypatch.context() as cut:
        cut.setattr("flopmeter.agent.access.encode.renew_answer", _lost)
        with pytest.raises(RekeyError, match="its answer") as unknown:
            node.rekeys()
    assert unknown.value.exit_code == 3
    with pytest.raises(AgentError, match="a change of its record key is not done"):
        node.open()
    with pytest.raises(AgentError, match="tarot"):  # a start goes on with it before it does anything else
        run_agent(AgentSettings(source="tarot", state=node.state, collector=node.address))
    new = agent_of(node.state)
    assert new != old
    assert kinds(tmp_path).count("key-changed") == 1
    assert load_identity(node.state).agent_id == new
    node.lives(5, 20)
    assert {agent for agent, _, _ in records(tmp_path)} == {old, new}


def test_a_start_does_not_begin_what_was_only_prepared(node):
    node.lives(0, 5)
    old = agent_of(node.state)
    load_or_create_key(node.state / "rekey")
    with pytest.raises(AgentError, match="tarot"):
        run_agent(AgentSettings(source="tarot", state=node.state, collector=node.address))
    assert agent_of(node.state) == old
    assert not (node.state / "rekey").exists()


def test_a_full_disk_is_said_and_the_change_goes_on_later(node, monkeypatch):
    node.lives(0, 5)
    old = agent_of(node.state)

    def full(directory) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as cut:
        cut.setattr(rekeying, "sync_directory", full)
        with pytest.raises(RekeyError, match="No space left on device") as said:
            node.rekeys()
    assert said.value.exit_code == 3
    changed = node.rekeys()
    assert (changed.resumed, changed.new_agent_id) == (True, agent_of(node.state))
    assert changed.new_agent_id != old


def _lost(raw: bytes) -> None:
    raise ValueError(f"{len(raw)} bytes that went astray")


def test_uncovered_records_stay_and_files_are_private(node):
    node.lives(0, HALF)
    old = agent_of(node.state)
    spool = Spool.open(node.state / "spool")
    spool._covered.set(2)
    spool.close()
    node.rekeys()
    kept = sorted(p.name for p in (node.state / "spool/quarantine").iterdir() if p.name.startswith("record-"))
    assert {name.split("-")[1] for name in kept} == {"3", "4"}
    for path in node.state.iterdir():
        if path.is_file() and (path.name == KEY_FILE or path.suffix == ".json"):
            assert stat.S_IMODE(path.stat().st_mode) & 0o077 == 0 or path.name == "log-head.json", path
    spool = Spool.open(node.state / "spool")
    assert spool.tip[:2] == (1, ZERO_HASH)
    assert spool.tip.journal
    assert spool.pending == spool.newest_seq == 0
    spool.close()
    assert spool_is_of(node.state, old)
    assert not list(node.state.glob("rekey*"))


def test_the_command_says_what_it_did(node, monkeypatch):
    from click.testing import CliRunner

    node.lives(0, 5)
    for name in [n for n in os.environ if n.startswith("FLOPMETER_")]:
        monkeypatch.delenv(name)
    args = ["agent", "rekey", "--state", str(node.state), "--collector", node.address]
    old = agent_of(node.state)
    done = CliRunner().invoke(flopmeter, [*args, "--json"], catch_exceptions=False)
    said = json.loads(done.stdout)
    assert set(said) == {"old_agent_id", "new_agent_id", "new_public_key", "not_after_unix_s", "resumed"}
    assert said["old_agent_id"] == old
    told = CliRunner().invoke(flopmeter, args, catch_exceptions=False).stdout
    assert f"agent {said['new_agent_id']} is over\n" in told
    assert f"agent {agent_of(node.state)} goes on" in told
