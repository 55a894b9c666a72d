"""`runs report --html | --markdown`: one page, self-contained, valid, with the figures of the books; hostile names act nowhere."""

import json
import os
import re
import stat
import sys
from html.parser import HTMLParser

import pytest
from builders import WINDOW_NS, Chain, busy, gap
from desk import Desk

from flopmeter.cli.main import main
from flopmeter.collector.law.regimes import shipped
from flopmeter.collector.registry.entries import Declare, External, Link, Purpose, Relation, Tag
from flopmeter.collector.registry.report_html import to_html
from flopmeter.collector.registry.report_markdown import to_markdown
from flopmeter.collector.registry.reporting import whole_report
from flopmeter.collector.registry.say import say
from flopmeter.collector.report.queries import asked, reading
from flopmeter.contract.flop import Figure
from flopmeter.contract.usage import Workload, WorkloadKind

HOUR_NS = 3_600_000_000_000
BEGUN = 1_795_132_800_000_000_000  # 2026-11-20T00:00Z
NOW = BEGUN + 40 * HOUR_NS
#: What a name may hold: all but control characters.
HOSTILE = "</h1><script>alert(1)</script><!--`x` |**b**| [l](https://x.example) ![i](x) " + "n" * 80
VOID = {"meta", "br", "hr", "img", "link", "input"}
#: The elements of HTML5 and of SVG that a page is made of; any other is a name that got through.
KNOWN = {
    *("html", "head", "meta", "title", "style", "body", "header", "main", "section", "footer", "h1", "h2", "p", "dl"),
    *("dt", "dd", "div", "span", "table", "caption", "thead", "tbody", "tr", "th", "td", "ul", "li", "strong"),
    *("figure", "figcaption", "svg", "desc", "defs", "pattern", "path", "rect", "circle", "text"),
}  # fmt: skip


