"""The record key: made once, kept private, never silently replaced."""

import os
import stat
from pathlib import Path

import pytest
from nacl.signing import VerifyKey

from flopmeter.agent.keys import KEY_FILE, KeyFileError, load_or_create_key
from flopmeter.contract.ids import agent_id


def test_a_key_is_made_once_and_signs_what_others_can_check(tmp_path: Path) -> None:
    key = load_or_create_key(tmp_path / "state")
    again = load_or_create_key(tmp_path / "state")
    assert key == again
    assert key.agent_id == agent_id(key.public)
    VerifyKey(key.public).verify(b"message", key.sign(b"message"))
    assert key.sign(b"message") == again.sign(b"message")
    mode = (tmp_path / "state" / KEY_FILE).stat().st_mode
    assert stat.S_IMODE(mode) == 0o600
    assert [p.name for p in (tmp_path / "state").iterdir()] == [KEY_FILE]
    assert key.secret.hex() not in repr(key)


def test_two_states_are_two_agents(tmp_path: Path) -> None:
    assert load_or_create_key(tmp_path / "a").public != load_or_create_key(tmp_path / "b").public


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660, 0o644])
def test_a_key_that_others_can_read_is_refused(tmp_path: Path, mode: int) -> None:
    load_or_create_key(tmp_path)
    (tmp_path / KEY_FILE).chmod(mode)
    with pytest.raises(KeyFileError, match="0600") as caught:
        load_or_create_key(tmp_path)
    assert "chmod" in caught.value.hint


def damaged(text: str) -> list[str]:
    magic, seed, public = text.split()
    return [
        "",
        text[:40],
        f"{magic} {seed}\n",
        f"{magic} {seed} {public[:-1]}{int(public[-1], 16) ^ 1:x}\n",
        f"{magic} {seed[:-2]} {public}\n",
        f"{magic} {'zz' * 32} {public}\n",
        f"other {seed} {public}\n",
        f"{text}{text}",
    ]


@pytest.mark.parametrize("case", range(8))
def test_a_damaged_key_is_refused_and_left_as_it_lies(tmp_path: Path, case: int) -> None:
    load_or_create_key(tmp_path)
    path = tmp_path / KEY_FILE
    bad = damaged(path.read_text())[case]
    path.write_text(bad)
    with pytest.raises(KeyFileError, match="damaged"):
        load_or_create_key(tmp_path)
    assert path.read_text() == bad


def test_a_key_that_is_not_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / KEY_FILE).mkdir()
    with pytest.raises(KeyFileError, match="regular file"):
        load_or_create_key(tmp_path)


def test_a_link_in_the_place_of_the_key_is_refused(tmp_path: Path) -> None:
    load_or_create_key(tmp_path / "real")
    (tmp_path / "state").mkdir()
    (tmp_path / "state" / KEY_FILE).symlink_to(tmp_path / "real" / KEY_FILE)
    with pytest.raises(KeyFileError):
        load_or_create_key(tmp_path / "state")


def test_a_state_directory_that_cannot_be_made_is_an_error_with_a_hint(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(KeyFileError) as caught:
        load_or_create_key(tmp_path / "file" / "state")
    assert "--state" in caught.value.hint


def test_a_left_over_of_a_crash_does_not_hinder(tmp_path: Path) -> None:
    (tmp_path / f"{KEY_FILE}.{os.getpid() + 1}.tmp").write_text("half")
    load_or_create_key(tmp_path)
