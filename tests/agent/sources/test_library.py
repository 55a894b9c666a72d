"""Which library is loaded, by a tree of the shape of /proc, and by this process's own."""

import ctypes
import hashlib
from pathlib import Path

import pytest

from flopmeter.agent.sources.library import loaded_library
from flopmeter.contract.usage import NO_LIBRARY, Library

VERSION = "NVRM version: NVIDIA UNIX x86_64 Kernel Module  595.58.03  Fri Oct  2 2026\nGCC version: 12\n"


@pytest.fixture
def proc(tmp_path):
    (tmp_path / "self").mkdir()
    (tmp_path / "driver" / "nvidia").mkdir(parents=True)
    (tmp_path / "driver" / "nvidia" / "version").write_text(VERSION)
    library = tmp_path / "usr lib" / "libnvidia-ml.so.595.58.03"
    library.parent.mkdir()
    library.write_bytes(b"\x7fELF" * 100_000)
    (tmp_path / "self" / "maps").write_text(
        "5500-5600 r-xp 00000000 08:01 12 /usr/bin/python3\n"
        f"7000-8000 r--p 00000000 08:01 34                         {library}\n"
        f"8000-9000 r-xp 00001000 08:01 34                         {library}\n"
        "9000-a000 rw-p 00000000 00:00 0\n"
        "a000-b000 rw-p 00000000 00:00 0                          [heap]\n"
    )
    return tmp_path, library


def test_the_file_that_holds_the_function_is_named_and_hashed(proc):
    folder, library = proc
    digest = hashlib.sha256(library.read_bytes()).hexdigest()
    module = "NVRM version: NVIDIA UNIX x86_64 Kernel Module 595.58.03 Fri Oct 2 2026"
    for address in (0x7000, 0x8FFF):
        assert loaded_library(address, folder) == Library(str(library), digest, module)


@pytest.mark.parametrize("address", [0, 0x6FFF, 0x9800, 0xA800, 0xFFFF])
def test_an_address_in_no_file_names_none(proc, address):
    found = loaded_library(address, proc[0])
    assert (found.path, found.sha256) == ("", "")
    assert found.kernel_module.startswith("NVRM version")


def test_a_library_that_was_deleted_since_keeps_its_path(proc):
    folder, library = proc
    library.unlink()
    found = loaded_library(0x8000, folder)
    assert (found.path, found.sha256) == (str(library), "")


def test_without_proc_nothing_is_known(tmp_path):
    assert loaded_library(0x8000, tmp_path) == NO_LIBRARY


def test_a_library_of_this_process_is_found():
    libc = ctypes.CDLL(None)
    address = ctypes.cast(libc.getpid, ctypes.c_void_p).value
    found = loaded_library(address)
    assert "libc" in Path(found.path).name
    assert found.sha256 == hashlib.sha256(Path(found.path).read_bytes()).hexdigest()
