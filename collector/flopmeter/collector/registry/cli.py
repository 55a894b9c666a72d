"""`flopmeter runs declare | assign | tag | link | external | retract | accept | reject`: people's word on runs."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from flopmeter.cli.output import band_texts, emit_json, json_option
from flopmeter.collector.cli_parts import every_regime, login, paint, regimes_option, run_names, store_option
from flopmeter.collector.store_path import store_file

if TYPE_CHECKING:
    from .entries import Entry, Statement
    from .say import Make

if TYPE_CHECKING:
    _ParamType = click.ParamType[Any]
else:
    _ParamType = click.ParamType  # generic only to type checkers, and to click 8.4

_F = TypeVar("_F", bound=Callable[..., Any])

#: What every entry is made with.
_COMMON = (
    click.option("--who", help="Who says it.  [default: your login name and this host]"),
    click.option(
        "--dry-run", is_flag=True, help="Show what would be said and which totals would change; say nothing."
    ),
    store_option,
    regimes_option,
    json_option,
)


class _Word(_ParamType):
    """One of an enumeration that is imported only when it is looked at."""

    def __init__(self, name: str) -> None:
        self.name = name.lower()
        self._enum = name

    def words(self) -> list[str]:
        from . import entries

        return [str(word) for word in getattr(entries, self._enum)]

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        from . import entries

        if value not in self.words():
            self.fail(f"expected one of {', '.join(self.words())}, got {str(value)[:80]!r}", param, ctx)
        return getattr(entries, self._enum)(value)


PURPOSE, RELATION = _Word("Purpose"), _Word("Relation")


def _entry_command(name: str) -> Callable[[_F], click.Command]:
    """A command that makes an entry: with what every one of them takes."""

    def made(function: _F) -> click.Command:
        command = click.command(name)(function)
        for option in _COMMON:
            option(command)
        return command

    return made


def _why(default: str | None = None) -> Callable[[_F], _F]:
    """Asked for where it decides about counting; else there is a `default`."""
    kind: dict[str, Any] = (
        {"required": True} if default is None else {"default": default, "show_default": True}
    )
    return click.option("--why", help="Why, in a sentence that an auditor can follow.", **kind)


@_entry_command("declare")
@click.argument("run", shell_complete=run_names)
@click.option("--owner", help="Who answers for the run: a team, a person, a project.")
@click.option("--budget", metavar="FLOP", help="What it is planned to take: 3.8e25.")
@click.option("--hardware", help="What it is planned to run on: '2048 x H100'.")
@click.option("--end", metavar="TIME", help="When it is expected to end: 2027-03-01 (UTC).")
@click.option("--dtype", help="What most of its matrix multiplications run in: bf16, fp8, …")
@click.option("--purpose", type=PURPOSE, help="What all of it is for, where no tag says otherwise.")
@click.option(
    "--base", "base_models", multiple=True, metavar="NAME", help="A run or model it starts from; repeatable."
)
@click.option(
    "--calibration",
    nargs=4,
    metavar="FLOP CYCLES PERCENT MODEL",
    help="Counted by ncu or CUPTI over some steps: FLOP in so many tensor SM-cycles, within PERCENT, on GPUs of MODEL.",
)
@_why("a plan, as declared")
def declare(
    run: str,
    *,
    owner: str | None,
    budget: str | None,
    hardware: str | None,
    end: str | None,
    dtype: str | None,
    purpose: Any,
    base_models: tuple[str, ...],
    calibration: tuple[str, str, str, str] | None,
    **common: Any,
) -> None:
    """State what RUN is to be: owner, budget, hardware, end, dtype, purpose, base models.

    RUN need not have begun. Said again, only what is given replaces what was said before; all of it is kept.

    \b
      flopmeter runs declare llm-7 --owner nlp --budget 3.8e25 --end 2027-03-01
      flopmeter runs declare llm-7 --budget 4.1e25 --why "two more epochs"
    """  # noqa: D301 - click wants the backspace character itself
    from flopmeter.collector.estimate.numbers import whole

    from .calibrating import calibrated
    from .entries import Declare
    from .when import end_of

    statement = Declare(
        run,
        owner,
        None if budget is None else whole("--budget", budget, hint="write FLOP as 3.8e25"),
        hardware,
        None if end is None else end_of("--end", end),
        dtype,
        purpose,
        base_models,
        None if calibration is None else calibrated(*calibration),
    )
    _say(lambda _: statement, **common)


@_entry_command("assign")
@click.argument("run", required=False, shell_complete=run_names)
@click.option("--job", required=True, help="The job's id, or KIND:SCOPE/ID where two have the same.")
@click.option("--step", help="Only this step of it.")
@click.option("--back", is_flag=True, help="Give the job back to what the rules chose, instead of RUN.")
@_why()
def assign(run: str | None, job: str, step: str | None, back: bool, **common: Any) -> None:
    """Say that a job belongs to RUN, whatever label or rule chose.

    All that the job did and will do follows at once; executed totals of both runs change.

    \b
      flopmeter runs assign llm-7 --job 4711 --why "started without its label"
      flopmeter runs assign --back --job 4711 --why "it was the other one"
    """  # noqa: D301 - click wants the backspace character itself
    from .entries import Assign
    from .known import find_job

    if back == (run is not None):
        raise click.UsageError(
            "expected a RUN, or --back to give the job back to the rules; got both or neither"
        )
    _say(lambda books: Assign(find_job(job, books), run or "", step), **common)


@_entry_command("tag")
@click.argument("run", shell_complete=run_names)
@click.option("--purpose", type=PURPOSE, required=True, help="What it was for (list below).")
@click.option(
    "--from", "since", metavar="TIME", help="Its first hour: 2026-11-20, 2026-11-20T14:00Z.  [default: open]"
)
@click.option("--until", metavar="TIME", help="The hour it ended before.  [default: open]")
@click.option("--job", help="Only this job of the run: exact, where hours are not.")
@click.option(
    "--fraction", metavar="N/M", help="With recomputation: which part of the work it was, e.g. 1/4."
)
@click.option(
    "--evidence", multiple=True, metavar="REF", help="A URL, a file (its SHA-256 is recorded) or sha256:…"
)
@_why()
def tag(
    run: str,
    *,
    purpose: Any,
    since: str | None,
    until: str | None,
    job: str | None,
    fraction: str | None,
    evidence: tuple[str, ...],
    **common: Any,
) -> None:
    """Say what RUN, a span of it, or one of its jobs was for.

    Executed totals never change; what each regime counts may. Time that nobody tagged counts. A purpose that some
    regime does not count takes compute out of a total, and needs --evidence. Times are UTC unless they say
    otherwise, and are moved inward to whole hours: the grain of the books. Usage stands in the hour in which its
    window ended. What bridges several hours, as after an outage, cannot be cut: it counts unless all of its hours
    are tagged alike. A tag of the job is exact.

    \b
    Purposes: pretraining finetuning rl rl-rollouts synthetic-data
      synthetic-data-public teacher auxiliary experiment evaluation
      rolled-back preprocessing inference recomputation

    \b
      flopmeter runs tag llm-7 --purpose evaluation --job 4720 \\
        --evidence https://wiki.lab/evals/7 --why "held-out, no updates"
      flopmeter runs tag llm-7 --purpose rl --from 2026-11-20 --until 2026-11-22 \\
        --why "RL stage"
      flopmeter runs tag llm-7 --purpose recomputation --fraction 1/4 \\
        --evidence config.yaml --why "full activation checkpointing"
    """  # noqa: D301 - click wants the backspace character itself
    from .entries import Tag
    from .evidence import reference
    from .known import find_job
    from .when import whole_hours

    span = whole_hours(since, until)
    references = tuple(reference(text) for text in evidence)
    part = None if fraction is None else _fraction(fraction)

    def make(books: Any) -> "Statement":
        named = None if job is None else find_job(job, books)
        return Tag(run, purpose, span.from_hour, span.until_hour, named, references, part)

    _say(make, notes=span.notes, **common)


@_entry_command("link")
@click.argument("run", shell_complete=run_names)
@click.argument("relation", type=RELATION)
@click.argument("parent")
@_why()
def link(run: str, relation: Any, parent: str, **common: Any) -> None:
    """Say that RUN stands on PARENT: a run of the books, or an external model.

    RELATION is continues, fine-tunes, merges, initialised-from, distils or synthetic-data-from. What a regime adds of an
    ancestor follows from it; no ancestor is ever added twice, and a circle is refused.

    \b
      flopmeter runs link llm-7-chat fine-tunes llm-7 --why "from step 90000"
      flopmeter runs external llama-3.1-8b --flop 7.22e23 --source "model card"
      flopmeter runs link ours fine-tunes llama-3.1-8b --why "public weights"
    """  # noqa: D301 - click wants the backspace character itself
    from .entries import Link

    _say(lambda _: Link(run, relation, parent), **common)


@_entry_command("external")
@click.argument("name")
@click.option("--flop", required=True, help="What its training took, as its source says: 7.22e23.")
@click.option("--lower", metavar="FLOP", help="At least.  [default: the figure itself]")
@click.option("--upper", metavar="FLOP", help="At most.  [default: the figure itself]")
@click.option("--source", required=True, help="Where that is said: a model card, a paper, a letter.")
@_why("stands at the base of a run here")
def external(
    name: str, *, flop: str, lower: str | None, upper: str | None, source: str, **common: Any
) -> None:
    """State a model that was not trained here, with its training compute as its source has it.

    Said again it replaces what was said before; all of it is kept.

    \b
      flopmeter runs external llama-3.1-405b --flop 3.8e25 \\
        --source "The Llama 3 Herd of Models, section 3.2"
    """  # noqa: D301 - click wants the backspace character itself
    from flopmeter.collector.estimate.numbers import whole
    from flopmeter.contract.flop import Figure

    from .entries import External

    point = whole("--flop", flop)
    figure = Figure(
        point if lower is None else whole("--lower", lower),
        point,
        point if upper is None else whole("--upper", upper),
    )
    _say(lambda _: External(name, figure, source), **common)


@_entry_command("retract")
@click.argument("number", type=click.IntRange(1))
@_why()
def retract(number: int, **common: Any) -> None:
    """Take entry NUMBER back, from now on.

    It stays in the history, and a question as of an earlier time is answered as it was then.

    \b
      flopmeter runs entries
      flopmeter runs retract 12 --why "wrong job"
    """  # noqa: D301 - click wants the backspace character itself
    from .entries import Retract

    _say(lambda _: Retract(number), **common)


@_entry_command("accept")
@click.argument("suggestion", metavar="ID")
@_why()
def accept(suggestion: str, **common: Any) -> None:
    """Answer a suggestion with yes. It counts nothing by itself: `flopmeter runs link` does.

    \b
      flopmeter runs accept 5f1c2a --why "one run, restarted by hand"
    """  # noqa: D301 - click wants the backspace character itself
    _decide(suggestion, accepted=True, **common)


@_entry_command("reject")
@click.argument("suggestion", metavar="ID")
@_why()
def reject(suggestion: str, **common: Any) -> None:
    """Answer a suggestion with no. It stays on record, with the reason, and is not asked again.

    \b
      flopmeter runs reject 5f1c2a --why "two experiments"
    """  # noqa: D301 - click wants the backspace character itself
    _decide(suggestion, accepted=False, **common)


def _decide(suggestion: str, *, accepted: bool, **common: Any) -> None:
    from flopmeter.collector.errors import EntryRefused
    from flopmeter.collector.report.queries import asked, reading

    from .entries import Decision
    from .say import read_registry
    from .suggesting import current_suggestions

    with reading(common["store"]) as reader:
        registry = read_registry(reader)
        found = current_suggestions(
            reader, registry, asked(time.time_ns(), every_regime(common["regimes_dir"]))
        )
    ids = [s.id for s in found if s.id.startswith(suggestion)] if suggestion else []
    if len(ids) != 1 and suggestion not in registry.decisions:
        raise EntryRefused(
            f"suggestion {suggestion[:80]!r}: expected the id of one, found {len(ids)}",
            "`flopmeter runs suggestions --all` lists them",
        )
    _say(lambda _: Decision(ids[0] if len(ids) == 1 else suggestion, accepted), **common)


def _say(
    make: "Make",
    *,
    who: str | None,
    why: str,
    dry_run: bool,
    store: Path,
    regimes_dir: Path | None,
    as_json: bool,
    notes: tuple[str, ...] = (),
) -> None:
    """Make the entry, or show what it would change; print which."""
    from flopmeter.collector.report.queries import asked, reading

    from .effect import effect
    from .say import Said, draft, read_known, read_registry, say
    from .state import Registry
    from .words import entry_document

    who = login() if who is None else who
    file = store_file(store)
    changes: list[dict[str, Any]] | None = None
    if dry_run:
        with reading(file) as reader:
            registry = read_registry(reader)
            books = read_known(reader, registry)
        entry = draft(registry, books, Said(make(books), who, why), time.time_ns())
        changes = effect(file, entry, asked(time.time_ns(), every_regime(regimes_dir)))
    else:
        entry, registry = say(file, make, who, why, time.time_ns), Registry()  # nothing has taken it back
    for note in notes:
        click.echo(f"Note: {note}", err=True)
    if as_json:
        document = {"dry_run": dry_run, "entry": entry_document(entry, registry), "notes": list(notes)}
        emit_json(document if changes is None else {**document, "changes": changes})
    else:
        click.echo(_said(entry, registry, changes))


def _said(entry: "Entry", registry: Any, changes: list[dict[str, Any]] | None) -> str:
    from .words import entry_lines, paragraph

    page = paint()
    if changes is None:
        lines = [f"entry {entry.number} is in the books:"]
    else:
        lines = [f"dry run, nothing was said; it would be entry {entry.number}:"]
    lines += entry_lines(entry, registry, page)
    if changes is None:
        lines.append("Totals follow at once; a collector that runs raises what that causes.")
    elif not changes:
        lines.append("No total would change.")
    else:
        lines.append("Totals that would change (FLOP: lower, point, upper):")
        for run, totals, change in _alike(changes):
            lines += paragraph(f"{run}: {', '.join(totals)}", page.width, 2, 4)
            lines += [f"    {name:6} {_figure(change[name])}" for name in ("before", "after")]
        if not any(c["total"] == "executed" for c in changes):
            lines.append("No executed total would change.")
    return "\n".join(lines)


def _alike(changes: list[dict[str, Any]]) -> list[tuple[str, list[str], dict[str, Any]]]:
    """(run, totals, change): totals of a run that change alike stand together."""
    found: dict[str, tuple[str, list[str], dict[str, Any]]] = {}
    for c in changes:
        alike = found.setdefault(f"{c['run']} {c['before']} {c['after']}", (c["run"], [], c))
        alike[1].append(c["total"])
    return list(found.values())


def _figure(figure: dict[str, str] | None) -> str:
    if figure is None:
        return "no such run"
    return "  ".join(band_texts(figure))


def _fraction(text: str) -> Any:
    from fractions import Fraction

    from flopmeter.collector.errors import RegistryError

    try:
        if len(text) > 80:
            raise ValueError("too long")
        return Fraction(text.strip())
    except (ValueError, ZeroDivisionError) as e:
        raise RegistryError(
            f"--fraction: expected a fraction, got {text[:40]!r}", "25 % of the work is --fraction 1/4"
        ) from e


COMMANDS = {
    command.name: command
    for command in (declare, assign, tag, link, external, retract, accept, reject)
    if command.name
}
