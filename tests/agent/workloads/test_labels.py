"""Names that the contract takes, whatever came."""

from hypothesis import given
from hypothesis import strategies as st

from flopmeter.agent.workloads.labels import tidy, tidy_identities
from flopmeter.contract.identity import MAX_IDENTITIES, Identity, check_identities
from flopmeter.contract.ids import check_label
from flopmeter.contract.usage import Workload, WorkloadKind


@given(st.text(max_size=400), st.text(max_size=400))
def test_tidy_names_are_always_allowed(job: str, run: str) -> None:
    got = tidy(Workload(WorkloadKind.POD, job=job, run=run))
    check_label("job", got.job)
    check_label("run", got.run)


@given(
    st.lists(st.tuples(st.text(max_size=140) | st.sampled_from(["env:A", "k8s.pod"]), st.text(max_size=300)))
)
def test_tidy_identities_are_always_allowed(found: list[tuple[str, str]]) -> None:
    got = tidy(Workload(WorkloadKind.POD, job="x", identities=tuple(Identity(*each) for each in found)))
    assert check_identities(got.identities) == got.identities


def test_of_too_many_the_users_own_go_first() -> None:
    found = [(f"env:V{i:02}", "x") for i in range(30)]
    found += [(f"label:l{i:02}", "x") for i in range(20)] + [(f"k8s.n{i:02}", "x") for i in range(5)]
    kept = tidy_identities(found)
    assert len(kept) == MAX_IDENTITIES
    names = [name for name, _ in kept]
    assert names == sorted(names)
    assert sum(name.startswith("k8s.") for name in names) == 5
    assert sum(name.startswith("label:") for name in names) == 20
    assert [name for name in names if name.startswith("env:")] == [f"env:V{i:02}" for i in range(7)]


def test_what_is_only_space_is_no_identity() -> None:
    assert tidy_identities([("env:A", "  "), ("Bad Name", "x"), ("env:B", " b\n")]) == (("env:B", "b_"),)
