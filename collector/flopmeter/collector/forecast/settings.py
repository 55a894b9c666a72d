"""How forecasts are made here: confidence and horizon. Pure."""

from typing import NamedTuple

from .project import CONFIDENCES, DAY_NS

MAX_HORIZON_DAYS = 3_650


class Outlook(NamedTuple):
    """What *known that it will be met* means at this site."""

    confidence_percent: int = 90  # of the interval whose lower edge must meet the line
    horizon_days: int = 30  # how far ahead, for a run that declares no end

    @property
    def horizon_ns(self) -> int:
        return self.horizon_days * DAY_NS

    @property
    def fault(self) -> str | None:
        """What is wrong with it, if anything."""
        if self.confidence_percent not in CONFIDENCES:
            return (
                f"a confidence of {', '.join(map(str, CONFIDENCES))} percent, got {self.confidence_percent}"
            )
        if not 1 <= self.horizon_days <= MAX_HORIZON_DAYS:
            return f"a horizon of 1 to {MAX_HORIZON_DAYS} days, got {self.horizon_days}"
        return None


DEFAULT = Outlook()
