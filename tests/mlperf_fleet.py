"""MLPerf Training v5.1 results played as a fleet: Llama 3.1 405B and 8B on NVIDIA GPUs (shared/data/mlperf_*).

The logs are of times and samples, not of counters, so what the counters would have said is put in, and known to the
integer: 6 FLOP per parameter and token, in FP8, spread over the row's GPUs in whole SM-cycles, each a little different.
Every GPU of every row is there, and every agent meters, seals and signs as an agent does; times are the logs' own, on
which up to two dozen runs go on at once.
"""

import csv
import hashlib
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

from desk import Desk
from nacl.bindings import crypto_sign_seed_keypair

from flopmeter.agent.keys import RecordKey
from flopmeter.agent.metering.meter import Meter, MeterSettings
from flopmeter.agent.reading import CYCLE_IDS, NodeFacts, Reading
from flopmeter.agent.shipping.encode import encode_batch, encode_inventory
from flopmeter.agent.shipping.seal import seal_record
from flopmeter.agent.shipping.spool import Tip
from flopmeter.collector.ingest.decide import Taken
from flopmeter.collector.ingest.group import Agent
from flopmeter.contract.record import ZERO_HASH, record_hash
from flopmeter.contract.usage import IDLE, Device, Workload, WorkloadKind
from flopmeter.contract.w_table import current

DATA = Path(__file__).resolve().parents[2] / "shared/data"
FILES = {
    "llama31_405b": (DATA / "mlperf_v5.1_llama31_405b.csv", 405_853_388_800),
    "llama31_8b": (DATA / "mlperf_v5.1_llama31_8b.csv", 8_030_261_248),
}
DTYPE = "fp8"
#: As NVML and the W table know them: name, compute capability, SMs, MHz (reference/metering.md 3.3).
GPUS = {
    "NVIDIA H100-SXM5-80GB": ("NVIDIA H100 80GB HBM3", "9.0", 132, 1_755),
    "NVIDIA H200-SXM5-141GB": ("NVIDIA H200", "9.0", 132, 1_755),
    "NVIDIA Blackwell GPU (B200-SXM-180GB)": ("NVIDIA B200", "10.0", 148, 1_850),
    "NVIDIA Blackwell GPU (GB200)": ("NVIDIA GB200", "10.0", 152, 1_850),
    "NVIDIA Blackwell Ultra GPU (B300-SXM-270GB)": ("NVIDIA B300 SXM6 AC", "10.3", 148, 1_850),
    "NVIDIA Blackwell Ultra GPU (GB300)": ("NVIDIA GB300", "10.3", 152, 1_850),
}
BOOTED_NS = 3_600_000_000_000  # a node boots this long before its first run
#: GPUs of one agent at most. The rows of thousands of GPUs have four or eight to a node; here an agent has as many as
#: a rack of them, since a record costs the same for four GPUs as for sixty.
AGENT_GPUS = 64
#: Two readings a run are all that there is: no two of them are too far apart.
METERING = MeterSettings(window_ns=400 * 86_400_000_000_000, tick_ns=40 * 86_400_000_000_000)
#: After the last run every GPU is read once more, idle.
IDLE_MS = 1_000
_MS = 1_000_000


@dataclass(frozen=True, slots=True)
class Row:
    """One result: what ran where, and how much it is."""

    run: str
    cluster: str
    accelerator: str
    agents: int
    gpus: int
    start_ms: int
    stop_ms: int
    flop_asked: int  # 6 x parameters x tokens

    @property
    def rate(self) -> int:
        name, capability, _, _ = GPUS[self.accelerator]
        arch = current().arch(capability, name)
        assert arch is not None
        return arch.rates[DTYPE]

    @property
    def cycles(self) -> int:
        """HMMA-active SM-cycles of all its GPUs."""
        return self.flop_asked // self.rate

    @property
    def flop(self) -> int:
        """What is put in: whole cycles."""
        return self.cycles * self.rate

    @property
    def device_ns(self) -> int:
        return self.gpus * (self.stop_ms - self.start_ms) * _MS


