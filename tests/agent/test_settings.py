"""Settings: every layer, every refusal, and which layer wins."""

from pathlib import Path

import pytest

from flopmeter.agent.errors import SettingsError
from flopmeter.agent.settings import AgentSettings, load_settings, parse_address


def config(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "flopmeter.toml"
    path.write_text(text)
    return path


def test_the_defaults_are_those_that_the_help_tells() -> None:
    from click.testing import CliRunner

    from flopmeter.agent.cli import run

    settings = load_settings({}, {}, None)
    assert settings == AgentSettings()
    told = " ".join(CliRunner().invoke(run, ["--help"]).output.split())
    for text in ("default nvml", "/var/lib/flopmeter/agent", "default 60s", "default 1s", "default 2s"):
        assert text in told
    for text in ("default 20s", "default 256MiB", "default 32MiB", "default info"):
        assert text in told
    assert settings.shown() == (
        "source=nvml state=/var/lib/flopmeter/agent collector=- join=- join_file=- enrol=- tls_cert=- tls_key=- "
        "tls_ca=- server_name=- node=- cluster=- window=60s tick=1s "
        "read_deadline=2s stop_timeout=20s spool_limit=256MiB keep_acked=32MiB kubelet=- kubernetes_labels=false "
        "slurm_job_mapping_dir=- slurm_squeue=- slurm_squeue_period=60s "
        "job_variables=- declare_socket=auto metrics_address=- otlp=- log_level=info"
    )


def test_every_setting_has_an_option_and_every_option_a_setting() -> None:
    import dataclasses

    from flopmeter.agent.cli import run

    options = {p.name for p in run.params} - {"config"}
    assert options == {f.name for f in dataclasses.fields(AgentSettings)}


def test_a_flag_wins_over_a_variable_over_the_file_over_the_default(tmp_path: Path) -> None:
    path = config(tmp_path, '[agent]\nwindow = "30s"\ntick = "2s"\nspool-limit = "1GiB"\ncluster = "file"\n')
    env = {"FLOPMETER_AGENT_WINDOW": "20s", "FLOPMETER_AGENT_TICK": "500ms", "FLOPMETER_OTHER": "x"}
    settings = load_settings({"window": "10s", "tick": None}, env, path)
    assert settings.window == 10_000_000_000
    assert settings.tick == 500_000_000
    assert settings.spool_limit == 1 << 30
    assert settings.cluster == "file"
    assert settings.read_deadline == 2_000_000_000


@pytest.mark.parametrize(
    ("value", "ns"),
    [
        ("60", 60),
        ("60s", 60),
        ("1.5s", 1.5),
        ("2m", 120),
        ("2min", 120),
        ("1h", 3600),
        ("1d", 86400),
        (90, 90),
    ],
)
def test_durations(value: object, ns: float) -> None:
    assert load_settings({"window": value}, {}, None).window == round(ns * 1e9)


REFUSED = [
    ("window", "0s", "expected 1 s to 86400 s"),
    ("window", "2d", "expected 1 s to 86400 s"),
    ("window", "soon", "expected a duration such as"),
    ("window", "-5s", "expected a duration such as"),
    ("window", "1e3", "expected a duration such as"),
    ("window", "٣s", "expected a duration such as"),
    ("window", True, "expected a duration such as"),
    ("window", [60], "expected a duration such as"),
    ("tick", "249ms", "expected 0.25 s to"),
    ("read_deadline", "1ms", "expected 0.01 s to 60 s"),
    ("stop_timeout", "2h", "expected 0 s to 3600 s"),
    ("spool_limit", "1KiB", "expected 65536 to"),
    ("spool_limit", "lots", "expected a size such as 256MiB"),
    ("spool_limit", "5MB", "expected a size such as 256MiB"),
    ("keep_acked", "-1", "expected a size such as"),
    ("keep_acked", 1.5, "expected a size such as"),
    ("node", "a\nb", "expected printable text"),
    ("node", "x" * 257, "at most 256 characters"),
    ("cluster", 7, "expected text"),
    ("state", "", "expected a directory"),
    ("log_level", "loud", "expected one of debug"),
    ("metrics_address", "9841", "expected HOST:PORT"),
    ("metrics_address", "localhost:99999", "expected HOST:PORT"),
    ("metrics_address", "::1:9841", r"expected HOST:PORT or \[IPV6\]:PORT"),
    ("collector", "collector", "expected HOST:PORT"),
    ("collector", "127.0.0.1:0", "expected a port from 1"),
    ("collector", "127.0.0.1:http", "expected HOST:PORT"),
]


@pytest.mark.parametrize(("key", "value", "message"), REFUSED)
def test_values_out_of_range_are_refused_with_what_was_expected(
    key: str, value: object, message: str
) -> None:
    with pytest.raises(SettingsError, match=message) as caught:
        load_settings({key: value}, {}, None)
    assert caught.value.exit_code == 2
    assert str(caught.value).startswith(f"command line: {key}: ")


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.9.1", "localhost", "[::1]"])
def test_a_collector_on_this_machine_is_taken(host: str) -> None:
    assert load_settings({"collector": f"{host}:9840"}, {}, None).collector == f"{host}:9840"


@pytest.mark.parametrize(
    "host", ["10.0.0.1", "collector.example", "0.0.0.0", "[2001:db8::1]", "127.0.0.1.example", "localhost.x"]
)
def test_plain_text_to_another_machine_is_refused_with_a_way_out(host: str) -> None:
    with pytest.raises(SettingsError, match="plain text") as caught:
        load_settings({"collector": f"{host}:9840"}, {}, None)
    assert "--join-file" in caught.value.hint


TOKEN = f"FM1{'ab' * 32}.token0001.{'cd' * 32}"


@pytest.mark.parametrize(
    "flags",
    [
        {"join": TOKEN},
        {"join_file": "/run/secrets/join"},
        {"tls_cert": "/tls/tls.crt", "tls_key": "/tls/tls.key", "tls_ca": "/tls/ca.crt"},
    ],
)
def test_with_a_certificate_any_host_will_do(flags: dict[str, str]) -> None:
    settings = load_settings({"collector": "collector.example:9840", **flags}, {}, None)
    assert settings.collector == "collector.example:9840"


def test_an_agent_that_joined_needs_no_token_any_more(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="plain text"):
        load_settings({"collector": "c.example:9840", "state": str(tmp_path)}, {}, None)
    (tmp_path / "tls.json").write_text("{}")
    assert load_settings({"collector": "c.example:9840", "state": str(tmp_path)}, {}, None).collector


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        ({"tls_cert": "/a", "tls_key": "/b"}, "all three or none"),
        ({"join": TOKEN, "join_file": "/a"}, "one of them"),
        ({"join_file": "/x", "tls_cert": "/a", "tls_key": "/b", "tls_ca": "/c"}, "one of them"),
        ({"server_name": "a\nb"}, "a host name"),
        ({"server_name": "a" * 10_000}, "a host name"),
        ({"enrol": "collector"}, "HOST:PORT"),
    ],
)
def test_half_a_way_to_speak_to_the_collector_is_none(flags: dict[str, str], said: str) -> None:
    with pytest.raises(SettingsError, match=said) as caught:
        load_settings(flags, {}, None)
    assert len(str(caught.value)) < 400


