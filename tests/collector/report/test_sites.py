"""The operator's file of sites: what it may say, and which node is where."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flopmeter.collector.errors import CollectorError
from flopmeter.collector.report.sites import MAX_FILE_BYTES, NO_SITES, UNKNOWN, Place, parse_sites, read_sites

GOOD = b"""
[[site]]
name = "dc-west"
clusters = ["train-?"]
nodes = ["rack1-*"]
network_gbit_per_s = 400

[[site]]
name = "dc-west"
clusters = ["train-*"]
network_gbit_per_s = 100

[[site]]
name = "dc-east"
nodes = ["east-*"]
"""


def test_a_node_is_of_the_first_entry_that_fits():
    sites = parse_sites("sites", GOOD)
    assert sites.place("train-1", "rack1-07") == Place("dc-west", 400)
    assert sites.place("train-1", "rack2-07") == Place("dc-west", 100)
    assert sites.place("train-12", "rack1-07") == Place("dc-west", 100), "? is one character"
    assert sites.place("other", "east-1") == Place("dc-east", None)
    assert sites.place("other", "rack1-07") == UNKNOWN
    assert sites.place("Train-1", "rack1-07") == UNKNOWN, "names are as they are spelled"


def test_of_a_node_that_nobody_spoke_of_the_cluster_is_not_known():
    sites = parse_sites("sites", GOOD)
    assert sites.place(None, "rack1-07") == UNKNOWN
    assert sites.place(None, "east-1") == Place("dc-east", None)


def test_without_a_file_nothing_is_known():
    assert read_sites(None) is NO_SITES
    assert NO_SITES.place("c", "n") == UNKNOWN


def entry(**keys):
    keys = {"name": '"w"', "nodes": '["n*"]', **keys}
    return "[[site]]\n" + "\n".join(f"{k} = {v}" for k, v in keys.items() if v)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "expected [[site]] entries"),
        ("site = 1", "expected [[site]] entries"),
        ("site = [1]", "site 1: expected a table"),
        ("x = 1\n" + entry(), "key 'x'"),
        ("[[site", "expected TOML"),
        (entry(name=""), "name: expected a line"),
        (entry(name='""'), "name: expected a line"),
        (entry(name='"a\\nb"'), "name: expected a line"),
        (entry(name='"\\u202e"'), "name: expected a line"),
        (entry(name=f'"{"n" * 10_000}"'), "name: expected a line"),
        (entry(name="7"), "name: expected a line"),
        (entry(nodes=""), "expected patterns of clusters or of nodes, got neither"),
        (entry(nodes="[]"), "nodes: expected a list of patterns"),
        (entry(nodes='"n*"'), "nodes: expected a list of patterns"),
        (entry(nodes="[7]"), "nodes: expected a list of patterns"),
        (entry(network_gbit_per_s="0"), "network_gbit_per_s: expected a whole number"),
        (entry(network_gbit_per_s="400.0"), "network_gbit_per_s: expected a whole number"),
        (entry(network_gbit_per_s="true"), "network_gbit_per_s: expected a whole number"),
        (entry(network_gbit_per_s='"400G"'), "network_gbit_per_s: expected a whole number"),
        (entry(speed="400"), "unknown key 'speed'"),
    ],
)
def test_what_is_wrong_is_named_and_nothing_is_taken(text, said):
    with pytest.raises(CollectorError) as e:
        parse_sites("sites", text.encode())
    assert said in str(e.value)
    assert e.value.hint


@settings(deadline=None)
@given(st.binary(max_size=200) | st.text(alphabet="[]site={}\"'n0,.\n ", max_size=200).map(str.encode))
def test_no_bytes_bring_it_down(raw):
    try:
        parse_sites("sites", raw)
    except CollectorError as e:
        assert str(e).startswith("sites: ")


def test_a_file_that_cannot_be_read_or_is_too_long(tmp_path):
    with pytest.raises(CollectorError, match="cannot read"):
        read_sites(tmp_path)
    long = tmp_path / "long.toml"
    long.write_bytes(b"#" * (MAX_FILE_BYTES + 1))
    with pytest.raises(CollectorError, match="expected at most"):
        read_sites(long)
