"""Counting profiles: the matrix of reference/regulations.md section 3, cell by cell; every fault is named."""

from importlib import resources
from pathlib import Path

import pytest

from flopmeter.collector.errors import RegimeError
from flopmeter.collector.law.profiles import (
    Answer,
    load,
    parse,
    profile_of,
    shipped,
)
from flopmeter.collector.registry.entries import Purpose, Relation
from flopmeter.collector.registry.form import EXCLUSIONS

COLUMNS = ("eu-broad", "eu-narrow", "us-state", "korea")
#: Y counts, N need not, ? silent; r: the reference marks it as its own reading.
MATRIX = {
    "pretraining": ("Y", "Y", "Y", "Y"),
    "finetuning": ("Y", "Y", "Y", "Y"),
    "rl": ("Y", "Y", "Y", "Yr"),
    "rl-rollouts": ("Yr", "?", "?", "Yr"),
    "synthetic-data": ("Y", "Nr", "?", "Yr"),
    "synthetic-data-public": ("N", "Nr", "?", "?"),
    "teacher": ("N", "Nr", "?", "?"),
    "auxiliary": ("N", "Nr", "?", "?"),
    "experiment": ("N", "Nr", "?", "N"),
    "evaluation": ("N", "Nr", "?", "N"),
    "rolled-back": ("?", "?", "?", "?"),
    "preprocessing": ("?", "Nr", "?", "Y"),
    "inference": ("N", "Nr", "Nr", "Nr"),
    "recomputation": ("N", "Nr", "?r", "?"),
    # Of the run that the other stands on: its own training.
    "continues": ("Y", "Y", "Y", "Yr"),
    "fine-tunes": ("Yr", "?r", "Yr", "?"),
    "merges": ("Y", "?", "?", "?"),
    "initialised-from": ("Y", "?", "?", "?"),
    "distils": ("N", "Nr", "?", "?"),  # the row of the teacher
    "synthetic-data-from": ("Y", "Nr", "?", "Yr"),  # the row of private synthetic data
}
LETTER = {Answer.COUNTS: "Y", Answer.EXCLUDED: "N", Answer.SILENT: "?"}


def test_the_shipped_profiles_are_the_matrix_cell_by_cell():
    assert set(shipped()) == set(COLUMNS)
    assert set(MATRIX) == {p.value for p in Purpose} | {r.value for r in Relation}
    found = {
        name: tuple(
            LETTER[ruling.answer] + "r" * ruling.inferred
            for ruling in (
                {**shipped()[c].purposes, **shipped()[c].relations}[
                    Purpose(name) if name in set(Purpose) else Relation(name)
                ]
                for c in COLUMNS
            )
        )
        for name in MATRIX
    }
    assert found == MATRIX


def test_relations_follow_the_rows_of_the_matrix_that_they_stand_for():
    for profile in shipped().values():
        rows = ((Relation.DISTILS, Purpose.TEACHER), (Relation.SYNTHETIC_DATA_FROM, Purpose.SYNTHETIC_DATA))
        for relation, purpose in rows:
            assert profile.relations[relation].answer is profile.purposes[purpose].answer


def test_silent_and_untagged_count():
    broad = shipped()["eu-broad"]
    assert broad.of(Purpose.ROLLED_BACK).counted
    assert broad.of(Purpose.ROLLED_BACK).answer is Answer.SILENT
    assert broad.of(None).counted
    assert not broad.of(Purpose.EVALUATION).counted


def test_every_profile_says_where_it_comes_from_and_what_is_open():
    for profile in shipped().values():
        assert "a lawyer must confirm" in profile.source
        assert profile.open_questions
        assert len(profile.digest) == 64
        for ruling in (*profile.purposes.values(), *profile.relations.values()):
            assert ruling.words
            assert ruling.source


def test_executed_names_no_profile():
    assert profile_of("executed") is None
    assert profile_of("korea") is shipped()["korea"]
    assert len(set(shipped().values())) == 4  # a profile is a value, and can be a key


def test_a_tag_that_some_profile_leaves_out_is_an_exclusion():
    left_out = {p for p in Purpose if not all(profile.of(p).counted for profile in shipped().values())}
    assert left_out == EXCLUSIONS  # what an entry needs evidence for


