"""A collector without a transport: intake and writer on a store, driven record by record."""

from collections.abc import Callable, Iterable
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Self

from builders import UNIX_NS, Chain

from flopmeter.collector.books import GroupKey, Sums
from flopmeter.collector.duty.deadlines import DEFAULT_LEADS_NS
from flopmeter.collector.estimate.declared import Declared
from flopmeter.collector.estimate.margin import MARGIN_PERCENT
from flopmeter.collector.forecast.settings import DEFAULT, Outlook
from flopmeter.collector.ingest.admission import Admission
from flopmeter.collector.ingest.decide import Outcome, Refused
from flopmeter.collector.ingest.group import Agent, Group
from flopmeter.collector.ingest.identity import RuleList
from flopmeter.collector.ingest.intake import Intake
from flopmeter.collector.ingest.writer import Committed, Writer, _names
from flopmeter.collector.law.laws import Laws
from flopmeter.collector.law.regimes import Regime
from flopmeter.collector.law.unattributed_watch import UNATTRIBUTED_MINUTES
from flopmeter.collector.report.sites import Sites
from flopmeter.collector.store.base import Transaction
from flopmeter.collector.store.sqlite import SqliteStore

DAY_NS = 86_400_000_000_000


@cache
def empty_store() -> bytes:
    """A store as it is made, by all its migrations: once for thousands of tests."""
    with TemporaryDirectory() as folder:
        path = Path(folder) / "empty.sqlite"
        SqliteStore(path).close()
        return path.read_bytes()


class Desk:
    """Opens the store at `path`; `now` is the collector's clock and moves only when told."""

    def __init__(
        self,
        path: Path,
        regimes: Iterable[Regime] = (),
        *,
        admission: Admission | None = None,
        sinks: tuple[str, ...] = (),
        estimates: tuple[Declared, ...] = (),
        rules: RuleList | None = None,
        unattributed_minutes: int = UNATTRIBUTED_MINUTES,
        progress_margin_percent: int = MARGIN_PERCENT,
        outlook: Outlook = DEFAULT,
        deadline_leads_ns: tuple[int, ...] = DEFAULT_LEADS_NS,
        sites: Sites | None = None,
        laws: Callable[[], Laws] | None = None,
        connect: Callable[..., Any] | None = None,
    ) -> None:
        self.now = UNIX_NS + DAY_NS
        if connect is None and path.parent.is_dir() and not path.exists():
            path.write_bytes(empty_store())
        self.store = SqliteStore(path, **({"connect": connect} if connect else {}))
        self.writer = Writer(
            self.store.books,
            tuple(regimes),
            sinks=sinks,
            estimates=estimates,
            rules=rules,
            unattributed_minutes=unattributed_minutes,
            progress_margin_percent=progress_margin_percent,
            deadline_leads_ns=deadline_leads_ns,
            outlook=outlook,
            sites=sites,
            laws=laws,
            unix_ns=lambda: self.now,
        )
        self.intake = Intake(self.store.catalogue, admission or Admission(admit_new=True), rules)

    def hello(self, chain: Chain, *, oldest_seq: int | None = None) -> Agent | Refused:
        """Introduce the agent, with its inventory; not committed yet."""
        oldest = (1 if chain.seq else 0) if oldest_seq is None else oldest_seq
        agent = self.intake.hello(
            public_key=chain.public_key,
            node=chain.node,
            version="0.1.0",
            oldest_seq=oldest,
            newest_seq=max(chain.seq, oldest),
            now_unix_ns=self.now,
        )
        if isinstance(agent, Agent):
            assert self.intake.inventory(agent, chain.inventory, self.now) is None
        return agent

    def agent(self, chain: Chain, *, oldest_seq: int | None = None) -> Agent:
        """… and admit it, if it is new: the server commits that, with its place in the log, before it says Welcome."""
        agent = self.hello(chain, oldest_seq=oldest_seq)
        assert isinstance(agent, Agent), agent
        if not agent.entered:
            self._admit(self.intake.group)
        return agent

    def offer(self, agent: Agent, raw: bytes) -> Outcome:
        return self.intake.offer(agent, raw, self.now)[0]

    def commit(self) -> Committed:
        """Commit what was taken, as the server does."""
        group = self.intake.take_group()
        done = self.writer.commit(group)
        self.intake.committed(group)
        if self.intake.group.access_no and not self.intake.group.records:  # … which commits again for these
            self.writer.commit(self.intake.take_group())
        return done

    def _admit(self, group: Group) -> None:
        tx = Transaction()
        _names(Group(new_agents=group.new_agents, access_no=group.access_no), tx)
        self.store.books.write(tx)
        group.new_agents = []
        self.intake._apply_access()  # its row is in the log with the next commit, before the records of that

    def recover(self) -> None:
        """After a failed commit, as the server does."""
        self.writer.reset()
        self.intake.reset()

    def close(self) -> None:
        self.store.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # --- what is in the store ---

    def rows(self, sql: str, *values: Any) -> list[Any]:
        return self.store.catalogue._all(sql, values)

    def totals(self) -> dict[GroupKey, Sums]:
        """The totals table."""
        return {GroupKey(*r[:6]): [int(x) for x in r[6:]] for r in self.rows("SELECT * FROM totals")}
