"""The newest head of the collector's log that this agent has seen, kept on disk: the memory that a log cannot set back.

A head is a C2SP checkpoint. The first one that a collector shows is taken as it is, and its key is pinned; each later
one must be signed by that key and be proven to go on from the one before (RFC 6962 consistency). One that is not
contradicts what this agent knows: the log was set back, forked or replaced. Then both notes are kept, the books are
told by a notice, and nothing else changes: an agent that stopped would lose what it knows.

    STATE/log-head.json         the vkey that is pinned, the last good note, when it came
    STATE/log-contradictions/   both notes of each contradiction, for a person and for a court
"""

import contextlib
import json
import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from flopmeter.agent.errors import SpoolError
from flopmeter.agent.files import make_directory, write_file
from flopmeter.evidence.errors import EvidenceError
from flopmeter.evidence.merkle import verify_consistency
from flopmeter.evidence.note import Checkpoint, Key, parse_checkpoint, parse_key

log = logging.getLogger(__name__)

HEAD_FILE = "log-head.json"
CONTRADICTIONS = "log-contradictions"
#: Contradictions that are kept; a head that was good lies between two of them, so that these are years.
MOST_KEPT = 64
#: Signature type of a log's own Ed25519 key (C2SP signed-note 1.0).
_ED25519 = 1
_SHOWN = 80  # characters of an origin in a message: it is the other side's word


@dataclass(frozen=True, slots=True)
class Known:
    """The last good head. Without a note: only the key is pinned."""

    vkey: str
    note: bytes = b""
    heard_unix_ns: int = 0

    @property
    def key(self) -> Key:
        return parse_key(self.vkey)


@dataclass(frozen=True, slots=True)
class Contradiction:
    """A head that cannot be, beside the one that was known. `kind` is a word, `said` a sentence."""

    kind: str
    said: str
    unix_ns: int


class Heads:
    """Of one agent's state directory. Used by the uplink's thread alone, but for `contradictions` and `standing`."""

    def __init__(
        self,
        state: Path,
        *,
        tell: Callable[[str, str], None],
        unix_ns: Callable[[], int] = time.time_ns,
    ) -> None:
        """`tell(name, detail)` makes it a notice of the next batch, durable before it returns, once per name."""
        self._path = state / HEAD_FILE
        self._kept = state / CONTRADICTIONS
        self._tell = tell
        self._unix_ns = unix_ns
        self.contradictions = 0  # heads since this start that contradict what is known
        self.standing = ""  # what the last head contradicted; "" = it was good
        self._known = _read(self._path)
        self._head = parse_checkpoint(self._known.note) if self._known and self._known.note else None
        self._durable = True  # False: the head is known, but the disk had no room for it
        newest = max(kept_contradictions(state), key=lambda c: c.unix_ns, default=None)
        if newest is not None and (self._known is None or newest.unix_ns > self._known.heard_unix_ns):
            self.standing = newest.said
            log.error("the collector's log contradicts what was seen before this start: %s", self.standing)

    @property
    def known(self) -> Checkpoint | None:
        """The last good head; None: none was seen yet."""
        return self._head

    def hear(self, note: bytes, consistency: Sequence[bytes], vkey: str) -> bool:
        """The collector shows a head, with its proof from `known`. True: it is good, and known from now on, durably.

        `vkey`: the log's key as the collector says it, which counts for an agent that knows none.
        """
        try:
            pinned = self._known.vkey if self._known is not None else vkey
            if not pinned:
                return False  # no key yet to check it by: the next Welcome brings one
            head = self._checked(note, parse_key(pinned), vkey)
        except _ContradictionError as e:
            return self._contradicted(e.kind, str(e), note)
        except EvidenceError as e:
            return self._contradicted(
                "unreadable", f"the head that the collector shows does not hold: {e}", note
            )
        before = self._head
        if before is not None and before.size:
            fault = _fault(before, head, consistency)
            if fault is not None:
                return self._contradicted(*fault, note)
        new = before is None or not self._durable or (head.size, head.root) != (before.size, before.root)
        if self.standing:
            new = True  # written again, with a time behind the contradiction's
            log.warning(
                "the collector's log goes on from the head that was known (%d leaves) again", head.size
            )
            self.standing = ""
        if new:
            if before is None:
                log.info("the collector's log is %s, key pinned: %s", _shown(head.origin), pinned)
            return self._remember(Known(pinned, note, self._unix_ns()), head)
        return True

    def forget(self) -> None:
        """Somebody gave the agent to another collector, by a token of its authority: begin with that one's first head."""
        if self._known is not None:
            aside = self._path.with_name(self._path.name + ".former")
            log.warning("another collector's authority: the head of the former log is kept in %s", aside)
            with contextlib.suppress(FileNotFoundError):  # the disk had no room for it
                self._path.replace(aside)
            self._known = self._head = None
            self.standing = ""

    def silent(self) -> None:
        """The collector's Welcome shows no head."""
        if self._head is not None and self._head.size:
            log.warning(
                "the collector shows no head of its log, of which %d leaves were seen; what is shipped from now on is "
                "kept until one covers it, as far as --spool-limit allows",
                self._head.size,
            )

    def _checked(self, note: bytes, key: Key, vkey: str) -> Checkpoint:
        head = parse_checkpoint(note)
        if vkey and parse_key(vkey) != key:
            raise _ContradictionError(
                "another-log",
                f"the log that was known has the key {key.name}+{key.id.hex()}, not {_shown(vkey)}",
            )
        if key.kind != _ED25519:
            raise EvidenceError("checkpoint", f"expected a log key of Ed25519, got type {key.kind}")
        if head.origin != key.name:
            raise _ContradictionError(
                "another-log",
                f"the log that was known is {_shown(key.name)}, this head is of {_shown(head.origin)}",
            )
        signed = [signature for name, key_id, signature in head.lines if (name, key_id) == (key.name, key.id)]
        if not signed or not all(_verified(key.public, head.text, signature) for signature in signed):
            raise _ContradictionError(
                "not-signed", f"a head of {_shown(head.origin)} that its key {key.id.hex()} did not sign"
            )
        return head

    def _remember(self, known: Known, head: Checkpoint) -> bool:
        self._known, self._head = known, head  # also if it cannot be kept: the next proof begins with it
        data = {"vkey": known.vkey, "note": known.note.decode(), "heard_unix_ns": str(known.heard_unix_ns)}
        try:
            write_file(self._path, json.dumps(data, indent=1).encode() + b"\n")
        except SpoolError as e:  # what is not remembered covers nothing: it comes again with the next head
            log.warning("the log's head cannot be remembered: %s", e)
            self._durable = False
            return False
        self._durable = True
        return True

    def _contradicted(self, kind: str, said: str, note: bytes) -> bool:
        """Count it; the first of its kind since the last good head is kept, said and told. False, as `hear` is."""
        self.contradictions += 1
        self.standing = said
        head = self._head
        name = f"{kind}-{head.size}-{head.root[:8].hex()}" if head is not None else f"{kind}-0"
        path = self._kept / f"{name}.json"
        if path.exists():
            return False
        log.error(
            "the collector's log contradicts what this agent saw: %s. Metering and shipping go on; both heads are "
            "kept in %s, and the books are told. Ask who set the collector back; docs/threat-model.md",
            said,
            path,
        )
        try:
            self._tell(f"log-{name}", f"{kind}: {said}")
            make_directory(self._kept)
            if len(list(self._kept.iterdir())) < MOST_KEPT:
                data = {
                    "kind": kind,
                    "said": said,
                    "unix_ns": str(self._unix_ns()),
                    "known_vkey": self._known.vkey if self._known is not None else "",
                    "known_note": self._known.note.decode() if self._known is not None else "",
                    "shown_note": note[:65536].decode("utf-8", "backslashreplace"),
                }
                write_file(path, json.dumps(data, indent=1).encode() + b"\n")
        except (OSError, SpoolError) as e:  # no room: said at the next head again
            log.warning("the contradiction cannot be kept: %s", e)
        return False


