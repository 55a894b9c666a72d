"""Lineage: each ancestor once, by the best path; circles refused; no order of entries matters."""

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flopmeter.collector.errors import EntryRefused
from flopmeter.collector.law.countable import Ancestor, Share, countable
from flopmeter.collector.law.profiles import Answer, Profile, shipped
from flopmeter.collector.registry.entries import (
    Declare,
    Entry,
    External,
    Link,
    Purpose,
    Relation,
    Retract,
)
from flopmeter.collector.registry.lineage import MAX_ANCESTORS, MAX_DEPTH, Lineage, check_link
from flopmeter.collector.registry.state import Registry
from flopmeter.contract.flop import Figure

BROAD, NARROW, STATE, KOREA = (shipped()[p] for p in ("eu-broad", "eu-narrow", "us-state", "korea"))
PROFILES = (BROAD, NARROW, STATE, KOREA)
CONTINUES, FINE_TUNES, MERGES, FROM, DISTILS, DATA = (
    Relation.CONTINUES,
    Relation.FINE_TUNES,
    Relation.MERGES,
    Relation.INITIALISED_FROM,
    Relation.DISTILS,
    Relation.SYNTHETIC_DATA_FROM,
)


def exactly(n: int) -> Figure:
    return Figure(n, n, n)


def answers(lineage: Lineage, run: str, profile: Profile) -> dict[str, str]:
    return {r.name: r.ruling.answer.value for r in lineage.ancestors(run, profile) if not r.declared}


def total_of(lineage: Lineage, run: str, profile: Profile, flop: dict[str, int]) -> int:
    """The countable point of `run`, each node having done flop[name] of untagged work."""
    above = [
        Ancestor(r.name, r.ruling, r.path, (Share(None, exactly(flop[r.name])),))
        for r in lineage.ancestors(run, profile)
    ]
    return countable(profile, [Share(None, exactly(flop[run]))], above).flop.point


# ---- item 7 of reference/regulations.md section 13, as a table -------------------------------------------

#: Exact integers: each model's work is its own power of ten, so that a total names its set.
WORK = {"run": 1, "a": 10, "b": 100, "c": 1_000, "d": 10_000}


@pytest.mark.parametrize(
    ("case", "links", "totals"),
    [
        ("alone", [], (1, 1, 1, 1)),
        ("continues", [("run", CONTINUES, "a")], (11, 11, 11, 11)),
        ("fine-tunes", [("run", FINE_TUNES, "a")], (11, 11, 11, 11)),  # narrow and Korea: silent
        ("merges add", [("run", MERGES, "a"), ("run", MERGES, "b")], (111, 111, 111, 111)),
        ("initialised-from", [("run", FROM, "a")], (11, 11, 11, 11)),
        ("distils", [("run", DISTILS, "a")], (1, 1, 11, 11)),  # not for the EU; elsewhere silent
        ("synthetic data", [("run", DATA, "a")], (11, 1, 11, 11)),
        (
            "a chain",
            [("run", FINE_TUNES, "a"), ("a", CONTINUES, "b"), ("b", MERGES, "c")],
            (1111, 1111, 1111, 1111),
        ),
        (
            "a shared ancestor, once",
            [
                ("run", MERGES, "a"),
                ("run", MERGES, "b"),
                ("a", FINE_TUNES, "c"),
                ("b", FINE_TUNES, "c"),
                ("c", CONTINUES, "d"),
            ],
            (11111, 11111, 11111, 11111),
        ),
        (
            "shared, once distilled and once continued: counts",
            [("run", CONTINUES, "a"), ("run", DISTILS, "c"), ("a", FINE_TUNES, "c")],
            (1011, 1011, 1011, 1011),
        ),
        (
            "what only a distilled teacher stands on does not count either",
            [("run", CONTINUES, "a"), ("run", DISTILS, "b"), ("b", FINE_TUNES, "c")],
            (11, 11, 1111, 1111),
        ),
        (
            "what trained the model that generated is a teacher's; the generating run is not",
            [("run", DATA, "a"), ("a", FROM, "b"), ("b", CONTINUES, "c")],
            (11, 1, 1111, 1111),
        ),
        (
            "the generating run is another ancestor's ancestor too",
            [("run", DATA, "a"), ("a", FROM, "b"), ("run", MERGES, "b")],
            (111, 101, 111, 111),
        ),
    ],
)
def test_which_ancestors_count(case, links, totals):
    lineage = Lineage(Link(*link) for link in links)
    assert [total_of(lineage, "run", p, WORK) for p in PROFILES] == list(totals), case


