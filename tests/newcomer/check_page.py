"""Whether the newcomer's demo serves its page at the link that it prints. Standard library only.

python3 check_page.py PATH-OF-FLOPMETER     exit 1 and say what is missing
"""

import json
import re
import subprocess
import sys
import time
import urllib.error
import urllib.request
from typing import Any

DEADLINE_S = 240


def lacking(program: str) -> str:
    """What a newcomer would miss; "" if the page is there."""
    words = [program, "demo", "--no-open", "--days", "2", "--nodes", "5"]
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as demo:
        try:
            assert demo.stdout is not None
            first = demo.stdout.readline()
            link = re.fullmatch(r"the page: (http://127\.0\.0\.1:\d+)/#token=(\S+)\n", first)
            if link is None:
                return f"expected a link to the page on the first line, got {first!r}"
            return _page(*link.groups())
        finally:
            demo.terminate()


def _page(address: str, token: str) -> str:
    page = _asked(f"{address}/")
    if b"<script" not in page or b"flopmeter" not in page:
        return f"expected the page at {address}/, got {page[:80]!r}"
    end = time.monotonic() + DEADLINE_S
    found: dict[str, Any] = {}
    while time.monotonic() < end:  # the history is being played
        try:
            found = json.loads(_asked(f"{address}/api/v1/runs", token))
        except urllib.error.HTTPError as e:
            if e.code != 503:
                return f"expected the runs at {address}/api/v1/runs, got {e.code} {e.reason}"
        if found.get("total"):
            return ""
        time.sleep(0.5)
    return f"expected a run within {DEADLINE_S} s, got {found}"


def _asked(url: str, token: str = "") -> bytes:
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    with urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=60) as answer:
        found: bytes = answer.read()
    return found


if __name__ == "__main__":
    problem = lacking(sys.argv[1])
    if problem:
        print(f"demo: {problem}", file=sys.stderr)
    sys.exit(bool(problem))
