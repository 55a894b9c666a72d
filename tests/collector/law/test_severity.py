"""Severity: one table for every type, and CloudEvents that another program takes."""

import json
import re

import pytest

from flopmeter.collector.law.events import TYPES, NewEvent, to_cloudevent
from flopmeter.collector.law.severity import TABLE, Severity, severity_of


def test_every_type_of_event_is_in_the_table():
    assert set(TYPES) <= set(TABLE)


@pytest.mark.parametrize(
    ("kind", "data", "expected"),
    [
        ("threshold.crossed", {"act": "notification"}, "critical"),
        ("threshold.crossed", {"act": "submission"}, "critical"),
        # regulations.md 13.20: who is covered has nothing to file for that
        ("threshold.crossed", {"act": "coverage"}, "warning"),
        ("threshold.crossed", {"act": "documentation"}, "warning"),
        ("threshold.crossed", {}, "warning"),
        ("threshold.forecast", {"act": "notification"}, "critical"),
        ("threshold.forecast", {"act": "coverage"}, "warning"),
        ("threshold.undetermined", {"estimate": "crossed"}, "warning"),
        ("threshold.undetermined", {"estimate": "crossed", "act": "notification"}, "critical"),
        ("threshold.undetermined", {"estimate": "below"}, "notice"),
        ("threshold.approaching", {}, "notice"),
        ("fleet.capacity", {"verdict": "crossed", "act": "notification"}, "critical"),
        ("fleet.capacity", {"verdict": "undetermined", "act": "notification"}, "notice"),
        ("deadline.near", {"lead_seconds": "604800"}, "warning"),
        ("deadline.near", {"lead_seconds": "172800"}, "warning"),
        ("deadline.near", {"lead_seconds": "86400"}, "critical"),
        ("deadline.near", {"lead_seconds": "18514"}, "critical"),
        (
            "deadline.near",
            {"lead_seconds": "soon"},
            "warning",
        ),  # a store that was tampered with is still listed
        ("deadline.near", {"lead_seconds": "9" * 5_000}, "warning"),
        ("deadline.near", {}, "warning"),
        ("deadline.overdue", {"lead_seconds": None}, "critical"),
        ("evidence.fork", {}, "critical"),
        ("agent.silent", {}, "warning"),
        ("coverage.lost", {}, "warning"),
        ("usage.unattributed", {}, "notice"),
        ("sink.test", {}, "info"),
        ("never.thought.of", {}, "warning"),
    ],
)
def test_how_grave_what_is(kind, data, expected):
    assert severity_of(kind, data) == expected


def test_severities_have_an_order():
    assert [s.rank for s in Severity] == [0, 1, 2, 3]
    assert Severity.INFO.rank < Severity.NOTICE.rank < Severity.WARNING.rank < Severity.CRITICAL.rank


@pytest.mark.parametrize("kind", TYPES)
def test_a_cloudevent_is_one(kind):
    """CloudEvents 1.0: required attributes are non-empty texts, extension names are lower-case letters and digits."""
    e = NewEvent(
        "k", kind, "r1", 1_790_000_000_123_456_789, 3, 9_999_999_999, {"message": "m", "act": "coverage"}
    )
    row = {
        "id": e.id,
        "type": e.type,
        "subject": e.subject,
        "time_unix_ns": e.time_unix_ns,
        "since_position": 3,
        "position": 9_999_999_999,
        "data": e.data_json,
    }
    cloud = to_cloudevent(row)
    assert json.loads(json.dumps(cloud)) == cloud
    for name in ("specversion", "id", "source", "type", "subject", "time", "datacontenttype"):
        assert isinstance(cloud[name], str)
        assert cloud[name]
    assert cloud["specversion"] == "1.0"
    assert all(re.fullmatch(r"[a-z0-9]{1,20}", name) for name in cloud)
    assert all(isinstance(v, str) for name, v in cloud.items() if name != "data")
    assert cloud["severity"] == severity_of(kind, e.data)
