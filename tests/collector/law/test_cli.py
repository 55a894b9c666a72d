"""`flopmeter regimes`: what binds and what does not, every fault of a file, signatures, and what a store is judged by."""

import json
import shutil
import subprocess
import time
from pathlib import Path

import pytest
from builders import Chain
from click.testing import CliRunner
from desk import Desk
from law_files import PROFILE, REGIME, changed

from flopmeter.collector.errors import CollectorError
from flopmeter.collector.law.cli import regimes
from flopmeter.collector.law.laws import LawFile, of_files, read_laws
from flopmeter.collector.law.regimes import SCOPES, every_shipped, shipped


def run(*words: object) -> tuple[int, str, str]:
    """(exit code, stdout, stderr), errors as the entry point maps them."""
    result = CliRunner().invoke(regimes, [str(w) for w in words])
    error = result.exception
    if isinstance(error, CollectorError):
        return error.exit_code, result.stdout, f"{result.stderr}{error}\n{error.hint}"
    if error is not None and not isinstance(error, SystemExit):
        raise error
    return result.exit_code, result.stdout, result.stderr


@pytest.fixture
def site(tmp_path: Path) -> Path:
    directory = tmp_path / "law"
    directory.mkdir()
    (directory / "own.toml").write_text(REGIME.replace('"executed"', '"house"'))
    (directory / "house.toml").write_text(PROFILE)
    return directory


def test_list_has_what_binds_first_and_all_the_rest():
    code, out, _ = run("list")
    assert code == 0
    binding = [r.id for scope in SCOPES for r in shipped(scope)]
    lines = out.splitlines()
    assert [line.split()[0] for line in lines[1 : 1 + len(binding)]] == binding
    for r in every_shipped():
        (row,) = [line for line in lines if line.split()[:1] == [r.id]]
        if not r.may_bind:
            assert ("historical" if r.status in ("revoked", "vetoed", "not-enforced") else "proposed") in row
    assert all(len(line) <= 80 for line in lines)
    documents = json.loads(run("list", "--json")[1])["regimes"]
    assert {d["id"] for d in documents} == {r.id for r in every_shipped()}
    assert {d["origin"] for d in documents} == {"shipped"}
    assert not any(d["in_force"] for d in documents if not d["may_bind"])


def test_list_says_what_is_the_sites_own_and_what_it_replaces(site):
    (site / "eu.toml").write_text(REGIME.replace("site-rule", "our-eu") + 'replaces = "eu-systemic-risk"\n')
    _, out, _ = run("list", "--regimes", site)
    said = "".join(out.split())  # lines break at hyphens
    assert "our-euisthesite'sownandstandsintheplaceoftheshippedeu-systemic-risk." in said
    assert "site-ruleisthesite'sown." in said
    (row,) = [line for line in out.splitlines() if line.startswith("eu-systemic-risk ")]
    assert "replaced" in row
    _, out, _ = run("show", "eu-systemic-risk", "--regimes", site)
    assert "replaced by the site's our-eu" in " ".join(out.split())
    _, out, _ = run("show", "our-eu", "--regimes", site)
    assert "thesite'sownandstandsintheplaceoftheshippedeu-systemic-risk" in "".join(out.split())


def test_show_has_the_line_the_deadlines_and_the_matrix():
    _, out, _ = run("show", "korea")
    assert ">= 100000000000000000000000000" in out
    assert "at or above" in out
    for said in (
        "recomputation          silent",
        "evaluation             left out",
        "inference              left out (R)",
        "What it counts: profile korea",
    ):
        assert said in out
    document = json.loads(run("show", "eu-modifier", "--json")[1])
    assert (document["share"], document["profile"]["relations"]["distils"]["answer"]) == ("1/3", "excluded")
    assert "line        > 1/3 of original floating point" in run("show", "eu-modifier")[1]
    document = json.loads(run("show", "us-ny-raise", "--json")[1])
    assert document["effective"] == "2027-01-01"
    assert document["in_force"] is (time.time() >= 1_798_761_600)
    out = " ".join(run("show", "eu-systemic-risk")[1].split())
    assert "notify: 14 days after: met, or known that it will be (Europe/Brussels)." in out
    assert "warns from 10/13 of the line on" in out
    assert "each 01-15, 04-15, 07-15, 10-15" in " ".join(run("show", "us-bis-702-7")[1].split())
    for regime in every_shipped():
        code, out, _ = run("show", regime.id)
        assert code == 0
        assert all(len(line) <= 80 for line in out.splitlines())


def test_show_of_what_is_not_there_names_the_nearest():
    code, _, err = run("show", "eu-systemic")
    assert code == 3
    assert "did you mean 'eu-systemic-risk'?" in err


