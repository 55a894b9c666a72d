"""A job id seen twice: the same job, its next life, or another job."""

import json
from pathlib import Path

import pytest

from flopmeter.agent.workloads.slurm_life import Kin, Life, kin

CAPTURES = Path(__file__).parents[2] / "slurm/captures"

FIRST = Life(0, 1000, "ann")


@pytest.mark.parametrize(
    ("later", "expected"),
    [
        (FIRST, Kin.SAME),
        (Life(1, 1500, "ann"), Kin.REQUEUED),
        (Life(7, 1500, "ann"), Kin.REQUEUED),  # lives in between ran elsewhere
        (Life(1, 1500), Kin.REQUEUED),
        (Life(1), Kin.REQUEUED),
        (Life(1, 1000, "ann"), Kin.REQUEUED),  # while the first life's epilog runs the time has not moved yet
        (Life(0, 9000, "ann"), Kin.OTHER),  # a requeue would have counted
        (Life(0, 9000), Kin.OTHER),
        (Life(1, 1500, "bob"), Kin.OTHER),
        (Life(0, 1000, "bob"), Kin.OTHER),
        (Life(1, 900, "ann"), Kin.OTHER),  # submitted before the one that it should follow
        (Life(0), Kin.UNKNOWN),
        (Life(), Kin.UNKNOWN),
        (Life(-1, 9000, "ann"), Kin.UNKNOWN),
        (Life(-1, 1000, "ann"), Kin.SAME),
    ],
)
def test_after_a_first_life(later: Life, expected: Kin) -> None:
    assert kin(FIRST, later) is expected


def test_a_count_that_fell_is_another_job() -> None:
    assert kin(Life(3, 1000, "ann"), Life(0, 9000, "ann")) is Kin.OTHER
    assert kin(Life(3), Life(2)) is Kin.OTHER
    assert kin(Life(3), Life(3)) is Kin.UNKNOWN


def test_arrays_keep_their_number_over_a_requeue() -> None:
    assert kin(Life(0, 1, "ann", "40"), Life(1, 2, "ann", "40")) is Kin.REQUEUED
    assert kin(Life(0, 1, "ann", "40"), Life(1, 2, "ann", "41")) is Kin.OTHER


def test_slurms_own_unique_id_settles_it() -> None:
    assert kin(Life(0, sluid="s5K1KKYAYG5D00"), Life(0, sluid="s5K1KKYAYG5D00")) is Kin.SAME
    assert kin(Life(0, sluid="s5K1KKYAYG5D00"), Life(0, sluid="s5K1KKYAYG5D01")) is Kin.OTHER
    assert kin(Life(0, sluid="s5K1KKYAYG5D00"), Life(1, sluid="s5K1KKYAYG5D01")) is Kin.REQUEUED
    assert kin(Life(sluid="s5K1KKYAYG5D00"), Life(sluid="s5K1KKYAYG5D01")) is Kin.UNKNOWN


def _life(capture: str) -> Life:
    (job,) = [j for j in json.loads((CAPTURES / f"{capture}.json").read_text())["jobs"] if j["job_id"] == 1]
    return Life(job["restart_cnt"], job["submit_time"], job["user_name"])


def test_a_real_requeue() -> None:
    first, between, second = map(_life, ("squeue", "squeue-after-requeue", "squeue-restarted"))
    assert first.submit_unix_s == between.submit_unix_s < second.submit_unix_s
    assert kin(first, between) is Kin.REQUEUED
    assert kin(first, second) is Kin.REQUEUED
    assert kin(second, _life("squeue-ended")) is Kin.SAME
