"""The read side: documents with the promised keys, exact, live and after the collector has stopped."""

import hashlib
import json
import sqlite3
from dataclasses import replace

import pytest
from builders import CLOCK_MHZ, SM_COUNT, UNIX_NS, WINDOW_NS, Chain, busy, gap
from desk import Desk

from flopmeter.cli.layout import Paint
from flopmeter.collector.books import SUM_FIELDS
from flopmeter.collector.check.fsck import check_store
from flopmeter.collector.errors import StoreError
from flopmeter.collector.law.regimes import shipped
from flopmeter.collector.report import queries
from flopmeter.collector.report.fleet_view import fleet_view
from flopmeter.contract.usage import (
    ALL_MEASURED,
    IDLE,
    UNATTRIBUTED,
    GapReason,
    Measured,
    NoticeKind,
    Workload,
    WorkloadKind,
)
from flopmeter.wire.v1 import batch_pb2

ELAPSED = SM_COUNT * CLOCK_MHZ * WINDOW_NS // 1_000
HMMA = ELAPSED * 40 // 100
TRAINING = Workload(WorkloadKind.SLURM, job="4711", run="r1", dtype="bf16")
LOOSE = Workload(WorkloadKind.SLURM, job="12", user="eve")
LOW = tuple(replace(r, threshold_flop=10**17 if r.id == "eu-gpai" else r.threshold_flop) for r in shipped())
MINUTE_NS = 60_000_000_000


@pytest.fixture
def path(tmp_path):
    return tmp_path / "books.sqlite"


def document(path, now=UNIX_NS + 3 * MINUTE_NS, regimes=LOW):
    found = queries.document(path, now, regimes)
    assert json.loads(json.dumps(found)) == found
    return found


def one_run(path, **kwargs):
    (run,) = document(path, **kwargs)["runs"]
    return run


def fill(path, *minutes, chain=None, regimes=LOW):
    """One record per (usage, workloads) pair; None for the default busy minute."""
    chain = chain or Chain()
    with Desk(path, regimes) as desk:
        agent = desk.agent(chain)
        for minute in minutes:
            raw = chain.next() if minute is None else chain.next(*minute)
            outcome = desk.offer(agent, raw)
            assert type(outcome).__name__ == "Taken", outcome
        desk.commit()
    return chain


def test_a_run_document_has_the_promised_keys_and_exact_figures(path):
    fill(path, None, None)
    run = one_run(path)
    assert run["run"] == "r1"
    assert run["status"] == "running"
    assert run["rule"] == "label"
    assert run["executed"]["flop"]["point"] == str(4 * HMMA * 4096)
    assert run["countable"]["eu-systemic-risk"]["flop"] == run["executed"]["flop"]
    assert run["countable"]["eu-systemic-risk"]["counting"] == "eu-broad"
    assert "What nobody tagged counts" in run["countable"]["eu-systemic-risk"]["note"]
    assert set(run["countable"]) == {r.id for r in shipped()}
    assert run["by_pipe"]["hmma"]["sm_cycles"] == str(4 * HMMA)
    assert run["by_pipe"]["imma"]["integer_ops"]["point"] == "0"
    assert run["by_evidence_class"]["A1"]["flop"]["point"] == run["executed"]["flop"]["point"]
    assert run["coverage"] == {
        "expected_device_seconds": 240.0,
        "observed_device_seconds": 240.0,
        "gap_device_seconds": 0.0,
        "gaps": {},
    }
    assert run["energy_joules"] == 4 * 60 * 600
    assert run["lineage"] == []
    assert run["no_w_table"] == []


def test_thresholds_carry_verdict_fraction_and_whether_it_was_raised(path):
    fill(path, None, None)
    by_id = {t["regime"]: t for t in one_run(path)["thresholds"]}
    assert set(by_id) == {r.id for r in shipped()}
    low = by_id["eu-gpai"]
    point = 4 * HMMA * 4096
    assert low["verdict"] == "undetermined" if point // 2 < 10**17 else "crossed"
    assert low["fraction"] == point * 10**9 // 10**17 / 10**9
    assert low["event_raised"] is True
    assert low["in_force"] is True
    far = by_id["us-ny-raise"]
    assert (far["verdict"], far["in_force"], far["event_raised"]) == ("below", False, False)
    assert (far["threshold_flop"], far["comparison"]) == ("1" + "0" * 26, ">")


