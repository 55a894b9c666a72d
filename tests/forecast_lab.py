"""A collector and one node whose records are of whole hours, so that days pass in a few of them; people speak beside it."""

from dataclasses import replace

from builders import UNIX_NS, WINDOW_NS, Chain, batch, busy
from desk import Desk

from flopmeter.collector.check.fsck import check_store, result_text
from flopmeter.collector.ingest.decide import TAKEN
from flopmeter.collector.law.regimes import shipped
from flopmeter.collector.registry.say import say
from flopmeter.collector.store.forecasts import OF_RUN, SELECT, forecast_rows
from flopmeter.contract.usage import Workload, WorkloadKind

HOUR_NS = 3_600 * 10**9
DAY_NS = 24 * HOUR_NS
#: A whole hour.
BEGIN_NS = (UNIX_NS // HOUR_NS + 1) * HOUR_NS
#: When what an hour told is in the books, and the next look at a forecast is due.
LATE_NS = 6 * 60 * 10**9
BROAD = next(r for r in shipped() if r.id == "eu-systemic-risk")


def regime(flop, **changes):
    """A line of its own: all that the run executed, no early lines unless told."""
    return replace(BROAD, **({"id": "line", "threshold_flop": flop, "early": ()} | changes))


def job(name, run=""):
    return Workload(WorkloadKind.SLURM, job=name, run=run, dtype="fp64")


class HourLab:
    def __init__(self, path, regimes, **more):
        self.path, self.regimes, self.more = path, tuple(regimes), more
        self.chain = Chain("n", gpus=1)
        self.chain.unix_ns = BEGIN_NS
        self.desk = Desk(path, self.regimes, **more)
        self.desk.now = BEGIN_NS
        self.events = []

    def reopen(self, regimes=None):
        now = self.desk.now
        self.desk.close()
        self.regimes = self.regimes if regimes is None else tuple(regimes)
        self.desk = Desk(self.path, self.regimes, **self.more)
        self.desk.now = now

    def hours(self, n=1, percent=40, workload=None, commit=True):
        """`n` hours of work; 0 %: the node is up and idle. Events of the commits, each a little after its hour."""
        found = []
        for _ in range(n):
            self._record(percent, workload or job("1", "r"))
            if commit:
                found += self.commit()
        return found

    def _record(self, percent, workload):
        chain = self.chain
        end = chain.unix_ns + HOUR_NS
        self.desk.now = max(self.desk.now, end + LATE_NS)
        payload = batch(
            chain.digest,
            [_double(busy(0, duration_ns=HOUR_NS, percent=percent))] if percent else [],
            (workload,) if percent else (),
            boot_ns=(chain.boot_ns, chain.boot_ns + HOUR_NS),
            unix_ns=(chain.unix_ns, end),
        ).SerializeToString()
        agent = self.desk.agent(chain)
        assert self.desk.offer(agent, chain.next(payload=payload)) is TAKEN
        chain.boot_ns += HOUR_NS - WINDOW_NS
        chain.unix_ns = end

    def quiet(self, hours):
        """Nothing comes; the collector looks each hour."""
        found = []
        for _ in range(hours):
            self.desk.now += HOUR_NS
            self.chain.unix_ns += HOUR_NS
            self.chain.boot_ns += HOUR_NS
            found += self.commit()
        return found

    def commit(self):
        found = list(self.desk.commit().events)
        self.events += found
        return found

    def say(self, statement):
        self.desk.now += 1
        return say(self.path, lambda _: statement, "ada@lab", "as planned", lambda: self.desk.now)

    def kept(self, run="r"):
        return forecast_rows(self.desk.rows(OF_RUN, run))

    def every(self):
        return forecast_rows(self.desk.rows(SELECT))

    def good(self, regimes=None):
        result = check_store(self.path, self.regimes if regimes is None else regimes)
        assert result.difference is None, result_text(result)
        assert not [n for n in result.notes if "not derived again" in n], result.notes
        return result


def _double(usage):
    """The same in double precision: of one rate only, so that lower bound and point lie close together."""
    return replace(usage, hmma_cycles=0, fp32_cycles=0, dmma_cycles=usage.hmma_cycles)


def of_type(events, kind):
    return [e for e in events if e.type == kind]
