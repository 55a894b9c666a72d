"""The collector's side of tlog-witness: whom it asks from where, what it stores of what comes back, what it makes of refusals."""

import base64
import itertools
import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest
from collector_log import LoggedStore
from processes import wait_for
from receivers import authority
from witness_lab import Lab
from witness_rig import Log, keys, served

from flopmeter.collector.check.log_heads import Said, check_heads
from flopmeter.collector.check.rederive import Difference
from flopmeter.collector.check.refusal_check import check_refusals
from flopmeter.collector.errors import SettingsError
from flopmeter.collector.law.log_fault import fault_key
from flopmeter.collector.log.call import Reply
from flopmeter.collector.log.witness_office import WitnessOffice
from flopmeter.collector.log.witnesses import Standing, Witnesses, read_policy
from flopmeter.evidence.note import COSIGNED, parse_checkpoint, parse_key, signers
from flopmeter.witness.keys import Key as WitnessKey
from flopmeter.witness.request import parse
from flopmeter.witness.server import Certificate


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[Lab]:
    found = Lab(tmp_path)
    yield found
    found.close()


def test_all_are_asked_and_what_they_sign_is_stored(lab: Lab) -> None:
    ours = lab.witness("a") + lab.witness("b")
    standing = lab.ask(lab.client())
    assert standing == Standing(("a", "b"), 2, reached=True)
    assert standing.level == "witnessed(2 of 2: a, b)"
    found = parse_checkpoint(lab.store.latest().note)
    assert len(signers(found, [parse_key(lab.store.vkey), *(parse_key(k.vkey) for k in ours)])) == 3


def test_a_log_that_grows_is_cosigned_from_where_it_stood(lab: Lab) -> None:
    lab.witness("a")
    client = lab.client()
    for _ in range(3):
        assert lab.ask(client).reached
        lab.store.grow(2)
        lab.store.seal()
    sizes = [size for _, size in lab.asked]
    assert sizes == sorted(set(sizes))  # from 0, then from each head: never a second turn
    assert sizes[0] == 0
    assert lab.ask(lab.client()).reached  # a start remembers where it stands
    assert len(lab.asked) == 4


def test_who_has_cosigned_is_not_asked_again(lab: Lab) -> None:
    lab.witness("a")
    client = lab.client()
    for _ in range(3):
        assert lab.ask(client).reached
    assert len(lab.asked) == 1


def test_a_witness_that_knows_more_than_we_remember_is_proven_from_what_it_says(lab: Lab) -> None:
    lab.witness("a")
    lab.ask(lab.client())
    with closing(lab.store.open()) as db:
        db.execute("DELETE FROM witnesses")
    size = lab.store.latest().size
    lab.store.grow(2)
    lab.store.seal()
    assert lab.ask(lab.client()).reached
    assert [old for _, old in lab.asked[1:]] == [0, size]


def test_two_keys_of_one_witness_are_one_and_one_request(lab: Lab) -> None:
    ours = lab.witness("a", ml_dsa=True)
    lab.witness("b")
    path = lab.policy("2", f"witness a-pq {ours[1].vkey} https://a.example/w")
    standing = lab.ask(lab.client(path))
    assert standing == Standing(("a", "b"), 2, reached=True)
    assert sorted(lab.asked) == [("a", 0), ("b", 0)]
    assert len(lab.store.rows("SELECT * FROM cosignatures")) == 3
    assert len(lab.store.rows("SELECT vkey FROM witnesses")) == 3
    counted = Said()
    with closing(lab.store.open()) as db:
        assert len(list(check_heads(db.execute, counted))) == 1
    assert (counted.cosignatures, counted.by_others) == (3, 0)  # fsck knows each by its key


def test_a_quorum_that_is_not_reached_is_not_claimed(lab: Lab) -> None:
    lab.witness("a")
    lab.witness("b")
    lab.instead["b"] = lambda _: Reply(500, "text/plain", b"")
    standing = lab.ask(lab.client(lab.policy("all")))
    assert standing == Standing(("a",), 2, reached=False)
    assert standing.level == "unwitnessed"
    lab.now_s += 10_000
    assert lab.ask(lab.client(lab.policy("any"))) == Standing(("a",), 2, reached=True)


