"""One window's usage: rows that only grow, sealed into a batch of the contract's types. Pure."""

from collections.abc import Callable
from dataclasses import dataclass, replace

from flopmeter.contract.evidence_class import MISMATCH_PPM, EvidenceClass
from flopmeter.contract.limits import MAX_NOTICES, MAX_PROGRESS, MAX_TEXT_CHARS
from flopmeter.contract.pipes import residual
from flopmeter.contract.usage import (
    UNATTRIBUTED,
    Anchor,
    GapReason,
    Measured,
    Notice,
    NoticeKind,
    Usage,
    Workload,
)

from .interval import ENERGY, ENERGY_SLACK_NS, HMMA, MAX_DEVICE_WATTS, NJ_PER_MJ, TENSOR, Interval, Numbers

#: A record must stay below limits.MAX_RECORD_BYTES whatever jobs call themselves and however many come:
#: 4,096 rows of at most 130 bytes, 128 KiB of names (at most 4 bytes a character), 128 notices of at most
#: 1 KiB, 2 anchors of at most 200 bytes for each of 512 entities, 256 claims of at most 64.
MAX_WINDOW_ROWS = 4_096
MAX_WINDOW_NAME_CHARS = 32_768
#: Each identity's own: at most 12 bytes of the wire beside its name and value.
IDENTITY_CHARS = 3
MAX_WINDOW_NOTICES = 128
_KEPT_FREE = 1  # for what there was no room for
MAX_WINDOW_PROGRESS = 256
MAX_DETAIL_CHARS = 256
OTHERS = int(Measured.OTHERS)
_MAX_NUMBER = (1 << 63) - 1
#: Notices whose text begins with what they are about and a colon: each subject is told of.
_BY_SUBJECT = frozenset({NoticeKind.CROSS_CHECK, NoticeKind.CALIBRATION, NoticeKind.LOG_CONTRADICTION})
#: Notices of which each text is told: two contradictions about one GPU are two.
_BY_TEXT = frozenset({NoticeKind.ATTRIBUTION})
assert MAX_WINDOW_NOTICES <= MAX_NOTICES
assert MAX_WINDOW_PROGRESS <= MAX_PROGRESS
assert MAX_DETAIL_CHARS <= MAX_TEXT_CHARS

RowKey = tuple[str, int, int, int, int, int]  # entity, workload, class, measured, spread, reason


@dataclass(slots=True)
class _Said:
    kind: NoticeKind
    t_boot_ns: int
    t_unix_ns: int
    entity: str
    detail: str
    times: int = 1


