"""What is known of a Slurm job beyond its id, and as what it is shipped. Pure.

Two that know: the prolog on this node (root wrote its file before the job's first process ran) and squeue.
"""

from dataclasses import dataclass, replace

from flopmeter.contract.identity import Identities, identities
from flopmeter.contract.usage import Workload

from .labels import tidy_label
from .slurm_cgroup import SLUID
from .slurm_life import Kin, Life, kin

#: First line of a prolog's facts, so that a later form can be told.
FACTS_HEADER = "flopmeter-slurm-job/1"
MAX_FACTS_BYTES = 16 << 10
_MAX_NUMBER = (1 << 32) - 1
_MAX_UNIX_S = 1 << 40


@dataclass(frozen=True, slots=True)
class JobFacts:
    """One life of a job. "" or -1 or 0 = not known."""

    job: str
    restart: int = -1
    submit_unix_s: int = 0
    name: str = ""
    user: str = ""
    account: str = ""
    partition: str = ""
    cluster: str = ""
    array_job: str = ""
    array_task: str = ""
    het_job: str = ""
    het_offset: str = ""
    sluid: str = ""

    @property
    def life(self) -> Life:
        return Life(self.restart, self.submit_unix_s, self.user, self.array_job, self.sluid)

    def identities(self) -> Identities:
        """As the contract wants them: each value a label, what is not known left out."""
        return identities(
            (f"slurm.{name}", tidy_label(value))
            for name, value in (
                ("name", self.name),
                ("account", self.account),
                ("partition", self.partition),
                ("cluster", self.cluster),
                ("array_job", self.array_job),
                ("array_task", self.array_task),
                ("het_job", self.het_job),
                ("het_offset", self.het_offset),
                ("sluid", self.sluid),
                ("submit_unix_s", str(self.submit_unix_s) if self.submit_unix_s else ""),
            )
        )

    def put_to(self, workload: Workload) -> Workload:
        """`workload` with what is known of its job; what it says itself of the user stays, the rest is Slurm's."""
        return replace(
            workload,
            user=workload.user or tidy_label(self.user),
            restart=self.restart if self.restart >= 0 else workload.restart,
            identities=identities([*self.identities(), *workload.identities]),  # of two the first stays
        )


def together(prolog: JobFacts | None, asked: JobFacts | None) -> JobFacts | None:
    """What both say of one job id; of two lives the prolog's, unless squeue tells of a later one of the same job."""
    if prolog is None or asked is None:
        return prolog or asked
    if kin(prolog.life, asked.life) is Kin.REQUEUED:
        return asked  # this node's file was left behind by the life before
    before = kin(asked.life, prolog.life)
    if before is Kin.OTHER:
        return prolog
    same = {name: getattr(prolog, name) or getattr(asked, name) for name in _OF_THE_JOB}
    if before is Kin.REQUEUED:
        return replace(
            prolog, **same
        )  # squeue was asked before: what names the job holds, what names that life not
    return replace(
        prolog,
        restart=prolog.restart if prolog.restart >= 0 else asked.restart,
        submit_unix_s=prolog.submit_unix_s or asked.submit_unix_s,
        sluid=prolog.sluid or asked.sluid,
        **same,
    )


_OF_THE_JOB = (
    "name", "user", "account", "partition", "cluster", "array_job", "array_task", "het_job", "het_offset",
)  # fmt: skip


def outdated(prolog: JobFacts | None, asked: JobFacts | None) -> bool:
    """Whether squeue was asked before the life that runs now began."""
    if prolog is None or asked is None or kin(prolog.life, asked.life) is Kin.REQUEUED:
        return False
    return kin(asked.life, prolog.life) in (Kin.REQUEUED, Kin.OTHER)


def parse_facts(raw: bytes, job: str) -> JobFacts:
    """The file that our prolog wrote for `job`: a header, then key=value lines. Raises ValueError that says why.

    Keys that are not known are passed over, so that a newer prolog does no harm.
    """
    if len(raw) > MAX_FACTS_BYTES:
        raise ValueError(f"expected at most {MAX_FACTS_BYTES} bytes")
    lines = raw.decode(errors="replace").split("\n")
    if lines[0].strip() != FACTS_HEADER:
        raise ValueError(f"expected a first line {FACTS_HEADER!r}, got {lines[0][:40]!r}")
    given: dict[str, str] = {}
    for line in lines[1:]:
        key, equals, value = line.partition("=")
        if equals:
            given.setdefault(key, value.strip())
    if given.get("job") != job:
        raise ValueError(f"expected facts of job {job}, got {given.get('job', 'no job')[:40]!r}")
    return JobFacts(
        job,
        restart=_number(given.get("restart", ""), _MAX_NUMBER, absent=-1),
        submit_unix_s=_number(given.get("submit_unix_s", ""), _MAX_UNIX_S, absent=0),
        name=given.get("name", ""),
        user=given.get("user", ""),
        account=given.get("account", ""),
        partition=given.get("partition", ""),
        cluster=given.get("cluster", ""),
        array_job=_id(given.get("array_job", "")),
        array_task=_id(given.get("array_task", "")),
        het_job=_id(given.get("het_job", "")),
        het_offset=_id(given.get("het_offset", "")),
        sluid=given["sluid"] if SLUID.match(given.get("sluid", "")) else "",
    )


def _number(text: str, most: int, *, absent: int) -> int:
    if not (text.isascii() and text.isdigit() and len(text) <= 20):
        return absent
    number = int(text)
    return number if number <= most else absent


def _id(text: str) -> str:
    """A number of Slurm's as text; "" where it is none."""
    number = _number(text, _MAX_NUMBER, absent=-1)
    return str(number) if number >= 0 else ""
