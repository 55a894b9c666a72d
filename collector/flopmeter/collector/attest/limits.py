"""What no attestation proves, in the sentences that stand in each one, and in docs/threat-model.md. Pure.

Source: reference/attestation.md section 5, "out of reach" and what its table leaves over.
"""

from collections.abc import Sequence

#: Said in `scope.limits` of every attestation.
LIMITS = (
    (
        "Everything here proves that what was recorded has not been changed since; nothing proves that it was recorded "
        "truthfully, or that nothing was left out."
    ),
    (
        "Hardware that nobody metered is in no total: accelerators without an agent, other vendors' accelerators, and compute "
        "rented or run elsewhere."
    ),
    (
        "Whoever controls a node's driver, all of its signals and its agent from the first reading on can make them up "
        "consistently."
    ),
    "Records that a node and the collector delete together before they are logged are missed only as a gap in time.",
    (
        "What work was for, and which runs belong together, is the operator's word: counters show how much was computed, not "
        "what for."
    ),
    "Data can be made late and dated early within one checkpoint interval.",
    (
        "Without a witness outside the operator's control, a log that was set back or shown in two versions is found only by "
        "those who keep and compare its heads."
    ),
    "Work after the period's end is not covered.",
    "Compute is a trigger for scrutiny, not a measure of risk.",
)
#: Added where the run stands on a model of whose compute nobody stated a figure.
UNKNOWN_ANCESTORS = (
    "{count} of the models that the run stands on have no stated figure: none of theirs is in a total."
)
UNWITNESSED, TIMESTAMPED, WITNESSED = "unwitnessed", "timestamped", "witnessed"


def assurance(cosigned: Sequence[str], named: Sequence[str], timestamps: int, *, quorum: bool = True) -> str:
    """The level in words, as each attestation states it (reference/attestation.md section 5, Time).

    `named`: the witnesses of the operator's policy; `cosigned`: those of them under the checkpoint; `quorum`: whether
    these are as many as that policy asks for. Too few are named, and do not count.
    """
    times = f"; {timestamps} RFC 3161 timestamps of it" if timestamps else ""
    who = f"{len(cosigned)} of {len(named)} that the operator names: {', '.join(cosigned)}"
    if cosigned and quorum:
        return f"Assurance: {WITNESSED} ({who}){times}."
    by_whom = f"short of the operator's quorum ({who})" if cosigned else "no witness cosigned the checkpoint"
    if timestamps:
        return f"Assurance: {TIMESTAMPED}: {by_whom}{times}."
    return f"Assurance: {UNWITNESSED}: self-consistent only; {by_whom}, and nobody dates it."
