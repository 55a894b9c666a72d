"""What the entries say together, as of one moment. Pure.

Of two statements on one thing the later entry holds, and the narrower beats the wider whatever their order: a step's
assignment its job's, a job's tag a span's, a span's tag what was declared of the whole run. A retracted entry is as
if it had never been made, from the retraction's own time on; `at` asks for the registry of an earlier time.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from fractions import Fraction
from functools import cached_property
from typing import Self, TypeVar

from .entries import (
    Assign,
    Decision,
    Declare,
    Entry,
    External,
    JobKey,
    Link,
    Purpose,
    Retract,
    Statement,
    Tag,
)

_S = TypeVar("_S", bound=Statement)
_Slot = tuple[JobKey, str | None]  # a job and one step of it; None: all of them


def covers(tag: Tag, hour: int) -> bool:
    """Whether the tag's span holds that hour (since 1970, of the window's end)."""
    return (tag.from_hour is None or tag.from_hour <= hour) and (
        tag.until_hour is None or hour < tag.until_hour
    )


def is_span(tag: Tag) -> bool:
    """Whether it has an end on either side, so that it can be told only by hours."""
    return tag.from_hour is not None or tag.until_hour is not None


@dataclass(frozen=True)
class Registry:
    """The entries up to some moment, by number, and what follows from those in force."""

    entries: tuple[Entry, ...] = ()
    #: Entry number -> number of the entry that took it out of force.
    retracted: Mapping[int, int] = field(default_factory=dict)

    @classmethod
    def of(cls, entries: Iterable[Entry]) -> Self:
        """The registry of `entries`, in whatever order they come: their numbers order them."""
        found = tuple(sorted(entries, key=lambda e: e.number))
        retracted = {e.statement.number: e.number for e in found if isinstance(e.statement, Retract)}
        return cls(found, retracted)

    def at(self, unix_ns: int) -> "Registry":
        """As it stood then: entries made later were not yet made, retractions among them."""
        return Registry.of(e for e in self.entries if e.unix_ns <= unix_ns)

    def plus(self, entry: Entry) -> "Registry":
        """With the next entry. What was worked out from statements of other kinds is kept: a lab may assign jobs by
        the thousand, and fsck asks after each.
        """
        if isinstance(entry.statement, Retract) or (self.entries and entry.number <= self.entries[-1].number):
            return Registry.of((*self.entries, entry))
        grown = Registry((*self.entries, entry), self.retracted)
        if "in_force" in self.__dict__:
            grown.__dict__["in_force"] = (*self.in_force, entry)
        for name, kind in _MADE_OF.items():
            if name in self.__dict__ and not isinstance(entry.statement, kind):
                grown.__dict__[name] = self.__dict__[name]
        if "_tags" in self.__dict__ and isinstance(entry.statement, Tag):
            tag = entry.statement
            grown.__dict__["_tags"] = self._tags | {tag.run: [*self._tags.get(tag.run, ()), (entry, tag)]}
        return grown

    @cached_property
    def in_force(self) -> tuple[Entry, ...]:
        """Entries that hold, by number: not retracted, and no retractions."""
        return tuple(
            e for e in self.entries if e.number not in self.retracted and not isinstance(e.statement, Retract)
        )

    def entry(self, number: int) -> Entry | None:
        """The entry of that number, in force or not."""
        return next((e for e in self.entries if e.number == number), None)

    # ---- which run ------------------------------------------------------------------------------------

    def run_of(self, job: JobKey, step: str, chosen: str) -> str:
        """The run of a job's step, where the rules chose `chosen`."""
        for slot in ((job, step), (job, None)):
            entry = self._assigned.get(slot)
            if entry is not None:
                assert isinstance(entry.statement, Assign)
                return entry.statement.run or chosen
        return chosen

    def assigned_by(self, job: JobKey, step: str) -> Entry | None:
        """The entry that decides which run a job's step belongs to; None: the rules alone."""
        return self._assigned.get((job, step)) or self._assigned.get((job, None))

    @cached_property
    def _assigned(self) -> dict[_Slot, Entry]:
        return {(s.job, s.step): e for e, s in self._all(Assign)}

    # ---- what for -------------------------------------------------------------------------------------

    def purpose(self, run: str, job: JobKey, hour: int) -> Purpose | None:
        """What the job's time in that hour was for; None: nobody said, and it counts."""
        found = self.purpose_by(run, job, hour)
        return None if found is None else found[1]

    def purpose_by(self, run: str, job: JobKey, hour: int) -> tuple[Entry, Purpose] | None:
        """The same, with the entry that says so."""
        found = self._tag(run, job, hour, recomputation=False)
        return (found[0], found[1].purpose) if found is not None else self._declared_purpose.get(run)

    def recomputation(self, run: str, job: JobKey, hour: int) -> Fraction | None:
        """Which part of the job's work in that hour was activations computed again; None: nobody said."""
        found = self.recomputation_by(run, job, hour)
        return None if found is None else found[1]

    def recomputation_by(self, run: str, job: JobKey, hour: int) -> tuple[Entry, Fraction] | None:
        """The same, with the entry that says so."""
        found = self._tag(run, job, hour, recomputation=True)
        return None if found is None or found[1].fraction is None else (found[0], found[1].fraction)

    def has_spans(self, run: str) -> bool:
        """Whether any tag of the run is of a span of time: then its totals must be told apart by hours."""
        return any(is_span(tag) for tag in self.tags(run))

    def tags(self, run: str) -> tuple[Tag, ...]:
        """The run's tags in force, the earliest said first."""
        return tuple(tag for _, tag in self._tags.get(run, ()))

    def tag_entries(self, run: str) -> tuple[Entry, ...]:
        """The same with who, when and why."""
        return tuple(e for e, _ in self._tags.get(run, ()))

    @cached_property
    def _tags(self) -> dict[str, list[tuple[Entry, Tag]]]:
        found: dict[str, list[tuple[Entry, Tag]]] = {}
        for e, tag in self._all(Tag):
            found.setdefault(tag.run, []).append((e, tag))
        return found

    def _tag(self, run: str, job: JobKey, hour: int, *, recomputation: bool) -> tuple[Entry, Tag] | None:
        best: tuple[Entry, Tag] | None = None
        for entry, tag in self._tags.get(run, ()):
            if (tag.purpose is Purpose.RECOMPUTATION) is not recomputation or not covers(tag, hour):
                continue
            if tag.job == job or (tag.job is None and (best is None or best[1].job is None)):
                best = entry, tag
        return best

    @cached_property
    def _declared_purpose(self) -> dict[str, tuple[Entry, Purpose]]:
        return {s.run: (e, s.purpose) for e, s in self._all(Declare) if s.purpose is not None}

    # ---- what the lab says ----------------------------------------------------------------------------

    def declared(self, run: str) -> Declare | None:
        """All that is declared of the run, later words over earlier ones, field by field."""
        return self._declared.get(run)

    @property
    def declared_runs(self) -> tuple[str, ...]:
        return tuple(sorted(self._declared))

    @cached_property
    def _declared(self) -> dict[str, Declare]:
        found: dict[str, Declare] = {}
        for _, s in self._all(Declare):
            found[s.run] = merged(found[s.run], s) if s.run in found else s
        return found

    @cached_property
    def links(self) -> tuple[Link, ...]:
        """Links in force, the earliest said first, each once."""
        return tuple(dict.fromkeys(s for _, s in self._all(Link)))

    @cached_property
    def externals(self) -> Mapping[str, External]:
        """Models not trained here, by name."""
        return {s.name: s for _, s in self._all(External)}

    @cached_property
    def decisions(self) -> Mapping[str, Decision]:
        """Suggestion -> the last answer."""
        return {s.suggestion: s for _, s in self._all(Decision)}

    def about(self, run: str) -> tuple[Entry, ...]:
        """The run's history: every entry that names it, retracted ones and their retractions too, and where jobs that
        were once assigned to it went.
        """
        own = {e.number for e in self.entries if run in names_of(e.statement)}
        jobs = {e.statement.job for e in self.entries if e.number in own and isinstance(e.statement, Assign)}
        own |= {e.number for e in self.entries if isinstance(e.statement, Assign) and e.statement.job in jobs}
        return tuple(
            e
            for e in self.entries
            if e.number in own or (isinstance(e.statement, Retract) and e.statement.number in own)
        )

    def _all(self, kind: type[_S]) -> Iterator[tuple[Entry, _S]]:
        for e in self.in_force:
            if isinstance(e.statement, kind):
                yield e, e.statement


#: What Registry works out once -> the statements that it is made of.
_MADE_OF: Mapping[str, type] = {
    "_assigned": Assign,
    "_tags": Tag,
    "_declared": Declare,
    "_declared_purpose": Declare,
    "links": Link,
    "externals": External,
    "decisions": Decision,
}


def merged(old: Declare, new: Declare) -> Declare:
    """`old` with each field that `new` gives."""
    given = {
        name: getattr(new, name)
        for name in Declare.__dataclass_fields__
        if name != "run" and getattr(new, name) not in (None, ())
    }
    return replace(old, **given)


def names_of(statement: Statement) -> tuple[str, ...]:
    """Runs and external models that a statement names."""
    match statement:
        case Declare(run=run, base_models=base):
            return (run, *base)
        case Assign(run=run):
            return (run,) if run else ()
        case Tag(run=run):
            return (run,)
        case Link(run=run, parent=parent):
            return (run, parent)
        case External(name=name):
            return (name,)
    return ()
