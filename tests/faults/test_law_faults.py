"""A commit that fails while other law files are taken: nothing of it stays, and the next one has all of it."""

import pytest
from builders import Chain
from faulty_sqlite import Crash, Faults
from law_files import REGIME

from flopmeter.collector.check.fsck import check_store, result_text
from flopmeter.collector.errors import StoreError
from flopmeter.collector.ingest.admission import Admission
from flopmeter.collector.ingest.group import Group
from flopmeter.collector.ingest.intake import Intake
from flopmeter.collector.ingest.writer import Writer
from flopmeter.collector.law.laws import LawFile, Laws, of_files
from flopmeter.collector.law.watch import last_good
from flopmeter.collector.store.sqlite import WRITES, SqliteStore

STATEMENTS = {
    name: sql
    for name, sql in (("commit", "COMMIT"), *WRITES)
    if name in ("commit", "texts", "site_laws", "judged", "judged_until", "events")
}


def site(flop: int, version: str) -> Laws:
    text = REGIME.replace("{ base = 10, exponent = 24 }", f'"{flop}"').replace('"1"', f'"{version}"', 1)
    return of_files([LawFile("own.toml", text.encode())])


class Office:
    """A collector without a transport whose law files are set from outside."""

    def __init__(self, path, faults, laws):
        self.laws, self.now = laws, 1_800_000_000 * 10**9
        self.store = SqliteStore(path, connect=faults.connect)
        self.writer = Writer(self.store.books, (), laws=lambda: self.laws, unix_ns=lambda: self.now)
        self.intake = Intake(self.store.catalogue, Admission(admit_new=True))

    def ship(self, chain):
        agent = self.intake.hello(
            public_key=chain.public_key,
            node=chain.node,
            version="0",
            oldest_seq=0,
            newest_seq=0,
            now_unix_ns=self.now,
        )
        assert self.intake.inventory(agent, chain.inventory, self.now) is None
        self.intake.offer(agent, chain.next(), self.now)
        self.intake.review(self.now)
        group = self.intake.take_group()
        self.writer.commit(group)
        self.intake.committed(group)

    def stored(self):
        db = self.store.catalogue
        return {
            "judged": db._all(
                "SELECT digest, from_position, until_position FROM judged WHERE regime = 'site-rule'"
            ),
            "files": db._all("SELECT law_no, files FROM site_laws"),
            "texts": db._all("SELECT digest FROM texts ORDER BY 1"),
            "raised": db._all("SELECT key FROM events WHERE key LIKE 'threshold:site-rule%'"),
        }


@pytest.mark.parametrize("dies", [False, True], ids=["error", "crash"])
@pytest.mark.parametrize("before", [True, False], ids=["before", "after"])
@pytest.mark.parametrize("statement", STATEMENTS.values(), ids=STATEMENTS)
def test_law_files_are_taken_whole_or_not_at_all(tmp_path, statement, before, dies):
    path, faults = tmp_path / "books.db", Faults()
    office = Office(path, faults, site(10**20, "1"))
    office.ship(Chain("n"))
    first = office.stored()
    assert (len(first["judged"]), len(first["files"]), first["raised"]) == (1, 1, [])
    office.laws = site(10**16, "2")
    faults.plan(statement, before=before, error=Crash() if dies else None)
    with pytest.raises(Crash if dies else StoreError):
        office.writer.commit(Group(review=True))
    assert faults.error is None, "the statement did not run: this case tests nothing"
    if dies:
        office.store.close()
        office = Office(path, faults, office.laws)
    else:
        office.writer.reset()
    persisted = statement == "COMMIT" and not before
    assert (office.stored() == first) is not persisted
    office.writer.commit(Group(review=True))
    then = office.stored()
    assert {(row[1], row[2]) for row in then["judged"]} == {(1, 1), (2, None)}
    assert [number for number, _ in then["files"]] == [1, 2]
    assert then["raised"] == [("threshold:site-rule:r1:crossed:crossed:>10^16",)]
    assert last_good(office.store.books).files == office.laws.files
    office.store.close()
    result = check_store(path, ())
    assert result.difference is None, result_text(result)


def read_to_judge_anew(path):
    """Every statement that is read by when other law files are taken, before the commit itself."""
    faults = Faults()
    office = Office(path, faults, site(10**20, "1"))
    office.ship(Chain("n"))
    office.laws = site(10**16, "2")
    faults.seen.clear()
    office.writer._look_at_laws()
    office.store.close()
    return list(dict.fromkeys(faults.seen))


def test_law_files_are_taken_although_the_store_could_not_be_read_at_first(tmp_path):
    statements = read_to_judge_anew(tmp_path / "first.db")
    assert len(statements) > 5
    for number, statement in enumerate(statements):
        path, faults = tmp_path / f"{number}.db", Faults()
        office = Office(path, faults, site(10**20, "1"))
        office.ship(Chain("n"))
        office.laws = site(10**16, "2")
        faults.plan(statement, before=True)
        with pytest.raises(StoreError):
            office.writer.commit(Group(review=True))
        office.writer.reset()
        office.writer.commit(Group(review=True))
        then = office.stored()
        assert {(row[1], row[2]) for row in then["judged"]} == {(1, 1), (2, None)}, statement
        assert then["raised"] == [("threshold:site-rule:r1:crossed:crossed:>10^16",)], statement
        office.store.close()
