"""What is printed for people fits a page of 80 columns, on a terminal and through a pipe."""

import hashlib
import os
import pty
import subprocess
import sys
import time
from contextlib import suppress

import pytest
from builders import WINDOW_NS, Chain, busy, gap
from desk import Desk

from flopmeter.cli.main import main
from flopmeter.collector.law.regimes import SCOPES, shipped
from flopmeter.collector.registry.entries import Declare
from flopmeter.collector.registry.say import say
from flopmeter.contract.usage import IDLE, UNATTRIBUTED, Workload, WorkloadKind
from flopmeter.wire.v1 import batch_pb2

COLUMNS = 80
LONG_NAME = "team-foundation-models/atlas-70b-pretraining-stage-2-long-context-annealing-with-a-long-name"
SHAPE = ("--layers", "126", "--hidden", "16384", "--context", "8192", "--recompute", "full")
SPEED = ("--tokens-per-second", "1e6", "--gpus", "16384", "--sku", "H100 SXM")


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    """Long names, six nodes of which one is silent and one more lost records, gaps, unowned work, uncovered cards."""
    path = tmp_path_factory.mktemp("width") / "books.sqlite"
    chains = [Chain(f"gpu-node-with-a-long-name-{i:04}.cluster.example", gpus=8) for i in range(6)]
    for chain in chains:
        message = batch_pb2.Inventory.FromString(chain.inventory)
        message.uncovered.add(
            pci_address="00000000:c1:00.0",
            vendor="AMD",
            model="Instinct MI300X OAM with a name that goes on for quite a while",
            reason="no reader for this vendor's counters is built in, so that nothing is known of its work",
        )
        chain.inventory = message.SerializeToString()
        chain.digest = hashlib.sha256(chain.inventory).digest()
    with Desk(path, shipped()) as desk:
        for number, chain in enumerate(chains):
            windows = 3 if number == 5 else 20
            chain.unix_ns = time.time_ns() - 20 * WINDOW_NS
            agent = desk.agent(chain, oldest_seq=0)
            desk.now = time.time_ns()
            training = Workload(WorkloadKind.SLURM, job="4711", run=LONG_NAME, dtype="bf16")
            pod = Workload(WorkloadKind.POD, job="3f0c1d0a-6d4e-4a55-9c5e-0d6a9a6b7c8d", user="alice")
            for _ in range(windows):
                rows = [*(busy(i) for i in range(5)), gap(5, 1), busy(6, 2), busy(7, 3)]
                batch = chain.batch(rows, (training, pod, IDLE, UNATTRIBUTED))
                batch.progress.add(t_boot_ns=1, t_unix_ns=1, tokens=10**12 * chain.seq, parameters=10**11)
                desk.offer(agent, chain.next(payload=batch.SerializeToString()))
        desk.agent(Chain("gpu-node-that-lost-records"), oldest_seq=4)
        desk.commit()
    plan = Declare(LONG_NAME, owner=LONG_NAME, hardware=LONG_NAME, budget_flop=10**25)
    say(path, lambda _: plan, LONG_NAME, f"as planned: {LONG_NAME}", time.time_ns)
    return path


COMMANDS = (
    ("runs", "list"),
    ("runs", "show", LONG_NAME),
    ("runs", "report", LONG_NAME),
    ("runs", "entries"),
    ("runs", "report", LONG_NAME),
    ("runs", "entries"),
    ("runs", "suggestions"),
    ("agent", "doctor", "--source", "sim"),
    ("events", "list"),
    ("deadlines", "list"),
    ("regimes", "list"),
    *(("regimes", "show", r.id) for scope in SCOPES for r in shipped(scope)),
    ("fleet", "list"),
    ("fleet", "inventory"),
    ("fleet", "tenants"),
    ("drafts", "list"),
    ("collector", "fsck"),
    ("estimate", "hardware", "--units", "512", "--hours", "300", "--sku", "H100 SXM", "--utilisation", "0.4"),
    ("estimate", "hardware", "--units", "8e9", "--hours", "8e9", "--sku", "H100 SXM", "--utilisation", "0.9"),
    (
        *("estimate", "hardware", "--start", "2026-01-01T00:00:00Z", "--end", "2026-03-01T00:00:00Z"),
        *("--units", "16384", "--sku", "H100 SXM", "--utilisation", "0.4", "--dtype", "fp8"),
    ),
    ("estimate", "architecture", "--params", "405e9", "--tokens", "15.6e12", "--recompute", "full"),
    ("estimate", "architecture", "--params", "405e9", "--tokens", "15.6e12", *SHAPE, *SPEED),
    ("estimate", "architecture", "--params", "1e9", "--active-params", "5e8", "--tokens", "9e22", *SHAPE),
    ("estimate", "peaks"),
)


@pytest.mark.parametrize("words", COMMANDS, ids=lambda words: " ".join(words[:3])[:40])
def test_no_line_is_wider_than_a_page(monkeypatch, capsys, store, words):
    monkeypatch.setenv("FLOPMETER_STORE", str(store))
    for name in ("COLUMNS", "FLOPMETER_REGIMES"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(sys, "argv", ["flopmeter", *words])
    with pytest.raises(SystemExit) as done:
        main()
    out = capsys.readouterr()
    assert done.value.code == 0, out.err
    assert out.out.strip()
    wide = [line for line in out.out.splitlines() if len(line) > COLUMNS]
    assert not wide, "\n".join(f"{len(line)}: {line}" for line in wide)


def test_a_column_that_was_left_out_is_named(monkeypatch, capsys, store):
    monkeypatch.setenv("FLOPMETER_STORE", str(store))
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setattr(sys, "argv", ["flopmeter", "runs", "list"])
    with pytest.raises(SystemExit):
        main()
    out = capsys.readouterr().out
    assert "last seen" not in out.splitlines()[0]
    assert (
        "left out at this width: last seen (UTC), observed, status, whole texts of run; --json has all"
        in " ".join(out.split())
    )


def whole(terminal: int) -> bytes:
    """All that was written to a terminal whose other end is closed: one read may give a part."""
    parts = []
    with suppress(OSError):  # EIO: that is its end
        while part := os.read(terminal, 65_536):
            parts.append(part)
    return b"".join(parts)


def test_an_error_breaks_at_words_on_a_terminal_and_is_one_line_in_a_log(store):
    words = [
        sys.executable,
        "-c",
        "from flopmeter.cli.main import main; main()",
        "runs",
        "show",
        "no-such-run-of-that-name",
    ]
    environ = {**os.environ, "FLOPMETER_STORE": str(store), "COLUMNS": "60"}
    logged = subprocess.run(words, env=environ, capture_output=True, text=True, check=False, timeout=60)
    assert logged.returncode == 3
    assert [line.split(":")[0] for line in logged.stderr.splitlines()] == ["Error", "Hint"]
    assert max(map(len, logged.stderr.splitlines())) > 60
    ours, theirs = pty.openpty()
    try:
        subprocess.run(words, env=environ, stderr=theirs, check=False, timeout=60)
        os.close(theirs)
        said = whole(ours).decode()
    finally:
        os.close(ours)
    assert max(map(len, said.splitlines())) <= 60 + len(str(store))
    assert "".join(said.split()) == "".join(logged.stderr.split())  # a path may break at a hyphen
