"""What a moment of the books comes to on the demo's page."""

from typing import Any

from flopmeter.play.snapshot import EVENTS_SHOWN, latest_events


def event(number: int, kind: str, subject: str) -> dict[str, Any]:
    time = f"2026-11-{number:02}T00:00:00Z"
    return {
        "id": str(number),
        "type": kind,
        "subject": subject,
        "time": time,
        "data": {"message": str(number)},
    }


def test_what_comes_again_every_day_leaves_room_for_the_rest() -> None:
    events = [
        event(1, "threshold.undetermined", "llm"),
        event(2, "agent.silent", "agent/a"),
        *(event(n, "usage.unattributed", "node/b") for n in range(3, 3 + EVENTS_SHOWN)),
        event(20, "usage.unattributed", "node/c"),
        event(21, "threshold.undetermined", "llm"),
    ]
    shown = [(e.type, e.text) for e in latest_events(events)]
    assert shown == [
        ("threshold.undetermined", "21"),
        ("usage.unattributed", "20"),
        (f"usage.unattributed ×{EVENTS_SHOWN}", str(2 + EVENTS_SHOWN)),
        ("agent.silent", "2"),
        ("threshold.undetermined", "1"),
    ]


def test_no_more_are_shown_than_there_is_room_for() -> None:
    assert len(latest_events([event(n, "agent.silent", f"agent/{n}") for n in range(1, 20)])) == EVENTS_SHOWN
