"""Something the books must explain that happened outside of any window. Kept on disk until it is in one."""

import json
from dataclasses import dataclass

from flopmeter.contract.usage import NoticeKind


@dataclass(frozen=True, slots=True)
class Remark:
    """A notice for the next batch. `name` is that of the file that keeps it; "" = it is in memory only."""

    kind: NoticeKind
    detail: str
    name: str = ""

    def dump(self) -> bytes:
        return json.dumps({"kind": int(self.kind), "detail": self.detail}).encode() + b"\n"


def load_remark(name: str, raw: bytes) -> Remark | None:
    """The remark that was dumped; None for anything else."""
    try:
        data = json.loads(raw)
        return Remark(NoticeKind(data["kind"]), str(data["detail"]), name)
    except (KeyError, TypeError, ValueError, RecursionError):
        return None
