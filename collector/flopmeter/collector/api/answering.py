"""From a question to its answer: dispatch by the table of routes."""

import logging
from collections.abc import Callable, Mapping

from flopmeter.collector.errors import CollectorError, StoreChangedError

from . import say_curve, say_duties, say_evidence, say_fleet, say_runs, say_site
from .asking import Wish, wish_of
from .books import TRIES, Books
from .openapi import document_bytes
from .problems import Problem
from .question import MAX_BODY_BYTES, Answer, Question
from .routes import JSON
from .say_metrics import metrics_of_runs
from .told import answer_of

log = logging.getLogger(__name__)


def _openapi(_: Books, __: Wish) -> bytes:
    return document_bytes()


#: By Route.name. A function returns the body, or raises Problem.
FUNCTIONS: Mapping[str, Callable[[Books, Wish], bytes]] = {
    "overview": say_site.overview,
    "state": say_site.state,
    "runs": say_runs.runs,
    "run": say_runs.run,
    "curve": say_curve.curve,
    "report": say_runs.report,
    "entries": say_runs.entries,
    "lineage": say_runs.lineage,
    "events": say_duties.events,
    "event": say_duties.event,
    "answer_event": say_duties.answer_event,
    "deadlines": say_duties.deadlines,
    "deadline": say_duties.deadline,
    "answer_deadline": say_duties.answer_deadline,
    "regimes": say_site.regimes,
    "fleet": say_fleet.fleet,
    "node": say_fleet.node,
    "inventory": say_fleet.inventory,
    "tenants": say_fleet.tenants,
    "evidence": say_evidence.evidence,
    "checkpoint": say_evidence.checkpoint,
    "verify": say_evidence.verify,
    "openapi": _openapi,
}


#: What the HTTP port asks for itself. It lets nobody outside ask what is not in its own table (web/may.py).
OF_METRICS = ("GET", ("metrics-of-runs",))


def answer(question: Question, books: Books) -> Answer:
    """Never raises: what goes wrong is an answer too, and a line of the log."""
    try:
        if (question.method, question.segments) == OF_METRICS:
            return Answer(200, JSON, metrics_of_runs(books))
        wish = wish_of(question)
        return answer_of(wish, _small(_made(books, wish)))
    except Problem as e:
        return e.answer()
    except CollectorError as e:
        log.warning("GET /api/v1/%s: %s", "/".join(question.segments), e)
        return _fault(question, str(e), e.hint)
    except Exception:
        log.exception("%s /api/v1/%s", question.method, "/".join(question.segments))
        return _fault(question, "the answer could not be made", "the collector's log says why")


def _made(books: Books, wish: Wish) -> bytes:
    for attempt in range(TRIES):
        try:
            return FUNCTIONS[wish.route.name](books, wish)
        except (
            StoreChangedError
        ):  # a collector started on the store meanwhile: it is read as one that is written now
            if attempt == TRIES - 1 or wish.route.method != "GET":
                raise
    raise AssertionError


def _small(body: bytes) -> bytes:
    """Raise Problem for one that fits no frame: it would end the process, and with it everybody's answers."""
    if len(body) > MAX_BODY_BYTES:
        raise Problem(
            500,
            f"the answer: expected at most {MAX_BODY_BYTES} bytes, it has {len(body)}",
            "ask for a smaller `limit`, or take the command of the same name, which prints it whole",
        )
    return body


def _fault(question: Question, said: str, hint: str) -> Answer:
    """Where the store lies, and what of others is wrong in it, is not a tenant's to know."""
    if question.tenant:
        return Problem(
            503, "the books cannot be read now", "ask again; if it stays so, ask who runs the collector"
        ).answer()
    return Problem(503, said, hint).answer()
