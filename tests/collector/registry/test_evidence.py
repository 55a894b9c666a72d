"""What is recorded of a reference: URLs and digests as they are, files with their digest."""

import hashlib
import os

import pytest

from flopmeter.collector.errors import RegistryError
from flopmeter.collector.registry import evidence
from flopmeter.collector.registry.evidence import reference

DIGEST = "sha256:" + "0" * 64


@pytest.mark.parametrize("text", ["https://wiki.lab/evals/7", "s3://bucket/key", DIGEST])
def test_a_url_and_a_digest_stand_as_they_are(text: str) -> None:
    assert reference(f" {text} ") == text


def test_a_file_is_named_with_its_digest(tmp_path) -> None:
    path = tmp_path / "config.yaml"
    path.write_bytes(b"checkpointing: full\n" * 100_000)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    assert reference(str(path)) == f"{path} sha256:{digest}"
    link = tmp_path / "link"
    link.symlink_to(path)
    assert reference(str(link)) == f"{link} sha256:{digest}"


@pytest.mark.parametrize(
    "text", ["", "ticket 7", "sha256:12", "SHA256:" + "0" * 64, "x" * 10_000, "a\0b", "https://a b"]
)
def test_anything_else_is_refused(text: str, tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(RegistryError, match="expected a URL, a sha256") as e:
        reference(text)
    assert e.value.hint
    assert len(str(e.value)) < 400


def test_no_directory_no_pipe_and_no_endless_file_is_read(tmp_path, monkeypatch) -> None:
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    for path in (tmp_path, fifo, "/dev/zero"):
        with pytest.raises(RegistryError, match=r"no regular file|Is a directory"):
            reference(str(path))
    monkeypatch.setattr(evidence, "MAX_EVIDENCE_BYTES", 3)
    (tmp_path / "large").write_bytes(b"1234")
    with pytest.raises(RegistryError, match="give its digest instead"):
        reference(str(tmp_path / "large"))
