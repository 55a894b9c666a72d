"""A file that a stranger sent is checked within a stated memory, whatever is in it."""

import json
from zlib import crc32

import pytest

from flopmeter.cli.container import FILES, frames
from flopmeter.collector.api import apart
from flopmeter.collector.api.apart import Commands
from flopmeter.collector.api.problems import Problem
from flopmeter.collector.keys import attest_key, keys_directory

SIZE = 31 << 20


def zipped(bundle: bytes) -> bytes:
    contents = [bundle, b"{}", b"x"]
    found = b""
    parts = frames([(n, len(d), crc32(d)) for n, d in zip(FILES, contents, strict=True)])
    for frame, content in zip(parts, [*contents, b""], strict=True):
        found += frame + content
    return found


@pytest.fixture
def commands(tmp_path):
    attest_key(keys_directory(None, tmp_path / "books.sqlite"), make=True)
    return Commands(tmp_path / "books.sqlite")


@pytest.mark.parametrize("value", [b"[],", b"{},", b'"",', b'{"a":"b"},'])
def test_a_bundle_of_values_without_end_is_refused_before_it_is_built(commands, monkeypatch, value):
    """31 MiB of them took 840 MiB; with half of what is allowed there is an answer, which names the step."""
    monkeypatch.setattr(apart, "VERIFY_BYTES", 256 << 20)
    raw = zipped(b"[" + value * (SIZE // len(value)) + b'""]')
    found = json.loads(commands.verify(raw))
    assert (found["verified"], found["step"], found["failed"]) == (False, 1, "signature")
    assert "brackets and commas" in found["reason"]


def test_a_bundle_of_one_text_fits(commands):
    raw = zipped(b'{"mediaType":"' + b"a" * SIZE + b'"}')
    assert json.loads(commands.verify(raw))["failed"] == "signature"


def test_what_needs_more_memory_than_is_stated_is_refused_in_words(commands, monkeypatch):
    monkeypatch.setattr(apart, "VERIFY_BYTES", 48 << 20)
    with pytest.raises(Problem, match="48 MiB of memory") as refused:
        commands.verify(zipped(b'{"mediaType":"' + b"a" * SIZE + b'"}'))
    assert refused.value.status == 422
    assert "on a machine of your own" in refused.value.hint
