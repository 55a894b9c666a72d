"""`flopmeter verify`, as somebody runs it who has a file, a public key, and no reason to trust anybody."""

import importlib
import json
import os
import subprocess
import sys
from pathlib import Path

import evidence_files as files
import pytest

command = importlib.import_module("flopmeter.cli.verify")
LIMITS = {t["rule"]: t["limit"] for t in files.attestation().predicate["thresholds"]}
ROOT = Path(__file__).resolve().parents[2]
RUN = "import sys; sys.argv[0] = 'flopmeter'; from flopmeter.cli.main import main; main()"
#: Of the interpreter that runs the tests, nothing else is on the path of the next: what `pip install flopmeter` brings.
ALONE = ("click", "cryptography", "cffi", "_cffi_backend", "pycparser", "typing_extensions")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An attestation of each profile, the key, a policy; the packages of a base install, and no other."""
    folder = tmp_path_factory.mktemp("verify")
    for profile in files.PROFILES:
        files.attestation(profile, witnesses=files.WITNESSES[:2]).write(folder, f"{profile}.fma")
    (folder / "lab.pem").write_bytes(files.key_pem())
    (folder / "policy").write_bytes(files.policy())
    packages = folder / "packages"
    packages.mkdir()
    for name in ALONE:
        found = importlib.util.find_spec(name)
        if found is None or found.origin is None:  # pycparser and typing_extensions are not needed everywhere
            continue
        origin = Path(found.origin)
        origin = origin.parent if origin.name == "__init__.py" else origin
        (packages / origin.name).symlink_to(origin)
    return folder


def verify(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """In an interpreter that has click and cryptography, and no site-packages."""
    path = [folder / "packages", *(ROOT / part for part in ("protos", "agent", "collector"))]
    return subprocess.run(
        [sys.executable, "-S", "-c", RUN, "verify", *words],
        cwd=folder,
        env={"PYTHONPATH": os.pathsep.join(map(str, path)), "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_nothing_but_click_and_cryptography_is_there(folder: Path) -> None:
    code = "import importlib.util as u; print([n for n in ('grpc', 'google', 'nacl', 'rfc8785', 'pytest') if u.find_spec(n)])"
    env = {"PYTHONPATH": str(folder / "packages")}
    done = subprocess.run(
        [sys.executable, "-S", "-c", code], env=env, capture_output=True, text=True, check=True
    )
    assert done.stdout == "[]\n"


@pytest.mark.parametrize("profile", files.PROFILES)
def test_each_profile_verifies_with_a_base_install(profile: str, folder: Path) -> None:
    done = verify(folder, f"{profile}.fma", "--key", "lab.pem", "--json")
    assert (done.returncode, done.stderr) == (0, "")
    document = json.loads(done.stdout)
    assert document["verified"] is True
    assert document["level"] == "unwitnessed"
    assert document["profile"] == profile
    assert [t["status"] for t in document["thresholds"]] == ["crossed", "below", "undetermined", "crossed"]
    assert ("pack" in document["steps"]) == (profile == "auditor")


def test_a_person_reads_what_was_checked_and_what_is_not_proven(folder: Path) -> None:
    done = verify(folder, "auditor.fma", "--key", "lab.pem", "--policy", "policy")
    assert done.returncode == 0
    assert max(len(line) for line in done.stdout.splitlines()) <= 80
    for said in (
        "VERIFIED auditor.fma",
        "witnessed(2 of 3, witness.test/a, witness.test/b)",
        f"crossed, >= {LIMITS['crossed']}: CROSSED (recomputed)",
        f"below, >= {LIMITS['below']}: below (recomputed)",
        f"open, >= {LIMITS['open']}: cannot be told from this evidence (recomputed)",
        "% of the device time observed",
        "6 batches of 2 agents",
        "What it does not prove",
        "Nothing is left out: not proven.",
    ):
        assert said in " ".join(done.stdout.split()), said


def test_a_program_reads_the_lines_and_whose_table_it_is(folder: Path) -> None:
    document = json.loads(verify(folder, "aiOffice.fma", "--key", "lab.pem", "--json").stdout)
    assert {t["rule"]: (t["comparison"], t["limit"]) for t in document["thresholds"]} == {
        rule: (">=", limit) for rule, limit in LIMITS.items()
    }
    assert [(t["name"], t["known"]) for t in document["tables"]] == [("w_table.toml", True)]
    assert document["coverage"]["expectedDeviceSeconds"]


def test_a_table_that_nobody_knows_is_pointed_out(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A table of 1 FLOP a cycle would verify: whose it is, must be said."""
    words = [str(folder / "auditor.fma"), "--key", str(folder / "lab.pem")]
    for known, said in ((command._tables(), False), (frozenset({"0" * 64}), True)):
        monkeypatch.setattr(command, "_tables", lambda known=known: known)
        command.verify.main(words, standalone_mode=False)
        assert ("none of this flopmeter's" in " ".join(capsys.readouterr().out.split())) is said


