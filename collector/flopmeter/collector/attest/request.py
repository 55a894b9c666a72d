"""What is asked of `flopmeter attest create`, and what it is done with."""

import secrets
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from .signing import Signer

if TYPE_CHECKING:
    from flopmeter.collector.estimate.declared import Declared
    from flopmeter.collector.log.timestamps import Authorities
    from flopmeter.collector.log.witnesses import Witnesses
    from flopmeter.collector.report.queries import Asked

OPERATOR = "operator"


@dataclass(frozen=True, slots=True)
class Request:
    """What is asked for."""

    store: Path
    keys: Path
    run: str
    profile: str
    output: Path
    who: str
    why: str = ""
    recipient: str = ""  # "": the profile's name
    issuer: str = ""  # "": the log's name
    role: str = OPERATOR
    supersedes: str = ""  # an attestation_id
    record: str = ""  # a record's digest, or the id of an attestation: another view of that record

    @property
    def to(self) -> str:
        """Whom it is for."""
        return self.recipient or self.profile


@dataclass(frozen=True, slots=True)
class Means:
    """What it is done with; tests bring their own clock and randomness."""

    signer: Signer
    question: "Callable[[int], Asked]"  # as of an instant, Unix ns
    estimates: "Sequence[Declared]" = ()
    witnesses: "Callable[[str], Witnesses] | None" = None  # of a log's vkey
    authorities: "Authorities | None" = None  # that date the head
    now_unix_ns: Callable[[], int] = time.time_ns
    random: Callable[[int], bytes] = secrets.token_bytes
