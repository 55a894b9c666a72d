"""What a witness answers: the statuses of C2SP tlog-witness, one by one, and what it then remembers."""

import base64
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from witness_rig import START_S, Clock, Log, a_witness, consistency, keys, root

from flopmeter.evidence.note import parse_checkpoint, parse_key, signers
from flopmeter.witness.heads import Heads
from flopmeter.witness.request import AddCheckpoint, body
from flopmeter.witness.witness import Witness


class Bench:
    """A witness, the log that it watches, and a clock."""

    def __init__(self, state: Path) -> None:
        self.state, self.log, self.clock = state, Log().grow(8), Clock()
        self.witness, self.heads = a_witness(state, self.log, clock=self.clock)

    def ask(self, old: int, size: int | None = None) -> tuple[int, bytes]:
        answer = self.witness.add_checkpoint(self.log.ask(old, size))
        return answer.status, answer.body

    def send(self, old: int, proof: list[bytes], note: bytes) -> tuple[int, bytes]:
        answer = self.witness.add_checkpoint(body(AddCheckpoint(old, tuple(proof), note)))
        return answer.status, answer.body

    @property
    def stands(self) -> int:
        heads, _ = self.heads.all()
        return heads[0].size if heads else 0


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    found = Bench(tmp_path / "witness.db")
    yield found
    found.heads.close()


@pytest.mark.parametrize("ml_dsa", [False, True], ids=["ed25519", "ed25519+ml-dsa"])
def test_200_the_lines_are_cosignatures_over_the_whole_tree_as_of_now(tmp_path: Path, ml_dsa: bool) -> None:
    log, ours = Log().grow(5), keys(ml_dsa=ml_dsa)
    witness, heads = a_witness(tmp_path / "w.db", log, ours=ours)
    with closing(heads):
        answer = witness.add_checkpoint(log.ask(0))
    assert answer.status == 200
    cosigned = parse_checkpoint(log.sign(log.text()) + answer.body)
    found = signers(cosigned, [log.verifier, *(parse_key(k.vkey) for k in ours)])
    assert found == {log.verifier: None, **{parse_key(k.vkey): START_S for k in ours}}


def test_a_log_is_followed_step_by_step(bench: Bench) -> None:
    for old, size in ((0, 1), (1, 3), (3, 4), (4, 8)):
        assert bench.ask(old, size)[0] == 200
        assert bench.stands == size


def test_the_same_head_is_cosigned_again_with_a_new_time(bench: Bench) -> None:
    bench.ask(0)
    bench.clock.now_s += 60
    status, lines = bench.ask(8)
    assert status == 200
    note = parse_checkpoint(bench.log.sign(bench.log.text()) + lines)
    assert list(signers(note, [parse_key(k.vkey) for k in keys()]).values()) == [START_S + 60]


def test_an_empty_log_is_cosigned(bench: Bench) -> None:
    assert bench.ask(0, 0)[0] == 200
    assert bench.ask(0, 8)[0] == 200


def test_extension_lines_are_under_the_cosignature(bench: Bench) -> None:
    text = bench.log.text() + b"an extension\n"
    status, lines = bench.send(0, [], bench.log.sign(text))
    assert status == 200
    signers(parse_checkpoint(bench.log.sign(text) + lines), [parse_key(keys()[0].vkey)])


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"old 0",
        b"old 0\n",
        b"old 0\n\n",
        b"old 00\n\nNOTE",
        b"old 08\n\nNOTE",
        b"old -1\n\nNOTE",
        b"old +1\n\nNOTE",
        b"old 1_0\n\nNOTE",
        "old ١\n\nNOTE".encode(),
        b"old  0\n\nNOTE",
        b"old 0 \n\nNOTE",
        b"Old 0\n\nNOTE",
        b"size 0\n\nNOTE",
        b"old 0\r\n\r\nNOTE",
        b"old 9223372036854775808\n\nNOTE",
        b"old 99999999999999999999999999\n\nNOTE",
        b"old 0\nAAAA\n\nNOTE",
        b"old 0\n" + base64.b64encode(bytes(31)) + b"\n\nNOTE",
        b"old 0\n" + base64.b64encode(bytes(33)) + b"\n\nNOTE",
        b"old 0\n" + base64.b64encode(bytes(32)).rstrip(b"=") + b"\n\nNOTE",
        b"old 0\n" + base64.b64encode(bytes(32))[:-2] + b"B=\n\nNOTE",  # same 32 bytes, other text
        b"old 0\n " + base64.b64encode(bytes(32)) + b"\n\nNOTE",
        b"old 0\n" + (base64.b64encode(bytes(32)) + b"\n") * 64 + b"\nNOTE",
        b"old 0\n\nno note\n",
        b"old 0\n\nlog.example/1\n8\nAAAA\n\n",
    ],
    ids=range(26),
)
def test_400_what_is_no_request(bench: Bench, text: bytes) -> None:
    note = bench.log.sign(bench.log.text())
    assert bench.witness.add_checkpoint(text.replace(b"NOTE", note)).status == 400
    assert bench.stands == 0


