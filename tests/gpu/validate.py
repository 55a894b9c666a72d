"""The H200 validation: reference/metering.md section 8, in one resumable program. docs/validation.md tells the story.

    python3 tests/gpu/validate.py run --out DIR [--budget-s 540] [--only E0,E2] [--again E6] [--bundle FILE.tar.gz]
    python3 tests/gpu/validate.py report --out DIR [--markdown FILE] [--toml FILE] [--json]
    python3 tests/gpu/validate.py run --simulate --out DIR      the program itself, on a simulated GPU

Needs Python, PyTorch and nvidia-ml-py, and nothing of flopmeter installed: its sources beside this file are used.
Exit codes: 0 all that could run passed, 1 something failed, 2 usage, 3 no GPU or no results, 4 run again for the rest.
"""

import argparse
import json
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
for _room in ("collector", "protos", "agent", "tests"):
    if (_path := str(ROOT / _room)) not in sys.path:
        sys.path.insert(0, _path)

#: Seconds that a worker needs to end, and a bundle to be written, before whoever started us loses patience.
SPARE_S = 15.0


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog="validate.py", description=__doc__.partition("\n")[0])
    commands = parser.add_subparsers(dest="command", required=True)
    run = commands.add_parser("run", help="run what is not done yet")
    run.add_argument("--out", required=True, help="folder of the results; a rerun goes on there")
    run.add_argument(
        "--bundle", help="also keep the folder in this .tar.gz; an empty folder is filled from it"
    )
    run.add_argument("--only", default="", help="for example E0,E2")
    run.add_argument("--again", default="", help="run these again; what they gave stays in state.json")
    run.add_argument("--budget-s", type=float, default=540.0, help="start nothing that does not fit")
    run.add_argument(
        "--simulate", action="store_true", help="on a simulated GPU: tests this program, not a GPU"
    )
    run.add_argument("--allow-mps", action="store_true", help="E14 may start an MPS daemon of its own")
    run.add_argument("--worker", action="store_true", help=argparse.SUPPRESS)
    report = commands.add_parser("report", help="table and what follows from the results so far")
    report.add_argument("--out", required=True)
    report.add_argument("--markdown", help="write the result as Markdown, for docs/validation.md")
    report.add_argument("--toml", help="write what the W table should say")
    report.add_argument("--json", action="store_true")
    commands.add_parser("list", help="the experiments, in order")
    for name, values in (
        ("_probe", ("user",)),
        ("_agent", ("folder", "job")),
        ("_load", ("kind", "size")),
        ("_product", ("dtype", "size")),
    ):
        child = commands.add_parser(name)
        for value in values:
            child.add_argument(value)
    args = parser.parse_args(arguments)
    if args.command.startswith("_"):
        return _child(args)
    if args.command == "list":
        return _list()
    if args.command == "report":
        return _report(args)
    return _work(args) if args.worker else _supervise(args)


def _supervise(args: argparse.Namespace) -> int:
    """Workers one after another: a CUDA error, a hang or a crash costs one experiment, not the rest."""
    from gpu.state import State, StateError
    from gpu.worker import AGAIN, DONE, ORDER, TIME_UP, folder_of

    for option, text in (("--only", args.only), ("--again", args.again)):
        if unknown := [key for key in _keys(text) if key not in ORDER]:
            print(f"{option}: expected some of {', '.join(ORDER)}, got {', '.join(unknown)}", file=sys.stderr)
            return 2
    if args.again:
        try:
            State.load(folder_of(args.out), _bundle(args)).again(_keys(args.again))
        except StateError as e:
            print(e, file=sys.stderr)
            return 3
    begun_s = time.monotonic()
    code = AGAIN
    attempts: dict[str, int] | None = None
    for _ in range(2 * len(ORDER) + 2):
        left_s = args.budget_s - SPARE_S - (time.monotonic() - begun_s)
        if left_s <= 0:
            code = TIME_UP
            break
        command = [sys.executable, *["-S"] * sys.flags.no_site, str(Path(__file__).resolve())]
        command += ["run", "--worker", "--out", args.out]
        command += ["--only", args.only, "--budget-s", str(left_s)]
        command += ["--bundle", args.bundle] if args.bundle else []
        command += ["--simulate"] * args.simulate + ["--allow-mps"] * args.allow_mps
        code = subprocess.run(command, check=False).returncode
        if code in (DONE, TIME_UP, 2, 3):
            break
        if code != AGAIN:
            print(f"the worker ended with {code}; going on with the next experiment", flush=True)
            before, attempts = attempts, State.load(folder_of(args.out)).attempts
            if attempts == before:
                print(
                    "it ends before it begins an experiment: that is no matter of one of them",
                    file=sys.stderr,
                )
                code = 3
                break
    if code in (2, 3):
        return code
    state = State.load(folder_of(args.out))
    verdict = _print_report(state)
    return TIME_UP if code == TIME_UP else verdict


