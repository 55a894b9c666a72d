"""What the entries say together, as of one moment. Pure.

Of two statements on one thing the later entry holds, and the narrower beats the wider whatever their order: a step's
assignment its job's, a job's tag a span's, a span's tag what was declared of the whole run. A retracted entry is as
if it had never been made, from the retraction's own time on; `at` asks for the registry of an earlier time.

What was said by a name that its work has lost follows the work (formerly.py): all of it where all the work went to one
run; there it is narrower than what was said of the whole run, and wider than what was said of one of its jobs.
"""

from collections.abc import Iterable, Iterator, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field, replace
from fractions import Fraction
from functools import cached_property
from typing import NamedTuple, Self, TypeVar

from .entries import (
    Assign,
    Decision,
    Declare,
    Entry,
    External,
    JobKey,
    Link,
    Purpose,
    Relation,
    Retract,
    Statement,
    Tag,
)
from .formerly import Formerly, Went, went

_S = TypeVar("_S", bound=Statement)
_Slot = tuple[JobKey, str | None]  # a job and one step of it; None: all of them


def covers(tag: Tag, hour: int) -> bool:
    """Whether the tag's span holds that hour (since 1970)."""
    return (tag.from_hour is None or tag.from_hour <= hour) and (
        tag.until_hour is None or hour < tag.until_hour
    )


def is_span(tag: Tag) -> bool:
    """Whether it has an end on either side, so that it can be told only by hours."""
    return tag.from_hour is not None or tag.until_hour is not None


class _Said(NamedTuple):
    """A tag, or a declared purpose as one, as it holds for the run that the work has now."""

    width: int  # the higher, the narrower
    entry: Entry
    tag: Tag
    jobs: AbstractSet[JobKey] | None  # None: all of the run's


_OF_RUN, _OLD_DECLARED, _OLD_NAME, _OLD_JOB, _OF_JOB = range(5)


def _own(entry: Entry, tag: Tag) -> _Said:
    return _Said(_OF_RUN, entry, tag, None) if tag.job is None else _Said(_OF_JOB, entry, tag, {tag.job})


