"""Every agent's last record, decoded once: only agents whose head moved are read again."""

from collections.abc import Iterable
from dataclasses import dataclass, replace

from flopmeter.collector.clock_offset import OFF_NS
from flopmeter.collector.report.agent_queries import agents_numbered, clocks
from flopmeter.collector.report.fleet import AgentState
from flopmeter.collector.report.queries import Reader
from flopmeter.contract.usage import Batch, Inventory, NoticeKind

from .fleet_cells import SILENT, UNKNOWN, NodeRow, entity_codes, gpu_codes

_HEADS = "SELECT agent_no, coalesce(position, 0) FROM agents LEFT JOIN heads USING (agent_no)"
#: What of an agent can change without its head, by number of rows: its silences, its conflicts, its losses; and its node's
#: name and version, which a new hello writes.
_BESIDE = """
    SELECT a.agent_no, a.node, a.version,
        (SELECT count(*) FROM conflicts c WHERE c.agent_no = a.agent_no),
        (SELECT count(*) FROM losses l WHERE l.agent_no = a.agent_no)
    FROM agents a"""
_CHUNK = 500
_STATUS = {"live": "L", "silent": "S", "stopped": "P", "never": "N"}
_LOST = frozenset({NoticeKind.RECORD_REFUSED})


@dataclass(frozen=True, slots=True)
class Cached:
    """One agent as it was read."""

    position: int  # of its head; 0: none
    beside: tuple[object, ...]
    state: AgentState  # its batch has the notices alone
    gpus: str
    model: str
    persistence_off: bool
    refused: bool


class FleetRows:
    """Agents by number. One thread refreshes; what it hands out is not changed any more."""

    def __init__(self) -> None:
        self._cached: dict[int, Cached] = {}
        self._inventories: dict[bytes, Inventory] = {}
        self.decoded = 0  # records, since the start

    def refresh(self, reader: Reader, silenced: Iterable[str] = ()) -> list[Cached]:
        """Every agent, by node's name. `silenced`: ids of agents of which an event was raised since."""
        reader.inventories = self._inventories
        heads = dict(reader.rows(_HEADS))
        beside = {row[0]: tuple(row[1:]) for row in reader.rows(_BESIDE)}
        again = set(silenced)
        stale = [
            no
            for no, position in sorted(heads.items())
            if (old := self._cached.get(no)) is None
            or old.position != position
            or old.beside != beside[no]
            or old.state.agent_id in again
        ]
        found = {no: c for no, c in self._cached.items() if no in heads}
        for i in range(0, len(stale), _CHUNK):
            for no, state in self._read(reader, stale[i : i + _CHUNK]).items():
                found[no] = _cached(heads[no], beside[no], state)
        known = clocks(reader)
        for no, c in found.items():
            if c.state.clock != known.get(no):
                found[no] = replace(c, state=replace(c.state, clock=known.get(no)))
        self.decoded += len(stale)
        self._cached = found
        if len(self._inventories) > 2 * len(found) + 1_000:  # of inventories that no record names any more
            self._inventories = {}
        return [found[no] for no in sorted(found, key=lambda no: (found[no].state.node, no))]

    @staticmethod
    def _read(reader: Reader, numbers: list[int]) -> dict[int, AgentState]:
        try:
            return agents_numbered(reader, numbers)
        except (ValueError, TypeError, KeyError, IndexError, OverflowError, AttributeError):
            if len(numbers) > 1:  # one of them: the others are not to go with it
                return {no: s for n in numbers for no, s in FleetRows._read(reader, [n]).items()}
            return {numbers[0]: _unreadable(reader, numbers[0])}


def _unreadable(reader: Reader, number: int) -> AgentState:
    agent_id, node, version = reader.rows(
        "SELECT agent_id, node, version FROM agents WHERE agent_no = ?", (number,)
    ).fetchone()
    said = "its row in the store cannot be read: see `flopmeter collector fsck`"
    name = agent_id.hex() if isinstance(agent_id, bytes) else repr(agent_id)
    return AgentState(
        name,
        str(node),
        str(version),
        "",
        0,
        0,
        0,
        0,
        0,
        0,
        0,
        0,
        silence_open=False,
        inventory=None,
        batch=None,
        fault=said,
    )


def _cached(position: int, beside: tuple[object, ...], state: AgentState) -> Cached:
    inventory, batch = state.inventory, state.batch
    gpus = models = ""
    off = refused = False
    if inventory is not None and batch is not None:
        gpus = gpu_codes(inventory, entity_codes(inventory, batch))
        models = ", ".join(sorted({d.name for d in inventory.devices}))
        off = any(d.persistence is False for d in inventory.devices)
        refused = any(n.kind in _LOST for n in batch.notices)
    return Cached(position, beside, replace(state, batch=_slim(batch)), gpus, models, off, refused)


def _slim(batch: Batch | None) -> Batch | None:
    """What is asked of it later: nothing but whether it said that it stops."""
    return None if batch is None else replace(batch, usage=(), workloads=(), anchors=(), progress=())


def row_of(c: Cached, odd: set[str], now_unix_ns: int) -> NodeRow:
    """As the map shows it now."""
    s = c.state
    status = s.status(now_unix_ns)
    gpus = c.gpus
    if status in ("silent", "stopped"):
        metered = len(gpus.rstrip("x"))
        gpus = SILENT * metered + gpus[metered:]
    elif s.fault and s.inventory is None:
        gpus = UNKNOWN
    clock = s.clock if s.clock is not None and s.clock.fresh(now_unix_ns) else None
    marks = (
        ("f" if s.fault else "")
        + ("c" if s.conflicts else "")
        + ("l" if s.lost_records else "")
        + ("d" if s.node in odd else "")
        + ("p" if c.persistence_off else "")
        + ("r" if c.refused else "")
        + ("k" if clock is not None and clock.surely_ns > OFF_NS else "")
    )
    heard = bool(s.last_seq)
    return NodeRow(
        s.node,
        _STATUS[status],
        gpus,
        s.inventory.cluster if s.inventory else "",
        s.version,
        c.model,
        marks,
        s.window_end_unix_ns // 1_000_000_000 if heard else None,
        (s.received_unix_ns - s.window_end_unix_ns) // 1_000_000_000 if heard else None,
        clock,
    )
