"""Settings: precedence, unknown keys, and the values that are refused."""

from dataclasses import fields

import pytest

from flopmeter.cli.addresses import is_loopback
from flopmeter.collector.errors import SettingsError
from flopmeter.collector.ingest.admission import Admission, read_admit_file
from flopmeter.collector.settings import CollectorSettings, check_environment, read_config, split_address


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"linger_ms": -1}, "--linger-ms: expected 0 to 10000, got -1"),
        ({"linger_ms": 10_001}, "--linger-ms"),
        ({"listen": "9840"}, "--listen: expected HOST:PORT"),
        ({"listen": "127.0.0.1:x"}, "--listen: expected HOST:PORT"),
        ({"listen": "127.0.0.1:65536"}, "--listen: expected HOST:PORT"),
        ({"listen": "0.0.0.0:9840"}, "expected a loopback address"),
        ({"listen": "[::]:9840"}, "expected a loopback address"),
        ({"listen": "collector.example:9840"}, "expected a loopback address"),
        ({"http": "nowhere"}, "--http: expected HOST:PORT"),
    ],
)
def test_what_cannot_be_is_refused_by_name(tmp_path, values, said):
    with pytest.raises(SettingsError, match=said):
        CollectorSettings(tmp_path / "b.db", **values)


@pytest.mark.parametrize("listen", ["127.0.0.1:0", "[::1]:9840", "localhost:1", "127.8.9.1:65535"])
def test_loopback_addresses_are_taken(tmp_path, listen):
    assert CollectorSettings(tmp_path / "b.db", listen=listen).listen == listen


def test_addresses():
    assert split_address("x", "[::1]:80") == ("::1", 80)
    assert not is_loopback("10.0.0.1")


def test_every_setting_is_shown(tmp_path):
    shown = CollectorSettings(tmp_path / "b.db", linger_ms=7).shown()
    assert f"store = {tmp_path / 'b.db'}" in shown
    assert "linger_ms = 7" in shown
    assert len(shown) == len(fields(CollectorSettings))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[collector]\ncolour = 1", "unknown key 'colour'"),
        ("store = 'x'", "unknown table or key 'store'"),
        ("[colector]\nstore = 'x'", "unknown table or key 'colector'"),
        ("collector = 1", "expected a table .collector., got 1"),
        ("[collector]\nlinger_ms = '5'", "linger_ms: expected int, got '5'"),
        ("[collector]\nadmit_new = 1", "admit_new: expected bool, got 1"),
        ("[collector]\nstore = 5", "store: expected str, got 5"),
        ("store = ", "expected TOML"),
    ],
)
def test_bad_config_files_are_named(tmp_path, text, said):
    path = tmp_path / "c.toml"
    path.write_text(text)
    with pytest.raises(SettingsError, match=said):
        read_config(path)


def test_config_files(tmp_path):
    path = tmp_path / "c.toml"
    path.write_text("[collector]\nstore = 'x.db'\nadmit-new = true\nlinger_ms = 5\n[agent]\nwindow = '1s'\n")
    assert read_config(path) == {"store": "x.db", "admit_new": True, "linger_ms": 5}
    path.write_text("[agent]\nwindow = '1s'\n")
    assert read_config(path) == {}
    with pytest.raises(SettingsError, match="cannot read"):
        read_config(tmp_path / "absent")


def test_misspelt_variables_are_refused_and_kubernetes_own_are_not():
    known = ["FLOPMETER_COLLECTOR_STORE"]
    check_environment(
        {
            "FLOPMETER_COLLECTOR_STORE": "x",
            "FLOPMETER_COLLECTOR_SERVICE_HOST": "10.0.0.1",
            "FLOPMETER_COLLECTOR_PORT": "tcp://10.0.0.1:9840",
            "FLOPMETER_COLLECTOR_PORT_9840_TCP": "tcp://10.0.0.1:9840",
            "FLOPMETER_AGENT_X": "theirs",
            "HOME": "/",
        },
        known,
    )
    with pytest.raises(SettingsError, match="FLOPMETER_COLLECTOR_STOER"):
        check_environment({"FLOPMETER_COLLECTOR_STOER": "x"}, known)
    with pytest.raises(SettingsError, match="FLOPMETER_COLLECTOR_PORT"):
        check_environment({"FLOPMETER_COLLECTOR_PORT": "9840"}, known)


KEY = "ab" * 32


def test_admit_files(tmp_path):
    path = tmp_path / "admit"
    path.write_text(f"# keys\n\n{KEY} node-1\n{'cd' * 32}  # no name\n")
    keys = read_admit_file(path)
    assert keys == {bytes.fromhex(KEY): "node-1", bytes.fromhex("cd" * 32): ""}
    assert Admission(keys).admit(bytes.fromhex(KEY)) == "file"
    assert Admission(keys).admit(bytes(32)) == ""
    assert Admission(keys, admit_new=True).admit(bytes(32)) == "first-use"


@pytest.mark.parametrize("line", ["xyz node", KEY[:-2], f"{KEY} a b"])
def test_bad_admit_lines_are_named(tmp_path, line):
    path = tmp_path / "admit"
    path.write_text(f"# one\n{line}\n")
    with pytest.raises(SettingsError, match="line 2: expected 64 hex digits"):
        read_admit_file(path)


def test_an_absent_admit_file_is_named(tmp_path):
    with pytest.raises(SettingsError, match="cannot read"):
        read_admit_file(tmp_path / "absent")
