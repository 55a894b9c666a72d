"""What a shell completes a run's name with: a `shell_complete` for click. Imports on use only."""

import os
from pathlib import Path

import click

from flopmeter.collector.store_path import DEFAULT_STORE


def run_names(context: click.Context, _: click.Parameter, incomplete: str) -> list[str]:
    """Runs of the store that the command line, or the environment, names. Names with blanks are left out: a shell would
    take them for several words.
    """
    from flopmeter.collector.store.run_names import names_beginning

    named = context.params.get("store") or os.environ.get("FLOPMETER_STORE")
    store = Path(named or os.environ.get("FLOPMETER_COLLECTOR_STORE") or DEFAULT_STORE)
    return [
        name
        for name in names_beginning(store, incomplete)
        if name.isprintable() and not set(name) & set(" \t\n,")
    ]
