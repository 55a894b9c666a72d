"""Power that fails, or a process that dies, at every system call of the spool's life: what was promised is there.

A promise is a call that returned. Beyond it there may be more (of the call that was cut short), whole and in
chain; never less. Without any one of the fsyncs of segment.py, spool.py and files.py some of this fails.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from chains import DIGEST, INVENTORY_BYTES, entries
from power import Death, Died, Disk

from flopmeter.agent.keys import RecordKey, load_or_create_key
from flopmeter.agent.metering.remark import Remark
from flopmeter.agent.shipping.segment import Entry
from flopmeter.agent.shipping.spool import MIN_LIMIT_BYTES, Spool, Tip
from flopmeter.contract.usage import NoticeKind

pytestmark = pytest.mark.faults
MOST_CALLS = 400
REMARK = Remark(NoticeKind.REANCHORED, "said the test", "reanchored-5-00")
Lucky = Callable[[str], bool]
#: Nothing that was not synced survives; all of it does; contents but no names; names but no contents; one half.
SURVIVES: dict[str, Lucky] = {
    "nothing": lambda what: False,
    "everything": lambda what: True,
    "contents": lambda what: not (what == "." or what.endswith("/")),
    "names": lambda what: what == "." or what.endswith("/"),
    "half": lambda what: sum(what.encode()) % 2 == 0,
}


@pytest.fixture(scope="module")
def key(tmp_path_factory: pytest.TempPathFactory) -> RecordKey:
    return load_or_create_key(tmp_path_factory.mktemp("key"))


@dataclass
class Promises:
    """What calls that returned have promised, and what may be there besides."""

    chains: list[list[Entry]] = field(default_factory=lambda: [[]])  # any one of these, whole
    kept: dict[str, bytes] = field(default_factory=dict)  # files below the spool that must be there
    untold: list[list[Remark]] = field(default_factory=lambda: [[]])
    most_acked: int = 0
    forgotten: int = 0  # may be gone up to here


def life(directory: Path, key: RecordKey, p: Promises) -> None:
    """Inventory, appends over several segments, acks, a rebase, a record set aside, a remark kept and told."""
    spool = Spool.open(directory, limit_bytes=MIN_LIMIT_BYTES, keep_acked_bytes=0)

    def append(count: int) -> None:
        more = entries(key, spool.tip, count, payload=2500)
        held = p.chains[0]
        p.chains = [held + more[:n] for n in range(count + 1)]
        spool.append(more)
        p.chains = [held + more]

    def keep(name: str, data: bytes, act: Callable[[], object]) -> None:
        act()
        p.kept[name] = data

    keep(
        f"inventory/{DIGEST.hex()}",
        INVENTORY_BYTES,
        lambda: spool.keep_inventory(DIGEST, INVENTORY_BYTES),
    )
    for _ in range(4):
        append(2)
    p.most_acked = p.forgotten = 4
    spool.ack(4)
    held = p.chains[0]
    again = [*held[:4], *entries(key, Tip(5, held[4].prev_hash, b""), 3, payload=100)]
    keep(
        "quarantine/record-5-00",
        held[4].record,
        lambda: spool.quarantine("record-5-00", held[4].record, "why"),
    )
    p.untold = [[], [REMARK]]
    spool.untold.keep(REMARK)
    p.untold = [[REMARK]]
    p.chains = [held, again]
    spool.rebase(5, 5, held[4].prev_hash, iter(again[4:]))
    p.chains = [again]
    append(1)
    append(3)
    p.untold = [[REMARK], []]
    spool.untold.told([REMARK.name])
    p.untold = [[]]
    spool.close()


def check(directory: Path, key: RecordKey, p: Promises) -> None:
    spool = Spool.open(directory, limit_bytes=MIN_LIMIT_BYTES, keep_acked_bytes=0)
    held = list(spool.entries(1))
    oldest = spool.oldest_seq or 1
    assert oldest <= p.forgotten + 1, "entries that were not acknowledged are gone"
    assert held in [chain[oldest - 1 :] for chain in p.chains]
    assert spool.acked_seq <= p.most_acked
    for name, data in p.kept.items():
        if not name.startswith("inventory/") or held:  # one that no record names is dropped at a start
            assert (directory / name).read_bytes() == data
    assert spool.untold.all() in p.untold
    more = entries(key, spool.tip, 1, payload=10)
    spool.append(more)  # which may forget what was acknowledged
    assert list(spool.entries(spool.oldest_seq)) == (held + more)[spool.oldest_seq - oldest :]
    assert spool.oldest_seq <= p.forgotten + 1
    spool.close()


@pytest.mark.parametrize("before", [True, False], ids=["before", "after"])
@pytest.mark.parametrize("survives", SURVIVES)
def test_power_fails_at_any_call(tmp_path: Path, key: RecordKey, *, survives: str, before: bool) -> None:
    for nth in range(1, MOST_CALLS):
        root = tmp_path / str(nth)
        root.mkdir()
        promises = Promises()
        death = Death(nth, before=before)
        with Disk(root) as disk:
            try:
                with death:
                    life(root / "spool", key, promises)
            except Died:
                pass
            else:
                assert not death.dead, "a death was swallowed"
            disk.cut(SURVIVES[survives])
            check(root / "spool", key, promises)
        disk.close()
        if not death.dead:
            break
    assert 50 < nth < MOST_CALLS - 1


def test_a_life_that_ended_in_its_first_steps_leaves_no_trap_for_the_next(
    tmp_path: Path, key: RecordKey
) -> None:
    """What it made and did not sync is there for the next life, but not when the power fails then."""
    for nth in range(1, 25):
        root = tmp_path / str(nth)
        root.mkdir()
        made: list[Entry] = []
        with Disk(root) as disk:
            with pytest.raises(Died), Death(nth, before=False):
                life(root / "spool", key, Promises())
            disk.let_go()
            spool = Spool.open(root / "spool")
            spool.keep_inventory(DIGEST, INVENTORY_BYTES)
            made = [*spool.entries(1), *entries(key, spool.tip, 1)]
            spool.append(made[-1:])
            disk.cut()
            spool = Spool.open(root / "spool")
            assert list(spool.entries(1)) == made
            assert spool.inventory(DIGEST) == INVENTORY_BYTES
            spool.close()
        disk.close()


@pytest.mark.parametrize("survives", ["nothing", "names", "half"])
def test_a_key_that_was_used_is_there_after_the_power_failed(tmp_path: Path, survives: str) -> None:
    """Else a node comes back as another agent, and its spool is another agent's."""
    with Disk(tmp_path) as disk:
        key = load_or_create_key(tmp_path / "var/lib/agent")
        disk.cut(SURVIVES[survives])
        assert load_or_create_key(tmp_path / "var/lib/agent") == key
    disk.close()


def test_a_key_that_was_cut_short_is_made_anew(tmp_path: Path) -> None:
    for nth in range(1, 30):
        for survives in SURVIVES.values():
            root = tmp_path / "state"
            root.mkdir()
            death = Death(nth)
            with Disk(root) as disk:
                try:
                    with death:
                        load_or_create_key(root)
                except Died:
                    pass
                disk.cut(survives)
                assert load_or_create_key(root) == load_or_create_key(root)
            disk.close()
            for path in root.iterdir():
                path.unlink()
            root.rmdir()
        if not death.dead:
            break
    assert 2 < nth < 29
