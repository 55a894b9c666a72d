"""The one table of the API: what may be asked, by whom, with which parameters, and which shape the answer has. Pure.

Dispatch (answering.py), the OpenAPI document (openapi.py) and docs/api.md are held to it by tests; the HTTP port's
own table of roles (web/may.py) too.
"""

from dataclasses import dataclass
from typing import Literal

from flopmeter.collector.access.tokens import ADMIN, AUDITOR, OPERATOR, VIEWER

JSON = "application/json"
TEXT = "text/plain; charset=utf-8"
#: Of lists: how many items an answer has where nobody says, and at most.
LIMIT, MAX_LIMIT = 100, 1_000
#: Of a curve.
POINTS, MIN_POINTS, MAX_POINTS = 300, 2, 600
#: Of a name, a search text, a cursor. Labels are at most 256 characters; a name may be made of two of them.
MAX_TEXT = 1_024
STATES = ("open", "acknowledged", "resolved")
SEVERITIES = ("info", "notice", "warning", "critical")
STATUSES = ("running", "silent", "stopped")
SORTS = ("size", "run", "last_seen", "nearest", "rate", "open_events")
UNITS = ("floating-point", "integer-or-floating-point")
#: What /verify takes.
MAX_FILE_BYTES = 32 << 20

#: Role -> those that may ask what asks for at least it.
AT_LEAST = {
    VIEWER: frozenset({VIEWER, AUDITOR, OPERATOR, ADMIN}),
    AUDITOR: frozenset({AUDITOR, OPERATOR, ADMIN}),
    OPERATOR: frozenset({OPERATOR, ADMIN}),
}


@dataclass(frozen=True, slots=True)
class Parameter:
    """One of the query. `kind` says how it is read (asking.py)."""

    name: str
    kind: Literal["text", "choice", "count", "time", "flag", "cursor"]
    about: str
    choices: tuple[str, ...] = ()
    low: int = 1
    high: int = MAX_LIMIT
    default: int = LIMIT


@dataclass(frozen=True, slots=True)
class Route:
    """One thing to ask. `path` is below /api/v1; {name} stands for one part."""

    method: str
    path: str
    name: str  # of its function, and operationId
    summary: str
    role: str = VIEWER  # at least
    tenants: bool = True  # whether a token bound to a tenant may ask
    parameters: tuple[Parameter, ...] = ()
    status: int = 200
    kind: str = JSON
    schema: str = ""  # of the answer, in schemas.py; "": no JSON
    takes: str = ""  # schema of what is sent; "": nothing is
    public: bool = False  # whether no token is asked for

    @property
    def parts(self) -> tuple[str, ...]:
        return tuple(self.path.split("/"))


_PAGE = (
    Parameter("limit", "count", "At most so many items."),
    Parameter("after", "cursor", "`next` of the answer before."),
)
_STATE = Parameter("state", "choice", "Only those that stand so with people.", STATES)
_RUN = Parameter("run", "text", "Only those about this run.")
_REGIME = Parameter("regime", "text", "Only those about this regime.")

ROUTES: tuple[Route, ...] = (
    Route("GET", "overview", "overview", "The header of the page.", schema="Overview"),
    Route("GET", "state", "state", "What a watcher compares.", schema="State"),
    Route(
        "GET",
        "runs",
        "runs",
        "Every run, a line each.",
        parameters=(
            Parameter("q", "text", "Part of the name, upper or lower case."),
            Parameter("status", "choice", "Only those of this status.", STATUSES),
            Parameter("sort", "choice", "What comes first; `size` where nothing is said.", SORTS),
            *_PAGE,
        ),
        schema="Runs",
    ),
    Route("GET", "runs/{run}", "run", "One run, as `flopmeter runs show --json`.", schema="Run"),
    Route(
        "GET",
        "runs/{run}/curve",
        "curve",
        "A run's cumulative figures over time.",
        parameters=(
            Parameter("from", "time", "Not before."),
            Parameter("to", "time", "Not after."),
            Parameter("points", "count", "At most so many.", (), MIN_POINTS, MAX_POINTS, POINTS),
            Parameter(
                "unit", "choice", "What one operation is; `floating-point` where nothing is said.", UNITS
            ),
        ),
        schema="Curve",
    ),
    Route("GET", "runs/{run}/report", "report", "What stands behind a run's totals.", schema="Report"),
    Route(
        "GET",
        "runs/{run}/entries",
        "entries",
        "What people said of a run.",
        role=AUDITOR,
        parameters=_PAGE,
        schema="Entries",
    ),
    Route(
        "GET",
        "runs/{run}/lineage",
        "lineage",
        "What a run stands on, and what stands on it.",
        schema="Lineage",
    ),
    Route(
        "GET",
        "events",
        "events",
        "What was raised, the newest first.",
        parameters=(
            _STATE,
            Parameter("severity", "choice", "At least so grave.", SEVERITIES),
            Parameter("type", "text", "A type, or what it begins with."),
            _RUN,
            _REGIME,
            *_PAGE,
        ),
        schema="Events",
    ),
    Route("GET", "events/{id}", "event", "One event, and what people answered.", schema="Event"),
    Route(
        "POST",
        "events/{id}/answers",
        "answer_event",
        "Answer an event.",
        role=OPERATOR,
        status=201,
        schema="Answered",
        takes="EventAnswer",
    ),
    Route(
        "GET",
        "deadlines",
        "deadlines",
        "What is due, the next first; what is resolved last.",
        parameters=(
            _STATE,
            Parameter("overdue", "flag", "true: only those that are past and not resolved."),
            _REGIME,
            _RUN,
            *_PAGE,
        ),
        schema="Deadlines",
    ),
    Route("GET", "deadlines/{id}", "deadline", "One deadline, and what people answered.", schema="Deadline"),
    Route(
        "POST",
        "deadlines/{id}/answers",
        "answer_deadline",
        "Answer a deadline.",
        role=OPERATOR,
        status=201,
        schema="Answered",
        takes="DeadlineAnswer",
    ),
    Route("GET", "regimes", "regimes", "Legal thresholds, as data.", parameters=_PAGE, schema="Regimes"),
    Route("GET", "fleet", "fleet", "Every node, a compact row each.", tenants=False, schema="Fleet"),
    Route("GET", "fleet/nodes/{node}", "node", "One node, with its GPUs.", tenants=False, schema="Nodes"),
    Route(
        "GET", "fleet/inventory", "inventory", "What the fleet is made of.", tenants=False, schema="Inventory"
    ),
    Route(
        "GET", "fleet/tenants", "tenants", "Whose work it was.", role=AUDITOR, tenants=False, schema="Tenants"
    ),
    Route(
        "GET",
        "evidence",
        "evidence",
        "The log, its witnesses, the last fsck, attestations.",
        role=AUDITOR,
        tenants=False,
        schema="Evidence",
    ),
    Route(
        "GET",
        "log/checkpoint",
        "checkpoint",
        "The log's signed head.",
        role=AUDITOR,
        tenants=False,
        kind=TEXT,
    ),
    Route(
        "POST",
        "verify",
        "verify",
        "Check an attestation's file.",
        role=AUDITOR,
        schema="Verified",
        takes="File",
    ),
    Route("GET", "openapi.json", "openapi", "This description.", schema="OpenApi", public=True),
)
