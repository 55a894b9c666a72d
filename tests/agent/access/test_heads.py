"""The agent's memory of the collector's log: what it takes, what it calls a contradiction, what a crash leaves."""

import json
import logging
import random
from pathlib import Path

import pytest
from signed_log import SignedLog

from flopmeter.agent.access.heads import CONTRADICTIONS, HEAD_FILE, Heads, kept_contradictions, known_head
from flopmeter.agent.errors import SpoolFullError


class Memory:
    """A state directory, its heads, and what the books were told."""

    def __init__(self, state: Path) -> None:
        self.state = state
        self.told: list[tuple[str, str]] = []
        self.now = 1_790_000_000_000_000_000
        self.again()

    def again(self) -> Heads:
        """As after a restart."""
        self.heads = Heads(
            self.state, tell=lambda name, text: self.told.append((name, text)), unix_ns=self._now
        )
        return self.heads

    def _now(self) -> int:
        self.now += 1_000_000_000
        return self.now

    @property
    def size(self) -> int:
        return self.heads.known.size if self.heads.known else 0

    def hear(self, log: SignedLog, size: int | None = None, **more) -> bool:
        proof = log.consistency(self.size, size)
        return self.heads.hear(log.note(size, **more), proof, log.vkey)


@pytest.fixture
def memory(tmp_path: Path) -> Memory:
    return Memory(tmp_path)


def test_the_first_head_is_taken_and_each_later_one_must_go_on_from_it(memory: Memory) -> None:
    log = SignedLog().grow(1)
    rng = random.Random(7)
    for _ in range(40):
        assert memory.hear(log)
        memory.again()  # what was heard is on disk by then
        assert memory.size == log.size
        log.grow(rng.randrange(4))
    assert memory.told == []
    assert memory.heads.standing == ""
    assert known_head(memory.state)[:2] == (log.origin, memory.size)


def test_a_log_that_was_set_back_is_told_once_and_remembered(memory: Memory, caplog) -> None:
    log = SignedLog().grow(20)
    assert memory.hear(log)
    restored = SignedLog().grow(8)
    with caplog.at_level(logging.ERROR):
        assert not memory.hear(restored)
        assert not memory.hear(restored)
        memory.again()
        assert not memory.hear(restored.grow(2))
    assert memory.size == 20  # what was known stays what is known
    assert memory.heads.contradictions == 1  # since the restart
    ((name, said),) = memory.told
    assert said.startswith("set-back: 20 leaves")
    assert "now the log has 8" in said
    assert len(said) <= 256
    assert len(caplog.records) == 2  # once per start
    (kept,) = (memory.state / CONTRADICTIONS).iterdir()
    data = json.loads(kept.read_text())
    assert data["known_note"].encode() == log.note()
    assert data["shown_note"].encode() == SignedLog().grow(8).note()
    assert name == f"log-{kept.stem}"


def test_a_restored_log_that_grew_past_what_was_known_cannot_prove_that_it_goes_on(memory: Memory) -> None:
    assert memory.hear(SignedLog().grow(20))
    forked = SignedLog().grow(8).grow(20, "another leaf")
    assert not memory.hear(forked)
    assert memory.told[0][1].startswith("forked: ")


def test_another_tree_of_the_same_size_is_a_fork(memory: Memory) -> None:
    assert memory.hear(SignedLog().grow(9))
    assert not memory.hear(SignedLog().grow(8).grow(1, "another"))
    assert memory.told[0][1].startswith("forked: ")


def test_a_proof_that_is_missing_is_no_proof(memory: Memory) -> None:
    log = SignedLog().grow(5)
    assert memory.hear(log)
    log.grow(5)
    assert not memory.heads.hear(log.note(), [], log.vkey)
    assert memory.hear(log)  # it was only late: nothing stands any more
    assert memory.heads.standing == ""
    assert memory.size == 10


def test_a_log_of_another_key_or_name_or_without_signature_is_another_log(memory: Memory) -> None:
    log = SignedLog().grow(5)
    assert memory.hear(log)
    same_name = SignedLog(seed=b"thief").grow(5)
    assert not memory.hear(same_name)
    assert not memory.heads.hear(same_name.note(), [], "")  # without saying so
    assert not memory.hear(SignedLog("another").grow(5))
    assert not memory.hear(log.grow(1), broken=True)
    assert {text.partition(":")[0] for _, text in memory.told} == {"another-log", "not-signed"}
    assert memory.size == 5


