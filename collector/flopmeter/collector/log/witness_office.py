"""Witnesses and timestamp authorities of one running collector: asked after each checkpoint, in a thread of their own.

Neither records nor checkpoints wait for them. Whoever is down is asked again, whether there is a new checkpoint or not.
"""

import contextlib
import logging
import sqlite3
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from flopmeter.collector.errors import CollectorError
from flopmeter.collector.law.log_fault import REFUSED, fault_key
from flopmeter.collector.store.reading import BUSY_TIMEOUT_S
from flopmeter.collector.store.told import told
from flopmeter.evidence.note import Policy

from . import timestamps, witness_rows
from .checkpoint import Checkpoint
from .evidence_log import EvidenceLog
from .timestamps import Authorities
from .witnesses import Standing, State, Witnesses, read_policy

log = logging.getLogger(__name__)

#: How often those that failed are looked at when there is no new checkpoint.
POLL_S = 15.0
#: After an authority failed it is asked for the next checkpoint only after this.
STAMP_REST_S = 300.0
#: What the stop waits for: the last head is still to be cosigned. Who is slower is asked after the next start.
STOP_TIMEOUT_S = 5.0
_RAISED = "SELECT 1 FROM log_faults WHERE key = ?"


class WitnessOffice:
    """`wake` with each checkpoint. `contradicted` gets the text of each refusal, from the office's thread."""

    def __init__(
        self,
        path: Path,
        policy: Policy | None,
        authorities: Authorities | None,
        *,
        unix_ns: Callable[[], int] = time.time_ns,
        contradicted: Callable[[str], None] = lambda _: None,
    ) -> None:
        self._path, self._policy, self.authorities = path, policy, authorities
        self._unix_ns, self._contradicted = unix_ns, contradicted
        self._witnesses: Witnesses | None = None
        self._told = 0  # number of the last refusal of which the event is in the store
        self._stamp_from_s = 0.0
        self._said = ""
        self._wake, self._stop = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._run, name="flopmeter-witnesses", daemon=True)
        self.standing: Standing | None = None  # of the newest checkpoint that was asked for

    @property
    def states(self) -> list[State]:
        """How it stands with each witness."""
        return [] if self._witnesses is None else self._witnesses.states

    def start(self) -> None:
        """Ask from now on."""
        self._thread.start()

    def wake(self) -> None:
        """There is a new checkpoint. Never blocks."""
        self._wake.set()

    async def released(self, _: Checkpoint) -> None:
        """For LogOffice.on_release."""
        self.wake()

    def stop(self) -> None:
        """Ask for the last checkpoint, for a few seconds at most, and end. One that hangs is left behind."""
        self._stop.set()
        self._wake.set()
        if self._thread.ident is not None:
            self._thread.join(STOP_TIMEOUT_S)

    def turn(self) -> None:
        """Ask all who have not answered for the latest checkpoint. Raises CollectorError."""
        with told(str(self._path), "write"), contextlib.closing(self._connect()) as db:
            head = EvidenceLog(db).latest()
            identity = EvidenceLog(db).identity
            if head is None or identity is None:
                return
            if self._policy is not None:
                if self._witnesses is None:
                    self._witnesses = Witnesses(self._policy, identity.vkey, unix_ns=self._unix_ns)
                self._tell(db)
                self.standing = self._witnesses.ask(db)
                self._tell(db)
            rested = time.monotonic() >= self._stamp_from_s
            if self.authorities is not None and rested and timestamps.due(db, self._unix_ns()):
                self._stamp(db)

    def check(self) -> None:
        """Raises SettingsError if the store's log is another than the policy's."""
        with told(str(self._path), "read"), contextlib.closing(self._connect()) as db:
            identity = EvidenceLog(db).identity
        if identity is not None and self._policy is not None:
            Witnesses(self._policy, identity.vkey)

    def _connect(self) -> sqlite3.Connection:
        db = sqlite3.connect(self._path, timeout=BUSY_TIMEOUT_S, isolation_level=None)
        db.execute("PRAGMA synchronous = FULL")
        return db

    def _tell(self, db: sqlite3.Connection) -> None:
        """Each refusal becomes an event, once: also one of before a crash, or of which the commit failed."""
        raised = True
        for number, refusal in witness_rows.refusals(db, self._told):
            said = REFUSED + refusal
            raised = raised and db.execute(_RAISED, (fault_key(said),)).fetchone() is not None
            if raised:
                self._told = number
            else:
                self._contradicted(said)

    def _stamp(self, db: sqlite3.Connection) -> None:
        assert self.authorities is not None
        head = EvidenceLog(db).latest()
        assert head is not None
        before = [a.error for a in self.authorities.authorities]
        if not self.authorities.stamp(db, head, self._unix_ns()):
            self._stamp_from_s = time.monotonic() + STAMP_REST_S
        for authority, error in zip(self.authorities.authorities, before, strict=True):
            if authority.error and authority.error != error:
                log.warning("timestamp authority %s", authority.error)
            elif error and not authority.error:
                log.info("timestamp authority %s stamps again", authority.address.shown)

    def _run(self) -> None:
        while True:
            self._wake.wait(POLL_S)
            self._wake.clear()
            last = self._stop.is_set()
            try:
                self.turn()
            except CollectorError as e:
                if str(e) != self._said:
                    log.error("witnesses are not asked: %s (%s)", e, e.hint)  # noqa: TRY400
                self._said = str(e)
            except Exception:
                log.exception("witnesses are not asked")
            else:
                self._said = ""
            if last:
                return


def office_of(
    path: Path,
    policy_file: Path | None,
    tsa: Sequence[str],
    tsa_ca: Path | None,
    *,
    unix_ns: Callable[[], int],
    contradicted: Callable[[str], None],
) -> WitnessOffice:
    """As the settings say. Raises SettingsError for a file that cannot be used, or a policy of another log."""
    policy = read_policy(policy_file) if policy_file is not None else None
    authorities = Authorities(tsa, tsa_ca) if tsa else None
    office = WitnessOffice(path, policy, authorities, unix_ns=unix_ns, contradicted=contradicted)
    office.check()
    if policy is not None:
        log.info(
            "witnesses: %s; quorum: %s",
            ", ".join(
                f"{name} ({url or 'not asked: no URL'})" for name, (_, url) in policy.witnesses.items()
            ),
            policy.quorum,
        )
    return office
