"""`flopmeter forecast show RUN`: thin over live and view."""

from pathlib import Path

import click

from flopmeter.cli.output import emit_json, json_option
from flopmeter.collector.cli_parts import (
    as_of_option,
    books,
    every_regime,
    paint,
    regimes_option,
    run_names,
    store_option,
)


@click.group()
def forecast() -> None:
    """What runs will come to, and when they meet a line.

    \b
      flopmeter forecast show llm-7
    """  # noqa: D301 - click wants the backspace character itself


@forecast.command("show")
@click.argument("run", shell_complete=run_names)
@click.option("--confidence", type=int, help="Percent: 80, 90, 95 or 99; default: the collector's.")
@click.option("--days", type=int, help="Horizon of a run that declares no end; default: the collector's.")
@as_of_option
@store_option
@regimes_option
@json_option
def show(  # noqa: PLR0917 - click passes them by name
    run: str,
    confidence: int | None,
    days: int | None,
    as_of: str | None,
    store: Path,
    regimes_dir: Path | None,
    as_json: bool,
) -> None:
    """Totals by the declared end (or the horizon), dates of every line, and what is known already.

    Made now from the books, by the collector's method and settings; what the collector kept is in "kept".

    \b
      flopmeter forecast show llm-7
      flopmeter forecast show llm-7 --confidence 95 --days 60
    """  # noqa: D301 - click wants the backspace character itself
    from flopmeter.collector.errors import StoreError

    from .live import forecast_now, outlook_of, shown
    from .settings import Outlook
    from .view import forecast_view

    regimes = every_regime(regimes_dir)
    with books(store, as_of) as (reader, unix_ns):
        settings = outlook_of(reader)
        outlook = Outlook(
            settings.confidence_percent if confidence is None else confidence,
            settings.horizon_days if days is None else days,
        )
        if outlook.fault is not None:
            raise click.UsageError(f"expected {outlook.fault}")
        made = forecast_now(reader, run, regimes, outlook, unix_ns)
        if made is None:
            raise StoreError(
                f"run {run!r}: expected a run of the books or a declared one, found neither",
                "`flopmeter runs list` shows runs; `flopmeter runs declare` says what is planned",
            )
        document = shown(reader, made, regimes)
    if as_json:
        emit_json(document)
    else:
        click.echo(forecast_view(document, paint()))
