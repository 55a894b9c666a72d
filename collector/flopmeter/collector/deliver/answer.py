"""What the other side of a delivery answered, and what follows from it: done, again, or the dead letters. Pure.

Times are integers of the collector's clock, nanoseconds. The random source is passed in.
"""

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum

SECOND_NS = 1_000_000_000
#: The first retry comes at most this long after the attempt; each further one may wait twice as long …
FIRST_RETRY_NS = 10 * SECOND_NS
#: … up to this.
LAST_RETRY_NS = 900 * SECOND_NS
#: A receiver that asks for time (Retry-After) gets it, up to this.
MOST_ASKED_NS = 3_600 * SECOND_NS
#: No attempt follows another sooner, whatever the jitter: a failing receiver is not hammered.
LEAST_RETRY_NS = SECOND_NS
#: How often one delivery is refused (a 4xx, a 5xx of mail) before it is put aside. With full jitter these are some
#: ten minutes, twenty at most: a receiver that is being deployed answers 404 for less.
MAX_REFUSALS = 8
#: For how long one delivery is tried, from its first attempt on. Standard Webhooks gives 75 hours as its example.
GIVE_UP_HOURS = 72
#: Age alone puts nothing aside before so many attempts: a clock that steps forward does not empty the outbox.
LEAST_ATTEMPTS = 10
MAX_SAID_CHARS = 300

#: A random number of 0 to the argument less one, as `random.Random.randrange`.
Pick = Callable[[int], int]


class Kind(StrEnum):
    """What became of one attempt."""

    DELIVERED = "delivered"
    FAILED = "failed"  # nobody answered, or "not now": tried again until it is too old
    REFUSED = "refused"  # answered, and not this: tried MAX_REFUSALS times
    GONE = "gone"  # never again: the sink stops until the collector is started again


@dataclass(frozen=True, slots=True)
class Answer:
    """One attempt's end. `said` is for people: one printable line, without secrets."""

    kind: Kind
    said: str
    retry_after_ns: int | None = None  # what the other side asked for

    @property
    def delivered(self) -> bool:
        return self.kind is Kind.DELIVERED


def delivered(said: str = "delivered") -> Answer:
    return Answer(Kind.DELIVERED, line(said))


def failed(said: str, retry_after_ns: int | None = None) -> Answer:
    return Answer(Kind.FAILED, line(said), retry_after_ns)


def refused(said: str) -> Answer:
    return Answer(Kind.REFUSED, line(said))


def gone(said: str) -> Answer:
    return Answer(Kind.GONE, line(said))


def line(said: str) -> str:
    """Printable, one line, of bounded length: what a stranger answers is shown to people and kept."""
    shown = "".join(c if c.isprintable() else " " for c in said[: 4 * MAX_SAID_CHARS])
    shown = " ".join(shown.split())
    return shown if len(shown) <= MAX_SAID_CHARS else shown[: MAX_SAID_CHARS - 1] + "…"


def retry_delay_ns(attempts: int, pick: Pick, asked_ns: int | None = None) -> int:
    """How long to wait after attempt number `attempts` (1 …): exponential, full jitter, or what was asked for.

    Full jitter: anything between the least and the whole step, so that many deliveries that failed together do not
    come again together.
    """
    step = min(LAST_RETRY_NS, FIRST_RETRY_NS << min(max(attempts, 1) - 1, 32))
    jittered = LEAST_RETRY_NS + pick(step - LEAST_RETRY_NS + 1)
    if asked_ns is None:
        return jittered
    return max(jittered, min(MOST_ASKED_NS, asked_ns))


@dataclass(frozen=True, slots=True)
class Next:
    """What is noted of a delivery that failed."""

    dead: bool
    due_unix_ns: int


def after_failure(
    answer: Answer,
    *,
    attempts: int,
    refusals: int,
    first_unix_ns: int,
    now_unix_ns: int,
    give_up_ns: int,
    pick: Pick,
) -> Next:
    """Whether a delivery is put aside after this answer, else when it is tried again.

    `attempts` and `refusals` include this one; `first_unix_ns` is when it was first attempted.
    """
    if answer.kind is Kind.GONE:  # nothing is put aside: the whole sink rests
        return Next(dead=False, due_unix_ns=now_unix_ns)
    worn_out = answer.kind is Kind.REFUSED and refusals >= MAX_REFUSALS
    too_old = attempts >= LEAST_ATTEMPTS and now_unix_ns - first_unix_ns >= give_up_ns
    if worn_out or too_old:
        return Next(dead=True, due_unix_ns=now_unix_ns)
    return Next(dead=False, due_unix_ns=now_unix_ns + retry_delay_ns(attempts, pick, answer.retry_after_ns))
