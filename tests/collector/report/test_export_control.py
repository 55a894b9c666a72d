"""TPP and performance density: figures of export control, per card, and in no total."""

import json
from fractions import Fraction

import pytest
from filing_ledger import RUN, fill, gathered

from flopmeter.collector.filing.kinds import KINDS, make
from flopmeter.collector.law.laws import read_laws
from flopmeter.collector.report.export_control import (
    MET,
    NOT_KNOWN,
    NOT_MET,
    Card,
    Rule,
    answer,
    card,
    card_json,
    parse,
    rules_json,
    shipped,
)
from flopmeter.collector.report.queries import asked, reading
from flopmeter.contract.w_table import current

TABLE, CONTROL = current(), shipped()


@pytest.mark.parametrize(
    ("model", "tpp"),
    [
        ("NVIDIA H100 80GB HBM3", "15832"),  # regulations.md section 9: 1979 x 8
        ("NVIDIA H200", "15832"),
        ("NVIDIA A100-SXM4-80GB", "4992"),  # 312 x 16 = 624 x 8
        ("NVIDIA H20", "2368"),
        ("NVIDIA L40S", "5864"),
        ("Tesla V100-SXM2-32GB", "2000"),
    ],
)
def test_requirement_15_tpp_of_known_cards(model, tpp):
    assert card_json(model, TABLE)["tpp"] == tpp


def test_4800_is_600_tops_of_8_bit_or_300_of_16():
    """The two readings of section 9: both meet the line exactly."""
    (rule,) = [r for r in CONTROL.rules if r.id == "3A090.a"]
    for tops, bits in ((600, 8), (300, 16)):
        assert answer(rule, Card(Fraction(tops * bits), Fraction(tops), "x", bits, None)) == MET
    assert answer(rule, Card(Fraction(4799), Fraction(1), "x", 1, None)) == NOT_KNOWN, "its density decides"
    assert answer(rule, Card(Fraction(1599), Fraction(1), "x", 1, None)) == NOT_MET


def test_density_decides_between_1600_and_4800():
    (rule,) = [r for r in CONTROL.rules if r.id == "3A090.a"]
    die = CONTROL.dies[0]  # 814 mm2
    met = Fraction("5.92") * die.mm2
    assert 1600 < met < 4820
    assert answer(rule, Card(Fraction(1600), None, "", 0, die)) == NOT_MET
    small = type(die)("x", Fraction(1600) / Fraction("5.92"), "")
    assert answer(rule, Card(Fraction(1600), None, "", 0, small)) == MET
    assert answer(rule, Card(Fraction(1600) - Fraction(1, 100), None, "", 0, small)) == NOT_MET


def test_density_of_a_card_and_where_its_die_is_from():
    h100 = card_json("NVIDIA H100 80GB HBM3", TABLE)
    assert (h100["performance_density"], h100["die_mm2"]) == ("19.45", "814")
    assert "GH100" in h100["die_source"]
    b200 = card_json("NVIDIA B200", TABLE)
    assert (b200["tpp"], b200["performance_density"], b200["die_mm2"]) == ("36000", None, None)


def test_of_a_model_that_nobody_knows_nothing_is_said():
    strange = card_json("NVIDIA X9000", TABLE)
    assert (strange["tpp"], strange["at"], strange["performance_density"]) == (None, None, None)
    assert set(strange["rules"].values()) == {NOT_KNOWN}


def test_a_bound_on_what_is_not_known_is_never_taken_as_met():
    """The rule of 2026 asks for DRAM bandwidth, too, which nothing here knows."""
    found = card_json("NVIDIA H100 80GB HBM3", TABLE)["rules"]
    assert found == {"3A090.a": MET, "licence-review-2026": NOT_KNOWN}
    assert card_json("NVIDIA B200", TABLE)["rules"]["licence-review-2026"] == NOT_MET, (
        "36000 is not below 21000"
    )


def test_every_rule_and_die_names_its_source():
    assert all(r["citation"] and r["source"] and r["says"] for r in rules_json())
    assert all(d.source and d.mm2 > 0 for d in CONTROL.dies)


def test_a_rule_is_data():
    raw = b"""version = "x"
die = []
[bits]
bf16 = 16
[[rule]]
id = "r"
citation = "c"
says = "s"
source = "t"
any_of = [{ tpp_from = "15824" }]
"""
    control = parse(raw)
    assert card("NVIDIA H100 80GB HBM3", TABLE, control).tpp == Fraction("989.4") * 16
    assert control.rules == (Rule("r", "c", "s", "t", ({"tpp_from": Fraction(15824)},)),)


def test_requirement_15_tpp_stands_in_the_inventory_and_nowhere_else(tmp_path):
    """No run, no total, no draft and no regime's answer holds it or is weighted by it."""
    path = fill(tmp_path / "books.sqlite")
    regimes = read_laws(None).regimes
    with reading(path) as reader:
        question = asked(reader_now(), tuple(r for r in regimes if r.may_bind))
        inventory = reader.inventory(question)
        others = [reader.runs(question, RUN), reader.fleet(question), reader.events()]
    drafts = [make(kind, gathered(path, question.regimes)) for kind in KINDS.values()]
    (model,) = inventory["clusters"][0]["models"]
    assert model["export_control"]["tpp"] == "15832"
    sums = {k: v for k, v in inventory["clusters"][0].items() if k != "models"}
    for document in (sums, inventory["sites"], others, drafts):
        text = json.dumps(document)
        assert "15832" not in text
        assert "tpp" not in text.lower()
    assert model["peak_op_per_s"]["fp8"] == str(2 * int(model["peak_op_per_s"]["bf16"])), (
        "of two GPUs, unweighted"
    )


def reader_now():
    from filing_ledger import NOW

    return NOW
