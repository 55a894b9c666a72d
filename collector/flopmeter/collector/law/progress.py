"""What training code claims to have done, hour by hour, and what the counters say of the same hours. Pure.

A claim states tokens so far (contract.usage.Progress). From one claim of a claimer to the next the tokens rise, and
the rise is worth flop_per_token each, or 6 x parameters (reference/regulations.md section 4). Kept is one row per
workload, agent and hour of the books: the latest claim, and what the rises of the hour are worth. Claims are in no
total: they are held against the counters, and nothing else.

- Tokens that fall are a restart at a checkpoint: the fall is counted, and the rises go on from there, since what is
  computed again is executed again.
- The first claim of a claimer is where it begins. Whether its tokens were done since the workload began, or before it
  at a checkpoint, the counters decide: what they cannot have done is not held against them (`compared`).
- `ranks` says whose tokens a claim counts. Those of the whole run (0) stand beside each other, and of claimers at the
  same time the largest is taken; those of processes are added. A claimer that changes its ranks begins anew.
"""

from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple

from flopmeter.collector.estimate.margin import MARGIN_PERCENT
from flopmeter.contract.flop import Figure
from flopmeter.contract.usage import Progress

#: How the keys of events begin that rest on claims.
PROGRESS_PREFIX = "progress:"
#: 6PD: a multiply-add is 2, and the backward pass does twice the forward's products.
FLOP_PER_PARAMETER_AND_TOKEN = 6


class ClaimKey(NamedTuple):
    """A claimer's hour."""

    workload_no: int
    agent_no: int
    hour: int  # since 1970, of the window's end


@dataclass(slots=True)
class ClaimHour:
    """What a claimer said in one hour. FLOP are by its own formula."""

    ranks: int
    tokens: int  # of the latest claim
    parameters: int
    flop_per_token: int  # as the claim says it; 0: 6 x parameters
    flop: int  # of all rises in the hour
    opening_flop: int  # of the tokens that a claimer's first claim begins with; 0 where it goes on
    falls: int
    first_unix_ns: int  # start of the first window with a claim, end of the last one
    last_unix_ns: int


#: The columns of a stored claim, and the two ways between it and the types above.
CLAIM_COLUMNS = (
    "workload_no, agent_no, hour, ranks, tokens, parameters, flop_per_token, flop, opening_flop, falls, "
    "first_unix_ns, last_unix_ns"
)


def stored_claim(key: ClaimKey, row: ClaimHour) -> tuple[int | str, ...]:
    """What may pass 63 bits is text."""
    big = (row.tokens, row.parameters, row.flop_per_token, row.flop, row.opening_flop)
    return (*key, row.ranks, *map(str, big), row.falls, row.first_unix_ns, row.last_unix_ns)


def claim_of(row: Sequence[int | str]) -> tuple[ClaimKey, ClaimHour]:
    """CLAIM_COLUMNS in order."""
    numbers = list(map(int, row))
    return ClaimKey(*numbers[:3]), ClaimHour(*numbers[3:])


def per_token(claim: Progress | ClaimHour) -> int:
    """FLOP of one token; 0: the claim does not say."""
    return claim.flop_per_token or FLOP_PER_PARAMETER_AND_TOKEN * claim.parameters


def add_claims(
    last: ClaimHour | None, current: ClaimHour | None, claims: Sequence[Progress], window: tuple[int, int]
) -> ClaimHour | None:
    """The claimer's hour with one record's claims of it; None where it has none.

    `last`: its latest earlier hour. `current`: this hour before the record, changed in place. `window`: the record's
    wall-clock ends.
    """
    for claim in claims:
        before = current or last
        goes_on = before is not None and before.ranks == claim.ranks
        if current is None:
            current = ClaimHour(claim.ranks, 0, 0, 0, 0, 0, 0, window[0], window[1])
        worth = per_token(claim)
        if before is None or not goes_on:
            current.opening_flop += claim.tokens * worth
        elif claim.tokens < before.tokens:
            current.falls += 1
        else:
            current.flop += (claim.tokens - before.tokens) * worth
        current.ranks, current.tokens = claim.ranks, claim.tokens
        current.parameters, current.flop_per_token = claim.parameters, claim.flop_per_token
        current.last_unix_ns = max(current.last_unix_ns, window[1])
    return current


def by_workload(claims: Iterable[Progress]) -> dict[int, list[Progress]]:
    """One record's claims, by the index of their workload, each in the order of their times."""
    found: dict[int, list[Progress]] = {}
    for claim in claims:
        found.setdefault(claim.workload_index, []).append(claim)
    for mine in found.values():
        mine.sort(key=lambda c: c.t_boot_ns)
    return found


class Until(NamedTuple):
    """What the counters say of one workload up to some hour's end."""

    first_hour: int
    upper_flop: int


class Side(StrEnum):
    """How counters and claims disagree."""

    MORE = "more"  # the counters saw more than the claims allow
    LESS = "less"  # the claims are more than the counters allow


