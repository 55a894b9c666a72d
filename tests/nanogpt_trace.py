"""Turns a real training log into traces: modded-nanogpt, 8 H100, 5,100 steps (shared/data/runs/nanogpt_*).

The log is of times, not of counters, so what the counters would have said is put in here, and known to the
integer: each step's FLOPs, divided by 4096 FLOP per HMMA cycle and SM (BF16 on cc 9.0), spread evenly over
the step's time on each GPU. The log's clock restarts after step 10 and stands still during validation; the
two parts are joined end to end.
"""

import csv
import gzip
import json
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

DATA = Path(__file__).resolve().parents[2] / "shared/data/runs"
STEPS_CSV = DATA / "nanogpt_124m_8xH100_steps.csv"
RUN_JSON = DATA / "nanogpt_124m_8xH100.json"

GPUS = 8
SMS = 132
FLOP_PER_HMMA_CYCLE = 4096  # BF16 on cc 9.0 (reference/metering.md 3.2)
MEAN_CLOCK_MHZ = 1755
CLOCK_SWING_MHZ = 45
CLOCK_PERIOD_S = 61.0
#: And it jitters within a second, so that a few samples do not give the mean exactly.
JITTER_MHZ = 60
JITTER_PERIOD_S = 0.73
SAMPLES = 3  # clock samples between two readings
RUN = "nanogpt-124m"
BOOT_ID = "5f0c9a1e-7d3b-4c52-9a7e-2b1d0c4e8f60"
BOOT_START_NS = 86_400_000_000_000 * 3 + 41_250_000_000  # three days and a bit after boot
UNIX_START_NS = 1_728_882_090_000_000_000  # 2024-10-14 05:01:30 UTC, the log's own date
IDLE_BEFORE_S = 8
IDLE_AFTER_S = 6
SECOND = 1_000_000_000


@dataclass(frozen=True, slots=True)
class Run:
    """The log, joined: `ends_ms[i]` is when step i+1 ended, from the start of step 1."""

    ends_ms: tuple[int, ...]
    flop_timed: int
    timed_steps: int

    @property
    def steps(self) -> int:
        return len(self.ends_ms)

    @property
    def duration_ms(self) -> int:
        return self.ends_ms[-1]

    @property
    def flop(self) -> int:
        """What is put in: the timed steps' FLOPs, and the untimed first ten priced the same per step."""
        return self.flop_timed * self.steps // self.timed_steps

    def hmma_cycles(self, step: int) -> int:
        """Sum over SMs of one GPU's HMMA-active cycles at the end of `step` (from 0 before step 1)."""
        return self.flop_timed * step // (self.timed_steps * GPUS * FLOP_PER_HMMA_CYCLE)


def load() -> Run:
    """Read the log. A clock that goes back is a restart: what follows is counted from where it stood."""
    facts = json.loads(RUN_JSON.read_text())
    ends: list[int] = []
    base = last = 0
    with STEPS_CSV.open(newline="") as f:
        for row in csv.DictReader(f):
            at = int(row["train_time_ms"])
            if at < last:
                base += last
            last = at
            if row["kind"] == "train":
                ends.append(base + at)
    return Run(tuple(ends), facts["flops_with_full_attention"], facts["timed_steps"])


def entity(gpu: int) -> str:
    return f"GPU-6e616e6f-6770-7431-3234-{gpu:012d}"


def header(driver: str) -> dict[str, object]:
    return {
        "format": "flopmeter-trace/1",
        "node": "h100-node",
        "boot_id": BOOT_ID,
        "driver": driver,
        "nvml": "13.595.58" if driver.startswith("595") else "12.535.129.03",
        "devices": [
            {
                "entity": entity(gpu),
                "name": "NVIDIA H100 80GB HBM3",
                "compute_capability": "9.0",
                "sm_count": SMS,
                "max_sm_clock_mhz": 1980,
                "serial": f"16500000000{gpu}",
                "mig": False,
                "parent": None,
            }
            for gpu in range(GPUS)
        ],
    }


def clock_mhz(t_s: float, gpu: int) -> float:
    """The SM clock that the card would have had: it swings and jitters, each card a little apart."""
    swing = CLOCK_SWING_MHZ * math.sin(2 * math.pi * t_s / CLOCK_PERIOD_S + gpu)
    return MEAN_CLOCK_MHZ + swing + JITTER_MHZ * math.sin(2 * math.pi * t_s / JITTER_PERIOD_S + gpu)


def elapsed_cycles(t_s: float, gpu: int) -> float:
    """Integral of `clock_mhz` from 0: cycles of one SM since the trace's first reading."""
    total = MEAN_CLOCK_MHZ * t_s
    for mhz, period_s in ((CLOCK_SWING_MHZ, CLOCK_PERIOD_S), (JITTER_MHZ, JITTER_PERIOD_S)):
        w = 2 * math.pi / period_s
        total += mhz * (math.cos(gpu) - math.cos(w * t_s + gpu)) / w
    return 1e6 * total


