"""schemathesis against a real collector, through the HTTP port: everything that is answered is as the document says."""

import re
import subprocess
from pathlib import Path

import pytest
from api_books import api_store
from browser_rig import make_token, serving

from flopmeter.collector.api.routes import ROUTES

ROOT = Path(__file__).parents[3]
PEER = ROOT / ".venv-peers" / "bin" / "schemathesis"
#: What a schema cannot say, each with its own tests (test_asking.py, test_paging.py; the HTTP port's hostile ones): that from
#: the eleventh bad token on the answer is 429; that a cursor must have been given out, and of two times the second be the
#: later; that a GET with a body is refused as that, before its method is looked at.
LEFT_OUT = "ignored_auth,positive_data_acceptance,unsupported_method"
#: The HTTP port's own, which stream without an end or start other programs.
NOT_OF_THE_BOOKS = r"stream|session|exports|attestations|whoami|report\."


@pytest.mark.skipif(not PEER.exists(), reason="peers are not installed: make peers")
def test_every_answer_is_as_the_document_says(tmp_path):
    store = tmp_path / "books.sqlite"
    api_store(store)
    token = make_token(store, "admin", "schemathesis")
    with serving(store, {"admin": token}) as site:
        done = subprocess.run(
            [
                *(PEER, "run", f"{site.base}/api/v1/openapi.json"),
                *("--header", f"Authorization: Bearer {token}", "--exclude-path-regex", NOT_OF_THE_BOOKS),
                *("--checks", "all", "--exclude-checks", LEFT_OUT),
                *("--phases", "coverage,fuzzing", "--max-examples", "3", "--seed", "7"),
                *("--suppress-health-check", "all", "--generation-database", "none"),
                *("--no-color", "--continue-on-failure", "--request-timeout", "60"),
            ],
            capture_output=True,
            text=True,
            timeout=600,
            cwd=tmp_path,
        )
    assert done.returncode == 0, done.stdout[-6_000:] + done.stderr[-2_000:]
    tested = re.search(r"Tested: (\d+)", done.stdout)
    assert tested is not None
    assert int(tested[1]) >= len(ROUTES) - 1  # all but the document itself, where the port answers that alone
