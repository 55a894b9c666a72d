"""The evidence: the log's head as the API has it, the last fsck, and a file that is verified in place."""

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

from browser_rig import Desk, Site, settled, shot
from playwright.sync_api import expect

from flopmeter.play.witness import NAME


def attestation(site: Site, tmp_path: Path) -> Path:
    path = tmp_path / "atlas.fma"
    site.cli(
        "attest", "create", "atlas-70b", "--profile", "auditor", "--why", "the browser's test", "-o", path
    )
    return path


def test_a_file_is_verified_in_place_step_by_step(visit: Desk, site: Site, tmp_path: Path) -> None:
    path = attestation(site, tmp_path)
    page = visit("/evidence", role="auditor")
    settled(page)
    page.get_by_label("Choose an attestation").set_input_files(path)
    expect(page.get_by_text("It holds")).to_be_visible()
    steps = page.locator(".steps li")
    expect(steps).to_have_count(10)
    expect(page.locator(".steps li .mark.good")).to_have_count(10)
    expect(page.locator(".result")).to_contain_text("unwitnessed")
    expect(page.locator("section[aria-labelledby=attested-title]")).to_contain_text("the browser's test")
    shot(page, "evidence-holds", whole=True)

    broken = bytearray(path.read_bytes())
    at = broken.index(b'"signature"') if b'"signature"' in broken else len(broken) // 2
    broken[at + 30] ^= 1
    (tmp_path / "broken.fma").write_bytes(broken)
    page.get_by_label("Choose an attestation").set_input_files(tmp_path / "broken.fma")
    expect(page.get_by_text("It does not hold")).to_be_visible()
    expect(page.locator(".steps li .mark.bad")).to_have_count(1)
    assert page.locator(".steps li .mark.good").count() < 10
    shot(page, "evidence-broken")


def test_a_file_is_verified_by_dropping_it(visit: Desk, tmp_path: Path) -> None:
    page = visit("/evidence")
    settled(page)
    page.locator(".drop").evaluate(
        """e => { const data = new DataTransfer(); data.items.add(new File(["no attestation"], "what.bin"));
             e.dispatchEvent(new DragEvent("drop", { dataTransfer: data, bubbles: true, cancelable: true })); }"""
    )
    expect(page.get_by_text("It does not hold")).to_be_visible()
    expect(page.locator(".result")).to_contain_text("what.bin, 14 B")
    expect(page.locator(".steps li").first).to_contain_text("container")


def test_the_head_is_the_one_that_is_signed(visit: Desk, site: Site) -> None:
    page = visit("/evidence")
    settled(page)
    answer = page.request.get("/api/v1/log/checkpoint")
    assert answer.ok
    note = answer.text()
    shown = page.locator("section[aria-labelledby=head-title] pre").first.inner_text()
    assert shown.strip() == note.strip()
    evidence = page.request.get("/api/v1/evidence").json()
    expect(page.locator("section[aria-labelledby=head-title]")).to_contain_text(
        evidence["log"]["checkpoint"]["root"]
    )
    expect(page.locator("section[aria-labelledby=witness-title] tbody tr")).to_contain_text([NAME])
    expect(page.get_by_text("Not that nothing was left out")).to_be_visible()


def test_without_a_witness_it_says_how_one_is_run(visit: Desk) -> None:
    def alone(route) -> None:
        answer = route.fetch().json()
        answer["witnesses"] = []
        route.fulfill(content_type="application/json", body=json.dumps(answer))

    page = visit("/evidence", before=lambda p: p.route("**/api/v1/evidence", alone))
    settled(page)
    expect(page.get_by_text("No witness cosigns this log.")).to_be_visible()


def test_a_head_that_leaves_records_out_for_long_is_an_alarm(visit: Desk) -> None:
    def late(route) -> None:
        answer = route.fetch().json()
        answer["log"]["size"] = answer["log"]["checkpoint"]["size"] + 500
        signed = datetime.now(UTC) - timedelta(seconds=4000)
        answer["log"]["checkpoint"]["time"] = signed.strftime("%Y-%m-%dT%H:%M:%SZ")
        answer["witnesses"] = [
            {"name": "w.example", "vkey": "w.example+1", "known_size": 3, "cosigned_size": 3, "cosigned": None, "asked": None,
             "error": "connect: refused"}
        ]  # fmt: skip
        answer["fsck"] = {
            "outcome": "differs",
            "time": "2026-11-01T00:00:00Z",
            "position": "5",
            "version": "0.1.0",
            "difference": "totals: run x",
        }
        route.fulfill(content_type="application/json", body=json.dumps(answer))

    page = visit("/evidence", before=lambda p: p.route("**/api/v1/evidence", late))
    settled(page)
    facts = page.locator(".facts")
    expect(facts).to_contain_text("1 h 6 min old")
    expect(facts).to_contain_text("500 leaves not under it: is the collector running?")
    expect(facts).to_contain_text("1 of 1 fail")
    expect(facts).to_contain_text("differs")
    expect(page.get_by_text("totals: run x")).to_be_visible()


def test_an_fsck_in_the_terminal_shows_on_the_page(visit: Desk, site: Site) -> None:
    site.cli("collector", "fsck")
    page = visit("/evidence")
    settled(page)
    expect(page.get_by_text("every figure follows from the signed records")).to_be_visible()
