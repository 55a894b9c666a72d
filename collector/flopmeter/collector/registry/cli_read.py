"""`flopmeter runs entries | report | suggestions`, and `--as-of TIME` of whatever shows runs: what was said, and what follows."""

import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from flopmeter.cli.output import emit_json, json_option, json_text
from flopmeter.collector.cli_parts import (
    as_of_option,
    books,
    every_regime,
    paint,
    regimes_as_of,
    regimes_option,
    run_names,
    store_option,
)

if TYPE_CHECKING:
    from .report_blocks import Whole


@click.command("entries")
@click.argument("run", required=False, shell_complete=run_names)
@store_option
@json_option
def entries(run: str | None, store: Path, as_json: bool) -> None:
    """All that was ever said of runs, oldest first; with RUN, what was said of that one.

    \b
      flopmeter runs entries llm-7
    """  # noqa: D301 - click wants the backspace character itself
    from flopmeter.collector.report.queries import reading

    from .say import read_registry
    from .words import entries_view, entry_document

    with reading(store) as reader:
        registry = read_registry(reader)
    found = registry.entries if run is None else registry.about(run)
    if as_json:
        emit_json({"entries": [entry_document(e, registry) for e in found]})
    elif run is not None and not found:
        click.echo(f"no entries: nobody has said anything of run {run}")
    else:
        click.echo(entries_view(found, registry, paint()))


@click.command("report")
@click.argument("run", shell_complete=run_names)
@click.option("--html", "shape", flag_value="html", help="One page with plots, to print or to send.")
@click.option("--markdown", "shape", flag_value="md", help="One page of Markdown.")
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path),
    help="Write it there, readable by you alone; .html and .md say which it is.",
)
@click.option("--overwrite", is_flag=True, help="Replace the file if it is there.")
@as_of_option
@store_option
@regimes_option
@json_option
def report(  # noqa: PLR0917 - click passes them by name
    run: str,
    shape: str | None,
    output: Path | None,
    overwrite: bool,
    as_of: str | None,
    store: Path,
    regimes_dir: Path | None,
    as_json: bool,
) -> None:
    """What stands behind RUN's totals: plan, jobs, purposes, lineage, what was left out and on whose word.

    For a person who asks, on one page; --json for a program. It names its open questions.

    \b
      flopmeter runs report llm-7
      flopmeter runs report llm-7 -o llm-7.html
    """  # noqa: D301 - click wants the backspace character itself
    from flopmeter.collector.report.queries import asked

    from .reporting import run_report, whole_report

    if as_json and shape is not None:
        raise click.UsageError("expected one of --json, --html, --markdown, got two")
    chosen = "json" if as_json else shape or _shape_of(output)
    with books(store, as_of) as (reader, unix_ns):
        question = asked(unix_ns, regimes_as_of(store, as_of, unix_ns, regimes_dir))
        if chosen in ("html", "md"):
            text = _page(*whole_report(reader, run, question), chosen)
        else:
            text = _text(run_report(reader, run, question), chosen, to_file=output is not None)
    if output is not None:
        from flopmeter.collector.paper.write import write_whole

        write_whole(output, text, overwrite=overwrite, taken="name another, or replace it with --overwrite")
        click.echo(f"{output}: report on run {run}", err=True)
    elif chosen in ("html", "md"):
        import sys

        from flopmeter.cli.terminal import document_bytes

        document_bytes(text, sys.stdout)
    else:
        click.echo(text, nl=False)


def _shape_of(output: Path | None) -> str:
    suffix = "" if output is None else output.suffix.lower()
    return {".html": "html", ".htm": "html", ".md": "md", ".markdown": "md", ".json": "json"}.get(
        suffix, "text"
    )


def _page(whole: "Whole", hourly: list[dict[str, Any]], shape: str) -> str:
    if shape == "html":
        from .report_html import to_html

        return to_html(whole)
    from .report_markdown import to_markdown

    return to_markdown(whole, hourly)


def _text(document: dict[str, Any], shape: str, *, to_file: bool) -> str:
    if shape == "json":
        return json_text(document) + "\n"
    from flopmeter.cli.layout import DEFAULT_COLUMNS, Paint

    from .report_view import report_view

    return report_view(document, Paint(colour=False, width=DEFAULT_COLUMNS) if to_file else paint()) + "\n"


@click.command("suggestions")
@click.option("--all", "every", is_flag=True, help="Those that somebody has answered, too.")
@store_option
@regimes_option
@json_option
def suggestions(every: bool, store: Path, regimes_dir: Path | None, as_json: bool) -> None:
    """Runs that may be one, and stops just under a line: questions for a person, with their reasons.

    A suggestion adds nothing to any total. `flopmeter runs accept` or `reject` records the answer.
    """
    from flopmeter.collector.report.queries import asked, reading

    from .say import read_registry
    from .suggesting import current_suggestions, suggestion_document
    from .words import suggestions_view

    with reading(store) as reader:
        registry = read_registry(reader)
        found = current_suggestions(reader, registry, asked(time.time_ns(), every_regime(regimes_dir)))
    documents = [suggestion_document(s, registry) for s in found]
    if not every:
        documents = [d for d in documents if d["answer"] is None]
    if as_json:
        emit_json({"suggestions": documents})
    else:
        click.echo(suggestions_view(documents, paint()))


COMMANDS = {command.name: command for command in (entries, report, suggestions) if command.name}
