"""A path of /proc/PID/cgroup -> the Slurm job, step and task that it belongs to. Pure.

The path is written by slurmd as root, and it is believed only where root alone could have made its beginning:
`slurm…` at the top of a v1 hierarchy, `slurmstepd.scope` in systemd's system slice. A user may name cgroups at will
in what was delegated to them (user.slice, a container, the inside of a v1 step), so that no such name counts further
down, and the first job on the way is the job: what lies below it is its own.

    v1            /slurm[_<node>]/uid_<u>/job_<id>/step_<s>[/task_<t>]
    v2            /system.slice/[<node>_]slurmstepd.scope/job_<id>/step_<s>/user/task_<t>
    v2 from 26.05 /system.slice/[<node>_]slurmstepd.scope/<SLUID>/step_<s>/user/task_<t>

(reference/deploy.md 1.6; SLUIDs: Slurm's own CHANGELOG of 26.05 and its page on cgroup v2.) Seen from a container
with a cgroup namespace of its own, a path begins with as many `/..` as it takes, and may have lost `/system.slice`.
"""

import re
from typing import NamedTuple

#: Ids from here on are marks, not jobs or steps (slurm.h: NO_VAL, INFINITE and the special steps below).
_MARKS_FROM = 0xFFFFFFF0
#: Special steps as numbers: slurm.h of today, and of versions before 20.11.
_SPECIAL = {
    0xFFFFFFFA: "interactive",
    0xFFFFFFFB: "batch",
    0xFFFFFFFC: "extern",
    0xFFFFFFFE: "batch",
    0xFFFFFFFF: "extern",
}
_NAMED = frozenset({"batch", "extern", "interactive"})

#: Slurm's Lexicographically-sortable Unique ID: 's' and 64 bits in Crockford's base 32, the first digit of 4 bits.
SLUID = re.compile(r"s[0-9A-F][0-9A-HJKMNP-TV-Z]{12}\Z")

_BELOW = r"(?:/step_(?P<step>[^/]+?)(?:/user)?(?:/task_(?P<task>[^/]+?))?)?(?:/.*|(?: \(deleted\))?)\Z"
_V1 = re.compile(r"(?:/\.\.)*/slurm(?:_[^/]+)?/uid_[0-9]+/job_(?P<job>[1-9][0-9]{0,9})" + _BELOW)
_V2 = re.compile(
    r"(?:/\.\.)*(?:/system\.slice)?/(?:[^/]+_)?slurmstepd\.scope/"
    r"(?:job_(?P<job>[1-9][0-9]{0,9})|(?P<sluid>s[0-9A-F][0-9A-HJKMNP-TV-Z]{12}))" + _BELOW
)
_STEP = re.compile(r"(?P<number>0|[1-9][0-9]{0,9})(?P<component>\+(?:0|[1-9][0-9]{0,9}))?\Z")


class SlurmStep(NamedTuple):
    """Where in Slurm a process runs. `job` is the numeric id, or the SLUID where the path bears that."""

    job: str
    step: str = ""  # "0", "0+1" (component 1 of a heterogeneous step), "batch", "extern", "interactive"; "" = not known
    task: str = ""  # "0"; "" = none or not known

    @property
    def sluid(self) -> bool:
        return self.job.startswith("s")


def slurm_of_path(path: str) -> SlurmStep | None:
    """The step of one path (the third field of a line), or None where no slurmd made it."""
    found = _V1.match(path) or _V2.match(path)
    if found is None:
        return None
    groups = found.groupdict()
    job = groups["job"] or groups["sluid"]
    if groups["job"] and int(job) >= _MARKS_FROM:
        return None
    task = groups["task"] or ""
    return SlurmStep(job, _step(groups["step"] or ""), task if task.isascii() and task.isdigit() else "")


def slurm_of_cgroup(text: str) -> SlurmStep | None:
    """The step that the lines of /proc/PID/cgroup name; None where none does, or two name different jobs."""
    found: SlurmStep | None = None
    for line in text.splitlines():
        one = slurm_of_path(line.partition(":")[2].partition(":")[2])
        if one is None:
            continue
        if found is not None and found.job != one.job:
            return None  # no kernel and no slurmd leaves a process in two jobs
        found = one if found is None else max(found, one, key=_known)
    return found


def _known(step: SlurmStep) -> int:
    """How deep a path led: not every v1 hierarchy has steps and tasks."""
    return (step.step != "") + (step.task != "")


def _step(text: str) -> str:
    if text in _NAMED:
        return text
    match = _STEP.match(text)
    if match is None:
        return ""  # not launched yet ("TBD"), or of a version to come
    number = int(match["number"])
    if number in _SPECIAL:
        return _SPECIAL[number]
    return text if number < _MARKS_FROM else ""