class Window:
    """What is being added up until the window is sealed. Keys are entities by UUID, not by index.

    So devices may come and go in mid-window; the indices are worked out against the batch's inventory.
    """

    __slots__ = (
        "_anchors", "_beside", "_chars", "_rows", "_said", "_unsaid", "_workloads", "held_back", "left_out", "places",
    )  # fmt: skip

    def __init__(self) -> None:
        self._workloads: dict[Workload, int] = {}
        self._rows: dict[RowKey, list[int]] = {}
        self._anchors: list[tuple[str, Anchor]] = []
        self._said: dict[tuple[NoticeKind, str, str], _Said] = {}
        self._chars = 0
        self._unsaid = 0  # notices that there was no room for
        self._beside: set[tuple[str, Workload]] = set()  # shares that what lies beside them had no room
        self.held_back = False  # there is usage that has no price yet: worth a journal, if nothing else
        self.left_out = 0  # workloads that the record had no room to describe
        self.places: dict[
            Workload, int
        ] = {}  # where each of ours is in the batch, once `usage` was asked for

    def __bool__(self) -> bool:
        return bool(self._rows or self._anchors or self._said or self.held_back)

    def add(self, entity: str, workload: Workload, interval: Interval) -> None:
        self._add(
            entity,
            workload,
            interval.evidence_class,
            interval.measured,
            interval.spread_ppm,
            0,
            interval.numbers,
        )

    def add_gap(
        self, entity: str, workload: Workload, reason: GapReason, numbers: Numbers, marks: int = 0
    ) -> None:
        self._add(entity, workload, EvidenceClass.GAP, marks, 0, int(reason), numbers)

    def _add(  # noqa: PLR0917
        self,
        entity: str,
        workload: Workload,
        grade: int,
        measured: int,
        spread: int,
        reason: int,
        numbers: Numbers,
    ) -> None:
        number = self._number(workload)
        if measured & OTHERS and number != self._workloads.get(workload):
            return  # what is beside several workloads that fall together is more than the entity did, and no run's
        key = (entity, number, int(grade), measured, spread, reason)
        row = self._rows.get(key)
        if row is not None:
            (a, b, c, d, e, f, g, h, i, j, k, m) = numbers
            row[0] += a
            row[1] += b
            row[2] += c
            row[3] += d
            row[4] += e
            row[5] += f
            row[6] += g
            row[7] += h
            row[8] += i
            row[9] += j
            row[10] += k
            row[11] += m
        elif len(self._rows) < MAX_WINDOW_ROWS or workload == UNATTRIBUTED:
            self._rows[key] = list(numbers)
        elif not measured & OTHERS:
            self._add(entity, UNATTRIBUTED, grade, measured, spread, reason, numbers)
        else:
            self._beside.add((entity, workload))

    def _number(self, workload: Workload) -> int:
        """The workload's index; one too many, or with too long names in all, is unattributed."""
        number = self._workloads.get(workload)
        if number is None:
            chars = _chars(workload)
            if self._chars + chars > MAX_WINDOW_NAME_CHARS:
                return self._number(UNATTRIBUTED)
            self._chars += chars
            number = self._workloads[workload] = len(self._workloads)
        return number

    def anchor(self, entity: str, anchor: Anchor) -> None:
        """Quote raw counters; `anchor.entity_index` is filled in when the window is sealed."""
        self._anchors.append((entity, anchor))

    def say(self, kind: NoticeKind, t_boot_ns: int, t_unix_ns: int, entity: str, detail: str) -> None:
        """A notice; a kind is told once per entity and window, with how often it happened; some by subject, or by text."""
        about = detail.partition(":")[0] if kind in _BY_SUBJECT else detail if kind in _BY_TEXT else ""
        key = kind, entity, about
        said = self._said.get(key)
        if said is not None:
            said.times += 1
        elif len(self._said) < MAX_WINDOW_NOTICES - _KEPT_FREE:
            self._said[key] = _Said(kind, t_boot_ns, t_unix_ns, entity, detail[:MAX_DETAIL_CHARS])
        else:
            self._unsaid += 1

    def say_left_out(self, claims: int, t_boot_ns: int, t_unix_ns: int) -> None:
        """What this window had no room for, in one notice for which there is room. `claims`: of training code."""
        said = [
            f"{n} {what}"
            for n, what in (
                (self.left_out, "workloads of which more is known"),
                (
                    len(self._beside),
                    "shares of GPUs without what lay beside them: their upper bounds are too low",
                ),
                (claims, "workloads' claims of progress"),
                (self._unsaid, "notices"),
            )
            if n
        ]
        if said:
            detail = f"no room in this window for {'; '.join(said)}"
            self._said[NoticeKind.ATTRIBUTION, "", detail] = _Said(
                NoticeKind.ATTRIBUTION, t_boot_ns, t_unix_ns, "", detail[:MAX_DETAIL_CHARS]
            )

    def duration_ns(self, entity: str) -> int:
        """Time that the entity's rows cover."""
        return sum(numbers[0] for key, numbers in self._rows.items() if key[0] == entity)

    def drop_usage_of(self, entity: str) -> None:
        """Give up one entity's rows and anchors."""
        self._rows = {key: numbers for key, numbers in self._rows.items() if key[0] != entity}
        self._anchors = [kept for kept in self._anchors if kept[0] != entity]

    def drop_usage(self) -> None:
        """Give up rows and anchors; what was said stays."""
        self._rows.clear()
        self._anchors.clear()
        self._workloads.clear()
        self._chars = 0
        self.held_back = False

    def holders(self) -> dict[str, set[Workload]]:
        """Each entity's workloads, by UUID."""
        found: dict[str, set[Workload]] = {}
        names = list(self._workloads)
        for entity, workload, *_ in self._rows:
            found.setdefault(entity, set()).add(names[workload])
        return found

    def entities(self) -> set[str]:
        """All that rows, anchors and notices name."""
        named = {key[0] for key in self._rows} | {entity for entity, _ in self._anchors}
        return named | {said.entity for said in self._said.values() if said.entity}

    def usage(
        self, index: dict[str, int], describe: Callable[[Workload], Workload] = lambda workload: workload
    ) -> tuple[tuple[Workload, ...], tuple[Usage, ...]]:
        """Rows in a fixed order, each with its residual of the any-tensor counter.

        `describe` puts to each workload all that is known of it by now; those that it makes equal are added together.
        """
        workloads, places = self._described(describe)
        together: dict[tuple[int, int, int, int, int, int], list[int]] = {}
        for (entity, number, grade, measured, spread, reason), numbers in self._rows.items():
            key = index[entity], places[number], grade, measured, spread, reason
            same = together.get(key)
            together[key] = numbers if same is None else [a + b for a, b in zip(same, numbers, strict=True)]
        usage = tuple(_row(key, part) for key, row in sorted(together.items()) for part in _fitting(row))
        return workloads, usage

    def _described(self, describe: Callable[[Workload], Workload]) -> tuple[tuple[Workload, ...], list[int]]:
        """Each workload once, and where each of ours is among them.

        Two that shared an entity stay apart even so: what lies beside each holds the other's part, and together they
        would say more of the entity than it did.
        """
        whole = [describe(workload) for workload in self._workloads]
        full = _fit_for_a_record(whole, list(self._workloads))
        self.left_out = sum(a != b for a, b in zip(whole, full, strict=True))
        beside = {number for _, number, _, measured, _, _ in self._rows if measured & OTHERS}
        workloads: list[Workload] = []
        places: list[int] = []
        known: dict[Workload, int] = {}
        for number, workload in enumerate(full):
            place = known.get(workload)
            if place is None or number in beside:
                place = len(workloads)
                workloads.append(workload)
                if number not in beside:
                    known[workload] = place
            places.append(place)
        self.places = dict(zip(self._workloads, places, strict=True))
        return tuple(workloads), places

    def anchors(self, index: dict[str, int]) -> tuple[Anchor, ...]:
        return tuple(
            Anchor(index[e], a.t_boot_ns, a.t_unix_ns, a.epoch, a.scale, a.counters, a.energy_mj, a.k_ppm)
            for e, a in self._anchors
        )

    def notices(self, index: dict[str, int]) -> tuple[Notice, ...]:
        return tuple(
            Notice(
                s.kind,
                s.t_boot_ns,
                s.t_unix_ns,
                index.get(s.entity, -1),
                s.detail if s.times == 1 else f"{s.detail} ({s.times} times)",
            )
            for s in self._said.values()
        )


