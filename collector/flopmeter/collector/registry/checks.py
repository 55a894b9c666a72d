"""What a new entry must satisfy, given the registry so far and what the books hold. Pure.

Well-formedness first (`RegistryError`: it could never stand), then what other entries and the books say about it
(`EntryRefused`: not now, or not beside what holds). Each refusal says what to do.
"""

from collections.abc import Iterable, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field

from flopmeter.collector.errors import EntryRefused, RegistryError

from .entries import Assign, Declare, Entry, External, JobKey, Link, Purpose, Retract, Statement, Tag
from .form import JOBS_HINT, LIST_HINT, MAX_HOUR, MAX_UNIX_NS, check_form, check_name, check_text
from .lineage import check_link
from .state import Registry, names_of


@dataclass(frozen=True, slots=True)
class KnownJob:
    """What the books hold of a job."""

    steps: AbstractSet[str] = frozenset()
    runs: AbstractSet[str] = frozenset()  # its workloads' runs


@dataclass(frozen=True, slots=True)
class Known:
    """What the books name, as of the entry's position."""

    runs: AbstractSet[str] = frozenset()
    jobs: Mapping[JobKey, KnownJob] = field(default_factory=dict)


def check_entry(registry: Registry, entry: Entry, known: Known | None = None) -> None:
    """Raise RegistryError, or its EntryRefused, unless `entry` may follow `registry`.

    `known` None: runs and jobs that it names are not looked up in the books.
    """
    _frame(registry, entry)
    check_form(entry.statement)
    _against_books(registry, entry.statement, known)
    _against_entries(registry, entry, known)


# ---- number, time and words --------------------------------------------------------------------------


def _frame(registry: Registry, entry: Entry) -> None:
    """Number, time, position and words of an entry."""
    last = registry.entries[-1] if registry.entries else None
    number = last.number + 1 if last else 1
    if entry.number != number:
        raise EntryRefused(
            f"entry: expected number {number}, got {entry.number}",
            "somebody else made an entry meanwhile; try again",
        )
    if last is not None and entry.unix_ns < last.unix_ns:
        raise EntryRefused(
            f"entry {number}: expected a time not before entry {last.number}'s, got one "
            f"{(last.unix_ns - entry.unix_ns) / 1e9:.3f} s before it",
            "this machine's clock went back, or another's runs ahead: set it by NTP and try again",
        )
    if last is not None and entry.position < last.position:
        raise EntryRefused(
            f"entry {number}: expected a position not before entry {last.number}'s ({last.position}), "
            f"got {entry.position}",
            "the store holds fewer records than when that was said: restore the newer copy",
        )
    if not 0 <= entry.unix_ns <= MAX_UNIX_NS or entry.position < 0:
        raise RegistryError(
            f"entry {number}: expected a time and a position from 0, got {entry.unix_ns}, {entry.position}",
            "set this machine's clock",
        )
    check_name("who", entry.who, "say who says it: --who NAME")
    check_text("why", entry.why, "say why, in a sentence that an auditor can follow: --why TEXT")


# ---- against the books ---------------------------------------------------------------------------------


def _against_books(registry: Registry, s: Statement, known: Known | None) -> None:
    if known is None:
        return
    match s:
        case Assign(job=job, run=run, step=step):
            held = _known_job(job, known)
            if step is not None and step not in held.steps:
                raise EntryRefused(
                    f"job {job.job}: expected a step of {_some(held.steps)}, got {step!r}",
                    "leave --step out to assign all of the job",
                )
            if run:
                _known_run(registry, run, known)
        case Tag(run=run, job=tagged):
            _known_run(registry, run, known)
            if tagged is not None and run not in _known_job(tagged, known).runs:
                raise EntryRefused(
                    f"job {tagged.job}: expected a job of run {run}, got one of {_some(known.jobs[tagged].runs)}",
                    f"assign it first: flopmeter runs assign {run} --job {tagged.job} --why TEXT",
                )
        case Link(run=run, parent=parent):
            _known_run(registry, run, known)
            _known_parent(registry, parent, known)
        case Declare(run=run, base_models=base):
            if run in registry.externals:
                raise EntryRefused(
                    f"run {run}: expected a name of its own, got that of an external model",
                    "give the run another name",
                )
            for parent in base:
                _known_parent(registry, parent, known)
        case External(name=name):
            if name in known.runs or registry.declared(name) is not None:
                raise EntryRefused(
                    f"external model {name}: expected a name of its own, got that of a run",
                    "give the model another name; a run of the books needs no declared figure",
                )


def _known_run(registry: Registry, run: str, known: Known) -> None:
    if run not in known.runs and registry.declared(run) is None:
        if registry.went(run) is not None:
            there = registry.each(run)
            raise EntryRefused(
                f"run {run!r}: expected a run of the books; its work is in {' and '.join(there)} now",
                f"say it of {there[0]}",
            )
        near = _near(run, {*known.runs, *registry.declared_runs})
        raise EntryRefused(
            f"run {run!r}: expected a run of the books or a declared one, found neither",
            f"{near}declare a run that has not begun: flopmeter runs declare {run} --owner NAME",
        )