def test_the_request_that_the_400s_vary_is_good(bench: Bench) -> None:
    assert bench.witness.add_checkpoint(b"old 0\n\n" + bench.log.sign(bench.log.text())).status == 200


def test_400_an_old_size_past_the_checkpoints(bench: Bench) -> None:
    bench.ask(0, 4)
    assert bench.send(5, [], bench.log.sign(bench.log.text(4)))[0] == 400


def test_404_another_log(bench: Bench) -> None:
    other = Log("log.example/2", bench.log.seed).grow(3)
    assert bench.witness.add_checkpoint(other.ask(0)).status == 404


def test_404_goes_by_the_origin_line_not_by_who_signed(bench: Bench) -> None:
    text = bench.log.text().replace(b"log.example/1", b"log.example/9")
    assert bench.send(0, [], bench.log.sign(text))[0] == 404


def test_403_not_signed_by_the_logs_key(bench: Bench) -> None:
    thief = Log(bench.log.origin, b"\2" * 32, bench.log.leaves)
    assert bench.witness.add_checkpoint(thief.ask(0)).status == 403


def test_403_the_key_is_the_logs_and_the_signature_is_not(bench: Bench) -> None:
    note = bench.log.sign(bench.log.text())
    other = bench.log.sign(bench.log.text(4)).splitlines(keepends=True)[-1]
    assert bench.send(0, [], bench.log.text() + b"\n" + other)[0] == 403
    # "… or a signature line's key name and ID match a trusted key but the signature itself fails": beside a good one too.
    assert bench.send(0, [], note + other)[0] == 403
    assert bench.stands == 0


def test_signatures_of_others_are_passed_over(bench: Bench) -> None:
    note = bench.log.sign(bench.log.text())
    stranger = Log("log.example/1", b"\5" * 32).sign(bench.log.text()).splitlines(keepends=True)[-1]
    status, _ = bench.send(0, [], note + stranger)
    assert status == 200
    assert (
        stranger not in bench.heads.all()[0][0].note
    )  # "the cosignature from the log key(s) that the witness verified"


def test_409_says_the_size(bench: Bench) -> None:
    bench.ask(0, 5)
    for old in (0, 4):
        answer = bench.witness.add_checkpoint(bench.log.ask(old, 8))
        assert (answer.status, answer.body, answer.content_type) == (409, b"5\n", "text/x.tlog.size")
    assert bench.stands == 5


def test_409_comes_before_any_proof_is_looked_at(bench: Bench) -> None:
    bench.ask(0, 5)
    assert bench.send(3, [bytes(32)], bench.log.sign(bench.log.text(8)))[0] == 409


def test_409_of_a_log_never_cosigned_says_zero(bench: Bench) -> None:
    assert bench.ask(3) == (409, b"0\n")


def test_409_a_smaller_head_is_never_cosigned(bench: Bench) -> None:
    bench.ask(0, 6)
    assert bench.ask(4, 4) == (409, b"6\n")
    assert bench.ask(0, 4) == (409, b"6\n")
    assert bench.ask(6, 4)[0] == 400
    assert bench.stands == 6