def test_silent_counts_and_says_so_and_what_is_left_out_is_named():
    lineage = Lineage([Link("run", FINE_TUNES, "a"), Link("a", MERGES, "b"), Link("b", DISTILS, "t")])
    assert answers(lineage, "run", BROAD) == {"a": "counts", "b": "counts", "t": "excluded"}
    assert answers(lineage, "run", STATE) == {"a": "counts", "b": "silent", "t": "silent"}
    assert answers(lineage, "run", NARROW) == {"a": "silent", "b": "silent", "t": "excluded"}
    (_, b, t) = lineage.ancestors("run", BROAD)
    assert t.path == ("fine-tunes a", "merges b", "distils t")
    assert t.ruling is BROAD.relations[DISTILS]
    assert b.ruling is BROAD.relations[MERGES]


def test_of_two_paths_the_better_one_is_shown():
    lineage = Lineage([Link("run", MERGES, "a"), Link("run", CONTINUES, "b"), Link("b", CONTINUES, "a")])
    assert answers(lineage, "run", STATE) == {"a": "counts", "b": "counts"}
    assert lineage.ancestors("run", STATE)[0].path == ("continues b", "continues a")
    assert lineage.ancestors("run", BROAD)[0].path == ("merges a",)  # both count: the shorter


def test_an_external_models_figure_is_its_training_and_a_teachers_if_it_only_generated():
    def both(externals: set[str], profile: Profile) -> list[tuple[bool, str]]:
        found = Lineage([Link("run", DATA, "gpt")], externals).ancestors("run", profile)
        return [(r.declared, r.ruling.answer.value) for r in found]

    assert both(set(), BROAD) == [(False, "counts")]
    # Of a run that bears the model's name: what it did generated, what is declared trained.
    assert both({"gpt"}, BROAD) == [(False, "counts"), (True, "excluded")]
    assert both({"gpt"}, STATE) == [(False, "silent"), (True, "silent")]


def test_recomputation_of_an_ancestor_is_the_ancestors():
    (base,) = Lineage([Link("run", FINE_TUNES, "base")]).ancestors("run", BROAD)
    above = Ancestor(
        base.name,
        base.ruling,
        base.path,
        (Share(Purpose.PRETRAINING, exactly(10**24), recomputation=Fraction(1, 4)),),
    )
    found = countable(BROAD, [Share(Purpose.FINETUNING, exactly(10**23))], [above])
    assert found.flop == exactly(85 * 10**22)


# ---- from the registry ----------------------------------------------------------------------------------


def registry(*statements) -> Registry:
    return Registry.of(Entry(i, i, 0, "ada", "because", s) for i, s in enumerate(statements, 1))


def test_links_in_force_and_declared_bases_make_the_graph():
    said = registry(
        External("llama", exactly(38 * 10**24), "model card"),
        Declare("run", base_models=("llama",)),
        Link("run", MERGES, "a"),
        Link("run", MERGES, "b"),
        Retract(3),
    )
    lineage = Lineage.of(said)
    assert [(k.relation, k.parent) for k in lineage.parents("run")] == [(MERGES, "b"), (FINE_TUNES, "llama")]
    assert answers(lineage, "run", BROAD) == {"b": "counts", "llama": "counts"}
    assert lineage.originals("run") == ("llama",)
    assert lineage.parents("llama") == ()


