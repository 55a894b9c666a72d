"""The one-bit rule (issue 6): no bit of an exported file can change without a named refusal; nor a byte come or go."""

import random
import struct
import zipfile
from pathlib import Path

import evidence_files as files
import pytest
from cryptography.hazmat.primitives import serialization

from flopmeter.audit.pack import check_pack
from flopmeter.audit.steps import Key, Wanted, verify
from flopmeter.cli import container
from flopmeter.evidence.errors import EvidenceError

KEY = Key(serialization.load_pem_public_key(files.key_pem()), files.key_id())  # type: ignore[arg-type]
ZIPPED, PLACES = 1_500, 250  # positions: in the zip, and in each member that is not protected by a zip
STEPS = {
    "container", "signature", "subject", "schema", "disclosures", "checkpoint", "consistency", "inclusion", "sum tree",
    "arithmetic", "coverage", "pack",
}  # fmt: skip


def refused(path: Path) -> EvidenceError:
    with pytest.raises(EvidenceError) as e:
        verify(container.read(path), KEY, Wanted(pack=check_pack))
    assert e.value.step in STEPS
    assert e.value.reason
    return e.value


def flipped(raw: bytes, bit: int) -> bytes:
    changed = bytearray(raw)
    changed[bit // 8] ^= 1 << bit % 8
    return bytes(changed)


@pytest.mark.parametrize("profile", ["aiOffice", "auditor"])
def test_no_bit_of_a_zip_can_change(profile: str, tmp_path: Path) -> None:
    rng = random.Random(profile)
    made = files.attestation(profile, witnesses=files.WITNESSES[:1])
    raw, path = made.zipped(), made.write(tmp_path)
    frames = set(range(8 * 80)) | set(
        range(8 * len(raw) - 8 * 300, 8 * len(raw))
    )  # head, directory: every fourth
    for bit in [*rng.sample(range(8 * len(raw)), ZIPPED), *rng.sample(sorted(frames), 400)]:
        path.write_bytes(flipped(raw, bit))
        refused(path)


@pytest.mark.parametrize("name", [*files.MEMBERS, *files.PACK])
def test_no_bit_of_a_member_can_change_where_no_zip_guards_it(name: str, tmp_path: Path) -> None:
    """Of a folder. But for witnesses' lines that the verifier has no key for, every byte is bound by what is signed."""
    rng = random.Random(name)
    made = files.attestation("auditor")
    folder = made.unpacked(tmp_path)
    raw = made.files[name]
    found = set()
    for bit in rng.sample(range(8 * len(raw)), min(PLACES, 8 * len(raw))):
        (folder / name).write_bytes(flipped(raw, bit))
        found.add(refused(folder).step)
    assert found <= {"signature", "schema"} if name == files.MEMBERS[0] else "signature" not in found


@pytest.mark.parametrize("name", [*files.MEMBERS, *files.PACK])
def test_no_byte_can_come_or_go(name: str, tmp_path: Path) -> None:
    made = files.attestation("auditor")
    folder, raw = made.unpacked(tmp_path), made.files[name]
    for changed in (
        raw[:-1],
        raw[1:],
        raw + b"\0",
        raw + b"\n",
        b"\n" + raw,
        raw[: len(raw) // 2],
        b"",
        raw * 2,
    ):
        (folder / name).write_bytes(changed)
        refused(folder)


def test_no_byte_of_a_zip_can_come_or_go(tmp_path: Path) -> None:
    made = files.attestation()
    raw, path = made.zipped(), made.write(tmp_path)
    rng = random.Random(6)
    ends = [rng.randrange(len(raw)) for _ in range(200)]
    for changed in [*(raw[:end] for end in ends), raw + b"\0", b"\0" + raw, raw + raw, raw[:-1] + b"\0\0"]:
        path.write_bytes(changed)
        refused(path)


# ---- zips that another writer made ---------------------------------------------------------------------------


def zipped(path: Path, members: list[tuple[str, bytes]], **how: object) -> Path:
    """By zipfile, with something otherwise."""
    with zipfile.ZipFile(path, "w", int(how.pop("compression", zipfile.ZIP_STORED))) as z:  # type: ignore[call-overload]
        for name, raw in members:
            info = zipfile.ZipInfo(name)
            info.create_system, info.external_attr = 3, 0o100644 << 16
            for key, value in how.items():
                setattr(info, key, value)
            with pytest.warns(UserWarning, match="Duplicate") if name in z.namelist() else _nothing():
                z.writestr(info, raw, z.compression)
    return path


class _nothing:  # noqa: N801
    def __enter__(self) -> None: ...
    def __exit__(self, *_: object) -> None: ...


@pytest.mark.parametrize(
    "how",
    [
        {"compression": zipfile.ZIP_DEFLATED},
        {"date_time": (1980, 1, 1, 0, 0, 2)},
        {"date_time": (2026, 11, 22, 0, 0, 0)},
        {"comment": b"hello"},
        {"extra": struct.pack("<HH", 0xCAFE, 0)},
        {"create_system": 0},
        {"external_attr": 0o100755 << 16},
        {"external_attr": 0o120777 << 16},  # a symbolic link
        {"external_attr": 0o040755 << 16 | 0x10},  # a folder
        {"internal_attr": 1},
    ],
    ids=str,
)
def test_a_zip_with_any_other_attribute_is_refused(how: dict[str, object], tmp_path: Path) -> None:
    members = list(files.attestation().files.items())
    verify(container.read(zipped(tmp_path / "as-it-is", members)), KEY)
    assert refused(zipped(tmp_path / "otherwise", members, **how)).step == "container"


def test_members_more_less_twice_or_elsewhere_are_refused(tmp_path: Path) -> None:
    made = files.attestation("auditor")
    members = list(made.files.items())
    verify(container.read(zipped(tmp_path / "as-it-is", members)), KEY)
    others = {
        "more": [*members, ("more.txt", b"")],
        "before": [("more.txt", b""), *members],
        "twice": [members[0], *members],
        "twice-last": [*members, members[0]],
        "less": members[:-1],
        "order": [members[1], members[0], *members[2:]],
        "path": [("../" + members[0][0], members[0][1]), *members[1:]],
        "absolute": [("/" + members[0][0], members[0][1]), *members[1:]],
        "case": [(members[0][0].upper(), members[0][1]), *members[1:]],
        "none": [],
    }
    for name, changed in others.items():
        assert refused(zipped(tmp_path / name, changed)).step == "container", name


def test_a_bomb_is_refused_before_it_grows(tmp_path: Path) -> None:
    members = [
        ("bundle.sigstore.json", b"{" + b" " * 50_000_000 + b"}"),
        *list(files.attestation().files.items())[1:],
    ]
    path = zipped(tmp_path / "bomb", members, compression=zipfile.ZIP_DEFLATED)
    assert path.stat().st_size < 200_000
    assert refused(path).step == "container"


def test_a_member_of_another_size_than_any_is_refused_unread(tmp_path: Path) -> None:
    """A sparse file of 3 GB costs neither memory nor a crash."""
    folder = files.attestation().unpacked(tmp_path)
    with (folder / "receipt.tlog-proof").open("r+b") as f:
        f.truncate(70_000_000)
    assert refused(folder).step == "subject"


def test_links_and_pipes_in_a_folder_are_refused(tmp_path: Path) -> None:
    import os

    folder = files.attestation().unpacked(tmp_path / "a")
    away = tmp_path / "evidence.json"
    (folder / "evidence.json").rename(away)
    (folder / "evidence.json").symlink_to(away)
    with pytest.raises(OSError):
        container.read(folder)
    (folder / "evidence.json").unlink()
    os.mkfifo(folder / "evidence.json")
    assert refused(folder).step == "container"


def test_the_zip_is_the_one_that_the_collector_writes(tmp_path: Path) -> None:
    from flopmeter.collector.attest import container as writer

    made = files.attestation("auditor")
    with (tmp_path / "by-the-collector").open("w+b") as out:
        writer.write(out, [writer.member(name, raw) for name, raw in made.files.items()])
    assert (tmp_path / "by-the-collector").read_bytes() == made.zipped()  # by Python's zipfile


@pytest.mark.parametrize("size", [2**32 - 2, 2**32 - 1, 2**32, 2**33 + 7])
def test_large_members_are_framed_so_that_others_read_them(size: int, tmp_path: Path) -> None:
    """A sparse file; Python's zipfile finds each member where it is, as large as it is."""
    members = [("a", 5, 1), ("b", size, 2), ("c", 7, 3)]
    frames = container.frames(members)
    with (tmp_path / "sparse").open("w+b") as f:
        offsets = []
        for frame, (_, length, _) in zip(frames, [*members, ("", 0, 0)], strict=True):
            offsets.append(f.tell())
            f.write(frame)
            f.seek(length, 1)
    with zipfile.ZipFile(tmp_path / "sparse") as z:
        found = [(i.filename, i.file_size, i.compress_size, i.CRC, i.header_offset) for i in z.infolist()]
    wanted = [(name, n, n, crc, at) for (name, n, crc), at in zip(members, offsets[:-1], strict=True)]
    assert found == wanted
