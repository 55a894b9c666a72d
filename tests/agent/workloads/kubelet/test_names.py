"""Pods by name and by UID: joined by evidence, never by a name alone, and apart again when they are others."""

from dataclasses import replace

import pytest

from flopmeter.agent.workloads.kubelet.holders import Hold
from flopmeter.agent.workloads.kubelet.metadata import PodMeta
from flopmeter.agent.workloads.kubelet.names import MAX_DEPARTED, Names
from flopmeter.contract.identity import MAX_IDENTITIES, Identity, check_identities
from flopmeter.contract.ids import check_label
from flopmeter.contract.usage import Workload, WorkloadKind

G0, G1, G2 = "GPU-0", "GPU-1", "GPU-2"
U1, U2, U3 = (f"{n}f0c3a52-5b3e-4a57-9b4e-0c9c1d2e3f40" for n in (1, 2, 3))
A, B = ("ml", "a"), ("ml", "b")


def pod(job: str, step: str = "", **rest: object) -> Workload:
    return Workload(WorkloadKind.POD, job=job, step=step, **rest)  # type: ignore[arg-type]


def holds(**entities: tuple[str, str]) -> dict[str, tuple[Hold, ...]]:
    return {e.replace("_", "-"): (Hold(name, "main"),) for e, name in entities.items()}


def listed(**entities: tuple[str, str]) -> Names:
    names = Names()
    names.listed(holds(**entities))
    return names


def keys(names: Names) -> dict[str, list[str]]:
    """As what is shipped names them."""
    return {entity: [names.describe(w).job for w in several] for entity, several in names.holders().items()}


def test_by_name_until_a_uid_is_known() -> None:
    names = listed(GPU_0=A)
    (holder,) = names.holders()[G0]
    assert (holder.job, holder.step) == ("ml/a", "main")
    assert dict(holder.identities) == {"k8s.namespace": "ml", "k8s.pod": "a", "k8s.container": "main"}
    assert names.met(G0, U1)
    (holder,) = names.holders()[G0]
    assert holder.job == "ml/a"  # the meter's key stays
    assert dict(holder.identities)["k8s.pod_uid"] == U1
    assert names.describe(holder).job == U1
    assert not names.met(G0, U1)  # nothing new


def test_what_was_booked_by_name_is_described_by_uid_once_that_is_known() -> None:
    names = listed(GPU_0=A)
    assert names.describe(pod("ml/a", "main")).job == "ml/a"
    names.met(G0, U1)
    assert names.describe(pod("ml/a", "main")).job == U1
    assert names.describe(pod("ml/a", "main")) == names.describe(pod(U1))


def test_a_process_of_a_pod_gets_its_names() -> None:
    names = listed(GPU_0=A)
    assert names.describe(pod(U1)) == pod(U1)  # not known yet
    names.met(G0, U1)
    described = names.describe(pod(U1, run="stated", dtype="bf16"))
    assert (described.step, described.run, described.dtype) == ("main", "stated", "bf16")
    assert dict(described.identities)["k8s.pod"] == "a"
    assert names.describe(Workload(WorkloadKind.SLURM, job=U1)) == Workload(WorkloadKind.SLURM, job=U1)


def test_the_same_name_in_two_namespaces() -> None:
    names = listed(GPU_0=("one", "trainer-0"), GPU_1=("two", "trainer-0"))
    names.met(G0, U1)
    names.met(G1, U2)
    assert keys(names) == {G0: [U1], G1: [U2]}
    assert dict(names.describe(pod(U2)).identities)["k8s.namespace"] == "two"


def test_one_uid_is_one_pod() -> None:
    """A process that shows up on another pod's GPU does not become that pod."""
    names = listed(GPU_0=A, GPU_1=B)
    names.told(PodMeta(A, U1))
    assert not names.met(G1, U1)
    assert keys(names) == {G0: [U1], G1: ["ml/b"]}


def test_a_uid_met_beyond_its_pods_gpus_was_nobodys_there() -> None:
    """A pod that sees all GPUs and asked for none: met alone on A's idle GPU, then on B's, it is neither."""
    names = listed(GPU_0=A, GPU_1=B)
    assert names.met(G0, U3)
    assert names.met(G1, U3)  # taught: it is not A
    assert keys(names) == {G0: ["ml/a"], G1: ["ml/b"]}
    assert not names.met(G0, U3)
    assert not names.met(G1, U3)
    names.met(G0, U1)
    assert keys(names)[G0] == [U1]


def test_a_second_uid_does_not_replace_the_first_while_the_pod_is_listed() -> None:
    names = listed(GPU_0=A)
    names.met(G0, U1)
    assert not names.met(G0, U2)
    assert keys(names) == {G0: [U1]}


