"""The witness's key file: made once, refused where it is damaged or others can read it."""

import os
from pathlib import Path

import pytest
from cryptography.exceptions import InvalidSignature
from witness_rig import Log

from flopmeter.evidence.note import parse_checkpoint, parse_key, signers
from flopmeter.witness.errors import KeyFileError, UsageError
from flopmeter.witness.keys import create, load

NAME = "witness.example/1"


@pytest.mark.parametrize("ml_dsa", [False, True])
def test_a_key_is_read_as_it_was_made(tmp_path: Path, ml_dsa: bool) -> None:
    made = create(tmp_path / "k", NAME, ml_dsa=ml_dsa)
    assert load(tmp_path / "k") == made
    assert [parse_key(k.vkey).kind for k in made] == ([4, 6] if ml_dsa else [4])
    assert oct((tmp_path / "k").stat().st_mode)[-3:] == "600"
    assert all("seed" not in repr(k) and k.seed.hex() not in repr(k) for k in made)


def test_two_keys_are_not_the_same(tmp_path: Path) -> None:
    assert create(tmp_path / "a", NAME)[0].vkey != create(tmp_path / "b", NAME)[0].vkey


def test_a_key_that_is_there_is_not_overwritten(tmp_path: Path) -> None:
    create(tmp_path / "k", NAME)
    before = (tmp_path / "k").read_bytes()
    with pytest.raises(KeyFileError, match="expected none yet"):
        create(tmp_path / "k", NAME)
    assert (tmp_path / "k").read_bytes() == before


def test_every_changed_character_is_seen(tmp_path: Path) -> None:
    path = tmp_path / "k"
    create(path, NAME)
    good = path.read_bytes()
    for i in range(len(good) - 1):
        path.write_bytes(good[:i] + bytes([good[i] ^ 1]) + good[i + 1 :])
        with pytest.raises(KeyFileError, match="damaged"):
            load(path)
    for text in (b"", good * 2, good[:-10], b"\xff" + good, good.replace(b"+", b"-")):
        path.write_bytes(text)
        with pytest.raises(KeyFileError, match="damaged"):
            load(path)


def test_a_key_that_others_can_read_is_refused(tmp_path: Path) -> None:
    create(tmp_path / "k", NAME)
    (tmp_path / "k").chmod(0o640)
    with pytest.raises(KeyFileError, match="0600"):
        load(tmp_path / "k")


def test_no_link_no_pipe_no_directory(tmp_path: Path) -> None:
    create(tmp_path / "k", NAME)
    (tmp_path / "link").symlink_to(tmp_path / "k")
    os.mkfifo(tmp_path / "pipe", 0o600)
    for path in (tmp_path / "link", tmp_path / "pipe", tmp_path, tmp_path / "absent"):
        with pytest.raises(KeyFileError):
            load(path)
    with pytest.raises(KeyFileError):
        create(tmp_path / "no" / "k", NAME)


@pytest.mark.parametrize(
    "name", ["", "a b", "a+b", "a\nb", "a\x00", "a\u00a0b", "a\u2028b", "x" * 256, "\u200b", "\ud800"]
)
def test_names_that_cannot_stand_in_a_note(tmp_path: Path, name: str) -> None:
    with pytest.raises(UsageError, match="--name"):
        create(tmp_path / "k", name)
    assert not (tmp_path / "k").exists()


def test_tlog_scales_accepts_both_cosignatures(tmp_path: Path) -> None:
    """Independent code: the vkeys, and the cosignatures of both kinds under a checkpoint."""
    from tlog_scales.signing import NoteSignature, Vkey
    from tlog_scales.tlog import Checkpoint

    log, ours = Log().grow(5), create(tmp_path / "k", NAME, ml_dsa=True)
    lines = [
        k.cosign(log.text(), log.origin, 5, parse_checkpoint(log.sign(log.text())).root, 1_790_000_000)
        for k in ours
    ]
    note = log.sign(log.text()) + b"".join(lines)
    theirs = Checkpoint.from_text(note.decode())
    for key, line in zip(ours, lines, strict=True):
        vkey = Vkey.from_string(key.vkey)
        verifier = vkey.get_verifier()
        signature = NoteSignature.from_line(line.decode().rstrip("\n"))
        assert vkey.match(signature)
        verifier.verify(signature.payload, theirs)
        with pytest.raises(InvalidSignature):
            verifier.verify(signature.payload[:-1] + bytes([signature.payload[-1] ^ 1]), theirs)
    assert len(signers(parse_checkpoint(note), [parse_key(k.vkey) for k in ours])) == 2
