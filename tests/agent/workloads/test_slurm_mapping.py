"""The job-mapping directory: three dialects, and everything that may lie in a directory."""

import os
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from metering import device, facts

from flopmeter.agent.workloads.slurm_facts import (
    FACTS_HEADER,
    MAX_FACTS_BYTES,
    JobFacts,
    outdated,
    parse_facts,
    together,
)
from flopmeter.agent.workloads.slurm_holders import MAX_HOLDERS, GpuNames, gpu_names, parse_holders
from flopmeter.agent.workloads.slurm_mapping import (
    FACTS_DIRECTORY,
    MAX_FILE_BYTES,
    MAX_FILES,
    MAX_TROUBLES,
    Look,
    MappingDirectory,
)
from flopmeter.contract.identity import check_identities
from flopmeter.contract.usage import Uncovered, Workload, WorkloadKind

A, B = (f"GPU-{c * 8}-0000-4000-8000-{c * 12}" for c in "ab")
SID = "s5K1KKYAYG5D00"
M = "MIG-cccccccc-0000-4000-8000-cccccccccccc"
NAMES = GpuNames(frozenset({A, B, M}), {"0": A, "1": B, "1.7": M})


def gpu(uuid: str, address: str, **more: object) -> object:
    return device(entity=uuid, pci_address=address, **more)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    path = tmp_path / "mapping"
    path.mkdir()
    return path


def look(folder: Path, names: GpuNames = NAMES) -> Look:
    return MappingDirectory(str(folder)).look(names)


@pytest.mark.parametrize(
    ("content", "jobs"),
    [
        (b"4711\n", ("4711",)),
        (b"4711", ("4711",)),  # a writer that saves the newline
        (b"4711\n4712\n", ("4711", "4712")),
        (b"4712\n4711\n4712\n", ("4712", "4711")),
        (b"4711 1000\n", ("4711",)),  # Princeton's
        (b"4711\t1000", ("4711",)),
        (b"  4711\r\n\r\n", ("4711",)),
        (b"", ()),
        (b"\n\n", ()),
    ],
)
def test_contents(content: bytes, jobs: tuple[str, ...]) -> None:
    assert parse_holders(content) == (jobs, "")


@pytest.mark.parametrize(
    "line",
    [
        b"4711_3", b"0", b"007", b"-1", b"4294967296", b"99999999999", b"4711 bob", b"4711 1 2", b"job 4711",
        b"\xff\xfe", b"\x00", "٣".encode(), b"4711\x00", b"x" * 10_000,
    ],
)  # fmt: skip
def test_a_line_that_is_none_is_said_and_the_others_count(line: bytes) -> None:
    jobs, wrong = parse_holders(b"1\n" + line + b"\n2\n")
    assert jobs == ("1", "2")
    assert wrong.startswith("expected a job id a line, got ")
    assert len(wrong) < 200


def test_a_crowd_is_cut_and_said() -> None:
    jobs, wrong = parse_holders("\n".join(map(str, range(1, 1000))).encode())
    assert (len(jobs), wrong) == (MAX_HOLDERS, f"expected at most {MAX_HOLDERS} jobs")


@given(st.binary(max_size=300))
def test_no_content_is_too_odd(raw: bytes) -> None:
    jobs, _ = parse_holders(raw)
    assert all(j.isdigit() and j.isascii() for j in jobs)


def test_names_by_uuid_and_by_index(folder: Path) -> None:
    (folder / A).write_text("1\n")
    (folder / "1").write_text("2\n3\n")
    (folder / "1.7").write_text("4\n")
    assert look(folder) == Look({A: ("1",), B: ("2", "3"), M: ("4",)}, {}, ())


def test_a_file_by_uuid_wins_over_one_by_index(folder: Path) -> None:
    (folder / "0").write_text("1\n")
    (folder / A).write_text("2\n")
    assert look(folder).holders == {A: ("2",)}
    (folder / A).write_text("")  # our epilog has been through
    assert look(folder).holders == {}


def test_other_names_are_nobodys(folder: Path) -> None:
    for name in (
        ".GPU-x.tmp",
        "0.tmp",
        "00",
        "01",
        "1.",
        ".1",
        "1.1.1",
        "-1",
        "README",
        "GPU-",
        "gpu-0",
        "0 1",
        "１",
    ):
        (folder / name).write_text("7\n")
    assert look(folder) == Look({}, {}, ())


def test_a_gpu_that_is_not_here_is_said(folder: Path) -> None:
    (folder / "GPU-ffffffff").write_text("7\n")
    (folder / "8").write_text("7\n")
    found = look(folder)
    assert found.holders == {}
    assert sorted(found.troubles) == [
        "8: no GPU of this node has that index",
        "GPU-ffffffff: no GPU that is metered here",
    ]


def test_indices_are_nvmls_by_the_bus() -> None:
    """The order of a source's list is not NVML's, and neither is that of /dev/nvidia*."""
    node = facts(gpu(B, "00000000:41:00.0"), gpu(A, "00000000:18:00.0"), source="nvml")  # type: ignore[arg-type]
    assert gpu_names(node) == GpuNames(frozenset({A, B}), {"0": A, "1": B})
    cut = gpu(M, "", mig=True, parent=B, gpu_instance=7)
    assert gpu_names(facts(*node.devices, cut)).by_index == {"0": A, "1": B, "1.7": M}  # type: ignore[arg-type]


