"""What stands in an export: its columns, their kinds and units. Pure; docs/exports.md is held to it by a test.

A schema's name ends in its version. A column is never renamed, moved or given another meaning within one; a new one
comes last.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from flopmeter.collector.books import SUM_FIELDS

#: A row: values in the order of the columns. None: there is none, never zero and never an empty text.
Row = tuple[Any, ...]
Rows = Iterator[Row]


class Kind(StrEnum):
    """How a value is written, by every format."""

    TEXT = "text"
    INTEGER = "integer"  # within 63 bits
    EXACT = "exact integer"  # of any size: decimal text in JSON Lines, decimal128(38, 0) in Parquet
    TIME = "time"  # a row holds it in ns since 1970; written to the millisecond, in UTC
    FLAG = "true or false"


@dataclass(frozen=True, slots=True)
class Column:
    """One column. `unit` is "" where it has none."""

    name: str
    kind: Kind
    unit: str
    text: str


@dataclass(frozen=True, slots=True)
class Schema:
    """A table's name and version, and its columns in order."""

    name: str
    columns: tuple[Column, ...]


def _text(name: str, text: str) -> Column:
    return Column(name, Kind.TEXT, "", text)


def _time(name: str, text: str) -> Column:
    return Column(name, Kind.TIME, "UTC", text)


def _flag(name: str, text: str) -> Column:
    return Column(name, Kind.FLAG, "", text)


def _exact(name: str, unit: str, text: str) -> Column:
    return Column(name, Kind.EXACT, unit, text)


def _count(name: str, unit: str, text: str) -> Column:
    return Column(name, Kind.INTEGER, unit, text)


def _figures(of: str) -> tuple[Column, ...]:
    return tuple(
        _exact(f"{name}_{bound}", unit, f"{text}, {said}{of}")
        for name, unit, text in (
            ("flop", "FLOP", "floating-point operations"),
            ("integer_ops", "operations", "integer tensor operations"),
        )
        for bound, said in (("lower", "at least"), ("point", "best estimate"), ("upper", "at most"))
    )


_SUM_TEXTS = {
    "duration_ns": ("ns", "device time: two GPUs for a second are two seconds"),
    "sm_elapsed_cycles": ("SM-cycles", "elapsed, over all SMs; of a gap the most that can have"),
    "sm_active_cycles": ("SM-cycles", "with any warp resident"),
    "hmma_cycles": ("SM-cycles", "the half-precision tensor pipe was active"),
    "imma_cycles": ("SM-cycles", "the integer tensor pipe was active"),
    "dmma_cycles": ("SM-cycles", "the FP64 tensor pipe was active"),
    "tensor_other_cycles": (
        "SM-cycles",
        "a tensor pipe was active, and none of those above is known to have been",
    ),
    "fp64_cycles": ("SM-cycles", "the FP64 pipe was active"),
    "fp32_cycles": ("SM-cycles", "the FP32 pipe was active"),
    "fp16_cycles": ("SM-cycles", "the FP16 pipe was active"),
    "int_cycles": ("SM-cycles", "the integer pipe was active"),
    "energy_mj": ("mJ", "by the driver's energy counter"),
}

USAGE = Schema(
    "flopmeter-usage/1",
    (
        _time("period_from", "beginning of the first hour that the row is of"),
        _time("period_until", "end of the last one"),
        _text("run", "the run, after what people assigned; none: idle or unattributed time"),
        _text("workload_kind", "idle, unattributed, slurm, pod, process or other"),
        _text("scope", "the cluster within which the job's id means one thing; of a process its node"),
        _text("job", "the scheduler's id"),
        _text("step", "within the job"),
        _text("user", "as the scheduler or the system names them"),
        _count("restart", "", "how often the scheduler had started the job anew"),
        _text("dtype", "the training precision that was declared: it moves the point, never the bounds"),
        _text("gpu_model", "as the driver names it"),
        _text("compute_capability", "as the driver says it"),
        _text("evidence_class", "A1, A2, A3, B1, B2, C, D or gap"),
        _text("gap_reason", "why it is a gap; `unreported`: what a silent agent still owes"),
        _text("measured", "which numbers were read, with spaces between; of all others 0 means: not read"),
        _flag("apportioned", "of a shared GPU: the row is this workload's share"),
        _flag(
            "of_others",
            "of a shared GPU: what its other holders did, for this upper bound only; in no sum of cycles",
        ),
        _count("spread_ppm", "ppm", "half-width of the sampled clock; 0: the cycles were counted"),
        *(_exact(name, *_SUM_TEXTS[name]) for name in SUM_FIELDS),
        *_figures(": what the run's total grew by with this row"),
        _text("w_table", "the table of rates by which cycles became FLOP"),
    ),
)

