"""`flopmeter runs summary`: a job in one line, for the scheduler's accounting."""

import re
import time
from pathlib import Path

import click

from flopmeter.cli.output import emit_json, json_option
from flopmeter.collector.cli_parts import expect_option, store_option

_UNITS_NS = {"m": 60 * 10**9, "h": 3_600 * 10**9, "d": 86_400 * 10**9}


@click.command("summary")
@click.argument("job", required=False)
@click.option("--cluster", help="Only of this cluster, as its agents name it.")
@click.option(
    "--recent",
    metavar="DURATION",
    help="Instead of JOB, all of Slurm's that were seen within it: 30m, 12h, 2d. A line each: id, state, line.",
)
@expect_option
@store_option
@json_option
def summary(  # noqa: PLR0917 - click passes them by name
    job: str | None,
    cluster: str | None,
    recent: str | None,
    expect: Path | None,
    store: Path,
    as_json: bool,
) -> None:
    """JOB in one line: what it computed and how well that is known.

    Short, printable ASCII: made for Slurm's AdminComment (docs/slurm.md). JOB is the
    scheduler's id (4711), a task of an array (4700_3), a component of a het job
    (4700+1), or whole: slurm:c1/4711.

    \b
    With --recent the state of each job stands before its line:
      complete  nobody reports it any more, and all agents have told of later time
      open      it runs, or an agent has not told of the time behind it
      late      an agent that held it when it was last heard is silent

    \b
      flopmeter runs summary 4711
    """  # noqa: D301 - click wants the backspace character itself
    from flopmeter.collector.cli_parts import expected_of

    from . import queries
    from .job_books import JobBooks
    from .job_summary import plain_name

    if (job is None) == (recent is None):
        raise click.UsageError("expected a JOB, or --recent DURATION for all of them; got both or neither")
    nodes, now = expected_of(expect), time.time_ns()
    since_ns = None if recent is None else now - _duration_ns(recent)
    with queries.reading(store) as reader:
        books = JobBooks(reader, queries.asked(now, (), nodes))
        if since_ns is None:
            document = books.summary(books.find(job or "", cluster))
        else:
            keys = books.recent(since_ns, cluster)
            clusters = sorted({key.scope for key in keys})
            if len(clusters) > 1 and not as_json:
                raise click.UsageError(
                    f"jobs of {len(clusters)} clusters bear numbers of their own: {', '.join(clusters[:8])[:200]}; "
                    "expected --cluster, or --json"
                )
            documents = [books.summary(key) for key in keys]
    if since_ns is None:
        emit_json(document) if as_json else click.echo(document["line"])
    elif as_json:
        emit_json({"jobs": documents})
    else:
        for d in documents:
            click.echo(f"{plain_name(d['job'])}\t{d['state']}\t{d['line']}")


def _duration_ns(text: str) -> int:
    match = re.fullmatch(r"([0-9]{1,5})([mhd])", text)
    if match is None or not int(match[1]):
        raise click.UsageError(f"--recent: expected a duration such as 30m, 12h or 2d, got {text[:80]!r}")
    return int(match[1]) * _UNITS_NS[match[2]]
