"""The sinks file: what is understood, and what is refused, with its line and without what may be a secret."""

from pathlib import Path

import pytest

from flopmeter.collector.deliver.office import configured
from flopmeter.collector.deliver.redact import Redaction
from flopmeter.collector.deliver.settings import (
    Alertmanager,
    Command,
    Endpoint,
    Jsonl,
    Secret,
    SinkSettings,
    Smtp,
    Webhook,
)
from flopmeter.collector.deliver.sink_file import MAX_SINKS, read_sinks
from flopmeter.collector.deliver.wanted import Wanted
from flopmeter.collector.errors import SettingsError, SinkError

HOOK = """
[[sinks]]
name = "hook"
type = "webhook"
url = "https://example.org/x"
secret_env = "HOOK_SECRET"
"""


@pytest.fixture
def file(tmp_path):
    def write(text):
        path = tmp_path / "sinks.toml"
        path.write_text(text)
        return path

    return write


def test_every_key(file):
    found = read_sinks(
        file("""
        [[sinks]]
        name = "pager"
        type = "webhook"
        url_file = "/etc/flopmeter/url"
        secret_file = "/etc/flopmeter/secret"
        ca_file = "/etc/flopmeter/ca.pem"
        types = ["threshold", "agent.silent"]
        severities = ["critical"]
        regimes = ["eu-gpai"]
        states = true
        redact = ["figures", "/data/run", "/subject"]
        timeout_s = 30
        give_up_after_hours = 100

        [[sinks]]
        name = "am"
        type = "alertmanager"
        url = "http://127.0.0.1:9093"
        repost_s = 30
        user = "flop"
        password_env = "AM"

        [[sinks]]
        name = "mail"
        type = "smtp"
        host = "mail.example.org"
        security = "tls"
        from = "f@example.org"
        to = ["a@example.org", "b@example.org"]

        [[sinks]]
        name = "file"
        type = "jsonl"
        path = "/var/log/events"

        [[sinks]]
        name = "hold"
        type = "command"
        command = ["/bin/true", "--x"]
        environment = ["KUBECONFIG"]
        """),
        {"eu-gpai"},
    )
    assert found == (
        SinkSettings(
            "pager",
            Webhook(
                Endpoint(Secret(file=Path("/etc/flopmeter/url")), Path("/etc/flopmeter/ca.pem")),
                Secret(file=Path("/etc/flopmeter/secret")),
            ),
            Wanted(("threshold", "agent.silent"), ("critical",), ("eu-gpai",)),
            states=True,
            redaction=Redaction(("figures",), ("/data/run", "/subject")),
            timeout_s=30,
            give_up_hours=100,
        ),
        SinkSettings("am", Alertmanager(Endpoint("http://127.0.0.1:9093"), 30, "flop", Secret(env="AM"))),
        SinkSettings(
            "mail", Smtp("mail.example.org", 465, "f@example.org", ("a@example.org", "b@example.org"), "tls")
        ),
        SinkSettings("file", Jsonl(Path("/var/log/events"))),
        SinkSettings("hold", Command(("/bin/true", "--x"), ("KUBECONFIG",))),
    )


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "expected \\[\\[sinks\\]\\] tables, got nothing"),
        ("x = [", "expected TOML"),
        ("sinks = 3", "got a int"),
        ("sinks = []", "1 to 32 tables"),
        ("[[sinks]]\n" * (MAX_SINKS + 1), "1 to 32 tables"),
        ('[[sinks]]\ntype = "webhook"', "line 1: key name: expected text, got nothing"),
        ('[[sinks]]\nname = "A B"\ntype = "x"', "line 2: key name: expected lower-case"),
        ('[[sinks]]\nname = "event-log"\ntype = "jsonl"\npath = "/x"', "other than event-log"),
        ('[[sinks]]\nname = "a"\ntype = "pigeon"', "line 3: sink a: key type: expected one of webhook"),
        (HOOK + HOOK, "line 9: sink hook: key name: expected a name that no other sink has"),
        (HOOK + "colour = 3", "line 7: sink hook: key colour: expected no such key"),
        (HOOK + 'types = ["thresold"]', "line 7: sink hook: key types"),
        (HOOK + "types = []", "expected a list of texts, of at least one"),
        (HOOK + 'severities = ["bad"]', "expected some of info, notice, warning, critical"),
        (HOOK + 'regimes = ["eu-gapi"]', "expected ids of regimes, of eu-gpai"),
        (HOOK + 'redact = ["everything"]', "key redact"),
        (HOOK + 'redact = ["/id"]', "key redact"),
        (HOOK + 'redact = ["/data/~2"]', "key redact"),
        (HOOK + "timeout_s = 0", "a whole number of 1 to 300, got 0"),
        (HOOK + "timeout_s = 1.5", "expected a whole number, got a float"),
        (HOOK + "timeout_s = true", "expected a whole number, got a bool"),
        (HOOK + 'states = "yes"', "expected true or false, got a str"),
        (HOOK + 'url_file = "/x"', "line 7: sink hook: key url_file: expected no such key"),
        (HOOK + 'secret_file = "/x"', "expected secret_file or secret_env, got both"),
        (HOOK.replace("https", "http"), "line 5: sink hook: key url: expected https://"),
        (HOOK.replace("https", "ftp"), "expected an http or https URL"),
        (HOOK.replace("https://", "https://u:hunter2@"), "without user and password"),
        (HOOK.replace("/x", "/x#y"), "without a fragment"),
        (HOOK.replace("example.org", "exa mple.org"), "printable ASCII"),
        (HOOK.replace("example.org", "example.org:99999"), "expected an http or https URL"),
        (HOOK.replace('secret_env = "HOOK_SECRET"', ""), "expected secret_file or secret_env"),
        ('[[sinks]]\nname="a"\ntype="jsonl"', "expected path"),
        ('[[sinks]]\nname="a"\ntype="command"\ncommand=["true"]', "without a shell"),
        ('[[sinks]]\nname="a"\ntype="smtp"\nhost="h"\nfrom="f@e.org"\nto=["a@e.org\\nBcc: x@y"]', "key to"),
        (
            '[[sinks]]\nname="a"\ntype="smtp"\nhost="h"\nfrom="f@e.org"\nto=["a@e.org"]\nsecurity="none"',
            "encryption",
        ),
        (
            '[[sinks]]\nname="a"\ntype="smtp"\nhost="h"\nfrom="f@e.org"\nto=["a@e.org"]\nsecurity="none"\nallow_plain=true\nuser="u"\npassword_env="P"',
            "no password over a connection that is not encrypted",
        ),
        (
            '[[sinks]]\nname="a"\ntype="alertmanager"\nurl="http://[::1]:9093"\nuser="u"',
            "together with password_file",
        ),
    ],
)
def test_what_is_refused_says_where_and_what_to_do(file, text, said):
    with pytest.raises(SettingsError, match=said) as e:
        read_sinks(file(text), {"eu-gpai"})
    assert e.value.hint
    assert e.value.exit_code == 2
    assert "hunter2" not in str(e.value)


