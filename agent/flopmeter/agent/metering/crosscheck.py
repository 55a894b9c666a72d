"""Independent readings held against each other (reference/metering.md 6.2, 7.2 item 5). Pure.

A check that fails becomes a notice; it never changes a number, because what is wrong may as well be the
other reading. Only `silent_zero` has a say in metering: where a profiling counter has died, its zeros were not
read (principle: absent is never zero).

Every band below is inferred [I] until experiment E15 has measured it (metering.md 8): each is so wide that
what a sound GPU was reported to do stays inside, and is told with both numbers, so that a reader can judge.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from flopmeter.agent.reading import DRAM_BW_UTIL, MAX_PERCENT, NVLINK_RX, NVLINK_TX, Reading
from flopmeter.contract.checks import Check
from flopmeter.contract.limits import MAX_SM_CLOCK_MHZ
from flopmeter.contract.usage import NO_LIBRARY, Device, Library, Measured

#: No link is faster than 1 PiB/s; what reads so is no rate.
_MAX_MIB_S = 1 << 30
#: The least time that a check looks at, and the longest step within it: power and percentages are samples.
PERIOD_NS = 60_000_000_000
MAX_STEP_NS = 10_000_000_000
#: One entity tells one check once in this time, however often it fails.
TELL_AGAIN_NS = 3_600_000_000_000

#: Energy counter against the integral of power: +-5 % over at least 60 s (metering.md 6.2).
ENERGY_TOLERANCE_PERMILLE = 50
#: Volta, Turing and GA100 tell the power of the moment and not of the last second (metering.md 2.3): load that
#: comes and goes in step with the readings is seen from one side only.
INSTANT_TOLERANCE_PERMILLE = 250
#: What is told as power is the mean of up to the last second (metering.md 2.3): where a load begins or ends beside
#: the period's end, so much of the step from lowest to highest power is in the energy and not yet in the power.
POWER_LAG_NS = 1_000_000_000
#: An exporter's power is one sample per collect interval (30 s), and a second's average says little of a longer
#: tick: an hour of them, and twice the tolerance.
WHOLE_STEP_NS = 2_000_000_000
EXPORTER_PERIOD_NS = 3_600_000_000_000
EXPORTER_STEP_NS = 60_000_000_000
EXPORTER_TOLERANCE_PERMILLE = 100

#: Tensor-active SM-cycles that one joule can buy, over what a fully busy GPU buys at its board's limit and
#: highest clock. All SMs busy on zeros draw about half of the limit [M]; twice that again for the unknown.
CYCLES_PER_JOULE_MARGIN = 4
#: Tensor pipes active for this share of the cycles cannot leave DRAM idle for a minute: operands must come
#: from somewhere. Below one part in a thousand only a kernel that stays in the L2 cache can be (50 MB, Hopper).
BUSY_TENSOR_PERMILLE = 100
IDLE_DRAM_PPM = 1_000
#: A GPU that moves this much over NVLink for a minute, and no SM of it active for a thousandth of the time:
#: collectives run on SMs. (Copy engines can do it: a suspicion, no more.)
BUSY_NVLINK_MIB_S = 10 * 1024
IDLE_SM_PPM = 1_000

#: "Busy" for the silent zero: utilisation above 10 % (metering.md 2.1), or power above this share of the
#: board's limit. Idle GPUs with their clocks up, as recorded: T4 34 of 70 W (48 %), L40S 66 of 350 W, A100 76 of
#: 400 W, H100 72 of 700 W. So 60 % is no idle GPU, and training draws more than that for most of the time [I].
BUSY_UTILISATION_PCT = 10.0
BUSY_POWER_PERCENT = 60


@dataclass(frozen=True, slots=True)
class Board:
    """A board's power limit. `name` is a regular expression on what NVML calls the model."""

    name: str
    watts: int


