"""What squeue prints: of a real 22.05, in the shapes of later versions, and of nobody."""

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flopmeter.agent.workloads.slurm_facts import JobFacts
from flopmeter.agent.workloads.slurm_queue import parse_queue

CAPTURES = Path(__file__).parents[2] / "slurm/captures"
ALL = {str(n) for n in range(1, 100)}


def captured(name: str, wanted: set[str] = ALL) -> dict[str, JobFacts]:
    return parse_queue((CAPTURES / f"{name}.json").read_bytes(), wanted)


def test_a_real_queue() -> None:
    found = captured("squeue")
    assert set(found) == {"1", "2", "3", "4"}
    assert found["1"] == JobFacts("1", 0, 1795338795, "mytrain", "root", partition="ci", cluster="ci")
    assert (found["4"].array_job, found["4"].array_task) == ("2", "3")
    assert (found["2"].array_job, found["2"].array_task) == ("2", "4")
    assert (found["3"].array_job, found["3"].array_task, found["3"].het_job) == ("", "", "")
    assert captured("squeue", {"3", "77"}) == {"3": found["3"]}


def test_a_real_requeue_and_a_real_het_job() -> None:
    second = captured("squeue-restarted")["1"]
    assert (second.restart, second.submit_unix_s) == (1, 1795338802)
    het = captured("squeue-het")
    assert [(het[j].het_job, het[j].het_offset) for j in ("5", "6")] == [("5", "0"), ("5", "1")]


def test_of_a_job_that_does_not_run_the_life_is_not_known() -> None:
    """Between two lives Slurm shows the next one's count beside the last one's time (seen on 22.05)."""
    between = captured("squeue-after-requeue")["1"]
    assert (between.name, between.restart, between.submit_unix_s) == ("mytrain", -1, 0)
    assert all(facts.restart == -1 for facts in captured("squeue-ended").values())


def test_a_real_queue_of_24_11() -> None:
    assert captured("24.11/squeue") == {
        "1": JobFacts("1", 0, 1795341928, "mytrain", "root", partition="ci", cluster="ci")
    }
    requeued = captured("24.11/squeue-requeued")
    assert (requeued["1"].restart, requeued["1"].submit_unix_s) == (-1, 0)  # it waits
    tasks = {job: (requeued[job].array_job, requeued[job].array_task) for job in ("2", "3")}
    assert tasks == {"2": ("2", "4"), "3": ("2", "3")}
    second = captured("24.11/squeue-restarted")["1"]
    assert (second.restart, second.submit_unix_s) == (1, 1795341931)


def new(**changes: object) -> dict[str, object]:
    """A record of data_parser v0.0.41 (Slurm 24.11), and what stands around its keys."""

    def number(n: int | None, *, infinite: bool = False) -> dict[str, object]:
        return {"set": n is not None, "infinite": infinite, "number": n or 0}

    return {
        "account": "nlp", "array_job_id": number(40), "array_task_id": number(3), "cluster": "c1",
        "het_job_id": number(0), "het_job_offset": number(0), "job_id": 4711, "name": "llama",
        "partition": "gpu", "restart_cnt": 2, "submit_time": number(1_790_000_000),
        "job_state": ["RUNNING"], "user_name": "ann", "job_resources": {"nodes": {"count": 1}}, "tres": "x" * 99,
    } | changes  # fmt: skip


def document(*jobs: object, **more: object) -> bytes:
    return json.dumps({"jobs": jobs, "errors": [], "warnings": [], "meta": {}} | more).encode()


NEW = JobFacts("4711", 2, 1_790_000_000, "llama", "ann", "nlp", "gpu", "c1", "40", "3")


def test_later_versions() -> None:
    assert parse_queue(document(new()), {"4711"}) == {"4711": NEW}
    no_array = new(array_job_id={"set": True, "infinite": False, "number": 0}, array_task_id={"set": False})
    assert parse_queue(document(no_array), {"4711"})["4711"].array_job == ""
    het = new(
        het_job_id={"set": True, "infinite": False, "number": 4710}, het_job_offset={"set": True, "number": 1}
    )
    found = parse_queue(document(het), {"4711"})["4711"]
    assert (found.het_job, found.het_offset) == ("4710", "1")


