"""Exit codes and error texts of the command line: 0 done, 1 no, 2 usage, 3 cannot reach or read."""

import errno
import importlib
import subprocess
import sys
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from flopmeter.agent.errors import AgentError
from flopmeter.agent.errors import SettingsError as AgentSettingsError
from flopmeter.cli import main as cli
from flopmeter.collector.errors import CollectorError, RegimeError, SettingsError, StoreError


def run_main(monkeypatch: pytest.MonkeyPatch, raised: BaseException) -> int | str | None:
    """Exit code of main() when the command raises `raised`."""

    def command(**_: object) -> None:
        raise raised

    monkeypatch.setattr(cli, "flopmeter", command)
    with pytest.raises(SystemExit) as e:
        cli.main()
    return e.value.code


@pytest.mark.parametrize(
    ("raised", "code"),
    [
        (AgentError("no spool", "make one"), 3),
        (AgentSettingsError("bad"), 2),
        (CollectorError("no", "do"), 3),
        (StoreError("cannot open"), 3),
        (SettingsError("bad"), 2),
        (RegimeError("not one"), 1),
        (click.UsageError("bad word"), 2),
        (click.BadParameter("bad value"), 2),
        (click.ClickException("cannot"), 3),
        (click.Abort(), 130),
        (click.exceptions.Exit(1), 1),
        (BrokenPipeError(), 0),
        (OSError(errno.ENOSPC, "No space left on device"), 3),
    ],
    ids=lambda v: type(v).__name__ if isinstance(v, BaseException) else str(v),
)
def test_errors_map_to_exit_codes(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], raised: BaseException, code: int
) -> None:
    assert run_main(monkeypatch, raised) == code
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "Traceback" not in captured.err


def test_the_hint_is_printed(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    run_main(monkeypatch, StoreError("cannot open x.db: disk full", "make room"))
    assert capsys.readouterr().err == "Error: cannot open x.db: disk full\nHint: make room\n"


def test_a_defect_is_shown_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    def command(**_: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(cli, "flopmeter", command)
    with pytest.raises(ZeroDivisionError):
        cli.main()


@pytest.mark.parametrize(
    "words",
    [["events"], ["deadlines"], ["forecast", "show"], ["drafts", "make"], ["runs", "declare"]],
    ids=" ".join,
)
def test_help_teaches_by_examples(words: list[str]) -> None:
    """Each on a line of its own, that does not break."""
    result = CliRunner().invoke(cli.flopmeter, [*words, "--help"], terminal_width=80)
    examples = [
        line for line in result.output.splitlines() if line.startswith(f"    flopmeter {' '.join(words)} ")
    ]
    assert len(examples) >= 2


def test_unknown_command_is_usage() -> None:
    result = CliRunner().invoke(cli.flopmeter, ["no-such-command"])
    assert result.exit_code == 2
    assert "No such command" in result.output


def test_a_missing_extra_says_which_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    def without_grpc(name: str) -> object:
        raise ModuleNotFoundError("No module named 'grpc'", name="grpc")

    monkeypatch.setattr(importlib, "import_module", without_grpc)
    result = CliRunner().invoke(cli.flopmeter, ["agent", "run"])
    assert result.exit_code == 1  # click's own; main() makes it 3, as for every ClickException
    assert "agent needs the package 'grpc'" in result.output
    assert "flopmeter[agent]" in result.output


def test_a_missing_module_of_our_own_is_a_defect(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(name: str) -> object:
        raise ModuleNotFoundError("No module named 'flopmeter.agent.cli'", name="flopmeter.agent.cli")

    monkeypatch.setattr(importlib, "import_module", broken)
    result = CliRunner().invoke(cli.flopmeter, ["agent", "run"])
    assert isinstance(result.exception, ModuleNotFoundError)


@pytest.mark.parametrize(
    "words", [("agent", "read", "--no-such-option"), ("runs", "nonsense"), ("events", "list", "x", "y")]
)
def test_usage_errors_from_a_real_process(words: tuple[str, ...]) -> None:
    run = subprocess.run(
        [str(Path(sys.executable).with_name("flopmeter")), *words], capture_output=True, text=True, timeout=60
    )
    assert run.returncode == 2
    assert run.stdout == ""
    assert "Usage:" in run.stderr


@pytest.mark.parametrize(
    "words", [("runs", "list"), ("events", "list"), ("fleet", "list"), ("collector", "fsck")]
)
def test_books_that_are_not_there_cannot_be_read(tmp_path: Path, words: tuple[str, ...]) -> None:
    run = subprocess.run(
        [str(Path(sys.executable).with_name("flopmeter")), *words, "--store", str(tmp_path / "no.db")],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert run.returncode == 3, run.stderr
    assert "no.db" in run.stderr
    assert "Traceback" not in run.stderr
    assert not (tmp_path / "no.db").exists(), "reading must not make an empty store"


def test_who_stops_reading_is_no_answer() -> None:
    """`| head` ends a command with 0, not with the 1 that says no."""
    words = [sys.executable, "-c", "from flopmeter.cli.main import main; main()", "regimes", "show", "korea"]
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as done:
        assert done.stdout is not None
        assert done.stderr is not None
        done.stdout.close()
        assert (done.wait(60), done.stderr.read()) == (0, b"")
