"""`fleet inventory`: models, counts and dense peaks per cluster; and `fleet list`'s coverage as people see it."""

import hashlib
import json
import sys

import pytest
from builders import UNIX_NS, Chain, busy
from desk import Desk

from flopmeter.cli.layout import Paint
from flopmeter.cli.main import main
from flopmeter.collector.report import queries
from flopmeter.collector.report.fleet_view import fleet_view
from flopmeter.collector.report.inventory_view import inventory_view
from flopmeter.collector.report.runs_view import runs_view
from flopmeter.contract.usage import UNATTRIBUTED
from flopmeter.wire.v1 import batch_pb2

MINUTE_NS = 60_000_000_000
PAGE = Paint(colour=False, width=80)
H100_BF16 = 132 * 4096 * 1_830_000_000


@pytest.fixture
def path(tmp_path):
    return tmp_path / "books.sqlite"


def chain_of(node, *names, cluster="c1"):
    chain = Chain(node, gpus=len(names), cluster=cluster)
    message = batch_pb2.Inventory.FromString(chain.inventory)
    for device, name in zip(message.devices, names, strict=True):
        device.name = name
    chain.inventory = message.SerializeToString()
    chain.digest = hashlib.sha256(chain.inventory).digest()
    return chain


def fill(path, *chains):
    with Desk(path) as desk:
        for chain in chains:
            desk.offer(desk.agent(chain), chain.next())
        desk.commit()


def inventory(path, minute=1):
    with queries.reading(path) as reader:
        return reader.inventory(queries.asked(UNIX_NS + minute * MINUTE_NS))


H100, A100 = "NVIDIA H100 80GB HBM3", "NVIDIA A100-SXM4-80GB"


def test_each_cluster_its_models_counts_and_dense_peaks(path):
    fill(path, chain_of("n1", H100, H100), chain_of("n2", H100, A100), chain_of("n3", A100, cluster="c2"))
    one, two = inventory(path)["clusters"]
    assert (one["cluster"], one["nodes"], one["gpus"]) == ("c1", 2, 4)
    assert [(m["model"], m["gpus"]) for m in one["models"]] == [(A100, 1), (H100, 3)]
    a100, h100 = one["models"]
    assert h100["peak_op_per_s"]["bf16"] == str(3 * H100_BF16)
    assert h100["peak_op_per_s"]["fp8"] == str(3 * 2 * H100_BF16)
    assert "fp8" not in a100["peak_op_per_s"], "A100 has none"
    assert one["peak_op_per_s"]["bf16"] == str(3 * H100_BF16 + 108 * 2048 * 1_410_000_000)
    assert one["share_of_1e20_op_per_s"] == 6 * H100_BF16 / 10**20
    assert (one["network_gbit_per_s"], one["site"]) == (None, None)
    assert (two["cluster"], two["gpus"]) == ("c2", 1)


def test_a_model_of_no_table_is_counted_and_named_and_never_guessed(path):
    fill(path, chain_of("n1", "NVIDIA X9000", H100))
    (cluster,) = inventory(path)["clusters"]
    assert (cluster["gpus"], cluster["models_without_a_peak"]) == (2, ["NVIDIA X9000"])
    assert "no peak in the table for NVIDIA X9000" in inventory_view(inventory(path), PAGE)


def test_instances_of_a_gpu_are_one_gpu(path):
    chain = Chain("n1", gpus=3)
    message = batch_pb2.Inventory.FromString(chain.inventory)
    for device in message.devices[1:]:
        device.mig, device.parent, device.sm_count = True, message.devices[0].entity, 16
        device.name = f"{H100} MIG 1g.10gb"
    chain.inventory = message.SerializeToString()
    chain.digest = hashlib.sha256(chain.inventory).digest()
    with Desk(path) as desk:
        agent = desk.agent(chain)
        desk.offer(agent, chain.next([busy(0)]))
        desk.commit()
    (cluster,) = inventory(path)["clusters"]
    assert [(m["model"], m["gpus"]) for m in cluster["models"]] == [(H100, 1)]


def test_a_node_that_was_set_up_anew_has_its_gpus_once(path):
    old, new = Chain("n1", gpus=2), Chain("n1", gpus=2, key_seed="again")
    new.unix_ns += 60 * MINUTE_NS
    fill(path, old, new)
    (cluster,) = inventory(path)["clusters"]
    assert (cluster["nodes"], cluster["gpus"]) == (1, 2)