def _work(args: argparse.Namespace) -> int:
    from gpu.state import State, StateError
    from gpu.worker import folder_of, work_off

    try:
        state = State.load(folder_of(args.out), _bundle(args))
        if args.simulate:
            from gpu.fake_lab import FakeLab

            return work_off(FakeLab(), state, only=_keys(args.only), budget_s=args.budget_s, say=_say)
        try:
            from gpu.real_lab import RealLab

            lab = RealLab(allow_mps=args.allow_mps)
        except ImportError as e:
            print(f"{e}: nvidia-ml-py is needed; python3 here is {sys.executable}", file=sys.stderr)
            return 3
        except Exception as e:  # noqa: BLE001 - pynvml's errors have no common import before it is there
            print(f"no GPU can be read: {e}; run nvidia-smi", file=sys.stderr)
            return 3
        signal.signal(signal.SIGALRM, signal.SIG_DFL)  # ends the process, wherever it hangs
        try:
            return work_off(
                lab, state, only=_keys(args.only), budget_s=args.budget_s, say=_say, watchdog=signal.alarm
            )
        finally:
            lab.close()
    except StateError as e:
        print(e, file=sys.stderr)
        return 3


def _report(args: argparse.Namespace) -> int:
    from gpu import report
    from gpu.answers import answers, toml
    from gpu.state import State, StateError, strict
    from gpu.worker import folder_of

    try:
        state = State.load(folder_of(args.out))
    except StateError as e:
        print(e, file=sys.stderr)
        return 3
    if not state.results:
        print(f"{state.file}: no results yet; run `validate.py run --out {args.out}` first", file=sys.stderr)
        return 3
    if args.markdown:
        Path(args.markdown).write_text(report.markdown(state, answers(state.results)))
    if args.toml:
        Path(args.toml).write_text(toml(state))
    if args.json:
        print(json.dumps(strict(report.summary(state) | {"answers": answers(state.results)}), indent=1))
        return report.verdict(state)
    return _print_report(state)


def _print_report(state: "object") -> int:
    from gpu import report
    from gpu.answers import answers, toml
    from gpu.state import State

    assert isinstance(state, State)
    print(report.table(state))
    print()
    for question, answer in answers(state.results).items():
        print(f"{question}: {answer}")
    print()
    print(toml(state))
    return report.verdict(state)


def _list() -> int:
    from gpu.worker import EXPERIMENTS, ORDER

    for key in ORDER:
        print(f"{key:<4} about {EXPERIMENTS[key].seconds:>3} s  {EXPERIMENTS[key].title}")
    print(f"all  about {sum(EXPERIMENTS[k].seconds for k in ORDER)} s")
    return 0


def _child(args: argparse.Namespace) -> int:
    from gpu import children

    match args.command:
        case "_probe":
            return children.probe(args.user)
        case "_agent":
            return children.agent(args.folder, args.job)
        case "_load":
            return children.load(args.kind, args.size)
        case _:
            return children.product(args.dtype, args.size)


def _keys(text: str) -> list[str]:
    return [key for key in text.split(",") if key]


def _bundle(args: argparse.Namespace) -> Path | None:
    return Path(args.bundle).absolute() if args.bundle else None


def _say(text: str) -> None:
    print(text, flush=True)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
