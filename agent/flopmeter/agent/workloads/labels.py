"""Names from drivers and jobs, made such that they may stand in the books. Pure."""

from collections.abc import Iterable
from dataclasses import replace

from flopmeter.contract.errors import ContractError
from flopmeter.contract.identity import MAX_IDENTITIES, Identities, Identity, check_identities, identities
from flopmeter.contract.limits import MAX_LABEL_CHARS
from flopmeter.contract.usage import Workload

_MAX_RESTART = (1 << 32) - 1


def tidy_label(text: str) -> str:
    """`text` as the contract allows names: printable, not padded, at most MAX_LABEL_CHARS."""
    kept = "".join(c if c.isprintable() else "_" for c in text).strip()
    return kept[:MAX_LABEL_CHARS].strip()


def tidy_identities(found: Iterable[tuple[str, str]]) -> Identities:
    """`found` as the contract allows identities. A name that it refuses is left out: it is the program's, no job's.

    Of more than it allows, those that root wrote are kept first, then the cluster's, then the user's own.
    """
    whole = identities((name, tidy_label(value)) for name, value in found)
    kept = [each for each in whole if _fits(each)]
    if len(kept) > MAX_IDENTITIES:
        kept = sorted(sorted(kept, key=_rank)[:MAX_IDENTITIES])
    return tuple(kept)


def tidy(workload: Workload) -> Workload:
    """The same workload with names that the contract allows: printable, not padded, not too long."""
    texts = (workload.job, workload.step, workload.run, workload.user, workload.dtype)
    fits = all(len(t) <= MAX_LABEL_CHARS and (not t or (t.isprintable() and t == t.strip())) for t in texts)
    if fits and 0 <= workload.restart <= _MAX_RESTART and not workload.identities:
        return workload
    restart = min(max(workload.restart, 0), _MAX_RESTART)
    job, step, run, user, dtype = (tidy_label(t) for t in texts)
    return replace(
        workload,
        job=job,
        step=step,
        run=run,
        user=user,
        dtype=dtype,
        restart=restart,
        identities=tidy_identities(workload.identities),
    )


def _fits(identity: Identity) -> bool:
    try:
        check_identities((identity,))
    except ContractError:
        return False
    return True


def _rank(identity: Identity) -> int:
    return 2 if identity.by_user else 1 if identity.name.startswith(("label:", "annotation:")) else 0