def test_the_page_on_regimes_has_the_matrix():
    page = (Path(__file__).parents[3] / "docs/regimes.md").read_text()
    words = {Answer.COUNTS: "counts", Answer.EXCLUDED: "left out", Answer.SILENT: "silent"}
    profiles = [shipped()[c] for c in COLUMNS]
    rows = {p.value: [c.purposes[p] for c in profiles] for p in Purpose}
    rows.update({r.value: [c.relations[r] for c in profiles] for r in Relation})
    for name, rulings in rows.items():
        cells = [words[r.answer] + (" (R)" if r.inferred else "") for r in rulings]
        assert f"| `{name}` | {' | '.join(cells)} |\n" in page


GOOD = resources.files("flopmeter.collector").joinpath("profiles/korea.toml").read_text()


@pytest.mark.parametrize(
    ("old", "new", "key", "got"),
    [
        ('schema = "flopmeter-counting/1"', 'schema = "flopmeter-counting/9"', "schema", "counting/9"),
        ('id = "korea"', 'id = "Korea!"', "id", "Korea!"),
        ('id = "korea"', 'id = "executed"', "id", "executed"),
        ("open_questions = [", "open_questions = [5,", "open_questions", "5"),
        ("[purpose.rl]\n", "[purpose.rl]\nweight = 2\n", "purpose.rl.weight", "2"),
        ("[purpose.rl]\n", "[purpose.jogging]\n", "purpose.rl", "nothing"),
        ("[purpose.rl]\n", "[purpose.rl.deeper]\n", "purpose.rl.answer", "nothing"),
        (
            "[purpose.rl]\n",
            '[purpose.jogging]\nanswer = "counts"\n[purpose.rl]\n',
            "purpose.jogging",
            "counts",
        ),
        ("[relation.merges]\n", "[relation.adopts]\n", "relation.merges", "nothing"),
        (
            "[relation.merges]\n",
            "[relation.adopts]\nx = 1\n[relation.merges]\n",
            "relation.adopts",
            "1",
        ),
        ("[purpose.pretraining]\n", "[purpose]\nrl-rollout = 3\n[purpose.pretraining]\n", "purpose.rl-", "3"),
        ("[purpose.pretraining]\n", "weight = 3\n[purpose.pretraining]\n", "weight", "3"),
        ('answer = "silent"', 'answer = "maybe"', "purpose.synthetic-data-public.answer", "maybe"),
        ("inferred = true", "inferred = 1", "purpose.rl.inferred", "1"),
        ('words = "fine-tuning is named"', 'words = " "', "purpose.finetuning.words", "' '"),
    ],
)
def test_every_fault_names_file_and_key(old, new, key, got):
    text = GOOD.replace(old, new, 1)
    assert text != GOOD
    with pytest.raises(RegimeError) as e:
        parse("bad.toml", text.encode())
    found = [f for f in e.value.faults if f.key.startswith(key) and got in f.got]
    assert found
    assert all(
        f.file == "bad.toml" and f.line and f.expected and f.todo for f in e.value.faults if f.key in text
    )


@pytest.mark.parametrize("purpose", list(Purpose))
def test_no_purpose_may_be_missing(purpose):
    text = GOOD.replace(f"[purpose.{purpose.value}]", f"[elsewhere.{purpose.value}]")
    with pytest.raises(RegimeError, match=f"key purpose.{purpose.value}: expected a table, got nothing"):
        parse("bad.toml", text.encode())


def test_a_profile_is_no_list_and_two_have_no_one_id(tmp_path):
    with pytest.raises(RegimeError, match="key purpose: expected a table, got 5"):
        parse("bad.toml", b'schema = "flopmeter-counting/1"\nid = "a"\npurpose = 5\n')
    (tmp_path / "a.toml").write_text(GOOD)
    (tmp_path / "b.toml").write_text(GOOD)
    with pytest.raises(RegimeError, match=r"^b\.toml: key id: .*'korea', which another file has"):
        load(tmp_path)
    with pytest.raises(RegimeError, match="cannot read"):
        load(tmp_path / "absent")
