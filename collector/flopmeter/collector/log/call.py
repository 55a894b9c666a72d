"""One HTTP POST to a witness or a timestamp authority: verified, bounded in time and size, no redirect, no proxy."""

import contextlib
import http.client
import ssl
from dataclasses import dataclass
from pathlib import Path

from flopmeter.collector.deliver.deadline import Deadline
from flopmeter.collector.deliver.http_call import Address, address_of, connected
from flopmeter.collector.errors import LogError, SettingsError, SinkError

#: The most that is read of an answer: cosignatures of ML-DSA-44 are 3.3 kB each, timestamp tokens some 6 kB.
MAX_ANSWER_BYTES = 65_536
_HINT = "write https://HOST[:PORT]/PATH; plain http goes to this machine alone"


@dataclass(frozen=True, slots=True)
class Reply:
    """What came back."""

    status: int
    content_type: str
    body: bytes


def address(what: str, url: str, path: str = "") -> Address:
    """Of a service whose URL a person wrote; plain http to this machine alone. Raises SettingsError; `what` names it."""
    try:
        return address_of(what, url.rstrip("/") + path if path else url, allow_http=False)
    except SinkError as e:
        raise SettingsError(f"{str(e).removesuffix(', got something else')}, got {url[:200]!r}", _HINT) from e


def post(
    to: Address, body: bytes, content_type: str, *, timeout_s: float, ca_file: Path | None = None
) -> Reply:
    """Send it and read all of the answer, whatever its status. Raises LogError where none comes that is whole."""
    deadline = Deadline(timeout_s)
    with contextlib.ExitStack() as stack:
        try:
            call = http.client.HTTPConnection(to.host, to.port)
            call.sock = connected(to, deadline, ca_file, stack)
            headers = {"User-Agent": "flopmeter", "Connection": "close", "Content-Type": content_type}
            call.request("POST", to.path, body, headers)
            answer = call.getresponse()
            text = answer.read(MAX_ANSWER_BYTES + 1)
        except TimeoutError as e:
            raise LogError(f"{to.shown}: no answer within {timeout_s:g} s") from e
        except ssl.SSLCertVerificationError as e:
            raise LogError(f"{to.shown}: its certificate is not trusted: {e.verify_message}") from e
        except (OSError, http.client.HTTPException, ValueError, SinkError) as e:
            raise LogError(f"{to.shown}: {getattr(e, 'strerror', None) or e or type(e).__name__}") from e
    if len(text) > MAX_ANSWER_BYTES:
        raise LogError(f"{to.shown}: expected an answer of at most {MAX_ANSWER_BYTES} bytes, got more")
    return Reply(answer.status, answer.headers.get_content_type(), text)
