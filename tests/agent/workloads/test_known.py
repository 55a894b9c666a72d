"""What is learned of workloads: keys that stay, descriptions that grow, contradictions kept apart."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flopmeter.agent.workloads.known import MAX_KNOWN, Known, together
from flopmeter.contract.identity import Identity
from flopmeter.contract.usage import Workload, WorkloadKind


def step(run: str = "", dtype: str = "", job: str = "1", **seen: str) -> Workload:
    identities = tuple(Identity(f"env:{name}", value) for name, value in sorted(seen.items()))
    return Workload(WorkloadKind.SLURM, job=job, step="0", run=run, dtype=dtype, identities=identities)


def test_what_is_learned_late_is_put_to_the_same_key() -> None:
    known = Known()
    key = known.learn(step())
    assert key == step()
    assert known.learn(step("gpt", "fp8", A="1")) == key
    assert known.learn(step(B="2")) == key
    assert known.describe(key) == step("gpt", "fp8", A="1", B="2")
    assert known.describe(step(job="2")) == step(job="2")


@pytest.mark.parametrize("other", [step("llama"), step("gpt", "bf16"), step(A="2")])
def test_what_contradicts_is_another_workload(other: Workload) -> None:
    known = Known()
    first = step("gpt", "fp8", A="1")
    key, second = known.learn(first), known.learn(other)
    assert key != second
    assert (known.describe(key), known.describe(second)) == (first, other)
    assert known.learn(other) == second
    assert known.learn(first) == key


def test_what_the_scheduler_says_may_change_and_the_later_word_counts() -> None:
    known = Known()

    def seen(name: str, value: str, **more: object) -> Workload:
        return replace(step(), identities=(Identity(name, value),), **more)  # type: ignore[arg-type]

    key = known.learn(seen("label:team", "a", user="ann"))
    for later in (
        seen("label:team", "b", restart=1),
        seen("slurm.name", "x", user="bob"),
        seen("slurm.name", "y"),
    ):
        assert known.learn(later) == key
    found = known.describe(key)
    assert dict(found.identities) == {"label:team": "b", "slurm.name": "y"}
    assert (found.user, found.restart) == ("bob", 1)
    assert known.learn(seen("host.uid", "0")) == known.learn(seen("host.uid", "1000")) == key


def test_forgets_only_what_holds_nothing_and_only_when_there_is_much() -> None:
    known = Known()
    keys = [known.learn(step("r", job=str(n))) for n in range(MAX_KNOWN)]
    assert not known.retain([])
    keys.append(known.learn(step("r", job="last")))
    assert known.retain(keys[-2:])
    assert len(known) == 2
    assert known.describe(keys[-1]).run == "r"
    assert known.describe(keys[0]) == keys[0]
    assert known.learn(step("other", job="last")) != keys[-1]


workloads = st.builds(
    step,
    st.sampled_from(["", "a", "b"]),
    st.sampled_from(["", "bf16"]),
    st.sampled_from("12"),
    A=st.sampled_from("xy"),
)


@given(st.lists(workloads, max_size=30))
def test_nothing_that_was_said_is_lost_and_no_two_keys_are_described_alike(found: list[Workload]) -> None:
    known = Known()
    keys = [known.learn(each) for each in found]
    for key, each in zip(keys, found, strict=True):
        described = known.describe(key)
        assert together(described, each) == described
        assert (key.kind, key.job, key.step) == (each.kind, each.job, each.step)
    different = set(keys)
    assert len({known.describe(key) for key in different}) == len(different)
    assert [known.learn(each) for each in found] == keys


def test_two_pods_of_one_name_are_two_workloads() -> None:
    """A StatefulSet's pod made anew: what the scheduler says may change in a job's life, a pod's UID does not."""
    known = Known()
    one, two = (
        Workload(WorkloadKind.POD, job="ns/a", step="main", identities=(Identity("k8s.pod_uid", uid),))
        for uid in ("1", "2")
    )
    first, second = known.learn(one), known.learn(two)
    assert first != second
    assert (known.describe(first), known.describe(second)) == (one, two)


def test_a_flood_of_trainings_in_one_step_costs_a_bounded_number_of_looks() -> None:
    """What it costs to learn one more is the number of keys of its name."""
    known = Known()
    step = Workload(WorkloadKind.SLURM, job="7", step="0", identities=(Identity("slurm.account", "ml"),))
    for n in range(3 * MAX_KNOWN):
        key = known.learn(replace(step, run=f"run-{n}"))
    assert len(known) == MAX_KNOWN + 1
    flood = known.describe(key)
    assert (flood.job, flood.step, flood.run) == ("7", "0", "")
    assert dict(flood.identities) == {"slurm.account": "ml", "host.trainings": f"more than {MAX_KNOWN}"}
    assert known.describe(known.learn(replace(step, run="run-5"))).run == "run-5"
    known.retain([key])
    assert known.describe(known.learn(replace(step, run="after"))).run == "after"
