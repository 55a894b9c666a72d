"""Who may speak, as the access rows that were applied so far have it. Pure; the intake asks it at each Hello."""

from dataclasses import dataclass, field

from .rows import CLONE_SEEN, ENDING, ENROLLED, KEY_CHANGED, REVOKED, AccessRow

_WHY = {
    REVOKED: "was revoked",
    KEY_CHANGED: "took another record key; this one does not count any more",
    CLONE_SEEN: "has a key that is in use twice; both copies are refused",
}


@dataclass(slots=True)
class Standing:
    """What all rows up to `access_no` come to."""

    access_no: int = 0
    #: agent id -> why no record of it is taken any more.
    barred: dict[bytes, str] = field(default_factory=dict)
    #: agent id -> node of those who came by a token. The id is the hash of the record key, so that it says which key.
    enrolled: dict[bytes, str] = field(default_factory=dict)
    #: (agent id, node, access_no) of every clone that was seen.
    clones: list[tuple[bytes, str, int]] = field(default_factory=list)

    def fault(self, agent_id: bytes, node: str) -> str:
        """Why an agent of that name may not speak; "" = by these rows it may."""
        why = self.barred.get(agent_id, "")
        if why:
            return why
        name = self.enrolled.get(agent_id, node)
        if name != node:
            return (
                f"agent {agent_id.hex()} enrolled as node {name!r}, and says that it is {node!r}; give it that name "
                "(--node), or a new join token under the other"
            )
        return ""

    def apply(self, row: AccessRow) -> None:
        """The next row. Rows that change nobody's standing need not be given."""
        self.access_no = row.access_no
        if row.kind in ENDING:
            self.barred[row.agent_id] = f"agent {row.agent_id.hex()} ({row.subject}) {_WHY[row.kind]}"
            if row.kind == CLONE_SEEN:
                self.clones.append((row.agent_id, row.subject, row.access_no))
        elif row.kind == ENROLLED:
            self.enrolled[row.agent_id] = row.subject
