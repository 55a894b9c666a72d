"""What a scrape learns of witnesses and timestamp authorities."""

from collections.abc import Iterator
from typing import Any

from prometheus_client.core import GaugeMetricFamily

from .witness_office import WitnessOffice


def families(prefix: str, office: WitnessOffice) -> Iterator[Any]:
    """Of each: what it signed last, and whether it does."""
    by_witness = {
        name: GaugeMetricFamily(f"{prefix}witness_{name}", text, labels=["witness"])
        for name, text in (
            ("cosigned_size", "Leaves under its last cosignature."),
            ("cosigned_timestamp_seconds", "When it cosigned last, by its own clock; 0: never."),
            ("failing", "1: what it answered last was no cosignature."),
            ("refusing", "1: it has cosigned another log under this one's key."),
        )
    }
    for state in office.states:
        values = (state.cosigned_size, state.cosigned_unix_s, bool(state.error), state.refused)
        for family, value in zip(by_witness.values(), values, strict=True):
            family.add_metric([state.name], float(value))
    yield from by_witness.values()
    if office.standing is not None:
        text = "1: the newest checkpoint that was asked for is cosigned as the policy wants."
        yield GaugeMetricFamily(f"{prefix}witness_quorum", text, float(office.standing.reached))
    if office.authorities is not None:
        stamped = GaugeMetricFamily(
            f"{prefix}tsa_stamped_timestamp_seconds",
            "The time in its last RFC 3161 token; 0: none since the start.",
            labels=["tsa"],
        )
        failing = GaugeMetricFamily(
            f"{prefix}tsa_failing", "1: what it answered last was no token.", labels=["tsa"]
        )
        for authority in office.authorities.authorities:
            stamped.add_metric([authority.address.shown], float(authority.stamped_unix_s))
            failing.add_metric([authority.address.shown], float(bool(authority.error)))
        yield from (stamped, failing)
