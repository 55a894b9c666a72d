"""Training or inference, guessed from hours: what is said, how surely, and where nothing is said."""

import csv
from math import cos, pi
from pathlib import Path

import pytest

from flopmeter.collector.books import SUM_FIELDS, GroupKey, Slot
from flopmeter.collector.registry.entries import Purpose
from flopmeter.collector.registry.kind import (
    LEAST_HOURS,
    Guess,
    Kind,
    Looks,
    disagrees,
    guess,
    guess_json,
)
from flopmeter.collector.registry.suggestions import Confidence
from flopmeter.contract.evidence_class import EvidenceClass
from flopmeter.contract.usage import ALL_MEASURED, Measured

FOUNDRY = Path(__file__).parents[3] / "../shared/data/bench/llm_foundry_mpt_mfu_hfu.csv"
HOUR_NS = 3_600_000_000_000
ELAPSED = 132 * 1_755_000_000 * 3_600  # SM-cycles of an H100 in an hour
FIRST = 490_000  # hours since 1970


def hour(
    n: int,
    *,
    tensor: float,
    busy: float = 0.95,
    watts: float = 650,
    gpus: float = 8,
    measured=ALL_MEASURED,
    cls=1,
):
    """One group's hour: `tensor` and `busy` as parts of the elapsed cycles."""
    elapsed = int(gpus * ELAPSED)
    sums = dict.fromkeys(SUM_FIELDS, 0) | {
        "duration_ns": int(gpus * HOUR_NS),
        "sm_elapsed_cycles": elapsed,
        "sm_active_cycles": int(busy * elapsed),
        "hmma_cycles": int(tensor * elapsed),
        "energy_mj": int(watts * gpus * 3_600_000),
    }
    return Slot(FIRST + n), GroupKey(1, 1, int(cls), int(measured), 0, 0), list(sums.values())


def training(hours: int, tensor: float = 0.42, gpus: float = 64):
    return [hour(n, tensor=tensor, gpus=gpus) for n in range(hours)]


def serving(hours: int):
    """Load that follows the day: least at night, most in the afternoon."""
    found = []
    for n in range(hours):
        load = 0.55 - 0.45 * cos(2 * pi * ((FIRST + n) % 24 - 4) / 24)
        found.append(hour(n, tensor=0.06 * load, busy=0.1 + 0.5 * load, watts=150 + 250 * load))
    return found


def spoken(g: Guess) -> dict[str, Kind | None]:
    return {s.name: s.speaks_for for s in g.signals}


def test_a_steady_day_on_many_gpus_is_training():
    found = guess(training(26))
    assert (found.kind, found.confidence) == (Kind.TRAINING, Confidence.HIGH)
    assert set(spoken(found).values()) == {Kind.TRAINING, None}
    assert found.why_not == ""


def test_load_that_follows_the_day_is_inference():
    found = guess(serving(80))
    assert (found.kind, found.confidence) == (Kind.INFERENCE, Confidence.HIGH)
    assert spoken(found)["rhythm of the day"] is Kind.INFERENCE


def test_the_rhythm_of_the_day_needs_two_days():
    assert "rhythm of the day" not in spoken(guess(serving(49)))
    assert "rhythm of the day" in spoken(guess(serving(50)))


def test_one_gpu_for_some_hours_is_less_sure_and_says_why():
    found = guess(training(8, gpus=1))
    assert (found.kind, found.confidence) == (Kind.TRAINING, Confidence.MEDIUM)
    assert found.why_not == "4 signals for it, 0 against, 6 hours"


@pytest.mark.parametrize("hours", range(LEAST_HOURS + 2))
def test_too_few_whole_hours_are_unknown(hours):
    """The first and the last hour are cut off by the run's own ends. The 15 minutes of a nanoGPT record are none."""
    found = guess(training(hours))
    assert (found.kind, found.confidence, found.signals) == (Kind.UNKNOWN, None, ())
    seen = "1 whole hour" if hours == 3 else f"{max(0, hours - 2)} whole hours"
    assert found.why_not == f"{seen} with tensor counters: expected at least 4"
    assert guess(training(LEAST_HOURS + 2)).kind is Kind.TRAINING


@pytest.mark.parametrize(
    "blind",
    [
        {"measured": Measured.SM_ACTIVE | Measured.ENERGY},
        {"cls": EvidenceClass.C},
        {"cls": EvidenceClass.GAP},
    ],
)
def test_time_without_tensor_counters_is_no_time_without_tensor_work(blind):
    """Absent is never zero: 0 tensor cycles of what was not read would look like inference."""
    rows = [hour(n, tensor=0, **blind) for n in range(30)]
    assert guess(rows).kind is Kind.UNKNOWN
    half = [*training(30, gpus=8), *(hour(n, tensor=0, gpus=8, **blind) for n in range(30))]
    found = guess(half)
    assert (found.kind, found.why_not) == (
        Kind.UNKNOWN,
        "tensor counters for 50.0 % of its time: expected at least 80 %",
    )
    tenth = [*training(30, gpus=8), *(hour(n, tensor=0, gpus=1, **blind) for n in range(30))]
    assert guess(tenth).kind is Kind.TRAINING