def test_integer_operations_enter_only_the_laws_that_name_them(path):
    row = replace(busy(0), imma_cycles=ELAPSED // 4)
    fill(path, ([row], (TRAINING,)))
    run = one_run(path)
    eu, us = (int(run["countable"][k]["flop"]["point"]) for k in ("korea", "us-ca-sb53"))
    assert us - eu == int(run["executed"]["integer_ops"]["point"]) == ELAPSED // 4 * 8192


def test_runs_without_a_label_are_named_by_their_job_and_idle_is_no_run(path):
    fill(path, ([busy(0), busy(1, 1)], (LOOSE, IDLE)), ([busy(0), busy(1, 1)], (LOOSE, UNATTRIBUTED)))
    found = document(path)
    assert [(r["run"], r["rule"]) for r in found["runs"]] == [("slurm:c1/12", "slurm-id")]
    assert found["runs"][0]["jobs"] == [
        {"scope": "c1", "kind": "slurm", "job": "12", "user": "eve", "restarts": 0}
    ]
    assert found["fleet"]["idle_device_seconds"] == 60.0
    assert found["fleet"]["unattributed_device_seconds"] == 60.0
    assert found["fleet"]["unattributed_share"] == 0.25


def test_gaps_are_in_coverage_with_their_reason(path):
    fill(path, ([busy(0), gap(1, reason=GapReason.RESET)], (TRAINING,)))
    run = one_run(path)
    assert run["coverage"]["gap_device_seconds"] == 60.0
    assert run["coverage"]["gaps"] == {"reset": 60.0}
    assert run["by_evidence_class"]["gap"]["flop"]["point"] == "0"
    assert any("gaps:" in r for r in run["reasons"])


def test_what_a_silent_agent_owes_is_a_gap_of_the_run(path):
    a, b = Chain("n1"), Chain("n2")
    with Desk(path, LOW) as desk:
        for minute in range(20):
            for chain, agent in ((a, desk.agent(a)), (b, desk.agent(b))):
                if chain is a or minute < 4:
                    desk.offer(agent, chain.next())
        desk.commit()
    run = one_run(path, now=UNIX_NS + 20 * MINUTE_NS)
    assert run["status"] == "running"
    assert run["coverage"]["gaps"] == {"unreported": 2 * 16 * 60.0}
    assert run["coverage"]["expected_device_seconds"] == 80 * 60.0
    assert any("silent agents: 0.53 GPU-h of n2 since" in r for r in run["reasons"])
    fleet = document(path, now=UNIX_NS + 20 * MINUTE_NS)["fleet"]
    assert fleet["nodes_by_status"] == {"live": 1, "silent": 1}


def test_a_clean_stop_is_no_silence(path):
    chain = Chain()
    batch = chain.batch()
    batch.notices.add(kind=NoticeKind.AGENT_STOPPED, t_boot_ns=1, t_unix_ns=1)
    with Desk(path, LOW) as desk:
        desk.offer(desk.agent(chain), chain.next(payload=batch.SerializeToString()))
        desk.commit()
    found = document(path, now=UNIX_NS + 10**18)
    assert found["runs"][0]["status"] == "stopped"
    assert found["fleet"]["nodes"][0]["status"] == "stopped"
    assert found["fleet"]["nodes"][0]["last_window"]["notices"] == ["agent-stopped"]


def test_fleet_tells_of_each_node_what_its_last_record_says(path):
    some = replace(busy(1, 1), measured=ALL_MEASURED & ~Measured.ENERGY, energy_mj=0)
    chain = Chain("n7")
    with Desk(path, LOW, sinks=()) as desk:
        agent = desk.agent(chain)
        desk.offer(agent, chain.next())
        desk.offer(agent, chain.next([gap(0), some], (TRAINING, UNATTRIBUTED)))
        desk.commit()
        desk.offer(agent, chain.seal(chain.batch([busy(0)]).SerializeToString(), seq=1))
        desk.hello(Chain("n8"))
        desk.commit()
        chain.seq += 5
        desk.agent(chain, oldest_seq=8)
        desk.commit()
    fleet = document(path, now=UNIX_NS + 3 * MINUTE_NS)["fleet"]
    n7, n8 = fleet["nodes"]
    assert (n7["node"], n7["status"], n7["gpus"], n7["cluster"]) == ("n7", "live", 2, "c1")
    assert n7["lag_seconds"] == 60.0
    assert n7["last_window"]["classes"] == {"A1": 1, "gap": 1}
    assert n7["last_window"]["gap_seconds"] == 60.0
    assert n7["last_window"]["unattributed_seconds"] == 60.0
    assert (n7["conflicts"], n7["lost_records"]) == (1, 5)
    assert (n8["status"], n8["last_window_end"], n8["gpus"]) == ("never", None, 0)


def equipped(node: str, sha: str = "ab" * 32, **devices: int) -> Chain:
    """A node that says of its library, its modes and a card that nothing meters."""
    chain = Chain(node)
    message = batch_pb2.Inventory.FromString(chain.inventory)
    message.library.path, message.library.sha256 = "/usr/lib/libnvidia-ml.so.1", sha
    for name, value in devices.items():
        setattr(message.devices[0], name, value)
    if node == "n1":
        message.uncovered.add(
            pci_address="c1:00.0", vendor="AMD", model="MI300X", reason="no driver here reads it"
        )
    chain.inventory = message.SerializeToString()
    chain.digest = hashlib.sha256(chain.inventory).digest()
    return chain


def test_fleet_tells_what_is_not_metered_and_what_may_not_be_believed(path):
    off, on = batch_pb2.SWITCH_OFF, batch_pb2.SWITCH_ON
    chains = [
        equipped("n1", persistence=off),
        equipped("n2", persistence=on, confidential=on),
        equipped("n3"),
    ]
    chains += [equipped("n4", sha="cd" * 32), Chain("n5")]  # n5 does not know its library
    with Desk(path, LOW) as desk:
        for chain in chains:
            desk.offer(desk.agent(chain), chain.next())
        desk.commit()
    fleet = document(path)["fleet"]
    assert fleet["uncovered_devices"] == 1
    assert fleet["nodes"][0]["uncovered"] == [
        {"pci_address": "c1:00.0", "vendor": "AMD", "model": "MI300X", "reason": "no driver here reads it"}
    ]
    assert [n["persistence_off"] for n in fleet["nodes"]] == [1, 0, 0, 0, 0]
    assert [n["confidential"] for n in fleet["nodes"]] == [0, 1, 0, 0, 0]
    assert [n["library_differs"] for n in fleet["nodes"]] == [False, False, False, True, False]
    (disagreement,) = fleet["library_disagreements"]
    assert (disagreement["driver"], disagreement["differ"]) == ("595.1", ["sha256"])
    assert [x["nodes"] for x in disagreement["libraries"]] == [["n1", "n2", "n3"], ["n4"]]
    text = " ".join(fleet_view(fleet, Paint(colour=False, width=80)).split())
    for said in (
        "NVML libraries differ among nodes of driver 595.1",
        "(cdcdcdcdcdcd) on n4",
        "Not metered: 1 × AMD MI300X on n1: no driver here reads it",
        "Persistence mode is off on 1 GPUs of n1",
        "Confidential-computing mode is on for 1 GPUs of n2",
    ):
        assert said in text


def test_where_no_library_is_the_usual_one_all_are_odd(path):
    with Desk(path, LOW) as desk:
        for chain in (equipped("n2"), equipped("n3", sha="cd" * 32)):
            desk.offer(desk.agent(chain), chain.next())
        desk.commit()
    assert [n["library_differs"] for n in document(path)["fleet"]["nodes"]] == [True, True]


def test_a_shared_gpu_is_one_gpu_and_each_run_may_have_done_it_all(path):
    """Two jobs on one GPU, 40 to 60: time, energy and cycles add up once; either's upper bound is the device's."""
    whole = busy(0)
    rows, jobs = [], (TRAINING, Workload(WorkloadKind.SLURM, job="9", run="r2", dtype="bf16"))
    none = dict.fromkeys(("duration_ns", "sm_elapsed_cycles", "energy_mj"), 0)
    for index, percent in enumerate((40, 60)):
        part = {f: getattr(whole, f) * percent // 100 for f in SUM_FIELDS}
        rest = {f: getattr(whole, f) - part[f] for f in SUM_FIELDS}
        rows.append(
            replace(whole, workload_index=index, measured=ALL_MEASURED | Measured.APPORTIONED, **part)
        )
        marks = ALL_MEASURED & ~Measured.ENERGY | Measured.OTHERS
        rows.append(replace(whole, workload_index=index, measured=marks, **(rest | none)))
    fill(path, (rows, jobs))
    alone = path.with_name("alone.sqlite")
    fill(alone, ([whole], (TRAINING,)))
    device, found = document(alone), document(path)
    of_device = {k: int(v) for k, v in device["runs"][0]["executed"]["flop"].items()}
    runs = {r["run"]: r for r in found["runs"]}
    flops = {name: {k: int(v) for k, v in r["executed"]["flop"].items()} for name, r in runs.items()}
    assert sum(f["point"] for f in flops.values()) == of_device["point"]
    noise = ELAPSED * 5 // 1000 * 8192 * 2  # of each share; what others did is kept whole
    for f in flops.values():
        assert f["lower"] == 0
        assert of_device["upper"] - noise <= f["upper"] <= of_device["upper"] + 2
    assert sum(r["energy_joules"] for r in runs.values()) == device["runs"][0]["energy_joules"]
    seconds = [r["coverage"]["expected_device_seconds"] for r in runs.values()]
    assert sum(seconds) == found["fleet"]["device_seconds"] == 60.0
    assert sum(int(r["by_pipe"]["hmma"]["sm_cycles"]) for r in runs.values()) == HMMA
    assert [r["apportioned_device_seconds"] for r in runs.values()] == seconds
    assert "shared GPUs" in " ".join(runs["r1"]["reasons"])
    assert found["fleet"]["nodes"][0]["last_window"]["shared_entities"] == 1
    assert found["fleet"]["nodes"][0]["last_window"]["classes"] == {"A1": 1}
    for name in runs:
        hourly = queries_hourly(path, name)
        assert sum(int(h["flop"]["point"]) for h in hourly) == flops[name]["point"]
    assert check_store(path, LOW).difference is None


def queries_hourly(path, run):
    with queries.reading(path) as reader:
        return reader.runs(queries.asked(UNIX_NS, LOW), run, series=True)[0]["hourly"]


def test_a_run_says_how_well_it_is_known(path):
    fill(path, None)
    run = one_run(path)
    a = run["accuracy"]
    assert (a["limit_percent"], a["answer"], a["within"]) == (30, "no", False)
    assert a["if_declared"]["within"] is False  # mma.sync, until E6 says otherwise
    assert a["if_declared"]["best_estimate"]["percent"] < 30 < a["best_estimate"]["percent"]
    flop = {k: int(v) for k, v in run["executed"]["flop"].items()}
    assert sum(int(w["flop"]) for w in run["width"]) == flop["upper"] - flop["lower"]
    assert len(run["width"]) == len(run["reasons"])
    assert flop["upper"] < int(run["nominal_sparse_flop"]) <= 2 * flop["upper"]
    assert run["by_evidence_class"]["A1"]["device_time_share"] == 1.0
    assert run["executed"]["flop_and_integer_ops"]["point"] == str(flop["point"])
    undeclared = path.with_name("undeclared.sqlite")
    fill(undeclared, ([busy(0)], (replace(TRAINING, dtype=""),)))
    assert one_run(undeclared)["accuracy"]["if_declared"] is None


@pytest.mark.parametrize("window_ns", [10**9, MINUTE_NS, 3_600 * 10**9, 40 * 86_400 * 10**9])
def test_the_last_record_is_found_whatever_its_window(path, window_ns):
    chain = Chain()
    batch = chain.batch([busy(0, duration_ns=window_ns)])
    batch.window_end_boot_ns = batch.window_start_boot_ns + window_ns
    batch.window_end_unix_ns = batch.window_start_unix_ns + window_ns
    with Desk(path, LOW) as desk:
        desk.now = UNIX_NS + window_ns
        desk.offer(desk.agent(chain), chain.next(payload=batch.SerializeToString()))
        desk.commit()
    (node,) = document(path)["fleet"]["nodes"]
    assert node["fault"] is None
    assert node["last_window"]["device_seconds"] == window_ns / 10**9


def test_hourly_points_add_up_to_the_total(path):
    chain = Chain()
    fill(path, *[None] * 130, chain=chain)
    with queries.reading(path) as reader:
        (run,) = reader.runs(queries.asked(UNIX_NS, LOW), "r1", series=True)
    assert len(run["hourly"]) == 3
    assert sum(int(h["flop"]["point"]) for h in run["hourly"]) == int(run["executed"]["flop"]["point"])


def test_events_are_cloudevents_in_order(path):
    fill(path, None, None)
    events = document(path)["events"]
    assert events
    assert all(e["specversion"] == "1.0" and e["subject"] == "r1" for e in events)


def test_it_reads_while_the_collector_has_the_store_open(path):
    with Desk(path, LOW) as desk:
        chain = Chain()
        agent = desk.agent(chain)
        desk.offer(agent, chain.next())
        desk.commit()
        assert one_run(path)["executed"]["flop"]["point"] == str(2 * HMMA * 4096)
        with queries.reading(path) as reader:
            before = reader.runs(queries.asked(UNIX_NS, LOW))
            desk.offer(agent, chain.next())
            desk.commit()  # a reader holds nobody up, and sees one state
            assert reader.runs(queries.asked(UNIX_NS, LOW)) == before
        assert one_run(path)["executed"]["flop"]["point"] == str(4 * HMMA * 4096)


def test_reading_a_stopped_store_leaves_no_files_and_needs_no_right_to_write(path):
    """A -shm of root's beside the store would keep the collector's own user out."""
    fill(path, None)
    before = sorted(path.parent.iterdir())
    path.parent.chmod(0o555)
    try:
        assert one_run(path)["run"] == "r1"
    finally:
        path.parent.chmod(0o755)
    assert sorted(path.parent.iterdir()) == before


def test_a_collector_that_starts_during_such_a_read_is_noticed(path):
    fill(path, None)
    with pytest.raises(StoreError, match="started on it while it was read"), queries.reading(path) as reader:
        reader.run_names()
        fill(path, None, chain=Chain("n2"))


def test_a_killed_collectors_store_is_read_with_what_lies_in_its_log(path, tmp_path):
    with Desk(path, LOW) as desk:
        chain = Chain()
        desk.offer(desk.agent(chain), chain.next())
        desk.commit()
        left = tmp_path / "killed"
        left.mkdir()
        for file in path.parent.glob("books.sqlite*"):
            (left / file.name).write_bytes(file.read_bytes())
    assert (left / "books.sqlite-wal").stat().st_size > 0
    assert one_run(left)["run"] == "r1"


def test_a_directory_means_the_store_in_it(path):
    fill(path, None)
    assert document(path.parent)["runs"] == document(path)["runs"]


@pytest.mark.parametrize("content", [None, b"", b"junk" * 1000])
def test_what_is_no_store_is_an_error_with_a_hint(tmp_path, content):
    file = tmp_path / "x.sqlite"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(StoreError) as e:
        queries.document(file, 0)
    assert str(file) in str(e.value)
    assert e.value.hint
    assert e.value.exit_code == 3


def test_a_store_with_a_broken_last_record_still_lists_its_fleet(path):
    fill(path, None)
    with sqlite3.connect(path) as db:
        db.execute("UPDATE records SET record = zeroblob(200)")
    db.close()
    (node,) = document(path)["fleet"]["nodes"]
    assert node["fault"]


def test_an_empty_store_is_an_empty_document(path):
    Desk(path, LOW).close()
    found = document(path)
    assert found["runs"] == []
    assert found["events"] == []
    assert found["fleet"]["nodes"] == []
