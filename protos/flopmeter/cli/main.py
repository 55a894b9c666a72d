"""Entry point of `flopmeter`: names the commands, imports the one that is asked for, maps errors to exits.

Logic-free. Exit codes: 0 done, 1 the answer is no, 2 usage, 3 cannot reach or read what was asked for.
"""

import errno
import sys

import click

from flopmeter.cli.lazy import Commands, LazyGroup
from flopmeter.cli.terminal import fall_back

#: Which modules each may load before it runs, tests/cli/test_start.py says.
COMMANDS: Commands = {
    "demo": ("flopmeter.play.cli", "demo", "A simulated cluster, metered live on this machine."),
    "agent": ("flopmeter.agent.cli", "agent", "Meter the GPUs of this node."),
    "collector": ("flopmeter.collector.cli", "collector", "Take in what agents ship; check the books."),
    "replay": ("flopmeter.play.cli", "replay", "Play a recorded trace through the real agent path."),
    "runs": ("flopmeter.collector.report.cli", "runs", "Training runs and their totals."),
    "regimes": ("flopmeter.collector.law.cli", "regimes", "Legal thresholds, as data."),
    "events": ("flopmeter.collector.duty.cli", "events", "What an operator must know or do."),
    "deadlines": (
        "flopmeter.collector.duty.deadlines_cli",
        "deadlines",
        "What is due, when, and to whom.",
    ),
    "forecast": ("flopmeter.collector.forecast.cli", "forecast", "What runs will come to, and when."),
    "fleet": ("flopmeter.collector.report.fleet_cli", "fleet", "Nodes and GPUs, and what is missing."),
    "export": ("flopmeter.collector.export.cli", "export", "Usage, events and runs for other programs."),
    "drafts": ("flopmeter.collector.filing.cli", "drafts", "Drafts of filings, for a person to finish."),
    "verify": ("flopmeter.cli.verify", "verify", "Check an attestation, offline, without trusting anybody."),
    "attest": ("flopmeter.collector.attest.cli", "attest", "Signed statements about runs."),
    "estimate": (
        "flopmeter.collector.estimate.cli",
        "estimate",
        "A total by formula, and beside the counters.",
    ),
    "completion": ("flopmeter.cli.shell", "completion", "Complete commands and names of runs in your shell."),
    "man": ("flopmeter.cli.shell", "man", "Write manual pages."),
    "witness": ("flopmeter.witness.cli", "witness", "Watch over others' evidence logs: cosign their heads."),
}


@click.group(
    cls=LazyGroup,
    lazy=COMMANDS,
    context_settings={"help_option_names": ["-h", "--help"], "auto_envvar_prefix": "FLOPMETER"},
)
@click.version_option(package_name="flopmeter")
def flopmeter() -> None:
    """An odometer for AI compute: what GPUs really executed, per training run.

    Start with `flopmeter demo`. On a GPU node: `flopmeter agent doctor`, then `flopmeter agent run`.
    """


def _told(text: str) -> str:
    """For a person lines break at words; a log, or a script, gets each message on one line."""
    if not sys.stderr.isatty():
        return text
    import shutil

    width = shutil.get_terminal_size().columns
    return "\n".join(click.wrap_text(line, max(40, width), "", "  ") for line in text.splitlines())


def main() -> None:
    """Run the command line; print one error line with its hint, never a traceback of a known error."""
    fall_back()
    try:
        # Without standalone mode click catches most of its own Exits and returns their code.
        code = flopmeter(standalone_mode=False)
        sys.exit(code if isinstance(code, int) else 0)
    except click.exceptions.Exit as e:
        sys.exit(e.exit_code)
    except click.exceptions.Abort:
        sys.exit(130)
    except click.UsageError as e:
        e.show()
        sys.exit(2)
    except click.ClickException as e:
        e.show()
        sys.exit(3)
    except BrokenPipeError:
        sys.exit(0)
    except SystemExit:
        # Where nobody reads any more click ends with 1, which here would say that the answer is no.
        if type(sys.stdout).__name__.endswith("PacifyFlushWrapper"):  # it has no public name
            sys.exit(0)
        raise
    except Exception as e:
        hint = getattr(e, "hint", None)
        if isinstance(e, OSError) and e.errno in {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO}:
            hint = "what was to be written, to standard output or into a file, is not whole: make room, do it again"
        if hint is None:  # not one of our error families: a defect, shown whole
            raise
        click.echo(_told(f"Error: {e}" + (f"\nHint: {hint}" if hint else "")), err=True)
        sys.exit(getattr(e, "exit_code", 3))