def test_what_other_holders_of_a_shared_gpu_did_is_not_looked_at():
    others = [hour(n, tensor=0.9, measured=ALL_MEASURED | Measured.OTHERS) for n in range(80)]
    assert guess([*serving(80), *others]) == guess(serving(80))


def test_no_tensor_work_is_another_kind_and_says_what_it_may_be_as_well():
    found = guess([hour(n, tensor=0.001) for n in range(30)])
    assert (found.kind, found.confidence) == (Kind.OTHER, Confidence.LOW)
    assert "decoding one request at a time" in found.why_not


def test_what_bridges_hours_shows_how_none_of_them_was():
    """An outage of a day within a training: a guess from the hours that were seen, and from none that were not."""
    seen = training(26)
    bridge = (Slot(FIRST + 60, 34), *hour(60, tensor=0.001, busy=0.01, gpus=64 * 34)[1:])
    assert guess([*seen, bridge]) == guess(seen)
    looks = Looks()
    for slot, key, sums in (*seen, bridge):
        looks.add(slot, key, sums)
    assert bridge[0] in looks.slots, "but it is time in which there was something"
    # Windows of an hour lie over the edge of one: each is as good as an hour.
    shifted = [(Slot(slot.hour, 1), key, sums) for slot, key, sums in seen]
    assert guess(shifted) == guess(seen)


def test_signals_that_contradict_each_other_are_unknown():
    """Much tensor work and busy, but work and power that jump: batch inference, or a training that stalls."""
    rows = [hour(n, tensor=0.6 if n % 2 else 0.1, watts=680 if n % 2 else 300) for n in range(40)]
    found = guess(rows)
    assert found.kind is Kind.UNKNOWN
    assert found.confidence is None
    assert {Kind.TRAINING, Kind.INFERENCE} <= set(spoken(found).values())
    assert found.why_not


def test_power_that_nobody_read_says_nothing():
    rows = [hour(n, tensor=0.42, gpus=64, measured=ALL_MEASURED & ~Measured.ENERGY) for n in range(26)]
    assert "steadiness of the power" not in spoken(guess(rows))
    assert guess(rows).kind is Kind.TRAINING


@pytest.mark.skipif(not FOUNDRY.exists(), reason="../shared/data is not beside this checkout")
def test_no_published_training_looks_like_inference():
    """216 trainings of MosaicML, by the share of peak that their hardware executed, each for eight hours."""
    with FOUNDRY.open() as file:
        rows = list(csv.DictReader(file))
    found = [guess(training(10, float(r["HFU"]) / 100, gpus=int(r["# GPUs"]))) for r in rows]
    assert len(found) == 216
    assert {g.kind for g in found} == {Kind.TRAINING}
    assert all(g.confidence in (Confidence.MEDIUM, Confidence.HIGH) for g in found)


def test_beside_what_was_declared():
    trained, served, unsure = guess(training(26)), guess(serving(80)), guess(training(3))
    assert disagrees(Purpose.EVALUATION, trained)
    assert disagrees(Purpose.SYNTHETIC_DATA_PUBLIC, trained)
    assert disagrees(Purpose.PRETRAINING, served)
    assert not disagrees(Purpose.PRETRAINING, trained)
    assert not disagrees(Purpose.INFERENCE, served)
    assert not disagrees(Purpose.RL, served)  # updates and rollouts in one
    assert not disagrees(None, served)
    assert not disagrees(Purpose.EVALUATION, unsure)
    low = Guess(Kind.TRAINING, Confidence.LOW, (), "")
    assert not disagrees(Purpose.EVALUATION, low)


def test_as_reports_print_it():
    document = guess_json(guess(training(26)), Purpose.EVALUATION)
    assert (document["guess"], document["confidence"], document["disagrees"]) == ("training", "high", True)
    assert document["declared_purpose"] == "evaluation"
    assert {"name": "tensor share", "seen": "42.0 % of the cycles", "speaks_for": "training"} in document[
        "signals"
    ]
    assert "in no total" in document["note"]
    assert guess_json(guess([]), None)["confidence"] is None


def test_the_order_of_rows_does_not_matter():
    rows = serving(60)
    assert guess(reversed(rows)) == guess(rows)
