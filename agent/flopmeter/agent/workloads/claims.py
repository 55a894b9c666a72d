"""What training code declares of itself (docs/declare.md): datagrams in, the newest claim of each workload out.

A claim is the user's word. It names the run where nothing better does, moves the point of an estimate by its dtype, and
is shipped to be held against the counters. Whose word it is the kernel says: the sender's number comes with the datagram.
Everything is bounded, and what is refused is counted.
"""

import json
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

from flopmeter.contract.identity import identities
from flopmeter.contract.limits import MAX_LABEL_CHARS
from flopmeter.contract.usage import Workload, WorkloadKind
from flopmeter.contract.w_table import DTYPE_RATE

from .environ import PLACEHOLDERS
from .processes import WorkloadFinder

MAX_DATAGRAM_BYTES = 4_096
#: Datagrams taken at one tick. The kernel keeps some more (net.unix.max_dgram_qlen); then senders hear that it is full.
MAX_A_TICK = 32
#: Senders looked up at one tick: a storm of new ones is put off by being left out, and comes again.
MAX_LOOKS_A_TICK = 16
#: A process is looked up once in so long, however much it sends.
LOOK_AGAIN_NS = 2_000_000_000
MAX_PLACES = 1_024
MAX_SPEAKERS = 128  # processes of one workload that count their own tokens
_MAX_COUNT = (1 << 63) - 1
_MAX_RANKS = (1 << 32) - 1
_TEXTS = ("run", "dtype", "purpose")
_COUNTS = {"tokens": _MAX_COUNT, "parameters": _MAX_COUNT, "flop_per_token": _MAX_COUNT, "ranks": _MAX_RANKS}

#: What a process's cgroup names: kind, job, step.
Place = tuple[WorkloadKind, str, str]


class RefusedClaimError(ValueError):
    """A datagram that is none of ours, or says what cannot be."""


@dataclass(frozen=True, slots=True)
class Claim:
    """What a workload says of itself by now."""

    run: str = ""
    dtype: str = ""
    purpose: str = ""
    tokens: int = 0
    parameters: int = 0
    flop_per_token: int = 0
    ranks: int = 0
    t_boot_ns: int = 0
    t_unix_ns: int = 0

    def put_to(self, workload: Workload) -> Workload:
        """`workload` with what is claimed, where nothing better is known of it."""
        seen = [(f"declared:{name}", getattr(self, name)) for name in _TEXTS]
        dtype = self.dtype.lower()
        return replace(
            workload,
            run=workload.run or self.run,
            dtype=workload.dtype or (dtype if dtype in DTYPE_RATE else ""),
            identities=identities([*workload.identities, *seen]),
        )


def parse_claim(datagram: bytes) -> dict[str, Any]:
    """The fields that a datagram gives. Raises RefusedClaimError for all that declare.py would not send."""
    if len(datagram) > MAX_DATAGRAM_BYTES:
        raise RefusedClaimError(f"expected at most {MAX_DATAGRAM_BYTES} bytes")
    try:
        said = json.loads(datagram)
    except (ValueError, RecursionError) as e:
        raise RefusedClaimError("expected JSON") from e
    if not isinstance(said, dict) or said.pop("v", None) != 1:
        raise RefusedClaimError('expected an object with "v": 1')
    for name, value in said.items():
        if name in _TEXTS:
            if not isinstance(value, str) or len(value) > MAX_LABEL_CHARS or not value.isprintable():
                raise RefusedClaimError(f"{name}: expected at most {MAX_LABEL_CHARS} printable characters")
        elif name not in _COUNTS:
            raise RefusedClaimError("expected run, dtype, purpose, tokens, parameters, flop_per_token, ranks")
        elif type(value) is not int or not 0 <= value <= _COUNTS[name]:
            raise RefusedClaimError(f"{name}: expected a whole number from 0 to {_COUNTS[name]}")
    return {name: _told(value) if name in _TEXTS else value for name, value in said.items()}


def _told(text: str) -> str:
    stripped = text.strip()
    return "" if stripped.lower() in PLACEHOLDERS else stripped


class Datagrams(Protocol):
    """Where they come from: declare_socket.DeclareSocket."""

    def take(self, most: int) -> list[tuple[int, bytes]]:
        """(sender's process id, datagram) of at most so many that wait. Never waits."""
        ...

    def close(self) -> None: ...


