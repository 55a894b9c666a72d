"""Who holds what by the kubelet's list: shares, claims, hand-over."""

from hypothesis import given
from hypothesis import strategies as st

from flopmeter.agent.workloads.kubelet.device_ids import Gpus
from flopmeter.agent.workloads.kubelet.holders import HandOver, Held, Hold, held
from flopmeter.agent.workloads.kubelet.listing import Claimed, Container

G0, G1 = (f"GPU-0000000{n}-aaaa-4bbb-8ccc-00000000000{n}" for n in range(2))
GPUS = Gpus(frozenset((G0, G1)), {0: G0, 1: G1})


def plugin(pod: str, *ids: str, name: str = "main", namespace: str = "ml") -> Container:
    return Container(namespace, pod, name, tuple(("nvidia.com/gpu", i) for i in ids))


def dra(
    pod: str, claim: str, device: str, *, cdi: str = "", share: str = "", driver: str = "gpu.nvidia.com"
) -> Container:
    return Container(
        "ml", pod, "main", (), (Claimed(claim, driver, "n1", device, (cdi,) if cdi else (), share),)
    )


def hold(pod: str, **rest: object) -> Hold:
    return Hold(("ml", pod), "main", **rest)  # type: ignore[arg-type]


def names(holds: tuple[Hold, ...]) -> list[str]:
    return [h.pod[1] for h in holds]


def test_whole_gpus_of_two_pods() -> None:
    found = held((plugin("a", G0), plugin("b", G1)), GPUS, {})
    assert found.by_entity == {G0: [hold("a")], G1: [hold("b")]}
    assert not found.unresolved


def test_replicas_of_one_gpu_are_one_hold_of_each_container() -> None:
    found = held((plugin("a", f"{G0}::0", f"{G0}::1"), plugin("b", f"{G0}::2")), GPUS, {})
    assert found.by_entity == {G0: [hold("a", shared=True), hold("b", shared=True)]}


def test_two_containers_of_a_pod_have_their_own_gpus() -> None:
    found = held((plugin("a", G0), plugin("a", G1, name="side")), GPUS, {})
    assert found.by_entity[G1] == [Hold(("ml", "a"), "side")]


def test_the_same_name_in_two_namespaces_is_two_pods() -> None:
    found = held((plugin("a", f"{G0}::0"), plugin("a", f"{G0}::1", namespace="other")), GPUS, {})
    assert [h.pod for h in found.by_entity[G0]] == [("ml", "a"), ("other", "a")]


def test_what_cannot_be_resolved_is_told_and_holds_nothing() -> None:
    found = held((plugin("a", "GPU-ffffffff-aaaa-4bbb-8ccc-000000000009", "7"),), GPUS, {})
    assert found.by_entity == {}
    assert sorted(found.unresolved) == [
        "nvidia.com/gpu 7",
        "nvidia.com/gpu GPU-ffffffff-aaaa-4bbb-8ccc-000000000009",
    ]
    assert not found.unresolved_claims  # no slice would help


def test_claims_by_cdi_name_by_slice_and_not_at_all() -> None:
    by_cdi = dra("a", "c", "gpu-0", cdi=f"k8s.gpu.nvidia.com/claim=x-{G0}")
    by_slice = dra(
        "b", "d", "gpu-1", cdi="k8s.gpu.nvidia.com/claim=1f0c3a52-5b3e-4a57-9b4e-0c9c1d2e3f40-gpu-1"
    )
    slices = {("gpu.nvidia.com", "n1", "gpu-1"): G1}
    assert held((by_cdi, by_slice), GPUS, slices).by_entity == {
        G0: [hold("a", claim="c")],
        G1: [hold("b", claim="d")],
    }
    told = held((by_cdi, by_slice), GPUS, {})
    assert told.by_entity == {G0: [hold("a", claim="c")]}
    assert list(told.unresolved) == ["gpu.nvidia.com/n1/gpu-1"]
    assert told.unresolved_claims
    elsewhere = held((by_slice,), GPUS, {("gpu.nvidia.com", "n2", "gpu-1"): G1})
    assert elsewhere.by_entity == {}  # another node's device of that name
    wrong = held((by_slice,), GPUS, {("gpu.nvidia.com", "n1", "gpu-1"): "GPU-gone"})
    assert wrong.unresolved == {"gpu.nvidia.com/n1/gpu-1": "no GPU of that UUID is metered here"}


def test_claims_of_other_drivers_are_none_of_ours() -> None:
    assert held((dra("a", "c", "nic-0", driver="dra.networking"),), GPUS, {}) == Held()


def test_a_device_handed_over_is_the_newcomers_from_the_list_that_shows_it() -> None:
    """Kubelets before 1.34 go on listing the pod that ended, for as long as it is not deleted."""
    over = HandOver()
    assert names(over.settle({G0: [hold("old")]})[G0]) == ["old"]
    for _ in range(3):
        assert names(over.settle({G0: [hold("new"), hold("old")]})[G0]) == ["new"]
    assert names(over.settle({G0: [hold("new")]})[G0]) == ["new"]
    assert names(over.settle({G0: [hold("newer"), hold("new")]})[G0]) == ["newer"]


def test_a_pod_that_comes_back_is_the_newest() -> None:
    over = HandOver()
    over.settle({G0: [hold("a")]})
    assert names(over.settle({G0: [hold("a"), hold("b")]})[G0]) == ["b"]
    assert names(over.settle({G0: [hold("b")]})[G0]) == ["b"]
    assert names(over.settle({G0: [hold("a"), hold("b")]})[G0]) == ["a"]


def test_two_in_the_first_list_cannot_be_told_apart() -> None:
    over = HandOver()
    for _ in range(2):
        assert names(over.settle({G0: [hold("a"), hold("b")]})[G0]) == ["a", "b"]
    assert names(over.settle({G0: [hold("a"), hold("b"), hold("c")]})[G0]) == ["c"]


def test_shares_and_claims_are_never_handed_over() -> None:
    for first, second in (
        (hold("a", shared=True), hold("b", shared=True)),
        (hold("a", claim="one"), hold("b", claim="one")),  # one claim of two pods
        (hold("a", claim="one"), hold("b", claim="two")),  # one may have admin access
        (hold("a"), hold("b", claim="two")),  # two who give out the same device: neither knows of the other
    ):
        over = HandOver()
        over.settle({G0: [first]})
        assert names(over.settle({G0: [first, second]})[G0]) == ["a", "b"]


def test_each_gpu_is_handed_over_by_itself() -> None:
    over = HandOver()
    over.settle({G0: [hold("a")], G1: [hold("a")]})
    settled = over.settle({G0: [hold("a"), hold("b")], G1: [hold("a")]})
    assert (names(settled[G0]), names(settled[G1])) == (["b"], ["a"])


@given(st.lists(st.lists(st.sampled_from("abc"), unique=True, max_size=3), max_size=12))
def test_somebody_of_the_list_holds_it_and_nobody_else(lists: list[list[str]]) -> None:
    """Over any schedule: a listed GPU always has a holder, it is one of the list's, and no two but the first list's."""
    over = HandOver()
    before: set[str] = set()
    for pods in lists:
        settled = over.settle({G0: [hold(p) for p in pods]} if pods else {})
        found = names(settled.get(G0, ()))
        assert set(found) <= set(pods)
        assert bool(found) == bool(pods)
        new = set(pods) - before
        if new and before & set(pods):
            assert set(found) == new
        before = set(pods)
