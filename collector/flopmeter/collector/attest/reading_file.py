"""The statement in an attestation's file, for people. Nothing of it is verified here."""

import base64
import json
from pathlib import Path
from typing import Any

from .errors import AttestError
from .issuing import BUNDLE


def read_statement(path: Path) -> dict[str, Any]:
    """The in-toto statement. Raises AttestError where there is none."""
    from flopmeter.audit.statement import check, schema
    from flopmeter.cli.container import read
    from flopmeter.evidence.errors import EvidenceError

    try:
        member = read(path)[BUNDLE]
        envelope = json.loads(member.span(0, member.size))["dsseEnvelope"]
        statement = json.loads(base64.b64decode(envelope["payload"], validate=True))
        check(statement, schema()["statement"])
        return dict(statement)
    except OSError as e:
        found = e.strerror or str(e)
    except (EvidenceError, ValueError, KeyError, TypeError, RecursionError) as e:
        found = str(e)[:200]
    error = AttestError(
        f"{path}: expected an attestation, got {found}",
        "name the file that `flopmeter attest create` wrote, or a bundle beside its members",
    )
    error.exit_code = 3
    raise error
