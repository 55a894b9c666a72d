"""What an uplink is told and what it tells: deadlines, who speaks, how it stands."""

from dataclasses import dataclass

from flopmeter.agent.errors import AgentError

from .backoff import DEFAULT_BASE_S, DEFAULT_CAP_S


@dataclass(frozen=True, slots=True)
class Timing:
    """Deadlines of the uplink, in seconds."""

    connect_s: float = 10.0
    handshake_s: float = 10.0
    ack_s: float = 30.0  # records in flight and not one ack: the stream is dead
    heartbeat_s: float = 30.0
    clock_s: float = 300.0  # so often an ack is answered at once by a heartbeat: it tells our wall clock within a round trip
    backoff_base_s: float = DEFAULT_BASE_S
    backoff_cap_s: float = DEFAULT_CAP_S


@dataclass(frozen=True, slots=True)
class Identity:
    """What the Hello says of the agent."""

    node: str
    agent_version: str
    boot_id: bytes


@dataclass(frozen=True, slots=True)
class Status:
    """What `top`, `/metrics` and the log may know of the uplink. A new object at each change."""

    target: str
    connected: bool = False
    connects: int = 0
    last_ack_unix_ns: int = 0  # 0 = none yet
    acked_seq: int = 0
    pushbacks: int = 0
    refusals: int = 0
    last_error: str = ""
    fatal: AgentError | None = None  # the spool's state is not known any more: the agent must restart
