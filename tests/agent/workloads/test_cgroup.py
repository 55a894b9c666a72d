"""What a cgroup path says of whose a process is."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flopmeter.agent.workloads.cgroup import Place, place

POD = "1f0c3a52-5b3e-4a57-9b4e-0c9c1d2e3f40"
ID = "3b1a" * 16


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("0::/system.slice/slurmstepd.scope/job_4711/step_0/user/task_0", ("slurm", "4711", "0")),
        ("0::/system.slice/node1_slurmstepd.scope/job_4711/step_batch", ("slurm", "4711", "batch")),
        ("9:cpuset:/slurm/uid_1000/job_42/step_extern\n8:memory:/", ("slurm", "42", "extern")),
        ("5:devices:/slurm_node1/uid_0/job_7", ("slurm", "7", "")),
        (
            f"0::/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod{POD.replace('-', '_')}.slice/x",
            ("pod", POD, ""),
        ),
        (f"11:pids:/kubepods/besteffort/pod{POD}/3b1a", ("pod", POD, "")),
        (f"0::/../../burstable/pod{POD}/{ID}", ("pod", POD, "")),
        (
            f"0::/kubelet.slice/kubelet-kubepods.slice/kubelet-kubepods-pod{POD.replace('-', '_')}.slice",
            ("pod", POD, ""),
        ),
        (f"0::/kubepods/pod{POD}/{ID}/slurm/uid_0/job_4711/step_0", ("pod", POD, "")),
        ("0::/user.slice/user-1000.slice/session-3.scope", None),
        ("0::/user.slice/user-1000.slice/user@1000.service/slurm/uid_1/job_4711/step_0", None),
        (f"0::/user.slice/user-1000.slice/user@1000.service/kubepods/pod{POD}", None),
        ("0::/../../user.slice/user-1000.slice/user@1000.service/slurm/uid_1/job_4711/step_0", None),
        ("0::/../../system.slice/slurmstepd.scope/job_4711/step_0", ("slurm", "4711", "0")),
        ("0::/system.slice/docker-3b1a.scope", None),
        ("0::/myslurm/job_1/step_1", None),
        ("garbage", None),
        ("", None),
    ],
)
def test_what_a_scheduler_put_there(text: str, wanted: tuple[str, str, str] | None) -> None:
    got = place(text).workload
    assert (got and (got.kind.label, got.job, got.step)) == wanted


@pytest.mark.parametrize(
    ("text", "container", "unit", "claimed"),
    [
        ("0::/system.slice/train.service", "", "train.service", ""),
        ("0::/system.slice/system-train.slice/train@1.service", "", "train@1.service", ""),
        # What was delegated to a service names the service, whatever it makes below.
        ("0::/system.slice/train.service/other.service", "", "train.service", ""),
        (f"0::/system.slice/docker-{ID}.scope", ID, "", ""),
        (f"12:pids:/docker/{ID}\n0::/system.slice/containerd.service", ID, "containerd.service", ""),
        (f"0::/machine.slice/libpod-{ID}.scope/container", ID, "", ""),
        (f"0::/libpod_parent/libpod-{ID}", ID, "", ""),
        (f"0::/system.slice/cri-containerd-{ID}.scope", ID, "", ""),
        ("0::/user.slice/user-1000.slice/session-3.scope", "", "", ""),
        (
            "0::/user.slice/user-1000.slice/user@1000.service/app.slice/train.service",
            "",
            "",
            "train.service",
        ),
        (
            f"0::/user.slice/user-1000.slice/user@1000.service/user.slice/libpod-{ID}.scope",
            "",
            "",
            ID,
        ),
        (
            "0::/../../user.slice/user-7.slice/user@7.service/app.slice/app-x.scope/a.service",
            "",
            "",
            "a.service",
        ),
        ("0::/init.scope", "", "", ""),
        ("0::/", "", "", ""),
    ],
)
def test_bare_metal(text: str, container: str, unit: str, claimed: str) -> None:
    assert place(text) == Place(None, container, unit, claimed)


def test_a_job_is_named_by_its_container_before_its_unit_and_never_by_a_claim() -> None:
    assert Place(None, ID, "a.service", "b").job == "container-" + ID[:12]
    assert Place(None, "", "a.service", "b").job == "a.service"
    assert Place(None, "", "", "b").job == ""


@given(st.text(max_size=300), st.text(alphabet="/.:-_apodslurmjkubeSCOPE0123", max_size=2_000))
def test_no_text_breaks_it(any_text: str, looking_alike: str) -> None:
    place(any_text)
    place(f"0::/{looking_alike}")
