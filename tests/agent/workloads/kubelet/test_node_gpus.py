"""Minor numbers from the kernel module's folder."""

from pathlib import Path

from flopmeter.agent.workloads.kubelet.node_gpus import minor_numbers

INFORMATION = """Model: \t\t NVIDIA H100 80GB HBM3
IRQ:   \t\t 130
GPU UUID: \t GPU-00000000-aaaa-4bbb-8ccc-000000000000
Bus Type: \t PCIe
Bus Location: \t 0000:18:00.0
Device Minor: \t {}
"""


def write(folder: Path, name: str, text: str | bytes) -> None:
    (folder / name).mkdir()
    (folder / name / "information").write_bytes(text if isinstance(text, bytes) else text.encode())


def test_minor_numbers_by_address(tmp_path: Path) -> None:
    write(tmp_path, "0000:18:00.0", INFORMATION.format(3))
    write(tmp_path, "0000:2a:00.0", "Device Minor: 1\n")  # an old module: the folder's name has to do
    assert minor_numbers(str(tmp_path)) == {"00000000:18:00.0": 3, "00000000:2A:00.0": 1}


def test_what_is_not_there_or_not_readable_gives_nothing(tmp_path: Path) -> None:
    assert minor_numbers(str(tmp_path / "none")) == {}
    (tmp_path / "0000:01:00.0").mkdir()
    for n, text in enumerate(
        ("", "Device Minor: -1", "Device Minor: ٣", "Device Minor: 9999999", b"\xff\xfe" * 100_000)
    ):
        write(tmp_path, f"0000:0{n + 2}:00.0", text)
    assert minor_numbers(str(tmp_path)) == {}
