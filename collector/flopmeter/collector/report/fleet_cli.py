"""`flopmeter fleet list | inventory | tenants`: thin over queries and views."""

import time
from pathlib import Path

import click

from flopmeter.cli.output import emit_json, json_option
from flopmeter.collector.cli_parts import expect_option, expected_of, paint, regimes_option, store_option

sites_option = click.option(
    "--sites",
    "sites_file",
    type=click.Path(path_type=Path),
    default=None,
    envvar="FLOPMETER_SITES",
    show_envvar=True,
    help="TOML file of where clusters and nodes stand, and their network's speed (docs/fleet.md).",
)


@click.group()
def fleet() -> None:
    """Nodes and GPUs, and what is missing.

    \b
      flopmeter fleet list
      flopmeter fleet inventory
    """  # noqa: D301 - click wants the backspace character itself


@fleet.command("list")
@click.option("--all", "every", is_flag=True, help="A line for each node, also of a large fleet.")
@expect_option
@store_option
@json_option
def fleet_list(every: bool, expect: Path | None, store: Path, as_json: bool) -> None:
    """Nodes: what is missing, which need somebody, what is metered, how well, and what was lost.

    Of more than 30 nodes those that need somebody are named; the others are counted by kind.

    \b
      flopmeter fleet list
      flopmeter fleet list --all --expect nodes.toml
    """  # noqa: D301 - click wants the backspace character itself
    from . import queries
    from .fleet_view import fleet_view

    nodes = expected_of(expect)
    with queries.reading(store) as reader:
        document = reader.fleet(queries.asked(time.time_ns(), expected=nodes))
    if as_json:
        emit_json(document)
    else:
        click.echo(fleet_view(document, paint(), every=every))


@fleet.command()
@expect_option
@sites_option
@store_option
@regimes_option
@json_option
def inventory(
    expect: Path | None, sites_file: Path | None, store: Path, regimes_dir: Path | None, as_json: bool
) -> None:
    """GPU models by cluster and site, their dense peaks, what does not report; lines of capacity, export control."""
    from flopmeter.collector.law.laws import read_laws
    from flopmeter.collector.law.regimes import FLEET_CAPACITY

    from . import queries
    from .inventory_view import inventory_view
    from .sites import read_sites

    nodes, sites = expected_of(expect), read_sites(sites_file)
    lines = [r for r in read_laws(regimes_dir).regimes if r.scope == FLEET_CAPACITY]
    with queries.reading(store) as reader:
        document = reader.inventory(queries.asked(time.time_ns(), expected=nodes), sites, lines)
    if as_json:
        emit_json(document)
    else:
        click.echo(inventory_view(document, paint()))


@fleet.command()
@store_option
@regimes_option
@json_option
def tenants(store: Path, regimes_dir: Path | None, as_json: bool) -> None:
    """What each customer's runs did: by declared owner, else Slurm account, else namespace."""
    from flopmeter.collector.law.laws import read_laws
    from flopmeter.collector.law.regimes import TENANT

    from . import queries
    from .tenants_view import tenants_of, tenants_view

    lines = [r for r in read_laws(regimes_dir).regimes if r.scope == TENANT]
    with queries.reading(store) as reader:
        document = tenants_of(reader, queries.asked(time.time_ns()), lines)
    if as_json:
        emit_json(document)
    else:
        click.echo(tenants_view(document, paint()))
