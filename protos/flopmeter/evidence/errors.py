"""The kit's one error: evidence that does not hold, by the step of the check (reference/attestation.md 1.4)."""


class EvidenceError(ValueError):
    """`step` names the check that failed (docs/attestation-format.md), `reason` says what was found."""

    def __init__(self, step: str, reason: str) -> None:
        super().__init__(f"{step}: {reason}")
        self.step, self.reason = step, reason


def require(holds: object, step: str, reason: str) -> None:
    if not holds:
        raise EvidenceError(step, reason)
