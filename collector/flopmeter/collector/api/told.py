"""Helpers of the functions that answer: JSON bodies, pages, times."""

import hashlib
import json
from collections.abc import Callable, Sequence
from typing import Any

from flopmeter.collector.spelling import time_text

from .asking import Wish
from .paging import cursor, number_of
from .problems import Problem, missing, quoted
from .question import Answer
from .view import View


def body_of(document: Any) -> bytes:
    """JSON as it goes out. A name that is no UTF-8 shows a question mark, and is no reason to answer nothing."""
    text = json.dumps(document, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    return text.encode("utf-8", "replace")


def etag_of(body: bytes) -> str:
    return hashlib.sha256(body).hexdigest()[:32]


def answer_of(wish: Wish, body: bytes) -> Answer:
    return Answer(
        wish.route.status, wish.route.kind, body, etag_of(body) if wish.route.method == "GET" else ""
    )


def paged(
    as_of_unix_ns: int, items: Sequence[Any], *, more: Any, total: int, **beside: Any
) -> dict[str, Any]:
    """A list's answer. `more`: the number that the next page begins behind; None: there is none."""
    return {
        "as_of": time_text(as_of_unix_ns),
        **beside,
        "items": list(items),
        "next": None if more is None else cursor(more),
        "total": total,
    }


def page(wish: Wish, found: Sequence[Any], as_of_unix_ns: int) -> bytes:
    """Of a list that only grows at its end."""
    after = number_of(wish.texts["after"]) if "after" in wish.texts else 0
    end = after + wish.numbers["limit"]
    more = end if end < len(found) else None
    return body_of(paged(as_of_unix_ns, found[after:end], more=more, total=len(found)))


def once(view: View, key: tuple[Any, ...], make: Callable[[], Any]) -> bytes:
    """The body that was made of this view for the same question, or a new one."""
    kept = view.kept.get(key)
    if kept is None:
        kept = body_of(make())
        if sum(map(len, view.kept.values())) + len(kept) > _MOST_KEPT_BYTES:
            view.kept.clear()
        view.kept[key] = kept
    return kept


#: Whoever asks for much of everything must not fill the memory of the process that answers.
_MOST_KEPT_BYTES = 16 << 20


def no_run(name: str) -> Problem:
    """Also of a run that is another's: nothing in it tells the two apart."""
    return missing(
        f"run {quoted(name)}: expected a run that this token may see, found none",
        "GET /api/v1/runs lists them",
    )
