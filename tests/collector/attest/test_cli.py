"""`flopmeter attest create | list | show`, by the command line, beside a collector and without one."""

import base64
import json
import os
import stat
import zipfile

import pytest
from attest_books import LAWS, RUN, full_store, keys, predicate
from click.testing import CliRunner

from flopmeter.cli.main import flopmeter
from flopmeter.collector.attest import cli
from flopmeter.collector.attest.errors import AttestError, AttestRefused
from flopmeter.collector.attest.profiles import PROFILES
from flopmeter.collector.errors import KeyFileError, StoreError


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    path = tmp_path_factory.mktemp("cli") / "books.sqlite"
    full_store(path)
    return path


@pytest.fixture
def laws(tmp_path):
    """The site's own law files: those that the store was judged by."""
    directory = tmp_path / "laws"
    directory.mkdir()
    for r in LAWS:
        (directory / f"{r.id}.toml").write_text(r.text)
    return directory


def run(*args, check=True):
    result = CliRunner().invoke(flopmeter, [str(a) for a in args], standalone_mode=False)
    if check and result.exception:
        raise result.exception
    return result


def create(path, laws, output, *more, profile="auditor", **given):
    return run(
        "attest", "create", given.get("of", RUN), "--profile", profile, "-o", output, "--store", path,
        "--regimes", laws, "--who", "ada@lab", *more,
    )  # fmt: skip


def test_a_file_is_made_shown_and_listed(path, laws, tmp_path):
    file = tmp_path / "run.zip"
    made = json.loads(create(path, laws, file, "--json").stdout)
    assert made["profile"] == "auditor"
    assert made["thresholds"]["eu-near"] == "crossed"
    assert made["assurance"].startswith("Assurance: unwitnessed")
    assert predicate(file)["attestationId"] == made["attestation"]
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    listed = json.loads(run("attest", "list", "--store", path, "--json").stdout)["attestations"]
    assert listed[0]["attestation"] == made["attestation"]
    assert listed[0]["superseded_by"] is None
    assert json.loads(run("attest", "list", "nobody's", "--store", path, "--json").stdout) == {
        "attestations": []
    }
    shown = json.loads(run("attest", "show", file, "--json").stdout)
    assert shown["predicate"] == predicate(file)


def test_pages_fit_and_name_what_to_do_next(path, laws, tmp_path):
    file = tmp_path / "run.zip"
    pages = [create(path, laws, file, profile="downstream").stdout, run("attest", "show", file).stdout]
    pages.append(run("attest", "list", "--store", path).stdout)
    for page in pages:
        long = [line for line in page.splitlines() if len(line) > 80 and str(tmp_path) not in line]
        assert long == []
        assert "eu-near > 10^14  crossed: even the lower bound meets it" in page or page is pages[-1]
        assert "\x1b" not in page
    assert "flopmeter verify" in pages[0]
    assert "crossed: even the lower bound meets it" in pages[1]
    assert "withheld" in pages[1]
    assert "Not checked here" in pages[1]
    assert RUN not in pages[1]


def test_what_a_file_says_cannot_write_to_the_terminal(path, laws, tmp_path):
    """Nothing is verified by `show`: what stands in a file may be anybody's."""
    file = tmp_path / "run.zip"
    create(path, laws, file, "--issuer", "the lab", profile="downstream")
    folder = tmp_path / "folder"
    folder.mkdir()
    with zipfile.ZipFile(file) as z:
        z.extractall(folder)
    bundle = json.loads((folder / "bundle.sigstore.json").read_text())
    said = json.loads(base64.b64decode(bundle["dsseEnvelope"]["payload"]))

    def shown(name):
        said["predicate"]["issuer"]["name"] = name
        bundle["dsseEnvelope"]["payload"] = base64.b64encode(json.dumps(said).encode()).decode()
        (folder / "bundle.sigstore.json").write_text(json.dumps(bundle))
        return run("attest", "show", folder / "bundle.sigstore.json").stdout

    page = shown("evil \x9b2J \u202e lab")
    assert "evil" in page
    assert "\x9b" not in page
    assert "\u202e" not in page
    with pytest.raises(AttestError, match="expected an attestation"):
        shown("evil\x1b]0;title\x07")


