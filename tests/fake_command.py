"""Stands for flopmeter where the HTTP port has it make a file: writes what it was told, or misbehaves as the run's name asks it to."""

import json
import os
import sys
import time
from pathlib import Path

FOLDER, TOLD = Path(sys.argv[1]), sys.argv[2:]


def main():
    with (FOLDER / "commands").open("a") as f:
        f.write(f"{os.getpid()}\n")
    run = next((a.partition("=")[2] for a in TOLD if a.startswith("--run=")), TOLD[-1])
    if run == "refused":
        sys.stderr.write("Error: run: expected one that is there, got none\n\x1b[31mlook\n")
        sys.exit(2)
    if run == "unreadable":
        sys.stderr.write(
            "Error: /secret/b.db: expected a store, found no such file\nHint: name it with --store\n"
        )
        sys.exit(3)
    if run == "broken":
        sys.stderr.write("Traceback: /secret/path\n")
        sys.exit(70)
    if run == "endless":
        while True:
            sys.stdout.buffer.write(b"row\n" * 20_000)
    if run == "half":
        sys.stdout.write("a row, and then nothing\n")
        sys.stdout.flush()
        sys.exit(3)
    if run == "silent":
        time.sleep(3_600)
    said = json.dumps(TOLD)
    if "-o" in TOLD:
        Path(TOLD[TOLD.index("-o") + 1]).write_text(said)
    else:
        sys.stdout.write(said)


main()
