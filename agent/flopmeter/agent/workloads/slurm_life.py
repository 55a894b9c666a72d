"""One Slurm job id, seen twice: the same life of a job, its next life after a requeue, or another job. Pure.

Slurm counts job ids up to MaxJobId (67,043,328 unless set) and begins again; a cluster whose state was lost begins
again at once. A requeue keeps the id, raises the restart count by one, and **moves the submit time** to the moment of
the requeue (Slurm's own source since 22.05; seen on 22.05 and 24.11, tests/slurm/README.md). So neither the id alone nor
(id, submit time) names a job: docs/slurm.md says what does.
"""

from enum import StrEnum
from typing import NamedTuple


class Life(NamedTuple):
    """What was known of a job at one time. -1, 0 or "" = not known."""

    restart: int = -1
    submit_unix_s: int = 0
    user: str = ""
    array_job: str = ""
    sluid: str = ""  # Slurm's own unique id, from 25.11 on: a new one for each life


class Kin(StrEnum):
    """How the later of two sightings of one job id is related to the earlier."""

    SAME = "same"  # the same life of the same job
    REQUEUED = "requeued"  # a later life of the same job
    OTHER = "other"  # the id was given to another job
    UNKNOWN = "unknown"  # nothing tells


def kin(earlier: Life, later: Life) -> Kin:
    """How `later` is related to `earlier`; both bear the same job id on the same cluster.

    A job that took over the id and was requeued itself before anybody saw it looks like a requeue if its user and its
    array are the same, too: nothing that Slurm says before 25.11 tells them apart.
    """
    if _differ(earlier.user, later.user) or _differ(earlier.array_job, later.array_job):
        return Kin.OTHER
    if earlier.sluid and earlier.sluid == later.sluid:
        return Kin.SAME
    counted = min(earlier.restart, later.restart) >= 0
    if counted and later.restart != earlier.restart:
        # A submit time that went back contradicts a count that went up: an older job's record came late.
        back = 0 < later.submit_unix_s < earlier.submit_unix_s
        return Kin.REQUEUED if later.restart > earlier.restart and not back else Kin.OTHER
    moved = _differ(earlier.submit_unix_s, later.submit_unix_s) or _differ(earlier.sluid, later.sluid)
    if moved:
        return Kin.OTHER if counted else Kin.UNKNOWN
    if earlier.submit_unix_s and later.submit_unix_s:
        return Kin.SAME
    return Kin.UNKNOWN


def _differ(a: str | int, b: str | int) -> bool:
    """Whether both are known, and not the same."""
    return bool(a) and bool(b) and a != b
