"""Slurm's word as an AllocationSource: who was given what, what is known of them, and when nothing may be believed."""

import json
import logging
import os
import threading
from pathlib import Path

import pytest
from metering import device, facts
from processes import wait_for

from fakes import FakeClock
from flopmeter.agent.loop import SystemClock
from flopmeter.agent.reading import NodeFacts, Process, Reading
from flopmeter.agent.settings import AgentSettings
from flopmeter.agent.workloads.attribution import Attributor
from flopmeter.agent.workloads.cgroup import place
from flopmeter.agent.workloads.slurm_ask import Asker
from flopmeter.agent.workloads.slurm_facts import FACTS_HEADER
from flopmeter.agent.workloads.slurm_mapping import FACTS_DIRECTORY
from flopmeter.agent.workloads.slurm_source import (
    REMEMBERED_NS,
    STALE_NS,
    STALE_TICKS,
    SlurmSource,
    slurm_source,
)
from flopmeter.contract.usage import IDLE, Workload, WorkloadKind

A, B = (f"GPU-{c * 8}-0000-4000-8000-{c * 12}" for c in "ab")
NODE = facts(
    device(entity=A, pci_address="00000000:18:00.0"), device(entity=B, pci_address="00000000:41:00.0")
)
SID = "s5K1KKYAYG5D00"


def slurm(job: str, step: str = "", **more: object) -> Workload:
    return Workload(WorkloadKind.SLURM, job, step, **more)  # type: ignore[arg-type]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "mapping" / FACTS_DIRECTORY).mkdir(parents=True)
    return tmp_path / "mapping"


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


def source(folder: Path, clock: FakeClock, asker: Asker | None = None, node: NodeFacts = NODE) -> SlurmSource:
    return SlurmSource(lambda: node, clock, directory=str(folder), asker=asker)


def write_facts(folder: Path, job: str, **known: object) -> None:
    lines = [FACTS_HEADER, f"job={job}", *(f"{k}={v}" for k, v in known.items())]
    (folder / FACTS_DIRECTORY / job).write_text("\n".join(lines) + "\n")


def asks(clock: FakeClock, *records: dict[str, object]) -> Asker:
    def run(_: list[str]) -> bytes:
        return json.dumps({"jobs": [{"job_state": ["RUNNING"]} | record for record in records]}).encode()

    return Asker("squeue", 60_000_000_000, clock, run)


def test_given_by_uuid_and_by_index(folder: Path, clock: FakeClock) -> None:
    ours = source(folder, clock)
    assert ours.latest() is None
    (folder / A).write_text("4711\n")
    (folder / "1").write_text("4711\n4712\n")
    ours.look()
    found = ours.latest()
    assert found is not None
    assert found.at_boot_ns == clock.boot_ns()
    assert found.by_entity == {A: (slurm("4711"),), B: (slurm("4711"), slurm("4712"))}


def test_given_to_nobody_is_an_answer_and_no_directory_is_none(folder: Path, clock: FakeClock) -> None:
    ours = source(folder, clock)
    ours.look()
    found = ours.latest()
    assert found is not None
    assert found.by_entity == {}
    nowhere = source(folder / "none", clock)
    nowhere.look()
    assert nowhere.latest() is None