def test_a_quorum_of_none_without_a_witness_claims_nothing(lab: Lab) -> None:
    lab.witness("a")
    path = lab.policy()
    path.write_text(path.read_text().replace("quorum those", "quorum none"))
    lab.instead["a"] = lambda _: Reply(500, "text/plain", b"")
    assert lab.ask(lab.client(path)).level == "unwitnessed"


# --- witnesses that lie or do nothing ---


def wrong_key(lab: Lab, body: bytes) -> Reply:
    other = keys("a.example", seed=b"\x11" * 32)[0]
    return Reply(200, "text/plain", cosign(other, body))


def cosign(key: WitnessKey, body: bytes, **change: object) -> bytes:
    note = parse_checkpoint(parse(body).note)
    values = {
        "text": note.text,
        "origin": note.origin,
        "size": note.size,
        "root": note.root,
        "unix_s": 1,
        **change,
    }
    return key.cosign(*values.values())


OWN = keys("a.example", seed=b"a".ljust(32, b"!"))[0]

GARBAGE: dict[str, Callable[[bytes], Reply]] = {
    "200 with nothing": lambda _: Reply(200, "text/plain", b""),
    "200 with html": lambda _: Reply(200, "text/html", b"<html>" * 100),
    "200 with bytes": lambda _: Reply(200, "text/plain", bytes(range(256))),
    "a key of the same name": lambda body: Reply(
        200, "text/plain", cosign(keys("a.example", seed=b"\x11" * 32)[0], body)
    ),
    "another witness's name": lambda body: Reply(200, "text/plain", cosign(keys("b.example")[0], body)),
    "another root": lambda body: Reply(
        200, "text/plain", cosign(OWN, body, text=b"lab.example/log\n4\n" + base64.b64encode(bytes(32)) + b"\n")
    ),
    "another origin": lambda body: Reply(
        200, "text/plain", cosign(OWN, body, text=parse_checkpoint(parse(body).note).text.replace(b"lab", b"lob"))
    ),
    "another size": lambda body: Reply(
        200, "text/plain", cosign(OWN, body, text=parse_checkpoint(parse(body).note).text.replace(b"\n4\n", b"\n5\n"))
    ),
    "a cosignature without a time": lambda body: Reply(200, "text/plain", cosign(OWN, body, unix_s=0)),
    "a good line and a false one": lambda body: Reply(
        200, "text/plain", cosign(OWN, body) + cosign(OWN, body, unix_s=2)[:-10] + b"AAAAAAAA=\n"
    ),
    "the same line twice": lambda body: Reply(200, "text/plain", cosign(OWN, body) * 2),
    "a line without its end": lambda body: Reply(200, "text/plain", cosign(OWN, body)[:-1]),
    "a line that goes on": lambda body: Reply(200, "text/plain", cosign(OWN, body) + b"\n\nmore"),
    "the checkpoint itself": lambda body: Reply(200, "text/plain", parse(body).note),
    "201": lambda body: Reply(201, "text/plain", cosign(OWN, body)),
    "301": lambda body: Reply(301, "text/plain", cosign(OWN, body)),
    "403": lambda _: Reply(403, "text/plain", b""),
    "404": lambda _: Reply(404, "text/plain", b""),
    "409 without a size": lambda _: Reply(409, "text/x.tlog.size", b""),
    "409 with words": lambda _: Reply(409, "text/x.tlog.size", b"many\n"),
    "409 of another type": lambda _: Reply(409, "text/plain", b"2\n"),
    "409 with the old size": lambda body: Reply(409, "text/x.tlog.size", b"%d\n" % parse(body).old_size),
    "409 for ever": lambda body: Reply(409, "text/x.tlog.size", b"%d\n" % (1 if parse(body).old_size != 1 else 2)),
    "422 to the first head": lambda _: Reply(422, "text/plain", b""),
    "503": lambda _: Reply(503, "text/plain", b"\x1b[31m" * 1_000),
}  # fmt: skip


