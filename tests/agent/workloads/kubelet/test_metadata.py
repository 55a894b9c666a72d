"""What is taken of a pod's metadata: the rows of tests/identities, and nothing else of it."""

import tomllib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flopmeter.agent.workloads.kubelet.holders import Hold
from flopmeter.agent.workloads.kubelet.metadata import (
    MAX_FROM_METADATA,
    Owner,
    cluster_found,
    fit,
    keys,
    pod_meta,
    together,
)
from flopmeter.agent.workloads.kubelet.names import Names
from flopmeter.contract.identity import check_identities, identities
from flopmeter.contract.ids import check_label

ROWS = tomllib.loads((Path(__file__).parents[3] / "identities/rows.toml").read_text())["row"]
UID = "1f0c3a52-5b3e-4a57-9b4e-0c9c1d2e3f40"


def item(**metadata: Any) -> dict[str, Any]:
    return {"metadata": {"namespace": "ml", "name": "a", "uid": UID, **metadata}}


@pytest.mark.parametrize("row", ROWS, ids=lambda r: r["name"])
def test_rows(row: dict[str, Any]) -> None:
    """From the API server's JSON to what is shipped, whole: the env part of a row is the process finder's."""
    pod = row["pod"]
    owners = [{"apiVersion": "x/v1", "controller": True, **o} for o in pod.get("owners", ())]
    if "cluster_labels" in pod:
        assert owners[0]["kind"] == "RayCluster"
    meta = pod_meta(
        {
            "metadata": {
                "namespace": pod["namespace"],
                "name": pod["name"],
                "uid": pod["uid"],
                "labels": pod.get("labels", {}),
                "annotations": pod.get("annotations", {}),
                "ownerReferences": owners,
            }
        }
    )
    assert meta is not None
    cluster = cluster_found({"metadata": {"labels": pod.get("cluster_labels", {})}})
    names = Names()
    names.listed({"GPU-0": (Hold((pod["namespace"], pod["name"]), pod["container"]),)})
    names.told(
        meta if not cluster else type(meta)(meta.name, meta.uid, together(meta.found, cluster), meta.run)
    )
    ((holder,),) = names.holders().values()
    wanted = {k: v for k, v in row["identities"].items() if not k.startswith("env:")}
    assert dict(holder.identities) == wanted
    assert names.describe(holder).job == pod["uid"]
    own = pod.get("labels", {}).get("flopmeter.dev/run") or pod.get("annotations", {}).get(
        "flopmeter.dev/run", ""
    )
    assert holder.run == own


def test_every_key_has_a_row() -> None:
    """A key that no fixture has is one that nobody has looked at."""
    shown = {name for row in ROWS for name in row["identities"]}
    known = {f"{where.removesuffix('s')}:{key}" for where, key in keys()}
    missing = known - shown
    assert (
        missing
        == {  # the other place of a key that is a label in one version and an annotation in another
            "annotation:volcano.sh/job-name",
            "annotation:volcano.sh/task-index",
            "annotation:volcano.sh/queue-name",
        }
    )
    assert len(keys()) == len(set(keys()))


def test_rows_name_rows() -> None:
    names = [row["name"] for row in ROWS]
    assert len(names) == len(set(names))
    runs = {row["name"]: (row["run"]["system"], row["run"]["key"]) for row in ROWS}
    for row in ROWS:
        check_identities(identities(row["identities"].items()))
        if "joins" in row:
            assert runs[row["joins"]] == runs[row["name"]]
        if "differs" in row:
            assert runs[row["differs"]] != runs[row["name"]]


def test_other_labels_never_come_further() -> None:
    meta = pod_meta(item(labels={"app": "x", "password": "hunter2"}, annotations={"token": "hunter2"}))
    assert meta is not None
    assert "hunter2" not in repr(meta)
    assert meta.found == ()


def test_the_label_wins_over_the_annotation() -> None:
    meta = pod_meta(item(labels={"flopmeter.dev/run": "l"}, annotations={"flopmeter.dev/run": "a"}))
    assert meta is not None
    assert meta.run == "l"
    assert meta.found == (("label:flopmeter.dev/run", "l"), ("annotation:flopmeter.dev/run", "a"))


def test_long_and_odd_values_are_made_fit_and_stay_apart() -> None:
    values = ["x" * 10_000, "x" * 9_999 + "y", " padded\n", "\0\x1b[31m"]
    found = []
    for value in values:
        meta = pod_meta(item(annotations={"flopmeter.dev/run": value}))
        assert meta is not None
        check_label("run", meta.run)
        found.append(meta.run)
    assert len(set(found)) == 4
    assert found[2] == "padded_" or found[2] == "padded"


def test_of_too_many_the_last_of_the_table_are_left_out() -> None:
    labels = {key: "v" for where, key in keys() if where == "labels"}
    meta = pod_meta(item(labels=labels))
    assert meta is not None
    kept = [name for name, _ in together(meta.found)]
    assert len(kept) == MAX_FROM_METADATA
    assert kept[0] == "label:flopmeter.dev/run"
    assert "label:jobset.sigs.k8s.io/jobset-uid" in kept
    assert "label:runai/queue" not in kept


@pytest.mark.parametrize(
    "owners",
    [
        "nonsense",
        [None, 3],
        [{"kind": "Job", "name": "j", "uid": "u"}],  # owns, and does not control
        [{"kind": "job\n", "name": "j", "controller": True}],
        [{"kind": "J" * 64, "name": "j", "controller": True}],
        [{"kind": "Job", "name": "", "controller": True}],
        [{"kind": "Job", "name": ["j"], "controller": True}],
        [{"kind": "Job", "name": "j", "controller": "true"}],
    ],
)
def test_owners_that_are_none(owners: object) -> None:
    meta = pod_meta(item(ownerReferences=owners))
    assert meta is not None
    assert meta.owner is None


def test_the_controller_is_the_owner() -> None:
    both = [
        {"kind": "Set", "name": "s", "uid": "1"},
        {"apiVersion": "batch/v1", "kind": "Job", "name": "j", "uid": "2", "controller": True},
    ]
    meta = pod_meta(item(ownerReferences=both))
    assert meta is not None
    assert meta.owner == Owner("batch/v1", "Job", "j", "2")
    assert meta.found == (("owner:Job", "j"), ("owner-uid:Job", "2"))


@pytest.mark.parametrize(
    "what",
    [
        None,
        3,
        [],
        {},
        {"metadata": None},
        {"metadata": {"name": "a"}},
        item(uid=""),
        item(uid=7),
        item(uid="u" * 65),
    ],
)
def test_what_is_no_pod(what: object) -> None:
    assert pod_meta(what) is None


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda c: (
        st.lists(c, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                [
                    "labels",
                    "annotations",
                    "metadata",
                    "ownerReferences",
                    "flopmeter.dev/run",
                    "ray.io/originated-from-crd",
                    "kind",
                    "name",
                ]
            ),
            c,
            max_size=4,
        )
    ),
    max_leaves=12,
)


@given(_JSON)
def test_any_json_is_a_pod_or_none(what: object) -> None:
    pod_meta(what)
    cluster_found(what)
    if isinstance(what, dict):
        meta = pod_meta({"metadata": {**what, "namespace": "n", "name": "p", "uid": "u"}})
        assert meta is not None
        check_identities(identities(together(meta.found)))


def test_fit_keeps_what_fits() -> None:
    assert fit("ml/a") == "ml/a"
    assert fit("x" * 256) == "x" * 256
    assert len(fit("x" * 257)) == 256
    assert fit(" " * 300 + "x") == "x"
