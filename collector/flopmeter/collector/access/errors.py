"""Why somebody is not let in, as it is said to them and to the operator."""

from flopmeter.collector.errors import CollectorError


class AccessError(CollectorError):
    """A token, a certificate or a name is not what a person may ask for."""

    exit_code = 2


class AccessRefused(AccessError):  # noqa: N818
    """A request for access that is refused. `code` is a fixed word, `status` HTTP's (docs/identity.md)."""

    exit_code = 1

    def __init__(self, status: int, code: str, message: str, hint: str = "") -> None:
        super().__init__(message, hint)
        self.status, self.code = status, code


class TlsFileError(CollectorError):
    """Certificate files cannot be served with."""
