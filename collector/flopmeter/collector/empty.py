"""What a list says where there is nothing in it: that, and what to do next. Pure."""


def nothing(what: str, *steps: tuple[str, str]) -> str:
    """`what` there is nothing of, and commands with what each is for; a page of 80 columns holds them."""
    widest = max((len(command) for command, _ in steps), default=0)
    return "\n".join([what, *(f"  {command:<{widest}}  {why}" for command, why in steps)])


_NODES = ("flopmeter fleet list", "which nodes report, and what is missing")
_JOIN = ("flopmeter collector token create", "a token for a node to join by")
_AGENT = ("flopmeter agent run --help", "then on the node: how its agent is started")
_DEMO = ("flopmeter demo", "a simulated cluster to look at")
_LAWS = ("flopmeter regimes list", "the lines that runs are held against")
_RUNS = ("flopmeter runs list", "where each run stands")

RUNS = nothing(
    "no runs yet: a run appears with the first window of a job on a metered GPU", _NODES, _JOIN, _AGENT, _DEMO
)
NODES = nothing("no nodes yet: none has an agent that was let in", _JOIN, _AGENT, _DEMO)
GPUS = nothing("no GPUs yet: no node has an agent that was let in", _JOIN, _AGENT, _DEMO)
TENANTS = nothing("no runs yet: nobody's workload has been metered", _NODES, _DEMO)
EVENTS = nothing(
    "no events: nothing was crossed, lost or forked",
    _RUNS,
    _LAWS,
    ("flopmeter events test --help", "whether somebody would hear of one"),
)
NO_EVENT_MATCHES = nothing("no event matches", ("flopmeter events list", "all of them"))
DEADLINES = nothing(
    "no deadlines: nothing has started a clock",
    _RUNS,
    _LAWS,
    ("flopmeter deadlines open --help", "start one that only a person can: an incident"),
)
NO_DEADLINE_MATCHES = nothing("no deadline matches", ("flopmeter deadlines list", "all of them"))
ATTESTATIONS = nothing(
    "no attestation was issued from this store",
    _RUNS,
    ("flopmeter attest create --help", "a signed statement about a run"),
)
ENTRIES = nothing(
    "no entries: nobody has said anything of a run yet",
    ("flopmeter runs declare --help", "whose a run is, and what it will come to"),
    ("flopmeter runs assign --help", "which job belongs to it"),
    ("flopmeter runs tag --help", "what a span of it was for"),
)
TOKENS = nothing(
    "No token was made.",
    ("flopmeter collector token create", "for a node"),
    ("flopmeter collector token create --role viewer --name WHO", "for a person"),
)
AGENTS = nothing("No agent was let in.", _JOIN, _AGENT)
JUDGED = nothing(
    "Nothing is judged by: no collector with regimes has committed to this store.",
    ("flopmeter collector serve --help", "start one on it"),
    _LAWS,
)
