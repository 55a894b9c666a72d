"""Shapes of what is said of the fleet. Pure."""

from .shapes import (
    ANY_OBJECT,
    COUNT,
    FLAG,
    NUMBER,
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

_MISSING = thing(
    node=TEXT, cause=TEXT, gpus=null(COUNT), since=null(TIME), what=TEXT, missing_device_seconds=SECONDS
)
_UNOWNED = thing(device_seconds=SECONDS, flop=ref("Figure"), integer_ops=ref("Figure"))
_COLUMN = thing(values=array(TEXT), of=null(array(COUNT)))
_COVERAGE = thing(
    expected_device_seconds=SECONDS,
    observed_device_seconds=SECONDS,
    gap_device_seconds=SECONDS,
    gaps=each(SECONDS),
)
_OFFSET = thing(
    lower_seconds=NUMBER, point_seconds=NUMBER, upper_seconds=NUMBER, surely_off=FLAG, measured=TIME
)
_CODE = one_of(*"A3BCDgiusx?")

SCHEMAS: dict[str, Schema] = {
    "Fleet": thing(
        as_of=TIME,
        nodes_total=COUNT,
        nodes_by_status=each(COUNT),
        gpus=COUNT,
        entities=COUNT,
        uncovered_devices=COUNT,
        library_disagreements=array(ANY_OBJECT),
        clocks=thing(
            known=COUNT,
            off=array(thing(over_seconds=COUNT, nodes=COUNT)),
            largest_seconds=null(SECONDS),
            furthest=array(thing(node=TEXT, offset=_OFFSET)),
        ),
        device_seconds=SECONDS,
        idle_device_seconds=SECONDS,
        unattributed_device_seconds=SECONDS,
        unattributed_share=NUMBER,
        idle=_UNOWNED,
        unattributed=_UNOWNED,
        coverage=_COVERAGE,
        not_reporting=array(_MISSING),
        not_reporting_total=COUNT,
        rows=thing(
            count=COUNT,
            names={"type": "array", "items": {"type": ["integer", "string"]}},
            status={"type": "string", "pattern": "^[LSPN]*$"},
            gpus=_COLUMN,
            cluster=_COLUMN,
            version=_COLUMN,
            model=_COLUMN,
            marks=_COLUMN,
            newest=null(TIME),
            behind=array(null(COUNT)),
            delay=array(null({"type": "integer"})),
            clock={"type": "string", "pattern": "^[-!a-j]*$"},
            offset=array(array({"type": "integer"})),
        ),
    ),
    "Nodes": paged(
        open_thing(
            node=TEXT,
            cluster=TEXT,
            agent=TEXT,
            agent_version=TEXT,
            admitted=TEXT,
            status=one_of("live", "silent", "stopped", "never"),
            gpus=COUNT,
            entities=COUNT,
            models=each(COUNT),
            driver=TEXT,
            last_seq=COUNT,
            last_window_end=null(TIME),
            last_received=null(TIME),
            lag_seconds=null(SECONDS),
            clock_offset=null(_OFFSET),
            last_window=ANY_OBJECT,
            library_differs=FLAG,
            fault=null(TEXT),
            devices=array(
                thing(
                    entity=TEXT,
                    name=TEXT,
                    parent=TEXT,
                    mig=FLAG,
                    code=_CODE,
                    class_=null(TEXT),
                    device_seconds=SECONDS,
                    holders=array(thing(kind=TEXT, job=TEXT, run=null(TEXT), device_seconds=SECONDS)),
                )
            ),
        )
    ),
    "Inventory": open_thing(
        as_of=TIME,
        clusters=array(ANY_OBJECT),
        sites=array(ANY_OBJECT),
        not_reporting=array(_MISSING),
        w_table=TEXT,
    ),
    "Tenants": open_thing(
        as_of=TIME,
        tenants=array(open_thing(tenant=TEXT, by=TEXT, flop=ref("Figure"), runs=array(ANY_OBJECT))),
        note=TEXT,
        w_table=TEXT,
    ),
}
