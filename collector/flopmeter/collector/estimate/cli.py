"""`flopmeter estimate hardware | architecture | compare | peaks`: thin over `estimate`."""

import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from flopmeter.cli.output import emit_json, json_option
from flopmeter.collector.cli_parts import paint, regimes_of, regimes_option, run_names, store_option
from flopmeter.collector.store_path import store_file

if TYPE_CHECKING:
    from flopmeter.collector.report.queries import Reader
    from flopmeter.contract.flop import Figure

    from .declared import Declared

_SKU_HELP = "Device model, such as 'H100 SXM', A100, GB200 (`flopmeter estimate peaks` lists them)."
_DTYPE_HELP = "What the matrix products were in: bf16 (default), fp16, tf32, fp8, mxfp8, nvfp4, fp32 …"
_PEAK_HELP = "Dense peak of one unit, FLOP/s: 989e12 or '989 TFLOP/s'. Sparse peaks are refused."


@click.group()
def estimate() -> None:
    """Plan or check a total by formula; compare it with the counters.

    \b
      flopmeter estimate hardware --units 512 --hours 300 --sku "H100 SXM" \\
          --utilisation 0.4
    """  # noqa: D301 - click wants the backspace character itself


@estimate.command()
@click.option("--units", help="N: how many GPUs.")
@click.option("--hours", help="L: how long, of each unit.")
@click.option("--device-hours", help="N x L in one, such as 370000 H100-hours.")
@click.option(
    "--start", help="Begin of the period, such as 2026-11-01T00:00:00Z; with --end, in place of --hours."
)
@click.option("--end", help="End of the period.")
@click.option("--sku", help=_SKU_HELP)
@click.option("--dtype", help=_DTYPE_HELP)
@click.option("--peak", help=_PEAK_HELP)
@click.option(
    "--utilisation", "--utilization", help="U: share of the dense peak computed, 0.4 or 40%. Not GPU-Util."
)
@click.option(
    "--period",
    "specs",
    multiple=True,
    metavar="KEY=VALUE,…",
    help="A period of its own, as units=512,hours=300,utilisation=0.4; the options above are its defaults. Repeatable.",
)
@click.option("--periods", "file", type=click.Path(path_type=Path), help="TOML or CSV file of periods.")
@regimes_option
@json_option
def hardware(
    specs: tuple[str, ...], file: Path | None, regimes_dir: Path | None, as_json: bool, **given: str | None
) -> None:
    """C = N x L x H x U: units, time, dense peak, utilisation; added up over periods.

    U is the share of the dense peak that was really computed, 30-50 % in good training runs. What nvidia-smi calls
    GPU-Util says how long any kernel ran: it stands near 100 % in any busy job and is not U.
    """
    from flopmeter.contract.w_table import current

    from .documents import hardware_document
    from .fields import OPTIONS
    from .files import read_periods
    from .hardware import period, total
    from .margin import lines
    from .view import hardware_view

    table = current()
    options = {key: value for key, value in given.items() if value is not None}
    if file is not None:
        if options or specs:
            raise click.UsageError(
                "--periods names a file with everything in it: leave the other options out"
            )
        periods = read_periods(file, table)
    elif specs:
        entries = [{**options, **_spec(i, text)} for i, text in enumerate(specs, 1)]
        periods = [period(e, lambda _, i=i: f"--period {i}: ", table) for i, e in enumerate(entries, 1)]  # type: ignore[misc]
    elif options:
        periods = [period(options, lambda _: OPTIONS, table)]
    else:
        raise click.UsageError(
            "expected units, time, device and utilisation, or --period, or --periods FILE; see --help"
        )
    found = lines(total(periods), regimes_of(regimes_dir), time.time_ns())
    document = hardware_document(periods, found, table.id)
    if as_json:
        emit_json(document)
    else:
        click.echo(hardware_view(document, paint()))


def _spec(number: int, text: str) -> dict[str, str]:
    """units=512,hours=300 as a mapping."""
    found: dict[str, str] = {}
    for part in text.split(","):
        key, equals, value = part.partition("=")
        name = key.strip().replace("-", "_").replace("utilization", "utilisation")
        if not equals or not name or name in found:
            raise click.UsageError(
                f"--period {number}: expected key=value,key=value, each key once, got {part.strip()!r}"
            )
        found[name] = value.strip()
    return found