class _ContradictionError(Exception):
    def __init__(self, kind: str, said: str) -> None:
        super().__init__(said)
        self.kind = kind


def _fault(before: Checkpoint, head: Checkpoint, consistency: Sequence[bytes]) -> tuple[str, str] | None:
    """Why `head` cannot come after `before`: kind and sentence; None: it can."""
    knew = f"{before.size} leaves (root {before.root.hex()[:16]}) of {_shown(before.origin)} were signed and seen"
    shown = f"now the log has {head.size} (root {head.root.hex()[:16]})"
    if head.size < before.size:
        return "set-back", f"{knew}; {shown}: it was set back"
    if head.size == before.size:
        return (
            None if head.root == before.root else ("forked", f"{knew}; {shown}: another log of the same size")
        )
    try:
        verify_consistency(before.size, before.root, head.size, head.root, consistency)
    except EvidenceError as e:
        return "forked", f"{knew}; {shown}, and does not prove that it goes on from there ({e.reason})"
    return None


def _verified(public: bytes, text: bytes, signature: bytes) -> bool:
    """Ed25519 by libsodium, which the agent holds for its records anyway; `cryptography` costs some 8 MiB more."""
    from nacl.exceptions import BadSignatureError
    from nacl.signing import VerifyKey

    try:
        VerifyKey(public).verify(text, signature)
    except (BadSignatureError, ValueError):
        return False
    return True


def _read(path: Path) -> Known | None:
    """What was remembered; None: nothing yet. What is damaged is moved aside: it is a disk's fault, not the log's."""
    try:
        data = json.loads(path.read_bytes())
        known = Known(str(data["vkey"]), str(data["note"]).encode(), int(data["heard_unix_ns"]))
        parse_key(known.vkey)
        if known.note:
            parse_checkpoint(known.note)
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as e:
        aside = path.with_name(path.name + ".damaged")
        log.warning(
            "%s: cannot be read (%s); moved to %s, the next head is taken as the first", path, e, aside
        )
        try:
            path.replace(aside)
        except OSError as moving:
            log.warning("%s: cannot be moved: %s", path, moving)
        return None
    return known


def kept_contradictions(state: Path) -> list[Contradiction]:
    """Those that lie in the state directory, for whoever may read it."""
    found = []
    try:
        paths = sorted((state / CONTRADICTIONS).glob("*.json"))
    except OSError:
        return []
    for path in paths:
        try:
            data = json.loads(path.read_bytes())
            found.append(Contradiction(str(data["kind"]), str(data["said"]), int(data["unix_ns"])))
        except (OSError, ValueError, KeyError, TypeError, RecursionError) as e:
            log.warning("%s: not a contradiction that was kept: %s", path, e)
    return found


def known_head(state: Path) -> tuple[str, int, int] | None:
    """(origin, leaves, when it was heard in Unix ns) of the last good head, for people; changes nothing."""
    try:
        data = json.loads((state / HEAD_FILE).read_bytes())
        head = parse_checkpoint(str(data["note"]).encode())
        return head.origin, head.size, int(data["heard_unix_ns"])
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return None


def _shown(text: str) -> str:
    """The other side's word, in a line of ours."""
    return repr(text if len(text) <= _SHOWN else text[:_SHOWN] + "…")
