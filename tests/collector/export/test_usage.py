"""The rows of usage against what other commands say of the same books."""

from collections import Counter
from pathlib import Path

import pytest
from export_books import EVIL

from flopmeter.collector.books import HOUR_NS, SUM_FIELDS
from flopmeter.collector.errors import StoreError
from flopmeter.collector.export.columns import USAGE
from flopmeter.collector.export.usage import usage_rows
from flopmeter.collector.export.wanted import Wanted
from flopmeter.collector.report.queries import Asked, reading
from flopmeter.contract.pipes import PIPES

NAMES = [c.name for c in USAGE.columns]
SIX = [f"{what}_{bound}" for what in ("flop", "integer_ops") for bound in ("lower", "point", "upper")]


def usage(store: Path, question: Asked, **wanted) -> list[dict]:
    with reading(store) as reader:
        return [dict(zip(NAMES, row, strict=True)) for row in usage_rows(reader, question, Wanted(**wanted))]


def six(rows) -> dict[str, int]:
    found = Counter(dict.fromkeys(SIX, 0))
    for row in rows:
        found.update({name: row[name] for name in SIX})
    return dict(found)


def shown(part) -> dict[str, int]:
    return {f"{what}_{bound}": int(n) for what in ("flop", "integer_ops") for bound, n in part[what].items()}


@pytest.fixture(scope="module")
def rows(store: Path, question: Asked) -> list[dict]:
    return usage(store, question)


@pytest.fixture(scope="module")
def documents(store: Path, question: Asked) -> dict[str, dict]:
    with reading(store) as reader:
        return {d["run"]: d for d in reader.runs(question)}


def test_there_is_everything_that_can_be(rows) -> None:
    """… so that the tests below mean something."""
    assert {r["workload_kind"] for r in rows} >= {"slurm", "pod", "idle", "unattributed", None}
    assert {r["evidence_class"] for r in rows} == {"A1", "B1", "gap"}
    assert {r["gap_reason"] for r in rows} >= {None, "read-failed", "unreported"}
    assert {r["run"] for r in rows} >= {None, EVIL, "secret-llama", "assigned-run"}
    assert any(r["apportioned"] for r in rows)
    assert any(r["of_others"] for r in rows)
    assert any(r["period_until"] - r["period_from"] > 4 * HOUR_NS for r in rows if r["workload_kind"])
    assert "NVIDIA X9000" in {r["gpu_model"] for r in rows}
    assert len({r["period_from"] for r in rows}) > 2


def test_a_runs_rows_add_up_to_what_runs_show_says(rows, documents) -> None:
    assert {r["run"] for r in rows} - {None} == set(documents)
    for run, d in documents.items():
        mine = [r for r in rows if r["run"] == run]
        assert six(mine) == shown(d["executed"])
        assert sum(r["sm_elapsed_cycles"] for r in mine) == int(d["executed"]["sm_elapsed_cycles"])
        for part, column in (("by_evidence_class", "evidence_class"), ("by_model", "gpu_model")):
            assert {r[column] for r in mine} == set(d[part])
            for name, said in d[part].items():
                assert six(r for r in mine if r[column] == name) == shown(said), (run, name)
        for pipe in PIPES:
            cycles = sum(r[f"{pipe.value}_cycles"] for r in mine if not r["of_others"])
            assert cycles == int(d["by_pipe"][pipe.value]["sm_cycles"])
        assert sum(r["energy_mj"] for r in mine) / 1000 == d["energy_joules"]
        times = Counter()
        for r in mine:
            times["gap" if r["evidence_class"] == "gap" else "observed"] += r["duration_ns"]
        coverage = d["coverage"]
        assert times["observed"] / 1e9 == coverage["observed_device_seconds"]
        assert times["gap"] / 1e9 == coverage["gap_device_seconds"]
        gaps = Counter()
        for r in mine:
            if r["gap_reason"]:
                gaps[r["gap_reason"]] += r["duration_ns"]
        assert {k: ns / 1e9 for k, ns in gaps.items()} == coverage["gaps"]


def test_time_of_nobody_adds_up_to_what_fleet_list_says(store: Path, question: Asked, rows) -> None:
    with reading(store) as reader:
        unowned = reader.unowned(question)
    for kind in ("idle", "unattributed"):
        mine = [r for r in rows if r["run"] is None and r["workload_kind"] == kind]
        assert mine
        assert six(mine) == shown(unowned[kind])
        assert sum(r["duration_ns"] for r in mine) / 1e9 == unowned[kind]["device_seconds"]


def test_the_books_are_in_it_to_the_last_number(store: Path, rows) -> None:
    with reading(store) as reader:
        kept = list(reader.rows(f"SELECT {', '.join(SUM_FIELDS)} FROM totals"))
    for i, name in enumerate(SUM_FIELDS):
        booked = sum(r[name] for r in rows if r["gap_reason"] != "unreported")
        assert booked == sum(int(row[i]) for row in kept)


def test_time_that_is_asked_for_cuts_and_changes_nothing(store: Path, question: Asked, rows) -> None:
    hours = sorted({r["period_until"] - HOUR_NS for r in rows if r["workload_kind"]})
    assert len(hours) > 1
    for cut in (hours[0], hours[len(hours) // 2], hours[-1], hours[-1] + 1):
        before = usage(store, question, until_unix_ns=cut - 1)
        after = usage(store, question, since_unix_ns=cut)
        assert before + after == rows
        assert all(r["gap_reason"] != "unreported" for r in before)
    assert usage(store, question, since_unix_ns=question.now_unix_ns + 1) == []


def test_one_run_alone_has_the_rows_that_it_has_among_all(store: Path, question: Asked, rows) -> None:
    for run in (EVIL, "secret-llama", "assigned-run"):
        assert usage(store, question, run=run) == [r for r in rows if r["run"] == run] != []


@pytest.mark.parametrize("few", [0, 1_000])
def test_by_index_or_by_a_look_at_all_it_is_the_same(store: Path, question: Asked, monkeypatch, few) -> None:
    expected = usage(store, question, run=EVIL)
    monkeypatch.setattr("flopmeter.collector.export.usage._FEW", few)
    assert usage(store, question, run=EVIL) == expected


def test_a_run_that_is_not_there_is_named_with_what_is_near(store: Path, question: Asked) -> None:
    with pytest.raises(StoreError, match="secret-lama") as e:
        usage(store, question, run="secret-lama")
    assert "secret-llama" in e.value.hint


def test_a_tenant_sees_its_own_work_alone(store: Path, question: Asked, rows) -> None:
    for tenant, runs in (
        ("owner:skunkworks", {"secret-llama"}),
        ("k8s-namespace:c1/physics", {EVIL}),
        ("owner:chem-lab", {"assigned-run"}),
        ("nobody", {"another-run"}),
    ):
        mine = usage(store, question, tenant=tenant)
        assert {r["run"] for r in mine} == runs
        assert mine == [r for r in rows if r["run"] in runs]
    assert usage(store, question, tenant="owner:somebody-else") == []
    for run in ("secret-llama", "no-such-run"):  # of another tenant's run no more is said than of none
        with pytest.raises(StoreError) as e:
            usage(store, question, run=run, tenant="k8s-namespace:c1/physics")
        assert "none of that name" in str(e.value)
        assert "secret" not in e.value.hint