def test_after_missing_lists_the_next_uid_counts() -> None:
    names = listed(GPU_0=A)
    names.met(G0, U1)
    names.listed(holds(GPU_0=A), missing=True)
    assert keys(names) == {G0: [U1]}  # nothing says otherwise yet
    assert names.met(G0, U2)
    assert keys(names) == {G0: [U2]}
    assert not names.met(G0, U1)
    names.listed(holds(GPU_0=A), missing=True)
    names.met(G0, U2)  # still there: sure again
    assert not names.met(G0, U1)


def test_a_pod_that_comes_back_is_another_pod() -> None:
    names = listed(GPU_0=A)
    names.met(G0, U1)
    names.told(PodMeta(A, U1, (("label:x", "old"),), run="old"))
    names.listed({})
    assert names.describe(pod(U1)).run == "old"  # its last window is sealed later
    names.listed(holds(GPU_0=A))
    (holder,) = names.holders()[G0]
    assert (holder.job, holder.run) == ("ml/a#1", "")
    assert names.describe(holder).job == "ml/a#1"
    assert names.describe(pod("ml/a", "main")).job == U1  # the first one's key
    assert names.describe(pod(U1)).run == "old"
    names.met(G0, U2)
    assert keys(names) == {G0: [U2]}


def test_a_cgroups_uid_is_never_taken_for_the_next_pod_of_that_name() -> None:
    """The window is sealed when the name is another pod's already: what its processes said decides."""
    names = listed(GPU_0=A)
    names.met(G0, U1)
    (old,) = names.holders()[G0]
    names.listed({})
    names.listed(holds(GPU_0=A))
    names.met(G0, U2)
    (new,) = names.holders()[G0]
    assert (names.describe(old).job, names.describe(new).job) == (U1, U2)
    unknown = pod("ml/a", "main", identities=(Identity("k8s.pod_uid", U3),))
    assert names.describe(unknown) == replace(unknown, job=U3)


def test_what_has_departed_is_forgotten_at_last() -> None:
    names = Names()
    for n in range(MAX_DEPARTED + 10):
        names.listed(holds(GPU_0=("ml", f"p{n}")))
        names.met(G0, f"uid-{n}")
    assert names.describe(pod("uid-0")) == pod("uid-0")
    assert dict(names.describe(pod("uid-20")).identities)["k8s.pod"] == "p20"


def test_the_api_server_knows_best() -> None:
    names = listed(GPU_0=A)
    names.met(G0, U1)
    assert names.told(PodMeta(A, U2, (("label:flopmeter.dev/run", "r"),), "r"))
    (holder,) = names.holders()[G0]
    assert (holder.job, holder.run) == ("ml/a", "r")
    assert keys(names) == {G0: [U2]}
    assert not names.met(G0, U1)
    assert names.doubtful(G0, U1) == frozenset((A,))  # another UID's process: perhaps made anew
    assert names.doubtful(G0, U2) == frozenset()
    assert not names.told(PodMeta(A, U2, (("label:flopmeter.dev/run", "r"),), "r"))
    assert not names.told(PodMeta(B, U3))  # not listed


def test_a_label_wins_over_what_the_process_says() -> None:
    names = listed(GPU_0=A)
    names.told(PodMeta(A, U1, (), run="labelled"))
    assert names.describe(pod(U1, run="stated")).run == "labelled"


def test_several_on_one_gpu_teach_nothing() -> None:
    names = Names()
    names.listed({G0: (Hold(A, "main", shared=True), Hold(B, "main", shared=True))})
    assert not names.met(G0, U1)
    assert keys(names) == {G0: ["ml/a", "ml/b"]}
    assert not names.met("GPU-none", U1)


def test_several_containers_leave_the_step_open() -> None:
    names = Names()
    names.listed({G0: (Hold(A, "one"),), G1: (Hold(A, "two"),)})
    names.met(G0, U1)
    assert [w.step for several in names.holders().values() for w in several] == ["one", "two"]
    assert names.describe(pod(U1)).step == ""
    assert names.describe(pod(U1, "two")).step == "two"


@pytest.mark.parametrize("length", [100, 253, 10_000])
def test_names_of_any_length_fit_and_stay_apart(length: int) -> None:
    names = listed(GPU_0=("n" * length, "p" * length + "1"), GPU_1=("n" * length, "p" * length + "2"))
    (one,), (two,) = names.holders()[G0], names.holders()[G1]
    assert one.job != two.job
    check_label("job", one.job)
    assert names.describe(pod(one.job)).job == one.job


def test_identities_stay_within_the_contract() -> None:
    names = listed(GPU_0=A)
    names.told(PodMeta(A, U1, tuple((f"label:k{n:03}", "v" * 300) for n in range(100))))
    (holder,) = names.holders()[G0]
    assert len(check_identities(holder.identities)) <= MAX_IDENTITIES
    many = names.describe(pod(U1, identities=tuple((f"env:E{n}", "x") for n in range(30))))  # type: ignore[arg-type]
    kept = {name for name, _ in check_identities(many.identities)}
    assert {"k8s.namespace", "k8s.pod", "k8s.pod_uid", "k8s.container"} <= kept