def test_what_is_no_note_is_told_too_and_takes_nothing_with_it(memory: Memory) -> None:
    log = SignedLog("o" * 300).grow(5)
    assert memory.hear(log)
    for note in (
        b"",
        b"\xff",
        b"a\n\n\n",
        log.note()[:-1],
        log.note().replace(b"\n5\n", b"\n05\n"),
        b"x" * 400_000,
    ):
        assert not memory.heads.hear(note, [], log.vkey)
    assert [text.partition(":")[0] for _, text in memory.told] == ["unreadable"]
    assert memory.hear(log.grow(3))


def test_every_bit_of_a_head_counts(memory: Memory) -> None:
    log = SignedLog().grow(5)
    assert memory.hear(log)
    log.grow(6)
    note, proof = log.note(), log.consistency(5)
    rng = random.Random(3)
    for _ in range(200):
        at = rng.randrange(len(note) * 8)
        flipped = bytearray(note)
        flipped[at // 8] ^= 1 << at % 8
        assert not memory.heads.hear(bytes(flipped), proof, ""), f"bit {at}"
    for at in range(len(proof) * 256):
        flipped = [bytearray(p) for p in proof]
        flipped[at // 256][at % 256 // 8] ^= 1 << at % 8
        assert not memory.heads.hear(note, [bytes(p) for p in flipped], "")
    assert memory.heads.hear(note, proof, "")


def test_without_a_key_nothing_is_pinned_by_what_cannot_be_checked(memory: Memory) -> None:
    log = SignedLog().grow(5)
    assert not memory.heads.hear(log.note(), [], "")
    assert memory.heads.known is None
    assert memory.told == []


def test_a_memory_that_the_disk_damaged_is_moved_aside(memory: Memory) -> None:
    log = SignedLog().grow(5)
    assert memory.hear(log)
    path = memory.state / HEAD_FILE
    path.write_bytes(path.read_bytes()[:-30])
    memory.again()
    assert memory.heads.known is None
    assert (memory.state / f"{HEAD_FILE}.damaged").exists()
    assert memory.hear(log)


def test_a_head_that_the_disk_had_no_room_for_is_still_the_one_that_the_next_proof_begins_with(
    memory: Memory, monkeypatch
) -> None:
    """The collector proves each head of a stream from the one that it showed before."""
    log = SignedLog().grow(5)
    assert memory.hear(log)

    def full(path: Path, data: bytes) -> None:
        raise SpoolFullError("no room")

    with monkeypatch.context() as patch:
        patch.setattr("flopmeter.agent.access.heads.write_file", full)
        assert not memory.heads.hear(log.grow(5).note(), log.consistency(5, 10), log.vkey)
        assert not memory.heads.hear(log.note(), [], log.vkey)  # the same again covers nothing either
    assert memory.heads.hear(log.grow(5).note(), log.consistency(10, 15), log.vkey)
    assert memory.told == []
    memory.again()
    assert memory.size == 15


def test_a_full_disk_forgets_no_head_and_covers_nothing(memory: Memory, monkeypatch) -> None:
    log = SignedLog().grow(5)
    assert memory.hear(log)

    def full(path: Path, data: bytes) -> None:
        raise SpoolFullError("no room")

    monkeypatch.setattr("flopmeter.agent.access.heads.write_file", full)
    assert not memory.hear(log.grow(5))
    assert known_head(memory.state)[1] == 5
    assert not memory.hear(SignedLog().grow(2))  # cannot be kept; the books are told all the same
    assert [text.partition(":")[0] for _, text in memory.told] == ["set-back"]


def test_what_the_known_head_has_settled_stands_after_no_restart(memory: Memory) -> None:
    """Two collectors behind one name, of which the right one answers again, with nothing new in its log."""
    log = SignedLog().grow(5)
    assert memory.hear(log)
    assert not memory.hear(SignedLog().grow(2))
    assert memory.hear(log)
    memory.again()
    assert memory.heads.standing == ""


def test_a_restart_knows_that_something_stands(memory: Memory) -> None:
    log = SignedLog().grow(5)
    assert memory.hear(log)
    assert not memory.hear(SignedLog().grow(2))
    assert "set back" in memory.again().standing
    assert memory.hear(log.grow(1))
    assert memory.again().standing == ""
    assert [c.kind for c in kept_contradictions(memory.state)] == ["set-back"]
