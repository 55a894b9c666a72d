"""Accelerators on the PCI bus, by trees of the shape of /sys/bus/pci/devices."""

from pathlib import Path

import pytest

from flopmeter.agent.sources.nvml_devices import uncovered
from flopmeter.agent.sources.pci import Accelerator, PciBus, accelerators, normal_address
from flopmeter.contract.usage import Uncovered

#: address, vendor, device, class, driver of what must not be taken for an accelerator
NOT_ONE = [
    ("0000:00:02.0", "8086", "4680", "030000", "i915"),  # Intel's processor graphics
    ("0000:02:00.0", "1a03", "2000", "030000", "ast"),  # ASPEED, of the board's management controller
    ("0000:03:00.0", "102b", "0536", "030000", "mgag200"),  # Matrox, the same
    ("0000:05:00.0", "1002", "164e", "030000", "amdgpu"),  # AMD's processor graphics
    ("0000:18:00.1", "10de", "22ba", "040300", "snd_hda_intel"),  # sound of a GPU
    ("0000:06:00.0", "10de", "22a3", "068000", "nvidia-nvswitch"),
    ("0000:07:00.0", "1234", "1111", "030000", "bochs"),  # a virtual machine's screen
    ("0000:08:00.0", "8086", "1521", "020000", "igb"),
]
ONES = [
    (("0000:18:00.0", "10de", "2330", "030200", "nvidia"), "NVIDIA"),
    (("0000:01:00.0", "10de", "2684", "030000", "nvidia"), "NVIDIA"),  # GeForce
    (("0000:21:00.0", "1002", "74a1", "120000", "amdgpu"), "AMD"),  # MI300X
    (("0000:22:00.0", "1002", "738c", "038000", ""), "AMD"),  # MI100
    (("0000:23:00.0", "1002", "744c", "030000", "amdgpu"), "AMD"),  # a discrete Radeon
    (("0000:31:00.0", "8086", "0bd5", "038000", "i915"), "Intel"),  # Max 1550
    (("0000:32:00.0", "8086", "56c0", "030000", "i915"), "Intel"),  # Flex 170
    (("0000:33:00.0", "1da3", "1020", "120000", "habanalabs"), "Intel"),  # Gaudi 2
]


def put(sysfs, address, vendor, device, kind, driver=""):  # noqa: PLR0917
    folder = sysfs / "bus" / "pci" / "devices" / address
    folder.mkdir(parents=True)
    for name, value in (("vendor", vendor), ("device", device), ("class", kind)):
        (folder / name).write_text(f"0x{value}\n")
    if driver:
        (folder / "driver").symlink_to(f"../../../../bus/pci/drivers/{driver}")
    return folder


@pytest.mark.parametrize("what", NOT_ONE, ids=lambda w: f"{w[1]}:{w[2]}")
def test_screens_bridges_and_sound_are_no_accelerators(tmp_path, what):
    put(tmp_path, *what)
    assert accelerators(tmp_path) == ()


@pytest.mark.parametrize(("what", "vendor"), ONES, ids=lambda w: w if isinstance(w, str) else w[2])
def test_cards_of_every_vendor_are_found(tmp_path, what, vendor):
    put(tmp_path, *what)
    address, number, device, _, driver = what
    (card,) = accelerators(tmp_path)
    assert card == Accelerator(normal_address(address), number, device, driver)
    assert (card.vendor_name, card.model) == (vendor, f"{number}:{device}")


def test_virtual_functions_of_a_card_are_part_of_it(tmp_path):
    put(tmp_path, *ONES[0][0])
    folder = put(tmp_path, "0000:18:00.4", "10de", "2330", "030200", "nvidia")
    (folder / "physfn").symlink_to("../0000:18:00.0")
    assert [card.address for card in accelerators(tmp_path)] == ["00000000:18:00.0"]


def test_what_cannot_be_read_is_left_out_and_the_rest_is_found(tmp_path):
    assert accelerators(tmp_path / "nowhere") == ()
    put(tmp_path, *ONES[0][0])
    folder = put(tmp_path, "0000:44:00.0", "10de", "2330", "030200")
    (folder / "vendor").write_text("garbage\n")
    folder = put(tmp_path, "0000:45:00.0", "10de", "2330", "030200")
    (folder / "class").unlink()
    folder = put(tmp_path, "0000:46:00.0", "10de", "2330", "030200")
    (folder / "device").write_bytes(b"\xff\xfe")
    assert [card.address for card in accelerators(tmp_path)] == ["00000000:18:00.0"]


def test_what_has_not_changed_is_not_read_again(tmp_path, monkeypatch):
    read = []
    real = Path.read_text
    monkeypatch.setattr(Path, "read_text", lambda self, *a: (read.append(self), real(self, *a))[1])
    for what in NOT_ONE:
        put(tmp_path, *what)
    put(tmp_path, *ONES[0][0])
    bus = PciBus(tmp_path)
    first = bus.look()
    assert [a.address for a in first] == ["00000000:18:00.0"]
    read.clear()
    assert bus.look() == first
    assert read == []
    driver = tmp_path / "bus" / "pci" / "devices" / "0000:18:00.0" / "driver"
    driver.unlink()
    driver.symlink_to("../../../../bus/pci/drivers/vfio-pci")  # handed to a virtual machine
    assert [a.driver for a in bus.look()] == ["vfio-pci"]
    put(tmp_path, *ONES[1][0])
    assert len(bus.look()) == 2
    assert PciBus(tmp_path / "nowhere").look() == ()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("0000:18:00.0", "00000000:18:00.0"),
        ("00000000:18:00.0", "00000000:18:00.0"),
        ("0009:0a:00.0\n", "00000009:0A:00.0"),
        ("10000:e1:00.0", "00010000:E1:00.0"),
        ("", ""),
    ],
)
def test_addresses_are_compared_as_nvml_writes_them(text, expected):
    assert normal_address(text) == expected


def card(bus, driver="nvidia"):
    return Accelerator(f"00000000:{bus}:00.0", "10de", "2330", driver)


def said(address, reason):
    return Uncovered(address, "NVIDIA", "", reason)


def test_what_nvml_refused_stands_at_its_address():
    found = uncovered([said("00000000:11:00.0", "why")], ["00000000:10:00.0"], [card("10"), card("11")])
    assert found == (Uncovered("00000000:11:00.0", "NVIDIA", "10de:2330", "why"),)


def test_a_gpu_without_an_address_is_the_one_that_nvml_lacks():
    found = uncovered([said("", "lost")], ["00000000:10:00.0"], [card("10"), card("11", ""), card("12", "")])
    assert [(u.pci_address[9:11], u.reason) for u in found] == [
        ("11", "lost"),
        ("12", "NVML does not list it; no driver holds it"),
    ]


def test_without_a_bus_to_look_at_what_nvml_refused_is_told_all_the_same():
    refused = [said("", "lost"), said("00000000:11:00.0", "why")]
    assert set(uncovered(refused, [], [])) == set(refused)
