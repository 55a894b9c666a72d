"""`flopmeter fleet list | inventory`: thin over queries and views."""

import time
from pathlib import Path
from typing import TYPE_CHECKING

import click

from flopmeter.cli.output import emit_json, json_option

from .cli import expect_option, paint, store_option

if TYPE_CHECKING:
    from .expected import ExpectedNode


@click.group()
def fleet() -> None:
    """Nodes and GPUs, and what is missing."""


@fleet.command("list")
@expect_option
@store_option
@json_option
def fleet_list(expect: Path | None, store: Path, as_json: bool) -> None:
    """Every node: what is metered, how well, since when not, and what was lost."""
    from . import queries
    from .fleet_view import fleet_view

    nodes = expected_of(expect)
    with queries.reading(store) as reader:
        document = reader.fleet(queries.asked(time.time_ns(), expected=nodes))
    if as_json:
        emit_json(document)
    else:
        click.echo(fleet_view(document, paint()))


@fleet.command()
@expect_option
@store_option
@json_option
def inventory(expect: Path | None, store: Path, as_json: bool) -> None:
    """Per cluster: GPU models, how many, their dense peak by precision, and what does not report."""
    from . import queries
    from .inventory_view import inventory_view

    nodes = expected_of(expect)
    with queries.reading(store) as reader:
        document = reader.inventory(queries.asked(time.time_ns(), expected=nodes))
    if as_json:
        emit_json(document)
    else:
        click.echo(inventory_view(document, paint()))


def expected_of(path: Path | None) -> "tuple[ExpectedNode, ...]":
    """The operator's list of nodes, if there is one."""
    if path is None:
        return ()
    from .expected import read_expected

    return read_expected(path)
