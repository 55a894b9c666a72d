"""Whether what people said of keeping is what they said, in that order: for fsck."""

from flopmeter.collector.report.queries import Reader
from flopmeter.collector.retention.words import check_chain
from flopmeter.collector.store.retention import SELECT, said_rows

from .rederive import Difference


def check_retention(reader: Reader) -> None:
    """Raise Difference at the first row that does not follow from those before."""
    fault = check_chain(said_rows(reader.rows(SELECT)))
    if fault is not None:
        raise Difference("retention", f"said_no {fault.number}", fault.column, fault.expected, fault.got)