def test_what_a_run_modifies_is_found_over_the_stages_that_it_continues():
    lineage = Lineage(
        [
            Link("stage3", CONTINUES, "stage2"),
            Link("stage2", CONTINUES, "stage1"),
            Link("stage1", FINE_TUNES, "base"),
            Link("stage3", DATA, "samples"),
            Link("base", FINE_TUNES, "older"),
            Link("samples", FROM, "teacher"),
            Link("stage2", MERGES, "sibling"),
            Link("sibling", FINE_TUNES, "another"),
        ]
    )
    assert lineage.originals("stage3") == ("base",)
    assert lineage.originals("samples") == ()
    modification = lineage.ancestors("stage3", BROAD, without=lineage.originals("stage3"))
    counted = {r.name for r in modification if r.ruling.counted}
    assert counted == {"stage2", "stage1", "samples", "sibling", "another"}
    assert {r.name for r in modification} - counted == {"teacher"}
    assert lineage.descendants(["older"]) == {"base", "stage1", "stage2", "stage3"}
    assert lineage.descendants(["stage3"]) == frozenset()


# ---- against every path, one by one ----------------------------------------------------------------------

NAMES = "rabcdefg"


@st.composite
def dags(draw) -> list[Link]:
    """Links from earlier names to later ones only: no circle."""
    pairs = [(a, b) for i, a in enumerate(NAMES) for b in NAMES[i + 1 :]]
    chosen = draw(st.lists(st.tuples(st.sampled_from(pairs), st.sampled_from(list(Relation))), max_size=14))
    return [Link(run, relation, parent) for (run, parent), relation in chosen]


def best_by_every_path(links: list[Link], run: str, profile: Profile, externals: frozenset[str]):
    """The plain reading of the rule: walk every path, take each node's strongest; of an external's name, both."""
    best: dict[tuple[str, bool], int] = {}
    teacher = profile.relations[DISTILS].strength

    def walk(at: str, strength: int, behind: bool) -> None:
        for link in links:
            if link.run != at:
                continue
            data = link.relation is DATA
            s = min(strength, profile.relations[link.relation].strength)
            if behind:
                s = min(s, teacher)
            best[link.parent, False] = max(best.get((link.parent, False), 0), s)
            if link.parent in externals:
                training = min(s, teacher) if data else s
                best[link.parent, True] = max(best.get((link.parent, True), 0), training)
            if s:
                walk(link.parent, s, behind or data)

    walk(run, Answer.COUNTS.strength, behind=False)
    return best


EXTERNALS = st.frozensets(st.sampled_from(NAMES[1:]), max_size=2)
FLOP = {name: 1 << i for i, name in enumerate(NAMES)}


@given(links=dags(), profile=st.sampled_from(PROFILES), externals=EXTERNALS)
def test_each_ancestor_has_the_best_of_all_paths_and_the_total_is_the_sum_of_the_set(
    links, profile, externals
):
    lineage = Lineage(links, externals)
    best = best_by_every_path(links, "r", profile, externals)
    found = lineage.ancestors("r", profile)
    assert {(r.name, r.declared): r.ruling.strength for r in found} == best
    assert len(found) == len(best)  # each once
    counted = sum(FLOP[name] for (name, _), strength in best.items() if strength)
    assert total_of(lineage, "r", profile, FLOP) == FLOP["r"] + counted
    for r in found:
        assert r.path[-1].endswith(f" {r.name}")


@given(links=dags(), more=dags(), profile=st.sampled_from(PROFILES), externals=EXTERNALS)
def test_another_link_never_lowers_a_total(links, more, profile, externals):
    before = total_of(Lineage(links, externals), "r", profile, FLOP)
    assert total_of(Lineage([*links, *more], externals), "r", profile, FLOP) >= before


