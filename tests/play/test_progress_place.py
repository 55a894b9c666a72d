"""Progress on stderr, and the directory a demo lives in."""

import io
from pathlib import Path

import click
import pytest

from flopmeter.play import place as place_module
from flopmeter.play.place import PREFIX, place
from flopmeter.play.progress import Progress, bar, wants_colour


class Tty(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize("width", [20, 40, 80, 200])
def test_a_bar_stays_on_its_line(width: int) -> None:
    for done in (0, 1, 5000, 10_000, 12_000):
        assert len(bar("replaying a-trace.jsonl", done, 10_000, 2.0, width)) < width


def test_a_bar_tells_share_count_and_rate() -> None:
    assert "25%  2,500 of 10,000 readings  1,250/s" in bar("x", 2500, 10_000, 2.0, 100)
    assert "100%" in bar("x", 0, 0, 0.0, 100)  # an empty trace is done


def test_without_a_terminal_four_plain_lines() -> None:
    out = io.StringIO()
    with Progress("playing", 1000, stream=out) as progress:
        for done in range(1, 1001):
            progress.update(done)
    assert out.getvalue().splitlines() == [
        f"playing: {n} of 1,000 readings" for n in ("250", "500", "750", "1,000")
    ]


def test_on_a_terminal_it_redraws_in_place_and_not_more_often_than_seen() -> None:
    out, now = Tty(), [0.0]
    with Progress("playing", 1000, stream=out, now=lambda: now[0]) as progress:
        for done in range(1, 1001):
            now[0] += 0.001
            progress.update(done)
    text = out.getvalue()
    assert 5 <= text.count("\r") <= 13
    assert text.endswith("1,000 of 1,000 readings  1,000/s\x1b[K\n")


def test_quiet_is_quiet() -> None:
    for out in (io.StringIO(), Tty()):
        with Progress("playing", 10, stream=out, quiet=True) as progress:
            progress.update(10)
        assert out.getvalue() == ""


def test_colour_is_for_terminals_that_want_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm")
    assert wants_colour(Tty())
    assert not wants_colour(io.StringIO())
    monkeypatch.setenv("TERM", "dumb")
    assert not wants_colour(Tty())
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("NO_COLOR", "1")
    assert not wants_colour(Tty())


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(place_module.tempfile, "gettempdir", lambda: str(tmp_path))
    return tmp_path


def test_what_a_demo_leaves_is_cleared_by_the_next(root: Path) -> None:
    with place(None, keep=True) as first:
        (first.path / "books").write_text("x")
    assert (first.path / "books").exists()
    with place(None, keep=True) as second:
        assert not first.path.exists()
        assert second.path.name.startswith(PREFIX)
        assert second.path.stat().st_mode & 0o077 == 0


def test_a_demo_that_runs_is_left_alone(root: Path) -> None:
    with place(None, keep=True) as first, place(None, keep=False) as second:
        assert first.path.exists()
        assert second.path.exists()
    assert first.path.exists()
    assert not second.path.exists()


def test_others_files_are_never_cleared(root: Path) -> None:
    target = root / "elsewhere"
    target.mkdir()
    (target / "in-use").write_text("")
    (root / (PREFIX + "link")).symlink_to(target)
    (root / (PREFIX + "no-lock")).mkdir()
    (root / (PREFIX + "file")).write_text("x")
    with place(None, keep=False):
        pass
    assert sorted(p.name for p in root.iterdir()) == sorted(
        ["elsewhere", PREFIX + "link", PREFIX + "no-lock", PREFIX + "file"]
    )


def test_a_named_directory_is_kept_and_must_be_empty(tmp_path: Path) -> None:
    with place(tmp_path / "new/place", keep=False) as where:
        assert where.named
        (where.path / "books").write_text("x")
    assert (tmp_path / "new/place/books").exists()
    with pytest.raises(click.UsageError, match="empty directory"), place(tmp_path / "new/place", keep=False):
        pass
    with (
        pytest.raises(click.ClickException, match="cannot be used"),
        place(tmp_path / "new/place/books", keep=False),
    ):
        pass