def test_a_directory_that_comes_later_and_one_that_goes(
    folder: Path, clock: FakeClock, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    later = folder / "later"
    ours = source(later, clock)
    for _ in range(3):
        ours.look()
    assert [r.getMessage() for r in caplog.records] == [f"job mapping: {later} is not there (yet)"]
    later.mkdir()
    (later / A).write_text("1\n")
    ours.look()
    assert ours.latest() is not None
    (later / A).unlink()
    later.rmdir()
    ours.look()
    assert ours.latest() is None
    assert len(caplog.records) == 2


def test_what_is_wrong_is_said_once_until_it_is_gone(
    folder: Path, clock: FakeClock, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    ours = source(folder, clock)
    (folder / A).write_text("x\n")
    for _ in range(3):
        ours.look()
    assert len(caplog.records) == 1
    assert f"{folder}/{A}: expected a job id a line, got 'x'" in caplog.text
    (folder / A).write_text("")
    ours.look()
    (folder / A).write_text("x\n")
    ours.look()
    assert len(caplog.records) == 2


def test_an_unreadable_directory_is_no_crash_and_no_answer(
    folder: Path, clock: FakeClock, caplog: pytest.LogCaptureFixture
) -> None:
    (folder / A).write_text("1\n")
    ours = source(folder, clock)
    ours.look()
    folder.chmod(0o777)  # not to be believed from here on
    ours.look()
    assert ours.latest() is None
    assert "anybody may write to it" in caplog.text


def test_an_answer_grows_stale(folder: Path, clock: FakeClock) -> None:
    ours = source(folder, clock)
    ours.look()
    clock.advance(STALE_NS)
    assert ours.latest() is not None
    clock.advance(1)
    assert ours.latest() is None
    slow = SlurmSource(lambda: NODE, clock, directory=str(folder), tick_ns=60_000_000_000)
    slow.look()
    clock.advance(STALE_TICKS * 60_000_000_000)
    assert slow.latest() is not None


def test_holders_that_did_not_change_are_the_same_objects(folder: Path, clock: FakeClock) -> None:
    """The attributor looks again where they are not (attribution.py), so a tick stays cheap."""
    (folder / A).write_text("1\n")
    write_facts(folder, "1", user="ann", account="nlp")
    ours = source(folder, clock)
    ours.look()
    first = ours.latest()
    clock.advance(1_000_000_000)
    ours.look()
    second = ours.latest()
    assert first is not None
    assert second is not None
    assert first.at_boot_ns < second.at_boot_ns
    assert first.by_entity[A] is second.by_entity[A]
    write_facts(folder, "1", user="ann", account="vision")
    ours.look()
    third = ours.latest()
    assert third is not None
    assert third.by_entity[A] is not first.by_entity[A]


def test_the_prologs_facts_are_put_to_the_job(folder: Path, clock: FakeClock) -> None:
    (folder / A).write_text("4711\n")
    write_facts(folder, "4711", restart=2, user="ann", account="nlp", cluster="c1", het_job=4710)
    ours = source(folder, clock)
    assert ours.describe(slurm("4711", "0")) == slurm("4711", "0")
    ours.look()
    described = ours.describe(slurm("4711", "0", run="mine"))
    assert (described.step, described.run, described.user, described.restart) == ("0", "mine", "ann", 2)
    assert dict(described.identities) == {
        "slurm.account": "nlp",
        "slurm.cluster": "c1",
        "slurm.het_job": "4710",
    }
    found = ours.latest()
    assert found is not None
    assert found.by_entity[A] == (ours.describe(slurm("4711")),)
    assert ours.describe(described) == described
    for other in (slurm("4712"), Workload(WorkloadKind.POD, "4711"), Workload(WorkloadKind.PROCESS, "4711")):
        assert ours.describe(other) is other


def test_a_requeue_is_the_same_job_with_a_higher_count(folder: Path, clock: FakeClock) -> None:
    ours = source(folder, clock)
    for restart in (0, 1, 2):
        (folder / A).write_text("4711\n")
        write_facts(folder, "4711", restart=restart, user="ann")
        ours.look()
        found = ours.latest()
        assert found is not None
        (held,) = found.by_entity[A]
        assert (held.job, held.restart) == ("4711", restart)
        (folder / A).unlink()
        (folder / FACTS_DIRECTORY / "4711").unlink()
        ours.look()


def test_facts_outlive_the_job_until_its_last_window_is_sealed(folder: Path, clock: FakeClock) -> None:
    write_facts(folder, "1", user="ann")
    ours = source(folder, clock)
    ours.look()
    (folder / FACTS_DIRECTORY / "1").unlink()
    clock.advance(REMEMBERED_NS)
    ours.look()
    assert ours.describe(slurm("1")).user == "ann"
    clock.advance(1)
    ours.look()
    assert ours.describe(slurm("1")).user == ""


def test_a_process_known_by_sluid_is_of_the_prologs_job(folder: Path, clock: FakeClock) -> None:
    """From 26.05 on a cgroup bears the SLUID; the prolog knows both."""
    (folder / A).write_text("4711\n")
    write_facts(folder, "4711", sluid=SID, user="ann")
    ours = source(folder, clock)
    assert ours.describe(slurm(SID, "0")).job == SID  # without the prolog it stays: it is unique
    ours.look()
    described = ours.describe(slurm(SID, "0"))
    assert (described.job, described.step, described.user) == ("4711", "0", "ann")
    found = ours.latest()
    assert found is not None
    assert dict(found.by_entity[A][0].identities)["slurm.sluid"] == SID


def test_squeue_knows_names_and_arrays(folder: Path, clock: FakeClock) -> None:
    asker = asks(
        clock,
        {"job_id": 4711, "name": "llama", "user_name": "ann", "account": "nlp", "submit_time": 1000, "restart_cnt": 0},
        {"job_id": 4712, "name": "sweep", "array_job_id": 4700, "array_task_id": 3},
    )  # fmt: skip
    (folder / A).write_text("4711\n")
    ours = source(folder, clock, asker)
    ours.look()  # what is mapped is wanted
    ours.met(B, slurm("4712", "0"))  # and so is what was met
    ours.met(B, Workload(WorkloadKind.POD, "1f0c3a52"))
    asker.turn()
    ours.look()
    found = ours.latest()
    assert found is not None
    (held,) = found.by_entity[A]
    assert (held.user, dict(held.identities)) == (
        "ann",
        {"slurm.account": "nlp", "slurm.name": "llama", "slurm.submit_unix_s": "1000"},
    )
    task = dict(ours.describe(slurm("4712", "0")).identities)
    assert (task["slurm.array_job"], task["slurm.array_task"]) == ("4700", "3")


def test_squeue_is_asked_again_for_a_new_life(folder: Path, clock: FakeClock) -> None:
    record: dict[str, object] = {"job_id": 4711, "name": "llama", "restart_cnt": 0, "submit_time": 1000}
    asker = asks(clock, record)
    (folder / A).write_text("4711\n")
    write_facts(folder, "4711", restart=0)
    ours = source(folder, clock, asker)
    ours.look()
    asker.turn()
    write_facts(folder, "4711", restart=1)
    ours.look()
    second = ours.describe(slurm("4711"))
    assert (second.restart, dict(second.identities)) == (1, {"slurm.name": "llama"})
    clock.advance(60_000_000_000)
    record |= {"restart_cnt": 1, "submit_time": 1500}
    asker.turn()
    assert dict(ours.describe(slurm("4711")).identities)["slurm.submit_unix_s"] == "1500"


def test_squeue_alone_tells_names_and_no_holders(clock: FakeClock) -> None:
    asker = asks(clock, {"job_id": 1, "name": "llama"})
    ours = SlurmSource(lambda: NODE, clock, asker=asker)
    ours.met(A, slurm("1", "0"))
    asker.turn()
    assert ours.latest() is None
    assert dict(ours.describe(slurm("1", "0")).identities) == {"slurm.name": "llama"}


def test_devices_that_change_are_named_anew(folder: Path, clock: FakeClock) -> None:
    node = [NODE]
    ours = SlurmSource(lambda: node[0], clock, directory=str(folder))
    other = "GPU-cccccccc-0000-4000-8000-cccccccccccc"
    (folder / other).write_text("1\n")
    ours.look()
    assert ours.latest().by_entity == {}  # type: ignore[union-attr]
    node[0] = facts(*NODE.devices, device(entity=other, pci_address="00000000:99:00.0"))
    ours.look()
    assert ours.latest().by_entity == {other: (slurm("1"),)}  # type: ignore[union-attr]


# ---- with its threads ----------------------------------------------------------------------------


def test_settings_that_name_nothing_make_nothing() -> None:
    assert slurm_source(AgentSettings(), lambda: NODE, SystemClock()) is None


def test_it_runs_until_closed(folder: Path, tmp_path: Path) -> None:
    squeue = tmp_path / "squeue"
    record = {"job_id": 4711, "name": "llama", "job_state": "RUNNING"}
    squeue.write_text(f"#!/bin/sh\necho '{json.dumps({'jobs': [record]})}'\n")
    squeue.chmod(0o755)
    settings = AgentSettings(
        slurm_job_mapping_dir=str(folder),
        slurm_squeue=str(squeue),
        tick=250_000_000,
        slurm_squeue_period=10**10,
    )
    ours = slurm_source(settings, lambda: NODE, SystemClock())
    assert ours is not None
    try:
        (folder / A).write_text("4711\n")
        wait_for("whose it is", lambda: (ours.latest() or 0) and ours.latest().by_entity.get(A))  # type: ignore[union-attr]
        wait_for("its name", lambda: dict(ours.describe(slurm("4711")).identities) == {"slurm.name": "llama"})
    finally:
        ours.close()
        ours.close()
    assert not {t.name for t in threading.enumerate()} & {"slurm-mapping", "slurm-ask"}


def test_the_first_look_is_taken_when_it_has_started(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first reading ends the time in which the agent was down: a job that waits then is named already."""
    (folder / A).write_text("4711\n")
    ours = SlurmSource(lambda: NODE, SystemClock(), directory=str(folder))
    look, slow = ours.look, threading.Event()

    def late() -> None:
        slow.wait(0.2)
        look()

    monkeypatch.setattr(ours, "look", late)
    ours.start(wait_s=60)
    try:
        found = ours.latest()
        assert found is not None
        assert [w.job for w in found.by_entity[A]] == ["4711"]
    finally:
        slow.set()
        ours.close()


def test_a_directory_that_hangs_holds_nobody_up(
    folder: Path, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A look that does not come back: what was known grows stale, and closing does not wait for it."""
    entered, release = threading.Event(), threading.Event()
    ours = source(folder, clock)
    ours.look()
    real = os.open

    def hang(*words: object, **more: object) -> int:
        if threading.current_thread().name == "slurm-mapping":
            entered.set()
            release.wait(60)
        return real(*words, **more)  # type: ignore[arg-type]

    monkeypatch.setattr(os, "open", hang)
    ours.start()
    try:
        assert entered.wait(60)
        clock.advance(STALE_NS + 1)
        assert ours.latest() is None
        assert ours.describe(slurm("1")) == slurm("1")
        ours.close()
    finally:
        release.set()


def test_a_defect_is_said_once_and_ends_no_thread(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    calls: list[int] = []

    def node() -> NodeFacts:
        calls.append(1)
        if len(calls) < 4:
            raise RuntimeError("a defect")
        return NODE

    ours = SlurmSource(node, SystemClock(), directory=str(folder), tick_ns=1_000_000)
    ours.start()
    try:
        wait_for("an answer", lambda: ours.latest() is not None)
    finally:
        ours.close()
    assert [r.getMessage() for r in caplog.records].count(
        "slurm-mapping: a defect; it goes on, and what it knew grows stale"
    ) == 1


# ---- in the agent ----------------------------------------------------------------------------------


def test_an_allocated_gpu_is_its_jobs_also_while_it_idles(folder: Path, clock: FakeClock) -> None:
    (folder / A).write_text("4711\n")
    write_facts(folder, "4711", restart=1, user="ann", account="nlp")
    ours = source(folder, clock)
    ours.look()
    attributor = Attributor(None, [ours])
    idle = attributor.attribute(Reading(A, clock.boot_ns(), clock.unix_ns(), processes=()))
    assert idle.workload == slurm("4711")
    assert idle.waiting
    assert attributor.attribute(Reading(B, clock.boot_ns(), clock.unix_ns(), processes=())).workload == IDLE
    known = attributor.describe(slurm("4711"))
    assert (known.user, known.restart, dict(known.identities)) == ("ann", 1, {"slurm.account": "nlp"})
    (folder / A).unlink()
    ours.look()
    assert attributor.attribute(Reading(A, clock.boot_ns(), clock.unix_ns(), processes=())).workload == IDLE


@pytest.mark.parametrize(
    "path",
    [
        "0::/system.slice/slurmstepd.scope/job_4711/step_0/user/task_0",
        f"0::/system.slice/slurmstepd.scope/{SID}/step_0/user/task_0",
        "6:freezer:/slurm_n1/uid_0/job_4711/step_0",
    ],
)
def test_a_process_and_the_prolog_speak_of_one_job(folder: Path, clock: FakeClock, path: str) -> None:
    (folder / A).write_text("4711\n")
    write_facts(folder, "4711", sluid=SID, user="ann")
    ours = source(folder, clock)
    ours.look()

    class Finder:
        def find(self, pid: int, start_ticks: int) -> Workload | None:
            return place(path).workload

    attributor = Attributor(Finder(), [ours])
    busy = attributor.attribute(Reading(A, clock.boot_ns(), clock.unix_ns(), processes=(Process(1, 1),)))
    assert busy.workload is not None
    assert (busy.workload.job, busy.workload.step) == ("4711", "0")
    assert attributor.describe(busy.workload).user == "ann"
    assert attributor.remarks == []