RUNS = Schema(
    "flopmeter-runs/1",
    (
        _text("run", "its name"),
        _text("status", "running, stopped, or silent: its agents are not heard"),
        _text("owner", "as declared"),
        _text("purpose", "as declared for the run as a whole"),
        _text("declared_dtypes", "the training precisions that its jobs declared, with spaces between"),
        _text(
            "declared_budget_flop", "FLOP that the run was declared to come to: decimal text, up to 41 digits"
        ),
        _time("first_seen", "start of its first window"),
        _time("last_seen", "end of its last window"),
        _count("jobs", "jobs", "of the scheduler"),
        *_figures(""),
        _exact("sm_elapsed_cycles", "SM-cycles", "elapsed, over all SMs"),
        _exact("observed_ns", "ns", "device time that was metered"),
        _exact("gap_ns", "ns", "device time in the records without a usable reading"),
        _exact("unreported_ns", "ns", "device time that silent agents still owe"),
        *(
            _exact(f"class_{name}_ns", "ns", f"device time of evidence class {name.upper()}")
            for name in ("a1", "a2", "a3", "b1", "b2", "c", "d")
        ),
        _exact("apportioned_ns", "ns", "device time on shared GPUs: this run's share"),
        _exact("energy_mj", "mJ", "by the driver's energy counter"),
        _exact("energy_unmeasured_ns", "ns", "observed device time whose energy nobody read"),
        _text(
            "nearest_regime",
            "of those in force: the highest line that was or may have been crossed, else the next",
        ),
        _exact("nearest_threshold_flop", "FLOP", "that line"),
        _text("nearest_comparison", "> or >="),
        _text("nearest_verdict", "crossed, undetermined or below"),
        _text("w_table", "the table of rates by which cycles became FLOP"),
    ),
)

EVENTS = Schema(
    "flopmeter-events/1",
    (
        _count(
            "event_no",
            "",
            "in the order in which they were raised; none with --tenant: it counts everybody's",
        ),
        _text("id", "of the event, as CloudEvents"),
        _time("time", "when it was raised"),
        _text("type", "threshold.crossed, for one"),
        _text("severity", "info, notice, warning or critical"),
        _text("subject", "the run, or agent/ID, or what else it is about"),
        _text("regime", "the legal rule set that it follows from"),
        _text("message", "what it says, in words"),
        _text("state", "open, acknowledged or resolved"),
        _time("answered", "when a person answered it last"),
        _text("answered_by", "who"),
        _text("why", "in their words"),
        _count("position", "", "of the last record in the books that it rests on; none with --tenant"),
        _text("data", "all that it says: a JSON object, as it was delivered"),
    ),
)

DEADLINES = Schema(
    "flopmeter-deadlines/1",
    (
        _text("id", "of the deadline"),
        _time("due", "the instant"),
        _text("timezone", "of the authority, in which the day ends"),
        _text("state", "open, acknowledged or resolved"),
        _text("outcome", "of a resolved one: done or not-applicable"),
        _flag("overdue", "by the clock of this export, and not resolved"),
        _text("regime", "the legal rule set"),
        _text("rule", "within it"),
        _text("run", "none: the organisation as a whole"),
        _text("act", "what is to be handed in"),
        _text("what", "in words"),
        _text("recipient", "to whom"),
        _time("clock_since", "what set the clock going"),
        _time("opened", "when the collector noticed"),
        _text("event_id", "that set it going; none: a person did"),
        _time("answered", "when a person answered it last"),
        _text("answered_by", "who"),
        _text("why", "in their words"),
        _text("rule_digest", "SHA-256 of the rule, hex"),
        _text("regime_digest", "SHA-256 of the regime file that it stands in, hex"),
    ),
)

SCHEMAS = {"usage": USAGE, "events": EVENTS, "deadlines": DEADLINES, "runs": RUNS}
