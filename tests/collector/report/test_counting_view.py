"""The lines of `runs show` on what counts: what was added, left out, is silent, and what the run modifies."""

from typing import Any

from flopmeter.cli.layout import Paint
from flopmeter.collector.report.counting_view import MAX_LINES, compared, counting_view

PAINT = Paint(colour=False, width=80)


def figure(point: int) -> dict[str, str]:
    return {"lower": str(point // 2), "point": str(point), "upper": str(point * 2)}


def part(activity: str, of: str | None, point: int, entries: tuple[int, ...] = ()) -> dict[str, Any]:
    return {"activity": activity, "of": of, "flop": figure(point), "entries": list(entries)}


def document(**more: Any) -> dict[str, Any]:
    nothing = {"profile": {"id": "eu-broad"}, "excluded": [], "silent": []}
    return {
        "lineage": [],
        "purposes": [],
        "modifications": [],
        "countable": {"eu-gpai": dict(nothing), "eu-systemic-risk": dict(nothing), "korea": dict(nothing)},
    } | more


def test_nothing_is_said_where_executed_is_what_counts():
    assert counting_view(document(), PAINT) == []
    assert "what each regime counts, not what was executed" in compared(document())
    plain = document(countable={"house": {"profile": None}})
    assert counting_view(plain, PAINT) == []
    assert compared(plain).startswith("Compared is the executed total")


def test_parts_that_regimes_have_alike_are_said_once():
    shown = document()
    again = part("recomputation", None, 25 * 10**22, (2,))
    shown["countable"]["eu-gpai"]["excluded"] = [again]
    shown["countable"]["eu-systemic-risk"]["excluded"] = [again]
    shown["countable"]["korea"]["silent"] = [part("untagged", "base", 10**24)]
    assert counting_view(shown, PAINT) == [
        "  left out   recomputation (entry 2): 2.50e23 FLOP, by eu-gpai, eu-systemic-risk",
        "  silent     untagged of base: 1.00e24 FLOP, yet counted by korea",
    ]


def test_what_stands_across_the_edge_of_a_tag_is_said_with_the_tag():
    across = {"purpose": "untagged", "entries": [], "across": [4, 7], "flop": figure(12 * 10**20)}
    shown = document(purposes=[{"purpose": "rl", "entries": [4], "across": [], "flop": figure(1)}, across])
    lines = counting_view(shown, PAINT)
    assert lines[0].startswith("  not split  1.20e21 FLOP stand in windows across the edge of a tag")
    text = " ".join(" ".join(lines).split())
    assert "(entries 4, 7): untagged, as nobody can tell which part was of which hour" in text
    assert all(len(line) <= 80 for line in lines)


def test_ancestors_say_by_whom_they_are_counted_and_whose_word_their_figure_is():
    lineage = [
        {
            "path": ["fine-tunes b", "merges a"],
            "flop": figure(10**24),
            "counted_by": ["r1", "r2", "r3", "r4", "r5", "r6"],
            "external": False,
            "source": None,
        },
        {
            "path": ["distils t"],
            "flop": figure(38 * 10**24),
            "counted_by": [],
            "external": True,
            "source": "model card",
        },
    ]
    text = " ".join(" ".join(counting_view(document(lineage=lineage), PAINT)).split())
    assert "fine-tunes b, merges a: 1.00e24 FLOP, counted by r1, r2, r3, r4 and 2 more" in text
    assert "distils t: 3.80e25 FLOP, declared by model card, counted by no regime" in text


def test_a_modification_is_held_against_its_line():
    made = {
        "original": "base",
        "regime": "eu-modifier",
        "original_flop": figure(10**25),
        "counted": figure(4 * 10**24),
        "share": "1/3",
        "line": {"lower": "5", "point": "10000000000000000000000000/3", "upper": "7"},
        "comparison": ">",
        "verdict": "undetermined",
    }
    text = " ".join(" ".join(counting_view(document(modifications=[made]), PAINT)).split())
    assert text == (
        "modifies base by 4.00e24 FLOP; line > 3.33e24, 1/3 of what that took: undetermined (eu-modifier)"
    )
    unknown = made | {"original_flop": None}
    text = " ".join(" ".join(counting_view(document(modifications=[unknown]), PAINT)).split())
    assert "line > 3.33e24, what that took is not known: undetermined" in text


def test_a_long_list_is_cut_and_says_so_and_no_line_is_wider_than_the_page():
    shown = document()
    shown["countable"]["korea"]["excluded"] = [
        part("evaluation", f"a-run-of-a-rather-long-name-{i}", 10**23, (i,)) for i in range(20)
    ]
    lines = counting_view(shown, PAINT)
    assert lines[-1].strip() == f"and {20 - MAX_LINES} more (flopmeter runs report)"
    assert max(map(len, lines)) <= 80