def test_a_job_by_its_unique_id() -> None:
    """data_parser v0.0.44, of 25.11."""
    found = parse_queue(document(new(step_id={"sluid": "s5K1KKYAYG5D00"})), {"s5K1KKYAYG5D00"})
    assert found["s5K1KKYAYG5D00"].job == "4711"
    assert dict(found["s5K1KKYAYG5D00"].identities())["slurm.sluid"] == "s5K1KKYAYG5D00"


def test_of_an_array_the_task_that_runs_counts() -> None:
    """The tasks to come stand under the same id as the one that runs."""
    to_come = new(job_state=["PENDING"], array_task_id={"set": False, "infinite": False, "number": 0})
    for order in ((new(), to_come), (to_come, new())):
        assert parse_queue(document(*order), {"4711"}) == {"4711": NEW}


@pytest.mark.parametrize(
    "value",
    [
        None, True, -1, 1.5, "x", "٣", "9" * 30, 1 << 40, [], {}, {"number": 5}, {"set": True},
        {"set": True, "infinite": True, "number": 5}, {"set": True, "number": {"set": True, "number": 5}},
        {"set": True, "number": 4294967294},
    ],
)  # fmt: skip
def test_a_number_that_is_none_is_not_known(value: object) -> None:
    found = parse_queue(document(new(restart_cnt=value, array_job_id=value)), {"4711"})["4711"]
    assert (found.restart, found.array_job) == (-1, "")
    assert parse_queue(document(new(job_id=value)), {"4711"}) == {}


@pytest.mark.parametrize(
    "value", [5, "5", 5.0, {"set": True, "infinite": False, "number": 5}, {"set": True, "number": "5"}]
)
def test_a_number_in_any_shape(value: object) -> None:
    found = parse_queue(document(new(restart_cnt=value, submit_time=value, array_task_id=value)), {"4711"})[
        "4711"
    ]
    assert (found.restart, found.submit_unix_s, found.array_task) == (5, 5, "5")


def test_texts_that_are_none_are_not_known() -> None:
    odd = new(
        name=5,
        user_name=None,
        account=["x"],
        partition={"set": True},
        cluster=True,
        sluid="4711",
        job_state=7,
    )
    assert parse_queue(document(odd), {"4711"}) == {"4711": JobFacts("4711", array_job="40", array_task="3")}


@pytest.mark.parametrize(
    ("raw", "why"),
    [
        (b"", "Expecting value"),
        (b"slurm_load_jobs error", "Expecting value"),
        (b'{"jobs": [', "Expecting value"),
        (b"\xff\xfe\x00", "decode"),
        (b"[]", "expected an object with jobs, got list"),
        (b"null", "expected an object with jobs, got NoneType"),
        (b"{}", "expected a list of jobs, got none"),
        (b'{"jobs": {}}', "expected a list of jobs, got none"),
        (
            document(errors=[{"error": "Unable to contact slurm controller", "error_code": -1}]),
            "Slurm says: Unable",
        ),
        (b'{"errors": [{"description": "no munge"}]}', "Slurm says: no munge"),
        (b"[" * 200_000, "nested too deeply"),
        (b'{"jobs":' * 200_000, "nested too deeply"),
    ],
)
def test_what_is_no_queue_is_refused_with_a_reason(raw: bytes, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        parse_queue(raw, {"1"})


def test_jobs_beside_odd_ones_count() -> None:
    assert parse_queue(document(None, 5, [], {}, new(), errors=[{"error": "a warning"}]), {"4711"}) == {
        "4711": NEW
    }


def test_a_number_of_a_million_digits_is_no_work() -> None:
    raw = document(new()).replace(b"4711", b"9" * 1_000_000)
    assert parse_queue(raw, {"4711"}) == {}


def test_nan_is_not_known() -> None:
    assert parse_queue(document(new(restart_cnt=float("nan"))), {"4711"})["4711"].restart == -1


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["set", "infinite", "number", "sluid", "x"]), inner, max_size=3)
    ),
    max_leaves=8,
)


@given(st.dictionaries(st.sampled_from([*sorted(new()), "step_id"]), _JSON))
def test_no_record_is_too_odd(record: dict[str, object]) -> None:
    for facts in parse_queue(document(new(**record), record), ALL).values():
        assert facts.identities() is not None
