"""Results survive whatever happens between two experiments, and belong to one machine."""

import io
import json
import math
import tarfile
from pathlib import Path

import pytest
from gpu.state import MOST_ATTEMPTS, State, StateError

MACHINE = {"gpu": "NVIDIA H200", "driver": "595.58.03", "simulated": False}


def test_results_come_back(tmp_path: Path) -> None:
    state = State.load(tmp_path / "new")
    state.same_machine(MACHINE)
    assert state.begin("E0")
    state.finish("E0", {"status": "pass", "raw": {"big": 10**20}})
    again = State.load(tmp_path / "new")
    assert again.results == {"E0": {"status": "pass", "raw": {"big": 10**20}}}
    assert again.machine == MACHINE
    assert again.attempts == {"E0": 1}
    assert [p.name for p in (tmp_path / "new").iterdir()] == ["state.json"], "nothing half-written is left"


def test_what_ends_the_program_is_begun_twice_only(tmp_path: Path) -> None:
    for _ in range(MOST_ATTEMPTS):
        assert State.load(tmp_path).begin("E6"), "the beginning is on disk before the experiment runs"
    assert not State.load(tmp_path).begin("E6")


@pytest.mark.parametrize("key", ["gpu", "driver", "simulated"])
def test_another_machine_is_refused(tmp_path: Path, key: str) -> None:
    state = State.load(tmp_path)
    state.same_machine(MACHINE)
    state.save()
    with pytest.raises(StateError, match=key):
        State.load(tmp_path).same_machine(MACHINE | {key: "other"})
    State.load(tmp_path).same_machine(MACHINE | {"kernel": "other"})


def test_another_release_of_the_branch_goes_on_and_another_branch_does_not(tmp_path: Path) -> None:
    """Machines that are lent differ in it from call to call."""
    state = State.load(tmp_path)
    state.same_machine(MACHINE)
    state.same_machine(MACHINE | {"driver": "595.71.05"})
    with pytest.raises(StateError, match="driver"):
        state.same_machine(MACHINE | {"driver": "580.159.04"})


def test_what_is_run_again_is_kept(tmp_path: Path) -> None:
    state = State.load(tmp_path)
    state.begin("E3")
    state.finish("E3", {"status": "fail"})
    state.again(["E3", "E4"])
    now = State.load(tmp_path)
    assert (now.results, now.attempts) == ({}, {})
    assert now.superseded == [{"key": "E3", "status": "fail"}]


@pytest.mark.parametrize("text", ["", "{", "[]", '{"format": "something/1"}'])
def test_another_file_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "state.json").write_text(text)
    with pytest.raises(StateError, match=r"state\.json"):
        State.load(tmp_path)


def test_the_bundle_holds_the_folder_and_fills_an_empty_one(tmp_path: Path) -> None:
    bundle = tmp_path / "all.tar.gz"
    state = State.load(tmp_path / "a", bundle)
    (tmp_path / "a/traces").mkdir(parents=True)
    (tmp_path / "a/traces/E3.jsonl").write_text("{}\n")
    state.finish("E3", {"status": "pass"})
    with tarfile.open(bundle) as tar:
        assert sorted(tar.getnames()) == ["state.json", "traces/E3.jsonl"]
    moved = State.load(tmp_path / "b", bundle)
    assert moved.results == {"E3": {"status": "pass"}}
    assert (tmp_path / "b/traces/E3.jsonl").read_text() == "{}\n"
    state.finish("E4", {"status": "pass"})
    assert "E4" not in State.load(tmp_path / "b", bundle).results, "a folder with results is not overwritten"


def test_what_was_written_is_json(tmp_path: Path) -> None:
    state = State.load(tmp_path)
    state.finish("E0", {"status": "pass"})
    assert json.loads(state.file.read_text())["format"] == "flopmeter-gpu-validation/1"


def test_no_number_is_null_in_json(tmp_path: Path) -> None:
    state = State.load(tmp_path)
    state.finish(
        "E1", {"status": "pass", "raw": {"ratio": math.nan, "values": [1.5, math.inf], "pair": (1, 2)}}
    )

    def refuse(text: str) -> object:
        raise AssertionError(text)

    data = json.loads(state.file.read_text(), parse_constant=refuse)
    assert data["results"]["E1"]["raw"] == {"ratio": None, "values": [1.5, None], "pair": [1, 2]}


def test_a_bundle_writes_nothing_outside_its_folder(tmp_path: Path) -> None:
    bundle = tmp_path / "b.tar.gz"
    with tarfile.open(bundle, "w:gz") as tar:
        for name in ("../outside", "/" + str(tmp_path / "absolute").lstrip("/"), "inside/file"):
            member = tarfile.TarInfo(name)
            member.size = 2
            tar.addfile(member, io.BytesIO(b"hi"))
        link = tarfile.TarInfo("link")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        tar.addfile(link)
    State.load(tmp_path / "folder", bundle)
    assert sorted(str(p.relative_to(tmp_path)) for p in tmp_path.rglob("*") if p.is_file()) == [
        "b.tar.gz",
        "folder/inside/file",
    ]
