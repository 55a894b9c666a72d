"""The allow-list: what of a job's environment may be looked at, and what it may say."""

import hashlib
import re

import pytest

from flopmeter.agent.workloads.environ import (
    ALLOWED_VARIABLES,
    MAX_MORE_VARIABLES,
    NUMBER_VARIABLES,
    RUN_VARIABLES,
    allowed_of,
    corroborated,
    more_variables,
)
from flopmeter.contract.identity import MAX_IDENTITIES, check_identities
from flopmeter.contract.usage import Workload, WorkloadKind

JOB = Workload(WorkloadKind.SLURM, job="4711", step="0")


def test_only_what_is_allowed_is_kept() -> None:
    raw = (
        b"AWS_SECRET_ACCESS_KEY=hunter2\0WANDB_API_KEY=abc\0WANDB_RUN_ID=3kq9\0PATH=/x\0SLURM_JOB_ID=4711\0"
        b"FLOPMETER_RUN\0=odd\0XWANDB_RUN_ID=no\0wandb_run_id=no\0SLURM_JOB_ID=second\0HF_TOKEN=WANDB_RUN_GROUP=x\0"
    )
    assert allowed_of(raw) == {"WANDB_RUN_ID": "3kq9", "SLURM_JOB_ID": "4711"}
    assert allowed_of(raw[: raw.index(b"9")]) == {"WANDB_RUN_ID": "3kq"}  # cut off
    assert allowed_of(b"WANDB_RUN_ID=\0") == {"WANDB_RUN_ID": ""}
    assert allowed_of(b"") == {}
    assert not any(word in name for name in ALLOWED_VARIABLES for word in ("KEY", "TOKEN", "SECRET", "PASS"))


def test_all_that_was_seen_is_attached_under_its_name() -> None:
    environ = {name: f"v-{name.lower()}" for name in RUN_VARIABLES} | dict.fromkeys(NUMBER_VARIABLES, "0")
    environ |= {"SLURM_JOB_ID": "4711", "FLOPMETER_DTYPE": " FP8 "}
    got = corroborated(JOB, environ)
    assert got.run == "v-flopmeter_run"
    assert got.dtype == "fp8"
    environ["FLOPMETER_CHECKPOINT"] = hashlib.sha256(b"v-flopmeter_checkpoint").hexdigest()[:32]
    assert dict(got.identities) == {f"env:{name}": value.strip() for name, value in environ.items()}
    assert all(each.by_user for each in check_identities(got.identities))
    assert (
        len(ALLOWED_VARIABLES) + MAX_MORE_VARIABLES > MAX_IDENTITIES
    )  # labels.tidy_identities has work to do


def test_of_a_checkpoint_only_a_hash_leaves_the_node() -> None:
    """Of the whole path: two that begin alike, and are longer than a label may be, stay two."""
    paths = ["/lustre/llm-7/step-90000", " /lustre/llm-7/step-90000 ", "/x" * 200 + "/1", "/x" * 200 + "/2"]
    said = [
        dict(corroborated(JOB, {"FLOPMETER_CHECKPOINT": p}).identities)["env:FLOPMETER_CHECKPOINT"]
        for p in paths
    ]
    assert said[0] == said[1] == "4eeb4a57bb18a724904aab62b1f952a0"
    assert len(set(said)) == 3
    assert all(re.fullmatch("[0-9a-f]{32}", text) for text in said)
    nothing = corroborated(JOB, {"FLOPMETER_CHECKPOINT": "none"})  # else all without one would share one
    assert nothing.identities == ()


@pytest.mark.parametrize("value", ["none", "None", "NULL", "", " ", "0", "default"])
def test_what_launchers_write_for_no_name_is_no_name(value: str) -> None:
    got = corroborated(JOB, {"TORCHELASTIC_RUN_ID": value, "FLOPMETER_RUN": value, "WANDB_RUN_ID": "x"})
    assert got.run == ""
    assert got.identities == (("env:WANDB_RUN_ID", "x"),)


def test_a_count_may_be_0() -> None:
    got = corroborated(
        JOB, {"SLURM_RESTART_COUNT": "0", "SLURM_ARRAY_TASK_ID": "0", "AWS_BATCH_JOB_ATTEMPT": ""}
    )
    assert [name for name, _ in got.identities] == ["env:SLURM_ARRAY_TASK_ID", "env:SLURM_RESTART_COUNT"]


def test_one_that_claims_to_be_another_job_corroborates_nothing() -> None:
    said = {"SLURM_JOB_ID": "9999", "FLOPMETER_RUN": "gpt", "FLOPMETER_DTYPE": "fp8"}
    assert corroborated(JOB, said) == JOB
    bare = Workload(WorkloadKind.PROCESS, job="train.service")
    assert corroborated(bare, said).run == "gpt"  # no cgroup says that it is not
    assert corroborated(bare, said).job == "train.service"


def test_values_are_made_fit_for_the_books() -> None:
    got = corroborated(JOB, {"FLOPMETER_RUN": "a\nb" + "x" * 10_000, "WANDB_RUN_ID": "\x1b[31m" * 9})
    assert got.run.startswith("a_bxxx")
    assert len(got.run) == 256
    check_identities(got.identities)
    assert "\x1b" not in dict(got.identities)["env:WANDB_RUN_ID"]
    assert corroborated(JOB, {"FLOPMETER_DTYPE": "float99"}).dtype == ""


@pytest.mark.parametrize(
    "names", [["lower"], ["A-B"], ["1A"], [""], ["A B"], ["A" * 65], ["PÄTH"], [f"A{i}" for i in range(17)]]
)
def test_what_a_site_may_not_add(names: list[str]) -> None:
    with pytest.raises(ValueError, match="expected"):
        more_variables(names)


def test_what_a_site_adds_is_read_and_nothing_else() -> None:
    more = more_variables(["TRAIN_RUN_ID", "TEAM"])
    raw = b"TRAIN_RUN_ID=7\0TEAM=a\0SECRET=x\0"
    assert allowed_of(raw, ALLOWED_VARIABLES | more) == {"TRAIN_RUN_ID": "7", "TEAM": "a"}
    assert allowed_of(raw) == {}


@pytest.mark.parametrize(
    ("job", "said", "size", "own"),
    [
        ("4712", "4711", "2", True),  # component 1 of a real Slurm: tests/slurm/README.md
        ("4713", "4711", "2", False),
        ("4710", "4711", "2", False),
        ("4711", "4711", "", True),
        ("4712", "4711", "", False),
        ("4712", "4711", "9" * 10_000, False),
        ("4712", "x", "2", False),
        ("no number", "4711", "2", False),
    ],
)
def test_a_het_jobs_components_all_name_the_first(job: str, said: str, size: str, own: bool) -> None:
    workload = Workload(WorkloadKind.SLURM, job=job)
    got = corroborated(workload, {"SLURM_JOB_ID": said, "SLURM_HET_SIZE": size, "FLOPMETER_RUN": "gpt"})
    assert got.run == ("gpt" if own else "")


def test_a_job_by_its_sluid_is_contradicted_by_no_number() -> None:
    """From Slurm 26.05 on its cgroup bears the SLUID, and its environment the number still."""
    by_sluid = Workload(WorkloadKind.SLURM, "s5K1KKYAYG5D00", "0")
    assert corroborated(by_sluid, {"SLURM_JOB_ID": "4711", "FLOPMETER_RUN": "llama"}).run == "llama"
