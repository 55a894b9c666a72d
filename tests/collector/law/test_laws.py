"""A site's law files beside the shipped ones: what it adds, what it replaces, and every fault of every file at once."""

from datetime import date
from pathlib import Path

import pytest
from law_files import MODIFIER, PROFILE, REGIME

from flopmeter.collector.errors import RegimeError
from flopmeter.collector.law.laws import LawFile, of_files, read_laws, warnings, with_site
from flopmeter.collector.law.regimes import MODIFICATION, every_shipped, shipped

SHIPPED = {r.id for r in every_shipped()}


def site(path: Path, **files: str) -> Path:
    for name, text in files.items():
        (path / f"{name}.toml").write_text(text)
    return path


def faults(path: Path) -> list[tuple[str, int | None, str]]:
    with pytest.raises(RegimeError) as e:
        read_laws(path)
    assert all(f.todo for f in e.value.faults)
    return [(f.file, f.line, f.key) for f in e.value.faults]


def test_a_site_adds_regimes_of_any_scope(tmp_path):
    (tmp_path / "README").write_text("not a regime")
    site(tmp_path, own=REGIME, change=MODIFIER.replace("site-rule", "site-change"))
    laws = read_laws(tmp_path)
    assert {r.id for r in laws.regimes} == SHIPPED | {"site-rule", "site-change"}
    assert {r.id for r in with_site(tmp_path)} == {r.id for r in shipped()} | {"site-rule"}
    assert "site-change" in {r.id for r in with_site(tmp_path, MODIFICATION)}
    assert not laws.replaced
    assert {r.id for r in laws.binding} == {r.id for r in every_shipped() if r.may_bind} | {
        "site-rule",
        "site-change",
    }


def test_without_a_site_there_are_the_shipped_ones():
    assert read_laws(None).regimes == every_shipped()


@pytest.mark.parametrize("own_id", ["eu-systemic-risk", "board-reads-it-so"])
def test_a_site_replaces_a_shipped_regime_where_its_file_says_so(tmp_path, own_id):
    text = REGIME.replace("site-rule", own_id) + 'replaces = "eu-systemic-risk"\n'
    laws = read_laws(site(tmp_path, own=text))
    by_id = {r.id: r for r in laws.regimes}
    assert by_id[own_id].threshold_flop == 10**24
    assert by_id[own_id].replaces == "eu-systemic-risk"
    assert laws.replaced["eu-systemic-risk"].threshold_flop == 10**25
    assert by_id.keys() == SHIPPED - {"eu-systemic-risk"} | {own_id}


def test_a_site_turns_a_regime_off_or_on(tmp_path):
    off = REGIME.replace("site-rule", "korea").replace('"in-force"', '"revoked"') + 'replaces = "korea"\n'
    on = REGIME.replace("site-rule", "us-bis-702-7") + 'replaces = "us-bis-702-7"\n'
    laws = read_laws(site(tmp_path, off=off, on=on))
    binding = {r.id for r in laws.binding}
    assert "korea" not in binding
    assert "us-bis-702-7" in binding


def test_no_shipped_regime_is_replaced_unseen(tmp_path):
    site(tmp_path, evil=REGIME.replace("site-rule", "eu-systemic-risk"))
    assert faults(tmp_path) == [("evil.toml", 4, "id")]
    assert 'say replaces = "eu-systemic-risk"' in what_to_do(tmp_path)


def what_to_do(path: Path) -> str:
    with pytest.raises(RegimeError) as e:
        read_laws(path)
    return e.value.hint


def test_two_files_cannot_have_one_id_nor_replace_one_regime(tmp_path):
    site(tmp_path, a=REGIME, b=REGIME)
    assert faults(tmp_path) == [("b.toml", 4, "id")]
    own = REGIME + 'replaces = "korea"\n'
    site(tmp_path, a=own, b=own.replace("site-rule", "other"))
    assert faults(tmp_path) == [("b.toml", 24, "replaces")]
    site(tmp_path, a=REGIME + 'replaces = "coria"\n', b=own)
    found = faults(tmp_path)
    assert ("a.toml", 24, "replaces") in found
    assert "'korea'" in what_to_do(tmp_path)


def test_a_sites_profile_is_one_that_its_regimes_may_name(tmp_path):
    site(tmp_path, own=REGIME.replace('counting = "executed"', 'counting = "house"'), house=PROFILE)
    laws = read_laws(tmp_path)
    regime = next(r for r in laws.regimes if r.id == "site-rule")
    assert regime.counted_by is laws.profiles["house"]
    assert regime.counted_by.id == "house"
    (tmp_path / "house.toml").unlink()
    assert faults(tmp_path) == [("own.toml", 14, "counting")]


def test_a_sites_profile_replaces_no_shipped_one(tmp_path):
    site(tmp_path, house=PROFILE.replace('id = "house"', 'id = "korea"'))
    ((file, line, key),) = faults(tmp_path)
    assert (file, key) == ("house.toml", "id")
    assert PROFILE.split("\n")[line - 1].startswith("id = ")
    site(tmp_path, house=PROFILE, again=PROFILE)
    assert [(f, k) for f, _, k in faults(tmp_path)] == [("house.toml", "id")]


def test_the_faults_of_all_files_are_told_at_once(tmp_path):
    site(
        tmp_path,
        a=REGIME.replace('scope = "run"', 'scope = "planet"'),
        b=REGIME.replace("exponent = 24", "exponent = 24.0"),
        c="= 5",
        d=PROFILE.replace('answer = "counts"', 'answer = "maybe"', 1),
    )
    assert [f[0] for f in faults(tmp_path)] == ["d.toml", "a.toml", "b.toml", "c.toml"]


def test_a_directory_that_is_none(tmp_path):
    assert faults(tmp_path / "absent") == [(str(tmp_path / "absent"), None, "")]
    (tmp_path / "f.toml").mkdir()
    assert faults(tmp_path) == [(str(tmp_path), None, "")]


def test_what_is_over_is_told_and_no_fault():
    text = REGIME + "ends = 2026-06-01\n"
    laws = of_files([LawFile("own.toml", text.encode())])
    (found,) = warnings(laws, date(2026, 6, 1))
    assert (found.line, found.key, found.got) == (24, "ends", "2026-06-01")
    assert not warnings(laws, date(2026, 5, 31))
    assert not warnings(of_files([LawFile("own.toml", REGIME.encode())]), date(2030, 1, 1))
