"""Law files of a collector that runs: good ones are taken and judged by, of bad ones the last good set stays."""

import os
from dataclasses import replace
from pathlib import Path

import pytest
from builders import UNIX_NS, Chain
from law_files import PROFILE, REGIME
from nacl.bindings import crypto_sign_seed_keypair
from wire_client import WireClient

from flopmeter.collector.check.fsck import check_store, result_text
from flopmeter.collector.errors import RegimeError, SettingsError
from flopmeter.collector.law import laws as laws_module
from flopmeter.collector.law.laws import Laws, read_files, read_laws
from flopmeter.collector.law.signing import PublicKey, sign
from flopmeter.collector.law.watch import LawWatch, changes
from flopmeter.collector.report.queries import reading
from flopmeter.collector.running import RunningCollector, run_collector
from flopmeter.collector.settings import CollectorSettings

NOW = UNIX_NS + 86_400_000_000_000
LOW, LOWER = 10**17, 10**16
SEED = bytes(range(32))


def line(flop: int, version: str = "1") -> str:
    """A house rule with its line there; a minute of the test chain is some 10^17."""
    text = REGIME.replace("{ base = 10, exponent = 24 }", f'"{flop}"')
    return text.replace('version = "1"', f'version = "{version}"')


def watch(directory: Path) -> LawWatch:
    return LawWatch(directory, None, read_laws(directory), unix_ns=lambda: 7)


def ids(laws: Laws) -> set[str]:
    return {r.id for r in laws.binding}


def test_a_look_at_what_did_not_change_reads_nothing(tmp_path, monkeypatch):
    (tmp_path / "own.toml").write_text(REGIME)
    seen = watch(tmp_path)
    monkeypatch.setattr(laws_module, "read_files", lambda _: pytest.fail("read"))
    assert not seen.look()
    assert not LawWatch(None, None, read_laws(None)).look()


def test_a_file_that_comes_changes_and_goes(tmp_path):
    seen = watch(tmp_path)
    (tmp_path / "own.toml").write_text(line(10))
    assert seen.look()
    assert "site-rule" in ids(seen.laws)
    before = seen.laws
    (tmp_path / "new").write_text(line(11, "2"))
    (tmp_path / "new").replace(tmp_path / "own.toml")
    assert seen.look()
    assert not seen.look()
    (said,) = changes(before, seen.laws)
    assert said.startswith("site-rule is another text: version 2, sha256 ")
    (tmp_path / "own.toml").unlink()
    assert seen.look()
    assert "site-rule" not in ids(seen.laws)
    (tmp_path / "README").write_text("x")
    assert not seen.look()


def test_a_file_of_the_same_size_and_time_in_the_place_of_another_is_seen(tmp_path):
    own, new = tmp_path / "own.toml", tmp_path / "new"
    own.write_text(line(10))
    seen = watch(tmp_path)
    was = own.stat()
    new.write_text(line(11))
    os.utime(new, ns=(was.st_atime_ns, was.st_mtime_ns))
    new.replace(own)
    assert (own.stat().st_size, own.stat().st_mtime_ns) == (was.st_size, was.st_mtime_ns)
    assert seen.look()


def test_of_bad_files_the_last_good_set_stays_and_it_is_said_once(tmp_path, caplog):
    (tmp_path / "own.toml").write_text(line(10))
    seen = watch(tmp_path)
    good = seen.laws
    (tmp_path / "own.toml").write_text(line(10).replace('scope = "run"', 'scope = "planet"'))
    for _ in range(3):
        assert not seen.look()
    assert seen.laws is good
    assert isinstance(seen.fault, RegimeError)
    (said,) = [r for r in caplog.records if r.levelname == "ERROR"]
    assert "own.toml:13:1: key scope" in said.getMessage()
    (tmp_path / "own.toml").write_text(line(10))
    assert not seen.look()  # the same as before: nothing to judge anew
    assert seen.fault is None


def test_a_directory_that_goes_away_is_a_fault_and_no_end_of_the_law(tmp_path):
    directory = tmp_path / "law"
    directory.mkdir()
    (directory / "own.toml").write_text(REGIME)
    seen = watch(directory)
    directory.rename(tmp_path / "away")
    assert not seen.look()
    assert seen.fault is not None
    assert "site-rule" in ids(seen.laws)
    (tmp_path / "away").rename(directory)
    assert not seen.look()
    assert seen.fault is None


def test_a_link_that_is_moved_to_other_files_is_seen(tmp_path):
    """As Kubernetes mounts a ConfigMap: the names are links, and what they lead to is swapped at once."""
    for n in (1, 2):
        (tmp_path / f"v{n}").mkdir()
        (tmp_path / f"v{n}/own.toml").write_text(line(10, str(n)))
    directory = tmp_path / "law"
    directory.mkdir()
    (directory / "..data").symlink_to(tmp_path / "v1")
    (directory / "own.toml").symlink_to("..data/own.toml")
    seen = watch(directory)
    (directory / "new").symlink_to(tmp_path / "v2")
    (directory / "new").replace(directory / "..data")
    assert seen.look()
    assert next(r for r in seen.laws.regimes if r.id == "site-rule").version == "2"


def test_unsigned_changes_are_not_taken(tmp_path):
    key = PublicKey(bytes(crypto_sign_seed_keypair(SEED)[0]), "law.pub")

    def signed() -> None:
        sign(tmp_path, {f.name: f.raw for f in read_files(tmp_path)}, SEED)

    (tmp_path / "own.toml").write_text(line(10))
    signed()
    seen = LawWatch(tmp_path, key, read_laws(tmp_path, key))
    (tmp_path / "own.toml").write_text(line(11, "2"))
    assert not seen.look()
    assert "sha-256" in str(seen.fault).lower()
    signed()
    assert seen.look()


