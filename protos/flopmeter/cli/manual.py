"""Manual pages of click commands, as man(7) macros. Pure: a command in, text out.

What a page says is what `--help` says: the same texts, options and examples.
"""

import inspect
import re
from collections.abc import Iterator

import click

_EXAMPLE = "\b"


def pages(command: click.Command, day: str, name: str = "flopmeter") -> Iterator[tuple[str, str]]:
    """(name of the page, its text) of the command and all below it. `day` is written into each: 2026-11-22."""
    context = click.Context(command, info_name=name, **command.context_settings)
    yield from _pages(command, context, name.split(), day)


def _pages(
    command: click.Command, context: click.Context, path: list[str], day: str
) -> Iterator[tuple[str, str]]:
    children = _children(command, context)
    yield "-".join(path), page(command, context, path, [name for name, _ in children], day)
    for name, child in children:
        below = click.Context(child, info_name=name, parent=context, **child.context_settings)
        yield from _pages(child, below, [*path, name], day)


def _children(command: click.Command, context: click.Context) -> list[tuple[str, click.Command]]:
    if not isinstance(command, click.Group):
        return []
    found = ((name, command.get_command(context, name)) for name in command.list_commands(context))
    return [(name, child) for name, child in found if child is not None and not child.hidden]


def page(
    command: click.Command, context: click.Context, path: list[str], children: list[str], day: str
) -> str:
    """One page."""
    title = "-".join(path)
    summary, rest = _told(command)
    lines = [
        f'.TH "{_text(title.upper())}" "1" "{day}" "flopmeter" "flopmeter"',
        ".SH NAME",
        f"{_text(title)} \\- {_text(summary)}",
        ".SH SYNOPSIS",
        f"\\fB{_text(' '.join(path))}\\fR {_text(' '.join(command.collect_usage_pieces(context)))}".rstrip(),
    ]
    described, examples = (
        [t for t in rest if not t.startswith(_EXAMPLE)],
        [t for t in rest if t.startswith(_EXAMPLE)],
    )
    lines += [".SH DESCRIPTION", _text(summary)]
    for text in described:
        lines += [".PP", _text(" ".join(text.split()))]
    options = [found for p in command.get_params(context) if (found := _option(p, context)) is not None]
    if options:
        lines.append(".SH OPTIONS")
        for names, text in options:
            lines += [".TP", f"\\fB{_text(names)}\\fR", _text(text)]
    for text in examples:
        example = inspect.cleandoc(text.lstrip(_EXAMPLE)).splitlines()
        head = "EXAMPLES" if any(line.lstrip().startswith("flopmeter") for line in example) else "NOTES"
        lines += [f".SH {head}", ".nf", *(_text(line) for line in example), ".fi"]
    lines += [".SH SEE ALSO", _also(path, children)]
    return "\n".join(lines) + "\n"


def _told(command: click.Command) -> tuple[str, list[str]]:
    """(the first sentence, further paragraphs); one that begins with a backspace keeps its lines."""
    help_text = inspect.cleandoc(command.help or "")
    first, *rest = re.split(r"\n\s*\n", help_text)
    return " ".join(first.split()), [text.strip("\n") for text in rest if text.strip()]


def _option(parameter: click.Parameter, context: click.Context) -> tuple[str, str] | None:
    """(names, text); None: it is not shown."""
    record = parameter.get_help_record(context)
    if record is None or not record[1]:
        return None
    return record[0], " ".join(record[1].split())


def _also(path: list[str], children: list[str]) -> str:
    names = ["-".join([*path, child]) for child in children]
    if len(path) > 1:
        names.insert(0, "-".join(path[:-1]))
    return ", ".join(f"\\fB{_text(name)}\\fR(1)" for name in names) or _text("flopmeter")


def _text(text: str) -> str:
    """Text that troff shows as it is: nothing in it is a request, an escape or a typographic quote."""
    text = text.replace("\\", "\\e").replace("-", "\\-").replace("'", "\\(aq").replace("`", "\\(ga")
    text = text.replace("^", "\\(ha").replace("~", "\\(ti")
    return f"\\&{text}" if text.startswith((".", "'")) else text