@dataclass(frozen=True, slots=True)
class Compared:
    """Claims and counters over the same hours of one run."""

    hours: tuple[int, ...]
    declared_flop: int  # model FLOP, by the claims' own formula
    tokens: int  # of the latest claim of all claimers
    parameters: int
    falls: int
    ranks: int  # processes that the latest claims speak for; 0 = the whole run
    unpriced_hours: int  # hours whose claims say neither parameters nor FLOP per token
    opening_left_out: bool  # tokens that a first claim began with could not have been done here

    @property
    def empty(self) -> bool:
        return not self.hours


class Said(NamedTuple):
    """What the claims of one hour come to."""

    flop: int
    falls: int
    priced: bool  # whether each says what a token is worth


def compared(rows: Mapping[ClaimKey, ClaimHour], until: Mapping[tuple[int, int], Until]) -> Compared:
    """What `rows` of one run claim, and over which hours it is to be held against the counters.

    `until`: (workload_no, hour) -> what the counters say of the workload up to that hour's end, for each hour with an
    opening claim.
    """
    allowed, before, left_out = opened({k: r for k, r in rows.items() if r.opening_flop}, until)
    by_hour: dict[int, list[tuple[ClaimKey, ClaimHour]]] = {}
    for key, row in sorted(rows.items()):
        by_hour.setdefault(key.hour, []).append((key, row))
    said = {hour: said_of(claimed, allowed) for hour, claimed in by_hour.items()}
    latest = by_hour[max(by_hour)] if by_hour else []
    return compared_of(said, latest, before, left_out=left_out)


def opened(
    rows: Mapping[ClaimKey, ClaimHour], until: Mapping[tuple[int, int], Until]
) -> tuple[set[ClaimKey], set[int], bool]:
    """Of opening claims: those whose tokens the counters allow; the workloads' hours before these, which count too, since
    the tokens are of them; and whether any is left out.
    """
    allowed: set[ClaimKey] = set()
    before: set[int] = set()
    for key, row in rows.items():
        known = until.get((key.workload_no, key.hour))
        if known is not None and row.opening_flop <= known.upper_flop:
            allowed.add(key)
            before.update(range(known.first_hour, key.hour))
    return allowed, before, len(allowed) < len(rows)


def said_of(claimed: Sequence[tuple[ClaimKey, ClaimHour]], allowed: Container[ClaimKey]) -> Said:
    """Of one hour's claims, in the order of their keys. `allowed`: opening claims that count."""
    worth = [(row, row.flop + (row.opening_flop if key in allowed else 0)) for key, row in claimed]
    return Said(
        _of_hour(worth), sum(row.falls for _, row in claimed), all(per_token(row) for _, row in claimed)
    )


def compared_of(
    said: Mapping[int, Said],
    latest: Sequence[tuple[ClaimKey, ClaimHour]],
    before: set[int],
    *,
    left_out: bool,
) -> Compared:
    """`said` by hour; `latest`: the claims of the last of them."""
    priced = [hour for hour, of in said.items() if of.priced]
    rows = [row for _, row in latest]
    return Compared(
        hours=tuple(sorted(before.difference(said).union(priced))),
        declared_flop=sum(of.flop for of in said.values() if of.priced),
        tokens=_of_latest([(row, row.tokens) for row in rows]),
        parameters=max((row.parameters for row in rows), default=0),
        falls=sum(of.falls for of in said.values()),
        ranks=0 if any(not row.ranks for row in rows) else sum(row.ranks for row in rows),
        unpriced_hours=len(said) - len(priced),
        opening_left_out=left_out,
    )


def _of_hour(claimed: Sequence[tuple[ClaimHour, int]]) -> int:
    """FLOP that one hour's claims come to."""
    if len(claimed) == 1:
        return claimed[0][1]
    whole = sorted((r.first_unix_ns, r.last_unix_ns, flop) for r, flop in claimed if not r.ranks)
    if not whole:
        return sum(flop for _, flop in claimed)
    found, end, largest = 0, -1, 0
    for (
        first,
        last,
        flop,
    ) in whole:  # of those that overlap in time, the largest; one after the other, their sum
        if first >= end:
            found, largest = found + largest, 0
        largest, end = max(largest, flop), max(end, last)
    return found + largest


def _of_latest(claimed: Sequence[tuple[ClaimHour, int]]) -> int:
    whole = [tokens for row, tokens in claimed if not row.ranks]
    return max(whole) if whole else sum(tokens for _, tokens in claimed)


def side_of(measured: Figure, declared_flop: int, margin_percent: int = MARGIN_PERCENT) -> Side | None:
    """How they disagree: no figure that the counters allow is within the margin of what is claimed. None: they do not."""
    if measured.lower * 100 > declared_flop * (100 + margin_percent):
        return Side.MORE
    if measured.upper * 100 < declared_flop * (100 - margin_percent):
        return Side.LESS
    return None


def progress_key(run: str, side: Side) -> str:
    """Once per run and side."""
    return f"{PROGRESS_PREFIX}{side}:{run}"
