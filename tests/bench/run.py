"""`make bench`: every speed that issue 2 promises, as ratios taken side by side; a table, and out/bench.json.

    make bench                          all, under ten minutes
    make bench ARGS="ingest start"      some of: ingest streams store agent tick start forecast judge log verify pages

Exit code 0 if everything asked for was measured, met or not: a wall clock on a shared machine is no gate. 3 if
something could not be measured. Peers are Debian's own: apt-get install -y prometheus prometheus-node-exporter.
"""

import argparse
import importlib
import os
import platform
import resource
import shutil
import signal
import sqlite3
import sys
import tempfile
import time
from pathlib import Path

import harness
from harness import ROOT, CannotRun, Figure

BENCHES = (
    "ingest",
    "streams",
    "mtls",
    "store",
    "agent",
    "tick",
    "start",
    "forecast",
    "judge",
    "log",
    "verify",
    "pages",
)


def machine() -> dict:
    """What the figures were taken on."""
    model = next(
        (
            line.split(":", 1)[1].strip()
            for line in Path("/proc/cpuinfo").read_text().splitlines()
            if line.startswith("model name")
        ),
        platform.machine(),
    )
    return {
        "cpu": model,
        "cores": len(harness.ALL_CORES),
        "kernel": platform.release(),
        "python": platform.python_version(),
        "sqlite": sqlite3.sqlite_version,
        "load_average": os.getloadavg()[0],
        "calibration_us": harness.calibrate(0.5),
    }


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="make bench", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "benches", nargs="*", metavar="BENCH", help=f"some of: {' '.join(BENCHES)} (default: all)"
    )
    parser.add_argument("--keep", action="store_true", help="keep the stores and logs under out/")
    args = parser.parse_args()
    unknown = sorted(set(args.benches) - set(BENCHES))
    if unknown:
        parser.error(f"expected some of {' '.join(BENCHES)}, got {' '.join(unknown)}")
    signal.signal(
        signal.SIGTERM, lambda *_: sys.exit(143)
    )  # so that `finally` and `with` end what was started
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    out = ROOT / "out"
    out.mkdir(exist_ok=True)
    about, begin = machine(), time.monotonic()
    figures: list[Figure] = []
    failed = []
    # On the tree's own disk: a temporary directory may be memory, and then fsync costs nothing
    folder = Path(tempfile.mkdtemp(prefix="bench-", dir=out))
    try:
        for name in args.benches or BENCHES:
            here = folder / name
            here.mkdir()
            try:
                figures += importlib.import_module(f"bench_{name}").run(here)
            except CannotRun as e:
                failed.append(name)
                print(f"{name}: not measured: {e}", file=sys.stderr)
            if not args.keep:
                shutil.rmtree(here, ignore_errors=True)
    finally:
        if args.keep:
            print(f"stores and logs: {folder}", file=sys.stderr)
        else:
            shutil.rmtree(folder, ignore_errors=True)
    (out / "bench.json").write_text(harness.as_json(figures, about))
    print(harness.table(figures))
    goals = [f for f in figures if f.met is not None]
    missed = [f.name.strip() for f in goals if not f.met]
    print(
        f"\n{about['cpu']}, {about['cores']} cores, Linux {about['kernel']}, Python {about['python']}; calibration "
        f"(libsodium verify of {harness.CALIBRATION_BYTES} B) {about['calibration_us']:.0f} us; "
        f"{time.monotonic() - begin:.0f} s\n{len(goals) - len(missed)} of {len(goals)} goals met"
        + (f"; missed: {', '.join(missed)}" if missed else "")
        + "; written: out/bench.json"
    )
    return 3 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
