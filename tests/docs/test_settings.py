"""docs/settings.md: its examples load, and they name every setting that there is."""

import re
from dataclasses import fields
from pathlib import Path

from flopmeter.agent.settings import AgentSettings, load_settings
from flopmeter.collector.settings import CollectorSettings, read_config

PAGE = Path(__file__).parents[2] / "docs/settings.md"
AGENT, COLLECTOR = re.findall(r"^```toml\n(.*?)^```", PAGE.read_text(), re.MULTILINE | re.DOTALL)


def keys(example: str) -> set[str]:
    return {k.replace("-", "_") for k in re.findall(r"^([a-z_-]+) = ", example, re.MULTILINE)}


def test_the_agents_example_loads_and_is_complete(tmp_path: Path) -> None:
    config = tmp_path / "agent.toml"
    config.write_text(AGENT)
    shown = load_settings({}, {}, config)
    assert keys(AGENT) == {f.name for f in fields(AgentSettings)}
    default = AgentSettings()
    said = {"collector": "collector.site:9840", "join_file": "/etc/flopmeter/join", "cluster": "c1"}
    said["metrics_address"] = "127.0.0.1:9842"
    for field in fields(AgentSettings):
        assert getattr(shown, field.name) == said.get(field.name, getattr(default, field.name))


def test_the_collectors_example_loads_and_names_what_one_sets(tmp_path: Path) -> None:
    config = tmp_path / "collector.toml"
    config.write_text(COLLECTOR)
    values = read_config(config)
    instead = {"tls_cert", "tls_key", "tls_client_ca", "peer_ids"}  # of tls_name: named in a comment
    assert {f.name for f in fields(CollectorSettings)} - set(values) == {"regimes", *instead}
    assert all(name in COLLECTOR for name in instead)
    paths = {
        "keys",
        "regime_key",
        "store",
        "admit",
        "estimates",
        "event_log",
        "expect",
        "identity_rules",
        "sinks",
        "sites",
        "tsa_ca",
        "witness_policy",
    }
    CollectorSettings(**{k: Path(v) if k in paths else v for k, v in values.items()})


def test_pages_that_the_program_names_exist() -> None:
    root = PAGE.parents[1]
    for side in ("agent", "collector", "protos"):
        for source in (root / side).rglob("*.py"):
            for page in re.findall(r"docs/[\w-]+\.md", source.read_text()):
                assert (root / page).exists(), f"{source.name} names {page}"
