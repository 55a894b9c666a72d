"""The form of a statement: what no registry could accept. Pure. Each refusal says what to do."""

from fractions import Fraction

from flopmeter.collector import chained_words
from flopmeter.collector.errors import RegistryError
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
    External,
    JobKey,
    Link,
    Purpose,
    Retract,
    Statement,
    Tag,
)

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
#: What a text that is too long is answered with.
_SHORTER = "shorten it, and put the rest into a file that --evidence names"
MAX_EVIDENCE = 32  # references of one tag
MAX_BASE_MODELS = 64
#: 10^40: a million times a million H200 for a thousand years. More is a typing error.
MAX_FLOP = 10**40
MAX_UNIX_NS = (1 << 63) - 1  # 2262, and what SQLite can hold
MAX_HOUR = MAX_UNIX_NS // 3_600_000_000_000


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
            check_name("run", statement.run)
            check_name("parent", statement.parent)
        case External():
            check_name("name", statement.name)
            check_text("source", statement.source, "say where the figure comes from: --source")
            _figure(statement.flop)
        case Retract():
            if statement.number < 1:
                raise RegistryError(
                    f"retract: expected an entry's number from 1, got {statement.number}", LIST_HINT
                )
        case Decision():
            check_name("suggestion", statement.suggestion)


LIST_HINT = "`flopmeter runs entries` lists them with their numbers"


def _declare(s: Declare) -> None:
    check_name("run", s.run)
    for name in ("owner", "hardware", "dtype"):
        text = getattr(s, name)
        if text is not None:
            check_name(name, text)
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
        check_name("base model", base)
    if len(set(s.base_models)) != len(s.base_models):
        raise RegistryError("base models: expected each once", "name each ancestor once")
    if s.calibration is not None:
        check_name("model of the calibration", s.calibration.model)
        for what, n in (("FLOP", s.calibration.counts.flop), ("SM-cycles", s.calibration.counts.cycles)):
            if n > MAX_FLOP:
                raise RegistryError(
                    f"calibration: expected at most 10^{len(str(MAX_FLOP)) - 1} {what}, got {_number(n)}",
                    "give what was counted over some steps",
                )
    if s == Declare(s.run):
        raise RegistryError(
            f"declare {s.run}: expected something that is said of it, got nothing",
            "give at least one of --owner, --budget, --hardware, --end, --dtype, --purpose, --base, --calibration",
        )
    if s.purpose in EXCLUSIONS:
        raise RegistryError(
            f"declare {s.run}: purpose {s.purpose}: expected one that every profile counts; this one takes "
            "compute out of a total, and a declaration has no evidence",
            f"tag it instead: flopmeter runs tag {s.run} --purpose {s.purpose} --evidence REFERENCE --why TEXT",
        )


def _tag(s: Tag) -> None:
    check_name("run", s.run)
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
        check_text("evidence", reference, "name a URL, a file or a digest: sha256:…")
    if s.purpose in EXCLUSIONS and not s.evidence:
        raise RegistryError(
            f"tag: {s.purpose} takes compute out of a total: expected evidence for it, got none",
            "name a URL, a file (its SHA-256 is recorded) or a digest with --evidence; without one it counts",
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
            f"job: expected a kind of slurm, pod, process or other, got {job.kind}", JOBS_HINT
        )
    _label("job's scope", job.scope)
    check_name("job", job.job, JOBS_HINT)


JOBS_HINT = "`flopmeter runs show RUN --json` names a run's jobs"


def _label(what: str, text: str, hint: str = "") -> None:
    try:
        check_label(what, text)
    except ContractError as e:
        raise RegistryError(str(e), hint or "use a short printable name") from e


def check_name(what: str, text: str, hint: str = "") -> None:
    if not text:
        raise RegistryError(f"{what}: expected a name, got none", hint or f"name the {what}")
    _label(what, text, hint)


def check_text(what: str, text: str, hint: str) -> None:
    """Raise RegistryError unless `text` is one printable line."""
    chained_words.check_text(RegistryError, what, text, hint, most=MAX_TEXT_CHARS, shorter=_SHORTER)


def _number(value: int) -> str:
    return str(value) if abs(value) < 10**60 else "a number of more than 60 digits"


def _fraction(value: Fraction) -> str:
    return f"{_number(value.numerator)}/{_number(value.denominator)}"