#: First match wins. A100-SXM4, A10G, GB300, H100 SXM, L40S and T4 are `default_power_limit` of recorded
#: `nvidia-smi -q -x` (tests/agent/test_smi_captures.py); the others are the makers' data sheets [M]. A board set to less draws less: no harm.
BOARDS = (
    Board(r"V100-SXM", 300),
    Board(r"V100-PCIE", 250),
    Board(r"\bT4\b", 70),
    Board(r"A100-SXM4-80GB", 500),
    Board(r"A100-SXM|A800-SXM", 400),
    Board(r"A100[- ]80GB PCIe|A100-PCIE-80GB|A800 80GB PCIe", 300),
    Board(r"A100-PCIE|A100 PCIe", 250),
    Board(r"A30\b", 165),
    Board(r"A10G\b", 300),
    Board(r"A10\b", 150),
    Board(r"A40\b", 300),
    Board(r"L40S\b", 350),
    Board(r"L40\b", 300),
    Board(r"L4\b", 72),
    Board(r"GH200", 1_000),  # GPU and Grace share it
    Board(r"H200 NVL", 600),
    Board(r"H100 NVL", 400),
    Board(r"H100 PCIe|H800 PCIe", 350),
    Board(r"H200|H100|H800", 700),
    Board(r"GB300|B300", 1_400),
    Board(r"GB200|B200|B100", 1_200),
    Board(r"RTX PRO 6000 Blackwell", 600),
    Board(r"RTX 6000 Ada", 300),
)


def board_watts(device: Device) -> int:
    """The board's power limit; 0 = not known, and then nothing is concluded from power."""
    if device.mig:  # it shares its GPU's board
        return 0
    return next((b.watts for b in BOARDS if re.search(b.name, device.name)), 0)


def busy_by(reading: Reading, watts: int) -> str:
    """Why the GPU cannot be idle, by what is no profiling counter; "" = it may be."""
    utilisation, power = reading.utilization_gpu_pct, reading.power_mw
    if utilisation is not None and utilisation > BUSY_UTILISATION_PCT:
        return f"utilisation {utilisation:.0f} %"
    if power is not None and watts and power * 100 > watts * 1_000 * BUSY_POWER_PERCENT:
        return f"{power // 1_000} W of {watts} W"
    return ""


def silent_zero(reading: Reading, watts: int) -> str:
    """Every profiling value of a busy GPU is exactly 0: the counters have failed (metering.md 2.1). "" = no.

    A kernel that uses no tensor pipe shows in SM_ACTIVE or GR_ENGINE_ACTIVE, a copy in DRAM_ACTIVE: where one of
    them is above 0, the zeros beside it are true.
    """
    if not reading.percent or any(reading.percent.values()):
        return ""
    busy = busy_by(reading, watts)
    return f"{Check.SILENT_ZERO}: expected profiling values above 0 with {busy}, got 0" if busy else ""


def rate_detail(detail: str) -> str:
    """What is said beside the refusal of a rate that the device cannot reach."""
    return f"{Check.RATE}: expected what the SMs can run, got {detail}"


def library_details(library: Library, driver: str, before: Library = NO_LIBRARY) -> list[str]:
    """What is odd about the NVML that was loaded. `before`: the one that was loaded earlier in this run.

    Values that are not known say nothing. A spoofed library can lie about all of it but its path.
    """
    found = []
    if library.path and not _usual(library.path):
        expected = "libnvidia-ml.so by an absolute path below " + ", ".join(USUAL_FOLDERS)
        found.append(f"{Check.LIBRARY_PATH}: expected {expected}, got {library.path}")
    if library.path.endswith(" (deleted)"):  # as the kernel marks a mapped file that is there no more
        found.append(f"{Check.LIBRARY_CHANGED}: expected the file that was loaded, got {library.path}")
    if before.sha256 and library.sha256 and before.sha256 != library.sha256:
        said = f"expected sha256 {before.sha256}, got {library.sha256}"
        found.append(f"{Check.LIBRARY_CHANGED}: {said}")
    module = module_version(library.kernel_module)
    if driver and module and module != driver:
        found.append(f"{Check.DRIVER_VERSION}: expected kernel module {driver}, got {module}")
    return found