def test_422_a_fork_that_is_larger(bench: Bench) -> None:
    bench.ask(0, 5)
    fork = bench.log.fork(3, b"other")
    assert bench.witness.add_checkpoint(fork.ask(5)).status == 422
    assert bench.stands == 5
    refused = bench.heads.all()[1][0]
    assert (refused.size, refused.head_size, refused.root) == (8, 5, root(fork.leaves))


def test_422_another_root_at_the_same_size_and_the_proof_is_kept(bench: Bench) -> None:
    bench.ask(0)
    fork = bench.log.fork(3, b"other")
    assert bench.witness.add_checkpoint(fork.ask(8)).status == 422
    (head,), (refused,) = bench.heads.all()
    assert refused.size == head.size
    for note, leaves in ((head.note, bench.log.leaves), (refused.note, fork.leaves)):
        found = parse_checkpoint(note)
        assert found.root == root(leaves)
        assert bench.log.verifier in signers(found, [bench.log.verifier])


@pytest.mark.parametrize("old", [3, 4, 5])
def test_422_every_other_proof(bench: Bench, old: int) -> None:
    bench.ask(0, old)
    note, good = bench.log.sign(bench.log.text()), consistency(old, bench.log.leaves)
    for proof in (
        [],
        good[:-1],
        [*good, bytes(32)],
        good[::-1] if len(good) > 1 else [bytes(32)],
        [bytes(32), *good[1:]],
        [*good[:-1], bytes([good[-1][0] ^ 1]) + good[-1][1:]],
        [bytes(32)] * 63,
    ):
        assert bench.send(old, proof, note)[0] == 422
    assert bench.stands == old
    assert bench.send(old, good, note)[0] == 200


def test_422_a_proof_from_nothing(bench: Bench) -> None:
    assert bench.send(0, [bytes(32)], bench.log.sign(bench.log.text()))[0] == 422


def test_422_a_proof_between_equal_heads(bench: Bench) -> None:
    bench.ask(0)
    assert bench.send(8, [bytes(32)], bench.log.sign(bench.log.text()))[0] == 422


def test_422_an_empty_tree_with_leaves(bench: Bench) -> None:
    assert bench.send(0, [], bench.log.sign(bench.log.text(0, other_root=bytes(32))))[0] == 422


def test_500_when_the_state_cannot_be_written_and_nothing_leaves(bench: Bench) -> None:
    with closing(sqlite3.connect(bench.state)) as other:
        other.execute(
            "CREATE TRIGGER full BEFORE INSERT ON heads BEGIN SELECT RAISE(ABORT, 'disk full'); END"
        )
    status, text = bench.ask(0)
    assert status == 500
    assert "—" not in text.decode()


def test_503_a_clock_that_went_back_dates_nothing(bench: Bench) -> None:
    """It would say: as of a time at which a larger head had been seen already, this was the largest."""
    bench.ask(0, 4)
    bench.clock.now_s -= 1
    assert bench.ask(4, 8)[0] == 503
    assert bench.stands == 4
    bench.clock.now_s += 1
    assert bench.ask(4, 8)[0] == 200


def test_a_key_of_the_log_that_was_rotated(tmp_path: Path) -> None:
    old = Log(seed=b"\3" * 32).grow(4)
    new = Log(seed=b"\4" * 32, leaves=old.leaves)
    witness, heads = a_witness(tmp_path / "w.db", old, new)
    with closing(heads):
        assert witness.add_checkpoint(old.ask(0, 2)).status == 200
        assert witness.add_checkpoint(new.ask(2, 4)).status == 200


def test_a_request_with_one_bit_changed_is_never_cosigned(bench: Bench) -> None:
    bench.ask(0, 5)
    good = bench.log.ask(5)
    for i in range(len(good)):
        for bit in (1, 32):
            bad = good[:i] + bytes([good[i] ^ bit]) + good[i + 1 :]
            answer = bench.witness.add_checkpoint(bad)
            assert answer.status in {400, 403, 404, 409, 422}, bad
            assert "—" not in answer.body.decode()
    assert bench.stands == 5
    assert bench.witness.add_checkpoint(good).status == 200


@given(st.binary(max_size=300))
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_whatever_is_sent_is_answered(bench: Bench, body: bytes) -> None:
    note = bench.log.sign(bench.log.text())
    for text in (body, b"old 0\n" + body + b"\n\n" + note, b"old 0\n\n" + body, note[:-1] + body):
        assert bench.witness.add_checkpoint(text).status in {400, 403, 404, 409, 422} or text.endswith(note)