@estimate.command()
@click.option("--params", help="P: parameters of the model, 8.03e9.")
@click.option("--active-params", help="Parameters that one token meets, where experts are chosen (MoE).")
@click.option(
    "--lookup-params",
    help="Parameters of the input embedding, if they are to be left out: looked up, not multiplied.",
)
@click.option("--tokens", help="D: tokens trained on, 15e12.")
@click.option("--layers", help="With --hidden and --context: attention's own products are counted.")
@click.option("--hidden", help="Width of the attention: heads x head size.")
@click.option("--context", help="Tokens per sequence.")
@click.option(
    "--attention", type=click.Choice(["causal", "full"]), help="Default causal: half the products of full."
)
@click.option(
    "--recompute",
    type=click.Choice(["none", "selective", "full"]),
    help="Activations computed again: selective = attention, full = everything. Default none.",
)
@click.option("--passes", help="General case: full passes (forward and backward) …")
@click.option("--flop-per-pass", help="… times the operations of one.")
@click.option("--tokens-per-second", help="Of all GPUs together: adds MFU and HFU.")
@click.option("--gpus", help="How many GPUs made that speed.")
@click.option("--sku", help=_SKU_HELP)
@click.option("--dtype", help=_DTYPE_HELP)
@click.option("--peak", help=_PEAK_HELP)
@regimes_option
@json_option
def architecture(
    *,
    tokens_per_second: str | None,
    gpus: str | None,
    sku: str | None,
    dtype: str | None,
    peak: str | None,
    regimes_dir: Path | None,
    as_json: bool,
    **given: str | None,
) -> None:
    """C = 6 P D, or the transformer's formula with attention and recomputation, or passes x operations.

    A multiply-add is 2 operations. Model FLOP are what learning needs; executed FLOP add recomputed activations,
    which counters see and the EU does not count.
    """
    from flopmeter.contract.w_table import current

    from .architecture import Architecture, Speed, shape
    from .documents import architecture_document
    from .fields import OPTIONS
    from .margin import lines
    from .numbers import number, whole
    from .peaks import peak as find_peak
    from .view import architecture_view

    table = current()
    options = {key: value for key, value in given.items() if value is not None}
    if not options:
        raise click.UsageError("expected --params and --tokens, or --passes and --flop-per-pass; see --help")
    model = shape(options, lambda _: OPTIONS, need_tokens=tokens_per_second is None)
    speed = None
    if tokens_per_second is not None or gpus is not None:
        if tokens_per_second is None or gpus is None or not isinstance(model, Architecture):
            raise click.UsageError(
                "MFU and HFU need --params, --tokens-per-second and --gpus, with --sku or --peak"
            )
        device = find_peak(sku or "", dtype or "", peak or "", table)
        speed = Speed(
            number("--tokens-per-second", tokens_per_second, such_as="3e6"),
            whole("--gpus", gpus, such_as="384"),
            device.flop_per_s,
        )
        speed.check(model)
    elif sku or dtype or peak:
        raise click.UsageError(
            "--sku, --dtype and --peak are for MFU and HFU: give --tokens-per-second and --gpus"
        )
    found = lines(model.executed_flop, regimes_of(regimes_dir), time.time_ns(), model_flop=model.model_flop)
    document = architecture_document(model, found, table.id, speed)
    if as_json:
        emit_json(document)
    else:
        click.echo(architecture_view(document, paint()))


@estimate.command()
@json_option
def peaks(as_json: bool) -> None:
    """Dense peak FLOP/s of every known model: SMs x rate x official clock."""
    from flopmeter.contract.w_table import current

    from .peaks import dense, names, tensor_dtypes
    from .view import peaks_view

    table, dtypes = current(), tensor_dtypes()
    rows: list[dict[str, Any]] = [
        {
            "sku": name,
            "compute_capability": sku.compute_capability,
            "confirmed": sku.confirmed,
            "peaks_flop_per_s": {d: str(int(p)) for d in dtypes if (p := dense(sku, d, table)) is not None},
        }
        for sku in table.skus
        for name in names(sku)
    ]
    if as_json:
        emit_json({"peaks": rows, "w_table": table.id})
    else:
        click.echo(peaks_view(rows, dtypes, paint()))


@estimate.command()
@click.argument("run", required=False, shell_complete=run_names)
@store_option
@click.option(
    "--estimates",
    type=click.Path(path_type=Path),
    required=True,
    envvar=["FLOPMETER_ESTIMATES", "FLOPMETER_COLLECTOR_ESTIMATES"],
    show_envvar=True,
    help="TOML file of declared estimates, as `flopmeter collector serve --estimates` takes it.",
)
@json_option
def compare(run: str | None, store: Path, estimates: Path, as_json: bool) -> None:
    """Declared estimates beside what the counters say; exit 1 if any disagrees.

    The estimate may be off by 30 %, the counters' figure lies between its bounds. Disagrees: no figure fits both.
    Agrees: every figure that the counters allow is within the 30 %. Else it cannot be told.

    \b
      flopmeter estimate compare llm-7 --estimates estimates.toml
    """  # noqa: D301 - click wants the backspace character itself
    from flopmeter.collector.errors import CollectorError, StoreError
    from flopmeter.collector.report import queries
    from flopmeter.contract.w_table import current

    from .compare import Agreement
    from .documents import comparison_document
    from .files import read_estimates
    from .view import comparison_view

    declared = [d for d in read_estimates(estimates, current()) if run in (None, d.run)]
    if not declared:
        raise CollectorError(
            f"run {run!r}: expected an estimate of it in {estimates}, found none",
            "add an [[estimate]]; see docs/estimate.md",
        )
    with queries.reading(store_file(store)) as reader:
        rows = [comparison_document(d, _measured(reader, d), _if_declared(reader, d)) for d in declared]
    if run is not None and rows[0]["measured"] is None:
        raise StoreError(
            f"run {run!r}: expected a run in {store_file(store)}, found none of that name",
            "`flopmeter runs list` shows them all",
        )
    if as_json:
        emit_json({"estimates": rows})
    else:
        click.echo(comparison_view(rows, paint()))
    if any(row["agreement"] == Agreement.DISAGREES for row in rows):
        raise click.exceptions.Exit(1)


def _measured(reader: "Reader", d: "Declared") -> "Figure | None":
    """The counters' figure for what the estimate covers; None where nothing of it is in the store."""
    from flopmeter.contract.w_table import current

    from .cut import figure_before

    return figure_before(d.before_hour, reader.hourly(d.run), reader.models(), current())


def _if_declared(reader: "Reader", d: "Declared") -> "Figure | None":
    """The same if the jobs' declared dtypes are true, as `runs show` has it: of whole runs only."""
    from flopmeter.collector.report import queries
    from flopmeter.collector.report.documents import figure_of

    if d.before_hour is not None:
        return None
    # As of 1970 no agent is late: what silent agents may have done is no word of the counters.
    for document in reader.runs(queries.asked(0, ()), d.run):
        declared = document["accuracy"]["if_declared"]
        return figure_of(declared["flop"]) if declared is not None else None
    return None