@pytest.mark.parametrize("what", GARBAGE)
def test_what_is_no_cosignature_is_not_stored_and_no_fork(lab: Lab, what: str) -> None:
    """And the office goes on: the other witness's comes in the same turn."""
    lab.witness("a")
    lab.witness("b")
    assert lab.store.latest().size == 4
    lab.instead["a"] = GARBAGE[what]
    client = lab.client()
    assert lab.ask(client).cosigned == ("b",)
    assert lab.store.rows("SELECT key_name FROM cosignatures") == [("b.example",)]
    assert lab.store.rows("SELECT * FROM refused_heads") == []
    ((error,),) = lab.store.rows("SELECT error FROM witnesses WHERE key_name = 'a.example'")
    assert error
    assert len(lab.asked) <= 5
    del lab.instead["a"]
    lab.now_s += 1_000
    assert lab.ask(client).reached
    assert lab.store.rows("SELECT error FROM witnesses") == [("",), ("",)]


def test_one_that_is_down_is_left_alone_longer_each_time(lab: Lab) -> None:
    lab.witness("a")
    lab.instead["a"] = lambda _: Reply(500, "text/plain", b"")
    client = lab.client()
    times = []
    with closing(lab.store.open()) as db:
        while len(times) < 10:
            before = len(lab.asked)
            client.ask(db)
            if len(lab.asked) > before:
                times.append(lab.now_s)
            lab.now_s += 15.0
    rests = [b - a for a, b in itertools.pairwise(times)]
    assert rests == [15.0, 30.0, 60.0, 120.0, 240.0, 480.0, 600.0, 600.0, 600.0]
    with closing(lab.store.open()) as db:  # a command that needs it now does not wait
        lab.client().ask(db, patient=False)
    assert len(lab.asked) == len(times) + 1


def test_one_that_never_ends_holds_up_nobody(tmp_path: Path) -> None:
    """Not even a thread a turn: a name that never resolves hangs in the system's resolver, past every timeout."""
    over, lab = threading.Event(), Lab(tmp_path)
    lab.witness("a")
    lab.witness("b")

    def hang(_: bytes) -> Reply:
        over.wait(60)
        return Reply(200, "text/plain", b"")

    lab.instead["a"] = hang
    client = Witnesses(read_policy(lab.policy("any")), lab.store.vkey, call=lab.call, timeout_s=0.5)
    threads = threading.active_count()
    try:
        for _ in range(3):
            with closing(lab.store.open()) as db:
                assert client.ask(db, patient=False).cosigned == ("b",)
        wait_for(
            "the threads of those that answered are over", lambda: threading.active_count() <= threads + 1
        )
        assert "hangs" in client.states[0].error
    finally:
        over.set()
        lab.close()


# --- what a refusal says of us ---


def test_a_store_set_back_is_found_out(lab: Lab, caplog: pytest.LogCaptureFixture) -> None:
    """The attack of the table in reference/attestation.md 5: restored from an older copy, and served on."""
    lab.witness("a")
    backup = lab.store.copy(lab.folder / "backup")
    lab.ask(lab.client())
    lab.store.grow(4)
    lab.store.seal()
    assert lab.ask(lab.client()).reached
    witnessed = lab.store.latest().size
    lab.store.restore(backup)
    client = lab.client()
    with caplog.at_level(logging.ERROR):
        assert lab.ask(client).level == "unwitnessed"
    assert "WITNESS a" in caplog.text
    (row,) = lab.store.rows("SELECT status, size, witness_size, key_name FROM refused_heads")
    assert row == (409, 4, witnessed, "a.example")
    caplog.clear()
    lab.instead["a"] = lambda _: Reply(500, "text/plain", b"")
    lab.ask(client)
    assert client.states[0].refused
    del lab.instead["a"]
    for _ in range(12):  # it grows past what the witness saw, and is another log
        lab.store.grow(1)
        lab.store.seal()
        lab.now_s += 1_000
        assert lab.ask(client).level == "unwitnessed"
    assert lab.ask(lab.client()).level == "unwitnessed"
    assert lab.store.latest().size > witnessed
    assert len(lab.store.rows("SELECT * FROM refused_heads")) == 1  # said once
    assert_fsck_names_each_change(lab.store)
    assert "WITNESS" not in caplog.text
    assert "422" in client.states[0].error


