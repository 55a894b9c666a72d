"""The worked example of docs/runs.md is what the program prints, to the letter.

After a change that is meant: `python tests/docs/test_runs_example.py` writes the page's answers anew; read the diff.
"""

import contextlib
import io
import os
import re
import shlex
import sys
import tempfile
import time
from pathlib import Path
from unittest import mock

sys.path.insert(0, str(Path(__file__).parents[1]))  # when it is run as a script

from builders import WINDOW_NS, Chain, busy
from desk import Desk

from flopmeter.cli.main import main
from flopmeter.collector.law.regimes import shipped
from flopmeter.contract.usage import Workload, WorkloadKind

PAGE = Path(__file__).parents[2] / "docs" / "runs.md"
BEGIN, END = "<!-- runs example -->", "<!-- /runs example -->"
#: 2026-11-20T08:00Z, and when the commands of the page are typed: every ten seconds from 14:01 on.
BEGUN, TYPED = 1_795_161_600_000_000_000, 1_795_183_260_000_000_000
LABELLED = Workload(WorkloadKind.SLURM, job="4711", step="0", run="llm-7", user="ada", dtype="bf16")
LOST = Workload(WorkloadKind.SLURM, job="4712", step="0", user="ada", dtype="bf16")


def store(path: Path) -> None:
    """Six hours of eight GPUs: two of them hold job 4712, which nobody labelled, from ten to twelve."""
    chain = Chain("gpu-001", gpus=8)
    chain.unix_ns = BEGUN
    with Desk(path, shipped()) as desk:
        agent = desk.agent(chain)
        for minute in range(6 * 60):
            second = 1 if 120 <= minute < 240 else 0
            rows = [busy(gpu, second if gpu > 5 else 0) for gpu in range(8)]
            desk.now = chain.unix_ns + WINDOW_NS + 10**9
            desk.offer(agent, chain.next(rows, (LABELLED, LOST) if second else (LABELLED,)))
            if minute % 60 == 59:
                desk.commit()


def answers(commands: list[str]) -> list[str]:
    """What the program prints to each, one after the other, on a store of its own."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "books.sqlite"
        store(path)
        settings = {"FLOPMETER_STORE": str(path), "LOGNAME": "ada", "COLUMNS": "80"}
        with mock.patch.dict(os.environ, settings), mock.patch("socket.gethostname", return_value="login-1"):
            for name in ("FLOPMETER_REGIMES", "SUDO_USER"):
                os.environ.pop(name, None)
            return [_answer(c, TYPED + i * 10 * 10**9) for i, c in enumerate(commands)]


def _answer(command: str, now_unix_ns: int) -> str:
    printed = io.StringIO()
    with (
        mock.patch.object(sys, "argv", shlex.split(command)),
        mock.patch.object(time, "time_ns", return_value=now_unix_ns),
        contextlib.redirect_stdout(printed),
        contextlib.redirect_stderr(printed),
        contextlib.suppress(SystemExit),
    ):
        main()
    return printed.getvalue()


def blocks(page: str) -> list[tuple[str, str]]:
    """(command, answer) of each console block of the example."""
    example = page.partition(BEGIN)[2].partition(END)[0]
    found = []
    for block in re.findall(r"^```console\n(.*?)^```", example, re.MULTILINE | re.DOTALL):
        command, _, answer = re.sub(r"\\\n", "\0", block).partition("\n")
        found.append((command.removeprefix("$ ").replace("\0", "\\\n"), answer.replace("\0", "\\\n")))
    return found


def plain(command: str) -> str:
    return command.replace("\\\n", " ")


def test_the_page_shows_what_the_program_prints() -> None:
    shown = blocks(PAGE.read_text())
    assert len(shown) >= 6
    for (command, answer), printed in zip(shown, answers([plain(c) for c, _ in shown]), strict=True):
        assert answer == printed, command


def rewritten(page: str) -> str:
    """The page with the program's answers."""
    shown = blocks(page)
    for (command, answer), printed in zip(shown, answers([plain(c) for c, _ in shown]), strict=True):
        page = page.replace(f"$ {command}\n{answer}```", f"$ {command}\n{printed}```", 1)
    return page


if __name__ == "__main__":
    PAGE.write_text(rewritten(PAGE.read_text()))