@pytest.mark.parametrize(
    ("limit", "text"),
    [
        ("1" + "0" * 25, "10^25"),
        ("3" + "0" * 23, "3*10^23"),
        ("1000", "1000"),
        ("10000/3", "10000/3"),
        ("0", "0"),
    ],
)
def test_a_line_is_shown_exactly(limit: str, text: str) -> None:
    assert command._exact(limit) == text


def test_a_head_is_kept_for_the_next_time(folder: Path, tmp_path: Path) -> None:
    head = str(tmp_path / "head")
    assert verify(folder, "aiOffice.fma", "--key", "lab.pem", "--keep", head).returncode == 0
    assert verify(folder, "downstream.fma", "--key", "lab.pem", "--since", head).returncode == 0
    other = files.attestation(around=7).write(tmp_path)
    done = verify(folder, str(other), "--key", "lab.pem", "--since", head, "--keep", head, "--json")
    assert done.returncode == 1
    assert json.loads(done.stdout)["failed"] == "consistency"
    assert (
        verify(folder, "downstream.fma", "--key", "lab.pem", "--since", head).returncode == 0
    )  # kept as it was


def test_the_step_that_failed_is_named_and_nothing_behind_it_looked_at(folder: Path, tmp_path: Path) -> None:
    made = files.attestation()
    made.files["evidence.json"] += b" "
    done = verify(folder, str(made.write(tmp_path)), "--key", "lab.pem")
    assert done.returncode == 1
    assert "NOT VERIFIED" in done.stdout
    assert " 2 subject      FAILED" in done.stdout
    assert " 3 schema" not in done.stdout
    document = json.loads(verify(folder, str(tmp_path / "run.fma"), "--key", "lab.pem", "--json").stdout)
    assert (document["verified"], document["step"], document["failed"]) == (False, 2, "subject")


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["aiOffice.fma"], 2, "--key"),
        (["aiOffice.fma", "--key", "lab.pem", "--min-coverage-percent", "101"], 2, "0<=x<=100"),
        (["nothing.fma", "--key", "lab.pem"], 3, "No such file"),
        (["aiOffice.fma", "--key", "nothing.pem"], 3, "No such file"),
        (["aiOffice.fma", "--key", "policy"], 3, "public key"),
        (["aiOffice.fma", "--key", "lab.pem", "--policy", "lab.pem"], 3, "tlog-policy"),
        (["aiOffice.fma", "--key", "lab.pem", "--since", "nothing"], 3, "No such file"),
        (["aiOffice.fma", "--key", "lab.pem", "--since", "lab.pem"], 3, "the checkpoint that --keep wrote"),
        (["lab.pem", "--key", "lab.pem"], 1, ""),
        (["packages", "--key", "lab.pem"], 3, "No such file"),
        (["aiOffice.fma", "--key", "lab.pem", "--min-coverage-percent", "100"], 1, ""),
        (["/dev/zero", "--key", "lab.pem"], 1, ""),
        (["aiOffice.fma", "--key", "lab.pem", "--keep", "nowhere/head"], 3, "No such file"),
    ],
)
def test_exit_codes(words: list[str], code: int, said: str, folder: Path) -> None:
    done = verify(folder, *words)
    assert done.returncode == code, done.stdout + done.stderr
    assert said in done.stderr
    assert "Traceback" not in done.stderr


def test_a_file_cannot_talk_to_the_terminal(folder: Path, tmp_path: Path) -> None:
    """The schema refuses control characters; what is quoted of a refused file is made harmless."""

    def lie(predicate: dict[str, dict[str, str]], _: object) -> None:
        predicate["issuer"]["name"] = "\x1b]0;owned\x07\x9b31m" * 10

    done = verify(folder, str(files.attestation(change=lie).write(tmp_path)), "--key", "lab.pem")
    assert done.returncode == 1
    assert not [c for c in done.stdout + done.stderr if not c.isprintable() and c != "\n"]


def test_a_certificate_says_how_long_the_key_is_good(folder: Path, tmp_path: Path) -> None:
    from datetime import UTC, datetime

    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization

    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "A Lab")])
    for first, code in ((datetime(2026, 1, 1, tzinfo=UTC), 0), (datetime(2026, 12, 1, tzinfo=UTC), 1)):
        builder = x509.CertificateBuilder(
            name, name, files.KEY.public_key(), 1, first, datetime(2028, 1, 1, tzinfo=UTC)
        )
        pem = builder.sign(files.KEY, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)
        (tmp_path / "lab.crt").write_bytes(pem)
        assert verify(folder, "aiOffice.fma", "--key", str(tmp_path / "lab.crt")).returncode == code