def test_the_page_names_what_does_not_report(path):
    fill(path, chain_of("n1", H100), chain_of("n2", A100))
    text = inventory_view(inventory(path, 60), PAGE)
    assert max(map(len, text.splitlines())) <= 80
    assert "Known to exist and not reporting" in text
    assert text.count("silent") == 2
    assert "10^20 op/s" in text
    head = next(line for line in text.splitlines() if line.startswith("  model"))
    assert "bf16 op/s" in head
    assert "fp4" not in head, "none of them has it"
    assert inventory_view({"clusters": [], "not_reporting": [], "w_table": "x"}, PAGE).startswith(
        "no GPUs yet"
    )


def test_the_fleets_page_says_coverage_what_is_missing_and_what_nobody_owned(path):
    chain = Chain("n1", gpus=2)
    with Desk(path) as desk:
        agent = desk.agent(chain)
        for _ in range(30):
            desk.offer(agent, chain.next([busy(0), busy(1, 1)], (UNATTRIBUTED, UNATTRIBUTED)))
        desk.commit()
    with queries.reading(path) as reader:
        question = queries.asked(UNIX_NS + 60 * MINUTE_NS)
        fleet, listed = reader.fleet(question), runs_view([], PAGE, reader.unowned(question)["unattributed"])
    flop = 60 * (132 * 1_700_000_000 * 60 * 40 // 100) * 4096
    assert fleet["unattributed"]["flop"]["point"] == str(flop)
    assert fleet["unattributed"]["device_seconds"] == 60 * 60.0
    text = " ".join(fleet_view(fleet, PAGE).split())
    assert "coverage: 50.0 % of 2.00 GPU-h expected; gaps: silent 1.00 GPU-h" in text
    assert "n1 2 silent" in text
    for page in (text, " ".join(listed.split())):
        assert "Unattributed, in no run: 1.00 GPU-h, 1.32e18 FLOP, between 3.85e17 and" in page


def test_a_long_list_of_what_is_missing_is_cut_and_says_so(path):
    fill(path, *(Chain(f"n{i:02}", gpus=1) for i in range(45)))
    with queries.reading(path) as reader:
        fleet = reader.fleet(queries.asked(UNIX_NS + 60 * MINUTE_NS))
    assert len(fleet["not_reporting"]) == 45
    assert "and 5 more; --json has all" in fleet_view(fleet, PAGE)


def flopmeter(monkeypatch, capsys, *words):
    monkeypatch.setattr(sys, "argv", ["flopmeter", *words])
    try:
        main()
        code = 0
    except SystemExit as e:
        code = e.code or 0
    out = capsys.readouterr()
    return code, out.out, out.err


def test_the_operators_list_reaches_fleet_and_runs(monkeypatch, capsys, path, tmp_path):
    fill(path, Chain("n1"))
    nodes = tmp_path / "nodes.toml"
    nodes.write_text('[[node]]\nnames = ["n9"]\ngpus = 8\n')
    monkeypatch.setenv("FLOPMETER_STORE", str(path))
    code, out, _ = flopmeter(monkeypatch, capsys, "fleet", "list", "--expect", str(nodes), "--json")
    assert code == 0
    found = json.loads(out)["not_reporting"]
    assert ("n9", "expected", 8) in [(m["node"], m["cause"], m["gpus"]) for m in found]
    monkeypatch.setenv("FLOPMETER_EXPECT", str(nodes))
    _, out, _ = flopmeter(monkeypatch, capsys, "fleet", "inventory", "--json")
    assert "n9" in [m["node"] for m in json.loads(out)["not_reporting"]]
    nodes.write_text(
        '[[node]]\nnames = ["n1"]\ngpus = 2\ngone = 2026-01-01T00:00:00Z\nby = "ops"\nwhy = "sold"\n'
    )
    _, out, _ = flopmeter(monkeypatch, capsys, "runs", "show", "r1", "--json")
    assert json.loads(out)["unreported"]["device_seconds"] == 0
    _, out, _ = flopmeter(monkeypatch, capsys, "runs", "list", "--json")
    assert json.loads(out)["unattributed"]["device_seconds"] == 0
    nodes.write_text("[[node]]\n")
    code, _, err = flopmeter(monkeypatch, capsys, "runs", "show", "r1")
    assert code == 3
    assert "names: expected a list" in err
