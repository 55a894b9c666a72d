"""`fleet inventory --sites`: where GPUs stand, what is missing there, and what the lines of capacity say."""

import json
import sys

import pytest
from builders import Chain
from desk import Desk

from flopmeter.cli.layout import Paint
from flopmeter.cli.main import main
from flopmeter.collector.report.inventory_view import inventory_view
from flopmeter.collector.report.machines import Told, machines
from flopmeter.collector.report.sites import NO_SITES, parse_sites
from flopmeter.contract.usage import Device, Inventory

SITES = """
[[site]]
name = "dc-west"
clusters = ["c1"]
nodes = ["n1", "n9"]
network_gbit_per_s = 400

[[site]]
name = "dc-west"
clusters = ["c1"]
nodes = ["n2"]
network_gbit_per_s = 100

[[site]]
name = "dc-east"
nodes = ["n3", "n8"]
"""
H100 = "NVIDIA H100 80GB HBM3"
PER_GPU = 2 * 132 * 4096 * 1_830_000_000  # at fp8, and at int8


@pytest.fixture
def run(tmp_path, monkeypatch, capsys):
    path = tmp_path / "books.sqlite"
    with Desk(path) as desk:
        for chain in (Chain("n1"), Chain("n2"), Chain("n3", cluster="c2"), Chain("n4", cluster="c1")):
            desk.offer(desk.agent(chain), chain.next())
        desk.commit()
    (tmp_path / "sites.toml").write_text(SITES)
    (tmp_path / "nodes.toml").write_text('[[node]]\nnames = ["n8"]\ngpus = 8\n')
    monkeypatch.setenv("FLOPMETER_STORE", str(path))

    def call(*words):
        monkeypatch.setattr(sys, "argv", ["flopmeter", "fleet", "inventory", *words])
        with pytest.raises(SystemExit) as e:
            main()
            sys.exit(0)
        out = capsys.readouterr()
        return e.value.code or 0, out.out, out.err

    call.sites, call.nodes = (
        ("--sites", str(tmp_path / "sites.toml")),
        ("--expect", str(tmp_path / "nodes.toml")),
    )
    return call


def test_requirement_23_per_cluster_and_site(run):
    document = json.loads(run(*run.sites, *run.nodes, "--json")[1])
    places = {c["cluster"]: (c["site"], c["network_gbit_per_s"]) for c in document["clusters"]}
    assert places == {"c1": (None, None), "c2": ("dc-east", None)}, "c1 stands at several"
    unknown, east, west = document["sites"]
    assert (unknown["site"], unknown["gpus"]) == (None, 2)
    assert (east["site"], east["gpus"], east["network_gbit_per_s"], east["network_unknown_gpus"]) == (
        "dc-east",
        2,
        [],
        2,
    )
    assert (west["site"], west["nodes"], west["gpus"], west["network_gbit_per_s"]) == (
        "dc-west",
        2,
        4,
        [100, 400],
    )
    assert west["best_op_per_s"] == str(4 * PER_GPU)
    assert west["models"] == [{"model": H100, "gpus": 4}]
    assert east["in_no_inventory"] == {"gpus": 8, "and_more": False}
    assert west["in_no_inventory"] == {"gpus": 0, "and_more": False}


def test_requirement_23_the_test_at_100_and_at_300_gbit(run):
    capacity = {c["regime"]: c for c in json.loads(run(*run.sites, "--json")[1])["capacity"]}
    eo, bis = capacity["us-eo-14110-cluster"], capacity["us-bis-702-7-cluster"]
    assert (eo["network_over_gbit_per_s"], bis["network_over_gbit_per_s"]) == (100, 300)
    assert (eo["in_force"], eo["status"], bis["in_force"], bis["status"]) == (
        False,
        "revoked",
        False,
        "proposed",
    )
    (west,) = [s for s in eo["sites"] if s["site"] == "dc-west"]
    # n1's two GPUs are behind 400 Gbit/s, n2's behind 100, which is not over 100; n4 may stand there, too.
    assert west["op_per_s"] == {"lower": str(2 * PER_GPU), "upper": str(4 * PER_GPU)}
    assert (west["verdict"], west["gpus_sure"]) == ("below", 2)
    (fleet,) = [s for s in bis["sites"] if s["whole_fleet"]]
    assert fleet["op_per_s"] == {"lower": str(2 * PER_GPU), "upper": str(6 * PER_GPU)}


def test_without_a_file_site_and_network_are_not_known_and_said_to_be(run):
    code, out, _ = run()
    assert code == 0
    assert max(map(len, out.splitlines())) <= 80
    assert "Site and network are in no inventory" in out
    assert "(not known)" in out
    document = json.loads(run("--json")[1])
    assert document["sites_file"] is None
    assert [s["site"] for s in document["sites"]] == [None]


def test_the_page_with_sites_fits_and_says_what_is_not_law(run, monkeypatch):
    monkeypatch.setenv("FLOPMETER_SITES", run.sites[1])
    _, out, _ = run(*run.nodes)
    assert max(map(len, out.splitlines())) <= 80
    assert "100, 400" in out
    text = " ".join(out.split())
    assert "us-eo-14110-cluster: >= 10^20 op/s behind more than 100 Gbit/s (revoked: it binds nobody)" in text
    assert (
        "us-bis-702-7-cluster: > 10^20 op/s behind more than 300 Gbit/s (proposed: it binds nobody)" in text
    )
    assert "dc-west 3.95e15 to 7.92e15 below" in text
    assert "(whole fleet) 3.95e15 to ? cannot be told" in text, "of n8's eight GPUs nothing is known"
    assert "it is no FLOP and in no total" in out


def test_names_as_long_as_they_may_be_fit_the_page(run, tmp_path):
    long = tmp_path / "long.toml"
    long.write_text(
        f'[[site]]\nname = "{"dc-" + "w" * 197}"\nclusters = ["c*"]\nnetwork_gbit_per_s = 1000000\n'
    )
    _, out, _ = run("--sites", str(long))
    assert max(map(len, out.splitlines())) <= 80


def test_a_bad_file_is_refused(run, tmp_path):
    bad = tmp_path / "bad.toml"
    bad.write_text("[[site]]\n")
    code, _, err = run("--sites", str(bad))
    assert code == 3
    assert "site 1: name: expected a line" in err


def test_a_gpu_is_one_wherever_it_was_seen_last():
    device = Device("GPU-1", H100, "9.0", 132, 1980)

    def told(node, cluster, end):
        return Told(Inventory(node, cluster, "", "", "", (device,)), end)

    sites = parse_sites("s", SITES.encode())
    (found,) = machines([told("n1", "c1", 20), told("n3", "c2", 10)], sites)
    assert (found.node, found.place.site) == ("n1", "dc-west")
    (found,) = machines([told("n1", "c1", 10), told("n3", "c2", 20)], sites)
    assert (found.node, found.place.site) == ("n3", "dc-east")
    assert machines([], NO_SITES) == []


def test_a_page_without_any_line_of_capacity(run):
    document = json.loads(run("--json")[1])
    text = inventory_view(document | {"capacity": []}, Paint(colour=False, width=80))
    assert "capacity" not in text
