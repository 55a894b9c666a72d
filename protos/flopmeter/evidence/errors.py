"""The kit's one error: evidence that does not hold, by the step of the check (reference/attestation.md 1.4)."""


class EvidenceError(ValueError):
    """The evidence does not hold: `step` names the check that it failed, `reason` says what was found there.

    Steps of this library: `checkpoint` (note, keys, policy, quorum), `consistency`, `inclusion`,
    `disclosures`, `sum tree`; the verifier adds those of the bundle, the statement and the pack.
    """

    def __init__(self, step: str, reason: str) -> None:
        super().__init__(f"{step}: {reason}")
        self.step = step
        self.reason = reason
