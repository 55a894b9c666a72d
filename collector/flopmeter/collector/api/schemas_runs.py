"""Shapes of what is said of runs. Pure."""

from flopmeter.collector.registry.planned import NOT_BEGUN

from .routes import MAX_POINTS, SEVERITIES, STATUSES, UNITS
from .shapes import (
    ANY_OBJECT,
    COUNT,
    DECIMAL,
    FLAG,
    NUMBER,
    SECONDS,
    SHARE,
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

_FIGURE = ref("Figure")
_VERDICT = one_of("crossed", "below", "undetermined")
_ANSWER = one_of("crossed", "will-be-met", "may-be-met", "not-in-sight", "too-young")
_CROSSES = null(thing(earliest=null(TIME), point=null(TIME), latest=null(TIME)))
_LINE: dict[str, Schema] = {
    "regime": TEXT,
    "title": TEXT,
    "threshold_flop": DECIMAL,
    "comparison": one_of(">", ">="),
    "unit": one_of(*UNITS),
    "counting": TEXT,
    "act": TEXT,
}
_BY_SEVERITY = thing(**dict.fromkeys(SEVERITIES, COUNT))
_COVERAGE = thing(expected_device_seconds=SECONDS, observed_device_seconds=SECONDS)
_FORECAST_LINES = array(
    thing(
        regime=null(TEXT),
        original=null(TEXT),
        answer=_ANSWER,
        by_plan=null(FLAG),
        comparison=TEXT,
        line=TEXT,
        crosses=_CROSSES,
    )
)

SCHEMAS: dict[str, Schema] = {
    "Figure": thing(lower=DECIMAL, point=DECIMAL, upper=DECIMAL)
    | {"description": "What is known: between lower and upper; point is the best single number."},
    "BySeverity": _BY_SEVERITY,
    "RunLine": thing(
        run=TEXT,
        status=null(one_of(*STATUSES)),
        first_seen=null(TIME),
        last_seen=null(TIME),
        executed=null(_FIGURE),
        countable=null(each(_FIGURE)),
        nearest=null(thing(regime=TEXT, verdict=_VERDICT, fraction=NUMBER, fraction_bounds=array(NUMBER))),
        rate=null(thing(flop_per_second=_FIGURE, hour=TIME)),
        forecast=null(
            thing(
                time=TIME,
                until=TIME,
                confidence_percent=COUNT,
                regime=null(TEXT),
                answer=_ANSWER,
                crosses=_CROSSES,
            )
        ),
        classes=null(each(SHARE)),
        coverage=null(_COVERAGE),
        open_events=null(ref("BySeverity")),
        spark=null(thing(from_=TEXT, flop=array(NUMBER))),
        no_forecast=null(one_of("no-line", "not-running", "far", "too-young", "not-yet")),
        fault=null(TEXT),
    ),
    "Runs": paged(
        ref("RunLine"),
        lines=array(thing(**_LINE)),
        shared=array(
            thing(
                run=null(TEXT),
                jobs=COUNT,
                flop=_FIGURE,
                integer_ops=_FIGURE,
                device_seconds=SECONDS,
                first_seen=TIME,
                last_seen=TIME,
            )
        ),
        planned=array(thing(run=TEXT, status=one_of(NOT_BEGUN), declared=ref("Declared"))),
        planned_total=COUNT,
    ),
    "Declared": thing(
        owner=null(TEXT),
        budget_flop=null(DECIMAL),
        hardware=null(TEXT),
        expected_end=null(TIME),
        dtype=null(TEXT),
        purpose=null(TEXT),
        base_models=array(TEXT),
        calibration=null(thing(model=TEXT, flop=DECIMAL, cycles=DECIMAL, error_ppm=DECIMAL)),
        entries=array(COUNT),
        by=array(TEXT),
    ),
    "Run": open_thing(
        as_of=TIME,
        run=TEXT,
        status=one_of(*STATUSES),
        rule=TEXT,
        rules=array(TEXT),
        assigned_by=array(COUNT),
        identities=each(array(TEXT)),
        attempts=array(TEXT),
        declared=null(ANY_OBJECT),
        names=array(ANY_OBJECT),
        first_seen=TIME,
        last_seen=TIME,
        jobs=array(thing(scope=TEXT, kind=TEXT, job=TEXT, user=TEXT, restarts=COUNT)),
        job_count=COUNT,
        declared_dtypes=array(TEXT),
        executed=thing(
            flop=_FIGURE, integer_ops=_FIGURE, flop_and_integer_ops=_FIGURE, sm_elapsed_cycles=DECIMAL
        ),
        accuracy=ANY_OBJECT,
        nominal_sparse_flop=DECIMAL,
        purposes=array(open_thing(purpose=TEXT, flop=_FIGURE, integer_ops=_FIGURE)),
        countable=each(open_thing(flop=_FIGURE, unreported=_FIGURE, unit=TEXT, counting=TEXT)),
        by_pipe=each(open_thing(sm_cycles=DECIMAL)),
        by_evidence_class=each(open_thing(flop=_FIGURE, device_seconds=SECONDS, device_time_share=SHARE)),
        by_model=each(open_thing(flop=_FIGURE, device_seconds=SECONDS, device_time_share=SHARE)),
        coverage=thing(
            expected_device_seconds=SECONDS,
            observed_device_seconds=SECONDS,
            gap_device_seconds=SECONDS,
            gaps=each(SECONDS),
        ),
        unreported=open_thing(device_seconds=SECONDS, flop=_FIGURE, nodes=array(TEXT), since=null(TIME)),
        energy_joules=SECONDS,
        energy_unmeasured_device_seconds=SECONDS,
        apportioned_device_seconds=SECONDS,
        thresholds=array(
            open_thing(
                regime=TEXT,
                threshold_flop=DECIMAL,
                verdict=_VERDICT,
                verdict_of_records=_VERDICT,
                fraction=NUMBER,
                fraction_bounds=array(NUMBER),
                event_raised=FLAG,
            )
        ),
        modifications=array(ANY_OBJECT),
        lineage=array(open_thing(name=TEXT, path=array(TEXT), external=FLAG, flop=null(_FIGURE))),
        reasons=array(TEXT),
        width=array(thing(cause=TEXT, flop=DECIMAL, text=TEXT)),
        no_w_table=array(TEXT),
        w_table=TEXT,
        note=TEXT,
        progress=null(ANY_OBJECT),
        forecast=null(
            open_thing(
                time=TIME, confidence_percent=COUNT, until=TIME, state=null(TEXT), lines=_FORECAST_LINES
            )
        ),
        open_events=ref("BySeverity"),
    ),
    "Curve": thing(
        as_of=TIME,
        drawn_as_of=TIME,
        run=TEXT,
        unit=one_of(*UNITS),
        step=one_of("hour", "day"),
        first=TIME,
        last=TIME,
        from_=TIME,
        to=TIME,
        times=array(TIME, most=MAX_POINTS),
        cumulative=thing(
            lower=array(DECIMAL, most=MAX_POINTS),
            point=array(DECIMAL, most=MAX_POINTS),
            upper=array(DECIMAL, most=MAX_POINTS),
        ),
        gaps=array(
            thing(
                from_=TIME,
                to=TIME,
                kind=one_of("gap", "nothing", "bridge"),
                device_seconds=SECONDS,
                reasons=each(SECONDS),
                share=null(SHARE),
            )
        ),
        silent=null(thing(since=TIME, nodes=array(TEXT), device_seconds=SECONDS, flop=_FIGURE)),
        purposes=array(
            thing(
                from_=null(TIME),
                to=null(TIME),
                purpose=TEXT,
                fraction=null(TEXT),
                job=null(TEXT),
                entry=COUNT,
            )
        ),
        jobs=array(
            thing(
                scope=TEXT,
                kind=TEXT,
                job=TEXT,
                user=TEXT,
                attempts=array(thing(restart=COUNT, first_seen=TIME, last_seen=TIME)),
            )
        ),
        jobs_total=COUNT,
        lines=array(thing(**_LINE, counted=_FIGURE, verdict=_VERDICT, verdict_of_records=_VERDICT)),
        forecast=null(
            thing(
                time=TIME,
                until=TIME,
                confidence_percent=COUNT,
                state=one_of("going", "at-rest"),
                now=_FIGURE,
                projected=_FIGURE,
                lines=_FORECAST_LINES,
            )
        ),
    ),
    "Report": open_thing(as_of=TIME, run=TEXT, time=TIME, status=null(TEXT)),
    "Entries": paged(
        thing(
            {"number": COUNT, "position": COUNT},
            time=TIME,
            unix_ns=DECIMAL,
            who=TEXT,
            why=TEXT,
            says=TEXT,
            statement=ANY_OBJECT,
            retracted_by=null(COUNT),
        )
    ),
    "Lineage": thing(
        as_of=TIME,
        run=TEXT,
        nodes=array(
            thing(
                name=TEXT,
                kind=one_of("run", "external", "unknown", "hidden"),
                distance={"type": "integer"},
                flop=null(_FIGURE),
            )
        ),
        edges=array(thing(from_=TEXT, to=TEXT, relation=TEXT)),
        more=FLAG,
    ),
}
