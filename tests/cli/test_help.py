"""Every `--help` teaches: what a command is for, and a line to type, which the command itself takes."""

import shlex

import click
import pytest

from flopmeter.cli.main import flopmeter


def walk(command: click.Command, path: tuple[str, ...] = ()):
    yield path, command
    if isinstance(command, click.Group):
        context = click.Context(command)
        for name in command.list_commands(context):
            found = command.get_command(context, name)
            assert found is not None
            yield from walk(found, (*path, name))


EVERY = dict(walk(flopmeter))


def examples(command: click.Command) -> list[str]:
    """Lines of the help that begin as one would type them; `…` stands for what only the reader knows."""
    whole = (command.help or "").replace("\\\n", " ")  # a line that goes on
    found = (line.strip() for line in whole.splitlines())
    return [line for line in found if line.startswith("flopmeter ") and "…" not in line]


def taken(line: str) -> tuple[str, ...]:
    """Parses `line` as the program would, without running it: the command it names. Fails on what it would refuse."""
    words = []
    for word in shlex.split(line)[1:]:
        if word.startswith((">", "|", "&", "#", "<")):
            break
        words.append(word)
    command, path = flopmeter, []
    while isinstance(command, click.Group) and words and not words[0].startswith("-"):
        found = command.get_command(click.Context(command), words[0])
        if found is None:
            break
        path.append(words.pop(0))
        command = found
    with click.Context(command, info_name=line) as context:
        if isinstance(command, click.Group) and not words:
            return tuple(path)  # a group that does something by itself
        command.parse_args(context, words)
    return tuple(path)


@pytest.mark.parametrize("path", EVERY, ids=" ".join)
def test_a_command_says_what_it_is_for_and_shows_how(path):
    command = EVERY[path]
    assert command.help
    assert len(command.help.split("\n\n")[0].split()) >= 3
    asks = isinstance(command, click.Group) or any(
        p.required or p.param_type_name == "argument" for p in command.params
    )
    lines = examples(command)
    if asks and path:
        assert lines, f"flopmeter {' '.join(path)} asks for something and shows no example"
    for line in lines:
        taken(line)
    if asks and path and not isinstance(command, click.Group):
        assert any(taken(line) == path for line in lines), f"no example of {' '.join(path)} itself"


def test_the_check_can_fail():
    for line in ("flopmeter runs show", "flopmeter runs show a --no-such", "flopmeter fleet inventory extra"):
        with pytest.raises(click.UsageError):
            taken(line)


@pytest.mark.parametrize("path", EVERY, ids=" ".join)
def test_help_fits_a_page(path):
    command = EVERY[path]
    context = click.Context(
        command, info_name="flopmeter " + " ".join(path), max_content_width=80, terminal_width=80
    )
    wide = [line for line in command.get_help(context).splitlines() if len(line) > 80]
    assert not wide
