"""How the commands that make files are told of this collector's books."""

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Commands:
    """`attest`, `export`: flags of `flopmeter attest create`, and of `flopmeter export` and `runs report`, beside --store."""

    store: Path
    attest: tuple[str, ...] = ()
    export: tuple[str, ...] = ()
