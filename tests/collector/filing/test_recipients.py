"""The documentation fields for each recipient, Korea's data, and the notices of coverage."""

import json

import pytest
from filing_ledger import NOW, POINT, RUN, fill, gathered, regime

from flopmeter.collector.errors import FilingError
from flopmeter.collector.filing.eu_documentation import Recipient
from flopmeter.collector.filing.kinds import KINDS, make
from flopmeter.collector.law.regimes import shipped
from flopmeter.collector.paper.blocks import TO_FILL, UNKNOWN, WITHHELD, every_field
from flopmeter.collector.registry.entries import Declare
from flopmeter.collector.registry.say import say

LINE = regime(str(10**25))
DOCUMENTATION = KINDS["eu-documentation"]
STATES = ("us-ca-sb53", "us-ct-sb5", "us-il-aisma", "us-ny-raise")


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    return fill(tmp_path_factory.mktemp("books") / "books.sqlite")


def fields(document):
    return {f["name"]: f for f in every_field(document)}


def form(path, recipient):
    return make(DOCUMENTATION, gathered(path, (LINE,)), recipient=recipient)


def test_requirement_18_the_ai_office_gets_all_of_it(path):
    found = fields(form(path, Recipient.AI_OFFICE))
    assert found["compute.flop"]["value"] == "2.0×10^18 FLOP"
    assert found["time.wall_clock_days"]["value"] == "0.04", "an hour"
    assert found["time.hardware_days"]["value"] == "0.06", "91 device-minutes"
    # 90 minutes x 60 s x 600 W = 3.24 MJ = 0.0009 MWh; the gap's energy nobody read.
    assert found["energy.mwh"]["value"] == "at least 9.0×10^-4"
    assert "0.02 device-hours without a reading" in found["energy.mwh"]["note"]
    assert not [f for f in found.values() if f["state"] == WITHHELD]


def test_requirement_6_the_ai_office_gets_both_definitions(path):
    """Narrow for the 10^23 indicator, broad for systemic risk; here nothing tells them apart, and both are there."""
    found = fields(make(DOCUMENTATION, gathered(path, shipped())))
    assert found["compute.flop"]["value"] == found["compute.eu-gpai"]["value"] == "2.0×10^18 FLOP"
    assert f"unrounded {POINT}" in found["compute.eu-gpai"]["note"]
    narrow = fields(make(DOCUMENTATION, gathered(path, shipped()), regime_id="eu-gpai"))
    assert "> 10^23" in narrow["compute.comparison"]["value"]
    assert "compute.eu-systemic-risk" in narrow


def test_the_margin_of_the_eu_is_not_said_to_be_another_laws(path):
    m = gathered(path, shipped())
    for kind, name in (
        ("korea-submission", "margin.within"),
        ("coverage-notice", "us-ca-sb53.margin.within"),
    ):
        note = fields(make(KINDS[kind], m))[name]["note"]
        assert "no margin was found in this law" in note
        assert "C(2025) 5045" not in note


def test_requirement_18_a_national_authority_gets_the_order_of_magnitude_and_a_range_and_nothing_else(path):
    document = form(path, Recipient.NATIONAL)
    found = fields(document)
    assert found["compute.magnitude"]["value"] == "from 10^18 to below 10^19"
    assert found["time.range"]["value"] == "less than 1 month"
    assert found["energy.mwh"]["value"] == "at least 9.0×10^-4"
    names = [w["name"] for w in document["withheld"]]
    assert names == ["compute.flop", "time.wall_clock_days", "time.hardware_days", "method.compute"]
    assert all(w["reason"] for w in document["withheld"])


def test_requirement_18_downstream_gets_none_of_it(path):
    document = form(path, Recipient.DOWNSTREAM)
    withheld = {w["name"] for w in document["withheld"]}
    assert withheld == {"compute.flop", "time.training", "energy.mwh", "method", "inference.benchmark"}
    assert all(f["value"] is None for f in fields(document).values() if f["name"] in withheld)


@pytest.mark.parametrize("recipient", [Recipient.NATIONAL, Recipient.DOWNSTREAM])
def test_requirement_18_what_is_withheld_is_nowhere_in_the_document(path, recipient):
    """Neither the figure, nor its bounds, nor the time and devices that would give it away."""
    whole, part = form(path, Recipient.AI_OFFICE), json.dumps(form(path, recipient), ensure_ascii=False)
    secret = [whole["figures"][name] for name in ("lower", "point", "upper", "two_significant_figures")]
    secret += ["A1", "read-failed", "gpu-001", "device-hours", "0.06"]
    assert str(POINT) in secret
    assert not [s for s in secret if s in part]
    assert "figures" not in json.loads(part)
    if recipient is Recipient.DOWNSTREAM:
        assert "9.0×10^-4" not in part
        assert "10^18" not in part


