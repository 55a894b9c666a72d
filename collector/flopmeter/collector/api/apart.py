"""Answers that take long, or take in what strangers made: a command of flopmeter's own makes each, and can be ended."""

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from threading import Lock, Thread
from typing import Any

from .problems import Problem

#: An attestation of 32 MiB is checked in some seconds.
VERIFY_S = 20.0
#: All hours of all runs of years.
TENANTS_S = 900.0
#: How long somebody waits for them; then they ask again.
TENANTS_WAIT_S = 3.0
#: How long one that was made is shown.
TENANTS_KEPT_S = 300.0
#: Of memory, for one that is made of what a stranger sent. One of 32 MiB needs 200 MiB.
VERIFY_BYTES = 512 << 20
_MAIN = "from flopmeter.cli.main import main; main()"
#: -P: what lies in the working directory is not imported.
PROGRAM = (sys.executable, "-P", "-c", _MAIN)
#: Of what a command prints.
MAX_OUT_BYTES = 32 << 20


class Commands:
    """`store`, and the flags that the CLI needs to come to the same as here."""

    def __init__(
        self,
        store: Path,
        *,
        regimes: Path | None = None,
        keys: Path | None = None,
        clock: Callable[[], int] = time.time_ns,
    ) -> None:
        self._store, self._regimes, self._keys, self._clock = store, regimes, keys, clock
        self._lock = Lock()
        self._made: tuple[int, dict[str, Any]] | None = None
        self._making: Thread | None = None
        self._fault = ""

    def verify(self, raw: bytes) -> bytes:
        """What `flopmeter verify --json` prints of those bytes. Raises Problem."""
        key = self._attest_key()
        with tempfile.TemporaryDirectory(prefix="flopmeter-verify-") as directory:
            file, pem = Path(directory, "file"), Path(directory, "key.pem")
            file.write_bytes(raw)
            pem.write_text(key, "ascii")
            arguments = ["verify", str(file), "--key", str(pem), "--processes", "1", "--json"]
            done = _run(arguments, VERIFY_S, VERIFY_BYTES)
        if done is None:
            raise Problem(
                422,
                f"the file: expected one that is checked within {VERIFY_S:.0f} seconds, it took longer",
                "check it with `flopmeter verify` on a machine of your own",
            )
        code, out = done
        if code not in (0, 1) or not out:
            raise Problem(
                422,
                f"the file: expected an attestation that is checked in {VERIFY_BYTES >> 20} MiB of memory, got something that "
                "is not",
                "check it with `flopmeter verify` on a machine of your own",
            )
        document = json.loads(out)
        document.pop("file", None)  # where it lay here
        document["key"] = key
        return json.dumps(document).encode()

    def tenants(self) -> tuple[int, dict[str, Any]]:
        """(unix ns, what `flopmeter fleet tenants --json` prints). Raises Problem while it is being made."""
        with self._lock:
            thread = self._making
            if self._made is not None and self._clock() - self._made[0] < TENANTS_KEPT_S * 1e9:
                return self._made
            if thread is None:
                thread = self._making = Thread(target=self._make_tenants, daemon=True)
                thread.start()
        thread.join(TENANTS_WAIT_S)
        with self._lock:
            if self._making is None and self._made is not None and not self._fault:
                return self._made
            if self._fault:
                said, self._fault = self._fault, ""
                raise Problem(500, said, "see what `flopmeter fleet tenants` says")
        raise Problem(
            503,
            "the sums by tenant are being made: every hour of every run is read for them",
            "ask again",
            Retry_After="10",
        )

    def _make_tenants(self) -> None:
        at, fault, document = self._clock(), "", None
        arguments = ["fleet", "tenants", "--json", f"--store={self._store}"]
        arguments += [] if self._regimes is None else [f"--regimes={self._regimes}"]
        try:
            done = _run(arguments, TENANTS_S)
            if done is None or done[0] != 0:
                fault = "the sums by tenant: expected them in time, got none"
            else:
                document = json.loads(done[1])
        except (OSError, ValueError) as e:
            fault = f"the sums by tenant cannot be made: {e}"
        with self._lock:
            self._making, self._fault = None, fault
            if document is not None:
                self._made = at, document

    def _attest_key(self) -> str:
        from flopmeter.collector.errors import KeyFileError
        from flopmeter.collector.keys import attest_key, keys_directory

        try:
            return attest_key(keys_directory(self._keys, self._store), make=False).spki_pem
        except (KeyFileError, OSError) as e:
            raise Problem(
                409,
                "expected this collector's attestation key, found none that can be read",
                "it is made with the first attestation; a file of somebody else's is checked with `flopmeter verify`",
            ) from e


def _run(arguments: Sequence[str], limit_s: float, limit_bytes: int = 0) -> tuple[int, bytes] | None:
    """(exit code, what it printed); None: it took too long, and was ended. `limit_bytes`: of its memory; 0: none."""
    program = PROGRAM
    if limit_bytes:
        limits = (limit_bytes, limit_bytes)
        program = (*PROGRAM[:-1], f"import resource as r; r.setrlimit(r.RLIMIT_DATA, {limits}); {_MAIN}")
    command = [*program, *arguments]
    try:
        done = subprocess.run(  # noqa: S603 - a command of this program
            command, stdin=subprocess.DEVNULL, capture_output=True, timeout=limit_s, check=False
        )
    except subprocess.TimeoutExpired:
        return None
    return done.returncode, done.stdout[:MAX_OUT_BYTES]