def test_a_join_token_is_never_shown(caplog: pytest.LogCaptureFixture) -> None:
    settings = load_settings({"join": TOKEN}, {}, None)
    assert "join=(given)" in settings.shown()
    assert "cdcd" not in settings.shown() + repr(settings)
    for broken in (TOKEN[:-1], TOKEN + "0", TOKEN.replace("FM1", "FM2"), "x" * 10_000):
        with pytest.raises(SettingsError, match="join token") as caught:
            load_settings({}, {"FLOPMETER_AGENT_JOIN": broken}, None)
        assert "cdcd" not in str(caught.value)
        assert "xxxx" not in str(caught.value)


@pytest.mark.parametrize(
    ("layer", "hint"),
    [
        ({"flags": {"windw": "1s"}}, "did you mean 'window'?"),
        ({"environ": {"FLOPMETER_AGENT_SPOOLLIMIT": "1"}}, "did you mean 'spool_limit'?"),
        ({"text": "[agent]\nmetrics_adress = 'x'\n"}, "did you mean 'metrics_address'?"),
        ({"text": "[agent]\nzzz = 1\n"}, "known are: source"),
    ],
)
def test_unknown_keys_are_refused_and_the_nearest_is_named(
    tmp_path: Path, layer: dict[str, object], hint: str
) -> None:
    text = layer.get("text")
    path = config(tmp_path, str(text)) if text else None
    with pytest.raises(SettingsError, match="unknown setting") as caught:
        load_settings(layer.get("flags", {}), layer.get("environ", {}), path)  # type: ignore[arg-type]
    assert hint in caught.value.hint


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[agnt]\n", "unknown table or key 'agnt'"),
        ("window = 5\n", "unknown table or key 'window'"),
        ("agent = 5\n", "expected a table"),
        ("[agent\n", "not TOML"),
        ("[agent]\nwindow = 1\nwindow = 2\n", "not TOML"),
    ],
)
def test_files_that_are_not_ours_are_refused(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        load_settings({}, {}, config(tmp_path, text))


def test_a_file_that_is_not_there_or_not_text_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="cannot be read"):
        load_settings({}, {}, tmp_path / "absent.toml")
    (tmp_path / "binary.toml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(SettingsError, match="not TOML"):
        load_settings({}, {}, tmp_path / "binary.toml")


def test_what_kubernetes_sets_for_a_service_of_our_name_is_passed_over(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level("DEBUG")
    links = {"FLOPMETER_AGENT_SERVICE_HOST": "10.0.0.1", "FLOPMETER_AGENT_PORT": "tcp://10.0.0.1:9842"}
    assert load_settings({}, links, None) == AgentSettings()
    assert [r.levelname for r in caplog.records] == ["DEBUG", "DEBUG"]
    for name, value in (("PORT", "9842"), ("SERVICE_HOST", "my-host"), ("SERVICE_HOSTS", "10.0.0.1")):
        with pytest.raises(SettingsError, match="unknown setting"):
            load_settings({}, {f"FLOPMETER_AGENT_{name}": value}, None)


def test_the_collectors_table_may_stand_in_the_same_file(tmp_path: Path) -> None:
    path = config(tmp_path, "[collector]\nanything = 1\n[agent]\ntick = 5\n")
    assert load_settings({}, {}, path).tick == 5_000_000_000


def test_a_variable_that_is_wrong_is_named_as_it_was_written() -> None:
    with pytest.raises(SettingsError, match="environment: FLOPMETER_AGENT_TICK: expected"):
        load_settings({}, {"FLOPMETER_AGENT_TICK": "fast"}, None)


def test_a_window_shorter_than_a_tick_is_refused() -> None:
    with pytest.raises(SettingsError, match="at least one tick"):
        load_settings({"window": "5s", "tick": "10s"}, {}, None)


def test_addresses() -> None:
    assert parse_address("[::1]:80") == ("::1", 80)
    assert parse_address("h:1") == ("h", 1)
    for bad in ("", ":1", "h:", "h:-1", "h:²", "[::1]", "a:b:1"):
        with pytest.raises(ValueError, match="expected HOST:PORT"):
            parse_address(bad)


SOCKET = "/var/lib/kubelet/pod-resources/kubelet.sock"


def test_kubernetes_is_off_until_it_is_asked_for(tmp_path: Path) -> None:
    assert (load_settings({}, {}, None).kubelet, load_settings({}, {}, None).kubernetes_labels) == ("", False)
    environ = {"FLOPMETER_AGENT_KUBELET": SOCKET, "FLOPMETER_AGENT_KUBERNETES_LABELS": "true"}
    settings = load_settings({}, environ, None)
    assert (settings.kubelet, settings.kubernetes_labels) == (SOCKET, True)
    config = tmp_path / "agent.toml"
    config.write_text(f'[agent]\nkubelet = "{SOCKET}"\nkubernetes-labels = true\n')
    assert load_settings({}, {}, config).kubernetes_labels


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"kubelet": "kubelet.sock"}, "expected the whole path of a socket"),
        ({"kubelet": "/" + "x" * 107}, "at most 107 bytes"),
        ({"kubelet": SOCKET, "kubernetes_labels": "yes"}, "expected true or false"),
        ({"kubernetes_labels": "true"}, "expected kubelet to be set too"),
    ],
)
def test_kubernetes_settings_that_cannot_be(given: dict[str, object], said: str) -> None:
    with pytest.raises(SettingsError, match=said):
        load_settings(given, {}, None)


