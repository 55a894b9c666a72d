"""Who holds an entity, from two kinds of evidence that only root can write (reference/metering.md 5.3). Pure.

`found` are the workloads of the processes there, by their cgroups; `given` are those that the scheduler gave the entity to.

| processes                       | given to      | it is                                                          |
| ------------------------------- | ------------- | -------------------------------------------------------------- |
| none, or not known              | nobody        | idle; or not known                                             |
| none, or not known              | J             | J's: allocated and idle is the job's, not idle                 |
| none, or not known              | J and K       | shared alike                                                   |
| of J                            | J, or nobody  | J's                                                            |
| of J                            | J and K       | J's: it runs, K waits                                          |
| of J                            | K             | J's, and said once: a contradiction                            |
| of a UID                        | J and K, whose UIDs are not known | the UID's: a name would be a guess         |
| cannot be told                  | J             | J's: so it is where the agent lacks the host's PID namespace   |
| cannot be told                  | J and K       | shared alike by both                                           |
| cannot be told                  | nobody        | unattributed                                                   |
| of no scheduler (bare)          | J             | J's, and said once: a job may start containers through a daemon |
| of no scheduler (bare)          | nobody        | its own: its unit, container or process group                  |

Several processes: each by this table, and what they come to shares the entity by their SM utilisation.
"""

from collections.abc import Sequence
from dataclasses import replace

from flopmeter.contract.identity import identities
from flopmeter.contract.usage import Workload, WorkloadKind

from .environ import of_slurm_job
from .known import together

#: What a cgroup names a job by, where the scheduler's list has another name for it: a pod's UID, Slurm's SLUID.
ALIASES = {WorkloadKind.POD: "k8s.pod_uid", WorkloadKind.SLURM: "slurm.sluid"}
Holders = tuple[Workload, ...]


def holders_of(found: Workload | None, given: Sequence[Workload]) -> tuple[Holders, str]:
    """Whose one process is, by the table, and what contradicts, in words. () = cannot be told."""
    if found is None:
        return tuple(given), ""
    if not given:
        return (found,), ""
    if found.kind in ALIASES:
        same = _of_one_job(found, [one for one in given if same_job(found, one)])
        if same:
            return tuple([_joined(found, one) for one in same]), ""
        if any(same_job(found, one) for one in given):
            return (found,), ""  # which of them it is, its cgroup does not say
        return (found,), f"a process of {name(found)} on a GPU that was given to {_names(given)}"
    told = tuple([_with_claims(one, found) for one in given])
    return told, f"a process outside of any job, {name(found)}, on a GPU that was given to {_names(given)}"


def same_job(found: Workload, given: Workload) -> bool:
    """Whether a process's cgroup and the scheduler speak of one job.

    A cgroup may know a pod's UID alone, and the kubelet's list has none: where nothing says otherwise, they are one.
    """
    if found.kind is not given.kind:
        return False
    if found.job == given.job:
        return not (found.step and given.step) or found.step == given.step
    if found.kind is WorkloadKind.SLURM and found.job.isdigit():
        return False
    alias = dict(given.identities).get(ALIASES[found.kind], "")
    return not alias or alias == found.job


def _of_one_job(found: Workload, given: Sequence[Workload]) -> Sequence[Workload]:
    """Of those that `found` may be, those that it is: by the cgroup's own name for it, or as the only job that is left."""
    named = [one for one in given if found.job in (one.job, dict(one.identities).get(ALIASES[found.kind]))]
    return named or (given if len({one.job for one in given}) == 1 else ())


def name(workload: Workload | None) -> str:
    """A workload in a notice: kind:job.step."""
    if workload is None:
        return "a process that cannot be told"
    return f"{workload.kind.label}:{workload.job}" + (f".{workload.step}" if workload.step else "")


def _names(given: Sequence[Workload]) -> str:
    return ", ".join(sorted(map(name, given)))


def _joined(found: Workload, given: Workload) -> Workload:
    """One job, seen from both sides: named as the scheduler names it, with the step that the cgroup knows."""
    run = given.run or found.run  # the scheduler's label before the user's variable
    bare = replace(found, job=given.job, step=found.step or given.step, run=run)
    if found.job != given.job:
        bare = replace(bare, identities=identities([*bare.identities, (ALIASES[found.kind], found.job)]))
    return together(replace(given, step=bare.step), bare) or bare


def _with_claims(given: Workload, bare: Workload) -> Workload:
    """A job, and what a process of it that is in no cgroup of the scheduler's says of itself in its environment."""
    claims = tuple([each for each in bare.identities if each.by_user])
    said = {name.removeprefix("env:"): value for name, value in claims}
    if given.kind is WorkloadKind.SLURM and not of_slurm_job(given.job, said):
        return given
    return (
        together(given, replace(given, run=given.run or bare.run, dtype=bare.dtype, identities=claims))
        or given
    )
