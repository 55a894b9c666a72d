"""From agents' records to a file that an outsider checks, all of it by real processes: attested while the collector runs."""

import json
from pathlib import Path

import pytest
import trace_lines
from processes import flopmeter, serving
from rig import make_trace

pytestmark = pytest.mark.e2e


def done(*args: str | Path) -> str:
    finished = flopmeter(*args)
    assert finished.returncode == 0, finished.stderr
    return finished.stdout


def test_every_run_of_a_collector_that_goes_on_is_attested_and_checked(tmp_path: Path) -> None:
    steady = trace_lines.write(tmp_path / "steady.jsonl", trace_lines.steady(150))
    moved = make_trace(tmp_path / "moved.jsonl", 240)  # a run that becomes known halfway
    with serving(tmp_path, "--admit-new") as (address, store):
        for i, trace in enumerate((steady, moved)):
            done("replay", trace, "--collector", address, "--state", tmp_path / f"state{i}", "--window", "7s")
        runs = [r["run"] for r in json.loads(done("runs", "list", "--store", store, "--json"))["runs"]]
        assert len(runs) == 2
        for n, run in enumerate(runs):
            file = tmp_path / f"{n}.zip"
            done(
                "attest",
                "create",
                run,
                "--profile",
                "auditor",
                "-o",
                file,
                "--store",
                store,
                "--who",
                "ada@lab",
            )
        key = json.loads(done("collector", "keys", "show", "--store", store, "--json"))["attest"]["spki_pem"]
    (tmp_path / "lab.pem").write_text(key)
    done("collector", "fsck", "--store", store)
    for n, run in enumerate(runs):
        shown = json.loads(done("runs", "show", run, "--store", store, "--json"))
        found = json.loads(done("verify", tmp_path / f"{n}.zip", "--key", tmp_path / "lab.pem", "--json"))
        assert found["verified"] is True
        assert found["pack"]
        # What the agents signed, added up again by other code, is what the collector's report says.
        assert found["totals"]["executedFlop"] == shown["executed"]["flop"]
        assert int(found["totals"]["executedFlop"]["point"]) > 2**53
    changed = (tmp_path / "0.zip").read_bytes()
    at = len(changed) // 2
    (tmp_path / "bad.zip").write_bytes(changed[:at] + bytes([changed[at] ^ 1]) + changed[at + 1 :])
    refused = flopmeter("verify", tmp_path / "bad.zip", "--key", tmp_path / "lab.pem", "--json")
    assert refused.returncode == 1
    assert json.loads(refused.stdout)["failed"]