#: Where distributions, the driver's installer and container runtimes put libnvidia-ml.so.1.
USUAL_FOLDERS = ("/usr", "/lib", "/lib64", "/opt/nvidia", "/run/nvidia", "/home/kubernetes/bin/nvidia")
_MODULE_VERSION = re.compile(
    r"(?:Kernel Module(?: for \w+)?|Open Kernel Module for \w+)\s+([0-9]+(?:\.[0-9]+)+)"
)


def _usual(path: str) -> bool:
    below = any(path.startswith(f"{folder}/") for folder in USUAL_FOLDERS)
    return below and path.rpartition("/")[2].startswith("libnvidia-ml.so") and "/../" not in path


def module_version(line: str) -> str:
    """The version in the first line of /proc/driver/nvidia/version; "" = none can be seen.

    "NVRM version: NVIDIA UNIX x86_64 Kernel Module  535.54.03  Tue Jun …", and since the open modules also
    "NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  570.148.08  Release Build …".
    """
    match = _MODULE_VERSION.search(line)
    return match[1] if match else ""


@dataclass(slots=True)
class Checks:
    """What the checks of one entity have seen since they last judged. All integers: a journal holds it."""

    step_mw: int = -1  # power at the last reading; -1 = not read
    pair_ns: int = 0  # time with both energy and power
    pair_mj: int = 0
    pair_pj: int = 0  # integral of power, mW x ns
    pair_low_mw: int = 0
    pair_high_mw: int = 0
    pair_coarse: int = 0  # 1: power was sampled too seldom for a minute to tell
    over_ns: int = 0
    elapsed: int = 0
    active: int = 0  # SM-active cycles
    tensor: int = 0
    active_ns: int = 0  # time in which SM-active was read, and below likewise
    energy_ns: int = 0
    energy_mj: int = 0
    dram_ns: int = 0
    dram_ppm_ns: int = 0
    nvlink_ns: int = 0
    nvlink_mib_ns: int = 0  # MiB/s x ns
    util_ns: int = 0
    util_ppm_ns: int = 0
    told: dict[str, int] = field(default_factory=dict)  # check -> when

    def add(
        self,
        device: Device,
        measured: int,
        numbers: tuple[int, ...],
        reading: Reading,
        *,
        exporter: bool = False,
    ) -> list[str]:
        """Take an interval in, with the reading at its end; what is to be told now, each a notice's detail.

        `measured` and `numbers` are an Interval's (interval.NUMBERS). A step that is far longer than a tick starts anew.
        """
        duration = numbers[0]
        power_before, self.step_mw = self.step_mw, -1 if reading.power_mw is None else reading.power_mw
        if duration > (EXPORTER_STEP_NS if exporter else MAX_STEP_NS):
            self.restart(keep_power=True)
            return []
        self._add_activity(duration, measured, numbers, reading)
        if measured & _ENERGY and power_before >= 0 and self.step_mw >= 0:
            steps = power_before, self.step_mw
            self.pair_low_mw = min(*steps, self.pair_low_mw) if self.pair_ns else min(steps)
            self.pair_high_mw = max(*steps, self.pair_high_mw)
            self.pair_ns += duration
            self.pair_mj += numbers[11]
            self.pair_pj += (power_before + self.step_mw) * duration // 2
            if exporter or duration > WHOLE_STEP_NS:
                self.pair_coarse = 1
        else:
            self._forget_pair()
        failed: list[tuple[Check, str]] = []
        if self.pair_ns >= (EXPORTER_PERIOD_NS if self.pair_coarse else PERIOD_NS):
            failed += _energy(self, _tolerance(device, coarse=self.pair_coarse == 1))
            self._forget_pair()
        if self.over_ns >= PERIOD_NS:
            failed += _activity(self, device)
            self._forget_activity()
        return self._news(failed, reading.t_boot_ns) if failed else []

    def restart(self, *, keep_power: bool = False) -> None:
        """Something lies between the last reading and the next one: judge only what comes from there on."""
        if not keep_power:
            self.step_mw = -1
        self._forget_pair()
        self._forget_activity()

    def may_tell(self, check: str, now_ns: int) -> bool:
        """Whether the check has not been told for an hour; if so, it counts as told now."""
        last = self.told.get(check)
        if last is not None and 0 <= now_ns - last < TELL_AGAIN_NS:
            return False
        self.told[check] = now_ns
        return True

    def dump(self) -> list[Any]:
        """As a journal holds it."""
        return [[getattr(self, name) for name in _NUMBERS], self.told]

    @classmethod
    def load(cls, data: list[Any]) -> "Checks":
        """What was dumped. Raises ValueError or TypeError for anything else."""
        numbers, told = data
        if len(numbers) != len(_NUMBERS) or not all(type(v) is int for v in (*numbers, *told.values())):
            raise ValueError(f"journal: expected {len(_NUMBERS)} integers of checks, got {numbers!r:.80}")
        loaded = cls(told={str(check): when for check, when in told.items()})
        for name, value in zip(_NUMBERS, numbers, strict=True):
            setattr(loaded, name, value)
        return loaded

    def _add_activity(self, duration: int, measured: int, numbers: tuple[int, ...], reading: Reading) -> None:
        _, elapsed, active, hmma, imma, dmma, tensor, _, _, _, _, energy = numbers
        self.over_ns += duration
        self.elapsed += elapsed
        self.tensor += max(tensor, hmma + imma + dmma)
        if measured & _SM_ACTIVE:
            self.active += active
            self.active_ns += duration
        if measured & _ENERGY:
            self.energy_mj += energy
            self.energy_ns += duration
        if (dram := reading.percent.get(DRAM_BW_UTIL)) is not None and 0 <= dram <= MAX_PERCENT:
            self.dram_ns += duration
            self.dram_ppm_ns += round(dram * 10_000) * duration
        if (utilisation := reading.utilization_gpu_pct) is not None and 0 <= utilisation <= MAX_PERCENT:
            self.util_ns += duration
            self.util_ppm_ns += round(utilisation * 10_000) * duration
        rates = reading.rates_mib_s
        if NVLINK_TX in rates and NVLINK_RX in rates:
            both = rates[NVLINK_TX] + rates[NVLINK_RX]
            if 0 <= both <= _MAX_MIB_S:  # false for NaN
                self.nvlink_ns += duration
                self.nvlink_mib_ns += round(both) * duration

    def _forget_pair(self) -> None:
        self.pair_ns = self.pair_mj = self.pair_pj = self.pair_coarse = 0
        self.pair_low_mw = self.pair_high_mw = 0

    def _forget_activity(self) -> None:
        self.over_ns = self.elapsed = self.active = self.tensor = self.active_ns = 0
        self.energy_ns = self.energy_mj = self.dram_ns = self.dram_ppm_ns = 0
        self.nvlink_ns = self.nvlink_mib_ns = self.util_ns = self.util_ppm_ns = 0

    def _news(self, failed: Iterable[tuple[Check, str]], now_ns: int) -> list[str]:
        return [f"{check}: {said}" for check, said in failed if self.may_tell(check, now_ns)]


