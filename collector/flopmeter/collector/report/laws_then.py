"""The regimes that runs are or were judged by, from the texts that the store kept."""

from collections.abc import Iterable
from pathlib import Path

from flopmeter.collector.check.texts import Text, Texts
from flopmeter.collector.law.regimes import Regime, in_order

from .queries import Reader, reading


def regimes_then(store: Path, unix_ns: int, here: Iterable[Regime]) -> tuple[Regime, ...]:
    """In the place of those `here`. Where nothing was judged by then, or by texts that were not kept: `here`.

    Raises StoreError.
    """
    here = tuple(here)
    with reading(store) as reader:
        found = _then(reader, unix_ns, here)
    return found or here


def regimes_now(reader: Reader, here: Iterable[Regime]) -> tuple[Regime, ...]:
    """What the collector judges by, whatever files lie here; of a text that was not kept, the one `here`."""
    here = tuple(here)
    by_id = {r.id: r for r in here}
    rows = reader.rows("SELECT regime, digest FROM judged WHERE until_position IS NULL ORDER BY from_unix_ns")
    judged = {str(regime): str(digest) for regime, digest in rows}
    if not judged:
        return here
    texts = Texts(here, (Text(*r) for r in reader.rows("SELECT digest, text, from_unix_ns FROM texts")))
    found = [texts.find(*key) or by_id.get(key[0]) for key in judged.items()]
    return in_order(r for r in found if r is not None)


def _then(reader: Reader, unix_ns: int, here: Iterable[Regime]) -> tuple[Regime, ...]:
    ((position,),) = reader.rows(
        "SELECT coalesce(max(position), 0) FROM records WHERE received_unix_ns <= ?", (unix_ns,)
    ).fetchall()
    rows = reader.rows(
        "SELECT regime, digest FROM judged WHERE from_unix_ns <= ? AND (until_position IS NULL OR until_position >= ?) "
        "ORDER BY from_unix_ns",
        (unix_ns, position),
    ).fetchall()
    judged = {str(regime): str(digest) for regime, digest in rows}  # of two texts of a regime the later
    texts = Texts(here, (Text(*r) for r in reader.rows("SELECT digest, text, from_unix_ns FROM texts")))
    found = [texts.find(*key) for key in judged.items()]
    return in_order(r for r in found if r is not None) if None not in found else ()
