"""Start of every command: what it may load before it runs. Modules, not seconds, so that it holds anywhere.

An unwanted import is what makes a command slow (grpc alone is 60 ms, reference/performance.md); the measured
times are in `make bench`.
"""

import json
import subprocess
import sys
from collections.abc import Iterator

import click
import pytest

from flopmeter.cli.main import COMMANDS, flopmeter

#: Packages that no `--help` may load.
HEAVY = (
    "grpc",
    "google",
    "nacl",
    "sqlite_utils",
    "pynvml",
    "prometheus_client",
    "zstandard",
    "psutil",
    "cffi",
)
#: Standard library that costs tens of milliseconds and that no `--help` needs.
SLOW_STDLIB = ("asyncio", "sqlite3", "http.server", "xml", "unittest", "multiprocessing")

#: Runs the command line in this interpreter and prints which modules it loaded.
_PROBE = """
import json, sys
sys.argv = ["flopmeter", *json.loads(sys.argv[1])]
from flopmeter.cli.main import main
try:
    main()
except SystemExit as e:
    status = e.code
print(json.dumps({"status": status, "modules": sorted(sys.modules)}), file=sys.stderr)
"""


def commands(group: click.Group, path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """Every command and group under `group`, as it is typed."""
    context = click.Context(group)
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        assert command is not None, f"{' '.join([*path, name])} is listed and cannot be had"
        yield (*path, name)
        if isinstance(command, click.Group):
            yield from commands(command, (*path, name))


ALL = [(), *commands(flopmeter)]


def loaded(*words: str) -> tuple[int, set[str], str]:
    """(exit code, modules loaded, stdout) of `flopmeter WORDS` in a fresh interpreter."""
    run = subprocess.run(
        [sys.executable, "-c", _PROBE, json.dumps(words)], capture_output=True, text=True, timeout=60
    )
    assert run.returncode == 0, run.stderr
    result = json.loads(run.stderr.splitlines()[-1])
    return result["status"], set(result["modules"]), run.stdout


@pytest.mark.parametrize("words", ALL, ids=lambda w: " ".join(w) or "flopmeter")
def test_help_loads_nothing_heavy(words: tuple[str, ...]) -> None:
    status, modules, out = loaded(*words, "--help")
    assert status == 0
    assert out.startswith("Usage: ")
    assert not sorted(m for m in modules if m.split(".")[0] in HEAVY)
    assert not sorted(m for m in modules if m in SLOW_STDLIB)


def test_version_loads_no_command() -> None:
    status, modules, out = loaded("--version")
    assert status == 0
    assert out.startswith("flopmeter, version ")
    assert not sorted(m for m in modules if m.startswith(("flopmeter.agent.", "flopmeter.collector.")))


def test_the_probe_sees_a_heavy_import() -> None:
    """The test above can fail: reading a trace's store does load what `--help` may not."""
    code = "import json,sys,nacl.bindings;print(json.dumps(sorted(sys.modules)))"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert [m for m in json.loads(run.stdout) if m.split(".")[0] in HEAVY]


def test_every_command_of_the_table_is_there_and_says_what_it_is_for() -> None:
    assert {words[0] for words in ALL if words} == set(COMMANDS)
    for words in ALL[1:]:
        command: click.Command = flopmeter
        for word in words:
            assert isinstance(command, click.Group)
            found = command.get_command(click.Context(command), word)
            assert found is not None
            command = found
        assert command.help, f"{' '.join(words)} has no help"
        for option in command.params:
            if isinstance(option, click.Option) and not option.hidden:
                assert option.help, f"{' '.join(words)} {option.opts[0]} has no help"
