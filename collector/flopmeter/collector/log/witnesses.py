"""Having checkpoints cosigned by witnesses (C2SP tlog-witness 1.0): asked all at once, each within its time, off the event loop.

A witness that is down delays nothing but its own cosignature. What it answers is verified before it is stored.
"""

import logging
import sqlite3
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from queue import Empty, SimpleQueue

from flopmeter.collector.deliver.http_call import Address
from flopmeter.collector.errors import LogError, SettingsError
from flopmeter.evidence.errors import EvidenceError
from flopmeter.evidence.note import Key, Policy, parse_checkpoint, parse_key, parse_policy, signers

from . import witness_rows
from .call import Reply, address, post
from .checkpoint import Checkpoint
from .evidence_log import EvidenceLog
from .witness_answers import (
    MAX_PROOF_LINES,
    Ahead,
    Answer,
    Behind,
    Cosigned,
    Failed,
    Refused,
    Sent,
    read,
    request,
)

log = logging.getLogger(__name__)

#: One request, connection and TLS included.
TIMEOUT_S = 10.0
#: A witness that is behind is proven to from the size that it names; one that names another each time is given up.
MAX_TURNS = 3
#: After a failure it is asked again with the next checkpoint, then after twice as long each time, up to this.
MAX_REST_S = 600.0
FIRST_REST_S = 15.0
MAX_POLICY_BYTES = 1 << 18

Post = Callable[[Address, bytes], Reply]


@dataclass(frozen=True, slots=True)
class Standing:
    """How far a checkpoint is witnessed."""

    cosigned: tuple[str, ...]  # names of the policy's witnesses that did
    of: int  # witnesses in the policy
    reached: bool  # the policy's quorum

    @property
    def level(self) -> str:
        """As attestations print it (reference/attestation.md 5)."""
        if not self.reached:
            return "unwitnessed"
        return f"witnessed({len(self.cosigned)} of {self.of}: {', '.join(self.cosigned)})"


@dataclass(slots=True)
class State:
    """One address of the policy, and how it stands there. Written by the thread that asks; read by a scrape at any time."""

    address: Address
    keys: tuple[tuple[str, Key], ...]  # by the policy's names
    known_size: int = 0
    cosigned_size: int = 0
    cosigned_unix_s: int = 0
    error: str = ""
    refused: bool = False  # it holds a head that is none of ours
    failures: int = 0  # in a row
    rests_until_s: float = 0.0
    asking: threading.Thread | None = field(default=None, repr=False)

    @property
    def name(self) -> str:
        return ", ".join(name for name, _ in self.keys)


def read_policy(path: Path) -> Policy:
    """A file in C2SP's tlog-policy format. Raises SettingsError."""
    hint = "docs/witness.md shows one"
    try:
        with path.open("rb") as f:
            data = f.read(MAX_POLICY_BYTES + 1)
        policy = parse_policy(data)
    except OSError as e:
        raise SettingsError(
            f"--witness-policy {path}: cannot read: {e.strerror}", "name a readable file"
        ) from e
    except EvidenceError as e:
        raise SettingsError(f"--witness-policy {path}: expected a C2SP tlog-policy: {e.reason}", hint) from e
    if len(policy.logs) > 1 or not policy.witnesses:
        raise SettingsError(
            f"--witness-policy {path}: expected at most one log (this one) and at least one witness, got "
            f"{len(policy.logs)} and {len(policy.witnesses)}",
            hint,
        )
    for name, (_, url) in policy.witnesses.items():
        if url is not None:
            address(f"--witness-policy {path}: witness {name[:80]}", url)
    return policy


def standing(policy: Policy, vkey: str, note: bytes) -> Standing:
    """Of a checkpoint with the cosignatures that came for it. `vkey`: the log's."""
    own, checkpoint = parse_key(vkey), parse_checkpoint(note)
    try:
        found = set(signers(checkpoint, [key for key, _ in policy.witnesses.values()]))
    except EvidenceError:
        found = set()
    # Two keys of one name are one witness.
    count = len({key.name for key, _ in policy.witnesses.values()})
    names: dict[str, str] = {}
    for name, (key, _) in policy.witnesses.items():
        if key in found:
            names.setdefault(key.name, name)
    once = tuple(names.values())
    try:
        policy._replace(logs=(own,)).check(checkpoint)
    except EvidenceError:
        return Standing(once, count, reached=False)
    return Standing(once, count, reached=bool(once))


