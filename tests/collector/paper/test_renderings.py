"""One document, three formats: the same values in each, and nothing that anybody typed acts in any."""

import json
import re
from html.parser import HTMLParser

import pytest
from filing_ledger import RUN, fill, gathered
from hypothesis import given, settings
from hypothesis import strategies as st

from flopmeter.collector.filing.kinds import KINDS, make
from flopmeter.collector.law.regimes import shipped
from flopmeter.collector.paper.blocks import given as known
from flopmeter.collector.paper.blocks import section, table, to_fill, withheld
from flopmeter.collector.paper.html import to_html
from flopmeter.collector.paper.markdown import block, escaped, to_markdown
from flopmeter.collector.paper.visible import visible

HOSTILE = (
    "</title><script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "[click](javascript:alert(1)) ![x](https://evil.example/p.png)",
    "a | b | c",
    "x\n# heading\n\n- item\n1. one\n```\ncode",
    "&lt;b&gt; &amp; <b>",
    "\x1b[2J\u202egnp.exe\u200b\ud800",
    "$\\sqrt{x}$ ~~gone~~ `code` *a* _b_ https://evil.example www.evil.example a@evil.example",
    "r" * 10_000,
)


def document(name="llm-7"):
    return {
        "title": "A draft",
        "banner": "DRAFT. Not filed.",
        "run": name,
        "recipient": "an office",
        "made": "2026-11-22T00:00:00.000Z",
        "sections": [
            section(
                "one",
                "The first",
                text=[f"{name} begins a paragraph", "12. is no list"],
                fields=[
                    known("a", "Compute", "2.3×10^25 FLOP", f"of {name}"),
                    to_fill("b", "Signed by", "a person"),
                    withheld("c", "Energy", "not owed"),
                ],
                tables=[
                    table("t", "Left out", ("what", "why"), [(name, "x|y")]),
                    table("u", "Silent", ("what",), []),
                ],
                points=[f"{name} begins a point", "- no nested one"],
            )
        ],
        "note": "Compute is a trigger for scrutiny, not a measure of risk.",
    }


def test_markdown_as_it_is():
    assert to_markdown(document()) == (
        "# A draft\n\n**DRAFT. Not filed.**\n\n"
        "- **Of:** llm-7\n- **To:** an office\n- **Made:** 2026-11-22T00:00:00.000Z\n\n"
        "## The first\n\nllm-7 begins a paragraph\n\n12\\. is no list\n\n"
        "- **Compute:** 2.3×10^25 FLOP (of llm-7)\n"
        "- **Signed by:** \\[TO BE FILLED IN\\] (a person)\n"
        "- **Energy:** \\[WITHHELD\\] (not owed)\n\n"
        "**Left out**\n\n| what | why |\n| --- | --- |\n| llm-7 | x\\|y |\n\n"
        "**Silent**: none\n\n"
        "- llm-7 begins a point\n- \\- no nested one\n\n"
        "---\n\nCompute is a trigger for scrutiny, not a measure of risk.\n"
    )


class Page(HTMLParser):
    """Tags in order, and all text."""

    def __init__(self, page):
        super().__init__(convert_charrefs=True)
        self.tags, self.attrs, self.text = [], [], []
        self.feed(page)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attrs += attrs

    def handle_endtag(self, tag):
        self.tags.append(f"/{tag}")

    def handle_data(self, data):
        self.text.append(data)


@pytest.mark.parametrize("name", HOSTILE)
def test_html_of_a_hostile_name_has_the_tags_of_a_plain_one_and_shows_the_name(name):
    plain, hostile = Page(to_html(document("plain"))), Page(to_html(document(name)))
    assert hostile.tags == plain.tags
    assert "script" not in hostile.tags
    assert visible(name) in "".join(hostile.text)


names = st.text(st.characters(codec=None), min_size=1, max_size=60) | st.text(
    "<>&\"'`*_[]()#|~!$\\-+=.:/@ \n1a", max_size=40
)


@settings(max_examples=150, deadline=None)
@given(names)
def test_html_of_any_name_has_the_tags_of_a_plain_one(name):
    plain, other = Page(to_html(document("plain"))), Page(to_html(document(name)))
    assert other.tags == plain.tags
    assert [a for a in other.attrs if a[0].startswith("on") or a[0] in {"src", "href"}] == []
    assert visible(name) in "".join(other.text)


@settings(max_examples=300, deadline=None)
@given(names)
def test_markdown_of_any_name_is_one_line_in_which_nothing_acts(name):
    line = escaped(name)
    bare = re.sub(r"\\[!-/:-@\[-`{-~]", "", line)  # without what is escaped
    assert not set(bare) & set("\\`*_{}[]<>#|~!&$@")
    assert "\n" not in line
    assert "\r" not in line
    assert re.sub(r"\\([!-/:-@\[-`{-~])", r"\1", line) == visible(name), "a reader of Markdown shows the name"
    assert not re.search(r"(?i)https?://|ftp://|www\.", bare), "no address becomes a link"
    assert not re.match(r"[-+=]|\d+[.)]", block(name))


@settings(max_examples=150, deadline=None)
@given(names)
def test_markdown_of_any_name_parses_to_the_blocks_of_a_plain_one(name):
    """By a real parser of CommonMark with GitHub's tables and strike-through."""
    markdown_it = pytest.importorskip("markdown_it", reason="comes with the development tools (rich)")
    parser = markdown_it.MarkdownIt("commonmark").enable(["table", "strikethrough"])

    def shape(text):
        return [(t.type, [c.type for c in t.children or ()]) for t in parser.parse(text) if t.type != "text"]

    assert shape(to_markdown(document(f"r{name}"))) == shape(to_markdown(document("rplain")))
    if name.strip():
        assert [t for t, _ in shape(to_markdown(document(name)))] == [
            t for t, _ in shape(to_markdown(document("plain")))
        ]


@settings(deadline=None)
@given(names)
def test_nothing_hidden_is_left(name):
    shown = visible(name)
    assert shown.isprintable() or set(shown) - {c for c in shown if c.isprintable()} <= {
        c for c in shown if c.isspace()
    }
    assert "\x1b" not in shown
    assert "\u202e" not in shown


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    path = fill(tmp_path_factory.mktemp("books") / "books.sqlite")
    m = gathered(path, shipped())
    return {kind.id: make(kind, m) for kind in KINDS.values()}


def values(draft):
    """Every text that a reader of the JSON gets, less names for programs."""
    for part in draft["sections"]:
        yield from part["text"]
        yield from part["points"]
        for f in part["fields"]:
            yield from (text for text in (f["value"], f["note"]) if text)
        for t in part["tables"]:
            for row in t["rows"]:
                yield from row


@pytest.mark.parametrize("kind", list(KINDS))
def test_every_value_is_the_same_in_all_three_formats(made, kind):
    draft = json.loads(json.dumps(made[kind]))
    unescaped = re.sub(r"\\([!-/:-@\[-`{-~])", r"\1", to_markdown(draft))
    page = "".join(Page(to_html(draft)).text)
    said = list(values(draft))
    assert len(said) > 40
    for text in said:
        assert text in unescaped
        assert text in page


@pytest.mark.parametrize("kind", list(KINDS))
def test_every_number_of_a_page_is_in_the_json(made, kind):
    """No rendering makes a number of its own."""
    known_numbers = set(re.findall(r"\d+", json.dumps(made[kind])))
    markdown = re.sub(r"\\", "", to_markdown(made[kind]))
    page = Page(re.sub(r"<style>.*?</style>", "", to_html(made[kind]), flags=re.DOTALL))
    for text in (markdown, " ".join(page.text)):
        assert set(re.findall(r"\d+", text)) <= known_numbers


@pytest.mark.parametrize("kind", list(KINDS))
def test_html_stands_alone_and_can_be_read_by_anybody(made, kind):
    text = to_html(made[kind])
    page = Page(text)
    assert text.startswith("<!DOCTYPE html>")
    assert ("lang", "en") in page.attrs
    assert ("charset", "utf-8") in page.attrs
    assert not {"script", "link", "img", "iframe", "object", "form"} & set(page.tags)
    assert not re.search(r"url\(|@import|https?://", text)
    assert "@media print" in text
    assert page.tags.count("h1") == 1
    assert page.tags.count("h2") == len(made[kind]["sections"])
    headings = [t for t in page.tags if re.match(r"h\d$", t)]
    assert set(headings) == {"h1", "h2"}
    ids = [value for name, value in page.attrs if name == "id"]
    assert len(ids) == len(set(ids))
    assert page.tags.count("th") >= page.tags.count("table"), "columns have heads"
    assert ("scope", "col") in page.attrs
    assert RUN in "".join(page.text)
    # Every tag that is opened is closed, in order, but for those that have no end.
    stack = []
    for tag in page.tags:
        if tag.startswith("/"):
            assert stack.pop() == tag[1:]
        elif tag != "meta":
            stack.append(tag)
    assert stack == []