def test_slurm_is_off_until_it_is_asked_for() -> None:
    environ = {
        "FLOPMETER_AGENT_SLURM_JOB_MAPPING_DIR": "/run/m",
        "FLOPMETER_AGENT_SLURM_SQUEUE": "/usr/bin/squeue",
    }
    settings = load_settings({"slurm_squeue_period": "5m"}, environ, None)
    assert (settings.slurm_job_mapping_dir, settings.slurm_squeue) == ("/run/m", "/usr/bin/squeue")
    assert settings.slurm_squeue_period == 300_000_000_000


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"slurm_job_mapping_dir": "run/m"}, "expected a path from / on, got 'run/m'"),
        ({"slurm_squeue": "squeue"}, "expected a path from / on, got 'squeue'"),
        ({"slurm_squeue_period": "1s"}, "expected 10 s to 86400 s, got 1 s"),
    ],
)
def test_slurm_settings_that_cannot_be(given: dict[str, object], said: str) -> None:
    with pytest.raises(SettingsError, match=said):
        load_settings(given, {}, None)


def test_more_variables_of_jobs_are_names_and_few(tmp_path: Path) -> None:
    assert load_settings({}, {}, None).job_variables == ""
    environ = {"FLOPMETER_AGENT_JOB_VARIABLES": "TRAIN_RUN_ID, TEAM"}
    assert load_settings({}, environ, None).job_variables == "TEAM,TRAIN_RUN_ID"
    config = tmp_path / "agent.toml"
    config.write_text('[agent]\njob-variables = ["TEAM"]\n')
    assert load_settings({}, {}, config).job_variables == "TEAM"
    for bad in ("team", "A B", "PATH*", ",".join(f"A{n}" for n in range(17))):
        with pytest.raises(SettingsError, match=r"job_variables: expected .* variables"):
            load_settings({"job_variables": bad}, {}, None)


