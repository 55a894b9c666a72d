"""What a person may say about a run: entries, appended and never edited. Types only; pure.

An entry is who said it, when, why, and one statement. A correction is a later entry; a `Retract` takes an earlier one
out of force from its own time on, so that a question "as of" an earlier time is answered as it was then.
"""

from dataclasses import dataclass
from enum import StrEnum
from fractions import Fraction

from flopmeter.contract.flop import Calibration, Figure


class Purpose(StrEnum):
    """What a span of a run was for (reference/regulations.md section 3). "" in the books: untagged, which counts."""

    PRETRAINING = "pretraining"
    FINETUNING = "finetuning"
    RL = "rl"  # parameter updates by reinforcement learning
    RL_ROLLOUTS = "rl-rollouts"
    SYNTHETIC_DATA = "synthetic-data"  # private, discarded samples included
    SYNTHETIC_DATA_PUBLIC = "synthetic-data-public"  # publicly accessible
    TEACHER = "teacher"  # training of a parent model used in distillation
    AUXILIARY = "auxiliary"  # reward and value models
    EXPERIMENT = "experiment"  # failed or exploratory, lessons only
    EVALUATION = "evaluation"  # red-teaming and diagnostics, too
    ROLLED_BACK = "rolled-back"  # rolled-back or crashed parts of the main run
    PREPROCESSING = "preprocessing"
    INFERENCE = "inference"  # deployment
    RECOMPUTATION = "recomputation"  # only as a fraction: activations computed again to save memory


class Relation(StrEnum):
    """How a run stands on another (DESIGN.md section 3, lineage)."""

    CONTINUES = "continues"
    FINE_TUNES = "fine-tunes"
    MERGES = "merges"
    INITIALISED_FROM = "initialised-from"
    DISTILS = "distils"
    SYNTHETIC_DATA_FROM = "synthetic-data-from"


@dataclass(frozen=True, slots=True, order=True)
class JobKey:
    """A scheduler's job as the books know it: decide.scope_of, WorkloadKind, the scheduler's id."""

    scope: str
    kind: int
    job: str


@dataclass(frozen=True, slots=True)
class Calibrated:
    """The lab's own counts per dtype over some of the run's steps, on GPUs of one model (reference/metering.md 4.2 b).

    A claim: reports show beside the bounds what they are if it is true. No total and no threshold takes it.
    """

    model: str  # as NVML names it
    counts: Calibration


@dataclass(frozen=True, slots=True)
class Declare:
    """What the lab says of a run. A later one replaces only the fields it gives (None, () = not said)."""

    run: str
    owner: str | None = None
    budget_flop: int | None = None
    hardware: str | None = None
    expected_end_unix_ns: int | None = None
    dtype: str | None = None
    purpose: Purpose | None = None  # of all of the run that no tag says otherwise of
    base_models: tuple[str, ...] = ()  # external ancestors by name, or runs
    calibration: Calibrated | None = None


@dataclass(frozen=True, slots=True)
class Assign:
    """That a job belongs to `run`, whatever the rules chose; `step` narrows it. run "" gives it back to the rules."""

    job: JobKey
    run: str
    step: str | None = None


@dataclass(frozen=True, slots=True)
class Tag:
    """What a span of a run was for. Hours (since 1970) [from_hour, until_hour): the finest grain of the books.

    None = open. `job` narrows it to one job. `fraction` only with RECOMPUTATION: that part of what is otherwise
    counted. An exclusion (a purpose that some profile does not count) needs `evidence`.
    """

    run: str
    purpose: Purpose
    from_hour: int | None = None
    until_hour: int | None = None
    job: JobKey | None = None
    evidence: tuple[str, ...] = ()
    fraction: Fraction | None = None


@dataclass(frozen=True, slots=True)
class Link:
    """`run` stands on `parent`: a run of the books, or an external model."""

    run: str
    relation: Relation
    parent: str


@dataclass(frozen=True, slots=True)
class External:
    """A model that was not trained here: its training compute as its source states it."""

    name: str
    flop: Figure
    source: str


@dataclass(frozen=True, slots=True)
class Retract:
    """Entry `number` no longer holds."""

    number: int


@dataclass(frozen=True, slots=True)
class Decision:
    """A person's answer to a suggestion (`suggestion`: its id)."""

    suggestion: str
    accepted: bool


Statement = Declare | Assign | Tag | Link | External | Retract | Decision


@dataclass(frozen=True, slots=True)
class Entry:
    """One appended statement."""

    number: int  # from 1, without holes
    unix_ns: int  # the collector's clock
    position: int  # of the last record that the books held then
    who: str
    why: str
    statement: Statement
