"""The shape of every answer, and of what is sent: `components.schemas` of the OpenAPI document. Pure."""

from flopmeter.collector.chained_words import MAX_TEXT_CHARS
from flopmeter.collector.duty.answers import OUTCOMES

from .routes import SEVERITIES, STATES, STATUSES
from .schemas_fleet import SCHEMAS as OF_FLEET
from .schemas_runs import SCHEMAS as OF_RUNS
from .shapes import (
    ANY_OBJECT,
    COUNT,
    DECIMAL,
    FLAG,
    HEX,
    SECONDS,
    TEXT,
    TIME,
    Schema,
    array,
    each,
    null,
    one_of,
    open_thing,
    paged,
    ref,
    thing,
)

_ANSWER = thing(
    {"number": COUNT},
    time=TIME,
    unix_ns=DECIMAL,
    state=one_of(*STATES),
    outcome=null(one_of(*OUTCOMES)),
    who=TEXT,
    why=TEXT,
)
_EVENT = {
    "specversion": one_of("1.0"),
    "id": HEX,
    "source": TEXT,
    "type": TEXT,
    "subject": TEXT,
    "time": TIME,
    "datacontenttype": one_of("application/json"),
    "severity": one_of(*SEVERITIES),
    "data": ANY_OBJECT,
}
_POSITIONS = {"sinceposition": DECIMAL, "position": DECIMAL}
_WHY = {"type": "string", "minLength": 1, "maxLength": MAX_TEXT_CHARS, "description": "One printable line."}

SCHEMAS: dict[str, Schema] = {
    "Problem": thing({"hint": TEXT}, type_=TEXT, title=TEXT, status={"type": "integer"}, detail=TEXT),
    "Overview": thing(
        as_of=TIME,
        version=TEXT,
        runs=thing(total=COUNT, by_status=thing(**dict.fromkeys(STATUSES, COUNT))),
        nodes=null(thing(total=COUNT, by_status=each(COUNT))),
        gpus=null(thing(total=COUNT, by_code=each(COUNT))),
        coverage=null(thing(expected_device_seconds=SECONDS, observed_device_seconds=SECONDS)),
        unattributed=null(thing(device_seconds=SECONDS, flop=ref("Figure"))),
        events=thing(open_=COUNT, by_severity=ref("BySeverity")),
        deadlines=thing(open_=COUNT, overdue=COUNT),
        next_deadline=null(
            thing(id=HEX, regime=TEXT, run=null(TEXT), act=TEXT, recipient=TEXT, due=TIME, overdue=FLAG)
        ),
        log=null(thing(size=COUNT, covered=COUNT, checkpoint=null(TIME))),
    ),
    "State": thing(
        as_of=TIME,
        position=null(DECIMAL),
        event=null(COUNT),
        answer=null(COUNT),
        entry=null(COUNT),
        mark=HEX,
    ),
    "Answer": _ANSWER,
    "ListedEvent": thing(_POSITIONS, **_EVENT, state=one_of(*STATES), answer=null(ref("Answer"))),
    "Events": paged(ref("ListedEvent")),
    "Event": thing(
        as_of=TIME,
        event=thing(
            _POSITIONS,
            **_EVENT,
            state=one_of(*STATES),
            answer=null(ref("Answer")),
            over=null(thing(since=null(TIME), because=TEXT)),
        ),
        answers=array(ref("Answer")),
        deadlines=array(ref("ListedDeadline")),
    ),
    "Answered": thing(id=HEX, was=one_of(*STATES), answer=ref("Answer")),
    "EventAnswer": thing(state=one_of(*STATES), why=_WHY),
    "DeadlineAnswer": {
        "anyOf": [
            thing(state=one_of("resolved"), outcome=one_of(*OUTCOMES), why=_WHY),
            thing(state=one_of("open", "acknowledged"), why=_WHY),
        ]
    },
    "ListedDeadline": thing(
        id=HEX,
        state=one_of(*STATES),
        outcome=null(one_of(*OUTCOMES)),
        regime=TEXT,
        rule=TEXT,
        rule_digest=HEX,
        regime_digest=HEX,
        run=null(TEXT),
        act=TEXT,
        what=TEXT,
        recipient=TEXT,
        trigger=TIME,
        due=TIME,
        due_unix_ns=DECIMAL,
        timezone=TEXT,
        due_local=TEXT,
        opened=TIME,
        overdue=FLAG,
    ),
    "Deadlines": paged(ref("ListedDeadline")),
    "Deadline": thing(
        as_of=TIME,
        deadline=ref("ListedDeadline"),
        trigger_event=null(thing(_POSITIONS, **_EVENT)),
        answers=array(ref("Answer")),
        note=null(TEXT),
    ),
    "Regimes": paged(open_thing(id=TEXT, title=TEXT, status=TEXT, scope=TEXT, in_force=FLAG)),
    "Evidence": thing(
        as_of=TIME,
        log=thing(
            origin=null(TEXT),
            vkey=null(TEXT),
            size=COUNT,
            leaves=each(COUNT),
            waiting=each(COUNT),
            checkpoint=null(
                thing(
                    number=COUNT,
                    size=COUNT,
                    root=HEX,
                    time=TIME,
                    cosigned_by=array(TEXT),
                    note=TEXT,
                )
            ),
        ),
        witnesses=array(
            thing(
                name=TEXT,
                vkey=TEXT,
                known_size=COUNT,
                cosigned_size=null(COUNT),
                cosigned=null(TIME),
                asked=TIME,
                error=null(TEXT),
            )
        ),
        timestamps=array(thing(tsa=TEXT, checkpoint=COUNT, time=TIME)),
        fsck=null(
            thing(
                outcome=one_of("ok", "differs"), time=TEXT, position=TEXT, version=TEXT, difference=null(TEXT)
            )
        ),
        attestations=array(open_thing(attestation=TEXT, run=TEXT, profile=TEXT, who=TEXT, why=TEXT)),
        attestations_total=COUNT,
    ),
    "Verified": open_thing(verified=FLAG, key=TEXT),
    "File": {"type": "string", "minLength": 1, "contentMediaType": "application/octet-stream"},
    "OpenApi": open_thing(openapi=TEXT, info=ANY_OBJECT, paths=ANY_OBJECT),
    **OF_RUNS,
    **OF_FLEET,
}
