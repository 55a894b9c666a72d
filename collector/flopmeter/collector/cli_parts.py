"""What the collector's commands share: their options, the books that they open, how names are completed, and what a page is made with.

Options are made when a command is defined; all else is imported where it is used, so that `--help` stays quick.
"""

import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import click

from .store_path import DEFAULT_STORE

if TYPE_CHECKING:
    from flopmeter.cli.layout import Paint

    from .law.regimes import Regime
    from .report.expected import ExpectedNode
    from .report.queries import Reader

#: Longer work says how far it is, on stderr.
PROGRESS_PERIOD_S = 1.0

store_option = click.option(
    "--store",
    type=click.Path(path_type=Path),
    default=DEFAULT_STORE,
    envvar=["FLOPMETER_STORE", "FLOPMETER_COLLECTOR_STORE"],
    show_default=True,
    show_envvar=True,
    help="The collector's store: its file, or the directory it lies in.",
)
regimes_option = click.option(
    "--regimes",
    "regimes_dir",
    type=click.Path(path_type=Path),
    default=None,
    envvar=["FLOPMETER_REGIMES", "FLOPMETER_COLLECTOR_REGIMES"],
    show_envvar=True,
    help="A directory with a site's own regime files, beside the shipped ones.",
)
expect_option = click.option(
    "--expect",
    type=click.Path(path_type=Path),
    default=None,
    envvar="FLOPMETER_EXPECT",
    show_envvar=True,
    help="TOML file of the nodes that must exist (docs/coverage.md).",
)
as_of_option = click.option(
    "--as-of",
    metavar="TIME",
    help="The books as they stood then, derived again from the records: 2026-11-20, 2026-11-20T14:00Z.",
)


@contextmanager
def books(store: Path, as_of: str | None) -> "Iterator[tuple[Reader, int]]":
    """The store as it is, or as it stood; and the moment that it is asked for."""
    from .report import queries

    if as_of is None:
        with queries.reading(store) as reader:
            yield reader, time.time_ns()
    else:
        with _books_as_of(store, as_of) as found:
            yield found


@contextmanager
def _books_as_of(store: Path, text: str) -> "Iterator[tuple[Reader, int]]":
    """`--as-of TIME`: a reader of the books as they stood, and the moment; what that took is said on stderr."""
    from .errors import RegistryError
    from .registry.as_of import reading_as_of
    from .registry.when import instant
    from .spelling import time_text

    unix_ns = instant("--as-of", text)
    if unix_ns > time.time_ns():
        raise RegistryError(
            f"--as-of: expected a time that has come, got {time_text(unix_ns)}",
            "leave it out for what is known now",
        )
    on_terminal = sys.stderr.isatty()
    shown = [time.monotonic()]

    def progress(done: int, whole: int) -> None:
        if time.monotonic() - shown[0] > PROGRESS_PERIOD_S:
            shown[0] = time.monotonic()
            end = "\x1b[K" if on_terminal else "\n"
            click.echo(
                f"{chr(13) if on_terminal else ''}{done:,} of {whole:,} records{end}", err=True, nl=False
            )

    with reading_as_of(store, unix_ns, progress) as then:
        click.echo(
            f"{chr(13) if on_terminal else ''}As of {time_text(unix_ns)}: derived from {then.records:,} records and "
            f"{then.entries:,} entries of the run registry.",
            err=True,
        )
        if then.set_back:
            click.echo(
                f"The collector's clock was set back later on: {then.set_back:,} records that it dates earlier came after "
                "it had passed that time, and are left out.",
                err=True,
            )
        yield then.reader, unix_ns


def expected_of(path: Path | None) -> "tuple[ExpectedNode, ...]":
    """The operator's list of nodes, if there is one."""
    if path is None:
        return ()
    from .report.expected import read_expected

    return read_expected(path)


def regimes_of(directory: Path | None) -> "tuple[Regime, ...]":
    from .law.laws import with_site

    return with_site(directory)


def every_regime(directory: Path | None) -> "tuple[Regime, ...]":
    from .law.laws import read_laws

    return read_laws(directory).binding


def regimes_as_of(
    store: Path, as_of: str | None, unix_ns: int, directory: Path | None
) -> "tuple[Regime, ...]":
    """Those that runs were judged by then, as the store kept them; with no `as_of` those here."""
    here = every_regime(directory)
    if as_of is None:
        return here
    from .report.laws_then import regimes_then

    return regimes_then(store, unix_ns, here)


def paint() -> "Paint":
    """What pages for people are made with here and now."""
    from flopmeter.cli.layout import Paint
    from flopmeter.cli.terminal import size, terminal_of

    return Paint(colour=terminal_of(sys.stdout).color, width=size()[0])


def login() -> str:
    """Who types, as the machine has it: a claim, kept with the entry; a site's tokens come on top of it."""
    import getpass
    import os
    import socket

    try:
        name = os.environ.get("SUDO_USER") or getpass.getuser()
    except (KeyError, OSError):  # a uid without a name, as containers have
        name = f"uid-{os.getuid()}"
    return f"{name}@{socket.gethostname()}"


def run_names(context: click.Context, _: click.Parameter, incomplete: str) -> list[str]:
    """A `shell_complete` of click. Runs of the store that the command line, or the environment, names. Names with blanks are left out: a shell would
    take them for several words.
    """
    from .store.run_names import names_beginning

    named = context.params.get("store") or os.environ.get("FLOPMETER_STORE")
    store = Path(named or os.environ.get("FLOPMETER_COLLECTOR_STORE") or DEFAULT_STORE)
    return [
        name
        for name in names_beginning(store, incomplete)
        if name.isprintable() and not set(name) & set(" \t\n,")
    ]
