"""What a process's environment may say: an allow-list of names, and nothing else is looked at. Pure.

The environment is the user's own. It corroborates: it may add a run label, a dtype and identities to a workload that
the cgroup or the scheduler named, and it never makes one.
"""

import hashlib
import re
from collections.abc import Iterable, Mapping
from dataclasses import replace

from flopmeter.contract.identity import identities
from flopmeter.contract.usage import Workload, WorkloadKind
from flopmeter.contract.w_table import DTYPE_RATE

from .labels import tidy_label
from .slurm_cgroup import SLUID

#: Names that tell what a run is (reference/deploy.md 1.4).
RUN_VARIABLES = frozenset({
    "FLOPMETER_RUN",
    "FLOPMETER_DTYPE",
    "FLOPMETER_PURPOSE",
    "FLOPMETER_CHECKPOINT",
    "WANDB_RUN_ID",
    "WANDB_RUN_GROUP",
    "MLFLOW_RUN_ID",
    "TORCHELASTIC_RUN_ID",
    "RAY_JOB_SUBMISSION_ID",
    "AWS_BATCH_JOB_ID",
    "SLURM_JOB_ID",
    "SLURM_ARRAY_JOB_ID",
    "SLURM_JOB_NAME",
    "SLURM_CLUSTER_NAME",
    "SLURM_JOB_ID_HET_GROUP_0",
})  # fmt: skip
#: Names that count something: there 0 is a value.
NUMBER_VARIABLES = frozenset({
    "SLURM_STEP_ID",
    "SLURM_ARRAY_TASK_ID",
    "SLURM_RESTART_COUNT",
    "SLURM_HET_SIZE",
    "AWS_BATCH_JOB_ATTEMPT",
})  # fmt: skip
#: The only variables of a job's environment that are ever looked at, unless the site names more.
ALLOWED_VARIABLES = RUN_VARIABLES | NUMBER_VARIABLES
#: Shipped as the first half of the SHA-256 of what they say: that two runs go on from one place is worth knowing, the
#: place is nobody's business.
HASHED_VARIABLES = frozenset({"FLOPMETER_CHECKPOINT"})
#: What launchers write where nobody gave a name: torchrun's `none` is the same for every job of the world.
PLACEHOLDERS = frozenset({"", "0", "none", "null", "default"})

MAX_MORE_VARIABLES = 16
_NUMBER = re.compile(r"[0-9]{1,10}\Z", re.ASCII)
_NAME = re.compile(r"[A-Z][A-Z0-9_]{0,63}\Z")


def more_variables(names: Iterable[str]) -> frozenset[str]:
    """Names that a site adds to the allow-list. Raises ValueError for what is none, or too many."""
    found = frozenset(names)
    for name in sorted(found):
        if not _NAME.match(name):
            raise ValueError(
                f"expected names of variables such as TRAIN_RUN_ID (A-Z, 0-9, _), at most 64 long, got {name[:80]!r}"
            )
    if len(found) > MAX_MORE_VARIABLES:
        raise ValueError(f"expected at most {MAX_MORE_VARIABLES} more variables, got {len(found)}")
    return found


def allowed_of(raw: bytes, allowed: frozenset[str] = ALLOWED_VARIABLES) -> dict[str, str]:
    """The allowed variables of /proc/PID/environ; the first of a name holds, as getenv has it.

    They are searched for by name: nothing else is even taken apart, and a megabyte of other variables costs little.
    """
    found: dict[str, str] = {}
    data = b"\0" + raw
    for name in allowed:
        mark = b"\0%s=" % name.encode()
        at = data.find(mark)
        if at >= 0:
            end = data.find(b"\0", at + len(mark))
            value = data[at + len(mark) : end if end >= 0 else None]
            found[name] = value.decode(errors="replace")
    return found


def corroborated(workload: Workload, environ: Mapping[str, str]) -> Workload:
    """Add what the job says of itself, unless it claims to be another Slurm job than its cgroup says."""
    if workload.kind is WorkloadKind.SLURM and not of_slurm_job(workload.job, environ):
        return workload
    told = {name: text for name, value in environ.items() if (text := _told(name, value))}
    dtype = told.get("FLOPMETER_DTYPE", "").lower()
    return replace(
        workload,
        run=told.get("FLOPMETER_RUN", ""),
        dtype=dtype if dtype in DTYPE_RATE else "",
        identities=identities([*workload.identities, *((f"env:{name}", told[name]) for name in told)]),
    )


def of_slurm_job(job: str, environ: Mapping[str, str]) -> bool:
    """Whether an environment can be that of a process of `job`, by its Slurm variables; without any it can.

    In a het job every component's names the first one, and the ids follow one another (tests/slurm/README.md). A job
    that its cgroup names by its SLUID (Slurm 26.05) cannot be compared: nothing contradicts.
    """
    if SLUID.match(job):
        return True
    said, size = environ.get("SLURM_JOB_ID", job), environ.get("SLURM_HET_SIZE", "")
    if said == job:
        return True
    if not all(_NUMBER.match(text) for text in (said, size, job)):
        return False
    return 0 < int(job) - int(said) < int(size)


def _told(name: str, value: str) -> str:
    text = tidy_label(value)
    if name not in NUMBER_VARIABLES and text.lower() in PLACEHOLDERS:
        return ""
    if name in HASHED_VARIABLES:
        return hashlib.sha256(value.strip().encode(errors="surrogateescape")).hexdigest()[:32]
    return text
