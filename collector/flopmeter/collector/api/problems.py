"""What could not be answered, as RFC 9457 has it."""

from flopmeter.collector.errors import CollectorError
from flopmeter.collector.web.says import PROBLEM, problem

from .question import Answer

#: Of a text that a problem quotes: enough to know it again.
_QUOTED = 80


class Problem(CollectorError):  # noqa: N818
    """Answered with this status. `headers`: with underscores for their hyphens."""

    def __init__(self, status: int, detail: str, hint: str = "", **headers: str) -> None:
        super().__init__(detail, hint)
        self.status, self.detail = status, detail
        self.headers = {name.replace("_", "-"): text for name, text in headers.items()}

    def answer(self) -> Answer:
        return Answer(
            self.status, PROBLEM, problem(self.status, self.detail, self.hint), headers=self.headers
        )


def bad(detail: str, hint: str = "") -> Problem:
    """400: what was asked cannot be meant."""
    return Problem(400, detail, hint)


def missing(detail: str, hint: str = "") -> Problem:
    """404: there is no such thing, or it is another tenant's."""
    return Problem(404, detail, hint)


def quoted(text: str) -> str:
    """A text of somebody's within a sentence."""
    return repr(text if len(text) <= _QUOTED else text[:_QUOTED] + "…")