def test_a_refusal_is_told_until_its_event_is_in_the_store(lab: Lab) -> None:
    """The commit that was to raise it may fail: what waits with it is forgotten."""
    lab.witness("a")
    backup = lab.store.copy(lab.folder / "backup")
    lab.store.grow(4)
    lab.store.seal()
    assert lab.ask(lab.client()).reached
    lab.store.restore(backup)
    told: list[str] = []
    office = WitnessOffice(lab.store.path, read_policy(lab.policy()), None, contradicted=told.append)
    office._witnesses = lab.client()
    office.turn()
    office.turn()
    assert len(told) > 1
    assert len(set(told)) == 1
    with closing(lab.store.open()) as db:
        db.execute(
            "INSERT INTO log_faults (key, unix_ns, said) VALUES (?, 1, ?)", (fault_key(told[0]), told[0])
        )
    told.clear()
    office.turn()
    assert told == []


def assert_fsck_names_each_change(store: LoggedStore) -> None:
    """Of a refusal that the store holds."""
    with closing(store.open()) as db:
        check_refusals(db.execute)
        for trigger in ("refused_heads_stay", "log_faults_stay"):
            db.execute(f"DROP TRIGGER {trigger}")
        for change in (
            "UPDATE refused_heads SET size = size + 1",
            "UPDATE refused_heads SET root = zeroblob(32)",
            "UPDATE refused_heads SET key_name = 'b.example'",
            "UPDATE refused_heads SET vkey = 'b.example'",
            "INSERT INTO log_faults (key, unix_ns, said) VALUES ('k', 1, 'Witness b refused nothing')",
        ):
            db.execute("BEGIN")
            db.execute(change)
            with pytest.raises(Difference):
                check_refusals(db.execute)
            db.execute("ROLLBACK")


def test_a_split_view_is_cosigned_on_one_side_only(lab: Lab) -> None:
    """Two collectors with one key, forked from one copy, each with records of its own."""
    lab.witness("a")
    lab.ask(lab.client())
    other = lab.store.copy(lab.folder / "other", node="n2")
    one, two = lab.client(), lab.client()
    seen: dict[int, set[bytes]] = {}
    for turn in range(6):
        for store, client in ((lab.store, one), (other, two))[:: 1 if turn % 2 else -1]:
            store.grow(1 + turn % 3)
            head = store.seal()
            lab.now_s += 1_000
            if lab.ask(client, store).reached:
                seen.setdefault(head.size, set()).add(head.root)
    assert all(len(roots) == 1 for roots in seen.values())
    refused = [s.rows("SELECT count(*) FROM refused_heads")[0][0] for s in (lab.store, other)]
    assert sorted(refused) == [0, 1]  # who was second is found out, and only that one


def test_with_no_witness_nothing_is_found_out_and_the_program_says_so(lab: Lab) -> None:
    """Honesty: the same attack as above, and nobody to remember."""
    backup = lab.store.copy(lab.folder / "backup")
    lab.store.grow(4)
    before = lab.store.seal()
    lab.store.restore(backup).grow(2)
    after = lab.store.seal()
    assert after.size != before.size
    assert Standing((), 0, reached=False).level == "unwitnessed"


def test_another_process_that_signs_meanwhile_is_no_fork(lab: Lab) -> None:
    """`attest create` seals a head and has it cosigned while the collector asks for an older one."""
    lab.witness("a")
    client = lab.client()

    def overtaken(body: bytes) -> Reply:
        del lab.instead["a"]
        lab.store.grow(2)
        lab.store.seal()
        with closing(lab.store.open()) as db:
            assert lab.client().ask(db, patient=False).reached
        return lab.call(client.states[0].address, body)

    lab.instead["a"] = overtaken
    first = lab.store.latest()
    lab.ask(client)
    assert lab.store.rows("SELECT * FROM refused_heads") == []
    assert client.states[0].error == ""
    assert client.states[0].known_size > first.size
    assert lab.ask(client).reached