@given(links=dags(), order=st.randoms(), profile=st.sampled_from(PROFILES))
def test_the_order_of_entries_does_not_matter(links, order, profile):
    shuffled = [*links, *links]
    order.shuffle(shuffled)
    assert Lineage(shuffled).ancestors("r", profile) == Lineage(links).ancestors("r", profile)


@given(links=dags())
def test_descendants_are_the_runs_that_have_it_as_an_ancestor(links):
    lineage = Lineage(links)
    stands_on = {n: {k.parent for k in links if k.run == n} for n in NAMES}

    def above(name: str) -> set[str]:
        return {b for a in stands_on[name] for b in {a, *above(a)}}

    for name in NAMES:
        assert lineage.descendants([name]) == {n for n in NAMES if name in above(n)}


# ---- what is refused -------------------------------------------------------------------------------------


def test_a_circle_is_refused_with_its_path():
    stands_on = {"b": {"a"}, "c": {"b", "x"}}
    with pytest.raises(EntryRefused, match="expected no circle, got a on c on b on a") as e:
        check_link(stands_on, "a", "c")
    assert "retract" in e.value.hint
    with pytest.raises(EntryRefused, match="got a on a"):
        check_link({}, "a", "a")
    check_link(stands_on, "x", "a")
    check_link(stands_on, "c", "a")  # a second way there is none


@given(links=dags(), new=st.tuples(st.sampled_from(NAMES), st.sampled_from(NAMES)))
def test_a_link_is_refused_exactly_if_it_closes_a_circle(links, new):
    stands_on: dict[str, set[str]] = {}
    for link in links:
        stands_on.setdefault(link.run, set()).add(link.parent)
    run, parent = new

    def reaches(at: str) -> bool:
        return at == run or any(reaches(n) for n in stands_on.get(at, ()))

    if reaches(parent):
        with pytest.raises(EntryRefused, match="expected no circle"):
            check_link(stands_on, run, parent)
    else:
        check_link(stands_on, run, parent)


def chain(length: int, name: str = "n") -> dict[str, set[str]]:
    return {f"{name}{i}": {f"{name}{i + 1}"} for i in range(length)}


def test_depth_is_limited_over_both_sides_of_the_new_link():
    half = MAX_DEPTH // 2
    ends = {**chain(half, "low"), **chain(MAX_DEPTH - half - 1, "high")}
    check_link(ends, f"low{half}", "high0")
    ends |= {f"high{MAX_DEPTH - half - 1}": {"top"}}
    with pytest.raises(EntryRefused, match=f"at most {MAX_DEPTH} links in a row, got {MAX_DEPTH + 1}"):
        check_link(ends, f"low{half}", "high0")


def test_a_crowd_of_ancestors_is_refused():
    crowd = {"run": {f"p{i}" for i in range(MAX_ANCESTORS - 1)}}
    check_link(crowd, "run", "one more")
    crowd["run"].add("one more")
    with pytest.raises(
        EntryRefused, match=f"at most {MAX_ANCESTORS} ancestors of run, got {MAX_ANCESTORS + 1}"
    ):
        check_link(crowd, "run", "one too many")


def test_a_long_circle_is_shown_shortened():
    with pytest.raises(EntryRefused) as e:
        check_link(chain(60), "n60", "n0")
    assert "more …" in str(e.value)
    assert len(str(e.value)) < 200


def test_a_ladder_of_diamonds_is_walked_once_and_not_path_by_path():
    """2^60 paths: path by path it would not end."""
    links = []
    for i in range(60):
        for side in "lr":
            links += [Link(f"m{i}", MERGES, f"{side}{i}"), Link(f"{side}{i}", MERGES, f"m{i + 1}")]
    lineage = Lineage(links)
    assert len(lineage.ancestors("m0", BROAD)) == 180
    stands_on: dict[str, set[str]] = {}
    for link in links[:160]:
        stands_on.setdefault(link.run, set()).add(link.parent)
    check_link(stands_on, "m40", "elsewhere")