def test_logs_do_not_mix(tmp_path: Path) -> None:
    one, two = Log("one.example").grow(4), Log("two.example").grow(6)
    witness, heads = a_witness(tmp_path / "w.db", one, two)
    with closing(heads):
        assert witness.add_checkpoint(one.ask(0)).status == 200
        assert witness.add_checkpoint(two.ask(0)).status == 200
        assert [(h.origin, h.size) for h in heads.all()[0]] == [("one.example", 4), ("two.example", 6)]


def test_what_was_cosigned_is_there_after_a_restart(bench: Bench) -> None:
    bench.ask(0, 5)
    bench.heads.close()
    again, heads = a_witness(bench.state, bench.log)
    with closing(heads):
        assert again.add_checkpoint(bench.log.ask(0)).body == b"5\n"


@pytest.mark.parametrize(
    "statement",
    [
        "DELETE FROM heads",
        "UPDATE heads SET size = 1",
        "UPDATE heads SET root = zeroblob(32)",
        "UPDATE heads SET unix_s = 1",
        "UPDATE heads SET origin = 'other'",
        "INSERT OR REPLACE INTO heads VALUES ('log.example/1', 1, zeroblob(32), 1, x'')",
    ],
)
def test_the_state_itself_refuses_to_forget(bench: Bench, statement: str) -> None:
    bench.ask(0)
    with closing(sqlite3.connect(bench.state)) as other:
        other.execute("PRAGMA recursive_triggers = 1")
        with pytest.raises(sqlite3.IntegrityError, match="cosigned"):
            other.execute(statement)


def two_at_once(witnesses: list[Witness], bodies: list[bytes]) -> list[tuple[int, bytes]]:
    gate, answers = threading.Barrier(len(bodies)), [(0, b"")] * len(bodies)

    def run(i: int) -> None:
        gate.wait()
        answer = witnesses[i % len(witnesses)].add_checkpoint(bodies[i])
        answers[i] = (answer.status, answer.body)

    threads = [threading.Thread(target=run, args=(i,)) for i in range(len(bodies))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    return answers


@pytest.mark.parametrize("processes", [1, 2], ids=["one witness", "two on one state"])
def test_two_requests_race_and_one_wins(tmp_path: Path, processes: int) -> None:
    """The race of tlog-witness 1.0: both are consistent with the head, not with each other."""
    log = Log().grow(8)
    for turn in range(10):
        state = tmp_path / f"{turn}.db"
        opened = [a_witness(state, log) for _ in range(processes)]
        opened[0][0].add_checkpoint(log.ask(0, 3))
        fork = log.fork(3, b"other")
        asked = [log.ask(3, 5), log.ask(3, 8), fork.ask(3, 6), fork.ask(3, 8)]
        answers = two_at_once([w for w, _ in opened], asked)
        statuses = [status for status, _ in answers]
        assert sorted(statuses) == [200, 409, 409, 409]
        won = (5, 8, 6, 8)[statuses.index(200)]
        assert {text for status, text in answers if status == 409} == {b"%d\n" % won}
        for _, heads in opened:
            heads.close()


def test_another_programs_database_is_left_alone(tmp_path: Path) -> None:
    from flopmeter.witness.errors import StateError

    path = tmp_path / "books.db"
    with closing(sqlite3.connect(path)) as other:
        other.execute("CREATE TABLE records (n)")
    with pytest.raises(StateError, match="another database"):
        Heads(path)
    (tmp_path / "garbage.db").write_bytes(b"not a database" * 100)
    with pytest.raises(StateError, match="cannot be read"):
        Heads(tmp_path / "garbage.db")
    (tmp_path / "link.db").symlink_to(path)
    with pytest.raises(StateError, match="cannot be opened"):
        Heads(tmp_path / "link.db")
    assert oct((tmp_path / "books.db").stat().st_mode)[-3:] != "600"


def test_the_state_is_its_owners_alone(bench: Bench) -> None:
    assert oct(bench.state.stat().st_mode)[-3:] == "600"