class Witnesses:
    """Those of one policy, for one log. One thread at a time asks; another may read `states`."""

    def __init__(
        self,
        policy: Policy,
        vkey: str,
        *,
        timeout_s: float = TIMEOUT_S,
        monotonic_s: Callable[[], float] = time.monotonic,
        unix_ns: Callable[[], int] = time.time_ns,
        call: Post | None = None,
    ) -> None:
        """`vkey`: the log's. Raises SettingsError if the policy names another log."""
        self.policy, self._vkey = policy, vkey
        self._timeout_s, self._monotonic_s, self._unix_ns = timeout_s, monotonic_s, unix_ns
        self._call = call or (lambda to, body: post(to, body, "text/plain", timeout_s=timeout_s))
        if policy.logs and policy.logs[0] != parse_key(vkey):
            raise SettingsError(
                f"--witness-policy: expected the key of this log, got that of {policy.logs[0].name[:100]!r}",
                f"write: log {vkey}",
            )
        by_url: dict[str, list[tuple[str, Key]]] = {}
        for name, (key, url) in policy.witnesses.items():
            if url is not None:
                by_url.setdefault(url.rstrip("/"), []).append((name, key))
        self.states = [
            State(address("--witness-policy", url, "/add-checkpoint"), tuple(keys))
            for url, keys in by_url.items()
        ]
        self._remembered = False

    @property
    def names(self) -> tuple[str, ...]:
        """Of the policy's witnesses; two keys of one name are one."""
        first: dict[str, str] = {}
        for name, (key, _) in self.policy.witnesses.items():
            first.setdefault(key.name, name)
        return tuple(first.values())

    def standing(self, checkpoint: Checkpoint) -> Standing:
        """How far `checkpoint` is witnessed."""
        return standing(self.policy, self._vkey, checkpoint.note)

    def ask(self, connection: sqlite3.Connection, *, patient: bool = True) -> Standing:
        """Have the latest checkpoint cosigned by all who have not yet. Blocks for as long as the slowest may take.

        `patient`: those that failed are left alone for a while. Raises sqlite3.Error if what came cannot be stored.
        """
        evidence = EvidenceLog(connection)
        checkpoint = evidence.latest()
        if checkpoint is None:
            return Standing((), len(self.policy.witnesses), reached=False)
        if not self._remembered:
            self._remember(connection)
        there = {line[:2] for line in parse_checkpoint(checkpoint.note).lines}
        now_s = self._monotonic_s()
        waiting = [
            s
            for s in self.states
            if any((key.name, key.id) not in there for _, key in s.keys)
            and not (patient and now_s < s.rests_until_s)
        ]
        for state, answer in self._turns(evidence, checkpoint, waiting):
            self._note(connection, state, checkpoint, answer)
        latest = evidence.checkpoint_of(checkpoint.size)
        assert latest is not None
        return self.standing(latest)

    def _remember(self, connection: sqlite3.Connection) -> None:
        """From before the start: at which size each stands, and what it cosigned last."""
        rows = witness_rows.known(connection)
        for state in self.states:
            for _, key in state.keys:
                if (row := rows.get(key)) is not None:
                    state.known_size, state.error = row.known_size, row.error
                    state.refused = state.refused or row.refused
                    state.cosigned_size, state.cosigned_unix_s = (
                        row.cosigned_size or 0,
                        row.cosigned_unix_s or 0,
                    )
        self._remembered = True

    def _turns(
        self, evidence: EvidenceLog, checkpoint: Checkpoint, waiting: Sequence[State]
    ) -> Iterator[tuple[State, Answer]]:
        """Asks all, and again from where they say that they stand. The proofs are made here: a connection is one thread's."""
        note = _bare(checkpoint.note)
        for turn in range(MAX_TURNS):
            asked = []
            for state in waiting:
                old = min(state.known_size, checkpoint.size)
                proof = evidence.consistency(old, checkpoint.size) if 0 < old < checkpoint.size else []
                assert len(proof) <= MAX_PROOF_LINES  # no log has 2^62 leaves
                asked.append((state, Sent(note, checkpoint.size, old), request(old, proof, note)))
            again = []
            for state, sent, reply in self._exchange(asked):
                newest = evidence.latest()  # another process may have signed one meanwhile
                answer = (
                    read(reply, [key for _, key in state.keys], sent, newest.size if newest else 0)
                    if isinstance(reply, Reply)
                    else Failed(reply)
                )
                if isinstance(answer, Behind) and turn + 1 < MAX_TURNS:
                    state.known_size = answer.size
                    again.append(state)
                else:
                    yield state, answer
            waiting = again

    def _exchange(
        self, asked: Iterable[tuple[State, Sent, bytes]]
    ) -> Iterator[tuple[State, Sent, Reply | str]]:
        """Each request in its thread. One that does not even end in time (a name that never resolves) is left behind."""
        answers: SimpleQueue[tuple[State, Reply | str]] = SimpleQueue()
        running: dict[int, tuple[State, Sent]] = {}
        for state, sent, body in asked:
            if state.asking is not None and state.asking.is_alive():
                yield state, sent, f"{state.address.shown}: the request before still hangs"
                continue
            state.asking = threading.Thread(
                target=self._one, args=(state, body, answers), name="flopmeter-witness", daemon=True
            )
            state.asking.start()
            running[id(state)] = state, sent
        until = time.monotonic() + self._timeout_s + 1
        while running:
            try:
                state, reply = answers.get(timeout=max(0.0, until - time.monotonic()))
            except Empty:
                for state, sent in running.values():
                    yield state, sent, f"{state.address.shown}: no answer within {self._timeout_s:g} s"
                return
            assert state.asking is not None
            state.asking.join()  # it has put its answer, and ends
            yield state, running.pop(id(state))[1], reply

    def _one(self, state: State, body: bytes, answers: "SimpleQueue[tuple[State, Reply | str]]") -> None:
        try:
            answers.put((state, self._call(state.address, body)))
        except LogError as e:
            answers.put((state, str(e)))
        except Exception as e:
            log.exception("witness %s", state.name)
            answers.put((state, repr(e)))

    def _note(
        self, connection: sqlite3.Connection, state: State, checkpoint: Checkpoint, answer: Answer
    ) -> None:
        """Keep what came of it, in one transaction; say what changed."""
        before = state.error
        now_ns = self._unix_ns()
        refusal: tuple[Key, witness_rows.Refusal] | None = None
        lines: tuple[tuple[Key, str, int], ...] = ()
        match answer:
            case Cosigned(lines):
                state.known_size = state.cosigned_size = checkpoint.size
                state.cosigned_unix_s = max(unix_s for _, _, unix_s in lines)
                state.error = ""
            case Ahead(size):
                state.known_size, state.error = size, ""
            case Refused(status, size):
                if not state.refused:  # kept and said once, until it cosigns again
                    happened = witness_rows.Refusal(status, checkpoint.size, checkpoint.root, size)
                    refusal = state.keys[0][1], happened
                state.known_size = size
                state.error = f"it refused our head of {checkpoint.size} leaves ({status}): it cosigned another of {size}"
            case Behind(size):
                state.error = f"it named another size each time, at last {size}"
            case Failed(why):
                state.error = why
        witness_rows.keep(
            connection,
            [
                witness_rows.Row(
                    key,
                    state.known_size,
                    state.cosigned_size or None,
                    state.cosigned_unix_s or None,
                    state.error,
                    refused=state.refused,
                )
                for _, key in state.keys
            ],
            checkpoint_no=checkpoint.number,
            lines=[(key, line) for key, line, _ in lines],
            refusal=refusal,
            now_ns=now_ns,
        )
        if isinstance(answer, Refused | Cosigned):  # one that is down in between takes nothing back
            state.refused = isinstance(answer, Refused)
        state.failures = state.failures + 1 if state.error else 0
        rest = min(FIRST_REST_S * 2 ** min(state.failures - 1, 10), MAX_REST_S) if state.failures > 1 else 0.0
        state.rests_until_s = self._monotonic_s() + rest
        _say(state, before, refused=refusal is not None)


def _bare(note: bytes) -> bytes:
    """The note with the log's own signature alone, as a witness wants it: those of others it need not read."""
    text, _, lines = note.partition(b"\n\n")
    return text + b"\n\n" + lines.split(b"\n")[0] + b"\n"


def _say(state: State, before: str, *, refused: bool) -> None:
    if refused:
        log.error(
            "WITNESS %s: %s. This collector's log was set back (a restored copy), another collector signs with its key, "
            "or the witness errs: nothing is witnessed by it until that is settled (docs/witness.md)",
            state.name,
            state.error,
        )
    elif state.error != before:
        if state.error:
            log.warning("witness %s: %s", state.name, state.error)
        else:
            log.info("witness %s cosigns (size %d)", state.name, state.cosigned_size)