@dataclass(slots=True)
class _Spoken:
    claim: Claim
    by_process: dict[int, tuple[int, int]] = field(
        default_factory=dict
    )  # (tokens, ranks) that each counts itself
    fresh: bool = True  # said since it was last shipped


class Claims:
    """The newest claims of this node's workloads, by what their processes' cgroups name."""

    def __init__(self, finder: WorkloadFinder, datagrams: Datagrams | None = None) -> None:
        self._finder = finder
        self._datagrams = datagrams
        self._spoken: dict[Place, _Spoken] = {}
        self._looked: dict[int, tuple[int, Place | None]] = {}  # process id -> when, and what it belongs to
        self._looks = 0
        self.taken = self.refused = self.unknown = 0
        self.uncounted = self.forgotten = 0

    def listen(self, t_boot_ns: int, t_unix_ns: int) -> None:
        """Take what waits. Called once a tick, from the thread that meters."""
        self._looks = 0
        if self._datagrams is not None:
            for pid, datagram in self._datagrams.take(MAX_A_TICK):
                self.hear(pid, datagram, t_boot_ns, t_unix_ns)

    def hear(self, pid: int, datagram: bytes, t_boot_ns: int, t_unix_ns: int) -> None:
        """One datagram. Refused: none of ours. Unknown: its sender is gone, or not of this PID namespace."""
        try:
            said = parse_claim(datagram)
        except RefusedClaimError:
            self.refused += 1
            return
        place = self._place(pid, t_boot_ns)
        if place is None:
            self.unknown += 1
            return
        self.taken += 1
        self._keep(place, pid, said, (t_boot_ns, t_unix_ns))

    def of(self, places: Iterable[Place]) -> Claim | None:
        """What was said in these places; of several the newest."""
        found = [spoken.claim for place in places if (spoken := self._spoken.get(place))]
        return max(found, key=lambda claim: claim.t_boot_ns) if found else None

    def news(self, places: Iterable[Place]) -> Claim | None:
        """As `of`, if there is something in it that was not asked for by `news` before."""
        known = [spoken for place in places if (spoken := self._spoken.get(place)) and spoken.fresh]
        for spoken in known:
            spoken.fresh = False
        return max((s.claim for s in known), key=lambda claim: claim.t_boot_ns, default=None)

    def close(self) -> None:
        if self._datagrams is not None:
            self._datagrams.close()

    def _place(self, pid: int, now_ns: int) -> Place | None:
        looked = self._looked.get(pid)
        if looked is None or not 0 <= now_ns - looked[0] < LOOK_AGAIN_NS:
            self._looks += 1
            if self._looks > MAX_LOOKS_A_TICK:
                return None
            found = self._finder.find(pid, 0) if pid > 0 else None
            if len(self._looked) >= MAX_PLACES:
                self._looked.clear()
            looked = self._looked[pid] = (
                now_ns,
                None if found is None else (found.kind, found.job, found.step),
            )
        return looked[1]

    def _keep(self, place: Place, pid: int, said: dict[str, Any], at: tuple[int, int]) -> None:
        before = self._spoken.pop(place, None) or _Spoken(Claim())
        ranks = said.pop("ranks", 0)
        if ranks and "tokens" in said:  # its own alone: the workload's is the sum
            if pid in before.by_process or len(before.by_process) < MAX_SPEAKERS:
                before.by_process[pid] = said["tokens"], ranks
            else:
                self.uncounted += 1
            counted = before.by_process.values()
            said["tokens"] = min(sum(tokens for tokens, _ in counted), _MAX_COUNT)
            ranks = min(sum(of for _, of in counted), _MAX_RANKS)
        elif "tokens" in said:
            before.by_process.clear()
        else:
            ranks = before.claim.ranks
        before.claim = replace(before.claim, **said, ranks=ranks, t_boot_ns=at[0], t_unix_ns=at[1])
        before.fresh = True
        if len(self._spoken) >= MAX_PLACES:
            del self._spoken[next(iter(self._spoken))]  # who was silent for longest
            self.forgotten += 1
        self._spoken[place] = before
