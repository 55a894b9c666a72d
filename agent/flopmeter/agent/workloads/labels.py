"""Names from drivers and jobs, made such that they may stand in the books. Pure."""

from dataclasses import replace

from flopmeter.contract.limits import MAX_LABEL_CHARS
from flopmeter.contract.usage import Workload

_MAX_RESTART = (1 << 32) - 1


def tidy_label(text: str) -> str:
    """`text` as the contract allows names: printable, not padded, at most MAX_LABEL_CHARS."""
    kept = "".join(c if c.isprintable() else "_" for c in text).strip()
    return kept[:MAX_LABEL_CHARS].strip()


def tidy(workload: Workload) -> Workload:
    """The same workload with names that the contract allows: printable, not padded, not too long."""
    texts = (workload.job, workload.step, workload.run, workload.user, workload.dtype)
    fits = all(len(t) <= MAX_LABEL_CHARS and (not t or (t.isprintable() and t == t.strip())) for t in texts)
    if fits and 0 <= workload.restart <= _MAX_RESTART:
        return workload
    restart = min(max(workload.restart, 0), _MAX_RESTART)
    job, step, run, user, dtype = (tidy_label(t) for t in texts)
    return replace(workload, job=job, step=step, run=run, user=user, dtype=dtype, restart=restart)