class _Work:
    """HMMA cycles of one GPU at any time of the run, linear within a step. Asked in order of time."""

    def __init__(self, run: Run) -> None:
        self._run = run
        self._step = 0

    def at_ms(self, ms: float) -> float:
        ends = self._run.ends_ms
        if ms <= 0:
            return 0.0
        if ms >= ends[-1]:
            return float(self._run.hmma_cycles(self._run.steps))
        while ends[self._step] <= ms:
            self._step += 1
        start = ends[self._step - 1] if self._step else 0
        share = (ms - start) / (ends[self._step] - start)
        low, high = self._run.hmma_cycles(self._step), self._run.hmma_cycles(self._step + 1)
        return low + share * (high - low)


def _times_ms(run: Run, seconds: int | None) -> list[int]:
    """One reading a second, and one at the very start and end of the run."""
    last = run.duration_ms if seconds is None else min(run.duration_ms, seconds * 1000)
    grid = set(range(-IDLE_BEFORE_S * 1000, last, 1000))
    grid |= {last} | {last + 1000 * (i + 1) for i in range(IDLE_AFTER_S)}
    return sorted(grid)


def lines(
    run: Run, form: str, seconds: int | None = None, unix_start_ns: int = UNIX_START_NS
) -> Iterator[dict[str, object]]:
    """The trace, line by line. `form`: `sum` and `average` are the two scales of ids 248-260; `percent` is
    an older driver: GPM percentages and clock samples. `seconds` cuts the run short.
    """
    yield header("535.129.03" if form == "percent" else "595.58.03")
    work = [_Work(run) for _ in range(GPUS)]
    before: dict[int, tuple[float, float, float]] = {}
    divisor = SMS if form == "average" else 1
    times = _times_ms(run, seconds)
    end_ms = times[-1 - IDLE_AFTER_S]
    for ms in times:
        since_ms = ms - times[0]
        for gpu in range(GPUS):
            t_s = since_ms / 1000
            per_sm = elapsed_cycles(t_s, gpu)
            hmma = work[gpu].at_ms(min(ms, end_ms))
            line: dict[str, object] = {
                "t_boot_ns": BOOT_START_NS + since_ms * 1_000_000,
                "t_unix_ns": unix_start_ns + since_ms * 1_000_000,
                "entity": entity(gpu),
                "energy_mj": round(9_000_000_000 + gpu + t_s * 120_000 + max(0, min(ms, end_ms)) * 480),
            }
            if form == "percent":
                line |= _percent(before.get(gpu), t_s, per_sm, hmma, gpu)
            else:
                # Counters count since boot: they start at something large, and differ per card.
                active = 1.2 * hmma
                offset = 10**15 + gpu * 10**12
                line["gpm"] = {
                    "248": (offset + int(per_sm * SMS)) // divisor,
                    "249": (offset + int(active)) // divisor,
                    "250": (offset + int(hmma)) // divisor,
                    "251": 0,
                    "252": (offset + int(hmma)) // divisor,
                    "253": 0,
                    "254": 0,
                    "257": (offset + int(hmma / 9)) // divisor,
                    "258": 0,
                    "259": (offset + int(hmma / 7)) // divisor,
                    "260": 0,
                }
                line["sm_clock_mhz"] = _samples(before.get(gpu), t_s, gpu)
            line["workload"] = (
                {"kind": "slurm", "job": "4711", "step": "0", "run": RUN, "user": "keller", "dtype": "bf16"}
                if 0 < ms <= end_ms  # who has held it since the reading before
                else None
            )
            before[gpu] = (t_s, per_sm, hmma)
            yield line


def _samples(before: tuple[float, float, float] | None, t_s: float, gpu: int) -> list[float]:
    """Clock samples spread over the time since the previous reading, whole MHz as NVML gives them."""
    if before is None:
        return [round(clock_mhz(t_s, gpu))]
    step = (t_s - before[0]) / SAMPLES
    return [round(clock_mhz(before[0] + (i + 0.5) * step, gpu)) for i in range(SAMPLES)]


def _percent(
    before: tuple[float, float, float] | None, t_s: float, per_sm: float, hmma: float, gpu: int
) -> dict[str, object]:
    if before is None:
        return {"sm_clock_mhz": _samples(None, t_s, gpu)}
    elapsed = (per_sm - before[1]) * SMS
    busy = 100 * (hmma - before[2]) / elapsed
    gpm = {"2": 1.2 * busy, "4": busy / 9, "5": busy, "7": busy, "6": 0.0, "8": 0.0, "9": 0.0}
    gpm |= {"11": 0.0, "12": busy / 7, "13": 0.0}
    return {"gpm": {k: round(v, 6) for k, v in gpm.items()}, "sm_clock_mhz": _samples(before, t_s, gpu)}


def write(path: Path, form: str, seconds: int | None = None, unix_start_ns: int = UNIX_START_NS) -> Run:
    """Write the trace to `path` (.jsonl or .jsonl.gz) and return what went in."""
    run = load()
    text = "".join(json.dumps(line) + "\n" for line in lines(run, form, seconds, unix_start_ns))
    if path.suffix == ".gz":
        path.write_bytes(gzip.compress(text.encode(), compresslevel=1))
    else:
        path.write_text(text)
    return run