@dataclass(frozen=True)
class Registry:
    """The entries up to some moment, by number, and what follows from those in force."""

    entries: tuple[Entry, ...] = ()
    #: Entry number -> number of the entry that took it out of force.
    retracted: Mapping[int, int] = field(default_factory=dict)
    #: Names that entries mention and work has lost.
    formerly: Formerly = field(default_factory=dict)

    @classmethod
    def of(cls, entries: Iterable[Entry], formerly: Formerly | None = None) -> Self:
        """The registry of `entries`, in whatever order they come: their numbers order them."""
        found = tuple(sorted(entries, key=lambda e: e.number))
        retracted = {e.statement.number: e.number for e in found if isinstance(e.statement, Retract)}
        return cls(found, retracted, formerly or {})

    def knowing(self, formerly: Formerly) -> "Registry":
        """The same entries, with where the work is now that had the names they mention."""
        return self if formerly == self.formerly else Registry(self.entries, self.retracted, formerly)

    def at(self, unix_ns: int) -> "Registry":
        """As it stood then: entries made later were not yet made, retractions among them."""
        return Registry.of(e for e in self.entries if e.unix_ns <= unix_ns)

    def plus(self, entry: Entry) -> "Registry":
        """With the next entry. What was worked out from statements of other kinds is kept: a lab may assign jobs by
        the thousand, and fsck asks after each.
        """
        if isinstance(entry.statement, Retract) or (self.entries and entry.number <= self.entries[-1].number):
            return Registry.of((*self.entries, entry), self.formerly)
        grown = Registry((*self.entries, entry), self.retracted, self.formerly)
        if "in_force" in self.__dict__:
            grown.__dict__["in_force"] = (*self.in_force, entry)
        for name, kinds in (_MADE_OF if self.formerly else _AS_SAID).items():
            if name in self.__dict__ and not isinstance(entry.statement, kinds):
                grown.__dict__[name] = self.__dict__[name]
        known = self.__dict__.keys()
        grown.__dict__.update(
            {name: value for name, value in self._with(entry, known).items() if name in known}
        )
        return grown

    def _with(self, entry: Entry, known: AbstractSet[str]) -> dict[str, object]:
        """Of what is `known`, that which one more entry changes in one place. Each word is a commit's or fsck's to take."""
        found: dict[str, object] = {}
        match entry.statement:
            case Tag(run=run) as tag:
                if "_tags" in known:
                    found["_tags"] = self._tags | {run: [*self._tags.get(run, ()), (entry, tag)]}
                if "_said" in known and not self.formerly:
                    found["_said"] = self._said | {run: [*self._said.get(run, ()), _own(entry, tag)]}
            case Declare(run=run, purpose=purpose) as said:
                if "_declared" in known:
                    old = self._declared.get(run)
                    found["_declared"] = self._declared | {run: said if old is None else merged(old, said)}
                if "_declared_purpose" in known:
                    more = {} if purpose is None else {run: (entry, purpose)}
                    found["_declared_purpose"] = self._declared_purpose | more
                if "stands_on" in known and not said.base_models:
                    found["stands_on"] = self.stands_on
            case Assign(job=job, step=step, run=run) if not self.formerly:
                if "_assigned" in known:
                    found["_assigned"] = self._assigned | {(job, step): entry}
                if "_assigned_to" in known and (job, step) not in self._assigned:
                    found["_assigned_to"] = self._assigned_to | {run: {*self._assigned_to.get(run, ()), job}}
        return found

    @cached_property
    def in_force(self) -> tuple[Entry, ...]:
        """Entries that hold, by number: not retracted, and no retractions."""
        return tuple(
            e for e in self.entries if e.number not in self.retracted and not isinstance(e.statement, Retract)
        )

    def entry(self, number: int) -> Entry | None:
        """The entry of that number, in force or not."""
        return next((e for e in self.entries if e.number == number), None)

    @cached_property
    def mentioned(self) -> AbstractSet[str]:
        """Every name of a run or model in any entry, whether it holds or not."""
        return {name for e in self.entries for name in names_of(e.statement)}

    # ---- under which name -----------------------------------------------------------------------------

    def went(self, name: str) -> Went | None:
        """Where the work is that once had this name; None: where it was, or it never had any. A model goes nowhere."""
        return self._went.get(name)

    def now(self, name: str) -> str:
        """The run that this name's work went to, all of it; else the name."""
        gone = self._went.get(name)
        return next(iter(gone.runs)) if gone is not None and len(gone.runs) == 1 else name

    def each(self, name: str) -> tuple[str, ...]:
        """Every run that some of this name's work is in: what is said of lineage holds for each."""
        gone = self._went.get(name)
        if gone is None:
            return (name,)
        kept = {name} if len(gone.runs) > 1 and name in self._assigned_to else set()
        return tuple(sorted(gone.runs | kept))

    def names(self, run: str) -> tuple[str, ...]:
        """Names by which people spoke of this run's work, or some of it, and that it has lost."""
        return self._names.get(run, ())

    @cached_property
    def _went(self) -> dict[str, Went]:
        found = {
            name: went(name, once, self._said_of)
            for name, once in self.formerly.items()
            if name not in self.externals
        }
        return {name: gone for name, gone in found.items() if gone.jobs}

    @cached_property
    def _names(self) -> dict[str, tuple[str, ...]]:
        found: dict[str, list[str]] = {}
        for name in sorted(self._went):
            for run in self._went[name].runs - {name}:
                found.setdefault(run, []).append(name)
        return {run: tuple(names) for run, names in found.items()}

    def _said_of(self, job: JobKey, step: str) -> str | None:
        entry = self.assigned_by(job, step)
        return entry.statement.run if entry is not None and isinstance(entry.statement, Assign) else None

    # ---- which run ------------------------------------------------------------------------------------

    def run_of(self, job: JobKey, step: str, chosen: str) -> str:
        """The run of a job's step, where the rules chose `chosen`."""
        if self._assigned:
            said = self._said_of(job, step)
            if said:
                return self.now(said)
        return chosen

    def assigned_by(self, job: JobKey, step: str) -> Entry | None:
        """The entry that decides which run a job's step belongs to; None: the rules alone."""
        return self._assigned.get((job, step)) or self._assigned.get((job, None))

    @cached_property
    def _assigned(self) -> dict[_Slot, Entry]:
        return {(s.job, s.step): e for e, s in self._all(Assign)}

    @cached_property
    def _assigned_to(self) -> dict[str, set[JobKey]]:
        """Jobs by the run that people said."""
        found: dict[str, set[JobKey]] = {}
        for entry in self._assigned.values():
            assert isinstance(entry.statement, Assign)
            found.setdefault(entry.statement.run, set()).add(entry.statement.job)
        return found

    def assigned_jobs(self, run: str) -> AbstractSet[JobKey]:
        """Jobs that people gave the run, under whatever name of it."""
        names = [name for name in (run, *self.names(run)) if self.now(name) == run]
        return {job for name in names for job in self._assigned_to.get(name, ())}

    @property
    def assigned_runs(self) -> AbstractSet[str]:
        """Runs that people gave jobs to."""
        return {self.now(run) for run in self._assigned_to}

    # ---- what for -------------------------------------------------------------------------------------

    def purpose(self, run: str, job: JobKey, hour: int) -> Purpose | None:
        """What the job's time in that hour was for; None: nobody said, and it counts."""
        found = self.purpose_by(run, job, hour)
        return None if found is None else found[1]

    def purpose_by(self, run: str, job: JobKey, hour: int) -> tuple[Entry, Purpose] | None:
        """The same, with the entry that says so."""
        found = self._tag(run, job, hour, recomputation=False)
        return (found.entry, found.tag.purpose) if found is not None else self._declared_purpose.get(run)

    def recomputation(self, run: str, job: JobKey, hour: int) -> Fraction | None:
        """Which part of the job's work in that hour was activations computed again; None: nobody said."""
        found = self.recomputation_by(run, job, hour)
        return None if found is None else found[1]

    def recomputation_by(self, run: str, job: JobKey, hour: int) -> tuple[Entry, Fraction] | None:
        """The same, with the entry that says so."""
        found = self._tag(run, job, hour, recomputation=True)
        return None if found is None or found.tag.fraction is None else (found.entry, found.tag.fraction)

    def has_spans(self, run: str) -> bool:
        """Whether any tag of the run is of a span of time: then its totals must be told apart by hours."""
        return any(is_span(said.tag) for said in self._said.get(run, ()))

    def edges(self, run: str, first: int, last: int) -> tuple[int, ...]:
        """The hours behind `first`, up to `last`, in which a tag of the run begins or has just ended: in between the
        same holds of every hour.
        """
        found = {
            edge
            for said in self._said.get(run, ())  # by names that its work has lost, too
            for edge in (said.tag.from_hour, said.tag.until_hour)
            if edge is not None
        }
        return tuple(sorted(edge for edge in found if first < edge <= last))

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

    @cached_property
    def _said(self) -> dict[str, list[_Said]]:
        """By the run that the work has now: what its tags say, and those of names that it has lost."""
        found: dict[str, list[_Said]] = {}
        for run, tags in self._tags.items():
            found[run] = [_own(e, tag) for e, tag in tags]
        for name, gone in self._went.items():
            run = self.now(name)
            if run == name:  # some stayed, or it went to several: no guess takes work out of a total
                continue
            jobs = gone.jobs | self._assigned_to.get(name, set())
            said = [
                _Said(_OLD_NAME, e, tag, jobs) if tag.job is None else _Said(_OLD_JOB, e, tag, {tag.job})
                for e, tag in self._tags.get(name, ())
            ]
            declared = self._declared_purpose.get(name)
            if declared is not None:
                said.append(_Said(_OLD_DECLARED, declared[0], Tag(name, declared[1]), jobs))
            found.setdefault(run, []).extend(said)
        return {run: sorted(said, key=lambda s: s.entry.number) for run, said in found.items()}

    def _tag(self, run: str, job: JobKey, hour: int, *, recomputation: bool) -> _Said | None:
        best: _Said | None = None
        for said in self._said.get(run, ()):
            if (said.tag.purpose is Purpose.RECOMPUTATION) is not recomputation or not covers(said.tag, hour):
                continue
            if (said.jobs is None or job in said.jobs) and (best is None or said.width >= best.width):
                best = said
        return best

    @cached_property
    def _declared_purpose(self) -> dict[str, tuple[Entry, Purpose]]:
        return {s.run: (e, s.purpose) for e, s in self._all(Declare) if s.purpose is not None}

    # ---- what the lab says ----------------------------------------------------------------------------

    def declared(self, run: str) -> Declare | None:
        """All that is declared of the run, later words over earlier ones, field by field; its own over those by a name
        that all of its work has lost, of which the purpose holds for that work alone.
        """
        found = self._declared.get(run)
        for name in self.names(run):
            old = self._declared.get(name) if self.now(name) == run else None
            if old is not None:
                old = replace(old, run=run, purpose=None)
                found = old if found is None else merged(old, found)
        return found

    @property
    def declared_runs(self) -> tuple[str, ...]:
        """Runs by the names by which they were declared."""
        return tuple(sorted(self._declared))

    @cached_property
    def _declared(self) -> dict[str, Declare]:
        found: dict[str, Declare] = {}
        for _, s in self._all(Declare):
            found[s.run] = merged(found[s.run], s) if s.run in found else s
        return found

    @cached_property
    def links(self) -> tuple[Link, ...]:
        """Links in force as they were said, the earliest first, each once."""
        return tuple(dict.fromkeys(s for _, s in self._all(Link)))

    @cached_property
    def stands_on(self) -> tuple[Link, ...]:
        """Links as they hold: under the names that the work has now, and with declared base models, which are fine-tuned
        if nothing else is said.
        """
        said = list(self.links)
        for run in self.declared_runs:
            said += (Link(run, Relation.FINE_TUNES, base) for base in self._declared[run].base_models)
        if not self._went:
            return tuple(said)
        now = (
            Link(run, link.relation, parent)
            for link in said
            for run in self.each(link.run)
            for parent in self.each(link.parent)
        )
        return tuple(dict.fromkeys(link for link in now if link.run != link.parent))

    @cached_property
    def externals(self) -> Mapping[str, External]:
        """Models not trained here, by name."""
        return {s.name: s for _, s in self._all(External)}

    @cached_property
    def decisions(self) -> Mapping[str, Decision]:
        """Suggestion -> the last answer."""
        return {s.suggestion: s for _, s in self._all(Decision)}

    def about(self, run: str) -> tuple[Entry, ...]:
        """The run's history: every entry that names it, or named its work once, retracted ones and their retractions
        too, and where jobs that were once assigned to it went.
        """
        names = {run, *self.names(run)}
        own = {e.number for e in self.entries if not names.isdisjoint(names_of(e.statement))}
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


#: What Registry works out once -> the statements that it is made of, where no work has lost a name …
_AS_SAID: Mapping[str, tuple[type, ...]] = {
    "_assigned": (Assign,),
    "_assigned_to": (Assign,),
    "_went": (),
    "_names": (),
    "_tags": (Tag,),
    "_said": (Tag,),
    "_declared": (Declare,),
    "_declared_purpose": (Declare,),
    "links": (Link,),
    "stands_on": (Link, Declare),
    "externals": (External,),
    "decisions": (Decision,),
}
#: … and where some has.
_MADE_OF: Mapping[str, tuple[type, ...]] = {
    **_AS_SAID,
    "_went": (Assign, External),
    "_names": (Assign, External),
    "_said": (Tag, Declare, Assign, External),
    "stands_on": (Link, Declare, Assign, External),
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
