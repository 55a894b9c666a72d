"""What a source warns of while a tool looks at it: gathered, so that it stands in the answer and not between its lines."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager

_SOURCES = "flopmeter.agent.sources"
#: What these say is in the node's facts, or is the error that ends it: told there, with what to change.
_TOLD = (f"{_SOURCES}.nvml", "dcgm: scrape of ")


class _Gather(logging.Handler):
    def __init__(self, into: list[str]) -> None:
        super().__init__(logging.WARNING)
        self._into = into

    def emit(self, record: logging.LogRecord) -> None:
        text = record.getMessage()
        if not record.name.startswith(_TOLD) and not text.startswith(_TOLD) and text not in self._into:
            self._into.append(text)


@contextmanager
def heard() -> Iterator[list[str]]:
    """The warnings of all sources, in order, each once."""
    found: list[str] = []
    log, gather = logging.getLogger(_SOURCES), _Gather(found)
    before = log.propagate
    log.addHandler(gather)
    log.propagate = False
    try:
        yield found
    finally:
        log.removeHandler(gather)
        log.propagate = before
