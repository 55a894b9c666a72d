"""What a new entry must satisfy, given the registry so far and what the books hold. Pure.

Well-formedness first (`RegistryError`: it could never stand), then what other entries and the books say about it
(`EntryRefused`: not now, or not beside what holds). Each refusal says what to do.
"""

from collections.abc import Iterable, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from fractions import Fraction

from flopmeter.collector.errors import EntryRefused, RegistryError
from flopmeter.contract.errors import ContractError
from flopmeter.contract.flop import Figure
from flopmeter.contract.ids import check_label
from flopmeter.contract.limits import MAX_TEXT_CHARS
from flopmeter.contract.usage import WorkloadKind
from flopmeter.contract.w_table import DTYPE_RATE

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
    Rules,
    Statement,
    Tag,
)
from .lineage import check_link
from .state import Registry, names_of

#: Purposes that a shipped profile leaves out of some total: an "N" in reference/regulations.md section 3. A tag of
#: one of these takes compute away from a total, so that it needs evidence (section 13, item 5).
EXCLUSIONS = frozenset(
    {
        Purpose.SYNTHETIC_DATA,
        Purpose.SYNTHETIC_DATA_PUBLIC,
        Purpose.TEACHER,
        Purpose.AUXILIARY,
        Purpose.EXPERIMENT,
        Purpose.EVALUATION,
        Purpose.PREPROCESSING,
        Purpose.INFERENCE,
        Purpose.RECOMPUTATION,
    }
)
MAX_EVIDENCE = 32  # references of one tag
MAX_BASE_MODELS = 64
MAX_RULES_CHARS = 65_536
#: 10^40: a million times a million H200 for a thousand years. More is a typing error.
MAX_FLOP = 10**40
MAX_UNIX_NS = (1 << 63) - 1  # 2262, and what SQLite can hold
MAX_HOUR = MAX_UNIX_NS // 3_600_000_000_000


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


# ---- form: what no registry could accept ---------------------------------------------------------------


def check_form(statement: Statement) -> None:
    """Raise RegistryError where the statement could stand in no registry."""
    match statement:
        case Declare():
            _declare(statement)
        case Assign():
            _job(statement.job)
            _label("run", statement.run)
            if statement.step is not None:
                _label("step", statement.step)
        case Tag():
            _tag(statement)
        case Link():
            _name("run", statement.run)
            _name("parent", statement.parent)
        case External():
            _name("name", statement.name)
            _text("source", statement.source, "say where the figure comes from: --source")
            _figure(statement.flop)
        case Retract():
            if statement.number < 1:
                raise RegistryError(
                    f"retract: expected an entry's number from 1, got {statement.number}", _LIST_HINT
                )
        case Decision():
            _name("suggestion", statement.suggestion)
        case Rules():
            _rules(statement.text)


_LIST_HINT = "`flopmeter runs entries` lists them with their numbers"


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
    _name("who", entry.who, "say who says it: --who NAME")
    _text("why", entry.why, "say why, in a sentence that an auditor can follow: --why TEXT")


def _declare(s: Declare) -> None:
    _name("run", s.run)
    for name in ("owner", "hardware", "dtype"):
        text = getattr(s, name)
        if text is not None:
            _name(name, text)
    if s.budget_flop is not None and not 0 < s.budget_flop <= MAX_FLOP:
        raise RegistryError(
            f"budget: expected FLOP from 1 to 10^{len(str(MAX_FLOP)) - 1}, got {_number(s.budget_flop)}",
            "write it as 3.8e25 or in digits",
        )
    if s.expected_end_unix_ns is not None and not 0 < s.expected_end_unix_ns <= MAX_UNIX_NS:
        raise RegistryError(
            f"expected end: expected a time before 2262, got {s.expected_end_unix_ns} ns",
            "write it as 2027-03-01",
        )
    if s.dtype is not None and s.dtype not in DTYPE_RATE:
        raise RegistryError(
            f"dtype: expected one of {', '.join(DTYPE_RATE)}, got {s.dtype!r}",
            "name what most matrix multiplications run in",
        )
    if len(s.base_models) > MAX_BASE_MODELS:
        raise RegistryError(
            f"base models: expected at most {MAX_BASE_MODELS}, got {len(s.base_models)}",
            "name direct ancestors only: theirs follow from their own entries",
        )
    for base in s.base_models:
        _name("base model", base)
    if len(set(s.base_models)) != len(s.base_models):
        raise RegistryError("base models: expected each once", "name each ancestor once")
    if s == Declare(s.run):
        raise RegistryError(
            f"declare {s.run}: expected something that is said of it, got nothing",
            "give at least one of --owner, --budget, --hardware, --end, --dtype, --purpose, --base",
        )
    if s.purpose in EXCLUSIONS:
        raise RegistryError(
            f"declare {s.run}: purpose {s.purpose}: expected one that every profile counts; this one takes "
            "compute out of a total, and a declaration has no evidence",
            f"tag it instead: flopmeter runs tag {s.run} --purpose {s.purpose} --evidence REFERENCE --why TEXT",
        )