@pytest.mark.parametrize("what", ["absent", "empty", "text", "directory", "zip"])
def test_what_is_no_attestation_is_told(tmp_path, what):
    file = tmp_path / "x.zip"
    match what:
        case "empty":
            file.write_bytes(b"")
        case "text":
            file.write_text("hello")
        case "directory":
            file.mkdir()
        case "zip":
            with zipfile.ZipFile(file, "w") as z:
                z.writestr("a", "b")
    with pytest.raises(AttestError) as e:
        run("attest", "show", file)
    assert e.value.exit_code == 3
    assert e.value.hint


def test_a_recipient_has_a_pseudonym_of_its_own(path, laws, tmp_path):
    for name in ("acme", "umbrella"):
        create(path, laws, tmp_path / f"{name}.zip", "--recipient", name, profile="downstream")
    create(path, laws, tmp_path / "again.zip", "--recipient", "acme", profile="downstream")
    found = [predicate(tmp_path / f"{n}.zip")["run"]["pseudonym"] for n in ("acme", "umbrella", "again")]
    assert found[0] == found[2] != found[1]


def test_refusals_and_their_exit_codes(path, laws, tmp_path):
    output = tmp_path / "x.zip"
    with pytest.raises(AttestRefused) as e:
        create(path, laws, output, of="secret-lama")
    assert e.value.exit_code == 1
    assert RUN in e.value.hint
    with pytest.raises(StoreError) as e:
        create(tmp_path / "none.sqlite", laws, output)
    assert e.value.exit_code == 3
    result = run("attest", "create", RUN, "--profile", "everybody", "-o", output, check=False)
    assert result.exit_code != 0
    assert not output.exists()


def test_a_store_without_its_keys_says_where_they_should_be(path, laws, tmp_path):
    """As on another machine than the collector's, to which only the store was copied."""
    create(path, laws, tmp_path / "first.zip")
    with pytest.raises(KeyFileError) as e:
        create(path, laws, tmp_path / "x.zip", "--keys", tmp_path / "elsewhere")
    assert "--keys" in e.value.hint
    assert not (tmp_path / "elsewhere").exists()


def test_others_keys_are_not_taken_for_the_logs(path, laws, tmp_path):
    from flopmeter.collector.errors import CollectorError
    from flopmeter.collector.keys import log_key

    create(path, laws, tmp_path / "first.zip")
    log_key(tmp_path / "others")
    with pytest.raises(CollectorError, match="key"):
        create(path, laws, tmp_path / "x.zip", "--keys", tmp_path / "others")
    assert not (tmp_path / "x.zip").exists()


def test_a_place_that_cannot_be_written_to_is_told(path, laws, tmp_path):
    if os.geteuid() == 0:
        target = "/proc/x.zip"  # nobody makes files there
    else:
        (tmp_path / "shut").mkdir(mode=0o500)
        target = tmp_path / "shut" / "x.zip"
    with pytest.raises(AttestError) as e:
        create(path, laws, target)
    assert e.value.exit_code == 3


def test_profiles_are_those_that_there_are():
    assert cli.PROFILES == PROFILES


def test_it_works_beside_a_collector_that_goes_on(tmp_path, laws):
    from attest_books import TRAINING, take
    from builders import WINDOW_NS, Chain
    from duty_books import opened

    path = tmp_path / "books.sqlite"
    with opened(path, *LAWS) as desk:
        chain = Chain("gpu-1")
        chain.unix_ns = desk.now - 9 * WINDOW_NS
        agent = desk.agent(chain)
        totals = []
        for n in range(3):
            take(desk, agent, chain.next(workloads=(TRAINING,)))
            desk.commit()
            create(path, laws, tmp_path / f"{n}.zip")
            totals.append(int(predicate(tmp_path / f"{n}.zip")["totals"]["executedFlop"]["point"]))
        assert totals == [totals[0], 2 * totals[0], 3 * totals[0]]
    assert keys(path).is_dir()