@pytest.mark.parametrize("key", ["secret", "password", "bearer", "token"])
def test_a_secret_in_the_file_is_refused_and_not_shown(file, key):
    with pytest.raises(
        SettingsError, match=f"line 7: sink hook: key {key}: expected no secret in this file"
    ) as e:
        read_sinks(file(HOOK + f'{key} = "whsec_hunter2"'))
    assert "hunter2" not in str(e.value) + e.value.hint
    assert f"{key}_file" in e.value.hint


@pytest.mark.parametrize("key", ["seecret", "url2", "x"])
def test_no_value_of_an_unknown_key_is_shown(file, key):
    with pytest.raises(SettingsError) as e:
        read_sinks(file(HOOK + f'{key} = "hunter2"'))
    assert "hunter2" not in str(e.value) + e.value.hint


def test_a_file_that_is_none(tmp_path):
    for path in (tmp_path, tmp_path / "none"):
        with pytest.raises(SettingsError, match="cannot read"):
            read_sinks(path)
    (tmp_path / "big").write_bytes(b"#" * (1 << 21))
    with pytest.raises(SettingsError, match="at most"):
        read_sinks(tmp_path / "big")


# --- checked when the collector starts ---


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ("", "sink hook: environment variable HOOK_SECRET: expected a secret, found nothing"),
        ('secret_env = "HOOK_SECRET"|secret_file = "/no/such"', "sink hook: file /no/such: cannot read"),
        ('secret_env = "HOOK_SECRET"|secret_file = "/dev/zero"', "expected a regular file"),
    ],
)
def test_what_could_not_work_is_refused_at_the_start(file, change, said):
    old, _, new = change.partition("|")
    with pytest.raises(SinkError, match=said) as e:
        configured(None, file(HOOK.replace(old, new) if old else HOOK))
    assert e.value.exit_code == 3
    assert e.value.hint


@pytest.mark.parametrize("key", ["/no/such", "/etc/passwd"])
def test_a_certificate_file_that_is_none(file, key, monkeypatch):
    monkeypatch.setenv("HOOK_SECRET", "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")
    assert configured(None, file(HOOK))[0].name == "hook"
    with pytest.raises(SinkError, match=f"sink hook: ca_file {key}: expected certificates"):
        configured(None, file(HOOK + f'ca_file = "{key}"'))


def test_two_sinks_never_share_a_file(file, tmp_path):
    text = f'[[sinks]]\nname = "a"\ntype = "jsonl"\npath = "{tmp_path / "x"}"\n'
    assert len(configured(tmp_path / "y", file(text))) == 2
    with pytest.raises(SettingsError, match="a file of its own"):
        configured(tmp_path / "x", file(text))
