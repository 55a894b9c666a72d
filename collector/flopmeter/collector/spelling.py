"""How instants, figures and lines are spelled, in documents, in messages and in the keys of events. Pure."""

from datetime import UTC, datetime

from flopmeter.contract.flop import Figure


def time_text(unix_ns: int) -> str:
    """RFC 3339 in UTC, to the millisecond."""
    seconds, ns = divmod(unix_ns, 1_000_000_000)
    text = datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S")
    return f"{text}.{ns // 1_000_000:03d}Z"


def minute(text: str) -> str:
    """2026-12-04 10:00, of what `time_text` wrote."""
    return text[:16].replace("T", " ")


def figure_json(figure: Figure) -> dict[str, str]:
    """lower, point, upper as decimal strings."""
    return {"lower": str(figure.lower), "point": str(figure.point), "upper": str(figure.upper)}


def threshold_text(threshold: int) -> str:
    """10^25 where it is a power of ten, else the digits."""
    digits = str(threshold)
    return f"10^{len(digits) - 1}" if digits.strip("0") == "1" else digits