def test_a_cosignature_that_two_processes_got_is_stored_once(lab: Lab) -> None:
    lab.witness("a")
    client = lab.client()

    def twice(body: bytes) -> Reply:
        del lab.instead["a"]
        with closing(lab.store.open()) as db:
            lab.client().ask(db, patient=False)
        return Reply(200, "text/plain", cosign(OWN, body, unix_s=7))

    lab.instead["a"] = twice
    assert lab.ask(client).reached
    assert len(lab.store.rows("SELECT * FROM cosignatures")) == 1


# --- the policy file ---


def test_a_policy_of_another_log_is_refused(lab: Lab) -> None:
    lab.witness("a")
    path = lab.policy()
    path.write_text(path.read_text().replace(lab.store.vkey, Log().vkey))
    with pytest.raises(SettingsError, match="the key of this log"):
        lab.client(path)
    path.write_text(
        "".join(line for line in path.read_text().splitlines(keepends=True) if not line.startswith("log"))
    )
    assert lab.ask(lab.client(path)).reached


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "tlog-policy"),
        ("quorum none\n", "at least one witness"),
        ("witness a nonsense\nquorum a\n", "tlog-policy"),
        (f"witness a {OWN.vkey} http://a.example/w\nquorum a\n", "https"),
        (f"witness a {OWN.vkey} ftp://a.example/w\nquorum a\n", "http or https"),
        (f"witness a {OWN.vkey} https://me:secret@a.example/w\nquorum a\n", "without user and password"),
        (
            f"log {Log().vkey}\nlog {Log('b', bytes(32)).vkey}\nwitness a {OWN.vkey}\nquorum a\n",
            "at most one log",
        ),
    ],
)
def test_policies_that_are_none(tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / "p").write_text(text)
    with pytest.raises(SettingsError, match=said):
        read_policy(tmp_path / "p")
    with pytest.raises(SettingsError, match="cannot read"):
        read_policy(tmp_path / "absent")


def test_plain_http_to_this_machine_is_taken(tmp_path: Path) -> None:
    (tmp_path / "p").write_text(f"witness a {OWN.vkey} http://127.0.0.1:1/\nquorum a\n")
    key, url = read_policy(tmp_path / "p").witnesses["a"]
    assert (key.kind, url) == (COSIGNED, "http://127.0.0.1:1/")


def test_a_witness_without_an_address_counts_and_is_not_asked(lab: Lab) -> None:
    lab.witness("a")
    path = lab.policy("any", f"witness silent {keys('s.example', seed=bytes(32))[0].vkey}")
    assert lab.ask(lab.client(path)) == Standing(("a",), 2, reached=True)


def test_before_the_first_head(lab: Lab, tmp_path: Path) -> None:
    lab.witness("a")
    empty = LoggedStore(tmp_path / "empty", lab.folder / "keys").grow(1)
    with closing(empty.open()) as db:
        assert lab.client().ask(db) == Standing((), 1, reached=False)


def test_over_http_with_a_real_server(lab: Lab) -> None:
    lab.witness("a")
    with served(lab.witnesses["a"]) as server:
        path = lab.policy()
        path.write_text(path.read_text().replace("https://a.example/w", server.url + "/"))
        client = Witnesses(read_policy(path), lab.store.vkey)
        with closing(lab.store.open()) as db:
            assert client.ask(db).reached
        lab.store.grow(3)
        lab.store.seal()
        with closing(lab.store.open()) as db:
            assert client.ask(db).reached
    lab.store.grow(1)
    lab.store.seal()
    with closing(lab.store.open()) as db:
        assert not client.ask(db).reached
    assert "refused" in client.states[0].error.lower()


def test_over_tls_that_is_verified(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    lab.witness("a")
    ca, cert, key = authority(lab.folder)
    with served(lab.witnesses["a"], tls=Certificate(cert, key)) as server, closing(lab.store.open()) as db:
        path = lab.policy()
        path.write_text(path.read_text().replace("https://a.example/w", server.url))
        client = Witnesses(read_policy(path), lab.store.vkey)
        assert not client.ask(db).reached
        assert "not trusted" in client.states[0].error
        monkeypatch.setenv("SSL_CERT_FILE", str(ca))
        assert client.ask(db).reached
        monkeypatch.setenv("SSL_CERT_FILE", str(lab.folder / "absent.pem"))
        lab.store.grow(1)
        lab.store.seal()
        assert not client.ask(db).reached