# --- the whole collector ---


@pytest.fixture
def settings(tmp_path):
    regimes = tmp_path / "law"
    regimes.mkdir()
    return CollectorSettings(
        tmp_path / "books.db", listen="127.0.0.1:0", http="", admit_new=True, linger_ms=1, regimes=regimes
    )


def running(settings: CollectorSettings) -> RunningCollector:
    return run_collector(settings, lambda: NOW, review_s=None)


def ship(collector: RunningCollector, chain: Chain, *batches: bytes) -> None:
    with WireClient(collector.address, chain) as client:
        client.hello()
        client.records(*batches)
        client.ack(chain.seq)


def events(settings: CollectorSettings) -> list[tuple[str, str]]:
    with reading(settings.store) as reader:
        return [
            (e["data"]["regime"], e["data"]["regime_version"])
            for e in reader.events()
            if e["type"] == "threshold.crossed"
        ]


def good(settings: CollectorSettings) -> None:
    result = check_store(settings.store, read_laws(None).binding)
    assert result.difference is None, result_text(result)


def test_a_running_collector_takes_a_changed_line_and_judges_runs_that_have_stopped(settings):
    own = settings.regimes / "own.toml"
    own.write_text(line(10**20))
    chain = Chain("n")
    batches = [chain.next(), chain.next()]
    with running(settings) as collector:
        ship(collector, chain, *batches)
        collector.review()
        assert events(settings) == []
        own.write_text(line(LOWER, "2"))
        collector.review()
        assert events(settings) == [("site-rule", "2")]
        own.write_text("= broken")
        collector.review()
        own.write_text(line(10**20, "3"))
        collector.review()
        own.write_text(line(LOWER, "2"))  # back again, with no record between
        collector.review()
        own.write_text(line(10**20, "3"))
        collector.review()
        assert collector.counters.commit_failures == 0
        ship(collector, chain, chain.next())
    assert events(settings) == [("site-rule", "2")]
    good(settings)


def test_requirement_1_changing_a_number_in_data_alone_changes_the_events(settings):
    """10^25 -> 10^26 of the shipped file, scaled to what a minute of the test chain does."""
    found = {}
    for exponent in (16, 25):
        (settings.regimes / "own.toml").write_text(
            REGIME.replace("exponent = 24", f"exponent = {exponent}")
            .replace("site-rule", "eu-systemic-risk")
            .replace("source", 'replaces = "eu-systemic-risk"\nsource')
        )
        chain = Chain("n")
        store = settings.store.with_name(f"{exponent}.db")
        with running(replace(settings, store=store)) as collector:
            ship(collector, chain, chain.next())
        with reading(store) as reader:
            found[exponent] = [
                (e["data"]["regime"], e["data"]["replaces"])
                for e in reader.events()
                if e["type"].startswith("threshold.")
            ]
        result = check_store(store, read_laws(None).binding)
        assert result.difference is None, result_text(result)
    assert found == {16: [("eu-systemic-risk", "eu-systemic-risk")], 25: []}


def test_a_start_with_bad_files_goes_on_with_those_that_were_applied_last(settings, caplog):
    own = settings.regimes / "own.toml"
    own.write_text(line(LOWER).replace('counting = "executed"', 'counting = "house"'))
    (settings.regimes / "house.toml").write_text(PROFILE)
    chain = Chain("n")
    with running(settings) as collector:
        ship(collector, chain, chain.next())
    assert events(settings) == [("site-rule", "1")]
    own.write_text("scope = 5")
    other = Chain("m")
    with running(settings) as collector:
        assert "starts with the site's files that it applied last" in caplog.text
        assert collector._collector.laws.fault is not None
        assert "site-rule" in ids(collector._collector.laws.laws)
        ship(collector, other, other.next(workloads=(replace_run("r2"),)))
        own.write_text(line(LOWER, "2"))
        collector.review()
        assert collector._collector.laws.fault is None
        (settings.regimes / "house.toml").unlink()
    assert events(settings) == [("site-rule", "1")] * 2
    good(settings)


def replace_run(run: str) -> object:
    from builders import TRAINING

    return replace(TRAINING, run=run)


def test_the_first_start_with_bad_files_is_refused(settings):
    (settings.regimes / "own.toml").write_text("scope = 5")
    with pytest.raises(SettingsError, match=r"own\.toml:1:1: key scope"):
        running(settings)
    assert not settings.store.exists()
    (settings.regimes / "own.toml").unlink()
    with running(settings):
        pass
    (settings.regimes / "own.toml").write_text("scope = 5")
    with pytest.raises(SettingsError, match=r"own\.toml:1:1: key scope"):
        running(settings)  # there never was a good one of the site's


def test_a_key_that_is_none_and_files_that_are_not_signed_are_refused(settings, tmp_path):
    (settings.regimes / "own.toml").write_text(REGIME)
    with pytest.raises(SettingsError, match="--regime-key: "):
        running(replace(settings, regime_key=tmp_path / "absent"))
    (tmp_path / "law.pub").write_text("00" * 32)
    with pytest.raises(SettingsError, match=r"manifest\.sha256: expected a manifest signed by"):
        running(replace(settings, regime_key=tmp_path / "law.pub"))
