"""Start: how long a person, a probe or a rollout waits for any `flopmeter` command. Median of nine process starts.

With compiled bytecode, as an installed program has it: a first round, not counted, writes it.
"""

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import click
import ours
from harness import FLOPMETER, CannotRun, Figure, calibrate, median, progress

STARTS, GOAL_S, LIMIT_S = 9, 0.25, 20.0


def run(folder: Path) -> list[Figure]:
    commands = list(_commands())
    store = ours.small_store(folder / "small")
    progress(f"start: {len(commands)} commands' --help and 3 others, {STARTS} times in turn")
    calibration = calibrate()
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)  # as set in CI: every start would compile what it imports
    os.environ["PYTHONPYCACHEPREFIX"] = str(folder / "bytecode")
    cases: dict[str, Callable[[], float]] = {
        "python -c pass": lambda: _wall([sys.executable, "-c", "pass"]),
        "python -c 'import click'": lambda: _wall([sys.executable, "-c", "import click"]),
    }
    for words in commands:
        cases[" ".join(["flopmeter", *words, "--help"])] = lambda words=words: _wall(
            [FLOPMETER, *words, "--help"]
        )
    cases["flopmeter runs list"] = lambda: _wall([FLOPMETER, "runs", "list", *ours.books_arguments(store)])
    cases["flopmeter collector serve, until it listens"] = lambda: ours.seconds_to_listen(folder)
    cases["flopmeter agent run, until it meters"] = lambda: ours.seconds_to_first_tick(folder)
    seconds: dict[str, list[float]] = {name: [] for name in cases}
    for _ in range(STARTS + 1):
        for name, case in cases.items():
            seconds[name].append(case())
    middle = {name: median(values[1:]) for name, values in seconds.items()}
    return _figures(middle, calibration)


def _commands() -> Iterator[list[str]]:
    """Every command and subcommand that the command line has, found by asking it."""
    from flopmeter.cli.main import flopmeter

    def walk(command: click.Command, words: list[str]) -> Iterator[list[str]]:
        yield words
        if isinstance(command, click.Group):
            context = click.Context(command)
            for name in command.list_commands(context):
                inner = command.get_command(context, name)
                if inner is not None:
                    yield from walk(inner, [*words, name])

    yield from walk(flopmeter, [])


def _wall(argv: list[object]) -> float:
    start = time.perf_counter()
    done = subprocess.run(
        [str(a) for a in argv], stdin=subprocess.DEVNULL, capture_output=True, timeout=LIMIT_S, check=False
    )
    taken = time.perf_counter() - start
    if done.returncode != 0:
        raise CannotRun(
            f"start: {' '.join(map(str, argv))} ended with {done.returncode}: {done.stderr[-500:].decode()}"
        )
    return taken


def _figures(middle: dict[str, float], calibration: float) -> list[Figure]:
    floor = middle["python -c 'import click'"]
    helps = {name: s for name, s in middle.items() if name.endswith("--help")}
    slowest = max(helps, key=helps.__getitem__)
    rest = [name for name in middle if name.startswith("flopmeter") and name not in helps]
    figures = []
    for name in [slowest, *rest]:
        label = f"{name} (slowest of {len(helps)} --help)" if name == slowest else name
        figures.append(
            Figure(
                "start", label, f"{middle[name] * 1e3:.0f} ms", f"{floor * 1e3:.0f} ms python + click",
                f"{middle[name] / floor:.1f}x", f"< {GOAL_S * 1e3:.0f} ms", middle[name] < GOAL_S, calibration,
                {"median_s": middle} if name == slowest else {},
            )
        )  # fmt: skip
    return figures
