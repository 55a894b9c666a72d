"""Completion in the shells themselves, and manual pages that `man` and `mandoc` take without a word."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from builders import WINDOW_NS, Chain, busy
from desk import Desk
from terminals import Terminal

from flopmeter.cli.main import flopmeter
from flopmeter.cli.manual import pages
from flopmeter.collector.law.regimes import shipped
from flopmeter.collector.registry.entries import Declare
from flopmeter.collector.registry.say import say
from flopmeter.collector.store.run_names import MAX_NAMES, names_beginning
from flopmeter.contract.usage import Workload, WorkloadKind

BIN = str(Path(sys.executable).parent)
RUNS = ("atlas-70b", "atlas-70b-chat", "zeta", "漢字", "two words", "quote'd")


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    path = tmp_path_factory.mktemp("shell") / "books.sqlite"
    chain = Chain()
    with Desk(path, shipped()) as desk:
        agent = desk.agent(chain)
        for i, run in enumerate((*RUNS, "")):
            work = Workload(WorkloadKind.SLURM, job=str(4711 + i), run=run, dtype="bf16")
            desk.offer(agent, chain.next([busy(0)], (work,)))
        desk.commit()
    say(
        path,
        lambda _: Declare("planned-9", budget_flop=1),
        "ada",
        "planned",
        lambda: chain.unix_ns + WINDOW_NS,
    )
    return path


def script(shell: str, tmp_path: Path) -> Path:
    done = subprocess.run(
        [f"{BIN}/flopmeter", "completion", shell], capture_output=True, check=True, timeout=60
    )
    (tmp_path / "script").write_bytes(done.stdout)
    return tmp_path / "script"


@pytest.fixture
def terminal(store, tmp_path):
    """A shell on a terminal, with the command and the store at hand."""
    opened = []

    def start(*argv, **environ):
        environ = {
            "PATH": f"{BIN}:{os.environ['PATH']}",
            "FLOPMETER_STORE": str(store),
            "HOME": str(tmp_path),
            **environ,
        }
        opened.append(Terminal(list(argv), columns=160, **environ))
        return opened[-1]

    yield start
    for t in opened:
        t.close()


def need(shell: str) -> str:
    found = shutil.which(shell)
    if found is None:
        pytest.skip(f"{shell} is not installed")
    return found


TYPED = (
    ("flopmeter ru\tsh\tzet\t", "flopmeter runs show zeta"),
    (
        "flopmeter runs show slurm:c1/471\t",
        "flopmeter runs show slurm:c1/4717",
    ),  # bash breaks words at colons
    ("flopmeter runs report plan\t", "flopmeter runs report planned-9"),
    ("flopmeter forecast show ze\t", "flopmeter forecast show zeta"),
    ("flopmeter runs report zeta --mark\t", "flopmeter runs report zeta --markdown"),
    ("flopmeter drafts make korea-sub\tze\t", "flopmeter drafts make korea-submission zeta"),
)


@pytest.mark.e2e
@pytest.mark.parametrize("shell", ["bash", "zsh"])
def test_a_shell_completes_commands_options_and_runs(terminal, tmp_path, shell):
    path = script(shell, tmp_path)
    if shell == "bash":
        t = terminal(need("bash"), "--norc", "--noprofile", "-i", PS1="$ ")
        t.press(f". {path}; bind 'set enable-bracketed-paste off'; echo rea''dy\n")
    else:
        t = terminal(need("zsh"), "-f", "-i", PS1="$ ")
        t.press(f"autoload -U compinit; compinit -D; . {path}; unsetopt zle_bracketed_paste; echo rea''dy\n")
    t.until(lambda t: "ready\r\n" in t.seen, "the script to be read")
    for typed, wanted in TYPED:
        before = len(t.seen)
        for part in typed.split("\t")[:-1]:
            t.press(part + "\t")
            # The next word is typed when this one is complete: keys are not lost, but a person would wait as well.
            now = len(t.seen)
            t.until(lambda t, now=now: len(t.seen) > now, "an answer")
        t.press("\x01echo '\x05'\n")  # the line as it stands, printed by the shell
        shown = f"\n{wanted}"
        t.until(
            lambda t, before=before, shown=shown: shown in t.seen[before:].replace("\r", ""), f"{wanted!r}"
        )


@pytest.mark.e2e
def test_fish_completes_commands_options_and_runs(store, tmp_path):
    fish, path = need("fish"), script("fish", tmp_path)
    environ = {
        **os.environ,
        "PATH": f"{BIN}:{os.environ['PATH']}",
        "FLOPMETER_STORE": str(store),
        "HOME": str(tmp_path),
    }
    for typed, wanted in (
        ("flopmeter runs sho", "show"),
        ("flopmeter runs show zet", "zeta"),
        ("flopmeter runs report zeta --mark", "--markdown"),
    ):
        words = f"source {path}; complete -C '{typed}'"
        done = subprocess.run(
            [fish, "--no-config", "-c", words], env=environ, capture_output=True, check=True, timeout=60
        )
        assert done.stdout.decode().split("\t")[0].strip() == wanted


@pytest.mark.parametrize("what", ["missing", "no store", "busy", "a directory"])
def test_completion_never_fails_loudly(tmp_path, what):
    place = tmp_path / "books.sqlite"
    if what == "no store":
        place.write_bytes(b"no database at all" * 100)
    elif what == "a directory":
        place.mkdir()
    elif what == "busy":
        place.write_bytes(b"")
        place.with_name("books.sqlite-wal").write_bytes(b"x")
    environ = {**os.environ, "FLOPMETER_STORE": str(place)}
    environ |= {
        "COMP_WORDS": "flopmeter runs show a",
        "COMP_CWORD": "3",
        "_FLOPMETER_COMPLETE": "bash_complete",
    }
    done = subprocess.run([f"{BIN}/flopmeter"], env=environ, capture_output=True, check=False, timeout=60)
    assert (done.stdout.strip(), done.stderr) == (b"", b"")


def test_names_that_begin_so(store, tmp_path):
    assert names_beginning(store, "atlas") == ["atlas-70b", "atlas-70b-chat"]
    assert names_beginning(store, "漢") == ["漢字"]
    assert names_beginning(store, "plan") == ["planned-9"]
    assert names_beginning(store, "slurm:") == ["slurm:c1/4717"]
    assert set(names_beginning(store, "")) == {*RUNS, "planned-9", "slurm:c1/4717"}
    assert names_beginning(store, "%") == names_beginning(store, "_") == []  # no patterns
    assert names_beginning(tmp_path / "none", "") == []
    assert MAX_NAMES >= 200


def test_what_a_shell_would_take_for_several_words_is_not_offered(store):
    environ = {
        **os.environ,
        "FLOPMETER_STORE": str(store),
        "COMP_WORDS": "flopmeter runs show ",
        "COMP_CWORD": "3",
    }
    done = subprocess.run(
        [f"{BIN}/flopmeter"],
        env=environ | {"_FLOPMETER_COMPLETE": "bash_complete"},
        capture_output=True,
        check=True,
        timeout=60,
    )
    offered = [line.partition(",")[2] for line in done.stdout.decode().splitlines()]
    assert "zeta" in offered
    assert not [name for name in offered if " " in name]


# ---- manual pages ----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def manual(tmp_path_factory):
    folder = tmp_path_factory.mktemp("manual")
    subprocess.run([f"{BIN}/flopmeter", "man", str(folder)], capture_output=True, check=True, timeout=120)
    return folder / "man1"


def test_every_command_has_its_page_and_pages_name_each_other(manual):
    texts = dict(pages(flopmeter, "2026-11-22"))
    assert {path.stem for path in manual.iterdir()} == set(texts)
    assert {"flopmeter", "flopmeter-runs-report", "flopmeter-collector-token-create"} <= set(texts)
    for name, text in texts.items():
        also = text.partition(".SH SEE ALSO")[2].replace("\\fB", "").replace("\\fR", "").replace("\\-", "-")
        for named in also.replace("(1)", "").replace(",", " ").split():
            assert named in texts, f"{name} names {named}"


def test_a_page_says_what_help_says(manual):
    page = (manual / "flopmeter-runs-report.1").read_text().replace("\\-", "-")
    assert "flopmeter runs report llm-7 -o llm-7.html" in page.partition(".SH EXAMPLES")[2]
    assert ".TP\n\\fB--markdown\\fR\n" in page


@pytest.mark.parametrize("checker", ["man", "mandoc"])
def test_a_formatter_takes_every_page_without_a_warning(manual, checker):
    program = need(checker)
    files = sorted(map(str, manual.iterdir()))
    if checker == "mandoc":
        done = subprocess.run(
            [program, "-T", "lint", "-W", "warning", *files],
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )
        assert (done.stdout, done.stderr) == ("", "")
        return
    for file in files[:: max(1, len(files) // 12)]:
        words = [program, "--warnings", "-E", "UTF-8", "-l", "-Tutf8", "-Z", file]
        done = subprocess.run(
            words,
            env={**os.environ, "LC_ALL": "C.UTF-8"},
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )
        assert (done.returncode, done.stderr) == (0, "")


def test_hostile_text_is_shown_and_is_no_request():
    import click

    @click.command(help=".so /etc/passwd\n\n'br \\fB-x ~ ^ `x`\n\n\b\n  .ft B\n  flopmeter x\\n")
    def bad():
        pass

    ((_, text),) = pages(bad, "2026-11-22", "bad")
    assert not [line for line in text.splitlines() if line.startswith((".so", "'br", ".ft"))]
    assert "\\efB\\-x \\(ti \\(ha \\(gax\\(ga" in text