def test_indices_of_a_node_that_is_not_seen_whole_say_nothing(folder: Path) -> None:
    node = facts(gpu(A, "00000000:18:00.0"))  # type: ignore[arg-type]
    (folder / "0").write_text("7\n")
    assert look(folder, gpu_names(node)).holders == {A: ("7",)}
    for partial in (
        replace(node, uncovered=(Uncovered("00000000:17:00.0", "NVIDIA", "H100", "lost"),)),
        facts(gpu(A, "")),  # type: ignore[arg-type]
        facts(gpu(A, "00000000:18:00.0"), gpu(B, "00000000:18:00.0")),  # type: ignore[arg-type]
    ):
        found = look(folder, gpu_names(partial))
        assert found.holders == {}
        assert found.troubles[0].startswith(("files named by index", "0: "))
    other = replace(node, uncovered=(Uncovered("00000000:17:00.0", "AMD", "MI300X", "another vendor's"),))
    assert look(folder, gpu_names(other)).holders == {A: ("7",)}


def test_links_pipes_folders_and_others_files_are_not_read(folder: Path, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("7\n")
    (folder / A).symlink_to(secret)
    os.mkfifo(folder / B)
    (folder / "1").mkdir()
    (folder / "1.7").write_text("7\n")
    (folder / "1.7").chmod(0o666)
    found = look(folder)
    assert found.holders == {}
    assert sorted(found.troubles) == [
        "1.7: anybody may write to it",
        "1: not a file",
        f"{A}: a link, which is not followed",
        f"{B}: not a file",
    ]


def test_what_another_user_wrote_is_not_believed(folder: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root can give files away")
    (folder / A).write_text("7\n")
    os.chown(folder / A, 12_345, -1)
    assert look(folder).troubles == (f"{A}: written by user 12345, neither root nor the directory's owner",)
    os.chown(folder, 12_345, -1)
    assert look(folder).holders == {A: ("7",)}  # a SlurmdUser that is not root


def test_facts_in_another_users_directory_are_not_believed(folder: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root can give files away")
    (folder / FACTS_DIRECTORY).mkdir()
    (folder / FACTS_DIRECTORY / "4711").write_text(FACTS)
    assert set(look(folder).facts) == {"4711"}
    os.chown(folder / FACTS_DIRECTORY, 12_345, -1)
    assert look(folder) == Look({}, {}, (f"{FACTS_DIRECTORY}: belongs to user 12345",))


def test_a_directory_that_anybody_writes_to_is_not_believed(folder: Path) -> None:
    (folder / A).write_text("7\n")
    folder.chmod(0o1777)
    with pytest.raises(PermissionError, match="anybody may write to it"):
        look(folder)


def test_no_directory(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        look(tmp_path / "none")
    (tmp_path / "file").write_text("")
    with pytest.raises(NotADirectoryError):
        look(tmp_path / "file")


def test_a_huge_file_is_not_read(folder: Path) -> None:
    (folder / A).write_bytes(b"7\n" * MAX_FILE_BYTES)
    found = look(folder)
    assert found == Look({}, {}, (f"{A}: {2 * MAX_FILE_BYTES} bytes, expected at most {MAX_FILE_BYTES}",))


def test_a_huge_directory_is_read_in_part_and_said(folder: Path) -> None:
    for n in range(MAX_FILES + 1):
        os.close(os.open(folder / f"x{n}", os.O_CREAT))
    assert look(folder).troubles == (f"more than {MAX_FILES} files in a directory: the rest is not read",)
    (folder / "x0").unlink()
    assert look(folder).troubles == ()


def test_what_is_said_of_one_look_is_bounded(folder: Path) -> None:
    for n in range(MAX_TROUBLES + 5):
        (folder / f"GPU-{n}").write_text("7\n")
    assert len(look(folder).troubles) == MAX_TROUBLES


def test_a_file_that_did_not_change_is_not_read_again(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    reads: list[int] = []
    real = os.read
    monkeypatch.setattr(os, "read", lambda fd, n: reads.append(fd) or real(fd, n))
    (folder / A).write_text("1\n")
    directory = MappingDirectory(str(folder))
    for _ in range(3):
        assert directory.look(NAMES).holders == {A: ("1",)}
    assert len(reads) == 1
    new = folder / ".new"
    new.write_text("2\n")
    new.rename(folder / A)
    assert directory.look(NAMES).holders == {A: ("2",)}
    (folder / A).unlink()
    assert directory.look(NAMES).holders == {}
    assert len(reads) == 2


FACTS = f"""{FACTS_HEADER}
job=4711
restart=1
user=ann
account=nlp
partition=gpu
cluster=c1
het_job=4710
sluid=s5K1KKYAYG5D00
note=of a version to come
"""


def test_facts_stand_beside(folder: Path) -> None:
    (folder / FACTS_DIRECTORY).mkdir()
    (folder / FACTS_DIRECTORY / "4711").write_text(FACTS)
    (folder / FACTS_DIRECTORY / ".4711.tmp.99").write_text("half")
    assert look(folder).facts == {
        "4711": JobFacts("4711", 1, 0, "", "ann", "nlp", "gpu", "c1", het_job="4710", sluid="s5K1KKYAYG5D00")
    }


@pytest.mark.parametrize(
    ("content", "why"),
    [
        ("", "expected a first line"),
        ("job=4711\n", "expected a first line"),
        (FACTS_HEADER, "expected facts of job 4711, got 'no job'"),
        (f"{FACTS_HEADER}\njob=4712\n", "expected facts of job 4711, got '4712'"),
        (FACTS + "x" * MAX_FACTS_BYTES, "bytes, expected at most"),
    ],
)
def test_facts_that_are_none_are_said(folder: Path, content: str, why: str) -> None:
    (folder / FACTS_DIRECTORY).mkdir()
    (folder / FACTS_DIRECTORY / "4711").write_text(content)
    found = look(folder)
    assert found.facts == {}
    assert found.troubles[0].startswith(f"{FACTS_DIRECTORY}/4711: ")
    assert why in found.troubles[0]


def test_a_facts_directory_that_is_a_link_is_not_followed(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (folder / FACTS_DIRECTORY).symlink_to(tmp_path / "elsewhere")
    (folder / A).write_text("7\n")
    found = look(folder)
    assert found.holders == {A: ("7",)}
    assert found.troubles[0].startswith(f"{FACTS_DIRECTORY}: ")


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("restart", "-1"), ("restart", "4294967296"), ("restart", "x"), ("restart", "9" * 5000), ("restart", "٣"),
        ("submit_unix_s", "1e9"), ("het_job", "abc"), ("array_task", "-2"), ("sluid", "4711"),
    ],
)  # fmt: skip
def test_a_value_that_cannot_be_is_not_known(key: str, value: str) -> None:
    assert parse_facts(f"{FACTS_HEADER}\njob=1\n{key}={value}\n".encode(), "1") == JobFacts("1")


@given(st.binary(max_size=400))
def test_whatever_the_facts_are_they_may_be_shipped(tail: bytes) -> None:
    raw = f"{FACTS_HEADER}\njob=1\n".encode() + b"name=" + tail
    check_identities(parse_facts(raw, "1").identities())


def test_what_is_known_is_put_to_the_workload_once() -> None:
    known = parse_facts(FACTS.encode(), "4711")
    bare = Workload(WorkloadKind.SLURM, "4711", "0", restart=7, identities=(("env:WANDB_RUN_ID", "w"),))  # type: ignore[arg-type]
    put = known.put_to(bare)
    assert (put.job, put.step, put.user, put.restart) == ("4711", "0", "ann", 1)
    assert dict(put.identities) == {
        "env:WANDB_RUN_ID": "w",
        "slurm.account": "nlp",
        "slurm.cluster": "c1",
        "slurm.het_job": "4710",
        "slurm.partition": "gpu",
        "slurm.sluid": "s5K1KKYAYG5D00",
    }
    assert known.put_to(put) == put
    assert JobFacts("4711").put_to(bare) == bare
    later = replace(known, account="vision").put_to(put)
    assert dict(later.identities)["slurm.account"] == "vision"


def test_a_job_with_every_name_of_ten_thousand_characters_may_be_shipped() -> None:
    long = "\n" + "x" * 10_000
    put = JobFacts("1", 0, 1, *[long] * 10).put_to(Workload(WorkloadKind.SLURM, "1"))
    assert check_identities(put.identities) == put.identities
    assert len(put.user) == 256


def test_two_that_know_complete_each_other() -> None:
    prolog = JobFacts("1", 1, user="ann", account="nlp")
    asked = JobFacts("1", 1, 2000, "train", "ann", "other", array_job="5")
    assert together(prolog, asked) == JobFacts("1", 1, 2000, "train", "ann", "nlp", array_job="5")
    assert together(None, asked) is asked
    assert together(prolog, None) is prolog
    assert together(None, None) is None
    assert together(JobFacts("1", user="ann"), asked) == replace(asked, account="other")


def test_of_two_lives_the_later_is_told() -> None:
    first, second = JobFacts("1", 0, 1000, "train", "ann", sluid=SID), JobFacts("1", 1, user="ann")
    # squeue was asked before the requeue: the name still holds, the submit time and the unique id do not
    assert together(second, first) == JobFacts("1", 1, 0, "train", "ann")
    assert outdated(second, first)
    later = replace(first, restart=1, submit_unix_s=1500)
    assert together(replace(second, restart=0), later) is later  # this node's prolog failed
    assert not outdated(replace(second, restart=0), later)
    assert not outdated(second, later)
    assert not outdated(None, later)
    assert not outdated(second, None)


def test_another_jobs_record_is_not_mixed_in() -> None:
    mine = JobFacts("1", 0, user="bob")
    assert together(mine, JobFacts("1", 0, 1000, "train", "ann")) is mine
    assert outdated(mine, JobFacts("1", 0, 1000, "train", "ann"))
