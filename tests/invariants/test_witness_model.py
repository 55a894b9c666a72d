"""Whatever a lab does with its store, and however its calls break: heads that one witness cosigned never contradict each other.

A state machine (hypothesis): stores grow, are sealed, copied, restored and forked; requests and answers get lost; both sides
crash and start again. Held against the leaves themselves, not against any proof.
"""

import tempfile
from contextlib import closing
from pathlib import Path

from collector_log import LoggedStore
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, invariant, rule
from witness_rig import Clock, Log, a_witness, keys

from flopmeter.collector.errors import LogError
from flopmeter.collector.log.call import Reply
from flopmeter.collector.log.witnesses import Witnesses
from flopmeter.evidence.note import Policy, parse_checkpoint, parse_key, signers
from flopmeter.witness.request import parse

OURS = parse_key(keys()[0].vkey)
POLICY = Policy((), {"w": (OURS, "https://w.example")}, {}, "w")


def leaf_hashes(store: LoggedStore, size: int) -> bytes:
    rows = store.rows("SELECT hashes FROM log ORDER BY first_index")
    return b"".join(bytes(h) for (h,) in rows)[: 32 * size]  # type: ignore[arg-type]


class Labs(RuleBasedStateMachine):
    stores = Bundle("stores")

    def __init__(self) -> None:
        super().__init__()
        self._folder = tempfile.TemporaryDirectory()
        self.home = Path(self._folder.name)
        self.count = 0
        self.clock = Clock()
        self.clients: dict[Path, Witnesses] = {}
        self.all: list[LoggedStore] = []
        self.cosigned: list[
            tuple[int, bytes]
        ] = []  # by the witness, whether anybody heard: size, leaf hashes
        self.lost = ""
        self.asking: LoggedStore | None = None
        self.first = self._new(LoggedStore(self.home / "0", self.home / "keys")).grow(1)
        self.first.seal()
        self.vkey = self.first.vkey
        self.log = Log("lab.example/log", self.first.signer.private.private_bytes_raw())
        self.witness, self.heads = a_witness(self.home / "w.db", self.log, clock=self.clock)

    def _new(self, store: LoggedStore) -> LoggedStore:
        self.all.append(store)
        self.count += 1
        return store

    def call(self, _: object, body: bytes) -> Reply:
        if self.lost == "request":
            raise LogError("lost")
        answer = self.witness.add_checkpoint(body)
        if answer.status == 200:
            assert self.asking is not None
            size = parse_checkpoint(parse(body).note).size
            self.cosigned.append((size, leaf_hashes(self.asking, size)))
        if self.lost == "answer":
            raise LogError("lost")
        return Reply(answer.status, answer.content_type.split(";")[0], answer.body)

    @rule(target=stores)
    def the_first(self) -> LoggedStore:
        return self.first

    @rule(store=stores, records=st.integers(1, 3))
    def grow(self, store: LoggedStore, records: int) -> None:
        store.grow(records)

    @rule(store=stores)
    def seal(self, store: LoggedStore) -> None:
        store.seal()

    @rule(store=stores, lost=st.sampled_from(["", "", "", "request", "answer"]))
    def ask(self, store: LoggedStore, lost: str) -> None:
        self.clock.now_s += 1
        client = self.clients.setdefault(
            store.path,
            Witnesses(POLICY, self.vkey, call=self.call, monotonic_s=lambda: float(self.clock.now_s)),
        )
        self.asking, self.lost = store, lost
        with closing(store.open()) as db:
            client.ask(db, patient=False)

    @rule(store=stores, records=st.integers(1, 3))
    def grow_seal_ask(self, store: LoggedStore, records: int) -> None:
        store.grow(records).seal()
        self.ask(store, "")

    @rule(target=stores, store=stores)
    def copy(self, store: LoggedStore) -> LoggedStore:
        return self._new(store.copy(self.home / str(self.count), f"n{self.count}"))

    @rule(store=stores, backup=stores)
    def restore(self, store: LoggedStore, backup: LoggedStore) -> None:
        if store is not backup:
            store.restore(backup)
            store._chain = type(store._chain)(f"r{len(self.cosigned)}-{self.clock.now_s}-{self.count}")
            self.clients.pop(store.path, None)

    @rule(store=stores)
    def collector_starts_again(self, store: LoggedStore) -> None:
        self.clients.pop(store.path, None)

    @rule()
    def witness_starts_again(self) -> None:
        self.heads.close()
        self.witness, self.heads = a_witness(self.home / "w.db", self.log, clock=self.clock)

    @invariant()
    def what_was_cosigned_is_one_log(self) -> None:
        for (size, leaves), (later_size, later) in zip(self.cosigned, self.cosigned[1:], strict=False):
            assert size <= later_size
            assert later.startswith(leaves)
        if self.cosigned:
            head = self.heads.all()[0][0]
            assert head.size == self.cosigned[-1][0]

    def teardown(self) -> None:
        """And each cosignature that any store holds is one of those, and verifies."""
        known = {leaves for _, leaves in self.cosigned}
        for store in self.all:
            with closing(store.open()) as db:
                rows = db.execute(
                    "SELECT note, line, size FROM checkpoints JOIN cosignatures USING (checkpoint_no)"
                ).fetchall()
            for note, line, size in rows:
                assert signers(parse_checkpoint(f"{note}{line}\n".encode()), [OURS])
                assert leaf_hashes(store, size) in known
        self.heads.close()
        self._folder.cleanup()


TestLabs = Labs.TestCase
TestLabs.settings = settings(
    max_examples=12, stateful_step_count=25, deadline=None, suppress_health_check=list(HealthCheck)
)
