"""The regimes as they were: from the files that were kept when runs were judged by them, checked by their digests."""

import hashlib
from collections.abc import Iterable, Mapping
from typing import NamedTuple

from flopmeter.collector.errors import RegimeError
from flopmeter.collector.law.profiles import Profile
from flopmeter.collector.law.profiles import parse as parse_profile
from flopmeter.collector.law.regimes import Regime, parse
from flopmeter.collector.law.standing import text_of
from flopmeter.collector.report.queries import Reader

from .rederive import Difference


class Text(NamedTuple):
    """A row of the texts table."""

    digest: str
    text: str
    from_unix_ns: int


class Judgement(NamedTuple):
    """A row of the judged table, whichever W table it was by."""

    regime: str
    text: str  # as law.standing.text_of has it
    from_unix_ns: int
    until_position: int | None


class Texts:
    """Finds a regime by the text of it that something was judged by."""

    def __init__(self, given: Iterable[Regime], kept: Iterable[Text]) -> None:
        """`given`: as they are here; each is taken for its text. Raises Difference if a kept one is another's."""
        self._found: dict[tuple[str, str], Regime | None] = {(r.id, text_of(r)): r for r in given}
        self._kept: dict[str, str] = {}
        for row in kept:
            digest = hashlib.sha256(row.text.encode()).hexdigest()
            if digest != row.digest:
                raise Difference(
                    "texts", f"digest {row.digest}", "text", "one of that SHA-256", f"one of {digest}"
                )
            self._kept[digest] = row.text

    def find(self, regime_id: str, text: str) -> Regime | None:
        """None: it is neither here nor kept, or this version cannot read it."""
        key = regime_id, text
        if key not in self._found:
            self._found[key] = self._read(*key)
        return self._found[key]

    def _read(self, regime_id: str, text: str) -> Regime | None:
        digest, _, profile_digest = text.partition("+")
        raw = self._kept.get(digest)
        if raw is None:
            return None
        try:
            own: Mapping[str, Profile] = {}
            if profile_digest:
                profile = parse_profile(f"text {profile_digest}", self._kept.get(profile_digest, "").encode())
                own = {profile.id: profile}
            regime = parse(f"text {digest}", raw.encode(), own)
        except RegimeError:
            return None
        return regime if (regime.id, text_of(regime)) == (regime_id, text) else None

    def now(self, judged: Iterable[Judgement]) -> list[Regime]:
        """What runs are judged by now; of each id that is here and not judged by, the one that is here."""
        found = {}
        for (regime_id, _), regime in self._found.items():
            if regime is not None:
                found[regime_id] = regime
        for row in judged:
            if row.until_position is None:
                regime = self.find(row.regime, row.text)
                if regime is not None:
                    found[regime.id] = regime
        return list(found.values())

    def check_kept(self, judged: Iterable[Judgement], since_unix_ns: int | None) -> None:
        """What was judged by since texts are kept, is kept. Raises Difference.

        `since_unix_ns`: the first text's time; None: an older flopmeter wrote all of it.
        """
        for row in judged:
            if since_unix_ns is None or (row.from_unix_ns < since_unix_ns and row.until_position is not None):
                continue
            for digest in row.text.split("+"):
                if digest not in self._kept:
                    key = f"regime {row.regime}, digest {row.text}"
                    raise Difference("judged", key, "digest", "one of a kept text (table texts)", digest)


def kept_texts(reader: Reader, given: Iterable[Regime]) -> tuple[Texts, list[Judgement]]:
    """The texts of a store, and what was judged by them. Raises Difference."""
    rows = [Text(*r) for r in reader.rows("SELECT digest, text, from_unix_ns FROM texts")]
    judged = [
        Judgement(*r) for r in reader.rows("SELECT regime, digest, from_unix_ns, until_position FROM judged")
    ]
    texts = Texts(given, rows)
    texts.check_kept(judged, min((row.from_unix_ns for row in rows), default=None))
    return texts, judged