_NUMBERS = tuple(name for name in Checks.__slots__ if name != "told")
_PJ_PER_MJ = 1_000_000_000
# As plain integers: an IntFlag's & costs as much as all the sums of a reading.
_ENERGY, _SM_ACTIVE = int(Measured.ENERGY), int(Measured.SM_ACTIVE)


def _tolerance(device: Device, *, coarse: bool) -> int:
    instant = device.compute_capability == "8.0" or device.compute_capability.startswith("7.")
    usual = EXPORTER_TOLERANCE_PERMILLE if coarse else ENERGY_TOLERANCE_PERMILLE
    return max(usual, INSTANT_TOLERANCE_PERMILLE) if instant else usual


def _energy(c: Checks, tolerance_permille: int) -> list[tuple[Check, str]]:
    expected = c.pair_pj // _PJ_PER_MJ
    lag = (c.pair_high_mw - c.pair_low_mw) * POWER_LAG_NS // _PJ_PER_MJ
    if abs(c.pair_mj - expected) * 1_000 <= expected * tolerance_permille + lag * 1_000:
        return []
    said = (
        f"expected {expected} mJ by power, got {c.pair_mj} mJ by the energy counter in {_seconds(c.pair_ns)}"
    )
    return [(Check.ENERGY_POWER, said)]


