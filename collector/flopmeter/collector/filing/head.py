"""What every draft begins with: that it is one, of what, for whom, and what a person still has to do. Pure."""

from collections.abc import Iterable
from typing import Any

from flopmeter.collector.law.events import NOT_RISK
from flopmeter.collector.paper.blocks import SCHEMA, TO_FILL, WITHHELD, Document, every_field, to_fill
from flopmeter.collector.spelling import time_text

from .material import Material

BANNER = (
    "DRAFT. Made by flopmeter from its books. It is not filed, not signed and not complete: a person checks it, fills "
    "in what is marked, and answers for it. It is engineering output and no legal advice."
)


def draft(
    kind: str,
    title: str,
    m: Material,
    *,
    recipient: str,
    sections: Iterable[Document],
    figures: dict[str, Any] | None = None,
) -> Document:
    """The whole document. `figures`: exact numbers for programs; absent where the recipient is not owed them."""
    document: Document = {
        "schema": SCHEMA,
        "kind": kind,
        "status": "DRAFT",
        "banner": BANNER,
        "title": title,
        "run": m.run,
        "recipient": recipient,
        "made": time_text(m.now_unix_ns),
        "sections": list(sections),
        "note": NOT_RISK,
    }
    fields = list(every_field(document))
    document["to_fill"] = [f["name"] for f in fields if f["state"] == TO_FILL]
    document["withheld"] = [
        {"name": f["name"], "reason": f["note"]} for f in fields if f["state"] == WITHHELD
    ]
    if figures is not None:
        document["figures"] = figures
    return document


def filer(*more: Document) -> list[Document]:
    """Who files: nothing of that is in the books."""
    return [
        to_fill("filer.name", "Provider", "legal name and address of whoever files"),
        to_fill("filer.contact", "Contact", "a person, with address and telephone"),
        to_fill("filer.model", "Model", "the name under which it is or will be placed on the market"),
        *more,
        to_fill(
            "filer.signature", "Signed by", "name, role and date: only after a person has checked the whole"
        ),
    ]