def test_requirement_27_energy_and_time_stand_with_the_compute_and_the_boundary_is_stated(path):
    found = fields(form(path, Recipient.AI_OFFICE))
    assert {"compute.flop", "time.wall_clock_days", "time.hardware_days", "energy.mwh"} <= found.keys()
    assert "Boundary: the GPUs alone" in found["energy.mwh"]["note"]


def test_requirement_27_energy_that_nobody_read_is_not_nought(path):
    import dataclasses

    m = gathered(path, (LINE,))
    unread = {**m.metered, "energy_joules": 0.0, "energy_unmeasured_device_seconds": 90 * 60.0}
    found = fields(make(DOCUMENTATION, dataclasses.replace(m, metered=unread)))
    assert found["energy.mwh"]["state"] == UNKNOWN
    assert "N/A" in found["energy.mwh"]["note"]


def test_a_run_without_anything_metered_has_no_form(path):
    say(path, lambda _: Declare("next", budget_flop=3 * 10**25), "ada@lab", "plan", lambda: NOW)
    with pytest.raises(FilingError, match="of which something was metered"):
        make(DOCUMENTATION, gathered(path, (LINE,), "next"))


def test_korea_is_at_or_above_and_its_deadline_was_not_found(path):
    found = fields(make(KINDS["korea-submission"], gathered(path, shipped())))
    assert found["threshold"]["value"] == "at or above 10^26 FLOP"
    assert (found["deadline"]["state"], found["deadline"]["value"]) == (UNKNOWN, None)
    assert found["deadline"]["note"].startswith("not found in the texts read")
    assert found["condition.korea.1"]["state"] == TO_FILL
    assert "no counter sees this" in found["condition.korea.2"]["note"]
    assert " >= 10^26: no" in found["compute.comparison"]["value"]
    assert found["compute.point"]["value"] == str(POINT)


def test_korea_names_its_method(path):
    document = make(KINDS["korea-submission"], gathered(path, shipped()))
    (method,) = [s for s in document["sections"] if s["name"] == "method"]
    assert "this is measured hardware use" in method["text"][-1]


def test_requirement_20_a_notice_of_coverage_claims_no_duty_to_report_compute(path):
    document = make(KINDS["coverage-notice"], gathered(path, shipped()))
    assert document["recipient"].startswith("the organisation's own counsel")
    found = fields(document)
    assert [s["name"] for s in document["sections"] if s["name"].startswith("us-")] == sorted(STATES)
    for state in STATES:
        assert found[f"{state}.statement"]["value"].startswith("By this run this organisation is not covered")
    for s in document["sections"]:
        if s["name"] in STATES:
            assert s["text"][0].startswith("If the line is met: "), "what would follow is not said to be so"
    text = json.dumps(document).lower()
    assert "asks for a report of the compute figure" in text
    assert "must report" not in text
    assert "report the compute" not in text
    assert "duty to report" not in text


def test_requirement_20_is_or_will_be_a_frontier_developer(path, tmp_path):
    line = regime("1000000000000000", regime_id="us-test", act="coverage")  # 10^15: long past
    assert (
        "us-test"
        in fields(make(KINDS["coverage-notice"], gathered(path, (line,))))["us-test.citation"]["name"]
    )
    said = fields(make(KINDS["coverage-notice"], gathered(path, (line,))))["us-test.statement"]["value"]
    assert said.startswith("This organisation is a frontier developer")
    far = regime(str(10**26), regime_id="us-test", act="coverage")
    planned = fill(tmp_path / "planned.sqlite")
    say(planned, lambda _: Declare(RUN, budget_flop=10**26 + 1), "ada@lab", "plan", lambda: NOW)
    said = fields(make(KINDS["coverage-notice"], gathered(planned, (far,))))["us-test.statement"]["value"]
    assert said.startswith("This organisation will be a frontier developer")
    say(planned, lambda _: Declare(RUN, budget_flop=10**26), "ada@lab", "less", lambda: NOW)
    said = fields(make(KINDS["coverage-notice"], gathered(planned, (far,))))["us-test.statement"]["value"]
    assert said.startswith("By this run this organisation is not covered"), (
        "exactly at the line is not past it"
    )


def test_a_line_within_the_bounds_cannot_be_told(path):
    line = regime(str(POINT), regime_id="us-test", act="coverage")
    said = fields(make(KINDS["coverage-notice"], gathered(path, (line,))))["us-test.statement"]["value"]
    assert said.startswith("It cannot be told from this evidence")


def test_a_kind_is_made_under_a_regime_of_its_act_only(path):
    m = gathered(path, shipped())
    with pytest.raises(FilingError, match="whose act is notification, got submission"):
        make(KINDS["eu-notification"], m, regime_id="korea")
    with pytest.raises(FilingError, match="that binds, or will, and is known here"):
        make(KINDS["eu-notification"], m, regime_id="nowhere")
    with pytest.raises(FilingError, match="whose act is coverage"):
        make(KINDS["coverage-notice"], m, regime_id="korea")
    one = make(KINDS["coverage-notice"], m, regime_id="us-ca-sb53")
    assert list(one["figures"]) == ["us-ca-sb53"]
