"""One store with as much in it as an export can say, made once."""

import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from attest_books import LAWS
from export_books import export_store

from flopmeter.cli.main import main
from flopmeter.collector.books import HOUR_NS
from flopmeter.collector.report.queries import Asked, asked, reading


@pytest.fixture(scope="session")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("export") / "books.sqlite"
    export_store(path)
    return path


@pytest.fixture(scope="session")
def question(store: Path) -> Asked:
    """A day after the last record: agents are silent."""
    with reading(store) as reader:
        last = reader.rows("SELECT max(window_end_unix_ns) FROM records").fetchone()[0]
    return asked(last + 24 * HOUR_NS, LAWS)


@pytest.fixture
def export(
    monkeypatch: pytest.MonkeyPatch, capfdbinary: pytest.CaptureFixture[bytes], store: Path, question: Asked
) -> Callable[..., tuple[int, bytes, str]]:
    """(exit code, stdout, stderr) of `flopmeter export WORDS`, asked at the question's moment."""
    monkeypatch.setattr("flopmeter.collector.export.cli.signal.signal", lambda *_: None)
    monkeypatch.setattr("flopmeter.collector.cli_parts.every_regime", lambda _: LAWS)
    monkeypatch.setattr("time.time_ns", lambda: question.now_unix_ns)

    def run(*words: str, of: Path | None = None) -> tuple[int, bytes, str]:
        monkeypatch.setattr(sys, "argv", ["flopmeter", "export", *words, "--store", str(of or store)])
        with pytest.raises(SystemExit) as done:
            main()
        out = capfdbinary.readouterr()
        assert isinstance(done.value.code, int)
        return done.value.code, out.out, out.err.decode()

    return run
