"""Whether the outbox can have come about: for fsck.

Which sinks there were, and which events they wanted, is a setting and in no book; so a row that is missing cannot be
told from one that nobody wanted. What is there must be about what is there, and each note must follow from the others.
"""

from flopmeter.collector.report.queries import Reader

from .rederive import Difference

#: Rows that cannot be: (column, what is expected, SELECT event_no, sink, answer_no, what was got).
_RULES = (
    ("event_no", "an event", "event_no", "event_no NOT IN (SELECT event_no FROM events)"),
    (
        "answer_no",
        "an answer to that event",
        "answer_no",
        (
            "answer_no <> 0 AND NOT EXISTS (SELECT 1 FROM answers a WHERE a.answer_no = o.answer_no "
            "AND a.about = 'event' AND a.number = o.event_no)"
        ),
    ),
    (
        "answer_no",
        "the event itself given to that sink before",
        "answer_no",
        (
            "answer_no <> 0 AND NOT EXISTS (SELECT 1 FROM outbox e WHERE e.event_no = o.event_no AND e.sink = o.sink "
            "AND e.answer_no = 0)"
        ),
    ),
    ("refusals", "no more than its attempts", "refusals", "refusals NOT BETWEEN 0 AND attempts"),
    (
        "first_unix_ns",
        "a time once it was attempted, none before",
        "first_unix_ns",
        "(attempts > 0) = (first_unix_ns IS NULL)",
    ),
    (
        "delivered_unix_ns",
        "no note of a delivery without an attempt before",
        "delivered_unix_ns",
        "delivered_unix_ns IS NOT NULL AND attempts < 1",
    ),
    (
        "dead_unix_ns",
        "no dead letter that was delivered, or never attempted",
        "dead_unix_ns",
        "dead_unix_ns IS NOT NULL AND (delivered_unix_ns IS NOT NULL OR attempts < 1)",
    ),
)


def check_delivery(reader: Reader) -> None:
    """Raise Difference at the first row that cannot be."""
    for column, expected, got, fault in _RULES:
        sql = f"SELECT event_no, sink, answer_no, {got} FROM outbox o WHERE {fault} ORDER BY 1, 2, 3 LIMIT 1"  # noqa: S608
        for event_no, sink, answer_no, found in reader.rows(sql):
            where = f"event_no {event_no}, sink {sink}" + (f", answer_no {answer_no}" if answer_no else "")
            raise Difference("outbox", where, column, expected, found)
    (last,) = reader.rows("SELECT coalesce(max(answer_no), 0) FROM answers").fetchone()
    for sink, answer_no in reader.rows(
        "SELECT sink, answer_no FROM sinks WHERE answer_no NOT BETWEEN 0 AND ? ORDER BY sink LIMIT 1", (last,)
    ):
        raise Difference("sinks", f"sink {sink}", "answer_no", f"an answer up to {last}", answer_no)