class Page(HTMLParser):
    """Holds a page to HTML's syntax: closed in order, each id once, references that lead somewhere."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.stack: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text: list[str] = []
        assert text.startswith("<!DOCTYPE html>\n")
        self.feed(text)
        self.close()
        assert self.stack == []
        ids = [a["id"] for _, a in self.tags if "id" in a]
        assert len(ids) == len(set(ids))
        for _, attrs in self.tags:
            for name in ("aria-labelledby", "aria-describedby"):
                assert set((attrs.get(name) or "").split()) <= set(ids)

    def handle_starttag(self, tag, attrs):
        assert len(attrs) == len({name for name, _ in attrs}), f"{tag} has an attribute twice"
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.stack.append(tag)

    def handle_startendtag(self, tag, attrs):
        assert "svg" in self.stack, f"<{tag}/> outside of SVG"
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.stack[-1:] == [tag], f"</{tag}> within {self.stack}"
        self.stack.pop()

    def handle_data(self, data):
        if self.stack and self.stack[-1] != "style":
            self.text.append(data)

    def handle_comment(self, data):
        raise AssertionError(f"a comment: {data[:80]}")


def books(path, run):
    """An hour of two GPUs over an hour's edge, a gap in it; tagged, linked, declared."""
    chain = Chain()
    chain.unix_ns = BEGUN + 14 * HOUR_NS - 30 * WINDOW_NS
    work = Workload(WorkloadKind.SLURM, job="4711", step="0", run=run, user="ada", dtype="bf16")
    with Desk(path, shipped()) as desk:
        desk.now = NOW
        agent = desk.agent(chain)
        for minute in range(60):
            second = gap(1, 0) if minute == 7 else busy(1)
            desk.offer(agent, chain.next([busy(0), second], (work,)))
        desk.commit()
    for said in (
        Declare(run, owner=run, hardware=run, budget_flop=10**18),
        Tag(run, Purpose.PRETRAINING, until_hour=BEGUN // HOUR_NS + 14),
        Tag(run, Purpose.RL, from_hour=BEGUN // HOUR_NS + 14),
        External(f"{run}-base", Figure(7, 8, 9), run),
        Link(run, Relation.FINE_TUNES, f"{run}-base"),
    ):
        say(path, lambda _, s=said: s, run, f"because of {run}", lambda: NOW)
    return path


@pytest.fixture(scope="module", params=["llm-7", HOSTILE], ids=["plain", "hostile"])
def made(request, tmp_path_factory):
    """(run, whole report, its hours, `runs show --json`)."""
    path = books(tmp_path_factory.mktemp("page") / "books.sqlite", request.param)
    with reading(path) as reader:
        whole, hourly = whole_report(reader, request.param, asked(NOW, shipped()))
        (document,) = reader.runs(asked(NOW, shipped()), request.param)
    return request.param, whole, hourly, document


def test_the_page_is_html_that_loads_and_runs_nothing(made):
    run, whole, _, _ = made
    text = to_html(whole)
    page = Page(text)
    assert {tag for tag, _ in page.tags} <= KNOWN
    for tag, attrs in page.tags:
        assert not [
            name for name in attrs if name.startswith("on") or name in ("src", "href", "action", "style")
        ]
        assert not any("//" in (value or "") or "javascript:" in (value or "") for value in attrs.values()), (
            tag
        )
    assert "url(http" not in text
    assert "@import" not in text
    policy = [a["content"] for tag, a in page.tags if tag == "meta" and "http-equiv" in a]
    assert policy == ["default-src 'none'; style-src 'unsafe-inline'"]
    heading = "".join(page.text)
    assert f"Run {run}" in heading  # the whole name, shown


def test_every_plot_has_a_title_and_words(made):
    _, whole, _, _ = made
    page = Page(to_html(whole))
    plots = [a for tag, a in page.tags if tag == "svg"]
    assert len(plots) == 3
    assert all(a["role"] == "img" and len((a["aria-labelledby"] or "").split()) == 2 for a in plots)
    purposes = [a for tag, a in page.tags if tag == "rect" and (a.get("class") or "").startswith("part")]
    assert len(purposes) == 4  # two spans, on two scales
    assert "some device time not read" in " ".join(page.text)


def test_every_digit_is_that_of_runs_show(made):
    _, whole, hourly, document = made
    figures = [document["executed"]["flop"], *(c["flop"] for c in document["countable"].values())]
    for text in ("".join(Page(to_html(whole)).text), to_markdown(whole, hourly)):
        digits = re.sub(r"(?<=\d) (?=\d{3})", "", text)
        for figure in figures:
            for bound in ("lower", "point", "upper"):
                assert figure[bound] in digits


def test_the_markdown_is_that_and_nothing_in_it_acts(made):
    run, whole, hourly, _ = made
    text = to_markdown(whole, hourly)
    markdown_it = pytest.importorskip("markdown_it", reason="comes with the development tools (rich)")
    tokens = markdown_it.MarkdownIt("commonmark", {"html": True}).enable("table").parse(text)
    inline = [t for token in tokens for t in token.children or ()]
    kinds = {t.type for t in (*tokens, *inline)}
    assert not kinds & {"html_block", "html_inline", "link_open", "image", "code_inline", "fence", "em_open"}
    headings = [tokens[i + 1].content for i, t in enumerate(tokens) if t.type == "heading_open"]
    assert len([t for t in tokens if t.type == "heading_open" and t.tag == "h1"]) == 1
    assert {"Measured", "Against the lines", "What this report does not prove", "Exact figures"} <= set(
        headings
    )
    for i, token in enumerate(tokens):  # each table is as wide throughout
        if token.type == "tr_open":
            cells = 0
            for t in tokens[i + 1 :]:
                if t.type == "tr_close":
                    break
                cells += t.type in ("th_open", "td_open")
            assert cells >= 3
    shown = "".join(t.content for t in inline if t.type in ("text", "text_special"))
    assert run in shown
    assert any(t.type == "code_block" and "eu-gpai" in t.content for t in tokens)


def test_a_declared_run_without_work_has_a_page_too(tmp_path):
    path = books(tmp_path / "books.sqlite", "llm-7")
    say(path, lambda _: Declare("llm-8", budget_flop=10**24), "ada", "planned", lambda: NOW)
    with reading(path) as reader:
        whole, hourly = whole_report(reader, "llm-8", asked(NOW, shipped()))
    page = Page(to_html(whole))
    assert "Nothing yet: no job of this run has been metered." in page.text
    assert not [a for tag, a in page.tags if tag == "svg"]
    assert "Nothing yet" in to_markdown(whole, hourly)


def flopmeter(monkeypatch, *words):
    monkeypatch.setattr(sys, "argv", ["flopmeter", *words])
    with pytest.raises(SystemExit) as done:
        main()
    return done.value.code


def test_a_file_is_whole_private_and_replaced_only_when_asked(monkeypatch, capsys, tmp_path):
    monkeypatch.setenv("FLOPMETER_STORE", str(books(tmp_path / "books.sqlite", "llm-7")))
    out = tmp_path / "llm-7.html"
    assert flopmeter(monkeypatch, "runs", "report", "llm-7", "-o", str(out)) == 0
    assert stat.S_IMODE(out.stat().st_mode) == 0o600
    Page(out.read_text())
    out.write_text("mine")
    assert flopmeter(monkeypatch, "runs", "report", "llm-7", "-o", str(out)) == 2
    assert "expected a name that is free" in capsys.readouterr().err
    assert out.read_text() == "mine"
    assert flopmeter(monkeypatch, "runs", "report", "llm-7", "-o", str(out), "--overwrite") == 0
    Page(out.read_text())
    assert flopmeter(monkeypatch, "runs", "report", "llm-7", "-o", str(tmp_path / "no" / "x.md")) == 2
    for name, begins in (
        ("r.md", "# Run llm"),
        ("r.json", '{"run": "llm-7"'),
        ("r.txt", "Report on run llm-7"),
    ):
        assert flopmeter(monkeypatch, "runs", "report", "llm-7", "-o", str(tmp_path / name)) == 0
        assert (tmp_path / name).read_text().startswith(begins)
    assert not list(tmp_path.glob(".*.part"))
    target = tmp_path / "target"
    (tmp_path / "link.md").symlink_to(target)
    assert flopmeter(monkeypatch, "runs", "report", "llm-7", "-o", str(tmp_path / "link.md")) == 2
    assert not target.exists()
    os.mkfifo(tmp_path / "pipe.md")
    for name in ("link.md", "pipe.md"):
        assert (
            flopmeter(monkeypatch, "runs", "report", "llm-7", "-o", str(tmp_path / name), "--overwrite") == 2
        )
        assert not stat.S_ISREG((tmp_path / name).lstat().st_mode)


def test_on_standard_output_and_two_shapes_at_once(monkeypatch, capsys, tmp_path):
    monkeypatch.setenv("FLOPMETER_STORE", str(books(tmp_path / "books.sqlite", "llm-7")))
    capsys.readouterr()
    assert flopmeter(monkeypatch, "runs", "report", "llm-7", "--json") == 0
    assert json.loads(capsys.readouterr().out)["executed"]["flop"]["point"] != "0"
    assert flopmeter(monkeypatch, "runs", "report", "llm-7", "--json", "--html") == 2
