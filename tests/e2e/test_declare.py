"""A training process that declares, a real agent and a real collector: the claim stands in the signed record of what it
ran, names the run in the books, and stands beside the counters there.
"""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from fakenvml.driver import COMPILER, NO_COMPILER, build
from processes import flopmeter, serving, start, wait_for

from flopmeter.agent.declare import SOCKET_VARIABLE
from flopmeter.agent.shipping.spool import Spool
from flopmeter.collector.encode import decode_batch
from flopmeter.contract.record import parse_record
from flopmeter.contract.usage import Batch, WorkloadKind

pytestmark = pytest.mark.skipif(COMPILER is None, reason=NO_COMPILER)

TICK_NS = 250_000_000
TRAINING = """
import sys
from flopmeter.agent.declare import declare
declare(run="llama-70b", dtype="FP8", purpose="pretraining", parameters=70_000_000_000)
print("ready", flush=True)
for step, line in enumerate(sys.stdin, start=1):
    declare(tokens=step * 1_000_000, at_once=True)
    print("step", flush=True)
"""


def batches(state: Path) -> list[Batch]:
    spool = Spool.open(state / "spool")
    try:
        records = [spool.entry(seq).record for seq in range(1, spool.newest_seq + 1)]
    finally:
        spool.close()
    return [decode_batch(parse_record(record).payload) for record in records]


def test_what_training_code_declares_stands_in_the_record_and_beside_the_counters(tmp_path: Path) -> None:
    with serving(tmp_path, "--admit-new") as (address, store):
        declare_and_meter(tmp_path, address)
        shown = flopmeter("runs", "show", "llama-70b", "--store", store, "--json")
        assert shown.returncode == 0, shown.stderr
        checked = flopmeter("collector", "fsck", "--store", store)
        assert checked.returncode == 0, checked.stdout + checked.stderr
    run = json.loads(shown.stdout)
    assert run["rule"] == "label"
    assert run["identities"]["env:WANDB_RUN_ID"] == ["3kq9z1ab"]
    claimed = run["progress"]
    assert int(claimed["tokens"]) >= 1_000_000
    assert claimed["dtype"] == "fp8"
    assert int(claimed["measured"]["point"]) > 0
    assert claimed["mfu"] is not None


def declare_and_meter(tmp_path: Path, address: str) -> None:
    path, log, script = tmp_path / "declare.sock", tmp_path / "agent.log", tmp_path / "machine.nvml"
    environ = {**os.environ, SOCKET_VARIABLE: str(path), "SECRET_KEY": "hunter2", "WANDB_RUN_ID": "3kq9z1ab"}
    environ.pop("FLOPMETER_RUN", None)
    script.write_text("gpu g0 hmma=0.5\n")
    with subprocess.Popen(
        [sys.executable, "-c", TRAINING],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env=environ,
        text=True,
    ) as training:
        assert training.stdin is not None
        assert training.stdout is not None
        assert training.stdout.readline() == "ready\n"  # nobody listened
        with script.open("a") as f:
            f.write(f"@{time.clock_gettime_ns(time.CLOCK_BOOTTIME)} gpu g0 procs={training.pid}\n")
        driver = {"LD_LIBRARY_PATH": str(build().parent), "FAKENVML_SCRIPT": str(script)}
        state = tmp_path / "state"
        args = [
            "--source",
            "nvml",
            "--state",
            str(state),
            "--tick",
            "250ms",
            "--window",
            "1s",
            "--collector",
            address,
        ]
        agent = start("agent", "run", *args, "--declare-socket", str(path), log=log, environ=driver)
        try:
            wait_for("the agent listens", path.is_socket)

            def declared() -> bool:
                training.stdin.write("go on\n")
                training.stdin.flush()
                assert training.stdout.readline() == "step\n"
                return any(
                    b"llama-70b" in f.read_bytes() for f in (state / "spool").rglob("*") if f.is_file()
                )

            wait_for("a record that names the run", declared)
        finally:
            agent.send_signal(signal.SIGTERM)
            assert agent.wait(60) == 0, log.read_text()
            training.stdin.close()
    assert training.returncode == 0
    assert not path.exists()
    found = [(b, b.workloads[p.workload_index], p) for b in batches(state) for p in b.progress]
    assert found
    for batch, workload, progress in found:
        assert (workload.kind, workload.run, workload.dtype) == (WorkloadKind.PROCESS, "llama-70b", "fp8")
        seen = dict(workload.identities)
        assert seen["declared:purpose"] == "pretraining"
        assert seen["env:WANDB_RUN_ID"] == "3kq9z1ab"
        assert "hunter2" not in repr(batch)
        assert progress.parameters == 70_000_000_000
        # At a stop the last word may come after the last reading, at which the batch ends.
        assert batch.window_start_boot_ns <= progress.t_boot_ns <= batch.window_end_boot_ns + TICK_NS
    tokens = [progress.tokens for _, _, progress in found]
    assert tokens == sorted(tokens)
    assert tokens[-1] >= 1_000_000
