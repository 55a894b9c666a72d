"""`flopmeter drafts list | make`: thin over material, kinds and renderings."""

import time
from pathlib import Path
from typing import TYPE_CHECKING

import click

from flopmeter.cli.output import emit_json, json_option
from flopmeter.collector.cli_parts import (
    every_regime,
    expect_option,
    paint,
    regimes_option,
    run_names,
    store_option,
)

if TYPE_CHECKING:
    from flopmeter.collector.paper.blocks import Document

KIND_IDS = ("eu-notification", "eu-documentation", "korea-submission", "coverage-notice")
RECIPIENT_IDS = ("ai-office", "national-authority", "downstream")
FORMATS = ("md", "html", "json")


@click.group()
def drafts() -> None:
    """Drafts of filings from the books; nothing is ever sent.

    \b
      flopmeter drafts list
      flopmeter drafts make eu-notification llm-7 --format html --out notice.html
    """  # noqa: D301 - click wants the backspace character itself


@drafts.command("list")
@store_option
@regimes_option
@json_option
def drafts_list(store: Path, regimes_dir: Path | None, as_json: bool) -> None:
    """Every kind of draft, and for which runs an event calls for it."""
    from flopmeter.collector.report.queries import reading

    from .called_for import listing, listing_view

    with reading(store) as reader:
        document = listing(reader.events(), every_regime(regimes_dir))
    if as_json:
        emit_json(document)
    else:
        click.echo(listing_view(document, paint()))


@drafts.command("make")
@click.argument("kind", type=click.Choice(KIND_IDS))
@click.argument("run", shell_complete=run_names)
@click.option(
    "--format",
    "shape",
    type=click.Choice(FORMATS),
    default="md",
    show_default=True,
    help="How it is written.",
)
@click.option(
    "--out", type=click.Path(path_type=Path), help="Write it there, readable by you alone; never over a file."
)
@click.option("--regime", "regime_id", metavar="ID", help="Under this regime instead of the kind's own.")
@click.option(
    "--for",
    "recipient",
    type=click.Choice(RECIPIENT_IDS),
    default=RECIPIENT_IDS[0],
    show_default=True,
    help="Of eu-documentation: to whom it goes; what they are not owed is withheld.",
)
@expect_option
@store_option
@regimes_option
@json_option
def drafts_make(  # noqa: PLR0917 - click passes them by name
    kind: str,
    run: str,
    shape: str,
    out: Path | None,
    regime_id: str | None,
    recipient: str,
    expect: Path | None,
    store: Path,
    regimes_dir: Path | None,
    as_json: bool,
) -> None:
    """A draft of KIND about RUN. A person checks it, fills in what is marked, and files it.

    \b
      flopmeter drafts make eu-notification llm-7 --format html --out notice.html
      flopmeter drafts make eu-documentation llm-7 --for downstream
    """  # noqa: D301 - click wants the backspace character itself
    from flopmeter.collector.cli_parts import expected_of
    from flopmeter.collector.paper.write import write_whole
    from flopmeter.collector.report.queries import asked, reading

    from .eu_documentation import Recipient
    from .gather import material
    from .kinds import KINDS, make

    if recipient != RECIPIENT_IDS[0] and kind != "eu-documentation":
        raise click.BadParameter(
            "expected eu-documentation, which alone is made per recipient", param_hint="--for"
        )
    regimes = every_regime(regimes_dir)
    with reading(store) as reader:
        found = material(reader, run, asked(time.time_ns(), regimes, expected_of(expect)), regimes)
    document = make(KINDS[kind], found, regime_id=regime_id, recipient=Recipient(recipient))
    text = rendered(document, "json" if as_json else shape)
    if out is None:
        click.echo(text, nl=False)
    else:
        write_whole(out, text)
        click.echo(
            f"{out}: {kind} of run {run}; {len(document['to_fill'])} fields are for a person to fill in",
            err=True,
        )


def rendered(document: "Document", shape: str) -> str:
    """The document in one of FORMATS."""
    if shape == "json":
        import json

        return json.dumps(document, ensure_ascii=False, indent=1) + "\n"
    if shape == "html":
        from flopmeter.collector.paper.html import to_html

        return to_html(document)
    from flopmeter.collector.paper.markdown import to_markdown

    return to_markdown(document)