def _activity(c: Checks, device: Device) -> list[tuple[Check, str]]:
    found: list[tuple[Check, str]] = []
    time = _seconds(c.over_ns)
    watts = board_watts(device)
    dram_ppm = c.dram_ppm_ns // c.over_ns if c.dram_ns == c.over_ns else -1
    idle = c.active_ns == c.over_ns and c.active * 1_000_000 < c.elapsed * IDLE_SM_PPM

    if c.energy_ns == c.over_ns and watts and device.sm_count and c.energy_mj:
        most = cycles_per_joule(device, watts)
        got = c.tensor * 1_000 // c.energy_mj
        if got > most:
            found.append((
                Check.CYCLES_PER_JOULE,
                f"expected at most {most} tensor SM-cycles per joule, got {got} in {time}",
            ))  # fmt: skip
    if c.tensor * 1_000 >= c.elapsed * BUSY_TENSOR_PERMILLE > 0 and 0 <= dram_ppm < IDLE_DRAM_PPM:
        share = c.tensor * 100 // c.elapsed
        found.append((
            Check.DRAM_PER_FLOP,
            f"expected DRAM traffic with tensor pipes active {share} % of {time}, got {dram_ppm} ppm",
        ))  # fmt: skip
    if c.nvlink_ns == c.over_ns and idle:
        rate = c.nvlink_mib_ns // c.over_ns
        if rate >= BUSY_NVLINK_MIB_S:
            found.append((
                Check.NVLINK_PER_FLOP,
                f"expected active SMs with {rate} MiB/s over NVLink for {time}, got none",
            ))  # fmt: skip
    if idle and dram_ppm < IDLE_DRAM_PPM:
        busy = _busy(c, watts)
        if busy:
            found.append((Check.SILENT_ZERO, f"expected active SMs with {busy} for {time}, got none"))
    return found


def _busy(c: Checks, watts: int) -> str:
    """As `busy_by`, over the whole period."""
    if c.util_ns == c.over_ns and c.util_ppm_ns > BUSY_UTILISATION_PCT * 10_000 * c.over_ns:
        return f"utilisation {c.util_ppm_ns // c.over_ns // 10_000} %"
    milliwatts = c.energy_mj * 1_000_000_000 // c.over_ns if c.energy_ns == c.over_ns else 0
    return f"{milliwatts // 1_000} W of {watts} W" if milliwatts > watts * 10 * BUSY_POWER_PERCENT > 0 else ""


def cycles_per_joule(device: Device, watts: int) -> int:
    """The most tensor-active SM-cycles that a joule is believed to buy on the device.

    FLOP per joule is this times W, so that one bound serves every dtype: on an H100 4 x 132 SMs x 1980 MHz /
    700 W = 1.49e9 cycles, 6.1 TFLOP of BF16 (0.16 pJ per FLOP; its official peak at 700 W is 0.71 pJ).
    """
    mhz = device.max_sm_clock_mhz or MAX_SM_CLOCK_MHZ
    return CYCLES_PER_JOULE_MARGIN * device.sm_count * mhz * 1_000_000 // watts


def _seconds(ns: int) -> str:
    return f"{ns // 1_000_000_000} s"
