"""The table of rules.py: processes and allocations, put together."""

import pytest

from flopmeter.agent.workloads.rules import holders_of, name, same_job
from flopmeter.contract.identity import Identity
from flopmeter.contract.usage import Workload, WorkloadKind

UID = "1f0c3a52-5b3e-4a57-9b4e-0c9c1d2e3f40"


def slurm(job: str, step: str = "", **more: object) -> Workload:
    return Workload(WorkloadKind.SLURM, job=job, step=step, **more)  # type: ignore[arg-type]


def pod(job: str, step: str = "", **seen: str) -> Workload:
    identities = tuple(Identity(f"k8s.{n}", v) for n, v in sorted(seen.items()))
    return Workload(WorkloadKind.POD, job=job, step=step, identities=identities)


J, K, J0 = slurm("1"), slurm("2"), slurm("1", "0")
BARE = Workload(WorkloadKind.PROCESS, job="container-3b1a3b1a3b1a")


@pytest.mark.parametrize(
    ("found", "given", "wanted", "odd"),
    [
        (None, (), (), ""),
        (None, (J,), (J,), ""),
        (None, (J, K), (J, K), ""),
        (J0, (), (J0,), ""),
        (J0, (J,), (J0,), ""),
        (J0, (J, K), (J0,), ""),
        (J0, (slurm("1", "0"),), (J0,), ""),
        (J0, (slurm("1", "1"),), (J0,), "a process of slurm:1.0 on a GPU that was given to slurm:1.1"),
        (J0, (K,), (J0,), "a process of slurm:1.0 on a GPU that was given to slurm:2"),
        (J0, (pod("ns/a"),), (J0,), "a process of slurm:1.0 on a GPU that was given to pod:ns/a"),
        (BARE, (), (BARE,), ""),
        (
            BARE,
            (J,),
            (J,),
            "a process outside of any job, process:container-3b1a3b1a3b1a, on a GPU that was given to slurm:1",
        ),
        (slurm("sF0123456789AB", "0"), (J,), (slurm("1", "0"),), ""),
    ],
)
def test_the_table(found: Workload | None, given: tuple[Workload, ...], wanted: object, odd: str) -> None:
    holders, said = holders_of(found, given)
    assert tuple([Workload(w.kind, w.job, w.step) for w in holders]) == wanted
    assert said == odd


def test_a_pod_is_named_as_the_kubelet_names_it_and_keeps_its_uid() -> None:
    ((joined,), odd) = holders_of(pod(UID), (pod("ns/a", "trainer", pod="a"),))
    assert odd == ""
    assert joined == pod("ns/a", "trainer", pod="a", pod_uid=UID)


def test_a_pod_with_another_uid_is_another_pod() -> None:
    other = pod("ns/a", pod_uid=UID.replace("1", "2"))
    assert not same_job(pod(UID), other)
    holders, odd = holders_of(pod(UID), (other,))
    assert holders == (pod(UID),)
    assert odd == f"a process of pod:{UID} on a GPU that was given to pod:ns/a"
    assert same_job(pod(UID), pod("ns/a", pod_uid=UID))


def test_both_sides_add_what_they_know() -> None:
    found = slurm("1", "0", run="gpt", identities=(Identity("env:WANDB_RUN_ID", "w"),))
    given = slurm("1", user="ada", restart=2, identities=(Identity("slurm.name", "train"),))
    ((joined,), _) = holders_of(found, (given,))
    assert (joined.step, joined.run, joined.user, joined.restart) == ("0", "gpt", "ada", 2)
    assert [n for n, _ in joined.identities] == ["env:WANDB_RUN_ID", "slurm.name"]


def test_a_label_goes_before_a_variable_and_both_are_kept() -> None:
    seen = (Identity("env:FLOPMETER_RUN", "mine"), Identity("k8s.pod_uid", UID))
    label = (Identity("k8s.pod", "a"), Identity("label:flopmeter.dev/run", "labelled"))
    given = Workload(WorkloadKind.POD, job="ns/a", step="main", run="labelled", identities=label)
    for found in (
        Workload(WorkloadKind.POD, job=UID, run="mine", identities=seen),
        Workload(WorkloadKind.PROCESS, job="container-3b", run="mine", identities=seen),
    ):
        ((joined,), _) = holders_of(found, (given,))
        assert (joined.job, joined.step, joined.run) == ("ns/a", "main", "labelled")
        assert {"env:FLOPMETER_RUN", "k8s.pod", "label:flopmeter.dev/run"} <= dict(joined.identities).keys()


def test_a_container_of_a_job_adds_its_claims_to_the_job_and_nothing_else() -> None:
    seen = (
        Identity("env:SLURM_JOB_ID", "1"),
        Identity("env:WANDB_RUN_ID", "w"),
        Identity("host.container", "3b"),
    )
    bare = Workload(WorkloadKind.PROCESS, job="container-3b", run="gpt", identities=seen)
    ((joined,), _) = holders_of(bare, (J,))
    assert (joined.run, [n for n, _ in joined.identities]) == (
        "gpt",
        ["env:SLURM_JOB_ID", "env:WANDB_RUN_ID"],
    )
    ((other,), _) = holders_of(bare, (K,))  # it says that it is of another job
    assert other == K


def test_names() -> None:
    assert [name(w) for w in (None, J0, BARE)] == [
        "a process that cannot be told",
        "slurm:1.0",
        "process:container-3b1a3b1a3b1a",
    ]


def test_which_of_two_unnamed_pods_a_process_is_of_is_not_guessed() -> None:
    """A time-sliced GPU, and a kubelet's list without UIDs: the cgroup's UID alone names the process's pod."""
    found, a, b = pod(UID), pod("ns/a", "main"), pod("ns/b", "main")
    assert holders_of(found, [a, b]) == ((found,), "")
    ((holder,), odd) = holders_of(found, [a, pod("ns/b", "main", pod_uid=UID)])
    assert (holder.job, odd) == ("ns/b", "")  # its UID is known: it is that one
    ((holder,), odd) = holders_of(found, [a, pod("ns/b", "main", pod_uid="another")])
    assert (holder.job, odd) == ("ns/a", "")  # the only one that is left
    both, _ = holders_of(found, [a, pod("ns/a", "side")])
    assert [w.step for w in both] == ["main", "side"]  # two containers of one pod
