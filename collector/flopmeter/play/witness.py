"""The demo's witness: what `flopmeter witness serve` runs, in a thread beside the collector, with a key and a memory of its own.

It checks and cosigns as one elsewhere would. That it stands on the same machine its name says: it makes nobody sure.
"""

import secrets
from pathlib import Path

from flopmeter.collector.keys import keys_directory, log_key
from flopmeter.collector.log.checkpoint import vkey
from flopmeter.witness.heads import Heads
from flopmeter.witness.keys import create
from flopmeter.witness.running import log_keys
from flopmeter.witness.server import WitnessServer
from flopmeter.witness.witness import Witness

NAME = "demo-witness.on-the-same-machine.invalid"


class DemoWitness:
    """Watches over the log of a store that no collector has opened yet. Serves from here on, until `stop`."""

    def __init__(self, store: Path) -> None:
        """Raises OSError, WitnessError, KeyFileError."""
        self.log_origin = f"demo.flopmeter.invalid/{secrets.token_hex(8)}"
        log = vkey(self.log_origin, log_key(keys_directory(None, store)).public)
        directory = store.parent / "witness"
        directory.mkdir(parents=True)
        (key,) = create(directory / "key", NAME)
        self._heads = Heads(directory / "heads.sqlite")
        self._server = WitnessServer(Witness((key,), log_keys([log]), self._heads), "127.0.0.1", 0)
        self.policy = directory / "policy"
        lines = (f"log {log}", f"witness demo {key.vkey} {self._server.url}", "quorum demo")
        self.policy.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
        self._server.start()

    def stop(self) -> None:
        self._server.stop()
        self._heads.close()
