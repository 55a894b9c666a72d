"""Runs experiments in order of value until all are done or the time is up. Each result is kept at once."""

import time
import traceback
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from .experiment import ERROR, NOT_RUN, Context, Experiment
from .experiments_counters import EXPERIMENTS as COUNTERS
from .experiments_system import EXPERIMENTS as SYSTEM
from .experiments_tensor import EXPERIMENTS as TENSOR
from .lab import Lab, UnavailableError
from .measure import Bench
from .state import MOST_ATTEMPTS, State

#: Order by value, reference/metering.md 8; then the rest.
ORDER: tuple[str, ...] = ("E0", "E2", "E3", "E4", "E6", "E16", "E13", "E18", "E10")
ORDER += ("E1", "E5", "E7", "E8", "E9", "E11", "E12", "E14", "E15", "E17", "E19")
EXPERIMENTS: dict[str, Experiment] = {e.key: e for e in (*COUNTERS, *TENSOR, *SYSTEM)}

DONE, TIME_UP, AGAIN = 0, 4, 5
#: Past the budget an experiment that takes longer than it should is given so long before it is ended.
GRACE_S = 20.0


def left(state: State, only: Sequence[str] = ()) -> list[str]:
    """What is still to be run. What ended in an error is tried once more, in a process of its own."""

    def open_(key: str) -> bool:
        failed = state.results.get(key, {}).get("status") == ERROR
        return key not in state.results or (failed and state.attempts.get(key, 0) < MOST_ATTEMPTS)

    return [key for key in ORDER if open_(key) and (not only or key in only)]


def work_off(
    lab: Lab,
    state: State,
    *,
    only: Sequence[str] = (),
    budget_s: float,
    say: Callable[[str], None] = print,
    now_s: Callable[[], float] = time.monotonic,
    watchdog: Callable[[int], object] = lambda seconds: None,
    experiments: dict[str, Experiment] | None = None,
) -> int:
    """DONE: nothing is left. TIME_UP: the rest does not fit. AGAIN: the GPU or the driver must be opened anew.

    `watchdog(seconds)` ends this process if it is not called again in time: a hang costs one experiment, and
    never more time than the budget has.
    """
    known = experiments or EXPERIMENTS
    begun_s = now_s()
    machine = lab.describe()
    state.same_machine(machine)
    bench: Bench | None = None
    too_long: list[str] = []
    try:
        for key in left(state, only):
            experiment = known[key]
            left_s = budget_s - (now_s() - begun_s)
            if experiment.seconds > left_s:  # a shorter one further down may fit
                say(f"{key}: needs about {experiment.seconds} s, more than is left: run again for the rest")
                too_long.append(key)
                continue
            if not state.begin(key):
                why = f"begun {MOST_ATTEMPTS} times without an end (killed, hung, or the process died)"
                state.finish(key, _empty(ERROR, why))
                say(f"{key}: {why}")
                continue
            say(f"{key}: {experiment.title} (about {experiment.seconds} s)")
            at_s = now_s()
            watchdog(int(min(2 * experiment.seconds + 60, left_s + GRACE_S)))
            try:
                bench = bench or Bench(lab, state.folder / "traces")
                bench.may_profile = state.attempts[key] == 1  # a profiler may be what ended the first attempt
                told = len(bench.notices)
                if not experiment.without_gpm and (fault := bench.look_again()):
                    raise UnavailableError(fault)
                outcome = experiment.run(
                    Context(bench, state.results, state.folder, partial(state.begin_part, key))
                )
                result = outcome.data() | {"agent_said": bench.notices[told : told + 40]}
            except UnavailableError as e:
                result = _empty(NOT_RUN, str(e))
            except Exception as e:  # noqa: BLE001 - one experiment may not cost the others
                result = _empty(ERROR, f"{type(e).__name__}: {e}")
                result["traceback"] = traceback.format_exc()
            watchdog(0)
            result["seconds"] = round(now_s() - at_s, 3)
            result["unix"] = lab.clock.unix_ns() // 1_000_000_000
            result["driver"] = machine.get("driver")
            state.finish(key, result, again=result["status"] == ERROR)
            say(f"{key}: {result['status']}" + (f" ({result['why']})" if result["why"] else ""))
            if result["status"] == ERROR:
                return AGAIN if left(state, only) else DONE  # a CUDA error stays until the process ends
    finally:
        if bench is not None:
            bench.close()
    return TIME_UP if too_long else DONE


def _empty(status: str, why: str) -> dict[str, object]:
    return {"status": status, "why": why, "checks": [], "lines": [], "raw": {}}


def folder_of(path: str) -> Path:
    return Path(path).expanduser().absolute()