def _tag(s: Tag) -> None:
    _name("run", s.run)
    if s.job is not None:
        _job(s.job)
    for hour in (s.from_hour, s.until_hour):
        if hour is not None and not 0 <= hour <= MAX_HOUR:
            raise RegistryError(
                f"tag: expected hours from 1970 to 2262, got {_number(hour)}", "write times as 2026-11-20"
            )
    if s.from_hour is not None and s.until_hour is not None and s.from_hour >= s.until_hour:
        raise RegistryError(
            f"tag: expected a span of at least one whole hour, got hours {s.from_hour} to {s.until_hour}",
            "time is tagged by whole hours; tag the job instead (--job), that is exact",
        )
    if s.purpose is Purpose.RECOMPUTATION:
        if s.fraction is None:
            raise RegistryError(
                "tag: recomputation: expected the fraction of the work that it was, got none",
                "say it as --fraction 1/4; it cannot be told by time",
            )
        if not 0 < s.fraction < 1 or s.fraction.denominator > MAX_FLOP:
            raise RegistryError(
                f"tag: fraction: expected more than 0 and less than 1, got {_fraction(s.fraction)}",
                "25 % of the work is --fraction 1/4",
            )
    elif s.fraction is not None:
        raise RegistryError(
            f"tag: fraction: expected one with recomputation only, got one with {s.purpose}",
            "tag a job (--job) or whole hours (--from, --until) instead of a fraction",
        )
    if len(s.evidence) > MAX_EVIDENCE:
        raise RegistryError(
            f"evidence: expected at most {MAX_EVIDENCE} references, got {len(s.evidence)}",
            "put them into one file and name that",
        )
    for reference in s.evidence:
        _text("evidence", reference, "name a URL, a file or a digest: sha256:…")
    if s.purpose in EXCLUSIONS and not s.evidence:
        raise RegistryError(
            f"tag: {s.purpose} takes compute out of a total: expected evidence for it, got none",
            "name a URL, a file (its SHA-256 is recorded) or a digest with --evidence; without one it counts",
        )


def _rules(text: str) -> None:
    if not text.strip() or len(text) > MAX_RULES_CHARS:
        raise RegistryError(
            f"rules: expected a rule list of at most {MAX_RULES_CHARS} characters, got {len(text)}",
            "shorten the file",
        )
    if any(not (c.isprintable() or c in "\n\t") for c in text):
        raise RegistryError(
            "rules: expected printable text, got control characters", "save the file as plain UTF-8 text"
        )


def _figure(flop: Figure) -> None:
    if not 0 <= flop.lower <= flop.point <= flop.upper <= MAX_FLOP:
        shown = " <= ".join(_number(n) for n in (flop.lower, flop.point, flop.upper))
        raise RegistryError(
            f"flop: expected 0 <= lower <= point <= upper <= 10^{len(str(MAX_FLOP)) - 1}, got {shown}",
            "order the bounds; one figure alone stands for all three",
        )


def _job(job: JobKey) -> None:
    if job.kind not in {int(k) for k in WorkloadKind} or job.kind in (
        WorkloadKind.IDLE,
        WorkloadKind.UNATTRIBUTED,
    ):
        raise RegistryError(
            f"job: expected a kind of slurm, pod, process or other, got {job.kind}", _JOBS_HINT
        )
    _label("job's scope", job.scope)
    _name("job", job.job, _JOBS_HINT)


_JOBS_HINT = "`flopmeter runs show RUN --json` names a run's jobs"


def _label(what: str, text: str, hint: str = "") -> None:
    try:
        check_label(what, text)
    except ContractError as e:
        raise RegistryError(str(e), hint or "use a short printable name") from e


def _name(what: str, text: str, hint: str = "") -> None:
    if not text:
        raise RegistryError(f"{what}: expected a name, got none", hint or f"name the {what}")
    _label(what, text, hint)


def _text(what: str, text: str, hint: str) -> None:
    if not text.strip():
        raise RegistryError(f"{what}: expected some words, got none", hint)
    if len(text) > MAX_TEXT_CHARS:
        raise RegistryError(
            f"{what}: expected at most {MAX_TEXT_CHARS} characters, got {len(text)}",
            "shorten it, and put the rest into a file that --evidence names",
        )
    if not text.isprintable():
        raise RegistryError(
            f"{what}: expected one printable line, got {text[:40]!r}",
            "remove line breaks and control characters",
        )


def _number(value: int) -> str:
    return str(value) if abs(value) < 10**60 else "a number of more than 60 digits"


def _fraction(value: Fraction) -> str:
    return f"{_number(value.numerator)}/{_number(value.denominator)}"


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
        near = _near(run, {*known.runs, *registry.declared_runs})
        raise EntryRefused(
            f"run {run!r}: expected a run of the books or a declared one, found neither",
            f"{near}declare a run that has not begun: flopmeter runs declare {run} --owner NAME",
        )


def _known_parent(registry: Registry, parent: str, known: Known) -> None:
    if parent not in registry.externals and parent not in known.runs and registry.declared(parent) is None:
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
            _near(job.job, {j.job for j in known.jobs}) + _JOBS_HINT,
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
        case Declare(run=run, base_models=base):
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
    """No run may stand on itself through whatever steps, nor on a crowd (lineage.check_link)."""
    stands_on: dict[str, set[str]] = {}
    for link in registry.links:
        stands_on.setdefault(link.run, set()).add(link.parent)
    for name in registry.declared_runs:
        declared = registry.declared(name)
        if declared is not None:
            stands_on.setdefault(name, set()).update(declared.base_models)
    for parent in parents:
        check_link(stands_on, run, parent)
        stands_on.setdefault(run, set()).add(parent)


def _retract(registry: Registry, number: int, by: Entry, known: Known | None) -> None:
    old = registry.entry(number)
    if old is None:
        raise EntryRefused(
            f"retract: expected an entry from 1 to {len(registry.entries)}, got {number}", _LIST_HINT
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
