"""The regimes as they were: from the files that were kept when runs were judged by them, checked by their digests."""

import hashlib
import json
from collections.abc import Iterable, Mapping
from typing import NamedTuple

from flopmeter.collector.books import BRIDGE
from flopmeter.collector.errors import RegimeError
from flopmeter.collector.law.laws import LawFile, of_files
from flopmeter.collector.law.profiles import Profile
from flopmeter.collector.law.profiles import parse as parse_profile
from flopmeter.collector.law.regimes import Regime, parse
from flopmeter.collector.law.standing import text_of
from flopmeter.collector.report.queries import Reader

from .rederive import Difference, compare


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


class SiteLaws(NamedTuple):
    """A row of the site_laws table."""

    law_no: int
    from_position: int
    files: str


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

    def check_site(self, rows: Iterable[SiteLaws], judged: Iterable[Judgement]) -> None:
        """The site's files as they were applied: all of them kept, and those of now judged by. Raises Difference."""
        found: list[LawFile] = []
        before = 0
        for number, row in enumerate(rows, 1):
            key = f"law_no {row.law_no}"
            compare("site_laws", key, [("law_no", number, row.law_no)])
            if row.from_position < before:
                raise Difference("site_laws", key, "from_position", f"not before {before}", row.from_position)
            before = row.from_position
            found = []
            for name, digest in _files(row):
                text = self._kept.get(digest)
                if text is None:
                    raise Difference("site_laws", key, f"files, {name}", "a kept text (table texts)", digest)
                found.append(LawFile(name, text.encode()))
        now = {(j.regime, j.text) for j in judged if j.until_position is None}
        for regime in _binding(found):
            if (regime.id, text_of(regime)) not in now:
                raise Difference("judged", f"regime {regime.id}", "row", f"one by {text_of(regime)}", "none")

    def check_kept(
        self, judged: Iterable[Judgement], since_unix_ns: int | None, since_position: int | None = None
    ) -> None:
        """What was judged by since texts are kept, is kept. Raises Difference.

        `since_unix_ns`: the first text's time; None: an older flopmeter wrote all of it. `since_position`: that of the
        first commit of a flopmeter that keeps texts, which says the same where the clock was set back meanwhile.
        """
        for row in judged:
            if since_unix_ns is None:
                continue
            if row.until_position is not None and (
                row.from_unix_ns < since_unix_ns
                or (since_position is not None and row.until_position < since_position)
            ):
                continue
            for digest in row.text.split("+"):
                if digest not in self._kept:
                    key = f"regime {row.regime}, digest {row.text}"
                    raise Difference("judged", key, "digest", "one of a kept text (table texts)", digest)


def _files(row: SiteLaws) -> list[tuple[str, str]]:
    try:
        return [(str(name), str(digest)) for name, digest in json.loads(row.files)]
    except (ValueError, TypeError) as e:
        raise Difference("site_laws", f"law_no {row.law_no}", "files", "names and digests", row.files) from e


def _binding(files: Iterable[LawFile]) -> list[Regime]:
    """Of the site's own; none where this version reads them otherwise than the one that applied them."""
    try:
        laws = of_files(files)
    except RegimeError:
        return []
    ours = {f.raw.decode() for f in laws.files}
    return [r for r in laws.binding if r.text in ours]


def kept_texts(reader: Reader, given: Iterable[Regime]) -> tuple[Texts, list[Judgement]]:
    """The texts of a store, and what was judged by them. Raises Difference."""
    rows = [Text(*r) for r in reader.rows("SELECT digest, text, from_unix_ns FROM texts")]
    judged = [
        Judgement(*r) for r in reader.rows("SELECT regime, digest, from_unix_ns, until_position FROM judged")
    ]
    texts = Texts(given, rows)
    ((since_position,),) = reader.rows("SELECT min(from_position) FROM noted WHERE name = ?", (BRIDGE,))
    texts.check_kept(judged, min((row.from_unix_ns for row in rows), default=None), since_position)
    site = reader.rows("SELECT law_no, from_position, files FROM site_laws ORDER BY law_no")
    texts.check_site((SiteLaws(*r) for r in site), judged)
    return texts, judged
