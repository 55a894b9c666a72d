"""`flopmeter completion | man`: what a shell and `man` need to know of every command. Imports on use only."""

from pathlib import Path

import click

SHELLS = ("bash", "zsh", "fish")
VARIABLE = "_FLOPMETER_COMPLETE"

#: bash breaks words at colons, which names of runs have (slurm:site/4711): the line is taken as it stands, and of what is
#: offered the part before the last colon is left out again. click's own script for bash does neither.
_BASH = f"""\
_flopmeter_completion() {{
    local IFS=$' \\t\\n' line=${{COMP_LINE:0:COMP_POINT}} current='' prefix='' response type value
    local -a words
    read -r -a words <<< "$line"
    local at=${{#words[@]}}
    if [[ $line != *[[:space:]] ]]; then
        at=$((at - 1))
        current=${{words[at]}}
    fi
    if [[ $current == *:* && $COMP_WORDBREAKS == *:* ]]; then
        prefix=${{current%"${{current##*:}}"}}
    fi
    COMPREPLY=()
    response=$(COMP_WORDS="${{words[*]}}" COMP_CWORD=$at {VARIABLE}=bash_complete "$1" 2>/dev/null)
    while IFS=, read -r type value; do
        case $type in
            dir) compopt -o dirnames ;;
            file) compopt -o default ;;
            plain) COMPREPLY+=("${{value#"$prefix"}}") ;;
        esac
    done <<< "$response"
}}
complete -o nosort -F _flopmeter_completion flopmeter
"""


@click.command()
@click.argument("shell", type=click.Choice(SHELLS))
def completion(shell: str) -> None:
    """Print the script by which SHELL completes commands, options and names of runs.

    \b
      flopmeter completion bash > /etc/bash_completion.d/flopmeter
      flopmeter completion zsh > "${fpath[1]}/_flopmeter"
      flopmeter completion fish > ~/.config/fish/completions/flopmeter.fish
    """  # noqa: D301 - click wants the backspace character itself
    from click.shell_completion import get_completion_class

    from .main import flopmeter

    if shell == "bash":
        click.echo(_BASH, nl=False)
        return
    found = get_completion_class(shell)
    if found is None:
        raise click.ClickException(f"expected a shell that can complete, got {shell}")
    # What goes wrong must not land in the middle of the line that somebody types.
    script = found(flopmeter, {}, "flopmeter", VARIABLE).source()
    click.echo(script.replace(" flopmeter)", " flopmeter 2>/dev/null)"), nl=False)


@click.command()
@click.argument("directory", type=click.Path(file_okay=False, path_type=Path))
def man(directory: Path) -> None:
    """Write a manual page for each command into DIRECTORY/man1.

    \b
      flopmeter man ~/.local/share/man && man flopmeter-runs-list
    """  # noqa: D301 - click wants the backspace character itself
    import os
    import time

    from .main import flopmeter
    from .manual import pages

    # https://reproducible-builds.org/specs/source-date-epoch/
    made = int(os.environ.get("SOURCE_DATE_EPOCH") or time.time())
    day = time.strftime("%Y-%m-%d", time.gmtime(made))
    folder = directory / "man1"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        count = 0
        for name, text in pages(flopmeter, day):
            (folder / f"{name}.1").write_text(text, encoding="utf-8")
            count += 1
    except OSError as e:
        raise click.ClickException(f"{folder}: cannot write: {e.strerror}; name a directory of yours") from e
    click.echo(f"{folder}: {count} pages")
