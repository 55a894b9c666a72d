"""The demo's story: a pre-training run with all that happens to one, and what stands around it. Pure.

What people say of it, and when, is in people.py.
"""

from collections.abc import Callable
from dataclasses import replace

from flopmeter.contract.usage import UNATTRIBUTED, Uncovered, Workload, WorkloadKind

from .scenario import DAY_HOURS, MODEL, MODEL_MORE_MEMORY, Claimed, Node, Scenario, Span

PRETRAIN = "atlas-70b"
FINETUNE = "atlas-70b-chat"
MODIFIED = "scribe-1b"  # of somebody else's open model
BASE = "open-1b"
UNLABELLED = "slurm:demo/88121"
#: Planned, and not begun.
NEXT = "atlas-400b"
#: The jobs of PRETRAIN: one that was requeued, one after a maintenance window, one that tunes; and an evaluation.
FIRST_JOB, SECOND_JOB, TUNING_JOB, EVALUATION_JOB = "88001", "88213", "88377", "88202"

#: Of the history: when the evaluation ended, a node rebooted, the tuning began, work that nobody owns was ended.
EVALUATED, REBOOTED, TUNED, TIDIED = 0.415, 0.58, 0.91, 0.67
_AWAY_HOURS = 14
PRETRAINING, FINETUNING = "pretraining", "finetuning"
#: All activations are computed again in the backward pass: executed is 4/3 of what the formula says (reference/metering.md 4.4).
_RECOMPUTED_PPM = 750_000


def default(days: int = 30, nodes: int = 24) -> Scenario:
    """The demo's story, scaled to `days` (at least 2) and `nodes` (at least 5).

    All but two nodes pre-train; of the last two, one idles, fine-tunes, idles and fine-tunes again, and one
    does work that nobody labelled, then work that nobody owns, then tunes somebody else's model. Pipes are busier than
    real training keeps them (0.81 of all cycles, where 0.3 to 0.5 is usual): 176 GPUs need that for the lower bound,
    which must assume TF32 by mma.sync at 0.6 of its rate (reference/metering.md 4.3), to pass 10^23 FLOP within 30 days.
    """
    hours = days * DAY_HOURS

    def at(share: float) -> int:
        return round(hours * share)

    training = nodes - 2
    spans = _filled(_pretraining(at), hours)
    script = [
        Node(
            name=f"node-{i + 1:02}",
            spans=spans,
            dies=at(0.80) if i == training - 1 else -1,
            reboots=(at(REBOOTED),) if i == training // 2 else (),
            agent_restarts=(at(0.17), at(0.71)) if i == 1 else (),
            away=(at(0.62), at(0.62) + _AWAY_HOURS) if i == training - 3 else (-1, -1),
            model=MODEL_MORE_MEMORY if i >= training - max(1, training // 4) else MODEL,
            claimed=Claimed(70_000_000_000, _RECOMPUTED_PPM) if i == 0 else None,
        )
        for i in range(training)
    ]
    script.append(
        Node(
            f"node-{nodes - 1:02}",
            _filled(_tuning(at, hours), hours),
            model=MODEL_MORE_MEMORY,
            claimed=Claimed(70_000_000_000, 960_000),
        )
    )
    script.append(
        Node(
            f"node-{nodes:02}",
            _filled(_odds_and_ends(at, hours), hours),
            lost=(5, at(0.93)),
            counts=False,
            claimed=Claimed(1_100_000_000, 930_000),
            uncovered=(Uncovered("00000000:c1:00.0", "AMD", "1002:74a1", "NVML reads NVIDIA devices only"),),
        )
    )
    return Scenario("demo", hours, tuple(script))


def _pretraining(at: Callable[[float], int]) -> tuple[Span, ...]:
    """A requeue after a crash, an evaluation in a maintenance window, a new job after it, and one that tunes at last."""
    first = _job(FIRST_JOB, PRETRAIN, "amara")
    again = replace(first, restart=1)
    after = replace(first, job=SECOND_JOB)
    evaluation = replace(first, job=EVALUATION_JOB, user="jonas")
    tuning = replace(first, job=TUNING_JOB)
    return (
        Span(at(0.008), at(0.21), first, 800_000, 650, PRETRAINING),
        Span(at(0.215), at(0.40), again, 818_000, 665, PRETRAINING, 3),
        Span(at(0.405), at(EVALUATED), evaluation, 310_000, 520),
        Span(at(0.42), at(REBOOTED), after, 820_000, 660, PRETRAINING, 1),
        Span(at(REBOOTED), at(TUNED), after, 820_000, 660, PRETRAINING, 2),
        Span(at(TUNED), at(1.0), tuning, 640_000, 590, FINETUNING),
    )


def _tuning(at: Callable[[float], int], hours: int) -> tuple[Span, ...]:
    chat = _job("90417", FINETUNE, "amara")
    return (
        Span(at(0.30), at(0.62), chat, 310_000, 540, FINETUNING),
        Span(at(0.90), hours, replace(chat, job="90533"), 340_000, 560, FINETUNING),
    )


def _odds_and_ends(at: Callable[[float], int], hours: int) -> tuple[Span, ...]:
    nameless = Workload(WorkloadKind.SLURM, job="88121", step="0", user="guest")
    return (
        Span(at(0.05), at(0.55), nameless, 220_000, 470),
        Span(at(0.60), at(TIDIED), UNATTRIBUTED, 180_000, 430),
        Span(at(0.70), hours, _job("90611", MODIFIED, "ines"), 260_000, 500, FINETUNING),
    )


def _job(job: str, run: str, user: str) -> Workload:
    return Workload(WorkloadKind.SLURM, job=job, step="0", run=run, user=user, dtype="bf16")


def _filled(spans: tuple[Span, ...], hours: int) -> tuple[Span, ...]:
    """`spans` with idle in between, from hour 0 to `hours`."""
    out: list[Span] = []
    at = 0
    for span in spans:
        if span.start > at:
            out.append(Span(at, span.start))
        out.append(span)
        at = span.end
    if at < hours:
        out.append(Span(at, hours))
    return tuple(out)
