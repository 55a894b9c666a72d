"""What was seen of who a workload is: names and values, all kept; the collector's rules choose one (docs/runs.md).

The prefix of a name says who could have written the value:

    env:NAME, declared:NAME       the job's user: corroboration, never alone proof of whose job it was
    label:KEY, annotation:KEY     whoever may create the pod
    slurm.*, k8s.*, host.*        the scheduler, the kubelet, the kernel: root
"""

import re
from collections.abc import Iterable
from itertools import pairwise
from typing import NamedTuple

from .errors import ContractError
from .ids import check_label

#: Of one workload. The largest label table (reference/deploy.md 1.4) names fewer for one pod.
MAX_IDENTITIES = 32
_NAME = re.compile(r"[a-z0-9][A-Za-z0-9._:/-]{0,127}\Z")
_USERS = ("env:", "declared:")


class Identity(NamedTuple):
    """One thing that names a workload, e.g. ("label:jobset.sigs.k8s.io/jobset-name", "llama-pretrain")."""

    name: str
    value: str

    @property
    def by_user(self) -> bool:
        """Whether the job's own user could have written it."""
        return self.name.startswith(_USERS)


Identities = tuple[Identity, ...]


def identities(found: Iterable[tuple[str, str]]) -> Identities:
    """The canonical form: by name, each name once (the first value stays), none empty. Not checked."""
    first: dict[str, str] = {}
    for name, value in found:
        if value:
            first.setdefault(name, value)
    return tuple(Identity(name, first[name]) for name in sorted(first))


def check_identities(found: Iterable[tuple[str, str]]) -> Identities:
    """Return `found` if it is in canonical form and within the limits, else raise ContractError."""
    given = tuple(Identity(name, value) for name, value in found)
    if len(given) > MAX_IDENTITIES:
        raise ContractError(f"identities: expected at most {MAX_IDENTITIES} of a workload, got {len(given)}")
    for name, value in given:
        if not _NAME.match(name):
            raise ContractError(
                f"identities: expected a name such as 'slurm.name' or 'label:app', got {name[:80]!r}"
            )
        if not check_label(f"identity {name}", value):
            raise ContractError(f"identity {name}: expected a value, got none; leave it out instead")
    if any(a.name >= b.name for a, b in pairwise(given)):
        raise ContractError("identities: expected them ordered by name, each name once")
    return given