def test_where_training_code_declares() -> None:
    assert load_settings({}, {}, None).declare_socket == "auto"
    for good in ("auto", "off", "/run/x/declare.sock"):
        assert load_settings({"declare_socket": good}, {}, None).declare_socket == good
    for bad in ("", "on", "x.sock", "/" + "x" * 107):
        with pytest.raises(SettingsError, match="declare_socket: expected"):
            load_settings({"declare_socket": bad}, {}, None)


@pytest.mark.parametrize(
    "url", ["127.0.0.1:4318", "http://ann:s3cr3t@h", "https://h/?key=s3cr3t", "http://h:x"]
)
def test_a_url_of_otlp_that_is_none_or_holds_a_secret_is_refused_without_repeating_it(url: str) -> None:
    with pytest.raises(SettingsError, match="otlp: expected") as e:
        load_settings({"otlp": url}, {}, None)
    assert "s3cr3t" not in str(e.value)


def test_an_agent_that_cannot_send_as_it_was_asked_to_does_not_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from click.testing import CliRunner

    from flopmeter.agent.cli import run

    monkeypatch.setenv("OTEL_METRIC_EXPORT_INTERVAL", "soon")
    words = ["--source", "sim", "--state", str(tmp_path), "--otlp", "http://127.0.0.1:4318"]
    said = CliRunner().invoke(run, words)
    assert isinstance(said.exception, SettingsError)
    assert "OTEL_METRIC_EXPORT_INTERVAL" in str(said.exception)