def _known_parent(registry: Registry, parent: str, known: Known) -> None:
    if parent not in registry.externals and parent not in known.runs and registry.declared(parent) is None:
        if registry.went(parent) is not None:
            there = registry.each(parent)
            raise EntryRefused(
                f"parent {parent!r}: expected a run of the books; its work is in {' and '.join(there)} now",
                f"link it to {there[0]}",
            )
        near = _near(parent, {*known.runs, *registry.declared_runs, *registry.externals})
        raise EntryRefused(
            f"parent {parent!r}: expected a run or an external model, found neither",
            f"{near}state one trained elsewhere: flopmeter runs external {parent} --flop F --source TEXT",
        )


def _known_job(job: JobKey, known: Known) -> KnownJob:
    held = known.jobs.get(job)
    if held is None:
        raise EntryRefused(
            f"job {job.job!r} of {job.scope}: expected one that the books hold, found none",
            _near(job.job, {j.job for j in known.jobs}) + JOBS_HINT,
        )
    return held


def _near(name: str, names: Iterable[str]) -> str:
    import difflib

    near = difflib.get_close_matches(name, sorted(names), n=3, cutoff=0.6)
    return f"did you mean {', '.join(near)}? Else " if near else ""


def _some(names: Iterable[str]) -> str:
    found = sorted(names)
    return ", ".join(found[:5]) + (f" and {len(found) - 5} more" if len(found) > 5 else "") or "none"


# ---- against other entries -----------------------------------------------------------------------------


def _against_entries(registry: Registry, entry: Entry, known: Known | None) -> None:
    s = entry.statement
    match s:
        case Tag():
            _overlap(registry, s)
        case Link(run=run, parent=parent):
            if s in registry.links:
                raise EntryRefused(
                    f"link: {run} {s.relation} {parent} is said already",
                    "nothing to do; `flopmeter runs entries` shows by whom",
                )
            _stands_on(registry, run, (parent,))
        case Declare(run=run, base_models=base) if base:
            _stands_on(registry, run, base)
        case Retract(number=number):
            _retract(registry, number, entry, known)


def _overlap(registry: Registry, new: Tag) -> None:
    """Two tags of the same width over the same hours must say the same: nothing would decide between them."""
    for e in registry.tag_entries(new.run):
        old = e.statement
        assert isinstance(old, Tag)
        both_fractions = (old.purpose is Purpose.RECOMPUTATION) is (new.purpose is Purpose.RECOMPUTATION)
        same = old.purpose is new.purpose and old.fraction == new.fraction
        if old.job == new.job and both_fractions and not same and _meet(old, new):
            what = f"{old.purpose} {old.fraction}" if old.fraction else str(old.purpose)
            raise EntryRefused(
                f"tag: {new.run} is {what} in some of these hours (entry {e.number}, by {e.who}): expected no "
                f"other purpose there, got {new.purpose}",
                f"take that back first: flopmeter runs retract {e.number} --why TEXT; or tag a job within them (--job)",
            )


def _meet(a: Tag, b: Tag) -> bool:
    since = max(a.from_hour or 0, b.from_hour or 0)
    until = min(
        MAX_HOUR + 1 if a.until_hour is None else a.until_hour,
        MAX_HOUR + 1 if b.until_hour is None else b.until_hour,
    )
    return since < until


def _stands_on(registry: Registry, run: str, parents: Iterable[str]) -> None:
    """No run may stand on itself through whatever steps, nor on a crowd (lineage.check_link).

    Neither by the names that were used nor by those that the work has now: fsck, which knows the names only as they
    were used, asks for less.
    """
    stands_on: dict[str, set[str]] = {}
    for link in (*registry.links, *registry.stands_on):
        stands_on.setdefault(link.run, set()).add(link.parent)
    for name in registry.declared_runs:
        declared = registry.declared(name)
        if declared is not None:
            stands_on.setdefault(name, set()).update(declared.base_models)
    for parent in parents:
        check_link(stands_on, run, parent)
        for now in registry.each(run):
            for on in registry.each(parent):
                if (now, on) != (run, parent):
                    check_link(stands_on, now, on)
        stands_on.setdefault(run, set()).add(parent)


def _retract(registry: Registry, number: int, by: Entry, known: Known | None) -> None:
    old = registry.entry(number)
    if old is None:
        raise EntryRefused(
            f"retract: expected an entry from 1 to {len(registry.entries)}, got {number}", LIST_HINT
        )
    if isinstance(old.statement, Retract):
        raise EntryRefused(
            f"retract: entry {number} is itself a retraction: expected one that says something",
            f"say again what entry {old.statement.number} said",
        )
    if number in registry.retracted:
        raise EntryRefused(
            f"retract: entry {number} was retracted by entry {registry.retracted[number]}", "nothing to do"
        )
    left = registry.plus(by)
    match old.statement:
        case External(name=name) if name not in left.externals:
            _still_named(
                left, name, f"state a corrected figure: flopmeter runs external {name} --flop F --source TEXT"
            )
        case Declare(run=run) if left.declared(run) is None and known is not None and run not in known.runs:
            _still_named(left, run, f"declare it anew: flopmeter runs declare {run} --owner NAME")


def _still_named(left: Registry, name: str, instead: str) -> None:
    for e in left.in_force:
        if name in names_of(e.statement):
            raise EntryRefused(
                f"retract: entry {e.number} rests on {name}, which nothing else would be known of",
                f"retract entry {e.number} first, or {instead}",
            )
