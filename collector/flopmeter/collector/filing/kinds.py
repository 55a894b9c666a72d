"""The kinds of drafts, and which regime's act calls for which. Pure."""

from dataclasses import dataclass

from flopmeter.collector.errors import FilingError
from flopmeter.collector.law.regimes import MODIFICATION, RUN, Regime
from flopmeter.collector.paper.blocks import Document

from . import coverage_notice as coverage
from . import eu_documentation as documentation
from . import eu_notification as notification
from . import korea
from .eu_documentation import Recipient
from .material import Material


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind. `act` is that of the regimes that call for it; `regime` the one it is made under unless another is named."""

    id: str
    act: str
    regime: str  # "": all of the act
    what: str  # for people, one line


KINDS = {
    k.id: k
    for k in (
        Kind(
            notification.KIND,
            "notification",
            notification.REGIME,
            "EU AI Act Art. 52(1), at 10^25: the notification",
        ),
        Kind(
            documentation.KIND,
            "documentation",
            documentation.REGIME,
            "EU Model Documentation Form: its compute fields",
        ),
        Kind(
            korea.KIND, "submission", korea.REGIME, "Korea AI Basic Act Art. 32: data part of the submission"
        ),
        Kind(
            coverage.KIND,
            coverage.ACT,
            "",
            "CA, NY, IL, CT: covered, or will be (no report of compute)",
        ),
    )
}


def make(
    kind: Kind, m: Material, *, regime_id: str | None = None, recipient: Recipient = Recipient.AI_OFFICE
) -> Document:
    """The draft. Raises FilingError for a regime that the kind is not about."""
    if kind.id == coverage.KIND:
        return coverage.coverage_notice(m, _covering(m, regime_id))
    regime = m.regime(regime_id or kind.regime)
    if regime.scope != RUN and not (kind.id == notification.KIND and regime.scope == MODIFICATION):
        raise FilingError(
            f"regime {regime.id!r}: expected one whose scope is a run, got scope {regime.scope!r}",
            f"leave --regime out for {kind.regime}",
        )
    if regime.act != kind.act and regime.id != kind.regime:
        raise FilingError(
            f"regime {regime.id!r}: expected one whose act is {kind.act}, got {regime.act}",
            f"leave --regime out for {kind.regime}",
        )
    if kind.id == notification.KIND:
        return notification.eu_notification(m, regime)
    if kind.id == korea.KIND:
        return korea.korea_submission(m, regime)
    return documentation.eu_documentation(m, regime, recipient)


def _covering(m: Material, regime_id: str | None) -> list[Regime]:
    every = [r for r in m.regimes if r.act == coverage.ACT and r.scope == RUN]
    if regime_id is None:
        return every
    found = m.regime(regime_id)
    if found not in every:
        raise FilingError(
            f"regime {regime_id!r}: expected one whose act is {coverage.ACT}, got {found.act}",
            f"one of {', '.join(r.id for r in every)}, or leave it out for all",
        )
    return [found]
