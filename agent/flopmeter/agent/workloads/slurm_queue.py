"""What `squeue --json` prints -> facts of jobs. Pure, and lenient where Slurm's versions differ.

Seen (tests/slurm/captures): openapi v0.0.38 of 22.05, where a number is a number or null; data_parser v0.0.42 of
24.11, where most are {"set": true, "infinite": false, "number": 1} and a state is a list. A value that cannot be is
not known; a text that is no such document is refused with a reason.
"""

import json
from collections.abc import Collection
from typing import Any

from .slurm_cgroup import SLUID
from .slurm_facts import JobFacts

_MAX_NUMBER = (1 << 32) - 16  # NO_VAL, INFINITE and their like stand above
_MAX_UNIX_S = 1 << 40
#: Of a record's many keys those that are kept while it is parsed, so that a large answer stays small in memory.
_WANTED = frozenset(
    {
        "jobs", "errors", "error", "description", "set", "infinite", "number",
        "job_id", "name", "user_name", "account", "partition", "cluster", "array_job_id", "array_task_id",
        "het_job_id", "het_job_offset", "submit_time", "restart_cnt", "job_state", "sluid", "step_id",
    }
)  # fmt: skip
#: In these the job has the node: its restart count and submit time are those of the life that runs.
_RUNS = frozenset({"RUNNING", "SUSPENDED", "CONFIGURING", "STOPPED", "SIGNALING", "STAGE_OUT"})


def parse_queue(raw: bytes, wanted: Collection[str]) -> dict[str, JobFacts]:
    """Facts of the `wanted` jobs (by id, or by SLUID) that stand in it. Raises ValueError that says why."""
    try:
        data = json.loads(raw, object_hook=_slim, parse_constant=_none, parse_int=_int)
    except RecursionError as e:
        raise ValueError("nested too deeply") from e
    if not isinstance(data, dict):
        raise ValueError(f"expected an object with jobs, got {type(data).__name__}")  # noqa: TRY004 - of a document
    jobs = data.get("jobs")
    if not isinstance(jobs, list):
        why = _complaint(data.get("errors")) or "expected a list of jobs, got none"
        raise ValueError(why)  # noqa: TRY004 - of a document
    if not jobs and (complaint := _complaint(data.get("errors"))):
        raise ValueError(complaint)
    found: dict[str, JobFacts] = {}
    for job in jobs:
        facts = _facts(job) if isinstance(job, dict) else None
        if facts is None:
            continue
        for key in {facts.job, facts.sluid} & set(wanted):
            # An array that still has tasks to come stands there twice under one id: the life that runs counts.
            if key not in found or facts.restart >= 0:
                found[key] = facts
    return found


def _facts(job: dict[str, Any]) -> JobFacts | None:
    number = _number(job.get("job_id"), _MAX_NUMBER)
    if number <= 0:
        return None
    runs = not _RUNS.isdisjoint(_states(job.get("job_state")))
    array_job = _number(job.get("array_job_id"), _MAX_NUMBER)
    het_job = _number(job.get("het_job_id"), _MAX_NUMBER)
    step_id = job.get("step_id")  # from 25.11 on
    sluid = _text(step_id.get("sluid")) if isinstance(step_id, dict) else ""
    return JobFacts(
        str(number),
        restart=_number(job.get("restart_cnt"), _MAX_NUMBER) if runs else -1,
        submit_unix_s=max(_number(job.get("submit_time"), _MAX_UNIX_S), 0) if runs else 0,
        name=_text(job.get("name")),
        user=_text(job.get("user_name")),
        account=_text(job.get("account")),
        partition=_text(job.get("partition")),
        cluster=_text(job.get("cluster")),
        array_job=str(array_job) if array_job > 0 else "",
        array_task=_id(job.get("array_task_id")) if array_job > 0 else "",
        het_job=str(het_job) if het_job > 0 else "",
        het_offset=_id(job.get("het_job_offset")) if het_job > 0 else "",
        sluid=sluid if SLUID.match(sluid) else "",
    )


def _slim(members: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in members.items() if key in _WANTED}


def _none(_constant: str) -> None:
    """NaN and Infinity, which are not JSON."""


def _int(digits: str) -> int:
    """Of a number of a million digits only that it is too large is of interest."""
    return int(digits) if len(digits) <= 20 else -1


def _number(value: object, most: int) -> int:
    """A number in any of the shapes that it comes in; -1 where there is none."""
    if isinstance(value, dict):
        value = (
            value.get("number") if value.get("set") is True and value.get("infinite") is not True else None
        )
    if isinstance(value, str):
        value = int(value) if value.isascii() and value.isdigit() and len(value) <= 20 else None
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int):
        return -1
    return value if 0 <= value <= most else -1


def _id(value: object) -> str:
    number = _number(value, _MAX_NUMBER)
    return str(number) if number >= 0 else ""


def _text(value: object) -> str:
    return value if isinstance(value, str) else ""


def _states(value: object) -> set[str]:
    given = value if isinstance(value, list) else [value]
    return {state for state in given if isinstance(state, str)}


def _complaint(errors: object) -> str:
    """What Slurm itself says went wrong; "" = nothing."""
    for one in errors if isinstance(errors, list) else ():
        if isinstance(one, dict) and (said := _text(one.get("error")) or _text(one.get("description"))):
            return f"Slurm says: {said[:200]}"
    return ""