def test_check_of_a_directory_and_of_one_file_beside_its_profiles(site):
    code, out, _ = run("check", site)
    assert code == 0
    assert "good:site-rule,>10^24;profilehouse" in "".join(out.split())
    code, out, _ = run("check", site / "own.toml")
    assert code == 0
    assert "good:site-rule,>10^24" in "".join(out.split())
    document = json.loads(run("check", site, "--json")[1])
    assert (document["ok"], document["faults"], document["profiles"]) == (True, [], ["house"])
    assert [r["id"] for r in document["regimes"]] == ["site-rule"]


def test_check_tells_every_fault_of_every_file_and_what_to_do(site):
    (site / "own.toml").write_text(
        REGIME.replace("{ base = 10, exponent = 24 }", "1e24").replace("effective", "effectve")
    )
    (site / "two.toml").write_text(REGIME.replace('unit = "floating-point"', 'unit = "flops"'))
    code, out, err = run("check", site)
    assert (code, out) == (1, "")
    said = " ".join(err.split())
    assert "own.toml:10:1: key threshold_flop: expected a decimal string" in said
    assert "got 1e24 a float is not exact" in said
    assert "did you mean 'effective'?" in said
    assert "two.toml:12:1: key unit: expected one of 'floating-point'" in said
    assert said.endswith("4 faults")
    document = json.loads(run("check", site, "--json")[1])
    assert not document["ok"]
    assert {(f["file"], f["line"], f["key"]) for f in document["faults"]} == {
        ("own.toml", None, "effective"),
        ("own.toml", 9, "effectve"),
        ("own.toml", 10, "threshold_flop"),
        ("two.toml", 12, "unit"),
    }
    assert run("list", "--regimes", site)[0] == 1


def test_check_warns_of_what_is_over(site):
    (site / "own.toml").write_text(REGIME + "ends = 2026-06-01\n")
    code, out, err = run("check", site)
    assert code == 0
    assert "good" in out
    assert "warning: own.toml:24:1: key ends: expected a day that is still to come" in " ".join(err.split())


def test_check_of_nothing_is_another_exit(tmp_path):
    assert run("check", tmp_path / "absent")[0] == 3
    (tmp_path / "x.txt").write_text("a = 1")
    assert run("check", tmp_path / "x.txt")[0] == 1


def test_sign_and_check(site, tmp_path):
    openssl = shutil.which("openssl")
    if openssl is None:
        pytest.skip("openssl is not installed")
    private, public = tmp_path / "law.key", tmp_path / "law.pub"
    subprocess.run(
        [openssl, "genpkey", "-algorithm", "ed25519", "-out", private], check=True, capture_output=True
    )
    subprocess.run(
        [openssl, "pkey", "-in", private, "-pubout", "-out", public], check=True, capture_output=True
    )
    code, _, err = run("check", site, "--regime-key", public)
    assert code == 1
    assert "manifest.sha256: expected a manifest signed by" in " ".join(err.split())
    code, out, _ = run("sign", site, "--key", private)
    assert code == 0
    assert "2 files signed" in out
    assert run("check", site, "--regime-key", public)[0] == 0
    (site / "own.toml").write_text(REGIME)
    assert run("check", site, "--regime-key", public)[0] == 1
    (site / "own.toml").write_text("= 5")
    assert run("sign", site, "--key", private)[0] == 1  # nothing faulty is signed
    assert run("sign", site, "--key", public)[0] == 1


def test_status_says_by_what_a_store_is_judged_and_what_is_here(site, tmp_path):
    store = tmp_path / "books.db"
    laws = read_laws(site)
    with Desk(store, laws.binding) as desk:
        assert "Nothing is judged by" in run("status", "--store", store, "--regimes", site)[1]
        chain = Chain("n")
        desk.offer(desk.agent(chain), chain.next())
        desk.intake.review(desk.now)
        desk.commit()
    code, out, _ = run("status", "--store", store, "--regimes", site)
    assert code == 0
    assert out.count("as here") == len(laws.binding)
    (site / "own.toml").write_text(REGIME.replace('version = "1"', 'version = "2"'))
    code, out, _ = run("status", "--store", store, "--regimes", site)
    assert code == 1
    (row,) = [line for line in out.splitlines() if line.startswith("site-rule ")]
    assert "another text is here" in row
    assert row.split()[1] == "1"
    (site / "own.toml").write_text("scope = 5")
    code, out, err = run("status", "--store", store, "--regimes", site)
    assert code == 1
    assert out.count("not compared") == len(
        laws.binding
    )  # the shipped ones are here, and nothing is known to differ
    assert "own.toml:1:1: key scope" in err
    document = json.loads(run("status", "--store", store, "--json")[1])
    assert {r["regime"]: r["files"] for r in document["regimes"]}["site-rule"] == "not-here"
    assert not document["ok"]


def test_of_files_is_what_the_helpers_make():
    regime = next(r for r in of_files([LawFile("a.toml", REGIME.encode())]).regimes if r.id == "site-rule")
    assert changed(regime, threshold_flop=5).threshold_flop == 5
