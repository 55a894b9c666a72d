"""What the HTTP port says by itself: problem+json (RFC 9457), and the headers that stand on every answer. Pure."""

import json
from collections.abc import Mapping
from http import HTTPStatus

#: RFC 9457 section 3.
PROBLEM = "application/problem+json"
JSON = "application/json"
TEXT = "text/plain; charset=utf-8"

#: Nothing from elsewhere, nothing inline, framed by nobody; the page writes text and never markup.
CSP = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
    "form-action 'none'; base-uri 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'"
)
_EVERYWHERE = (
    ("content-security-policy", CSP),
    ("x-content-type-options", "nosniff"),
    ("x-frame-options", "DENY"),  # for what is older than frame-ancestors
    ("referrer-policy", "no-referrer"),
    (
        "permissions-policy",
        "camera=(), geolocation=(), microphone=(), payment=(), usb=(), browsing-topics=()",
    ),
    ("cross-origin-opener-policy", "same-origin"),
    ("cross-origin-resource-policy", "same-origin"),
    ("x-robots-tag", "noindex"),
)
#: A year, as is usual. Only said where TLS is.
_HSTS = ("strict-transport-security", "max-age=31536000")


def security_headers(*, secure: bool) -> list[tuple[bytes, bytes]]:
    """What stands on every answer."""
    said = (*_EVERYWHERE, _HSTS) if secure else _EVERYWHERE
    return [(name.encode(), value.encode()) for name, value in said]


class Refused(Exception):  # noqa: N818 - an answer, and not a fault of the program
    """The request is answered with this problem."""

    def __init__(
        self,
        status: int,
        detail: str,
        hint: str = "",
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(detail)
        self.status, self.detail, self.hint = status, detail, hint
        self.headers = dict(headers or {})

    def body(self) -> bytes:
        return problem(self.status, self.detail, self.hint)


def problem(status: int, detail: str, hint: str = "") -> bytes:
    """A problem document. `detail`: what was expected and got; `hint`: what to do."""
    said = {
        "type": "about:blank",
        "title": HTTPStatus(status).phrase,
        "status": status,
        "detail": detail,
        **({"hint": hint} if hint else {}),
    }
    return json.dumps(said, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "replace")
