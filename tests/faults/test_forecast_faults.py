"""A commit that fails while a line becomes known to be met: nothing of it stays, and the next one has it once."""

import pytest
from faulty_sqlite import Crash, Faults
from forecast_lab import BEGIN_NS, DAY_NS, HourLab, job, of_type, regime

from flopmeter.collector.errors import StoreError
from flopmeter.collector.law.events import THRESHOLD_FORECAST
from flopmeter.collector.registry.entries import Declare
from flopmeter.collector.store.sqlite import WRITES

HOUR_FLOP = 80241131520000000
STATEMENTS = {
    name: sql for name, sql in (("commit", "COMMIT"), *WRITES) if name in ("commit", "forecasts", "events")
}


def stored(lab):
    return (
        lab.desk.rows("SELECT run, unix_ns, data FROM forecasts ORDER BY forecast_no"),
        lab.desk.rows("SELECT key FROM events ORDER BY event_no"),
    )


@pytest.mark.parametrize("dies", [False, True], ids=["error", "crash"])
@pytest.mark.parametrize("before", [True, False], ids=["before", "after"])
@pytest.mark.parametrize("statement", STATEMENTS.values(), ids=STATEMENTS)
def test_what_becomes_known_is_kept_and_raised_once(tmp_path, statement, before, dies):
    faults = Faults()
    lab = HourLab(tmp_path / "b.db", [regime(HOUR_FLOP * 48)], connect=faults.connect)
    lab.hours(12)
    whole = HourLab(tmp_path / "whole.db", [regime(HOUR_FLOP * 48)])
    whole.hours(12)
    while not of_type(whole.hours(1), THRESHOLD_FORECAST):
        lab.hours(1)
    assert of_type(lab.events, THRESHOLD_FORECAST) == []
    first = stored(lab)

    lab._record(40, job("1", "r"))
    faults.plan(statement, before=before, error=Crash() if dies else None)
    with pytest.raises(Crash if dies else StoreError):
        lab.commit()
    assert faults.error is None, "the statement did not run: this case tests nothing"
    if dies:
        lab.reopen()
    else:
        lab.desk.recover()
    persisted = statement == "COMMIT" and not before
    assert (stored(lab) == first) is not persisted
    if not persisted:  # the agent sends it again
        raw = lab.chain.records[-1]
        lab.desk.offer(lab.desk.agent(lab.chain), raw)
    lab.commit()
    assert stored(lab) == stored(whole)
    lab.hours(5)
    assert len([k for (k,) in stored(lab)[1] if k.startswith("forecast:")]) == 1
    lab.good()
    lab.desk.close()
    whole.desk.close()


@pytest.mark.parametrize("dies", [False, True], ids=["error", "crash"])
@pytest.mark.parametrize("before", [True, False], ids=["before", "after"])
def test_what_a_plan_makes_known_is_raised_once(tmp_path, before, dies):
    faults = Faults()
    lab = HourLab(tmp_path / "b.db", [regime(10**25)], connect=faults.connect)
    lab.say(Declare("r", budget_flop=2 * 10**25, expected_end_unix_ns=BEGIN_NS + 30 * DAY_NS))
    faults.plan("COMMIT", before=before, error=Crash() if dies else None)
    with pytest.raises(Crash if dies else StoreError):
        lab.commit()
    if dies:
        lab.reopen()
    else:
        lab.desk.recover()
    for _ in range(3):
        lab.desk.now += 1
        lab.commit()
    assert [k for (k,) in stored(lab)[1]] == ["forecast:line:r:plan:>10^25"]
    lab.good()
    lab.desk.close()