def rows() -> list[Row]:
    """Every result on NVIDIA GPUs; other vendors' have no SM-cycles."""
    found = []
    for benchmark, (path, parameters) in FILES.items():
        with path.open(newline="") as file:
            for r in csv.DictReader(file):
                if r["accelerator"] not in GPUS:
                    assert not r["accelerator"].startswith("NVIDIA"), r["accelerator"]
                    continue
                tokens = int(r["samples_at_stop"]) * int(r["max_sequence_length"])
                cluster = f"{r['submitter']}-{r['system']}-{benchmark}"
                found.append(
                    Row(
                        f"{cluster}-{r['run']}",
                        cluster,
                        r["accelerator"],
                        max(1, -(-int(r["accelerators"]) // AGENT_GPUS)),
                        int(r["accelerators"]),
                        int(r["run_start_ms"]),
                        int(r["run_stop_ms"]),
                        6 * parameters * tokens,
                    )
                )
    return found


class Node:
    """An agent and its GPUs: counters, meter, key, chain."""

    def __init__(self, row: Row, number: int) -> None:
        name, capability, sms, self.mhz = GPUS[row.accelerator]
        self.name = f"{row.cluster}-{number:04d}"
        self.sms = sms
        share, more = divmod(row.gpus, row.agents)
        prefix = hashlib.sha256(self.name.encode()).hexdigest()
        self.entities = [
            f"GPU-{prefix[:8]}-{prefix[8:12]}-{prefix[12:16]}-{prefix[16:20]}-{i:012d}"
            for i in range(share + (number < more))
        ]
        public, secret = crypto_sign_seed_keypair(hashlib.sha256(self.name.encode()).digest())
        self.key = RecordKey(public, secret)
        self.boot = hashlib.sha256(b"boot " + self.name.encode()).digest()[:16]
        self.tip = Tip(1, ZERO_HASH, b"")
        self.booted_ms = row.start_ms - BOOTED_NS // _MS
        self.hmma = [0] * len(self.entities)  # of each GPU since boot
        self.base = [0] * len(self.entities)  # at the end of the last run
        devices = tuple(
            Device(e, name, capability, sms, max_sm_clock_mhz=2_032, serial=f"{prefix[:8]}{i}")
            for i, e in enumerate(self.entities)
        )
        facts = NodeFacts(self.name, self.boot, "595.58.03", "13.595.58", "sim", devices, row.cluster)
        self.meter = Meter(facts, METERING, agent_version="0.1.0")

    def read(self, at_ms: int, workload: Workload) -> None:
        """Every GPU at one instant: SM-cycles since boot, summed over its SMs."""
        since_ns = (at_ms - self.booted_ms) * _MS
        elapsed = since_ns * self.mhz * self.sms // 1_000
        for entity, hmma in zip(self.entities, self.hmma, strict=True):
            cycles = dict.fromkeys(CYCLE_IDS, 0) | {248: elapsed, 249: hmma, 250: hmma, 252: hmma}
            sealed = self.meter.observe(
                Reading(entity, since_ns, at_ms * _MS, cycles, {}, (float(self.mhz),), workload=workload)
            )
            assert not sealed


class Fleet:
    """All the rows' clusters and one collector."""

    def __init__(self, desk: Desk) -> None:
        self.desk = desk
        self.nodes: list[Node] = []
        self.records = 0
        self.most_at_once = 0  # runs of which the books held a part while they went on
        self._begun: set[str] = set()
        self._free: dict[str, list[Node]] = {}  # by cluster: nodes that no run has
        self._held: dict[str, list[Node]] = {}  # by run
        self._agents: dict[str, Agent] = {}

    def play(self, found: list[Row]) -> None:
        """In the order in which runs begin and end, by the logs' own clocks."""
        moments = [
            (at_ms, half, row.run, row)
            for row in found
            for half, at_ms in enumerate((row.start_ms, (row.start_ms + row.stop_ms) // 2, row.stop_ms))
            if half != 1 or row.agents == 1  # the large ones come whole, the others in two halves
        ]
        moments.sort(key=lambda m: m[:3])
        for at_ms, group in groupby(moments, key=lambda m: m[0]):
            self.desk.now = at_ms * _MS
            for _, half, _, row in group:
                self._at(row, half, at_ms)
            self.desk.commit()
        end_ms = moments[-1][0] + IDLE_MS
        self.desk.now = end_ms * _MS
        for node in self.nodes:
            node.read(end_ms, IDLE)
            self._ship(node)
        self.desk.commit()

    def _at(self, row: Row, half: int, at_ms: int) -> None:
        """At the start (0), the middle or the end (2): what a reading's workload says held since the one before."""
        job = Workload(WorkloadKind.SLURM, job=row.run, run=row.run, dtype=DTYPE)
        first = 0
        nodes = self._held[row.run] if half else self._take(row)
        for node in nodes:
            for i in range(len(node.entities)):
                node.hmma[i] = node.base[i] + _part(row.cycles, row.gpus, first + i) * half // 2
            first += len(node.entities)
            node.read(at_ms, job if half else IDLE)
            if half == 2:
                node.base = list(node.hmma)
            if half:
                self._ship(node)
        if half == 1:
            self._begun.add(row.run)
            self.most_at_once = max(self.most_at_once, len(self._begun))
        if half == 2:
            self._begun.discard(row.run)
            self._free[row.cluster] += self._held.pop(row.run)

    def _take(self, row: Row) -> list[Node]:
        """Nodes for the run: those of its cluster that are free, and as many new ones as it takes."""
        free = self._free.setdefault(row.cluster, [])
        nodes = self._held[row.run] = free[: row.agents]
        del free[: row.agents]
        while len(nodes) < row.agents:
            nodes.append(Node(row, len(self.nodes)))
            self.nodes.append(nodes[-1])
        return nodes

    def _ship(self, node: Node) -> None:
        window = node.meter.flush()
        assert window is not None
        record = seal_record(node.key, node.boot, node.tip, encode_batch(window.batch))
        node.tip = Tip(node.tip.next_seq + 1, record_hash(record), window.journal)
        agent = self._agents.get(node.name)
        if agent is None:
            agent = self._agents[node.name] = self._admit(node, encode_inventory(window.inventory))
        outcome = self.desk.offer(agent, record)
        assert isinstance(outcome, Taken), outcome
        self.records += 1

    def _admit(self, node: Node, inventory: bytes) -> Agent:
        agent = self.desk.intake.hello(
            public_key=node.key.public,
            node=node.name,
            version="0.1.0",
            oldest_seq=0,
            newest_seq=1,
            now_unix_ns=self.desk.now,
        )
        assert isinstance(agent, Agent), agent
        assert self.desk.intake.inventory(agent, inventory, self.desk.now) is None
        return agent


def _part(whole: int, of: int, number: int) -> int:
    """What the number-th of `of` GPUs does: 8/9 to 10/9 of the mean, in whole cycles; all of them do `whole`."""

    def up_to(n: int) -> int:
        return whole * n * (8 * of + n) // (9 * of * of)

    return up_to(number + 1) - up_to(number)