def _fit_for_a_record(described: list[Workload], keys: list[Workload]) -> list[Workload]:
    """What a record has room for: names of all, then identities as far as they go, else those that they had."""
    room = MAX_WINDOW_NAME_CHARS - sum(map(_chars, keys))
    fitting = list(keys)
    for names_only in (True, False):
        for i, whole in enumerate(described):
            wanted = replace(whole, identities=fitting[i].identities) if names_only else whole
            more = _chars(wanted) - _chars(fitting[i])
            if more <= room:
                room -= more
                fitting[i] = wanted
    return fitting


def _chars(workload: Workload) -> int:
    """What its names take of a record, in characters."""
    w = workload
    named = len(w.job) + len(w.step) + len(w.run) + len(w.user) + len(w.dtype)
    return named + sum(len(name) + len(value) + IDENTITY_CHARS for name, value in w.identities)


def _fitting(numbers: list[int]) -> list[list[int]]:
    """The row, as often as it takes for each number to fit the wire's 64 bits: years of a whole GPU."""
    parts = max(numbers) // _MAX_NUMBER + 1
    if parts == 1:
        return [numbers]
    some = [n // parts for n in numbers]
    return [some] * (parts - 1) + [[n - s * (parts - 1) for n, s in zip(numbers, some, strict=True)]]


def _row(key: tuple[int, int, int, int, int, int], numbers: list[int]) -> Usage:
    index, workload, grade, measured, spread, reason = key
    duration, elapsed, active, hmma, imma, dmma, tensor, fp64, fp32, fp16, whole, energy = numbers
    if energy * NJ_PER_MJ > (duration + 4 * ENERGY_SLACK_NS) * MAX_DEVICE_WATTS:
        energy, measured = 0, measured & ~ENERGY  # leaps that were each just believable
    other = residual(
        tensor_any=tensor,
        hmma=hmma if measured & HMMA else None,
        imma=imma,
        dmma=dmma,
        elapsed=elapsed,
        mismatch_ppm=MISMATCH_PPM[EvidenceClass(grade)],
    )
    return Usage(
        entity_index=index,
        workload_index=workload,
        evidence_class=EvidenceClass(grade),
        measured=Measured(measured),
        spread_ppm=spread,
        duration_ns=duration,
        sm_elapsed_cycles=elapsed,
        sm_active_cycles=active,
        hmma_cycles=hmma,
        imma_cycles=imma,
        dmma_cycles=dmma,
        tensor_other_cycles=other if measured & TENSOR else 0,
        fp64_cycles=fp64,
        fp32_cycles=fp32,
        fp16_cycles=fp16,
        int_cycles=whole,
        energy_mj=energy,
        gap_reason=GapReason(reason),
    )
